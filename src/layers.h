/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_LAYERS_H
#define WC_LAYERS_H

/* Read-only directories that are asked after the cache's own. */

#include "call.h"
#include "evict.h"

enum { WC_LAYERS_MAX = 16 };

/* EMISUSE. */
int wc_layers_check(const wasmcache_options *options, struct wc_error *err);
/* Loads the entry from the first layer that has it; `file` is what it was loaded from. EMISS: none
 * has. */
int wc_layers_load(struct wc_call *call, struct wc_entry_file *file, const wasmcache_key *key,
                   void **native);

#endif
