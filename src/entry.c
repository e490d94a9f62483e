/* SPDX-License-Identifier: Apache-2.0 */
#include "entry.h"

#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "key.h"
#include "number.h"

static const uint8_t magic[4] = {'W', 'C', 'a', 0xC5};

/* Offsets of format 1.0, as in entry.h. */
enum {
    AT_CHECK = 0,
    AT_KIND = 8,
    AT_DIGEST_KIND = 12,
    AT_ARTIFACT = 16,
    AT_DIGEST = 24,
    AT_KEY_ALGORITHM = 56,
    AT_KEY_LENGTH = 57,
    AT_ZERO1 = 58,
    AT_KEY = 64,
    AT_FINGERPRINT = 96,
    AT_WASM = 128,
    AT_COMPILE = 136,
    AT_CREATED = 144,
    AT_ZERO2 = 152,
    AT_KEY_ID = 160,
    AT_SIGNATURE = 176,
    AT_NAMESPACE = 240,
    AT_FOOTER = 400,
    NAMESPACE_ROOM = AT_FOOTER - AT_NAMESPACE
};

_Static_assert(AT_FOOTER + WC_FOOTER_SIZE == WC_TRAILER_SIZE, "the footer ends the trailer");
_Static_assert(NAMESPACE_ROOM >= WC_NAMESPACE_SIZE, "every namespace fits");

static int all_zero(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i])
            return 0;
    return 1;
}

/* ---- digests ---- */

struct wc_digest_state {
    enum wc_digest_kind kind;
    XXH3_state_t *xxh; /* NULL: SHA-256 */
    struct wc_sha256_state sha;
};

struct wc_digest_state *wc_digest_start(enum wc_digest_kind kind)
{
    struct wc_digest_state *state = calloc(1, sizeof(*state));
    if (!state)
        return NULL;
    state->kind = kind;
    if (kind == WC_DIGEST_SHA256) {
        wc_sha256_start(&state->sha);
        return state;
    }
    state->xxh = XXH3_createState();
    if (state->xxh) {
        XXH3_128bits_reset(state->xxh);
        return state;
    }
    free(state);
    return NULL;
}

void wc_digest_add(struct wc_digest_state *state, const void *bytes, size_t length)
{
    if (state->xxh)
        XXH3_128bits_update(state->xxh, bytes, length);
    else
        wc_sha256_add(&state->sha, bytes, length);
}

void wc_digest_finish(struct wc_digest_state *state, struct wc_digest *out)
{
    memset(out, 0, sizeof(*out));
    out->kind = state->kind;
    if (state->xxh) {
        XXH128_canonical_t canonical;
        XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state->xxh));
        memcpy(out->bytes, canonical.digest, sizeof(canonical.digest));
    } else {
        wc_sha256_finish(&state->sha, out->bytes);
    }
    wc_digest_free(state);
}

void wc_digest_free(struct wc_digest_state *state)
{
    if (!state)
        return;
    XXH3_freeState(state->xxh);
    free(state);
}

/* ---- the trailer ---- */

uint64_t wc_entry_bytes(uint64_t artifact_bytes)
{
    return artifact_bytes + wc_entry_padding(artifact_bytes) + WC_TRAILER_SIZE;
}

unsigned wc_entry_padding(uint64_t artifact_bytes)
{
    return (unsigned)(-artifact_bytes & 7);
}

static uint32_t footer_check(const uint8_t *footer)
{
    return (uint32_t)XXH3_64bits(footer, 8);
}

void wc_trailer_encode(uint8_t out[WC_TRAILER_SIZE], const struct wc_trailer *trailer)
{
    uint8_t *footer = out + AT_FOOTER;
    memset(out, 0, WC_TRAILER_SIZE);
    wc_put_number(out + AT_KIND, (uint64_t)trailer->kind, 4);
    wc_put_number(out + AT_DIGEST_KIND, (uint64_t)trailer->digest.kind, 4);
    wc_put_number(out + AT_ARTIFACT, trailer->artifact_bytes, 8);
    memcpy(out + AT_DIGEST, trailer->digest.bytes, 32);
    out[AT_KEY_ALGORITHM] = trailer->key.algorithm;
    out[AT_KEY_LENGTH] = trailer->key.length;
    memcpy(out + AT_KEY, trailer->key.bytes, 32);
    memcpy(out + AT_FINGERPRINT, trailer->fingerprint, 32);
    wc_put_number(out + AT_WASM, trailer->wasm_bytes, 8);
    wc_put_number(out + AT_COMPILE, trailer->compile_ns, 8);
    wc_put_number(out + AT_CREATED, trailer->created, 8);
    memcpy(out + AT_NAMESPACE, trailer->engine_namespace, strlen(trailer->engine_namespace));
    wc_put_number(footer, WC_TRAILER_SIZE, 4);
    wc_put_number(footer + 4, WC_FORMAT_INCOMPATIBLE, 2);
    wc_put_number(footer + 6, WC_FORMAT_COMPATIBLE, 2);
    wc_put_number(footer + 8, footer_check(footer), 4);
    memcpy(footer + 12, magic, sizeof(magic));
    wc_put_number(out + AT_CHECK, XXH3_64bits(out + 8, WC_TRAILER_SIZE - 8), 8);
}

