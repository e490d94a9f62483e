/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <wasmcache_wasmer.h>

static void *engine_new(void)
{
    return wasm_engine_new();
}

static void engine_delete(void *engine)
{
    wasm_engine_delete(engine);
}

static wasmcache_attachment *attach(wasmcache *cache, void *engine, const char *settings)
{
    return wasmcache_wasmer_attach(cache, engine, settings);
}

const struct bench_engine bench_engine = {.name = "wasmer",
                                          .table = wasmcache_wasmer_table,
                                          .engine_new = engine_new,
                                          .engine_delete = engine_delete,
                                          .attach = attach};
