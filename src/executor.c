/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An executor has a pool for each process that uses it: the parent's lock, lists and threads mean
 * nothing in the child of a fork, where another thread may have held that lock for ever. Who comes
 * by and finds the pool of another pid makes a fresh one; the old one's memory is all that is freed
 * of it. Its descriptor is left alone: the host may have closed it, and given its number away.
 */
#include "executor.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "cache.h"

enum { THREADS_MAX = 1024, THREADS_DEFAULT = 4, STACK_MIN = 32 * 1024 };

/* ---- lists ---- */

static void list_add(struct wc_jobs *list, struct wc_job *job)
{
    job->in = list;
    job->next = NULL;
    job->previous = list->last;
    if (list->last)
        list->last->next = job;
    else
        list->first = job;
    list->last = job;
    list->count++;
}

static void list_take(struct wc_job *job)
{
    struct wc_jobs *list = job->in;
    if (job->previous)
        job->previous->next = job->next;
    else
        list->first = job->next;
    if (job->next)
        job->next->previous = job->previous;
    else
        list->last = job->previous;
    list->count--;
    job->in = NULL;
}

static void list_move(struct wc_jobs *list, struct wc_job *job)
{
    list_take(job);
    list_add(list, job);
}

static void job_unref(struct wc_job *job)
{
    if (atomic_fetch_sub_explicit(&job->refs, 1, memory_order_acq_rel) == 1)
        job->free(job);
}

/* ---- pools ---- */

static int calls_on_worker(const struct wc_pool *pool)
{
    return (pool->options.flags & WASMCACHE_EXECUTOR_ON_WORKER) != 0;
}

int wc_pool_is_ours(const struct wc_pool *pool)
{
    return pool->pid == wc_os_pid();
}

/* What another process left of it, or what nobody uses any more. */
static void pool_drop(struct wc_pool *pool)
{
    free(pool->threads);
    free(pool);
}

static void pool_free(struct wc_pool *pool)
{
    pthread_cond_destroy(&pool->progress);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    wc_os_bell_close(&pool->bell);
    pool_drop(pool);
}

static struct wc_pool *pool_new(const wasmcache_executor_options *o, struct wc_error *err)
{
    const struct wc_os_bell no_bell = WC_OS_BELL_INIT;
    struct wc_pool *pool = calloc(1, sizeof(*pool));
    int rc;

    if (pool)
        pool->threads = o->threads ? calloc(o->threads, sizeof(*pool->threads)) : NULL;
    if (!pool || (o->threads && !pool->threads)) {
        free(pool);
        (void)wc_fail(err, WASMCACHE_ENOMEM, 0, "malloc", NULL, "No memory for an executor");
        return NULL;
    }
    pool->pid = wc_os_pid();
    pool->options = *o;
    pool->bell = no_bell;
    rc = wc_os_bell_open(&pool->bell);
    if (rc < 0) {
        (void)wc_fail(err, wc_error_of_errno(rc), rc, "eventfd", NULL,
                      "No descriptor for an executor");
        pool_drop(pool);
        return NULL;
    }
    pthread_mutex_init(&pool->lock, NULL);
    /* Nor do these ask for anything on Linux, but they may. */
    if (wc_os_cond_init(&pool->work) || wc_os_cond_init(&pool->progress)) {
        (void)wc_fail(err, WASMCACHE_ENOMEM, 0, "pthread_cond_init", NULL,
                      "No condition for an executor");
        wc_os_bell_close(&pool->bell);
        pool_drop(pool);
        return NULL;
    }
    return pool;
}

/* The pool of this process. NULL: a new one was not to be had. */
static struct wc_pool *pool_of(wasmcache_executor *executor, struct wc_error *err)
{
    struct wc_pool *known = atomic_load_explicit(&executor->pool, memory_order_acquire);
    struct wc_pool *fresh;
    if (wc_pool_is_ours(known))
        return known;
    fresh = pool_new(&executor->options, err);
    if (!fresh)
        return NULL;
    fresh->before = known;
    if (atomic_compare_exchange_strong(&executor->pool, &known, fresh))
        return fresh;
    pool_free(fresh); /* another thread was faster */
    return known;
}

/* ---- the lists of a pool, with its lock held ---- */

void wc_pool_park(struct wc_job *job)
{
    list_move(&job->pool->parked, job);
}

void wc_pool_unpark(struct wc_job *job)
{
    list_move(&job->pool->running, job);
}

