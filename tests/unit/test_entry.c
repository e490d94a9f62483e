/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format: trailers as they are written and read, and that no damage and no lie in them gets
 * through. tests/golden/ has entries that another program wrote.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <xxhash.h>

#include "cache.h"
#include "entry.h"
#include "key.h"
#include "publish.h"
#include "support/scratch.h"

/* Offsets in the trailer, from docs/format.md. */
enum {
    KIND = 8,
    DIGEST_KIND = 12,
    ARTIFACT_LENGTH = 16,
    DIGEST = 24,
    KEY_ALGORITHM = 56,
    KEY_LENGTH = 57,
    ZERO1 = 58,
    KEY = 64,
    FINGERPRINT = 96,
    WASM_LENGTH = 128,
    COMPILE_TIME = 136,
    CREATED = 144,
    ZERO2 = 152,
    KEY_ID = 160,
    SIGNATURE = 176,
    NAMESPACE = 240,
    ADDED = 400
};

#define FIRST_READ ((size_t)512) /* what the store takes at first */

static const char golden_namespace[] = "wasmtime-cranelift-23F91500F4B83756-v50";
static const char golden_artifact[] = "tiny artifact";
static const char golden_key[] = "93A44BBB96C751218E4C00D479E4C14358122A389ACCA16205B1E4D0DC5F9476";
static const char golden_fingerprint[] =
    "23F91500F4B83756B1ED7A5BA559D50774E4632350794D80C8E12591C6DCC6E2";

/* ---- files in memory ---- */

struct file {
    uint8_t *bytes;
    size_t size;
};

static void put(uint8_t *out, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static void *must_have(void *memory)
{
    assert_non_null(memory);
    return memory;
}

static struct file file_copy(const struct file *from)
{
    struct file f = {must_have(malloc(from->size + 1)), from->size};
    memcpy(f.bytes, from->bytes, from->size);
    return f;
}

static struct file golden_file(const char *name)
{
    char path[1024];
    struct file f;
    snprintf(path, sizeof(path), "%s/golden/%s.bin", TESTS_DIR, name);
    f.bytes = scratch_read(path, &f.size);
    return f;
}

static void key_of_hex(wasmcache_key *key, const char *hex)
{
    assert_int_equal(wasmcache_key_from_hex(key, hex), 0);
}

static void digest_of(struct wc_digest *out, enum wc_digest_kind kind, const void *bytes,
                      size_t length)
{
    struct wc_digest_state *state = must_have(wc_digest_start(kind));
    wc_digest_add(state, bytes, length);
    memset(out, 0xEE, sizeof(*out));
    wc_digest_finish(state, out);
}

/* What tests/golden/good.bin says. */
static struct wc_trailer golden_trailer(void)
{
    struct wc_trailer t;
    wasmcache_key fingerprint;
    memset(&t, 0, sizeof(t));
    t.kind = WASMCACHE_MODULE;
    t.artifact_bytes = strlen(golden_artifact);
    digest_of(&t.digest, WC_DIGEST_XXH3_128, golden_artifact, strlen(golden_artifact));
    key_of_hex(&t.key, golden_key);
    key_of_hex(&fingerprint, golden_fingerprint);
    memcpy(t.fingerprint, fingerprint.bytes, 32);
    t.wasm_bytes = 8;
    t.compile_ns = 9600000000u;
    t.created = 1700000000u;
    strcpy(t.engine_namespace, golden_namespace);
    return t;
}

/* An entry as the library writes it, but for the artifact's bytes. */
static struct file entry_of(const struct wc_trailer *t, const void *artifact)
{
    const size_t length = (size_t)t->artifact_bytes, padding = wc_entry_padding(length);
    struct file f = {NULL, length + padding + WC_TRAILER_SIZE};
    f.bytes = must_have(calloc(1, f.size));
    memcpy(f.bytes, artifact, length);
    wc_trailer_encode(f.bytes + length + padding, t);
    return f;
}

static uint8_t *trailer_in(const struct file *f, size_t length)
{
    return f->bytes + f->size - length;
}

/* Makes both checks right again after a change: what a liar would write, not damage. */
static void set_checks(struct file *f, size_t length)
{
    uint8_t *t = trailer_in(f, length), *footer = f->bytes + f->size - WC_FOOTER_SIZE;
    put(footer + 8, XXH3_64bits(footer, 8), 4);
    put(t, XXH3_64bits(t + 8, length - 8), 8);
}

/* The good entry with `added` bytes of fields that a later compatible version has. */
static struct file compatible_of(size_t added)
{
    struct wc_trailer t = golden_trailer();
    struct file good = entry_of(&t, golden_artifact), f;
    const size_t at = good.size - WC_FOOTER_SIZE, length = WC_TRAILER_SIZE + added;
    f.size = good.size + added;
    f.bytes = must_have(malloc(f.size));
    memcpy(f.bytes, good.bytes, at);
    for (size_t i = 0; i < added; i++)
        f.bytes[at + i] = (uint8_t)(i * 31 + 1);
    memcpy(f.bytes + at + added, good.bytes + at, WC_FOOTER_SIZE);
    put(f.bytes + at + added, length, 4);
    put(f.bytes + at + added + 6, 1, 2);
    if (length <= f.size)
        set_checks(&f, length);
    free(good.bytes);
    return f;
}

/* Decodes the last `size` bytes, in memory of exactly that size. */
static int decode(struct wc_trailer *out, const struct file *f, size_t size, uint64_t file_bytes)
{
    struct wc_error err;
    uint8_t *tail = must_have(malloc(size ? size : 1));
    int rc;
    memcpy(tail, f->bytes + f->size - size, size);
    wc_error_init(&err);
    rc = wc_trailer_decode(out, tail, size, file_bytes, &err);
    free(tail);
    if (rc < 0) {
        assert_int_equal(err.error, rc);
        assert_true(strlen(err.message) > 10);
    } else {
        assert_int_equal(err.error, 0);
    }
    return rc;
}

/* As the store does: the last 512 bytes, then as many as are asked for. */
static int judge(struct wc_trailer *out, const struct file *f)
{
    int rc = decode(out, f, f->size < FIRST_READ ? f->size : FIRST_READ, f->size);
    if (rc <= 0)
        return rc;
    assert_true((size_t)rc > FIRST_READ && (size_t)rc <= f->size);
    assert_true((size_t)rc <= WC_TRAILER_MAX + 7);
    return decode(out, f, (size_t)rc, f->size);
}

static int judgement(const struct file *f)
{
    struct wc_trailer ignored;
    return judge(&ignored, f);
}

static void assert_same(const struct wc_trailer *a, const struct wc_trailer *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_int_equal(a->digest.kind, b->digest.kind);
    assert_memory_equal(a->digest.bytes, b->digest.bytes, sizeof(a->digest.bytes));
    assert_true(a->artifact_bytes == b->artifact_bytes);
    assert_true(wasmcache_key_equal(&a->key, &b->key));
    assert_memory_equal(a->fingerprint, b->fingerprint, sizeof(a->fingerprint));
    assert_true(a->wasm_bytes == b->wasm_bytes);
    assert_true(a->compile_ns == b->compile_ns);
    assert_true(a->created == b->created);
    assert_string_equal(a->engine_namespace, b->engine_namespace);
}

/* ---- what is written is read ---- */

static void padding_fills_up_to_eight(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 64; n++) {
        assert_true(wc_entry_padding(n) < 8);
        assert_int_equal((n + wc_entry_padding(n)) % 8, 0);
    }
    assert_int_equal(wc_entry_padding(UINT64_MAX), 1);
    assert_int_equal(wc_entry_padding(UINT64_MAX - 7), 0);
}

