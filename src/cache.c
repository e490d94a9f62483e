/* SPDX-License-Identifier: Apache-2.0 */
#include "cache.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "flight.h"
#include "later.h"
#include "layers.h"
#include "memory.h"
#include "stats.h"

/* ---- structs with their size first ---- */

int wc_sized_in(void *to, size_t to_size, const void *from, size_t least, const char *what,
                struct wc_error *err)
{
    size_t size;
    memcpy(&size, from, sizeof(size));
    if (size < least || size > 4096)
        return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                       "%s: its size is %zu; start from the INIT macro", what, size);
    /* A newer caller may only set what we know. */
    for (size_t i = to_size; i < size; i++)
        if (((const unsigned char *)from)[i])
            return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                           "%s: it sets a field that this library (%s) does not know", what,
                           WASMCACHE_VERSION);
    memset(to, 0, to_size);
    memcpy(to, from, size < to_size ? size : to_size);
    memcpy(to, &to_size, sizeof(to_size));
    return 0;
}

void wc_sized_out(void *to, const void *from, size_t from_size)
{
    size_t size;
    memcpy(&size, to, sizeof(size));
    if (size > sizeof(size))
        memcpy((char *)to + sizeof(size), (const char *)from + sizeof(size),
               (size < from_size ? size : from_size) - sizeof(size));
}

/* How long a check of an entry counts where the options do not say. */
#define WEEK (UINT64_C(7) * 24 * 3600)
/* What it may hold, and how many seconds an entry stays at least. */
#define MAX_BYTES (UINT64_C(5) << 30)
#define EVICT_AFTER 60
#define MEMORY_BYTES (UINT64_C(1) << 30)

/* In the year 2242; file systems that are in use can store it, but for the oldest kinds. */
#define TIME_MAX UINT64_C(0x1ffffffff)

/* ---- open and close ---- */

static int check_options(const wasmcache_options *o, struct wc_error *err)
{
    const unsigned known = WASMCACHE_DURABLE | WASMCACHE_READ_ONLY | WASMCACHE_REPRODUCIBLE |
                           WASMCACHE_LEGACY | WASMCACHE_SEALED | WASMCACHE_MAP_REMOTE;
    const char *wrong = NULL;
    if (o->flags & ~known)
        wrong = "unknown flags";
    else if ((unsigned)o->share > WASMCACHE_SHARE_GROUP)
        wrong = "unknown share";
    else if ((o->dir && !o->dir[0]) || (o->hints_dir && !o->hints_dir[0]))
        wrong = "a directory is an empty string; NULL switches the cache off";
    else if ((unsigned)o->verify > WASMCACHE_VERIFY_NEVER)
        wrong = "unknown verify";
    else if (o->flags & WASMCACHE_SEALED && !(o->flags & WASMCACHE_READ_ONLY))
        wrong = "what is sealed is also read-only";
    else if (o->reproducible_time > TIME_MAX)
        wrong = "a time that no file has";
    else if (o->max_disk_percent > 100)
        wrong = "more than 100 percent of a disk";
    else if (o->trust_uid_count > 64 || (o->trust_uid_count && !o->trust_uids))
        wrong = "more than 64 trusted users, or none where some are counted";
    if (!wrong)
        return 0;
    return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL, "wasmcache_open: %s", wrong);
}

/* 0: no memory. */
static int copy_dir(char **out, const char *dir)
{
    *out = wc_os_absolute(dir);
    if (!*out)
        return 0;
    /* A slash at the end would follow a link there. */
    for (size_t n = strlen(*out); n > 1 && (*out)[n - 1] == '/'; n--)
        (*out)[n - 1] = '\0';
    return 1;
}

/* 0: no memory. They are judged as the cache's own directory is, by the same users. */
static int copy_layers(wasmcache *cache, const wasmcache_options *o)
{
    cache->layers = o->layer_count ? calloc(o->layer_count, sizeof(*cache->layers)) : NULL;
    if (o->layer_count && !cache->layers)
        return 0;
    for (size_t i = 0; i < o->layer_count; i++) {
        struct wc_store *layer = &cache->layers[i];
        cache->layer_count = i + 1;
        layer->flags = o->layers[i]->flags;
        layer->gate = cache->store.gate;
        if (!copy_dir(&layer->dir, o->layers[i]->dir))
            return 0;
    }
    return 1;
}

static struct wc_limits limits_of(const wasmcache_options *o)
{
    const struct wc_limits limits = {
        o->max_bytes ? o->max_bytes : MAX_BYTES,
        o->max_entries ? o->max_entries : UINT64_MAX,
        o->max_age_seconds ? o->max_age_seconds : UINT64_MAX,
        o->max_disk_percent,
        o->evict_after_seconds ? o->evict_after_seconds : EVICT_AFTER,
    };
    return limits;
}

