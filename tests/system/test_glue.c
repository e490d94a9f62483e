/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of the glue headers are the engine's own, only that they may come from the cache. */
#include "engine_host.h"

#include <fcntl.h>
#include <unistd.h>

static struct scratch scratch;
static unsigned descriptors;

static int set_up(void **state)
{
    (void)state;
    scratch_init(&scratch);
    descriptors = scratch_descriptors();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(scratch_descriptors(), descriptors);
    scratch_end(&scratch);
    return 0;
}

static char *cache_dir(void)
{
    return scratch_in(&scratch, "cache");
}

static engine_module *module_new(struct host *h, const void *wasm, size_t size)
{
    char why[512];
    engine_module *module = engine_get(h->wc, h->engine, wasm, size, why, sizeof(why));
    if (!module)
        fail_msg("%s", why);
    return module;
}

#if defined(WASMCACHE_WASMTIME_COMPONENTS)
static wasmtime_component_t *component_new(struct host *h, const void *wasm, size_t size)
{
    wasmtime_component_t *component = NULL;
    assert_null(wasmcache_wasmtime_component_new(h->wc, h->engine, wasm, size, &component));
    assert_non_null(component);
    return component;
}
#endif

static void assert_adds(wasm_engine_t *engine, engine_module *module)
{
    const int32_t numbers[] = {19, 23};
    assert_int_equal(call_export(engine, module, "add", numbers, 2), 42);
}

/* ---- modules ---- */

static void module_compiles_once_then_loads(void **state)
{
    engine_module *module;
    struct host h;
    ino_t inode;
    char *path;
    (void)state;

    host_open(&h, cache_dir(), 0);
    path = entry_path(&scratch, &h, wasm_add, wasm_add_size);
    module = module_new(&h, wasm_add, wasm_add_size);
    assert_adds(h.engine, module);
    engine_module_delete(module);
    assert_int_equal(host_compiles(1), 1);
    assert_int_equal(host_loads(), 0);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_MISS], 1);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_SAVED], 1);
    inode = scratch_inode(path);

    for (int i = 0; i < 3; i++) {
        host_forget(&h.seen);
        module = module_new(&h, wasm_add, wasm_add_size);
        assert_adds(h.engine, module);
        engine_module_delete(module);
        assert_int_equal(host_called(ENGINE_COMPILE), 0);
        assert_true(host_loaded_best());
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_HIT], 1);
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_FALLBACK], 0);
        assert_int_equal(scratch_inode(path), inode);
    }
    host_close(&h);
}

static void module_loads_in_a_new_process(void **state)
{
    char *dir = cache_dir(), *wasm = scratch_in(&scratch, "add.wasm");
    char out[512];
    (void)state;
    scratch_write(wasm, wasm_add, wasm_add_size, 0644);
    assert_int_equal(
        run_program(out, sizeof(out), "host_module", dir, wasm, "call", "add", "40", "2", NULL), 0);
    assert_non_null(strstr(out, " compiled\n42\n"));
    assert_int_equal(
        run_program(out, sizeof(out), "host_module", dir, wasm, "call", "add", "40", "3", NULL), 0);
    assert_non_null(strstr(out, " loaded\n43\n"));
}

static void module_outlives_attachment_and_cache(void **state)
{
    engine_module *compiled, *loaded;
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    compiled = module_new(&h, wasm_add, wasm_add_size);
    loaded = module_new(&h, wasm_add, wasm_add_size);
    wasmcache_detach(h.wc);
    wasmcache_close(h.cache);
    scratch_remove(cache_dir()); /* what is mapped stays */
    assert_adds(h.engine, compiled);
    assert_adds(h.engine, loaded);
    engine_module_delete(compiled);
    assert_adds(h.engine, loaded);
    engine_module_delete(loaded);
    wasm_engine_delete(h.engine);
}

static void closed_cache_compiles_only(void **state)
{
    engine_module *module;
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    engine_module_delete(module_new(&h, wasm_add, wasm_add_size));
    wasmcache_close(h.cache);
    host_forget(NULL);
    module = module_new(&h, wasm_add, wasm_add_size);
    assert_adds(h.engine, module);
    assert_int_equal(host_called(ENGINE_COMPILE), 1);
    assert_int_equal(host_loads(), 0);
    engine_module_delete(module);
    wasmcache_detach(h.wc);
    wasm_engine_delete(h.engine);
}

