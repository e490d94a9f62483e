/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tests of Wasmer's FileSystemCache by their names, with a real engine and real modules: what
 * that cache promises holds here too.
 */
#include "engine_host.h"

#include <sys/stat.h>

#include "support/lzw.h"

/* A real module that the engine itself compiled once for all tests. */
struct fixture {
    struct scratch scratch;
    wasm_engine_t *engine;
    const char *name;
    char *path; /* of the wasm, for other processes */
    uint8_t *wasm;
    size_t size;
    engine_module *module;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    scratch_init(&f->scratch);
    f->name = ENGINE_HAS_WASI ? "boolector" : "sqlite";
    f->wasm = real_module(f->name, &f->size);
    if (!f->wasm) {
        printf("there is no %s.wasm (tools/modules): a small module stands in\n", f->name);
        f->name = NULL;
        f->size = wasm_add_size;
        f->wasm = malloc(f->size);
        memcpy(f->wasm, wasm_add, f->size);
    }
    f->path = scratch_in(&f->scratch, "module.wasm");
    scratch_write(f->path, f->wasm, f->size, 0644);
    f->engine = wasm_engine_new();
    f->module = engine_compile(f->engine, f->wasm, f->size, NULL, 0);
    assert_non_null(f->module);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    engine_module_delete(f->module);
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
    options.dir = dir;
    host_open_with(h, &options, f->engine, "");
}

static void close_cache(struct host *h)
{
    wasmcache_detach(h->wc);
    wasmcache_close(h->cache);
}

/* Of the module as it was compiled here. */
static int32_t stack_top(const struct fixture *f)
{
    const int32_t top = call_export(f->engine, f->module, "Pa", NULL, 0);
    assert_true(top > 16);
    return top;
}

/* A process that knows nothing of this one loads the module from `dir`, runs it, and gets from it
 * what it should give. */
static void assert_fresh_process_runs_it(struct fixture *f, const char *dir)
{
    char out[512];
    size_t size;
    if (f->name && ENGINE_HAS_WASI) {
        char *output = scratch_in(&f->scratch, "output");
        char *text;
        assert_int_equal(run_program(out, sizeof(out), "host_module", dir, f->path, "wasi", output,
                                     "--version", NULL),
                         0);
        text = (char *)scratch_read(output, &size);
        assert_non_null(strstr(text, "3.2.3"));
        free(text);
    } else if (f->name) {
        /* Its stack pointer once 16 bytes of stack are taken: some number that is not zero. */
        assert_int_equal(
            run_program(out, sizeof(out), "host_module", dir, f->path, "call", "Oa", "16", NULL),
            0);
        assert_non_null(strstr(out, scratch_text(&f->scratch, "\n%d\n", (int)stack_top(f) - 16)));
    } else {
        assert_int_equal(run_program(out, sizeof(out), "host_module", dir, f->path, "call", "add",
                                     "19", "23", NULL),
                         0);
        assert_non_null(strstr(out, "\n42\n"));
    }
    assert_ptr_equal(strstr(out, "hit none " ENGINE_NAME "-"), out);
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
    engine_module *loaded;
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
    assert_int_equal(engine_serialize(f->module, &artifact), 0);
    entry = scratch_read(path, &size);
    assert_in_range(size, artifact.size + 1, artifact.size + 4096);
    assert_memory_equal(entry, artifact.data, artifact.size);
    assert_int_equal(report.artifact_bytes, artifact.size);
    free(entry);
    wasm_byte_vec_delete(&artifact);
    /* So that the engine's own tools load it too. */
    loaded = engine_load_file(f->engine, path);
    assert_non_null(loaded);
    engine_module_delete(loaded);
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
    /* It is the module that was compiled here. An engine may serialize a module that it mapped to
     * all of its file, so that our trailer follows. */
    assert_int_equal(engine_serialize(f->module, &ours), 0);
    assert_int_equal(engine_serialize(wasmcache_module_native(loaded), &theirs), 0);
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
    engine_module *module;
    wasmcache_report report;
    size_t size;
    int32_t top;
    uint8_t *wasm = real_module("sqlite", &size);
    if (!wasm) {
        printf("there is no sqlite.wasm (tools/modules)\n");
        skip();
    }
    for (int round = 0; round < 2; round++) {
        host_open(&h, dir, 0);
        assert_int_equal(get_bytes(&module, &h, wasm, size, &report), 0);
        assert_int_equal(report.outcome, round ? WASMCACHE_HIT : WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, 0);
        /* Its stack pointer, and what it is once 16 bytes of stack are taken. */
        top = call_export(h.engine, module, "Pa", NULL, 0);
        assert_true(top > 0);
        assert_int_equal(call_export(h.engine, module, "Oa", room, 1), top - 16);
        engine_module_delete(module);
        host_close(&h);
    }
    free(wasm);
}

/* ---- entries that Wasmer's own cache left ---- */

