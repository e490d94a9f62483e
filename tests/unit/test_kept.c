/* SPDX-License-Identifier: Apache-2.0 */
/* Modules that stay in memory: which, how many, for whom, and that each is freed. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"

static void open_keeping(struct rig *r, unsigned modules, uint64_t bytes)
{
    rig_close(r);
    r->options.memory_modules = modules;
    r->options.memory_bytes = bytes;
    rig_open(r);
}

static wasmcache_module *get(struct rig *r, wasmcache_attachment *wc, const char *wasm,
                             wasmcache_report *report)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    const wasmcache_report none = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    *report = none;
    assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, report), 0);
    assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                               r->engine.configuration, wasm, strlen(wasm)));
    return module;
}

/* Was it there? */
static int is_kept(struct rig *r, const char *wasm)
{
    wasmcache_report report;
    wasmcache_module_release(get(r, r->wc, wasm, &report));
    assert_true(!report.in_memory || report.outcome == WASMCACHE_HIT);
    return report.in_memory;
}

static void nothing_is_kept_unless_it_is_asked_for(void **state)
{
    struct rig *r = *state;
    assert_false(is_kept(r, "a"));
    assert_false(is_kept(r, "a"));
    assert_int_equal(r->engine.live_modules, 0);
}

static void the_second_get_finds_it_without_a_call(void **state)
{
    struct rig *r = *state;
    wasmcache_report report;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_module *first, *second;
    open_keeping(r, 4, 0);
    first = get(r, r->wc, "a", &report);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_false(report.in_memory);
    seam_record();
    second = get(r, r->wc, "a", &report);
    seam_off();
    assert_int_equal(seam_calls(), 0);
    assert_ptr_equal(first, second);
    assert_true(report.in_memory);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.reason, WASMCACHE_REASON_NONE);
    assert_true(report.artifact_bytes > 0);
    wasmcache_module_release(first);
    wasmcache_module_release(second);
    assert_int_equal(rig_load(r, "a", NULL), 0);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(r->engine.files + r->engine.deserializes, 0);
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_PROCESS, &stats), 0);
    assert_int_equal(stats.memory_hits, 2);
    assert_int_equal(stats.hits, 0);
    assert_int_equal(r->engine.live_modules, 1);
}

static void what_was_loaded_is_kept_too(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    open_keeping(r, 4, 0);
    assert_int_equal(rig_load(r, "a", NULL), 0);
    assert_true(is_kept(r, "a"));
}

static void what_was_used_least_lately_goes_first(void **state)
{
    struct rig *r = *state;
    open_keeping(r, 2, 0);
    assert_false(is_kept(r, "a"));
    assert_false(is_kept(r, "b"));
    assert_true(is_kept(r, "a"));
    assert_false(is_kept(r, "c")); /* takes the place of b */
    assert_true(is_kept(r, "a"));
    assert_true(is_kept(r, "c"));
    assert_int_equal(r->engine.live_modules, 2);
    assert_false(is_kept(r, "b"));
}

static void bytes_are_bounded_too(void **state)
{
    struct rig *r = *state;
    r->engine.artifact_size = 1000;
    open_keeping(r, 100, 2500);
    assert_false(is_kept(r, "a"));
    assert_false(is_kept(r, "b"));
    assert_false(is_kept(r, "c"));
    assert_int_equal(r->engine.live_modules, 2);
    r->engine.artifact_size = 3000; /* more than all */
    assert_false(is_kept(r, "huge"));
    assert_false(is_kept(r, "huge"));
    assert_int_equal(r->engine.live_modules, 2);
}

static void what_is_held_stays_and_nothing_new_comes(void **state)
{
    struct rig *r = *state;
    wasmcache_report report;
    wasmcache_module *a, *b;
    open_keeping(r, 2, 0);
    a = get(r, r->wc, "a", &report);
    b = get(r, r->wc, "b", &report);
    assert_false(is_kept(r, "c"));
    assert_false(is_kept(r, "c"));
    assert_true(is_kept(r, "a"));
    wasmcache_module_release(b);
    assert_false(is_kept(r, "c"));
    assert_true(is_kept(r, "c"));
    assert_true(is_kept(r, "a"));
    wasmcache_module_release(a);
}

static void each_attachment_has_its_own(void **state)
{
    struct rig *r = *state;
    wasmcache_attachment *other;
    wasmcache_report report;
    open_keeping(r, 4, 0);
    assert_int_equal(wasmcache_attach(&other, r->cache, &r->engine.table, &r->engine, &r->attach),
                     0);
    assert_false(is_kept(r, "a"));
    wasmcache_module_release(get(r, other, "a", &report));
    assert_false(report.in_memory);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    wasmcache_module_release(get(r, other, "a", &report));
    assert_true(report.in_memory);
    assert_int_equal(r->engine.live_modules, 2);
    wasmcache_detach(other); /* its engine may be gone after that */
    assert_int_equal(r->engine.live_modules, 1);
    assert_true(is_kept(r, "a"));
}

