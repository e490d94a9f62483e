/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_NAMESPACE_H
#define WC_NAMESPACE_H

/*
 * Names in the cache directory. Everything that a caller passes is checked here before it becomes
 * part of a path, so nothing can leave the directory:
 *     {engine id}-v{artifact version}/{KEY}.bin
 */

#include "error.h"

/* Engine ids: [A-Za-z0-9][A-Za-z0-9._+-]*, no "..". */
#define WC_ENGINE_ID_MAX 128
/* "{id}-v{u32}" and its NUL. */
#define WC_NAMESPACE_SIZE (WC_ENGINE_ID_MAX + 2 + 10 + 1)
/* "{KEY}.bin" and its NUL. */
#define WC_ENTRY_NAME_SIZE (WASMCACHE_KEY_HEX_SIZE + 4)

int wc_engine_id_valid(const char *id);
int wc_namespace_valid(const char *name);

/* Makes the namespace of a valid id. */
void wc_namespace_make(char out[WC_NAMESPACE_SIZE], const char *id, uint32_t version);

/* Was the id of a valid namespace given by an embedder? Then other programs may keep files there
 * too. One of ours ends with the fingerprint, 16 upper-case hex digits behind a dash. */
int wc_namespace_is_shared(const char *name);

/* The file name of a valid key. */
void wc_entry_name(char out[WC_ENTRY_NAME_SIZE], const wasmcache_key *key);
/* The key of a file name. -1: it is not an entry's name (only the upper-case form is one). */
int wc_entry_name_parse(wasmcache_key *out, const char *name);

/* The folder in a namespace that has a file of an entry's name if that entry is pinned. */
#define WC_PINS ".pins"

/* Files that are not entries yet, or no longer: ".tmp-{random}" while it is written,
 * ".old-{name}-{random}" while it is removed. */
#define WC_TEMP_PREFIX ".tmp-"
#define WC_OLD_PREFIX ".old-"
#define WC_PRIVATE_NAME_SIZE (WC_ENTRY_NAME_SIZE + 32)

/* Makes such a name. `of` is the entry's name, NULL for a temp. A negative errno: no randomness. */
int wc_private_name(char out[WC_PRIVATE_NAME_SIZE], const char *of);
/* 1 if it is such a name. For an old one `of` gets the entry's name, else "". */
int wc_private_name_parse(char of[WC_ENTRY_NAME_SIZE], const char *name);

#endif
