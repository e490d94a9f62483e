/* SPDX-License-Identifier: Apache-2.0 */
/* first DIR FILE.wasm: compiles a module, or takes it from the cache in DIR. */
#include <stdio.h>

#include <wasmcache_wasmtime.h>

static void on_event(const wasmcache_event *event, void *payload)
{
    (void)payload;
    printf("%s: %s\n", wasmcache_event_name(event->type), event->key);
}

int main(int argc, char **argv)
{
    static uint8_t wasm[128 << 20]; /* no larger module is expected */
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    if (!file) {
        fprintf(stderr, "usage: first DIR FILE.wasm\n");
        return 2;
    }
    size_t length = fread(wasm, 1, sizeof(wasm), file);
    fclose(file);

    wasmcache *cache;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = argv[1];
    options.on_event = on_event;
    wasmcache_open(&cache, &options); /* succeeds, or gives NULL, which is "no cache" */

    wasm_engine_t *engine = wasm_engine_new();
    wasmcache_attachment *wc = wasmcache_wasmtime_attach(cache, engine, NULL); /* touch one */

    wasmtime_module_t *module;
    wasmtime_error_t *error =
        wasmcache_wasmtime_module_new(wc, engine, wasm, length, &module); /* touch two */
    if (error) {
        wasm_name_t text;
        wasmtime_error_message(error, &text);
        fprintf(stderr, "first: %.*s\n", (int)text.size, text.data);
        wasm_byte_vec_delete(&text);
        wasmtime_error_delete(error);
    } else {
        wasmtime_module_delete(module); /* the caller's, as ever */
    }

    wasmcache_detach(wc); /* before the engine goes */
    wasm_engine_delete(engine);
    wasmcache_close(cache);
    return error != NULL;
}
