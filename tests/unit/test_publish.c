/* SPDX-License-Identifier: Apache-2.0 */
/* Saves: the first wins, bad ones are replaced, and whatever fails leaves nothing behind. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "entry.h"
#include "fixture.h"
#include "seam.h"
#include "spoil.h"
#include "support/rig.h"

static const char wasm[] = "a module";
static const char other[] = "another module";

static const char *tree(struct rig *r)
{
    return scratch_tree(&r->scratch, r->dir);
}

static int nothing_left(struct rig *r)
{
    return !strstr(tree(r), "/.");
}

/* ---- who wins ---- */

static void the_first_one_stays(void **state)
{
    struct rig *r = *state;
    for (int durable = 0; durable <= 1; durable++) {
        rig_close(r);
        r->options.flags = durable ? WASMCACHE_DURABLE : 0;
        rig_open(r);
        for (unsigned v = 0; v < seam_variant_count; v++) {
            struct stat first, second;
            wc_os_lacking = seam_variants[v].lacking;
            unlink(rig_entry(r, wasm));
            rig_forget_events(r);
            assert_int_equal(rig_save(r, wasm, NULL), 0);
            assert_int_equal(lstat(rig_entry(r, wasm), &first), 0);
            assert_int_equal(first.st_nlink, 1);
            seam_record();
            assert_int_equal(rig_save(r, wasm, NULL), 0);
            seam_off();
            assert_int_equal(lstat(rig_entry(r, wasm), &second), 0);
            assert_int_equal(first.st_ino, second.st_ino);
            assert_int_equal(first.st_mtim.tv_nsec, second.st_mtim.tv_nsec);
            assert_int_equal(first.st_ctim.tv_nsec, second.st_ctim.tv_nsec);
            assert_null(strstr(seam_log(), "write"));
            assert_string_equal(r->events.log, "saved,kept,");
            assert_true(nothing_left(r));
        }
    }
}

static void bad_ones_are_replaced_without_being_followed(void **state)
{
    struct rig *r = *state;
    char *path = rig_entry(r, wasm), *target = scratch_text(&r->scratch, "%s.target", path);
    unsigned open_before = scratch_descriptors();

    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        for (enum spoil how = 0; how < SPOIL_COUNT; how++) {
            struct stat st;
            assert_int_equal(rig_save(r, wasm, NULL), 0);
            spoil(path, how);
            rig_forget_events(r);
            if (rig_save(r, wasm, NULL) != 0)
                fail_msg("%s (%s): %s", spoil_name(how), seam_variants[v].name,
                         wasmcache_last_error()->message);
            assert_string_equal(r->events.log, "saved,");
            assert_int_equal(lstat(path, &st), 0);
            assert_int_equal(st.st_mode, S_IFREG | 0400);
            assert_int_equal(rig_load(r, wasm, NULL), 0);
            if (how == SPOIL_SYMLINK) {
                assert_int_equal(scratch_mode(target), 0400);
                assert_int_equal(unlink(target), 0);
            }
            assert_true(nothing_left(r));
        }
    }
    assert_int_equal(scratch_descriptors(), open_before);
}

static void what_must_stay_stays(void **state)
{
    struct rig *r = *state;
    char *path = rig_entry(r, wasm);
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    for (unsigned v = 0; v < seam_variant_count; v++) {
        ino_t inode;
        wc_os_lacking = seam_variants[v].lacking;
        assert_int_equal(rig_save(r, wasm, NULL), 0);
        spoil(path, SPOIL_NEWER);
        inode = scratch_inode(path);
        assert_int_equal(rig_save(r, wasm, NULL), WASMCACHE_ENEWER);
        assert_int_equal(scratch_inode(path), inode);
        spoil(path, SPOIL_DIRECTORY);
        inode = scratch_inode(path);
        assert_int_equal(rig_save(r, wasm, NULL), WASMCACHE_EUNTRUSTED);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason, WASMCACHE_REASON_UNTRUSTED);
        assert_int_equal(report.save_error, WASMCACHE_EUNTRUSTED);
        assert_non_null(strstr(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].message, "directory"));
        assert_int_equal(scratch_inode(path), inode);
        assert_true(nothing_left(r));
        assert_int_equal(rmdir(path), 0);
    }
}

