/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_ASKED_H
#define TESTS_ASKED_H

/*
 * Requests of a rig, what came of them, and a gate that holds the engine's compile.
 *
 *     struct asked a;
 *     ask_get(&a, r, executor, "wasm", 0);
 *     run_all(executor);
 *     assert_int_equal(a.report.outcome, WASMCACHE_COMPILED);
 *     assert_answered_once(&a);
 *
 * The wasm is a string, as with the rig.
 */

#include "support/rig.h"
#include "wasmcache_async.h"

struct asked {
    struct rig *r;
    const char *wasm;
    wasmcache_request *handle;
    atomic_uint answers; /* the rest is of the last one */
    int error, system_errno;
    char call[32], message[640];
    int has_module, right; /* the module is that of the wasm */
    wasmcache_report report;
    pthread_t thread;
    void (*then)(struct asked *a); /* in the callback, NULL: nothing */
};

wasmcache_executor *executor_with(unsigned threads, unsigned flags);

/* Each fails the test if the request does not start. */
void ask_get(struct asked *a, struct rig *r, wasmcache_executor *executor, const char *wasm,
             unsigned flags);
void ask_source(struct asked *a, struct rig *r, wasmcache_executor *executor, const char *wasm,
                const wasmcache_source *source);
void ask_load(struct asked *a, struct rig *r, wasmcache_executor *executor, const char *wasm);
void ask_contains(struct asked *a, struct rig *r, wasmcache_executor *executor, const char *wasm);
void asked_init(struct asked *a, struct rig *r, const char *wasm);
/* The callback of all of them; the payload is the struct asked. */
void answer(wasmcache_request *request, const wasmcache_result *result, void *payload);

/* Dispatches until no request is left. */
void run_all(wasmcache_executor *executor);
/* Waits until `count` has at least that value. */
void wait_for(const atomic_uint *count, unsigned value);
void assert_answered_once(const struct asked *a);

/* For the group's set-up: a thread that ends at once. With the first one a sanitizer starts one of
 * its own, which would be counted. */
int first_thread(void **state);
/* Threads of this process. */
unsigned threads_here(void);
/* The same once it is `expected`: a thread that was joined may still be seen for a moment. */
unsigned threads_soon(unsigned expected);

/*
 * Makes compiles of the rig's engine wait in front of a gate; set it before rig_open(). They are
 * counted before they wait. Opened it stays open.
 */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int open;
    atomic_uint inside; /* how many came to it */
};
void gate_init(struct gate *gate); /* a gate of the test's own, in front of something else */
void gate_set(struct gate *gate, struct rig *r);
void gate_wait(struct gate *gate);
void gate_open(struct gate *gate);

/* A pool of the host's, as an executor's options. */
struct host_pool {
    pthread_t threads[4];
    unsigned thread_count;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    struct host_work {
        struct host_work *next;
        void (*work)(void *argument);
        void *argument;
    } * first;
    int ending, refuse, held; /* held: nothing is run for now */
    atomic_uint submitted, ran, woken;
};
void host_pool_init(struct host_pool *pool, unsigned threads);
void host_pool_hold(struct host_pool *pool, int held);
void host_pool_end(struct host_pool *pool);
wasmcache_executor *host_pool_executor(struct host_pool *pool, unsigned flags);

#endif
