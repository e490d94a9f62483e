/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a worker does with a request:
 *
 *     take_off    the key; is there a flight for it? then park: the worker is free again
 *     fly         load, or load and compile and save, by the very functions of the blocking calls;
 *                 or sleep while another process compiles it: the worker is free again
 *     land        off the list of flights; the result is its own and that of those parked for it;
 *                 or, if it says nothing about the module, the first of those becomes leader and
 *                 the same worker flies it
 *
 * What is handed to those who waited is of the key that they asked for: a source that changed after
 * it was hashed, or that was not what its digest said, is its own request's problem.
 */
#include "request.h"

#include <stdlib.h>

#include "key.h"

/* How long a request sleeps at most before it asks again whether it may go on: nobody wakes it. */
#define SLEEP UINT64_C(20000000)

static struct wasmcache_request *request_of(struct wc_job *job)
{
    return (struct wasmcache_request *)job;
}

/* ---- flights, with the pool's lock held ---- */

static struct wasmcache_request *find_flight(const struct wasmcache_request *r)
{
    for (struct wasmcache_request *f = r->job.pool->flights; f; f = f->next_flight)
        if (f->type == r->type && f->call.attachment == r->call.attachment &&
            f->call.kind == r->call.kind && f->call.flags == r->call.flags &&
            wasmcache_key_equal(&f->key, &r->key))
            return f;
    return NULL;
}

static void add_flight(struct wasmcache_request *r)
{
    r->flying = 1;
    r->next_flight = r->job.pool->flights;
    r->job.pool->flights = r;
}

static void remove_flight(struct wasmcache_request *r)
{
    struct wasmcache_request *f = r->job.pool->flights, *before = NULL;
    for (; f != r; f = f->next_flight)
        before = f;
    if (before)
        before->next_flight = r->next_flight;
    else
        r->job.pool->flights = r->next_flight;
    r->flying = 0;
}

static void park(struct wasmcache_request *r, struct wasmcache_request *leader)
{
    r->leader = leader;
    leader->waiting++;
    wc_pool_park(&r->job);
}

/* ---- on a worker ---- */

/* Of those that lead to a module. Negative: it has its result. 1: it is parked, and may be gone
 * already. 0: it is the leader now, or flies alone. */
static int take_off(struct wasmcache_request *r)
{
    struct wc_pool *pool = r->job.pool;
    struct wasmcache_request *leader;
    int released = 0, rc = 0;

    if (r->type == WC_REQUEST_GET) {
        rc = wc_get_key(&r->get, &r->call, &r->err);
        r->keyed = r->get.cached;
        if (r->keyed)
            r->key = r->get.key;
    }
    if (rc < 0 || !r->keyed)
        return rc;
    pthread_mutex_lock(&pool->lock);
    while ((rc = wc_call_go_on(&r->call, &r->err)) == 0 && (leader = find_flight(r)) != NULL) {
        if (released || r->type != WC_REQUEST_GET) {
            park(r, leader);
            pthread_mutex_unlock(&pool->lock);
            return 1;
        }
        /* Nothing stays open while it waits. */
        pthread_mutex_unlock(&pool->lock);
        wc_get_release(&r->get, &r->call);
        released = 1;
        pthread_mutex_lock(&pool->lock);
    }
    if (rc == 0)
        add_flight(r);
    pthread_mutex_unlock(&pool->lock);
    return rc;
}

/* Another process, or a thread that is no request's, compiles it: WC_GET_WAIT, and the request is
 * asleep and may be gone already. In a pool of the host's, which wakes nobody, its worker waits. */
static int wait_for_others(struct wasmcache_request *r, void **native)
{
    struct wc_pool *pool = r->job.pool;
    uint64_t ns;
    int step;
    if (pool->options.submit)
        return wc_get_wait(&r->get, &r->call, native, &r->err);
    step = wc_get_ask(&r->get, &r->call, native, &ns, &r->err);
    if (step != WC_GET_WAIT) {
        if (r->waits)
            r->call.report.wait_ns = wc_os_monotonic_ns() - r->waits_since;
        return step;
    }
    if (!r->waits)
        r->waits_since = wc_os_monotonic_ns();
    r->waits = 1;
    wc_get_release(&r->get, &r->call); /* nothing stays open while it waits, but its lock */
    pthread_mutex_lock(&pool->lock);
    if (!pool->closing) {
        wc_pool_sleep(&r->job, ns < SLEEP ? ns : SLEEP);
        pthread_mutex_unlock(&pool->lock);
        return step;
    }
    pthread_mutex_unlock(&pool->lock);
    return wc_fail(&r->err, WASMCACHE_EABORTED, 0, NULL, NULL, "The executor is being freed");
}

