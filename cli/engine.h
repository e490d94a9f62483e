/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_ENGINE_H
#define CLI_ENGINE_H

/*
 * Engines, loaded when the tool runs. Each engine is one struct cli_engine_type in a file of its
 * own (engine_wasmtime.c, engine_wasmer.c), compiled where that engine's headers are there;
 * commands know only this header.
 *
 *     struct cli_engine engine;
 *     if (cli_engine_open(&engine, cli) == CLI_OK) {
 *         cli_engine_attach(&attachment, &engine, cache, cli);
 *         ... wasmcache_get(&module, attachment, ...) ...
 *         engine.type->run(engine.native, wasmcache_module_native(module), &program);
 *         ... release, detach ...
 *         cli_engine_close(&engine);
 *     }
 *
 * Two engines may be in one process, and they share names (wasm_*). So no engine is linked, each is
 * loaded with local symbols, and every call goes through a pointer that came from dlsym.
 */

#include <stdbool.h>
#include <stddef.h>

#include <wasmcache.h>
#include <wasmcache_engine.h>

#include "cli.h"
#include "program.h"

struct cli_engine_type {
    const char *name;         /* for --engine */
    const char *title;        /* "Wasmtime" */
    const char *version;      /* what the tool was built for */
    const char *library;      /* file name */
    const char *root;         /* environment variable: the library is in lib/ below it */
    const char *default_path; /* where it was when the tool was built, NULL: nowhere */
    bool components;          /* has it components, too */
    const char *marker;       /* a symbol by which a library is known to be this engine */

    /* Takes the functions from a library of dlopen's. Returns CLI_OK, or CLI_FAILED after a message
     * that names `path`. */
    int (*load)(void *library, const char *path);
    /* The version of the loaded library, as far as it tells. */
    const char *(*loaded_version)(void);
    /* A new engine, NULL if there is no memory for it. */
    void *(*create)(void);
    /* As the glue's attach_with: settings and engine id are given, or NULL. */
    wasmcache_attachment *(*attach)(wasmcache *cache, void *native,
                                    const wasmcache_attach_options *options);
    /* Runs the module as a WASI command. Returns its exit status, or CLI_FAILED after a message. */
    int (*run)(void *native, void *module, const struct cli_program *program);
    /* Calls an exported function with argv[1] and so on, and prints its results, one a line. */
    int (*invoke)(void *native, void *module, const struct cli_program *program,
                  const char *function);
    void (*destroy)(void *native);
};

/* Those that were built in (CLI_HAS_...); the first is the default. At least one. */
#if defined(CLI_HAS_WASMTIME) && defined(CLI_HAS_WASMER)
#define CLI_ENGINE_NAMES "wasmtime, wasmer"
#elif defined(CLI_HAS_WASMTIME)
#define CLI_ENGINE_NAMES "wasmtime"
#else
#define CLI_ENGINE_NAMES "wasmer"
#endif

extern const struct cli_engine_type *const cli_engine_types[]; /* ends with NULL */
extern const struct cli_engine_type cli_engine_wasmtime;
extern const struct cli_engine_type cli_engine_wasmer;

struct cli_engine {
    const struct cli_engine_type *type;
    void *native;
    const char *path; /* of the library, as the loader has it */
};

/* Loads the engine that the settings ask for. CLI_OK, or CLI_FAILED after a message. */
int cli_engine_open(struct cli_engine *out, const struct cli *cli);
/* The same for one that was built in, from where it is expected. */
int cli_engine_open_type(struct cli_engine *out, const struct cli_engine_type *type);
/* Attaches with the string and the id that the settings give, and says so if the engine will run
 * uncached though there is a cache. CLI_OK, or CLI_FAILED or CLI_USAGE after a message. */
int cli_engine_attach(wasmcache_attachment **out, const struct cli_engine *engine, wasmcache *cache,
                      const struct cli *cli);
/* The library stays: its threads and thread-local data have no end of their own. */
void cli_engine_close(struct cli_engine *engine);

/* The kind of a file by its preamble; a module if there is none or it cannot be read, for the
 * library then says what is wrong. */
wasmcache_kind cli_engine_kind(const char *path);

#endif
