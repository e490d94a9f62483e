/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The README's host, that is the two touches, as C11 and as C++17: glue_everywhere.sh compiles it
 * against every engine.
 *
 *     host_glue DIR    prints "VERSION module OUTCOME component OUTCOME NAMESPACE FINGERPRINT"
 *
 * Exit status 1 if a module does not do what it should.
 *
 * only-script
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "wasmcache_wasmtime.h"

/* (module (func (export "add") (param i32 i32) (result i32) ...)) */
static const uint8_t add[] = {0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x07, 0x01,
                              0x60, 0x02, 0x7f, 0x7f, 0x01, 0x7f, 0x03, 0x02, 0x01, 0x00, 0x07,
                              0x07, 0x01, 0x03, 'a',  'd',  'd',  0x00, 0x00, 0x0a, 0x09, 0x01,
                              0x07, 0x00, 0x20, 0x00, 0x20, 0x01, 0x6a, 0x0b};

static const char *outcome = "nothing";

static void on_event(const wasmcache_event *event, void *payload)
{
    (void)payload;
    if (event->type == WASMCACHE_EVENT_HIT)
        outcome = "hit";
    else if (event->type == WASMCACHE_EVENT_SAVED)
        outcome = "saved";
    else if (event->type != WASMCACHE_EVENT_MISS)
        fprintf(stderr, "%s: %s\n", wasmcache_event_name(event->type), event->message);
}

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
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache *cache = NULL;
    wasmcache_attachment *wc;
    wasm_engine_t *engine;
    wasmtime_module_t *module = NULL;
    wasmtime_error_t *error;
    int ok = 0;

    if (argc != 2)
        return 2;
    options.dir = argv[1];
    options.on_event = on_event;
    if (wasmcache_open(&cache, &options) < 0)
        return 1;
    engine = wasm_engine_new();
    wc = wasmcache_wasmtime_attach(cache, engine, "");
    wasmcache_attachment_status(wc, &info);
    printf("%s", WASMTIME_VERSION);

    error = wasmcache_wasmtime_module_new(wc, engine, add, sizeof(add), &module);
    if (!error && module) {
        printf(" module %s", outcome);
        ok = call_add(engine, module) == 42;
        wasmtime_module_delete(module);
    }
#if defined(WASMCACHE_WASMTIME_COMPONENTS)
    {
        static const uint8_t component_wasm[] = {0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00};
        wasmtime_component_t *component = NULL;
        outcome = "nothing";
        error = wasmcache_wasmtime_component_new(wc, engine, component_wasm, sizeof(component_wasm),
                                                 &component);
        ok = ok && !error && component;
        printf(" component %s", outcome);
        if (component)
            wasmtime_component_delete(component);
    }
#endif
    printf(" %s ", info.engine_namespace);
    for (int i = 0; i < 32; i++)
        printf("%02x", info.fingerprint[i]);
    printf("\n");
    wasmcache_detach(wc);
    wasmcache_close(cache);
    wasm_engine_delete(engine);
    return ok ? 0 : 1;
}