/* As wc_get_module(), or WC_GET_WAIT as above. */
static int get_counted(struct wasmcache_request *r)
{
    void *native = NULL;
    int step;
    if (!r->waits && wc_get_remembered(&r->get, &r->call, &r->module))
        return 0;
    step = r->waits ? WC_GET_MAKE : wc_get_look(&r->get, &r->call, &native, &r->err);
    if (step == WC_GET_MAKE)
        step = wait_for_others(r, &native);
    if (step == WC_GET_WAIT)
        return step;
    if (step == WC_GET_MAKE)
        step = wc_get_make(&r->get, &r->call, &native, NULL, &r->err);
    wc_get_land(&r->get, &r->call, step, native);
    return step < 0 ? step : wc_get_count(&r->module, &r->get, &r->call, native, &r->err);
}

static int fly(struct wasmcache_request *r)
{
    int rc = wc_call_go_on(&r->call, &r->err);
    if (rc < 0)
        return rc;
    switch (r->type) {
    case WC_REQUEST_GET:
        return get_counted(r);
    case WC_REQUEST_LOAD:
        return wc_load_counted(&r->module, &r->call, &r->key, &r->err);
    case WC_REQUEST_SAVE:
        return wc_save_asked(&r->call, &r->key, r->native, &r->err);
    case WC_REQUEST_CONTAINS:
        break;
    }
    r->call.report.key = r->key;
    rc = wc_contains(&r->call, &r->key, &r->err);
    if (rc < 0 && rc != WASMCACHE_EOFF)
        r->call.report.reason = wc_reason_of_error(rc);
    return rc;
}

/* Is its result one for everybody who wants that key? */
static int is_for_all(const struct wasmcache_request *r)
{
    if (r->type == WC_REQUEST_LOAD)
        return r->rc == 0;
    return (r->rc == 0 || r->rc == WASMCACHE_EENGINE) && wc_get_is_of(&r->get, &r->call, &r->key);
}

/* Off the list of flights, so that nobody joins any more. 1: its result is for all who did. */
static int end_flight(struct wasmcache_request *r)
{
    struct wc_pool *pool = r->job.pool;
    int asked = 0, for_all = 0;
    pthread_mutex_lock(&pool->lock);
    while (r->waiting && !asked) { /* may hash, so not with the lock */
        pthread_mutex_unlock(&pool->lock);
        for_all = is_for_all(r);
        asked = 1;
        pthread_mutex_lock(&pool->lock);
    }
    remove_flight(r);
    pthread_mutex_unlock(&pool->lock);
    return for_all;
}

static void close_call(struct wasmcache_request *r, int rc)
{
    r->rc = rc;
    wc_call_close(&r->call, rc);
}

/* Gives a waiter what the leader has. */
static void join(struct wasmcache_request *r, const struct wasmcache_request *leader)
{
    wasmcache_report *report = &r->call.report;
    report->outcome = WASMCACHE_JOINED;
    report->reason = leader->call.report.reason;
    report->save_error = leader->call.report.save_error;
    report->artifact_bytes = leader->call.report.artifact_bytes;
    report->wasm_bytes = leader->call.report.wasm_bytes;
    report->key = r->key;
    r->module = wasmcache_module_ref(leader->module);
    r->err = leader->err;
    close_call(r, leader->rc);
}

/* The first of those parked for `r` leads the others from now on. NULL: there is none. */
static struct wasmcache_request *next_leader(struct wasmcache_request *r)
{
    struct wasmcache_request *next = NULL;
    for (struct wc_job *after, *job = r->job.pool->parked.first; job; job = after) {
        struct wasmcache_request *waiter = request_of(job);
        after = job->next;
        if (waiter->leader != r) {
            continue;
        } else if (next) {
            waiter->leader = next;
            next->waiting++;
        } else {
            next = waiter;
            next->leader = NULL;
            wc_pool_unpark(job);
            add_flight(next);
        }
    }
    return next;
}

