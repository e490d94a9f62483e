/* SPDX-License-Identifier: Apache-2.0 */
/* Sources: what can be none, files that change under our feet, and digests with a fetch. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "key.h"
#include "os/os.h"
#include "source.h"
#include "support/fake_engine.h"
#include "support/scratch.h"

struct fixture {
    struct scratch s;
    unsigned descriptors;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    scratch_init(&f->s);
    f->descriptors = scratch_descriptors();
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    wc_os_hook = NULL;
    assert_int_equal(scratch_descriptors(), f->descriptors);
    scratch_end(&f->s);
    free(f);
    return 0;
}

static char *file_of(struct fixture *f, const char *name, const void *bytes, size_t size)
{
    char *path = scratch_in(&f->s, "%s", name);
    scratch_write(path, bytes, size, 0600);
    return path;
}

static void sha256_key(wasmcache_key *key, const void *bytes, size_t length)
{
    assert_int_equal(wasmcache_key_from_bytes(key, WASMCACHE_KEY_SHA256, bytes, length), 0);
}

static void assert_key_of(const wasmcache_key *key, const void *bytes, size_t length)
{
    wasmcache_key expected;
    sha256_key(&expected, bytes, length);
    assert_true(wasmcache_key_equal(key, &expected));
}

/* ---- misuse ---- */

static void assert_misuse(const wasmcache_source *source)
{
    wasmcache_source own;
    struct wc_error err;
    wc_error_init(&err);
    assert_int_equal(wc_source_check(&own, source, &err), WASMCACHE_EMISUSE);
    assert_int_equal(err.error, WASMCACHE_EMISUSE);
    assert_true(strlen(err.message) > 10);
}

static void assert_good(wasmcache_source source)
{
    wasmcache_source own;
    struct wc_error err;
    wc_error_init(&err);
    memset(&own, 0xEE, sizeof(own));
    assert_int_equal(wc_source_check(&own, &source, &err), 0);
    assert_int_equal(err.error, 0);
    assert_int_equal(own.size, sizeof(own));
    assert_int_equal(own.type, source.type);
    assert_ptr_equal(own.bytes, source.bytes);
    assert_ptr_equal(own.payload, source.payload);
}

static void sources_that_cannot_be(void **state)
{
    wasmcache_source s;
    uint8_t digest[32] = {0};
    (void)state;
    assert_misuse(NULL);
    memset(&s, 0, sizeof(s));
    assert_misuse(&s);
    s = wasmcache_source_bytes("x", 1);
    s.size = sizeof(size_t);
    assert_misuse(&s);
    s = wasmcache_source_bytes(NULL, 1);
    assert_misuse(&s);
    s = wasmcache_source_bytes("x", (size_t)PTRDIFF_MAX + 1); /* and no byte of it is read */
    assert_misuse(&s);
    s = wasmcache_source_bytes("x", SIZE_MAX);
    assert_misuse(&s);
    s = wasmcache_source_path(NULL);
    assert_misuse(&s);
    s = wasmcache_source_path("");
    assert_misuse(&s);
    s = wasmcache_source_fd(-1);
    assert_misuse(&s);
    for (int type = 5; type < 9; type++) {
        s = wasmcache_source_bytes("x", 1);
        s.type = (wasmcache_source_type)type;
        assert_misuse(&s);
    }
    s.type = (wasmcache_source_type)0;
    assert_misuse(&s);

    assert_good(wasmcache_source_bytes("x", 1));
    assert_good(wasmcache_source_bytes(NULL, 0));
    assert_good(wasmcache_source_bytes("x", PTRDIFF_MAX));
    assert_good(wasmcache_source_path("x"));
    assert_good(wasmcache_source_fd(0));
    assert_good(wasmcache_source_sha256(digest, NULL, NULL));
}

