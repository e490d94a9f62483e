/* SPDX-License-Identifier: Apache-2.0 */
#include "source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "key.h"
#include "os/os.h"

int wc_source_check(wasmcache_source *own, const wasmcache_source *source, struct wc_error *err)
{
    const char *wrong = NULL;
    int rc = source ? wc_sized_in(own, sizeof(*own), source, SIZE_0_1(wasmcache_source, payload),
                                  "wasmcache_source", err)
                    : wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                              "The source is NULL; use wasmcache_source_bytes() and its like");
    if (rc < 0)
        return rc;
    if (own->type == WASMCACHE_SOURCE_BYTES)
        wrong = !own->bytes && own->length  ? "its bytes are NULL"
                : own->length > PTRDIFF_MAX ? "no memory has that length"
                                            : NULL;
    else if (own->type == WASMCACHE_SOURCE_PATH)
        wrong = !own->path || !own->path[0] ? "its path is NULL or empty" : NULL;
    else if (own->type == WASMCACHE_SOURCE_FD)
        wrong = own->fd < 0 ? "its descriptor is negative" : NULL;
    else if (own->type != WASMCACHE_SOURCE_DIGEST)
        wrong = "its type is unknown";
    if (wrong)
        return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL, "The source cannot be used: %s",
                       wrong);
    if (own->type == WASMCACHE_SOURCE_DIGEST) {
        wasmcache_key ignored;
        return wc_key_of_digest(&ignored, own->digest_algorithm, own->digest, own->digest_length,
                                err);
    }
    return 0;
}

void wc_input_init(struct wc_input *input, const wasmcache_source *source)
{
    memset(input, 0, sizeof(*input));
    input->source = source;
    input->fd = -1;
    input->path = source->type == WASMCACHE_SOURCE_PATH ? source->path : NULL;
    input->name = input->path ? input->path : "the descriptor";
    if (source->type == WASMCACHE_SOURCE_BYTES) {
        input->bytes = source->length ? source->bytes : "";
        input->length = source->length;
        input->size = source->length;
    }
}

void wc_input_release(struct wc_input *input)
{
    const wasmcache_source *source = input->source;
    if (input->fetched && source->release)
        source->release(input->bytes, input->length, source->payload);
    free(input->owned);
    wc_os_close(input->fd);
    input->fetched = 0;
    input->owned = NULL;
    input->fd = -1;
}

int wc_input_is_file(const struct wc_input *input)
{
    return input->source->type == WASMCACHE_SOURCE_PATH ||
           input->source->type == WASMCACHE_SOURCE_FD;
}

/* The descriptor to read from, and what it is; a path is opened once, so that a rename between the
 * two reads does not mix two files. */
static int open_file(struct wc_input *input, int *fd, struct wc_os_stat *st, struct wc_error *err)
{
    int rc;
    if (input->path && input->fd < 0) {
        rc = wc_key_open_file(&input->fd, st, input->path, err);
        *fd = input->fd;
        return rc;
    }
    *fd = input->path ? input->fd : input->source->fd;
    return wc_key_check_file(*fd, st, input->path, err);
}

/* What the file is now; a path is not open yet. */
static int identify(const struct wc_input *input, struct wc_os_stat *st)
{
    return input->path ? wc_os_stat_path(input->path, st) : wc_os_fstat(input->source->fd, st);
}

/* 1: the key is known, and the file need not be read. *about: what it is now, if *known. */
static int recall(struct wc_input *input, wasmcache_key *key, struct wc_hint_look *look,
                  struct wc_hint_about *about, int *known)
{
    struct wc_os_stat st;
    struct wc_hint hint;
    *known = look && identify(input, &st) == 0 && st.type == WC_OS_FILE &&
             wc_hint_of_file(about, look->hints, WC_HINT_SOURCE, &st);
    if (!*known || !wc_hint_get(look, about, &hint))
        return 0;
    wc_key_of_sha256(key, hint.value);
    input->size = st.size;
    return 1;
}

/* The file was hashed. It is remembered if it is still what it was before. */
static void remember(int fd, const wasmcache_key *key, struct wc_hint_look *look,
                     const struct wc_hint_about *before)
{
    struct wc_hint_about about;
    struct wc_os_stat st;
    if (wc_os_fstat(fd, &st) < 0)
        return;
    (void)wc_hint_of_file(&about, look->hints, WC_HINT_SOURCE, &st); /* as before */
    if (memcmp(&about, before, sizeof(about)) == 0 && wc_hint_is_settled(fd, &st))
        wc_hint_put_now(look, &about, key->bytes);
}

