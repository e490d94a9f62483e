/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and saves that come later where something ends early: a child without descriptors, a
 * pool of the host's that was copied by a fork, callbacks that fork, cancelling with the answer on
 * its way, leaders that are given up.
 * no-tsan: the children start threads, which it does not allow after a fork
 */
#define _GNU_SOURCE
#include "asked.h"
#include "executor.h"
#include "fixture.h"
#include "seam.h"
#include "support/allocation.h"
#include "support/below.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* A pool of the host's that runs what it is told to, on the thread that tells it. */
struct pool {
    void (*work[8])(void *);
    void *argument[8];
    unsigned count;
};

static int submit(void (*work)(void *), void *argument, void *payload)
{
    struct pool *pool = payload;
    pool->work[pool->count] = work;
    pool->argument[pool->count++] = argument;
    return 0;
}

static void run_pool(struct pool *pool)
{
    for (unsigned i = 0; i < pool->count; i++)
        pool->work[i](pool->argument[i]);
    pool->count = 0;
}

static wasmcache_executor *pool_executor(struct pool *pool, unsigned flags)
{
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL;
    memset(pool, 0, sizeof(*pool));
    options.flags = flags;
    options.submit = submit;
    options.payload = pool;
    assert_int_equal(wasmcache_executor_new(&executor, &options), 0);
    return executor;
}

static struct gate first_gate, second_gate;

/* ---- forks ---- */

struct family {
    struct rig *r;
    wasmcache_executor *executor;
    struct pool *pool;
    struct asked *a;
};

/* 0: as it should be. */
static int have_no_descriptor(void *argument)
{
    const struct family *f = argument;
    const wasmcache_key key = rig_key("child");
    wasmcache_request *request = (wasmcache_request *)argument;
    struct asked a;
    for (int i = 0; i < 2; i++) { /* 0: no descriptor, 1: no memory */
        const int expected = i ? WASMCACHE_ENOMEM : WASMCACHE_EIO;
#define LACKING()                                                                                  \
    do {                                                                                           \
        if (i)                                                                                     \
            allocation_fail(1, 1);                                                                 \
        else                                                                                       \
            below_fail("eventfd", EMFILE, 9);                                                      \
    } while (0)
        asked_init(&a, f->r, "child");
        LACKING();
        if (wasmcache_executor_fd(f->executor) != expected ||
            wasmcache_executor_wait(f->executor, 0) != expected ||
            wasmcache_request_load(&request, f->executor, f->r->wc, WASMCACHE_MODULE, &key, answer,
                                   &a) != expected ||
            request || a.answers || wasmcache_executor_dispatch(f->executor) != 0)
            return 1 + i;
#undef LACKING
        (void)below_off();
        allocation_off();
    }
    /* It is there when there is one. */
    ask_get(&a, f->r, f->executor, "child", 0);
    run_all(f->executor);
    return a.answers == 1 && a.right ? 0 : 3;
}

static void a_child_without_descriptors_is_told_so(void **state)
{
    struct rig *r = *state;
    struct family f = {r, executor_with(1, 0), NULL, NULL};
    assert_int_equal(scratch_child(have_no_descriptor, &f, 0, 30), 0);
    wasmcache_executor_free(f.executor);
}

static int run_copied_pool(void *argument)
{
    const struct family *f = argument;
    run_pool(f->pool);
    return f->a->answers ? 1 : 0;
}

static void work_that_a_fork_copied_is_the_parents(void **state)
{
    struct rig *r = *state;
    struct pool pool;
    struct asked a;
    struct family f = {r, pool_executor(&pool, WASMCACHE_EXECUTOR_ON_WORKER), &pool, &a};
    ask_get(&a, r, f.executor, "wasm", 0);
    assert_int_equal(scratch_child(run_copied_pool, &f, 0, 30), 0);
    assert_int_equal(r->engine.compiles, 0);
    run_pool(&pool);
    assert_answered_once(&a);
    assert_int_equal(a.error, 0);
    wasmcache_executor_free(f.executor);
}

