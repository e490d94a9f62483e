/* SPDX-License-Identifier: Apache-2.0 */
/* Entries without an engine: their paths, what they are, removal, and walks over all of them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "evict.h"
#include "key.h"
#include "memory.h"
#include "stamp.h"
#include "stats.h"

static int misuse(struct wc_error *err, const char *function)
{
    return wc_error_publish(err, wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                         "%s: NULL, a size that is not set, an unknown flag, or a "
                                         "namespace or key that is none",
                                         function));
}

static int no_cache(struct wc_error *err)
{
    return wc_error_publish(err, wc_fail(err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no cache"));
}

static int open_root(wasmcache *cache, int *fd, struct wc_gate_found *found, struct wc_error *err)
{
    return wc_gate_open(&cache->store.gate, cache->store.dir, WC_GATE_LOOK, fd, found, err);
}

int wasmcache_entry_path(char *out, size_t size, wasmcache *cache, const char *engine_namespace,
                         const wasmcache_key *key)
{
    char name[WC_ENTRY_NAME_SIZE], own[16] = "";
    struct wc_gate_found found;
    struct wc_error err;
    size_t need;
    int fd = -1;

    wc_error_init(&err);
    if (!out || !wc_namespace_valid(engine_namespace) || !wc_key_valid(key))
        return misuse(&err, "wasmcache_entry_path");
    if (!wc_cache_usable(cache))
        return no_cache(&err);
    open_root(cache, &fd, &found, &err);
    wc_os_close(fd);
    if (found.own_folder || found.could_make)
        snprintf(own, sizeof(own), "/u%" PRIu32, wc_os_euid());
    wc_entry_name(name, key);
    need = strlen(cache->store.dir) + strlen(own) + 1 + strlen(engine_namespace) + 1 +
           strlen(name) + 1;
    if (need > size)
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                              "wasmcache_entry_path: %zu bytes are needed, %zu "
                                              "were given",
                                              need, size));
    snprintf(out, size, "%s%s/%s/%s", cache->store.dir, own, engine_namespace, name);
    return 0;
}

/* Whatever engine it is for. */
static struct wc_expect expect_any(const wasmcache_key *key, const char *engine_namespace)
{
    struct wc_expect expect = {.key = key, .engine_namespace = engine_namespace};
    /* An invalid name is misuse, which the caller is about to say. */
    expect.shared =
        wc_namespace_valid(engine_namespace) && wc_namespace_is_shared(engine_namespace);
    return expect;
}

/* Fills *out from what opening the entry gave. */
static void describe(wasmcache_entry *out, const struct wc_expect *expect,
                     const struct wc_entry_file *file, int rc, const struct wc_error *err)
{
    memset(out, 0, sizeof(*out));
    out->state = wc_reason_of_error(rc);
    out->system_errno = out->state == WASMCACHE_REASON_UNREADABLE ? err->system_errno : 0;
    out->key = *expect->key;
    snprintf(out->engine_namespace, sizeof(out->engine_namespace), "%s", expect->engine_namespace);
    out->kind = WASMCACHE_MODULE;
    if (file->fd >= 0)
        out->file_bytes = file->st.size;
    if (!file->has_trailer || (rc != 0 && rc != WASMCACHE_EMISMATCH))
        return;
    out->kind = file->trailer.kind;
    memcpy(out->fingerprint, file->trailer.fingerprint, sizeof(out->fingerprint));
    out->artifact_bytes = file->trailer.artifact_bytes;
    out->wasm_bytes = file->trailer.wasm_bytes;
    out->compile_ns = file->trailer.compile_ns;
    out->created = file->trailer.created;
}

