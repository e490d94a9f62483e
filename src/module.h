/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_MODULE_H
#define WC_MODULE_H

/*
 * A counted reference to an engine's module.
 *
 * One that is kept for threads to share has a count for each stripe (stripe.h), so that taking and
 * giving back a reference writes to no memory that other threads write to. Such counts cannot tell
 * when the last reference is given back, so whoever keeps it has one all the while:
 *
 *     module = wc_module_new_striped(table, kind, native);     // counted in one place still
 *     kept = wasmcache_module_ref(module);
 *     wc_module_spread(kept);                                  // before anybody else has it
 *     ... references are taken and given back ...
 *     wc_module_gather(kept);                                  // in one place again
 *     wasmcache_module_release(kept);                          // may be the last
 */

#include "wasmcache_engine.h"

/* Takes `native` over. NULL: no memory; native is the caller's still. */
wasmcache_module *wc_module_new(const wasmcache_engine_table *table, wasmcache_kind kind,
                                void *native);
/* The same, and it can be spread: 2 KiB more. */
wasmcache_module *wc_module_new_striped(const wasmcache_engine_table *table, wasmcache_kind kind,
                                        void *native);

/* Once in a module's life, by who keeps it, while no other thread has it. One without stripes stays
 * as it is. */
void wc_module_spread(wasmcache_module *module);
/* Also if it was gathered already, or never spread. */
void wc_module_gather(wasmcache_module *module);

/* 1: nobody has another reference than the one that the caller has, and keeps to itself. While it
 * is spread the counts are read one after the other, and what moves meanwhile may be missed: gather
 * it to be sure. */
int wc_module_is_only(const wasmcache_module *module);

#endif
