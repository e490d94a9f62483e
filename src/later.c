/* SPDX-License-Identifier: Apache-2.0 */
#include "later.h"

#include <stdlib.h>
#include <string.h>

#include "executor.h"
#include "stats.h"

/* What may wait where the options do not say: more than a host that starts compiles at a time, and
 * no more memory than a large module takes. */
enum { COUNT_MAX = 64 };
#define BYTES_MAX (UINT64_C(256) << 20)

struct later_save {
    struct wc_job job;             /* first */
    struct later_save *next, **at; /* in later.first, under its lock */
    wasmcache *cache;              /* a reference */
    struct wc_call call;
    wasmcache_report given; /* what the get said, for those who get clones meanwhile */
    wasmcache_key key;
    void *native; /* a clone */
    struct wc_key_lock lock;
};

void wc_later_init(struct wc_later *later, const wasmcache_options *options)
{
    later->executor = options->save_executor;
    later->count_max = options->save_count_max ? options->save_count_max : COUNT_MAX;
    later->bytes_max = options->save_bytes_max ? options->save_bytes_max : BYTES_MAX;
    later->pid = wc_os_pid();
    pthread_mutex_init(&later->lock, NULL);
    pthread_cond_init(&later->done, NULL);
}

void wc_later_release(struct wc_later *later)
{
    if (later->pid != wc_os_pid())
        return;
    pthread_cond_destroy(&later->done);
    pthread_mutex_destroy(&later->lock);
}

/* ---- who waits ---- */

/* 1: one more was let in. */
static int enter(wasmcache_attachment *attachment, uint64_t bytes)
{
    struct wc_later *later = &attachment->cache->later;
    int room;
    pthread_mutex_lock(&later->lock);
    room = later->count < later->count_max && bytes <= later->bytes_max &&
           later->bytes <= later->bytes_max - bytes;
    if (room) {
        later->count++;
        later->bytes += bytes;
        attachment->later++;
    }
    pthread_mutex_unlock(&later->lock);
    return room;
}

static void leave(wasmcache_attachment *attachment, uint64_t bytes)
{
    struct wc_later *later = &attachment->cache->later;
    pthread_mutex_lock(&later->lock);
    later->count--;
    later->bytes -= bytes;
    attachment->later--;
    pthread_cond_broadcast(&later->done);
    pthread_mutex_unlock(&later->lock);
}

static void wait_for(struct wc_later *later, const unsigned *count)
{
    if (!later->executor || later->pid != wc_os_pid())
        return;
    pthread_mutex_lock(&later->lock);
    while (*count)
        pthread_cond_wait(&later->done, &later->lock);
    pthread_mutex_unlock(&later->lock);
}

void wc_later_wait(struct wc_later *later)
{
    wait_for(later, &later->count);
}

void wc_later_wait_attachment(const wasmcache_attachment *attachment)
{
    if (attachment->cache)
        wait_for(&attachment->cache->later, &attachment->later);
}

/* ---- what is on its way ---- */

static void list(struct wc_later *later, struct later_save *s)
{
    pthread_mutex_lock(&later->lock);
    s->next = later->first;
    s->at = &later->first;
    if (s->next)
        s->next->at = &s->next;
    later->first = s;
    pthread_mutex_unlock(&later->lock);
}

static void unlist(struct wc_later *later, struct later_save *s)
{
    pthread_mutex_lock(&later->lock);
    *s->at = s->next;
    if (s->next)
        s->next->at = s->at;
    pthread_mutex_unlock(&later->lock);
}

int wc_later_find(const struct wc_call *call, const wasmcache_key *key, void **native,
                  wasmcache_report *report)
{
    const wasmcache_attachment *a = call->attachment;
    struct wc_later *later = &a->cache->later;
    int found = 0;

    if (!later->executor || later->pid != wc_os_pid())
        return 0;
    pthread_mutex_lock(&later->lock);
    for (const struct later_save *s = later->first; s && !*native; s = s->next) {
        if (s->call.kind != call->kind || !wasmcache_key_equal(&s->key, key) ||
            strcmp(s->call.identity->engine_namespace, call->identity->engine_namespace) != 0)
            continue;
        found = 1;
        if (s->call.attachment == a) {
            *native = a->table.module_clone(call->kind, s->native);
            *report = s->given;
        }
    }
    pthread_mutex_unlock(&later->lock);
    return found;
}

/* ---- the job ---- */

static struct later_save *save_of(struct wc_job *job)
{
    return (struct later_save *)job;
}

static void save(struct later_save *s)
{
    wasmcache_attachment *attachment = s->call.attachment;
    const uint64_t bytes = s->call.report.wasm_bytes;
    wasmcache *cache = s->cache;
    struct wc_error err;
    int rc;
    wc_error_init(&err);
    rc = wc_save(&s->call, &s->key, s->native, &err); /* an event tells what came of it */
    unlist(&cache->later, s);
    wc_key_lock_close(&s->lock, rc < 0);
    attachment->table.module_free(s->call.kind, s->native);
    leave(attachment, bytes); /* the attachment may be gone from here on */
    wc_cache_unref(cache);
}

static void run(struct wc_job *job)
{
    struct wc_pool *pool = job->pool;
    save(save_of(job));
    pthread_mutex_lock(&pool->lock);
    wc_pool_finish(job);
    wc_pool_leave(pool, 0);
}

/* The executor ends before a worker took it: who ends it does it. */
static void deliver(struct wc_job *job)
{
    save(save_of(job));
}

static void free_job(struct wc_job *job)
{
    free(save_of(job));
}

int wc_later_save(const struct wc_call *call, const wasmcache_key *key, void *native,
                  struct wc_key_lock *lock)
{
    const struct wc_key_lock none = WC_KEY_LOCK_INIT;
    wasmcache_attachment *attachment = call->attachment;
    struct wc_later *later = &attachment->cache->later;
    struct later_save *s;
    struct wc_error err;

    if (!later->executor || later->pid != wc_os_pid() || !attachment->table.module_clone ||
        !enter(attachment, call->report.wasm_bytes))
        return 1;
    s = calloc(1, sizeof(*s));
    if (s) {
        s->native = attachment->table.module_clone(call->kind, native);
        s->job.silent = 1;
        s->job.run = run;
        s->job.deliver = deliver;
        s->job.free = free_job;
        wc_call_start(&s->call, attachment, call->kind);
        s->call.identity = call->identity;
        s->call.replace = call->replace;
        s->call.report = s->given = call->report;
        s->given.save_later = 1;
        s->given.save_error = 0;
        s->key = *key;
        s->cache = wc_cache_ref(attachment->cache);
        s->lock = *lock;
    }
    wc_error_init(&err);
    if (s && s->native) {
        list(later, s); /* first: it may be done, and gone, before start returns */
        if (wc_executor_start(later->executor, &s->job, NULL, NULL, &err) == 0) {
            *lock = none;
            return 0;
        }
        unlist(later, s);
        attachment->table.module_free(call->kind, s->native);
    }
    if (s) {
        wc_cache_unref(s->cache);
    }
    free(s);
    leave(attachment, call->report.wasm_bytes);
    return 1;
}

int wasmcache_flush(wasmcache *cache)
{
    struct wc_error err;
    wc_error_init(&err);
    if (!cache)
        return wc_error_publish(
            &err, wc_fail(&err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no cache to flush"));
    wc_later_wait(&cache->later);
    (void)wc_stats_flush(cache, 0, 0, NULL, &err);
    return 0;
}
