/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, status, and a directory that is missing, goes away, moves or comes back. */
#define _GNU_SOURCE
#include <errno.h>
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
#include "support/rig.h"

static const char wasm[] = "a module";
static const char other[] = "another module";

static wasmcache_status_info status_of(const struct rig *r)
{
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    assert_int_equal(wasmcache_status(r->cache, &info), 0);
    return info;
}

static void expect_get(struct rig *r, const char *module, wasmcache_outcome outcome, int save_error)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    assert_int_equal(rig_get(r, module, &report), 0);
    assert_int_equal(report.outcome, outcome);
    assert_int_equal(report.save_error, save_error);
}

/* ---- open ---- */

static void misuse_gives_no_cache(void **state)
{
    struct rig *r = *state;
    wasmcache_options options = r->options;
    wasmcache *cache = (wasmcache *)r;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;

    assert_int_equal(wasmcache_open(NULL, &options), WASMCACHE_EMISUSE);
#define MISUSE(change)                                                                             \
    do {                                                                                           \
        options = r->options;                                                                      \
        cache = (wasmcache *)r;                                                                    \
        change;                                                                                    \
        assert_int_equal(wasmcache_open(&cache, &options), WASMCACHE_EMISUSE);                     \
        assert_null(cache);                                                                        \
        assert_true(strlen(wasmcache_last_error()->message) > 0);                                  \
    } while (0)
    MISUSE(options.size = 0);
    MISUSE(options.size = 3);
    MISUSE(options.size = SIZE_MAX);
    MISUSE(options.flags = 1u << 31);
    MISUSE(options.flags = 16);
    MISUSE(options.share = (wasmcache_share)3);
    MISUSE(options.share = (wasmcache_share)-1);
    MISUSE(options.dir = "");
#undef MISUSE
    assert_false(scratch_exists(r->dir));

    /* And NULL is a valid "no cache". */
    wasmcache_close(NULL);
    assert_int_equal(wasmcache_status(NULL, &info), 0);
    assert_int_equal(info.state, WASMCACHE_STATE_OFF);
    assert_int_equal(info.error, WASMCACHE_EOFF);
    assert_true(strlen(info.message) > 0);
    assert_int_equal(wasmcache_status(NULL, NULL), WASMCACHE_EMISUSE);
    info.size = 0;
    assert_int_equal(wasmcache_status(NULL, &info), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_clean(NULL, NULL), 0);
    assert_int_equal(wasmcache_overlaps(NULL, 0), WASMCACHE_EMISUSE); /* no directory */
}

static void without_options_or_directory_it_is_off(void **state)
{
    struct rig *r = *state;
    wasmcache *cache = NULL;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    assert_int_equal(wasmcache_open(&cache, NULL), 0);
    assert_non_null(cache);
    assert_int_equal(wasmcache_status(cache, &info), 0);
    assert_int_equal(info.state, WASMCACHE_STATE_OFF);
    wasmcache_close(cache);
    r->options.dir = NULL;
    rig_open(r);
    assert_int_equal(status_of(r).state, WASMCACHE_STATE_OFF);
    assert_string_equal(r->events.log, ""); /* it was asked for */
}

static void older_and_newer_callers_are_understood(void **state)
{
    struct rig *r = *state;
    struct {
        wasmcache_options options;
        unsigned char more[64];
    } newer;
    wasmcache_status_info info;

    memset(&newer, 0, sizeof(newer));
    newer.options = r->options;
    newer.options.size = sizeof(newer);
    assert_int_equal(wasmcache_open(&r->cache, &newer.options), 0);
    wasmcache_close(r->cache);
    r->cache = NULL;
    newer.more[63] = 1; /* it sets what this library does not know */
    assert_int_equal(wasmcache_open(&r->cache, &newer.options), WASMCACHE_EMISUSE);

    rig_open(r);
    memset(&info, 0xaa, sizeof(info));
    info.size = offsetof(wasmcache_status_info, error);
    assert_int_equal(wasmcache_status(r->cache, &info), 0);
    assert_int_equal(info.state, WASMCACHE_STATE_ON);
    assert_int_equal((unsigned)info.error, 0xaaaaaaaau);
}