static void no_cache_and_no_attachment_are_the_engines_own_calls(void **state)
{
    wasm_engine_t *engine = engine_new();
    wasmcache_attachment *wc = engine_attach(NULL, engine, "");
    wasmcache_attachment *each[] = {NULL, wc};
    (void)state;
    assert_non_null(wc);
    for (size_t i = 0; i < 2; i++) {
        engine_module *module;
        host_forget(NULL);
        module = engine_get(each[i], engine, wasm_add, wasm_add_size, NULL, 0);
        assert_non_null(module);
        assert_adds(engine, module);
        engine_module_delete(module);
        assert_int_equal(host_called(ENGINE_COMPILE), 1);
        assert_int_equal(host_called(ENGINE_SERIALIZE), 0);
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
        {
            wasmtime_component_t *component = NULL;
            assert_null(wasmcache_wasmtime_component_new(each[i], engine, wasm_empty_component,
                                                         sizeof(wasm_empty_component), &component));
            wasmtime_component_delete(component);
            assert_int_equal(host_called("wasmtime_component_new"), 1);
            assert_int_equal(host_called("wasmtime_component_serialize"), 0);
        }
#endif
    }
    wasmcache_detach(wc);
    wasmcache_detach(NULL);
    wasm_engine_delete(engine);
}

#if ENGINE_IS_SEEN
static void another_engine_is_not_cached(void **state)
{
    wasm_engine_t *other = engine_new();
    wasmtime_component_t *component = NULL;
    engine_module *module;
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    /* An entry is there, and the engine is even of the same configuration. */
    engine_module_delete(module_new(&h, wasm_add, wasm_add_size));
    host_forget(&h.seen);
    module = engine_get(h.wc, other, wasm_add, wasm_add_size, NULL, 0);
    assert_non_null(module);
    assert_adds(other, module);
    engine_module_delete(module);
    assert_null(wasmcache_wasmtime_component_new(h.wc, other, wasm_empty_component,
                                                 sizeof(wasm_empty_component), &component));
    wasmtime_component_delete(component);
    assert_int_equal(host_called(ENGINE_COMPILE), 1);
    assert_int_equal(host_called("wasmtime_component_new"), 1);
    assert_int_equal(host_loads(), 0);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_HIT], 0);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_MISS], 0);
    host_close(&h);
    wasm_engine_delete(other);
}
#endif

/* ---- errors ---- */

/* What the engine says to these bytes by itself, and through the cache: the same, or nothing. */
static int assert_same_answer(struct host *h, const void *wasm, size_t size)
{
    char own[1024], cached[1024];
    engine_module *a, *b;
    const int refused = (a = engine_compile(h->engine, wasm, size, own, sizeof(own))) == NULL;

    host_forget(&h->seen);
    b = engine_get(h->wc, h->engine, wasm, size, cached, sizeof(cached));
    assert_int_equal(b == NULL, refused);
    assert_string_equal(cached, own);
    assert_true(!refused || own[0]);
    if (refused) { /* once, and not again to get the error */
        assert_int_equal(host_called(ENGINE_COMPILE), 1);
        assert_int_equal(h->seen.count[WASMCACHE_EVENT_SAVED], 0);
    } else {
        engine_module_delete(a);
        engine_module_delete(b);
    }
    return refused;
}

#if defined(WASMCACHE_WASMTIME_COMPONENTS)
/* The same for components. */
static int assert_same_component(struct host *h, const void *wasm, size_t size)
{
    void *const untouched = h;
    wasmtime_component_t *a = untouched, *b = untouched;
    char own[1024], cached[1024];
    wasmtime_error_t *error = wasmtime_component_new(h->engine, wasm, size, &a);
    const int refused = error != NULL;

    host_forget(&h->seen);
    error_text(own, sizeof(own), error);
    error = wasmcache_wasmtime_component_new(h->wc, h->engine, wasm, size, &b);
    assert_int_equal(error != NULL, refused);
    error_text(cached, sizeof(cached), error);
    assert_int_equal(b == untouched, a == untouched);
    assert_string_equal(cached, own);
    assert_true(!refused || own[0]);
    if (refused) {
        assert_int_equal(host_called("wasmtime_component_new"), 1);
        assert_int_equal(h->seen.count[WASMCACHE_EVENT_SAVED], 0);
    } else {
        wasmtime_component_delete(a);
        wasmtime_component_delete(b);
    }
    return refused;
}
#else
/* No components here: there is nothing to compare. */
static int assert_same_component(struct host *h, const void *wasm, size_t size)
{
    (void)h;
    (void)wasm;
    (void)size;
    return 1;
}
#endif

