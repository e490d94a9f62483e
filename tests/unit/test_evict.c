/* SPDX-License-Identifier: Apache-2.0 */
/* A directory within its limits: what goes first, what stays, that the total is kept and corrected,
 * and that nobody is harmed by it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "evict.h"
#include "fixture.h"
#include "seam.h"
#include "worth.h"

enum { KB = 1000, ENTRY = 10000 };

static wasmcache_stats stats_of(struct rig *r)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_DIRECTORY, &stats), 0);
    return stats;
}

/* Entries of some 10 kB, and no grace time. */
static void open_with_limit(struct rig *r, uint64_t bytes)
{
    rig_close(r);
    r->engine.artifact_size = ENTRY - 500;
    r->options.max_bytes = bytes;
    r->options.evict_after_seconds = 1;
    rig_open(r);
}

static int64_t now;
static void set_time(int64_t seconds)
{
    now = seconds;
    wc_os_wall_forced = now * INT64_C(1000000000);
}

static void pass(int64_t seconds)
{
    set_time(now + seconds);
}

/* As if it had been saved then: what says so is the file's own time, where no hint does. */
static void age_file(struct rig *r, const char *wasm, int64_t seconds_ago)
{
    const struct timespec times[2] = {{now - seconds_ago, 0}, {now - seconds_ago, 0}};
    assert_int_equal(utimensat(AT_FDCWD, rig_entry(r, wasm), times, AT_SYMLINK_NOFOLLOW), 0);
}

static int is_there(struct rig *r, const char *wasm)
{
    return scratch_exists(rig_entry(r, wasm));
}

/* A save with what compiling cost. */
static void save(struct rig *r, const char *wasm, uint64_t compile_ns)
{
    wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    wasmcache_key key = rig_key(wasm);
    void *native = fake_module_new(&r->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    options.compile_ns = compile_ns;
    assert_int_equal(wasmcache_save(r->wc, WASMCACHE_MODULE, &key, native, &options, NULL), 0);
    r->engine.table.module_free(WASMCACHE_MODULE, native);
    age_file(r, wasm, 3600);
}

static unsigned count_entries(struct rig *r)
{
    wasmcache_iterator *it;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    unsigned count = 0;
    assert_int_equal(wasmcache_iterate(&it, r->cache, NULL, 0), 0);
    while (wasmcache_iterator_next(it, &entry) == 0)
        count++;
    wasmcache_iterator_close(it);
    return count;
}

static wasmcache_prune_result prune(struct rig *r, uint64_t bytes, uint64_t entries, uint64_t age,
                                    unsigned flags)
{
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    options.max_bytes = bytes;
    options.max_entries = entries;
    options.max_age_seconds = age;
    options.flags = flags;
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), 0);
    return result;
}

/* ---- order ---- */

static void what_cost_least_for_its_size_goes_first(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_result result;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "cheap", 1000000);
    save(r, "dear", UINT64_C(9000000000));
    save(r, "middling", 500000000);
    pass(3600);
    result = prune(r, 2 * ENTRY + KB, 0, 0, 0);
    assert_int_equal(result.removed_entries, 1);
    assert_int_equal(result.left_entries, 2);
    assert_true(result.removed_compile_ns == 1000000);
    assert_false(is_there(r, "cheap"));
    result = prune(r, ENTRY + KB, 0, 0, 0);
    assert_false(is_there(r, "middling"));
    assert_true(is_there(r, "dear"));
}

/* What goes anyway is not taken from what is over where the cut is, in whatever order names lie. */
static void what_is_below_the_cut_does_not_save_what_is_at_it(void **state)
{
    struct rig *r = *state;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    for (int round = 0; round < 8; round++) {
        wasmcache_prune_result result;
        for (int i = 0; i < 4; i++) {
            char name[32];
            snprintf(name, sizeof(name), "r%d-%d", round, i);
            save(r, name, UINT64_C(1000000) << (4 * i));
        }
        pass(3600);
        result = prune(r, 0, 1, 0, 0);
        assert_int_equal(result.left_entries, 1);
        result = prune(r, 1, 0, 0, 0);
        assert_int_equal(result.left_entries, 0);
    }
}