/* Also without a cache, where no key is made of them. */
static void digests_that_cannot_be(void **state)
{
    static const uint8_t digest[129];
    (void)state;
    for (int wrong = 0; wrong < 6; wrong++) {
        wasmcache_source s = wasmcache_source_sha256(digest, NULL, NULL);
        struct wc_error err;
        struct wc_input input;
        wasmcache_key key;
        if (wrong == 0)
            s.digest = NULL;
        else if (wrong == 1)
            s.digest_algorithm = NULL;
        else if (wrong == 2)
            s.digest_algorithm = "";
        else if (wrong == 3)
            s.digest_length = 31;
        else
            s.digest_algorithm = "sha1";
        if (wrong == 4)
            s.digest_length = 0;
        if (wrong == 5)
            s.digest_length = 129;
        assert_misuse(&s);
        wc_error_init(&err);
        wc_input_init(&input, &s);
        assert_int_equal(wc_input_key(&input, &key, NULL, &err), WASMCACHE_EMISUSE);
        wc_input_release(&input);
    }
}

/* ---- bytes ---- */

static void bytes_are_borrowed(void **state)
{
    static const char wasm[] = "\0asm";
    wasmcache_source s = wasmcache_source_bytes(wasm, 4);
    struct wc_input input;
    struct wc_error err;
    wasmcache_key key;
    (void)state;
    wc_error_init(&err);
    wc_input_init(&input, &s);
    assert_int_equal(wc_input_key(&input, &key, NULL, &err), 0);
    assert_key_of(&key, wasm, 4);
    assert_int_equal(wc_input_read(&input, &err), 0);
    assert_ptr_equal(input.bytes, wasm);
    assert_int_equal(input.length, 4);
    assert_int_equal(input.size, 4);
    assert_null(input.owned);
    assert_int_equal(wc_input_file_under(&input, &key), 0);
    assert_key_of(&key, wasm, 4);
    wc_input_release(&input);
}

static void no_bytes_are_not_null(void **state)
{
    wasmcache_source s = wasmcache_source_bytes(NULL, 0);
    struct wc_input input;
    struct wc_error err;
    wasmcache_key key;
    (void)state;
    wc_error_init(&err);
    wc_input_init(&input, &s);
    assert_int_equal(wc_input_key(&input, &key, NULL, &err), 0);
    assert_key_of(&key, "", 0);
    assert_int_equal(wc_input_read(&input, &err), 0);
    assert_non_null(input.bytes);
    assert_int_equal(input.length, 0);
    wc_input_release(&input);
}

/* ---- files ---- */

/* A source of a path, or of a descriptor in *fd. */
static wasmcache_source source_of(const char *path, int by_fd, int *fd)
{
    *fd = -1;
    if (!by_fd)
        return wasmcache_source_path(path);
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(*fd >= 0);
    return wasmcache_source_fd(*fd);
}

static void files_are_read_whole(void **state)
{
    static const size_t sizes[] = {0, 1, 4095, 4096, 256 * 1024, 256 * 1024 + 1, 1024 * 1024 + 3};
    struct fixture *f = *state;
    char *bytes = malloc(2u << 20u);
    assert_non_null(bytes);
    for (size_t i = 0; i < 2u << 20u; i++)
        bytes[i] = (char)(i * 2654435761u >> 11);
    for (size_t i = 0; i < 2 * sizeof(sizes) / sizeof(*sizes); i++) {
        const size_t size = sizes[i / 2];
        const char *path = file_of(f, "wasm", bytes, size);
        int fd;
        wasmcache_source s = source_of(path, i % 2, &fd);
        struct wc_input input;
        struct wc_error err;
        wasmcache_key key;
        wc_error_init(&err);
        wc_input_init(&input, &s);
        assert_int_equal(wc_input_key(&input, &key, NULL, &err), 0);
        assert_int_equal(input.size, size);
        assert_null(input.bytes); /* not in memory for a lookup */
        assert_int_equal(wc_input_read(&input, &err), 0);
        assert_int_equal(input.length, size);
        assert_int_equal(input.size, size);
        assert_non_null(input.bytes);
        assert_memory_equal(input.bytes, bytes, size);
        assert_key_of(&key, bytes, size);
        assert_int_equal(wc_input_file_under(&input, &key), 0);
        wc_input_release(&input);
        if (fd >= 0) { /* the caller's, still open, its offset where it was */
            assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
            close(fd);
        }
        assert_int_equal(scratch_descriptors(), f->descriptors);
    }
    free(bytes);
}

