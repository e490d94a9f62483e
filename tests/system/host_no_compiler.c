/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host whose engine was built without a compiler: it only loads what another host saved, under
 * the fingerprint that the other one printed. glue_everywhere.sh compiles it against headers
 * without WASMTIME_FEATURE_COMPILER.
 *
 *     host_no_compiler DIR FINGERPRINT(64 hex digits)
 *
 * prints "hit 42 miss misuse": what the module of host_glue did and gave, what a get of another one
 * came to, and the error of an attachment with neither fingerprint nor settings.
 *
 * only-script
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "wasmcache_wasmtime.h"

static const uint8_t add[] = {0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x07, 0x01,
                              0x60, 0x02, 0x7f, 0x7f, 0x01, 0x7f, 0x03, 0x02, 0x01, 0x00, 0x07,
                              0x07, 0x01, 0x03, 'a',  'd',  'd',  0x00, 0x00, 0x0a, 0x09, 0x01,
                              0x07, 0x00, 0x20, 0x00, 0x20, 0x01, 0x6a, 0x0b};

static int32_t call_add(wasm_engine_t *engine, const wasmtime_module_t *module)
{
    wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
    wasmtime_context_t *context = wasmtime_store_context(store);
    wasmtime_instance_t instance;
    wasmtime_extern_t item;
    wasmtime_val_t arguments[2], result;
    wasm_trap_t *trap = NULL;
    int32_t sum = -1;

    memset(&result, 0, sizeof(result));
    memset(arguments, 0, sizeof(arguments));
    arguments[0].kind = arguments[1].kind = WASMTIME_I32;
    arguments[0].of.i32 = 19;
    arguments[1].of.i32 = 23;
    if (!wasmtime_instance_new(context, module, NULL, 0, &instance, &trap) && !trap &&
        wasmtime_instance_export_get(context, &instance, "add", 3, &item) &&
        !wasmtime_func_call(context, &item.of.func, arguments, 2, &result, 1, &trap) && !trap)
        sum = result.of.i32;
    wasmtime_store_delete(store);
    return sum;
}

int main(int argc, char **argv)
{
    static const uint8_t other[] = {0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00};
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attach_options attach = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_source source = wasmcache_source_bytes(add, sizeof(add));
    wasmcache_key fingerprint; /* 32 bytes in hex are read as a key is */
    wasmcache *cache = NULL;
    wasmcache_attachment *wc;
    wasmcache_module *module = NULL;
    wasm_engine_t *engine;

    if (argc != 3 || wasmcache_key_from_hex(&fingerprint, argv[2]) < 0)
        return 2;
    options.dir = argv[1];
    if (wasmcache_open(&cache, &options) < 0)
        return 1;
    engine = wasm_engine_new();
    attach.fingerprint = fingerprint.bytes;
    wc = wasmcache_wasmtime_attach_with(cache, engine, &attach);
    if (!wc || wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, &report) < 0) {
        fprintf(stderr, "%s\n", wasmcache_last_error()->message);
        return 1;
    }
    printf("%s %d", wasmcache_outcome_name(report.outcome),
           (int)call_add(engine, (const wasmtime_module_t *)wasmcache_module_native(module)));
    wasmcache_module_release(module);

    source = wasmcache_source_bytes(other, sizeof(other));
    module = NULL;
    printf(" %s",
           wasmcache_error_name(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL)));
    wasmcache_module_release(module);
    wasmcache_detach(wc);

    wc = wasmcache_wasmtime_attach(cache, engine, NULL);
    wasmcache_attachment_status(wc, &info);
    printf(" %s\n", wasmcache_error_name(info.error));
    wasmcache_detach(wc);
    wasmcache_close(cache);
    wasm_engine_delete(engine);
    return 0;
}
