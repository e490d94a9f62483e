/* SPDX-License-Identifier: Apache-2.0 */
/* A directory that is filled once and handed on: the same modules give the same files, whatever
 * their order, and nothing else is left; it serves as a layer. */
#define _GNU_SOURCE
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"

enum { TIME = 1700000000 };

static const char *const modules[] = {"one", "two", "three", "four"};
enum { MODULES = sizeof(modules) / sizeof(*modules) };

static int set_up(void **state)
{
    struct rig *r;
    if (fixture_rig(state) < 0)
        return -1;
    r = *state;
    r->options.flags = WASMCACHE_REPRODUCIBLE;
    r->options.reproducible_time = TIME;
    return 0;
}

/* ---- what somebody who packs the directory would see ---- */

struct seen {
    char lines[32][512];
    int count;
    size_t root; /* length of the path to the directory */
};
static struct seen *seen;
static struct seen looked;

static int see(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    unsigned long long sum = 0;
    (void)ftw;
    if (type == FTW_F) {
        size_t size;
        uint8_t *bytes = scratch_read(path, &size);
        for (size_t i = 0; i < size; i++)
            sum = sum * 1099511628211u + bytes[i];
        free(bytes);
    }
    assert_true(seen->count < 32);
    snprintf(seen->lines[seen->count++], sizeof(seen->lines[0]), "%s %o %lld %lld.%09ld %llx",
             path + seen->root, (unsigned)st->st_mode, type == FTW_F ? (long long)st->st_size : 0,
             (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, sum);
    return 0;
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void look_at(struct seen *out, const char *dir)
{
    memset(out, 0, sizeof(*out));
    out->root = strlen(dir);
    seen = out;
    assert_int_equal(nftw(dir, see, 8, FTW_PHYS), 0);
    qsort(out->lines, (size_t)out->count, sizeof(out->lines[0]), compare);
}

/* Whether there is a file whose name begins so. */
static int has(const char *dir, const char *name)
{
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "/%s", name);
    look_at(&looked, dir);
    for (int i = 0; i < looked.count; i++)
        if (strstr(looked.lines[i], wanted))
            return 1;
    return 0;
}

/* What helps a cache, and is of no use in an image. */
static int has_helpers(const char *dir)
{
    return has(dir, ".hints") || has(dir, ".lock") || has(dir, ".tally") || has(dir, ".tmp");
}

static void assert_same(const struct seen *a, const struct seen *b)
{
    assert_int_equal(a->count, b->count);
    for (int i = 0; i < a->count; i++)
        assert_string_equal(a->lines[i], b->lines[i]);
}

static void fill(struct rig *r, int backwards)
{
    for (int i = 0; i < MODULES; i++)
        assert_int_equal(rig_get(r, modules[backwards ? MODULES - 1 - i : i], NULL), 0);
}

/* ---- the same bytes, times and modes ---- */

static void the_order_does_not_show(void **state)
{
    struct rig *r = *state;
    for (int share = 0; share <= WASMCACHE_SHARE_GROUP; share++) {
        for (unsigned v = 0; v < seam_variant_count; v++) {
            struct seen trees[2];
            wc_os_lacking = seam_variants[v].lacking;
            for (int i = 0; i < 2; i++) {
                char *dir = scratch_in(&r->scratch, "%d-%u-%d", share, v, i);
                r->options.dir = dir;
                r->options.share = (wasmcache_share)share;
                rig_open(r);
                fill(r, i);
                if (i == 0)
                    fill(r, 1); /* hits, too, leave nothing */
                rig_close(r);
                look_at(&trees[i], dir);
            }
            assert_same(&trees[0], &trees[1]);
            assert_int_equal(trees[0].count, 4 + MODULES); /* directory, tag, folder, identity */
        }
    }
}

static void all_has_the_time_that_was_given(void **state)
{
    static const uint64_t times[] = {0, 1, TIME};
    struct rig *r = *state;
    for (size_t t = 0; t < sizeof(times) / sizeof(*times); t++) {
        struct seen tree;
        char want[64];
        r->options.reproducible_time = times[t];
        r->options.dir = scratch_in(&r->scratch, "time-%zu", t);
        rig_open(r);
        fill(r, 0);
        rig_close(r);
        look_at(&tree, r->options.dir);
        snprintf(want, sizeof(want), " %llu.000000000 ", (unsigned long long)times[t]);
        for (int i = 0; i < tree.count; i++)
            assert_non_null(strstr(tree.lines[i], want));
    }
}

static void a_time_that_no_file_has_is_misuse(void **state)
{
    struct rig *r = *state;
    wasmcache *cache = NULL;
    r->options.reproducible_time = UINT64_C(1) << 33;
    assert_int_equal(wasmcache_open(&cache, &r->options), WASMCACHE_EMISUSE);
    assert_null(cache);
    r->options.reproducible_time--;
    assert_int_equal(wasmcache_open(&cache, &r->options), 0);
    wasmcache_close(cache);
}

/* Without the flag the time says nothing, and all that helps a cache is there. */
static void the_flag_decides(void **state)
{
    struct rig *r = *state;
    struct stat st;
    r->options.flags = 0;
    rig_open(r);
    fill(r, 0);
    assert_int_equal(stat(rig_entry(r, modules[0]), &st), 0);
    rig_close(r);
    assert_true(st.st_mtim.tv_sec > TIME);
    assert_true(has(r->dir, ".lock"));
    assert_true(has(r->dir, ".tally-1"));
}

/* Who changed the folder last has the last word about its time. */
static void *fill_some(void *argument)
{
    struct rig *r = argument;
    for (int i = 0; i < 16; i++) {
        const wasmcache_source source = wasmcache_source_bytes(modules[i % MODULES], 3);
        wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
        wasmcache_module *module = NULL;
        options.flags = i < 8 ? 0 : WASMCACHE_GET_RECOMPILE;
        if (!wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, NULL))
            wasmcache_module_release(module);
    }
    return NULL;
}

