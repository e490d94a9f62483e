/* SPDX-License-Identifier: Apache-2.0 */
/* Directories in order: what is found where, what is promoted, that a layer is never written to,
 * and that its trouble stays its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"

struct lab {
    struct rig *r;
    wasmcache_layer layers[2];
    const wasmcache_layer *list[2];
    char *dirs[2];
};

static struct lab lab;

/* The rig's cache, over two layers: "a" and "both" are in the first, "b" and "both" in the second.
 */
static int set_up(void **state)
{
    const wasmcache_layer init = WASMCACHE_LAYER_INIT;
    struct rig *r;
    int rc = fixture_rig(state);
    if (rc)
        return rc;
    r = *state;
    lab.r = r;
    for (int i = 0; i < 2; i++) {
        lab.dirs[i] = scratch_in(&r->scratch, "layer%d", i);
        r->options.dir = lab.dirs[i];
        rig_open(r);
        assert_int_equal(rig_get(r, i ? "b" : "a", NULL), 0);
        assert_int_equal(rig_get(r, "both", NULL), 0);
        rig_close(r);
        lab.layers[i] = init;
        lab.layers[i].dir = lab.dirs[i];
        lab.list[i] = &lab.layers[i];
    }
    r->options.dir = r->dir;
    r->options.layers = lab.list;
    r->options.layer_count = 2;
    fake_engine_reset(&r->engine);
    rig_open(r);
    rig_forget_events(r);
    return 0;
}

static wasmcache_report get(const char *wasm, unsigned flags, int rc)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    assert_int_equal(rig_get_with(lab.r, wasm, flags, &report), rc);
    return report;
}

static wasmcache_stats stats(void)
{
    wasmcache_stats out = WASMCACHE_STATS_INIT;
    assert_int_equal(wasmcache_stats_read(lab.r->cache, WASMCACHE_STATS_PROCESS, &out), 0);
    return out;
}

static char *entry_in(int layer, const char *wasm)
{
    const char *path = rig_entry(lab.r, wasm);
    return scratch_text(&lab.r->scratch, "%s%s", lab.dirs[layer], path + strlen(lab.r->dir));
}

static void they_are_asked_in_order(void **state)
{
    (void)state;
    assert_int_equal(get("a", 0, 0).layer, 1);
    assert_int_equal(get("b", 0, 0).layer, 2);
    assert_int_equal(get("both", 0, 0).layer, 1);
    assert_int_equal(lab.r->engine.compiles, 0);
    assert_string_equal(lab.r->events.log, "hit,hit,hit,");
    assert_int_equal(get("c", 0, 0).outcome, WASMCACHE_COMPILED);
    assert_int_equal(get("c", 0, 0).layer, 0);
    assert_int_equal(stats().layer_hits, 3);
    assert_int_equal(stats().hits, 4);
    assert_int_equal(stats().layer_failures, 0);
    assert_false(
        scratch_exists(rig_entry(lab.r, "a"))); /* nothing is copied unless it is told to */
    assert_int_equal(rig_load(lab.r, "b", NULL), 0);
}

static void ones_own_directory_comes_first(void **state)
{
    (void)state;
    assert_int_equal(get("a", WASMCACHE_GET_RECOMPILE, 0).outcome, WASMCACHE_COMPILED);
    assert_true(scratch_exists(rig_entry(lab.r, "a")));
    assert_int_equal(get("a", 0, 0).layer, 0);
}

static void must_hit_looks_in_layers_too(void **state)
{
    (void)state;
    assert_int_equal(get("b", WASMCACHE_GET_MUST_HIT, 0).layer, 2);
    assert_int_equal(get("c", WASMCACHE_GET_MUST_HIT, WASMCACHE_EMISS).layer, 0);
    assert_int_equal(lab.r->engine.compiles, 0);
}

static void a_hit_is_promoted_if_that_is_wanted(void **state)
{
    struct rig *r = *state;
    rig_close(r);
    lab.layers[1].flags = WASMCACHE_LAYER_PROMOTE;
    rig_open(r);
    rig_forget_events(r);
    assert_int_equal(get("b", 0, 0).layer, 2);
    assert_string_equal(r->events.log, "saved,hit,");
    assert_true(scratch_same(entry_in(1, "b"), rig_entry(r, "b")));
    assert_int_equal(rig_state(r, "b"), WASMCACHE_REASON_NONE);
    assert_int_equal(get("b", 0, 0).layer, 0);
    assert_int_equal(get("a", 0, 0).layer, 1);
    assert_false(scratch_exists(rig_entry(r, "a")));
}

static void a_read_only_cache_promotes_nothing(void **state)
{
    struct rig *r = *state;
    rig_close(r);
    lab.layers[0].flags = WASMCACHE_LAYER_PROMOTE;
    r->options.flags |= WASMCACHE_READ_ONLY;
    rig_open(r);
    assert_int_equal(get("a", 0, 0).layer, 1);
    assert_false(scratch_exists(r->dir));
}

