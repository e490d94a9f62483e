/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hit may leave out because it was done before, and what makes it be done again: each rule
 * with what goes wrong without it. Files here are settled as soon as they are a nanosecond old,
 * unless a test says otherwise.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"
#include "support/rig.h"

static const char wasm[] = "a module", other[] = "b module"; /* of one length */

static int set_up(void **state)
{
    const int rc = fixture_rig(state);
    struct rig *r = *state;
    wc_os_settles_forced = 1;
    r->engine.artifact_size = 300000; /* large enough to be looked at in a view */
    return rc;
}

static int tear_down(void **state)
{
    wc_os_settles_forced = -1;
    wc_os_wall_forced = -1;
    wc_os_lacking = 0;
    return fixture_end(state);
}

/* ---- what a get does ---- */

struct work {
    int rc;
    wasmcache_outcome outcome;
    wasmcache_reason reason;
    unsigned calls;   /* of the system */
    unsigned reads;   /* of them pread */
    unsigned opens;   /* of a source by its path */
    unsigned digests; /* 1: the artifact was looked at */
};

static struct work get_source(struct rig *r, const wasmcache_source *source, const char *expected)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    struct work work = {0};
    seam_record();
    work.rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, source, NULL, &report);
    seam_off();
    if (work.rc == 0)
        assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                                   r->engine.configuration, expected, strlen(expected)));
    wasmcache_module_release(module);
    work.outcome = report.outcome;
    work.reason = report.reason;
    work.calls = seam_calls();
    work.reads = seam_calls_of("pread");
    work.opens = seam_calls_of("open_read_path");
    /* Where times say nothing it is read, and nothing is written. */
    work.digests = seam_calls_of("view") > 0 || (work.reads > 3 && !seam_calls_of("pwrite"));
    return work;
}

static struct work get(struct rig *r)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    return get_source(r, &source, wasm);
}

static struct work get_path(struct rig *r, const char *path, const char *expected)
{
    const wasmcache_source source = wasmcache_source_path(path);
    return get_source(r, &source, expected);
}

/* Saved, and checked once: the next hit finds the stamp. */
static void warm_up(struct rig *r)
{
    rig_open(r);
    assert_int_equal(get(r).outcome, WASMCACHE_COMPILED);
    assert_int_equal(get(r).digests, 1);
    assert_int_equal(get(r).digests, 0);
}

static void set_times(const char *path, const struct stat *st)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* Writes other bytes of the same length, and puts mtime back. */
static void change_keeping_size_and_mtime(const char *path, off_t at)
{
    struct stat st;
    const char x = 'x';
    const mode_t mode = scratch_mode(path);
    int fd;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(chmod(path, 0600), 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, &x, 1, at), 1);
    close(fd);
    assert_int_equal(chmod(path, mode), 0);
    set_times(path, &st);
}

/* ---- the path of a hit ---- */

static void a_stamped_hit_reads_the_trailer_and_nothing_else(void **state)
{
    struct rig *r = *state;
    const char *path = scratch_in(&r->scratch, "a.wasm");
    struct work work;
    const unsigned before = scratch_descriptors();
    scratch_write(path, wasm, strlen(wasm), 0600);
    warm_up(r);
    assert_int_equal(get_path(r, path, wasm).opens, 1); /* hashed, once */
    work = get_path(r, path, wasm);
    assert_int_equal(work.outcome, WASMCACHE_HIT);
    assert_int_equal(work.reads, 1);
    assert_int_equal(work.opens, 0);
    printf("a stamped hit of a path: %u calls of the seam in a process that hit before",
           work.calls);
    assert_true(work.calls <= 14);
    /* What is known lies in the file too. */
    rig_reopen(r);
    work = get_path(r, path, wasm);
    assert_int_equal(work.outcome, WASMCACHE_HIT);
    assert_int_equal(work.reads, 3); /* source, trailer, stamp */
    assert_int_equal(work.opens, 0);
    printf(", %u in a new one\n", work.calls);
    assert_true(work.calls <= 14);
    rig_close(r);
    assert_int_equal(scratch_descriptors(), before);
}