static void the_directory_is_made_by_the_first_save(void **state)
{
    struct rig *r = *state;
    char *top = scratch_in(&r->scratch, "this");
    wasmcache_status_info info;
    wasmcache_key key = rig_key(wasm);

    r->dir = scratch_in(&r->scratch, "this/does//not/exist/");
    r->options.dir = r->dir;
    rig_open(r);
    info = status_of(r);
    assert_int_equal(info.state, WASMCACHE_STATE_ON);
    assert_string_equal(info.message, "");
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_EMISS);
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), WASMCACHE_EMISS);
    assert_int_equal(wasmcache_clean(r->cache, NULL), 0);
    assert_false(scratch_exists(top)); /* looking makes nothing */
    assert_string_equal(r->events.log, "miss,");
    rig_forget_events(r);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    expect_get(r, wasm, WASMCACHE_HIT, 0);
    assert_string_equal(r->events.log, "miss,saved,hit,");
    assert_int_equal(scratch_mode(top), 0700);
    assert_int_equal(scratch_mode(scratch_in(&r->scratch, "this/does")), 0700);
    assert_int_equal(scratch_mode(scratch_in(&r->scratch, "this/does/not/exist")), 0700);
    assert_true(scratch_exists(scratch_in(&r->scratch, "this/does/not/exist/CACHEDIR.TAG")));
    assert_false(scratch_exists(scratch_in(&r->scratch, "this/CACHEDIR.TAG")));
}

static void the_tag_is_as_backup_programs_want_it(void **state)
{
    struct rig *r = *state;
    static const char signature[] = "Signature: 8a477f597d28d172789f06886806bc55";
    char *tag = scratch_in(&r->scratch, "cache/CACHEDIR.TAG");
    uint8_t *bytes;
    size_t size;

    rig_open(r);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    bytes = scratch_read(tag, &size);
    assert_true(size > strlen(signature));
    assert_memory_equal(bytes, signature, strlen(signature));
    free(bytes);

    /* A directory that was there is not marked: it may hold more than a cache. */
    scratch_remove(r->dir);
    assert_int_equal(mkdir(r->dir, 0700), 0);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    assert_false(scratch_exists(tag));
}

static int with_relative_directory(void *argument)
{
    struct rig *r = argument;
    static const char *const ways[] = {"rel", "./rel", "a/../rel"};
    assert_int_equal(chdir(r->scratch.dir), 0);
    assert_int_equal(mkdir("a", 0700), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(chdir(r->scratch.dir), 0);
        r->options.dir = ways[i];
        rig_open(r);
        assert_int_equal(chdir("/"), 0);
        expect_get(r, wasm, i ? WASMCACHE_HIT : WASMCACHE_COMPILED, 0);
        assert_true(scratch_exists(scratch_in(&r->scratch, "rel/%s", rig_namespace(r))));
        rig_close(r);
    }
    return 0;
}

static void a_relative_directory_is_of_the_moment_of_open(void **state)
{
    assert_int_equal(scratch_child(with_relative_directory, *state, 0, 20), 0);
}

static void paths_that_are_too_long_switch_it_off(void **state)
{
    struct rig *r = *state;
    char *long_path = calloc(1, 10001);
    wasmcache_status_info info;

    assert_non_null(long_path);
    memset(long_path, 'x', 10000);
    long_path[0] = '/';
    for (int round = 0; round < 2; round++) {
        /* One name that is too long, then a path that is. */
        for (size_t i = 100; round && i < 10000; i += 100)
            long_path[i] = '/';
        r->options.dir = long_path;
        rig_open(r);
        info = status_of(r);
        assert_int_equal(info.state, WASMCACHE_STATE_OFF);
        assert_int_equal(info.system_errno, ENAMETOOLONG);
        assert_int_equal(strlen(info.dir), sizeof(info.dir) - 1);
        assert_true(strlen(info.message) > 0);
        expect_get(r, wasm, WASMCACHE_COMPILED, WASMCACHE_EIO);
        rig_close(r);
    }
    free(long_path);

    /* A long one that works is not cut. */
    r->dir = scratch_in(&r->scratch, "%0200d/%0200d/%0200d/%0200d/%0200d/%0200d", 1, 2, 3, 4, 5, 6);
    r->options.dir = r->dir;
    rig_open(r);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    expect_get(r, wasm, WASMCACHE_HIT, 0);
    assert_true(scratch_exists(scratch_text(&r->scratch, "%s/%s", r->dir, rig_namespace(r))));
    scratch_remove(r->dir);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
}