void wc_pool_sleep(struct wc_job *job, uint64_t ns)
{
    job->due = wc_os_monotonic_ns() + ns;
    list_move(&job->pool->asleep, job);
    pthread_cond_signal(&job->pool->work); /* who waits may have to wait less */
}

void wc_pool_wake(struct wc_job *job)
{
    if (job->in != &job->pool->asleep)
        return;
    list_move(&job->pool->queue, job);
    pthread_cond_signal(&job->pool->work);
}

/* Wakes who has slept enough, and says how long the next one sleeps yet. 0: nobody does. */
static uint64_t wake_due(struct wc_pool *pool)
{
    const uint64_t now = pool->asleep.first ? wc_os_monotonic_ns() : 0;
    uint64_t next = 0;
    for (struct wc_job *after, *job = pool->asleep.first; job; job = after) {
        after = job->next;
        if (job->due <= now)
            wc_pool_wake(job);
        else if (!next || job->due - now < next)
            next = job->due - now;
    }
    return next;
}

static void one_less_outstanding(struct wc_pool *pool)
{
    if (--pool->outstanding == 0)
        pthread_cond_broadcast(&pool->progress);
}

void wc_pool_finish(struct wc_job *job)
{
    struct wc_pool *pool = job->pool;
    if (job->silent && !job->aborted) {
        list_take(job);
        one_less_outstanding(pool);
        job_unref(job);
        return;
    }
    list_move(&pool->done, job);
    if (calls_on_worker(pool)) {
        pthread_cond_signal(&pool->work);
        return;
    }
    if (pool->done.count == 1)
        wc_os_bell_ring(&pool->bell);
    pthread_cond_broadcast(&pool->progress);
}

void wc_pool_leave(struct wc_pool *pool, int finished)
{
    /* Each time, not only when the list was empty: the host may be in the middle of a dispatch that
     * does not take this one any more. */
    const int wake = finished && pool->options.wake && !calls_on_worker(pool) && !pool->closing;
    pthread_mutex_unlock(&pool->lock);
    if (wake)
        pool->options.wake(pool->options.payload);
}

/* Calls back for at most `most` jobs. The lock is held before and after, not meanwhile. Stops if a
 * callback forked and this is the child: *ours is 0 then, and the lock is nobody's. */
static int deliver(struct wc_pool *pool, unsigned most, int *ours)
{
    struct wc_job *job;
    unsigned count = 0;
    *ours = 1;
    while (count < most && (job = pool->done.first) != NULL) {
        list_take(job);
        if (!pool->done.first && !calls_on_worker(pool))
            wc_os_bell_hush(&pool->bell);
        pthread_mutex_unlock(&pool->lock);
        job->deliver(job);
        job_unref(job);
        count++;
        if (!wc_pool_is_ours(pool)) {
            *ours = 0;
            break;
        }
        pthread_mutex_lock(&pool->lock);
        one_less_outstanding(pool);
    }
    return (int)count;
}

/* ---- workers ---- */

static void run(struct wc_pool *pool, struct wc_job *job)
{
    list_move(&pool->running, job);
    pthread_mutex_unlock(&pool->lock);
    job->run(job);
    pthread_mutex_lock(&pool->lock);
}

static void wait_for_work(struct wc_pool *pool, uint64_t ns)
{
    pool->idle++;
    if (ns)
        wc_os_cond_wait(&pool->work, &pool->lock, ns);
    else
        pthread_cond_wait(&pool->work, &pool->lock);
    pool->idle--;
}

