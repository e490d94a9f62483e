/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <stdlib.h>
#include <string.h>

#include "module.h"

enum { SHARDS = 16, BUCKETS = 64 };

struct item {
    struct item *next;
    const wasmcache_attachment *attachment;
    wasmcache_kind kind;
    wasmcache_key key;
    wasmcache_module *module;
    uint64_t bytes;
    _Atomic uint64_t used; /* when, last */
};

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    struct item *buckets[BUCKETS];
};

struct wc_memory {
    const char *alive; /* 1; a fork wipes it in the child */
    int64_t pid;       /* 0: `alive` says it. Else the only process that uses it */
    unsigned count_max;
    uint64_t bytes_max;
    atomic_uint count;
    _Atomic uint64_t bytes;
    struct shard shards[SHARDS];
};

struct wc_memory *wc_memory_new(unsigned count_max, uint64_t bytes_max)
{
    struct wc_memory *memory = NULL;
    char *alive;
    int wipes;
    if (posix_memalign((void **)&memory, 64, sizeof(*memory)))
        return NULL;
    memset(memory, 0, sizeof(*memory));
    alive = wc_os_wiped_memory(1, &wipes);
    if (!alive) {
        free(memory);
        return NULL;
    }
    *alive = 1;
    memory->alive = alive;
    memory->pid = wipes ? 0 : wc_os_pid();
    memory->count_max = count_max;
    memory->bytes_max = bytes_max;
    for (int i = 0; i < SHARDS; i++)
        pthread_mutex_init(&memory->shards[i].lock, NULL);
    return memory;
}

static int is_usable(const struct wc_memory *memory)
{
    return memory && *memory->alive && (!memory->pid || memory->pid == wc_os_pid());
}

void wc_memory_free(struct wc_memory *memory)
{
    if (!memory)
        return;
    if (is_usable(memory)) { /* else the modules are the parent's, and the locks too */
        wc_memory_forget(memory, NULL);
        for (int i = 0; i < SHARDS; i++)
            pthread_mutex_destroy(&memory->shards[i].lock);
    }
    wc_os_unmap(memory->alive, 1);
    free(memory);
}

static struct shard *shard_of(struct wc_memory *memory, const wasmcache_key *key)
{
    return &memory->shards[key->bytes[0] % SHARDS];
}

static struct item **bucket_of(struct shard *shard, const wasmcache_key *key)
{
    return &shard->buckets[key->bytes[1] % BUCKETS];
}

static struct item *find(struct shard *shard, const wasmcache_attachment *attachment,
                         wasmcache_kind kind, const wasmcache_key *key)
{
    struct item *item = *bucket_of(shard, key);
    while (item && (item->attachment != attachment || item->kind != kind ||
                    memcmp(&item->key, key, sizeof(*key)) != 0))
        item = item->next;
    return item;
}

wasmcache_module *wc_memory_find(struct wc_memory *memory, const wasmcache_attachment *attachment,
                                 wasmcache_kind kind, const wasmcache_key *key, uint64_t now,
                                 uint64_t *bytes)
{
    wasmcache_module *module = NULL;
    struct shard *shard;
    struct item *item;
    if (!is_usable(memory))
        return NULL;
    shard = shard_of(memory, key);
    pthread_mutex_lock(&shard->lock);
    item = find(shard, attachment, kind, key);
    if (item) {
        module = wasmcache_module_ref(item->module);
        atomic_store_explicit(&item->used, now, memory_order_relaxed);
        *bytes = item->bytes;
    }
    pthread_mutex_unlock(&shard->lock);
    return module;
}

/* With the shard's lock: out of the list. Its module is released without it. */
static void take_out(struct wc_memory *memory, struct item **at, struct item **gone)
{
    struct item *item = *at;
    *at = item->next;
    item->next = *gone;
    *gone = item;
    atomic_fetch_sub(&memory->count, 1);
    atomic_fetch_sub(&memory->bytes, item->bytes);
}

static void release_all(struct item *gone)
{
    for (struct item *next; gone; gone = next) {
        next = gone->next;
        wasmcache_module_release(gone->module);
        free(gone);
    }
}

