/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_layer OWN LAYER FILE...: gets each file from a cache in OWN over a layer, and prints a line
 * for each: OUTCOME LAYER SAVED, where SAVED is how many were saved so far. For cli_folder.sh,
 * which has the layer made by the tool.
 */
#include "engine_host.h"

int main(int argc, char **argv)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *const layers[] = {&layer};
    struct host h;

    if (argc < 4)
        return 2;
    layer.dir = argv[2];
    options.dir = argv[1];
    options.layers = layers;
    options.layer_count = 1;
    host_open_with(&h, &options, wasm_engine_new(), "");
    for (int i = 3; i < argc; i++) {
        const wasmcache_source source = wasmcache_source_path(argv[i]);
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        if (wasmcache_get(&module, h.wc, WASMCACHE_MODULE, &source, NULL, &report) < 0) {
            fprintf(stderr, "host_layer: %s\n", wasmcache_last_error()->message);
            return 1;
        }
        wasmcache_module_release(module);
        printf("%s %d %u\n", wasmcache_outcome_name(report.outcome), report.layer,
               (unsigned)h.seen.count[WASMCACHE_EVENT_SAVED]);
    }
    host_close(&h);
    return 0;
}
