/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host as small as hosts come, for tests that need another process.
 *
 *     host_module DIR WASM call NAME [I32...]    calls an export that gives an i32, and prints it
 *     host_module DIR WASM wasi OUTPUT [ARG...]  runs a WASI command; its output goes to the file
 *     host_module DIR WASM -                     only gets the module
 *
 * The module comes through the two touches and is then got once more, counted, for the report, of
 * which a line is printed: OUTCOME REASON NAMESPACE KEY FIRST, where FIRST is "loaded" or
 * "compiled", what the first get did.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <wasi.h>

#include "wasmcache_wasmtime.h"

static unsigned hits;

static void on_event(const wasmcache_event *event, void *payload)
{
    (void)payload;
    hits += event->type == WASMCACHE_EVENT_HIT;
}

static void die(const char *what, wasmtime_error_t *error, wasm_trap_t *trap)
{
    wasm_name_t text = {0, NULL};
    if (error)
        wasmtime_error_message(error, &text);
    else if (trap)
        wasm_trap_message(trap, &text);
    fprintf(stderr, "host_module: %s: %.*s\n", what, (int)text.size, text.size ? text.data : "");
    exit(1);
}

static uint8_t *read_all(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes;
    long length = -1;
    if (!file || fseek(file, 0, SEEK_END) != 0 || (length = ftell(file)) < 0)
        die(path, NULL, NULL);
    rewind(file);
    bytes = malloc((size_t)length + 1);
    if (!bytes || fread(bytes, 1, (size_t)length, file) != (size_t)length)
        die(path, NULL, NULL);
    fclose(file);
    *size = (size_t)length;
    return bytes;
}

static void set_wasi(wasmtime_linker_t *linker, wasmtime_context_t *context, int argc, char **argv)
{
    wasi_config_t *wasi = wasi_config_new();
    wasmtime_error_t *error = wasmtime_linker_define_wasi(linker);
    if (error)
        die("wasi", error, NULL);
    /* argv[0] is the output, and what the command sees as its own name */
    if (!wasi_config_set_argv(wasi, (size_t)argc, (const char **)argv) ||
        !wasi_config_set_stdout_file(wasi, argv[0]))
        die("wasi", NULL, NULL);
    error = wasmtime_context_set_wasi(context, wasi);
    if (error)
        die("wasi", error, NULL);
}

static void run(wasm_engine_t *engine, wasmtime_module_t *module, int argc, char **argv)
{
    const int wasi = strcmp(argv[0], "wasi") == 0;
    const char *name = wasi ? "_start" : argv[1];
    wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
    wasmtime_context_t *context = wasmtime_store_context(store);
    wasmtime_linker_t *linker = wasmtime_linker_new(engine);
    wasmtime_instance_t instance;
    wasmtime_extern_t item;
    wasmtime_val_t values[4], result;
    wasmtime_error_t *error;
    wasm_trap_t *trap = NULL;
    size_t count = 0;
    int status = 0;

    if (wasi)
        set_wasi(linker, context, argc - 1, argv + 1);
    else if ((error = wasmtime_linker_define_unknown_imports_as_default_values(linker, context,
                                                                               module)) != NULL)
        die("imports", error, NULL);
    error = wasmtime_linker_instantiate(linker, context, module, &instance, &trap);
    if (error || trap)
        die("instantiate", error, trap);
    if (!wasmtime_instance_export_get(context, &instance, name, strlen(name), &item) ||
        item.kind != WASMTIME_EXTERN_FUNC)
        die("no such function", NULL, NULL);
    for (; !wasi && count < 4 && 2 + (int)count < argc; count++) {
        values[count].kind = WASMTIME_I32;
        values[count].of.i32 = (int32_t)strtol(argv[2 + count], NULL, 10);
    }
    error = wasmtime_func_call(context, &item.of.func, values, count, &result, wasi ? 0 : 1, &trap);
    if (trap || (error && !(wasi && wasmtime_error_exit_status(error, &status) && status == 0)))
        die(name, error, trap);
    if (error)
        wasmtime_error_delete(error);
    if (!wasi)
        printf("%d\n", (int)result.of.i32);
    wasmtime_linker_delete(linker);
    wasmtime_store_delete(store);
}

int main(int argc, char **argv)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    char hex[WASMCACHE_KEY_HEX_SIZE];
    wasmcache *cache = NULL;
    wasmcache_attachment *wc;
    wasmcache_module *counted = NULL;
    wasmcache_source source;
    wasmtime_module_t *module = NULL;
    wasmtime_error_t *error;
    wasm_engine_t *engine;
    const char *first;
    uint8_t *wasm;
    size_t size;

    if (argc < 4 || (strcmp(argv[3], "-") != 0 && argc < 5)) {
        fprintf(stderr, "host_module DIR WASM call NAME [I32...] | wasi OUTPUT [ARG...] | -\n");
        return 2;
    }
    wasm = read_all(argv[2], &size);
    options.dir = argv[1];
    options.on_event = on_event;
    wasmcache_open(&cache, &options);
    engine = wasm_engine_new();
    wc = wasmcache_wasmtime_attach(cache, engine, "");
    error = wasmcache_wasmtime_module_new(wc, engine, wasm, size, &module);
    if (error)
        die("module_new", error, NULL);
    first = hits ? "loaded" : "compiled";
    source = wasmcache_source_bytes(wasm, size);
    if (wasmcache_get(&counted, wc, WASMCACHE_MODULE, &source, NULL, &report) < 0)
        die(wasmcache_last_error()->message, NULL, NULL);
    wasmcache_module_release(counted);
    wasmcache_attachment_status(wc, &info);
    printf("%s %s %s %s %s\n", wasmcache_outcome_name(report.outcome),
           wasmcache_reason_name(report.reason), info.engine_namespace,
           wasmcache_key_to_hex(hex, &report.key), first);
    wasmcache_detach(wc);
    wasmcache_close(cache);
    if (strcmp(argv[3], "-") != 0)
        run(engine, module, argc - 3, argv + 3);
    wasmtime_module_delete(module);
    wasm_engine_delete(engine);
    free(wasm);
    return 0;
}
