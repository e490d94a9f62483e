/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SHA-256 comes from libcrypto's plain functions and not from EVP: they allocate nothing, load no
 * provider or configuration file, register no exit handler, and so are safe on any thread at any
 * time, also while the process exits.
 */
#define OPENSSL_API_COMPAT 10101
#include "key.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>
#include <xxhash.h>

#include "number.h"
#include "os/os.h"

/* Files are hashed in pieces of this size: large enough that the calls do not count, small enough
 * for a load's promise of at most 1 MiB of memory of ours. */
#define PIECE ((size_t)256 * 1024)

static const char hex_digits[] = "0123456789ABCDEF";

_Static_assert(sizeof(SHA256_CTX) <= sizeof(struct wc_sha256_state), "room for libcrypto's state");

void wc_sha256_start(struct wc_sha256_state *state)
{
    SHA256_Init((SHA256_CTX *)(void *)state);
}

void wc_sha256_add(struct wc_sha256_state *state, const void *bytes, size_t length)
{
    if (length)
        SHA256_Update((SHA256_CTX *)(void *)state, bytes, length);
}

void wc_sha256_finish(struct wc_sha256_state *state, uint8_t out[32])
{
    SHA256_Final(out, (SHA256_CTX *)(void *)state);
}

void wc_sha256(uint8_t out[32], const void *bytes, size_t length)
{
    struct wc_sha256_state state;
    wc_sha256_start(&state);
    wc_sha256_add(&state, bytes, length);
    wc_sha256_finish(&state, out);
}

void wc_hex(char *out, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        out[2 * i] = hex_digits[bytes[i] >> 4];
        out[2 * i + 1] = hex_digits[bytes[i] & 15];
    }
    out[2 * length] = '\0';
}

/* The digest's length, 0 for an algorithm that is none. */
static size_t algorithm_length(int algorithm)
{
    switch (algorithm) {
    case WASMCACHE_KEY_SHA256:
        return 32;
    case WASMCACHE_KEY_XXH64:
        return 8;
    default:
        return 0;
    }
}

static int check_algorithm(int algorithm, struct wc_error *err)
{
    if (algorithm_length(algorithm))
        return 0;
    return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL, "There is no key algorithm number %d",
                   algorithm);
}

int wc_key_valid(const wasmcache_key *key)
{
    static const uint8_t zero[32];
    size_t length;
    if (!key)
        return 0;
    length = algorithm_length(key->algorithm);
    return length && key->length == length &&
           memcmp(key->bytes + length, zero, sizeof(zero) - length) == 0;
}

static void key_set(wasmcache_key *out, int algorithm, const uint8_t *digest)
{
    size_t length = algorithm_length(algorithm);
    memset(out, 0, sizeof(*out));
    out->algorithm = (uint8_t)algorithm;
    out->length = (uint8_t)length;
    memcpy(out->bytes, digest, length);
}

void wc_key_of_sha256(wasmcache_key *out, const uint8_t digest[32])
{
    key_set(out, WASMCACHE_KEY_SHA256, digest);
}

/* Little-endian, whatever the machine: Wasmer on x86-64 names its files so (0CC78860D414714C for
 * the seven bytes "\0asm..."). */
static void key_set_xxh64(wasmcache_key *out, XXH64_hash_t hash)
{
    uint8_t bytes[8];
    wc_put_number(bytes, hash, sizeof(bytes));
    key_set(out, WASMCACHE_KEY_XXH64, bytes);
}

int wc_key_of_digest(wasmcache_key *out, const char *algorithm, const void *digest, size_t length,
                     struct wc_error *err)
{
    static const char tag[] = "wasmcache digest 1";
    struct wc_sha256_state state;
    uint8_t hash[32];

    if (!algorithm || !algorithm[0] || strlen(algorithm) > 64 || !digest || !length || length > 128)
        return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                       "A digest needs an algorithm's name of 1 to 64 bytes and 1 to 128 bytes of "
                       "its own");
    if (strcmp(algorithm, "sha256") == 0) {
        if (length != 32)
            return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                           "A sha256 digest has 32 bytes, not %zu", length);
        wc_key_of_sha256(out, digest);
        return 0;
    }
    wc_sha256_start(&state);
    wc_sha256_add(&state, tag, sizeof(tag));
    wc_sha256_add(&state, algorithm, strlen(algorithm) + 1);
    wc_sha256_add(&state, digest, length);
    wc_sha256_finish(&state, hash);
    wc_key_of_sha256(out, hash);
    return 0;
}

/* For messages. */
static const char *name_of(const char *path)
{
    return path ? path : "the descriptor";
}

