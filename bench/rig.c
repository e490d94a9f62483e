/* SPDX-License-Identifier: Apache-2.0 */
/* Files, the rig, and the ways. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void die(const char *what, ...)
{
    va_list args;
    fprintf(stderr, "bench-%s: ", bench_engine.name);
    va_start(args, what);
    vfprintf(stderr, what, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

/* ---- files ---- */

struct bytes read_file(const char *path)
{
    struct bytes bytes = {NULL, 0};
    struct stat st;
    size_t done = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        die("%s: %s", path, strerror(errno));
    bytes.size = (size_t)st.st_size;
    bytes.data = malloc(bytes.size ? bytes.size : 1);
    while (bytes.data && done < bytes.size) {
        ssize_t n = read(fd, bytes.data + done, bytes.size - done);
        if (n <= 0)
            die("%s: %s", path, strerror(errno));
        done += (size_t)n;
    }
    close(fd);
    if (!bytes.data)
        die("no memory for %s", path);
    return bytes;
}

void write_file(const char *path, struct bytes bytes)
{
    size_t done = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        die("%s: %s", path, strerror(errno));
    while (done < bytes.size) {
        ssize_t n = write(fd, bytes.data + done, bytes.size - done);
        if (n <= 0)
            die("%s: %s", path, strerror(errno));
        done += (size_t)n;
    }
    if (close(fd) < 0)
        die("%s: %s", path, strerror(errno));
}

/* What is gone since it was listed was temporary: Wasmtime's own cache has a thread at work. */
static void sync_one(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return;
    if (fd < 0 || fsync(fd) < 0)
        die("fsync %s: %s", path, strerror(errno));
    close(fd);
}

void sync_below(const char *dir)
{
    struct dirent *entry;
    DIR *list = opendir(dir);
    if (!list)
        die("%s: %s", dir, strerror(errno));
    while ((entry = readdir(list))) {
        struct stat st;
        char path[2048];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
            sync_below(path);
        else
            sync_one(path);
    }
    closedir(list);
    sync_one(dir);
}

/* ---- the rig ---- */

void rig_paths(struct rig *rig, const char *dir, const char *wasm_path)
{
    memset(rig, 0, sizeof(*rig));
    rig->table = bench_engine.table();
    rig->wasm_path = wasm_path;
    snprintf(rig->cache_dir, sizeof(rig->cache_dir), "%s/cache", dir);
    snprintf(rig->artifact, sizeof(rig->artifact), "%s/artifact.bin", dir);
    snprintf(rig->entry, sizeof(rig->entry), "%s/entry.bin", dir);
    snprintf(rig->own_dir, sizeof(rig->own_dir), "%s/own", dir);
    snprintf(rig->own_config, sizeof(rig->own_config), "%s/own.toml", dir);
}

void attached_open(struct attached *a, const struct rig *rig, wasmcache_verify verify,
                   unsigned flags, const char *settings)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = rig->cache_dir;
    options.verify = verify;
    options.flags = flags;
    if (wasmcache_open(&a->cache, &options))
        die("%s", wasmcache_last_error()->message);
    a->wc = bench_engine.attach(a->cache, rig->engine, settings);
    if (!a->wc)
        die("%s", wasmcache_last_error()->message);
}

void attached_close(struct attached *a)
{
    wasmcache_detach(a->wc);
    wasmcache_close(a->cache);
}

void rig_open(struct rig *rig, const char *dir, const char *wasm_path)
{
    wasmcache_key key;
    rig_paths(rig, dir, wasm_path);
    rig->wasm = read_file(wasm_path);
    if (wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, rig->wasm.data, rig->wasm.size))
        die("%s", wasmcache_last_error()->message);
    memcpy(rig->sha256, key.bytes, sizeof(rig->sha256));
    rig->engine = bench_engine.engine_new();
    if (bench_engine.engine_with_cache && access(rig->own_config, R_OK) == 0)
        rig->with_cache = bench_engine.engine_with_cache(rig->own_config);
    attached_open(&rig->once, rig, WASMCACHE_VERIFY_ONCE, 0, "bench");
    attached_open(&rig->always, rig, WASMCACHE_VERIFY_ALWAYS, 0, "bench");
}

void rig_close(struct rig *rig)
{
    attached_close(&rig->once);
    attached_close(&rig->always);
    if (rig->with_cache)
        bench_engine.engine_delete(rig->with_cache);
    bench_engine.engine_delete(rig->engine);
    free(rig->wasm.data);
}

void module_free(const struct rig *rig, void *module)
{
    if (module)
        rig->table->module_free(WASMCACHE_MODULE, module);
}

/* ---- the ways ---- */