static void round_trip(void **state)
{
    static const uint64_t numbers[] = {0, 1, 255, 256, 0x0123456789ABCDEF, UINT64_MAX};
    uint8_t artifact[24];
    (void)state;
    for (size_t i = 0; i < sizeof(artifact); i++)
        artifact[i] = (uint8_t)(0xA0 + i);
    for (size_t length = 1; length <= sizeof(artifact); length++)
        for (size_t n = 0; n < sizeof(numbers) / sizeof(*numbers); n++) {
            struct wc_trailer t = golden_trailer(), back;
            struct file f;
            t.kind = n % 2 ? WASMCACHE_MODULE : WASMCACHE_COMPONENT;
            t.artifact_bytes = length;
            digest_of(&t.digest, n % 3 ? WC_DIGEST_XXH3_128 : WC_DIGEST_SHA256, artifact, length);
            if (n % 2)
                key_of_hex(&t.key, "0CC78860D414714C");
            t.wasm_bytes = numbers[n];
            t.compile_ns = ~numbers[n];
            t.created = numbers[n] / 3;
            memset(t.engine_namespace, 0, sizeof(t.engine_namespace));
            memset(t.engine_namespace, 'n', n * 28); /* up to the longest */
            f = entry_of(&t, artifact);
            memset(&back, 0xEE, sizeof(back));
            assert_int_equal(judge(&back, &f), 0);
            assert_same(&back, &t);
            free(f.bytes);
        }
}

/* Every byte of the trailer is set by the encoder, so no stale memory gets on disk. */
static void encoder_leaves_no_byte(void **state)
{
    struct wc_trailer t = golden_trailer();
    uint8_t a[WC_TRAILER_SIZE], b[WC_TRAILER_SIZE];
    static const uint8_t zero[160];
    (void)state;
    memset(a, 0x00, sizeof(a));
    memset(b, 0xFF, sizeof(b));
    wc_trailer_encode(a, &t);
    wc_trailer_encode(b, &t);
    assert_memory_equal(a, b, sizeof(a));
    assert_memory_equal(a + ZERO1, zero, KEY - ZERO1);
    assert_memory_equal(a + ZERO2, zero, NAMESPACE - ZERO2); /* not signed */
    assert_memory_equal(a + NAMESPACE + strlen(golden_namespace), zero,
                        160 - strlen(golden_namespace));
}

static void digests(void **state)
{
    uint8_t bytes[1000], expected[32];
    struct wc_digest at_once, in_parts;
    static const uint8_t zero[16];
    (void)state;
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * i);
    for (int k = WC_DIGEST_XXH3_128; k <= WC_DIGEST_SHA256; k++)
        for (size_t length = 0; length <= sizeof(bytes); length += 37)
            for (size_t cut = 0; cut <= length; cut += 61) {
                const enum wc_digest_kind kind = (enum wc_digest_kind)k;
                struct wc_digest_state *digest = must_have(wc_digest_start(kind));
                wc_digest_add(digest, bytes, cut);
                wc_digest_add(digest, bytes + cut, length - cut);
                memset(&in_parts, 0xEE, sizeof(in_parts));
                wc_digest_finish(digest, &in_parts);
                digest_of(&at_once, kind, bytes, length);
                assert_int_equal(in_parts.kind, kind);
                assert_memory_equal(in_parts.bytes, at_once.bytes, sizeof(at_once.bytes));
                wc_sha256(expected, bytes, length);
                if (kind == WC_DIGEST_SHA256)
                    assert_memory_equal(in_parts.bytes, expected, 32);
                else
                    assert_memory_equal(in_parts.bytes + 16, zero, sizeof(zero));
            }
    for (int k = WC_DIGEST_XXH3_128; k <= WC_DIGEST_SHA256; k++)
        wc_digest_free(must_have(wc_digest_start((enum wc_digest_kind)k)));
    wc_digest_free(NULL);
}

