/* SPDX-License-Identifier: Apache-2.0 */
/* Row 26: a disk or a server does not give a page, or not all of a read, or fails to sync. */
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

#include "torture/badfs.h"
#include "torture/lab.h"
#include "torture/rows.h"

static void one(struct lab *lab, struct badfs *fs, const struct lab_act *act, int page, int error)
{
    struct trace_end end;
    lab_prepare(lab, act);
    atomic_store(&fs->orders->error, error);
    atomic_store(&fs->orders->fail_page, page);
    lab_run(lab, &end, 20);
    atomic_store(&fs->orders->fail_page, -1);
    lab_check(lab, &end, LAB_PLAIN);
}

void row_bad_pages(struct row_run *run)
{
    static const char *const acts[] = {"hit", "load", "save over a good entry", "verify"};
    static const int errors[] = {EIO, ESTALE};
    struct tally *t = run->tally;
    struct scratch behind;
    struct badfs fs;
    struct lab lab;
    struct stat st;
    const char *why;
    const int step = run->tier == TIER_QUICK ? 41 : 1;
    int pages, met;
    scratch_init(&behind);
    why = badfs_init(&fs, behind.dir);
    if (why) {
        tally_skip(t, "%s", why);
        badfs_end(&fs);
        scratch_end(&behind);
        return;
    }
    setenv("TMPDIR", fs.dir, 1);
    lab_init(&lab, t, 0, 1000000);
    lab.begin = lab.finish = NULL;
    assert_int_equal(stat(lab.entry, &st), 0);
    pages = (int)((st.st_size + 4095) / 4096);
    for (size_t a = 0; a < sizeof(acts) / sizeof(*acts); a++)
        for (size_t e = 0; e < 2; e++) {
            atomic_store(&fs.orders->met, 0);
            for (int page = 0; page < pages; page += page + step >= pages - 1 ? 1 : step) {
                tally_about(t, "%s, page %d of %d does not come", acts[a], page, pages);
                one(&lab, &fs, lab_act_of(acts[a]), page, errors[e]);
            }
            met = atomic_load(&fs.orders->met);
            tally_check(t, 'X', met > 0, "%s: no read failed", acts[a]);
        }
    /* Reads that give less than was asked for. */
    for (unsigned a = 0; a < lab_act_count; a++) {
        struct trace_end end;
        if (lab_acts[a].start == LAB_NO_FOLDERS)
            continue;
        tally_about(t, "%s, reads of at most 777 bytes", lab_acts[a].name);
        lab_prepare(&lab, &lab_acts[a]);
        atomic_store(&fs.orders->short_reads, 777);
        lab_run(&lab, &end, 20);
        atomic_store(&fs.orders->short_reads, 0);
        lab_check(&lab, &end, LAB_PLAIN);
    }
    /* What was written and is told to have failed when it is synced. */
    lab.flags = WASMCACHE_DURABLE;
    for (int round = 0; round < (run->tier == TIER_QUICK ? 5 : 100); round++) {
        struct trace_end end;
        tally_about(t, "a sync fails, round %d", round);
        lab_prepare(&lab, lab_act_of("save"));
        atomic_store(&fs.orders->met, 0);
        atomic_store(&fs.orders->error, EIO);
        atomic_store(&fs.orders->fail_syncs, 1);
        lab_run(&lab, &end, 20);
        atomic_store(&fs.orders->fail_syncs, 0);
        tally_check(t, 'X', atomic_load(&fs.orders->met) == 1, "no sync failed");
        tally_check(t, 'A', !lab_acknowledged(&lab), "acknowledged, and its sync failed");
        tally_check(t, 'X', !scratch_exists(lab.entry), "published, and its sync failed");
        lab_check(&lab, &end, LAB_PLAIN);
    }
    lab_end(&lab);
    badfs_end(&fs);
    scratch_end(&behind);
    tally_note(t, "each of %d pages", pages);
}
