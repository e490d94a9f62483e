/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One module, one cache, and several who want it at once: two engines, two kinds, threads without
 * patience, a worker that has yet to save; and what is told apart by less than all of its key. Each
 * gets what is its own, and nobody waits who said that he would not.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "asked.h"
#include "fixture.h"
#include "flight.h"

static const char wasm[] = "the module in question";

/* Another engine on the same cache, of another configuration and so another namespace. */
struct other {
    struct fake_engine engine;
    wasmcache_attachment *wc;
};

static void other_init(struct other *o, struct rig *r)
{
    fake_engine_init(&o->engine, 2);
    o->wc = NULL;
    assert_int_equal(wasmcache_attach(&o->wc, r->cache, &o->engine.table, &o->engine, &r->attach),
                     0);
}

static void other_end(struct other *o)
{
    wasmcache_detach(o->wc);
    fake_engine_end(&o->engine);
}

static wasmcache_report get(wasmcache_attachment *wc, wasmcache_kind kind, unsigned configuration,
                            const wasmcache_get_options *options)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    assert_int_equal(wasmcache_get(&module, wc, kind, &source, options, &report), 0);
    assert_true(
        fake_module_is(wasmcache_module_native(module), kind, configuration, wasm, strlen(wasm)));
    wasmcache_module_release(module);
    return report;
}

/* ---- at the same time ---- */

static struct gate gate;

static void *get_it(void *rig)
{
    return rig_get(rig, wasm, NULL) == 0 ? rig : NULL;
}

static pthread_t lead(struct rig *r)
{
    pthread_t thread;
    gate_set(&gate, r);
    rig_open(r);
    assert_int_equal(pthread_create(&thread, NULL, get_it, r), 0);
    wait_for(&gate.inside, 1);
    return thread;
}

static void join(pthread_t thread)
{
    void *got = NULL;
    pthread_join(thread, &got);
    assert_non_null(got);
}

static void an_engine_does_not_wait_for_another(void **state)
{
    struct rig *r = *state;
    const pthread_t leader = lead(r);
    struct other o;
    wasmcache_report report;
    other_init(&o, r);
    report = get(o.wc, WASMCACHE_MODULE, 2, NULL);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.wait_ns, 0);
    assert_int_equal(report.save_error, 0);
    gate_open(&gate);
    join(leader);
    other_end(&o);
}

static void what_was_had_from_another_is_kept_in_memory(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    pthread_t leader, second;
    r->options.memory_modules = 8;
    leader = lead(r);
    assert_int_equal(pthread_create(&second, NULL, get_it, r), 0);
    while (rig_events_of(r, WASMCACHE_EVENT_WAIT) < 1)
        sched_yield();
    gate_open(&gate);
    join(second);
    join(leader);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(r->engine.clones, 1);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.in_memory, 1);
}

static void *get_impatiently(void *rig)
{
    struct rig *r = rig;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    int rc;
    options.wait_ms = 1;
    rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, &report);
    wasmcache_module_release(module);
    return rc == 0 && report.outcome == WASMCACHE_COMPILED && report.wait_ns >= 1000000 ? rig
                                                                                        : NULL;
}

static void who_has_a_millisecond_compiles_too(void **state)
{
    struct rig *r = *state;
    const pthread_t leader = lead(r);
    pthread_t second;
    assert_int_equal(pthread_create(&second, NULL, get_impatiently, r), 0);
    wait_for(&gate.inside, 2);
    gate_open(&gate);
    join(second);
    join(leader);
    assert_int_equal(r->engine.compiles, 2);
}

