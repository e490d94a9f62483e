/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_CACHE_H
#define WC_CACHE_H

/*
 * The cache object: a store, who wants to hear of events, and whether the directory works.
 * It is not changed after open but for the atomics, so that all threads use it without a lock.
 */

#include <stdatomic.h>

#include "hint.h"
#include "store_dir.h"

struct later_save;

/* Saves that wait for a worker (later.h). */
struct wc_later {
    struct wasmcache_executor *executor; /* NULL: none waits */
    unsigned count_max;
    uint64_t bytes_max;
    int64_t pid; /* of the process that it works in */
    pthread_mutex_t lock;
    pthread_cond_t done; /* one is done */
    unsigned count;
    uint64_t bytes; /* of wasm */
    struct later_save *first;
};

struct wc_flights;
struct wc_memory;
struct wc_stats;

/* What the directory may hold (evict.h). */
struct wc_limits {
    uint64_t bytes, entries; /* UINT64_MAX: as many as there are */
    uint64_t age;            /* seconds since the last use; UINT64_MAX: any */
    unsigned disk_percent;   /* of what is free and what the entries take; 0: any */
    uint64_t grace;          /* seconds; younger entries stay */
};

/* Is what was used last then too old now? */
static inline int wc_limits_expired(const struct wc_limits *limits, uint64_t last, uint64_t now)
{
    return limits->age != UINT64_MAX && last < now && now - last > limits->age;
}

struct wasmcache {
    atomic_uint refs;   /* one of the opener, one of each attachment */
    atomic_bool closed; /* attachments that are left only compile */
    atomic_bool off;    /* the last use of the directory failed; an event told of it */
    atomic_bool noexec; /* the engine cannot map files from where the cache is */
    struct wc_store store;
    struct wc_store *layers; /* read-only directories, asked in order after that (layers.h) */
    size_t layer_count;
    struct wc_hints hints;
    char *hints_dir; /* where their table is; NULL: in the cache directory */
    wasmcache_verify verify;
    uint64_t verify_seconds; /* how long a check counts */
    struct wc_later later;
    struct wc_flights *flights; /* compiles that are under way in this process */
    struct wc_stats *stats;
    struct wc_memory *memory; /* NULL: none */
    struct wc_limits limits;
    wasmcache_event_fn on_event;
    void *payload;
};

/* Is there anything to look in or save to? `cache` may be NULL. */
int wc_cache_usable(wasmcache *cache);
wasmcache *wc_cache_ref(wasmcache *cache);
void wc_cache_unref(wasmcache *cache);

/* Where the table of hints is. `folder` is the namespace's, if a call has it open, else NULL.
 * `create`: WC_GATE_CREATE, or WC_GATE_LOOK: a hints_dir that is missing is not made. */
void wc_cache_find_hints(wasmcache *cache, struct wc_hint_look *look,
                         const struct wc_folder *folder, int create);

/* 0: nobody listens, and nothing need be filled in. */
int wc_event_is_heard(const wasmcache *cache);
/* Tells of an event; `fill` has what is known, NULL strings are allowed in it. */
void wc_event(wasmcache *cache, wasmcache_event_type type, wasmcache_event fill);
/* What events and reports say of the directory as a whole: remembers that it failed (rc < 0 and
 * err->off) or works (rc is 0), and tells of a change once. */
void wc_cache_note(wasmcache *cache, int rc, const struct wc_error *err);

/* The size that a struct had in 0.1, whose last field then was `field`: what the oldest callers
 * have. */
#define SIZE_0_1(type, field) (offsetof(type, field) + sizeof(((type *)NULL)->field))

/* Copies what both sides know of a sized struct from a caller. EMISUSE if it sets what we do not
 * know, or is too short to be one. */
int wc_sized_in(void *to, size_t to_size, const void *from, size_t least, const char *what,
                struct wc_error *err);
/* Copies to a caller's sized struct as much as it has room for, and keeps its size. */
void wc_sized_out(void *to, const void *from, size_t from_size);

#endif
