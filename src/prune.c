/* SPDX-License-Identifier: Apache-2.0 */
/* What callers ask for: to bring a directory into its limits, and what stays there all the same. */
#include <errno.h>

#include "evict.h"
#include "key.h"
#include "namespace.h"

/* How long a caller waits for another one that evicts. */
#define PATIENCE UINT64_C(60000000000)

static int no_cache(struct wc_error *err)
{
    return wc_error_publish(err, wc_fail(err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no cache"));
}

static int read_only(const wasmcache *cache, struct wc_error *err)
{
    if (!(cache->store.flags & WASMCACHE_READ_ONLY))
        return 0;
    return wc_fail(err, WASMCACHE_EIO, EROFS, NULL, cache->store.dir,
                   "The cache %s was opened to be read only", cache->store.dir);
}

static int check(wasmcache_prune_options *o, const wasmcache_prune_options *options,
                 const wasmcache_prune_result *out, struct wc_error *err)
{
    int rc = options ? wc_sized_in(o, sizeof(*o), options,
                                   SIZE_0_1(wasmcache_prune_options, max_age_seconds),
                                   "wasmcache_prune_options", err)
                     : 0;
    if (rc == 0 && (o->flags & ~(unsigned)WASMCACHE_PRUNE_DRY_RUN || o->reserved ||
                    (out && out->size < sizeof(size_t))))
        rc = wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                     "wasmcache_prune: an unknown flag, a reserved field that is not 0, or a "
                     "result without WASMCACHE_PRUNE_RESULT_INIT");
    return rc;
}

static int prune(wasmcache *cache, const wasmcache_prune_options *o, wasmcache_prune_result *result,
                 struct wc_error *err)
{
    const int dry = (o->flags & WASMCACHE_PRUNE_DRY_RUN) != 0;
    struct wc_limits limits = cache->limits;
    struct wc_tally_lock lock = {-1};
    int rc = dry ? 0 : read_only(cache, err);

    if (o->max_bytes)
        limits.bytes = o->max_bytes;
    if (o->max_entries)
        limits.entries = o->max_entries;
    if (o->max_age_seconds)
        limits.age = o->max_age_seconds;
    if (rc == 0 && !dry)
        rc = wc_tally_lock(&lock, &cache->store, PATIENCE, err);
    if (rc == WASMCACHE_EMISS) /* no directory, or one that is reproducible: nobody to wait for */
        rc = 0;
    if (rc == 0)
        rc = wc_evict(cache, &limits, dry ? WC_EVICT_DRY_RUN : WC_EVICT_CLEAN, 0, result, err);
    wc_tally_unlock(&lock);
    return rc;
}

int wasmcache_prune(wasmcache *cache, const wasmcache_prune_options *options,
                    wasmcache_prune_result *out)
{
    wasmcache_prune_options o = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    struct wc_error err;
    int rc;

    wc_error_init(&err);
    rc = check(&o, options, out, &err);
    if (rc < 0)
        return wc_error_publish(&err, rc);
    if (!wc_cache_usable(cache))
        return no_cache(&err);
    rc = prune(cache, &o, &result, &err);
    if (out)
        wc_sized_out(out, &result, sizeof(result));
    return wc_error_publish(&err, rc);
}

/* ---- pins ---- */

int wc_is_pinned(const struct wc_folder *folder, const char *name)
{
    struct wc_os_stat st;
    int pins = wc_os_open_dir_at(folder->fd, WC_PINS);
    int is = pins >= 0 && wc_os_stat_at(pins, name, &st) == 0;
    wc_os_close(pins);
    return is;
}

/* Makes or removes the file of an entry's name in the folder of pins. */
static int set_pin(const struct wasmcache *cache, const struct wc_folder *folder, const char *name,
                   int pinned, struct wc_error *err)
{
    int fd = -1, pins = -1;
    int rc = wc_gate_open_at(&cache->store.gate, folder->fd, WC_PINS, folder->path,
                             pinned ? WC_GATE_CREATE : WC_GATE_LOOK, &pins, err);
    if (rc < 0)
        return rc == WASMCACHE_EMISS ? 0 : rc;
    rc = pinned ? wc_os_create(pins, name) : wc_os_unlink(pins, name);
    if (pinned && rc >= 0) {
        fd = rc;
        rc = 0;
    }
    wc_os_close(fd);
    wc_os_close(pins);
    if (rc == 0 || rc == (pinned ? -EEXIST : -ENOENT))
        return 0;
    return wc_fail(err, wc_error_of_errno(rc), rc, pinned ? "open" : "unlink", folder->path,
                   "Cannot %s %s/%s", pinned ? "pin" : "unpin", folder->path, name);
}

int wasmcache_pin(wasmcache *cache, const char *engine_namespace, const wasmcache_key *key,
                  int pinned)
{
    struct wc_folder folder = WC_FOLDER_INIT;
    char name[WC_ENTRY_NAME_SIZE];
    struct wc_error err;
    int rc;

    wc_error_init(&err);
    if (!wc_namespace_valid(engine_namespace) || !wc_key_valid(key))
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                              "wasmcache_pin: a namespace or key that is none"));
    if (!wc_cache_usable(cache))
        return no_cache(&err);
    rc = read_only(cache, &err);
    if (rc == 0)
        rc = pinned ? wc_store_make_folder(&folder, &cache->store, engine_namespace, &err)
                    : wc_store_open_folder(&folder, &cache->store, engine_namespace, &err);
    wc_entry_name(name, key);
    if (rc == 0)
        rc = set_pin(cache, &folder, name, pinned, &err);
    wc_folder_close(&folder);
    return rc == WASMCACHE_EMISS ? 0 : wc_error_publish(&err, rc);
}
