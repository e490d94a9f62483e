/* SPDX-License-Identifier: Apache-2.0 */
/* Attacks that once worked, and ways in which the cache once hurt its host: each with the test that
 * failed before the repair. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache.h"
#include "fixture.h"
#include "seam.h"
#include "support/rig.h"

static const char wasm[] = "some wasm";
static const char other[] = "quite another wasm";

/* ---- /proc/self is the first thread ---- */

struct thread_case {
    struct rig *r;
    char decoy[512];
    int rc;
    wasmcache_report report;
};

/* Fills the descriptors of the first thread's table with another entry, so that every number that
 * this thread's own table will use is a wrong file there. */
static void *load_with_own_table(void *argument)
{
    struct thread_case *c = argument;
    struct wasmcache_report report = WASMCACHE_REPORT_INIT;
    c->rc = -100;
    if (unshare(CLONE_FILES) < 0)
        return NULL;
    for (int fd = 3; fd < 60; fd++)
        close(fd);
    c->rc = rig_get(c->r, wasm, &report);
    c->report = report;
    return NULL;
}

static void a_thread_with_its_own_descriptors_gets_its_own_entry(void **state)
{
    struct rig *r = *state;
    struct thread_case c = {.r = r, .rc = -1};
    pthread_t thread;
    int held[60], count = 0, fd;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, other, NULL), 0);
    while (count < 50 && (fd = open(rig_entry(r, other), O_RDONLY)) >= 0 && fd < 60)
        held[count++] = fd;
    assert_int_equal(pthread_create(&thread, NULL, load_with_own_table, &c), 0);
    pthread_join(thread, NULL);
    while (count)
        close(held[--count]);
    if (c.rc == -100)
        skip();
    /* rig_get and the fake engine fail the test if the other module came out. */
    assert_int_equal(c.rc, 0);
    assert_int_equal(c.report.outcome, WASMCACHE_HIT);
    assert_int_equal(r->engine.deserializes, 0); /* and it was the file, not the bytes */
}

/* ---- the caller's bytes change ---- */

static char changing[64];
static int (*real_compile)(void *, wasmcache_kind, const void *, size_t, void **, void **);

static int compile_and_change(void *engine, wasmcache_kind kind, const void *bytes, size_t length,
                              void **module, void **error)
{
    int rc = real_compile(engine, kind, bytes, length, module, error);
    memset(changing, 'x', length);
    return rc;
}

static void bytes_that_change_during_the_compile_are_not_filed(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_source source = wasmcache_source_bytes(changing, strlen(wasm));
    wasmcache_module *module = NULL;

    strcpy(changing, wasm);
    real_compile = r->engine.table.compile;
    r->engine.table.compile = compile_and_change;
    rig_open(r);
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
    wasmcache_module_release(module);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EBUSY);
    assert_string_equal(r->events.log, "miss,save-failed,");
    assert_false(scratch_exists(rig_entry(r, wasm)));
}

/* An engine whose artifacts end with bytes that the wasm's author chose. */
static wasmcache_artifact forged;

static int serialize_forged(void *engine, wasmcache_kind kind, void *module,
                            wasmcache_artifact *out, void **error)
{
    (void)engine;
    (void)kind;
    (void)module;
    (void)error;
    *out = forged;
    return 0;
}

static void free_nothing(wasmcache_artifact *artifact)
{
    (void)artifact;
}

static void what_looks_like_a_trailer_in_an_artifact_is_saved_with_it(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    uint8_t *entry;
    rig_open(r);
    assert_int_equal(rig_get(r, other, NULL), 0);
    entry = scratch_read(rig_entry(r, other), &forged.size);
    forged.data = entry;
    rig_close(r);
    r->engine.table.serialize = serialize_forged;
    r->engine.table.probe = NULL;
    r->engine.table.artifact_free = free_nothing;
    r->attach.settings = "";
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(report.artifact_bytes, forged.size);
    free(entry);
}

/* ---- the way to the cache ---- */

static int overlaps(struct rig *r, const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY), rc;
    assert_true(fd >= 0);
    rc = wasmcache_overlaps(r->cache, fd);
    close(fd);
    return rc;
}

