/* SPDX-License-Identifier: Apache-2.0 */
/*
 * counted DIR FILE.wasm: a module as a counted reference, from a path, with a report.
 *
 * The library reads the file itself: on a hit in pieces, to hash it, and whole only if it has to be
 * compiled. What the cache does goes to standard error as it happens; what came of it, to standard
 * output.
 */
#include <inttypes.h>
#include <stdio.h>

#include <wasmcache_wasmtime.h>

/* Called on the thread where it happened, in the middle of the get: it only writes. */
static void on_event(const wasmcache_event *event, void *payload)
{
    FILE *log = payload;
    fprintf(log, "event %s", wasmcache_event_name(event->type));
    if (event->reason != WASMCACHE_REASON_NONE)
        fprintf(log, " (%s)", wasmcache_reason_name(event->reason));
    if (event->message[0])
        fprintf(log, ": %s", event->message);
    fputc('\n', log);
}

/* A user of the module with a reference of its own, as a thread or a tenant would have. */
static size_t count_exports(wasmcache_module *module)
{
    wasm_exporttype_vec_t exports;
    size_t count;

    wasmcache_module_ref(module);
    wasmtime_module_exports(wasmcache_module_native(module), &exports);
    count = exports.size;
    wasm_exporttype_vec_delete(&exports);
    wasmcache_module_release(module);
    return count;
}

static void print_report(const wasmcache_report *report)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    printf("outcome   %s", wasmcache_outcome_name(report->outcome));
    if (report->reason != WASMCACHE_REASON_NONE)
        printf(" (%s)", wasmcache_reason_name(report->reason));
    printf("\nkey       %s\n", wasmcache_key_to_hex(hex, &report->key));
    printf("wasm      %" PRIu64 " bytes\n", report->wasm_bytes);
    printf("artifact  %" PRIu64 " bytes\n", report->artifact_bytes);
    printf("time      key %.2f, load %.2f, compile %.2f, save %.2f, total %.2f ms\n",
           (double)report->key_ns / 1e6, (double)report->load_ns / 1e6,
           (double)report->compile_ns / 1e6, (double)report->save_ns / 1e6,
           (double)report->total_ns / 1e6);
    if (report->outcome == WASMCACHE_COMPILED && report->save_error)
        printf("not saved: %s\n", wasmcache_error_name(report->save_error));
}

/* Returns the exit status. */
static int get(wasmcache_attachment *attachment, const char *path)
{
    wasmcache_source source = wasmcache_source_path(path);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module;

    if (wasmcache_get(&module, attachment, WASMCACHE_MODULE, &source, NULL, &report)) {
        fprintf(stderr, "counted: %s\n", wasmcache_last_error()->message);
        return 1;
    }
    print_report(&report);
    printf("exports   %zu\n", count_exports(module));
    wasmcache_module_release(module); /* the last reference: Wasmtime's module goes with it */
    return 0;
}

int main(int argc, char **argv)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    wasmcache_attachment *attachment;
    wasm_engine_t *engine;
    wasmcache *cache;
    int rc;

    if (argc != 3) {
        fprintf(stderr, "usage: counted DIR FILE.wasm\n");
        return 2;
    }
    options.dir = argv[1];
    options.on_event = on_event;
    options.payload = stderr;
    if (wasmcache_open(&cache, &options)) {
        fprintf(stderr, "counted: %s\n", wasmcache_last_error()->message);
        return 1;
    }
    wasmcache_status(cache, &status);
    if (status.state != WASMCACHE_STATE_ON) /* no reason to stop: all is compiled */
        fprintf(stderr, "counted: the cache does not save: %s\n", status.message);

    engine = wasm_engine_new();
    attachment = wasmcache_wasmtime_attach(cache, engine, NULL);
    rc = get(attachment, argv[2]);

    wasmcache_detach(attachment);
    wasm_engine_delete(engine);
    wasmcache_close(cache);
    return rc;
}
