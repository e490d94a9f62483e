/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Arguments that cannot be right, and calls without a cache: each is told so, nothing is touched
 * (no call of the system), and what is given out stays as it was. The tests of single functions
 * have more of them; here are those that are easily forgotten.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"
#include "wasmcache_async.h"

static const char wasm[] = "a module";

static void told(int rc, int expected)
{
    assert_int_equal(rc, expected);
    assert_int_equal(wasmcache_last_error()->error, expected);
    assert_true(wasmcache_last_error()->message[0] != '\0');
}

#define MISUSE(call) told(call, WASMCACHE_EMISUSE)
#define NO_CACHE(call) told(call, WASMCACHE_EOFF)

static void of_open(void **state)
{
    struct rig *r = *state;
    const wasmcache_layer none = WASMCACHE_LAYER_INIT;
    wasmcache_layer good = WASMCACHE_LAYER_INIT, bad = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *layers[2] = {&none, &good};
    wasmcache *cache = NULL;
    good.dir = r->dir;
    seam_record();
    r->options.hints_dir = "";
    MISUSE(wasmcache_open(&cache, &r->options));
    r->options.hints_dir = NULL;
    r->options.layers = layers;
    r->options.layer_count = 2;
    MISUSE(wasmcache_open(&cache, &r->options)); /* the first one has no directory */
    layers[0] = &good;
    layers[1] = &bad;
    bad.dir = "";
    MISUSE(wasmcache_open(&cache, &r->options));
    bad.dir = r->dir;
    bad.flags = 1u << 31;
    MISUSE(wasmcache_open(&cache, &r->options));
    bad.flags = 0;
    bad.size = 8;
    MISUSE(wasmcache_open(&cache, &r->options));
    layers[1] = NULL;
    MISUSE(wasmcache_open(&cache, &r->options));
    seam_off();
    assert_int_equal(seam_calls(), 0);
    assert_null(cache);
    /* Without the padding at its end it is whole. */
    bad.size = offsetof(wasmcache_layer, flags) + sizeof(bad.flags);
    layers[1] = &bad;
    assert_int_equal(wasmcache_open(&cache, &r->options), 0);
    wasmcache_close(cache);
}

static void of_attachments(void **state)
{
    struct rig *r = *state;
    wasmcache_attachment *wc = NULL;
    wasmcache_engine_table table = r->engine.table;
    table.artifact_free = NULL;
    table.serialize = NULL; /* the probe gives an artifact, too */
    seam_record();
    MISUSE(wasmcache_attach(&wc, r->cache, &table, &r->engine, &r->attach));
    MISUSE(wasmcache_attachment_status(r->wc, NULL));
    seam_off();
    assert_int_equal(seam_calls(), 0);
    assert_null(wc);
}

static void of_gets(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_module *module = NULL;
#define GET() wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, NULL)
    seam_record();
    options.flags = WASMCACHE_GET_RECOMPILE | WASMCACHE_GET_MUST_HIT;
    MISUSE(GET());
    options.flags = 0;
    options.salt_length = 3;
    MISUSE(GET());
    options.salt = "abc";
    options.salt_length = 129;
    MISUSE(GET());
    seam_off();
    assert_int_equal(seam_calls(), 0);
    assert_int_equal(r->engine.compiles, 0);
    assert_null(module);
#undef GET
}

/* What is in memory is found by a shorter way, which sees the same. */
static void of_gets_and_loads_of_what_is_in_memory(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm), no_key = {0, 0, {0}};
    const wasmcache_source good = wasmcache_source_sha256(key.bytes, NULL, NULL);
    wasmcache_source source = good;
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_module *module = NULL;
    rig_close(r);
    r->options.memory_modules = 4;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
#define GET(s) wasmcache_get(&module, r->wc, WASMCACHE_MODULE, s, &options, NULL)
    assert_int_equal(GET(&good), 0);
    wasmcache_module_release(module);
    module = NULL;
    MISUSE(GET(NULL));
    source.size = 8;
    MISUSE(GET(&source));
    source = good;
    source.digest = NULL;
    MISUSE(GET(&source));
    source = good;
    source.digest_algorithm = NULL;
    MISUSE(GET(&source));
    source = good;
    source.digest_length = 31;
    MISUSE(GET(&source));
    options.size = 8;
    MISUSE(GET(&good));
    MISUSE(wasmcache_load(&module, r->wc, WASMCACHE_MODULE, &no_key, NULL));
    MISUSE(wasmcache_load(&module, r->wc, WASMCACHE_MODULE, NULL, NULL));
    assert_null(module);
#undef GET
}

static void nobody(wasmcache_request *request, const wasmcache_result *result, void *payload)
{
    (void)request;
    (void)result;
    *(int *)payload = 1;
}

