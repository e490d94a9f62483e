/* SPDX-License-Identifier: Apache-2.0 */
/* Executors: threads, descriptors, dispatch, wait, wake, a pool of the host's. */
#define _GNU_SOURCE
#include "asked.h"
#include "executor.h"
#include "fixture.h"
#include "seam.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
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

static int readable(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    assert_true(poll(&p, 1, 0) >= 0);
    return (p.revents & POLLIN) != 0;
}

static int waits_until_readable(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 30000) == 1;
}

/* ---- threads and descriptors ---- */

static void threads_are_made_when_needed_and_end_with_it(void **state)
{
    struct rig *r = *state;
    const unsigned threads = threads_here(), descriptors = scratch_descriptors();
    wasmcache_executor *executor = executor_with(3, 0);
    struct asked a[8];

    assert_int_equal(threads_here(), threads);
    assert_int_equal(scratch_descriptors(), descriptors + 1);
    ask_get(&a[0], r, executor, "0", 0);
    wait_for(&gate.inside, 1);
    assert_int_equal(threads_here(), threads + 1);
    ask_get(&a[1], r, executor, "1", 0);
    wait_for(&gate.inside, 2);
    assert_int_equal(threads_here(), threads + 2);
    for (int i = 2; i < 8; i++) {
        char *name = scratch_text(&r->scratch, "%d", i);
        ask_get(&a[i], r, executor, name, 0);
    }
    wait_for(&gate.inside, 3);
    assert_int_equal(threads_here(), threads + 3);
    gate_open(&gate);
    run_all(executor);
    assert_int_equal(threads_here(), threads + 3);
    wasmcache_executor_free(executor);
    assert_int_equal(threads_soon(threads), threads);
    assert_int_equal(scratch_descriptors(), descriptors);
}

static void one_that_is_idle_is_enough(void **state)
{
    struct rig *r = *state;
    const unsigned threads = threads_here();
    wasmcache_executor *executor = executor_with(4, 0);
    struct wc_pool *pool = atomic_load(&executor->pool);
    struct asked a;
    for (int i = 0; i < 50; i++) {
        unsigned idle = 0;
        ask_get(&a, r, executor, "wasm", 0);
        run_all(executor);
        while (!idle) { /* it delivers before it waits again */
            pthread_mutex_lock(&pool->lock);
            idle = pool->idle;
            pthread_mutex_unlock(&pool->lock);
        }
    }
    assert_int_equal(threads_here(), threads + 1);
    wasmcache_executor_free(executor);
}

static void by_default_there_are_as_many_as_cpus_and_at_most_four(void **state)
{
    const unsigned cpus = wc_os_cpus(), most = cpus < 4 ? cpus : 4;
    wasmcache_executor *executor = NULL;
    (void)state;
    assert_true(cpus >= 1);
    assert_int_equal(wasmcache_executor_new(&executor, NULL), 0);
    assert_int_equal(executor->options.threads, most);
    wasmcache_executor_free(executor);
    wasmcache_executor_free(NULL);
}

static sigset_t mask_of_worker;

static void look_at_mask(struct asked *a)
{
    (void)a;
    pthread_sigmask(SIG_SETMASK, NULL, &mask_of_worker);
}

static void threads_block_all_signals_and_the_hosts_mask_stays(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, WASMCACHE_EXECUTOR_ON_WORKER);
    sigset_t before, after, own;
    struct asked a;
    asked_init(&a, r, "wasm");
    a.then = look_at_mask;
    sigemptyset(&before);
    sigaddset(&before, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &before, &own);
    {
        const wasmcache_source source = wasmcache_source_bytes("wasm", 4);
        assert_int_equal(wasmcache_request_get(NULL, executor, r->wc, WASMCACHE_MODULE, &source,
                                               NULL, answer, &a),
                         0);
    }
    assert_int_equal(wasmcache_executor_wait(executor, -1), 0);
    pthread_sigmask(SIG_SETMASK, &own, &after);
    for (int i = 1; i < SIGRTMAX; i++) {
        assert_int_equal(sigismember(&before, i), sigismember(&after, i));
        /* glibc keeps 32 and 33 for itself. */
        if (i != SIGKILL && i != SIGSTOP && (i < 32 || i >= SIGRTMIN))
            assert_int_equal(sigismember(&mask_of_worker, i), 1);
    }
    wasmcache_executor_free(executor);
}