static void a_digest_needs_no_source_and_a_descriptor_no_hash(void **state)
{
    struct rig *r = *state;
    const char *path = scratch_in(&r->scratch, "a.wasm");
    const wasmcache_key key = rig_key(wasm);
    wasmcache_source source = wasmcache_source_sha256(key.bytes, NULL, NULL);
    struct work work;
    int fd;
    warm_up(r);
    work = get_source(r, &source, wasm);
    assert_int_equal(work.outcome, WASMCACHE_HIT);
    assert_int_equal(work.reads, 1);
    scratch_write(path, wasm, strlen(wasm), 0600);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    source = wasmcache_source_fd(fd);
    (void)get_source(r, &source, wasm);
    work = get_source(r, &source, wasm);
    assert_int_equal(work.outcome, WASMCACHE_HIT);
    assert_int_equal(work.reads, 1);
    close(fd);
}

static void without_a_quick_way_in_a_hit_is_the_same(void **state)
{
    struct rig *r = *state;
    warm_up(r);
    wc_os_lacking = WC_OS_NO_STRAIGHT;
    assert_int_equal(get(r).outcome, WASMCACHE_HIT);
    assert_int_equal(get(r).digests, 0);
    /* Through a link that is ours there is no quick way either. */
    wc_os_lacking = 0;
    rig_close(r);
    r->options.dir = scratch_in(&r->scratch, "link");
    assert_int_equal(symlink(r->dir, r->options.dir), 0);
    rig_open(r);
    assert_int_equal(get(r).outcome, WASMCACHE_HIT);
    assert_int_equal(get(r).digests, 0);
}

/* ---- entries ---- */

static void damage_of_the_same_size_and_mtime_is_found(void **state)
{
    struct rig *r = *state;
    warm_up(r);
    change_keeping_size_and_mtime(rig_entry(r, wasm), 100000);
    assert_int_equal(get(r).reason, WASMCACHE_REASON_CORRUPT);
    assert_int_equal(r->engine.wrong, 0);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_REMOVED], 1);
}

