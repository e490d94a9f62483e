/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_HOST_H
#define BENCH_HOST_H

/*
 * What is measured inside a process, for one engine. bench/host.c is the same for all engines; each
 * has a file that defines `bench_engine` and is linked with it.
 *
 * A rig is an engine and every way to get a module from it that is compared. Its folder, made by
 * rig_make(), has for one module
 *
 *     cache/         ours
 *     artifact.bin   what the engine serialized, written with write(2): what is read or mapped, and
 *                    handed over as bytes
 *     entry.bin      another name of our entry: what the engine's call for files loads without us.
 *                    The same file, since how the page cache holds a file (pages of 4 KiB or up to
 *                    2 MiB) makes more of a difference to a hit than we do; engines pass over what
 *                    is behind the artifact
 *     own/ own.toml  the engine's own cache and its configuration, if it has one
 */

#include <stddef.h>
#include <stdint.h>

#include <wasmcache_engine.h>

struct bench_engine {
    const char *name;
    const wasmcache_engine_table *(*table)(void);
    void *(*engine_new)(void);
    /* With its own cache, from a file. NULL: it has none. */
    void *(*engine_with_cache)(const char *config);
    void (*engine_delete)(void *engine);
    wasmcache_attachment *(*attach)(wasmcache *cache, void *engine, const char *settings);
};

extern const struct bench_engine bench_engine;

struct bytes {
    uint8_t *data;
    size_t size;
};

/* A cache of ours with the engine attached to it. */
struct attached {
    wasmcache *cache;
    wasmcache_attachment *wc;
};

struct rig {
    const wasmcache_engine_table *table;
    void *engine;
    void *with_cache; /* the engine with its own cache; NULL: none */
    char cache_dir[1024], artifact[1024], entry[1024], own_dir[1024], own_config[1024];
    const char *wasm_path;
    struct bytes wasm;
    uint8_t sha256[32];
    struct attached once, always;
};

/* A way to a module. 0, or what failed is on standard error. */
struct way {
    const char *name;
    int (*load)(struct rig *rig, void **module);
};

uint64_t now_ns(void);
/* Says it on standard error and ends the process. */
void die(const char *what, ...) __attribute__((noreturn, format(printf, 1, 2)));

struct bytes read_file(const char *path);
/* Open, write, close; it must not be there. */
void write_file(const char *path, struct bytes bytes);
/* The files and folders below, then the folder itself: until a power cut does no harm. */
void sync_below(const char *dir);

/* Names only. */
void rig_paths(struct rig *rig, const char *dir, const char *wasm_path);
/* Everything that the ways need: engines, caches, the wasm and its digest. */
void rig_open(struct rig *rig, const char *dir, const char *wasm_path);
void rig_close(struct rig *rig);

void attached_open(struct attached *a, const struct rig *rig, wasmcache_verify verify,
                   unsigned flags, const char *settings);
void attached_close(struct attached *a);

/* Ends the process if there is none of that name, or the engine lacks it. */
const struct way *way_find(const char *name);
void *way_load(const struct way *way, struct rig *rig);
void module_free(const struct rig *rig, void *module);

#endif
