/* SPDX-License-Identifier: Apache-2.0 */
#include "stats.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "stripe.h"
#include "tally.h"

enum { SHARDS = 8, TIMES = 24 };

struct wc_stats {
    atomic_llong owner;              /* the process whose numbers these are; -owner: it begins */
    pthread_mutex_t lock;            /* of `written` */
    uint64_t written[WC_STAT_COUNT]; /* what the directory has */
    /* Two meet in a line of memory only where one has its last counter, which hardly ever moves. */
    atomic_ullong shards[SHARDS][WC_STAT_COUNT];
};

static const pthread_mutex_t unlocked = PTHREAD_MUTEX_INITIALIZER;

static void begin(struct wc_stats *stats, long long pid)
{
    stats->lock = unlocked;
    memset(stats->written, 0, sizeof(stats->written));
    for (int s = 0; s < SHARDS; s++)
        for (int i = 0; i < WC_STAT_COUNT; i++)
            atomic_init(&stats->shards[s][i], 0);
    atomic_store_explicit(&stats->owner, pid, memory_order_release);
}

/* In the child of a fork, whatever made it, the numbers are the parent's, and a lock may be held by
 * a thread that is not there: the first that counts or asks begins from nothing. */
static void own(struct wc_stats *stats)
{
    const long long pid = wc_os_pid();
    long long owner;
    while ((owner = atomic_load_explicit(&stats->owner, memory_order_acquire)) != pid) {
        if (owner == -pid) /* another thread is at it */
            wc_os_sleep(1000);
        else if (atomic_compare_exchange_weak(&stats->owner, &owner, -pid))
            begin(stats, pid);
    }
}

struct wc_stats *wc_stats_new(void)
{
    struct wc_stats *stats = calloc(1, sizeof(*stats)); /* its zeros need not be written */
    if (!stats)
        return NULL;
    stats->lock = unlocked;
    atomic_init(&stats->owner, wc_os_pid());
    return stats;
}

void wc_stats_free(struct wc_stats *stats)
{
    free(stats);
}

void wc_stats_add_own(struct wc_stats *stats, unsigned stat, uint64_t value)
{
    atomic_fetch_add_explicit(&stats->shards[wc_stripe() % SHARDS][stat], value,
                              memory_order_relaxed);
}

void wc_stats_add(struct wc_stats *stats, unsigned stat, uint64_t value)
{
    own(stats);
    wc_stats_add_own(stats, stat, value);
}

/* The first of the powers of two that is larger. */
static unsigned bucket(uint64_t value)
{
    unsigned i = 0;
    while (i < TIMES - 1 && value >> i)
        i++;
    return i;
}

void wc_stats_hit(struct wc_stats *stats, uint64_t ns)
{
    own(stats);
    wc_stats_add_own(stats, WC_STAT_HITS, 1);
    wc_stats_add_own(stats, WC_STAT_HIT_TIMES + bucket(ns / 1000), 1);
}

void wc_stats_compile(struct wc_stats *stats, uint64_t ns)
{
    own(stats);
    wc_stats_add_own(stats, WC_STAT_COMPILES, 1);
    wc_stats_add_own(stats, WC_STAT_COMPILE_NS, ns);
    wc_stats_add_own(stats, WC_STAT_COMPILE_TIMES + bucket(ns / 1000000), 1);
}

void wc_stats_sum(struct wc_stats *stats, uint64_t out[WC_STAT_COUNT])
{
    own(stats);
    memset(out, 0, WC_STAT_COUNT * sizeof(*out));
    for (int s = 0; s < SHARDS; s++)
        for (int i = 0; i < WC_STAT_COUNT; i++)
            out[i] += atomic_load_explicit(&stats->shards[s][i], memory_order_relaxed);
}

/* ---- to the directory ---- */

struct change {
    const uint64_t *counts;
    int64_t bytes, entries;
};

/* Neither below nothing nor round to it: what it was may be anything. */
static uint64_t moved(uint64_t value, int64_t by)
{
    if (by < 0)
        return value < (uint64_t)-by ? 0 : value - (uint64_t)-by;
    return value > UINT64_MAX - (uint64_t)by ? UINT64_MAX : value + (uint64_t)by;
}

static void add_to_tally(struct wc_tally *tally, void *payload)
{
    const struct change *change = payload;
    for (int i = 0; i < WC_STAT_COUNT; i++)
        tally->counts[i] += change->counts[i];
    tally->bytes = moved(tally->bytes, change->bytes);
    tally->entries = moved(tally->entries, change->entries);
}

int wc_stats_flush(struct wasmcache *cache, int64_t bytes, int64_t entries, struct wc_tally *out,
                   struct wc_error *err)
{
    struct wc_stats *stats = cache->stats;
    uint64_t sum[WC_STAT_COUNT], counts[WC_STAT_COUNT];
    struct change change = {counts, bytes, entries};
    int any = 0, rc = 0;

