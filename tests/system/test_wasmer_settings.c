/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a Wasmer engine is: it shows neither its settings nor its middlewares, so that the host says
 * them, and all else is asked of an engine of the glue's own. Nothing is compiled on the host's
 * engine but its modules, its store is not touched, and the text of its errors is left for it.
 *
 * only-wasmer
 */
#include <wasmer.h>

/* Every call of the glue in this file is noted with what it is about. */
static struct {
    const void *engine; /* the host's; what is counted below is about it, or about `store` */
    const void *store;
    unsigned compiles, own_compiles, stores, own_stores, on_store, engines, texts_read, lengths;
    const void *last_store, *own_engine;
} noted;

static wasm_engine_t *noted_wasm_engine_new(void)
{
    wasm_engine_t *engine = wasm_engine_new();
    noted.engines++;
    noted.own_engine = engine;
    return engine;
}

static wasm_store_t *noted_wasm_store_new(wasm_engine_t *engine)
{
    wasm_store_t *store = wasm_store_new(engine);
    if (engine == noted.engine) {
        noted.stores++;
        noted.last_store = store;
    } else if (engine == noted.own_engine) {
        noted.own_stores++;
    }
    return store;
}

static void noted_wasm_store_delete(wasm_store_t *store)
{
    noted.on_store += store == noted.store;
    wasm_store_delete(store);
}

static wasm_module_t *noted_wasm_module_new(wasm_store_t *store, const wasm_byte_vec_t *bytes)
{
    noted.on_store += store == noted.store;
    if (store == noted.last_store)
        noted.compiles++;
    else
        noted.own_compiles++;
    return wasm_module_new(store, bytes);
}

static wasm_module_t *noted_wasm_module_deserialize(wasm_store_t *store,
                                                    const wasm_byte_vec_t *bytes)
{
    noted.on_store += store == noted.store;
    return wasm_module_deserialize(store, bytes);
}

static int noted_wasmer_last_error_length(void)
{
    noted.lengths++;
    return wasmer_last_error_length();
}

static int noted_wasmer_last_error_message(char *text, int length)
{
    noted.texts_read++;
    return wasmer_last_error_message(text, length);
}

#define noted_wasm_engine_delete wasm_engine_delete
#define noted_wasm_byte_vec_delete wasm_byte_vec_delete
#define noted_wasm_module_serialize wasm_module_serialize
#define noted_wasm_module_delete wasm_module_delete

extern wasm_module_t *wasmer_plus_module_deserialize_file(const wasm_engine_t *engine,
                                                          const char *path) __attribute__((weak));
extern wasm_module_t *wasmer_plus_module_clone(const wasm_module_t *module) __attribute__((weak));
extern void wasmer_plus_engine_id(const wasm_engine_t *engine, wasm_byte_vec_t *out)
    __attribute__((weak));

#define WASMCACHE_WASMER_CALL(name) noted_##name
#define WASMCACHE_WASMER_OPTIONAL(name) name
#include "engine_host.h"

static struct scratch scratch;

/* The host: an engine, a store of its own, a cache. */
static struct {
    wasm_engine_t *engine;
    wasm_store_t *store;
    wasmcache *cache;
    atomic_uint events[WASMCACHE_EVENT_UNATTACHED + 1];
    char message[640];
} host;

static void on_event(const wasmcache_event *event, void *payload)
{
    (void)payload;
    if (event->type <= WASMCACHE_EVENT_UNATTACHED)
        host.events[event->type]++;
    if (event->type == WASMCACHE_EVENT_UNATTACHED)
        snprintf(host.message, sizeof(host.message), "%s", event->message);
}

static int set_up(void **state)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    (void)state;
    scratch_init(&scratch);
    memset(&host, 0, sizeof(host));
    host.engine = wasm_engine_new();
    host.store = wasm_store_new(host.engine);
    options.dir = scratch_in(&scratch, "cache");
    options.on_event = on_event;
    assert_int_equal(wasmcache_open(&host.cache, &options), 0);
    memset(&noted, 0, sizeof(noted));
    noted.engine = host.engine;
    noted.store = host.store;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    wasmcache_close(host.cache);
    wasm_store_delete(host.store);
    wasm_engine_delete(host.engine);
    scratch_end(&scratch);
    return 0;
}