/* ---- a directory that does not stay ---- */

static void removed_it_is_made_again(void **state)
{
    struct rig *r = *state;
    rig_open(r);
    for (int i = 0; i < 3; i++) {
        expect_get(r, wasm, WASMCACHE_COMPILED, 0);
        expect_get(r, wasm, WASMCACHE_HIT, 0);
        scratch_remove(i == 1 ? rig_namespace_dir(r) : r->dir);
    }
    assert_null(strstr(r->events.log, "off"));
}

static void renamed_it_is_made_again_and_comes_back(void **state)
{
    struct rig *r = *state;
    char *away = scratch_in(&r->scratch, "away");
    rig_open(r);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    assert_int_equal(rename(r->dir, away), 0);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    expect_get(r, other, WASMCACHE_COMPILED, 0);
    /* What is away was left alone. */
    assert_true(scratch_exists(scratch_in(&r->scratch, "away/%s", rig_namespace(r))));
    scratch_remove(r->dir);
    assert_int_equal(rename(away, r->dir), 0);
    expect_get(r, wasm, WASMCACHE_HIT, 0);
    expect_get(r, other, WASMCACHE_COMPILED, 0);
}

static void take_away(void *argument)
{
    const struct rig *r = argument;
    scratch_remove(r->dir);
}

static void removed_at_any_step_a_get_is_not_harmed(void **state)
{
    struct rig *r = *state;
    unsigned runs = 0, saved = 0;

    rig_open(r);
    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        for (int hit = 0; hit <= 1; hit++) {
            for (unsigned nth = 1;; nth++) {
                wasmcache_report report = WASMCACHE_REPORT_INIT;
                unsigned open_before = scratch_descriptors();
                scratch_remove(r->dir);
                if (hit)
                    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
                seam_act(nth, take_away, r);
                assert_int_equal(rig_get(r, wasm, &report), 0);
                seam_off();
                if (!seam_met())
                    break;
                runs++;
                saved += report.save_error == 0;
                assert_int_equal(scratch_descriptors(), open_before);
                expect_get(r, wasm,
                           scratch_exists(rig_entry(r, wasm)) ? WASMCACHE_HIT : WASMCACHE_COMPILED,
                           0);
                expect_get(r, wasm, WASMCACHE_HIT, 0);
            }
        }
    }
    printf("directory removed at each of %u steps: %u of them saved all the same\n", runs, saved);
}

static void off_and_on_are_told_once_each(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_status_info info;

    /* A file lies where the directory should be. */
    scratch_write(r->dir, "", 0, 0600);
    rig_open(r);
    assert_string_equal(r->events.log, "off,");
    assert_string_equal(r->events.last[WASMCACHE_EVENT_OFF].path, r->dir);
    assert_int_equal(r->events.last[WASMCACHE_EVENT_OFF].reason, WASMCACHE_REASON_CACHE_OFF);
    assert_non_null(strstr(r->events.last[WASMCACHE_EVENT_OFF].message, r->dir));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason, WASMCACHE_REASON_CACHE_OFF);
        assert_int_not_equal(report.save_error, 0);
        info = status_of(r);
        assert_int_equal(info.state, WASMCACHE_STATE_OFF);
        assert_int_equal(info.system_errno, ENOTDIR);
    }
    assert_int_equal(r->events.count[WASMCACHE_EVENT_OFF], 1);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_ON], 0);

    /* It comes on by itself. */
    rig_forget_events(r);
    assert_int_equal(unlink(r->dir), 0);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    expect_get(r, wasm, WASMCACHE_HIT, 0);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_ON], 1);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_OFF], 0);
    assert_int_equal(status_of(r).state, WASMCACHE_STATE_ON);

    /* And goes again, and says so again. */
    rig_forget_events(r);
    scratch_remove(r->dir);
    scratch_write(r->dir, "", 0, 0600);
    expect_get(r, wasm, WASMCACHE_COMPILED, WASMCACHE_EIO);
    expect_get(r, wasm, WASMCACHE_COMPILED, WASMCACHE_EIO);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_OFF], 1);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_ON], 0);
}