/* ---- two at a time ---- */

struct rival {
    struct rig *r;
    struct fake_engine engine;
    wasmcache *cache;
    wasmcache_attachment *wc;
    char *held;
    enum spoil plant;
};

static void rival_open(struct rival *rival, struct rig *r)
{
    rival->r = r;
    fake_engine_init(&rival->engine, 1);
    assert_int_equal(wasmcache_open(&rival->cache, &r->options), 0);
    assert_int_equal(wasmcache_attach(&rival->wc, rival->cache, &rival->engine.table,
                                      &rival->engine, &r->attach),
                     0);
    rival->held = scratch_in(&r->scratch, "held");
}

static void rival_close(struct rival *rival)
{
    wasmcache_detach(rival->wc);
    wasmcache_close(rival->cache);
    fake_engine_end(&rival->engine);
}

static void rival_saves(void *argument)
{
    struct rival *rival = argument;
    wasmcache_key key = rig_key(wasm);
    void *native = fake_module_new(&rival->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    assert_int_equal(wasmcache_save(rival->wc, WASMCACHE_MODULE, &key, native, NULL, NULL), 0);
    rival->engine.table.module_free(WASMCACHE_MODULE, native);
    unlink(rival->held);
    assert_int_equal(link(rig_entry(rival->r, wasm), rival->held), 0);
}

static void of_two_savers_the_first_wins_at_any_step(void **state)
{
    struct rig *r = *state;
    struct rival rival;
    unsigned runs = 0;

    rival_open(&rival, r);
    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        for (unsigned nth = 1;; nth++) {
            unlink(rig_entry(r, wasm));
            rig_forget_events(r);
            seam_act(nth, rival_saves, &rival);
            assert_int_equal(rig_save(r, wasm, NULL), 0);
            seam_off();
            if (!seam_met())
                break;
            runs++;
            /* What the rival saw published is still there. */
            if (scratch_inode(rig_entry(r, wasm)) != scratch_inode(rival.held) ||
                rig_load(r, wasm, NULL) != 0 || !nothing_left(r)) {
                /* Without an exclusive name the later of two good ones can win. */
                if (!(wc_os_lacking & WC_OS_NO_LINK) || !(wc_os_lacking & WC_OS_NO_NOREPLACE) ||
                    rig_load(r, wasm, NULL) != 0 || !nothing_left(r))
                    fail_msg("(%s) saved by the other before call %u of %s", seam_variants[v].name,
                             nth, seam_log());
            }
        }
    }
    rival_close(&rival);
    printf("two savers, at %u steps: the first won\n", runs);
}

static void somebody_replaces_at_any_step(void **state)
{
    struct rig *r = *state;
    struct rival rival;
    unsigned runs = 0;

    rival_open(&rival, r);
    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        for (unsigned nth = 1;; nth++) {
            assert_int_equal(rig_save(r, wasm, NULL), 0);
            seam_act(nth, rival_saves, &rival);
            assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, NULL), 0);
            seam_off();
            if (!seam_met())
                break;
            runs++;
            assert_int_equal(rig_load(r, wasm, NULL), 0);
            assert_true(nothing_left(r));
        }
    }
    rival_close(&rival);
    printf("a saver during a replacement, at %u steps: a good entry is there\n", runs);
}

static void plant_bad(void *argument)
{
    struct rival *rival = argument;
    size_t size;
    uint8_t *bytes = scratch_read(rival->held, &size);
    scratch_write(rig_entry(rival->r, wasm), bytes, size, 0400);
    free(bytes);
}