static wasm_module_t *module_new(wasmcache_attachment *wc, const void *wasm, size_t size)
{
    const wasm_byte_vec_t bytes = {size, (wasm_byte_t *)(uintptr_t)wasm};
    return wasmcache_wasmer_module_new(wc, host.store, &bytes);
}

static void get_add(wasmcache_attachment *wc)
{
    const int32_t numbers[] = {19, 23};
    wasm_module_t *module = module_new(wc, wasm_add, wasm_add_size);
    assert_non_null(module);
    assert_int_equal(call_export(host.engine, module, "add", numbers, 2), 42);
    wasm_module_delete(module);
}

static wasmcache_attachment_info info_of(wasmcache_attachment *wc)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    assert_int_equal(wasmcache_attachment_status(wc, &info), 0);
    return info;
}

/* ---- settings ---- */

static void without_settings_it_runs_uncached(void **state)
{
    wasmcache_attachment *wc = wasmcache_wasmer_attach(host.cache, host.engine, NULL);
    wasmcache_attachment_info info;
    (void)state;
    assert_non_null(wc);
    for (int i = 0; i < 3; i++) {
        get_add(wc);
        assert_int_equal(host.events[WASMCACHE_EVENT_UNATTACHED], 1);
    }
    info = info_of(wc);
    assert_int_equal(info.error, WASMCACHE_EMISUSE);
    assert_string_equal(info.engine_namespace, "");
    assert_non_null(strstr(info.message, "settings"));
    assert_string_equal(host.message, info.message);
    assert_int_equal(noted.compiles, 3);
    assert_int_equal(noted.engines, 0);
    assert_false(scratch_exists(scratch_in(&scratch, "cache")));
    wasmcache_detach(wc);
}

static void each_settings_string_is_another_namespace(void **state)
{
    static const char *const settings[] = {"", "a", "b", "metering 1", "metering 2", "A"};
    enum { COUNT = sizeof(settings) / sizeof(*settings) };
    char *namespaces[COUNT];
    (void)state;
    for (size_t i = 0; i < COUNT; i++) {
        wasmcache_attachment *wc = wasmcache_wasmer_attach(host.cache, host.engine, settings[i]);
        namespaces[i] = scratch_text(&scratch, "%s", info_of(wc).engine_namespace);
        assert_ptr_equal(strstr(namespaces[i], "wasmer-"), namespaces[i]);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(namespaces[i], namespaces[j]);
        /* So that what was compiled with one is not found with another. */
        get_add(wc);
        assert_int_equal(host.events[WASMCACHE_EVENT_SAVED], i + 1);
        get_add(wc);
        assert_int_equal(host.events[WASMCACHE_EVENT_HIT], i + 1);
        wasmcache_detach(wc);
    }
    for (size_t i = 0; i < COUNT; i++) {
        wasmcache_attachment *wc = wasmcache_wasmer_attach(host.cache, host.engine, settings[i]);
        assert_string_equal(info_of(wc).engine_namespace, namespaces[i]);
        wasmcache_detach(wc);
    }
}

/* ---- ids and versions ---- */

/* The version that Wasmer's own cache has behind the v, read from an artifact here. */
static uint32_t version_of_artifacts(void)
{
    const wasm_byte_vec_t bytes = {wasm_add_size, (wasm_byte_t *)(uintptr_t)wasm_add};
    wasm_module_t *module = wasm_module_new(host.store, &bytes);
    wasm_byte_vec_t artifact;
    uint32_t version;
    wasm_module_serialize(module, &artifact);
    assert_true(artifact.size > 32);
    assert_memory_equal(artifact.data, "wasmer-universalWASMER\0\0", 24);
    memcpy(&version, artifact.data + 24, 4);
    wasm_byte_vec_delete(&artifact);
    wasm_module_delete(module);
    return version;
}

