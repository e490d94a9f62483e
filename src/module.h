/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_MODULE_H
#define WC_MODULE_H

/* A counted reference to an engine's module. */

#include "wasmcache_engine.h"

/* Takes `native` over. NULL: no memory; native is the caller's still. */
wasmcache_module *wc_module_new(const wasmcache_engine_table *table, wasmcache_kind kind,
                                void *native);

/* 1: nobody has another reference than the one that the caller has, and keeps to itself. */
int wc_module_is_only(const wasmcache_module *module);

#endif
