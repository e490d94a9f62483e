/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_TALLY_H
#define WC_TALLY_H

/*
 * What a cache directory has seen and holds: counters of all processes that used it, and the
 * running total of its entries, which a clean-up corrects. In the file ".tally-1" of the directory;
 * docs/format.md has its bytes.
 *
 *     wc_tally_update(store, add_mine, &mine, &tally, &err);
 *
 * Changes are made under a lock on the file's first byte, into the older of two slots, so that a
 * process that dies in the middle loses its own change and nothing else. A file that is lost or
 * damaged counts anew. It never costs a hit anything: it is written when something was saved, and
 * when a cache is closed.
 */

#include "stats.h"
#include "store_dir.h"

#define WC_TALLY_NAME ".tally-1"

struct wc_tally {
    uint64_t since; /* seconds since 1970: when counting began */
    int known;      /* bytes and entries are those of a clean-up and what came after it */
    uint64_t bytes, entries;
    uint64_t cleaned; /* when that clean-up was; 0: never */
    uint64_t counts[WC_STAT_COUNT];
};

/* EMISS: there is none. EUNTRUSTED, EIO. */
int wc_tally_read(struct wc_tally *out, const struct wc_store *store, struct wc_error *err);
/* Changes it, and makes it if there is none and the cache is not reproducible. `out` (not NULL):
 * what it is then. EMISS: there is none, or no directory. EBUSY: others had it all the time.
 * EUNTRUSTED, EIO, EFULL. */
int wc_tally_update(const struct wc_store *store,
                    void (*change)(struct wc_tally *tally, void *payload), void *payload,
                    struct wc_tally *out, struct wc_error *err);

/* The right to evict, which one at a time has. The child of a fork that waits for it gives up what
 * it inherited of another thread's: if its parent is dead, nobody else could. */
struct wc_tally_lock {
    int fd; /* -1: not held */
};
/* EBUSY: another had it for `patience` nanoseconds. As wc_tally_update(). */
int wc_tally_lock(struct wc_tally_lock *lock, const struct wc_store *store, uint64_t patience,
                  struct wc_error *err);
void wc_tally_unlock(struct wc_tally_lock *lock);

#endif