static void a_given_id_is_the_folders_name(void **state)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_attachment *wc;
    char *folder;
    (void)state;
    options.engine_id = "cranelift-opts-rkyv";
    options.settings = "";
    wc = wasmcache_wasmer_attach_with(host.cache, host.engine, &options);
    folder = scratch_text(&scratch, "cranelift-opts-rkyv-v%u", (unsigned)version_of_artifacts());
    assert_string_equal(info_of(wc).engine_namespace, folder);
    get_add(wc);
    assert_true(scratch_exists(scratch_in(&scratch, "cache/%s", folder)));
    get_add(wc);
    assert_int_equal(host.events[WASMCACHE_EVENT_HIT], 1);
    wasmcache_detach(wc);
}

/* Otherwise the id is made of the compiler, where the library tells it, and the fingerprint. */
static void an_own_id_has_compiler_and_fingerprint(void **state)
{
    wasmcache_attachment *wc = wasmcache_wasmer_attach(host.cache, host.engine, "");
    const wasmcache_attachment_info info = info_of(wc);
    char *id = scratch_text(&scratch, "wasmer-%s-%02X%02X%02X%02X%02X%02X%02X%02X-v%u",
                            engine_maps() ? "cranelift" : "default", info.fingerprint[0],
                            info.fingerprint[1], info.fingerprint[2], info.fingerprint[3],
                            info.fingerprint[4], info.fingerprint[5], info.fingerprint[6],
                            info.fingerprint[7], (unsigned)version_of_artifacts());
    (void)state;
    assert_string_equal(info.engine_namespace, id);
    wasmcache_detach(wc);
}

static void a_wrong_version_is_refused(void **state)
{
    const uint32_t right = version_of_artifacts();
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_attachment *wc;
    wasmcache_attachment_info info;
    (void)state;
    options.settings = "";
    options.artifact_version = right + 1;
    wc = wasmcache_wasmer_attach_with(host.cache, host.engine, &options);
    info = info_of(wc);
    assert_int_equal(info.error, WASMCACHE_EMISUSE);
    assert_non_null(strstr(info.message, scratch_text(&scratch, "version %u", (unsigned)right)));
    assert_non_null(strstr(info.message, scratch_text(&scratch, "with %u", (unsigned)right + 1)));
    get_add(wc);
    assert_int_equal(host.events[WASMCACHE_EVENT_UNATTACHED], 1);
    assert_false(scratch_exists(scratch_in(&scratch, "cache")));
    wasmcache_detach(wc);
    /* The right one is as good as none. */
    options.artifact_version = right;
    wc = wasmcache_wasmer_attach_with(host.cache, host.engine, &options);
    assert_int_equal(info_of(wc).error, 0);
    get_add(wc);
    wasmcache_detach(wc);
    wc = wasmcache_wasmer_attach(host.cache, host.engine, "");
    get_add(wc);
    assert_int_equal(host.events[WASMCACHE_EVENT_HIT], 1);
    wasmcache_detach(wc);
}

/* A fingerprint alone does not tell the version; with both nothing is asked. */
static void a_given_fingerprint_needs_the_version(void **state)
{
    uint8_t fingerprint[32];
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_attachment *wc;
    (void)state;
    memset(fingerprint, 7, sizeof(fingerprint));
    options.fingerprint = fingerprint;
    wc = wasmcache_wasmer_attach_with(host.cache, host.engine, &options);
    assert_int_equal(info_of(wc).error, WASMCACHE_EMISUSE);
    assert_non_null(strstr(info_of(wc).message, "version"));
    get_add(wc);
    wasmcache_detach(wc);
    options.artifact_version = version_of_artifacts();
    wc = wasmcache_wasmer_attach_with(host.cache, host.engine, &options);
    assert_int_equal(info_of(wc).error, 0);
    get_add(wc);
    get_add(wc);
    assert_int_equal(host.events[WASMCACHE_EVENT_HIT], 1);
    assert_int_equal(noted.engines, 0);
    wasmcache_detach(wc);
    /* And one that is wrong is found out when it would be saved under it. */
    options.artifact_version++;
    wc = wasmcache_wasmer_attach_with(host.cache, host.engine, &options);
    get_add(wc);
    assert_int_equal(host.events[WASMCACHE_EVENT_SAVE_FAILED], 1);
    wasmcache_detach(wc);
}

