/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <wasmcache_wasmtime.h>

static void *engine_new(void)
{
    return wasm_engine_new();
}

static void *engine_with_cache(const char *path)
{
    wasm_config_t *config = wasm_config_new();
    wasmtime_error_t *error = wasmtime_config_cache_config_load(config, path);
    if (error) {
        wasm_name_t text;
        wasmtime_error_message(error, &text);
        die("%s: %.*s", path, (int)text.size, text.data);
    }
    return wasm_engine_new_with_config(config);
}

static void engine_delete(void *engine)
{
    wasm_engine_delete(engine);
}

static wasmcache_attachment *attach(wasmcache *cache, void *engine, const char *settings)
{
    return wasmcache_wasmtime_attach(cache, engine, settings);
}

const struct bench_engine bench_engine = {.name = "wasmtime",
                                          .table = wasmcache_wasmtime_table,
                                          .engine_new = engine_new,
                                          .engine_with_cache = engine_with_cache,
                                          .engine_delete = engine_delete,
                                          .attach = attach};
