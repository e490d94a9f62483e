/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_USE_H
#define WC_USE_H

/*
 * When an entry was last used, and what it saves: remembered in the hints, for what orders entries
 * by their worth. Right to the hour, so that a hit hardly ever writes.
 */

#include "hint.h"

/* The entry was used now. `compile_ns` 0: not known. Unless the hints can be written, nothing. */
void wc_use_note(struct wc_hint_look *look, const struct wc_hint_about *entry, uint64_t compile_ns);
/* Seconds since 1970, 0: not known. */
uint64_t wc_use_last(struct wc_hint_look *look, const char *engine_namespace,
                     const wasmcache_key *key);

#endif