static void two_caches_on_a_directory_agree(void **state)
{
    struct rig *r = *state;
    wasmcache *cache;
    wasmcache_attachment *wc;
    wasmcache_report report;
    open_keeping(r, 4, 0);
    assert_int_equal(wasmcache_open(&cache, &r->options), 0);
    assert_int_equal(wasmcache_attach(&wc, cache, &r->engine.table, &r->engine, &r->attach), 0);
    assert_false(is_kept(r, "a"));
    wasmcache_module_release(get(r, wc, "a", &report));
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_false(report.in_memory);
    wasmcache_module_release(get(r, wc, "a", &report));
    assert_true(report.in_memory);
    wasmcache_detach(wc);
    wasmcache_close(cache);
}

static void what_is_removed_or_compiled_anew_is_not_taken_from_there(void **state)
{
    struct rig *r = *state;
    wasmcache_key key = rig_key("a");
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(wasmcache_remove(r->cache, rig_namespace(r), &key), 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(r->engine.compiles, 2);
    assert_int_equal(rig_get_with(r, "a", WASMCACHE_GET_RECOMPILE, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_true(is_kept(r, "a"));
}

static void an_engine_that_cannot_clone_has_it_too(void **state)
{
    struct rig *r = *state;
    r->engine.table.module_clone = NULL;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_true(is_kept(r, "a"));
}

static void what_the_engine_refuses_is_not_kept(void **state)
{
    struct rig *r = *state;
    open_keeping(r, 4, 0);
    assert_int_equal(rig_get(r, "!a", NULL), WASMCACHE_EENGINE);
    assert_int_equal(rig_get(r, "!a", NULL), WASMCACHE_EENGINE);
    assert_int_equal(r->engine.compiles, 2);
}

static void salts_are_apart(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes("a", 1);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module;
    wasmcache_key key;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    for (int i = 0; i < 4; i++) {
        options.salt = i % 2 ? "one" : "two";
        options.salt_length = 3;
        assert_int_equal(
            wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, &report), 0);
        wasmcache_module_release(module);
        assert_int_equal(report.outcome, i < 2 ? WASMCACHE_COMPILED : WASMCACHE_HIT);
        key = rig_key("a");
        assert_int_equal(wasmcache_key_salted(&key, &key, options.salt, 3), 0);
        assert_true(wasmcache_key_equal(&key, &report.key));
    }
    assert_int_equal(r->engine.compiles, 3);
}

static int use_in_child(void *argument)
{
    struct rig *r = argument;
    assert_false(is_kept(r, "a")); /* its locks may be held by nobody */
    assert_false(is_kept(r, "a"));
    rig_close(r);
    return 0;
}

static void the_child_of_a_fork_has_none(void **state)
{
    struct rig *r = *state;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(scratch_child(use_in_child, r, 0, 30), 0);
    assert_true(is_kept(r, "a"));
    wc_os_lacking = WC_OS_NO_WIPE;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(scratch_child(use_in_child, r, 0, 30), 0);
    assert_true(is_kept(r, "a"));
}

struct crowd {
    struct rig *r;
    atomic_uint wrong;
};

static void *get_many(void *argument)
{
    struct crowd *crowd = argument;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < 2000; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        char wasm[16];
        wasmcache_source source;
        seed = seed * 1103515245 + 12345;
        snprintf(wasm, sizeof(wasm), "m%u", (seed >> 16) % 12);
        source = wasmcache_source_bytes(wasm, strlen(wasm));
        if (wasmcache_get(&module, crowd->r->wc, WASMCACHE_MODULE, &source, NULL, &report) ||
            !fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                            crowd->r->engine.configuration, wasm, strlen(wasm)))
            atomic_fetch_add(&crowd->wrong, 1);
        wasmcache_module_release(module);
    }
    return NULL;
}

static void threads_share_it(void **state)
{
    struct rig *r = *state;
    struct crowd crowd = {r, 0};
    pthread_t threads[8];
    open_keeping(r, 5, 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_many, &crowd), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(crowd.wrong, 0);
    assert_true(r->engine.live_modules <= 5 + 8);
    assert_int_equal(r->engine.compiles, 12);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_kept_unless_it_is_asked_for),
        TEST(the_second_get_finds_it_without_a_call),
        TEST(what_was_loaded_is_kept_too),
        TEST(what_was_used_least_lately_goes_first),
        TEST(bytes_are_bounded_too),
        TEST(what_is_held_stays_and_nothing_new_comes),
        TEST(each_attachment_has_its_own),
        TEST(two_caches_on_a_directory_agree),
        TEST(what_is_removed_or_compiled_anew_is_not_taken_from_there),
        TEST(an_engine_that_cannot_clone_has_it_too),
        TEST(what_the_engine_refuses_is_not_kept),
        TEST(salts_are_apart),
        TEST(the_child_of_a_fork_has_none),
        TEST(threads_share_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
