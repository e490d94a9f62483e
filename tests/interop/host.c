/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host that shares a directory with Wasmer's own cache.
 *
 *     host [--no-legacy] [--recompile] ID DIR WASM [FUNCTION I32...]
 *
 * Prints a line, OUTCOME REASON SAVE_ERROR, then what the function gives. Each of the module's
 * imports is a function that traps.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wasmcache_wasmer.h"

static void die(const char *what)
{
    char text[512] = "";
    if (wasmer_last_error_length() > 0)
        wasmer_last_error_message(text, (int)sizeof(text));
    fprintf(stderr, "host: %s: %s\n", what, text);
    exit(1);
}

static wasm_trap_t *trap(void *store, const wasm_val_vec_t *arguments, wasm_val_vec_t *results)
{
    wasm_message_t message;
    (void)arguments;
    (void)results;
    wasm_name_new_from_string_nt(&message, "an import was called");
    return wasm_trap_new(store, &message);
}

static wasm_extern_t *find_export(const wasm_module_t *module, const wasm_instance_t *instance,
                                  const char *name)
{
    wasm_exporttype_vec_t types;
    wasm_extern_vec_t *exports = malloc(sizeof(*exports)); /* kept: the function is one of them */
    wasm_extern_t *found = NULL;
    wasm_module_exports(module, &types);
    wasm_instance_exports(instance, exports);
    for (size_t i = 0; i < types.size; i++) {
        const wasm_name_t *has = wasm_exporttype_name(types.data[i]);
        if (has->size == strlen(name) && memcmp(has->data, name, has->size) == 0)
            found = exports->data[i];
    }
    wasm_exporttype_vec_delete(&types);
    return found;
}

static void call(wasm_store_t *store, const wasm_module_t *module, int argc, char **argv)
{
    wasm_importtype_vec_t types;
    wasm_extern_vec_t imports;
    wasm_instance_t *instance;
    wasm_trap_t *trapped = NULL;
    wasm_val_t values[4], result = WASM_INIT_VAL;
    wasm_val_vec_t arguments = {(size_t)argc - 1, values}, results = {1, &result};
    wasm_extern_t *function;

    wasm_module_imports(module, &types);
    wasm_extern_vec_new_uninitialized(&imports, types.size);
    for (size_t i = 0; i < types.size; i++) {
        const wasm_externtype_t *type = wasm_importtype_type(types.data[i]);
        if (wasm_externtype_kind(type) != WASM_EXTERN_FUNC)
            die("an import is no function");
        imports.data[i] = wasm_func_as_extern(wasm_func_new_with_env(
            store, wasm_externtype_as_functype_const(type), trap, store, NULL));
    }
    instance = wasm_instance_new(store, module, &imports, &trapped);
    if (!instance)
        die("cannot instantiate");
    function = find_export(module, instance, argv[0]);
    if (!function || argc > 5)
        die("no such function");
    for (int i = 1; i < argc; i++) {
        values[i - 1].kind = WASM_I32;
        values[i - 1].of.i32 = (int32_t)strtol(argv[i], NULL, 10);
    }
    if (wasm_func_call(wasm_extern_as_func(function), &arguments, &results) != NULL)
        die("it trapped");
    printf("%d\n", (int)result.of.i32);
}

int main(int argc, char **argv)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_attach_options attach = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_get_options get = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    wasmcache_attachment *wc;
    wasmcache_source source;
    wasmcache *cache = NULL;
    wasm_engine_t *engine = wasm_engine_new();

    options.flags = WASMCACHE_LEGACY;
    for (; argc > 1 && strncmp(argv[1], "--", 2) == 0; argc--, argv++) {
        if (strcmp(argv[1], "--no-legacy") == 0)
            options.flags = 0;
        else
            get.flags = WASMCACHE_GET_RECOMPILE;
    }
    if (argc < 4 || !engine)
        die("usage: host [--no-legacy] [--recompile] ID DIR WASM [FUNCTION I32...]");
    attach.settings = "";
    attach.engine_id = argv[1];
    options.dir = argv[2];
    source = wasmcache_source_path(argv[3]);
    if (wasmcache_open(&cache, &options) < 0)
        die(wasmcache_last_error()->message);
    wc = wasmcache_wasmer_attach_with(cache, engine, &attach);
    if (!wc || wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, &get, &report) < 0)
        die(wasmcache_last_error()->message);
    printf("%s %s %s\n", wasmcache_outcome_name(report.outcome),
           wasmcache_reason_name(report.reason), wasmcache_error_name(report.save_error));
    if (argc > 4) {
        wasm_store_t *store = wasm_store_new(engine);
        call(store, wasmcache_module_native(module), argc - 4, argv + 4);
    }
    wasmcache_module_release(module);
    wasmcache_detach(wc);
    wasmcache_close(cache);
    return 0;
}