static pid_t forked, parent;

static void fork_in_callback(struct asked *a)
{
    (void)a;
    fflush(NULL);
    forked = fork();
}

/* In the child: ends it. In the parent: the child must have come to here. */
static void end_child(void)
{
    int status = 0;
    if (getpid() != parent)
        _exit(7);
    assert_true(forked > 0);
    assert_int_equal(waitpid(forked, &status, 0), forked);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 7);
}

/* The child of a callback has to exec or _exit; one that returns all the same finds nothing of the
 * parent's locked, and calls nobody back. */
static void a_callback_that_forks_comes_back_twice(void **state)
{
    struct rig *r = *state;
    struct pool pool;
    struct asked a, b;
    wasmcache_executor *executor = pool_executor(&pool, WASMCACHE_EXECUTOR_ON_WORKER);
    parent = getpid();
    ask_get(&a, r, executor, "one", 0);
    a.then = fork_in_callback;
    run_pool(&pool);
    end_child();
    assert_answered_once(&a);
    wasmcache_executor_free(executor);

    /* At the end of an executor. */
    executor = executor_with(1, 0);
    ask_get(&a, r, executor, "one", 0);
    a.then = fork_in_callback;
    ask_get(&b, r, executor, "two", 0);
    assert_int_equal(wasmcache_executor_wait(executor, 30000), 1);
    wasmcache_executor_free(executor);
    if (getpid() != parent && b.answers)
        _exit(8);
    end_child();
    assert_answered_once(&a);
    assert_int_equal(b.answers, 1);
}

static pthread_key_t ends;

/* What a thread has for itself goes with it: then the child ends. */
static void end_with_thread(void *value)
{
    (void)value;
    _exit(9);
}

static void fork_on_worker(struct asked *a)
{
    (void)a;
    fflush(NULL);
    forked = fork();
    if (forked == 0)
        (void)pthread_setspecific(ends, &ends);
}

static void a_worker_that_forked_ends_in_the_child(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes("one", 3);
    wasmcache_executor *executor = executor_with(1, WASMCACHE_EXECUTOR_ON_WORKER);
    struct asked a, b;
    int status = 0;
    assert_int_equal(pthread_key_create(&ends, end_with_thread), 0);
    forked = -1;
    asked_init(&a, r, "one");
    a.then = fork_on_worker;
    assert_int_equal(
        wasmcache_request_get(NULL, executor, r->wc, WASMCACHE_MODULE, &source, NULL, answer, &a),
        0);
    ask_get(&b, r, executor, "two", 0);
    wait_for(&a.answers, 1);
    wait_for(&b.answers, 1);
    wasmcache_executor_free(executor);
    assert_true(forked > 0);
    assert_int_equal(waitpid(forked, &status, 0), forked);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 9);
    assert_int_equal(a.answers, 1);
    assert_int_equal(b.answers, 1);
    (void)pthread_key_delete(ends);
}

/* Whatever comes between, a child has one pool. */
static void ask_meanwhile(void *executor)
{
    (void)wasmcache_executor_fd(executor);
}

static int make_pool_twice(void *argument)
{
    const struct family *f = argument;
    const unsigned before = scratch_descriptors();
    struct asked a;
    int fd, again;
    seam_act_call("bell_open", 1, ask_meanwhile, f->executor);
    fd = wasmcache_executor_fd(f->executor);
    seam_off();
    again = wasmcache_executor_fd(f->executor);
    if (!seam_met() || fd < 0 || fd != again || scratch_descriptors() != before + 1)
        return 1;
    ask_get(&a, f->r, f->executor, "child", 0);
    run_all(f->executor);
    return a.answers == 1 && a.right ? 0 : 2;
}

static void two_threads_of_a_child_make_one_pool(void **state)
{
    struct rig *r = *state;
    struct family f = {r, executor_with(1, 0), NULL, NULL};
    assert_int_equal(scratch_child(make_pool_twice, &f, 0, 30), 0);
    wasmcache_executor_free(f.executor);
}

/* ---- the end ---- */