/* ---- the fingerprint ---- */

/* The namespace that another process finds, which has the fingerprint in it. */
static char *namespace_elsewhere(const char *library)
{
    char out[512], ns[192], *path = scratch_in(&scratch, "add.wasm");
    char *own = getenv("LD_LIBRARY_PATH");
    char *saved = own ? scratch_text(&scratch, "%s", own) : NULL;
    scratch_write(path, wasm_add, wasm_add_size, 0644);
    if (library)
        setenv("LD_LIBRARY_PATH", library, 1);
    assert_int_equal(run_program(out, sizeof(out), "host_module", scratch_in(&scratch, "elsewhere"),
                                 path, "-", NULL),
                     0);
    if (library && saved)
        setenv("LD_LIBRARY_PATH", saved, 1);
    else if (library)
        unsetenv("LD_LIBRARY_PATH");
    assert_int_equal(sscanf(out, "hit none %191s ", ns), 1);
    return scratch_text(&scratch, "%s", ns);
}

static void the_fingerprint_is_the_same_in_all_processes(void **state)
{
    wasmcache_attachment *wc = wasmcache_wasmer_attach(host.cache, host.engine, "");
    const char *ns = info_of(wc).engine_namespace;
    (void)state;
    assert_string_equal(namespace_elsewhere(NULL), ns);
    assert_string_equal(namespace_elsewhere(NULL), ns);
    wasmcache_detach(wc);
}

/* Another build of the same version is another engine: its build id tells. */
static void another_build_is_another_engine(void **state)
{
    char *with, *without;
    (void)state;
#if defined(STOCK_LIBRARY_DIR)
    if (!engine_maps())
        skip(); /* the same with the other library is enough */
    with = namespace_elsewhere(NULL);
    without = namespace_elsewhere(STOCK_LIBRARY_DIR);
    assert_string_not_equal(with, without);
    assert_string_not_equal(strrchr(with, '-') - 16, strrchr(without, '-') - 16);
    assert_string_equal(strrchr(with, '-'), strrchr(without, '-'));
#else
    (void)with;
    (void)without;
    printf("there is no Wasmer without wasmer-plus\n");
    skip();
#endif
}

/* ---- what the host's engine is used for ---- */

/* A process as a host with metering is: a second module on its engine would be its end. */
static void nothing_but_the_hosts_modules_is_compiled_on_its_engine(void **state)
{
    wasmcache_attachment *wc = wasmcache_wasmer_attach(host.cache, host.engine, "");
    (void)state;
    assert_int_equal(noted.engines + noted.stores + noted.compiles, 0); /* not at attach */
    get_add(wc);
    assert_int_equal(noted.compiles, 1);
    assert_int_equal(noted.engines, 1);
    assert_int_equal(noted.own_compiles, 1); /* the empty module, on an engine of the glue's own */
    assert_int_equal(noted.own_stores, 1);
    for (int i = 0; i < 3; i++)
        get_add(wc);
    assert_int_equal(host.events[WASMCACHE_EVENT_HIT], 3);
    assert_int_equal(noted.compiles, 1);
    assert_int_equal(noted.own_compiles, 1);
    /* Saving needs no probe, either: what it shows does not change. */
    {
        uint8_t wasm[WASM_ANSWER_ROOM(0)];
        const size_t size = wasm_answer(wasm, 7, 0);
        wasm_module_t *module = module_new(wc, wasm, size);
        assert_non_null(module);
        wasm_module_delete(module);
        assert_int_equal(host.events[WASMCACHE_EVENT_SAVED], 2);
    }
    assert_int_equal(noted.compiles, 2);
    assert_int_equal(noted.own_compiles, 1);
    assert_int_equal(noted.engines, 1);
    assert_int_equal(noted.on_store, 0);
    wasmcache_detach(wc);
    /* Without an attachment it is the host's store that is used, and no other. */
    noted.stores = 0;
    get_add(NULL);
    assert_int_equal(noted.on_store, 1);
    assert_int_equal(noted.stores, 0);
}

