/* SPDX-License-Identifier: Apache-2.0 */
/* Counted references: the engine's module is freed once, by the last of them. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

#include "module.h"

static atomic_uint frees;
static wasmcache_kind freed_kind;
static void *freed;

static void count_free(wasmcache_kind kind, void *module)
{
    atomic_fetch_add(&frees, 1);
    freed_kind = kind;
    freed = module;
}

static const wasmcache_engine_table table = {.size = sizeof(table), .module_free = count_free};
static int native; /* stands for the engine's module */

static int reset(void **state)
{
    (void)state;
    atomic_store(&frees, 0);
    freed_kind = (wasmcache_kind)0;
    freed = NULL;
    return 0;
}

static void last_release_frees_once(void **state)
{
    wasmcache_module *module;
    (void)state;
    for (unsigned extra = 0; extra < 5; extra++) {
        reset(NULL);
        module = wc_module_new(&table, WASMCACHE_COMPONENT, &native);
        assert_non_null(module);
        assert_ptr_equal(wasmcache_module_native(module), &native);
        for (unsigned i = 0; i < extra; i++)
            assert_ptr_equal(wasmcache_module_ref(module), module);
        for (unsigned i = 0; i < extra; i++) {
            wasmcache_module_release(module);
            assert_int_equal(frees, 0);
            assert_ptr_equal(wasmcache_module_native(module), &native);
        }
        wasmcache_module_release(module);
        assert_int_equal(frees, 1);
        assert_ptr_equal(freed, &native);
        assert_int_equal(freed_kind, WASMCACHE_COMPONENT);
    }
}

static void the_only_reference_is_told_without_stripes_too(void **state)
{
    wasmcache_module *module = wc_module_new(&table, WASMCACHE_MODULE, &native);
    (void)state;
    assert_non_null(module);
    assert_true(wc_module_is_only(module));
    assert_ptr_equal(wasmcache_module_ref(module), module);
    assert_false(wc_module_is_only(module));
    wasmcache_module_release(module);
    assert_true(wc_module_is_only(module));
    wasmcache_module_release(module);
    assert_int_equal(frees, 1);
}

static void modules_are_counted_apart(void **state)
{
    int other;
    wasmcache_module *a = wc_module_new(&table, WASMCACHE_MODULE, &native);
    wasmcache_module *b = wc_module_new(&table, WASMCACHE_MODULE, &other);
    (void)state;
    assert_ptr_not_equal(a, b);
    wasmcache_module_ref(a);
    wasmcache_module_release(b);
    assert_int_equal(frees, 1);
    assert_ptr_equal(freed, &other);
    wasmcache_module_release(a);
    assert_int_equal(frees, 1);
    wasmcache_module_release(a);
    assert_int_equal(frees, 2);
    assert_ptr_equal(freed, &native);
    assert_int_equal(freed_kind, WASMCACHE_MODULE);
}

static void null_is_no_module(void **state)
{
    (void)state;
    assert_null(wasmcache_module_native(NULL));
    assert_null(wasmcache_module_ref(NULL));
    wasmcache_module_release(NULL);
    assert_int_equal(frees, 0);
}

/* ---- into_native ---- */

static int other; /* stands for a clone */
static unsigned clones;
static void *next_clone;

static void *count_clone(wasmcache_kind kind, void *module)
{
    assert_int_equal(kind, WASMCACHE_COMPONENT);
    assert_ptr_equal(module, &native);
    clones++;
    return next_clone;
}

static void the_only_reference_gives_the_module_itself(void **state)
{
    wasmcache_engine_table cloning = table;
    (void)state;
    cloning.module_clone = count_clone;
    clones = 0;
    for (int i = 0; i < 2; i++) {
        wasmcache_module *module =
            wc_module_new(i ? &cloning : &table, WASMCACHE_COMPONENT, &native);
        /* Others had it, and gave it back. */
        wasmcache_module_release(wasmcache_module_ref(module));
        assert_ptr_equal(wasmcache_module_into_native(module), &native);
        assert_int_equal(frees, 0); /* it is the caller's */
        assert_int_equal(clones, 0);
    }
}

static void of_a_shared_module_it_is_a_clone(void **state)
{
    wasmcache_engine_table cloning = table;
    wasmcache_module *module;
    (void)state;
    cloning.module_clone = count_clone;
    clones = 0;
    next_clone = &other;
    module = wc_module_new(&cloning, WASMCACHE_COMPONENT, &native);
    wasmcache_module_ref(module);
    assert_ptr_equal(wasmcache_module_into_native(module), &other);
    assert_int_equal(clones, 1);
    assert_int_equal(frees, 0);
    /* One reference was given back: the other is the last. */
    assert_ptr_equal(wasmcache_module_native(module), &native);
    wasmcache_module_release(module);
    assert_int_equal(frees, 1);
    assert_ptr_equal(freed, &native);
}