static void *free_executor(void *executor)
{
    wasmcache_executor_free(executor);
    return NULL;
}

/* Frees the executor on a thread of its own, and comes back when that has begun. */
struct ending {
    wasmcache_executor *executor;
    pthread_t thread;
    int begun;
};

static int end_before_it_waits(const wasmcache_progress *progress, void *payload)
{
    struct ending *e = payload;
    struct wc_pool *p = atomic_load(&e->executor->pool);
    int closing = 0;
    if (progress->phase != WASMCACHE_PHASE_WAIT || e->begun)
        return 0;
    e->begun = pthread_create(&e->thread, NULL, free_executor, e->executor) == 0;
    while (e->begun && !closing) {
        pthread_mutex_lock(&p->lock);
        closing = p->closing;
        pthread_mutex_unlock(&p->lock);
        sched_yield();
    }
    return 0;
}

static void *get_first(void *rig);

static void who_would_wait_at_the_end_is_told_so(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes("1", 1);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    struct ending e = {executor_with(1, 0), 0, 0};
    struct asked a;
    pthread_t thread;
    void *got = NULL;
    assert_int_equal(pthread_create(&thread, NULL, get_first, r), 0);
    wait_for(&first_gate.inside, 1);
    options.tick = end_before_it_waits;
    options.tick_payload = &e;
    asked_init(&a, r, "1");
    assert_int_equal(wasmcache_request_get(NULL, e.executor, r->wc, WASMCACHE_MODULE, &source,
                                           &options, answer, &a),
                     0);
    wait_for(&a.answers, 1);
    assert_int_equal(a.error, WASMCACHE_EABORTED);
    assert_int_equal(e.begun, 1);
    pthread_join(e.thread, NULL);
    gate_open(&first_gate);
    pthread_join(thread, &got);
    assert_ptr_equal(got, r);
    assert_int_equal(r->engine.compiles, 1);
}

/* ---- cancelled on the way ---- */

static struct asked *to_cancel;
static int (*usual_probe)(void *engine, wasmcache_artifact *out, void **error);

static int cancel_in_probe(void *engine, wasmcache_artifact *out, void **error)
{
    if (to_cancel && wasmcache_request_cancel(to_cancel->handle) == WASMCACHE_CANCEL_ASKED)
        to_cancel = NULL;
    return usual_probe(engine, out, error);
}

/* Its worker is about to say that it leads. */
static void who_is_cancelled_before_it_leads_does_not(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    struct asked a, b;
    usual_probe = r->engine.table.probe;
    r->engine.table.probe = cancel_in_probe;
    rig_open(r);
    to_cancel = &a;
    ask_get(&a, r, executor, "wasm", 0);
    run_all(executor);
    assert_null(to_cancel);
    assert_answered_once(&a);
    assert_int_equal(a.error, WASMCACHE_EABORTED);
    assert_int_equal(r->engine.compiles, 0);
    ask_get(&b, r, executor, "wasm", 0); /* nobody leads */
    run_all(executor);
    assert_answered_once(&b);
    assert_int_equal(b.report.outcome, WASMCACHE_COMPILED);
    wasmcache_executor_free(executor);
}

/* ---- who sleeps ---- */

struct sleeper {
    struct wc_job job;
    uint64_t ns;
    unsigned runs;
};

static void sleep_first(struct wc_job *job)
{
    struct sleeper *s = (struct sleeper *)(void *)job;
    pthread_mutex_lock(&job->pool->lock);
    s->runs++;
    wc_pool_sleep(job, s->ns);
    pthread_mutex_unlock(&job->pool->lock);
}

static atomic_uint answered;

static void count_answer(struct wc_job *job)
{
    (void)job;
    atomic_fetch_add(&answered, 1);
}

static void keep_job(struct wc_job *job)
{
    (void)job;
}

static _Atomic uint64_t shortest;

static int note_wait(uint64_t ns)
{
    if (!atomic_load(&shortest) || ns < atomic_load(&shortest))
        atomic_store(&shortest, ns);
    return 0; /* it is waited for all the same */
}