static void of_requests(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    const wasmcache_key key = rig_key(wasm);
    wasmcache_executor *executor = NULL;
    wasmcache_request *request = NULL;
    int called = 0;
    assert_int_equal(wasmcache_executor_new(&executor, NULL), 0);
    for (int asked = 0; asked < 2; asked++) { /* by who wants a handle, too */
        wasmcache_request **out = asked ? &request : NULL;
        MISUSE(wasmcache_request_get(out, executor, r->wc, (wasmcache_kind)7, &source, NULL, nobody,
                                     &called));
        MISUSE(wasmcache_request_get(out, executor, r->wc, WASMCACHE_MODULE, NULL, NULL, nobody,
                                     &called));
        MISUSE(wasmcache_request_get(out, executor, NULL, WASMCACHE_MODULE, &source, NULL, nobody,
                                     &called));
        MISUSE(
            wasmcache_request_load(out, executor, r->wc, WASMCACHE_MODULE, NULL, nobody, &called));
        MISUSE(wasmcache_request_save(out, executor, r->wc, WASMCACHE_MODULE, &key, NULL, NULL,
                                      nobody, &called));
        MISUSE(wasmcache_request_contains(out, executor, r->wc, WASMCACHE_MODULE, &key, NULL,
                                          &called));
        MISUSE(
            wasmcache_request_contains(out, NULL, r->wc, WASMCACHE_MODULE, &key, nobody, &called));
        assert_null(request);
    }
    assert_int_equal(wasmcache_executor_wait(executor, 0), 0);
    wasmcache_executor_free(executor);
    assert_int_equal(called, 0);
}

static void of_keys(void **state)
{
    const wasmcache_key key = rig_key(wasm), no_key = {0, 0, {0}};
    wasmcache_key out;
    (void)state;
    MISUSE(wasmcache_key_salted(NULL, &key, "s", 1));
    MISUSE(wasmcache_key_salted(&out, NULL, "s", 1));
    MISUSE(wasmcache_key_salted(&out, &no_key, "s", 1));
    MISUSE(wasmcache_key_salted(&out, &key, NULL, 1));
    MISUSE(wasmcache_key_salted(&out, &key, "s", 0));
    MISUSE(wasmcache_key_salted(&out, &key, "s", 129));
}

static void of_entries_limits_and_numbers(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm), no_key = {0, 0, {0}};
    const char *ns = rig_namespace(r);
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it = NULL;
    char path[8] = "as ever";

    seam_record();
    options.size = 8;
    MISUSE(wasmcache_prune(r->cache, &options, &result));
    options.size = sizeof(options);
    options.flags = 2;
    MISUSE(wasmcache_prune(r->cache, &options, &result));
    options.flags = 0;
    options.reserved = 1;
    MISUSE(wasmcache_prune(r->cache, &options, &result));
    result.size = 7;
    MISUSE(wasmcache_prune(r->cache, NULL, &result));
    NO_CACHE(wasmcache_prune(NULL, NULL, NULL));
    MISUSE(wasmcache_pin(r->cache, "no namespace", &key, 1));
    MISUSE(wasmcache_pin(r->cache, ns, &no_key, 1));
    NO_CACHE(wasmcache_pin(NULL, ns, &key, 1));
    stats.size = 7;
    MISUSE(wasmcache_stats_read(r->cache, WASMCACHE_STATS_PROCESS, &stats));
    MISUSE(wasmcache_stats_read(r->cache, (wasmcache_stats_scope)3, &stats));
    entry.size = 7;
    MISUSE(wasmcache_entry_check(&entry, r->cache, ns, &key, 0));
    MISUSE(wasmcache_entry_path(path, sizeof(path), r->cache, "no namespace", &key));
    assert_string_equal(path, "as ever");
    NO_CACHE(wasmcache_entry_path(path, sizeof(path), NULL, ns, &key));
    seam_off();
    assert_int_equal(seam_calls(), 0);
    assert_int_equal(wasmcache_iterate(&it, r->cache, NULL, 0), 0);
    MISUSE(wasmcache_iterator_next(it, NULL));
    MISUSE(wasmcache_iterator_next(it, &entry));
    wasmcache_iterator_close(it);
}

/* Constant names, also of what is none. */
static void names_of_phases(void **state)
{
    (void)state;
    assert_string_equal(wasmcache_phase_name(WASMCACHE_PHASE_LOOKUP), "lookup");
    assert_string_equal(wasmcache_phase_name(WASMCACHE_PHASE_WAIT), "wait");
    assert_string_equal(wasmcache_phase_name(WASMCACHE_PHASE_COMPILE), "compile");
    assert_string_equal(wasmcache_phase_name(WASMCACHE_PHASE_SAVE), "save");
    assert_string_equal(wasmcache_phase_name((wasmcache_phase)0), "unknown");
    assert_string_equal(wasmcache_phase_name((wasmcache_phase)5), "unknown");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(of_open, fixture_rig, fixture_end),
        TEST(of_attachments),
        TEST(of_gets),
        TEST(of_gets_and_loads_of_what_is_in_memory),
        TEST(of_requests),
        TEST(of_keys),
        TEST(of_entries_limits_and_numbers),
        cmocka_unit_test(names_of_phases),
    };
    return cmocka_run_group_tests_name("misuse", tests, NULL, NULL);
}
