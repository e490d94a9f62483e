/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_ENGINE_H
#define CLI_ENGINE_H

/*
 * Engines, loaded when the tool runs. Each engine is one struct cli_engine_type in a file of its
 * own (engine_wasmtime.c) and a line in engine.c; commands know only this header.
 *
 *     struct cli_engine engine;
 *     if (cli_engine_open(&engine, cli) == CLI_OK) {
 *         attachment = cli_engine_attach(&engine, cache, settings);
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

#include "cli.h"

/* A directory of the host that the program may use, by another name. */
struct cli_preopen {
    const char *host;
    const char *guest;
    int fd; /* of the very directory that was checked */
};

/* What a program gets to see. */
struct cli_program {
    const char *file; /* for messages */
    int argc;
    const char **argv; /* [0] is the program's own name */
    size_t env_count;
    const char **env_names;
    const char **env_values;
    size_t dir_count;
    const struct cli_preopen *dirs;
};

struct cli_engine_type {
    const char *name;         /* for --engine */
    const char *title;        /* "Wasmtime" */
    const char *version;      /* what the tool was built for */
    const char *library;      /* file name */
    const char *root;         /* environment variable: the library is in lib/ below it */
    const char *default_path; /* where it was when the tool was built, NULL: nowhere */
    const char *marker;       /* a symbol by which a library is known to be this engine */

    /* Takes the functions from a library of dlopen's. Returns CLI_OK, or CLI_FAILED after a message
     * that names `path`. */
    int (*load)(void *library, const char *path);
    /* A new engine, NULL if there is no memory for it. */
    void *(*create)(void);
    /* As the glue's attach. */
    wasmcache_attachment *(*attach)(wasmcache *cache, void *native, const char *settings);
    /* Runs the module as a WASI command. Returns its exit status, or CLI_FAILED after a message. */
    int (*run)(void *native, void *module, const struct cli_program *program);
    /* Calls an exported function with argv[1] and so on, and prints its results, one a line. */
    int (*invoke)(void *native, void *module, const struct cli_program *program,
                  const char *function);
    void (*destroy)(void *native);
};

extern const struct cli_engine_type cli_engine_wasmtime;

struct cli_engine {
    const struct cli_engine_type *type;
    void *native;
};

/* Loads the engine that the options or the environment ask for. CLI_OK, or CLI_FAILED or CLI_USAGE
 * after a message. */
int cli_engine_open(struct cli_engine *out, const struct cli *cli);
/* Attaches, and says so if the engine will run uncached though there is a cache. NULL is a failure
 * after a message. */
wasmcache_attachment *cli_engine_attach(const struct cli_engine *engine, wasmcache *cache,
                                        const char *settings);
/* The library stays: its threads and thread-local data have no end of their own. */
void cli_engine_close(struct cli_engine *engine);

/* The kind of a file by its preamble; a module if there is none or it cannot be read, for the
 * library then says what is wrong. */
wasmcache_kind cli_engine_kind(const char *path);

#endif
