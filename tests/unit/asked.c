/* SPDX-License-Identifier: Apache-2.0 */
#include "asked.h"

#include <dirent.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

wasmcache_executor *executor_with(unsigned threads, unsigned flags)
{
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL;
    options.threads = threads;
    options.flags = flags;
    assert_int_equal(wasmcache_executor_new(&executor, &options), 0);
    return executor;
}

void answer(wasmcache_request *request, const wasmcache_result *result, void *payload)
{
    struct asked *a = payload;
    (void)request;
    a->error = result->error;
    a->system_errno = result->detail->system_errno;
    snprintf(a->call, sizeof(a->call), "%s", result->detail->call);
    snprintf(a->message, sizeof(a->message), "%s", result->detail->message);
    a->report = *result->report;
    a->thread = pthread_self();
    a->has_module = result->module != NULL;
    if (result->module)
        a->right = fake_module_is(wasmcache_module_native(result->module), WASMCACHE_MODULE,
                                  a->r->engine.configuration, a->wasm, strlen(a->wasm));
    wasmcache_module_release(result->module);
    if (a->then)
        a->then(a);
    atomic_fetch_add(&a->answers, 1); /* the last thing: others wait for it */
}

void asked_init(struct asked *a, struct rig *r, const char *wasm)
{
    memset(a, 0, sizeof(*a));
    a->r = r;
    a->wasm = wasm;
}

void ask_source(struct asked *a, struct rig *r, wasmcache_executor *executor, const char *wasm,
                const wasmcache_source *source)
{
    asked_init(a, r, wasm);
    assert_int_equal(wasmcache_request_get(&a->handle, executor, r->wc, WASMCACHE_MODULE, source,
                                           NULL, answer, a),
                     0);
}

void ask_get(struct asked *a, struct rig *r, wasmcache_executor *executor, const char *wasm,
             unsigned flags)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    options.flags = flags;
    asked_init(a, r, wasm);
    assert_int_equal(wasmcache_request_get(&a->handle, executor, r->wc, WASMCACHE_MODULE, &source,
                                           &options, answer, a),
                     0);
}

void ask_load(struct asked *a, struct rig *r, wasmcache_executor *executor, const char *wasm)
{
    const wasmcache_key key = rig_key(wasm);
    asked_init(a, r, wasm);
    assert_int_equal(
        wasmcache_request_load(&a->handle, executor, r->wc, WASMCACHE_MODULE, &key, answer, a), 0);
}

void ask_contains(struct asked *a, struct rig *r, wasmcache_executor *executor, const char *wasm)
{
    const wasmcache_key key = rig_key(wasm);
    asked_init(a, r, wasm);
    assert_int_equal(
        wasmcache_request_contains(&a->handle, executor, r->wc, WASMCACHE_MODULE, &key, answer, a),
        0);
}

void run_all(wasmcache_executor *executor)
{
    int rc;
    while ((rc = wasmcache_executor_wait(executor, 30000)) == 1)
        assert_true(wasmcache_executor_dispatch(executor) >= 0);
    assert_int_equal(rc, 0);
}

void wait_for(const atomic_uint *count, unsigned value)
{
    while (atomic_load(count) < value)
        sched_yield();
}

void assert_answered_once(const struct asked *a)
{
    assert_int_equal(a->answers, 1);
    assert_int_equal(a->has_module, a->error == 0);
    assert_int_equal(a->right, a->has_module);
    if (a->error)
        assert_true(a->message[0] != '\0');
    else
        assert_string_equal(a->message, "");
}

static void *end_at_once(void *argument)
{
    return argument;
}

int first_thread(void **state)
{
    pthread_t thread;
    (void)state;
    return pthread_create(&thread, NULL, end_at_once, NULL) || pthread_join(thread, NULL);
}

unsigned threads_here(void)
{
    DIR *dir = opendir("/proc/self/task");
    unsigned count = 0;
    assert_non_null(dir);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

unsigned threads_soon(unsigned expected)
{
    unsigned now = threads_here();
    for (int i = 0; i < 1000000 && now != expected; i++) {
        sched_yield();
        now = threads_here();
    }
    return now;
}

/* ---- the gate ---- */

static struct {
    struct gate *gate;
    int (*compile)(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                   void **module, void **error);
} gated;

static int compile_behind_gate(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                               void **module, void **error)
{
    gate_wait(gated.gate);
    return gated.compile(engine, kind, wasm, length, module, error);
}

void gate_init(struct gate *gate)
{
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->moved, NULL);
    gate->open = 0;
    atomic_store(&gate->inside, 0);
}

void gate_set(struct gate *gate, struct rig *r)
{
    gate_init(gate);
    gated.gate = gate;
    gated.compile = r->engine.table.compile;
    r->engine.table.compile = compile_behind_gate;
}

void gate_wait(struct gate *gate)
{
    atomic_fetch_add(&gate->inside, 1);
    pthread_mutex_lock(&gate->lock);
    while (!gate->open)
        pthread_cond_wait(&gate->moved, &gate->lock);
    pthread_mutex_unlock(&gate->lock);
}

void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = 1;
    pthread_cond_broadcast(&gate->moved);
    pthread_mutex_unlock(&gate->lock);
}

/* ---- a pool of the host's ---- */

static void *host_thread(void *argument)
{
    struct host_pool *pool = argument;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct host_work *work = pool->held ? NULL : pool->first;
        if (work) {
            pool->first = work->next;
            pthread_mutex_unlock(&pool->lock);
            work->work(work->argument);
            free(work);
            atomic_fetch_add(&pool->ran, 1);
            pthread_mutex_lock(&pool->lock);
        } else if (pool->ending) {
            break;
        } else {
            pthread_cond_wait(&pool->moved, &pool->lock);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int host_submit(void (*work)(void *argument), void *argument, void *payload)
{
    struct host_pool *pool = payload;
    struct host_work *item;
    if (pool->refuse)
        return 1;
    item = malloc(sizeof(*item));
    if (!item)
        return 1;
    item->work = work;
    item->argument = argument;
    pthread_mutex_lock(&pool->lock);
    item->next = pool->first; /* the last one first: no order was promised */
    pool->first = item;
    pthread_cond_signal(&pool->moved);
    pthread_mutex_unlock(&pool->lock);
    atomic_fetch_add(&pool->submitted, 1);
    return 0;
}

static void host_wake(void *payload)
{
    struct host_pool *pool = payload;
    atomic_fetch_add(&pool->woken, 1);
}

void host_pool_init(struct host_pool *pool, unsigned threads)
{
    memset(pool, 0, sizeof(*pool));
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->moved, NULL);
    for (; pool->thread_count < threads; pool->thread_count++)
        assert_int_equal(
            pthread_create(&pool->threads[pool->thread_count], NULL, host_thread, pool), 0);
}

void host_pool_hold(struct host_pool *pool, int held)
{
    pthread_mutex_lock(&pool->lock);
    pool->held = held;
    pthread_cond_broadcast(&pool->moved);
    pthread_mutex_unlock(&pool->lock);
}

void host_pool_end(struct host_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->ending = 1;
    pool->held = 0;
    pthread_cond_broadcast(&pool->moved);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    assert_null(pool->first);
}

wasmcache_executor *host_pool_executor(struct host_pool *pool, unsigned flags)
{
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL;
    options.flags = flags;
    options.submit = host_submit;
    options.wake = host_wake;
    options.payload = pool;
    assert_int_equal(wasmcache_executor_new(&executor, &options), 0);
    return executor;
}