static void a_dry_run_removes_nothing_and_says_the_same(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_result dry, wet;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    for (int i = 0; i < 10; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m%d", i);
        save(r, name, (uint64_t)(i + 1) * 100000000);
    }
    pass(3600);
    dry = prune(r, 4 * ENTRY, 0, 0, WASMCACHE_PRUNE_DRY_RUN);
    assert_int_equal(count_entries(r), 10);
    wet = prune(r, 4 * ENTRY, 0, 0, 0);
    assert_int_equal(dry.removed_entries, wet.removed_entries);
    assert_int_equal(dry.removed_bytes, wet.removed_bytes);
    assert_int_equal(dry.left_bytes, wet.left_bytes);
    assert_int_equal(count_entries(r), wet.left_entries);
    assert_true(wet.left_bytes <= 4 * ENTRY);
}

static void what_was_used_lately_stays(void **state)
{
    struct rig *r = *state;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "old", 500000000);
    save(r, "used", 500000000);
    for (int day = 0; day < 6; day++) {
        pass(24 * 3600);
        assert_int_equal(rig_get(r, "used", NULL), 0);
    }
    prune(r, ENTRY + KB, 0, 0, 0);
    assert_false(is_there(r, "old"));
    assert_true(is_there(r, "used"));
}

/* Engines that are not there any more leave what nobody asks for; however dear it was. */
static void what_nobody_used_for_a_week_goes_first(void **state)
{
    struct rig *r = *state;
    char *old_entry;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "dear", UINT64_C(90000000000));
    old_entry = rig_entry(r, "dear");
    rig_close(r);
    r->engine.configuration = 2; /* another namespace */
    rig_open(r);
    pass(8 * 24 * 3600);
    save(r, "cheap", 1000000);
    pass(60);
    prune(r, ENTRY + KB, 0, 0, 0);
    assert_false(scratch_exists(old_entry));
    assert_true(is_there(r, "cheap"));
}

/* "Not mine" is no reason: another engine's that is in use is worth what it is worth. */
static void what_another_engine_uses_is_not_first(void **state)
{
    struct rig *r = *state;
    char *other_entry;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "dear", UINT64_C(90000000000));
    other_entry = rig_entry(r, "dear");
    rig_close(r);
    r->engine.configuration = 2;
    rig_open(r);
    pass(24 * 3600);
    save(r, "cheap", 1000000);
    pass(60);
    prune(r, ENTRY + KB, 0, 0, 0);
    assert_true(scratch_exists(other_entry));
    assert_false(is_there(r, "cheap"));
}

static void what_is_too_old_goes_whatever_the_room(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_result result;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "a", 1000000000);
    pass(10 * 24 * 3600);
    save(r, "b", 1000000000);
    pass(60);
    result = prune(r, 0, 0, 5 * 24 * 3600, 0);
    assert_int_equal(result.removed_entries, 1);
    assert_false(is_there(r, "a"));
    assert_true(is_there(r, "b"));
}

enum { DAY = 24 * 3600 };

static void open_with_age(struct rig *r, uint64_t seconds)
{
    open_with_limit(r, WASMCACHE_UNLIMITED);
    rig_close(r);
    r->options.max_age_seconds = seconds;
    rig_open(r);
}

/* Also where no clean-up came by. */
static void what_is_too_old_is_not_there(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_key key = rig_key("a");
    ino_t inode;
    open_with_age(r, 5 * DAY);
    save(r, "a", 1000000000);
    pass(5 * DAY - 4000);
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), 0);
    pass(10 * DAY);
    inode = scratch_inode(rig_entry(r, "a"));
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), WASMCACHE_EMISS);
    assert_int_equal(rig_load(r, "a", &report), WASMCACHE_EMISS);
    assert_int_equal(report.reason, WASMCACHE_REASON_EXPIRED);
    assert_non_null(strstr(wasmcache_last_error()->message, "max_age_seconds (432000 s)"));
    assert_int_equal(scratch_inode(rig_entry(r, "a")), inode);
    /* It is replaced, and is there again. */
    assert_int_equal(rig_get(r, "a", &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_EXPIRED);
    assert_int_equal(report.save_error, 0);
    assert_int_not_equal(scratch_inode(rig_entry(r, "a")), inode);
    assert_int_equal(rig_get(r, "a", &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(count_entries(r), 1);
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_PROCESS, &stats), 0);
    assert_int_equal(stats.misses[WASMCACHE_REASON_EXPIRED], 2);
    assert_int_equal(stats.removed, 0);
}