static void without_a_clone_the_reference_stays(void **state)
{
    wasmcache_engine_table cloning = table;
    (void)state;
    cloning.module_clone = count_clone;
    next_clone = NULL; /* no memory */
    for (int i = 0; i < 2; i++) {
        wasmcache_module *module =
            wc_module_new(i ? &cloning : &table, WASMCACHE_COMPONENT, &native);
        reset(NULL);
        wasmcache_module_ref(module);
        assert_null(wasmcache_module_into_native(module));
        wasmcache_module_release(module);
        assert_int_equal(frees, 0);
        /* Now it is the only one. */
        assert_ptr_equal(wasmcache_module_into_native(module), &native);
        assert_int_equal(frees, 0);
    }
    assert_null(wasmcache_module_into_native(NULL));
}

static void *take_and_give(void *argument)
{
    wasmcache_module *module = argument;
    for (int i = 0; i < 5000; i++) {
        wasmcache_module *mine = wasmcache_module_ref(module);
        if (wasmcache_module_native(mine) != &native)
            return module;
        wasmcache_module_release(mine);
    }
    wasmcache_module_release(module); /* the one that this thread was given */
    return NULL;
}

static void threads_share_a_module(void **state)
{
    enum { THREADS = 4 };
    pthread_t threads[THREADS];
    wasmcache_module *module = wc_module_new(&table, WASMCACHE_MODULE, &native);
    (void)state;
    assert_non_null(module);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, take_and_give, wasmcache_module_ref(module)), 0);
    wasmcache_module_release(module); /* ours goes first, the last thread's frees */
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    assert_int_equal(frees, 1);
    assert_ptr_equal(freed, &native);
}

/* ---- counted by stripe ---- */

static void *take(void *module)
{
    wasmcache_module_ref(module);
    return NULL;
}

static void *give_back(void *module)
{
    wasmcache_module_release(module);
    return NULL;
}

/* On a thread, and so in a stripe, of its own. */
static void elsewhere(void *(*what)(void *), wasmcache_module *module)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, what, module), 0);
    pthread_join(thread, NULL);
}

/* The keeper's reference; the caller's was made before it was spread. */
static wasmcache_module *new_kept(void)
{
    wasmcache_module *module = wc_module_new_striped(&table, WASMCACHE_MODULE, &native);
    assert_non_null(module);
    wasmcache_module_ref(module);
    wc_module_spread(module);
    return module;
}

static void what_is_spread_is_told_to_be_held(void **state)
{
    wasmcache_module *module = new_kept();
    (void)state;
    assert_false(wc_module_is_only(module));
    elsewhere(give_back, module);
    assert_true(wc_module_is_only(module));
    elsewhere(take, module);
    assert_false(wc_module_is_only(module));
    elsewhere(take, module);
    wasmcache_module_release(module);
    assert_false(wc_module_is_only(module));
    wasmcache_module_release(module);
    assert_true(wc_module_is_only(module));
    assert_int_equal(frees, 0);
    wc_module_gather(module);
    assert_true(wc_module_is_only(module));
    wasmcache_module_release(module);
    assert_int_equal(frees, 1);
    assert_ptr_equal(freed, &native);
}

static void who_keeps_it_may_go_first(void **state)
{
    wasmcache_module *module = new_kept();
    (void)state;
    elsewhere(take, module);
    elsewhere(take, module);
    elsewhere(give_back, module);
    wc_module_gather(module);
    wc_module_gather(module); /* no harm */
    assert_false(wc_module_is_only(module));
    elsewhere(give_back, module); /* the keeper's, so to say */
    assert_int_equal(frees, 0);
    elsewhere(take, module);
    elsewhere(give_back, module);
    assert_int_equal(frees, 0);
    elsewhere(give_back, module);
    assert_true(wc_module_is_only(module));
    elsewhere(give_back, module);
    assert_int_equal(frees, 1);
}

static void what_is_spread_is_not_taken_apart(void **state)
{
    wasmcache_module *module = new_kept();
    (void)state;
    wasmcache_module_release(module); /* the keeper's is the only one, and in one place */
    assert_null(wasmcache_module_into_native(module));
    wc_module_gather(module);
    assert_ptr_equal(wasmcache_module_into_native(module), &native);
    assert_int_equal(frees, 0);
    /* Nor by one whose reference is in a stripe, where the keeper's is all that `refs` has. */
    module = wc_module_new_striped(&table, WASMCACHE_MODULE, &native);
    wc_module_spread(module);
    wasmcache_module_ref(module);
    assert_null(wasmcache_module_into_native(module));
    wasmcache_module_release(module);
    wc_module_gather(module);
    wasmcache_module_release(module);
    assert_int_equal(frees, 1);
}

