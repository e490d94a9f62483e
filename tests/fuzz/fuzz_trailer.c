/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The input is a whole file, which is judged as the store does: first its last 512 bytes, then as
 * many as the decoder asks for. What must hold is checked here, not only that nothing crashes.
 *
 * No mutation gets past a check of 64 bits, so the same file is judged once more after the checks
 * were made right, and a third time as if the artifact were as long as the trailer says.
 *
 * covers: src/entry.c
 */
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "entry.h"
#include "fuzz/fuzz.h"
#include "key.h"

#define ROOM 8u

static uint64_t get(const uint8_t *in, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | in[i];
    return value;
}

static void put(uint8_t *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

/* Decodes from the last `want` bytes, in memory of exactly that size, so that a read past either
 * end is seen. */
static int decode_tail(struct wc_trailer *out, const uint8_t *data, size_t size, size_t want,
                       uint64_t file_bytes)
{
    struct wc_error err;
    size_t n = want < size ? want : size;
    uint8_t *tail = malloc(n ? n : 1);
    int rc;
    must(tail != NULL);
    if (n)
        memcpy(tail, data + size - n, n);
    wc_error_init(&err);
    rc = wc_trailer_decode(out, tail, n, file_bytes, &err);
    must(rc >= 0 || (err.error == rc && err.message[0]));
    free(tail);
    return rc;
}

static void check_sound(const struct wc_trailer *t, uint64_t file_bytes)
{
    uint8_t again[WC_TRAILER_SIZE];
    struct wc_trailer back;
    struct wc_error err;
    uint64_t whole = t->artifact_bytes + wc_entry_padding(t->artifact_bytes);

    must(t->artifact_bytes >= 1 && whole % 8 == 0);
    must(file_bytes - whole >= WC_TRAILER_SIZE && file_bytes - whole <= WC_TRAILER_MAX);
    must(t->kind == WASMCACHE_MODULE || t->kind == WASMCACHE_COMPONENT);
    must(t->digest.kind == WC_DIGEST_XXH3_128 || t->digest.kind == WC_DIGEST_SHA256);
    must(wc_key_valid(&t->key));
    must(memchr(t->engine_namespace, 0, sizeof(t->engine_namespace)) != NULL);

    /* What was read can be written, and says the same. */
    wc_error_init(&err);
    wc_trailer_encode(again, t);
    if (whole + WC_TRAILER_SIZE <= UINT64_MAX - 7) {
        uint8_t tail[7 + WC_TRAILER_SIZE] = {0};
        memcpy(tail + 7, again, sizeof(again));
        must(wc_trailer_decode(&back, tail, sizeof(tail), whole + WC_TRAILER_SIZE, &err) == 0);
        must(memcmp(&back.digest, &t->digest, sizeof(back.digest)) == 0);
        must(memcmp(&back.key, &t->key, sizeof(back.key)) == 0);
        must(memcmp(back.fingerprint, t->fingerprint, sizeof(back.fingerprint)) == 0);
        must(strcmp(back.engine_namespace, t->engine_namespace) == 0);
        must(back.kind == t->kind && back.artifact_bytes == t->artifact_bytes &&
             back.wasm_bytes == t->wasm_bytes && back.compile_ns == t->compile_ns &&
             back.created == t->created);
    }
}

/* As read_trailer() of the store. */
static int judge(const uint8_t *data, size_t size, uint64_t file_bytes)
{
    struct wc_trailer trailer;
    size_t want = 512;
    int rc;
    for (int round = 0;; round++) {
        rc = decode_tail(&trailer, data, size, want, file_bytes);
        if (rc <= 0)
            break;
        /* It asks once, for more than it had, and for no more than there is or a trailer has. */
        must(round == 0 && (size_t)rc > want && (unsigned)rc <= WC_TRAILER_MAX + 7);
        must((uint64_t)rc <= file_bytes);
        want = (size_t)rc;
    }
    must(rc == 0 || rc == WASMCACHE_ECORRUPT || rc == WASMCACHE_ENEWER);
    if (rc == 0)
        check_sound(&trailer, file_bytes);
    return rc;
}

/* Makes the footer's magic and check right and, where its length can be one, the trailer's. */
static void repair(uint8_t *data, size_t size)
{
    static const uint8_t magic[4] = {'W', 'C', 'a', 0xC5};
    uint8_t *footer;
    size_t length;
    if (size < WC_FOOTER_SIZE)
        return;
    footer = data + size - WC_FOOTER_SIZE;
    memcpy(footer + 12, magic, sizeof(magic));
    put(footer + 8, XXH3_64bits(footer, 8), 4);
    length = (size_t)get(footer, 4);
    if (length >= 8 + WC_FOOTER_SIZE && length <= size)
        put(data + size - length, XXH3_64bits(data + size - length + 8, length - 8), 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wc_trailer ignored;
    uint8_t *copy;
    size_t length;
    uint64_t artifact;
    int rc = judge(data, size, size);

    /* How much of the end is at hand changes how it is judged only by asking for more. */
    must(decode_tail(&ignored, data, size, size, size) == rc);
    for (size_t n = 0; n < 600; n += 97) {
        int other = decode_tail(&ignored, data, size, n, size);
        must(other == rc || other > (int)n || (n < WC_FOOTER_SIZE && other == WASMCACHE_ECORRUPT));
    }

    /* Room for padding in front, where the artifact of the third time would be. */
    copy = calloc(1, ROOM + size);
    must(copy != NULL);
    if (size)
        memcpy(copy + ROOM, data, size);
    repair(copy + ROOM, size);
    judge(copy + ROOM, size, size);

    length = size >= WC_FOOTER_SIZE ? (size_t)get(copy + ROOM + size - WC_FOOTER_SIZE, 4) : 0;
    if (length >= WC_TRAILER_SIZE && length <= size) {
        artifact = get(copy + ROOM + size - length + 16, 8);
        if (artifact <= UINT64_MAX - length - 7 && artifact + length >= ROOM + size)
            judge(copy, ROOM + size, artifact + wc_entry_padding(artifact) + length);
        judge(copy, ROOM + size, UINT64_MAX);
    }
    free(copy);
    return 0;
}
