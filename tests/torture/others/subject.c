/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host with a cache, which tests/torture/others does harm to from outside:
 *
 *     torture_subject.ENGINE ours|own|naive get DIR WASM default|other
 *     torture_subject.ENGINE ours clean DIR
 *
 * get: the module from the cache, or compiled and saved, as a host does it; it is run, and made an
 * artifact of. It tells of that in lines, each of which is out before the next step:
 *
 *     outcome hit|compiled
 *     saved                   the cache says that the module is in it now; or
 *     save-error TEXT         why not; neither is said where the cache does not tell
 *     answer N                of the export "work" for 3
 *     artifact HEX            FNV-1a of what the engine makes of the module
 *
 * bench/wasix, "get", prints the same. `own` is the cache that Wasmtime has itself; `naive` is what
 * the rows have to find fault with: no checks, one name for its temporary file, which nobody
 * removes, no look at what a write wrote, and what it cannot load it removes by name. "other" is an
 * engine with other settings.
 */
#define _GNU_SOURCE
#include "system/engine_host.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static uint64_t print_of(const void *bytes, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

static wasm_engine_t *engine_of(int other, const char **settings)
{
    *settings = ENGINE_SHOWS_SETTINGS ? NULL : "";
    return other ? engine_new_other(settings) : engine_new();
}

static engine_module *must_compile(wasm_engine_t *engine, const uint8_t *wasm, size_t size)
{
    char why[512];
    engine_module *module = engine_compile(engine, wasm, size, why, sizeof(why));
    if (!module)
        broken("compile", why);
    tell("outcome compiled");
    return module;
}

/* `size`: of the artifact, if the engine gives more: all of the file that it mapped; 0: all. */
static void prove(wasm_engine_t *engine, engine_module *module, uint64_t size)
{
    const int32_t three = 3;
    wasm_byte_vec_t artifact;
    tell("answer %d", call_export(engine, module, "work", &three, 1));
    if (engine_serialize(module, &artifact) != 0)
        broken("serialize", "it cannot");
    if (size && size < artifact.size)
        artifact.size = (size_t)size;
    tell("artifact %016llx", (unsigned long long)print_of(artifact.data, artifact.size));
}

/* ---- ours ---- */

static void get_ours(const char *dir, const uint8_t *wasm, size_t size, int other)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    const wasmcache_source source = wasmcache_source_bytes(wasm, size);
    const char *settings;
    wasm_engine_t *engine = engine_of(other, &settings);
    wasmcache *cache = NULL;
    wasmcache_attachment *wc = NULL;
    void *module = NULL, *error = NULL;
    int rc;
    options.dir = dir;
    if (wasmcache_open(&cache, &options) == 0)
        wc = engine_attach(cache, engine, settings);
    if (!wc) {
        tell("load-error %s", wasmcache_last_error()->message);
        prove(engine, must_compile(engine, wasm, size), 0);
        return;
    }
    rc = wasmcache_get_native(&module, &error, wc, WASMCACHE_MODULE, &source, NULL, &report);
    if (rc != 0) {
        tell("load-error %s", wasmcache_last_error()->message);
        module = must_compile(engine, wasm, size);
    } else if (report.outcome == WASMCACHE_HIT) {
        tell("outcome hit");
    } else {
        tell("outcome compiled");
        if (report.save_error)
            tell("save-error %s", wasmcache_error_name(report.save_error));
        else
            tell("saved");
    }
    prove(engine, module, report.artifact_bytes);
    wasmcache_detach(wc);
    wasmcache_close(cache);
}

static void clean_ours(const char *dir)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache *cache = NULL;
    options.dir = dir;
    if (wasmcache_open(&cache, &options) != 0 || wasmcache_clean(cache, NULL) != 0)
        tell("save-error %s", wasmcache_last_error()->message);
    wasmcache_close(cache);
}

/* ---- Wasmtime's ---- */

#if defined(ENGINE_WASMTIME)
static int log_fd = -1, has_cache;

static int logged(const char *text)
{
    static char log[65536];
    const ssize_t n = pread(log_fd, log, sizeof(log) - 1, 0);
    log[n > 0 ? n : 0] = '\0';
    return strstr(log, text) != NULL;
}

