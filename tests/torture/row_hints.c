/* SPDX-License-Identifier: Apache-2.0 */
/* Row 42: hints that are damaged under a running process. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/lab.h"
#include "torture/rows.h"

static const char wasm[] = "a module that was there before";

enum hurt { CUT, HALVED, NOISE, OTHER_VERSION, GONE, ANOTHERS, A_FOLDER, HURTS };
static const char *const hurt_names[] = {"cut to nothing",       "cut in half", "noise",
                                         "of another version",   "removed",     "another user's",
                                         "a folder in its place"};

static char *hints_path(struct rig *r)
{
    DIR *walk = opendir(r->dir);
    const struct dirent *entry;
    char *path = NULL;
    while (walk && !path && (entry = readdir(walk)) != NULL)
        if (strncmp(entry->d_name, ".hints", 6) == 0)
            path = scratch_text(&r->scratch, "%s/%s", r->dir, entry->d_name);
    if (walk)
        closedir(walk);
    return path;
}

static void do_harm(const char *path, enum hurt how, uint64_t *seed)
{
    uint8_t noise[4096];
    struct stat st;
    int fd;
    if (lstat(path, &st) < 0)
        return;
    switch (how) {
    case CUT:
        (void)!truncate(path, 0);
        return;
    case HALVED:
        (void)!truncate(path, st.st_size / 2 + 13);
        return;
    case NOISE:
    case OTHER_VERSION:
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            return;
        for (off_t offset = how == NOISE ? 0 : 8; offset < st.st_size; offset += 4096) {
            for (size_t i = 0; i < sizeof(noise); i++)
                noise[i] = (uint8_t)lab_dice(seed);
            (void)!pwrite(fd, noise, how == NOISE ? sizeof(noise) : 4, offset);
            if (how == OTHER_VERSION)
                break;
        }
        close(fd);
        return;
    case GONE:
        (void)unlink(path);
        return;
    case ANOTHERS:
        (void)!chown(path, SCRATCH_NOBODY, SCRATCH_NOBODY);
        return;
    case A_FOLDER:
        (void)unlink(path);
        (void)mkdir(path, 0700);
        return;
    case HURTS:
        return;
    }
}

void row_hints(struct row_run *run)
{
    struct tally *t = run->tally;
    const unsigned rounds = run->tier == TIER_QUICK ? 5 : 100;
    uint64_t seed = run->seed;
    for (int how = 0; how < HURTS; how++) {
        struct rig r;
        char *path;
        unsigned descriptors;
        rig_init(&r);
        rig_open(&r);
        assert_int_equal(rig_get(&r, wasm, NULL), 0);
        assert_int_equal(rig_get(&r, wasm, NULL), 0);
        path = hints_path(&r);
        if (!tally_check(t, 'X', path != NULL, "there are no hints to damage")) {
            lab_rig_end(t, &r);
            continue;
        }
        descriptors = scratch_descriptors();
        for (unsigned i = 0; i < rounds; i++) {
            wasmcache_report report = WASMCACHE_REPORT_INIT;
            char name[40];
            tally_about(t, "hints %s, round %u", hurt_names[how], i);
            t->runs++;
            do_harm(path, (enum hurt)how, &seed);
            tally_check(t, 'D', rig_get(&r, wasm, &report) == 0, "a get fails");
            tally_check(t, 'K', report.outcome == WASMCACHE_HIT, "the entry is no hit any more");
            snprintf(name, sizeof(name), "module %u", i);
            tally_check(t, 'D', rig_get(&r, name, NULL) == 0, "a new get fails");
            do_harm(path, (enum hurt)how, &seed);
            rig_reopen(&r); /* a new process has nothing in memory */
            tally_check(t, 'S', rig_get(&r, name, &report) == 0 && report.outcome == WASMCACHE_HIT,
                        "a new process does not find it");
        }
        tally_check(t, 'L', scratch_descriptors() <= descriptors, "descriptors leaked");
        scratch_remove(path);
        lab_rig_end(t, &r);
    }
}
