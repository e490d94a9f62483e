/* SPDX-License-Identifier: Apache-2.0 */
/* engine_host.h for Wasmer, with wasmer-plus and without. */
#include "engine_host.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

wasm_module_t *counted_wasmer_plus_module_deserialize_file(const wasm_engine_t *engine,
                                                           const char *path)
{
    host_count("wasmer_plus_module_deserialize_file");
    return wasmer_plus_module_deserialize_file(engine, path);
}

wasm_module_t *counted_wasmer_plus_module_clone(const wasm_module_t *module)
{
    host_count("wasmer_plus_module_clone");
    return wasmer_plus_module_clone(module);
}

void counted_wasmer_plus_engine_id(const wasm_engine_t *engine, wasm_byte_vec_t *out)
{
    host_count("wasmer_plus_engine_id");
    wasmer_plus_engine_id(engine, out);
}

wasm_engine_t *engine_new(void)
{
    return wasm_engine_new();
}

wasm_engine_t *engine_new_other(const char **settings)
{
    wasm_config_t *config = wasm_config_new();
    wasm_config_sys_canonicalize_nans(config, true);
    *settings = "canonical nans";
    return wasm_engine_new_with_config(config);
}

int engine_maps(void)
{
    return engine_table()->deserialize_file != NULL;
}

const wasmcache_engine_table *engine_table(void)
{
    return wasmcache_wasmer_table();
}

wasmcache_attachment *engine_attach(wasmcache *cache, wasm_engine_t *engine, const char *settings)
{
    return wasmcache_wasmer_attach(cache, engine, settings);
}

wasmcache_attachment *engine_attach_with(wasmcache *cache, wasm_engine_t *engine,
                                         const wasmcache_attach_options *options)
{
    return wasmcache_wasmer_attach_with(cache, engine, options);
}

/* Takes the thread's text, if something failed. */
static void take_text(int failed, char *why, size_t room)
{
    char text[2048] = "";
    if (failed && wasmer_last_error_length() > 0)
        wasmer_last_error_message(text, sizeof(text));
    if (room)
        snprintf(why, room, "%s", text);
}

static wasm_byte_vec_t borrow(const void *bytes, size_t size)
{
    wasm_byte_vec_t borrowed;
    borrowed.size = size;
    borrowed.data = (wasm_byte_t *)(uintptr_t)bytes;
    return borrowed;
}

engine_module *engine_compile(wasm_engine_t *engine, const void *wasm, size_t size, char *why,
                              size_t room)
{
    const wasm_byte_vec_t bytes = borrow(wasm, size);
    wasm_store_t *store = wasm_store_new(engine);
    wasm_module_t *module = wasm_module_new(store, &bytes);
    take_text(!module, why, room);
    wasm_store_delete(store);
    return module;
}

engine_module *engine_get(wasmcache_attachment *wc, wasm_engine_t *engine, const void *wasm,
                          size_t size, char *why, size_t room)
{
    const wasm_byte_vec_t bytes = borrow(wasm, size);
    wasm_store_t *store = wasm_store_new(engine);
    wasm_module_t *module = wasmcache_wasmer_module_new(wc, store, &bytes);
    take_text(!module, why, room);
    wasm_store_delete(store);
    return module;
}

int engine_serialize(engine_module *module, wasm_byte_vec_t *out)
{
    out->size = 0;
    out->data = NULL;
    wasm_module_serialize(module, out);
    take_text(!out->data, NULL, 0);
    return out->data == NULL;
}

engine_module *engine_load(wasm_engine_t *engine, const void *bytes, size_t size)
{
    const wasm_byte_vec_t borrowed = borrow(bytes, size);
    wasm_store_t *store = wasm_store_new(engine);
    wasm_module_t *module = wasm_module_deserialize(store, &borrowed);
    take_text(!module, NULL, 0);
    wasm_store_delete(store);
    return module;
}

