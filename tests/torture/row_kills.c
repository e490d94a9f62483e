/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Row 4, the other half: eight writers of one directory are killed at random times. What they left
 * goes with the next clean-up, what they saved is there, and each of their keys can be saved again
 * at once, while others are still writing.
 */
#define _GNU_SOURCE
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
#include <unistd.h>

#include <cmocka.h>

#include "torture/lab.h"
#include "torture/rows.h"
#include "torture/times.h"

enum { WRITERS = 8, MODULES = 12, ARTIFACT = 60000, LONGEST_US = 6000 };

/* What the writers tell, in shared memory. */
struct board {
    atomic_uint ready;         /* writers that write */
    atomic_int saved[MODULES]; /* 1: a save of it was acknowledged */
    atomic_int key[WRITERS];   /* 1 + the module that it is about to get, 0: none yet */
    atomic_uint wrong, failed; /* bytes handed to the engine; gets without a module */
    atomic_ulong gets;
};

/* Gets, and replaces, until it is killed. */
static _Noreturn void write_on(struct rig *r, struct board *board, unsigned writer, unsigned seed)
{
    rig_open(r);
    atomic_fetch_add(&board->ready, 1);
    for (;;) {
        const unsigned dice = (seed = seed * 1103515245u + 12345u) >> 16, m = dice % MODULES;
        wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        wasmcache_source source;
        char wasm[40];
        lab_module_name(wasm, m);
        source = wasmcache_source_bytes(wasm, strlen(wasm));
        if (dice % 3)
            options.flags = WASMCACHE_GET_RECOMPILE;
        atomic_store(&board->key[writer], 1 + (int)m);
        if (wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, &report) != 0)
            atomic_fetch_add(&board->failed, 1);
        else if (report.outcome == WASMCACHE_HIT || report.save_error == 0)
            atomic_store(&board->saved[m], 1);
        wasmcache_module_release(module);
        atomic_fetch_or(&board->wrong, r->engine.wrong);
        atomic_fetch_add(&board->gets, 1);
    }
}

/* The key of the dead, while the others go on. */
static void check_key(struct row_run *run, struct rig *r, int key)
{
    struct tally *t = run->tally;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char wasm[40];
    int rc;
    if (!key)
        return;
    lab_module_name(wasm, (unsigned)key - 1);
    rc = rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, &report);
    tally_check(t, 'S', rc == 0 && report.save_error == 0,
                "the key of the dead cannot be saved: %d, %d", rc, report.save_error);
}

/* All are dead. */
static void check_all(struct row_run *run, struct rig *r, struct board *board)
{
    struct tally *t = run->tally;
    const char *tree;
    rig_reopen(r);
    tally_check(t, 'T',
                wasmcache_clean(r->cache, NULL) == 0 &&
                    !strstr(tree = scratch_tree(&r->scratch, r->dir), ".tmp-") &&
                    !strstr(tree, ".old-"),
                "something is left over");
    for (unsigned m = 0; m < MODULES; m++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        char wasm[40];
        int rc;
        lab_module_name(wasm, m);
        if (atomic_load(&board->saved[m]))
            tally_check(t, 'A', rig_load(r, wasm, NULL) == 0, "what was saved is not there");
        rc = rig_get(r, wasm, &report);
        tally_check(t, 'S', rc == 0 && report.save_error == 0, "a get gave %d, saving %d", rc,
                    report.save_error);
        atomic_store(&board->saved[m], 1);
    }
    tally_check(t, 'W', !r->engine.wrong && !board->wrong, "the engine was handed other bytes");
}

static void one_round(struct row_run *run, struct rig *r, struct board *board, unsigned *seed)
{
    pid_t pids[WRITERS];
    int status;
    atomic_store(&board->ready, 0);
    fflush(NULL);
    for (unsigned w = 0; w < WRITERS; w++) {
        const unsigned own = *seed += 7919;
        atomic_store(&board->key[w], 0);
        if ((pids[w] = fork()) == 0) {
            struct rig mine = *r; /* its cache is not open yet in what it copies */
            mine.cache = NULL;
            mine.wc = NULL;
            write_on(&mine, board, w, own);
        }
    }
    while (atomic_load(&board->ready) < WRITERS)
        times_pause_us(100);
    rig_open(r);
    for (unsigned w = 0; w < WRITERS; w++) {
        *seed = *seed * 1103515245u + 12345u;
        times_pause_us((long)(*seed >> 16) % (LONGEST_US / 4));
        kill(pids[w], SIGKILL);
        waitpid(pids[w], &status, 0);
        tally_check(run->tally, 'D', WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
                    "a writer had ended by itself, with %d", status);
        run->tally->runs++;
        if (w % 4 == 0)
            check_key(run, r, atomic_load(&board->key[w]));
    }
    check_all(run, r, board);
    rig_close(r);
}

void row_kills(struct row_run *run)
{
    const unsigned rounds = run->tier == TIER_QUICK ? 13 : run->tier == TIER_FULL ? 1250 : 12500;
    struct board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    unsigned seed = run->seed;
    struct rig r;
    assert_true(board != MAP_FAILED);
    rig_init(&r);
    r.engine.artifact_size = ARTIFACT;
    for (unsigned i = 0; i < rounds; i++)
        one_round(run, &r, board, &seed);
    tally_check(run->tally, 'D', !board->failed, "%u gets gave no module", board->failed);
    tally_note(run->tally, "%u writers killed at random times, after %lu gets", rounds * WRITERS,
               board->gets);
    rig_end(&r);
    munmap(board, sizeof(*board));
}
