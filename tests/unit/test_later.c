/* SPDX-License-Identifier: Apache-2.0 */
/* Saves that a worker does after the get: that each of them is done once, before whatever has to
 * wait for it ends, and that who cannot leave it to a worker does it at once. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "support/rig.h"
#include "wasmcache_async.h"

/* A pool of the host's that runs nothing until it is told to. */
struct pool {
    void (*work[64])(void *);
    void *argument[64];
    unsigned count;
    int refuses;
};

static int submit(void (*work)(void *), void *argument, void *payload)
{
    struct pool *pool = payload;
    if (pool->refuses)
        return -1;
    assert_true(pool->count < 64);
    pool->work[pool->count] = work;
    pool->argument[pool->count++] = argument;
    return 0;
}

static void run_pool(struct pool *pool)
{
    for (unsigned i = 0; i < pool->count; i++)
        pool->work[i](pool->argument[i]);
    pool->count = 0;
}

struct lab {
    struct rig *r;
    struct pool pool;
    wasmcache_executor *executor;
};

static int set_up(void **state)
{
    struct lab *l = calloc(1, sizeof(*l));
    void *rig = NULL;
    if (!l || fixture_rig(&rig))
        return -1;
    l->r = rig;
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lab *l = *state;
    void *rig = l->r;
    const int rc = fixture_end(&rig);
    wasmcache_executor_free(l->executor);
    free(l);
    return rc;
}

static void open_with_threads(struct lab *l, unsigned threads)
{
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    options.threads = threads;
    assert_int_equal(wasmcache_executor_new(&l->executor, &options), 0);
    l->r->options.save_executor = l->executor;
    rig_open(l->r);
}

static void open_with_pool(struct lab *l)
{
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    options.submit = submit;
    options.payload = &l->pool;
    assert_int_equal(wasmcache_executor_new(&l->executor, &options), 0);
    l->r->options.save_executor = l->executor;
    rig_open(l->r);
}

static wasmcache_report get(struct lab *l, const char *wasm)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    assert_int_equal(rig_get(l->r, wasm, &report), 0);
    return report;
}

static void it_is_saved_after_the_get(void **state)
{
    struct lab *l = *state;
    wasmcache_report report;
    open_with_pool(l);
    report = get(l, "a");
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(report.save_later, 1);
    assert_true(report.save_ns == 0);
    assert_false(scratch_exists(rig_entry(l->r, "a")));
    assert_string_equal(l->r->events.log, "miss,");
    run_pool(&l->pool);
    assert_string_equal(l->r->events.log, "miss,saved,");
    assert_int_equal(rig_state(l->r, "a"), WASMCACHE_REASON_NONE);
    assert_int_equal(wasmcache_flush(l->r->cache), 0); /* nothing waits */
    report = get(l, "a");
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.save_later, 0);
    /* The host has nothing to dispatch, and nothing is left to wait for. */
    assert_int_equal(wasmcache_executor_wait(l->executor, 0), 0);
    assert_int_equal(wasmcache_executor_dispatch(l->executor), 0);
}

static void what_was_not_looked_for_has_its_key_all_the_same(void **state)
{
    struct lab *l = *state;
    const wasmcache_key key = rig_key("a");
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    open_with_pool(l);
    assert_int_equal(rig_get_with(l->r, "a", WASMCACHE_GET_RECOMPILE, &report), 0);
    run_pool(&l->pool);
    assert_int_equal(report.save_later, 1);
    assert_true(wasmcache_key_equal(&report.key, &key));
}

static void flush_detach_and_close_wait(void **state)
{
    struct lab *l = *state;
    char name[16];
    unsigned number = 0;
    open_with_threads(l, 2);
    for (int round = 0; round < 30; round++) {
        char *entries[8];
        for (int i = 0; i < 8; i++) {
            snprintf(name, sizeof(name), "m%u", number++);
            (void)get(l, name);
            entries[i] = rig_entry(l->r, name);
        }
        if (round % 3 == 0)
            assert_int_equal(wasmcache_flush(l->r->cache), 0);
        else if (round % 3 == 1)
            rig_reopen(l->r); /* detach comes first */
        else {
            wasmcache_close(l->r->cache);
            l->r->cache = NULL;
            for (int i = 0; i < 8; i++)
                assert_true(scratch_exists(entries[i]));
            rig_close(l->r);
            rig_open(l->r);
        }
        for (int i = 0; i < 8; i++)
            assert_true(scratch_exists(entries[i]));
    }
    assert_int_equal(wasmcache_flush(NULL), WASMCACHE_EOFF);
}

