/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_KEY_H
#define WC_KEY_H

/*
 * Content hashes: SHA-256 for what is trusted to be unique, xxh64 for Wasmer's old directories.
 *
 *     wc_sha256(out, bytes, length);                                  // of bytes at hand
 *     rc = wc_key_of_fd(&key, algorithm, fd, &st, path, &size, &err); // of a file, in pieces
 */

#include "error.h"
#include "os/os.h"

/* Hashing in parts: start, add any number of times, finish. Never fails, allocates nothing. */
struct wc_sha256_state {
    uint64_t opaque[16];
};
void wc_sha256_start(struct wc_sha256_state *state);
void wc_sha256_add(struct wc_sha256_state *state, const void *bytes, size_t length);
void wc_sha256_finish(struct wc_sha256_state *state, uint8_t out[32]);
void wc_sha256(uint8_t out[32], const void *bytes, size_t length);

/* Is this a key that one of the functions of the library could have made? */
int wc_key_valid(const wasmcache_key *key);

void wc_key_of_sha256(wasmcache_key *out, const uint8_t digest[32]);

/*
 * The key of a foreign digest: the SHA-256 of a tag, the algorithm's name, a zero byte and the
 * digest. "sha256" with 32 bytes is the key itself. EMISUSE.
 */
int wc_key_of_digest(wasmcache_key *out, const char *algorithm, const void *digest, size_t length,
                     struct wc_error *err);

/* As wasmcache_key_salted(), when the arguments were checked. `out` may be `key`. */
enum { WC_SALT_MAX = 128 };
void wc_key_salt(wasmcache_key *out, const wasmcache_key *key, const void *salt, size_t length);

/* Sizes in a module have 32 bits. A file that is larger is a mistake, and is not hashed for
 * minutes.
 */
#define WC_WASM_MAX ((uint64_t)4 << 30)

/* Were all bytes of a file read that was as `before`? EIO: fewer came, and nobody changed it: a
 * file system that gives nothing says that it ended. */
int wc_key_check_end(int fd, const struct wc_os_stat *before, uint64_t read, const char *path,
                     struct wc_error *err);

/* The key of the regular file `fd`, from its start, which was as `before`; *size is how many bytes
 * were hashed. `path` is for messages, NULL if it is not known. The algorithm is one that there is.
 * EIO, ENOMEM. */
int wc_key_of_fd(wasmcache_key *out, wasmcache_key_algorithm algorithm, int fd,
                 const struct wc_os_stat *before, const char *path, uint64_t *size,
                 struct wc_error *err);

/* What `fd` is. EIO: not a regular file, or one that is too large. `path` as above. */
int wc_key_check_file(int fd, struct wc_os_stat *st, const char *path, struct wc_error *err);
/* The same of a source file, which is opened for reading. */
int wc_key_open_file(int *fd, struct wc_os_stat *st, const char *path, struct wc_error *err);
/* EIO: more was read of it than WC_WASM_MAX. */
int wc_key_too_large(const char *path, struct wc_error *err);

/* Upper-case hex of `length` bytes and a NUL. */
void wc_hex(char *out, const uint8_t *bytes, size_t length);

#endif