    if (!cache->store.dir || cache->store.flags & WASMCACHE_READ_ONLY)
        return wc_fail(err, WASMCACHE_EMISS, 0, NULL, NULL, "The directory is not written to");
    own(stats); /* before its lock */
    pthread_mutex_lock(&stats->lock);
    wc_stats_sum(stats, sum);
    for (int i = 0; i < WC_STAT_COUNT; i++) {
        counts[i] = sum[i] - stats->written[i];
        any |= counts[i] != 0;
    }
    if (any || bytes || entries || out)
        rc = wc_tally_update(&cache->store, add_to_tally, &change, out, err);
    if (any && rc == 0)
        memcpy(stats->written, sum, sizeof(sum));
    pthread_mutex_unlock(&stats->lock);
    return rc;
}

/* ---- public ---- */

static void describe(wasmcache_stats *out, const uint64_t counts[WC_STAT_COUNT])
{
    out->hits = counts[WC_STAT_HITS];
    out->memory_hits = counts[WC_STAT_MEMORY_HITS];
    out->layer_hits = counts[WC_STAT_LAYER_HITS];
    out->layer_failures = counts[WC_STAT_LAYER_FAILURES];
    out->joined = counts[WC_STAT_JOINED];
    out->compiles = counts[WC_STAT_COMPILES];
    out->compile_ns = counts[WC_STAT_COMPILE_NS];
    out->spared_ns = counts[WC_STAT_SPARED_NS];
    out->saves = counts[WC_STAT_SAVES];
    out->kept = counts[WC_STAT_KEPT];
    out->save_failures = counts[WC_STAT_SAVE_FAILURES];
    out->removed = counts[WC_STAT_REMOVED];
    out->remove_failures = counts[WC_STAT_REMOVE_FAILURES];
    out->fallbacks = counts[WC_STAT_FALLBACKS];
    out->waits = counts[WC_STAT_WAITS];
    out->wait_ns = counts[WC_STAT_WAIT_NS];
    out->evictions = counts[WC_STAT_EVICTIONS];
    out->evicted_bytes = counts[WC_STAT_EVICTED_BYTES];
    out->loaded_bytes = counts[WC_STAT_LOADED_BYTES];
    out->saved_bytes = counts[WC_STAT_SAVED_BYTES];
    memcpy(out->misses, counts + WC_STAT_MISSES, sizeof(out->misses));
    memcpy(out->hit_times, counts + WC_STAT_HIT_TIMES, sizeof(out->hit_times));
    memcpy(out->compile_times, counts + WC_STAT_COMPILE_TIMES, sizeof(out->compile_times));
}

int wasmcache_stats_read(wasmcache *cache, wasmcache_stats_scope scope, wasmcache_stats *out)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    struct wc_tally tally;
    struct wc_error err;
    int rc = 0;

    wc_error_init(&err);
    if (!out || out->size < sizeof(size_t) ||
        (scope != WASMCACHE_STATS_PROCESS && scope != WASMCACHE_STATS_DIRECTORY))
        return wc_error_publish(&err,
                                wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                        "wasmcache_stats_read: NULL, an unknown scope, or without "
                                        "WASMCACHE_STATS_INIT"));
    if (!wc_cache_usable(cache))
        return wc_error_publish(&err,
                                wc_fail(&err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no cache"));
    memset(&tally, 0, sizeof(tally));
    if (scope == WASMCACHE_STATS_PROCESS) {
        wc_stats_sum(cache->stats, tally.counts);
    } else {
        (void)wc_stats_flush(cache, 0, 0, NULL, &err);
        rc = wc_tally_read(&tally, &cache->store, &err);
        if (rc == WASMCACHE_EMISS) /* nothing was counted yet */
            rc = 0;
    }
    if (rc < 0)
        return wc_error_publish(&err, rc);
    describe(&stats, tally.counts);
    stats.since = tally.since;
    stats.known = tally.known;
    stats.bytes = tally.bytes;
    stats.entries = tally.entries;
    stats.cleaned = tally.cleaned;
    wc_sized_out(out, &stats, sizeof(stats));
    return 0;
}

static void reset(struct wc_tally *tally, void *payload)
{
    (void)payload;
    memset(tally->counts, 0, sizeof(tally->counts));
    tally->since = wc_os_wall_seconds();
}

int wasmcache_stats_reset(wasmcache *cache)
{
    struct wc_error err;
    int rc;
    wc_error_init(&err);
    if (!wc_cache_usable(cache))
        return wc_error_publish(&err,
                                wc_fail(&err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no cache"));
    (void)wc_stats_flush(cache, 0, 0, NULL, &err); /* what was counted before is forgotten too */
    rc = wc_tally_update(&cache->store, reset, NULL, NULL, &err);
    return rc == WASMCACHE_EMISS ? 0 : wc_error_publish(&err, rc);
}
