/* SPDX-License-Identifier: Apache-2.0 */
/* Row 10: the power is cut at each system call, and at random times. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/disk.h"
#include "torture/lab.h"
#include "torture/rows.h"
#include "torture/times.h"

static const char *const kinds[] = {"ext4", "xfs"};
static const enum disk_cut cuts[] = {DISK_FLUSH_LOG, DISK_NO_FLUSH};
enum { DISK_SIZE = 320 << 20 }; /* the least that XFS is made of */

/* ---- at each call ---- */

struct cut {
    const struct disk *disk;
    enum disk_cut how;
    unsigned nth;
    int met;
};

static void at_call(struct trace_call *call, void *payload)
{
    struct cut *c = payload;
    if (call->at_exit || call->nth != c->nth)
        return;
    c->met = disk_cut(c->disk, c->how) == 0;
    trace_kill(call);
}

static const char *const power_acts[] = {"save",
                                         "save, durable",
                                         "get that compiles, durable",
                                         "get that replaces",
                                         "save over a damaged entry",
                                         "clean",
                                         "remove",
                                         "counters"};

static void cut_at_each_call(struct row_run *run, const char *fs, enum disk_cut how)
{
    struct disk disk;
    struct lab lab;
    const unsigned step = run->tier == TIER_QUICK ? 9 : 1;
    const char *why = disk_init(&disk, fs, DISK_SIZE, -1);
    if (!why && disk_mount(&disk, "") != 0)
        why = "it cannot be mounted";
    if (why) {
        disk_end(&disk);
        tally_skip(run->tally, "%s: %s", fs, why);
        return;
    }
    setenv("TMPDIR", disk.dir, 1);
    lab_init(&lab, run->tally, 0, 20000);
    lab.power = 1;
    for (size_t i = 0; i < sizeof(power_acts) / sizeof(*power_acts); i++) {
        const struct lab_act *act = lab_act_of(power_acts[i]);
        struct cut c = {&disk, how, 1 + (run->seed + (unsigned)i) % step, 0};
        if (run->tier == TIER_QUICK && i % 2 != run->seed % 2)
            continue;
        for (;; c.nth += step) {
            struct trace_end end;
            int rc;
            lab_prepare(&lab, act);
            disk_sync(&disk);
            c.met = 0;
            trace(&end, lab_child, &lab, at_call, &c, 20);
            if (!c.met)
                break;
            tally_about(run->tally, "%s, %s, power cut at call %u%s", fs, act->name, c.nth,
                        how == DISK_FLUSH_LOG ? ", with its log" : "");
            rc = disk_remount(&disk, "");
            if (!tally_check(run->tally, 'X', rc == 0, "it is not mounted again: %s", strerror(rc)))
                break;
            lab_check(&lab, &end, LAB_KILLED);
        }
    }
    lab_end(&lab);
    disk_end(&disk);
}

/* ---- at random times ---- */

enum { WRITERS = 4, MODULES = 64 };

struct board {
    atomic_llong acknowledged[MODULES]; /* when it was first, 0: it was not */
    atomic_uint wrong;
};

static void note_time(atomic_llong *first)
{
    long long never = 0;
    (void)atomic_compare_exchange_strong(first, &never, (long long)times_now());
}

/* Saves, replaces and loads until it is killed. */
static _Noreturn void write_on(struct rig *r, struct board *board, unsigned seed)
{
    rig_open(r);
    for (;;) {
        char wasm[40];
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
        wasmcache_source source;
        const unsigned number = (seed = seed * 1103515245u + 12345u) >> 16;
        lab_module_name(wasm, number % MODULES);
        source = wasmcache_source_bytes(wasm, strlen(wasm));
        if (number % 5 == 0)
            options.flags = WASMCACHE_GET_RECOMPILE;
        if (wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, &report) == 0 &&
            report.outcome == WASMCACHE_COMPILED && report.save_error == 0)
            note_time(&board->acknowledged[number % MODULES]);
        wasmcache_module_release(module);
        atomic_fetch_or(&board->wrong, r->engine.wrong);
    }
}

