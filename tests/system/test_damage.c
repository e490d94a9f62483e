/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Real artifacts, damaged in thousands of ways: none of them may reach the engine, and the next get
 * must put a sound one in their place. What is sound but somebody else's is not loaded either.
 *
 * Each trial changes the inode of the entry through a second name of it outside of the cache, so
 * that the entry can be removed and put back without compiling again.
 */
#include "engine_host.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Inline: the test links nothing of the library's. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#define TRAILER 416

struct victim {
    struct scratch scratch;
    struct host h;
    uint8_t *wasm;
    size_t wasm_size;
    wasmcache_key key;
    char *path, *keep; /* of the entry, and its second name */
    int fd;            /* the same inode, for writing */
    uint8_t *copy;     /* of all its bytes */
    size_t size, artifact;
};

static void victim_make(struct victim *v, uint8_t *wasm, size_t size)
{
    engine_module *module;
    wasmcache_report report;

    memset(v, 0, sizeof(*v));
    scratch_init(&v->scratch);
    v->wasm = wasm;
    v->wasm_size = size;
    v->key = key_of(wasm, size);
    host_open(&v->h, scratch_in(&v->scratch, "cache"), 0);
    assert_int_equal(get_bytes(&module, &v->h, wasm, size, &report), 0);
    assert_int_equal(report.save_error, 0);
    engine_module_delete(module);
    v->path = entry_path(&v->scratch, &v->h, wasm, size);
    v->keep = scratch_in(&v->scratch, "keep");
    assert_int_equal(link(v->path, v->keep), 0);
    assert_int_equal(chmod(v->keep, 0600), 0);
    v->fd = open(v->keep, O_RDWR | O_CLOEXEC);
    assert_true(v->fd >= 0);
    assert_int_equal(fchmod(v->fd, 0400), 0);
    v->copy = scratch_read(v->path, &v->size);
    v->artifact = (size_t)report.artifact_bytes;
    assert_in_range(v->size, v->artifact + TRAILER, v->artifact + TRAILER + 7);
    host_forget(&v->h.seen);
}

static void victim_make_small(struct victim *v)
{
    uint8_t *wasm = malloc(WASM_WORK_ROOM(20));
    victim_make(v, wasm, wasm_work(wasm, 3, 20));
}

static void victim_end(struct victim *v)
{
    close(v->fd);
    host_close(&v->h);
    free(v->copy);
    free(v->wasm);
    scratch_end(&v->scratch);
}

static void put(const struct victim *v, const void *bytes, size_t size, size_t at)
{
    assert_int_equal(pwrite(v->fd, bytes, size, (off_t)at), size);
}

/* Undoes what was done to the first `size` bytes from `at`, and gives the entry its name back. */
static void restore(const struct victim *v, size_t at, size_t size)
{
    assert_int_equal(ftruncate(v->fd, (off_t)v->size), 0);
    put(v, v->copy + at, size, at);
    (void)unlink(v->path);
    assert_int_equal(link(v->keep, v->path), 0);
}

static int load(struct victim *v, wasmcache_report *report)
{
    const wasmcache_report empty = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    int rc;
    *report = empty;
    rc = wasmcache_load(&module, v->h.wc, WASMCACHE_MODULE, &v->key, report);
    wasmcache_module_release(module);
    return rc;
}