/* `look` is of the folder; the table is found at the first entry that is there. */
static void check_in(wasmcache_entry *out, wasmcache *cache, const struct wc_folder *folder,
                     struct wc_hint_look *look, const struct wc_expect *expect, unsigned flags,
                     struct wc_error *err)
{
    struct wc_entry_file file;
    int rc = wc_store_open_entry(&file, &cache->store, folder, expect, err);
    if (flags & WASMCACHE_CHECK_DIGEST && (rc == 0 || rc == WASMCACHE_EMISMATCH) &&
        file.has_trailer) {
        int verified = wc_entry_file_verify(&file, err);
        if (verified < 0)
            rc = verified;
    }
    describe(out, expect, &file, rc, err);
    if (file.fd >= 0 && !look->hints) {
        wc_hint_look_start(look, &cache->hints);
        wc_cache_find_hints(cache, look, folder, WC_GATE_LOOK);
    }
    out->pinned = file.fd >= 0 && wc_is_pinned(folder, file.name);
    if (file.fd >= 0)
        out->last_used = wc_use_last(look, expect->engine_namespace, expect->key);
    wc_entry_file_close(&file);
}

int wasmcache_entry_check(wasmcache_entry *out, wasmcache *cache, const char *engine_namespace,
                          const wasmcache_key *key, unsigned flags)
{
    const struct wc_expect expect = expect_any(key, engine_namespace);
    struct wc_folder folder;
    struct wc_error err;
    wasmcache_entry entry;
    int rc;

    wc_error_init(&err);
    if (!out || out->size < sizeof(size_t) || !wc_namespace_valid(engine_namespace) ||
        !wc_key_valid(key) || flags & ~(unsigned)WASMCACHE_CHECK_DIGEST)
        return misuse(&err, "wasmcache_entry_check");
    if (!wc_cache_usable(cache))
        return no_cache(&err);
    rc = wc_store_open_folder(&folder, &cache->store, engine_namespace, &err);
    if (rc == WASMCACHE_EMISS) {
        struct wc_entry_file none = {.fd = -1};
        describe(&entry, &expect, &none, rc, &err);
    } else if (rc < 0) {
        return wc_error_publish(&err, rc);
    } else {
        struct wc_hint_look look;
        wc_hint_look_start(&look, NULL);
        check_in(&entry, cache, &folder, &look, &expect, flags, &err);
        wc_hint_look_end(&look);
    }
    wc_folder_close(&folder);
    wc_sized_out(out, &entry, sizeof(entry));
    return 0;
}

/* ---- removal ---- */

static int open_for_removal(struct wc_folder *folder, wasmcache *cache,
                            const char *engine_namespace, const wasmcache_key *key,
                            const char *function, struct wc_error *err)
{
    folder->fd = -1;
    if (!wc_namespace_valid(engine_namespace) || !wc_key_valid(key))
        return misuse(err, function);
    if (!wc_cache_usable(cache))
        return no_cache(err);
    if (cache->store.flags & WASMCACHE_READ_ONLY)
        return wc_fail(err, WASMCACHE_EIO, EROFS, NULL, cache->store.dir,
                       "The cache %s was opened to be read only", cache->store.dir);
    return wc_store_open_folder(folder, &cache->store, engine_namespace, err);
}

static int remove_now(wasmcache *cache, const struct wc_folder *folder, const char *name,
                      struct wc_error *err)
{
    struct wc_error ignored = *err;
    struct wc_os_stat st;
    int known;
    int rc, fd = wc_os_open_read(folder->fd, name); /* one that can be locked, if there is one */
    if (fd < 0 && fd != -ENOENT)
        fd = wc_os_open_identity(folder->fd, name);
    if (fd == -ENOENT)
        return wc_fail(err, WASMCACHE_EMISS, 0, NULL, folder->path, "There is no %s/%s",
                       folder->path, name);
    if (fd < 0)
        return wc_fail(err, WASMCACHE_EIO, fd, "open", folder->path, "Cannot open %s/%s",
                       folder->path, name);
    known = wc_os_fstat(fd, &st) == 0;
    rc = wc_store_remove(folder, name, fd, err);
    wc_os_close(fd);
    if (rc == 0 && known)
        (void)wc_stats_flush(cache, -(int64_t)st.size, -1, NULL, &ignored);
    return rc == WASMCACHE_EBUSY ? 0 : rc; /* it is gone; what took its place is another */
}

