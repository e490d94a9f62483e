/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host with a read-only layer below its cache, for layer_writes.sh, which watches what it does to
 * the layer.
 *
 *     host_layers fill LAYER
 *
 * compiles modules 0 to 5 into it and prints the path of each entry.
 *
 *     host_layers use DIR LAYER FLAGS
 *
 * does everything that a cache can do, above that layer, in which the entries of 3 to 5 are damaged
 * by now; of modules 6 and 7 there are none. FLAGS: p: promote; r: the cache is read-only; s: the
 * layer is sealed; -: nothing.
 *
 * Ends with 0 if each call came to what it should and nothing failed because of the layer.
 */
#include "engine_host.h"

enum { GOOD = 3, FILLED = 6, ALL = 8 };

static uint8_t wasm[ALL][WASM_WORK_ROOM(40)];
static size_t length[ALL];
static wasmcache_key keys[ALL];
static int failed;

static void expect(int holds, const char *what, int module, const wasmcache_report *report)
{
    if (holds)
        return;
    failed = 1;
    fprintf(stderr, "host_layers: %s: module %d", what, module);
    if (report)
        fprintf(stderr, ": %s, %s, layer %d, save: %s", wasmcache_outcome_name(report->outcome),
                wasmcache_reason_name(report->reason), report->layer,
                wasmcache_error_name(report->save_error));
    fprintf(stderr, " (%s)\n", wasmcache_last_error()->message);
}

static wasmcache_report get(const struct host *h, int module, unsigned flags)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm[module], length[module]);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *got = NULL;
    options.flags = flags;
    expect(wasmcache_get(&got, h->wc, WASMCACHE_MODULE, &source, &options, &report) == 0, "get",
           module, &report);
    wasmcache_module_release(got);
    return report;
}

static void fill(const char *layer)
{
    struct host h;
    host_open(&h, layer, 0);
    for (int i = 0; i < FILLED; i++) {
        char path[1024];
        const wasmcache_report report = get(&h, i, 0);
        expect(report.outcome == WASMCACHE_COMPILED && report.save_error == 0, "fill", i, &report);
        if (wasmcache_entry_path(path, sizeof(path), h.cache, host_namespace(&h), &keys[i]) == 0)
            printf("%s\n", path);
    }
    host_close(&h);
}

/* From the layer, or from the cache's own directory where an earlier one was promoted or saved. */
static void get_all(const struct host *h, int round, int promotes, int saves)
{
    for (int i = 0; i < ALL; i++) {
        const wasmcache_report report = get(h, i, 0);
        if (i < GOOD)
            expect(report.outcome == WASMCACHE_HIT &&
                       report.layer == (round > 0 && promotes && saves ? 0 : 1),
                   "a good entry", i, &report);
        else if (round > 0 && saves)
            expect(report.outcome == WASMCACHE_HIT && report.layer == 0, "one that was saved", i,
                   &report);
        else
            expect(report.outcome == WASMCACHE_COMPILED &&
                       report.save_error == (saves ? 0 : WASMCACHE_EOFF),
                   "one that is damaged or missing", i, &report);
    }
}

static void load_all(const struct host *h)
{
    for (int i = 0; i < ALL; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        const int rc = wasmcache_load(&module, h->wc, WASMCACHE_MODULE, &keys[i], &report);
        expect(rc == 0 || i >= GOOD, "load", i, &report);
        wasmcache_module_release(module);
        (void)wasmcache_contains(h->wc, WASMCACHE_MODULE, &keys[i]);
    }
}