static void damage_through_a_descriptor_that_was_open_before_is_found(void **state)
{
    struct rig *r = *state;
    int fd;
    rig_open(r);
    assert_int_equal(get(r).outcome, WASMCACHE_COMPILED);
    assert_int_equal(chmod(rig_entry(r, wasm), 0600), 0);
    fd = open(rig_entry(r, wasm), O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(chmod(rig_entry(r, wasm), 0400), 0);
    assert_int_equal(get(r).digests, 1);
    assert_int_equal(get(r).digests, 0);
    assert_int_equal(pwrite(fd, "x", 1, 5000), 1);
    close(fd);
    assert_int_equal(get(r).reason, WASMCACHE_REASON_CORRUPT);
}

static void another_file_under_the_name_is_looked_at(void **state)
{
    struct rig *r = *state;
    uint8_t *bytes;
    size_t size;
    struct stat st;
    warm_up(r);
    bytes = scratch_read(rig_entry(r, wasm), &size);
    assert_int_equal(stat(rig_entry(r, wasm), &st), 0);
    bytes[1000] ^= 1;
    scratch_write(rig_entry(r, wasm), bytes, size, 0400); /* by rename */
    set_times(rig_entry(r, wasm), &st);
    free(bytes);
    assert_int_equal(get(r).reason, WASMCACHE_REASON_CORRUPT);
}

static void change_at_100000(void *argument)
{
    change_keeping_size_and_mtime(argument, 100000);
}

static void a_change_between_the_stamp_and_the_engine_is_found(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    warm_up(r);
    /* After the trailer was read and the stamp found. */
    seam_act_call("fd_path", 1, change_at_100000, rig_entry(r, wasm));
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    wasmcache_module_release(module);
    assert_int_equal(get(r).outcome, WASMCACHE_HIT);
}
static void young_files_are_read_every_time(void **state)
{
    struct rig *r = *state;
    struct stat st;
    wc_os_settles_forced = 1000000000;
    rig_open(r);
    assert_int_equal(get(r).outcome, WASMCACHE_COMPILED);
    assert_int_equal(stat(rig_entry(r, wasm), &st), 0);
    for (int64_t age = 0; age < 3; age++) {
        wc_os_wall_forced =
            (int64_t)st.st_ctim.tv_sec * 1000000000 + st.st_ctim.tv_nsec + age * 499999999;
        assert_int_equal(get(r).digests, 1);
        assert_int_equal(get(r).digests, 1);
    }
    wc_os_wall_forced += 2;
    assert_int_equal(get(r).digests, 1);
    assert_int_equal(get(r).digests, 0);
}

static void times_from_the_future_are_not_believed(void **state)
{
    struct rig *r = *state;
    struct stat st;
    rig_open(r);
    assert_int_equal(get(r).outcome, WASMCACHE_COMPILED);
    assert_int_equal(stat(rig_entry(r, wasm), &st), 0);
    wc_os_wall_forced = ((int64_t)st.st_ctim.tv_sec - 60) * 1000000000;
    for (int i = 0; i < 3; i++)
        assert_int_equal(get(r).digests, 1);
    /* Nor are stamps: the clock was right, and then set back. */
    wc_os_wall_forced = ((int64_t)st.st_ctim.tv_sec + 60) * 1000000000;
    assert_int_equal(get(r).digests, 1);
    assert_int_equal(get(r).digests, 0);
    wc_os_wall_forced -= INT64_C(61) * 1000000000;
    assert_int_equal(get(r).digests, 1);
}

static void where_times_say_nothing_files_are_read_every_time(void **state)
{
    struct rig *r = *state;
    const char *path = scratch_in(&r->scratch, "a.wasm");
    scratch_write(path, wasm, strlen(wasm), 0600);
    wc_os_settles_forced = 0; /* NFS, FUSE, 9p */
    rig_open(r);
    assert_int_equal(get_path(r, path, wasm).outcome, WASMCACHE_COMPILED);
    for (int i = 0; i < 3; i++) {
        struct work work = get_path(r, path, wasm);
        assert_int_equal(work.digests, 1);
        assert_int_equal(work.opens, 1);
    }
}

static void without_a_boot_id_files_are_read_every_time(void **state)
{
    struct rig *r = *state;
    seam_fail_call("boot_id", 1, ENOENT);
    rig_open(r);
    seam_off();
    assert_int_equal(get(r).outcome, WASMCACHE_COMPILED);
    for (int i = 0; i < 3; i++)
        assert_int_equal(get(r).digests, 1);
}

static void a_check_counts_for_a_week_or_as_long_as_was_asked(void **state)
{
    struct rig *r = *state;
    const int64_t now = ((int64_t)time(NULL) + 60) * 1000000000, week = INT64_C(604800);
    wc_os_wall_forced = now;
    warm_up(r);
    wc_os_wall_forced = now + (week - 1) * 1000000000;
    assert_int_equal(get(r).digests, 0);
    wc_os_wall_forced = now + week * 1000000000;
    assert_int_equal(get(r).digests, 1);
    assert_int_equal(get(r).digests, 0);
    rig_close(r);
    r->options.verify_seconds = 10;
    rig_open(r);
    assert_int_equal(get(r).digests, 0);
    wc_os_wall_forced += INT64_C(10) * 1000000000;
    assert_int_equal(get(r).digests, 1);
    assert_int_equal(get(r).digests, 0);
}

static void always_and_never_are_what_they_say(void **state)
{
    struct rig *r = *state;
    warm_up(r);
    rig_close(r);
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    rig_open(r);
    for (int i = 0; i < 3; i++)
        assert_int_equal(get(r).digests, 1);
    rig_close(r);
    r->options.verify = WASMCACHE_VERIFY_NEVER;
    rig_open(r);
    scratch_remove(scratch_in(&r->scratch, "cache/.hints-1-le"));
    scratch_remove(scratch_in(&r->scratch, "cache/.hints-1-be"));
    assert_int_equal(get(r).digests, 0);
    rig_close(r);
    r->options.verify = (wasmcache_verify)3;
    assert_int_equal(wasmcache_open(&r->cache, &r->options), WASMCACHE_EMISUSE);
}

static void sealed_needs_root_and_a_read_only_mount(void **state)
{
    struct rig *r = *state;
    rig_open(r);
    assert_int_equal(get(r).outcome, WASMCACHE_COMPILED);
    rig_close(r);
    r->options.flags = WASMCACHE_SEALED;
    assert_int_equal(wasmcache_open(&r->cache, &r->options), WASMCACHE_EMISUSE);
    r->options.flags |= WASMCACHE_READ_ONLY;
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    rig_open(r);
    assert_int_equal(get(r).digests, 1); /* this mount can be written */
}

static void a_read_only_cache_remembers_in_the_process_or_elsewhere(void **state)
{
    struct rig *r = *state;
    rig_open(r);
    assert_int_equal(get(r).outcome, WASMCACHE_COMPILED);
    rig_close(r);
    scratch_remove(scratch_in(&r->scratch, "cache/.hints-1-le"));
    scratch_remove(scratch_in(&r->scratch, "cache/.hints-1-be"));
    r->options.flags = WASMCACHE_READ_ONLY;
    rig_open(r);
    assert_int_equal(get(r).digests, 1);
    assert_int_equal(get(r).digests, 0);
    rig_reopen(r);
    assert_int_equal(get(r).digests, 1);
    assert_false(scratch_exists(scratch_in(&r->scratch, "cache/.hints-1-le")) ||
                 scratch_exists(scratch_in(&r->scratch, "cache/.hints-1-be")));
    rig_close(r);
    r->options.hints_dir = scratch_in(&r->scratch, "hints/here");
    rig_open(r);
    assert_int_equal(get(r).digests, 1);
    assert_int_equal(get(r).digests, 0);
    rig_reopen(r);
    assert_int_equal(get(r).digests, 0);
    assert_int_equal(scratch_mode(r->options.hints_dir), 0700);
    assert_true(scratch_exists(scratch_in(&r->scratch, "hints/here/.hints-1-le")) ||
                scratch_exists(scratch_in(&r->scratch, "hints/here/.hints-1-be")));
}

/* ---- sources ---- */

static void a_source_that_changed_is_hashed_again(void **state)
{
    struct rig *r = *state;
    const char *path = scratch_in(&r->scratch, "a.wasm");
    struct work work;
    struct stat st;
    int fd;
    scratch_write(path, wasm, strlen(wasm), 0600);
    rig_open(r);
    assert_int_equal(get_path(r, path, wasm).outcome, WASMCACHE_COMPILED);
    assert_int_equal(get_path(r, path, wasm).opens, 0);

    /* The same size and mtime. */
    assert_int_equal(stat(path, &st), 0);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "b", 1, 0), 1);
    set_times(path, &st);
    work = get_path(r, path, other);
    assert_int_equal(work.outcome, WASMCACHE_COMPILED);
    assert_int_equal(get_path(r, path, other).opens, 0);

    /* Through the descriptor that was open all the time. */
    assert_int_equal(pwrite(fd, "a", 1, 0), 1);
    close(fd);
    work = get_path(r, path, wasm);
    assert_int_equal(work.outcome, WASMCACHE_HIT);
    assert_int_equal(work.opens, 1);

    /* By rename. */
    scratch_write(path, other, strlen(other), 0600);
    set_times(path, &st);
    work = get_path(r, path, other);
    assert_int_equal(work.outcome, WASMCACHE_HIT);
    assert_int_equal(work.opens, 1);
    assert_int_equal(get_path(r, path, other).opens, 0);

    /* A link is what it leads to. */
    const char *link_path = scratch_in(&r->scratch, "link.wasm");
    const char *second = scratch_in(&r->scratch, "b.wasm");
    scratch_write(second, wasm, strlen(wasm), 0600);
    assert_int_equal(symlink(path, link_path), 0);
    assert_int_equal(get_path(r, link_path, other).outcome, WASMCACHE_HIT);
    assert_int_equal(unlink(link_path), 0);
    assert_int_equal(symlink(second, link_path), 0);
    assert_int_equal(get_path(r, link_path, wasm).outcome, WASMCACHE_HIT);
}