/* How much of the end is at hand changes the answer only by asking for more. */
static void tails_of_all_sizes(void **state)
{
    (void)state;
    for (size_t added = 0; added <= 600; added += 200) {
        struct file f = compatible_of(added);
        const size_t length = WC_TRAILER_SIZE + added;
        const size_t need = length + 7 < f.size ? length + 7 : f.size;
        struct wc_trailer ignored;
        for (size_t size = 0; size <= f.size; size++) {
            int rc = decode(&ignored, &f, size, f.size);
            if (size < WC_FOOTER_SIZE)
                assert_int_equal(rc, WASMCACHE_ECORRUPT);
            else if (size < need)
                assert_int_equal(rc, need);
            else
                assert_int_equal(rc, 0);
        }
        free(f.bytes);
    }
}

/* ---- damage ---- */

static void every_bit_of_trailer_and_padding(void **state)
{
    static const char artifact[] = "0123456789abcdef";
    unsigned flips = 0;
    (void)state;
    for (size_t length = 1; length <= 16; length++) {
        struct wc_trailer t = golden_trailer();
        struct file f;
        t.artifact_bytes = length;
        f = entry_of(&t, artifact);
        assert_int_equal(judgement(&f), 0);
        for (size_t bit = length * 8; bit < f.size * 8; bit++) {
            f.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
            f.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
            flips++;
        }
        assert_int_equal(judgement(&f), 0);
        free(f.bytes);
    }
    /* Twice each width of padding, 0 to 7. */
    assert_int_equal(flips, (16 * WC_TRAILER_SIZE + 2 * (7 * 8 / 2)) * 8);
}