static void a_link_on_the_way_gives_the_cache_to_who_can_change_it(void **state)
{
    struct rig *r = *state;
    char *home = scratch_in(&r->scratch, "home"), *disk = scratch_in(&r->scratch, "disk");
    char *beside = scratch_in(&r->scratch, "home/beside");

    assert_int_equal(mkdir(home, 0700) | mkdir(disk, 0700) | mkdir(beside, 0700), 0);
    assert_int_equal(symlink("../disk", scratch_in(&r->scratch, "home/.cache")), 0);
    r->options.dir = scratch_in(&r->scratch, "home/.cache/wasm/modules");
    rig_open(r);
    /* Not made yet: who can make it can fill it. */
    assert_int_equal(overlaps(r, home), 1);
    assert_int_equal(overlaps(r, disk), 1);
    assert_int_equal(overlaps(r, beside), 0);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(overlaps(r, home), 1);
    assert_int_equal(overlaps(r, disk), 1);
    assert_int_equal(overlaps(r, "/"), 1);
    assert_int_equal(overlaps(r, beside), 0);
    assert_int_equal(overlaps(r, "/usr"), 0);
}

static int judge_below_0711(void *argument)
{
    struct rig *r = argument;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(overlaps(r, scratch_in(&r->scratch, "shut/guest")), 0);
    assert_int_equal(overlaps(r, r->options.dir), 1);
    rig_close(r);
    return 0;
}

static void parents_that_cannot_be_listed_do_not_matter(void **state)
{
    struct rig *r = *state;
    char *shut = scratch_in(&r->scratch, "shut");
    const char *made[] = {"shut/mine", "shut/guest"};
    if (!scratch_is_root("directories of mode 0711 of somebody else")) {
        skip();
        return;
    }
    assert_int_equal(mkdir(shut, 0711), 0);
    for (size_t i = 0; i < 2; i++) {
        char *path = scratch_in(&r->scratch, "%s", made[i]);
        assert_int_equal(mkdir(path, 0700), 0);
        assert_int_equal(chown(path, SCRATCH_NOBODY, SCRATCH_NOBODY), 0);
    }
    assert_int_equal(chmod(shut, 0711), 0);
    r->options.dir = scratch_in(&r->scratch, "shut/mine/cache");
    assert_int_equal(scratch_child(judge_below_0711, r, SCRATCH_NOBODY, 20), 0);
}

static void a_cache_directory_that_is_a_file_is_in_nobodys_way(void **state)
{
    struct rig *r = *state;
    scratch_write(r->dir, "", 0, 0600);
    assert_int_equal(mkdir(scratch_in(&r->scratch, "guest"), 0700), 0);
    rig_open(r);
    assert_int_equal(overlaps(r, scratch_in(&r->scratch, "guest")), 0);
}

static int follow_anothers_link(void *argument)
{
    struct rig *r = argument;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.reason, WASMCACHE_REASON_CACHE_OFF);
    assert_int_equal(report.save_error, WASMCACHE_EUNTRUSTED);
    rig_close(r);
    return 0;
}

static void another_users_link_in_place_of_the_directory_is_refused(void **state)
{
    struct rig *r = *state;
    char *target = scratch_in(&r->scratch, "target");
    if (!scratch_is_root("links of other users")) {
        skip();
        return;
    }
    assert_int_equal(mkdir(target, 0700), 0);
    assert_int_equal(symlink(target, r->dir), 0);
    assert_int_equal(lchown(r->dir, SCRATCH_NOBODY, SCRATCH_NOBODY), 0);
    assert_int_equal(scratch_child(follow_anothers_link, r, 0, 20), 0);
    assert_string_equal(scratch_tree(&r->scratch, target), "");
    /* Our own is followed. */
    assert_int_equal(lchown(r->dir, 0, 0), 0);
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_true(scratch_exists(rig_entry(r, wasm)));
}

/* ---- the host lives ---- */

static void shorten(void *argument)
{
    struct rig *r = argument;
    char *entry = rig_entry(r, wasm);
    assert_int_equal(chmod(entry, 0600) | truncate(entry, 100), 0);
}

