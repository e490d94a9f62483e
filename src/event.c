/* SPDX-License-Identifier: Apache-2.0 */
#include "cache.h"

const char *wasmcache_event_name(wasmcache_event_type type)
{
    switch (type) {
    case WASMCACHE_EVENT_HIT:
        return "hit";
    case WASMCACHE_EVENT_MISS:
        return "miss";
    case WASMCACHE_EVENT_SAVED:
        return "saved";
    case WASMCACHE_EVENT_KEPT:
        return "kept";
    case WASMCACHE_EVENT_SAVE_FAILED:
        return "save-failed";
    case WASMCACHE_EVENT_REMOVED:
        return "removed";
    case WASMCACHE_EVENT_REMOVE_FAILED:
        return "remove-failed";
    case WASMCACHE_EVENT_FALLBACK:
        return "fallback";
    case WASMCACHE_EVENT_OFF:
        return "off";
    case WASMCACHE_EVENT_ON:
        return "on";
    case WASMCACHE_EVENT_UNATTACHED:
        return "unattached";
    case WASMCACHE_EVENT_WAIT:
        return "wait";
    }
    return "unknown";
}

int wc_event_is_heard(const wasmcache *cache)
{
    return cache && cache->on_event;
}

void wc_event(wasmcache *cache, wasmcache_event_type type, wasmcache_event fill)
{
    if (!wc_event_is_heard(cache))
        return;
    fill.size = sizeof(fill);
    fill.type = type;
    if (!fill.engine_namespace)
        fill.engine_namespace = "";
    if (!fill.key)
        fill.key = "";
    if (!fill.path)
        fill.path = "";
    if (!fill.message)
        fill.message = "";
    cache->on_event(&fill, cache->payload);
}

void wc_cache_note(wasmcache *cache, int rc, const struct wc_error *err)
{
    wasmcache_event fill = {0};
    if (rc < 0 && err->off) {
        if (atomic_exchange(&cache->off, 1))
            return;
        fill.reason = WASMCACHE_REASON_CACHE_OFF;
        fill.error = err->error;
        fill.system_errno = err->system_errno;
        fill.path = err->path;
        fill.message = err->message;
        wc_event(cache, WASMCACHE_EVENT_OFF, fill);
    } else if (rc == 0 && atomic_load_explicit(&cache->off, memory_order_relaxed) &&
               atomic_exchange(&cache->off, 0)) {
        fill.path = cache->store.dir;
        wc_event(cache, WASMCACHE_EVENT_ON, fill);
    }
}