static wasmcache *cache_new(const wasmcache_options *o)
{
    wasmcache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return NULL;
    atomic_init(&cache->refs, 1);
    wc_hints_init(&cache->hints,
                  !(o->flags & (WASMCACHE_READ_ONLY | WASMCACHE_REPRODUCIBLE)) || o->hints_dir);
    if (o->dir)
        wc_hints_find_boot(&cache->hints);
    wc_later_init(&cache->later, o);
    cache->flights = wc_flights_new();
    cache->stats = wc_stats_new();
    if (!cache->flights || !cache->stats)
        goto fail;
    if (o->memory_modules) {
        cache->memory =
            wc_memory_new(o->memory_modules, o->memory_bytes ? o->memory_bytes : MEMORY_BYTES);
        if (!cache->memory)
            goto fail;
    }
    cache->verify = o->verify;
    cache->verify_seconds = o->verify_seconds ? o->verify_seconds : WEEK;
    cache->store.flags = o->flags;
    cache->store.gate.share = o->share;
    cache->store.gate.dated = (o->flags & WASMCACHE_REPRODUCIBLE) != 0;
    cache->store.gate.time = (int64_t)o->reproducible_time;
    cache->limits = limits_of(o);
    cache->on_event = o->on_event;
    cache->payload = o->payload;
    if (o->trust_uid_count) {
        size_t size = o->trust_uid_count * sizeof(uint32_t);
        cache->store.gate.trust_uids = malloc(size);
        if (!cache->store.gate.trust_uids)
            goto fail;
        memcpy(cache->store.gate.trust_uids, o->trust_uids, size);
        cache->store.gate.trust_uid_count = o->trust_uid_count;
    }
    if (o->dir && !copy_dir(&cache->store.dir, o->dir))
        goto fail;
    if (o->hints_dir && !copy_dir(&cache->hints_dir, o->hints_dir))
        goto fail;
    if (!copy_layers(cache, o))
        goto fail;
    return cache;
fail:
    wc_cache_unref(cache);
    return NULL;
}

/* A directory that hits come from, but that saves cannot go to. */
static void judge_write(wasmcache_status_info *info, int os)
{
    struct wc_error err;
    if (os == 0)
        return;
    wc_error_init(&err);
    info->state = WASMCACHE_STATE_READ_ONLY;
    info->error = WASMCACHE_EIO;
    info->system_errno = -os;
    wc_error_describe(&err, WASMCACHE_EIO, os, "access", info->dir,
                      "Entries are used, none is saved: the directory (owner %" PRIu32
                      ", mode %04" PRIo32 ") cannot be written",
                      info->uid, info->mode);
    snprintf(info->message, sizeof(info->message), "%s", err.message);
}

/* Opens the directory if it is there, and tells if it cannot be used. EMISS: it can be made. */
static int judge_directory(wasmcache *cache, int *fd, struct wc_gate_found *found,
                           struct wc_error *err)
{
    int rc = wc_gate_open(&cache->store.gate, cache->store.dir, WC_GATE_LOOK, fd, found, err);
    if (rc == WASMCACHE_EMISS && !(cache->store.flags & WASMCACHE_READ_ONLY) &&
        !wc_gate_could_make(cache->store.dir, found)) {
        rc = wc_fail(err, WASMCACHE_EIO, EACCES, "mkdir", cache->store.dir,
                     "The cache directory %s is missing and cannot be made", cache->store.dir);
        err->off = 1;
    }
    wc_cache_note(cache, rc, err);
    return rc;
}

/* Looks at the directory, makes nothing. *info says what was found. */
static void look_at_directory(wasmcache *cache, wasmcache_status_info *info)
{
    const int read_only = (cache->store.flags & WASMCACHE_READ_ONLY) != 0;
    struct wc_gate_found found;
    struct wc_error err;
    int fd = -1, rc;

    wc_error_init(&err);
    rc = judge_directory(cache, &fd, &found, &err);
    snprintf(info->dir, sizeof(info->dir), "%s", cache->store.dir);
    info->uid = found.uid;
    info->mode = found.mode;
    info->state = read_only ? WASMCACHE_STATE_READ_ONLY : WASMCACHE_STATE_ON;
    if (rc < 0 && rc != WASMCACHE_EMISS) {
        info->state = WASMCACHE_STATE_OFF;
        info->error = rc;
        info->system_errno = err.system_errno;
        snprintf(info->message, sizeof(info->message), "%s", err.message);
    } else if (rc == 0 && !read_only) {
        judge_write(info, wc_os_check_write(fd));
    }
    if (found.own_folder || found.could_make) {
        size_t used = strlen(info->dir);
        snprintf(info->dir + used, sizeof(info->dir) - used, "/u%" PRIu32, wc_os_euid());
    }
    wc_os_close(fd);
}

