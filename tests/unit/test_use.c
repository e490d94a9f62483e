/* SPDX-License-Identifier: Apache-2.0 */
/* When an entry was last used is known to the hour, and costs a hit nothing in between. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"
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
    (void)hit(r); /* may remember that it was checked */
    at(hour - 1);
    assert_int_equal(hit(r), 0);
    rig_reopen(r);
    assert_int_equal(hit(r), 0);
    assert_int_equal(last_used(r, wasm), 0);
    at(hour);
    assert_int_equal(hit(r), 1);
    assert_int_equal(hit(r), 0);
    assert_int_equal(last_used(r, wasm), hour);
    assert_int_equal(last_used(r, other), 5);
    rig_reopen(r);
    assert_int_equal(hit(r), 0);
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
    assert_int_equal(hit(r), 1);
    rig_close(r);
    r->cache = cache;
    r->wc = wc;
    assert_int_equal(last_used(r, wasm), hour);
    at(hour + 1); /* this one does not know that, and writes once too */
    assert_int_equal(hit(r), 1);
    assert_int_equal(hit(r), 0);
    assert_int_equal(last_used(r, wasm), hour + 1);
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
        TEST(what_another_process_wrote_counts),
        TEST(a_clock_that_was_set_back_is_no_use_in_the_future),
        TEST(who_may_not_write_does_not),
        TEST(a_lost_table_costs_the_time_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