/*
 * A directory of that cache: {id}-v{version}/{KEY}.bin, an artifact without a trailer, here as
 * `old` puts it there. What the host gets of it, which has the folder's id as Wasmer names it.
 */
struct old {
    struct host h;
    char *path;
    uint8_t *bytes; /* of the file */
    size_t size;
    wasm_byte_vec_t artifact;
};

static void attach_old(struct fixture *f, struct host *h, const char *dir, unsigned flags,
                       const char *settings)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attach_options attach = WASMCACHE_ATTACH_OPTIONS_INIT;
    options.dir = dir;
    options.flags = flags;
    host_open_with(h, &options, f->engine, "");
    wasmcache_detach(h->wc);
    attach.engine_id = "cranelift-opts-rkyv";
    attach.settings = settings;
    h->wc = engine_attach_with(h->cache, h->engine, &attach);
    assert_non_null(h->wc);
    assert_string_not_equal(host_namespace(h), "");
    host_forget(&h->seen);
}

static void old_make(struct old *o, struct fixture *f, const char *dir, int compressed)
{
    char *folder;
    attach_old(f, &o->h, dir, WASMCACHE_LEGACY, "");
    assert_int_equal(engine_serialize(f->module, &o->artifact), 0);
    if (compressed) {
        o->bytes = lzw_encode(&o->size, o->artifact.data, o->artifact.size);
    } else {
        o->size = o->artifact.size;
        o->bytes = malloc(o->size);
        memcpy(o->bytes, o->artifact.data, o->size);
    }
    o->path = expected_path(f, &o->h, dir);
    folder =
        scratch_in(&f->scratch, "%s/%s", dir + strlen(f->scratch.dir) + 1, host_namespace(&o->h));
    assert_int_equal(mkdir(dir, 0755), 0);
    assert_int_equal(mkdir(folder, 0755), 0);
    scratch_write(o->path, o->bytes, o->size, 0644);
}

static void old_end(struct old *o)
{
    wasm_byte_vec_delete(&o->artifact);
    free(o->bytes);
    close_cache(&o->h);
}

static void assert_unchanged(const struct old *o, ino_t inode)
{
    size_t size;
    uint8_t *now = scratch_read(o->path, &size);
    assert_int_equal(size, o->size);
    assert_memory_equal(now, o->bytes, size);
    assert_int_equal(scratch_inode(o->path), inode);
    assert_int_equal(scratch_mode(o->path), 0644);
    free(now);
}

static void assert_runs(const struct fixture *f, engine_module *module)
{
    const int32_t numbers[] = {19, 23}, room[] = {16};
    if (!f->name)
        assert_int_equal(call_export(f->engine, module, "add", numbers, 2), 42);
    else if (!ENGINE_HAS_WASI)
        assert_int_equal(call_export(f->engine, module, "Oa", room, 1), stack_top(f) - 16);
}