/* Calls `goes` for all items, and takes out those for which it is not 0. */
static void sweep(struct wc_memory *memory, int (*goes)(const struct item *item, const void *what),
                  const void *what)
{
    struct item *gone = NULL;
    for (int s = 0; s < SHARDS; s++) {
        struct shard *shard = &memory->shards[s];
        pthread_mutex_lock(&shard->lock);
        for (int b = 0; b < BUCKETS; b++)
            for (struct item **at = &shard->buckets[b]; *at;) {
                if (goes(*at, what))
                    take_out(memory, at, &gone);
                else
                    at = &(*at)->next;
            }
        pthread_mutex_unlock(&shard->lock);
    }
    release_all(gone);
}

static int is_of_attachment(const struct item *item, const void *what)
{
    return !what || item->attachment == what;
}

void wc_memory_forget(struct wc_memory *memory, const wasmcache_attachment *attachment)
{
    if (is_usable(memory))
        sweep(memory, is_of_attachment, attachment);
}

struct named {
    const char *engine_namespace;
    const wasmcache_key *key;
};

static int is_named(const struct item *item, const void *what)
{
    const struct named *named = what;
    const struct wc_identity *identity =
        atomic_load_explicit(&item->attachment->identity, memory_order_acquire);
    return memcmp(&item->key, named->key, sizeof(item->key)) == 0 && identity &&
           strcmp(identity->engine_namespace, named->engine_namespace) == 0;
}

void wc_memory_forget_key(struct wc_memory *memory, const char *engine_namespace,
                          const wasmcache_key *key)
{
    const struct named named = {engine_namespace, key};
    if (is_usable(memory))
        sweep(memory, is_named, &named);
}

/* The one that was used least lately of those that nobody holds. 0: there is none. */
static int find_oldest(struct wc_memory *memory, uint64_t *oldest)
{
    int found = 0;
    for (int s = 0; s < SHARDS; s++) {
        struct shard *shard = &memory->shards[s];
        pthread_mutex_lock(&shard->lock);
        for (int b = 0; b < BUCKETS; b++)
            for (const struct item *item = shard->buckets[b]; item; item = item->next) {
                const uint64_t used = atomic_load_explicit(&item->used, memory_order_relaxed);
                if ((!found || used < *oldest) && wc_module_is_only(item->module)) {
                    *oldest = used;
                    found = 1;
                }
            }
        pthread_mutex_unlock(&shard->lock);
    }
    return found;
}

static int is_old(const struct item *item, const void *what)
{
    const uint64_t *oldest = what;
    return atomic_load_explicit(&item->used, memory_order_relaxed) <= *oldest &&
           wc_module_is_only(item->module);
}

static int is_full(const struct wc_memory *memory, uint64_t bytes)
{
    const uint64_t held = atomic_load(&memory->bytes);
    return atomic_load(&memory->count) >= memory->count_max || bytes > memory->bytes_max ||
           held > memory->bytes_max - bytes;
}

void wc_memory_put(struct wc_memory *memory, const wasmcache_attachment *attachment,
                   wasmcache_kind kind, const wasmcache_key *key, wasmcache_module *module,
                   uint64_t bytes, uint64_t now)
{
    struct shard *shard;
    struct item *item;
    uint64_t oldest;
    if (!is_usable(memory) || bytes > memory->bytes_max)
        return;
    while (is_full(memory, bytes) && find_oldest(memory, &oldest))
        sweep(memory, is_old, &oldest);
    if (is_full(memory, bytes))
        return;
    item = calloc(1, sizeof(*item));
    if (!item)
        return;
    item->attachment = attachment;
    item->kind = kind;
    item->key = *key;
    item->bytes = bytes;
    atomic_init(&item->used, now);
    shard = shard_of(memory, key);
    pthread_mutex_lock(&shard->lock);
    if (!find(shard, attachment, kind, key)) {
        item->module = wasmcache_module_ref(module);
        item->next = *bucket_of(shard, key);
        *bucket_of(shard, key) = item;
        atomic_fetch_add(&memory->count, 1);
        atomic_fetch_add(&memory->bytes, bytes);
        item = NULL;
    }
    pthread_mutex_unlock(&shard->lock);
    free(item);
}