static void manage(const struct host *h, int saves)
{
    const char *ns = host_namespace(h);
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_iterator *it = NULL;
    uint64_t removed;
    int rc;
    expect(wasmcache_stats_read(h->cache, WASMCACHE_STATS_DIRECTORY, &stats) == 0, "stats", -1,
           NULL);
    expect(wasmcache_iterate(&it, h->cache, NULL, WASMCACHE_CHECK_DIGEST) == 0, "iterate", -1,
           NULL);
    while ((rc = wasmcache_iterator_next(it, &entry)) == 0)
        ;
    expect(rc == WASMCACHE_EMISS, "the walk", -1, NULL);
    wasmcache_iterator_close(it);
    options.max_entries = 1;
    options.max_age_seconds = 1;
    rc = wasmcache_prune(h->cache, &options, NULL);
    expect(saves ? rc == 0 : rc == WASMCACHE_EIO, "prune", -1, NULL);
    expect(wasmcache_clean(h->cache, &removed) == 0, "clean", -1, NULL);
    for (int i = 0; i < ALL && saves; i++) {
        rc = wasmcache_pin(h->cache, ns, &keys[i], i % 2);
        expect(rc == 0, "pin", i, NULL);
        rc = wasmcache_remove_damaged(h->cache, ns, &keys[i]);
        expect(rc == 0 || rc == WASMCACHE_EMISS, "remove-damaged", i, NULL);
        rc = wasmcache_remove(h->cache, ns, &keys[i]);
        expect(rc == 0 || rc == WASMCACHE_EMISS, "remove", i, NULL);
    }
    expect(wasmcache_stats_reset(h->cache) == 0 || !saves, "reset", -1, NULL);
    expect(wasmcache_flush(h->cache) == 0, "flush", -1, NULL);
}

static void use(const char *dir, const char *below, const char *flags)
{
    const int promotes = strchr(flags, 'p') != NULL, saves = !strchr(flags, 'r');
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *layers[1] = {&layer};
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    struct host h;
    layer.dir = below;
    layer.flags = (promotes ? WASMCACHE_LAYER_PROMOTE : 0u) |
                  (strchr(flags, 's') ? WASMCACHE_LAYER_SEALED : 0u);
    options.dir = dir;
    options.flags = saves ? 0 : WASMCACHE_READ_ONLY;
    options.layers = layers;
    options.layer_count = 1;
    host_open_with(&h, &options, engine_new(), "");
    for (int round = 0; round < 2; round++) {
        get_all(&h, round, promotes, saves);
        load_all(&h);
    }
    for (int i = 0; i < ALL; i++)
        (void)get(&h, i, WASMCACHE_GET_RECOMPILE);
    manage(&h, saves);
    /* Removed from the cache's own directory: it is the layer's again. */
    for (int i = 0; i < GOOD; i++) {
        const wasmcache_report report = get(&h, i, 0);
        expect(report.outcome == WASMCACHE_HIT && report.layer == 1, "after all was removed", i,
               &report);
    }
    if (wasmcache_stats_read(h.cache, WASMCACHE_STATS_PROCESS, &stats) == 0)
        expect(stats.layer_failures >= FILLED - GOOD && stats.layer_hits >= 2 * GOOD &&
                   !stats.save_failures && !stats.remove_failures,
               "the numbers", -1, NULL);
    expect(!h.seen.count[WASMCACHE_EVENT_SAVE_FAILED] &&
               !h.seen.count[WASMCACHE_EVENT_REMOVE_FAILED],
           "an event of a failure", -1, NULL);
    printf("%llu hits in the layer, %llu entries of it not usable, %llu saves\n",
           (unsigned long long)stats.layer_hits, (unsigned long long)stats.layer_failures,
           (unsigned long long)stats.saves);
    host_close(&h);
}

int main(int argc, char **argv)
{
    for (int i = 0; i < ALL; i++) {
        length[i] = wasm_work(wasm[i], 3 + i, 40);
        keys[i] = key_of(wasm[i], length[i]);
    }
    if (argc == 3 && strcmp(argv[1], "fill") == 0)
        fill(argv[2]);
    else if (argc == 5 && strcmp(argv[1], "use") == 0)
        use(argv[2], argv[3], argv[4]);
    else
        return 2;
    return failed;
}