static void an_entry_that_is_cut_while_it_is_checked_is_a_miss(void **state)
{
    /* A small one is read, after its trailer; a large one is mapped; or read, where it cannot be.
     */
    static const struct {
        size_t size;
        const char *call;
        unsigned nth, lacking;
    } ways[] = {{100000, "pread", 2, 0},
                {9000000, "view", 1, 0},
                {9000000, "view", 3, 0},
                {9000000, "pread", 2, WC_OS_NO_VIEW},
                {9000000, "pread", 70, WC_OS_NO_VIEW}};
    struct rig *r = *state;
    for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        r->engine.artifact_size = ways[i].size;
        rig_open(r);
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        wc_os_lacking = ways[i].lacking;
        seam_act_call(ways[i].call, ways[i].nth, shorten, r);
        assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_ECORRUPT);
        seam_off();
        wc_os_lacking = 0;
        assert_true(seam_met());
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        assert_int_equal(rig_load(r, wasm, NULL), 0);
        unlink(rig_entry(r, wasm));
        rig_close(r);
    }
    rig_open(r);
}

static void a_page_that_cannot_be_read_is_a_miss_and_stays(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    ino_t before;
    r->engine.artifact_size = 500000;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    before = scratch_inode(rig_entry(r, wasm));
    wc_os_lacking = WC_OS_NO_VIEW; /* what is not to be mapped is read, and that says why not */
    for (unsigned nth = 1; nth <= 4; nth++) {
        seam_fail_call("pread", nth, EIO);
        assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EIO);
        seam_off();
        assert_int_equal(report.reason, WASMCACHE_REASON_UNREADABLE);
    }
    wc_os_lacking = 0;
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), before);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

static void flip_an_artifact_bit(void *argument)
{
    struct rig *r = argument;
    scratch_flip(rig_entry(r, wasm), 400);
}

/* On the file system of a server or of another process: no page of it is looked at twice. */
static void what_lies_elsewhere_is_read_once_and_not_mapped(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->engine.artifact_size = 3000000;
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    wc_os_settles_forced = 0;
    fake_engine_reset(&r->engine);
    seam_record();
    assert_int_equal(rig_get(r, wasm, &report), 0);
    seam_off();
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(r->engine.files, 0);
    assert_int_equal(r->engine.deserializes, 1);
    assert_true(seam_calls_of("pread") <= 3); /* the trailer, the artifact, when it was used */
    assert_int_equal(seam_calls_of("map") + seam_calls_of("view"), 0);
    assert_int_equal(rig_events_of(r, WASMCACHE_EVENT_FALLBACK), 1);
    /* Damage is found in what was read. */
    seam_act_call("pread", 2, flip_an_artifact_bit, r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    seam_off();
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    /* What cannot be read stays. */
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    seam_fail_call("pread", 2, EIO);
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EIO);
    seam_off();
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    /* Unless it is to be mapped there too. */
    rig_close(r);
    r->options.flags = WASMCACHE_MAP_REMOTE;
    rig_open(r);
    fake_engine_reset(&r->engine);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(r->engine.files, 1);
    wc_os_settles_forced = -1;
    assert_int_equal(r->engine.wrong, 0);
}

static void flip_and_date(void *argument)
{
    struct rig *r = argument;
    const struct timespec times[2] = {{1000, 0}, {1000, 0}};
    scratch_flip(rig_entry(r, wasm), 400);
    assert_int_equal(utimensat(AT_FDCWD, rig_entry(r, wasm), times, 0), 0);
}

static void what_changes_between_its_check_and_the_engine_is_checked_again(void **state)
{
    struct rig *r = *state;
    for (int bytes = 0; bytes <= 1; bytes++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        r->options.verify = WASMCACHE_VERIFY_ALWAYS;
        if (bytes)
            r->engine.table.deserialize_file = NULL;
        rig_open(r);
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        seam_act_call(bytes ? "map" : "fd_path", 1, flip_and_date, r);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        seam_off();
        assert_true(seam_met());
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
        assert_int_equal(r->engine.wrong, 0);
        rig_close(r);
    }
    rig_open(r);
}

/* A file system that gives less than it says it has: no proof of damage. */
static void bytes_that_do_not_come_are_a_miss_and_the_entry_stays(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    ino_t before;
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    before = scratch_inode(rig_entry(r, wasm));
    for (unsigned nth = 1; nth <= 2; nth++) {
        seam_fail_call("pread", nth, -10); /* ten bytes came */
        assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EIO);
        seam_off();
        assert_true(seam_met());
        assert_int_equal(report.reason, WASMCACHE_REASON_UNREADABLE);
    }
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), before);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