static void without_a_keeper_it_is_as_any_other(void **state)
{
    wasmcache_module *module = wc_module_new_striped(&table, WASMCACHE_MODULE, &native);
    (void)state;
    elsewhere(take, module);
    wc_module_gather(module);
    elsewhere(give_back, module);
    assert_true(wc_module_is_only(module));
    wasmcache_module_release(module);
    assert_int_equal(frees, 1);
    module = wc_module_new(&table, WASMCACHE_MODULE, &native); /* has no stripes */
    wc_module_spread(module);
    wc_module_gather(module);
    assert_true(wc_module_is_only(module));
    wasmcache_module_release(module);
    assert_int_equal(frees, 2);
}

static atomic_uint started;

static void *take_and_give_from_the_start(void *argument)
{
    wasmcache_module *module = argument;
    atomic_fetch_add(&started, 1);
    for (int i = 0; i < 2000; i++) {
        if (wasmcache_module_native(wasmcache_module_ref(module)) != &native)
            return module;
        wasmcache_module_release(module);
    }
    wasmcache_module_release(module);
    return NULL;
}

/* Gathered in the middle of what the others do; whoever comes last frees it, once. */
static void it_is_gathered_while_threads_use_it(void **state)
{
    enum { THREADS = 4, ROUNDS = 100 };
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        wasmcache_module *module = new_kept();
        reset(NULL);
        atomic_store(&started, 0);
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, take_and_give_from_the_start,
                                            wasmcache_module_ref(module)),
                             0);
        wasmcache_module_release(module);
        while (atomic_load(&started) < round % (THREADS + 1))
            ;
        wc_module_gather(module);
        wasmcache_module_release(module);
        for (int i = 0; i < THREADS; i++) {
            void *wrong;
            assert_int_equal(pthread_join(threads[i], &wrong), 0);
            assert_null(wrong);
        }
        assert_int_equal(frees, 1);
        assert_ptr_equal(freed, &native);
    }
}

enum { HANDED = 3000 };

static void *give_back_many(void *argument)
{
    wasmcache_module *module = argument;
    atomic_fetch_add(&started, 1);
    for (int i = 0; i < HANDED; i++)
        wasmcache_module_release(module);
    return NULL;
}

/* References that were taken in one stripe are given back in others, which are closed earlier: what
 * is in one place in between is not all there is. */
static void no_part_of_it_is_taken_for_all(void **state)
{
    enum { THREADS = 2, ROUNDS = 300 };
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        wasmcache_module *module = wc_module_new_striped(&table, WASMCACHE_MODULE, &native);
        reset(NULL);
        wc_module_spread(module);
        atomic_store(&started, 0);
        for (int i = 0; i < THREADS * HANDED; i++)
            wasmcache_module_ref(module);
        for (int i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, give_back_many, module), 0);
        while (atomic_load(&started) < 1 + round % THREADS)
            ;
        wc_module_gather(module);
        assert_int_equal(frees, 0);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
        assert_true(wc_module_is_only(module));
        assert_int_equal(frees, 0);
        wasmcache_module_release(module);
        assert_int_equal(frees, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(last_release_frees_once, reset),
        cmocka_unit_test_setup(the_only_reference_is_told_without_stripes_too, reset),
        cmocka_unit_test_setup(modules_are_counted_apart, reset),
        cmocka_unit_test_setup(null_is_no_module, reset),
        cmocka_unit_test_setup(the_only_reference_gives_the_module_itself, reset),
        cmocka_unit_test_setup(of_a_shared_module_it_is_a_clone, reset),
        cmocka_unit_test_setup(without_a_clone_the_reference_stays, reset),
        cmocka_unit_test_setup(threads_share_a_module, reset),
        cmocka_unit_test_setup(what_is_spread_is_told_to_be_held, reset),
        cmocka_unit_test_setup(who_keeps_it_may_go_first, reset),
        cmocka_unit_test_setup(what_is_spread_is_not_taken_apart, reset),
        cmocka_unit_test_setup(without_a_keeper_it_is_as_any_other, reset),
        cmocka_unit_test_setup(it_is_gathered_while_threads_use_it, reset),
        cmocka_unit_test_setup(no_part_of_it_is_taken_for_all, reset),
    };
    return cmocka_run_group_tests_name("module", tests, NULL, NULL);
}
