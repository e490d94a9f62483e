/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small host for each engine, for tests that need another process.
 *
 *     host_module DIR WASM call NAME [I32...]    calls an export that gives an i32, and prints it
 *     host_module DIR WASM wasi OUTPUT [ARG...]  runs a WASI command; its output goes to the file
 *                                                (where the engine's library has WASI)
 *     host_module DIR WASM -                     only gets the module
 *
 * The module comes through the two touches and is then got once more, counted, for the report, of
 * which a line is printed: OUTCOME REASON NAMESPACE KEY FIRST, where FIRST is "loaded" or
 * "compiled", what the first get did.
 */
#include "engine_host.h"

static void die(const char *what, const char *why)
{
    fprintf(stderr, "host_module: %s: %s\n", what, why);
    exit(1);
}

static uint8_t *read_all(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    uint8_t *bytes;
    long length = -1;
    if (!file || fseek(file, 0, SEEK_END) != 0 || (length = ftell(file)) < 0)
        die(path, "cannot be read");
    rewind(file);
    bytes = malloc((size_t)length + 1);
    if (!bytes || fread(bytes, 1, (size_t)length, file) != (size_t)length)
        die(path, "cannot be read");
    fclose(file);
    *size = (size_t)length;
    return bytes;
}

#if ENGINE_HAS_WASI
#include <wasi.h>

static void check(const char *what, wasmtime_error_t *error)
{
    char text[512];
    if (error)
        die(what, error_text(text, sizeof(text), error));
}

/* argv[0] is the output, and what the command sees as its own name */
static void run_command(wasm_engine_t *engine, engine_module *module, int argc, char **argv)
{
    wasmtime_store_t *store = wasmtime_store_new(engine, NULL, NULL);
    wasmtime_context_t *context = wasmtime_store_context(store);
    wasmtime_linker_t *linker = wasmtime_linker_new(engine);
    wasi_config_t *wasi = wasi_config_new();
    wasmtime_instance_t instance;
    wasmtime_extern_t item;
    wasmtime_error_t *error;
    wasm_trap_t *trap = NULL;
    int status = 0;

    check("wasi", wasmtime_linker_define_wasi(linker));
    if (!wasi_config_set_argv(wasi, (size_t)argc, (const char **)argv) ||
        !wasi_config_set_stdout_file(wasi, argv[0]))
        die("wasi", argv[0]);
    check("wasi", wasmtime_context_set_wasi(context, wasi));
    check("instantiate", wasmtime_linker_instantiate(linker, context, module, &instance, &trap));
    if (trap || !wasmtime_instance_export_get(context, &instance, "_start", 6, &item) ||
        item.kind != WASMTIME_EXTERN_FUNC)
        die("instantiate", "a trap, or no _start");
    error = wasmtime_func_call(context, &item.of.func, NULL, 0, NULL, 0, &trap);
    if (trap || (error && !(wasmtime_error_exit_status(error, &status) && status == 0)))
        die("_start", "it failed");
    if (error)
        wasmtime_error_delete(error);
    wasmtime_linker_delete(linker);
    wasmtime_store_delete(store);
}
#else
static void run_command(wasm_engine_t *engine, engine_module *module, int argc, char **argv)
{
    (void)engine;
    (void)module;
    (void)argc;
    die(argv[0], "the engine's library has no WASI");
}
#endif

static void run(wasm_engine_t *engine, engine_module *module, int argc, char **argv)
{
    int32_t numbers[4];
    size_t count = 0;
    if (strcmp(argv[0], "wasi") == 0) {
        run_command(engine, module, argc - 1, argv + 1);
        return;
    }
    for (; count < 4 && 2 + (int)count < argc; count++)
        numbers[count] = (int32_t)strtol(argv[2 + count], NULL, 10);
    printf("%d\n", (int)call_export(engine, module, argv[1], numbers, count));
}

int main(int argc, char **argv)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char hex[WASMCACHE_KEY_HEX_SIZE], why[512];
    wasmcache_module *counted = NULL;
    wasmcache_source source;
    engine_module *module;
    const char *first;
    struct host h;
    uint8_t *wasm;
    size_t size;

    if (argc < 4 || (strcmp(argv[3], "-") != 0 && argc < 5)) {
        fprintf(stderr, "host_module DIR WASM call NAME [I32...] | wasi OUTPUT [ARG...] | -\n");
        return 2;
    }
    wasm = read_all(argv[2], &size);
    options.dir = argv[1];
    host_open_with(&h, &options, wasm_engine_new(), "");
    module = engine_get(h.wc, h.engine, wasm, size, why, sizeof(why));
    if (!module)
        die("no module", why);
    first = h.seen.count[WASMCACHE_EVENT_HIT] ? "loaded" : "compiled";
    source = wasmcache_source_bytes(wasm, size);
    if (wasmcache_get(&counted, h.wc, WASMCACHE_MODULE, &source, NULL, &report) < 0)
        die("get", wasmcache_last_error()->message);
    wasmcache_module_release(counted);
    printf("%s %s %s %s %s\n", wasmcache_outcome_name(report.outcome),
           wasmcache_reason_name(report.reason), host_namespace(&h),
           wasmcache_key_to_hex(hex, &report.key), first);
    wasmcache_detach(h.wc);
    wasmcache_close(h.cache);
    if (strcmp(argv[3], "-") != 0)
        run(h.engine, module, argc - 3, argv + 3);
    engine_module_delete(module);
    wasm_engine_delete(h.engine);
    free(wasm);
    return 0;
}
