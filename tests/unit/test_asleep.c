/* SPDX-License-Identifier: Apache-2.0 */
/* Requests while another process, or a thread that is no request's, compiles what they want: they
 * hold no worker, and are woken, cancelled and ended as all others are. */
#define _GNU_SOURCE
#include "asked.h"
#include "fixture.h"
#include "flight.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The lock as another process has it. */
static void take_lock(struct rig *r, struct wc_key_lock *lock, const char *wasm)
{
    struct wc_store store = {.dir = r->dir};
    struct wc_folder folder = WC_FOLDER_INIT;
    wasmcache_key key = rig_key(wasm);
    struct wc_error err;
    wc_error_init(&err);
    assert_int_equal(wc_store_make_folder(&folder, &store, rig_namespace(r), &err), 0);
    assert_true(wc_key_lock_open(lock, &store, &folder, WASMCACHE_MODULE, &key));
    assert_int_equal(wc_key_lock_try(lock, WC_LOCK_FIRST), WC_LOCK_HELD);
    wc_folder_close(&folder);
}

static void wait_until_it_waits(struct rig *r, unsigned count)
{
    for (int i = 0; i < 20000; i++) {
        if (rig_events_of(r, WASMCACHE_EVENT_WAIT) >= count)
            return;
        usleep(500);
    }
    fail();
}

static void one_worker_does_others_meanwhile(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    struct wc_key_lock lock;
    struct asked waits, joins, other;
    take_lock(r, &lock, "wasm");
    ask_get(&waits, r, executor, "wasm", 0);
    wait_until_it_waits(r, 1);
    ask_get(&joins, r, executor, "wasm", 0); /* parked for the first */
    ask_get(&other, r, executor, "other", 0);
    while (!other.answers) {
        assert_int_not_equal(wasmcache_executor_wait(executor, 10000), 0);
        assert_true(wasmcache_executor_dispatch(executor) >= 0);
    }
    assert_int_equal(other.report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(waits.answers + joins.answers, 0);
    wc_key_lock_close(&lock, 0);
    run_all(executor);
    assert_answered_once(&waits);
    assert_answered_once(&joins);
    assert_int_equal(waits.report.outcome, WASMCACHE_COMPILED);
    assert_true(waits.report.wait_ns > 0);
    assert_int_equal(joins.report.outcome, WASMCACHE_JOINED);
    assert_int_equal(r->engine.compiles, 2);
    wasmcache_executor_free(executor);
}

static void what_is_published_meanwhile_is_a_hit(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    struct wc_key_lock lock;
    struct asked a;
    take_lock(r, &lock, "wasm");
    ask_get(&a, r, executor, "wasm", 0);
    wait_until_it_waits(r, 1);
    assert_int_equal(rig_save(r, "wasm", NULL), 0);
    run_all(executor);
    assert_int_equal(a.report.outcome, WASMCACHE_HIT);
    assert_int_equal(r->engine.compiles, 0);
    wc_key_lock_close(&lock, 0);
    wasmcache_executor_free(executor);
}

static void a_cancelled_one_wakes_and_another_leads(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    const unsigned before = scratch_descriptors();
    struct wc_key_lock lock;
    struct asked first, second;
    take_lock(r, &lock, "wasm");
    ask_get(&first, r, executor, "wasm", 0);
    wait_until_it_waits(r, 1);
    ask_get(&second, r, executor, "wasm", 0);
    assert_int_equal(wasmcache_request_cancel(first.handle), WASMCACHE_CANCEL_ASKED);
    while (!first.answers) {
        assert_int_not_equal(wasmcache_executor_wait(executor, 10000), 0);
        assert_true(wasmcache_executor_dispatch(executor) >= 0);
    }
    assert_int_equal(first.error, WASMCACHE_EABORTED);
    assert_int_equal(second.answers, 0);
    wc_key_lock_close(&lock, 0);
    run_all(executor);
    assert_answered_once(&first);
    assert_int_equal(second.report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(scratch_descriptors(), before);
    wasmcache_executor_free(executor);
}

static void the_end_answers_who_sleeps(void **state)
{
    struct rig *r = *state;
    const unsigned before = scratch_descriptors();
    wasmcache_executor *executor = executor_with(2, 0);
    struct wc_key_lock lock;
    struct asked a[3];
    take_lock(r, &lock, "wasm");
    for (int i = 0; i < 3; i++)
        ask_get(&a[i], r, executor, "wasm", 0);
    wait_until_it_waits(r, 1);
    wasmcache_executor_free(executor);
    for (int i = 0; i < 3; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].error, WASMCACHE_EABORTED);
    }
    wc_key_lock_close(&lock, 0);
    assert_int_equal(scratch_descriptors(), before);
    assert_int_equal(rig_get(r, "wasm", NULL), 0);
}