static void *own_thread(void *argument)
{
    struct wc_pool *pool = argument;
    int ours = 1;
    wc_os_name_thread("wasmcache");
    pthread_mutex_lock(&pool->lock);
    while (!pool->closing) {
        const uint64_t next = wake_due(pool);
        if (calls_on_worker(pool) && pool->done.first) {
            deliver(pool, 1, &ours);
            if (!ours)
                return NULL;
        } else if (pool->queue.first) {
            run(pool, pool->queue.first);
        } else {
            wait_for_work(pool, next);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* What a pool of the host's runs, once for each job. */
static void submitted_work(void *argument)
{
    struct wc_job *job = argument;
    struct wc_pool *pool = job->pool;
    int ours;

    if (!wc_pool_is_ours(pool)) /* the host's queue was copied by a fork */
        return;
    pthread_mutex_lock(&pool->lock);
    if (job->in == &pool->queue)
        run(pool, job);
    while (calls_on_worker(pool) && pool->done.first && !pool->closing) {
        deliver(pool, 1, &ours);
        if (!ours)
            return;
    }
    if (--pool->submitted == 0)
        pthread_cond_broadcast(&pool->progress);
    pthread_mutex_unlock(&pool->lock);
    /* The pool may be gone from here on, the job is not. */
    job_unref(job);
}

/* One thread more, if those that there are may not be enough for one job more. Fails only if there
 * is none at all. */
static int need_thread(struct wc_pool *pool, struct wc_error *err)
{
    int rc;
    if (pool->queue.count < pool->idle || pool->thread_count == pool->options.threads)
        return 0;
    rc = wc_os_thread_start(&pool->threads[pool->thread_count], pool->options.stack, own_thread,
                            pool);
    if (rc == 0)
        pool->thread_count++;
    if (rc < 0 && !pool->thread_count)
        return wc_fail(err, wc_error_of_errno(rc), rc, "pthread_create", NULL,
                       "No thread could be started for the request");
    return 0;
}

/* ---- start ---- */

/* From the first request on, threads may be in our code at any moment. */
static int stay_loaded(struct wc_error *err)
{
    static atomic_bool stays;
    static const char here;
    int rc;
    if (atomic_load_explicit(&stays, memory_order_relaxed))
        return 0;
    rc = wc_os_stay_loaded(&here);
    if (rc < 0)
        return wc_fail(err, WASMCACHE_ENOMEM, rc, "dlopen", NULL,
                       "The library could not be kept loaded for its threads");
    atomic_store(&stays, 1);
    return 0;
}

static int submit(struct wc_pool *pool, struct wc_job *job, struct wc_error *err)
{
    const int refused = pool->options.submit(submitted_work, job, pool->options.payload);
    if (!refused)
        return 0;
    pthread_mutex_lock(&pool->lock);
    list_take(job);
    pool->submitted--;
    one_less_outstanding(pool);
    pthread_mutex_unlock(&pool->lock);
    return wc_fail(err, WASMCACHE_EABORTED, 0, "submit", NULL,
                   "The host's pool refused the request");
}

int wc_executor_start(wasmcache_executor *executor, struct wc_job *job, wasmcache_request **out,
                      wasmcache_request *handle, struct wc_error *err)
{
    struct wc_pool *pool = pool_of(executor, err);
    int rc;
    if (!pool)
        return err->error;
    rc = stay_loaded(err); /* without our lock: it takes the loader's */
    if (rc < 0)
        return rc;
    job->pool = pool;
    atomic_init(&job->refs, pool->options.submit ? 2 : 1);
    pthread_mutex_lock(&pool->lock);
    if (pool->closing)
        rc = wc_fail(err, WASMCACHE_EABORTED, 0, NULL, NULL, "The executor is being freed");
    else if (!pool->options.submit)
        rc = need_thread(pool, err);
    if (rc == 0) {
        if (out)
            *out = handle;
        list_add(&pool->queue, job);
        pool->outstanding++;
        if (pool->options.submit)
            pool->submitted++;
        else
            pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
    return rc == 0 && pool->options.submit ? submit(pool, job, err) : rc;
}

/* ---- public ---- */

static int check(wasmcache_executor_options *o, struct wc_error *err)
{
    const char *wrong = NULL;
    if (o->flags & ~(unsigned)WASMCACHE_EXECUTOR_ON_WORKER)
        wrong = "unknown flags";
    else if (o->submit && (o->threads || o->stack))
        wrong = "submit, and threads or a stack for threads of our own";
    else if (o->threads > THREADS_MAX)
        wrong = "more than 1024 threads";
    else if (o->stack && (o->stack < STACK_MIN || o->stack > PTRDIFF_MAX))
        wrong = "a stack of less than 32 KiB, or more than there is memory";
    if (wrong)
        return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL, "wasmcache_executor_new: %s", wrong);
    if (!o->submit && !o->threads) {
        o->threads = wc_os_cpus();
        if (o->threads > THREADS_DEFAULT)
            o->threads = THREADS_DEFAULT;
    }
    return 0;
}

int wasmcache_executor_new(wasmcache_executor **out, const wasmcache_executor_options *options)
{
    wasmcache_executor_options o = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL;
    struct wc_pool *pool = NULL;
    struct wc_error err;
    int rc;

    wc_error_init(&err);
    if (!out)
        return wc_error_publish(
            &err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL, "wasmcache_executor_new: NULL"));
    *out = NULL;
    rc = options
             ? wc_sized_in(&o, sizeof(o), options, SIZE_0_1(wasmcache_executor_options, payload),
                           "wasmcache_executor_options", &err)
             : 0;
    if (rc == 0)
        rc = check(&o, &err);
    if (rc < 0)
        return wc_error_publish(&err, rc);
    executor = malloc(sizeof(*executor));
    if (!executor)
        return wc_error_publish(
            &err, wc_fail(&err, WASMCACHE_ENOMEM, 0, "malloc", NULL, "No memory for an executor"));
    pool = pool_new(&o, &err);
    if (!pool) {
        free(executor);
        return wc_error_publish(&err, err.error);
    }
    executor->options = o;
    atomic_init(&executor->pool, pool);
    *out = executor;
    return 0;
}

/* NULL: *rc says why. */
static struct wc_pool *pool_for_call(wasmcache_executor *executor, const char *function, int *rc)
{
    struct wc_pool *pool = NULL;
    struct wc_error err;
    wc_error_init(&err);
    if (!executor)
        (void)wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL, "%s: NULL", function);
    else
        pool = pool_of(executor, &err);
    if (!pool)
        *rc = wc_error_publish(&err, err.error);
    return pool;
}

int wasmcache_executor_fd(wasmcache_executor *executor)
{
    int rc = 0;
    const struct wc_pool *pool = pool_for_call(executor, "wasmcache_executor_fd", &rc);
    return pool ? pool->bell.fd : rc;
}

int wasmcache_executor_dispatch(wasmcache_executor *executor)
{
    int rc = 0, ours;
    struct wc_pool *pool;
    /* In a child there is nothing to dispatch before its first request. */
    if (executor && !wc_pool_is_ours(atomic_load_explicit(&executor->pool, memory_order_acquire)))
        return 0;
    pool = pool_for_call(executor, "wasmcache_executor_dispatch", &rc);
    if (!pool || calls_on_worker(pool))
        return rc;
    pthread_mutex_lock(&pool->lock);
    rc = deliver(pool, pool->done.count, &ours);
    if (!ours)
        return rc;
    pthread_mutex_unlock(&pool->lock);
    return rc;
}

static struct timespec moment(uint64_t ns)
{
    struct timespec at;
    at.tv_sec = (time_t)(ns / 1000000000u);
    at.tv_nsec = (long)(ns % 1000000000u);
    return at;
}

int wasmcache_executor_wait(wasmcache_executor *executor, int timeout_ms)
{
    int rc = 0, over = timeout_ms == 0;
    struct wc_pool *pool = pool_for_call(executor, "wasmcache_executor_wait", &rc);
    struct timespec until = {0, 0};
    if (!pool)
        return rc;
    if (timeout_ms > 0)
        until = moment(wc_os_monotonic_ns() + (uint64_t)timeout_ms * 1000000u);
    pthread_mutex_lock(&pool->lock);
    while (pool->outstanding && !over && (calls_on_worker(pool) || !pool->done.first)) {
        if (timeout_ms < 0)
            pthread_cond_wait(&pool->progress, &pool->lock);
        else
            over = pthread_cond_timedwait(&pool->progress, &pool->lock, &until) == ETIMEDOUT;
    }
    rc = !calls_on_worker(pool) && pool->done.first;
    pthread_mutex_unlock(&pool->lock);
    return rc;
}

/* ---- the end ---- */

static void abort_all(struct wc_jobs *list)
{
    struct wc_job *job;
    while ((job = list->first) != NULL) {
        job->aborted = 1;
        wc_pool_finish(job);
    }
}

static void pool_end(struct wc_pool *pool)
{
    int ours;
    pthread_mutex_lock(&pool->lock);
    pool->closing = 1;
    abort_all(&pool->queue);
    abort_all(&pool->parked);
    abort_all(&pool->asleep);
    for (struct wc_job *job = pool->running.first; job; job = job->next)
        atomic_store(&job->cancelled, 1);
    pthread_cond_broadcast(&pool->work);
    while (pool->submitted)
        pthread_cond_wait(&pool->progress, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    /* Nobody starts one any more. */
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_mutex_lock(&pool->lock);
    deliver(pool, pool->done.count, &ours);
    if (!ours) { /* a callback forked, and this is the child */
        pool_drop(pool);
        return;
    }
    pthread_mutex_unlock(&pool->lock);
    pool_free(pool);
}

void wasmcache_executor_free(wasmcache_executor *executor)
{
    struct wc_pool *pool, *before;
    if (!executor)
        return;
    pool = atomic_load(&executor->pool);
    before = pool->before;
    if (wc_pool_is_ours(pool))
        pool_end(pool);
    else
        pool_drop(pool);
    for (pool = before; pool; pool = before) {
        before = pool->before;
        pool_drop(pool);
    }
    free(executor);
}
