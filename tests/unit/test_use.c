/* SPDX-License-Identifier: Apache-2.0 */
/* When an entry was last used is known to the hour, and costs a hit nothing in between. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "cache.h"
#include "fixture.h"
#include "seam.h"
#include "stamp.h"
#include "support/rig.h"

static const char wasm[] = "a module", other[] = "b module";
static const int64_t hour = 3600;

static int64_t base;

/* Seconds after the start of the test. */
static void at(int64_t seconds)
{
    wc_os_wall_forced = (base + seconds) * 1000000000;
}

static int set_up(void **state)
{
    const int rc = fixture_rig(state);
    wc_os_settles_forced = 1;
    base = (int64_t)time(NULL) + 60;
    at(0);
    return rc;
}

static int tear_down(void **state)
{
    wc_os_settles_forced = -1;
    wc_os_wall_forced = -1;
    return fixture_end(state);
}

/* Seconds after the start of the test, as a check and a walk say it; -1: not known. */
static int64_t last_used(struct rig *r, const char *of)
{
    const wasmcache_key key = rig_key(of);
    wasmcache_entry checked = WASMCACHE_ENTRY_INIT, walked = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it;
    int found = 0;
    assert_int_equal(wasmcache_entry_check(&checked, r->cache, rig_namespace(r), &key, 0), 0);
    assert_int_equal(wasmcache_iterate(&it, r->cache, NULL, 0), 0);
    while (!found && wasmcache_iterator_next(it, &walked) == 0)
        found = wasmcache_key_equal(&walked.key, &key);
    wasmcache_iterator_close(it);
    assert_true(found);
    assert_int_equal(checked.last_used, walked.last_used);
    return checked.last_used ? (int64_t)checked.last_used - base : -1;
}

/* A hit; how many writes it made. */
static unsigned hit(struct rig *r)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    seam_record();
    assert_int_equal(rig_get(r, wasm, &report), 0);
    seam_off();
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    return seam_calls_of("pwrite");
}

static void a_hit_writes_it_once_an_hour(void **state)
{
    struct rig *r = *state;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    at(5);
    assert_int_equal(rig_get(r, other, NULL), 0);
    assert_int_equal(last_used(r, wasm), 0); /* since it was saved */
    assert_int_equal(last_used(r, other), 5);
    at(10);
    assert_int_equal(hit(r), 1); /* that it was checked */
    at(hour + 9);
    assert_int_equal(hit(r), 0);
    rig_reopen(r);
    assert_int_equal(hit(r), 0);
    assert_int_equal(last_used(r, wasm), 0);
    at(hour + 10);
    assert_int_equal(hit(r), 2); /* with the stamp, and by its name */
    assert_int_equal(hit(r), 0);
    assert_int_equal(last_used(r, wasm), hour + 10);
    assert_int_equal(last_used(r, other), 5);
    rig_reopen(r);
    assert_int_equal(hit(r), 0);
}

/* Without stamps too. */
static void every_way_to_check_tells_of_uses(void **state)
{
    static const wasmcache_verify ways[] = {WASMCACHE_VERIFY_ALWAYS, WASMCACHE_VERIFY_NEVER};
    struct rig *r = *state;
    for (int i = 0; i < 2; i++) {
        r->options.verify = ways[i];
        rig_open(r);
        at(10 * i * hour);
        (void)rig_get(r, wasm, NULL);
        at((10 * i + 1) * hour);
        assert_int_equal(hit(r), 1);
        assert_int_equal(hit(r), 0);
        assert_int_equal(last_used(r, wasm), (10 * i + 1) * hour);
        rig_close(r);
    }
    rig_open(r);
}

/* A check counts for a week after it was made, however often the entry is used meanwhile. */
static void a_use_does_not_renew_the_check(void **state)
{
    struct rig *r = *state;
    const int64_t week = 7 * 24 * hour;
    int64_t hours;
    r->engine.artifact_size = 300000;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    at(60);
    (void)hit(r);
    assert_int_equal(seam_calls_of("view"), 1);
    for (hours = 2; hours * hour < 60 + week; hours += 2) {
        at(hours * hour);
        assert_int_equal(hit(r), 2);
        assert_int_equal(seam_calls_of("view"), 0);
    }
    at(60 + week);
    (void)hit(r);
    assert_int_equal(seam_calls_of("view"), 1);
}

