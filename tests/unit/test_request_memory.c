/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Executors and requests without memory: nothing is half started, and what was started is answered.
 * no-asan no-tsan: they have an allocator of their own, which this one would take the place of
 */
#include "asked.h"
#include "executor.h"
#include "fixture.h"
#include "module.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__GLIBC__)
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);

static atomic_int callocs_left;      /* the one that makes it 0 fails */
static atomic_size_t failing_malloc; /* a size, 0: none; once */
static atomic_size_t last_malloc;

void *malloc(size_t size)
{
    size_t expected = size;
    atomic_store(&last_malloc, size);
    if (size && atomic_compare_exchange_strong(&failing_malloc, &expected, 0)) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    if (atomic_load(&callocs_left) > 0 && atomic_fetch_sub(&callocs_left, 1) == 1) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_calloc(count, size);
}

static struct gate gate;

static int gated_rig(void **state)
{
    if (fixture_rig(state) < 0)
        return -1;
    gate_set(&gate, *state);
    rig_open(*state);
    return 0;
}

/* Executor, thread, request, and what the request does: 1 if an allocation was made to fail. */
static int with_failing_calloc(struct rig *r, int nth, unsigned *refused)
{
    const wasmcache_source source = wasmcache_source_bytes("wasm", 4);
    wasmcache_executor *executor = NULL;
    struct asked a;
    int rc, met;

    rig_reopen(r); /* so that the engine is looked at again */
    asked_init(&a, r, "wasm");
    atomic_store(&callocs_left, nth);
    rc = wasmcache_executor_new(&executor, NULL);
    if (rc == 0) {
        rc = wasmcache_request_get(&a.handle, executor, r->wc, WASMCACHE_MODULE, &source, NULL,
                                   answer, &a);
        if (rc == 0)
            run_all(executor);
    }
    met = atomic_exchange(&callocs_left, 0) == 0;
    if (rc < 0) {
        *refused += 1;
        assert_true(rc == WASMCACHE_ENOMEM || rc == WASMCACHE_EIO);
        assert_int_equal(a.answers, 0);
        assert_null(a.handle);
    } else {
        assert_answered_once(&a);
        assert_int_equal(a.error, 0);
    }
    wasmcache_executor_free(executor);
    return met;
}

static void each_allocation_may_fail(void **state)
{
    struct rig *r = *state;
    const unsigned threads = threads_here(), descriptors = scratch_descriptors();
    unsigned refused = 0;
    int nth = 1;
    while (with_failing_calloc(r, nth, &refused))
        nth++;
    assert_true(refused >= 3); /* the pool, its threads, the request */
    assert_true(nth > 3);
    assert_int_equal(threads_soon(threads), threads);
    assert_int_equal(scratch_descriptors(), descriptors);
    print_message("%d allocations, %u of them refused the start\n", nth - 1, refused);
}

static void an_executor_needs_memory(void **state)
{
    const unsigned descriptors = scratch_descriptors();
    wasmcache_executor *executor = NULL;
    (void)state;
    atomic_store(&failing_malloc, sizeof(*executor));
    assert_int_equal(wasmcache_executor_new(&executor, NULL), WASMCACHE_ENOMEM);
    atomic_store(&failing_malloc, 0);
    assert_null(executor);
    assert_int_equal(scratch_descriptors(), descriptors);
}

/* Its own want of memory: the others go on. */
static void a_leader_without_memory_for_its_module_is_followed_by_the_next(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    struct asked leader, next, known;
    void *native = fake_module_new(&r->engine, WASMCACHE_MODULE, "", 0);
    size_t size;

    wasmcache_module_release(wc_module_new(&r->engine.table, WASMCACHE_MODULE, native));
    size = atomic_load(&last_malloc);
    assert_int_equal(rig_save(r, "known", NULL), 0);
    ask_get(&leader, r, executor, "wasm", WASMCACHE_GET_NO_SAVE);
    wait_for(&gate.inside, 1);
    ask_get(&next, r, executor, "wasm", WASMCACHE_GET_NO_SAVE);
    ask_get(&known, r, executor, "known", 0); /* behind it, so that it is parked then */
    assert_int_equal(wasmcache_executor_wait(executor, -1), 1);
    atomic_store(&failing_malloc, size);
    gate_open(&gate);
    run_all(executor);
    assert_int_equal(atomic_load(&failing_malloc), 0);
    assert_answered_once(&leader);
    assert_int_equal(leader.error, WASMCACHE_ENOMEM);
    assert_answered_once(&next);
    assert_int_equal(next.error, 0);
    assert_int_equal(next.report.outcome, WASMCACHE_COMPILED);
    wasmcache_executor_free(executor);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)
#define GATED(name) cmocka_unit_test_setup_teardown(name, gated_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_allocation_may_fail),
        TEST(an_executor_needs_memory),
        GATED(a_leader_without_memory_for_its_module_is_followed_by_the_next),
    };
    return cmocka_run_group_tests(tests, first_thread, NULL);
}
#else
int main(void)
{
    return 77; /* there is no other name for the allocator */
}
#endif
