/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_SOURCE_H
#define WC_SOURCE_H

/*
 * Where the wasm comes from, during one get.
 *
 *     rc = wc_source_check(&own, source, &err);        // misuse; what we know of it
 *     wc_input_init(&input, &own);
 *     rc = wc_input_key(&input, &key, &err);           // for the lookup; files in pieces
 *     rc = wc_input_read(&input, &err);                // on a miss: input.bytes, input.length
 *     wc_input_file_under(&input, &key);               // what a save would be filed under
 *     rc = wc_input_unchanged(&input, &key, &err);     // after the compile, before the save
 *     wc_input_release(&input);
 *
 * A file can change between the two: what a save is filed under is always made of the very bytes
 * that were compiled.
 */

#include "hint.h"
#include "error.h"

struct wc_input {
    const wasmcache_source *source;
    const char *name; /* for messages */
    const char *path; /* NULL: not a path */
    int fd;           /* of a path, opened once; -1 */
    const void *bytes;
    size_t length; /* after key: of a file, what was hashed */
    uint64_t size; /* of the wasm as far as known */
    void *owned;   /* malloc-ed bytes */
    int fetched;   /* release is owed */
};

/* EMISUSE. `own` may be uninitialized. */
int wc_source_check(wasmcache_source *own, const wasmcache_source *source, struct wc_error *err);

void wc_input_init(struct wc_input *input, const wasmcache_source *source);
void wc_input_release(struct wc_input *input);

int wc_input_is_file(const struct wc_input *input);
/* A file that is known to `look`, and is as it was then, is not read, nor is a path opened. EIO: a
 * file cannot be read. EMISUSE, ENOMEM. */
int wc_input_key(struct wc_input *input, wasmcache_key *key, struct wc_hint_look *look,
                 struct wc_error *err);
/* All bytes in memory. EMISS: a digest without fetch. EABORTED: fetch refused. EIO, ENOMEM. */
int wc_input_read(struct wc_input *input, struct wc_error *err);
/* Replaces the lookup's key by that of the bytes that were read, unless they are the same ones or
 * the caller vouches. 1: it is another key than before, else 0. */
int wc_input_file_under(const struct wc_input *input, wasmcache_key *key);
/* Are bytes that are the caller's still those of the key? Their memory may be a file that somebody
 * writes, and a compile takes seconds. EBUSY: no. */
int wc_input_unchanged(const struct wc_input *input, const wasmcache_key *key,
                       struct wc_error *err);

#endif