/* More entries than a set has room for, all with uses in that set: none loses its stamp, and none
 * is written again and again. */
static void a_crowd_of_names_costs_no_stamp(void **state)
{
    enum { CROWD = 12 };
    struct rig *r = *state;
    char names[CROWD][32];
    uint64_t set = 0;
    unsigned found = 0;
    r->engine.artifact_size = 300000;
    rig_open(r);
    for (unsigned i = 0; found < CROWD; i++) {
        struct wc_hint_about use;
        wasmcache_key key;
        snprintf(names[found], sizeof(names[found]), "module %u", i);
        key = rig_key(names[found]);
        wc_hint_of_entry(&use, rig_namespace(r), &key);
        if (found == 0)
            set = use.set % 8192;
        if (use.set % 8192 == set)
            found++;
    }
    for (unsigned i = 0; i < CROWD; i++)
        assert_int_equal(rig_get(r, names[i], NULL), 0);
    for (int round = 0; round < 4; round++) {
        at(10 + 60 * round);
        for (unsigned i = 0; i < CROWD; i++) {
            rig_reopen(r);
            seam_record();
            assert_int_equal(rig_load(r, names[i], NULL), 0);
            seam_off();
            assert_int_equal(seam_calls_of("view"), round == 0);
            if (round > 0)
                assert_int_equal(seam_calls_of("pwrite"), 0);
        }
    }
}

static void what_another_process_wrote_counts(void **state)
{
    struct rig *r = *state;
    wasmcache *cache;
    wasmcache_attachment *wc;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    (void)hit(r);
    cache = r->cache;
    wc = r->wc;
    rig_open(r); /* as another process has it */
    at(hour);
    assert_int_equal(hit(r), 2);
    rig_close(r);
    r->cache = cache;
    r->wc = wc;
    assert_int_equal(last_used(r, wasm), hour);
    at(hour + 1); /* this one does not know that, and writes once too */
    assert_int_equal(hit(r), 2);
    assert_int_equal(hit(r), 0);
    assert_int_equal(last_used(r, wasm), hour + 1);
}

/* What compiling cost is kept, also where entries do not tell. */
static void the_cost_stays(void **state)
{
    const wasmcache_key key = rig_key(wasm);
    struct rig *r = *state;
    struct wc_hint_look look;
    struct wc_hint_about use;
    struct wc_hint hint;
    struct wc_folder folder;
    struct wc_error ignored;
    uint64_t cost[2] = {0, 0};
    r->options.flags = WASMCACHE_REPRODUCIBLE;
    r->options.hints_dir = scratch_in(&r->scratch, "hints");
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    wc_hint_of_entry(&use, rig_namespace(r), &key);
    for (int i = 0; i < 2; i++) {
        wc_error_init(&ignored);
        assert_int_equal(
            wc_store_open_folder(&folder, &r->cache->store, rig_namespace(r), &ignored), 0);
        wc_hint_look_start(&look, &r->cache->hints);
        wc_cache_find_hints(r->cache, &look, &folder, WC_GATE_LOOK);
        assert_int_equal(wc_hint_find(&look, &use, &hint), 1);
        wc_hint_look_end(&look);
        wc_folder_close(&folder);
        memcpy(&cost[i], hint.value, sizeof(cost[i]));
        at(3 * hour);
        (void)hit(r);
    }
    assert_true(cost[0] > 0);
    assert_int_equal(cost[1], cost[0]);
}

/* What the table has of the entry, as evict.c asks for it. */
static struct wc_worth worth_of(struct rig *r)
{
    const wasmcache_key key = rig_key(wasm);
    struct wc_worth worth = {0};
    struct wc_hint_look look;
    struct wc_folder folder;
    struct wc_error ignored;
    wc_error_init(&ignored);
    assert_int_equal(wc_store_open_folder(&folder, &r->cache->store, rig_namespace(r), &ignored),
                     0);
    wc_hint_look_start(&look, &r->cache->hints);
    wc_cache_find_hints(r->cache, &look, &folder, WC_GATE_LOOK);
    assert_int_equal(wc_use_find(&worth, &look, rig_namespace(r), &key), 1);
    wc_hint_look_end(&look);
    wc_folder_close(&folder);
    return worth;
}