static void overwrite(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

/* What is compiled is what is read last, and it is filed under its own hash. */
static void file_changes_between_key_and_read(void **state)
{
    static const char *const after[] = {"\0asm and more than before", "\0as", "", "\0xyz"};
    static const size_t lengths[] = {25, 3, 0, 4};
    struct fixture *f = *state;
    for (int i = 0; i < 8; i++) {
        const char *path = file_of(f, "wasm", "\0asm", 4);
        const size_t n = lengths[i / 2];
        int fd;
        wasmcache_source s = source_of(path, i % 2, &fd);
        struct wc_input input;
        struct wc_error err;
        wasmcache_key key;
        wc_error_init(&err);
        wc_input_init(&input, &s);
        assert_int_equal(wc_input_key(&input, &key, NULL, &err), 0);
        assert_key_of(&key, "\0asm", 4);
        overwrite(path, after[i / 2], n);
        assert_int_equal(wc_input_read(&input, &err), 0);
        assert_int_equal(input.length, n);
        assert_int_equal(input.size, n);
        assert_memory_equal(input.bytes, after[i / 2], n);
        assert_int_equal(wc_input_file_under(&input, &key), 1);
        assert_key_of(&key, after[i / 2], n);
        wc_input_release(&input);
        if (fd >= 0)
            close(fd);
    }
}

/* A path is opened once: the two reads never see two files. */
static void file_is_replaced_between_key_and_read(void **state)
{
    struct fixture *f = *state;
    char *path = file_of(f, "wasm", "\0asm", 4);
    wasmcache_source s = wasmcache_source_path(path);
    struct wc_input input;
    struct wc_error err;
    wasmcache_key key;
    wc_error_init(&err);
    wc_input_init(&input, &s);
    assert_int_equal(wc_input_key(&input, &key, NULL, &err), 0);
    file_of(f, "wasm", "another file", 12); /* renamed over it */
    assert_int_equal(wc_input_read(&input, &err), 0);
    assert_int_equal(input.length, 4);
    assert_int_equal(wc_input_file_under(&input, &key), 0);
    assert_key_of(&key, "\0asm", 4);
    wc_input_release(&input);

    wc_input_init(&input, &s);
    assert_int_equal(wc_input_key(&input, &key, NULL, &err), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(wc_input_read(&input, &err), 0);
    assert_memory_equal(input.bytes, "another file", 12);
    wc_input_release(&input);
}

/* Changes the file just before the read that the seam is about to make. */
static struct {
    const char *path;
    size_t sizes[8]; /* what the file is cut or grown to, before the 1st, 2nd, ... pread */
    unsigned count, seen;
} change;

static int change_file(const char *call)
{
    if (strcmp(call, "pread") == 0 && change.seen < change.count)
        assert_int_equal(truncate(change.path, (off_t)change.sizes[change.seen++]), 0);
    return 0;
}

static void file_changes_while_it_is_read(void **state)
{
    static const struct {
        unsigned count;
        size_t sizes[8];
        size_t expected;
    } all[] = {
        {1, {5001}, 5001},                /* one byte more than the room there is */
        {1, {20000}, 20000},              /* more than twice */
        {3, {6000, 13000, 30000}, 30000}, /* ever more */
        {1, {4999}, 4999},                /* less */
        {1, {0}, 0},                      /* nothing */
        {2, {20000, 100}, 5001},          /* grown, then cut: what was read so far */
        {2, {5001, 5001}, 5001},          /* grown once, as much as there is room */
    };
    struct fixture *f = *state;
    char *bytes = calloc(1, 40000);
    assert_non_null(bytes);
    for (size_t i = 0; i < 2 * sizeof(all) / sizeof(*all); i++) {
        int fd;
        wasmcache_source s;
        struct wc_input input;
        struct wc_error err;
        wasmcache_key key;
        memset(bytes, 'w', 5000);
        change.path = file_of(f, "wasm", bytes, 5000);
        s = source_of(change.path, i % 2, &fd);
        change.count = all[i / 2].count;
        memcpy(change.sizes, all[i / 2].sizes, sizeof(change.sizes));
        change.seen = 0;
        wc_error_init(&err);
        wc_input_init(&input, &s);
        assert_int_equal(wc_input_key(&input, &key, NULL, &err), 0);
        wc_os_hook = change_file;
        assert_int_equal(wc_input_read(&input, &err), 0);
        wc_os_hook = NULL;
        assert_int_equal(change.seen, change.count);
        assert_int_equal(input.length, all[i / 2].expected);
        assert_int_equal(input.size, input.length);
        assert_memory_equal(input.bytes, bytes, input.length < 5000 ? input.length : 5000);
        assert_int_equal(wc_input_file_under(&input, &key), 1);
        assert_key_of(&key, input.bytes, input.length);
        wc_input_release(&input);
        if (fd >= 0)
            close(fd);
    }
    free(bytes);
}

static void files_that_are_none(void **state)
{
    struct fixture *f = *state;
    char *fifo = scratch_in(&f->s, "fifo");
    const char *const paths[] = {f->s.dir, fifo, "/dev/null", "/dev/zero",
                                 scratch_in(&f->s, "missing")};
    int both[2];
    assert_int_equal(mkfifo(fifo, 0600), 0);
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        wasmcache_source s = wasmcache_source_path(paths[i]);
        struct wc_input input;
        struct wc_error err;
        wasmcache_key key;
        wc_error_init(&err);
        wc_input_init(&input, &s);
        assert_int_equal(wc_input_key(&input, &key, NULL, &err), WASMCACHE_EIO);
        assert_string_equal(err.path, paths[i]);
        assert_int_equal(wc_input_read(&input, &err), WASMCACHE_EIO);
        wc_input_release(&input);
        assert_int_equal(scratch_descriptors(), f->descriptors);
    }
    assert_int_equal(pipe(both), 0);
    for (int i = 0; i < 4; i++) {
        const int fd = i == 0   ? both[0]
                       : i == 1 ? open(f->s.dir, O_RDONLY | O_CLOEXEC)
                       : i == 2 ? open("/dev/zero", O_RDONLY | O_CLOEXEC)
                                : 9999;
        wasmcache_source s = wasmcache_source_fd(fd);
        struct wc_input input;
        struct wc_error err;
        wasmcache_key key;
        assert_true(fd >= 0);
        wc_error_init(&err);
        wc_input_init(&input, &s);
        assert_int_equal(wc_input_key(&input, &key, NULL, &err), WASMCACHE_EIO);
        assert_int_equal(err.system_errno, i == 3 ? EBADF : i == 1 ? EISDIR : 0);
        assert_string_equal(err.path, "");
        assert_int_equal(wc_input_read(&input, &err), WASMCACHE_EIO);
        wc_input_release(&input);
        close(fd);
    }
    close(both[1]);
}

static struct {
    const char *call;
    int at, seen;
} fault;

static int inject(const char *call)
{
    return strcmp(call, fault.call) == 0 && fault.seen++ == fault.at ? -EIO : 0;
}

/* Each call of the seam fails, the 1st, the 2nd, ... time, until a run meets no fault. */
static void every_call_that_fails(void **state)
{
    static const char *const calls[] = {"open_read_path", "fstat", "pread"};
    struct fixture *f = *state;
    const char *path = file_of(f, "wasm", "\0asm", 4);
    unsigned failed = 0;
    for (size_t i = 0; i < 2 * sizeof(calls) / sizeof(*calls); i++)
        for (int at = 0;; at++) {
            int fd, rc;
            wasmcache_source s = source_of(path, i % 2, &fd);
            struct wc_input input;
            struct wc_error err;
            wasmcache_key key;
            wc_error_init(&err);
            wc_input_init(&input, &s);
            fault.call = calls[i / 2];
            fault.at = at;
            fault.seen = 0;
            wc_os_hook = inject;
            rc = wc_input_key(&input, &key, NULL, &err);
            if (rc == 0)
                rc = wc_input_read(&input, &err);
            wc_os_hook = NULL;
            if (rc < 0) {
                assert_int_equal(rc, WASMCACHE_EIO);
                assert_int_equal(err.system_errno, EIO);
                assert_true(err.call[0] != '\0');
                assert_null(input.owned);
                failed++;
            }
            wc_input_release(&input);
            if (fd >= 0)
                close(fd);
            assert_int_equal(scratch_descriptors(), f->descriptors);
            if (rc == 0)
                break;
        }
    /* By path: open, two fstats, two preads; by descriptor: two fstats, two preads. */
    assert_int_equal(failed, 5 + 4);
}

static void release_may_be_repeated(void **state)
{
    struct fixture *f = *state;
    wasmcache_source s = wasmcache_source_path(file_of(f, "wasm", "\0asm", 4));
    struct wc_input input;
    struct wc_error err;
    wasmcache_key key;
    wc_error_init(&err);
    wc_input_init(&input, &s);
    wc_input_release(&input); /* nothing was held */
    wc_input_init(&input, &s);
    assert_int_equal(wc_input_key(&input, &key, NULL, &err), 0);
    assert_int_equal(wc_input_read(&input, &err), 0);
    wc_input_release(&input);
    assert_int_equal(scratch_descriptors(), f->descriptors);
    wc_input_release(&input);
    assert_int_equal(scratch_descriptors(), f->descriptors);
}

/* ---- digests with a fetch ---- */

struct fetch {
    const void *bytes;
    size_t length;
    int refuse;
    unsigned fetched, released, wrong;
};

static int fetch_it(const void **bytes, size_t *length, void *payload)
{
    struct fetch *fetch = payload;
    fetch->fetched++;
    *bytes = fetch->bytes; /* set also by one that refuses */
    *length = fetch->length;
    return fetch->refuse;
}

static void release_it(const void *bytes, size_t length, void *payload)
{
    struct fetch *fetch = payload;
    fetch->released++;
    fetch->wrong += bytes != fetch->bytes || length != fetch->length;
}

/* Key and read of a digest of "\0asm"; releases twice. */
static int use_fetch(struct fetch *fetch, const char *algorithm, int vouched, wasmcache_key *key,
                     int *other)
{
    wasmcache_key digest;
    wasmcache_source s;
    struct wc_input input;
    struct wc_error err;
    int rc;
    sha256_key(&digest, "\0asm", 4);
    s = wasmcache_source_sha256(digest.bytes, fetch_it, fetch);
    s.digest_algorithm = algorithm;
    s.release = release_it;
    s.vouched = vouched;
    wc_error_init(&err);
    wc_input_init(&input, &s);
    assert_int_equal(wc_input_key(&input, key, NULL, &err), 0);
    assert_int_equal(fetch->fetched, 0); /* on a miss only */
    rc = wc_input_read(&input, &err);
    assert_int_equal(fetch->fetched, 1);
    assert_int_equal(fetch->released, 0); /* not while the bytes are used */
    if (rc == 0) {
        assert_ptr_equal(input.bytes, fetch->bytes);
        assert_int_equal(input.length, fetch->length);
        assert_int_equal(input.size, fetch->length);
        *other = wc_input_file_under(&input, key);
    }
    wc_input_release(&input);
    wc_input_release(&input);
    return rc;
}

static void fetch_is_released_once(void **state)
{
    struct fetch fetch = {"\0asm", 4, 0, 0, 0, 0};
    wasmcache_key key;
    int other = -1;
    (void)state;
    assert_int_equal(use_fetch(&fetch, "sha256", 0, &key, &other), 0);
    assert_int_equal(fetch.released, 1);
    assert_int_equal(fetch.wrong, 0);
    assert_int_equal(other, 0);
    assert_key_of(&key, "\0asm", 4);
}

static void fetch_without_release(void **state)
{
    struct fetch fetch = {"\0asm", 4, 0, 0, 0, 0};
    const uint8_t digest[32] = {1};
    wasmcache_source s = wasmcache_source_sha256(digest, fetch_it, &fetch);
    struct wc_input input;
    struct wc_error err;
    (void)state;
    wc_error_init(&err);
    wc_input_init(&input, &s);
    assert_int_equal(wc_input_read(&input, &err), 0);
    wc_input_release(&input);
    assert_int_equal(fetch.fetched, 1);
}

static void fetch_that_refuses(void **state)
{
    static const int how[] = {1, -1, WASMCACHE_EIO, 12345};
    (void)state;
    for (size_t i = 0; i < sizeof(how) / sizeof(*how); i++) {
        struct fetch fetch = {"\0asm", 4, how[i], 0, 0, 0};
        wasmcache_key key;
        int other;
        assert_int_equal(use_fetch(&fetch, "sha256", 0, &key, &other), WASMCACHE_EABORTED);
        assert_int_equal(fetch.released, 0); /* it handed nothing over */
    }
}

/* Nonsense is refused before it is read, and given back. */
static void fetch_that_gives_nonsense(void **state)
{
    struct fetch all[] = {{NULL, 4, 0, 0, 0, 0},
                          {"x", (size_t)PTRDIFF_MAX + 1, 0, 0, 0, 0},
                          {"x", SIZE_MAX, 0, 0, 0, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        wasmcache_key key;
        int other;
        assert_int_equal(use_fetch(&all[i], "sha256", 0, &key, &other), WASMCACHE_EABORTED);
        assert_int_equal(all[i].released, 1);
        assert_int_equal(all[i].wrong, 0);
    }
}

static void fetch_that_gives_nothing(void **state)
{
    struct fetch fetch = {NULL, 0, 0, 0, 0, 0};
    wasmcache_key key;
    int other = -1;
    (void)state;
    assert_int_equal(use_fetch(&fetch, "sha256", 0, &key, &other), 0);
    assert_int_equal(other, 1);
    assert_key_of(&key, "", 0);
    assert_int_equal(fetch.released, 1);
}

static void no_fetch_is_a_miss(void **state)
{
    const uint8_t digest[32] = {1};
    wasmcache_source s = wasmcache_source_sha256(digest, NULL, NULL);
    struct wc_input input;
    struct wc_error err;
    (void)state;
    wc_error_init(&err);
    s.release = release_it; /* with no payload: would crash */
    wc_input_init(&input, &s);
    assert_int_equal(wc_input_read(&input, &err), WASMCACHE_EMISS);
    wc_input_release(&input);
}

static void vouched_or_not(void **state)
{
    wasmcache_key key, named, foreign;
    int other = -1;
    struct fetch fetch;
    struct wc_error err;
    (void)state;
    wc_error_init(&err);
    sha256_key(&named, "\0asm", 4);
    assert_int_equal(wc_key_of_digest(&foreign, "blake3", named.bytes, 32, &err), 0);

    /* Other bytes than the digest's: filed under what they are. */
    fetch = (struct fetch){"\0liar", 5, 0, 0, 0, 0};
    assert_int_equal(use_fetch(&fetch, "sha256", 0, &key, &other), 0);
    assert_int_equal(other, 1);
    assert_key_of(&key, "\0liar", 5);
    /* Unless the caller vouches. */
    fetch = (struct fetch){"\0liar", 5, 0, 0, 0, 0};
    assert_int_equal(use_fetch(&fetch, "sha256", 1, &key, &other), 0);
    assert_int_equal(other, 0);
    assert_true(wasmcache_key_equal(&key, &named));
    /* A digest that we cannot check: the same. */
    fetch = (struct fetch){"\0asm", 4, 0, 0, 0, 0};
    assert_int_equal(use_fetch(&fetch, "blake3", 0, &key, &other), 0);
    assert_int_equal(other, 1);
    assert_key_of(&key, "\0asm", 4);
    fetch = (struct fetch){"\0asm", 4, 0, 0, 0, 0};
    assert_int_equal(use_fetch(&fetch, "blake3", 1, &key, &other), 0);
    assert_int_equal(other, 0);
    assert_true(wasmcache_key_equal(&key, &foreign));
}

/* ---- memory that changes while it is compiled ---- */

static int unchanged(const wasmcache_source *source, const void *before, char *memory, size_t at)
{
    struct wc_input input;
    struct wc_error err;
    wasmcache_key key;
    int rc;
    memcpy(memory, before, 4);
    wc_error_init(&err);
    wc_input_init(&input, source);
    assert_int_equal(wc_input_key(&input, &key, NULL, &err), 0);
    assert_int_equal(wc_input_read(&input, &err), 0);
    wc_input_file_under(&input, &key);
    assert_int_equal(wc_input_unchanged(&input, &key, &err), 0);
    memory[at] ^= 1;
    rc = wc_input_unchanged(&input, &key, &err);
    wc_input_release(&input);
    return rc;
}

static void memory_that_changes_is_not_saved(void **state)
{
    char memory[4];
    struct fetch fetch = {memory, 4, 0, 0, 0, 0};
    wasmcache_source s = wasmcache_source_bytes(memory, 4);
    const uint8_t digest[32] = {1};
    (void)state;
    for (size_t at = 0; at < 4; at++)
        assert_int_equal(unchanged(&s, "\0asm", memory, at), WASMCACHE_EBUSY);
    s = wasmcache_source_sha256(digest, fetch_it, &fetch);
    assert_int_equal(unchanged(&s, "\0asm", memory, 3), WASMCACHE_EBUSY);
    s.vouched = 1; /* then the caller answers for it */
    assert_int_equal(unchanged(&s, "\0asm", memory, 3), 0);
}

/* ---- through get ---- */

struct host {
    struct fake_engine engine;
    wasmcache *cache;
    wasmcache_attachment *wc;
    wasmcache_report report;
};

static void host_start(struct host *h, const char *dir)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attach_options attach = WASMCACHE_ATTACH_OPTIONS_INIT;
    options.dir = dir;
    attach.compiler = "fake";
    attach.engine_version = "1";
    attach.engine_id = "fake";
    attach.artifact_version = 1;
    fake_engine_init(&h->engine, 1);
    assert_int_equal(wasmcache_open(&h->cache, &options), 0);
    assert_int_equal(wasmcache_attach(&h->wc, h->cache, &h->engine.table, &h->engine, &attach), 0);
}

static void host_end(struct host *h)
{
    wasmcache_detach(h->wc);
    wasmcache_close(h->cache);
    fake_engine_end(&h->engine);
}

/* The outcome of a get, whose module must be that of `wasm`. */
static wasmcache_outcome host_get(struct host *h, const wasmcache_source *source, const char *wasm,
                                  size_t length)
{
    const wasmcache_report empty = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    h->report = empty;
    assert_int_equal(wasmcache_get(&module, h->wc, WASMCACHE_MODULE, source, NULL, &h->report), 0);
    assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, wasm, length));
    wasmcache_module_release(module);
    return h->report.outcome;
}