/* Age is counted from the last use, and does not count for what is pinned. */
static void what_is_used_or_pinned_does_not_expire(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key = rig_key("pinned");
    open_with_age(r, 5 * DAY);
    save(r, "used", 1000000000);
    save(r, "pinned", 1000000000);
    assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, 1), 0);
    for (int i = 0; i < 4; i++) {
        pass(4 * DAY);
        assert_int_equal(rig_get(r, "used", &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
    }
    assert_int_equal(rig_get(r, "pinned", &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    /* A save of what is there is a use. */
    pass(10 * DAY);
    assert_int_equal(rig_load(r, "used", &report), WASMCACHE_EMISS);
    save(r, "used", 1000000000);
    assert_int_equal(rig_load(r, "used", &report), 0);
}

/* What the limits of another cache say of a directory that is only read does not matter. */
static void layers_and_reproducible_caches_do_not_expire(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *layers[] = {&layer};
    open_with_age(r, 5 * DAY);
    save(r, "a", 1000000000);
    pass(10 * DAY);
    rig_close(r);
    layer.dir = r->options.dir;
    r->options.dir = scratch_in(&r->scratch, "upper");
    r->options.layers = layers;
    r->options.layer_count = 1;
    rig_open(r);
    assert_int_equal(rig_load(r, "a", &report), 0);
    assert_int_equal(report.layer, 1);
    rig_close(r);
    r->options.dir = layer.dir;
    r->options.layer_count = 0;
    r->options.flags |= WASMCACHE_REPRODUCIBLE;
    rig_open(r);
    assert_int_equal(rig_load(r, "a", &report), 0);
}

/* Each of another worth, so that most of what goes is below the cut, before and behind it in the
 * order of the walk. */
static void it_goes_down_to_the_limit_and_no_further(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_result result;
    uint64_t one;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    for (unsigned i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m%u", i);
        save(r, name, UINT64_C(1000000) << i % 20);
    }
    pass(3600);
    one = stats_of(r).bytes / 40;
    result = prune(r, 11 * one + one / 2, 0, 0, 0);
    assert_int_equal(result.left_entries, 11);
    assert_int_equal(count_entries(r), 11);
    assert_int_equal(result.left_bytes, 11 * one);
    for (unsigned i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m%u", i);
        if (i % 20 != 14) /* of the cut: one of two */
            assert_int_equal(is_there(r, name), i % 20 > 14);
    }
    assert_int_equal(prune(r, 0, 4, 0, 0).left_entries, 4);
    assert_true(is_there(r, "m19") && is_there(r, "m39") && is_there(r, "m18"));
}

/* The room that they leave is enough: nothing else goes, of whatever namespace. */
static void what_is_too_old_makes_room_for_the_others(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_result result;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "dear", UINT64_C(90000000000));
    save(r, "dear too", UINT64_C(90000000000));
    rig_close(r);
    r->engine.configuration = 2;
    rig_open(r);
    pass(8 * 24 * 3600);
    save(r, "idle", 1000000);
    rig_close(r);
    r->engine.configuration = 3;
    rig_open(r);
    pass(8 * 24 * 3600);
    save(r, "cheap", 1000000);
    pass(60);
    result = prune(r, 2 * ENTRY + KB, 0, 10 * 24 * 3600, 0);
    assert_int_equal(result.removed_entries, 2);
    assert_true(is_there(r, "cheap"));
    r->engine.configuration = 2;
    rig_reopen(r);
    assert_true(is_there(r, "idle"));
}

static void how_many_there_may_be_counts_too(void **state)
{
    struct rig *r = *state;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    for (int i = 0; i < 7; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m%d", i);
        save(r, name, 1000000000);
    }
    pass(3600);
    assert_int_equal(prune(r, 0, 3, 0, 0).left_entries, 3);
    assert_int_equal(count_entries(r), 3);
}

static void pinned_and_young_entries_stay(void **state)
{
    struct rig *r = *state;
    wasmcache_key key = rig_key("pinned");
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "pinned", 1000);
    save(r, "loose", UINT64_C(90000000000));
    save(r, "young", 1000);
    assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, 1), 0);
    assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, 1), 0); /* twice is once */
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, 0), 0);
    assert_true(entry.pinned);
    pass(3600);
    age_file(r, "young", 0);
    prune(r, 1, 0, 0, 0);
    assert_true(is_there(r, "pinned"));
    assert_true(is_there(r, "young"));
    assert_false(is_there(r, "loose"));
    pass(60);
    prune(r, 1, 0, 0, 0);
    assert_false(is_there(r, "young"));
    assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, 0), 0);
    assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, 0), 0);
    prune(r, 1, 0, 0, 0);
    assert_false(is_there(r, "pinned"));
}