static void hand_out(struct wasmcache_request *leader)
{
    for (struct wc_job *after, *job = leader->job.pool->parked.first; job; job = after) {
        after = job->next;
        if (request_of(job)->leader == leader) {
            join(request_of(job), leader);
            wc_pool_finish(job);
        }
    }
}

/* The request is another's when this returns. Gives the one to go on with, if any. */
static struct wasmcache_request *land(struct wasmcache_request *r, int rc)
{
    struct wc_pool *pool = r->job.pool;
    struct wasmcache_request *next = NULL;
    int for_all;

    wc_get_land(&r->get, &r->call, rc, NULL); /* if it was cancelled while it waited */
    close_call(r, rc);
    for_all = r->flying && end_flight(r);
    if (r->type == WC_REQUEST_GET)
        wc_get_release(&r->get, &r->call);
    pthread_mutex_lock(&pool->lock);
    if (for_all)
        hand_out(r);
    else if (r->waiting)
        next = next_leader(r);
    wc_pool_finish(&r->job);
    wc_pool_leave(pool, 1);
    return next;
}

static void run(struct wc_job *job)
{
    struct wasmcache_request *r = request_of(job);
    int rc = r->waits ? 0 : take_off(r);
    while (rc <= 0 && r) {
        if (rc == 0)
            rc = fly(r);
        if (rc == WC_GET_WAIT)
            return;
        r = land(r, rc);
        rc = 0;
    }
}

/* ---- the callback ---- */

static void deliver(struct wc_job *job)
{
    struct wasmcache_request *r = request_of(job);
    wasmcache_error_detail detail = {sizeof(detail), 0, 0, "", "", ""};
    wasmcache_result result = {sizeof(result), 0, NULL, &r->call.report, &detail};

    if (job->aborted) {
        wc_get_land(&r->get, &r->call, WASMCACHE_EABORTED, NULL); /* if it slept */
        close_call(r, wc_fail(&r->err, WASMCACHE_EABORTED, 0, NULL, NULL,
                              "The request was cancelled while it waited"));
    }
    result.error = r->rc;
    if (r->rc < 0) {
        detail.error = r->rc;
        detail.system_errno = r->err.system_errno;
        detail.call = r->err.call;
        detail.path = r->err.path;
        detail.message = r->err.message;
    } else {
        result.module = r->module;
        r->module = NULL;
    }
    r->callback(r, &result, r->payload);
}

static void request_free(struct wc_job *job)
{
    free(job);
}

/* ---- start ---- */

/* A request whose arguments are still to be checked. NULL: *rc says why. */
static wasmcache_request *begin(int *rc, wasmcache_request **out, wasmcache_executor *executor,
                                wasmcache_attachment *attachment, wasmcache_kind kind,
                                enum wc_request_type type, wasmcache_request_fn callback,
                                void *payload)
{
    wasmcache_request *r;
    struct wc_error err;

    wc_error_init(&err);
    if (out)
        *out = NULL;
    if (!executor || !callback) {
        *rc = wc_error_publish(
            &err, wc_misuse(&err, "wasmcache_request", "the executor or the callback is NULL"));
        return NULL;
    }
    r = calloc(1, sizeof(*r));
    if (!r) {
        *rc = wc_error_publish(
            &err, wc_fail(&err, WASMCACHE_ENOMEM, 0, "malloc", NULL, "No memory for a request"));
        return NULL;
    }
    r->job.run = run;
    r->job.deliver = deliver;
    r->job.free = request_free;
    r->type = type;
    r->callback = callback;
    r->payload = payload;
    r->err = err;
    wc_call_start(&r->call, attachment, kind);
    r->call.cancelled = &r->job.cancelled;
    return r;
}

/* The end of each start: rc says what came of the checks, whose error is the request's. */
static int start(wasmcache_request **out, wasmcache_executor *executor, wasmcache_request *r,
                 int rc)
{
    if (rc == 0)
        rc = wc_executor_start(executor, &r->job, out, r, &r->err);
    if (rc == 0)
        return 0;
    (void)wc_error_publish(&r->err, rc);
    if (out)
        *out = NULL;
    free(r);
    return rc;
}