int wc_key_too_large(const char *path, struct wc_error *err)
{
    return wc_fail(err, WASMCACHE_EIO, EFBIG, NULL, path,
                   "%s is larger than any WebAssembly module", name_of(path));
}

int wc_key_check_file(int fd, struct wc_os_stat *st, const char *path, struct wc_error *err)
{
    const char *name = name_of(path);
    int rc = wc_os_fstat(fd, st);
    if (rc < 0)
        return wc_fail(err, WASMCACHE_EIO, rc, "fstat", path, "Cannot look at %s", name);
    if (st->type == WC_OS_DIR)
        return wc_fail(err, WASMCACHE_EIO, EISDIR, NULL, path, "Cannot read %s", name);
    if (st->type != WC_OS_FILE)
        return wc_fail(err, WASMCACHE_EIO, 0, NULL, path,
                       "%s is not a regular file; copy its content to one", name);
    if (st->size > WC_WASM_MAX)
        return wc_fail(err, WASMCACHE_EIO, EFBIG, NULL, path,
                       "%s has %" PRIu64 " bytes, more than any WebAssembly module", name,
                       st->size);
    return 0;
}

int wc_key_open_file(int *out, struct wc_os_stat *st, const char *path, struct wc_error *err)
{
    int fd = wc_os_open_read_path(path);
    int rc;
    if (fd < 0)
        return wc_fail(err, WASMCACHE_EIO, fd, "open", path, "Cannot open %s", path);
    rc = wc_key_check_file(fd, st, path, err);
    if (rc < 0) {
        wc_os_close(fd);
        return rc;
    }
    *out = fd;
    return 0;
}

int wc_key_check_end(int fd, const struct wc_os_stat *before, uint64_t read, const char *path,
                     struct wc_error *err)
{
    struct wc_os_stat now;
    if (read >= before->size || wc_os_fstat(fd, &now) < 0 || now.size != before->size ||
        now.ctime_ns != before->ctime_ns)
        return 0;
    return wc_fail(err, WASMCACHE_EIO, 0, "pread", path,
                   "Only %" PRIu64 " of the %" PRIu64 " bytes of %s could be read", read, now.size,
                   name_of(path));
}

int wc_key_of_fd(wasmcache_key *out, wasmcache_key_algorithm algorithm, int fd,
                 const struct wc_os_stat *before, const char *path, uint64_t *size,
                 struct wc_error *err)
{
    const char *name = name_of(path);
    struct wc_sha256_state sha;
    XXH64_state_t *xxh = NULL;
    uint8_t hash[32];
    uint8_t *piece;
    uint64_t offset = 0;
    int rc;

    piece = malloc(PIECE);
    if (algorithm == WASMCACHE_KEY_XXH64)
        xxh = XXH64_createState();
    if (!piece || (algorithm == WASMCACHE_KEY_XXH64 && !xxh)) {
        rc = wc_fail(err, WASMCACHE_ENOMEM, 0, "malloc", path, "No memory to hash %s", name);
        goto out;
    }
    wc_sha256_start(&sha);
    if (xxh)
        XXH64_reset(xxh, 0);
    for (;;) {
        int64_t n = wc_os_pread(fd, piece, PIECE, offset);
        if (n < 0) {
            rc = wc_fail(err, WASMCACHE_EIO, (int)n, "pread", path, "Cannot read %s", name);
            goto out;
        }
        if (xxh)
            XXH64_update(xxh, piece, (size_t)n);
        else
            wc_sha256_add(&sha, piece, (size_t)n);
        offset += (uint64_t)n;
        if (offset > WC_WASM_MAX) { /* it grows as fast as it is read */
            rc = wc_key_too_large(path, err);
            goto out;
        }
        if ((size_t)n < PIECE)
            break;
    }
    rc = wc_key_check_end(fd, before, offset, path, err);
    if (rc < 0)
        goto out;
    if (xxh) {
        key_set_xxh64(out, XXH64_digest(xxh));
    } else {
        wc_sha256_finish(&sha, hash);
        wc_key_of_sha256(out, hash);
    }
    *size = offset;
out:
    XXH64_freeState(xxh);
    free(piece);
    return rc;
}

int wasmcache_key_from_bytes(wasmcache_key *out, wasmcache_key_algorithm algorithm,
                             const void *bytes, size_t length)
{
    struct wc_error err;
    uint8_t hash[32];
    int rc;
    wc_error_init(&err);
    if (!out || (!bytes && length) || length > PTRDIFF_MAX)
        rc = wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                     "wasmcache_key_from_bytes: NULL, or a length that no memory has");
    else
        rc = check_algorithm((int)algorithm, &err);
    if (rc < 0)
        return wc_error_publish(&err, rc);
    if (algorithm == WASMCACHE_KEY_XXH64) {
        key_set_xxh64(out, XXH64(length ? bytes : "", length, 0));
    } else {
        wc_sha256(hash, bytes, length);
        wc_key_of_sha256(out, hash);
    }
    return 0;
}

