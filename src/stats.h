/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_STATS_H
#define WC_STATS_H

/*
 * Counters of a cache: in the process, and from there, now and then, in its directory (tally.h).
 *
 *     wc_stats_add(cache->stats, WC_STAT_SAVES, 1);        // any thread, a few nanoseconds
 *     wc_stats_flush(cache, bytes, 1, &tally, &err);       // what is not in the directory yet
 *
 * A thread adds to one of a few shards, so that threads on different processors do not write to the
 * same line of memory. The numbers are those of one process: in the child of a fork the first that
 * counts finds that they are another's by its process id, and begins from nothing. So a child
 * counts what it does itself, and nothing twice.
 */

#include "error.h"

/* Their numbers are those of the file: only append. */
enum wc_stat {
    WC_STAT_HITS = 0,
    WC_STAT_MEMORY_HITS,
    WC_STAT_JOINED,
    WC_STAT_COMPILES,
    WC_STAT_COMPILE_NS,
    WC_STAT_SPARED_NS,
    WC_STAT_SAVES,
    WC_STAT_KEPT,
    WC_STAT_SAVE_FAILURES,
    WC_STAT_REMOVED,
    WC_STAT_REMOVE_FAILURES,
    WC_STAT_FALLBACKS,
    WC_STAT_WAITS,
    WC_STAT_WAIT_NS,
    WC_STAT_EVICTIONS,
    WC_STAT_EVICTED_BYTES,
    WC_STAT_LOADED_BYTES,
    WC_STAT_SAVED_BYTES,
    WC_STAT_LAYER_HITS,
    WC_STAT_LAYER_FAILURES,
    WC_STAT_MISSES = 32,        /* 16, by reason */
    WC_STAT_HIT_TIMES = 48,     /* 24: below 1, 2, 4, ... microseconds; the last: all others */
    WC_STAT_COMPILE_TIMES = 72, /* 24: the same in milliseconds */
    WC_STAT_COUNT = 96
};

struct wc_stats;

/* NULL: no memory. */
struct wc_stats *wc_stats_new(void);
void wc_stats_free(struct wc_stats *stats);
/* `stat`: enum wc_stat, or one behind MISSES, HIT_TIMES or COMPILE_TIMES. */
void wc_stats_add(struct wc_stats *stats, unsigned stat, uint64_t value);
/* The same where it is known that no fork led here since the cache was opened, for what takes less
 * time than to ask for a process id. */
void wc_stats_add_own(struct wc_stats *stats, unsigned stat, uint64_t value);
/* Of one that took `ns`. */
void wc_stats_hit(struct wc_stats *stats, uint64_t ns);
void wc_stats_compile(struct wc_stats *stats, uint64_t ns);
/* All that was counted since the cache was opened. */
void wc_stats_sum(struct wc_stats *stats, uint64_t out[WC_STAT_COUNT]);
/*
 * Adds to the directory's counters what is not in them yet, and to its totals what was published or
 * removed. `out` (not NULL): the directory's tally then. As wc_tally_update(); 0 also if there was
 * nothing to add. EMISS, too: a cache that is only read.
 */
struct wasmcache;
struct wc_tally;
int wc_stats_flush(struct wasmcache *cache, int64_t bytes, int64_t entries, struct wc_tally *out,
                   struct wc_error *err);

#endif