engine_module *engine_load_file(wasm_engine_t *engine, const char *path)
{
    wasm_module_t *module = NULL;
    struct stat st;
    void *bytes;
    int fd;
    if (engine_maps()) {
        module = wasmer_plus_module_deserialize_file(engine, path);
        take_text(!module, NULL, 0);
        return module;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        broken("open", path);
    bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (bytes == MAP_FAILED)
        return NULL;
    module = engine_load(engine, bytes, (size_t)st.st_size);
    munmap(bytes, (size_t)st.st_size);
    return module;
}

void engine_module_delete(engine_module *module)
{
    wasm_module_delete(module);
}

/* ---- to run it ---- */

/* Zero, whatever is wanted. `payload` is the function's type. */
static wasm_trap_t *give_zeros(void *payload, const wasm_val_vec_t *arguments,
                               wasm_val_vec_t *results)
{
    const wasm_valtype_vec_t *types = wasm_functype_results(payload);
    (void)arguments;
    for (size_t i = 0; i < results->size; i++) {
        memset(&results->data[i], 0, sizeof(results->data[i]));
        results->data[i].kind = wasm_valtype_kind(types->data[i]);
    }
    return NULL;
}

static void delete_functype(void *type)
{
    wasm_functype_delete(type);
}

static wasm_extern_t *import_for(wasm_store_t *store, const wasm_externtype_t *type)
{
    switch (wasm_externtype_kind(type)) {
    case WASM_EXTERN_FUNC: {
        /* Some wasm.h have it copy what may be changed. */
        const wasm_functype_t *wanted = wasm_externtype_as_functype_const(type);
        wasm_functype_t *own = wasm_functype_copy((wasm_functype_t *)(uintptr_t)wanted);
        return wasm_func_as_extern(
            wasm_func_new_with_env(store, own, give_zeros, own, delete_functype));
    }
    case WASM_EXTERN_GLOBAL: {
        const wasm_globaltype_t *global = wasm_externtype_as_globaltype_const(type);
        wasm_val_t zero;
        memset(&zero, 0, sizeof(zero));
        zero.kind = wasm_valtype_kind(wasm_globaltype_content(global));
        return wasm_global_as_extern(wasm_global_new(store, global, &zero));
    }
    case WASM_EXTERN_TABLE:
        return wasm_table_as_extern(
            wasm_table_new(store, wasm_externtype_as_tabletype_const(type), NULL));
    case WASM_EXTERN_MEMORY:
        return wasm_memory_as_extern(
            wasm_memory_new(store, wasm_externtype_as_memorytype_const(type)));
    default:
        return NULL;
    }
}

/* NULL: there is none of that name. */
static wasm_func_t *find_function(const engine_module *module, const wasm_extern_vec_t *exports,
                                  const char *name)
{
    wasm_exporttype_vec_t types;
    wasm_func_t *found = NULL;
    wasm_module_exports(module, &types);
    for (size_t i = 0; i < types.size && i < exports->size; i++) {
        const wasm_name_t *is = wasm_exporttype_name(types.data[i]);
        if (is->size == strlen(name) && memcmp(is->data, name, is->size) == 0)
            found = wasm_extern_as_func(exports->data[i]);
    }
    wasm_exporttype_vec_delete(&types);
    return found;
}

int32_t call_export(wasm_engine_t *engine, engine_module *module, const char *name,
                    const int32_t *arguments, size_t count)
{
    wasm_store_t *store = wasm_store_new(engine);
    wasm_importtype_vec_t types;
    wasm_extern_vec_t imports, exports;
    wasm_instance_t *instance;
    wasm_trap_t *trap = NULL;
    wasm_val_t values[4], result;
    wasm_val_vec_t in = {count, values}, out = {1, &result};
    wasm_func_t *function;
    char text[512];

    if (count > 4)
        broken("call_export", "too many arguments");
    wasm_module_imports(module, &types);
    wasm_extern_vec_new_uninitialized(&imports, types.size);
    for (size_t i = 0; i < types.size; i++) {
        imports.data[i] = import_for(store, wasm_importtype_type(types.data[i]));
        if (!imports.data[i])
            broken("no import", name);
    }
    wasm_importtype_vec_delete(&types);
    instance = wasm_instance_new(store, module, &imports, &trap);
    take_text(!instance, text, sizeof(text));
    if (!instance || trap)
        broken("instantiate", text);
    wasm_instance_exports(instance, &exports);
    function = find_function(module, &exports, name);
    if (!function)
        broken("there is no such function", name);
    memset(values, 0, sizeof(values));
    memset(&result, 0, sizeof(result));
    for (size_t i = 0; i < count; i++) {
        values[i].kind = WASM_I32;
        values[i].of.i32 = arguments[i];
    }
    trap = wasm_func_call(function, &in, &out);
    if (trap)
        broken(name, "trap");
    if (result.kind != WASM_I32)
        broken("result is no i32", name);
    wasm_extern_vec_delete(&exports);
    wasm_extern_vec_delete(&imports);
    wasm_instance_delete(instance);
    wasm_store_delete(store);
    return result.of.i32;
}
