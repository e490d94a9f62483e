/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_WORKLOAD_H
#define TESTS_WORKLOAD_H

/*
 * Random work on one cache directory, by threads of many processes, against a model of what may
 * come of each call. A process of it:
 *
 *     worker_run(&worker);                 // opens, works, closes; 0, or it ends with status 3
 *
 * The model knows of a get or load which wasm it asked for, as what, for which tenant; whether
 * anybody ever could have saved that; what the caller's own callbacks refused; and that the engine
 * counts a rule as broken if it is ever handed bytes that it did not make. Files may be damaged,
 * removed and replaced by anybody all the time. What is changed in place is changed only while
 * nobody is between checking a file and using it ("the gate"), which no cache can see.
 *
 * All that processes tell each other is in the board, in shared memory, so that what a killed one
 * did is known.
 */

#include <stdatomic.h>

#include "stats.h"
#include "support/fake_engine.h"
#include "support/scratch.h"

enum {
    WORKLOAD_WASMS = 24,  /* the last one does not compile */
    WORKLOAD_SALTS = 4,   /* 0: none. The last one is never saved under */
    WORKLOAD_ENGINES = 2, /* that the work is done with; one more has what is pinned */
    WORKLOAD_PROCESSES = 16,
    WORKLOAD_THREADS = 4,
    WORKLOAD_LAYERED = 6, /* so many of the wasms are in the layer, one more is damaged there */
};

enum workload_op {
    OP_NONE,
    OP_GET,
    OP_REQUESTS,
    OP_LOAD,
    OP_SAVE,
    OP_CONTAINS,
    OP_REMOVE,
    OP_REMOVE_DAMAGED,
    OP_CHECK,
    OP_VERIFY, /* a walk that reads all */
    OP_CLEAR,  /* a walk that removes all */
    OP_PRUNE,
    OP_PIN,
    OP_CLEAN,
    OP_STATS,
    OP_FLUSH,
    OP_OPEN, /* and close, of a cache of the thread's own */
    OP_FORK,
    OP_SPOIL,
    WORKLOAD_OPS
};

/* What a thread is doing. */
struct workload_slot {
    atomic_ullong since; /* by the monotonic clock; 0: nothing */
    atomic_int op;
};

struct workload_board {
    atomic_int stop;          /* no new operations */
    atomic_ullong gate_until; /* nobody begins one before that time */
    atomic_uint broken;       /* findings */
    atomic_uint pulled;       /* times that a folder was removed from outside */
    atomic_uint ever[WORKLOAD_ENGINES][2][WORKLOAD_WASMS][WORKLOAD_SALTS]; /* may have been saved */
    atomic_ullong counts[WC_STAT_COUNT]; /* as the reports and events say */
    atomic_ullong begun, ended; /* gets and loads whose reports are, or are to be, counted */
    atomic_ullong done[WORKLOAD_OPS];
    atomic_ullong joined, hits, compiled, refused, spoilt, in_place, forks;
    struct workload_slot slots[WORKLOAD_PROCESSES][WORKLOAD_THREADS];
};

struct workload {
    struct workload_board *board;
    uint64_t seed;
    int counting; /* what would make the numbers of the directory others than those of the model is
                     left out */
    const char *dir, *layer, *gate_path;
    const char *attic; /* where files are changed before they are moved in */
    const char *paths[WORKLOAD_WASMS];
    const uint8_t *wasm[WORKLOAD_WASMS];
    size_t length[WORKLOAD_WASMS];
    wasmcache_key keys[WORKLOAD_WASMS][WORKLOAD_SALTS];
    char namespaces[WORKLOAD_ENGINES][192];
};

struct worker {
    struct workload *workload;
    unsigned slot, threads;
    unsigned lives; /* which one it is */
    unsigned ops;   /* at most, of each thread */
};

/* A body for scratch_start(). */
int worker_run(void *argument);

void workload_engine_init(struct fake_engine *engine, unsigned index);
int workload_attach(wasmcache_attachment **out, wasmcache *cache, struct fake_engine *engine);
const char *workload_op_name(int op);
uint64_t workload_random(uint64_t *state);

#endif