/* The lock as another process has it. */
static void who_does_not_wait_asks_no_other_process_twice(void **state)
{
    struct rig *r = *state;
    struct wc_store store = {.dir = r->dir};
    struct wc_folder folder = WC_FOLDER_INIT;
    const wasmcache_key key = rig_key(wasm);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct wc_key_lock lock;
    struct wc_error err;
    wc_error_init(&err);
    assert_int_equal(wc_store_make_folder(&folder, &store, rig_namespace(r), &err), 0);
    assert_true(wc_key_lock_open(&lock, &store, &folder, WASMCACHE_MODULE, &key));
    assert_int_equal(wc_key_lock_try(&lock, WC_LOCK_FIRST), WC_LOCK_HELD);
    wc_folder_close(&folder);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_NO_WAIT, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.wait_ns, 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_events_of(r, WASMCACHE_EVENT_WAIT), 0);
    wc_key_lock_close(&lock, 0);
}

static void what_is_on_its_way_is_had_from_there(void **state)
{
    struct rig *r = *state;
    struct host_pool pool;
    struct other o;
    wasmcache_executor *executor;
    host_pool_init(&pool, 1);
    host_pool_hold(&pool, 1);
    executor = host_pool_executor(&pool, 0);
    r->options.save_executor = executor;
    rig_open(r);
    other_init(&o, r);
    for (int i = 0; i < 3; i++) {
        const wasmcache_outcome expected = i ? WASMCACHE_JOINED : WASMCACHE_COMPILED;
        assert_int_equal(get(r->wc, WASMCACHE_MODULE, 1, NULL).outcome, expected);
        assert_int_equal(get(r->wc, WASMCACHE_COMPONENT, 1, NULL).outcome, expected);
        assert_int_equal(get(o.wc, WASMCACHE_MODULE, 2, NULL).outcome, expected);
    }
    assert_int_equal(r->engine.compiles + o.engine.compiles, 3);
    assert_false(scratch_exists(rig_entry(r, wasm)));
    host_pool_hold(&pool, 0);
    assert_int_equal(wasmcache_flush(r->cache), 0);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
    assert_int_equal(get(o.wc, WASMCACHE_MODULE, 2, NULL).outcome, WASMCACHE_HIT);
    other_end(&o);
    rig_close(r);
    wasmcache_executor_free(executor);
    host_pool_end(&pool);
    r->options.save_executor = NULL;
}

/* ---- in memory ---- */

static void in_memory_keys_are_told_apart_to_the_last_byte(void **state)
{
    struct rig *r = *state;
    enum { MANY = 400 };
    char names[2][24];
    unsigned of[MANY];
    int found = 0;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    /* Two whose keys begin with the same ten bits, by which they are kept. */
    for (unsigned i = 0; i < MANY && !found; i++) {
        wasmcache_key key;
        snprintf(names[1], sizeof(names[1]), "number %u", i);
        key = rig_key(names[1]);
        of[i] = (key.bytes[0] | (unsigned)key.bytes[1] << 8) % 1024;
        for (unsigned k = 0; k < i && !found; k++)
            if (of[k] == of[i]) {
                snprintf(names[0], sizeof(names[0]), "number %u", k);
                found = 1;
            }
    }
    assert_true(found);
    r->options.memory_modules = 8;
    rig_open(r);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 2; i++) {
            assert_int_equal(rig_get(r, names[i], &report), 0); /* and it is the right one */
            assert_int_equal(report.in_memory, round > 0);
        }
    assert_int_equal(r->engine.compiles, 2);
}

static void what_is_removed_of_one_engine_stays_with_another(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm);
    struct other o;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->options.memory_modules = 8;
    rig_open(r);
    other_init(&o, r);
    (void)get(o.wc, WASMCACHE_MODULE, 2, NULL);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(wasmcache_remove(r->cache, rig_namespace(r), &key), 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(get(o.wc, WASMCACHE_MODULE, 2, NULL).outcome, WASMCACHE_HIT);
    other_end(&o);
}

/* Its key is known only to the worker. */
static void a_request_for_a_file_finds_its_module_in_memory(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "a.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    wasmcache_executor *executor = executor_with(1, 0);
    struct asked a;
    scratch_write(path, wasm, strlen(wasm), 0600);
    r->options.memory_modules = 8;
    rig_open(r);
    for (int i = 0; i < 2; i++) {
        ask_source(&a, r, executor, wasm, &source);
        run_all(executor);
        assert_answered_once(&a);
        assert_int_equal(a.error, 0);
        assert_int_equal(a.report.in_memory, i);
    }
    assert_int_equal(r->engine.compiles, 1);
    wasmcache_executor_free(executor);
}