static void pause_ms(long ms)
{
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* The worker writes a line when it takes up what followed from a hit or a save; a save that failed
 * writes one too. What it does then takes less than a millisecond. */
static void wait_for_worker(void)
{
    for (int i = 0; has_cache && i < 1000; i++) {
        if (logged("handle_on_cache_") || logged("Failed to ") || logged("ailed to create"))
            break;
        pause_ms(2);
    }
    pause_ms(15);
}

static wasm_engine_t *engine_with_own_cache(const char *dir, int other)
{
    char text[1024], path[64];
    const int file = memfd_create("config", MFD_CLOEXEC);
    const int n = snprintf(text, sizeof(text), "[cache]\ndirectory = \"%s\"\n", dir);
    wasm_config_t *config;
    wasmtime_error_t *error;
    log_fd = memfd_create("log", MFD_CLOEXEC);
    if (file < 0 || log_fd < 0 || n < 0 || write(file, text, (size_t)n) != n ||
        dup2(log_fd, STDERR_FILENO) < 0)
        broken("memfd_create", dir);
    /* Its log is the only place where it tells of hits. The logger starts with the first engine. */
    setenv("RUST_LOG", "wasmtime_internal_cache=trace", 1);
    wasm_engine_delete(wasm_engine_new());
    config = wasm_config_new();
    wasmtime_config_parallel_compilation_set(config, false);
    if (other)
        wasmtime_config_cranelift_opt_level_set(config, WASMTIME_OPT_LEVEL_NONE);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    error = wasmtime_config_cache_config_load(config, path);
    has_cache = error == NULL;
    if (error)
        tell("load-error %s", error_text(text, sizeof(text), error));
    return wasm_engine_new_with_config(config);
}

static void get_own(const char *dir, const uint8_t *wasm, size_t size, int other)
{
    char why[512];
    wasm_engine_t *engine = engine_with_own_cache(dir, other);
    engine_module *module = engine_compile(engine, wasm, size, why, sizeof(why));
    if (!module)
        broken("compile", why);
    wait_for_worker();
    tell("outcome %s", logged("handle_on_cache_get") ? "hit" : "compiled");
    prove(engine, module, 0);
}
#else
static void get_own(const char *dir, const uint8_t *wasm, size_t size, int other)
{
    (void)wasm, (void)size, (void)other;
    broken("own", dir);
}
#endif

/* ---- the control ---- */

static engine_module *load_naive(wasm_engine_t *engine, const char *path)
{
    static uint8_t bytes[1 << 22];
    engine_module *module = NULL;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, bytes, sizeof(bytes)) : -1;
    if (n >= 0)
        module = engine_load(engine, bytes, (size_t)n);
    if (fd >= 0)
        close(fd);
    if (!module)
        unlink(path);
    return module;
}

static void save_naive(const char *path, engine_module *module)
{
    char temp[1100];
    wasm_byte_vec_t artifact;
    int fd;
    if (engine_serialize(module, &artifact) != 0)
        broken("serialize", path);
    snprintf(temp, sizeof(temp), "%s.tmp", path);
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    if (write(fd, artifact.data, artifact.size) > 0 && rename(temp, path) == 0)
        tell("saved");
    close(fd);
}

static void get_naive(const char *dir, const uint8_t *wasm, size_t size, int other)
{
    const char *settings;
    wasm_engine_t *engine = engine_of(other, &settings);
    engine_module *module;
    char path[1024];
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        broken("mkdir", dir);
    snprintf(path, sizeof(path), "%s/%016llx.bin", dir, (unsigned long long)print_of(wasm, size));
    module = load_naive(engine, path);
    if (module) {
        tell("outcome hit");
    } else {
        module = must_compile(engine, wasm, size);
        save_naive(path, module);
    }
    prove(engine, module, 0);
}

int main(int argc, char **argv)
{
    uint8_t *wasm;
    size_t size;
    int other;
    if (argc == 4 && strcmp(argv[1], "ours") == 0 && strcmp(argv[2], "clean") == 0) {
        clean_ours(argv[3]);
        return 0;
    }
    if (argc != 6 || strcmp(argv[2], "get") != 0) {
        fprintf(stderr, "usage: torture_subject ours|own|naive get DIR WASM default|other, or ours "
                        "clean DIR\n");
        return 2;
    }
    wasm = scratch_read(argv[4], &size);
    other = strcmp(argv[5], "other") == 0;
    if (strcmp(argv[1], "ours") == 0)
        get_ours(argv[3], wasm, size, other);
    else if (strcmp(argv[1], "own") == 0)
        get_own(argv[3], wasm, size, other);
    else
        get_naive(argv[3], wasm, size, other);
    /* As a host that ends without giving back. */
    fflush(stdout);
    _exit(0);
}