static void the_descriptor_is_readable_while_something_is_done(unsigned lacking, void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor;
    struct asked a[3];
    int fd;

    wc_os_lacking = lacking;
    executor = executor_with(1, 0);
    fd = wasmcache_executor_fd(executor);
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    for (int round = 0; round < 3; round++) {
        assert_false(readable(fd));
        assert_int_equal(wasmcache_executor_dispatch(executor), 0);
        for (int i = 0; i < 3; i++)
            ask_get(&a[i], r, executor, "wasm", 0);
        for (int done = 0; done < 3;) {
            int n;
            assert_true(waits_until_readable(fd));
            assert_true(readable(fd));
            n = wasmcache_executor_dispatch(executor);
            assert_in_range(n, 1, 3 - done);
            done += n;
        }
        assert_false(readable(fd));
        for (int i = 0; i < 3; i++)
            assert_answered_once(&a[i]);
    }
    wasmcache_executor_free(executor);
}

static void an_eventfd_tells_when_to_dispatch(void **state)
{
    the_descriptor_is_readable_while_something_is_done(0, state);
}

static void a_pipe_tells_it_too(void **state)
{
    const unsigned descriptors = scratch_descriptors();
    wasmcache_executor *executor;
    the_descriptor_is_readable_while_something_is_done(WC_OS_NO_EVENTFD, state);
    executor = executor_with(1, 0);
    assert_int_equal(scratch_descriptors(), descriptors + 2);
    wasmcache_executor_free(executor);
    assert_int_equal(scratch_descriptors(), descriptors);
}

static void a_bell_that_rang_often_is_hushed_at_once(void **state)
{
    (void)state;
    for (unsigned lacking = 0; lacking <= WC_OS_NO_EVENTFD; lacking += WC_OS_NO_EVENTFD) {
        struct wc_os_bell bell = WC_OS_BELL_INIT;
        wc_os_lacking = lacking;
        assert_int_equal(wc_os_bell_open(&bell), 0);
        assert_int_equal(bell.fd == bell.ring_fd, !lacking);
        assert_false(readable(bell.fd));
        wc_os_bell_hush(&bell);
        for (int i = 0; i < 100000; i++) /* more than a pipe holds */
            wc_os_bell_ring(&bell);
        assert_true(readable(bell.fd));
        wc_os_bell_hush(&bell);
        assert_false(readable(bell.fd));
        wc_os_bell_close(&bell);
        wc_os_bell_close(&bell);
    }
}

/* ---- dispatch, wait, wake ---- */

static struct asked again;
static wasmcache_executor *the_executor;

/* What a callback starts is for the next dispatch: the loop gets its turn. */
static void ask_again_and_wait(struct asked *a)
{
    struct wc_pool *pool = atomic_load(&the_executor->pool);
    unsigned done = 0;
    ask_get(&again, a->r, the_executor, "wasm", 0);
    while (!done) {
        pthread_mutex_lock(&pool->lock);
        done = pool->done.count;
        pthread_mutex_unlock(&pool->lock);
    }
}

static void a_dispatch_ends_with_what_was_done_when_it_began(void **state)
{
    struct rig *r = *state;
    struct asked a;
    the_executor = executor_with(1, 0);
    ask_get(&a, r, the_executor, "wasm", 0);
    a.then = ask_again_and_wait;
    assert_int_equal(wasmcache_executor_wait(the_executor, -1), 1);
    assert_int_equal(wasmcache_executor_dispatch(the_executor), 1);
    assert_int_equal(again.answers, 0);
    assert_true(readable(wasmcache_executor_fd(the_executor)));
    assert_int_equal(wasmcache_executor_dispatch(the_executor), 1);
    assert_answered_once(&again);
    wasmcache_executor_free(the_executor);
}