static void threads_leave_the_same_time(void **state)
{
    struct rig *r = *state;
    struct seen tree;
    pthread_t threads[4];
    rig_open(r);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fill_some, r), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    rig_close(r);
    look_at(&tree, r->dir);
    assert_int_equal(tree.count, 4 + MODULES);
    for (int i = 0; i < tree.count; i++)
        assert_non_null(strstr(tree.lines[i], " 1700000000.000000000 "));
}

/* Each call that fails costs at most the entry, and what is saved after it is as if it had not. */
static void each_failing_call_leaves_nothing(void **state)
{
    struct rig *r = *state;
    struct seen want, got;
    unsigned nth;
    r->options.dir = scratch_in(&r->scratch, "reference");
    rig_open(r);
    assert_int_equal(rig_get(r, modules[0], NULL), 0);
    look_at(&want, r->options.dir);
    rig_close(r);
    r->options.dir = r->dir;
    for (nth = 1;; nth++) {
        scratch_remove(r->dir);
        rig_open(r);
        seam_fail(nth, EIO, 0);
        assert_int_equal(rig_get(r, modules[0], NULL), 0);
        seam_off();
        if (scratch_exists(r->dir))
            assert_false(has_helpers(r->dir));
        /* A tag that could not be written is not written later: that is for who makes it. */
        if (scratch_exists(scratch_text(&r->scratch, "%s/CACHEDIR.TAG", r->dir))) {
            assert_int_equal(rig_get_with(r, modules[0], WASMCACHE_GET_RECOMPILE, NULL), 0);
            look_at(&got, r->dir);
            assert_same(&want, &got);
        }
        rig_close(r);
        if (!seam_met())
            break;
    }
    assert_true(nth > 20);
}

/* ---- what else there is of a cache ---- */

static void nothing_is_evicted_by_itself(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_options prune = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    r->options.max_entries = 1;
    rig_open(r);
    fill(r, 0);
    for (int i = 0; i < MODULES; i++)
        assert_true(scratch_exists(rig_entry(r, modules[i])));
    /* Asked for it is, without a total or its lock. */
    prune.max_entries = 3;
    assert_int_equal(wasmcache_prune(r->cache, &prune, &result), 0);
    assert_int_equal(result.removed_entries, 1);
    assert_int_equal(result.left_entries, 3);
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_DIRECTORY, &stats), 0);
    assert_int_equal(stats.saves, 0);
    assert_int_equal(wasmcache_stats_reset(r->cache), 0);
    rig_close(r);
    assert_false(has_helpers(r->dir));
}

static void what_is_remembered_goes_elsewhere(void **state)
{
    struct rig *r = *state;
    r->options.hints_dir = scratch_in(&r->scratch, "hints");
    rig_open(r);
    fill(r, 0);
    rig_close(r);
    assert_true(has(r->options.hints_dir, ".hints-1-"));
    assert_false(has_helpers(r->dir));
}

/* ---- as a layer ---- */

/* In a process of another user. */
static int load_from_the_layer(void *argument)
{
    struct rig *r = argument;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *const list[] = {&layer};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    layer.dir = r->dir;
    r->options.flags = 0;
    r->options.dir = scratch_in(&r->scratch, "open-to-all/own%d", (int)r->options.share);
    r->options.layers = list;
    r->options.layer_count = 1;
    rig_open(r);
    for (int i = 0; i < MODULES; i++)
        if (rig_get(r, modules[i], &report) || report.outcome != WASMCACHE_HIT || report.layer != 1)
            return 1;
    rig_close(r);
    return 0;
}

static void another_user_has_hits_from_it_and_writes_nothing(void **state)
{
    struct rig *r = *state;
    struct seen before, after;
    int others;
    if (!scratch_is_root("another user")) {
        skip();
        return;
    }
    assert_int_equal(mkdir(scratch_in(&r->scratch, "open-to-all"), 0755), 0);
    assert_int_equal(chmod(scratch_in(&r->scratch, "open-to-all"), 01777), 0);
    for (others = 0; others <= 1; others++) {
        const wasmcache_share share = others ? WASMCACHE_SHARE_READABLE : WASMCACHE_SHARE_PRIVATE;
        scratch_remove(r->dir);
        r->options.share = share;
        rig_open(r);
        fill(r, 0);
        rig_close(r);
        look_at(&before, r->dir);
        assert_int_equal(scratch_child(load_from_the_layer, r, SCRATCH_NOBODY, 20), !others);
        look_at(&after, r->dir);
        assert_same(&before, &after);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_order_does_not_show),
        TEST(all_has_the_time_that_was_given),
        TEST(a_time_that_no_file_has_is_misuse),
        TEST(the_flag_decides),
        TEST(threads_leave_the_same_time),
        TEST(each_failing_call_leaves_nothing),
        TEST(nothing_is_evicted_by_itself),
        TEST(what_is_remembered_goes_elsewhere),
        TEST(another_user_has_hits_from_it_and_writes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
