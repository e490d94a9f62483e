/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tests of Wasmer's FileSystemCache by their names, with a real engine and real modules: what
 * that cache promises holds here too.
 */
#include "wasmtime_host.h"

#include <sys/stat.h>

/* A real module that the engine itself compiled once for all tests. */
struct fixture {
    struct scratch scratch;
    wasm_engine_t *engine;
    const char *name;
    char *path; /* of the wasm, for other processes */
    uint8_t *wasm;
    size_t size;
    wasmtime_module_t *module;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    scratch_init(&f->scratch);
    f->name = "boolector";
    f->wasm = real_module(f->name, &f->size);
    if (!f->wasm) {
        printf("there is no boolector.wasm (tools/modules): a small module stands in\n");
        f->name = NULL;
        f->size = wasm_add_size;
        f->wasm = malloc(f->size);
        memcpy(f->wasm, wasm_add, f->size);
    }
    f->path = scratch_in(&f->scratch, "module.wasm");
    scratch_write(f->path, f->wasm, f->size, 0644);
    f->engine = wasm_engine_new();
    assert_null(wasmtime_module_new(f->engine, f->wasm, f->size, &f->module));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    wasmtime_module_delete(f->module);
    wasm_engine_delete(f->engine);
    free(f->wasm);
    scratch_end(&f->scratch);
    free(f);
    return 0;
}

/* A cache with the fixture's engine attached. */
static void open_cache(const struct fixture *f, struct host *h, const char *dir)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    memset(h, 0, sizeof(*h));
    options.dir = dir;
    assert_int_equal(wasmcache_open(&h->cache, &options), 0);
    h->wc = wasmcache_wasmtime_attach(h->cache, f->engine, "");
    assert_non_null(h->wc);
}

static void close_cache(struct host *h)
{
    wasmcache_detach(h->wc);
    wasmcache_close(h->cache);
}

/* A process that knows nothing of this one loads the module from `dir`, runs it, and gets from it
 * what it should give. */
static void assert_fresh_process_runs_it(struct fixture *f, const char *dir)
{
    char out[512];
    size_t size;
    if (f->name) {
        char *output = scratch_in(&f->scratch, "output");
        char *text;
        assert_int_equal(run_program(out, sizeof(out), "host_module", dir, f->path, "wasi", output,
                                     "--version", NULL),
                         0);
        text = (char *)scratch_read(output, &size);
        assert_non_null(strstr(text, "3.2.3"));
        free(text);
    } else {
        assert_int_equal(run_program(out, sizeof(out), "host_module", dir, f->path, "call", "add",
                                     "19", "23", NULL),
                         0);
        assert_non_null(strstr(out, "\n42\n"));
    }
    assert_ptr_equal(strstr(out, "hit none wasmtime-"), out);
    assert_non_null(strstr(out, " loaded\n"));
}

/* {dir}/{namespace}/{KEY}.bin, put together here and not by the library. */
static char *expected_path(struct fixture *f, const struct host *h, const char *dir)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    const wasmcache_key key = key_of(f->wasm, f->size);
    assert_int_equal(strlen(wasmcache_key_to_hex(hex, &key)), 64);
    return scratch_in(&f->scratch, "%s/%s/%s.bin", dir + strlen(f->scratch.dir) + 1,
                      host_namespace(h), hex);
}

static void save_to_disk(void **state)
{
    struct fixture *f = *state;
    char *dir = scratch_in(&f->scratch, "saved");
    const wasmcache_key key = key_of(f->wasm, f->size);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmtime_module_t *loaded = NULL;
    wasm_byte_vec_t artifact;
    struct host h;
    uint8_t *entry;
    char *path;
    size_t size;

    open_cache(f, &h, dir);
    path = expected_path(f, &h, dir);
    assert_false(scratch_exists(path));
    assert_int_equal(wasmcache_contains(h.wc, WASMCACHE_MODULE, &key), WASMCACHE_EMISS);

    assert_int_equal(wasmcache_save(h.wc, WASMCACHE_MODULE, &key, f->module, NULL, &report), 0);

    assert_int_equal(wasmcache_contains(h.wc, WASMCACHE_MODULE, &key), 0);
    assert_true(scratch_exists(path));
    assert_int_equal(scratch_mode(path), 0400);
    /* The engine's artifact from byte 0, and then less than a page of ours. */
    assert_null(wasmtime_module_serialize(f->module, &artifact));
    entry = scratch_read(path, &size);
    assert_in_range(size, artifact.size + 1, artifact.size + 4096);
    assert_memory_equal(entry, artifact.data, artifact.size);
    assert_int_equal(report.artifact_bytes, artifact.size);
    free(entry);
    wasm_byte_vec_delete(&artifact);
    /* So that the engine's own tools load it too. */
    assert_null(wasmtime_module_deserialize_file(f->engine, path, &loaded));
    wasmtime_module_delete(loaded);
    close_cache(&h);
    assert_fresh_process_runs_it(f, dir);
}