static struct asked *order[10];
static unsigned ordered;

static void note_order(struct asked *a)
{
    order[ordered++] = a;
}

static void callbacks_come_in_the_order_of_the_results(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    struct asked a[10];
    ordered = 0;
    for (int i = 0; i < 10; i++) {
        ask_contains(&a[i], r, executor, "wasm");
        a[i].then = note_order;
    }
    run_all(executor);
    assert_int_equal(ordered, 10);
    for (int i = 0; i < 10; i++)
        assert_ptr_equal(order[i], &a[i]);
    wasmcache_executor_free(executor);
}

static void wait_says_whether_there_is_something(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    struct asked a;
    assert_int_equal(wasmcache_executor_wait(executor, -1), 0); /* nothing to wait for */
    ask_get(&a, r, executor, "wasm", 0);
    assert_int_equal(wasmcache_executor_wait(executor, 0), 0);
    assert_int_equal(wasmcache_executor_wait(executor, 1), 0); /* the gate is shut */
    gate_open(&gate);
    assert_int_equal(wasmcache_executor_wait(executor, 30000), 1);
    assert_int_equal(wasmcache_executor_wait(executor, 0), 1);
    assert_int_equal(wasmcache_executor_dispatch(executor), 1);
    assert_int_equal(wasmcache_executor_wait(executor, 0), 0);
    wasmcache_executor_free(executor);
}

static void wake_is_called_for_each_result(void **state)
{
    struct rig *r = *state;
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL, *with_host;
    struct host_pool host;
    struct asked a[5];
    host_pool_init(&host, 1);
    with_host = host_pool_executor(&host, 0);
    options = with_host->options; /* its wake, with threads of our own */
    options.submit = NULL;
    assert_int_equal(wasmcache_executor_new(&executor, &options), 0);
    for (int i = 0; i < 5; i++)
        ask_contains(&a[i], r, executor, "wasm"); /* these never join */
    wait_for(&host.woken, 5);
    assert_int_equal(wasmcache_executor_dispatch(executor), 5);
    assert_int_equal(host.woken, 5);
    wasmcache_executor_free(executor);
    assert_int_equal(host.woken, 5);
    wasmcache_executor_free(with_host);
    host_pool_end(&host);
}

/* ---- a pool of the host's ---- */

static void the_hosts_pool_runs_what_is_submitted(void **state)
{
    struct rig *r = *state;
    const unsigned threads = threads_here();
    struct host_pool host;
    wasmcache_executor *executor;
    struct asked a[20];
    host_pool_init(&host, 2);
    executor = host_pool_executor(&host, 0);
    for (int i = 0; i < 20; i++)
        ask_get(&a[i], r, executor, i % 2 ? "odd" : "even", 0);
    run_all(executor);
    for (int i = 0; i < 20; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].error, 0);
    }
    assert_int_equal(r->engine.compiles, 2);
    assert_int_equal(host.submitted, 20);
    assert_true(host.woken >= 1);
    assert_int_equal(threads_here(), threads + 2); /* the host's */
    wasmcache_executor_free(executor);
    host_pool_end(&host);
    assert_int_equal(host.ran, 20);
}

static void callbacks_come_on_the_hosts_threads_if_asked_for(void **state)
{
    struct rig *r = *state;
    struct host_pool host;
    wasmcache_executor *executor;
    struct asked a[20];
    host_pool_init(&host, 2);
    executor = host_pool_executor(&host, WASMCACHE_EXECUTOR_ON_WORKER);
    for (int i = 0; i < 20; i++)
        ask_get(&a[i], r, executor, "wasm", 0);
    assert_int_equal(wasmcache_executor_wait(executor, -1), 0);
    for (int i = 0; i < 20; i++) {
        assert_answered_once(&a[i]);
        assert_false(pthread_equal(a[i].thread, pthread_self()));
    }
    assert_int_equal(host.woken, 0);
    wasmcache_executor_free(executor);
    host_pool_end(&host);
}