static void every_bit_of_a_longer_trailer(void **state)
{
    struct file f = golden_file("newer-compatible-long");
    (void)state;
    for (size_t bit = strlen(golden_artifact) * 8; bit < f.size * 8; bit++) {
        f.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
        f.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(f.bytes);
}

/* An entry of a newer version stays for ever, so a damaged one must not look like it. */
static void damage_never_looks_newer(void **state)
{
    struct wc_trailer t = golden_trailer();
    struct file f = entry_of(&t, golden_artifact);
    uint8_t *footer = f.bytes + f.size - WC_FOOTER_SIZE;
    (void)state;
    for (unsigned a = 0; a < WC_FOOTER_SIZE * 8; a++)
        for (unsigned b = 0; b < a; b++) {
            footer[a / 8] ^= (uint8_t)(1u << a % 8);
            footer[b / 8] ^= (uint8_t)(1u << b % 8);
            assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
            footer[a / 8] ^= (uint8_t)(1u << a % 8);
            footer[b / 8] ^= (uint8_t)(1u << b % 8);
        }
    for (unsigned version = 0; version <= UINT16_MAX; version++) {
        put(footer + 4, version, 2);
        assert_int_equal(judgement(&f), version == WC_FORMAT_INCOMPATIBLE ? 0 : WASMCACHE_ECORRUPT);
    }
    free(f.bytes);

    /* And one that is newer, and damaged where we can see it. */
    f = golden_file("newer-incompatible");
    footer = f.bytes + f.size - WC_FOOTER_SIZE;
    assert_int_equal(judgement(&f), WASMCACHE_ENEWER);
    for (unsigned bit = 0; bit < WC_FOOTER_SIZE * 8; bit++) {
        footer[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
        footer[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    free(f.bytes);
}

static void every_bit_of_an_artifact(void **state)
{
    struct file f = golden_file("good");
    struct wc_trailer t;
    struct wc_digest digest;
    (void)state;
    for (size_t bit = 0; bit < strlen(golden_artifact) * 8; bit++) {
        f.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(judge(&t, &f), 0); /* the trailer is sound; the digest tells */
        digest_of(&digest, t.digest.kind, f.bytes, (size_t)t.artifact_bytes);
        assert_memory_not_equal(digest.bytes, t.digest.bytes, sizeof(digest.bytes));
        f.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    digest_of(&digest, t.digest.kind, f.bytes, (size_t)t.artifact_bytes);
    assert_memory_equal(digest.bytes, t.digest.bytes, sizeof(digest.bytes));
    free(f.bytes);
}

static void every_truncation(void **state)
{
    static const char *const names[] = {"good", "tiny", "newer-compatible", "newer-compatible-long",
                                        "newer-incompatible"};
    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct file f = golden_file(names[i]);
        const size_t whole = f.size;
        for (f.size = 0; f.size < whole; f.size++)
            assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
        /* The beginning is missing: the trailer is whole, the file too short for it. */
        f.size = whole;
        for (size_t cut = 1; cut < whole; cut++) {
            struct file rest = {f.bytes + cut, whole - cut};
            int rc = judgement(&rest);
            assert_true(rc == WASMCACHE_ECORRUPT || (rc == WASMCACHE_ENEWER && i == 4));
        }
        free(f.bytes);
    }
}

static void extra_tails(void **state)
{
    struct file good = golden_file("good"), f;
    (void)state;
    f.bytes = must_have(malloc(good.size * 2 + 1024));
    for (int fill = 0; fill < 256; fill += 51)
        for (size_t more = 1; more <= 1024; more += more < 32 ? 1 : 31) {
            memcpy(f.bytes, good.bytes, good.size);
            memset(f.bytes + good.size, fill, more);
            f.size = good.size + more;
            assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
        }
    /* Two entries, one behind the other; and bytes between artifact and padding. */
    memcpy(f.bytes + good.size, good.bytes, good.size);
    f.size = 2 * good.size;
    assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
    for (size_t more = 1; more <= 64; more++) {
        memset(f.bytes, 0, more);
        memcpy(f.bytes + more, good.bytes, good.size);
        f.size = good.size + more;
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
    }
    free(f.bytes);
    free(good.bytes);
}

static void swapped_parts(void **state)
{
    struct file good = golden_file("good"), f = file_copy(&good);
    (void)state;
    for (size_t cut = 1; cut < good.size; cut++) {
        memcpy(f.bytes, good.bytes + cut, good.size - cut);
        memcpy(f.bytes + good.size - cut, good.bytes, cut);
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
    }
    free(f.bytes);
    free(good.bytes);
}

/* What a power cut leaves of a file whose length was written before its bytes. */
static void zeroed_parts(void **state)
{
    static const size_t blocks[] = {8, 16, 64, 512};
    struct file good = golden_file("newer-compatible-long"), f = file_copy(&good);
    const size_t from = strlen(golden_artifact);
    (void)state;
    for (size_t start = from; start < good.size; start++) {
        memcpy(f.bytes, good.bytes, good.size);
        memset(f.bytes + start, 0, good.size - start);
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
    }
    for (size_t i = 0; i < sizeof(blocks) / sizeof(*blocks); i++)
        for (size_t start = 16; start < good.size; start += blocks[i]) {
            size_t n = good.size - start < blocks[i] ? good.size - start : blocks[i];
            memcpy(f.bytes, good.bytes, good.size);
            memset(f.bytes + start, 0, n);
            if (memcmp(f.bytes, good.bytes, good.size) != 0)
                assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
        }
    free(f.bytes);
    free(good.bytes);
}

static void files_that_are_no_entries(void **state)
{
    struct file f = {must_have(malloc(5000)), 0};
    struct wc_trailer t = golden_trailer();
    (void)state;
    for (f.size = 0; f.size <= 5000; f.size += f.size < 600 ? 1 : 400) {
        memset(f.bytes, 0, f.size);
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
        memset(f.bytes, 0xFF, f.size);
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
        for (size_t i = 0; i + 4 <= f.size; i += 4)
            memcpy(f.bytes + i, "WCa\xc5", 4);
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
    }
    /* A trailer alone, with nothing before it; also if it says so, or if the sum wraps around. */
    f.size = WC_TRAILER_SIZE;
    for (uint64_t n = 0; n < 32; n++) {
        t.artifact_bytes = n - 16;
        wc_trailer_encode(f.bytes, &t);
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
    }
    free(f.bytes);
}

/* What has no trailer of ours may be another program's; what has a broken one is ours. */
static void foreign_or_damaged(void **state)
{
    struct file f = golden_file("good");
    struct wc_trailer ignored;
    (void)state;
    for (size_t bit = 16 * 8; bit < f.size * 8; bit++) {
        struct wc_error err;
        wc_error_init(&err);
        f.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(wc_trailer_decode(&ignored, f.bytes, f.size, f.size, &err),
                         WASMCACHE_ECORRUPT);
        assert_int_equal(err.foreign, bit / 8 >= f.size - 4); /* the magic */
        f.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t size = 0; size < WC_FOOTER_SIZE; size++) {
        struct wc_error err;
        wc_error_init(&err);
        assert_int_equal(wc_trailer_decode(&ignored, f.bytes, size, size, &err),
                         WASMCACHE_ECORRUPT);
        assert_int_equal(err.foreign, 1);
    }
    free(f.bytes);
}

/* ---- versions ---- */

static void newer_incompatible_versions(void **state)
{
    (void)state;
    for (unsigned version = 0; version <= UINT16_MAX; version += version < 300 ? 1 : 97) {
        struct file f = golden_file("good");
        uint8_t *footer = f.bytes + f.size - WC_FOOTER_SIZE;
        const int rc = version == WC_FORMAT_INCOMPATIBLE ? 0 : WASMCACHE_ENEWER;
        put(footer + 4, version, 2);
        set_checks(&f, WC_TRAILER_SIZE);
        assert_int_equal(judgement(&f), rc);
        free(f.bytes);
    }
}

/* Of such a version only the footer is known: not where its trailer begins, nor what is in it. */
static void newer_incompatible_versions_are_not_looked_into(void **state)
{
    static const uint32_t lengths[] = {0, 8, 16, 17, 416, 4096, 4104, 1u << 20u, UINT32_MAX};
    struct wc_trailer ignored;
    (void)state;
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        struct file f = {must_have(malloc(WC_FOOTER_SIZE)), WC_FOOTER_SIZE};
        put(f.bytes, lengths[i], 4);
        put(f.bytes + 4, 2, 2);
        put(f.bytes + 6, 0xFFFF, 2);
        put(f.bytes + 8, XXH3_64bits(f.bytes, 8), 4);
        memcpy(f.bytes + 12, "WCa\xc5", 4);
        assert_int_equal(decode(&ignored, &f, f.size, f.size), WASMCACHE_ENEWER);
        assert_int_equal(decode(&ignored, &f, f.size, UINT64_MAX), WASMCACHE_ENEWER);
        free(f.bytes);
    }
}

static void newer_compatible_versions_are_read(void **state)
{
    const struct wc_trailer good = golden_trailer();
    unsigned second_reads = 0;
    (void)state;
    for (size_t added = 0; added <= WC_TRAILER_MAX - WC_TRAILER_SIZE; added += 8) {
        struct file f = compatible_of(added);
        struct wc_trailer t;
        assert_int_equal(judge(&t, &f), 0);
        assert_same(&t, &good);
        second_reads += f.size > FIRST_READ && decode(&t, &f, FIRST_READ, f.size) > (int)FIRST_READ;
        free(f.bytes);
    }
    assert_true(second_reads > 400);
}

static void trailers_of_impossible_lengths(void **state)
{
    (void)state;
    for (size_t added = 1; added < 64; added++) { /* no multiple of 8 */
        struct file f = compatible_of(added);
        assert_int_equal(judgement(&f), added % 8 ? WASMCACHE_ECORRUPT : 0);
        free(f.bytes);
    }
    for (size_t added = WC_TRAILER_MAX - WC_TRAILER_SIZE + 8; added < 5000; added += 8) {
        struct file f = compatible_of(added);
        assert_int_equal(judgement(&f), WASMCACHE_ECORRUPT);
        free(f.bytes);
    }
    /* Shorter than format 1.0, or longer than the file; the footer's check is right. */
    for (uint32_t length = 0; length < 2000; length++) {
        struct file f = golden_file("good");
        put(f.bytes + f.size - WC_FOOTER_SIZE, length, 4);
        if (length >= 24 && length <= f.size) {
            set_checks(&f, length);
        } else {
            uint8_t *footer = f.bytes + f.size - WC_FOOTER_SIZE;
            put(footer + 8, XXH3_64bits(footer, 8), 4);
        }
        assert_int_equal(judgement(&f), length == WC_TRAILER_SIZE ? 0 : WASMCACHE_ECORRUPT);
        free(f.bytes);
    }
}

/* ---- lies: the checks are right, what they protect cannot be ---- */

/* Judges the good entry with `bytes` bytes of `value` at `at` in its trailer. */
static int judge_lie(int at, uint64_t value, int bytes)
{
    struct file f = golden_file("good");
    int rc;
    put(trailer_in(&f, WC_TRAILER_SIZE) + at, value, bytes);
    set_checks(&f, WC_TRAILER_SIZE);
    rc = judgement(&f);
    free(f.bytes);
    return rc;
}

static void artifacts_of_impossible_lengths(void **state)
{
    const uint64_t good = strlen(golden_artifact);
    struct wc_trailer ignored;
    (void)state;
    /* Zeros of the padding can be said to be the artifact's; its digest then tells. */
    for (uint64_t n = 0; n < 2048; n++)
        assert_int_equal(judge_lie(ARTIFACT_LENGTH, n, 8),
                         n >= good && n <= 16 ? 0 : WASMCACHE_ECORRUPT);
    for (size_t n = good + 1; n <= 16; n++) {
        struct wc_trailer t = golden_trailer();
        struct wc_digest digest;
        digest_of(&digest, t.digest.kind, "tiny artifact\0\0", n);
        assert_memory_not_equal(digest.bytes, t.digest.bytes, sizeof(digest.bytes));
    }
    for (uint64_t n = 0; n < 2048; n++)
        assert_int_equal(judge_lie(ARTIFACT_LENGTH, UINT64_MAX - n, 8), WASMCACHE_ECORRUPT);
    for (int shift = 12; shift < 64; shift++)
        for (int n = -1; n <= 1; n++)
            assert_int_equal(
                judge_lie(ARTIFACT_LENGTH, (UINT64_C(1) << shift) + good * (uint64_t)n, 8),
                WASMCACHE_ECORRUPT);

    /* Files as long as that: only one length fits each, none wraps around. */
    for (uint64_t n = 0; n < 1024; n++) {
        const uint64_t artifact = UINT64_MAX - WC_TRAILER_SIZE - 7 - n;
        const uint64_t whole = artifact + wc_entry_padding(artifact) + WC_TRAILER_SIZE;
        struct file f = golden_file("good");
        put(trailer_in(&f, WC_TRAILER_SIZE) + ARTIFACT_LENGTH, artifact, 8);
        memset(f.bytes, 0, f.size - WC_TRAILER_SIZE);
        set_checks(&f, WC_TRAILER_SIZE);
        assert_int_equal(decode(&ignored, &f, f.size, whole), 0);
        assert_int_equal(decode(&ignored, &f, f.size, whole - 1), WASMCACHE_ECORRUPT);
        assert_int_equal(decode(&ignored, &f, f.size, whole - 8), WASMCACHE_ECORRUPT);
        assert_int_equal(decode(&ignored, &f, f.size, f.size), WASMCACHE_ECORRUPT);
        if (whole != UINT64_MAX)
            assert_int_equal(decode(&ignored, &f, f.size, UINT64_MAX), WASMCACHE_ECORRUPT);
        free(f.bytes);
    }
}

static void unknown_kinds(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 1000; n++) {
        assert_int_equal(judge_lie(KIND, n, 4), n == 1 || n == 2 ? 0 : WASMCACHE_ECORRUPT);
        assert_int_equal(judge_lie(DIGEST_KIND, n, 4), n == 1 || n == 2 ? 0 : WASMCACHE_ECORRUPT);
    }
    assert_int_equal(judge_lie(KIND, UINT32_MAX, 4), WASMCACHE_ECORRUPT);
    assert_int_equal(judge_lie(KIND, 0x01000000, 4), WASMCACHE_ECORRUPT); /* 1, other-endian */
    assert_int_equal(judge_lie(DIGEST_KIND, UINT32_MAX, 4), WASMCACHE_ECORRUPT);
    assert_int_equal(judge_lie(DIGEST_KIND, 0x01000000, 4), WASMCACHE_ECORRUPT);
}

static void digests_that_are_too_long(void **state)
{
    (void)state;
    for (int at = 0; at < 32; at++) /* of 16 bytes, and nothing behind them */
        assert_int_equal(judge_lie(DIGEST + at, 0x5A, 1), at < 16 ? 0 : WASMCACHE_ECORRUPT);
}

static void keys_that_are_none(void **state)
{
    (void)state;
    for (uint64_t algorithm = 0; algorithm < 256; algorithm++)
        for (uint64_t length = 0; length < 256; length++)
            if (algorithm < 4 || length % 16 == 0)
                assert_int_equal(judge_lie(KEY_ALGORITHM, algorithm | length << 8, 2),
                                 algorithm == 1 && length == 32 ? 0 : WASMCACHE_ECORRUPT);
    for (int at = ZERO1; at < KEY; at++)
        assert_int_equal(judge_lie(at, 1, 1), WASMCACHE_ECORRUPT);
    /* A short key with something behind it. */
    for (int at = 0; at < 32; at++) {
        struct file f = golden_file("xxh64-key");
        trailer_in(&f, WC_TRAILER_SIZE)[KEY + at] = 0x5A;
        set_checks(&f, WC_TRAILER_SIZE);
        assert_int_equal(judgement(&f), at < 8 ? 0 : WASMCACHE_ECORRUPT);
        free(f.bytes);
    }
}

static void namespaces_that_are_too_long(void **state)
{
    (void)state;
    for (size_t length = 0; length <= 160; length++) {
        struct file f = golden_file("good");
        struct wc_trailer t;
        int rc;
        memset(trailer_in(&f, WC_TRAILER_SIZE) + NAMESPACE, 0, 160);
        memset(trailer_in(&f, WC_TRAILER_SIZE) + NAMESPACE, 'n', length);
        set_checks(&f, WC_TRAILER_SIZE);
        rc = judge(&t, &f);
        assert_int_equal(rc, length < WC_NAMESPACE_SIZE ? 0 : WASMCACHE_ECORRUPT);
        if (rc == 0)
            assert_int_equal(strlen(t.engine_namespace), length);
        free(f.bytes);
    }
}

/* Room that compatible versions may use: 1.0 does not look at it. */
static void fields_that_are_not_looked_at(void **state)
{
    (void)state;
    for (int at = ZERO2; at < NAMESPACE; at++)
        assert_int_equal(judge_lie(at, 0xA5, 1), 0);
}

/* ---- golden files ---- */

struct golden {
    const char *name;
    int rc;
    enum { WRITTEN, READ_ONLY } same; /* our encoder makes the same bytes */
    wasmcache_kind kind;
    enum wc_digest_kind digest_kind;
    const char *digest, *key;
    const char *artifact;
    int reproducible;
    size_t trailer; /* its length */
};

#define XXH3_OF_ARTIFACT "87A93F8D1698E54C5CC097AF418511B9"
#define SHA_OF_ARTIFACT "EF79710B417F0ED61BF4E37B21A6C3A6F10FF329E909C606F98C8CDC4B76304B"

static const struct golden golden[] = {
    {"good", 0, WRITTEN, WASMCACHE_MODULE, WC_DIGEST_XXH3_128, XXH3_OF_ARTIFACT, golden_key,
     golden_artifact, 0, 416},
    {"component", 0, WRITTEN, WASMCACHE_COMPONENT, WC_DIGEST_XXH3_128, XXH3_OF_ARTIFACT, golden_key,
     golden_artifact, 0, 416},
    {"reproducible", 0, WRITTEN, WASMCACHE_MODULE, WC_DIGEST_XXH3_128, XXH3_OF_ARTIFACT, golden_key,
     golden_artifact, 1, 416},
    {"tiny", 0, WRITTEN, WASMCACHE_MODULE, WC_DIGEST_XXH3_128, "71D3B97D97EE075540F22CE7CA17BD07",
     golden_key, "\xa5", 0, 416},
    {"sha256-digest", 0, WRITTEN, WASMCACHE_MODULE, WC_DIGEST_SHA256, SHA_OF_ARTIFACT, golden_key,
     golden_artifact, 0, 416},
    {"xxh64-key", 0, WRITTEN, WASMCACHE_MODULE, WC_DIGEST_XXH3_128, XXH3_OF_ARTIFACT,
     "BA349D406B1C752D", golden_artifact, 0, 416},
    {"newer-compatible", 0, READ_ONLY, WASMCACHE_MODULE, WC_DIGEST_XXH3_128, XXH3_OF_ARTIFACT,
     golden_key, golden_artifact, 0, 448},
    {"newer-compatible-long", 0, READ_ONLY, WASMCACHE_MODULE, WC_DIGEST_XXH3_128, XXH3_OF_ARTIFACT,
     golden_key, golden_artifact, 0, 1024},
    {"newer-incompatible", WASMCACHE_ENEWER, READ_ONLY, WASMCACHE_MODULE, WC_DIGEST_XXH3_128, "",
     "", "", 0, 0},
    {"bad-trailer", WASMCACHE_ECORRUPT, READ_ONLY, WASMCACHE_MODULE, WC_DIGEST_XXH3_128, "", "", "",
     0, 0},
    {"other-endian", WASMCACHE_ECORRUPT, READ_ONLY, WASMCACHE_MODULE, WC_DIGEST_XXH3_128, "", "",
     "", 0, 0},
};

#define GOLDEN_COUNT (sizeof(golden) / sizeof(*golden))

static void assert_golden(const struct golden *g, const struct file *f, const struct wc_trailer *t)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    struct wc_digest digest;
    assert_int_equal(t->kind, g->kind);
    assert_int_equal(t->digest.kind, g->digest_kind);
    wc_hex(hex, t->digest.bytes, strlen(g->digest) / 2);
    assert_string_equal(hex, g->digest);
    assert_int_equal(t->artifact_bytes, strlen(g->artifact));
    assert_memory_equal(f->bytes, g->artifact, strlen(g->artifact));
    digest_of(&digest, t->digest.kind, f->bytes, (size_t)t->artifact_bytes);
    assert_memory_equal(digest.bytes, t->digest.bytes, sizeof(digest.bytes));
    assert_string_equal(wasmcache_key_to_hex(hex, &t->key), g->key);
    wc_hex(hex, t->fingerprint, 32);
    assert_string_equal(hex, golden_fingerprint);
    assert_int_equal(t->wasm_bytes, 8);
    assert_true(t->compile_ns == (g->reproducible ? 0 : 9600000000u));
    assert_true(t->created == (g->reproducible ? 0 : 1700000000u));
    assert_string_equal(t->engine_namespace, golden_namespace);
    assert_int_equal(f->size, t->artifact_bytes + wc_entry_padding(t->artifact_bytes) + g->trailer);
}

static void golden_files_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < GOLDEN_COUNT; i++) {
        struct file f = golden_file(golden[i].name);
        struct wc_trailer t;
        print_message("  %s\n", golden[i].name);
        assert_int_equal(judge(&t, &f), golden[i].rc);
        if (golden[i].rc == 0)
            assert_golden(&golden[i], &f, &t);
        free(f.bytes);
    }
}