static void who_never_gets_a_turn_gives_up(void **state)
{
    struct rig *r = *state;
    struct rival rival;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    static const char *const name_calls[] = {"link_unnamed", "link", "rename_noreplace"};
    static const unsigned lacking[] = {0, WC_OS_NO_TMPFILE, WC_OS_NO_TMPFILE | WC_OS_NO_LINK};

    rival_open(&rival, r);
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    spoil(rig_entry(r, wasm), SPOIL_ARTIFACT);
    assert_int_equal(rename(rig_entry(r, wasm), rival.held), 0);
    for (size_t i = 0; i < 3; i++) {
        wc_os_lacking = lacking[i];
        unlink(rig_entry(r, wasm));
        seam_act_each(name_calls[i], plant_bad, &rival);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        seam_off();
        assert_int_equal(report.save_error, WASMCACHE_EBUSY);
        assert_true(nothing_left(r));
    }
    rival_close(&rival);
}

/* ---- temporary files ---- */

static void clean(void *argument)
{
    struct rival *rival = argument;
    assert_int_equal(wasmcache_clean(rival->cache, NULL), 0);
}

static void a_living_writers_file_survives_a_clean_up(void **state)
{
    struct rig *r = *state;
    struct rival rival;
    unsigned runs = 0;

    rival_open(&rival, r);
    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        for (unsigned nth = 1;; nth++) {
            unlink(rig_entry(r, wasm));
            seam_act(nth, clean, &rival);
            if (rig_save(r, wasm, NULL) != 0)
                fail_msg("(%s) cleaned before call %u of %s: %s", seam_variants[v].name, nth,
                         seam_log(), wasmcache_last_error()->message);
            seam_off();
            if (!seam_met())
                break;
            runs++;
            assert_int_equal(rig_load(r, wasm, NULL), 0);
            assert_true(nothing_left(r));
        }
    }
    rival_close(&rival);
    printf("a clean-up at each of %u steps of a save: 0 saves lost\n", runs);
}

struct victim {
    struct rig *r;
    unsigned exit_at;
};

static int save_and_be_killed(void *argument)
{
    const struct victim *v = argument;
    seam_exit(v->exit_at);
    rig_save(v->r, wasm, NULL);
    return 1;
}

static void a_dead_writers_file_goes(void **state)
{
    struct rig *r = *state;
    static const enum spoil starts[] = {SPOIL_COUNT, SPOIL_ARTIFACT};
    unsigned runs = 0, named = 0;

    for (unsigned v = 0; v < seam_variant_count; v++) {
        for (size_t s = 0; s < 2; s++) {
            for (unsigned nth = 1;; nth++) {
                struct victim victim = {r, nth};
                uint64_t removed = 0;
                int status, left;
                wc_os_lacking = seam_variants[v].lacking;
                if (starts[s] == SPOIL_COUNT) {
                    unlink(rig_entry(r, wasm));
                } else {
                    assert_int_equal(rig_save(r, wasm, NULL), 0);
                    spoil(rig_entry(r, wasm), starts[s]);
                }
                status = scratch_child(save_and_be_killed, &victim, 0, 20);
                if (status == 1)
                    break;
                assert_int_equal(status, 0);
                runs++;
                left = !nothing_left(r);
                named += (unsigned)left;
                /* The next save works at once, whatever is left. */
                assert_int_equal(rig_save(r, wasm, NULL), 0);
                assert_int_equal(rig_load(r, wasm, NULL), 0);
                assert_int_equal(wasmcache_clean(r->cache, &removed), 0);
                assert_true(nothing_left(r));
                assert_true(left || !removed);
                assert_int_equal(rig_load(r, wasm, NULL), 0);
            }
        }
    }
    assert_true(named > 0);
    printf("killed at each of %u steps of a save: %u left a file, 0 after a clean-up\n", runs,
           named);
}

/* ---- no room ---- */

/* A cache with one entry on a file system of that size, then a second entry of 200,000 bytes. */
struct room {
    const char *options;
    int fits; /* 1: it must, 0: it must not, -1: either */
    unsigned lacking;
};