/* Each hour once, however often it is used in it; half of it three weeks later; and a removal is
 * not the end of it. */
static void uses_are_counted_and_fade(void **state)
{
    const wasmcache_key key = rig_key(wasm);
    const int64_t half = WC_WORTH_HALF_LIFE;
    struct rig *r = *state;
    struct wc_worth worth;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    for (int i = 0; i < 5; i++)
        (void)hit(r);
    worth = worth_of(r);
    assert_int_equal(worth.uses, WC_WORTH_USE);
    assert_int_equal(worth.last, base);
    for (int i = 1; i < 4; i++) {
        at(i * hour);
        (void)hit(r);
        (void)hit(r);
    }
    worth = worth_of(r);
    assert_true(worth.uses > 398 * WC_WORTH_USE / 100 && worth.uses < 4 * WC_WORTH_USE);
    assert_int_equal(worth.last, base + 3 * hour);
    assert_int_equal(wasmcache_remove(r->cache, rig_namespace(r), &key), 0);
    at(3 * hour + half);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    worth = worth_of(r);
    assert_true(worth.uses > 298 * WC_WORTH_USE / 100 && worth.uses < 3 * WC_WORTH_USE);
}

/* A hints_dir that is missing is made by what remembers, not by what looks. */
static void looking_makes_nothing(void **state)
{
    const wasmcache_key key = rig_key(wasm);
    struct rig *r = *state;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it;
    r->options.hints_dir = scratch_in(&r->scratch, "hints");
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    rig_close(r);
    assert_true(scratch_exists(r->options.hints_dir));
    r->options.hints_dir = scratch_in(&r->scratch, "other");
    rig_open(r);
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, 0), 0);
    assert_int_equal(wasmcache_iterate(&it, r->cache, NULL, 0), 0);
    assert_int_equal(wasmcache_iterator_next(it, &entry), 0);
    wasmcache_iterator_close(it);
    assert_int_equal(wasmcache_clean(r->cache, NULL), 0);
    assert_false(scratch_exists(r->options.hints_dir));
    (void)hit(r);
    assert_true(scratch_exists(r->options.hints_dir));
}

static void a_clock_that_was_set_back_is_no_use_in_the_future(void **state)
{
    struct rig *r = *state;
    rig_open(r);
    at(100 * hour);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    (void)hit(r);
    at(2 * hour);
    (void)hit(r);
    assert_int_equal(last_used(r, wasm), 2 * hour);
}

static void who_may_not_write_does_not(void **state)
{
    struct rig *r = *state;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    (void)hit(r);
    rig_close(r);
    r->options.flags = WASMCACHE_READ_ONLY;
    rig_open(r);
    at(3 * hour);
    seam_record();
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    seam_off();
    assert_null(strstr(seam_log(), "write"));
    assert_null(strstr(seam_log(), "open_update"));
    assert_int_equal(last_used(r, wasm), 0);
}

static void a_lost_table_costs_the_time_only(void **state)
{
    struct rig *r = *state;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(unlink(scratch_in(&r->scratch, "cache/.hints-1-le")) &
                         unlink(scratch_in(&r->scratch, "cache/.hints-1-be")),
                     0);
    assert_int_equal(last_used(r, wasm), -1);
    rig_reopen(r);
    at(7);
    (void)hit(r);
    assert_int_equal(last_used(r, wasm), 7);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_hit_writes_it_once_an_hour),
        TEST(every_way_to_check_tells_of_uses),
        TEST(a_use_does_not_renew_the_check),
        TEST(a_crowd_of_names_costs_no_stamp),
        TEST(what_another_process_wrote_counts),
        TEST(a_clock_that_was_set_back_is_no_use_in_the_future),
        TEST(who_may_not_write_does_not),
        TEST(the_cost_stays),
        TEST(uses_are_counted_and_fade),
        TEST(looking_makes_nothing),
        TEST(a_lost_table_costs_the_time_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