static void rewrite(void *argument)
{
    const char *path = argument;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, other, strlen(other), 0), strlen(other));
    close(fd);
}

/* At each call of a get from a path somebody rewrites the file: the module is that of what the file
 * held before or after, and nothing is filed under what was not compiled. */
static void a_source_that_changes_while_it_is_looked_up(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "a.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    unsigned points = 0;
    for (int known = 0; known < 3; known++)
        for (unsigned nth = 1;; nth++) {
            wasmcache_report report = WASMCACHE_REPORT_INIT;
            wasmcache_module *module = NULL;
            const char *got;
            int met;
            scratch_remove(r->dir);
            rig_open(r);
            scratch_write(path, wasm, strlen(wasm), 0600);
            if (known > 0)
                (void)get_path(r, path, wasm);
            if (known > 1)
                (void)get_path(r, path, wasm);
            seam_act(nth, rewrite, path);
            assert_int_equal(
                wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
            seam_off();
            met = seam_met();
            got = ((struct fake_module *)wasmcache_module_native(module))->wasm[0] == 'a' ? wasm
                                                                                          : other;
            assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                                       r->engine.configuration, got, strlen(got)));
            wasmcache_module_release(module);
            /* What is there now is what comes next, and what each key has is that key's. */
            if (met)
                (void)get_path(r, path, other);
            assert_int_equal(rig_get(r, wasm, NULL), 0);
            assert_int_equal(rig_get(r, other, NULL), 0);
            rig_close(r);
            points++;
            if (!met)
                break;
        }
    printf("%u points\n", points);
    assert_true(points > 30);
}