static void what_cannot_be_mapped_is_read(void **state)
{
    static const int errors[] = {EFAULT, ENOMEM, EACCES, ENODEV, EIO};
    struct rig *r = *state;
    r->engine.artifact_size = 9000000;
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    seam_record();
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    seam_off();
    if (!scratch_has_views()) {
        skip();
        return;
    }
    assert_int_equal(seam_calls_of("pread"), 1);
    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        seam_fail_call("view", 2, errors[i]);
        assert_int_equal(rig_load(r, wasm, NULL), 0);
        assert_true(seam_met());
        assert_int_equal(seam_calls_of("view"), 3);
        assert_int_equal(seam_calls_of("pread"),
                         1 + 35 + 5); /* trailer, the second 4 MiB, the rest */
        seam_off();
    }
}

static int open_under_a_limit(void *argument)
{
    struct rig *r = argument;
    const struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_FSIZE, &none) < 0)
        return 1;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    rig_close(r);
    return 0;
}

static void a_file_size_limit_of_nothing_ends_nobody(void **state)
{
    struct rig *r = *state;
    assert_int_equal(scratch_child(open_under_a_limit, r, 0, 20), 0);
}

/* ---- what is not ours ---- */

static void only_what_we_made_is_marked_as_a_cache(void **state)
{
    struct rig *r = *state;
    char *documents = scratch_in(&r->scratch, "Documents");
    char tag[1024];

    assert_int_equal(mkdir(documents, 0700), 0);
    r->options.dir = documents;
    rig_open(r);
    assert_string_equal(scratch_tree(&r->scratch, documents), "");
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    snprintf(tag, sizeof(tag), "%s/CACHEDIR.TAG", documents);
    assert_false(scratch_exists(tag));
}

static void a_shared_id_leaves_the_files_of_other_programs(void **state)
{
    struct rig *r = *state;
    static const char raw[] = "an artifact without a trailer";
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    ino_t before;

    r->attach.engine_id = "cranelift-opts-rkyv";
    rig_open(r);
    assert_int_equal(mkdir(r->dir, 0700) | mkdir(rig_namespace_dir(r), 0700), 0);
    scratch_write(rig_entry(r, wasm), raw, sizeof(raw), 0600);
    before = scratch_inode(rig_entry(r, wasm));
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_MISMATCHED);
    assert_int_equal(report.save_error, WASMCACHE_EMISMATCH);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), before);
    assert_string_equal(r->events.log, "miss,save-failed,");
}

static void a_set_group_id_directory_hands_the_bit_down(void **state)
{
    struct rig *r = *state;
    struct stat st;
    mode_t old;
    if (!scratch_is_root("another group")) {
        skip();
        return;
    }
    assert_int_equal(mkdir(r->dir, 0750), 0);
    assert_int_equal(chown(r->dir, 0, 1234), 0);
    assert_int_equal(chmod(r->dir, 02750), 0);
    r->options.share = WASMCACHE_SHARE_GROUP;
    rig_open(r);
    old = umask(077);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    umask(old);
    assert_int_equal(scratch_mode(rig_namespace_dir(r)), 02750);
    assert_int_equal(scratch_mode(rig_entry(r, wasm)), 0440);
    assert_int_equal(stat(rig_entry(r, wasm), &st), 0);
    assert_int_equal(st.st_gid, 1234);
}

