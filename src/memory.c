/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <stdlib.h>
#include <string.h>

#include "module.h"
#include "stripe.h"

enum { BUCKETS = 1024, GENERATIONS = 2048 };

struct item {
    struct item *next;
    const wasmcache_attachment *attachment;
    wasmcache_kind kind;
    wasmcache_key key;
    wasmcache_module *module;
    uint64_t bytes;
    uint64_t generation;
    _Atomic uint64_t used; /* a stamp */
};

struct lock {
    _Alignas(WC_LINE) pthread_mutex_t mutex;
};

struct wc_memory {
    struct lock locks[WC_STRIPES];
    _Atomic uint64_t bytes; /* these three change with each put only */
    _Atomic uint64_t puts;
    atomic_uint count;
    unsigned count_max;
    uint64_t bytes_max;
    const char *alive;             /* 1; a fork wipes it in the child */
    int64_t pid;                   /* 0: `alive` says it. Else the only process that uses it */
    struct item *buckets[BUCKETS]; /* read under one lock, changed under all */
};

/* ---- generations ---- */

static _Atomic uint64_t generations[GENERATIONS];

static _Atomic uint64_t *generation_of(const wasmcache_key *key)
{
    return &generations[(key->bytes[2] | (unsigned)key->bytes[3] << 8) % GENERATIONS];
}

/* A load of what was there before a removal began before it, and so has an older generation than
 * who looks after that: it may be kept, but is not found. */
uint64_t wc_memory_generation(const wasmcache_key *key)
{
    return atomic_load_explicit(generation_of(key), memory_order_acquire);
}

uint64_t wc_memory_outdate(const wasmcache_key *key)
{
    return atomic_fetch_add_explicit(generation_of(key), 1, memory_order_acq_rel) + 1;
}

static int is_outdated(const struct item *item)
{
    return item->generation != wc_memory_generation(&item->key);
}

/* ---- the table ---- */

struct wc_memory *wc_memory_new(unsigned count_max, uint64_t bytes_max)
{
    struct wc_memory *memory = NULL;
    char *alive;
    int wipes;
    if (posix_memalign((void **)&memory, WC_LINE, sizeof(*memory)))
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
    atomic_init(&memory->puts, 1); /* no stamp is 0 */
    for (int i = 0; i < WC_STRIPES; i++)
        pthread_mutex_init(&memory->locks[i].mutex, NULL);
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
    if (is_usable(memory)) { /* else the locks are the parent's */
        for (int i = 0; i < WC_STRIPES; i++)
            pthread_mutex_destroy(&memory->locks[i].mutex);
    }
    wc_os_unmap(memory->alive, 1);
    free(memory);
}

static pthread_mutex_t *lock_to_look(struct wc_memory *memory)
{
    pthread_mutex_t *mutex = &memory->locks[wc_stripe()].mutex;
    pthread_mutex_lock(mutex);
    return mutex;
}

static void lock_all(struct wc_memory *memory)
{
    for (int i = 0; i < WC_STRIPES; i++)
        pthread_mutex_lock(&memory->locks[i].mutex);
}

static void unlock_all(struct wc_memory *memory)
{
    for (int i = WC_STRIPES; i-- > 0;)
        pthread_mutex_unlock(&memory->locks[i].mutex);
}

/* Where its pointer is, or would be: with a lock. */
static struct item **find(struct wc_memory *memory, const wasmcache_attachment *attachment,
                          wasmcache_kind kind, const wasmcache_key *key)
{
    struct item **at = &memory->buckets[(key->bytes[0] | (unsigned)key->bytes[1] << 8) % BUCKETS];
    while (*at && ((*at)->attachment != attachment || (*at)->kind != kind ||
                   memcmp(&(*at)->key, key, sizeof(*key)) != 0))
        at = &(*at)->next;
    return at;
}

/*
 * Orders uses: by a clock that moves each few milliseconds and costs little, and within those by
 * what was put meanwhile. So what is wanted all the time is written to once in each of its steps,
 * and not at each hit.
 */
static uint64_t stamp(const struct wc_memory *memory)
{
    return wc_os_coarse_ns() + atomic_load_explicit(&memory->puts, memory_order_relaxed);
}

wasmcache_module *wc_memory_find(struct wc_memory *memory, const wasmcache_attachment *attachment,
                                 wasmcache_kind kind, const wasmcache_key *key, uint64_t *bytes)
{
    wasmcache_module *module = NULL;
    pthread_mutex_t *lock;
    struct item *item;
    uint64_t now;
    if (!is_usable(memory))
        return NULL;
    now = stamp(memory);
    lock = lock_to_look(memory);
    item = *find(memory, attachment, kind, key);
    if (item && !is_outdated(item)) {
        module = wasmcache_module_ref(item->module);
        if (atomic_load_explicit(&item->used, memory_order_relaxed) != now)
            atomic_store_explicit(&item->used, now, memory_order_relaxed);
        *bytes = item->bytes;
    }
    pthread_mutex_unlock(lock);
    return module;
}