static void golden_files_are_written(void **state)
{
    unsigned written = 0;
    (void)state;
    for (size_t i = 0; i < GOLDEN_COUNT; i++) {
        struct file theirs, ours;
        struct wc_trailer t = golden_trailer();
        if (golden[i].same != WRITTEN)
            continue;
        t.kind = golden[i].kind;
        t.artifact_bytes = strlen(golden[i].artifact);
        digest_of(&t.digest, golden[i].digest_kind, golden[i].artifact, strlen(golden[i].artifact));
        key_of_hex(&t.key, golden[i].key);
        if (golden[i].reproducible)
            t.compile_ns = t.created = 0;
        ours = entry_of(&t, golden[i].artifact);
        theirs = golden_file(golden[i].name);
        print_message("  %s\n", golden[i].name);
        assert_int_equal(ours.size, theirs.size);
        assert_memory_equal(ours.bytes, theirs.bytes, ours.size);
        free(ours.bytes);
        free(theirs.bytes);
        written++;
    }
    assert_int_equal(written, 6);
}

static void bad_artifact_has_a_sound_trailer(void **state)
{
    struct file f = golden_file("bad-artifact");
    struct wc_trailer t;
    struct wc_digest digest;
    (void)state;
    assert_int_equal(judge(&t, &f), 0);
    digest_of(&digest, t.digest.kind, f.bytes, (size_t)t.artifact_bytes);
    assert_memory_not_equal(digest.bytes, t.digest.bytes, 16);
    free(f.bytes);
}

