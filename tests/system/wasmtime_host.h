/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_WASMTIME_HOST_H
#define TESTS_WASMTIME_HOST_H

/*
 * What the system tests in C share: a host with Wasmtime and a cache, which counts what the library
 * asks of the engine and what events it tells.
 *
 *     struct host h;
 *     host_open(&h, scratch_in(&s, "cache"), NULL, 0);
 *     ... wasmcache_wasmtime_module_new(h.wc, h.engine, ...), host_called("wasmtime_module_new")
 *     host_close(&h);
 *
 * Engines here compile on the calling thread unless a test gives a configuration of its own, so
 * that a process may fork at any time.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Every call of the glue goes through this, and is counted by its name. */
void host_count(const char *name);
#define WASMCACHE_WASMTIME_CALL(name) (host_count(#name), name)
#include "wasmcache_wasmtime.h"

#include "support/scratch.h"
#include "support/wasm_modules.h"

/* A module that tools/modules fetched, to be freed; NULL if it was not. */
uint8_t *real_module(const char *name, size_t *size);

/*
 * Runs the program `name` of these tests (host_module), a process that knows nothing of ours, with
 * arguments up to NULL. Its standard output, cut to fit, is in `out`; returns its exit status, or
 * 100 + the signal that ended it.
 */
int run_program(char *out, size_t size, const char *name, ...);

/* ---- the host ---- */

/* The events of a cache, counted. */
struct seen {
    atomic_uint count[WASMCACHE_EVENT_UNATTACHED + 1];
};

struct host {
    wasm_engine_t *engine;
    wasmcache *cache;
    wasmcache_attachment *wc;
    struct seen seen;
};

/* Compiles on the calling thread. */
wasm_config_t *host_config(void);

/* An engine with that configuration (NULL: host_config()) attached to a cache in `dir`. */
void host_open(struct host *h, const char *dir, wasm_config_t *config, unsigned flags);
void host_open_with(struct host *h, const wasmcache_options *options, wasm_config_t *config);
void host_close(struct host *h);

const char *host_namespace(const struct host *h);
/* The path that the entry of these bytes has or would have, in the scratch's memory. */
char *entry_path(struct scratch *s, const struct host *h, const void *wasm, size_t size);
wasmcache_key key_of(const void *bytes, size_t size);

/* Calls of an engine's function since host_forget(). */
unsigned host_called(const char *name);
void host_forget(struct seen *seen);
/* How often the engine was given an artifact to load. */
unsigned host_loads(void);

/* wasmcache_get_native() of bytes; the engine's error, if any, is deleted. */
int get_bytes(wasmtime_module_t **out, struct host *h, const void *wasm, size_t size,
              wasmcache_report *report);

/* Makes an instance (imports give zero) and calls an export that takes `count` i32 and gives one.
 */
int32_t call_export(wasm_engine_t *engine, wasmtime_module_t *module, const char *name,
                    const int32_t *arguments, size_t count);

/* The text of an engine's error, which is deleted, without the backtrace that some versions add if
 * the environment wants one. "" for NULL. */
char *error_text(char *out, size_t size, wasmtime_error_t *error);

#endif
