/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every wait of the library that somebody else could make last for ever, by an injected clock: it
 * ends at its limit, to the nanosecond, in steps that are not longer than they may be, and what was
 * waited for in vain is done without. Those for another process's compile are in test_flight.c, of
 * requests in test_asleep.c, for saves that come later, which have no limit, in test_later.c.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "flight.h"
#include "tally.h"

#define SECOND UINT64_C(1000000000)

enum { LOCK_CHANGE = 0, LOCK_EVICT = 1 }; /* the bytes of the tally that are locks */

/* ---- the clock ---- */

static struct {
    uint64_t waited, longest;
    void (*act)(void); /* once, when it is a second later */
} clock_of_test;

static int pass_time(uint64_t ns)
{
    void (*act)(void) = clock_of_test.act;
    wc_os_monotonic_forced += (int64_t)ns;
    clock_of_test.waited += ns;
    if (ns > clock_of_test.longest)
        clock_of_test.longest = ns;
    if (act && clock_of_test.waited >= SECOND) {
        clock_of_test.act = NULL;
        act();
    }
    return 1;
}

static void start_clock(void)
{
    memset(&clock_of_test, 0, sizeof(clock_of_test));
    wc_os_monotonic_forced = INT64_C(1000000000);
    wc_os_wait_hook = pass_time;
}

static void stop_clock(void)
{
    wc_os_monotonic_forced = -1;
    wc_os_wait_hook = NULL;
}

/* ---- for a thread ---- */

static const char wasm[] = "the module that both want";

/* Of the thread that leads: its compile goes on until it is told. */
struct leader {
    struct rig *r;
    pthread_t thread;
    atomic_int first, compiles, let_go;
    wasmcache_report report;
    int rc;
};

static void compile_for_ever(void *argument)
{
    struct leader *leader = argument;
    if (atomic_fetch_add(&leader->first, 1))
        return;
    atomic_store(&leader->compiles, 1);
    for (int i = 0; i < 40000 && !atomic_load(&leader->let_go); i++)
        usleep(500);
}

static int get(struct rig *r, unsigned wait_ms, wasmcache_tick_fn tick, void *payload,
               wasmcache_report *report)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    const wasmcache_report empty = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    int rc;
    *report = empty;
    options.wait_ms = wait_ms;
    options.tick = tick;
    options.tick_payload = payload;
    rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, report);
    wasmcache_module_release(module);
    return rc;
}

static void *lead(void *argument)
{
    struct leader *leader = argument;
    leader->rc = get(leader->r, 0, NULL, NULL, &leader->report);
    return NULL;
}

static void start_leader(struct leader *leader, struct rig *r)
{
    memset(leader, 0, sizeof(*leader));
    leader->r = r;
    r->engine.on_compile = compile_for_ever;
    r->engine.on_compile_argument = leader;
    assert_int_equal(pthread_create(&leader->thread, NULL, lead, leader), 0);
    for (int i = 0; i < 40000 && !atomic_load(&leader->compiles); i++)
        usleep(500);
    assert_int_equal(atomic_load(&leader->compiles), 1);
}

static void end_leader(struct leader *leader)
{
    stop_clock();
    atomic_store(&leader->let_go, 1);
    pthread_join(leader->thread, NULL);
    assert_int_equal(leader->rc, 0);
    assert_int_equal(leader->report.outcome, WASMCACHE_COMPILED);
}

static void who_waits_for_a_thread_goes_for_the_second_byte(void **state)
{
    struct rig *r = *state;
    struct leader leader;
    wasmcache_report report;
    start_leader(&leader, r);
    start_clock();
    assert_int_equal(get(r, 1500, NULL, NULL, &report), 0);
    assert_true(clock_of_test.waited == SECOND * 3 / 2);
    assert_true(clock_of_test.longest <= SECOND / 10);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_true(report.wait_ns == SECOND * 3 / 2);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(r->engine.compiles, 2);
    end_leader(&leader);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_KEPT], 1); /* the leader came second */
}

static struct wc_key_lock second_byte;

static void take_second_byte(struct rig *r)
{
    struct wc_store store = {.dir = r->dir};
    struct wc_folder folder = WC_FOLDER_INIT;
    wasmcache_key key = rig_key(wasm);
    struct wc_error err;
    wc_error_init(&err);
    assert_int_equal(wc_store_make_folder(&folder, &store, rig_namespace(r), &err), 0);
    assert_true(wc_key_lock_open(&second_byte, &store, &folder, WASMCACHE_MODULE, &key));
    assert_int_equal(wc_key_lock_try(&second_byte, WC_LOCK_SECOND), WC_LOCK_HELD);
    wc_folder_close(&folder);
}

