/* SPDX-License-Identifier: Apache-2.0 */
/* Rows 20 and 36: a directory that is pulled away, and one that is full of junk. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/lab.h"
#include "torture/rows.h"
#include "torture/times.h"

static const char wasm[] = "a module that was there before";

/* ---- row 20 ---- */

enum pull { REMOVED, MOVED, READ_ONLY, UNMOUNTED, FORBIDDEN, A_FILE, A_LINK_TO_NOTHING, PULLS };
static const char *const pull_names[] = {
    "removed", "moved away",          "mounted read-only",           "unmounted",
    "mode 0",  "a file in its place", "a dangling link in its place"};

struct place {
    struct rig *r;
    char *dir, *away;
};

static int pull(const struct place *p, enum pull how)
{
    switch (how) {
    case REMOVED:
        scratch_remove(p->dir);
        return 0;
    case MOVED:
    case A_FILE:
    case A_LINK_TO_NOTHING:
        if (rename(p->dir, p->away) < 0)
            return -1;
        if (how == A_FILE)
            scratch_write(p->dir, "no folder", 9, 0600);
        return how == A_LINK_TO_NOTHING ? symlink("/nowhere/at/all", p->dir) : 0;
    case READ_ONLY:
        return mount(p->dir, p->dir, NULL, MS_BIND, NULL) < 0
                   ? -1
                   : mount(NULL, p->dir, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
    case UNMOUNTED:
        return umount2(p->dir, MNT_DETACH);
    case FORBIDDEN:
        return chmod(p->dir, 0);
    case PULLS:
        break;
    }
    return -1;
}

static int put_back(const struct place *p, enum pull how)
{
    switch (how) {
    case REMOVED:
        return 0;
    case MOVED:
        scratch_remove(p->dir); /* what came there meanwhile */
        return rename(p->away, p->dir);
    case A_FILE:
    case A_LINK_TO_NOTHING:
        return unlink(p->dir) < 0 ? -1 : rename(p->away, p->dir);
    case READ_ONLY:
        return umount2(p->dir, 0);
    case UNMOUNTED:
        return mount(p->away, p->dir, NULL, MS_BIND, NULL);
    case FORBIDDEN:
        return chmod(p->dir, 0700);
    case PULLS:
        break;
    }
    return -1;
}

struct pulled {
    struct tally *t; /* in shared memory: the child may be another user */
    struct place place;
    enum pull how;
    unsigned rounds;
};

static int live_without(void *argument)
{
    struct pulled *p = argument;
    struct tally *t = p->t;
    struct rig *r = p->place.r;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    unsigned descriptors;
    int rc;
    rig_open(r);
    rc = rig_get(r, wasm, NULL);
    tally_check(t, 'D', rc == 0, "the first get fails: %d", rc);
    descriptors = scratch_descriptors();
    for (unsigned i = 0; i < p->rounds; i++) {
        const int stays = p->how != REMOVED;
        char other[40];
        tally_about(t, "%s, round %u", pull_names[p->how], i);
        t->runs++;
        if (pull(&p->place, p->how) < 0) {
            tally_check(t, 'X', 0, "it cannot be done: %s", strerror(errno));
            break;
        }
        snprintf(other, sizeof(other), "a new module, %u", i);
        rc = rig_get(r, wasm, &report);
        tally_check(t, 'D', rc == 0, "meanwhile a get fails: %d", rc);
        if (p->how == READ_ONLY)
            tally_check(t, 'X', report.outcome == WASMCACHE_HIT, "no hit from a read-only one");
        rc = rig_get(r, other, NULL);
        tally_check(t, 'D', rc == 0, "meanwhile a new get fails: %d", rc);
        if (put_back(&p->place, p->how) < 0) {
            tally_check(t, 'X', 0, "it cannot be put back: %s", strerror(errno));
            break;
        }
        /* One call may still be told what was; the next one may not. */
        rc = rig_get(r, other, NULL);
        tally_check(t, 'D', rc == 0, "after it is back a get fails: %d", rc);
        rc = rig_get(r, other, &report);
        tally_check(t, 'S', rc == 0 && report.outcome == WASMCACHE_HIT,
                    "after it is back a key cannot be used: %s",
                    wasmcache_outcome_name(report.outcome));
        rc = rig_get(r, wasm, &report);
        tally_check(t, 'K', rc == 0 && (report.outcome == WASMCACHE_HIT || !stays),
                    "the entry that was there is gone: %s", wasmcache_reason_name(report.reason));
    }
    tally_check(t, 'L', scratch_descriptors() == descriptors, "descriptors leaked");
    tally_check(t, 'T',
                wasmcache_clean(r->cache, NULL) == 0 &&
                    !strstr(scratch_tree(&r->scratch, p->place.dir), ".tmp-"),
                "something is left over");
    tally_check(t, 'W', !r->engine.wrong, "the engine was handed other bytes");
    rig_close(r);
    return 0;
}

void row_pulled(struct row_run *run)
{
    struct pulled *p = mmap(NULL, sizeof(*p) + sizeof(*p->t), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    if (geteuid() != 0) {
        tally_skip(run->tally, "mounts need root");
        return;
    }
    for (int how = 0; how < PULLS; how++) {
        struct rig r;
        int rc;
        rig_init(&r);
        p->t = (struct tally *)(p + 1);
        *p->t = *run->tally;
        p->place = (struct place){&r, r.dir, scratch_in(&r.scratch, "away")};
        p->how = (enum pull)how;
        p->rounds = run->tier == TIER_QUICK ? 3 : 100;
        if (how == UNMOUNTED) {
            assert_int_equal(mkdir(p->place.away, 0700) | mkdir(r.dir, 0700), 0);
            assert_int_equal(mount(p->place.away, r.dir, NULL, MS_BIND, NULL), 0);
        }
        assert_int_equal(chown(r.scratch.dir, how == FORBIDDEN ? SCRATCH_NOBODY : 0, 0), 0);
        rc = scratch_child(live_without, p, how == FORBIDDEN ? SCRATCH_NOBODY : 0, 60);
        *run->tally = *p->t;
        tally_about(run->tally, "%s", pull_names[how]);
        tally_check(run->tally, 'D', rc == 0, "the host ended with %d", rc);
        (void)umount2(r.dir, MNT_DETACH);
        rig_end(&r);
    }
    munmap(p, sizeof(*p) + sizeof(*p->t));
}

/* ---- row 36 ---- */

static uint64_t p99_of_hits(struct rig *r, unsigned count)
{
    uint64_t *times = calloc(count, sizeof(*times)), p99;
    assert_non_null(times);
    for (unsigned i = 0; i < count; i++) {
        const uint64_t start = times_now();
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        times[i] = times_now() - start;
    }
    times_sort(times, count);
    p99 = times[count * 99 / 100];
    free(times);
    return p99;
}

static int clean_alone(void *argument)
{
    struct rig *r = argument;
    struct rusage before, after;
    int rc;
    rig_open(r);
    getrusage(RUSAGE_SELF, &before);
    rc = wasmcache_clean(r->cache, NULL) || wasmcache_prune(r->cache, NULL, NULL);
    getrusage(RUSAGE_SELF, &after);
    rig_close(r);
    return rc ? 2 : after.ru_maxrss - before.ru_maxrss > 64 << 10;
}

void row_junk(struct row_run *run)
{
    struct tally *t = run->tally;
    const unsigned junk = run->tier == TIER_QUICK  ? 3000
                          : run->tier == TIER_FULL ? 100000
                                                   : 1000000;
    struct rig r;
    char path[4096];
    uint64_t before, after;
    uint64_t seed = run->seed;
    int fd, rc, at;
    rig_init(&r);
    rig_open(&r);
    assert_int_equal(rig_get(&r, wasm, NULL), 0);
    before = p99_of_hits(&r, 2000);
    for (unsigned i = 0; i < junk; i++) {
        static const char *const forms[] = {"%s/junk-%016llx", "%s/%016llX.bin", "%s/.tmp-%016llX",
                                            "%s/.old-%016llX"};
        char *ns = rig_namespace_dir(&r);
        snprintf(path, sizeof(path), forms[i % 4], ns,
                 (unsigned long long)(lab_dice(&seed) << 32 | lab_dice(&seed)));
        fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        if (fd >= 0)
            close(fd);
    }
    /* 200 folders in each other. */
    at = open(rig_namespace_dir(&r), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < 200 && at >= 0; i++) {
        int next = mkdirat(at, "deep", 0700) < 0
                       ? -1
                       : openat(at, "deep", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(at);
        at = next;
    }
    close(at);
    /* An entry that says it has a tebibyte. */
    snprintf(path, sizeof(path), "%s", rig_entry(&r, "a module of a tebibyte"));
    fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0400);
    assert_true(fd >= 0);
    if (ftruncate(fd, (off_t)1 << 40) < 0)
        assert_int_equal(ftruncate(fd, (off_t)1 << 35), 0);
    close(fd);
    t->runs++;
    rc = rig_load(&r, "a module of a tebibyte", NULL);
    tally_check(t, 'D', rc == WASMCACHE_ECORRUPT, "the sparse entry: %d", rc);
    after = p99_of_hits(&r, 2000);
    t->runs += 4000;
    rc = scratch_child(clean_alone, &r, 0, 300);
    tally_check(t, 'X', rc == 0,
                rc == 1 ? "the clean-up took more than 64 MiB" : "the clean-up: %d", rc);
    tally_check(t, 'K', rig_load(&r, wasm, NULL) == 0, "the good entry is gone");
    tally_check(t, 'T', !strstr(scratch_tree(&r.scratch, r.dir), ".tmp-"),
                "temporary files are left over");
    tally_note(t, "%u files of junk: the 99th percentile of a hit %.1f us, before %.1f us", junk,
               (double)after / 1e3, (double)before / 1e3);
    lab_rig_end(t, &r);
}