/* ---- probes ---- */

static void with_a_settings_string_the_probe_is_remembered(void **state)
{
    struct rig *r = *state;
    static const char *const strings[] = {NULL, "", "opt=2"};
    for (int i = 0; i < 3; i++) {
        unsigned first, second;
        scratch_remove(r->dir);
        r->attach.settings = strings[i];
        r->attach.code = (const void *)(uintptr_t)fake_engine_init;
        r->attach.code_symbol = "fake_engine_init";
        rig_open(r);
        fake_engine_reset(&r->engine);
        assert_int_equal(get(r).outcome, WASMCACHE_COMPILED);
        /* The directory was not there at the first use, and a save looks again. */
        rig_reopen(r);
        fake_engine_reset(&r->engine);
        assert_int_equal(get(r).outcome, WASMCACHE_HIT);
        first = r->engine.probes;
        rig_reopen(r);
        fake_engine_reset(&r->engine);
        assert_int_equal(get(r).outcome, WASMCACHE_HIT);
        second = r->engine.probes;
        printf("settings %s: %u, then %u probes\n", strings[i] ? strings[i] : "NULL", first,
               second);
        assert_int_equal(first, 1);
        assert_int_equal(second, i < 2);
        rig_close(r);
    }
}

/* A string that does not tell configurations apart is the embedder's fault; but what is compiled is
 * not filed under the wrong engine, and the next process knows better. */
static void what_is_remembered_wrongly_is_noticed_at_a_miss(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->attach.settings = "says too little";
    r->attach.code = (const void *)(uintptr_t)fake_engine_init;
    r->attach.code_symbol = "fake_engine_init";
    rig_open(r);
    assert_int_equal(get(r).outcome, WASMCACHE_COMPILED);
    rig_reopen(r);
    assert_int_equal(get(r).outcome, WASMCACHE_HIT);
    rig_close(r);
    r->engine.configuration++;
    rig_open(r);
    assert_int_equal(rig_get(r, other, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EMISMATCH);
    rig_reopen(r);
    assert_int_equal(rig_get(r, other, &report), 0);
    assert_int_equal(report.save_error, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_stamped_hit_reads_the_trailer_and_nothing_else),
        TEST(a_digest_needs_no_source_and_a_descriptor_no_hash),
        TEST(without_a_quick_way_in_a_hit_is_the_same),
        TEST(damage_of_the_same_size_and_mtime_is_found),
        TEST(damage_through_a_descriptor_that_was_open_before_is_found),
        TEST(another_file_under_the_name_is_looked_at),
        TEST(a_change_between_the_stamp_and_the_engine_is_found),
        TEST(young_files_are_read_every_time),
        TEST(times_from_the_future_are_not_believed),
        TEST(where_times_say_nothing_files_are_read_every_time),
        TEST(without_a_boot_id_files_are_read_every_time),
        TEST(a_check_counts_for_a_week_or_as_long_as_was_asked),
        TEST(always_and_never_are_what_they_say),
        TEST(sealed_needs_root_and_a_read_only_mount),
        TEST(a_read_only_cache_remembers_in_the_process_or_elsewhere),
        TEST(a_source_that_changed_is_hashed_again),
        TEST(a_source_that_changes_while_it_is_looked_up),
        TEST(with_a_settings_string_the_probe_is_remembered),
        TEST(what_is_remembered_wrongly_is_noticed_at_a_miss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
