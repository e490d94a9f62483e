/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An engine on paper, for what is measured of the cache alone: compiling takes no time. Its wasm is
 * a number behind "\0asm" (host_paper.h); its artifact is a header and words that follow from it,
 * and all of them are compared when it is loaded.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "host_paper.h"

struct header {
    char magic[8];
    uint64_t id, size; /* size: of all, a multiple of 8 */
};

static const char magic[8] = "paperart";

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ x >> 33;
}

uint64_t paper_size(uint64_t id)
{
    return 1024 + mix(id ^ 1) % (14 * 1024) / 8 * 8;
}

void paper_wasm(uint8_t out[PAPER_WASM], uint64_t id)
{
    memcpy(out, "\0asm", 4);
    memset(out + 4, 0, 4);
    memcpy(out + 8, &id, sizeof(id));
}

uint64_t paper_id(const void *module)
{
    uint64_t id;
    memcpy(&id, module, sizeof(id));
    return id;
}

void *paper_module(uint64_t id)
{
    uint64_t *module = malloc(sizeof(*module));
    if (!module)
        die("no memory");
    *module = id;
    return module;
}

static int compile(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                   void **module, void **error)
{
    uint64_t id;
    (void)engine;
    (void)kind;
    *error = NULL;
    if (length != PAPER_WASM)
        return 1;
    memcpy(&id, (const uint8_t *)wasm + 8, sizeof(id));
    *module = paper_module(id);
    return 0;
}

static int serialize(void *engine, wasmcache_kind kind, void *module, wasmcache_artifact *out,
                     void **error)
{
    struct header h = {.id = paper_id(module)};
    uint64_t *words;
    (void)engine;
    (void)kind;
    *error = NULL;
    memcpy(h.magic, magic, sizeof(magic));
    h.size = paper_size(h.id);
    words = malloc((size_t)h.size);
    if (!words)
        return 1;
    memcpy(words, &h, sizeof(h));
    for (uint64_t i = sizeof(h) / 8; i < h.size / 8; i++)
        words[i] = mix(h.id + i);
    out->data = (const uint8_t *)words;
    out->size = (size_t)h.size;
    out->owner[0] = words;
    return 0;
}

static void artifact_free(wasmcache_artifact *artifact)
{
    free(artifact->owner[0]);
}

static int deserialize(void *engine, wasmcache_kind kind, const void *bytes, size_t length,
                       void **module, void **error)
{
    const uint64_t *words = bytes;
    struct header h;
    (void)engine;
    (void)kind;
    *error = NULL;
    if (length < sizeof(h))
        return 1;
    memcpy(&h, bytes, sizeof(h));
    if (memcmp(h.magic, magic, sizeof(magic)) != 0 || h.size != paper_size(h.id) || h.size > length)
        return 1;
    for (uint64_t i = sizeof(h) / 8; i < h.size / 8; i++)
        if (words[i] != mix(h.id + i))
            return 1;
    *module = paper_module(h.id);
    return 0;
}

static int deserialize_file(void *engine, wasmcache_kind kind, const char *path, void **module,
                            void **error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *bytes;
    int rc = 1;
    *error = NULL;
    if (fd < 0)
        return 1;
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes != MAP_FAILED) {
            rc = deserialize(engine, kind, bytes, (size_t)st.st_size, module, error);
            munmap(bytes, (size_t)st.st_size);
        }
    }
    close(fd);
    return rc;
}

static void module_free_one(wasmcache_kind kind, void *module)
{
    (void)kind;
    free(module);
}

static void error_message(const void *error, char *out, size_t size)
{
    (void)error;
    snprintf(out, size, "that is no artifact on paper");
}

static void error_free(void *error)
{
    (void)error;
}

static const wasmcache_engine_table *table(void)
{
    static const wasmcache_engine_table t = {.size = sizeof(t),
                                             .name = "paper",
                                             .kinds = 1u << WASMCACHE_MODULE,
                                             .compile = compile,
                                             .serialize = serialize,
                                             .artifact_free = artifact_free,
                                             .deserialize_file = deserialize_file,
                                             .deserialize = deserialize,
                                             .module_free = module_free_one,
                                             .error_message = error_message,
                                             .error_free = error_free};
    return &t;
}

static void *engine_new(void)
{
    return malloc(1);
}

static wasmcache_attachment *attach(wasmcache *cache, void *engine, const char *settings)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_attachment *wc = NULL;
    options.compiler = "none";
    options.engine_version = "1";
    options.artifact_version = 1;
    options.settings = settings;
    return wasmcache_attach(&wc, cache, table(), engine, &options) ? NULL : wc;
}

const struct bench_engine bench_engine = {.name = "paper",
                                          .table = table,
                                          .engine_new = engine_new,
                                          .engine_delete = free,
                                          .attach = attach};