int wasmcache_key_from_path(wasmcache_key *out, wasmcache_key_algorithm algorithm, const char *path)
{
    struct wc_os_stat st;
    struct wc_error err;
    uint64_t size;
    int fd = -1;
    int rc;
    wc_error_init(&err);
    if (!out || !path)
        rc = wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL, "wasmcache_key_from_path: NULL");
    else
        rc = check_algorithm((int)algorithm, &err);
    if (rc == 0)
        rc = wc_key_open_file(&fd, &st, path, &err);
    if (rc == 0)
        rc = wc_key_of_fd(out, algorithm, fd, &st, path, &size, &err);
    wc_os_close(fd);
    return wc_error_publish(&err, rc);
}

int wasmcache_key_from_fd(wasmcache_key *out, wasmcache_key_algorithm algorithm, int fd)
{
    struct wc_os_stat st;
    struct wc_error err;
    uint64_t size;
    int rc;
    wc_error_init(&err);
    if (!out || fd < 0)
        rc = wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                     "wasmcache_key_from_fd: NULL, or a negative descriptor");
    else
        rc = check_algorithm((int)algorithm, &err);
    if (rc == 0)
        rc = wc_key_check_file(fd, &st, NULL, &err); /* /dev/zero has no end */
    if (rc == 0)
        rc = wc_key_of_fd(out, algorithm, fd, &st, NULL, &size, &err);
    return wc_error_publish(&err, rc);
}

int wasmcache_key_from_digest(wasmcache_key *out, wasmcache_key_algorithm algorithm,
                              const uint8_t *digest, size_t length)
{
    struct wc_error err;
    wc_error_init(&err);
    if (!out || !digest || !length || algorithm_length((int)algorithm) != length)
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                              "A key of algorithm %d does not have %zu bytes",
                                              (int)algorithm, length));
    key_set(out, (int)algorithm, digest);
    return 0;
}

void wc_key_salt(wasmcache_key *out, const wasmcache_key *key, const void *salt, size_t length)
{
    static const char tag[] = "wasmcache-salt";
    struct wc_sha256_state state;
    uint8_t digest[32], size[8];
    wc_put_number(size, length, sizeof(size));
    wc_sha256_start(&state);
    wc_sha256_add(&state, tag, sizeof(tag));
    wc_sha256_add(&state, size, sizeof(size));
    wc_sha256_add(&state, salt, length);
    wc_sha256_add(&state, &key->algorithm, 1);
    wc_sha256_add(&state, key->bytes, key->length);
    wc_sha256_finish(&state, digest);
    wc_key_of_sha256(out, digest);
}

int wasmcache_key_salted(wasmcache_key *out, const wasmcache_key *key, const void *salt,
                         size_t length)
{
    struct wc_error err;
    wc_error_init(&err);
    if (!out || !wc_key_valid(key) || !salt || !length || length > WC_SALT_MAX)
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                              "wasmcache_key_salted: no key, or a salt of %zu "
                                              "bytes; 1 to %d are allowed",
                                              length, WC_SALT_MAX));
    wc_key_salt(out, key, salt, length);
    return 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int wasmcache_key_from_hex(wasmcache_key *out, const char *hex)
{
    struct wc_error err;
    uint8_t bytes[32];
    size_t digits = hex ? strnlen(hex, WASMCACHE_KEY_HEX_SIZE) : 0;
    int ok = out && (digits == 64 || digits == 16);

    for (size_t i = 0; ok && i < digits; i += 2) {
        int high = hex_value(hex[i]), low = hex_value(hex[i + 1]);
        ok = high >= 0 && low >= 0;
        if (ok)
            bytes[i / 2] = (uint8_t)(high << 4 | low);
    }
    if (!ok) {
        wc_error_init(&err);
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                              "A key is 64 (SHA-256) or 16 (xxh64) hex digits"));
    }
    key_set(out, digits == 64 ? WASMCACHE_KEY_SHA256 : WASMCACHE_KEY_XXH64, bytes);
    return 0;
}

char *wasmcache_key_to_hex(char out[WASMCACHE_KEY_HEX_SIZE], const wasmcache_key *key)
{
    if (!out)
        return NULL;
    if (wc_key_valid(key))
        wc_hex(out, key->bytes, key->length);
    else
        out[0] = '\0';
    return out;
}

int wasmcache_key_equal(const wasmcache_key *a, const wasmcache_key *b)
{
    return wc_key_valid(a) && wc_key_valid(b) && a->algorithm == b->algorithm &&
           memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}
