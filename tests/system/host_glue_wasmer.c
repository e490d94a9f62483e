/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two touches with Wasmer, as C11 and as C++17: glue_wasmer.sh compiles it in all ways in which
 * a host has the engine. With LOADED it takes every function from the library in argv[2].
 *
 *     host_glue_wasmer DIR [LIBRARY]    prints "VERSION OUTCOME WAY INTO NAMESPACE FINGERPRINT"
 *
 * WAY is "file" if the engine loads files, else "bytes"; INTO is "clone" if a module that others
 * hold can be taken out, else "shared". Exit status 1 if a module does not do what it should.
 *
 * only-script
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#if defined(LOADED)
#include <dlfcn.h>
#include <wasmer.h>

static void *handle;

static void (*find(const char *name))(void)
{
    void (*function)(void) = NULL;
    void *address = dlsym(handle, name);
    memcpy(&function, &address, sizeof(function));
    return function;
}

#ifdef __cplusplus
extern "C" {
#endif
extern wasm_module_t *wasmer_plus_module_deserialize_file(const wasm_engine_t *engine,
                                                          const char *path);
extern wasm_module_t *wasmer_plus_module_clone(const wasm_module_t *module);
extern void wasmer_plus_engine_id(const wasm_engine_t *engine, wasm_byte_vec_t *out);
#ifdef __cplusplus
}
#endif
#define WASMCACHE_WASMER_CALL(name) ((__typeof__(&name))find(#name))
#define WASMCACHE_WASMER_OPTIONAL(name) ((__typeof__(&name))find(#name))
#define CALL(name) WASMCACHE_WASMER_CALL(name)
#else
#define CALL(name) name
#endif

#include "wasmcache_wasmer.h"

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

static int32_t call_add(wasm_store_t *store, const wasm_module_t *module)
{
    wasm_extern_vec_t imports = WASM_EMPTY_VEC, exports;
    wasm_val_t numbers[2], result;
    wasm_val_vec_t in, out;
    wasm_trap_t *trap = NULL;
    wasm_instance_t *instance = CALL(wasm_instance_new)(store, module, &imports, &trap);
    int32_t sum = -1;
    memset(numbers, 0, sizeof(numbers));
    memset(&result, 0, sizeof(result));
    numbers[0].of.i32 = 19;
    numbers[1].of.i32 = 23;
    in.size = 2;
    in.data = numbers;
    out.size = 1;
    out.data = &result;
    if (instance) {
        CALL(wasm_instance_exports)(instance, &exports);
        if (!CALL(wasm_func_call)(CALL(wasm_extern_as_func)(exports.data[0]), &in, &out))
            sum = result.of.i32;
        CALL(wasm_extern_vec_delete)(&exports);
        CALL(wasm_instance_delete)(instance);
    }
    return sum;
}

/* A counted module that two hold is taken out, if the engine can clone. */
static const char *take_out(wasmcache_attachment *wc, wasm_store_t *store, int *ok)
{
    wasmcache_source source = wasmcache_source_bytes(add, sizeof(add));
    wasmcache_module *module = NULL;
    void *native;
    if (wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL) < 0) {
        *ok = 0;
        return "nothing";
    }
    wasmcache_module_ref(module);
    native = wasmcache_module_into_native(module);
    *ok = *ok && call_add(store, (const wasm_module_t *)wasmcache_module_native(module)) == 42;
    wasmcache_module_release(module);
    if (!native) {
        wasmcache_module_release(module);
        return "shared";
    }
    *ok = *ok && call_add(store, (const wasm_module_t *)native) == 42;
    CALL(wasm_module_delete)((wasm_module_t *)native);
    return "clone";
}

int main(int argc, char **argv)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache *cache = NULL;
    wasmcache_attachment *wc;
    wasm_byte_vec_t bytes;
    wasm_engine_t *engine;
    wasm_store_t *store;
    wasm_module_t *module;
    const char *first;
    int ok = 0;

#if defined(LOADED)
    handle = argc == 3 ? dlopen(argv[2], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!handle)
        return 2;
#else
    if (argc != 2)
        return 2;
#endif
    options.dir = argv[1];
    options.on_event = on_event;
    if (wasmcache_open(&cache, &options) < 0)
        return 1;
    engine = CALL(wasm_engine_new)();
    store = CALL(wasm_store_new)(engine);
    wc = wasmcache_wasmer_attach(cache, engine, "");
    wasmcache_attachment_status(wc, &info);
    bytes.size = sizeof(add);
    bytes.data = (wasm_byte_t *)(uintptr_t)add;
    module = wasmcache_wasmer_module_new(wc, store, &bytes);
    first = outcome;
    if (module) {
        ok = call_add(store, module) == 42;
        CALL(wasm_module_delete)(module);
    }
    printf("%s %s %s %s %s ", WASMER_VERSION, first,
           wasmcache_wasmer_table()->deserialize_file ? "file" : "bytes", take_out(wc, store, &ok),
           info.engine_namespace);
    for (int i = 0; i < 32; i++)
        printf("%02x", info.fingerprint[i]);
    printf("\n");
    wasmcache_detach(wc);
    wasmcache_close(cache);
    CALL(wasm_store_delete)(store);
    CALL(wasm_engine_delete)(engine);
    return ok ? 0 : 1;
}
