/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_ENTRY_H
#define WC_ENTRY_H

/*
 * The format of an entry (docs/format.md has it for other implementations):
 *
 *     entry   = artifact padding trailer
 *     padding = zero bytes, up to a multiple of 8
 *     trailer = fields footer                        all numbers little-endian
 *
 *     offset  size  field of format 1.0, counted from the start of the trailer
 *          0     8  check: XXH3-64 (seed 0) of the trailer from offset 8 to its end
 *          8     4  kind: 1 module, 2 component
 *         12     4  digest kind: 1 XXH3-128 (canonical, big-endian), 2 SHA-256
 *         16     8  artifact length, at least 1
 *         24    32  digest of the artifact; XXH3-128 uses 16 bytes, the rest is zero
 *         56     1  key algorithm: 1 SHA-256, 2 xxh64
 *         57     1  key length: 32 or 8
 *         58     6  zero
 *         64    32  key, zero behind its length
 *         96    32  fingerprint of the engine
 *        128     8  length of the wasm, 0 if not known
 *        136     8  compile time in nanoseconds, 0 if not known or reproducible
 *        144     8  creation, seconds since 1970, 0 if reproducible
 *        152     8  zero
 *        160    16  id of the signing key, zero if not signed
 *        176    64  signature, zero if not signed
 *        240   160  namespace, zero behind its end
 *        400        (fields that a compatible version adds)
 *     footer, the last 16 bytes, the same in every version
 *          0     4  length of the trailer with the footer, a multiple of 8
 *          4     2  incompatible version: 1
 *          6     2  compatible version: 0
 *          8     4  check: XXH3-64, lower half, of the 8 bytes before
 *         12     4  magic: 'W' 'C' 'a' 0xC5
 *
 * Version history
 *     1.0  first
 *
 * An incompatible version that is not known is "newer", and such an entry is never removed or
 * replaced. That is why the footer has a check of its own: otherwise one bit that flips in the
 * version would make a damaged entry immortal.
 */

#include "error.h"
#include "namespace.h"

#define WC_TRAILER_SIZE 416u
#define WC_TRAILER_MAX 4096u /* what compatible versions can grow to */
#define WC_FOOTER_SIZE 16u
#define WC_FORMAT_INCOMPATIBLE 1u
#define WC_FORMAT_COMPATIBLE 0u

enum wc_digest_kind { WC_DIGEST_XXH3_128 = 1, WC_DIGEST_SHA256 = 2 };

struct wc_digest {
    enum wc_digest_kind kind;
    uint8_t bytes[32];
};

struct wc_trailer {
    wasmcache_kind kind;
    struct wc_digest digest;
    uint64_t artifact_bytes;
    wasmcache_key key;
    uint8_t fingerprint[32];
    uint64_t wasm_bytes;
    uint64_t compile_ns;
    uint64_t created;
    char engine_namespace[WC_NAMESPACE_SIZE];
};

/* Digests in parts. start gives NULL if there is no memory; finish and free end it. */
struct wc_digest_state;
struct wc_digest_state *wc_digest_start(enum wc_digest_kind kind);
void wc_digest_add(struct wc_digest_state *state, const void *bytes, size_t length);
void wc_digest_finish(struct wc_digest_state *state, struct wc_digest *out);
void wc_digest_free(struct wc_digest_state *state);

/* Bytes of the whole file. */
uint64_t wc_entry_bytes(uint64_t artifact_bytes);
/* Bytes of padding behind an artifact. */
unsigned wc_entry_padding(uint64_t artifact_bytes);

/* Writes the trailer as the present version has it. */
void wc_trailer_encode(uint8_t out[WC_TRAILER_SIZE], const struct wc_trailer *trailer);

/*
 * Reads the trailer of a file of `file_bytes` bytes from its last `size` ones (all of them, or at
 * least WC_FOOTER_SIZE). Returns 0; a positive number: that many last bytes are needed; ECORRUPT,
 * ENEWER. The padding is checked too. err->foreign: it has no trailer of ours at all. Touches
 * nothing but its arguments: it is fuzzed.
 */
int wc_trailer_decode(struct wc_trailer *out, const uint8_t *tail, size_t size, uint64_t file_bytes,
                      struct wc_error *err);

#endif
