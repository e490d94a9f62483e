/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CACHE_H
#define CLI_CACHE_H

/* The cache that the settings describe, and the entries in it. */

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

#include <wasmcache.h>

#include "cli.h"

/* What a command wants of the cache. */
enum cli_cache_use {
    CLI_CACHE_MODULES, /* it works without one too: WASMCACHE_DISABLE counts, off is a warning */
    CLI_CACHE_ENTRIES, /* without one there is nothing to do: off is an error */
    CLI_CACHE_SHOW,    /* off is what it shows */
    CLI_CACHE_LOOK     /* as MODULES, but nothing is changed, and all that is loaded is read whole;
                          off is no warning */
};

/*
 * Opens the cache; *out may become NULL, which is "no cache". Returns CLI_OK, or CLI_FAILED after a
 * message. The caller ends it with wasmcache_close().
 */
int cli_cache_open(struct cli *cli, wasmcache **out, enum cli_cache_use use);
/* Only opens it, with more flags (WASMCACHE_READ_ONLY). Returns an enum wasmcache_error. */
int cli_cache_open_with(struct cli *cli, wasmcache **out, unsigned flags,
                        wasmcache_event_fn listener);
/* Why the last cli_cache_open() or cli_entries_collect() failed. */
int cli_cache_error(void);

/* The directory that the settings name, NULL if there is none. */
const char *cli_cache_dir(const struct cli *cli);
/* Fills in what the settings say of gets. */
void cli_get_options(wasmcache_get_options *out, const struct cli *cli);

/* Why the last save on this thread failed, "" if it did not. Cleared by cli_save_error_clear(). */
const char *cli_save_error(void);
void cli_save_error_clear(void);

/* The calling thread's last failure, as a sentence. */
const char *cli_last_message(void);

/* The entries of a cache, by namespace, then age, then key. */
struct cli_entries {
    wasmcache_entry *list;
    size_t count;
    size_t unreadable; /* folders that could not be read; each was reported */
};

/* `engine_namespace` NULL: all. Only trailers are judged. Returns CLI_OK, or CLI_FAILED after a
 * message. Free with cli_entries_free() in any case. */
int cli_entries_collect(struct cli_entries *out, wasmcache *cache, const char *engine_namespace);
void cli_entries_free(struct cli_entries *entries);

/*
 * The key that a person means: that of the file's content, or the key itself in hex, or enough of
 * its first digits (8 or more) to tell it from the others in `entries`. Returns CLI_OK, or
 * CLI_FAILED with the reason in `why`.
 */
int cli_key_find(wasmcache_key *out, const char *operand, const struct cli_entries *entries,
                 char *why, size_t size);

/* The path of an entry, to be freed; NULL if it has none. */
char *cli_entry_path(wasmcache *cache, const char *engine_namespace, const wasmcache_key *key);
/* The same in a layer of the settings, from 1; 0: in the cache's own directory. */
char *cli_layer_entry_path(const struct cli *cli, wasmcache *cache, int layer,
                           const char *engine_namespace, const wasmcache_key *key);
/* Whether the end of the file says what it is; that of another cache's has no such end. */
bool cli_entry_known(const wasmcache_entry *entry);
/* What the tool says about an entry in JSON: key, namespace, path, kind, state, sizes, times. */
json_t *cli_json_entry(wasmcache *cache, const wasmcache_entry *entry);

#endif