/* No file of it is written, made, removed, or gets another mode. */
static void a_layer_is_not_written_to(void **state)
{
    struct rig *r = *state;
    const char *before = scratch_tree(&r->scratch, lab.dirs[0]);
    struct stat entry, folder, now;
    char *path = entry_in(0, "a");
    char *dir = scratch_text(&r->scratch, "%s/%s", lab.dirs[0], rig_namespace(r));
    assert_int_equal(stat(path, &entry), 0);
    assert_int_equal(stat(dir, &folder), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(get("a", 0, 0).layer, 1);
    assert_int_equal(get("missing", 0, 0).outcome, WASMCACHE_COMPILED);
    rig_reopen(r);
    assert_string_equal(scratch_tree(&r->scratch, lab.dirs[0]), before);
    assert_int_equal(stat(path, &now), 0);
    assert_int_equal(now.st_ino, entry.st_ino);
    assert_memory_equal(&now.st_ctim, &entry.st_ctim, sizeof(now.st_ctim));
    assert_int_equal(stat(dir, &now), 0);
    assert_memory_equal(&now.st_ctim, &folder.st_ctim, sizeof(now.st_ctim));
}

static void what_is_damaged_in_a_layer_stays_and_is_counted(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    scratch_flip(entry_in(0, "a"), 9);
    assert_int_equal(rig_load(r, "a", &report), WASMCACHE_EMISS); /* the first store's error */
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_true(scratch_exists(entry_in(0, "a")));
    assert_int_equal(stats().layer_failures, 1);
    scratch_flip(entry_in(0, "both"), 9);
    assert_int_equal(get("both", 0, 0).layer, 2); /* the next one has it */
    assert_int_equal(stats().layer_failures, 2);
    assert_int_equal(get("a", 0, 0).outcome, WASMCACHE_COMPILED);
    assert_int_equal(get("a", 0, 0).layer, 0);
}

static void a_layer_that_cannot_be_used_is_passed_over(void **state)
{
    struct rig *r = *state;
    assert_int_equal(chmod(lab.dirs[0], 0777), 0); /* others can write there */
    assert_int_equal(get("both", 0, 0).layer, 2);
    assert_int_equal(get("a", 0, 0).outcome, WASMCACHE_COMPILED);
    scratch_remove(lab.dirs[1]);
    assert_int_equal(get("b", 0, 0).outcome, WASMCACHE_COMPILED);
    assert_int_equal(chmod(lab.dirs[0], 0755), 0);
    (void)r;
}

static void a_damaged_entry_of_ones_own_is_removed_and_the_layer_hit(void **state)
{
    struct rig *r = *state;
    assert_int_equal(get("a", WASMCACHE_GET_RECOMPILE, 0).outcome, WASMCACHE_COMPILED);
    scratch_flip(rig_entry(r, "a"), 9);
    rig_forget_events(r);
    assert_int_equal(get("a", 0, 0).layer, 1);
    assert_string_equal(r->events.log, "removed,hit,");
    assert_false(scratch_exists(rig_entry(r, "a")));
}

static void layers_that_cannot_be_right_are_misuse(void **state)
{
    struct rig *r = *state;
    wasmcache *cache = NULL;
    wasmcache_options options = r->options;
    options.layer_count = 17;
    assert_int_equal(wasmcache_open(&cache, &options), WASMCACHE_EMISUSE);
    options.layer_count = 2;
    options.layers = NULL;
    assert_int_equal(wasmcache_open(&cache, &options), WASMCACHE_EMISUSE);
    options.layers = lab.list;
    options.dir = NULL;
    assert_int_equal(wasmcache_open(&cache, &options), WASMCACHE_EMISUSE);
    options.dir = r->dir;
    lab.layers[1].flags = 4;
    assert_int_equal(wasmcache_open(&cache, &options), WASMCACHE_EMISUSE);
    lab.layers[1].flags = 0;
    lab.layers[1].dir = "";
    assert_int_equal(wasmcache_open(&cache, &options), WASMCACHE_EMISUSE);
    lab.list[1] = NULL;
    assert_int_equal(wasmcache_open(&cache, &options), WASMCACHE_EMISUSE);
    lab.list[1] = &lab.layers[1];
}

static void each_failing_call_costs_no_module(void **state)
{
    struct rig *r = *state;
    rig_close(r);
    lab.layers[0].flags = WASMCACHE_LAYER_PROMOTE;
    rig_open(r);
    for (unsigned nth = 1;; nth++) {
        const unsigned before = scratch_descriptors();
        scratch_remove(r->dir);
        seam_fail(nth, EIO, 0);
        assert_int_equal(rig_get(r, "a", NULL), 0);
        seam_off();
        assert_int_equal(scratch_descriptors(), before);
        assert_true(scratch_exists(entry_in(0, "a")));
        if (!seam_met())
            break;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(they_are_asked_in_order),
        TEST(ones_own_directory_comes_first),
        TEST(must_hit_looks_in_layers_too),
        TEST(a_hit_is_promoted_if_that_is_wanted),
        TEST(a_read_only_cache_promotes_nothing),
        TEST(a_layer_is_not_written_to),
        TEST(what_is_damaged_in_a_layer_stays_and_is_counted),
        TEST(a_layer_that_cannot_be_used_is_passed_over),
        TEST(a_damaged_entry_of_ones_own_is_removed_and_the_layer_hit),
        TEST(layers_that_cannot_be_right_are_misuse),
        TEST(each_failing_call_costs_no_module),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