static void a_worker_sleeps_as_long_as_the_first_that_is_due(void **state)
{
    static const uint64_t second = 1000000000;
    const uint64_t hours[3] = {7200 * second, 3600 * second, 10000 * second};
    struct sleeper s[3];
    wasmcache_executor *executor;
    struct wc_error err;
    struct wc_pool *pool;
    int asleep = 0;
    (void)state;
    memset(s, 0, sizeof(s));
    atomic_store(&shortest, 0);
    atomic_store(&answered, 0);
    wc_os_wait_hook = note_wait;
    executor = executor_with(1, 0);
    pool = atomic_load(&executor->pool);
    wc_error_init(&err);
    for (int i = 0; i < 3; i++) {
        s[i].ns = hours[i];
        s[i].job.run = sleep_first;
        s[i].job.deliver = count_answer;
        s[i].job.free = keep_job;
        assert_int_equal(wc_executor_start(executor, &s[i].job, NULL, NULL, &err), 0);
    }
    while (!asleep) {
        pthread_mutex_lock(&pool->lock);
        asleep = pool->asleep.count == 3 && pool->idle == 1;
        pthread_mutex_unlock(&pool->lock);
        sched_yield();
    }
    wasmcache_executor_free(executor);
    wc_os_wait_hook = NULL;
    assert_int_equal(atomic_load(&answered), 3); /* they were ended */
    assert_true(atomic_load(&shortest) <= hours[1]);
    assert_true(atomic_load(&shortest) > hours[1] / 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(s[i].runs, 1);
}

/* ---- threads ---- */

static void many_processors_do_not_make_many_threads(void **state)
{
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL;
    (void)state;
    below_fail("sched_getaffinity", EINVAL, 1);
    below_give("sysconf", 500, 1);
    assert_int_equal(wasmcache_executor_new(&executor, &options), 0);
    assert_int_equal(below_off(), 0);
    assert_int_equal(executor->options.threads, 4);
    wasmcache_executor_free(executor);
}

/* ---- the end of a pool of the host's ---- */

static void at_the_end_a_pool_of_the_hosts_runs_only_what_it_has_to(void **state)
{
    struct rig *r = *state;
    struct pool pool;
    struct asked a, b;
    wasmcache_executor *executor = pool_executor(&pool, WASMCACHE_EXECUTOR_ON_WORKER);
    struct wc_pool *p = atomic_load(&executor->pool);
    pthread_t thread;
    int closing = 0;
    ask_get(&a, r, executor, "one", 0);
    ask_get(&b, r, executor, "two", 0);
    assert_int_equal(pthread_create(&thread, NULL, free_executor, executor), 0);
    while (!closing) { /* it waits for the pool from then on */
        pthread_mutex_lock(&p->lock);
        closing = p->closing;
        pthread_mutex_unlock(&p->lock);
        sched_yield();
    }
    run_pool(&pool);
    pthread_join(thread, NULL);
    assert_answered_once(&a);
    assert_answered_once(&b);
    assert_int_equal(a.error, WASMCACHE_EABORTED);
    assert_int_equal(b.error, WASMCACHE_EABORTED);
    assert_int_equal(r->engine.compiles, 0);
}

/* ---- who waits for whom ---- */

static int (*usual_compile)(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                            void **module, void **error);

/* Each module that begins so behind its own gate. */
static int compile_behind_two(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                              void **module, void **error)
{
    if (*(const char *)wasm == '1')
        gate_wait(&first_gate);
    if (*(const char *)wasm == '2')
        gate_wait(&second_gate);
    return usual_compile(engine, kind, wasm, length, module, error);
}

static int two_gates(void **state)
{
    struct rig *r;
    if (fixture_rig(state) < 0)
        return -1;
    r = *state;
    gate_init(&first_gate);
    gate_init(&second_gate);
    usual_compile = r->engine.table.compile;
    r->engine.table.compile = compile_behind_two;
    rig_open(r);
    return 0;
}

static void *get_first(void *rig)
{
    return rig_get(rig, "1", NULL) == 0 ? rig : NULL;
}

static void who_is_cancelled_with_the_answer_on_its_way_frees_it(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    struct asked a, b;
    pthread_t thread;
    void *got = NULL;
    assert_int_equal(pthread_create(&thread, NULL, get_first, r), 0);
    wait_for(&first_gate.inside, 1);
    ask_get(&a, r, executor, "1", 0); /* sleeps until the thread is done */
    while (rig_events_of(r, WASMCACHE_EVENT_WAIT) < 1)
        sched_yield();
    ask_get(&b, r, executor, "2", 0); /* has the only worker */
    wait_for(&second_gate.inside, 1);
    gate_open(&first_gate);
    pthread_join(thread, &got);
    assert_ptr_equal(got, r);
    assert_int_equal(wasmcache_request_cancel(a.handle), WASMCACHE_CANCEL_ASKED);
    gate_open(&second_gate);
    run_all(executor);
    assert_answered_once(&a);
    assert_answered_once(&b);
    assert_int_equal(a.error, WASMCACHE_EABORTED);
    assert_int_equal(b.error, 0);
    assert_int_equal(r->engine.live_modules, 0);
    wasmcache_executor_free(executor);
}

static char changing[] = "1";

static void *get_what_changes(void *rig)
{
    struct rig *r = rig;
    const wasmcache_source source = wasmcache_source_bytes(changing, 1);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    const int ok = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report) == 0 &&
                   report.save_error == WASMCACHE_EBUSY;
    wasmcache_module_release(module);
    return ok ? rig : NULL;
}