static void engines_errors_are_handed_over_unchanged(void **state)
{
    static const struct {
        const void *bytes;
        size_t size;
    } bad[] = {
        {"\0asm\1\0\0", 7},                   /* cut in the header */
        {"\0asm\2\0\0\0", 8},                 /* another version */
        {"\0asm\1\0\0\0\1", 9},               /* a section without its length */
        {"\0asm\1\0\0\0\1\377\377\3", 12},    /* a section that is too long */
        {"\177ELF\2\1\1\0\0\0\0\0", 12},      /* something else */
        {"(module (func (result i32)))", 28}, /* text that does not type-check */
        {"\xff\xfe garbage", 10},
    };
    struct host h;
    uint8_t invalid[WASM_ANSWER_ROOM(0)];
    size_t size;
    (void)state;

    host_open(&h, cache_dir(), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        assert_true(assert_same_answer(&h, bad[i].bytes, bad[i].size));
        assert_true(assert_same_component(&h, bad[i].bytes, bad[i].size));
    }
    /* Every truncation: those in front of a section are modules, and stay what they are. */
    for (size_t i = 1; i < wasm_add_size; i++)
        assert_same_answer(&h, wasm_add, i);
    /* Well-formed, but not valid: i32.const becomes i64.const. */
    size = wasm_answer(invalid, 1, 0);
    invalid[size - 7] = 0x42;
    assert_true(assert_same_answer(&h, invalid, size));
    assert_true(assert_same_answer(&h, wasm_empty_component, 8));
    assert_true(assert_same_component(&h, wasm_empty_module, 8));
    /* Nothing came of those that the engine refused. */
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
        assert_false(scratch_exists(entry_path(&scratch, &h, bad[i].bytes, bad[i].size)));
    assert_false(scratch_exists(entry_path(&scratch, &h, invalid, size)));
    host_close(&h);
}

static void empty_input_is_for_the_engine_to_judge(void **state)
{
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    assert_same_answer(&h, "", 0);
    assert_same_answer(&h, "", 0);
    assert_same_component(&h, "", 0);
    assert_same_answer(&h, "", 0);
    host_close(&h);
}

static void error_of_a_counted_get_has_the_engines_text(void **state)
{
    wasmcache_source source = wasmcache_source_bytes("\0asm\2\0\0\0", 8);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    char own[1024];
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    assert_null(engine_compile(h.engine, source.bytes, source.length, own, sizeof(own)));
    assert_int_equal(wasmcache_get(&module, h.wc, WASMCACHE_MODULE, &source, NULL, &report),
                     WASMCACHE_EENGINE);
    assert_null(module);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
    assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EENGINE);
    assert_ptr_equal(strstr(wasmcache_last_error()->message, own), wasmcache_last_error()->message);
    host_close(&h);
}

/* ---- text ---- */

static void text_is_whatever_the_engine_makes_of_it(void **state)
{
    static const char text[] = "(module (func (export \"answer\") (result i32) (i32.const -7)))";
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    if (assert_same_answer(&h, text, sizeof(text) - 1) == 0) {
        engine_module *module;
        host_forget(&h.seen);
        module = module_new(&h, text, sizeof(text) - 1);
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_HIT], 1);
        assert_int_equal(call_export(h.engine, module, "answer", NULL, 0), -7);
        engine_module_delete(module);
    } else {
        assert_false(scratch_exists(entry_path(&scratch, &h, text, sizeof(text) - 1)));
    }
    host_close(&h);
}

/* ---- components ---- */

#if defined(WASMCACHE_WASMTIME_COMPONENTS)

static void component_text_is_whatever_the_engine_makes_of_it(void **state)
{
    static const char text[] = "(component)";
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    if (assert_same_component(&h, text, sizeof(text) - 1) == 0) {
        host_forget(&h.seen);
        wasmtime_component_delete(component_new(&h, text, sizeof(text) - 1));
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_HIT], 1);
    }
    host_close(&h);
}

