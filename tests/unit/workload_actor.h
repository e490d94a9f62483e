/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_WORKLOAD_ACTOR_H
#define TESTS_WORKLOAD_ACTOR_H

/* A thread of a process of the workload, and what it can do. Inside of workload.h. */

#include "wasmcache_async.h"
#include "workload.h"

#define MILLISECOND UINT64_C(1000000)

extern const char *const workload_salts[WORKLOAD_SALTS];

/* A cache with the engines attached. */
struct opened {
    wasmcache *cache;
    wasmcache_attachment *wc[WORKLOAD_ENGINES];
    unsigned flags;
    int limited;
};

/* What a process has. */
struct process {
    struct worker *worker;
    struct fake_engine engines[WORKLOAD_ENGINES];
    wasmcache_executor *executor; /* of requests and later saves; its callbacks are on workers */
    struct opened shared;
};

/* A thread. */
struct actor {
    struct process *process;
    struct workload *workload;
    struct workload_board *board;
    unsigned index, nth;
    uint64_t random;
    int gate, in_child;
    enum workload_op op;
    struct opened own, *use;
};

/* What a get was asked for. */
struct wanted {
    struct actor *actor;
    unsigned engine, wasm, salt;
    wasmcache_kind kind;
    const struct opened *in;
    unsigned flags;
    unsigned refuse_at, ticks; /* refuse_at 0: never */
    int refused, refused_save, cancelled;
    int is_request; /* it may get what another request was given, a hit too */
};

/* A finding ends the process. */
_Noreturn void actor_broken(const struct actor *a, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
unsigned actor_below(struct actor *a, unsigned limit);
int actor_one_in(struct actor *a, unsigned n);
/* Is it 0, or in the list, which ends with 0? */
int actor_allowed(int rc, const int *list);

/* Of the model's numbers, by enum wc_stat. */
void actor_count(struct workload_board *board, unsigned stat, uint64_t value);
/* What a get or load counts for, as the header of the library has it. */
void actor_count_report(struct workload_board *board, const wasmcache_report *report);

/* Around each call. */
void actor_gate_enter(struct actor *a);
void actor_gate_leave(struct actor *a);
/* 1: nobody is in a call, nor begins one, until actor_gate_leave(). */
int actor_gate_close(struct actor *a);

void actor_open(struct actor *a, struct opened *o);
void actor_close(struct opened *o);
void actor_choose(struct actor *a, struct wanted *w);

/* workload_calls.c: does it once, and looks at what came of it. */
void actor_do_get(struct actor *a);
void actor_do_requests(struct actor *a);
void actor_do_load(struct actor *a);
void actor_do_save(struct actor *a);
void actor_do_contains(struct actor *a);
void actor_do_remove(struct actor *a, int damaged);
void actor_do_check(struct actor *a);
void actor_do_walk(struct actor *a, int clear);
void actor_do_prune(struct actor *a);
void actor_do_pin(struct actor *a);
void actor_do_clean(struct actor *a);
void actor_do_stats(struct actor *a);
void actor_do_flush(struct actor *a);
void actor_do_open(struct actor *a);
/* workload_harm.c: damages, replaces or removes a file, as anybody might. */
void actor_do_spoil(struct actor *a);

#endif
