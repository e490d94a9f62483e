/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_MEMORY_H
#define WC_MEMORY_H

/*
 * Modules that are kept in memory, for hosts that want the same ones again and again: counted
 * references by key, kind and attachment, bounded in number and in bytes of their artifacts.
 *
 *     module = wc_memory_find(memory, attachment, kind, &key, &bytes);       // a reference more
 *     generation = wc_memory_generation(&key);        // before it is looked for elsewhere
 *     wc_memory_put(memory, attachment, kind, &key, module, bytes, generation);
 *     wc_memory_forget(memory, attachment);                                  // before it ends
 *
 * What was used least lately goes first, but never one that somebody else holds: it would not be
 * freed by that. If all are held, nothing new is kept.
 *
 * Who looks takes the lock of its stripe (stripe.h), who changes anything takes all of them, in
 * order. Threads that find what they want so do not meet, whether they want the same module or
 * different ones. In the child of a fork a lock may be held by nobody: there is no memory there.
 *
 * An entry that is removed or replaced is so for all caches of the process: the key's generation
 * moves, and what is kept of an older one is not found any more. Generations are the process's, one
 * for each of some two thousand values of a hash of keys, whatever the directory: which path leads
 * to which directory can change, and a module too many that is forgotten costs a load.
 */

#include "attachment.h"

struct wc_memory;

/* NULL: no memory. */
struct wc_memory *wc_memory_new(unsigned count_max, uint64_t bytes_max);
/* When all attachments are gone, and with them what it kept of them. */
void wc_memory_free(struct wc_memory *memory);
/* `memory` NULL: there is none, and nothing happens. NULL: it is not there. */
wasmcache_module *wc_memory_find(struct wc_memory *memory, const wasmcache_attachment *attachment,
                                 wasmcache_kind kind, const wasmcache_key *key, uint64_t *bytes);
/* Keeps a reference of its own, if there is room or can be. `generation`: what the key's was before
 * the entry was opened, or the wasm compiled. Only the caller has the module yet. */
void wc_memory_put(struct wc_memory *memory, const wasmcache_attachment *attachment,
                   wasmcache_kind kind, const wasmcache_key *key, wasmcache_module *module,
                   uint64_t bytes, uint64_t generation);
/* All modules of an attachment. */
void wc_memory_forget(struct wc_memory *memory, const wasmcache_attachment *attachment);
/* All modules of a key in a namespace: gives their room back. */
void wc_memory_forget_key(struct wc_memory *memory, const char *engine_namespace,
                          const wasmcache_key *key);

uint64_t wc_memory_generation(const wasmcache_key *key);
/* An entry of that key was removed or replaced, in whatever directory: call it after that. Returns
 * the new generation. */
uint64_t wc_memory_outdate(const wasmcache_key *key);

#endif
