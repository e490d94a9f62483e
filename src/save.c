/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "call.h"
#include "evict.h"
#include "identity_file.h"
#include "publish.h"
#include "stamp.h"
#include "stats.h"

/* It is used from now on. An entry that was there before and stayed keeps what it cost. And where
 * nothing says yet what the namespace is of, that is written down: asked at each save, since the
 * folder may have been removed and made anew. */
static void note_use(struct wc_call *call, const wasmcache_key *key, enum wc_published published)
{
    const uint64_t cost = published == WC_PUBLISHED_NEW ? call->report.compile_ns : 0;
    struct wc_error ignored;
    wc_error_init(&ignored);
    if (wc_call_enter(call, &ignored) == 0) {
        wc_use_note(NULL, &call->look, call->identity->engine_namespace, key, cost);
        wc_identity_file_write(&call->attachment->cache->store, &call->folder, call->attachment,
                               call->identity);
    }
    wc_call_leave(call);
}

/* One entry more, and with it what was counted since the last one. */
static void add_to_totals(const struct wc_call *call)
{
    const uint64_t size = wc_entry_bytes(call->report.artifact_bytes);
    struct wc_error ignored;
    wc_error_init(&ignored);
    (void)wc_stats_flush(call->attachment->cache, (int64_t)size, 1, NULL, &ignored);
}

/* What the folder's name says of the artifacts in it has to be so, as far as it can be told. */
static int has_our_version(const struct wc_call *call, const wasmcache_artifact *artifact)
{
    const wasmcache_engine_table *table = &call->attachment->table;
    uint32_t version;
    return !table->artifact_version ||
           (table->artifact_version(artifact->data, artifact->size, &version) == 0 &&
            version == call->identity->artifact_version);
}

static int serialize(struct wc_call *call, void *native, wasmcache_artifact *out,
                     struct wc_error *err)
{
    const wasmcache_attachment *a = call->attachment;
    void *error = NULL;
    if (!a->table.serialize)
        return wc_fail(err, WASMCACHE_EENGINE, 0, NULL, NULL, "The engine cannot serialize");
    if (a->table.serialize(a->engine, call->kind, native, out, &error))
        return wc_engine_failure(a, error, "serialize", err);
    if (out->size && has_our_version(call, out))
        return 0;
    a->table.artifact_free(out);
    return wc_fail(
        err, WASMCACHE_EENGINE, 0, "serialize", NULL,
        "The engine serialized a module to nothing, or to an artifact of another version "
        "than %" PRIu32,
        call->identity->artifact_version);
}

/* How much of what the engine serialized is the artifact. A module that was mapped from an entry
 * can come back as all of that file, and our padding and trailer are not to be saved as the
 * engine's. */
static uint64_t artifact_length(const wasmcache_artifact *artifact)
{
    size_t length = artifact->size;
    for (;;) {
        const size_t most = WC_TRAILER_MAX + 8, tail = length < most ? length : most;
        struct wc_trailer trailer;
        struct wc_error ignored;
        wc_error_init(&ignored);
        if (wc_trailer_decode(&trailer, artifact->data + length - tail, tail, length, &ignored))
            return length;
        length = (size_t)trailer.artifact_bytes;
    }
}

static int publish(struct wc_call *call, const wasmcache_key *key,
                   const wasmcache_artifact *artifact, enum wc_published *published,
                   char path[WC_PATH_SIZE], struct wc_error *err)
{
    const wasmcache_attachment *a = call->attachment;
    const int reproducible = (a->cache->store.flags & WASMCACHE_REPRODUCIBLE) != 0;
    struct wc_trailer trailer = {0};
    unsigned flags = wc_attachment_is_shared(a) ? WC_PUBLISH_LEAVE_FOREIGN : 0;

    if (call->replace || call->report.reason == WASMCACHE_REASON_ENGINE_REFUSED ||
        call->report.reason == WASMCACHE_REASON_EXPIRED)
        flags |= WC_PUBLISH_REPLACE;
    trailer.kind = call->kind;
    trailer.artifact_bytes = call->report.artifact_bytes;
    trailer.key = *key;
    memcpy(trailer.fingerprint, call->identity->fingerprint, sizeof(trailer.fingerprint));
    memcpy(trailer.engine_namespace, call->identity->engine_namespace,
           sizeof(trailer.engine_namespace));
    trailer.wasm_bytes = call->report.wasm_bytes;
    trailer.compile_ns = reproducible ? 0 : call->report.compile_ns;
    trailer.created = reproducible ? 0 : wc_os_wall_seconds();
    return wc_publish(published, path, &a->cache->store, &trailer, artifact->data, flags, err);
}

