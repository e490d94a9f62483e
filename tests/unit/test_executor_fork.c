/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Executors and fork: a child starts anew, whatever the parent's threads held at that moment.
 * no-tsan: the children start threads, which it does not allow after a fork
 */
#include "asked.h"
#include "executor.h"
#include "fixture.h"

#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct gate gate;

static int gated_rig(void **state)
{
    if (fixture_rig(state) < 0)
        return -1;
    gate_set(&gate, *state);
    rig_open(*state);
    return 0;
}

struct family {
    struct rig *r;
    wasmcache_executor *executor;
    struct asked *parents;
    unsigned parents_count;
};

static int parents_were_answered(const struct family *f)
{
    for (unsigned i = 0; i < f->parents_count; i++)
        if (f->parents[i].answers)
            return 1;
    return 0;
}

/* 0: all as it should be. */
static int use_in_child(void *argument)
{
    const struct family *f = argument;
    struct pollfd p = {-1, POLLIN, 0};
    struct asked a, b;
    if (threads_here() != 1)
        return 1;
    if (wasmcache_executor_dispatch(f->executor) != 0 || parents_were_answered(f))
        return 2;
    for (unsigned i = 0; i < f->parents_count; i++)
        if (wasmcache_request_cancel(f->parents[i].handle) != WASMCACHE_EMISUSE)
            return 3;
    p.fd = wasmcache_executor_fd(f->executor);
    if (p.fd < 0 || poll(&p, 1, 0) != 0)
        return 4;
    gate_init(&gate); /* the parent's may be locked */
    gate_open(&gate);
    ask_get(&a, f->r, f->executor, "child", 0);
    ask_get(&b, f->r, f->executor, "!child", 0);
    run_all(f->executor);
    if (a.answers != 1 || a.error || !a.right || b.answers != 1 || b.error != WASMCACHE_EENGINE)
        return 5;
    wasmcache_executor_free(f->executor);
    return threads_soon(1) != 1 ? 6 : parents_were_answered(f) ? 7 : 0;
}

static int free_in_child(void *argument)
{
    const struct family *f = argument;
    wasmcache_executor_free(f->executor);
    return parents_were_answered(f);
}

/* Running, parked, queued and done in the parent. */
static void a_child_has_a_fresh_executor(void **state)
{
    struct rig *r = *state;
    struct asked a[5];
    struct family f = {r, executor_with(2, 0), a, 5};
    assert_int_equal(rig_save(r, "known", NULL), 0);
    ask_get(&a[0], r, f.executor, "known", 0);
    assert_int_equal(wasmcache_executor_wait(f.executor, -1), 1);
    ask_get(&a[1], r, f.executor, "one", 0);
    ask_get(&a[2], r, f.executor, "two", 0);
    wait_for(&gate.inside, 2);
    ask_get(&a[3], r, f.executor, "one", 0);
    ask_get(&a[4], r, f.executor, "three", 0);
    assert_int_equal(scratch_child(use_in_child, &f, 0, 30), 0); /* 100 + SIGALRM: it hung */
    assert_int_equal(scratch_child(free_in_child, &f, 0, 30), 0);
    gate_open(&gate);
    run_all(f.executor);
    for (int i = 0; i < 5; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].error, 0);
    }
    wasmcache_executor_free(f.executor);
}

static int grandchild(void *argument)
{
    struct family *f = argument;
    struct asked a;
    gate_init(&gate);
    gate_open(&gate);
    ask_get(&a, f->r, f->executor, "grand", 0);
    run_all(f->executor);
    return scratch_child(use_in_child, f, 0, 20);
}

static void a_grandchild_too(void **state)
{
    struct rig *r = *state;
    struct asked a;
    struct family f = {r, executor_with(2, 0), &a, 1};
    ask_get(&a, r, f.executor, "wasm", 0);
    wait_for(&gate.inside, 1);
    assert_int_equal(scratch_child(grandchild, &f, 0, 30), 0);
    gate_open(&gate);
    run_all(f.executor);
    assert_answered_once(&a);
    wasmcache_executor_free(f.executor);
}

/* Forks while threads take and give back the pool's lock all the time. */
static atomic_bool stop;

static void *keep_busy(void *argument)
{
    struct family *f = argument;
    while (!atomic_load(&stop)) {
        struct asked a[4];
        for (int i = 0; i < 4; i++)
            ask_contains(&a[i], f->r, f->executor, "busy");
        for (int i = 0; i < 4; i++)
            while (!a[i].answers)
                wasmcache_executor_dispatch(f->executor);
    }
    return NULL;
}

static void at_any_moment(void **state)
{
    struct rig *r = *state;
    struct family f = {r, executor_with(2, 0), NULL, 0};
    pthread_t thread;
#if defined(__SANITIZE_ADDRESS__)
    printf("skipped: the sanitizer's allocator may be locked when we fork\n");
    wasmcache_executor_free(f.executor);
    skip();
#endif
    gate_open(&gate);
    assert_int_equal(rig_save(r, "busy", NULL), 0);
    atomic_store(&stop, 0);
    assert_int_equal(pthread_create(&thread, NULL, keep_busy, &f), 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(scratch_child(i % 4 ? use_in_child : free_in_child, &f, 0, 30), 0);
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    wasmcache_executor_free(f.executor);
}

/* In a callback; the child goes on inside the parent's dispatch. */
static struct {
    struct family family;
    int status;
} forked;

static void fork_here(struct asked *a)
{
    pid_t pid = fork();
    (void)a;
    if (pid == 0) {
        forked.status = -1;
        return;
    }
    forked.status = scratch_wait(pid);
}

static void a_callback_may_fork(void **state)
{
    struct rig *r = *state;
    const pid_t parent = getpid();
    struct asked a[3];
    int n;
    gate_open(&gate);
    forked.family.r = r;
    forked.family.executor = executor_with(1, 0);
    for (int i = 0; i < 3; i++)
        ask_get(&a[i], r, forked.family.executor, "wasm", 0);
    a[0].then = fork_here;
    wait_for(&gate.inside, 1);
    while (wasmcache_executor_wait(forked.family.executor, -1) == 1) {
        n = wasmcache_executor_dispatch(forked.family.executor);
        if (getpid() != parent) { /* the child: the other two were not answered here */
            struct asked mine;
            alarm(30);
            if (n != 1 || a[1].answers || a[2].answers)
                _exit(1);
            ask_get(&mine, r, forked.family.executor, "mine", 0);
            run_all(forked.family.executor);
            wasmcache_executor_free(forked.family.executor);
            _exit(mine.answers == 1 && mine.right ? 0 : 2);
        }
    }
    assert_int_equal(forked.status, 0);
    for (int i = 0; i < 3; i++)
        assert_answered_once(&a[i]);
    wasmcache_executor_free(forked.family.executor);
}

#define GATED(name) cmocka_unit_test_setup_teardown(name, gated_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GATED(a_child_has_a_fresh_executor),
        GATED(a_grandchild_too),
        GATED(at_any_moment),
        GATED(a_callback_may_fork),
    };
    return cmocka_run_group_tests(tests, first_thread, NULL);
}