/* ---- at a save ---- */

static void a_save_makes_room(void **state)
{
    struct rig *r = *state;
    open_with_limit(r, 20 * ENTRY);
    for (int i = 0; i < 100; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m%d", i);
        save(r, name, 1000000000);
        pass(60);
        assert_true(count_entries(r) <= 22);
    }
    assert_true(count_entries(r) >= 15);
    assert_true(stats_of(r).evictions >= 75);
    assert_true(stats_of(r).known);
    assert_int_equal(stats_of(r).entries, count_entries(r));
}

static void what_never_fits_is_not_saved_and_evicts_nothing(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    open_with_limit(r, 5 * ENTRY);
    for (int i = 0; i < 4; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m%d", i);
        save(r, name, 1000000000);
    }
    pass(3600);
    r->engine.artifact_size = 6 * ENTRY;
    assert_int_equal(rig_get(r, "huge", &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EFULL);
    assert_int_equal(count_entries(r), 4);
    assert_non_null(strstr(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].message, "max_bytes"));
}

/* What others did to the directory behind the tally's back. */
static void a_wrong_total_is_corrected(void **state)
{
    struct rig *r = *state;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m%d", i);
        save(r, name, 1000000000);
    }
    assert_int_equal(unlink(rig_entry(r, "m3")), 0);
    assert_int_equal(stats_of(r).entries, 5);
    prune(r, 0, 0, 0, 0);
    assert_int_equal(stats_of(r).entries, 4);
    assert_int_equal(stats_of(r).bytes, 4 * (uint64_t)(stats_of(r).bytes / 4));
    assert_true(stats_of(r).cleaned == (uint64_t)now);
}

static void removals_are_taken_from_the_total(void **state)
{
    struct rig *r = *state;
    wasmcache_key key = rig_key("b");
    uint64_t one;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "a", 1);
    one = stats_of(r).bytes;
    assert_true(one > 0);
    save(r, "b", 1);
    assert_int_equal(stats_of(r).bytes, 2 * one);
    assert_int_equal(wasmcache_remove(r->cache, rig_namespace(r), &key), 0);
    assert_int_equal(stats_of(r).bytes, one);
    scratch_flip(rig_entry(r, "a"), 5);
    assert_int_equal(rig_load(r, "a", NULL), WASMCACHE_ECORRUPT);
    assert_int_equal(stats_of(r).bytes, 0);
    assert_int_equal(stats_of(r).entries, 0);
}

static void where_nothing_is_limited_nothing_is_walked_over(void **state)
{
    struct rig *r = *state;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "a", 1);
    assert_false(stats_of(r).known);
    seam_record();
    assert_int_equal(rig_save(r, "b", NULL), 0);
    seam_off();
    assert_int_equal(seam_calls_of("walk_open"), 0);
}