static int save_where_there_is_little_room(void *argument)
{
    const struct room *room = argument;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct rig r;
    int kept;

    wc_os_lacking = room->lacking;
    assert_int_equal(unshare(CLONE_NEWNS), 0);
    assert_int_equal(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    rig_init(&r);
    assert_int_equal(mkdir(r.dir, 0700), 0);
    assert_int_equal(mount("tmpfs", r.dir, "tmpfs", 0, room->options), 0);
    rig_open(&r);
    assert_int_equal(rig_get(&r, other, &report), 0);
    kept = report.save_error == 0;
    assert_true(kept || report.save_error == WASMCACHE_EFULL);
    r.engine.artifact_size = 200000;
    assert_int_equal(rig_get(&r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    if (report.save_error && report.save_error != WASMCACHE_EFULL)
        fail_msg("%s: %s", room->options, wasmcache_error_name(report.save_error));
    if (room->fits >= 0)
        assert_int_equal(report.save_error == 0, room->fits);
    assert_int_equal(rig_load(&r, wasm, NULL), report.save_error ? WASMCACHE_EMISS : 0);
    /* Nothing made way for it, and nothing is left of it. */
    assert_int_equal(rig_load(&r, other, NULL), kept ? 0 : WASMCACHE_EMISS);
    assert_true(nothing_left(&r));
    /* With more room it works at once. */
    assert_int_equal(mount("tmpfs", r.dir, "tmpfs", MS_REMOUNT, "size=4m,nr_inodes=100"), 0);
    assert_int_equal(rig_get(&r, wasm, &report), 0);
    assert_int_equal(rig_load(&r, wasm, NULL), 0);
    rig_close(&r);
    assert_int_equal(umount(r.dir), 0);
    rig_end(&r);
    return report.save_error ? 2 : 0;
}

static void a_full_file_system_costs_nothing_but_the_save(void **state)
{
    static const unsigned lacking[] = {0, WC_OS_NO_TMPFILE, WC_OS_NO_TMPFILE | WC_OS_NO_LINK,
                                       WC_OS_NO_RESERVE};
    unsigned runs = 0;
    (void)state;
    if (!scratch_is_root("file systems without room")) {
        skip();
        return;
    }
    for (size_t l = 0; l < sizeof(lacking) / sizeof(*lacking); l++) {
        char options[64];
        struct room room = {options, 0, lacking[l]};
        for (int kib = 4; kib <= 292; kib += 24) {
            snprintf(options, sizeof(options), "size=%dk,mode=700", kib);
            room.fits = kib >= 4 + 4 + 4 + 204 ? 1 : kib < 200 ? 0 : -1;
            assert_int_equal(scratch_child(save_where_there_is_little_room, &room, 0, 20), 0);
            runs++;
        }
        for (int inodes = 1; inodes <= 8; inodes++) {
            snprintf(options, sizeof(options), "size=4m,nr_inodes=%d,mode=700", inodes);
            room.fits = -1;
            assert_int_equal(scratch_child(save_where_there_is_little_room, &room, 0, 20), 0);
            runs++;
        }
    }
    printf("file systems with little room or few inodes: %u\n", runs);
}

static void where_there_is_no_room_nothing_is_written(void **state)
{
    static const int errors[] = {ENOSPC, EDQUOT};
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        assert_int_equal(rig_get(r, other, NULL), 0); /* the directory is there */
        seam_fail_call("reserve", 1, errors[i]);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        seam_off();
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, WASMCACHE_EFULL);
        assert_int_equal(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].system_errno, errors[i]);
        assert_int_equal(seam_calls_of("reserve"), 1);
        assert_int_equal(seam_calls_of("write"), 0);
        assert_true(nothing_left(r));
        assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_EMISS);
    }
    seam_record();
    assert_int_equal(rig_get(r, wasm, &report), 0);
    seam_off();
    assert_int_equal(report.save_error, 0);
    assert_int_equal(seam_calls_of("reserve"), 1);
}

