/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Read-only directories below the cache's own: baked into an image, or of the whole system. They
 * are asked in order when the cache's own directory does not have an entry. Nothing is ever written
 * to them, and what goes wrong there is counted and goes no further: the error that a load reports
 * is that of the cache's own directory.
 */
#include "layers.h"

#include "identity_file.h"
#include "publish.h"
#include "stats.h"

/* A copy of a layer's entry in the cache's own directory, so that it is found there from now on. */
static void promote(struct wc_call *call, const struct wc_entry_file *file)
{
    struct wasmcache *cache = call->attachment->cache;
    const size_t size = (size_t)file->trailer.artifact_bytes;
    enum wc_published published = WC_PUBLISHED_KEPT;
    struct wc_trailer trailer = file->trailer;
    char path[WC_PATH_SIZE] = "";
    struct wc_error err;
    const void *bytes;
    int rc;

    if (cache->store.flags & WASMCACHE_READ_ONLY)
        return;
    wc_error_init(&err);
    rc = wc_evict_make_room(cache, wc_entry_bytes(size), &err);
    if (rc == 0 && wc_os_map(file->fd, size, &bytes) == 0) {
        rc = wc_publish(&published, path, &cache->store, &trailer, bytes, 0, &err);
        wc_os_unmap(bytes, size);
    }
    if (rc < 0) {
        wc_call_tell(call, WASMCACHE_EVENT_SAVE_FAILED, NULL, &err, 0);
    } else if (published == WC_PUBLISHED_NEW) {
        wc_call_tell(call, WASMCACHE_EVENT_SAVED, path, NULL, 0);
        (void)wc_stats_flush(cache, (int64_t)wc_entry_bytes(size), 1, NULL, &err);
        if (wc_call_enter(call, &err) == 0)
            wc_identity_file_write(&cache->store, &call->folder, call->attachment, call->identity);
    }
}

static int load_from_layer(struct wc_call *call, const struct wc_store *layer,
                           struct wc_entry_file *file, const wasmcache_key *key, void **native,
                           struct wc_error *err)
{
    const struct wc_expect expect = wc_call_expect(call, key);
    struct wc_folder folder = WC_FOLDER_INIT;
    int rc = wc_store_open_folder(&folder, layer, expect.engine_namespace, err);
    if (rc == 0)
        rc = wc_store_open_entry(file, layer, &folder, &expect, err);
    if (rc == 0)
        rc = wc_load_opened(call, layer, &folder, file, key, native, err);
    wc_folder_close(&folder);
    return rc;
}

int wc_layers_load(struct wc_call *call, struct wc_entry_file *file, const wasmcache_key *key,
                   void **native)
{
    const struct wasmcache *cache = call->attachment->cache;
    for (size_t i = 0; i < cache->layer_count; i++) {
        const struct wc_store *layer = &cache->layers[i];
        struct wc_error ignored;
        int rc;
        wc_error_init(&ignored);
        wc_entry_file_close(file);
        rc = load_from_layer(call, layer, file, key, native, &ignored);
        if (rc == 0) {
            call->report.layer = (int)i + 1;
            if (layer->flags & WASMCACHE_LAYER_PROMOTE)
                promote(call, file);
            return 0;
        }
        if (rc != WASMCACHE_EMISS)
            wc_stats_add(cache->stats, WC_STAT_LAYER_FAILURES, 1);
    }
    return WASMCACHE_EMISS;
}

static int check_layer(wasmcache_layer *own, const wasmcache_layer *layer, struct wc_error *err)
{
    const unsigned known = WASMCACHE_LAYER_SEALED | WASMCACHE_LAYER_PROMOTE;
    int rc = !layer
                 ? wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL, "wasmcache_open: a layer is NULL")
                 : wc_sized_in(own, sizeof(*own), layer, SIZE_0_1(wasmcache_layer, flags),
                               "wasmcache_layer", err);
    if (rc == 0 && (!own->dir || !own->dir[0] || own->flags & ~known))
        rc = wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                     "wasmcache_open: a layer without a directory, or with unknown flags");
    return rc;
}

int wc_layers_check(const wasmcache_options *options, struct wc_error *err)
{
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    int rc = 0;
    if (options->layer_count > WC_LAYERS_MAX || (options->layer_count && !options->layers) ||
        (options->layer_count && !options->dir))
        return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                       "wasmcache_open: more than %d layers, none where some are counted, or "
                       "layers without a directory of the cache's own",
                       WC_LAYERS_MAX);
    for (size_t i = 0; rc == 0 && i < options->layer_count; i++)
        rc = check_layer(&layer, options->layers[i], err);
    return rc;
}