int wasmcache_request_get(wasmcache_request **out, wasmcache_executor *executor,
                          wasmcache_attachment *attachment, wasmcache_kind kind,
                          const wasmcache_source *source, const wasmcache_get_options *options,
                          wasmcache_request_fn callback, void *payload)
{
    int rc = 0;
    wasmcache_request *r =
        begin(&rc, out, executor, attachment, kind, WC_REQUEST_GET, callback, payload);
    if (!r)
        return rc;
    rc = wc_get_check_call(&r->call, NULL, r, "wasmcache_request_get", &r->err);
    if (rc == 0)
        rc = wc_get_check(&r->get, &r->call, source, options, &r->err);
    return start(out, executor, r, rc);
}

/* Of those that are given a key. */
static int start_keyed(wasmcache_request **out, wasmcache_executor *executor, wasmcache_request *r,
                       const wasmcache_key *key, const void *argument, const char *function)
{
    int rc = wc_call_check_key(&r->call, key, NULL, argument, function, &r->err);
    if (rc == 0)
        r->key = *key;
    r->keyed = r->call.counts = r->type == WC_REQUEST_LOAD;
    return start(out, executor, r, rc);
}

int wasmcache_request_load(wasmcache_request **out, wasmcache_executor *executor,
                           wasmcache_attachment *attachment, wasmcache_kind kind,
                           const wasmcache_key *key, wasmcache_request_fn callback, void *payload)
{
    int rc = 0;
    wasmcache_request *r =
        begin(&rc, out, executor, attachment, kind, WC_REQUEST_LOAD, callback, payload);
    return r ? start_keyed(out, executor, r, key, key, "wasmcache_request_load") : rc;
}

int wasmcache_request_save(wasmcache_request **out, wasmcache_executor *executor,
                           wasmcache_attachment *attachment, wasmcache_kind kind,
                           const wasmcache_key *key, void *native,
                           const wasmcache_save_options *options, wasmcache_request_fn callback,
                           void *payload)
{
    int rc = 0;
    wasmcache_request *r =
        begin(&rc, out, executor, attachment, kind, WC_REQUEST_SAVE, callback, payload);
    if (!r)
        return rc;
    rc = wc_save_check(&r->call, options, &r->err);
    if (rc < 0)
        return start(out, executor, r, rc);
    r->native = native;
    return start_keyed(out, executor, r, key, native, "wasmcache_request_save");
}

int wasmcache_request_contains(wasmcache_request **out, wasmcache_executor *executor,
                               wasmcache_attachment *attachment, wasmcache_kind kind,
                               const wasmcache_key *key, wasmcache_request_fn callback,
                               void *payload)
{
    int rc = 0;
    wasmcache_request *r =
        begin(&rc, out, executor, attachment, kind, WC_REQUEST_CONTAINS, callback, payload);
    return r ? start_keyed(out, executor, r, key, key, "wasmcache_request_contains") : rc;
}

/* ---- cancel ---- */

int wasmcache_request_cancel(wasmcache_request *request)
{
    struct wc_error err;
    struct wc_pool *pool;
    int found = WASMCACHE_CANCEL_LATE;

    wc_error_init(&err);
    if (!request || !wc_pool_is_ours(request->job.pool))
        return wc_error_publish(
            &err, wc_misuse(&err, "wasmcache_request_cancel", "NULL, or started before a fork"));
    pool = request->job.pool;
    pthread_mutex_lock(&pool->lock);
    if (request->job.in == &pool->running || request->job.in == &pool->asleep) {
        atomic_store(&request->job.cancelled, 1);
        wc_pool_wake(&request->job); /* others may wait for it: it ends as one that runs */
        found = WASMCACHE_CANCEL_ASKED;
    } else if (request->job.in == &pool->queue || request->job.in == &pool->parked) {
        if (request->leader)
            request->leader->waiting--;
        request->leader = NULL;
        request->job.aborted = 1;
        wc_pool_finish(&request->job);
        found = WASMCACHE_CANCEL_ABORTED;
    }
    wc_pool_leave(pool, found == WASMCACHE_CANCEL_ABORTED);
    return found;
}
