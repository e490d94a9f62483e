/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Row 11: the power is cut, and the disk had not written in order what it was not told to flush.
 * Work is done on a disk whose writes are recorded; then images of what it could have been are made
 * of the record, each is mounted, and the cache in it must be sound.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/blocklog.h"
#include "torture/disk.h"
#include "torture/lab.h"
#include "torture/rows.h"

static const struct kind {
    const char *fs, *options, *name;
    unsigned size_mib;
} kinds[] = {
    {"ext4", "data=ordered", "ext4, ordered", 64},
    {"ext4", "data=writeback", "ext4, writeback", 64},
    {"xfs", "", "XFS", 320},
    {"btrfs", "", "btrfs", 128},
};

enum { MODULES = 12, SAMPLES = 256, RUN_MAX = 4096 };

/* What was acknowledged, and how much of the record there was then. */
struct done {
    unsigned durable[MODULES]; /* position in the record, 0: never */
};

struct bench {
    const struct kind *kind;
    struct blocklog log;
    struct disk disk;
    struct rig r;
    struct done done;
    unsigned long images, torn;
};

static void open_as(struct bench *b, unsigned flags)
{
    b->r.options.flags = flags;
    rig_open(&b->r);
}

/* Saves of both kinds, replacements, removals, and the system's own writing back between them. */
static void work(struct bench *b)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char wasm[40];
    for (unsigned m = 0; m < MODULES; m++) {
        const int durable = m % 2;
        lab_module_name(wasm, m);
        open_as(b, durable ? WASMCACHE_DURABLE : 0);
        if (rig_get(&b->r, wasm, &report) == 0 && report.save_error == 0 && durable)
            b->done.durable[m] = blocklog_count(&b->log);
        if (m % 3 == 2) {
            lab_module_name(wasm, m - 1);
            (void)rig_get_with(&b->r, wasm, WASMCACHE_GET_RECOMPILE, NULL);
        }
        if (m % 6 == 5) {
            lab_module_name(wasm, m - 2); /* durable, and now once more */
            if (rig_get_with(&b->r, wasm, WASMCACHE_GET_RECOMPILE, &report) == 0 &&
                report.save_error == 0 && !b->done.durable[m - 2])
                b->done.durable[m - 2] = blocklog_count(&b->log);
        }
        if (m % 4 == 3) {
            wasmcache_key key;
            lab_module_name(wasm, m - 3); /* one of the cached ones */
            key = rig_key(wasm);
            (void)wasmcache_remove(b->r.cache, rig_namespace(&b->r), &key);
        }
        rig_close(&b->r);
        if (m % 4 == 1)
            disk_sync(&b->disk);
    }
}

/* One image: until number `until` everything, then what `keep` says. */
static void check_image(struct row_run *run, struct bench *b, unsigned until,
                        const unsigned char *keep, unsigned count)
{
    struct tally *t = run->tally;
    struct disk disk;
    struct rig *r = &b->r;
    unsigned stuck = 0;
    uint64_t removed;
    char wasm[40];
    int rc, image = blocklog_image(&b->log, until, keep, count);
    const char *why = disk_init(&disk, b->kind->fs, 0, image);
    (void)rmdir(disk.dir);
    snprintf(disk.dir, sizeof(disk.dir), "%s", b->disk.dir);
    t->runs++;
    b->images++;
    tally_about(t, "%s, %u writes and some of %u", b->kind->name, until, count);
    if (why || (rc = disk_mount(&disk, b->kind->options)) != 0) {
        tally_check(t, 'X', 0, "the image is not mounted: %s", why ? why : strerror(rc));
        disk.dir[0] = '\0';
        disk_end(&disk);
        return;
    }
    open_as(b, 0);
    for (unsigned m = 0; m < MODULES; m++) {
        int loads;
        lab_module_name(wasm, m);
        rc = rig_load(r, wasm, NULL);
        loads = rc == 0;
        b->torn += rc == WASMCACHE_ECORRUPT;
        if (b->done.durable[m] && b->done.durable[m] <= until) {
            tally_check(t, 'A', loads, "%s, acknowledged at %u, is lost: %s", wasm,
                        b->done.durable[m], wasmcache_last_error()->message);
        }
    }
    rc = wasmcache_clean(r->cache, &removed);
    tally_check(t, 'T', rc == 0 && !strstr(scratch_tree(&r->scratch, r->dir), ".tmp-"),
                "the clean-up returned %d", rc);
    for (unsigned m = 0; m < MODULES; m++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        lab_module_name(wasm, m);
        if (rig_get(r, wasm, NULL) != 0 || rig_get(r, wasm, &report) != 0 ||
            report.outcome != WASMCACHE_HIT)
            stuck++;
    }
    tally_check(t, 'S', stuck == 0, "%u keys cannot be used", stuck);
    tally_check(t, 'W', !r->engine.wrong, "the engine was handed other bytes");
    rig_close(r);
    rc = disk_unmount(&disk);
    tally_check(t, 'X', rc == 0, "it is not unmounted: %s", strerror(rc));
    disk.dir[0] = '\0';
    disk_end(&disk);
}