static void remove_damaged_takes_only_what_is_damaged(void **state)
{
    struct rig *r = *state;
    wasmcache_key key = rig_key(wasm), missing = rig_key("never saved");
    const char *ns;

    rig_open(r);
    ns = rig_namespace(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(wasmcache_remove_damaged(r->cache, ns, &key), WASMCACHE_EMISS);
    assert_int_equal(wasmcache_remove_damaged(r->cache, ns, &missing), WASMCACHE_EMISS);
    assert_int_equal(wasmcache_remove_damaged(NULL, ns, &key), WASMCACHE_EOFF);
    assert_int_equal(wasmcache_remove_damaged(r->cache, "../x-v1", &key), WASMCACHE_EMISUSE);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    scratch_flip(rig_entry(r, wasm), 3);
    assert_int_equal(wasmcache_remove_damaged(r->cache, ns, &key), 0);
    assert_false(scratch_exists(rig_entry(r, wasm)));
}

static void publish_good(void *argument)
{
    struct rig *rival = argument;
    assert_int_equal(rig_save(rival, wasm, NULL), 0);
}

static void a_good_entry_survives_remove_damaged_at_each_step(void **state)
{
    struct rig *r = *state;
    struct rig rival;
    wasmcache_key key = rig_key(wasm);

    rig_open(r);
    rig_init(&rival);
    rival.options.dir = r->dir;
    rig_open(&rival);
    for (unsigned nth = 1;; nth++) {
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        scratch_flip(rig_entry(r, wasm), 3);
        seam_act(nth, publish_good, &rival);
        (void)wasmcache_remove_damaged(r->cache, rig_namespace(r), &key);
        seam_off();
        if (!seam_met())
            break;
        assert_int_equal(rig_load(r, wasm, NULL), 0);
    }
    assert_true(seam_calls() > 8);
    rig_end(&rival);
}

/* ---- keys that were stuck ---- */

static int recompile_over_what_is_shut(void *argument)
{
    struct rig *r = argument;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(chmod(rig_entry(r, wasm), 0), 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.reason, WASMCACHE_REASON_UNREADABLE);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    rig_close(r);
    return 0;
}

static void recompile_replaces_what_cannot_be_read(void **state)
{
    struct rig *r = *state;
    if (!scratch_is_root("files that may not be read")) {
        skip();
        return;
    }
    assert_int_equal(mkdir(r->dir, 0700), 0);
    assert_int_equal(chown(r->dir, SCRATCH_NOBODY, SCRATCH_NOBODY), 0);
    assert_int_equal(scratch_child(recompile_over_what_is_shut, r, SCRATCH_NOBODY, 20), 0);
}

static void an_unnamed_file_that_gets_no_name_is_written_again_with_one(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wc_os_lacking = WC_OS_NO_LINK;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_string_equal(scratch_tree(&r->scratch, rig_namespace_dir(r)),
                        strrchr(scratch_text(&r->scratch, "%s\n", rig_entry(r, wasm)), '/') + 1);
}

static void take_directory_away(void *argument)
{
    struct rig *r = argument;
    scratch_remove(r->dir);
}

static void a_directory_that_goes_away_in_a_save_is_made_anew(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    unsigned taken = 0;
    rig_open(r);
    for (unsigned nth = 1;; nth++) {
        scratch_remove(r->dir);
        seam_act(nth, take_directory_away, r);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        seam_off();
        if (!seam_met())
            break;
        taken++;
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.save_error, 0);
        assert_int_equal(rig_load(r, wasm, NULL), 0);
    }
    assert_true(taken > 15);
}

static void a_durable_save_that_finds_an_entry_makes_it_durable(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    rig_close(r);
    r->options.flags = WASMCACHE_DURABLE;
    rig_open(r);
    seam_record();
    assert_int_equal(rig_save(r, wasm, &report), 0);
    seam_off();
    assert_non_null(strstr(seam_log(), "sync_data,sync_dir,"));
    assert_null(strstr(seam_log(), "write,"));
}

static void a_folder_that_a_durable_save_makes_is_durable_too(void **state)
{
    struct rig *r = *state;
    const char *log, *made;
    r->options.flags = WASMCACHE_DURABLE;
    rig_open(r);
    seam_record();
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    seam_off();
    log = seam_log();
    made = strstr(log, "mkdir_at,open_dir_at,fstat,sync_dir,");
    assert_non_null(made);
}

/* ---- what cannot be a module ---- */

static void a_huge_file_is_refused_before_it_is_read(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "huge.wasm");
    wasmcache_source source = wasmcache_source_path(path);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    wasmcache_key key;
    scratch_write(path, "", 0, 0644);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0);
    rig_open(r);
    seam_record();
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
                     WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->system_errno, EFBIG);
    assert_non_null(strstr(wasmcache_last_error()->message, "1099511627776 bytes"));
    assert_int_equal(report.reason, WASMCACHE_REASON_SOURCE);
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path), WASMCACHE_EIO);
    seam_off();
    assert_null(strstr(seam_log(), "pread"));
    assert_int_equal(r->engine.compiles, 0);
}

/* ---- what the host is told ---- */

static void a_read_only_file_system_is_called_that(void **state)
{
    struct rig *r = *state;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    seam_fail_call("access", 1, EROFS);
    assert_int_equal(wasmcache_status(r->cache, &info), 0);
    assert_int_equal(info.state, WASMCACHE_STATE_READ_ONLY);
    assert_int_equal(info.system_errno, EROFS);
    assert_non_null(strstr(info.message, "Read-only file system"));
    seam_fail_call("access", 1, EROFS);
    assert_int_equal(rig_get(r, other, &report), 0);
    seam_off();
    assert_int_equal(report.save_error, WASMCACHE_EIO);
    assert_int_equal(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].system_errno, EROFS);
    assert_int_equal(r->engine.serializes, 1); /* of the first get */
}

