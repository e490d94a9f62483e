/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_STAMP_H
#define WC_STAMP_H

/*
 * What is remembered of entries. A stamp is of the file that an entry is now: its digest was found
 * to be right, and when it was last used, so that a hit learns both at once. The use of an entry,
 * by its name, stays when its file is replaced or the machine starts again; it is for what orders
 * entries by their worth. Uses are right to the hour, so that a hit hardly ever writes.
 */

#include "hint.h"
#include "store_dir.h"
#include "worth.h"

struct wc_stamp {
    struct wc_hint_about about;
    struct wc_hint hint;
    int possible; /* 0: nothing can be remembered of this file */
    int found;    /* its digest is known to be right */
};

/* Was the digest of the file that `file` has open found to be what its trailer says, with the same
 * size and times, less than `seconds` ago? */
void wc_stamp_find(struct wc_stamp *out, struct wc_hint_look *look,
                   const struct wc_entry_file *file, uint64_t seconds);
/* It was found to be right now, and is used: file->st is what it was before and after. */
void wc_stamp_make(struct wc_stamp *stamp, struct wc_hint_look *look,
                   const struct wc_entry_file *file);

/* The entry is used now. `stamp` NULL: its file has none. `compile_ns` 0: what is known stays.
 * Nothing where hints are not written. */
void wc_use_note(struct wc_stamp *stamp, struct wc_hint_look *look, const char *engine_namespace,
                 const wasmcache_key *key, uint64_t compile_ns);
/* Fills in what is known of its uses. 0: nothing. Looks in the file only, as does the next. */
int wc_use_find(struct wc_worth *worth, struct wc_hint_look *look, const char *engine_namespace,
                const wasmcache_key *key);
/* Seconds since 1970, 0: not known. */
uint64_t wc_use_last(struct wc_hint_look *look, const char *engine_namespace,
                     const wasmcache_key *key);

#endif