static void cut_at_random(struct row_run *run, const char *fs, int durable, unsigned trials,
                          unsigned long *acknowledged)
{
    struct tally *t = run->tally;
    struct disk disk;
    struct rig r;
    struct board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned seed = run->seed;
    const char *why = disk_init(&disk, fs, DISK_SIZE, -1);
    if (!why && disk_mount(&disk, "") != 0)
        why = "it cannot be mounted";
    if (why || board == MAP_FAILED) {
        disk_end(&disk);
        tally_skip(t, "%s: %s", fs, why ? why : "no memory");
        return;
    }
    setenv("TMPDIR", disk.dir, 1);
    rig_init(&r);
    r.engine.artifact_size = 30000;
    if (durable)
        r.options.flags = WASMCACHE_DURABLE;
    disk_sync(&disk);
    for (unsigned i = 0; i < trials; i++) {
        const enum disk_cut how = cuts[i % 2];
        struct timespec moment = {0, 0};
        pid_t writers[WRITERS];
        unsigned long of = 0;
        unsigned stuck = 0;
        long long cut_at;
        char wasm[40];
        uint64_t removed;
        int rc;
        memset(board, 0, sizeof(*board));
        scratch_remove(r.dir);
        disk_sync(&disk);
        for (unsigned w = 0; w < WRITERS; w++) {
            writers[w] = fork();
            if (writers[w] == 0)
                write_on(&r, board, seed + w * 77);
        }
        seed = seed * 1103515245u + 12345u;
        moment.tv_nsec = 1000000 + (long)(seed >> 16) % 1000 * 40000;
        nanosleep(&moment, NULL);
        cut_at = (long long)times_now(); /* what is acknowledged while it is cut is not before */
        rc = disk_cut(&disk, how);
        tally_check(t, 'X', rc == 0, "the power cannot be cut: %s", strerror(rc));
        for (unsigned w = 0; w < WRITERS; w++)
            kill(writers[w], SIGKILL);
        for (unsigned w = 0; w < WRITERS; w++)
            waitpid(writers[w], NULL, 0);
        t->runs++;
        tally_about(t, "%s, %s, cut %u", fs, durable ? "durable" : "cached", i);
        rc = disk_remount(&disk, "");
        if (!tally_check(t, 'X', rc == 0, "it is not mounted again: %s", strerror(rc)))
            break;
        rig_open(&r);
        if (durable)
            for (unsigned m = 0; m < MODULES; m++)
                if (board->acknowledged[m] && board->acknowledged[m] < cut_at) {
                    lab_module_name(wasm, m);
                    of++;
                    tally_check(t, 'A', rig_load(&r, wasm, NULL) == 0,
                                "%s, which was acknowledged, is lost: %s", wasm,
                                wasmcache_last_error()->message);
                }
        *acknowledged += of;
        rc = wasmcache_clean(r.cache, &removed);
        tally_check(t, 'T', rc == 0 && !strstr(scratch_tree(&r.scratch, r.dir), ".tmp-"),
                    "the clean-up returned %d", rc);
        for (unsigned m = 0; m < MODULES; m += 7) {
            wasmcache_report report = WASMCACHE_REPORT_INIT;
            lab_module_name(wasm, m);
            if (rig_get(&r, wasm, NULL) != 0 || rig_get(&r, wasm, &report) != 0 ||
                report.outcome != WASMCACHE_HIT)
                stuck++;
        }
        tally_check(t, 'S', stuck == 0, "%u keys cannot be used", stuck);
        tally_check(t, 'W', !r.engine.wrong && !board->wrong, "the engine was handed other bytes");
        rig_close(&r);
    }
    r.engine.wrong = 0;
    rig_end(&r);
    disk_end(&disk);
    munmap(board, sizeof(*board));
}

void row_power(struct row_run *run)
{
    unsigned long acknowledged = 0;
    const unsigned trials = run->tier == TIER_QUICK ? 5 : 250;
    if (trace_missing()) {
        tally_skip(run->tally, "%s", trace_missing());
        return;
    }
    for (size_t k = 0; k < 2 && !run->tally->skipped[0]; k++) {
        for (size_t c = 0; c < 2 && !run->tally->skipped[0]; c++)
            if (run->tier != TIER_QUICK || c == k)
                cut_at_each_call(run, kinds[k], cuts[c]);
        if (!run->tally->skipped[0])
            cut_at_random(run, kinds[k], 1, trials, &acknowledged);
        if (!run->tally->skipped[0])
            cut_at_random(run, kinds[k], 0, trials, &acknowledged);
    }
    tally_note(run->tally, "%lu durable saves acknowledged before a cut", acknowledged);
}
