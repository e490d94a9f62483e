/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_RIG_H
#define TESTS_RIG_H

/*
 * A cache in a scratch directory with a fake engine attached, and a record of its events.
 *
 *     struct rig r;
 *     rig_init(&r);                     // r.options may be changed now
 *     rig_open(&r);
 *     assert_int_equal(rig_get(&r, "wasm", &report), 0);
 *     assert_string_equal(r.events.log, "miss,saved,");
 *     rig_end(&r);                      // closes, frees, watches the engine's rules
 *
 * In these functions the wasm is a string, and the kind is WASMCACHE_MODULE.
 */

#include "support/fake_engine.h"
#include "support/scratch.h"

struct rig_events {
    unsigned count[16]; /* by type */
    char log[512];      /* their names, a comma behind each, in order */
    struct {
        wasmcache_reason reason;
        int error, system_errno;
        char engine_namespace[192], key[80], path[512], message[640];
        uint64_t bytes;
    } last[16]; /* the last one of each type */
};

struct rig {
    struct scratch scratch;
    char *dir; /* "cache" in the scratch directory */
    wasmcache_options options;
    wasmcache_attach_options attach;
    struct fake_engine engine;
    wasmcache *cache;
    wasmcache_attachment *wc;
    struct rig_events events;
};

void rig_init(struct rig *r);
/* Opens and attaches; both must return 0. */
void rig_open(struct rig *r);
void rig_close(struct rig *r);
void rig_end(struct rig *r);

/* Closes, and opens a fresh cache with the same options: what another process would see. */
void rig_reopen(struct rig *r);
void rig_forget_events(struct rig *r);

/* How many of the type there were so far, also while requests still tell of theirs. */
unsigned rig_events_of(const struct rig *r, wasmcache_event_type type);

/*
 * Gets (loads) the module, fails the test if a returned one is not the right one, and releases it.
 * Returns what the call returned; `report` may be NULL.
 */
int rig_get(struct rig *r, const char *wasm, wasmcache_report *report);
int rig_get_with(struct rig *r, const char *wasm, unsigned flags, wasmcache_report *report);
int rig_load(struct rig *r, const char *wasm, wasmcache_report *report);
/* Saves a module as compile makes it. */
int rig_save(struct rig *r, const char *wasm, wasmcache_report *report);

wasmcache_key rig_key(const char *wasm);
/* "{engine}-{compiler}-{fingerprint}-v{n}" */
const char *rig_namespace(const struct rig *r);
/* Where the entry lies, or would, and its folder. Valid until rig_end(). */
char *rig_entry(struct rig *r, const char *wasm);
char *rig_namespace_dir(struct rig *r);

/* The state of the entry as wasmcache_entry_check() sees it, digest and all. */
wasmcache_reason rig_state(struct rig *r, const char *wasm);

#endif
