/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hit, from the key to the engine. What was checked is what the engine gets: it opens the same
 * descriptor again, or is handed its bytes.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "evict.h"
#include "key.h"
#include "layers.h"
#include "memory.h"
#include "stamp.h"
#include "stats.h"

/* From the file that was checked, without a copy. EENGINE: not this way. EBUSY: it is not as it was
 * when it was checked. */
static int engine_load_file(struct wc_call *call, const struct wc_entry_file *file, void **native,
                            struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    void *error = NULL;
    char path[40];
    int rc;
    if (!a->table.deserialize_file || atomic_load_explicit(&a->cache->noexec, memory_order_relaxed))
        return wc_fail(err, WASMCACHE_EENGINE, 0, NULL, NULL, "The engine maps no file from here");
    rc = wc_os_fd_path(file->fd, &file->st, path);
    if (rc > 0 && file->checked)
        return wc_fail(err, WASMCACHE_EBUSY, 0, NULL, file->path, "%s changed after it was opened",
                       file->path);
    if (rc < 0)
        return wc_fail(err, WASMCACHE_EENGINE, 0, NULL, NULL,
                       "There is no /proc to open the file by");
    if (a->table.deserialize_file(a->engine, call->kind, path, native, &error) == 0)
        return 0;
    return wc_engine_failure(a, error, "deserialize_file", err);
}

int wc_engine_load_copy(struct wc_call *call, const uint8_t *bytes, size_t size, void **native,
                        struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    void *error = NULL;
    if (a->table.deserialize(a->engine, call->kind, bytes, size, native, &error) == 0)
        return 0;
    return wc_engine_failure(a, error, "deserialize", err);
}

/* From the bytes of the same file, which the engine copies. EBUSY as above. */
static int engine_load_bytes(struct wc_call *call, const struct wc_entry_file *file, void **native,
                             struct wc_error *err)
{
    const size_t size = (size_t)file->trailer.artifact_bytes;
    const void *bytes;
    int rc = wc_os_map(file->fd, size, &bytes);
    if (rc < 0)
        return wc_fail(err, wc_error_of_errno(rc), rc, "mmap", file->path, "Cannot map %s",
                       file->path);
    if (file->checked && !wc_entry_file_unchanged(file)) {
        wc_os_unmap(bytes, size);
        return wc_fail(err, WASMCACHE_EBUSY, 0, NULL, file->path, "%s changed after it was opened",
                       file->path);
    }
    rc = wc_engine_load_copy(call, bytes, size, native, err);
    wc_os_unmap(bytes, size);
    return rc;
}

/* Of a server's or another process's file system a page that was there can be gone when it is
 * looked at again, which ends the process: the bytes are read, checked where they are then, and
 * handed to the engine, which copies them. */
static int engine_load_read(struct wc_call *call, const struct wc_entry_file *file, void **native,
                            struct wc_error *err)
{
    struct wc_error why;
    uint8_t *bytes;
    int rc = wc_entry_file_read(file, &bytes, err);
    if (rc < 0)
        return rc;
    rc = wc_engine_load_copy(call, bytes, (size_t)file->trailer.artifact_bytes, native, err);
    free(bytes);
    if (rc == 0) {
        wc_error_init(&why);
        wc_error_describe(&why, WASMCACHE_EIO, 0, NULL, file->path,
                          "Read, not mapped: the file system is not a local one that is known");
        wc_call_tell(call, WASMCACHE_EVENT_FALLBACK, file->path, &why, 0);
    }
    return rc;
}

int wc_engine_load(struct wc_call *call, const struct wc_entry_file *file, void **native,
                   struct wc_error *err)
{
    struct wc_error why;
    int rc;
    wc_error_init(&why);
    rc = engine_load_file(call, file, native, &why);
    if (rc == 0)
        return 0;
    if (rc == WASMCACHE_EBUSY) {
        *err = why;
        return rc;
    }
    rc = engine_load_bytes(call, file, native, err);
    if (rc == 0 && call->attachment->table.deserialize_file &&
        !atomic_load_explicit(&call->attachment->cache->noexec, memory_order_relaxed)) {
        if (wc_os_is_noexec(file->fd))
            atomic_store(&call->attachment->cache->noexec, 1);
        wc_call_tell(call, WASMCACHE_EVENT_FALLBACK, file->path, &why, 0);
    }
    return rc;
}

/* A damaged entry goes, so that it is not read again; unless it was replaced meanwhile. */
static void remove_damaged(struct wc_call *call, const struct wc_entry_file *file)
{
    const struct wc_folder *folder = &call->folder;
    struct wc_error err;
    int rc;
    if (call->attachment->cache->store.flags & WASMCACHE_READ_ONLY)
        return;
    wc_error_init(&err);
    rc = wc_call_enter(call, &err);
    if (rc == 0)
        rc = wc_store_remove(folder, file->name, file->fd, &err);
    if (rc == 0) {
        wc_call_outdate(call, &call->report.key); /* others may have mapped it */
        wc_call_tell(call, WASMCACHE_EVENT_REMOVED, file->path, NULL, 0);
        (void)wc_stats_flush(call->attachment->cache, -(int64_t)file->st.size, -1, NULL, &err);
    } else if (rc != WASMCACHE_EMISS && rc != WASMCACHE_EBUSY)
        wc_call_tell(call, WASMCACHE_EVENT_REMOVE_FAILED, file->path, &err, 0);
}