/* Some of the `count` writes that follow number `until`: all subsets if they are few. */
static void check_run(struct row_run *run, struct bench *b, unsigned until, unsigned count,
                      unsigned samples)
{
    unsigned char keep[RUN_MAX / 8];
    unsigned seed = run->seed + until;
    if (count > RUN_MAX)
        count = RUN_MAX;
    if (count <= 8 && 1u << count <= samples) {
        for (unsigned subset = 0; subset < 1u << count; subset++) {
            keep[0] = (unsigned char)subset;
            check_image(run, b, until, keep, count);
        }
        return;
    }
    for (unsigned s = 0; s < samples; s++) {
        if (s % 2) { /* a prefix, in order */
            const unsigned length = (unsigned)((uint64_t)count * s / samples);
            memset(keep, 0, sizeof(keep));
            for (unsigned i = 0; i < length; i++)
                keep[i / 8] |= (unsigned char)(1u << i % 8);
        } else {
            for (unsigned i = 0; i < (count + 7) / 8; i++)
                keep[i] = (unsigned char)((seed = seed * 1103515245u + 12345u) >> 16);
        }
        check_image(run, b, until, keep, count);
    }
}

static const char *begin(struct bench *b)
{
    const char *why = blocklog_init(&b->log, (uint64_t)b->kind->size_mib << 20);
    int fd;
    if (why)
        return why;
    fd = open(b->log.path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return "its disk cannot be opened";
    why = disk_init(&b->disk, b->kind->fs, 0, fd);
    if (!why)
        why = disk_format(&b->disk);
    if (!why && disk_mount(&b->disk, b->kind->options) != 0)
        why = "it cannot be mounted";
    return why;
}

static void of_kind(struct row_run *run, const struct kind *kind, unsigned images)
{
    struct bench b;
    unsigned runs = 0, from = 0;
    const char *why;
    memset(&b, 0, sizeof(b));
    b.kind = kind;
    b.disk.loop = b.disk.image = -1;
    why = begin(&b);
    if (why) {
        tally_skip(run->tally, "%s: %s", kind->name, why);
        disk_end(&b.disk);
        blocklog_end(&b.log);
        return;
    }
    setenv("TMPDIR", b.disk.dir, 1);
    rig_init(&b.r);
    b.r.engine.artifact_size = 20000;
    disk_sync(&b.disk);
    blocklog_start(&b.log);
    work(&b);
    disk_sync(&b.disk);
    disk_unmount(&b.disk);
    for (unsigned i = 0; i < blocklog_count(&b.log); i++)
        runs += (unsigned)blocklog_is_flush(&b.log, i);
    tally_check(run->tally, 'X', runs > 4, "%s: only %u flushes were seen", kind->name, runs);
    for (unsigned i = 0; i <= blocklog_count(&b.log); i++)
        if (i == blocklog_count(&b.log) || blocklog_is_flush(&b.log, i)) {
            check_run(run, &b, from, i - from, images / (runs + 1) + 1);
            from = i;
        }
    /* What the scratch directory holds is gone with the disk. */
    b.r.engine.wrong = 0;
    b.r.scratch.dir[0] = '\0';
    fake_engine_end(&b.r.engine);
    printf("# %s: %u writes, %u flushes, %lu images, %lu entries were torn and refused\n",
           kind->name, blocklog_count(&b.log), runs, b.images, b.torn);
    disk_end(&b.disk);
    blocklog_end(&b.log);
}

void row_reorder(struct row_run *run)
{
    const unsigned images = run->tier == TIER_QUICK ? 12 : run->tier == TIER_FULL ? 1100 : 20000;
    for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
        of_kind(run, &kinds[k], images);
    tally_note(run->tally, "%lu images", run->tally->runs);
    if (run->tally->runs)
        run->tally->skipped[0] = '\0'; /* of some file systems */
}