/* ---- limits of the process ---- */

struct limits {
    struct rig *r;
    rlim_t limit;
    int fits;
};

static int save_with_a_file_size_limit(void *argument)
{
    const struct limits *l = argument;
    const struct rlimit limit = {l->limit, l->limit};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct rig *r = l->r;

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, l->fits ? 0 : WASMCACHE_EFULL);
    if (!l->fits) {
        assert_int_equal(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].system_errno, EFBIG);
        assert_non_null(
            strstr(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].message, "RLIMIT_FSIZE"));
    }
    return 0;
}

static void a_file_size_limit_is_no_signal(void **state)
{
    struct rig *r = *state;
    size_t size;
    struct limits l = {r, 0, 0};
    unsigned runs = 0;

    free(fake_artifact(&size, &r->engine, WASMCACHE_MODULE, wasm, strlen(wasm)));
    for (unsigned v = 0; v < seam_variant_count; v++) {
        const rlim_t limits[] = {0, 1, 100, size, size + 400, size + 423, size + 424, size + 9999};
        wc_os_lacking = seam_variants[v].lacking;
        for (size_t i = 0; i < sizeof(limits) / sizeof(*limits); i++) {
            int status;
            l.limit = limits[i];
            l.fits = limits[i] >= size + 8 + WC_TRAILER_SIZE;
            status = scratch_child(save_with_a_file_size_limit, &l, 0, 20);
            if (status)
                fail_msg("a limit of %lu: %d", (unsigned long)l.limit, status);
            assert_true(nothing_left(r));
            assert_int_equal(scratch_exists(rig_entry(r, wasm)), l.fits);
            unlink(rig_entry(r, wasm));
            runs++;
        }
    }
    printf("file size limits: %u, no signal\n", runs);
}

static int open_with_a_file_size_limit(void *argument)
{
    const struct limits *l = argument;
    const struct rlimit limit = {l->limit, l->limit};
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    rig_open(l->r);
    assert_int_equal(rig_get(l->r, wasm, &report), 0);
    assert_int_equal(report.save_error, WASMCACHE_EFULL);
    rig_close(l->r);
    return 0;
}

static void not_even_when_the_directory_is_made(void **state)
{
    struct rig *r = *state;
    struct limits l = {r, 0, 0};
    for (l.limit = 0; l.limit <= 100; l.limit += 50) {
        rig_close(r);
        scratch_remove(r->dir);
        assert_int_equal(scratch_child(open_with_a_file_size_limit, &l, 0, 20), 0);
    }
}

static int use_with_few_descriptors(void *argument)
{
    struct limits *l = argument;
    const struct rlimit limit = {l->limit, l->limit};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    int hit, saved;

    /* What the process itself needs is below the limit: the lowest free number. */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(rig_get(l->r, wasm, &report), 0);
    hit = report.outcome == WASMCACHE_HIT;
    assert_int_equal(rig_get(l->r, other, &report), 0);
    saved = report.save_error == 0;
    (void)wasmcache_clean(l->r->cache, NULL);
    return hit + 2 * saved;
}

static void few_descriptors_cost_time_only(void **state)
{
    struct rig *r = *state;
    struct limits l = {r, 0, 0};
    int free_fd, seen = 0;

    assert_int_equal(rig_get(r, wasm, NULL), 0);
    free_fd = dup(0);
    close(free_fd);
    for (int more = 0; more <= 8; more++) {
        int status;
        l.limit = (rlim_t)(free_fd + more);
        status = scratch_child(use_with_few_descriptors, &l, 0, 20);
        assert_in_range(status, 0, 3);
        seen |= 1 << status;
        /* K = 0, and nothing is left over. */
        assert_int_equal(rig_load(r, wasm, NULL), 0);
        assert_true(nothing_left(r));
        unlink(rig_entry(r, other));
    }
    assert_true(seen & 1 << 0); /* no descriptor at all */
    assert_true(seen & 1 << 3); /* enough */
}

