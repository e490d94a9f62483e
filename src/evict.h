/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_EVICT_H
#define WC_EVICT_H

/*
 * Keeps a cache directory in its limits.
 *
 *     rc = wc_evict_make_room(cache, bytes, &err);    // before a save, if it would be 5 % over
 *     rc = wc_evict(cache, &limits, 0, 0, &result, &err);
 *
 * It takes two walks over all entries and little memory, however many there are: the first counts,
 * by what entries are worth, how many bytes there are of each worth; from that follows what has to
 * go, and the second removes it. First to go are entries that are too old, then those of namespaces
 * that nobody used for a week, the least worth first, then those of the others. An entry that is
 * pinned stays, as does one that is younger than a grace time. What is mapped somewhere loses its
 * name only.
 *
 * One process at a time does it, under a lock of the tally; a process that dies in the middle has
 * removed what it has removed, and the next one starts over.
 */

#include "cache.h"
#include "tally.h"

enum { WC_EVICT_DRY_RUN = 1, WC_EVICT_CLEAN = 2 /* also what writers and removers left */ };

/* Fills *out as far as it came. `incoming`: room for an entry of so many bytes, 0: for none.
 * EUNTRUSTED, EIO, ENOMEM. With the tally's lock. */
int wc_evict(wasmcache *cache, const struct wc_limits *limits, unsigned flags, uint64_t incoming,
             wasmcache_prune_result *out, struct wc_error *err);
/* Of those that need room one evicts, and the others wait for it. EFULL: an entry of that size
 * would never fit, or nothing that is there may go. EBUSY: the other one was not done in time. No
 * other failure shows. */
int wc_evict_make_room(wasmcache *cache, uint64_t bytes, struct wc_error *err);

/* prune.c. 1: it is pinned. `folder` is of its namespace. */
int wc_is_pinned(const struct wc_folder *folder, const char *name);

#endif