static void a_share_of_the_disk_is_a_limit(void **state)
{
    struct rig *r = *state;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    r->options.max_disk_percent = 100;
    rig_reopen(r);
    save(r, "a", 1);
    save(r, "b", 1);
    assert_int_equal(count_entries(r), 2);
    r->options.max_disk_percent = 101;
    rig_close(r);
    assert_int_equal(wasmcache_open(&r->cache, &r->options), WASMCACHE_EMISUSE);
    r->options.max_disk_percent = 0;
    rig_open(r);
}

static void a_mapped_entry_loses_only_its_name(void **state)
{
    struct rig *r = *state;
    char text[8];
    int fd;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    save(r, "a", 1);
    fd = open(rig_entry(r, "a"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    pass(3600);
    prune(r, 1, 0, 0, 0);
    assert_false(is_there(r, "a"));
    assert_int_equal(pread(fd, text, sizeof(text), 0), sizeof(text));
    close(fd);
}

static void each_failing_call_harms_nobody(void **state)
{
    struct rig *r = *state;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    for (unsigned nth = 1;; nth++) {
        wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
        const unsigned before = scratch_descriptors();
        assert_true(nth < 1000); /* what a failure leaves does not pile up */
        options.max_bytes = ENTRY + KB;
        save(r, "cheap", 1000000);
        save(r, "dear", UINT64_C(9000000000));
        pass(3600);
        seam_fail(nth, EIO, 0);
        (void)wasmcache_prune(r->cache, &options, NULL);
        seam_off();
        assert_int_equal(scratch_descriptors(), before);
        assert_true(is_there(r, "dear"));
        assert_int_equal(rig_get(r, "dear", NULL), 0);
        if (!seam_met())
            break;
    }
    assert_false(is_there(r, "cheap"));
}

/* A folder that others may write to is not touched, and the rest is kept in its limits. */
static void a_folder_that_cannot_be_used_stops_nothing(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    char *theirs, *folder;
    wasmcache_stats stats;
    open_with_limit(r, 3 * ENTRY);
    save(r, "theirs", 1000000);
    theirs = rig_entry(r, "theirs");
    folder = rig_namespace_dir(r);
    rig_close(r);
    r->engine.configuration = 2; /* another namespace */
    rig_open(r);
    assert_int_equal(chmod(folder, 0777), 0);
    save(r, "dear", UINT64_C(9000000000));
    save(r, "cheap", 1000000);
    pass(3600);
    options.max_bytes = ENTRY + KB;
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), WASMCACHE_EUNTRUSTED);
    assert_non_null(strstr(wasmcache_last_error()->message, folder));
    assert_int_equal(result.removed_entries, 1);
    assert_false(is_there(r, "cheap"));
    assert_true(is_there(r, "dear"));
    assert_true(scratch_exists(theirs));
    /* The total is of what can be listed, so that the next saves have nothing to evict. */
    stats = stats_of(r);
    assert_int_equal(stats.entries, 1);
    for (int i = 0; i < 8; i++) {
        char wasm[32];
        snprintf(wasm, sizeof(wasm), "more %d", i);
        save(r, wasm, 2000000);
        pass(3600);
        stats = stats_of(r);
        assert_true(stats.bytes <= 3 * ENTRY + 3 * ENTRY / 20);
        assert_int_equal(stats.entries, count_entries(r));
    }
    assert_true(is_there(r, "dear"));
    assert_int_equal(chmod(folder, 0700), 0);
}

/* Neither may the young ones go, nor may it be more. */
static void what_finds_no_room_is_not_saved(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    open_with_limit(r, 5 * ENTRY);
    for (int i = 0; i < 20; i++) {
        char name[32];
        snprintf(name, sizeof(name), "m%d", i);
        assert_int_equal(rig_get(r, name, &report), 0);
        assert_int_equal(report.save_error, i < 5 ? 0 : WASMCACHE_EFULL);
        age_file(r, "m0", 0);
    }
    assert_int_equal(count_entries(r), 5);
    pass(60);
    assert_int_equal(rig_get(r, "m19", &report), 0);
    assert_int_equal(report.save_error, 0);
}

/* ---- another one evicts ---- */

static uint64_t waited;
static int pass_the_wait(uint64_t ns)
{
    waited += ns;
    wc_os_monotonic_forced += (int64_t)ns;
    return 1;
}

