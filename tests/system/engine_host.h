/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_ENGINE_HOST_H
#define TESTS_ENGINE_HOST_H

/*
 * What the system tests in C share: a host with an engine and a cache, which counts what the
 * library asks of the engine and what events it tells.
 *
 *     struct host h;
 *     host_open(&h, scratch_in(&s, "cache"), 0);
 *     ... engine_get(h.wc, h.engine, ...), host_called(ENGINE_COMPILE)
 *     host_close(&h);
 *
 * A test is compiled once for each engine, with ENGINE_WASMTIME or ENGINE_WASMER, and does not know
 * which it is: what both have in wasm.h it calls by itself, all else through engine_...() below,
 * whose two forms are engine_wasmtime.c and engine_wasmer.c. Wasmer's tests also run with the
 * library as Wasmer builds it, without wasmer-plus: engine_maps() tells.
 *
 * A process may fork at any time: Wasmtime's engines here compile on the calling thread unless a
 * test makes one of its own, and Wasmer compiles in a child whatever its parent did.
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

#if defined(ENGINE_WASMTIME)

#define WASMCACHE_WASMTIME_CALL(name) (host_count(#name), name)
#include "wasmcache_wasmtime.h"

typedef wasmtime_module_t engine_module;
#define ENGINE_NAME "wasmtime"
#define ENGINE_COMPILE "wasmtime_module_new"
#define ENGINE_SERIALIZE "wasmtime_module_serialize"
#define ENGINE_LOAD "wasmtime_module_deserialize"
#define ENGINE_LOAD_FILE "wasmtime_module_deserialize_file"
#define ENGINE_DELETE "wasmtime_module_delete"
/* Another engine for the glue's call is seen there and not cached. Wasmer's stores do not tell
 * theirs. */
#define ENGINE_IS_SEEN 1
/* Each save is preceded by a compile of the empty module, which is counted too. */
#define ENGINE_RECHECKS 1
/* The engine shows its configuration. On Wasmer the host's settings do. */
#define ENGINE_SHOWS_SETTINGS 1
#define ENGINE_HAS_WASI 1
/* A file's own pages are run, so that it must not lie on a noexec mount. Wasmer copies the code. */
#define ENGINE_RUNS_FILES 1
/* Compiles start threads, which end a moment after. */
#define ENGINE_STARTS_THREADS 0

/* The text of an engine's error, which is deleted, without the backtrace that some versions add if
 * the environment wants one. "" for NULL. */
char *error_text(char *out, size_t size, wasmtime_error_t *error);

#elif defined(ENGINE_WASMER)

#include <wasmer.h>

#ifndef WASMCACHE_WASMER_CALL
#define WASMCACHE_WASMER_CALL(name) (host_count(#name), name)
extern wasm_module_t *wasmer_plus_module_deserialize_file(const wasm_engine_t *engine,
                                                          const char *path) __attribute__((weak));
extern wasm_module_t *wasmer_plus_module_clone(const wasm_module_t *module) __attribute__((weak));
extern void wasmer_plus_engine_id(const wasm_engine_t *engine, wasm_byte_vec_t *out)
    __attribute__((weak));
/* They count their calls: to look whether there is such a function is none. */
wasm_module_t *counted_wasmer_plus_module_deserialize_file(const wasm_engine_t *engine,
                                                           const char *path);
wasm_module_t *counted_wasmer_plus_module_clone(const wasm_module_t *module);
void counted_wasmer_plus_engine_id(const wasm_engine_t *engine, wasm_byte_vec_t *out);
#define WASMCACHE_WASMER_OPTIONAL(name) (name ? counted_##name : NULL)
#endif
#include "wasmcache_wasmer.h"

typedef wasm_module_t engine_module;
#define ENGINE_NAME "wasmer"
#define ENGINE_COMPILE "wasm_module_new"
#define ENGINE_SERIALIZE "wasm_module_serialize"
#define ENGINE_LOAD "wasm_module_deserialize"
#define ENGINE_LOAD_FILE "wasmer_plus_module_deserialize_file"
#define ENGINE_DELETE "wasm_module_delete"
#define ENGINE_IS_SEEN 0
#define ENGINE_RECHECKS 0
#define ENGINE_SHOWS_SETTINGS 0
#define ENGINE_HAS_WASI 0
#define ENGINE_RUNS_FILES 0
#define ENGINE_STARTS_THREADS 1

#else
#error "ENGINE_WASMTIME or ENGINE_WASMER has to be defined"
#endif

#include "support/scratch.h"
#include "support/wasm_modules.h"

/* A module that tools/modules fetched, to be freed; NULL if it was not. */
uint8_t *real_module(const char *name, size_t *size);

/*
 * Runs the program `name` of these tests (host_module) for this engine, a process that knows
 * nothing of ours, with arguments up to NULL. Its standard output, cut to fit, is in `out`; returns
 * its exit status, or 100 + the signal that ended it.
 */
int run_program(char *out, size_t size, const char *name, ...);

/* ---- the engine ---- */

wasm_engine_t *engine_new(void);
/* Another one, whose modules must not be taken for those of engine_new(): configured otherwise if
 * the engine shows that, else by the settings, which are what has to be given at attach. */
wasm_engine_t *engine_new_other(const char **settings);

/* 1 if artifacts are loaded as files: ENGINE_LOAD_FILE is there. */
int engine_maps(void);

const wasmcache_engine_table *engine_table(void);
wasmcache_attachment *engine_attach(wasmcache *cache, wasm_engine_t *engine, const char *settings);
wasmcache_attachment *engine_attach_with(wasmcache *cache, wasm_engine_t *engine,
                                         const wasmcache_attach_options *options);

/* The engine's own call, not counted, and the glue's. NULL: refused, and the engine's text of that
 * is in `why` (cut; NULL with 0 if it does not matter). */
engine_module *engine_compile(wasm_engine_t *engine, const void *wasm, size_t size, char *why,
                              size_t room);
engine_module *engine_get(wasmcache_attachment *wc, wasm_engine_t *engine, const void *wasm,
                          size_t size, char *why, size_t room);

/* 0, or it cannot. */
int engine_serialize(engine_module *module, wasm_byte_vec_t *out);
/* NULL: refused. A file in the way that costs the least with this engine. */
engine_module *engine_load(wasm_engine_t *engine, const void *bytes, size_t size);
engine_module *engine_load_file(wasm_engine_t *engine, const char *path);
void engine_module_delete(engine_module *module);

/* Makes an instance (imports give zero) and calls an export that takes `count` i32 and gives one.
 */
int32_t call_export(wasm_engine_t *engine, engine_module *module, const char *name,
                    const int32_t *arguments, size_t count);

/* Something that is no matter of the test went wrong. Does not return. */
void broken(const char *what, const char *about);

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

/* engine_new() attached to a cache in `dir`. */
void host_open(struct host *h, const char *dir, unsigned flags);
/* The same with engine_new_other(). */
void host_open_other(struct host *h, const char *dir);
/* `engine` becomes the host's. */
void host_open_with(struct host *h, const wasmcache_options *options, wasm_engine_t *engine,
                    const char *settings);
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
/* How often it compiled; the empty module of a recheck is not counted where one is made. `saved`
 * says how often something was to be saved. */
unsigned host_compiles(unsigned saved);
/* Was the artifact loaded once, in the way that costs the least? */
int host_loaded_best(void);

/* wasmcache_get_native() of bytes; the engine's error, if any, is deleted. */
int get_bytes(engine_module **out, struct host *h, const void *wasm, size_t size,
              wasmcache_report *report);

#endif