/* Calls the export "answer" of a component, without arguments, which gives a number. */
static int32_t component_answer(wasm_engine_t *engine, wasmtime_component_t *component)
{
    wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
    wasmtime_context_t *context = wasmtime_store_context(store);
    wasmtime_component_linker_t *linker = wasmtime_component_linker_new(engine);
    wasmtime_component_export_index_t *index;
    wasmtime_component_instance_t instance;
    wasmtime_component_func_t function;
    wasmtime_component_val_t result;

    memset(&result, 0, sizeof(result));
    assert_null(wasmtime_component_linker_instantiate(linker, context, component, &instance));
    index = wasmtime_component_get_export_index(component, NULL, "answer", strlen("answer"));
    assert_non_null(index);
    assert_true(wasmtime_component_instance_get_func(&instance, context, index, &function));
    assert_null(wasmtime_component_func_call(&function, context, NULL, 0, &result, 1));
    assert_int_equal(result.kind, WASMTIME_COMPONENT_S32);
    wasmtime_component_export_index_delete(index);
    wasmtime_component_linker_delete(linker);
    wasmtime_store_delete(store);
    return result.of.s32;
}

/* A component with something to run, in binary; 0 if this engine reads no text. */
static int make_component(wasm_byte_vec_t *out)
{
    static const char text[] =
        "(component"
        "  (core module $m (func (export \"answer\") (result i32) (i32.const 4242)))"
        "  (core instance $i (instantiate $m))"
        "  (func (export \"answer\") (result s32) (canon lift (core func $i \"answer\"))))";
    wasmtime_error_t *error = wasmtime_wat2wasm(text, sizeof(text) - 1, out);
    char why[512];
    if (!error)
        return 1;
    printf("no component to run: %s\n", error_text(why, sizeof(why), error));
    return 0;
}

static int load_component(void *payload)
{
    const wasm_byte_vec_t *wasm = payload;
    wasmtime_component_t *component;
    struct host h;
    host_open(&h, cache_dir(), 0);
    component = component_new(&h, wasm->data, wasm->size);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_HIT], 1);
    assert_int_equal(component_answer(h.engine, component), 4242);
    wasmtime_component_delete(component);
    host_close(&h);
    return 0;
}

static void component_compiles_once_then_loads(void **state)
{
    wasmtime_component_t *component;
    wasm_byte_vec_t wasm;
    struct host h;
    (void)state;
    if (!make_component(&wasm))
        skip();
    host_open(&h, cache_dir(), 0);
    component = component_new(&h, wasm.data, wasm.size);
    assert_int_equal(component_answer(h.engine, component), 4242);
    wasmtime_component_delete(component);
    assert_int_equal(host_called("wasmtime_component_new"), 1);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_SAVED], 1);

    host_forget(&h.seen);
    component = component_new(&h, wasm.data, wasm.size);
    assert_int_equal(host_called("wasmtime_component_new"), 0);
    assert_int_equal(host_called("wasmtime_component_deserialize_file"), 1);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_HIT], 1);
    wasmcache_detach(h.wc);
    wasmcache_close(h.cache);
    assert_int_equal(component_answer(h.engine, component), 4242);
    wasmtime_component_delete(component);
    wasm_engine_delete(h.engine);
    assert_int_equal(scratch_child(load_component, &wasm, 0, 60), 0);
    wasm_byte_vec_delete(&wasm);
}

/* A counted one is deleted as what it is. */
static void counted_components(void **state)
{
    wasmcache_source source = wasmcache_source_bytes(wasm_empty_component, 8);
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    for (int round = 0; round < 2; round++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *component = NULL;
        assert_int_equal(
            wasmcache_get(&component, h.wc, WASMCACHE_COMPONENT, &source, NULL, &report), 0);
        assert_int_equal(report.outcome, round ? WASMCACHE_HIT : WASMCACHE_COMPILED);
        host_forget(NULL);
        wasmcache_module_release(component);
        assert_int_equal(host_called("wasmtime_component_delete"), 1);
        assert_int_equal(host_called(ENGINE_DELETE), 0);
    }
    host_close(&h);
}

static void empty_module_and_empty_component(void **state)
{
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    for (int round = 0; round < 2; round++) {
        host_forget(&h.seen);
        engine_module_delete(module_new(&h, wasm_empty_module, 8));
        wasmtime_component_delete(component_new(&h, wasm_empty_component, 8));
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_HIT], round ? 2 : 0);
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_SAVED], round ? 0 : 2);
    }
    assert_string_not_equal(entry_path(&scratch, &h, wasm_empty_module, 8),
                            entry_path(&scratch, &h, wasm_empty_component, 8));
    host_close(&h);
}

