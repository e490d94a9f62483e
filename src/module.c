/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of a module:
 *
 *   in one place   `refs` is how many references there are. Who takes it to 0 frees the module
 *   spread         the sum of `refs` and all stripes is. `refs` has the keeper's among them, which
 *                  is given back in no stripe, and so nothing can be freed
 *   gathering      stripes are closed one after the other, and what was in them is added to `refs`.
 *                  MANY are added first and taken off last, so that no partial sum is 0 or 1
 *
 * Each step of a count is one atomic operation on the thread's stripe, which gives back what was
 * there before. In the order of that stripe's changes it comes before the exchange that closes it,
 * and then is in what was gathered; or after it, sees CLOSED, and is done in `refs` instead. So it
 * counts once. What is added to a stripe that is closed is looked at by nobody.
 *
 * Who sees CLOSED has acquired what the closing thread released, MANY among it: its step in `refs`
 * comes after that. And each release is one of the stripe too, which the closing exchange acquires:
 * what other threads did with the module is done when it is freed.
 */
#include "module.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "stripe.h"

/* More than there can be references. */
#define MANY (INT64_C(1) << 40)

/* The lowest bit is CLOSED, the rest twice the count: of references that were taken in this stripe
 * less those that were given back in it. */
enum { CLOSED = 1, ONE = 2 };

struct stripe {
    _Alignas(WC_LINE) _Atomic int64_t count;
};

struct wasmcache_module {
    _Atomic int64_t refs;
    wasmcache_kind kind;
    void *native;
    void (*free_native)(wasmcache_kind kind, void *module);
    void *(*clone_native)(wasmcache_kind kind, void *module); /* NULL: the engine cannot */
    struct stripe *stripes;                                   /* behind this struct; NULL: none */
};

/* Where the stripes are in the memory of a module that has some. */
#define AT_STRIPES ((sizeof(wasmcache_module) + WC_LINE - 1) / WC_LINE * WC_LINE)

static wasmcache_module *fill(wasmcache_module *module, const wasmcache_engine_table *table,
                              wasmcache_kind kind, void *native)
{
    atomic_init(&module->refs, 1);
    module->kind = kind;
    module->native = native;
    module->free_native = table->module_free;
    module->clone_native = table->module_clone;
    module->stripes = NULL;
    return module;
}

wasmcache_module *wc_module_new(const wasmcache_engine_table *table, wasmcache_kind kind,
                                void *native)
{
    wasmcache_module *module = malloc(sizeof(*module));
    return module ? fill(module, table, kind, native) : NULL;
}

wasmcache_module *wc_module_new_striped(const wasmcache_engine_table *table, wasmcache_kind kind,
                                        void *native)
{
    void *memory;
    wasmcache_module *module;
    if (posix_memalign(&memory, WC_LINE, AT_STRIPES + WC_STRIPES * sizeof(struct stripe)))
        return NULL;
    module = fill(memory, table, kind, native);
    module->stripes = (struct stripe *)(void *)((char *)memory + AT_STRIPES);
    for (int i = 0; i < WC_STRIPES; i++)
        atomic_init(&module->stripes[i].count, CLOSED);
    return module;
}

void wc_module_spread(wasmcache_module *module)
{
    for (int i = 0; module->stripes && i < WC_STRIPES; i++)
        atomic_store_explicit(&module->stripes[i].count, 0, memory_order_relaxed);
}

static int is_closed(const struct stripe *stripe)
{
    return atomic_load_explicit(&stripe->count, memory_order_acquire) & CLOSED;
}

void wc_module_gather(wasmcache_module *module)
{
    int64_t taken = 0;
    if (!module->stripes || is_closed(&module->stripes[0])) /* by us: nobody else closes */
        return;
    atomic_fetch_add_explicit(&module->refs, MANY, memory_order_relaxed);
    for (int i = 0; i < WC_STRIPES; i++)
        taken += atomic_exchange_explicit(&module->stripes[i].count, CLOSED, memory_order_acq_rel);
    atomic_fetch_add_explicit(&module->refs, taken / ONE - MANY, memory_order_acq_rel);
}

/* Counts in the thread's stripe. 0: there is none that is open. */
static int count_in_stripe(wasmcache_module *module, int64_t by)
{
    return module->stripes && !(atomic_fetch_add_explicit(&module->stripes[wc_stripe()].count, by,
                                                          memory_order_acq_rel) &
                                CLOSED);
}

int wc_module_is_only(const wasmcache_module *module)
{
    int64_t count = atomic_load_explicit(&module->refs, memory_order_acquire);
    if (module->stripes && !is_closed(&module->stripes[0]))
        for (int i = 0; i < WC_STRIPES; i++)
            count += atomic_load_explicit(&module->stripes[i].count, memory_order_acquire) / ONE;
    return count == 1;
}

void *wasmcache_module_native(const wasmcache_module *module)
{
    return module ? module->native : NULL;
}

/* Is the caller's the only reference? While it is spread another one keeps it, and while it is
 * gathered `refs` has MANY. */
static int is_the_callers(const wasmcache_module *module)
{
    return (!module->stripes || is_closed(&module->stripes[wc_stripe()])) &&
           atomic_load_explicit(&module->refs, memory_order_acquire) == 1;
}

void *wasmcache_module_into_native(wasmcache_module *module)
{
    void *native = NULL;
    if (!module)
        return NULL;
    /* If ours is the only reference, nobody can make another meanwhile. */
    if (is_the_callers(module)) {
        native = module->native;
        free(module);
    } else if (module->clone_native) {
        native = module->clone_native(module->kind, module->native);
        if (native)
            wasmcache_module_release(module);
    }
    return native;
}

wasmcache_module *wasmcache_module_ref(wasmcache_module *module)
{
    if (module && !count_in_stripe(module, ONE))
        atomic_fetch_add_explicit(&module->refs, 1, memory_order_relaxed);
    return module;
}

void wasmcache_module_release(wasmcache_module *module)
{
    if (!module || count_in_stripe(module, -ONE) ||
        atomic_fetch_sub_explicit(&module->refs, 1, memory_order_acq_rel) != 1)
        return;
    module->free_native(module->kind, module->native);
    free(module);
}