/* Who hands over other bytes than he named does not spoil the cache for the others. */
static void a_lying_fetch_spoils_nothing(void **state)
{
    struct fixture *f = *state;
    struct fetch fetch = {"\0liar", 5, 0, 0, 0, 0};
    struct host h;
    wasmcache_key named;
    wasmcache_source digest, bytes = wasmcache_source_bytes("\0asm", 4);
    host_start(&h, scratch_in(&f->s, "cache"));
    sha256_key(&named, "\0asm", 4);
    digest = wasmcache_source_sha256(named.bytes, fetch_it, &fetch);
    digest.release = release_it;
    assert_int_equal(host_get(&h, &digest, "\0liar", 5), WASMCACHE_COMPILED);
    assert_key_of(&h.report.key, "\0liar", 5);
    assert_int_equal(fetch.released, 1);
    assert_int_equal(host_get(&h, &bytes, "\0asm", 4), WASMCACHE_COMPILED);
    /* Now the digest is known, and nothing is fetched. */
    assert_int_equal(host_get(&h, &digest, "\0asm", 4), WASMCACHE_HIT);
    assert_int_equal(fetch.fetched, 1);
    assert_int_equal(h.engine.compiles, 2);
    host_end(&h);
}

static void a_vouched_digest_is_found_again(void **state)
{
    struct fixture *f = *state;
    struct fetch fetch = {"\0asm", 4, 0, 0, 0, 0};
    struct host h;
    wasmcache_source s;
    host_start(&h, scratch_in(&f->s, "cache"));
    s = wasmcache_source_sha256((const uint8_t *)"0123456789abcdef0123456789abcdef", fetch_it,
                                &fetch);
    s.digest_algorithm = "blake3";
    s.vouched = 1;
    s.release = release_it;
    assert_int_equal(host_get(&h, &s, "\0asm", 4), WASMCACHE_COMPILED);
    assert_int_equal(host_get(&h, &s, "\0asm", 4), WASMCACHE_HIT);
    assert_int_equal(fetch.fetched, 1);
    assert_int_equal(fetch.released, 1);
    host_end(&h);
}