/* With all locks: out of the list. Its module is released without them. */
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
        wc_module_gather(gone->module);
        wasmcache_module_release(gone->module);
        free(gone);
    }
}

/* Calls `goes` for all items, and takes out those for which it is not 0. 1: there was one. */
static int sweep(struct wc_memory *memory, int (*goes)(const struct item *item, const void *what),
                 const void *what)
{
    struct item *gone = NULL;
    int any;
    lock_all(memory);
    for (int b = 0; b < BUCKETS; b++)
        for (struct item **at = &memory->buckets[b]; *at;) {
            if (goes(*at, what))
                take_out(memory, at, &gone);
            else
                at = &(*at)->next;
        }
    unlock_all(memory);
    any = gone != NULL;
    release_all(gone);
    return any;
}

static int is_of_attachment(const struct item *item, const void *what)
{
    return item->attachment == what;
}

void wc_memory_forget(struct wc_memory *memory, const wasmcache_attachment *attachment)
{
    if (is_usable(memory))
        (void)sweep(memory, is_of_attachment, attachment);
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
    return memcmp(&item->key, named->key, sizeof(item->key)) == 0 &&
           strcmp(identity->engine_namespace, named->engine_namespace) == 0;
}

void wc_memory_forget_key(struct wc_memory *memory, const char *engine_namespace,
                          const wasmcache_key *key)
{
    const struct named named = {engine_namespace, key};
    if (is_usable(memory))
        (void)sweep(memory, is_named, &named);
}

/* ---- room ---- */

/* For `bytes` more, which are not more than it may have in all. */
static int is_full(const struct wc_memory *memory, uint64_t bytes)
{
    const uint64_t held = atomic_load(&memory->bytes);
    return atomic_load(&memory->count) >= memory->count_max || held > memory->bytes_max - bytes;
}

/* What nobody can find any more goes first, whoever holds it. */
static uint64_t last_use(const struct item *item)
{
    return is_outdated(item) ? 0 : atomic_load_explicit(&item->used, memory_order_relaxed);
}

struct need {
    const struct wc_memory *memory;
    uint64_t bytes;
    uint64_t oldest;
};

/* When the one was used that was used least lately of those that nobody holds. 0: there is none. */
static int find_oldest(struct wc_memory *memory, uint64_t *oldest)
{
    int found = 0;
    pthread_mutex_t *lock = lock_to_look(memory);
    for (int b = 0; b < BUCKETS; b++)
        for (const struct item *item = memory->buckets[b]; item; item = item->next) {
            const uint64_t used = last_use(item);
            if ((!found || used < *oldest) && (!used || wc_module_is_only(item->module))) {
                *oldest = used;
                found = 1;
            }
        }
    pthread_mutex_unlock(lock);
    return found;
}

/* Nobody can take a reference from here now. To be sure that nobody has one its counts are
 * gathered; if somebody has, it is kept all the same, but its threads meet at one count. */
static int is_old(const struct item *item, const void *what)
{
    const struct need *need = what;
    const uint64_t used = last_use(item);
    if (!is_full(need->memory, need->bytes) || used > need->oldest)
        return 0;
    if (!used)
        return 1;
    if (!wc_module_is_only(item->module))
        return 0;
    wc_module_gather(item->module);
    return wc_module_is_only(item->module);
}

/* 0: there is none. */
static int make_room(struct wc_memory *memory, uint64_t bytes)
{
    struct need need = {memory, bytes, 0};
    while (is_full(memory, bytes))
        if (!find_oldest(memory, &need.oldest) || !sweep(memory, is_old, &need))
            return 0;
    return 1;
}

void wc_memory_put(struct wc_memory *memory, const wasmcache_attachment *attachment,
                   wasmcache_kind kind, const wasmcache_key *key, wasmcache_module *module,
                   uint64_t bytes, uint64_t generation)
{
    struct item *item, *gone = NULL, **at;
    if (!is_usable(memory) || bytes > memory->bytes_max ||
        generation != wc_memory_generation(key) || !make_room(memory, bytes))
        return;
    item = calloc(1, sizeof(*item));
    if (!item)
        return;
    item->attachment = attachment;
    item->kind = kind;
    item->key = *key;
    item->bytes = bytes;
    item->generation = generation;
    atomic_init(&item->used, stamp(memory));
    lock_all(memory);
    at = find(memory, attachment, kind, key);
    if (*at && is_outdated(*at)) {
        take_out(memory, at, &gone);
        at = find(memory, attachment, kind, key);
    }
    if (!*at && !is_full(memory, bytes)) {
        item->module = wasmcache_module_ref(module);
        wc_module_spread(module);
        *at = item;
        atomic_fetch_add(&memory->count, 1);
        atomic_fetch_add(&memory->bytes, bytes);
        atomic_fetch_add(&memory->puts, 1);
        item = NULL;
    }
    unlock_all(memory);
    free(item);
    release_all(gone);
}