int wasmcache_open(wasmcache **out, const wasmcache_options *options)
{
    wasmcache_options o = WASMCACHE_OPTIONS_INIT;
    struct wc_gate_found found;
    struct wc_error err;
    wasmcache *cache;
    int rc, fd = -1;

    wc_error_init(&err);
    if (!out)
        return wc_error_publish(
            &err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL, "wasmcache_open: NULL"));
    *out = NULL;
    rc = options
             ? wc_sized_in(&o, sizeof(o), options, SIZE_0_1(wasmcache_options, reproducible_time),
                           "wasmcache_options", &err)
             : 0;
    if (rc == 0)
        rc = check_options(&o, &err);
    if (rc == 0)
        rc = wc_layers_check(&o, &err);
    if (rc < 0)
        return wc_error_publish(&err, rc);
    cache = cache_new(&o);
    if (!cache)
        return wc_error_publish(
            &err, wc_fail(&err, WASMCACHE_ENOMEM, 0, NULL, NULL, "No memory to open a cache"));
    if (cache->store.dir) {
        (void)judge_directory(cache, &fd, &found, &err);
        wc_os_close(fd);
    }
    *out = cache;
    return 0;
}

int wc_cache_usable(wasmcache *cache)
{
    return cache && cache->store.dir && !atomic_load_explicit(&cache->closed, memory_order_relaxed);
}

wasmcache *wc_cache_ref(wasmcache *cache)
{
    if (cache)
        atomic_fetch_add_explicit(&cache->refs, 1, memory_order_relaxed);
    return cache;
}

void wc_cache_unref(wasmcache *cache)
{
    if (!cache || atomic_fetch_sub_explicit(&cache->refs, 1, memory_order_acq_rel) != 1)
        return;
    wc_later_release(&cache->later);
    wc_hints_release(&cache->hints);
    wc_flights_free(cache->flights);
    wc_memory_free(cache->memory);
    wc_stats_free(cache->stats);
    for (size_t i = 0; i < cache->layer_count; i++)
        free(cache->layers[i].dir);
    free(cache->layers);
    free(cache->store.gate.trust_uids);
    free(cache->store.dir);
    free(cache->hints_dir);
    free(cache);
}

void wc_cache_find_hints(wasmcache *cache, struct wc_hint_look *look,
                         const struct wc_folder *folder, int create)
{
    struct wc_gate_found found;
    struct wc_error ignored;
    const char *dir = cache->hints_dir ? cache->hints_dir : cache->store.dir;
    int fd, rc;
    if (!cache->hints_dir && folder) {
        wc_hint_look_at(look, folder->fd, WC_HINT_BESIDE, folder->owner);
        return;
    }
    wc_error_init(&ignored);
    rc = wc_gate_open(&cache->store.gate, dir, WC_GATE_LOOK, &fd, &found, &ignored);
    if (rc == WASMCACHE_EMISS && cache->hints_dir && create)
        rc = wc_gate_open(&cache->store.gate, dir, WC_GATE_CREATE, &fd, &found, &ignored);
    if (rc == 0)
        wc_hint_look_at(look, fd, WC_HINT_INSIDE_OWN, found.uid);
}

void wasmcache_close(wasmcache *cache)
{
    struct wc_error ignored;
    if (!cache)
        return;
    wc_later_wait(&cache->later);
    wc_error_init(&ignored);
    (void)wc_stats_flush(cache, 0, 0, NULL, &ignored);
    atomic_store(&cache->closed, 1);
    wc_cache_unref(cache);
}

/* ---- status ---- */

int wasmcache_status(wasmcache *cache, wasmcache_status_info *out)
{
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    struct wc_error err;

    wc_error_init(&err);
    if (!out || out->size < sizeof(size_t))
        return wc_error_publish(
            &err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                          "wasmcache_status: NULL, or without WASMCACHE_STATUS_INIT"));
    if (wc_cache_usable(cache)) {
        look_at_directory(cache, &info);
    } else {
        info.error = WASMCACHE_EOFF;
        snprintf(info.message, sizeof(info.message), "There is no cache: no directory was given");
    }
    wc_sized_out(out, &info, sizeof(info));
    return 0;
}
