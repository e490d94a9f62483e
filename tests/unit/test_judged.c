/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads that take a folder for judged because it was a moment ago: that they look at nothing twice,
 * that the entry is judged all the same, that no link is followed, and that whatever is not as it
 * was is found out by the long way.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "call.h"
#include "fixture.h"
#include "seam.h"

#define HOUR UINT64_C(3600000000000)

static const char wasm[] = "module";

static int set_up(void **state)
{
    int rc = fixture_open_rig(state);
    struct rig *r = *state;
    wc_call_judged_for = HOUR;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    wc_os_wall_forced = wc_os_wall_ns() + INT64_C(10000000000); /* what was written has settled */
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    return rc;
}

static int tear_down(void **state)
{
    wc_call_judged_for = UINT64_C(100000000);
    wc_os_wall_forced = -1;
    return fixture_end(state);
}

static const char *calls_of_a_hit(struct rig *r)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    seam_record();
    assert_int_equal(rig_get(r, wasm, &report), 0);
    seam_off();
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    return seam_log();
}

static void a_folder_that_was_judged_is_not_opened(void **state)
{
    assert_string_equal(calls_of_a_hit(*state), "open_read,fstat,pread,fd_path,close,");
}

static void it_is_judged_again_after_a_while(void **state)
{
    struct rig *r = *state;
    wc_call_judged_for = 1;
    assert_int_equal(rig_load(r, "another", NULL), WASMCACHE_EMISS); /* judges */
    assert_non_null(strstr(calls_of_a_hit(r), "open_dir,"));
    assert_non_null(strstr(calls_of_a_hit(r), "open_dir,"));
    assert_int_equal(chmod(r->dir, 0777), 0);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_EMISS); /* not in a folder of our own */
    assert_int_equal(chmod(r->dir, 0700), 0);
}

static void another_attachment_judges_for_itself(void **state)
{
    struct rig *r = *state;
    rig_reopen(r);
    assert_non_null(strstr(calls_of_a_hit(r), "open_dir,"));
    assert_null(strstr(calls_of_a_hit(r), "open_dir,"));
}

static void the_entry_is_judged_each_time(void **state)
{
    struct rig *r = *state;
    assert_int_equal(chmod(rig_entry(r, wasm), 0666), 0);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_EUNTRUSTED);
    assert_int_equal(chmod(rig_entry(r, wasm), 0400), 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    scratch_flip(rig_entry(r, wasm), 77);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_ECORRUPT);
    assert_false(scratch_exists(rig_entry(r, wasm))); /* and removed, as ever */
}

static void links_in_its_place_are_not_followed(void **state)
{
    struct rig *r = *state;
    char *moved = scratch_in(&r->scratch, "moved");
    char *folder = rig_namespace_dir(r), *entry = rig_entry(r, wasm);
    assert_int_equal(rename(folder, moved), 0);
    assert_int_equal(symlink(moved, folder), 0);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_EUNTRUSTED);
    assert_int_equal(unlink(folder), 0);
    assert_int_equal(rename(moved, folder), 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_int_equal(rename(entry, moved), 0);
    assert_int_equal(symlink(moved, entry), 0);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_EUNTRUSTED);
}

static void a_directory_that_went_away_is_made_anew(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    scratch_remove(r->dir);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

/* What says that it was, is said of a folder that could be opened. */
static void a_directory_that_cannot_be_used_is_not_judged_for_long(void **state)
{
    struct rig *r = *state;
    rig_forget_events(r);
    assert_int_equal(chmod(r->dir, 0777), 0);
    assert_int_equal(rig_load(r, "another", NULL), WASMCACHE_EMISS); /* looked at, as it is none */
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_EMISS);
    assert_int_equal(chmod(r->dir, 0700), 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

static void a_cache_behind_a_link_is_judged_each_time(void **state)
{
    struct rig *r = *state;
    char *link = scratch_in(&r->scratch, "link");
    assert_int_equal(symlink(r->dir, link), 0);
    rig_close(r);
    r->options.dir = link;
    rig_open(r);
    assert_non_null(strstr(calls_of_a_hit(r), "open_dir,"));
    assert_non_null(strstr(calls_of_a_hit(r), "open_dir,"));
}

static void where_paths_cannot_be_opened_straight_nothing_changes(void **state)
{
    struct rig *r = *state;
    wc_os_lacking = WC_OS_NO_STRAIGHT;
    rig_reopen(r);
    assert_non_null(strstr(calls_of_a_hit(r), "open_dir,"));
    assert_non_null(strstr(calls_of_a_hit(r), "open_dir,"));
}

static void hints_are_written_without_an_open_folder(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, "second", NULL), 0);
    assert_int_equal(rig_get(r, "second", NULL), 0); /* read, and stamped */
    rig_reopen(r);
    seam_record();
    assert_int_equal(rig_get(r, "second", NULL), 0);
    seam_off();
    assert_null(strstr(seam_log(), "view,"));
    assert_int_equal(seam_calls_of("pread"), 2); /* the table, and the trailer */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_folder_that_was_judged_is_not_opened),
        TEST(it_is_judged_again_after_a_while),
        TEST(another_attachment_judges_for_itself),
        TEST(the_entry_is_judged_each_time),
        TEST(links_in_its_place_are_not_followed),
        TEST(a_directory_that_went_away_is_made_anew),
        TEST(a_directory_that_cannot_be_used_is_not_judged_for_long),
        TEST(a_cache_behind_a_link_is_judged_each_time),
        TEST(where_paths_cannot_be_opened_straight_nothing_changes),
        TEST(hints_are_written_without_an_open_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