static const char *grow_path;

static int grow_once(const char *call)
{
    if (strcmp(call, "open_read") == 0 && grow_path) { /* the lookup, between key and read */
        overwrite(grow_path, "\0asm that grew", 14);
        grow_path = NULL;
    }
    return 0;
}

static void a_file_that_grows_is_filed_under_what_it_was(void **state)
{
    struct fixture *f = *state;
    const char *path = file_of(f, "wasm", "\0asm", 4);
    wasmcache_source s = wasmcache_source_path(path);
    struct host h;
    host_start(&h, scratch_in(&f->s, "cache"));
    /* Something else first, so that the folder is there and the lookup opens an entry. */
    {
        wasmcache_source first = wasmcache_source_bytes("\0first", 6);
        assert_int_equal(host_get(&h, &first, "\0first", 6), WASMCACHE_COMPILED);
    }
    grow_path = path;
    wc_os_hook = grow_once;
    assert_int_equal(host_get(&h, &s, "\0asm that grew", 14), WASMCACHE_COMPILED);
    wc_os_hook = NULL;
    assert_null(grow_path);
    assert_key_of(&h.report.key, "\0asm that grew", 14);
    assert_int_equal(h.report.wasm_bytes, 14);
    assert_int_equal(host_get(&h, &s, "\0asm that grew", 14), WASMCACHE_HIT);
    overwrite(path, "\0asm", 4);
    assert_int_equal(host_get(&h, &s, "\0asm", 4), WASMCACHE_COMPILED);
    host_end(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(sources_that_cannot_be),
        TEST(digests_that_cannot_be),
        TEST(bytes_are_borrowed),
        TEST(no_bytes_are_not_null),
        TEST(files_are_read_whole),
        TEST(file_changes_between_key_and_read),
        TEST(file_is_replaced_between_key_and_read),
        TEST(file_changes_while_it_is_read),
        TEST(files_that_are_none),
        TEST(every_call_that_fails),
        TEST(release_may_be_repeated),
        TEST(fetch_is_released_once),
        TEST(fetch_without_release),
        TEST(fetch_that_refuses),
        TEST(fetch_that_gives_nonsense),
        TEST(fetch_that_gives_nothing),
        TEST(no_fetch_is_a_miss),
        TEST(vouched_or_not),
        TEST(memory_that_changes_is_not_saved),
        TEST(a_lying_fetch_spoils_nothing),
        TEST(a_vouched_digest_is_found_again),
        TEST(a_file_that_grows_is_filed_under_what_it_was),
    };
    return cmocka_run_group_tests_name("source", tests, NULL, NULL);
}