/* ---- golden files in a store ---- */

struct world {
    struct scratch s;
    wasmcache *cache;
    char *folder;
    unsigned descriptors;
};

static int make_world(void **state)
{
    struct world *w = must_have(calloc(1, sizeof(*w)));
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    scratch_init(&w->s);
    w->descriptors = scratch_descriptors();
    options.dir = scratch_in(&w->s, "cache");
    assert_int_equal(wasmcache_open(&w->cache, &options), 0);
    w->folder = scratch_in(&w->s, "cache/%s", golden_namespace);
    assert_int_equal(mkdir(options.dir, 0700), 0);
    assert_int_equal(mkdir(w->folder, 0700), 0);
    *state = w;
    return 0;
}

static int end_world(void **state)
{
    struct world *w = *state;
    wasmcache_close(w->cache);
    assert_int_equal(scratch_descriptors(), w->descriptors);
    scratch_end(&w->s);
    free(w);
    return 0;
}

/* Puts a golden file where its key belongs; gives the path. */
static char *install(struct world *w, const char *name, const wasmcache_key *key)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    char *path =
        scratch_in(&w->s, "cache/%s/%s.bin", golden_namespace, wasmcache_key_to_hex(hex, key));
    struct file f = golden_file(name);
    scratch_write(path, f.bytes, f.size, 0400);
    free(f.bytes);
    return path;
}