/* ---- what durable means ---- */

static unsigned count(const char *log, const char *call)
{
    unsigned n = 0;
    for (; (log = strstr(log, call)) != NULL; log++)
        n++;
    return n;
}

static void durable_syncs_the_folders_that_it_made_too(void **state)
{
    struct rig *r = *state;
    rig_close(r);
    scratch_remove(r->dir);
    r->options.flags = WASMCACHE_DURABLE;
    rig_open(r);
    seam_record();
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    seam_off();
    /* The entry's name is in the namespace, and the namespace's in the cache directory. */
    assert_true(count(seam_log(), "sync_dir,") >= 2);
}

static void durable_syncs_the_entry_that_was_there(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    rig_close(r);
    r->options.flags = WASMCACHE_DURABLE;
    rig_open(r);
    seam_record();
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    seam_off();
    assert_int_equal(count(seam_log(), "sync_data,"), 1);
    assert_int_equal(count(seam_log(), "sync_dir,"), 1);
}

/* A file system that tells of a write error at close, such as NFS. */
static void what_a_close_complains_of_is_not_published(void **state)
{
    struct rig *r = *state;
    for (int named = 0; named <= 1; named++) {
        wc_os_lacking = named ? WC_OS_NO_TMPFILE : 0;
        seam_fail_call("flush", 1, ENOSPC);
        assert_int_equal(rig_save(r, wasm, NULL), WASMCACHE_EFULL);
        seam_off();
        assert_true(seam_met());
        assert_string_equal(wasmcache_last_error()->call, "close");
        assert_false(scratch_exists(rig_entry(r, wasm)));
        assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".tmp-"));
    }
    wc_os_lacking = 0;
}

static void a_sound_entry_is_replaced_by_one_that_is_on_the_disk(void **state)
{
    struct rig *r = *state;
    const char *log, *synced, *renamed, *held;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    ino_t before;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    seam_record();
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, NULL), 0);
    seam_off();
    log = seam_log();
    synced = strstr(log, "sync_data,");
    held = synced ? strstr(synced, "open_identity,") : NULL;
    renamed = held ? strstr(held, ",rename,") : NULL;
    assert_non_null(renamed);
    assert_non_null(strstr(renamed, "sync_dir,"));
    /* If it does not get there, the old one stays. */
    before = scratch_inode(rig_entry(r, wasm));
    seam_fail_call("sync_data", 1, EIO);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, &report), 0);
    seam_off();
    assert_int_equal(report.save_error, WASMCACHE_EIO);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), before);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    /* A first save is not worth that. */
    assert_int_equal(unlink(rig_entry(r, wasm)), 0);
    seam_record();
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    seam_off();
    assert_null(strstr(seam_log(), "sync_data,"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)
    const struct CMUnitTest tests[] = {
        TEST(the_first_one_stays),
        TEST(bad_ones_are_replaced_without_being_followed),
        TEST(what_must_stay_stays),
        TEST(of_two_savers_the_first_wins_at_any_step),
        TEST(somebody_replaces_at_any_step),
        TEST(who_never_gets_a_turn_gives_up),
        TEST(a_living_writers_file_survives_a_clean_up),
        TEST(a_dead_writers_file_goes),
        TEST(a_full_file_system_costs_nothing_but_the_save),
        TEST(where_there_is_no_room_nothing_is_written),
        TEST(a_file_size_limit_is_no_signal),
        TEST(not_even_when_the_directory_is_made),
        TEST(few_descriptors_cost_time_only),
        TEST(durable_syncs_the_folders_that_it_made_too),
        TEST(durable_syncs_the_entry_that_was_there),
        TEST(what_a_close_complains_of_is_not_published),
        TEST(a_sound_entry_is_replaced_by_one_that_is_on_the_disk),
    };
    return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}