/* A get finds it, and changes nothing. */
static void assert_taken(struct fixture *f, struct old *o, int compressed)
{
    const ino_t inode = scratch_inode(o->path);
    const char *tree = scratch_tree(&f->scratch, f->scratch.dir);
    wasmcache_report report;
    engine_module *module;
    wasm_byte_vec_t again;
    host_forget(&o->h.seen);
    assert_int_equal(get_bytes(&module, &o->h, f->wasm, f->size, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.artifact_bytes, o->artifact.size);
    assert_int_equal(host_called(ENGINE_COMPILE), 0);
    assert_int_equal(o->h.seen.count[WASMCACHE_EVENT_HIT], 1);
    assert_int_equal(o->h.seen.count[WASMCACHE_EVENT_SAVED], 0);
    assert_int_equal(o->h.seen.count[WASMCACHE_EVENT_REMOVED], 0);
    if (!compressed)
        assert_true(host_loaded_best());
    /* It is the module that is in it, and it runs. */
    assert_int_equal(engine_serialize(module, &again), 0);
    assert_int_equal(again.size, o->artifact.size);
    assert_memory_equal(again.data, o->artifact.data, again.size);
    wasm_byte_vec_delete(&again);
    assert_runs(f, module);
    engine_module_delete(module);
    assert_unchanged(o, inode);
    assert_string_equal(scratch_tree(&f->scratch, f->scratch.dir), tree);
}

/* What lies there is nothing that the engine loads: a load removes it, a get compiles. */
static void assert_useless(struct fixture *f, struct old *o)
{
    const wasmcache_key key = key_of(f->wasm, f->size);
    wasmcache_module *none = NULL;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    host_forget(&o->h.seen);
    assert_int_equal(wasmcache_load(&none, o->h.wc, WASMCACHE_MODULE, &key, &report),
                     WASMCACHE_ECORRUPT);
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    assert_int_equal(o->h.seen.count[WASMCACHE_EVENT_REMOVED], 1);
    assert_false(scratch_exists(o->path));
}

static void old_entries(struct fixture *f, const char *dir, int compressed)
{
    const wasmcache_key key = key_of(f->wasm, f->size);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *none = NULL;
    const int32_t numbers[] = {19, 23};
    engine_module *module;
    struct old o;
    struct host other;
    ino_t inode;

    old_make(&o, f, dir, compressed);
    inode = scratch_inode(o.path);
    for (int i = 0; i < 2; i++)
        assert_taken(f, &o, compressed);
    assert_int_equal(wasmcache_contains(o.h.wc, WASMCACHE_MODULE, &key), 0);
    /* Nobody else takes it: not without the flag, not where the settings are others. It stays. */
    for (int i = 0; i < 2; i++) {
        attach_old(f, &other, dir, i ? WASMCACHE_LEGACY : 0, i ? "something" : "");
        assert_int_equal(wasmcache_load(&none, other.wc, WASMCACHE_MODULE, &key, &report),
                         WASMCACHE_EMISMATCH);
        assert_int_equal(host_loads(), 0);
        assert_unchanged(&o, inode);
        close_cache(&other);
    }
    /* Nor is it replaced: nothing vouches for it, but it is not ours. */
    assert_int_equal(wasmcache_save(o.h.wc, WASMCACHE_MODULE, &key, f->module, NULL, NULL),
                     WASMCACHE_EMISMATCH);
    assert_unchanged(&o, inode);

    /* Cut anywhere in what comes first, or not what it seems. */
    scratch_write(o.path, o.bytes, 20, 0644);
    assert_useless(f, &o);
    scratch_write(o.path, "", 0, 0644);
    assert_useless(f, &o);
    scratch_write(o.path, "not an artifact at all, but text", 32, 0644);
    assert_useless(f, &o);
    if (compressed) { /* of another version, or of nothing of the kind */
        uint8_t *bytes;
        size_t size;
        bytes = lzw_encode(&size, "compressed text", 15);
        scratch_write(o.path, bytes, size, 0644);
        free(bytes);
        assert_useless(f, &o);
    }

    /* A get removes and compiles; then it is one of ours, which is loaded as such. */
    scratch_write(entry_path(&f->scratch, &o.h, wasm_add, wasm_add_size), "useless", 7, 0644);
    for (int i = 0; i < 2; i++) {
        host_forget(&o.h.seen);
        assert_int_equal(get_bytes(&module, &o.h, wasm_add, wasm_add_size, &report), 0);
        assert_int_equal(report.outcome, i ? WASMCACHE_HIT : WASMCACHE_COMPILED);
        assert_int_equal(report.reason, i ? WASMCACHE_REASON_NONE : WASMCACHE_REASON_CORRUPT);
        assert_int_equal(report.save_error, 0);
        assert_int_equal(o.h.seen.count[WASMCACHE_EVENT_REMOVED], !i);
        assert_int_equal(call_export(f->engine, module, "add", numbers, 2), 42);
        engine_module_delete(module);
    }
    old_end(&o);
}

static void can_still_load_lzw_compressed_binaries(void **state)
{
    struct fixture *f = *state;
    old_entries(f, scratch_in(&f->scratch, "compressed"), 1);
}

static void can_still_load_plain_binaries(void **state)
{
    struct fixture *f = *state;
    old_entries(f, scratch_in(&f->scratch, "plain"), 0);
}

/* In a folder of ours, which nobody else writes to, what has no trailer lost it. */
static void without_the_flag_it_is_damaged(void **state)
{
    struct fixture *f = *state;
    char *dir = scratch_in(&f->scratch, "ours");
    const wasmcache_key key = key_of(f->wasm, f->size);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *none = NULL;
    wasm_byte_vec_t artifact;
    struct host h;
    char *path;
    open_cache(f, &h, dir);
    path = expected_path(f, &h, dir);
    assert_int_equal(wasmcache_save(h.wc, WASMCACHE_MODULE, &key, f->module, NULL, NULL), 0);
    assert_int_equal(engine_serialize(f->module, &artifact), 0);
    scratch_write(path, artifact.data, artifact.size, 0400);
    wasm_byte_vec_delete(&artifact);
    assert_int_equal(wasmcache_load(&none, h.wc, WASMCACHE_MODULE, &key, &report),
                     WASMCACHE_ECORRUPT);
    assert_int_equal(host_loads(), 0);
    assert_false(scratch_exists(path));
    close_cache(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(save_to_disk),
        cmocka_unit_test(create_cache_dir_automatically),
        cmocka_unit_test(missing_file),
        cmocka_unit_test(load_from_disk),
        cmocka_unit_test(load_from_disk_and_call),
        cmocka_unit_test(can_still_load_lzw_compressed_binaries),
        cmocka_unit_test(can_still_load_plain_binaries),
        cmocka_unit_test(without_the_flag_it_is_damaged),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
