/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_hits WHAT DIR FILE HITS: saves a module of 4 MB of FILE's wasm, hits it until it is stamped,
 * then HITS times in hits(), for hit_instructions.sh to count. WHAT: path, or digest.
 *
 * The engine does nothing, so that all that is done in hits() is the library's doing. An artifact
 * of 4 MB: a hit that reads it is seen.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <wasmcache_engine.h>

enum { ARTIFACT = 4 << 20 };

static uint8_t artifact[ARTIFACT];
static int a_module;

static int compile(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                   void **module, void **error)
{
    (void)engine, (void)kind, (void)wasm, (void)length, (void)error;
    *module = &a_module;
    return 0;
}

static int serialize(void *engine, wasmcache_kind kind, void *module, wasmcache_artifact *out,
                     void **error)
{
    (void)engine, (void)kind, (void)module, (void)error;
    out->data = artifact;
    out->size = sizeof(artifact);
    return 0;
}

static void artifact_free(wasmcache_artifact *unused)
{
    (void)unused;
}

static int deserialize_file(void *engine, wasmcache_kind kind, const char *path, void **module,
                            void **error)
{
    (void)engine, (void)kind, (void)path, (void)error;
    *module = &a_module;
    return 0;
}

static int deserialize(void *engine, wasmcache_kind kind, const void *bytes, size_t length,
                       void **module, void **error)
{
    (void)engine, (void)kind, (void)bytes, (void)length, (void)error;
    *module = &a_module;
    return 0;
}

static void module_free(wasmcache_kind kind, void *module)
{
    (void)kind, (void)module;
}

static void error_message(const void *error, char *out, size_t size)
{
    (void)error;
    snprintf(out, size, "none");
}

static void error_free(void *error)
{
    (void)error;
}

static const wasmcache_engine_table table = {.size = sizeof(table),
                                             .name = "nothing",
                                             .kinds = 1u << WASMCACHE_MODULE,
                                             .compile = compile,
                                             .serialize = serialize,
                                             .artifact_free = artifact_free,
                                             .deserialize_file = deserialize_file,
                                             .deserialize = deserialize,
                                             .module_free = module_free,
                                             .error_message = error_message,
                                             .error_free = error_free};

static int get(wasmcache_attachment *wc, const wasmcache_source *source, wasmcache_outcome wanted)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    void *module = NULL, *error = NULL;
    int rc = wasmcache_get_native(&module, &error, wc, WASMCACHE_MODULE, source, NULL, &report);
    return rc == 0 && report.outcome == wanted ? 0 : -1;
}

/* Its name is what callgrind counts in. */
__attribute__((noinline)) int hits(wasmcache_attachment *wc, const wasmcache_source *source,
                                   unsigned count);
int hits(wasmcache_attachment *wc, const wasmcache_source *source, unsigned count)
{
    int failed = 0;
    for (unsigned i = 0; i < count; i++)
        failed |= get(wc, source, WASMCACHE_HIT);
    return failed;
}

int main(int argc, char **argv)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_options cache_options = WASMCACHE_OPTIONS_INIT;
    wasmcache_source path, source;
    wasmcache_attachment *wc;
    wasmcache_key key;
    wasmcache *cache;
    int engine, failed;

    if (argc != 5)
        return 2;
    cache_options.dir = argv[2];
    options.compiler = "none";
    options.engine_version = "1";
    options.artifact_version = 1;
    options.settings = "counted";
    path = wasmcache_source_path(argv[3]);
    if (wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, argv[3]) ||
        wasmcache_open(&cache, &cache_options) ||
        wasmcache_attach(&wc, cache, &table, &engine, &options)) {
        fprintf(stderr, "host_hits: %s\n", wasmcache_last_error()->message);
        return 1;
    }
    source = strcmp(argv[1], "digest") == 0 ? wasmcache_source_sha256(key.bytes, NULL, NULL) : path;
    failed = get(wc, &path, WASMCACHE_COMPILED);
    /* Until what the file system keeps as times says that the files are older than its clock's
     * step. */
    for (time_t end = time(NULL) + 4; !failed && time(NULL) < end;)
        failed = get(wc, &path, WASMCACHE_HIT);
    failed = failed || hits(wc, &source, (unsigned)strtoul(argv[4], NULL, 10));
    if (failed)
        fprintf(stderr, "host_hits: not what was expected: %s\n", wasmcache_last_error()->message);
    wasmcache_detach(wc);
    wasmcache_close(cache);
    return failed != 0;
}