static void create_cache_dir_automatically(void **state)
{
    struct fixture *f = *state;
    char *dir = scratch_in(&f->scratch, "this/does/not/exist");
    const wasmcache_key key = key_of(f->wasm, f->size);
    struct host h;

    assert_false(scratch_exists(scratch_in(&f->scratch, "this")));
    open_cache(f, &h, dir);
    assert_int_equal(wasmcache_save(h.wc, WASMCACHE_MODULE, &key, f->module, NULL, NULL), 0);
    assert_true(scratch_exists(expected_path(f, &h, dir)));
    assert_int_equal(scratch_mode(dir), 0700);
    assert_true(scratch_exists(scratch_in(&f->scratch, "this/does/not/exist/CACHEDIR.TAG")));

    /* And once more while it is open: gone with all that is in it, and made again. */
    scratch_remove(scratch_in(&f->scratch, "this"));
    assert_int_equal(wasmcache_save(h.wc, WASMCACHE_MODULE, &key, f->module, NULL, NULL), 0);
    assert_true(scratch_exists(expected_path(f, &h, dir)));
    close_cache(&h);
    assert_fresh_process_runs_it(f, dir);
}

static void missing_file(void **state)
{
    struct fixture *f = *state;
    char *dir = scratch_in(&f->scratch, "missing");
    const wasmcache_key key = key_of("never compiled", 14);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *untouched = (wasmcache_module *)&report;
    wasmcache_module *out = untouched;
    struct host h;

    open_cache(f, &h, dir);
    assert_int_equal(wasmcache_load(&out, h.wc, WASMCACHE_MODULE, &key, &report), WASMCACHE_EMISS);
    assert_ptr_equal(out, untouched);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EMISS);
    assert_false(scratch_exists(dir));
    close_cache(&h);
}

static void load_from_disk(void **state)
{
    struct fixture *f = *state;
    char *there = scratch_in(&f->scratch, "there"), *here = scratch_in(&f->scratch, "here");
    char *path, *copy, *folder;
    const wasmcache_key key = key_of(f->wasm, f->size);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *loaded = NULL;
    wasm_byte_vec_t ours, theirs;
    struct host h;
    uint8_t *entry;
    char out[512];
    size_t size;

    /* Another process makes the entry; its bytes are carried to another directory by hand. */
    assert_int_equal(run_program(out, sizeof(out), "host_module", there, f->path, "-", NULL), 0);
    assert_non_null(strstr(out, " compiled\n"));
    open_cache(f, &h, here);
    path = expected_path(f, &h, there);
    copy = expected_path(f, &h, here);
    folder = scratch_in(&f->scratch, "here/%s", host_namespace(&h));
    assert_int_equal(mkdir(here, 0700), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    entry = scratch_read(path, &size);
    scratch_write(copy, entry, size, 0600);
    free(entry);

    assert_int_equal(wasmcache_load(&loaded, h.wc, WASMCACHE_MODULE, &key, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.wasm_bytes, f->size);
    /* It is the module that was compiled here. The engine serializes a module that it mapped to all
     * of its file, so that our trailer follows. */
    assert_null(wasmtime_module_serialize(f->module, &ours));
    assert_null(wasmtime_module_serialize(wasmcache_module_native(loaded), &theirs));
    assert_in_range(theirs.size, ours.size, size);
    assert_memory_equal(ours.data, theirs.data, ours.size);
    wasm_byte_vec_delete(&ours);
    wasm_byte_vec_delete(&theirs);
    wasmcache_module_release(loaded);
    close_cache(&h);
    assert_fresh_process_runs_it(f, here);
}

/* The same, one level up: a module with memory and tables, compiled, loaded and run. */
static void load_from_disk_and_call(void **state)
{
    struct fixture *f = *state;
    char *dir = scratch_in(&f->scratch, "called");
    const int32_t room[] = {16};
    struct host h;
    wasmtime_module_t *module;
    wasmcache_report report;
    size_t size;
    int32_t top;
    uint8_t *wasm = real_module("sqlite", &size);
    if (!wasm) {
        printf("there is no sqlite.wasm (tools/modules)\n");
        skip();
    }
    for (int round = 0; round < 2; round++) {
        host_open(&h, dir, NULL, 0);
        assert_int_equal(get_bytes(&module, &h, wasm, size, &report), 0);
        assert_int_equal(report.outcome, round ? WASMCACHE_HIT : WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, 0);
        /* Its stack pointer, and what it is once 16 bytes of stack are taken. */
        top = call_export(h.engine, module, "Pa", NULL, 0);
        assert_true(top > 0);
        assert_int_equal(call_export(h.engine, module, "Oa", room, 1), top - 16);
        wasmtime_module_delete(module);
        host_close(&h);
    }
    free(wasm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(save_to_disk),
        cmocka_unit_test(create_cache_dir_automatically),
        cmocka_unit_test(missing_file),
        cmocka_unit_test(load_from_disk),
        cmocka_unit_test(load_from_disk_and_call),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