static void golden_files_in_a_store(void **state)
{
    static const struct {
        const char *name;
        wasmcache_reason by_trailer, by_digest;
        const char *key;
    } all[] = {
        {"good", WASMCACHE_REASON_NONE, WASMCACHE_REASON_NONE, golden_key},
        {"component", WASMCACHE_REASON_NONE, WASMCACHE_REASON_NONE, golden_key},
        {"reproducible", WASMCACHE_REASON_NONE, WASMCACHE_REASON_NONE, golden_key},
        {"tiny", WASMCACHE_REASON_NONE, WASMCACHE_REASON_NONE, golden_key},
        {"sha256-digest", WASMCACHE_REASON_NONE, WASMCACHE_REASON_NONE, golden_key},
        {"newer-compatible", WASMCACHE_REASON_NONE, WASMCACHE_REASON_NONE, golden_key},
        {"newer-compatible-long", WASMCACHE_REASON_NONE, WASMCACHE_REASON_NONE, golden_key},
        {"xxh64-key", WASMCACHE_REASON_NONE, WASMCACHE_REASON_NONE, "BA349D406B1C752D"},
        {"xxh64-key", WASMCACHE_REASON_MISMATCHED, WASMCACHE_REASON_MISMATCHED, golden_key},
        {"good", WASMCACHE_REASON_MISMATCHED, WASMCACHE_REASON_MISMATCHED, "BA349D406B1C752D"},
        {"bad-artifact", WASMCACHE_REASON_NONE, WASMCACHE_REASON_CORRUPT, golden_key},
        {"bad-trailer", WASMCACHE_REASON_CORRUPT, WASMCACHE_REASON_CORRUPT, golden_key},
        {"other-endian", WASMCACHE_REASON_CORRUPT, WASMCACHE_REASON_CORRUPT, golden_key},
        {"newer-incompatible", WASMCACHE_REASON_NEWER_FORMAT, WASMCACHE_REASON_NEWER_FORMAT,
         golden_key},
    };
    struct world *w = *state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
        struct file before, after;
        wasmcache_key key;
        char *path;
        ino_t inode;
        key_of_hex(&key, all[i].key);
        path = install(w, all[i].name, &key);
        inode = scratch_inode(path);
        print_message("  %s\n", all[i].name);
        assert_int_equal(wasmcache_entry_check(&entry, w->cache, golden_namespace, &key, 0), 0);
        assert_int_equal(entry.state, all[i].by_trailer);
        assert_int_equal(
            wasmcache_entry_check(&entry, w->cache, golden_namespace, &key, WASMCACHE_CHECK_DIGEST),
            0);
        assert_int_equal(entry.state, all[i].by_digest);
        if (entry.state == WASMCACHE_REASON_NONE) {
            char hex[WASMCACHE_KEY_HEX_SIZE];
            wc_hex(hex, entry.fingerprint, 32);
            assert_string_equal(hex, golden_fingerprint);
            assert_int_equal(entry.wasm_bytes, 8);
            assert_true(wasmcache_key_equal(&entry.key, &key));
            assert_string_equal(entry.engine_namespace, golden_namespace);
        }
        /* Judging changes nothing. */
        before = golden_file(all[i].name);
        after.bytes = scratch_read(path, &after.size);
        assert_int_equal(before.size, after.size);
        assert_memory_equal(before.bytes, after.bytes, after.size);
        assert_int_equal(inode, scratch_inode(path));
        assert_int_equal(scratch_mode(path), 0400);
        free(before.bytes);
        free(after.bytes);
    }
}