/* A directory that is missing and cannot be made. */
static int use_what_cannot_be_made(void *argument)
{
    struct rig *r = argument;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_status_info info;

    rig_open(r);
    assert_string_equal(r->events.log, "off,");
    for (int i = 0; i < 3; i++) {
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, WASMCACHE_EIO);
        assert_int_equal(report.reason, WASMCACHE_REASON_CACHE_OFF);
        info = status_of(r);
        assert_int_equal(info.state, WASMCACHE_STATE_OFF);
        assert_int_equal(info.error, WASMCACHE_EIO);
        assert_non_null(strstr(info.message, r->options.dir));
    }
    assert_int_equal(r->events.count[WASMCACHE_EVENT_OFF], 1);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_ON], 0);
    rig_close(r);
    return 0;
}

static void what_cannot_be_made_is_off_and_told_once(void **state)
{
    struct rig *r = *state;
    /* Below a file, which not even root can. */
    scratch_write(scratch_in(&r->scratch, "file"), "", 0, 0600);
    r->dir = scratch_in(&r->scratch, "file/cache");
    r->options.dir = r->dir;
    assert_int_equal(scratch_child(use_what_cannot_be_made, r, 0, 20), 0);
    /* Where an ordinary user may not. */
    if (!scratch_is_root("a directory that an ordinary user cannot make"))
        return;
    r->dir = scratch_in(&r->scratch, "deep/cache");
    r->options.dir = r->dir;
    assert_int_equal(scratch_child(use_what_cannot_be_made, r, SCRATCH_NOBODY, 20), 0);
    assert_false(scratch_exists(scratch_in(&r->scratch, "deep")));
}

static void an_engine_that_fails_says_nothing_about_the_directory(void **state)
{
    struct rig *r = *state;
    scratch_write(r->dir, "", 0, 0600);
    rig_open(r);
    rig_forget_events(r);
    r->engine.fail_serialize = 1;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    r->engine.configuration = 2; /* the probe is another */
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, NULL), 0);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_ON], 0);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_OFF], 0);
}

/* ---- for reading only ---- */

static int read_only_user(void *argument)
{
    struct rig *r = argument;
    wasmcache_status_info info;

    rig_open(r);
    fake_engine_reset(&r->engine);
    info = status_of(r);
    assert_int_equal(info.state, WASMCACHE_STATE_READ_ONLY);
    assert_int_equal(info.error, WASMCACHE_EIO);
    assert_int_equal(info.system_errno, EACCES);
    assert_true(strlen(info.message) > 0);
    for (int i = 0; i < 2; i++) {
        expect_get(r, wasm, WASMCACHE_HIT, 0);
        expect_get(r, other, WASMCACHE_COMPILED, WASMCACHE_EIO);
    }
    assert_int_equal(r->engine.compiles, 2);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_OFF], 0);
    /* The module that is not to be saved is not serialized either. */
    assert_int_equal(r->engine.serializes, 0);
    rig_close(r);
    return 0;
}

static void a_directory_for_reading_serves_hits(void **state)
{
    struct rig *r = *state;
    const char *before;
    if (!scratch_is_root("a directory of root, used by another user")) {
        skip();
        return;
    }
    r->options.share = WASMCACHE_SHARE_READABLE;
    rig_open(r);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    before = scratch_tree(&r->scratch, r->dir);
    rig_close(r);
    rig_forget_events(r);
    assert_int_equal(scratch_child(read_only_user, r, SCRATCH_NOBODY, 20), 0);
    assert_string_equal(scratch_tree(&r->scratch, r->dir), before);
}

