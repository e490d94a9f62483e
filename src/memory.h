/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_MEMORY_H
#define WC_MEMORY_H

/*
 * Modules that are kept in memory, for hosts that want the same ones again and again: counted
 * references by key, kind and attachment, bounded in number and in bytes of their artifacts.
 *
 *     module = wc_memory_find(memory, attachment, kind, &key, now, &bytes);   // a reference more
 *     wc_memory_put(memory, attachment, kind, &key, module, bytes, now);
 *     wc_memory_forget(memory, attachment);                                   // before it ends
 *
 * What was used least lately goes first, but never one that somebody else holds: it would not be
 * freed by that. If all are held, nothing new is kept.
 *
 * Keys are spread over shards, each with a lock of its own, so that threads that want different
 * modules do not meet. In the child of a fork a lock may be held by nobody: there is no memory
 * there.
 */

#include "attachment.h"

struct wc_memory;

/* NULL: no memory. */
struct wc_memory *wc_memory_new(unsigned count_max, uint64_t bytes_max);
void wc_memory_free(struct wc_memory *memory);
/* `memory` NULL: there is none, and nothing happens. `now`: by the monotonic clock. NULL: it is not
 * there. */
wasmcache_module *wc_memory_find(struct wc_memory *memory, const wasmcache_attachment *attachment,
                                 wasmcache_kind kind, const wasmcache_key *key, uint64_t now,
                                 uint64_t *bytes);
/* Keeps a reference of its own, if there is room or can be. */
void wc_memory_put(struct wc_memory *memory, const wasmcache_attachment *attachment,
                   wasmcache_kind kind, const wasmcache_key *key, wasmcache_module *module,
                   uint64_t bytes, uint64_t now);
/* All modules of an attachment. */
void wc_memory_forget(struct wc_memory *memory, const wasmcache_attachment *attachment);
/* All modules of a key in a namespace. */
void wc_memory_forget_key(struct wc_memory *memory, const char *engine_namespace,
                          const wasmcache_key *key);

#endif