static void and_no_longer_than_as_long_again(void **state)
{
    struct rig *r = *state;
    struct leader leader;
    wasmcache_report report;
    start_leader(&leader, r);
    take_second_byte(r);
    start_clock();
    assert_int_equal(get(r, 1500, NULL, NULL, &report), 0);
    assert_true(clock_of_test.waited == 3 * SECOND);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_true(report.wait_ns == 3 * SECOND);
    wc_key_lock_close(&second_byte, 0);
    end_leader(&leader);
}

static void give_second_byte(void)
{
    wc_key_lock_close(&second_byte, 0);
}

static void the_second_byte_that_comes_free_is_taken(void **state)
{
    struct rig *r = *state;
    struct leader leader;
    wasmcache_report report;
    start_leader(&leader, r);
    take_second_byte(r);
    start_clock();
    clock_of_test.act = give_second_byte;
    assert_int_equal(get(r, 500, NULL, NULL, &report), 0);
    /* Half a second for the thread, then for the byte, which is free half a second later. */
    assert_true(clock_of_test.waited >= SECOND);
    assert_true(clock_of_test.waited <= SECOND + SECOND / 50);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    end_leader(&leader);
}

struct ticks {
    unsigned waits, until;
};

static int count_ticks(const wasmcache_progress *progress, void *payload)
{
    struct ticks *ticks = payload;
    ticks->waits += progress->phase == WASMCACHE_PHASE_WAIT;
    return ticks->waits == ticks->until;
}

static void who_waits_for_a_thread_is_asked_and_may_go(void **state)
{
    struct rig *r = *state;
    struct ticks ticks = {0, 8};
    struct leader leader;
    wasmcache_report report;
    start_leader(&leader, r);
    start_clock();
    assert_int_equal(get(r, 0, count_ticks, &ticks, &report), WASMCACHE_EABORTED);
    assert_int_equal(ticks.waits, 8);
    /* Asked before the first wait, and after each tenth of a second. */
    assert_true(clock_of_test.waited == SECOND / 10 * 7);
    end_leader(&leader); /* who answers nobody that is gone */
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(r->engine.clones, 0);
}

/* ---- for the tally ---- */

static int tally_of_other = -1;

/* A lock of the tally as another process has it. */
static void take_tally(struct rig *r, int byte)
{
    tally_of_other = open(scratch_in(&r->scratch, "cache/" WC_TALLY_NAME), O_RDWR | O_CLOEXEC);
    assert_true(tally_of_other >= 0);
    assert_int_equal(wc_os_try_lock_byte(tally_of_other, (uint64_t)byte), 0);
}

static void give_tally(void)
{
    close(tally_of_other);
    tally_of_other = -1;
}

static wasmcache_stats numbers(struct rig *r)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_DIRECTORY, &stats), 0);
    return stats;
}

static void who_counts_gives_up_and_counts_it_later(void **state)
{
    struct rig *r = *state;
    wasmcache_report report;
    assert_int_equal(rig_get(r, "another", NULL), 0); /* makes the tally */
    assert_int_equal(numbers(r).compiles, 1);
    assert_int_equal(rig_get(r, "another", NULL), 0);
    take_tally(r, LOCK_CHANGE);

    start_clock();
    assert_int_equal(get(r, 0, NULL, NULL, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_true(clock_of_test.waited == 2 * SECOND);
    assert_true(clock_of_test.longest <= SECOND / 100);
    stop_clock();
    start_clock();
    assert_int_equal(wasmcache_flush(r->cache), 0);
    assert_true(clock_of_test.waited == 2 * SECOND);
    stop_clock();
    start_clock();
    assert_int_equal(wasmcache_stats_reset(r->cache), WASMCACHE_EBUSY);
    assert_true(clock_of_test.waited == 4 * SECOND); /* for what was not counted yet, and its own */
    stop_clock();
    give_tally();
    assert_int_equal(numbers(r).compiles, 2);
    assert_int_equal(numbers(r).hits, 1);
}

static void close_waits_for_the_tally_no_longer(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, "another", NULL), 0);
    assert_int_equal(numbers(r).compiles, 1);
    assert_int_equal(rig_get(r, "another", NULL),
                     0); /* which is not counted in the directory yet */
    take_tally(r, LOCK_CHANGE);
    start_clock();
    rig_close(r);
    assert_true(clock_of_test.waited == 2 * SECOND);
    stop_clock();
    give_tally();
    rig_open(r);
    assert_int_equal(numbers(r).compiles, 1);
    assert_int_equal(numbers(r).hits, 0);
}

