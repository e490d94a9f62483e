/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that links one engine and loads another, with the glue for both: two versions of Wasmtime,
 * or Wasmtime and Wasmer. It is made by the scripts, which compile this file twice: as it is
 * against the headers of the linked engine, and with LOADED_ENGINE against those of the other,
 * where every call goes through dlsym; each time with ENGINE_WASMTIME or ENGINE_WASMER.
 *
 *     host_with_other_engine DIR LINKED-LIBRARY LOADED-LIBRARY
 *
 * prints, for each engine, "linked|loaded NAME VERSION FIRST SECOND NAMESPACE": what the first and
 * the second get of a module did. An engine that is linked statically is in the host itself.
 *
 * only-script
 */
#if !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Both parts: gets the module twice and prints the line. */
struct part {
    const char *dir;
    const char *library; /* where every function of this engine must be */
};
int loaded_engine(const struct part *part);

/* Ends the host if the function is not in the library that it should be in. */
static void must_be_in(const char *library, const char *name, void (*function)(void))
{
    Dl_info where;
    char *a, *b;
    void *address;
    memcpy(&address, &function, sizeof(address));
    if (!address || !dladdr(address, &where) || !(a = realpath(where.dli_fname, NULL)) ||
        !(b = realpath(library, NULL))) {
        fprintf(stderr, "%s is nowhere\n", name);
        exit(1);
    }
    if (strcmp(a, b) != 0) {
        fprintf(stderr, "%s is in %s, not in %s\n", name, a, b);
        exit(1);
    }
    free(a);
    free(b);
}

static const char *current_library;
static unsigned calls;

#if defined(LOADED_ENGINE)
static void *handle;

static void (*find_or_null(const char *name))(void)
{
    void (*function)(void) = NULL;
    void *address = dlsym(handle, name);
    memcpy(&function, &address, sizeof(function));
    if (function)
        must_be_in(current_library, name, function);
    calls++;
    return function;
}

static void (*find(const char *name))(void)
{
    void (*function)(void) = find_or_null(name);
    must_be_in(current_library, name, function);
    return function;
}
#define CALL(name) ((__typeof__(&name))find(#name))
#define OPTIONAL(name) ((__typeof__(&name))find_or_null(#name))
#else
static void linked(const char *name, void (*function)(void))
{
    if (function)
        must_be_in(current_library, name, function);
    calls++;
}
#define CALL(name) (linked(#name, (void (*)(void))name), name)
#define OPTIONAL(name) (linked(#name, (void (*)(void))name), name)
#endif

#if defined(ENGINE_WASMER)

#include <wasmer.h>

#if defined(LOADED_ENGINE) || defined(WASMCACHE_WASMER_PLUS)
#define MAYBE
#else
#define MAYBE __attribute__((weak))
#endif
extern wasm_module_t *wasmer_plus_module_deserialize_file(const wasm_engine_t *engine,
                                                          const char *path) MAYBE;
extern wasm_module_t *wasmer_plus_module_clone(const wasm_module_t *module) MAYBE;
extern void wasmer_plus_engine_id(const wasm_engine_t *engine, wasm_byte_vec_t *out) MAYBE;
#define WASMCACHE_WASMER_CALL(name) CALL(name)
#define WASMCACHE_WASMER_OPTIONAL(name) OPTIONAL(name)
#include "wasmcache_wasmer.h"

#define NAME "wasmer " WASMER_VERSION
typedef wasm_module_t engine_module;

static wasmcache_attachment *attach(wasmcache *cache, wasm_engine_t *engine)
{
    return wasmcache_wasmer_attach(cache, engine, "");
}

static void module_delete(engine_module *module)
{
    CALL(wasm_module_delete)(module);
}

static engine_module *get(wasmcache_attachment *wc, wasm_engine_t *engine, const uint8_t *wasm,
                          size_t size)
{
    const wasm_byte_vec_t bytes = {size, (wasm_byte_t *)(uintptr_t)wasm};
    wasm_store_t *store = CALL(wasm_store_new)(engine);
    engine_module *module = wasmcache_wasmer_module_new(wc, store, &bytes);
    CALL(wasm_store_delete)(store);
    return module;
}

static int32_t answer(wasm_engine_t *engine, const engine_module *module)
{
    wasm_store_t *store = CALL(wasm_store_new)(engine);
    wasm_extern_vec_t imports = WASM_EMPTY_VEC, exports;
    wasm_val_vec_t none = WASM_EMPTY_VEC, results;
    wasm_val_t result = WASM_INIT_VAL;
    wasm_trap_t *trap = NULL;
    wasm_instance_t *instance = CALL(wasm_instance_new)(store, module, &imports, &trap);
    int32_t value = -1;
    results.size = 1;
    results.data = &result;
    if (instance) {
        CALL(wasm_instance_exports)(instance, &exports);
        if (!CALL(wasm_func_call)(CALL(wasm_extern_as_func)(exports.data[0]), &none, &results))
            value = result.of.i32;
        CALL(wasm_extern_vec_delete)(&exports);
        CALL(wasm_instance_delete)(instance);
    }
    CALL(wasm_store_delete)(store);
    return value;
}