int wasmcache_remove(wasmcache *cache, const char *engine_namespace, const wasmcache_key *key)
{
    char name[WC_ENTRY_NAME_SIZE];
    struct wc_folder folder;
    struct wc_error err;
    int rc;

    wc_error_init(&err);
    rc = open_for_removal(&folder, cache, engine_namespace, key, "wasmcache_remove", &err);
    if (rc == 0) {
        wc_entry_name(name, key);
        rc = remove_now(cache, &folder, name, &err);
        wc_folder_close(&folder);
    }
    if (rc != WASMCACHE_EMISUSE && rc != WASMCACHE_EOFF) { /* also if there was no file any more */
        (void)wc_memory_outdate(key);
        wc_memory_forget_key(cache->memory, engine_namespace, key);
    }
    return wc_error_publish(&err, rc);
}

int wasmcache_remove_damaged(wasmcache *cache, const char *engine_namespace,
                             const wasmcache_key *key)
{
    const struct wc_expect expect = expect_any(key, engine_namespace);
    struct wc_entry_file file;
    struct wc_folder folder;
    struct wc_error err;
    int rc;

    wc_error_init(&err);
    rc = open_for_removal(&folder, cache, engine_namespace, key, "wasmcache_remove_damaged", &err);
    if (rc < 0)
        return wc_error_publish(&err, rc);
    rc = wc_store_open_entry(&file, &cache->store, &folder, &expect, &err);
    if (rc == 0)
        rc = wc_entry_file_verify(&file, &err);
    if (rc == WASMCACHE_ECORRUPT) {
        struct wc_error ignored = err;
        rc = wc_store_remove(&folder, file.name, file.fd, &err);
        (void)wc_memory_outdate(key); /* somebody may have mapped it */
        wc_memory_forget_key(cache->memory, engine_namespace, key);
        if (rc == 0)
            (void)wc_stats_flush(cache, -(int64_t)file.st.size, -1, NULL, &ignored);
        rc = rc == WASMCACHE_EBUSY ? WASMCACHE_EMISS : rc;
    } else if (rc == 0 || rc == WASMCACHE_EMISMATCH || rc == WASMCACHE_ENEWER) {
        rc = wc_fail(&err, WASMCACHE_EMISS, 0, NULL, file.path, "%s is not damaged", file.path);
    }
    wc_entry_file_close(&file);
    wc_folder_close(&folder);
    return wc_error_publish(&err, rc);
}

/* ---- walks ---- */

struct wasmcache_iterator {
    wasmcache *cache;
    unsigned flags;
    struct wc_os_walk *root; /* over the namespaces; NULL with `only` */
    struct wc_folder folder; /* the namespace that is open */
    struct wc_hint_look look;
    struct wc_os_walk *walk; /* over its entries; NULL between two namespaces */
    char engine_namespace[WC_NAMESPACE_SIZE];
};

static void leave_namespace(wasmcache_iterator *it)
{
    wc_os_walk_close(it->walk);
    wc_hint_look_end(&it->look);
    wc_hint_look_start(&it->look, NULL);
    wc_folder_close(&it->folder);
    it->walk = NULL;
}

static int enter_namespace(wasmcache_iterator *it, const char *name, struct wc_error *err)
{
    int os, rc = wc_store_open_folder(&it->folder, &it->cache->store, name, err);
    if (rc < 0)
        return rc;
    it->walk = wc_os_walk_open(it->folder.fd, &os);
    if (!it->walk) {
        leave_namespace(it);
        return wc_fail(err, wc_error_of_errno(os), os, "opendir", it->folder.path, "Cannot list %s",
                       it->folder.path);
    }
    snprintf(it->engine_namespace, sizeof(it->engine_namespace), "%s", name);
    return 0;
}

/* The next folder that has the name of a namespace. EMISS: no more. */
static int next_namespace(wasmcache_iterator *it, struct wc_error *err)
{
    const char *name;
    int os = 0;
    if (!it->root)
        return WASMCACHE_EMISS;
    while ((name = wc_os_walk_next(it->root, &os)) != NULL) {
        int rc = wc_namespace_valid(name) ? enter_namespace(it, name, err) : WASMCACHE_EMISS;
        if (rc != WASMCACHE_EMISS) /* one that vanished since is none */
            return rc;
    }
    wc_os_walk_close(it->root);
    it->root = NULL;
    if (os < 0)
        return wc_fail(err, WASMCACHE_EIO, os, "readdir", it->cache->store.dir, "Cannot list %s",
                       it->cache->store.dir);
    return WASMCACHE_EMISS;
}