static void off_is_told_once_whatever_else_fails(void **state)
{
    struct rig *r = *state;
    scratch_write(r->dir, "a file", 6, 0600);
    r->engine.fail_serialize = 1;
    rig_open(r);
    for (int i = 0; i < 3; i++)
        assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_OFF], 1);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_ON], 0);
}

static void nothing_is_serialized_for_a_directory_that_cannot_be_written(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    scratch_write(r->dir, "a file", 6, 0600);
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_true(report.save_error < 0);
    assert_int_equal(r->engine.serializes, 0);
}

/* The path is longer than what messages hold: a save works, and what it tells is cut. */
static void a_save_that_works_leaves_the_last_error_alone(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key;
    char *dir = scratch_in(&r->scratch, "cache");
    for (int i = 0; i < 6; i++)
        dir = scratch_text(&r->scratch, "%s/%0200d", dir, i);
    r->options.dir = dir;
    rig_open(r);
    assert_int_equal(wasmcache_key_from_hex(&key, "none"), WASMCACHE_EMISUSE);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_non_null(strstr(wasmcache_last_error()->message, "hex digits"));
    assert_string_equal(r->events.log, "miss,saved,hit,");
    assert_int_equal(strncmp(r->events.last[WASMCACHE_EVENT_SAVED].path, dir, 500), 0);
}

static void events_name_the_entry(void **state)
{
    struct rig *r = *state;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_string_equal(r->events.last[WASMCACHE_EVENT_SAVED].path, rig_entry(r, wasm));
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_string_equal(r->events.last[WASMCACHE_EVENT_HIT].path, rig_entry(r, wasm));
    scratch_flip(rig_entry(r, wasm), 5);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_ECORRUPT);
    assert_string_equal(wasmcache_last_error()->path, rig_entry(r, wasm));
    assert_string_equal(r->events.last[WASMCACHE_EVENT_MISS].path, rig_entry(r, wasm));
    assert_string_equal(r->events.last[WASMCACHE_EVENT_REMOVED].path, rig_entry(r, wasm));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_thread_with_its_own_descriptors_gets_its_own_entry),
        TEST(bytes_that_change_during_the_compile_are_not_filed),
        TEST(what_looks_like_a_trailer_in_an_artifact_is_saved_with_it),
        TEST(a_link_on_the_way_gives_the_cache_to_who_can_change_it),
        TEST(parents_that_cannot_be_listed_do_not_matter),
        TEST(a_cache_directory_that_is_a_file_is_in_nobodys_way),
        TEST(another_users_link_in_place_of_the_directory_is_refused),
        TEST(an_entry_that_is_cut_while_it_is_checked_is_a_miss),
        TEST(a_page_that_cannot_be_read_is_a_miss_and_stays),
        TEST(what_lies_elsewhere_is_read_once_and_not_mapped),
        TEST(what_changes_between_its_check_and_the_engine_is_checked_again),
        TEST(bytes_that_do_not_come_are_a_miss_and_the_entry_stays),
        TEST(what_cannot_be_mapped_is_read),
        TEST(a_file_size_limit_of_nothing_ends_nobody),
        TEST(only_what_we_made_is_marked_as_a_cache),
        TEST(a_shared_id_leaves_the_files_of_other_programs),
        TEST(a_set_group_id_directory_hands_the_bit_down),
        TEST(remove_damaged_takes_only_what_is_damaged),
        TEST(a_good_entry_survives_remove_damaged_at_each_step),
        TEST(recompile_replaces_what_cannot_be_read),
        TEST(an_unnamed_file_that_gets_no_name_is_written_again_with_one),
        TEST(a_directory_that_goes_away_in_a_save_is_made_anew),
        TEST(a_durable_save_that_finds_an_entry_makes_it_durable),
        TEST(a_folder_that_a_durable_save_makes_is_durable_too),
        TEST(a_huge_file_is_refused_before_it_is_read),
        TEST(a_read_only_file_system_is_called_that),
        TEST(off_is_told_once_whatever_else_fails),
        TEST(nothing_is_serialized_for_a_directory_that_cannot_be_written),
        TEST(a_save_that_works_leaves_the_last_error_alone),
        TEST(events_name_the_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