/* ---- where there is less than usual ---- */

static void without_a_cache_nothing_is_contained(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    wasmcache_attachment *usual = r->wc;
    struct asked a;
    assert_int_equal(wasmcache_attach(&r->wc, NULL, &r->engine.table, &r->engine, &r->attach), 0);
    ask_contains(&a, r, executor, wasm);
    run_all(executor);
    assert_int_equal(a.answers, 1);
    assert_int_equal(a.error, WASMCACHE_EOFF);
    assert_int_equal(a.report.reason, WASMCACHE_REASON_CACHE_OFF);
    wasmcache_detach(r->wc);
    r->wc = usual;
    wasmcache_executor_free(executor);
}

static void without_a_boot_id_a_file_is_hashed_each_time(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "a.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    wc_os_lacking = WC_OS_NO_PROC;
    rig_open(r);
    scratch_write(path, wasm, strlen(wasm), 0600);
    for (int i = 0; i < 3; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
                         0);
        assert_int_equal(report.outcome, i ? WASMCACHE_HIT : WASMCACHE_COMPILED);
        wasmcache_module_release(module);
    }
}

static void what_is_only_read_is_neither_pruned_nor_pinned(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm);
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    rig_open(r);
    /* Nothing is pinned where there is nothing, and that is made anew only to pin. */
    assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, 0), 0);
    assert_false(scratch_exists(r->dir));
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    rig_close(r);
    r->options.flags = WASMCACHE_READ_ONLY;
    rig_open(r);
    options.max_bytes = 1;
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->system_errno, EROFS);
    for (int pinned = 0; pinned < 2; pinned++) {
        assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, pinned), WASMCACHE_EIO);
        assert_int_equal(wasmcache_last_error()->system_errno, EROFS);
    }
    assert_int_equal(result.removed_entries, 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".pins"));
}

static void a_copy_that_has_no_room_is_a_hit_all_the_same(void **state)
{
    struct rig *r = *state;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *layers[1] = {&layer};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    layer.dir = scratch_in(&r->scratch, "layer");
    layer.flags = WASMCACHE_LAYER_PROMOTE;
    r->options.dir = layer.dir;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    rig_close(r);
    r->options.dir = r->dir;
    r->options.layers = layers;
    r->options.layer_count = 1;
    r->options.max_bytes = 1;
    rig_open(r);
    rig_forget_events(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.layer, 1);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_SAVE_FAILED], 1);
    assert_int_equal(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].error, WASMCACHE_EFULL);
    assert_false(scratch_exists(rig_entry(r, wasm)));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_rig, fixture_end)
#define OPEN(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)

int main(void)
{
    int failed;
    const struct CMUnitTest tests[] = {
        TEST(an_engine_does_not_wait_for_another),
        TEST(what_was_had_from_another_is_kept_in_memory),
        TEST(who_has_a_millisecond_compiles_too),
        OPEN(who_does_not_wait_asks_no_other_process_twice),
        TEST(what_is_on_its_way_is_had_from_there),
        TEST(in_memory_keys_are_told_apart_to_the_last_byte),
        TEST(what_is_removed_of_one_engine_stays_with_another),
        TEST(a_request_for_a_file_finds_its_module_in_memory),
        OPEN(without_a_cache_nothing_is_contained),
        TEST(without_a_boot_id_a_file_is_hashed_each_time),
        TEST(what_is_only_read_is_neither_pruned_nor_pinned),
        TEST(a_copy_that_has_no_room_is_a_hit_all_the_same),
    };
    scratch_in_memory();
    failed = cmocka_run_group_tests_name("side by side", tests, NULL, NULL);
    scratch_in_memory_end();
    return failed;
}