/* What a thread compiled of bytes that changed meanwhile is nobody's who waited for the key. */
static void who_waits_for_another_goes_on_waiting(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(3, WASMCACHE_EXECUTOR_ON_WORKER);
    struct wc_pool *p = atomic_load(&executor->pool);
    struct asked a[4];
    unsigned parked = 0;
    ask_get(&a[0], r, executor, "1", 0);
    ask_get(&a[1], r, executor, "2", 0);
    wait_for(&first_gate.inside, 1);
    wait_for(&second_gate.inside, 1);
    ask_get(&a[2], r, executor, "2", 0);
    ask_get(&a[3], r, executor, "1", 0);
    while (parked < 2) {
        pthread_mutex_lock(&p->lock);
        parked = p->parked.count;
        pthread_mutex_unlock(&p->lock);
        sched_yield();
    }
    gate_open(&first_gate);
    wait_for(&a[0].answers, 1);
    wait_for(&a[3].answers, 1);
    pthread_mutex_lock(&p->lock);
    parked = p->parked.count;
    pthread_mutex_unlock(&p->lock);
    assert_int_equal(parked, 1);
    assert_int_equal(a[1].answers + a[2].answers, 0);
    gate_open(&second_gate);
    for (int i = 0; i < 4; i++) {
        wait_for(&a[i].answers, 1);
        assert_int_equal(a[i].error, 0);
    }
    wasmcache_executor_free(executor);
    for (int i = 0; i < 4; i++)
        assert_answered_once(&a[i]);
    assert_int_equal(r->engine.compiles, 2);
}

static wasmcache_executor *dispatched;

static void dispatch_the_rest(struct asked *a)
{
    (void)a;
    assert_int_equal(wasmcache_executor_dispatch(dispatched), 1);
}

static void a_callback_may_dispatch_what_this_dispatch_had_still_to_do(void **state)
{
    struct rig *r = *state;
    struct pool pool;
    struct asked a, b;
    dispatched = pool_executor(&pool, 0);
    ask_contains(&a, r, dispatched, "wasm");
    ask_contains(&b, r, dispatched, "wasm");
    a.then = dispatch_the_rest;
    run_pool(&pool);
    assert_int_equal(wasmcache_executor_dispatch(dispatched), 1);
    assert_answered_once(&a);
    assert_answered_once(&b);
    assert_int_equal(wasmcache_executor_wait(dispatched, 0), 0);
    wasmcache_executor_free(dispatched);
}

