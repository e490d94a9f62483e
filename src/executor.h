/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_EXECUTOR_H
#define WC_EXECUTOR_H

/*
 * Where requests run, and how their callbacks get to the host's thread. What a request does is in
 * request.c; here it is a job, which is in one list at a time:
 *
 *     queue    waits for a worker                  wc_executor_start()
 *     running  a worker has it: run() was called
 *     parked   waits for another job, no worker    wc_pool_park()
 *     asleep   waits for a moment, no worker       wc_pool_sleep()
 *     done     its callback is due                 wc_pool_finish()
 *     none     deliver() was called, or never started
 *
 * Lists change under the pool's lock only. A job that is running leaves that list by its worker's
 * doing alone; who cancels it sets `cancelled`. No job comes back from done, so that deliver() is
 * called once.
 */

#include <stdatomic.h>

#include "error.h"
#include "os/os.h"
#include "wasmcache_async.h"

struct wc_pool;
struct wc_job;

struct wc_jobs {
    struct wc_job *first, *last;
    unsigned count;
};

struct wc_job {
    struct wc_pool *pool;
    struct wc_job *next, *previous;
    struct wc_jobs *in; /* NULL: none */
    atomic_uint refs;   /* of its callback, and of a pool of the host's that it was submitted to */
    atomic_bool cancelled;
    uint64_t due;                     /* asleep: until then, by the monotonic clock */
    int silent;                       /* there is nothing to deliver, unless it was aborted */
    int aborted;                      /* it was finished without having been run to its end */
    void (*run)(struct wc_job *);     /* on a worker; finishes or parks it */
    void (*deliver)(struct wc_job *); /* the callback */
    void (*free)(struct wc_job *);
};

/* What belongs to one process. */
struct wc_pool {
    int64_t pid;
    struct wc_pool *before; /* of the process that this one was forked from */
    wasmcache_executor_options options;
    struct wc_os_bell bell; /* rings while `done` is not empty */

    pthread_mutex_t lock;
    pthread_cond_t work;     /* own threads: something to do */
    pthread_cond_t progress; /* who waits: something is done, or nothing is left */
    struct wc_jobs queue, running, parked, asleep, done;
    unsigned outstanding; /* jobs whose callback has not returned yet */
    unsigned submitted;   /* jobs that the host's pool has not run yet */
    int closing;
    void *flights; /* request.c's */

    pthread_t *threads;
    unsigned thread_count, idle;
};

struct wasmcache_executor {
    wasmcache_executor_options options;
    _Atomic(struct wc_pool *) pool;
};

/* Makes `job` (zeroed but for its functions) one of this executor and queues it. `out`, which may
 * be NULL, is set to `handle` before anybody can run it. ENOMEM, EIO, EABORTED: it was not started,
 * and is the caller's still. */
int wc_executor_start(wasmcache_executor *executor, struct wc_job *job, wasmcache_request **out,
                      wasmcache_request *handle, struct wc_error *err);

/* With the lock held. */
void wc_pool_park(struct wc_job *job);   /* from running */
void wc_pool_unpark(struct wc_job *job); /* to running; the calling worker runs it */
/* From running, for `ns`; not in a pool of the host's, which has nobody to wake it. */
void wc_pool_sleep(struct wc_job *job, uint64_t ns);
/* Back to the queue, if it sleeps. */
void wc_pool_wake(struct wc_job *job);
void wc_pool_finish(struct wc_job *job); /* from any list; a silent one may be gone then */
/* Gives the lock back; `finished`: wc_pool_finish() was called meanwhile. */
void wc_pool_leave(struct wc_pool *pool, int finished);
/* Is this still the process that the pool is of? If not, its lock must not be touched. */
int wc_pool_is_ours(const struct wc_pool *pool);

#endif