static int mode_0500_user(void *argument)
{
    struct rig *r = argument;
    rig_open(r);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    assert_int_equal(chmod(rig_namespace_dir(r), 0500), 0);
    expect_get(r, wasm, WASMCACHE_HIT, 0);
    expect_get(r, other, WASMCACHE_COMPILED, WASMCACHE_EIO);
    assert_int_equal(chmod(r->dir, 0500), 0);
    expect_get(r, wasm, WASMCACHE_HIT, 0);
    assert_int_equal(status_of(r).state, WASMCACHE_STATE_READ_ONLY);
    /* No right at all: off; and on when it is back. */
    assert_int_equal(chmod(r->dir, 0), 0);
    rig_forget_events(r);
    expect_get(r, wasm, WASMCACHE_COMPILED, WASMCACHE_EIO);
    expect_get(r, wasm, WASMCACHE_COMPILED, WASMCACHE_EIO);
    assert_int_equal(status_of(r).state, WASMCACHE_STATE_OFF);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_OFF], 1);
    assert_int_equal(chmod(r->dir, 0700), 0);
    assert_int_equal(chmod(rig_namespace_dir(r), 0700), 0);
    expect_get(r, wasm, WASMCACHE_HIT, 0);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_ON], 1);
    expect_get(r, other, WASMCACHE_COMPILED, 0);
    rig_close(r);
    return 0;
}

static void permissions_that_come_and_go(void **state)
{
    struct rig *r = *state;
    if (!scratch_is_root("permissions of an ordinary user")) {
        skip();
        return;
    }
    assert_int_equal(chown(r->scratch.dir, SCRATCH_NOBODY, (gid_t)SCRATCH_NOBODY), 0);
    assert_int_equal(scratch_child(mode_0500_user, r, SCRATCH_NOBODY, 20), 0);
}

/* ---- links ---- */

static void a_link_is_followed_if_its_owner_is_trusted(void **state)
{
    struct rig *r = *state;
    char *real = scratch_in(&r->scratch, "real");
    wasmcache_status_info info;

    assert_int_equal(mkdir(real, 0700), 0);
    assert_int_equal(symlink("real", r->dir), 0);
    rig_open(r);
    expect_get(r, wasm, WASMCACHE_COMPILED, 0);
    expect_get(r, wasm, WASMCACHE_HIT, 0);
    assert_true(scratch_exists(scratch_in(&r->scratch, "real/%s", rig_namespace(r))));
    if (!scratch_is_root("a link of another user"))
        return;
    assert_int_equal(lchown(r->dir, 4343, 4343), 0);
    expect_get(r, wasm, WASMCACHE_COMPILED, WASMCACHE_EUNTRUSTED);
    info = status_of(r);
    assert_int_equal(info.state, WASMCACHE_STATE_OFF);
    assert_int_equal(info.error, WASMCACHE_EUNTRUSTED);
    /* Not by way of a slash behind it either. */
    rig_close(r);
    r->options.dir = scratch_text(&r->scratch, "%s/", r->dir);
    rig_open(r);
    expect_get(r, wasm, WASMCACHE_COMPILED, WASMCACHE_EUNTRUSTED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_rig, fixture_end)
    const struct CMUnitTest tests[] = {
        TEST(misuse_gives_no_cache),
        TEST(without_options_or_directory_it_is_off),
        TEST(older_and_newer_callers_are_understood),
        TEST(the_directory_is_made_by_the_first_save),
        TEST(the_tag_is_as_backup_programs_want_it),
        TEST(a_relative_directory_is_of_the_moment_of_open),
        TEST(paths_that_are_too_long_switch_it_off),
        TEST(removed_it_is_made_again),
        TEST(renamed_it_is_made_again_and_comes_back),
        TEST(removed_at_any_step_a_get_is_not_harmed),
        TEST(off_and_on_are_told_once_each),
        TEST(what_cannot_be_made_is_off_and_told_once),
        TEST(an_engine_that_fails_says_nothing_about_the_directory),
        TEST(a_directory_for_reading_serves_hits),
        TEST(permissions_that_come_and_go),
        TEST(a_link_is_followed_if_its_owner_is_trusted),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