/* Are the entries of this folder as good as code that the system itself runs? */
static int is_sealed(const struct wasmcache *cache, const struct wc_store *store,
                     const struct wc_folder *folder)
{
    const unsigned flag = store == &cache->store ? WASMCACHE_SEALED : WASMCACHE_LAYER_SEALED;
    return store->flags & flag && folder->owner == 0 && wc_os_is_read_only(folder->fd);
}

/* Sees to it that the artifact is what was saved. As wc_entry_file_verify(). */
static int check_artifact(struct wc_call *call, struct wc_entry_file *file, struct wc_stamp *stamp,
                          struct wc_error *err)
{
    int rc = wc_entry_file_verify(file, err);
    if (rc == 0)
        wc_stamp_make(stamp, &call->look, file);
    return rc;
}

/* A stamp says already that it is a local one. */
int wc_may_be_mapped(const struct wasmcache *cache, const struct wc_entry_file *file)
{
    return file->checked || cache->store.flags & WASMCACHE_MAP_REMOTE ||
           wc_os_settles_after_ns(file->fd) > 0;
}

/* Straight away where the folder was judged a moment ago and the file opens; else it is found out
 * why not. */
static int open_entry(struct wc_call *call, struct wc_entry_file *file,
                      const struct wc_expect *expect, struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    int rc;
    if (wc_call_is_judged(call)) {
        rc = wc_store_open_entry(file, &a->cache->store, &call->folder, expect, err);
        if (file->fd >= 0)
            return rc;
        wc_error_init(err);
    }
    rc = wc_call_enter(call, err);
    wc_cache_note(a->cache, rc, err);
    return rc < 0 ? rc : wc_store_open_entry(file, &a->cache->store, &call->folder, expect, err);
}

int wc_load_opened(struct wc_call *call, const struct wc_store *store,
                   const struct wc_folder *folder, struct wc_entry_file *file,
                   const wasmcache_key *key, void **native, struct wc_error *err)
{
    const struct wasmcache *cache = call->attachment->cache;
    const int checks = file->has_trailer && cache->verify != WASMCACHE_VERIFY_NEVER &&
                       !is_sealed(cache, store, folder);
    struct wc_stamp stamp = {.found = 0};
    int maps, rc = 0;

    if (checks && cache->verify == WASMCACHE_VERIFY_ONCE)
        wc_stamp_find(&stamp, &call->look, file, cache->verify_seconds);
    file->checked = stamp.found;
    maps = !file->has_trailer || wc_may_be_mapped(cache, file);
    if (maps && checks && !stamp.found)
        rc = check_artifact(call, file, &stamp, err);
    if (rc < 0)
        return rc;
    call->report.artifact_bytes = file->trailer.artifact_bytes;
    rc = !file->has_trailer ? wc_load_legacy(call, file, native, err)
         : maps             ? wc_engine_load(call, file, native, err)
                            : engine_load_read(call, file, native, err);
    if (rc == WASMCACHE_EBUSY &&
        file->checked) { /* once more; who goes on changing it has no hit */
        stamp.found = 0;
        rc = wc_entry_file_verify(file, err);
        if (rc == 0)
            rc = wc_engine_load(call, file, native, err);
    }
    if (rc < 0)
        return rc;
    call->spared_ns = file->trailer.compile_ns;
    if (file->trailer.wasm_bytes)
        call->report.wasm_bytes = file->trailer.wasm_bytes;
    wc_use_note(&stamp, &call->look, call->identity->engine_namespace, key,
                file->trailer.compile_ns);
    return 0;
}

/* An entry of the cache's own directory that a clean-up would remove for its age is not there,
 * whether one came by or not. EMISS. */
static int check_age(struct wc_call *call, const struct wc_entry_file *file,
                     const wasmcache_key *key, struct wc_error *err)
{
    const wasmcache *cache = call->attachment->cache;
    const struct wc_limits *limits = &cache->limits;
    uint64_t now;

    if (limits->age == UINT64_MAX || cache->store.flags & WASMCACHE_REPRODUCIBLE)
        return 0; /* nor need the time be asked for */
    now = wc_os_wall_seconds();
    if (!wc_limits_expired(limits, wc_os_modified_seconds(&file->st), now) ||
        !wc_limits_expired(limits, wc_use_last(&call->look, call->identity->engine_namespace, key),
                           now) ||
        wc_is_pinned(&call->folder, file->name))
        return 0;
    err->expired = 1;
    return wc_fail(err, WASMCACHE_EMISS, 0, NULL, file->path,
                   "%s was not used for longer than max_age_seconds (%" PRIu64 " s)", file->path,
                   limits->age);
}