static void assert_sound(struct victim *v)
{
    const int32_t five[] = {5};
    engine_module *module;
    wasmcache_report report;
    host_forget(&v->h.seen);
    assert_int_equal(get_bytes(&module, &v->h, v->wasm, v->wasm_size, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_true(host_loaded_best());
    if (v->wasm_size < 4096)
        assert_int_equal(call_export(v->h.engine, module, "work", five, 1), 15);
    engine_module_delete(module);
    host_forget(&v->h.seen);
}

/* The entry on disk is damaged now: it is not loaded, and it goes. */
static void assert_refused(struct victim *v)
{
    wasmcache_report report;
    assert_int_equal(load(v, &report), WASMCACHE_ECORRUPT);
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
    assert_int_equal(host_loads(), 0);
    assert_false(scratch_exists(v->path));
}

/* The same with a get, which puts another file in its place. */
static void assert_replaced(struct victim *v)
{
    const ino_t bad = scratch_inode(v->path);
    engine_module *module;
    wasmcache_report report;
    assert_int_equal(get_bytes(&module, &v->h, v->wasm, v->wasm_size, &report), 0);
    engine_module_delete(module);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(host_loads(), 0);
    assert_int_not_equal(scratch_inode(v->path), bad);
    assert_sound(v);
}

/* The same numbers in each run. */
static uint64_t random_number(void)
{
    static uint64_t state = UINT64_C(0x9E3779B97F4A7C15);
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void flip(struct victim *v, uint64_t bit, int replace)
{
    const size_t at = (size_t)(bit / 8);
    const uint8_t byte = (uint8_t)(v->copy[at] ^ 1u << bit % 8);
    put(v, &byte, 1, at);
    if (replace)
        assert_replaced(v);
    else
        assert_refused(v);
    restore(v, at, 1);
}

static void ten_thousand_bits_of_an_artifact(void **state)
{
    struct victim v;
    (void)state;
    victim_make_small(&v);
    for (int i = 0; i < 10000; i++)
        flip(&v, random_number() % (v.artifact * 8), i % 50 == 0);
    assert_sound(&v);
    victim_end(&v);
}

static void bits_of_a_large_artifact(void **state)
{
    struct victim v;
    size_t size;
    uint8_t *wasm = real_module("sqlite", &size);
    (void)state;
    if (!wasm) {
        printf("there is no sqlite.wasm (tools/modules)\n");
        skip();
    }
    victim_make(&v, wasm, size);
    for (int i = 0; i < 500; i++)
        flip(&v, random_number() % (v.artifact * 8), 0);
    /* First and last bit, and the ones next to what is ours. */
    flip(&v, 0, 0);
    flip(&v, v.artifact * 8 - 1, 0);
    flip(&v, v.artifact * 8, 0);
    flip(&v, v.size * 8 - 1, 1);
    assert_sound(&v);
    victim_end(&v);
}

static void every_bit_of_trailer_and_padding(void **state)
{
    struct victim v;
    (void)state;
    victim_make_small(&v);
    for (uint64_t bit = v.artifact * 8; bit < v.size * 8; bit++)
        flip(&v, bit, 0);
    assert_sound(&v);
    victim_end(&v);
}

/* Zeroes `size` bytes from `at`; 0 if they were zero before. */
static int zero(struct victim *v, size_t at, size_t size)
{
    uint8_t *zeros = calloc(1, size);
    const int differs = memcmp(v->copy + at, zeros, size) != 0;
    if (differs)
        put(v, zeros, size, at);
    free(zeros);
    return differs;
}

static void zeroed_sectors_pages_and_tails(void **state)
{
    static const size_t sizes[] = {512, 4096};
    struct victim v;
    unsigned done = 0;
    (void)state;
    victim_make_small(&v);
    for (size_t i = 0; i < 2; i++)
        for (size_t at = 0; at < v.size; at += sizes[i]) {
            const size_t size = v.size - at < sizes[i] ? v.size - at : sizes[i];
            if (!zero(&v, at, size))
                continue;
            assert_refused(&v);
            restore(&v, at, size);
            done++;
        }
    /* As a file system leaves it whose size went to disk before its data. */
    for (size_t at = 0; at < v.size; at += 512) {
        if (!zero(&v, at, v.size - at))
            continue;
        assert_refused(&v);
        restore(&v, at, v.size - at);
        done++;
    }
    assert_true(done > 20);
    zero(&v, 4096, 4096);
    assert_replaced(&v);
    restore(&v, 4096, 4096);
    assert_sound(&v);
    victim_end(&v);
}

static void every_truncation(void **state)
{
    struct victim v;
    (void)state;
    victim_make_small(&v);
    for (size_t length = 0; length < v.size; length++) {
        assert_int_equal(ftruncate(v.fd, (off_t)length), 0);
        if (length % 500 == 0)
            assert_replaced(&v);
        else
            assert_refused(&v);
        restore(&v, length, v.size - length);
    }
    assert_sound(&v);
    victim_end(&v);
}

static void truncations_of_a_large_entry(void **state)
{
    struct victim v;
    size_t size;
    uint8_t *wasm = real_module("sqlite", &size);
    (void)state;
    if (!wasm) {
        printf("there is no sqlite.wasm (tools/modules)\n");
        skip();
    }
    victim_make(&v, wasm, size);
    for (size_t i = 0; i < 300; i++) {
        const size_t length = v.size * i / 300;
        assert_int_equal(ftruncate(v.fd, (off_t)length), 0);
        assert_refused(&v);
        restore(&v, length, v.size - length);
    }
    assert_sound(&v);
    victim_end(&v);
}

static void other_shapes(void **state)
{
    struct victim v;
    const size_t sizes[] = {1, 7, 8, 16, 416, 4096};
    (void)state;
    victim_make_small(&v);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        /* Zeros, and bytes of its own, behind it; the same before it. */
        assert_int_equal(ftruncate(v.fd, (off_t)(v.size + sizes[i])), 0);
        assert_refused(&v);
        restore(&v, 0, 1);
        put(&v, v.copy + v.size - sizes[i], sizes[i], v.size);
        assert_refused(&v);
        restore(&v, 0, 1);
        put(&v, v.copy, v.size, sizes[i]);
        assert_refused(&v);
        restore(&v, 0, v.size);
    }
    /* Halves swapped, with the trailer in its place. */
    put(&v, v.copy + v.artifact / 2, v.artifact - v.artifact / 2, 0);
    put(&v, v.copy, v.artifact / 2, v.artifact - v.artifact / 2);
    assert_replaced(&v);
    restore(&v, 0, v.size);
    /* The artifact without a trailer: cutting that off must not switch the check off. */
    assert_int_equal(ftruncate(v.fd, (off_t)v.artifact), 0);
    assert_replaced(&v);
    restore(&v, v.artifact, v.size - v.artifact);
    assert_sound(&v);
    victim_end(&v);
}

/* ---- sound, but not what is asked for ---- */

/* `path` has the victim's entry, which is another's there: left alone by load, replaced by get. */
static void assert_mismatched(struct victim *v, struct host *h, const char *path,
                              const uint8_t *wasm, size_t size)
{
    const wasmcache_key key = key_of(wasm, size);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *none = NULL;
    engine_module *module;
    const ino_t inode = scratch_inode(path);

    /* Or the next file could get its number. */
    assert_int_equal(link(path, scratch_in(&v->scratch, "held")), 0);
    host_forget(&h->seen);
    assert_int_equal(wasmcache_load(&none, h->wc, WASMCACHE_MODULE, &key, &report),
                     WASMCACHE_EMISMATCH);
    assert_int_equal(report.reason, WASMCACHE_REASON_MISMATCHED);
    assert_int_equal(host_loads(), 0);
    assert_int_equal(h->seen.count[WASMCACHE_EVENT_REMOVED], 0);
    assert_int_equal(scratch_inode(path), inode);

    assert_int_equal(get_bytes(&module, h, wasm, size, &report), 0);
    engine_module_delete(module);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_MISMATCHED);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(host_loads(), 0);
    assert_int_not_equal(scratch_inode(path), inode);
    assert_int_equal(get_bytes(&module, h, wasm, size, &report), 0);
    engine_module_delete(module);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

static void copy_under_another_key(void **state)
{
    struct victim v;
    uint8_t *other = malloc(WASM_WORK_ROOM(20));
    const size_t size = wasm_work(other, 4, 20);
    char *path;
    (void)state;
    victim_make_small(&v);
    path = entry_path(&v.scratch, &v.h, other, size);
    scratch_write(path, v.copy, v.size, 0400);
    assert_mismatched(&v, &v.h, path, other, size);
    assert_sound(&v);
    free(other);
    victim_end(&v);
}

static void copy_under_another_namespace(void **state)
{
    struct victim v;
    struct host other;
    char *path;
    (void)state;
    victim_make_small(&v);
    host_open_other(&other, scratch_in(&v.scratch, "cache"));
    assert_string_not_equal(host_namespace(&v.h), host_namespace(&other));
    path = scratch_in(&v.scratch, "cache/%s", host_namespace(&other));
    assert_int_equal(mkdir(path, 0700), 0);
    path = entry_path(&v.scratch, &other, v.wasm, v.wasm_size);
    scratch_write(path, v.copy, v.size, 0400);
    assert_mismatched(&v, &other, path, v.wasm, v.wasm_size);
    host_close(&other);
    assert_sound(&v);
    victim_end(&v);
}

/* The same engine under a name of its own: what another folder has is not what was saved in it. */
static void copy_under_another_name_of_the_same_engine(void **state)
{
    struct victim v;
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_report report;
    wasmcache_attachment *own;
    char *folder, *path;
    (void)state;
    victim_make_small(&v);
    own = v.h.wc;
    options.engine_id = "another-name";
    options.settings = "";
    v.h.wc = engine_attach_with(v.h.cache, v.h.engine, &options);
    host_forget(&v.h.seen);
    folder = scratch_in(&v.scratch, "cache/%s", host_namespace(&v.h));
    assert_int_equal(mkdir(folder, 0700), 0);
    path = entry_path(&v.scratch, &v.h, v.wasm, v.wasm_size);
    scratch_write(path, v.copy, v.size, 0400);
    assert_int_equal(load(&v, &report), WASMCACHE_EMISMATCH);
    assert_int_equal(host_loads(), 0);
    assert_true(scratch_exists(path));
    wasmcache_detach(v.h.wc);
    v.h.wc = own;
    assert_sound(&v);
    victim_end(&v);
}

static void entry_of_another_kind(void **state)
{
    struct victim v;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *none = NULL;
    int rc;
    (void)state;
    victim_make_small(&v);
    rc = wasmcache_load(&none, v.h.wc, WASMCACHE_COMPONENT, &v.key, &report);
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
    {
        wasmtime_component_t *component = NULL;
        wasmtime_error_t *error;
        assert_int_equal(rc, WASMCACHE_EMISMATCH);
        assert_int_equal(report.reason, WASMCACHE_REASON_MISMATCHED);
        error =
            wasmcache_wasmtime_component_new(v.h.wc, v.h.engine, v.wasm, v.wasm_size, &component);
        assert_non_null(error);
        wasmtime_error_delete(error);
    }
#else
    assert_int_equal(rc, WASMCACHE_EMISUSE); /* an engine that has no components */
#endif
    assert_int_equal(host_loads(), 0);
    assert_sound(&v);
    victim_end(&v);
}

static void later_version_is_left_alone(void **state)
{
    struct victim v;
    uint8_t footer[16];
    uint64_t check;
    wasmcache_report report;
    engine_module *module;
    (void)state;
    victim_make_small(&v);
    memcpy(footer, v.copy + v.size - 16, 16);
    footer[4] = 2; /* the incompatible version; its check is made to fit */
    check = XXH3_64bits(footer, 8);
    for (int i = 0; i < 4; i++)
        footer[8 + i] = (uint8_t)(check >> (8 * i));
    put(&v, footer, 16, v.size - 16);

    for (int i = 0; i < 2; i++) {
        assert_int_equal(load(&v, &report), WASMCACHE_ENEWER);
        assert_int_equal(report.reason, WASMCACHE_REASON_NEWER_FORMAT);
        assert_int_equal(get_bytes(&module, &v.h, v.wasm, v.wasm_size, &report), 0);
        engine_module_delete(module);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason, WASMCACHE_REASON_NEWER_FORMAT);
        assert_int_equal(report.save_error, WASMCACHE_ENEWER);
    }
    assert_int_equal(host_loads(), 0);
    assert_int_equal(scratch_inode(v.path), scratch_inode(v.keep));
    memcpy(v.copy + v.size - 16, footer, 16);
    {
        size_t size;
        uint8_t *now = scratch_read(v.path, &size);
        assert_int_equal(size, v.size);
        assert_memory_equal(now, v.copy, size);
        free(now);
    }
    victim_end(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ten_thousand_bits_of_an_artifact),
        cmocka_unit_test(bits_of_a_large_artifact),
        cmocka_unit_test(every_bit_of_trailer_and_padding),
        cmocka_unit_test(zeroed_sectors_pages_and_tails),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(truncations_of_a_large_entry),
        cmocka_unit_test(other_shapes),
        cmocka_unit_test(copy_under_another_key),
        cmocka_unit_test(copy_under_another_namespace),
        cmocka_unit_test(copy_under_another_name_of_the_same_engine),
        cmocka_unit_test(entry_of_another_kind),
        cmocka_unit_test(later_version_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