/* A trailer that is longer than what the store takes at first. */
static void store_reads_a_longer_trailer(void **state)
{
    struct world *w = *state;
    struct wc_folder folder;
    struct wc_entry_file file;
    struct wc_error err;
    struct wc_expect expect;
    struct wc_trailer good = golden_trailer();
    wc_error_init(&err);
    install(w, "newer-compatible-long", &good.key);
    expect.kind = WASMCACHE_MODULE;
    expect.key = &good.key;
    expect.engine_namespace = golden_namespace;
    expect.fingerprint = good.fingerprint;
    expect.shared = 0;
    assert_int_equal(wc_store_open_folder(&folder, &w->cache->store, golden_namespace, &err), 0);
    assert_int_equal(wc_store_open_entry(&file, &w->cache->store, &folder, &expect, &err), 0);
    assert_same(&file.trailer, &good);
    assert_int_equal(wc_entry_file_verify(&file, &err), 0);
    wc_entry_file_close(&file);
    wc_folder_close(&folder);
}

/* Not only the trailer: the file that is published is the golden one. */
static void store_writes_the_golden_file(void **state)
{
    static const char *const names[] = {"good", "reproducible", "component", "xxh64-key", "tiny"};
    struct world *w = *state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        struct file f = golden_file(names[i]), ours;
        struct wc_trailer t;
        struct wc_error err;
        enum wc_published result;
        char hex[WASMCACHE_KEY_HEX_SIZE], told[WC_PATH_SIZE];
        char *path;
        wc_error_init(&err);
        assert_int_equal(judge(&t, &f), 0);
        memset(&t.digest, 0xEE, sizeof(t.digest)); /* is made while it is written */
        path = scratch_in(&w->s, "cache/%s/%s.bin", golden_namespace,
                          wasmcache_key_to_hex(hex, &t.key));
        scratch_remove(path);
        assert_int_equal(wc_publish(&result, told, &w->cache->store, &t, f.bytes, 0, &err), 0);
        assert_int_equal(result, WC_PUBLISHED_NEW);
        assert_string_equal(told, path);
        ours.bytes = scratch_read(path, &ours.size);
        assert_int_equal(ours.size, f.size);
        assert_memory_equal(ours.bytes, f.bytes, f.size);
        free(ours.bytes);
        free(f.bytes);
    }
}

/* ---- the document ---- */

/* The example of docs/format.md is the good file, as xxd prints it. */
static void example_of_the_document(void **state)
{
    struct file f = golden_file("good");
    size_t size, rows = 0;
    char *text = (char *)scratch_read(TESTS_DIR "/../docs/format.md", &size);
    (void)state;
    for (size_t at = 0; at < f.size; at += 16) {
        char row[80];
        int n = snprintf(row, sizeof(row), "%08zx:", at);
        size_t width = f.size - at < 16 ? f.size - at : 16;
        for (size_t i = 0; i < width; i++)
            n += snprintf(row + n, sizeof(row) - (size_t)n, i % 2 ? "%02x" : " %02x",
                          f.bytes[at + i]);
        n += snprintf(row + n, sizeof(row) - (size_t)n, "  ");
        for (size_t i = 0; i < width; i++) {
            uint8_t c = f.bytes[at + i];
            row[n++] = (char)(c >= 0x20 && c < 0x7F ? c : '.');
        }
        row[n] = '\0';
        if (!strstr(text, row))
            fail_msg("docs/format.md lacks: %s", row);
        rows++;
    }
    assert_int_equal(rows, 27);
    free(text);
    free(f.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(padding_fills_up_to_eight),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(encoder_leaves_no_byte),
        cmocka_unit_test(digests),
        cmocka_unit_test(tails_of_all_sizes),
        cmocka_unit_test(every_bit_of_trailer_and_padding),
        cmocka_unit_test(every_bit_of_a_longer_trailer),
        cmocka_unit_test(damage_never_looks_newer),
        cmocka_unit_test(every_bit_of_an_artifact),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(extra_tails),
        cmocka_unit_test(swapped_parts),
        cmocka_unit_test(zeroed_parts),
        cmocka_unit_test(files_that_are_no_entries),
        cmocka_unit_test(foreign_or_damaged),
        cmocka_unit_test(newer_incompatible_versions),
        cmocka_unit_test(newer_incompatible_versions_are_not_looked_into),
        cmocka_unit_test(newer_compatible_versions_are_read),
        cmocka_unit_test(trailers_of_impossible_lengths),
        cmocka_unit_test(artifacts_of_impossible_lengths),
        cmocka_unit_test(unknown_kinds),
        cmocka_unit_test(digests_that_are_too_long),
        cmocka_unit_test(keys_that_are_none),
        cmocka_unit_test(namespaces_that_are_too_long),
        cmocka_unit_test(fields_that_are_not_looked_at),
        cmocka_unit_test(golden_files_are_read),
        cmocka_unit_test(golden_files_are_written),
        cmocka_unit_test(bad_artifact_has_a_sound_trailer),
        cmocka_unit_test_setup_teardown(golden_files_in_a_store, make_world, end_world),
        cmocka_unit_test_setup_teardown(store_reads_a_longer_trailer, make_world, end_world),
        cmocka_unit_test_setup_teardown(store_writes_the_golden_file, make_world, end_world),
        cmocka_unit_test(example_of_the_document),
    };
    return cmocka_run_group_tests_name("entry", tests, NULL, NULL);
}