static void what_the_pool_refuses_did_not_happen(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes("wasm", 4);
    struct host_pool host;
    wasmcache_executor *executor;
    struct asked a;
    host_pool_init(&host, 1);
    executor = host_pool_executor(&host, 0);
    host.refuse = 1;
    asked_init(&a, r, "wasm");
    a.handle = (wasmcache_request *)&a;
    assert_int_equal(wasmcache_request_get(&a.handle, executor, r->wc, WASMCACHE_MODULE, &source,
                                           NULL, answer, &a),
                     WASMCACHE_EABORTED);
    assert_string_equal(wasmcache_last_error()->call, "submit");
    assert_null(a.handle);
    assert_int_equal(wasmcache_executor_wait(executor, -1), 0); /* nothing is outstanding */
    host.refuse = 0;
    ask_get(&a, r, executor, "wasm", 0);
    run_all(executor);
    assert_answered_once(&a);
    wasmcache_executor_free(executor);
    host_pool_end(&host);
}

/* ---- small stacks ---- */

static void a_stack_of_64_kib_is_enough_for_a_miss_and_a_hit(void **state)
{
    struct rig *r = *state;
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL;
    char *file = scratch_in(&r->scratch, "file.wasm");
    const wasmcache_source source = wasmcache_source_path(file);
    struct asked a;
    options.threads = 1;
    options.stack = 64 * 1024;
    scratch_write(file, "wasm", 4, 0600);
    assert_int_equal(wasmcache_executor_new(&executor, &options), 0);
    for (int i = 0; i < 2; i++) {
        ask_source(&a, r, executor, "wasm", &source);
        run_all(executor);
        assert_answered_once(&a);
        assert_int_equal(a.report.outcome, i ? WASMCACHE_HIT : WASMCACHE_COMPILED);
        assert_int_equal(a.report.save_error, 0);
    }
    wasmcache_executor_free(executor);
}

/* ---- misuse and failures ---- */

static void options_that_cannot_be_are_misuse(void **state)
{
    wasmcache_executor_options good = WASMCACHE_EXECUTOR_OPTIONS_INIT, bad;
    wasmcache_executor *executor;
    const unsigned descriptors = scratch_descriptors();
    struct host_pool host;
    (void)state;
    host_pool_init(&host, 0);
#define REFUSED(change)                                                                            \
    do {                                                                                           \
        bad = good;                                                                                \
        change;                                                                                    \
        executor = (wasmcache_executor *)&bad;                                                     \
        assert_int_equal(wasmcache_executor_new(&executor, &bad), WASMCACHE_EMISUSE);              \
        assert_null(executor);                                                                     \
    } while (0)
    REFUSED(bad.flags = 2);
    REFUSED(bad.threads = 1025);
    REFUSED(bad.stack = 1024);
    REFUSED(bad.stack = SIZE_MAX);
    REFUSED(bad.size = 8);
    executor = host_pool_executor(&host, 0);
    good = executor->options;
    wasmcache_executor_free(executor);
    REFUSED(bad.threads = 1);
    REFUSED(bad.stack = 65536);
    assert_int_equal(wasmcache_executor_new(NULL, NULL), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_executor_fd(NULL), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_executor_dispatch(NULL), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_executor_wait(NULL, 0), WASMCACHE_EMISUSE);
    assert_int_equal(scratch_descriptors(), descriptors);
}

