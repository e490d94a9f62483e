/* SPDX-License-Identifier: Apache-2.0 */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "engine_wasmer.h"

#define WASMCACHE_WASMER_CALL(name) cli_wasmer.name
#define WASMCACHE_WASMER_OPTIONAL(name) cli_wasmer.name
#include <wasmcache_wasmer.h>

#include "output.h"

#ifndef WASMCACHE_DEFAULT_WASMER
#define WASMCACHE_DEFAULT_WASMER NULL
#endif

struct cli_wasmer cli_wasmer;

struct name {
    const char *name;
    size_t offset;
    bool optional;
};

#define NEEDED(name) {#name, offsetof(struct cli_wasmer, name), false},
#define OPTIONAL(name) {#name, offsetof(struct cli_wasmer, name), true},

static const struct name names[] = {CLI_WASMER_NAMES(NEEDED) /* */
                                    CLI_WASMER_OPTIONAL_NAMES(OPTIONAL)};

enum { NAMES = sizeof(names) / sizeof(names[0]) };

static int load(void *library, const char *path)
{
    unsigned major;
    size_t i;

    for (i = 0; i < NAMES; i++) {
        void *symbol = dlsym(library, names[i].name);

        if (!symbol && !names[i].optional) {
            cli_error("cannot use %s as Wasmer: it has no function %s; give the shared library of "
                      "Wasmer %s's C API, built with a compiler",
                      path, names[i].name, WASMER_VERSION);
            return CLI_FAILED;
        }
        /* POSIX lets an object pointer of dlsym's be a function pointer, ISO C has no cast for it.
         */
        memcpy((char *)&cli_wasmer + names[i].offset, &symbol, sizeof(symbol));
    }
    snprintf(cli_wasmer.path, sizeof(cli_wasmer.path), "%s", path);
    cli_wasmer.has_wasi = cli_wasmer.wasi_config_arg && cli_wasmer.wasi_config_env &&
                          cli_wasmer.wasi_config_mapdir && cli_wasmer.wasi_config_new &&
                          cli_wasmer.wasi_env_delete && cli_wasmer.wasi_env_initialize_instance &&
                          cli_wasmer.wasi_env_new && cli_wasmer.wasi_get_imports;
    major = cli_wasmer.wasmer_version_major();
    if (major != WASMER_VERSION_MAJOR) {
        cli_error("cannot use %s: this tool was built for Wasmer %d, and that is Wasmer %s; give "
                  "the library of Wasmer %d",
                  path, WASMER_VERSION_MAJOR, cli_wasmer.wasmer_version(), WASMER_VERSION_MAJOR);
        return CLI_FAILED;
    }
    return CLI_OK;
}

static const char *loaded_version(void)
{
    return cli_wasmer.wasmer_version();
}

static void *create(void)
{
    return cli_wasmer.wasm_engine_new();
}

static void destroy(void *native)
{
    cli_wasmer.wasm_engine_delete(native);
}

/* The engine is the tool's own, with the defaults, so that there is nothing to vouch for. The
 * version is that of the library, which need not be the one of the headers. */
static wasmcache_attachment *attach(wasmcache *cache, void *native,
                                    const wasmcache_attach_options *options)
{
    wasmcache_attach_options own = *options;

    if (!own.settings)
        own.settings = "";
    own.engine_version = cli_wasmer.wasmer_version();
    return wasmcache_wasmer_attach_with(cache, native, &own);
}

const struct cli_engine_type cli_engine_wasmer = {
    .name = "wasmer",
    .title = "Wasmer",
    .version = WASMER_VERSION,
    .library = "libwasmer.so",
    .root = "WASMER_ROOT",
    .default_path = WASMCACHE_DEFAULT_WASMER,
    .marker = "wasmer_last_error_length",
    .load = load,
    .loaded_version = loaded_version,
    .create = create,
    .attach = attach,
    .run = cli_wasmer_run,
    .invoke = cli_wasmer_invoke,
    .destroy = destroy,
};