static int engine_failed(const struct rig *rig, const char *call, void *error)
{
    char text[512];
    rig->table->error_message(error, text, sizeof(text));
    fprintf(stderr, "bench-%s: %s: %s\n", bench_engine.name, call, text);
    rig->table->error_free(error);
    return -1;
}

/* Anything but a hit would be another thing measured. */
static int get(struct attached *a, const wasmcache_source *source, void **module)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    void *error = NULL;
    int rc = wasmcache_get_native(module, &error, a->wc, WASMCACHE_MODULE, source, NULL, &report);
    if (rc == 0 && report.outcome == WASMCACHE_HIT)
        return 0;
    fprintf(stderr, "bench-%s: not a hit: %s, %s\n", bench_engine.name,
            wasmcache_outcome_name(report.outcome), wasmcache_reason_name(report.reason));
    return -1;
}

static int load_ours(struct rig *rig, void **module)
{
    const wasmcache_source source = wasmcache_source_path(rig->wasm_path);
    return get(&rig->once, &source, module);
}

static int load_ours_digest(struct rig *rig, void **module)
{
    const wasmcache_source source = wasmcache_source_sha256(rig->sha256, NULL, NULL);
    return get(&rig->once, &source, module);
}

static int load_ours_bytes(struct rig *rig, void **module)
{
    const wasmcache_source source = wasmcache_source_bytes(rig->wasm.data, rig->wasm.size);
    return get(&rig->once, &source, module);
}

static int load_ours_checked(struct rig *rig, void **module)
{
    const wasmcache_source source = wasmcache_source_path(rig->wasm_path);
    return get(&rig->always, &source, module);
}

static int load_file(struct rig *rig, void **module)
{
    void *error = NULL;
    if (rig->table->deserialize_file(rig->engine, WASMCACHE_MODULE, rig->entry, module, &error))
        return engine_failed(rig, "deserialize_file", error);
    return 0;
}

static int load_read(struct rig *rig, void **module)
{
    struct bytes bytes = read_file(rig->artifact);
    void *error = NULL;
    int rc = rig->table->deserialize(rig->engine, WASMCACHE_MODULE, bytes.data, bytes.size, module,
                                     &error);
    free(bytes.data);
    return rc ? engine_failed(rig, "deserialize", error) : 0;
}

static int load_map(struct rig *rig, void **module)
{
    void *error = NULL, *data;
    struct stat st;
    int rc, fd = open(rig->artifact, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        die("%s: %s", rig->artifact, strerror(errno));
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED)
        die("mmap %s: %s", rig->artifact, strerror(errno));
    rc = rig->table->deserialize(rig->engine, WASMCACHE_MODULE, data, (size_t)st.st_size, module,
                                 &error);
    munmap(data, (size_t)st.st_size);
    return rc ? engine_failed(rig, "deserialize", error) : 0;
}

/* The engine's own cache is asked with the wasm, as the engine's compile call. */
static int load_own(struct rig *rig, void **module)
{
    void *error = NULL;
    if (rig->table->compile(rig->with_cache, WASMCACHE_MODULE, rig->wasm.data, rig->wasm.size,
                            module, &error))
        return engine_failed(rig, "compile, with its own cache", error);
    return 0;
}

static int load_nothing(struct rig *rig, void **module)
{
    (void)rig;
    *module = NULL;
    return 0;
}

static const struct way ways[] = {
    {"ours", load_ours},                 /* by path; file and entry are known: no byte is read */
    {"ours-digest", load_ours_digest},   /* the caller has the SHA-256 of the wasm */
    {"ours-bytes", load_ours_bytes},     /* the wasm is in memory, and is hashed */
    {"ours-checked", load_ours_checked}, /* by path, but the digest of the entry is compared */
    {"bare", load_file},       /* the engine's call that maps a file, on our entry: the limit */
    {"read", load_read},       /* a file read into memory, and the engine's call for bytes */
    {"map", load_map},         /* the same, but mapped */
    {"own", load_own},         /* the engine's own cache */
    {"nothing", load_nothing}, /* the engine alone, for what memory it takes */
};

const struct way *way_find(const char *name)
{
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        if (strcmp(ways[i].name, name) != 0)
            continue;
        if (ways[i].load == load_file && !bench_engine.table()->deserialize_file)
            die("this engine maps no file");
        if (ways[i].load == load_own && !bench_engine.engine_with_cache)
            die("this engine has no cache of its own");
        return &ways[i];
    }
    die("there is no way \"%s\"", name);
}

void *way_load(const struct way *way, struct rig *rig)
{
    void *module = NULL;
    if (way->load(rig, &module))
        die("%s failed", way->name);
    return module;
}