int wc_input_key(struct wc_input *input, wasmcache_key *key, struct wc_hint_look *look,
                 struct wc_error *err)
{
    struct wc_hint_about about;
    struct wc_os_stat st;
    int known;
    const wasmcache_source *source = input->source;
    uint8_t hash[32];
    int fd = -1, rc;

    if (source->type == WASMCACHE_SOURCE_DIGEST)
        return wc_key_of_digest(key, source->digest_algorithm, source->digest,
                                source->digest_length, err);
    if (!wc_input_is_file(input)) {
        wc_sha256(hash, input->bytes, input->length);
        wc_key_of_sha256(key, hash);
        return 0;
    }
    if (recall(input, key, look, &about, &known))
        return 0;
    rc = open_file(input, &fd, &st, err);
    if (rc == 0)
        rc = wc_key_of_fd(key, WASMCACHE_KEY_SHA256, fd, &st, input->path, &input->size, err);
    if (rc == 0 && known)
        remember(fd, key, look, &about);
    return rc;
}

static int read_file(struct wc_input *input, struct wc_error *err)
{
    struct wc_os_stat st;
    uint64_t room, length = 0;
    char *bytes = NULL;
    int fd = -1;
    int rc = open_file(input, &fd, &st, err);
    if (rc < 0)
        return rc;
    /* One byte more than it has: the end shows without another round, and growth is seen. */
    room = st.size + 1;
    for (;;) {
        int64_t n;
        char *more = room <= PTRDIFF_MAX ? realloc(bytes, (size_t)room) : NULL;
        if (!more) {
            free(bytes);
            return wc_fail(err, WASMCACHE_ENOMEM, 0, "malloc", input->path,
                           "No memory for the %" PRIu64 " bytes of %s", room, input->name);
        }
        bytes = more;
        n = wc_os_pread(fd, bytes + length, (size_t)(room - length), length);
        if (n < 0) {
            free(bytes);
            return wc_fail(err, WASMCACHE_EIO, (int)n, "pread", input->path, "Cannot read %s",
                           input->name);
        }
        length += (uint64_t)n;
        if (length < room)
            break;
        if (length > WC_WASM_MAX) { /* it grows as fast as it is read */
            free(bytes);
            return wc_key_too_large(input->path, err);
        }
        room *= 2;
    }
    rc = wc_key_check_end(fd, &st, length, input->path, err);
    if (rc < 0) {
        free(bytes);
        return rc;
    }
    input->owned = bytes;
    input->bytes = bytes;
    input->length = (size_t)length;
    input->size = length;
    return 0;
}

int wc_input_read(struct wc_input *input, struct wc_error *err)
{
    const wasmcache_source *source = input->source;
    if (wc_input_is_file(input))
        return read_file(input, err);
    if (source->type == WASMCACHE_SOURCE_BYTES)
        return 0;
    if (!source->fetch)
        return wc_fail(err, WASMCACHE_EMISS, 0, NULL, NULL,
                       "The module of that digest is not in the cache, and there is no fetch");
    if (source->fetch(&input->bytes, &input->length, source->payload))
        return wc_fail(err, WASMCACHE_EABORTED, 0, "fetch", NULL,
                       "The wasm of that digest could not be fetched");
    input->fetched = 1;
    input->size = input->length;
    if ((!input->bytes && input->length) || input->length > PTRDIFF_MAX)
        return wc_fail(err, WASMCACHE_EABORTED, 0, "fetch", NULL,
                       "fetch gave a length without bytes");
    return 0;
}

int wc_input_file_under(const struct wc_input *input, wasmcache_key *key)
{
    const wasmcache_source *source = input->source;
    wasmcache_key before = *key;
    uint8_t hash[32];
    if (source->type == WASMCACHE_SOURCE_BYTES ||
        (source->type == WASMCACHE_SOURCE_DIGEST && source->vouched))
        return 0;
    wc_sha256(hash, input->bytes, input->length);
    wc_key_of_sha256(key, hash);
    return !wasmcache_key_equal(key, &before);
}

int wc_input_unchanged(const struct wc_input *input, const wasmcache_key *key, struct wc_error *err)
{
    wasmcache_key now = *key;
    uint8_t hash[32];
    if (wc_input_is_file(input) ||
        (input->source->type == WASMCACHE_SOURCE_DIGEST && input->source->vouched))
        return 0;
    wc_sha256(hash, input->bytes, input->length);
    wc_key_of_sha256(&now, hash);
    if (wasmcache_key_equal(&now, key))
        return 0;
    return wc_fail(err, WASMCACHE_EBUSY, 0, NULL, NULL,
                   "The wasm changed in memory while it was compiled; the module is not saved");
}