static void failures_of_the_system_leave_nothing(void **state)
{
    struct rig *r = *state;
    const unsigned threads = threads_here(), descriptors = scratch_descriptors();
    const wasmcache_source source = wasmcache_source_bytes("wasm", 4);
    wasmcache_executor *executor = NULL;
    struct asked a, b;

    seam_fail_call("bell_open", 1, EMFILE);
    assert_int_equal(wasmcache_executor_new(&executor, NULL), WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->system_errno, EMFILE);
    assert_null(executor);
    seam_off();
    executor = executor_with(2, 0);
    asked_init(&a, r, "wasm");
#define START                                                                                      \
    wasmcache_request_get(&a.handle, executor, r->wc, WASMCACHE_MODULE, &source, NULL, answer, &a)
    seam_fail_call("thread_start", 1, EAGAIN);
    assert_int_equal(START, WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->system_errno, EAGAIN);
    assert_null(a.handle);
    assert_int_equal(wasmcache_executor_wait(executor, -1), 0);
    seam_off();
    assert_int_equal(START, 0);
    wait_for(&gate.inside, 1);
    /* With one thread there, others that cannot be had are done without. The hook is set while that
     * one stands at the gate. */
    seam_fail_call("thread_start", 1, EAGAIN);
    ask_get(&b, r, executor, "other", 0);
    assert_int_equal(seam_met(), 1);
    seam_off();
    assert_int_equal(threads_here(), threads + 1);
    gate_open(&gate);
    run_all(executor);
    assert_answered_once(&a);
    assert_answered_once(&b);
    wasmcache_executor_free(executor);
    assert_int_equal(threads_soon(threads), threads);
    assert_int_equal(scratch_descriptors(), descriptors);
}

/* A process asks once, so this comes first. */
static int stay_loaded_fails(void *argument)
{
    struct rig *r = argument;
    const wasmcache_source source = wasmcache_source_bytes("wasm", 4);
    wasmcache_executor *executor = NULL;
    struct asked a;
    if (wasmcache_executor_new(&executor, NULL))
        return 1;
    asked_init(&a, r, "wasm");
    seam_fail_call("stay_loaded", 1, ENOMEM);
    if (START != WASMCACHE_ENOMEM || !seam_met() || threads_here() != 1)
        return 2;
    seam_off();
    if (START != 0)
        return 3;
    wasmcache_executor_free(executor);
    return a.answers == 1 ? 0 : 4;
}

static void a_library_that_could_be_unloaded_starts_no_thread(void **state)
{
#if defined(__SANITIZE_THREAD__)
    skip(); /* it allows no thread after a fork */
#endif
    assert_int_equal(scratch_child(stay_loaded_fails, *state, 0, 30), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)
#define GATED(name) cmocka_unit_test_setup_teardown(name, gated_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_library_that_could_be_unloaded_starts_no_thread),
        GATED(threads_are_made_when_needed_and_end_with_it),
        TEST(one_that_is_idle_is_enough),
        TEST(by_default_there_are_as_many_as_cpus_and_at_most_four),
        TEST(threads_block_all_signals_and_the_hosts_mask_stays),
        TEST(an_eventfd_tells_when_to_dispatch),
        TEST(a_pipe_tells_it_too),
        TEST(a_bell_that_rang_often_is_hushed_at_once),
        TEST(a_dispatch_ends_with_what_was_done_when_it_began),
        TEST(callbacks_come_in_the_order_of_the_results),
        GATED(wait_says_whether_there_is_something),
        TEST(wake_is_called_for_each_result),
        TEST(the_hosts_pool_runs_what_is_submitted),
        TEST(callbacks_come_on_the_hosts_threads_if_asked_for),
        TEST(what_the_pool_refuses_did_not_happen),
        TEST(a_stack_of_64_kib_is_enough_for_a_miss_and_a_hit),
        TEST(options_that_cannot_be_are_misuse),
        GATED(failures_of_the_system_leave_nothing),
    };
    return cmocka_run_group_tests(tests, first_thread, NULL);
}