static void an_executor_that_ends_saves_what_waits(void **state)
{
    struct lab *l = *state;
    open_with_threads(l, 1);
    for (char name[2] = "a"; name[0] < 'k'; name[0]++)
        (void)get(l, name);
    wasmcache_executor_free(l->executor);
    l->executor = NULL;
    for (char name[2] = "a"; name[0] < 'k'; name[0]++)
        assert_int_equal(rig_state(l->r, name), WASMCACHE_REASON_NONE);
    assert_int_equal(l->r->events.count[WASMCACHE_EVENT_SAVED], 10);
}

static void who_is_over_the_bound_saves_by_itself(void **state)
{
    struct lab *l = *state;
    l->r->options.save_count_max = 2;
    l->r->options.save_bytes_max = 100;
    open_with_pool(l);
    assert_int_equal(get(l, "a").save_later, 1);
    assert_int_equal(get(l, "b").save_later, 1);
    assert_int_equal(get(l, "c").save_later, 0); /* the third */
    assert_true(scratch_exists(rig_entry(l->r, "c")));
    run_pool(&l->pool);
    /* One of 60 bytes fits, a second one not, and one of more than all never. */
    assert_int_equal(
        get(l, "d00000000000000000000000000000000000000000000000000000000000").save_later, 1);
    assert_int_equal(
        get(l, "e00000000000000000000000000000000000000000000000000000000000").save_later, 0);
    run_pool(&l->pool);
    assert_int_equal(get(l,
                         "f0000000000000000000000000000000000000000000000000000000000000000000000"
                         "000000000000000000000000000000000000000")
                         .save_later,
                     0);
}

static void where_it_cannot_wait_it_is_saved_at_once(void **state)
{
    struct lab *l = *state;
    l->r->engine.table.module_clone = NULL;
    open_with_pool(l);
    assert_int_equal(get(l, "a").save_later, 0);
    assert_int_equal(rig_state(l->r, "a"), WASMCACHE_REASON_NONE);
    rig_close(l->r);
    rig_end(l->r);
    rig_init(l->r);
    l->r->options.save_executor = l->executor;
    rig_open(l->r);
    l->pool.refuses = 1;
    assert_int_equal(get(l, "a").save_later, 0);
    assert_int_equal(rig_state(l->r, "a"), WASMCACHE_REASON_NONE);
}

static void a_save_that_fails_later_is_an_event(void **state)
{
    struct lab *l = *state;
    open_with_pool(l);
    l->r->engine.fail_serialize = 1;
    assert_int_equal(get(l, "a").save_later, 1);
    run_pool(&l->pool);
    assert_string_equal(l->r->events.log, "miss,save-failed,");
    assert_int_equal(wasmcache_flush(l->r->cache), 0);
}

static int in_a_child(void *argument)
{
    struct lab *l = argument;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    /* The parent's saves are not waited for, and our own are done at once. */
    if (wasmcache_flush(l->r->cache) != 0)
        return 1;
    if (rig_get(l->r, "child", &report) != 0 || report.save_later || report.save_error)
        return 2;
    return scratch_exists(rig_entry(l->r, "child")) ? 0 : 3;
}

static void in_a_child_nothing_waits(void **state)
{
    struct lab *l = *state;
    open_with_pool(l);
    assert_int_equal(get(l, "a").save_later, 1);
    assert_int_equal(scratch_child(in_a_child, l, 0, 20), 0);
    run_pool(&l->pool);
    assert_int_equal(rig_state(l->r, "a"), WASMCACHE_REASON_NONE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(it_is_saved_after_the_get),
        TEST(what_was_not_looked_for_has_its_key_all_the_same),
        TEST(flush_detach_and_close_wait),
        TEST(an_executor_that_ends_saves_what_waits),
        TEST(who_is_over_the_bound_saves_by_itself),
        TEST(where_it_cannot_wait_it_is_saved_at_once),
        TEST(a_save_that_fails_later_is_an_event),
        TEST(in_a_child_nothing_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