/* The thread's text, which is the engine's own. */
static int take_refusal(wasmcache_attachment *wc, wasm_engine_t *engine, const uint8_t *wasm,
                        size_t size)
{
    char text[512];
    engine_module *module = get(wc, engine, wasm, size);
    return !module && CALL(wasmer_last_error_message)(text, sizeof(text)) > 0;
}

#else

#define WASMCACHE_WASMTIME_CALL(name) CALL(name)
#include "wasmcache_wasmtime.h"

#define NAME "wasmtime " WASMTIME_VERSION
typedef wasmtime_module_t engine_module;

static wasmcache_attachment *attach(wasmcache *cache, wasm_engine_t *engine)
{
    return wasmcache_wasmtime_attach(cache, engine, "");
}

static void module_delete(engine_module *module)
{
    CALL(wasmtime_module_delete)(module);
}

static engine_module *get(wasmcache_attachment *wc, wasm_engine_t *engine, const uint8_t *wasm,
                          size_t size)
{
    engine_module *module = NULL;
    return wasmcache_wasmtime_module_new(wc, engine, wasm, size, &module) ? NULL : module;
}

static int32_t answer(wasm_engine_t *engine, const engine_module *module)
{
    wasmtime_store_t *store = CALL(wasmtime_store_new)(engine, NULL, NULL);
    wasmtime_context_t *context = CALL(wasmtime_store_context)(store);
    wasmtime_instance_t instance;
    wasmtime_extern_t item;
    wasmtime_val_t result;
    wasm_trap_t *trap = NULL;
    int32_t value = -1;
    if (!CALL(wasmtime_instance_new)(context, module, NULL, 0, &instance, &trap) &&
        CALL(wasmtime_instance_export_get)(context, &instance, "answer", 6, &item) &&
        !CALL(wasmtime_func_call)(context, &item.of.func, NULL, 0, &result, 1, &trap))
        value = result.of.i32;
    CALL(wasmtime_store_delete)(store);
    return value;
}

static int take_refusal(wasmcache_attachment *wc, wasm_engine_t *engine, const uint8_t *wasm,
                        size_t size)
{
    engine_module *module = NULL;
    wasm_name_t text = {0, NULL};
    wasmtime_error_t *error = wasmcache_wasmtime_module_new(wc, engine, wasm, size, &module);
    if (!error)
        return 0;
    CALL(wasmtime_error_message)(error, &text);
    CALL(wasm_byte_vec_delete)(&text);
    CALL(wasmtime_error_delete)(error);
    return module == NULL;
}

#endif

/* (module (func (export "answer") (result i32) i32.const 42)) */
static const uint8_t wasm[] = {0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x01, 0x05,
                               0x01, 0x60, 0x00, 0x01, 0x7f, 0x03, 0x02, 0x01, 0x00, 0x07,
                               0x0a, 0x01, 0x06, 'a',  'n',  's',  'w',  'e',  'r',  0x00,
                               0x00, 0x0a, 0x06, 0x01, 0x04, 0x00, 0x41, 0x2a, 0x0b};

static const char *outcome;

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

static int run_part(const struct part *part, const char *name)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache *cache = NULL;
    wasmcache_attachment *wc;
    wasm_engine_t *engine;
    int ok = 1;

    current_library = part->library;
    options.dir = part->dir;
    options.on_event = on_event;
    if (wasmcache_open(&cache, &options) < 0)
        return 1;
    engine = CALL(wasm_engine_new)();
    wc = attach(cache, engine);
    wasmcache_attachment_status(wc, &info);
    printf("%s " NAME, name);
    for (int i = 0; i < 2; i++) {
        engine_module *module;
        outcome = "nothing";
        module = get(wc, engine, wasm, sizeof(wasm));
        if (!module)
            return 1;
        ok = ok && answer(engine, module) == 42;
        module_delete(module);
        printf(" %s", outcome);
    }
    printf(" %s\n", info.engine_namespace);
    /* The engine's error for what is no module, which crosses the library, must be its own too. */
    ok = ok && take_refusal(wc, engine, wasm, 12) && calls > 10;
    wasmcache_detach(wc);
    wasmcache_close(cache);
    CALL(wasm_engine_delete)(engine);
    return ok ? 0 : 1;
}

#if defined(LOADED_ENGINE)
int loaded_engine(const struct part *part)
{
    handle = dlopen(part->library, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    return run_part(part, "loaded");
}
#else
/* Not there in a build that knows one engine only. */
extern int loaded_engine(const struct part *part) __attribute__((weak));

int main(int argc, char **argv)
{
    struct part part;
    if (!loaded_engine) {
        printf("host_other_engine.sh makes this host with two engines\n");
        return 77;
    }
    if (argc != 4)
        return 2;
    part.dir = argv[1];
    /* One after the other, and once more when both are there. */
    for (int i = 0; i < 2; i++) {
        part.library = argv[2];
        if (run_part(&part, "linked") != 0)
            return 1;
        part.library = argv[3];
        if (loaded_engine(&part) != 0)
            return 1;
    }
    return 0;
}
#endif