static int (*usual_load)(void *engine, wasmcache_kind kind, const char *path, void **module,
                         void **error);

static int load_behind_gate(void *engine, wasmcache_kind kind, const char *path, void **module,
                            void **error)
{
    gate_wait(&first_gate);
    return usual_load(engine, kind, path, module, error);
}

static int gated_loads(void **state)
{
    struct rig *r;
    if (fixture_rig(state) < 0)
        return -1;
    r = *state;
    gate_init(&first_gate);
    usual_load = r->engine.table.deserialize_file;
    r->engine.table.deserialize_file = load_behind_gate;
    rig_open(r);
    return 0;
}

static void one_load_is_for_all_who_want_it(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    struct wc_pool *p = atomic_load(&executor->pool);
    struct asked a, b;
    unsigned parked = 0;
    assert_int_equal(rig_get(r, "wasm", NULL), 0);
    ask_load(&a, r, executor, "wasm");
    wait_for(&first_gate.inside, 1);
    ask_load(&b, r, executor, "wasm");
    while (!parked) {
        pthread_mutex_lock(&p->lock);
        parked = p->parked.count;
        pthread_mutex_unlock(&p->lock);
        sched_yield();
    }
    gate_open(&first_gate);
    run_all(executor);
    assert_answered_once(&a);
    assert_answered_once(&b);
    assert_int_equal(a.error, 0);
    assert_int_equal(b.error, 0);
    assert_int_equal(r->engine.files, 1);
    wasmcache_executor_free(executor);
}

static void a_module_of_other_bytes_is_not_handed_on(void **state)
{
    struct rig *r = *state;
    pthread_t leader, waiter;
    void *led = NULL, *got = NULL;
    changing[0] = '1';
    assert_int_equal(pthread_create(&leader, NULL, get_what_changes, r), 0);
    wait_for(&first_gate.inside, 1);
    assert_int_equal(pthread_create(&waiter, NULL, get_first, r), 0);
    while (rig_events_of(r, WASMCACHE_EVENT_WAIT) < 1)
        sched_yield();
    changing[0] = 'x';
    gate_open(&first_gate);
    pthread_join(leader, &led);
    pthread_join(waiter, &got); /* which was given the right one, or get_first() had failed */
    assert_ptr_equal(led, r);
    assert_ptr_equal(got, r);
    assert_int_equal(r->engine.compiles, 2);
}

static int refuse_at_gate(const wasmcache_progress *progress, void *payload)
{
    (void)payload;
    if (progress->phase != WASMCACHE_PHASE_COMPILE)
        return 0;
    gate_wait(&first_gate);
    return 1;
}