/* Finds the entry in the cache's own directory and has the engine load it. */
static int load_from(struct wc_call *call, struct wc_entry_file *file, const wasmcache_key *key,
                     void **native, struct wc_error *err)
{
    const struct wc_expect expect = wc_call_expect(call, key);
    int rc = open_entry(call, file, &expect, err);
    if (rc == 0)
        rc = check_age(call, file, key, err);
    if (rc == 0)
        rc = wc_load_opened(call, &call->attachment->cache->store, &call->folder, file, key, native,
                            err);
    return rc;
}

/* What could not be used, so that it can be told from what another publishes there later. What was
 * not there is not looked for again: it may be there by now, and would be taken for seen. */
static void remember_seen(struct wc_call *call, const struct wc_entry_file *file, int rc)
{
    struct wc_os_stat st = file->st;
    if (rc != WASMCACHE_EMISS && file->fd < 0 && call->folder.fd >= 0)
        (void)wc_os_stat_at(call->folder.fd, file->name, &st);
    call->seen.ino = st.ino;
    call->seen.ctime_ns = st.ctime_ns;
}

int wc_load(struct wc_call *call, const wasmcache_key *key, void **native, struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    const uint64_t started = wc_os_monotonic_ns();
    struct wc_entry_file file = {.fd = -1};
    int corrupt, rc;

    call->report.key = *key;
    wc_call_look_later(call);
    rc = load_from(call, &file, key, native, err);
    call->report.load_ns = wc_os_monotonic_ns() - started;
    if (rc < 0)
        remember_seen(call, &file, rc);
    corrupt = rc == WASMCACHE_ECORRUPT;
    if (rc < 0 && a->cache->layer_count) {
        if (corrupt)
            remove_damaged(call, &file);
        corrupt = 0;
        if (wc_layers_load(call, &file, key, native) == 0)
            rc = 0;
        call->report.load_ns = wc_os_monotonic_ns() - started;
    }
    if (rc == 0) {
        call->report.outcome = WASMCACHE_HIT;
        call->report.reason = WASMCACHE_REASON_NONE;
        wc_call_tell(call, WASMCACHE_EVENT_HIT, file.path, NULL, call->report.load_ns);
    } else {
        /* A directory that is missing and could not be made is no mere miss. */
        const int off = err->off || (rc == WASMCACHE_EMISS && atomic_load(&a->cache->off));
        call->report.reason = off ? WASMCACHE_REASON_CACHE_OFF : wc_reason_of_error(rc);
        if (err->expired)
            call->report.reason = WASMCACHE_REASON_EXPIRED;
        call->report.artifact_bytes = 0;
        wc_call_tell(call, WASMCACHE_EVENT_MISS, NULL, err, call->report.load_ns);
        if (corrupt)
            remove_damaged(call, &file);
    }
    wc_entry_file_close(&file);
    wc_call_leave(call);
    return rc;
}

int wc_load_counted(wasmcache_module **out, struct wc_call *call, const wasmcache_key *key,
                    struct wc_error *err)
{
    wasmcache_module *module;
    void *native = NULL;
    int rc = wc_call_check_cache(call, err);
    if (rc < 0)
        return rc;
    call->generation = wc_memory_generation(key);
    module = wc_call_remembered(call, key);
    if (module) {
        *out = module;
        return 0;
    }
    rc = wc_load(call, key, &native, err);
    return rc < 0 ? rc : wc_call_count(out, call, key, native, err);
}

int wasmcache_load(wasmcache_module **out, wasmcache_attachment *attachment, wasmcache_kind kind,
                   const wasmcache_key *key, wasmcache_report *report)
{
    struct wc_error err;
    struct wc_call call;
    int rc;

    if (attachment && attachment->cache && attachment->cache->memory && wc_key_valid(key) &&
        wc_call_recall(out, attachment, kind, key, report))
        return 0;
    wc_error_init(&err);
    wc_call_start(&call, attachment, kind);
    call.counts = 1;
    rc = wc_call_check_key(&call, key, report, out, "wasmcache_load", &err);
    if (rc == 0)
        rc = wc_load_counted(out, &call, key, &err);
    return wc_call_end(&call, report, rc, &err);
}

int wc_contains(struct wc_call *call, const wasmcache_key *key, struct wc_error *err)
{
    struct wc_entry_file file = {.fd = -1};
    int rc = wc_call_check_cache(call, err);

    if (rc == 0) {
        wc_call_look_later(call);
        rc = wc_call_enter(call, err);
    }
    if (rc == 0) {
        const struct wc_expect expect = wc_call_expect(call, key);
        rc = wc_store_open_entry(&file, &call->attachment->cache->store, &call->folder, &expect,
                                 err);
    }
    if (rc == 0)
        rc = check_age(call, &file, key, err);
    wc_entry_file_close(&file);
    wc_call_leave(call);
    return rc;
}

int wasmcache_contains(wasmcache_attachment *attachment, wasmcache_kind kind,
                       const wasmcache_key *key)
{
    struct wc_error err;
    struct wc_call call;
    int rc;

    wc_error_init(&err);
    wc_call_start(&call, attachment, kind);
    rc = wc_call_check_key(&call, key, NULL, key, "wasmcache_contains", &err);
    if (rc == 0)
        rc = wc_contains(&call, key, &err);
    return wc_error_publish(&err, rc);
}