static void at_its_limit_a_request_compiles_too(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    const wasmcache_source source = wasmcache_source_bytes("wasm", 4);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    struct wc_key_lock lock;
    struct asked a;
    take_lock(r, &lock, "wasm");
    options.wait_ms = 100;
    asked_init(&a, r, "wasm");
    assert_int_equal(wasmcache_request_get(&a.handle, executor, r->wc, WASMCACHE_MODULE, &source,
                                           &options, answer, &a),
                     0);
    run_all(executor);
    assert_int_equal(a.report.outcome, WASMCACHE_COMPILED);
    assert_true(a.report.wait_ns >= 100000000);
    wc_key_lock_close(&lock, 0);
    wasmcache_executor_free(executor);
}

static struct gate gate;

static void *get_blocking(void *argument)
{
    assert_int_equal(rig_get(argument, "wasm", NULL), 0);
    return NULL;
}

static void a_thread_that_compiles_is_waited_for(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor;
    pthread_t thread;
    struct asked a, other;
    rig_close(r);
    gate_set(&gate, r);
    rig_open(r);
    executor = executor_with(1, 0);
    assert_int_equal(pthread_create(&thread, NULL, get_blocking, r), 0);
    wait_for(&gate.inside, 1);
    ask_get(&a, r, executor, "wasm", 0);
    wait_until_it_waits(r, 1);
    ask_load(&other, r, executor, "not there"); /* the worker is free */
    while (!other.answers) {
        assert_int_not_equal(wasmcache_executor_wait(executor, 10000), 0);
        assert_true(wasmcache_executor_dispatch(executor) >= 0);
    }
    gate_open(&gate);
    run_all(executor);
    pthread_join(thread, NULL);
    assert_int_equal(a.report.outcome, WASMCACHE_JOINED);
    assert_int_equal(r->engine.compiles, 1);
    wasmcache_executor_free(executor);
}

static void in_a_pool_of_the_hosts_its_worker_waits(void **state)
{
    struct rig *r = *state;
    struct host_pool pool;
    wasmcache_executor *executor;
    struct wc_key_lock lock;
    struct asked a;
    host_pool_init(&pool, 1);
    executor = host_pool_executor(&pool, 0);
    take_lock(r, &lock, "wasm");
    ask_get(&a, r, executor, "wasm", 0);
    wait_until_it_waits(r, 1);
    wc_key_lock_close(&lock, 0);
    run_all(executor);
    assert_int_equal(a.report.outcome, WASMCACHE_COMPILED);
    wasmcache_executor_free(executor);
    host_pool_end(&pool);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(one_worker_does_others_meanwhile),        TEST(what_is_published_meanwhile_is_a_hit),
        TEST(a_cancelled_one_wakes_and_another_leads), TEST(the_end_answers_who_sleeps),
        TEST(at_its_limit_a_request_compiles_too),     TEST(a_thread_that_compiles_is_waited_for),
        TEST(in_a_pool_of_the_hosts_its_worker_waits),
    };
    return cmocka_run_group_tests(tests, first_thread, NULL);
}