/* ---- the thread's error ---- */

static void the_text_of_a_refusal_is_the_hosts(void **state)
{
    static const char garbage[] = "\0asm\2\0\0\0";
    const wasm_byte_vec_t bytes = {8, (wasm_byte_t *)(uintptr_t)garbage};
    char own[512], cached[512];
    wasmcache_attachment *wc = wasmcache_wasmer_attach(host.cache, host.engine, "");
    (void)state;
    get_add(wc);
    assert_null(wasm_module_new(host.store, &bytes));
    assert_true(wasmer_last_error_message(own, sizeof(own)) > 0);
    noted.texts_read = noted.lengths = 0;
    for (int i = 0; i < 2; i++) {
        assert_null(module_new(wc, garbage, 8));
        assert_int_equal(noted.texts_read, 0);
        assert_int_equal(noted.lengths, 0);
        assert_int_equal(wasmer_last_error_length(), strlen(own) + 1);
        assert_true(wasmer_last_error_message(cached, sizeof(cached)) > 0);
        assert_string_equal(cached, own);
        assert_int_equal(wasmer_last_error_length(), 0); /* it was read, by us */
    }
    wasmcache_detach(wc);
}

/* A get that asks for the text gets it, and leaves none that the host could take for its own. */
static void a_counted_get_takes_the_text(void **state)
{
    wasmcache_source source = wasmcache_source_bytes("\0asm\2\0\0\0", 8);
    wasmcache_attachment *wc = wasmcache_wasmer_attach(host.cache, host.engine, "");
    wasmcache_module *module = NULL;
    (void)state;
    assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL),
                     WASMCACHE_EENGINE);
    assert_string_not_equal(wasmcache_last_error()->message,
                            "The engine failed and gave no reason");
    assert_int_equal(wasmer_last_error_length(), 0);
    wasmcache_detach(wc);
}

/* Nor does an entry that the engine refuses: the module is compiled, and nothing failed. */
static void a_refused_entry_leaves_no_text(void **state)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    const wasmcache_key key = key_of(wasm_add, wasm_add_size);
    wasmcache_options legacy = WASMCACHE_OPTIONS_INIT;
    wasmcache_attachment *wc;
    wasmcache *cache;
    char path[1024];
    (void)state;
    legacy.dir = scratch_in(&scratch, "cache");
    legacy.flags = WASMCACHE_LEGACY;
    assert_int_equal(wasmcache_open(&cache, &legacy), 0);
    options.engine_id = "cranelift-opts-rkyv";
    options.settings = "";
    wc = wasmcache_wasmer_attach_with(cache, host.engine, &options);
    get_add(wc);
    assert_int_equal(
        wasmcache_entry_path(path, sizeof(path), cache, info_of(wc).engine_namespace, &key), 0);
    /* Begins as an artifact does, but has less than it says. */
    {
        uint8_t bytes[64] = "wasmer-universalWASMER\0\0";
        const uint32_t version = version_of_artifacts(), length = 0x7fffffff;
        memcpy(bytes + 24, &version, 4);
        memcpy(bytes + 28, &length, 4);
        scratch_write(path, bytes, sizeof(bytes), 0600);
    }
    get_add(wc);
    assert_int_equal(wasmer_last_error_length(), 0);
    get_add(wc);
    wasmcache_detach(wc);
    wasmcache_close(cache);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(without_settings_it_runs_uncached),
        TEST(each_settings_string_is_another_namespace),
        TEST(a_given_id_is_the_folders_name),
        TEST(an_own_id_has_compiler_and_fingerprint),
        TEST(a_wrong_version_is_refused),
        TEST(a_given_fingerprint_needs_the_version),
        TEST(the_fingerprint_is_the_same_in_all_processes),
        TEST(another_build_is_another_engine),
        TEST(nothing_but_the_hosts_modules_is_compiled_on_its_engine),
        TEST(the_text_of_a_refusal_is_the_hosts),
        TEST(a_counted_get_takes_the_text),
        TEST(a_refused_entry_leaves_no_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