/* What is in the cache as one kind is never handed to the engine as the other. */
static void kinds_do_not_mix(void **state)
{
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    engine_module_delete(module_new(&h, wasm_empty_module, 8));
    wasmtime_component_delete(component_new(&h, wasm_empty_component, 8));
    assert_true(assert_same_component(&h, wasm_empty_module, 8));
    assert_int_equal(host_loads(), 0);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_MISS], 1);
    assert_true(assert_same_answer(&h, wasm_empty_component, 8));
    assert_int_equal(host_loads(), 0);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_MISS], 1);
    /* And neither cost the other its entry. */
    engine_module_delete(module_new(&h, wasm_empty_module, 8));
    wasmtime_component_delete(component_new(&h, wasm_empty_component, 8));
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_HIT], 2);
    host_close(&h);
}

#endif

/* ---- saving what was loaded ---- */

/*
 * A module that came from one cache is saved in another: promotion, or a host that warms a second
 * directory. It loads and runs there.
 * The engine serializes a module that it mapped to all of its file, our trailer with it: that is
 * not saved as part of the artifact.
 */
static void a_loaded_module_can_be_saved_again(void **state)
{
    const wasmcache_key key = key_of(wasm_add, wasm_add_size);
    uint64_t first = 0;
    (void)state;
    for (int i = 0; i < 3; i++) {
        char *to = scratch_in(&scratch, "cache%d", i + 1);
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        engine_module *module;
        struct host from, h;
        host_open(&from, i ? scratch_in(&scratch, "cache%d", i) : cache_dir(), 0);
        host_open(&h, to, 0);
        module = module_new(&from, wasm_add, wasm_add_size);
        assert_adds(from.engine, module);
        wasmcache_detach(h.wc);
        h.wc = engine_attach(h.cache, from.engine, "");
        assert_int_equal(wasmcache_save(h.wc, WASMCACHE_MODULE, &key, module, NULL, &report), 0);
        engine_module_delete(module);
        if (i == 0)
            first = report.artifact_bytes;
        assert_int_equal(report.artifact_bytes, first);
        host_close(&from);
        host_close(&h);
    }
}

/* ---- counted modules, other sources ---- */

static void every_source_finds_the_same_entry(void **state)
{
    char *path = scratch_in(&scratch, "add.wasm");
    const wasmcache_key key = key_of(wasm_add, wasm_add_size);
    wasmcache_source sources[4];
    struct host h;
    int fd;
    (void)state;
    scratch_write(path, wasm_add, wasm_add_size, 0400);
    host_open(&h, cache_dir(), 0);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    sources[0] = wasmcache_source_path(path);
    sources[1] = wasmcache_source_bytes(wasm_add, wasm_add_size);
    sources[2] = wasmcache_source_fd(fd);
    sources[3] = wasmcache_source_sha256(key.bytes, NULL, NULL);
    for (int i = 0; i < 4; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        assert_int_equal(wasmcache_get(&module, h.wc, WASMCACHE_MODULE, &sources[i], NULL, &report),
                         0);
        assert_int_equal(report.outcome, i ? WASMCACHE_HIT : WASMCACHE_COMPILED);
        assert_true(wasmcache_key_equal(&report.key, &key));
        assert_adds(h.engine, wasmcache_module_native(module));
        assert_ptr_equal(wasmcache_module_ref(module), module);
        wasmcache_module_release(module);
        assert_adds(h.engine, wasmcache_module_native(module));
        wasmcache_module_release(module);
    }
    close(fd);
    host_close(&h);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(module_compiles_once_then_loads),
        TEST(module_loads_in_a_new_process),
        TEST(module_outlives_attachment_and_cache),
        TEST(closed_cache_compiles_only),
        TEST(no_cache_and_no_attachment_are_the_engines_own_calls),
#if ENGINE_IS_SEEN
        TEST(another_engine_is_not_cached),
#endif
        TEST(engines_errors_are_handed_over_unchanged),
        TEST(empty_input_is_for_the_engine_to_judge),
        TEST(error_of_a_counted_get_has_the_engines_text),
        TEST(text_is_whatever_the_engine_makes_of_it),
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
        TEST(component_text_is_whatever_the_engine_makes_of_it),
        TEST(component_compiles_once_then_loads),
        TEST(counted_components),
        TEST(empty_module_and_empty_component),
        TEST(kinds_do_not_mix),
#endif
        TEST(a_loaded_module_can_be_saved_again),
        TEST(every_source_finds_the_same_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