/* EMISS: there is nothing to walk over. */
static int walk_namespaces(wasmcache_iterator *it, struct wc_error *err)
{
    struct wc_gate_found found;
    int fd, os, rc = open_root(it->cache, &fd, &found, err);
    if (rc < 0)
        return rc;
    it->root = wc_os_walk_open(fd, &os);
    wc_os_close(fd);
    if (it->root)
        return 0;
    return wc_fail(err, wc_error_of_errno(os), os, "opendir", it->cache->store.dir,
                   "Cannot list %s", it->cache->store.dir);
}

int wasmcache_iterate(wasmcache_iterator **out, wasmcache *cache, const char *engine_namespace,
                      unsigned flags)
{
    wasmcache_iterator *it;
    struct wc_error err;
    int rc;

    wc_error_init(&err);
    if (!out || (engine_namespace && !wc_namespace_valid(engine_namespace)) ||
        flags & ~(unsigned)WASMCACHE_CHECK_DIGEST)
        return misuse(&err, "wasmcache_iterate");
    it = calloc(1, sizeof(*it));
    if (!it)
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_ENOMEM, 0, "malloc", NULL,
                                              "No memory to walk over the entries"));
    it->flags = flags;
    it->folder.fd = -1;
    wc_hint_look_start(&it->look, NULL);
    if (wc_cache_usable(cache)) {
        it->cache = wc_cache_ref(cache);
        rc = engine_namespace ? enter_namespace(it, engine_namespace, &err)
                              : walk_namespaces(it, &err);
        if (rc < 0 && rc != WASMCACHE_EMISS) {
            wasmcache_iterator_close(it);
            return wc_error_publish(&err, rc);
        }
    }
    *out = it;
    return 0;
}

int wasmcache_iterator_next(wasmcache_iterator *it, wasmcache_entry *out)
{
    struct wc_error err;
    int rc = 0;

    wc_error_init(&err);
    if (!it || !out || out->size < sizeof(size_t))
        return misuse(&err, "wasmcache_iterator_next");
    while (rc == 0) {
        const char *name;
        wasmcache_entry entry;
        wasmcache_key key;
        int os;
        if (!it->walk) {
            rc = next_namespace(it, &err);
            continue;
        }
        name = wc_os_walk_next(it->walk, &os);
        if (!name) {
            leave_namespace(it);
            if (os < 0)
                rc = wc_fail(&err, WASMCACHE_EIO, os, "readdir", it->folder.path, "Cannot list %s",
                             it->folder.path);
            continue;
        }
        if (wc_entry_name_parse(&key, name) == 0) {
            const struct wc_expect expect = expect_any(&key, it->engine_namespace);
            check_in(&entry, it->cache, &it->folder, &it->look, &expect, it->flags, &err);
            if (entry.state == WASMCACHE_REASON_NOT_FOUND)
                continue; /* removed since it was listed */
            wc_sized_out(out, &entry, sizeof(entry));
            return 0;
        }
    }
    return wc_error_publish(&err, rc);
}

void wasmcache_iterator_close(wasmcache_iterator *it)
{
    if (!it)
        return;
    leave_namespace(it);
    wc_os_walk_close(it->root);
    wc_cache_unref(it->cache);
    free(it);
}

int wasmcache_clean(wasmcache *cache, uint64_t *removed)
{
    wasmcache_iterator *it;
    struct wc_error err;
    uint64_t count = 0;
    int rc, first = 0;

    rc = wasmcache_iterate(&it, cache, NULL, 0);
    if (rc < 0)
        return rc;
    wc_error_init(&err);
    while ((rc = next_namespace(it, &err)) != WASMCACHE_EMISS) {
        if (rc == 0 && !(cache->store.flags & WASMCACHE_READ_ONLY))
            rc = wc_store_clean(&it->folder, &count, &err);
        if (rc < 0 && !first) {
            first = rc;
            wc_error_publish(&err, rc);
        }
        leave_namespace(it);
    }
    wasmcache_iterator_close(it);
    if (removed)
        *removed = count;
    return first;
}
