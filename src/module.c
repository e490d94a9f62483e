/* SPDX-License-Identifier: Apache-2.0 */
#include "module.h"

#include <stdatomic.h>
#include <stdlib.h>

struct wasmcache_module {
    atomic_uint refs;
    wasmcache_kind kind;
    void *native;
    void (*free_native)(wasmcache_kind kind, void *module);
    void *(*clone_native)(wasmcache_kind kind, void *module); /* NULL: the engine cannot */
};

wasmcache_module *wc_module_new(const wasmcache_engine_table *table, wasmcache_kind kind,
                                void *native)
{
    wasmcache_module *module = malloc(sizeof(*module));
    if (!module)
        return NULL;
    atomic_init(&module->refs, 1);
    module->kind = kind;
    module->native = native;
    module->free_native = table->module_free;
    module->clone_native = table->module_clone;
    return module;
}

int wc_module_is_only(const wasmcache_module *module)
{
    return atomic_load_explicit(&module->refs, memory_order_acquire) == 1;
}

void *wasmcache_module_native(const wasmcache_module *module)
{
    return module ? module->native : NULL;
}

void *wasmcache_module_into_native(wasmcache_module *module)
{
    void *native = NULL;
    if (!module)
        return NULL;
    /* If ours is the only reference, nobody can make another meanwhile. */
    if (atomic_load_explicit(&module->refs, memory_order_acquire) == 1) {
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
    if (module)
        atomic_fetch_add_explicit(&module->refs, 1, memory_order_relaxed);
    return module;
}

void wasmcache_module_release(wasmcache_module *module)
{
    if (!module || atomic_fetch_sub_explicit(&module->refs, 1, memory_order_acq_rel) != 1)
        return;
    module->free_native(module->kind, module->native);
    free(module);
}