static int corrupt(struct wc_error *err, const char *what)
{
    return wc_fail(err, WASMCACHE_ECORRUPT, 0, NULL, NULL, "The entry is damaged: %s", what);
}

/* The fields whose check was good, but which another program may have written. */
static int decode_fields(struct wc_trailer *out, const uint8_t *t, struct wc_error *err)
{
    uint64_t kind = wc_get_number(t + AT_KIND, 4);
    uint64_t digest_kind = wc_get_number(t + AT_DIGEST_KIND, 4);
    const char *name = (const char *)t + AT_NAMESPACE;

    memset(out, 0, sizeof(*out));
    if (kind != WASMCACHE_MODULE && kind != WASMCACHE_COMPONENT)
        return corrupt(err, "it is neither a module nor a component");
    if (digest_kind != WC_DIGEST_XXH3_128 && digest_kind != WC_DIGEST_SHA256)
        return corrupt(err, "its digest is of no known kind");
    out->kind = (wasmcache_kind)kind;
    out->digest.kind = (enum wc_digest_kind)digest_kind;
    memcpy(out->digest.bytes, t + AT_DIGEST, 32);
    if (digest_kind == WC_DIGEST_XXH3_128 && !all_zero(t + AT_DIGEST + 16, 16))
        return corrupt(err, "its digest is too long");
    out->key.algorithm = t[AT_KEY_ALGORITHM];
    out->key.length = t[AT_KEY_LENGTH];
    memcpy(out->key.bytes, t + AT_KEY, 32);
    if (!wc_key_valid(&out->key) || !all_zero(t + AT_ZERO1, AT_KEY - AT_ZERO1))
        return corrupt(err, "its key is none");
    if (strnlen(name, NAMESPACE_ROOM) >= WC_NAMESPACE_SIZE)
        return corrupt(err, "its namespace is too long");
    memcpy(out->engine_namespace, name, strnlen(name, NAMESPACE_ROOM));
    memcpy(out->fingerprint, t + AT_FINGERPRINT, 32);
    out->artifact_bytes = wc_get_number(t + AT_ARTIFACT, 8);
    out->wasm_bytes = wc_get_number(t + AT_WASM, 8);
    out->compile_ns = wc_get_number(t + AT_COMPILE, 8);
    out->created = wc_get_number(t + AT_CREATED, 8);
    return 0;
}

int wc_trailer_decode(struct wc_trailer *out, const uint8_t *tail, size_t size, uint64_t file_bytes,
                      struct wc_error *err)
{
    const uint8_t *footer, *t;
    uint64_t length, incompatible, need;
    unsigned padding;
    int rc;

    err->foreign = 1;
    if (size < WC_FOOTER_SIZE)
        return corrupt(err, "it is too short to have a trailer");
    footer = tail + size - WC_FOOTER_SIZE;
    if (memcmp(footer + 12, magic, sizeof(magic)) != 0)
        return corrupt(err, "it does not end with a trailer");
    err->foreign = 0;
    if (wc_get_number(footer + 8, 4) != footer_check(footer))
        return corrupt(err, "the end of its trailer does not match its check");
    length = wc_get_number(footer, 4);
    incompatible = wc_get_number(footer + 4, 2);
    if (incompatible != WC_FORMAT_INCOMPATIBLE)
        return wc_fail(err, WASMCACHE_ENEWER, 0, NULL, NULL,
                       "The entry has format %u, this library reads format %u",
                       (unsigned)incompatible, WC_FORMAT_INCOMPATIBLE);
    if (length < WC_TRAILER_SIZE || length > WC_TRAILER_MAX || length % 8 || length > file_bytes)
        return corrupt(err, "its trailer has an impossible length");
    /* Up to 7 bytes of padding lie before the trailer; they are checked with it. */
    need = length + 7 < file_bytes ? length + 7 : file_bytes;
    if (size < need)
        return (int)need;

    t = tail + size - length;
    if (wc_get_number(t + AT_CHECK, 8) != XXH3_64bits(t + 8, (size_t)length - 8))
        return corrupt(err, "its trailer does not match its check");
    rc = decode_fields(out, t, err);
    if (rc < 0)
        return rc;
    padding = wc_entry_padding(out->artifact_bytes);
    if (!out->artifact_bytes || out->artifact_bytes > file_bytes ||
        out->artifact_bytes + padding + length != file_bytes)
        return corrupt(err, "its length is not the one that its trailer tells");
    if (!all_zero(t - padding, padding))
        return corrupt(err, "the padding behind the artifact is not zero");
    return 0;
}