int wc_save(struct wc_call *call, const wasmcache_key *key, void *native, struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    const uint64_t started = wc_os_monotonic_ns();
    enum wc_published published = WC_PUBLISHED_NEW;
    wasmcache_artifact artifact = {NULL, 0, {NULL, NULL, NULL}};
    char path[WC_PATH_SIZE] = "";
    int rc;

    call->report.key = *key;
    rc = wc_attachment_recheck(a, err);
    if (rc == 0) {
        rc = wc_publish_ready(&a->cache->store, call->identity->engine_namespace, err);
        wc_cache_note(a->cache, rc, err);
    }
    if (rc == 0)
        rc = serialize(call, native, &artifact, err);
    if (rc == 0) {
        /* What was compiled just now has no trailer of ours, whatever its last bytes look like. */
        call->report.artifact_bytes =
            call->report.outcome == WASMCACHE_COMPILED ? artifact.size : artifact_length(&artifact);
        rc = wc_evict_make_room(a->cache, wc_entry_bytes(call->report.artifact_bytes), err);
        if (rc == 0)
            rc = publish(call, key, &artifact, &published, path, err);
        a->table.artifact_free(&artifact);
    }
    if (rc == 0 && published == WC_PUBLISHED_NEW && call->replace)
        wc_call_outdate(call, key);
    if (rc == 0)
        note_use(call, key, published);
    if (rc == 0 && published == WC_PUBLISHED_NEW)
        add_to_totals(call);
    call->report.save_ns = wc_os_monotonic_ns() - started;
    if (rc < 0)
        wc_call_tell(call, WASMCACHE_EVENT_SAVE_FAILED, NULL, err, call->report.save_ns);
    else
        wc_call_tell(call,
                     published == WC_PUBLISHED_NEW ? WASMCACHE_EVENT_SAVED : WASMCACHE_EVENT_KEPT,
                     path, NULL, call->report.save_ns);
    return rc;
}

int wc_save_check(struct wc_call *call, const wasmcache_save_options *options, struct wc_error *err)
{
    wasmcache_save_options o = WASMCACHE_SAVE_OPTIONS_INIT;
    int rc = options
                 ? wc_sized_in(&o, sizeof(o), options, SIZE_0_1(wasmcache_save_options, compile_ns),
                               "wasmcache_save_options", err)
                 : 0;
    if (rc == 0 && (o.flags & ~(unsigned)WASMCACHE_SAVE_REPLACE || o.reserved))
        rc = wc_misuse(err, "wasmcache_save", "unknown flags, or a reserved field that is not 0");
    if (rc < 0)
        call->report.reason = WASMCACHE_REASON_SOURCE;
    call->report.wasm_bytes = o.wasm_bytes;
    call->report.compile_ns = o.compile_ns;
    call->replace = (o.flags & WASMCACHE_SAVE_REPLACE) != 0;
    return rc;
}

int wc_save_asked(struct wc_call *call, const wasmcache_key *key, void *native,
                  struct wc_error *err)
{
    int rc = wc_call_check_cache(call, err);
    if (rc == 0 && call->attachment->cache->store.flags & WASMCACHE_READ_ONLY)
        rc = wc_fail(err, WASMCACHE_EIO, EROFS, NULL, call->attachment->cache->store.dir,
                     "The cache %s was opened to be read only; nothing is saved",
                     call->attachment->cache->store.dir);
    if (rc == 0)
        rc = wc_save(call, key, native, err);
    call->report.save_error = rc;
    if (rc == 0)
        call->report.outcome = WASMCACHE_SAVED;
    return rc;
}

int wasmcache_save(wasmcache_attachment *attachment, wasmcache_kind kind, const wasmcache_key *key,
                   void *native, const wasmcache_save_options *options, wasmcache_report *report)
{
    struct wc_error err;
    struct wc_call call;
    int rc;

    wc_error_init(&err);
    wc_call_start(&call, attachment, kind);
    rc = wc_save_check(&call, options, &err);
    if (rc == 0)
        rc = wc_call_check_key(&call, key, report, native, "wasmcache_save", &err);
    call.report.save_error = rc;
    if (rc == 0)
        rc = wc_save_asked(&call, key, native, &err);
    return wc_call_end(&call, report, rc, &err);
}