/* Who may not evict, since another does, waits for a while; a limit is a limit all the same. */
static void who_waits_in_vain_for_room_does_not_save(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct wc_tally_lock lock;
    struct wc_error err;
    open_with_limit(r, 3 * ENTRY);
    save(r, "a", 1000000);
    save(r, "b", 1000000);
    save(r, "c", 1000000);
    pass(3600);
    wc_error_init(&err);
    assert_int_equal(wc_tally_lock(&lock, &r->cache->store, 0, &err), 0);
    waited = 0;
    wc_os_monotonic_forced = 1000000000;
    wc_os_wait_hook = pass_the_wait;
    assert_int_equal(rig_get(r, "d", &report), 0);
    wc_os_wait_hook = NULL;
    wc_os_monotonic_forced = -1;
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EBUSY);
    assert_true(waited >= UINT64_C(30000000000) && waited < UINT64_C(31000000000));
    assert_int_equal(count_entries(r), 3);
    wc_tally_unlock(&lock);
    assert_int_equal(rig_get(r, "d", &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_true(is_there(r, "d"));
}

struct killed {
    struct rig *r;
    unsigned nth;
};

static int be_killed(void *argument)
{
    const struct killed *k = argument;
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    options.max_bytes = 4 * ENTRY + KB;
    rig_open(k->r);
    seam_exit(k->nth);
    (void)wasmcache_prune(k->r->cache, &options, NULL);
    seam_off();
    return 7; /* it came to its end */
}

/* Wherever it was: what is gone is gone, what is left is whole, and the next one ends what it
 * began. */
static void who_is_killed_leaves_the_rest_to_the_next(void **state)
{
    struct rig *r = *state;
    unsigned began = 0, put_back = 0, status = 0;
    open_with_limit(r, WASMCACHE_UNLIMITED);
    for (unsigned nth = 1; status != 7; nth += 5) {
        struct killed k = {r, nth};
        wasmcache_prune_result result;
        unsigned left;
        for (unsigned i = 0; i < 12; i++) {
            char name[32];
            snprintf(name, sizeof(name), "m%u", i);
            if (!is_there(r, name))
                save(r, name, UINT64_C(1000000) << i);
        }
        pass(3600);
        rig_close(r);
        status = (unsigned)scratch_child(be_killed, &k, 0, 20);
        rig_open(r);
        left = count_entries(r);
        began += left > 4 && left < 12;
        result = prune(r, 4 * ENTRY + KB, 0, 0, 0);
        assert_int_equal(result.failed, 0);
        assert_int_equal(result.left_entries, 4);
        /* One that was between two names is there again first. */
        assert_in_range(result.removed_entries + 4 - left, 0, 1);
        put_back += result.removed_entries + 4 > left;
        assert_int_equal(stats_of(r).entries, 4);
        assert_null(strstr(scratch_tree(&r->scratch, r->dir), "/."));
        for (unsigned i = 8; i < 12; i++) {
            char name[32];
            snprintf(name, sizeof(name), "m%u", i);
            assert_int_equal(rig_load(r, name, NULL), 0);
        }
    }
    assert_true(began >= 5);
    assert_true(put_back >= 2);
}

/* ---- processes ---- */

struct part {
    struct rig *r;
    unsigned number;
};

static int be_writer(void *argument)
{
    struct part *p = argument;
    struct rig *r = p->r;
    rig_open(r);
    for (int i = 0; i < 60; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        char name[32];
        snprintf(name, sizeof(name), "m%u.%d", p->number, i);
        assert_int_equal(rig_get(r, name, &report), 0);
        assert_true(report.save_error == 0 || report.save_error == WASMCACHE_EFULL);
        /* All writers may each be one over, and 5 %. */
        assert_true(count_entries(r) <= 52 + 16);
    }
    rig_close(r);
    return 0;
}

static void sixteen_writers_stay_within_the_limit(void **state)
{
    struct rig *r = *state;
    struct part parts[16];
    pid_t children[16];
    rig_close(r);
    wc_os_wall_forced = -1;
    r->engine.artifact_size = ENTRY - 500;
    r->options.max_bytes = 50 * ENTRY;
    r->options.evict_after_seconds = 1;
    for (unsigned i = 0; i < 16; i++) {
        parts[i].r = r;
        parts[i].number = i;
        children[i] = scratch_start(be_writer, &parts[i], 0, 60);
    }
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(scratch_wait(children[i]), 0);
    rig_open(r);
}

/* ---- what an entry is worth ---- */

static void worth_grows_with_what_it_saves(void **state)
{
    struct wc_worth w = {1000000, 1000000000, 4 * WC_WORTH_USE, 2000000};
    const uint64_t at = 2000000;
    const unsigned base = wc_worth_step(&w, at);
    struct wc_worth other = w;
    (void)state;
    other.compile_ns *= 2;
    assert_int_equal(wc_worth_step(&other, at), base + 16);
    other = w;
    other.bytes *= 2;
    assert_int_equal(wc_worth_step(&other, at), base - 16);
    other = w;
    other.uses *= 4;
    assert_int_equal(wc_worth_step(&other, at), base + 32);
    assert_int_equal(wc_worth_step(&w, at + WC_WORTH_HALF_LIFE), base - 16);
    assert_int_equal(wc_worth_step(&w, at + 3 * WC_WORTH_HALF_LIFE), base - 48);
    assert_int_equal(wc_worth_step(&w, at - 1000), base); /* a clock that was set back */
    /* Nothing is out of bounds. */
    for (int i = 0; i < 64; i++) {
        const uint64_t big = UINT64_C(1) << i;
        const struct wc_worth extremes[] = {
            {big, 1, 1, 0}, {1, big, big, big}, {0, 0, 0, 0}, {big, big, big, big}};
        for (int j = 0; j < 4; j++) {
            assert_true(wc_worth_step(&extremes[j], 0) < WC_WORTH_STEPS);
            assert_true(wc_worth_step(&extremes[j], UINT64_MAX) < WC_WORTH_STEPS);
        }
    }
}

static void uses_fade(void **state)
{
    const uint64_t half = WC_WORTH_HALF_LIFE, one = WC_WORTH_USE;
    uint64_t uses = 0, at = 1000000;
    (void)state;
    assert_int_equal(wc_worth_use(0, 0, at), one);
    assert_int_equal(wc_worth_use(8 * one, at, at), 9 * one);
    assert_int_equal(wc_worth_use(8 * one, at, at - 1000), 9 * one);
    assert_true(wc_worth_use(8 * one, at, at + half / 2) > 66 * one / 10 &&
                wc_worth_use(8 * one, at, at + half / 2) < 67 * one / 10); /* 8 / sqrt(2) + 1 */
    assert_int_equal(wc_worth_use(8 * one, at, at + half), 5 * one);
    assert_int_equal(wc_worth_use(8 * one, at, at + 3 * half), 2 * one);
    assert_int_equal(wc_worth_use(8 * one, at, UINT64_MAX), one);
    assert_true(wc_worth_use(UINT64_MAX, at, at) <= (UINT64_C(1) << 33));
    /* However long it is used each hour, a month without is seen. */
    for (unsigned hour = 0; hour < 100000; hour++, at += 3600)
        uses = wc_worth_use(uses, at - 3600, at);
    assert_true(uses > 700 * one && uses < 760 * one);
}

static int set_up(void **state)
{
    int rc = fixture_open_rig(state);
    set_time(1790000000);
    return rc;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_end)

struct heirs {
    struct rig *r;
    int answer; /* to write to */
};

/* A thread of the parent evicts, another forks, and the parent dies: what the child has of the lock
 * must not keep the child itself from it, nor may anything else be closed. */
static int die_while_evicting(void *argument)
{
    const struct heirs *heirs = argument;
    const struct wc_store *store = &heirs->r->cache->store;
    struct wc_tally_lock lock, mine;
    struct wc_error err;
    wc_error_init(&err);
    if (wc_tally_lock(&lock, store, 0, &err) != 0)
        return 1;
    if (fork() == 0) {
        char got;
        alarm(30);
        got = wc_tally_lock(&mine, store, UINT64_C(10000000000), &err) == 0 ? 'y' : 'n';
        if (got == 'y' && (fcntl(lock.fd, F_GETFD) != -1 || errno != EBADF))
            got = 'k'; /* it still keeps its parent's */
        wc_tally_unlock(&mine);
        _exit(write(heirs->answer, &got, 1) != 1);
    }
    return 0;
}

static void who_inherits_a_lock_does_not_wait_for_itself(void **state)
{
    struct rig *r = *state;
    struct heirs heirs = {r, -1};
    char got = '?';
    int ends[2];
    assert_int_equal(rig_get(r, "makes the folder", NULL), 0);
    assert_int_equal(pipe(ends), 0);
    heirs.answer = ends[1];
    assert_int_equal(scratch_child(die_while_evicting, &heirs, 0, 20), 0);
    assert_int_equal(read(ends[0], &got, 1), 1);
    assert_int_equal(got, 'y');
    close(ends[0]);
    close(ends[1]);
}

/* The parent lives and evicts: its child waits, and the number of the parent's descriptor may be
 * one that the child uses for something else by now. */
static int use_the_number(void *argument)
{
    const struct heirs *heirs = argument;
    const struct wc_store *store = &heirs->r->cache->store;
    struct wc_tally_lock lock, mine;
    struct wc_error err;
    int status = 1, other;
    pid_t child;
    wc_error_init(&err);
    if (wc_tally_lock(&lock, store, 0, &err) != 0)
        return 1;
    child = fork();
    if (child == 0) {
        other = open("/dev/null", O_RDONLY);
        if (other < 0 || dup2(other, lock.fd) < 0)
            _exit(2);
        if (wc_tally_lock(&mine, store, UINT64_C(20000000), &err) != WASMCACHE_EBUSY)
            _exit(3);
        _exit(fcntl(lock.fd, F_GETFD) == -1 ? 4 : 0);
    }
    waitpid(child, &status, 0);
    wc_tally_unlock(&lock);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void a_number_that_a_child_uses_itself_stays_open(void **state)
{
    struct rig *r = *state;
    struct heirs heirs = {r, -1};
    assert_int_equal(rig_get(r, "makes the folder", NULL), 0);
    assert_int_equal(scratch_child(use_the_number, &heirs, 0, 20), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_cost_least_for_its_size_goes_first),
        TEST(what_is_below_the_cut_does_not_save_what_is_at_it),
        TEST(a_dry_run_removes_nothing_and_says_the_same),
        TEST(what_was_used_lately_stays),
        TEST(what_nobody_used_for_a_week_goes_first),
        TEST(what_another_engine_uses_is_not_first),
        TEST(what_is_too_old_goes_whatever_the_room),
        TEST(what_is_too_old_is_not_there),
        TEST(what_is_used_or_pinned_does_not_expire),
        TEST(layers_and_reproducible_caches_do_not_expire),
        TEST(it_goes_down_to_the_limit_and_no_further),
        TEST(what_is_too_old_makes_room_for_the_others),
        TEST(how_many_there_may_be_counts_too),
        TEST(pinned_and_young_entries_stay),
        TEST(a_save_makes_room),
        TEST(what_never_fits_is_not_saved_and_evicts_nothing),
        TEST(a_wrong_total_is_corrected),
        TEST(removals_are_taken_from_the_total),
        TEST(where_nothing_is_limited_nothing_is_walked_over),
        TEST(a_share_of_the_disk_is_a_limit),
        TEST(a_mapped_entry_loses_only_its_name),
        TEST(each_failing_call_harms_nobody),
        TEST(a_folder_that_cannot_be_used_stops_nothing),
        TEST(what_finds_no_room_is_not_saved),
        TEST(who_waits_in_vain_for_room_does_not_save),
        TEST(who_is_killed_leaves_the_rest_to_the_next),
        TEST(sixteen_writers_stay_within_the_limit),
        TEST(who_inherits_a_lock_does_not_wait_for_itself),
        TEST(a_number_that_a_child_uses_itself_stays_open),
        TEST(worth_grows_with_what_it_saves),
        TEST(uses_fade),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