static void who_counts_goes_on_when_the_lock_is_free(void **state)
{
    struct rig *r = *state;
    wasmcache_report report;
    assert_int_equal(rig_get(r, "another", NULL), 0);
    take_tally(r, LOCK_CHANGE);
    start_clock();
    clock_of_test.act = give_tally;
    assert_int_equal(get(r, 0, NULL, NULL, &report), 0);
    stop_clock();
    assert_true(clock_of_test.waited >= SECOND);
    assert_true(clock_of_test.waited <= SECOND + SECOND / 100);
    assert_int_equal(numbers(r).compiles, 2);
}

/* ---- for who evicts ---- */

static void open_small(struct rig *r)
{
    rig_close(r);
    r->engine.artifact_size = 10000;
    r->options.max_bytes = 25000;
    r->options.evict_after_seconds = 1;
    rig_open(r);
}

static void a_prune_says_that_another_does_it(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    take_tally(r, LOCK_EVICT);
    start_clock();
    options.max_bytes = 1;
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), WASMCACHE_EBUSY);
    assert_true(clock_of_test.waited == 60 * SECOND);
    assert_true(clock_of_test.longest <= SECOND / 100);
    stop_clock();
    give_tally();
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
}

/* Above the limit nothing is saved, however long another one takes to make room. */
static void who_needs_room_does_not_save_without(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key("one");
    wasmcache_report report;
    open_small(r);
    assert_int_equal(rig_get(r, "one", NULL), 0);
    assert_int_equal(rig_get(r, "two", NULL), 0);
    take_tally(r, LOCK_EVICT);
    start_clock();
    assert_int_equal(get(r, 0, NULL, NULL, &report), 0);
    stop_clock();
    assert_true(clock_of_test.waited == 30 * SECOND);
    assert_int_equal(report.save_error, WASMCACHE_EBUSY);
    give_tally();
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(wasmcache_remove(r->cache, rig_namespace(r), &key), 0);
    assert_int_equal(get(r, 0, NULL, NULL, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
    assert_int_equal(rig_state(r, "two"), WASMCACHE_REASON_NONE);
}

static struct rig *pruned;

/* What another process did while this one waited. */
static void make_room_and_give(void)
{
    wasmcache_key key = rig_key("one");
    wc_os_wait_hook = NULL;
    assert_int_equal(wasmcache_remove(pruned->cache, rig_namespace(pruned), &key), 0);
    wc_os_wait_hook = pass_time;
    give_tally();
}

static void what_another_made_room_for_evicts_nothing_more(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    wasmcache_report report;
    open_small(r);
    assert_int_equal(rig_get(r, "one", NULL), 0);
    assert_int_equal(rig_get(r, "two", NULL), 0);
    assert_int_equal(wasmcache_prune(r->cache, NULL, &result), 0); /* what there is is known */
    take_tally(r, LOCK_EVICT);
    pruned = r;
    start_clock();
    clock_of_test.act = make_room_and_give;
    assert_int_equal(get(r, 0, NULL, NULL, &report), 0);
    stop_clock();
    assert_true(clock_of_test.waited >= SECOND);
    assert_true(clock_of_test.waited <= SECOND + SECOND / 100);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_state(r, "two"), WASMCACHE_REASON_NONE);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
    assert_int_equal(numbers(r).evictions, 0);
}

static int tear_down(void **state)
{
    stop_clock();
    if (tally_of_other >= 0)
        give_tally();
    return fixture_end(state);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(who_waits_for_a_thread_goes_for_the_second_byte),
        TEST(and_no_longer_than_as_long_again),
        TEST(the_second_byte_that_comes_free_is_taken),
        TEST(who_waits_for_a_thread_is_asked_and_may_go),
        TEST(who_counts_gives_up_and_counts_it_later),
        TEST(close_waits_for_the_tally_no_longer),
        TEST(who_counts_goes_on_when_the_lock_is_free),
        TEST(a_prune_says_that_another_does_it),
        TEST(who_needs_room_does_not_save_without),
        TEST(what_another_made_room_for_evicts_nothing_more),
    };
    return cmocka_run_group_tests_name("waits", tests, NULL, NULL);
}