static void who_is_given_up_is_followed_by_its_own_waiters_only(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(3, 0); /* one of them to park others */
    struct wc_pool *pool = atomic_load(&executor->pool);
    const wasmcache_source source = wasmcache_source_bytes("one", 3);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    struct asked leader, other, one, two;
    unsigned parked = 0, done = 0;
    asked_init(&leader, r, "one");
    options.tick = refuse_at_gate;
    assert_int_equal(wasmcache_request_get(&leader.handle, executor, r->wc, WASMCACHE_MODULE,
                                           &source, &options, answer, &leader),
                     0);
    wait_for(&first_gate.inside, 1);
    ask_get(&other, r, executor, "2", 0);
    wait_for(&second_gate.inside, 1);
    ask_get(&two, r, executor, "2", 0);
    ask_get(&one, r, executor, "one", 0);
    while (parked < 2) {
        pthread_mutex_lock(&pool->lock);
        parked = pool->parked.count;
        pthread_mutex_unlock(&pool->lock);
        sched_yield();
    }
    gate_open(&first_gate);
    while (!done) { /* while another one's waiter is parked, too */
        pthread_mutex_lock(&pool->lock);
        done = pool->done.count;
        pthread_mutex_unlock(&pool->lock);
        sched_yield();
    }
    gate_open(&second_gate);
    run_all(executor);
    assert_answered_once(&leader);
    assert_answered_once(&other);
    assert_answered_once(&one);
    assert_answered_once(&two);
    assert_int_equal(leader.error, WASMCACHE_EABORTED);
    assert_int_equal(one.report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(two.report.outcome, WASMCACHE_JOINED);
    wasmcache_executor_free(executor);
}

/* ---- saves that come later ---- */

static wasmcache_executor *open_with_pool(struct rig *r, struct pool *pool)
{
    wasmcache_executor *executor = pool_executor(pool, 0);
    rig_close(r);
    r->options.save_executor = executor;
    rig_open(r);
    return executor;
}

static void what_another_attachment_has_on_its_way_is_not_waited_for(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes("wasm", 4);
    struct pool pool;
    wasmcache_executor *executor = open_with_pool(r, &pool);
    wasmcache_attachment *second = NULL;
    wasmcache_module *module = NULL;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    assert_int_equal(wasmcache_attach(&second, r->cache, &r->engine.table, &r->engine, &r->attach),
                     0);
    assert_int_equal(rig_get(r, "wasm", &report), 0);
    assert_int_equal(report.save_later, 1);
    assert_int_equal(wasmcache_get(&module, second, WASMCACHE_MODULE, &source, NULL, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED); /* its module would be another's */
    wasmcache_module_release(module);
    run_pool(&pool);
    assert_int_equal(rig_state(r, "wasm"), WASMCACHE_REASON_NONE);
    wasmcache_detach(second);
    rig_close(r);
    wasmcache_executor_free(executor);
    r->options.save_executor = NULL;
}

static void without_a_clone_it_is_saved_at_once(void **state)
{
    struct rig *r = *state;
    struct pool pool;
    wasmcache_executor *executor = open_with_pool(r, &pool);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->engine.fail_clone = 1;
    assert_int_equal(rig_get(r, "wasm", &report), 0);
    assert_int_equal(report.save_later, 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(pool.count, 0);
    assert_int_equal(rig_state(r, "wasm"), WASMCACHE_REASON_NONE);
    /* Nor is there one for who asks while it is on its way. */
    r->engine.fail_clone = 0;
    assert_int_equal(rig_get(r, "other", &report), 0);
    assert_int_equal(report.save_later, 1);
    r->engine.fail_clone = 1;
    assert_int_equal(rig_get(r, "other", &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    run_pool(&pool);
    assert_int_equal(rig_state(r, "other"), WASMCACHE_REASON_NONE);
    rig_close(r);
    wasmcache_executor_free(executor);
    r->options.save_executor = NULL;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)
#define GATES(name) cmocka_unit_test_setup_teardown(name, two_gates, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_child_without_descriptors_is_told_so),
        TEST(work_that_a_fork_copied_is_the_parents),
        TEST(a_callback_that_forks_comes_back_twice),
        TEST(at_the_end_a_pool_of_the_hosts_runs_only_what_it_has_to),
        TEST(a_worker_that_forked_ends_in_the_child),
        TEST(two_threads_of_a_child_make_one_pool),
        TEST(a_worker_sleeps_as_long_as_the_first_that_is_due),
        cmocka_unit_test_setup_teardown(who_is_cancelled_before_it_leads_does_not, fixture_rig,
                                        fixture_end),
        TEST(many_processors_do_not_make_many_threads),
        TEST(a_callback_may_dispatch_what_this_dispatch_had_still_to_do),
        GATES(who_would_wait_at_the_end_is_told_so),
        GATES(who_is_cancelled_with_the_answer_on_its_way_frees_it),
        GATES(who_waits_for_another_goes_on_waiting),
        cmocka_unit_test_setup_teardown(one_load_is_for_all_who_want_it, gated_loads, fixture_end),
        GATES(a_module_of_other_bytes_is_not_handed_on),
        GATES(who_is_given_up_is_followed_by_its_own_waiters_only),
        TEST(what_another_attachment_has_on_its_way_is_not_waited_for),
        TEST(without_a_clone_it_is_saved_at_once),
    };
    return cmocka_run_group_tests_name("requests, corners", tests, first_thread, NULL);
}
