/* SPDX-License-Identifier: Apache-2.0 */
/* engine_host.h for Wasmtime. */
#include "engine_host.h"

static wasm_config_t *config_new(void)
{
    wasm_config_t *config = wasm_config_new();
    wasmtime_config_parallel_compilation_set(config, false);
    return config;
}

wasm_engine_t *engine_new(void)
{
    return wasm_engine_new_with_config(config_new());
}

wasm_engine_t *engine_new_other(const char **settings)
{
    wasm_config_t *config = config_new();
    wasmtime_config_cranelift_opt_level_set(config, WASMTIME_OPT_LEVEL_NONE);
    *settings = "";
    return wasm_engine_new_with_config(config);
}

int engine_maps(void)
{
    return 1;
}

const wasmcache_engine_table *engine_table(void)
{
    return wasmcache_wasmtime_table();
}

wasmcache_attachment *engine_attach(wasmcache *cache, wasm_engine_t *engine, const char *settings)
{
    return wasmcache_wasmtime_attach(cache, engine, settings);
}

wasmcache_attachment *engine_attach_with(wasmcache *cache, wasm_engine_t *engine,
                                         const wasmcache_attach_options *options)
{
    return wasmcache_wasmtime_attach_with(cache, engine, options);
}

char *error_text(char *out, size_t size, wasmtime_error_t *error)
{
    wasm_name_t text = {0, NULL};
    char *backtrace;
    if (error)
        wasmtime_error_message(error, &text);
    if (size) {
        snprintf(out, size, "%.*s", (int)text.size, text.size ? text.data : "");
        backtrace = strstr(out, "\nStack backtrace:");
        if (backtrace)
            *backtrace = '\0';
    }
    wasm_byte_vec_delete(&text);
    if (error)
        wasmtime_error_delete(error);
    return out;
}

engine_module *engine_compile(wasm_engine_t *engine, const void *wasm, size_t size, char *why,
                              size_t room)
{
    wasmtime_module_t *module = NULL;
    error_text(why, room, wasmtime_module_new(engine, wasm, size, &module));
    return module;
}

engine_module *engine_get(wasmcache_attachment *wc, wasm_engine_t *engine, const void *wasm,
                          size_t size, char *why, size_t room)
{
    wasmtime_module_t *module = NULL;
    error_text(why, room, wasmcache_wasmtime_module_new(wc, engine, wasm, size, &module));
    return module;
}

int engine_serialize(engine_module *module, wasm_byte_vec_t *out)
{
    wasmtime_error_t *error = wasmtime_module_serialize(module, out);
    const int failed = error != NULL;
    error_text(NULL, 0, error);
    return failed;
}

engine_module *engine_load(wasm_engine_t *engine, const void *bytes, size_t size)
{
    wasmtime_module_t *module = NULL;
    error_text(NULL, 0, wasmtime_module_deserialize(engine, bytes, size, &module));
    return module;
}

engine_module *engine_load_file(wasm_engine_t *engine, const char *path)
{
    wasmtime_module_t *module = NULL;
    error_text(NULL, 0, wasmtime_module_deserialize_file(engine, path, &module));
    return module;
}

void engine_module_delete(engine_module *module)
{
    wasmtime_module_delete(module);
}

static void must_not_fail(const char *what, wasmtime_error_t *error, wasm_trap_t *trap)
{
    char text[512];
    if (trap)
        broken(what, "trap");
    if (error)
        broken(what, error_text(text, sizeof(text), error));
}

int32_t call_export(wasm_engine_t *engine, wasmtime_module_t *module, const char *name,
                    const int32_t *arguments, size_t count)
{
    wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
    wasmtime_context_t *context = wasmtime_store_context(store);
    wasmtime_linker_t *linker = wasmtime_linker_new(engine);
    wasmtime_instance_t instance;
    wasmtime_extern_t item;
    wasmtime_val_t values[4], result;
    wasmtime_error_t *error;
    wasm_trap_t *trap = NULL;

    if (count > 4)
        broken("call_export", "too many arguments");
    /* For engines that count fuel or epochs; others refuse, which is nobody's problem. */
    error = wasmtime_context_set_fuel(context, 1000000);
    if (error)
        wasmtime_error_delete(error);
    wasmtime_context_set_epoch_deadline(context, 1);
    error = wasmtime_linker_define_unknown_imports_as_default_values(linker, context, module);
    must_not_fail("define_unknown_imports", error, NULL);
    error = wasmtime_linker_instantiate(linker, context, module, &instance, &trap);
    must_not_fail("instantiate", error, trap);
    if (!wasmtime_instance_export_get(context, &instance, name, strlen(name), &item) ||
        item.kind != WASMTIME_EXTERN_FUNC)
        broken("there is no such function", name);
    for (size_t i = 0; i < count; i++) {
        values[i].kind = WASMTIME_I32;
        values[i].of.i32 = arguments[i];
    }
    error = wasmtime_func_call(context, &item.of.func, values, count, &result, 1, &trap);
    must_not_fail(name, error, trap);
    if (result.kind != WASMTIME_I32)
        broken("result is no i32", name);
    wasmtime_linker_delete(linker);
    wasmtime_store_delete(store);
    return result.of.i32;
}
