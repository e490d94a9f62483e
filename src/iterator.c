/* SPDX-License-Identifier: Apache-2.0 */
/* Entries without an engine: their paths, what they are, removal, and walks over all of them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "key.h"

static int misuse(struct wc_error *err, const char *function)
{
    return wc_error_publish(err, wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                         "%s: NULL, a size that is not set, an unknown flag, or a "
                                         "namespace or key that is none",
                                         function));
}

static int no_cache(struct wc_error *err)
{
    return wc_error_publish(err, wc_fail(err, WASMCACHE_EMISS, 0, NULL, NULL, "There is no cache"));
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
    int fd = -1, n;

    wc_error_init(&err);
    if (!out || !wc_namespace_valid(engine_namespace) || !wc_key_valid(key))
        return misuse(&err, "wasmcache_entry_path");
    if (!wc_cache_usable(cache))
        return no_cache(&err);
    if (open_root(cache, &fd, &found, &err) == 0 && found.own_folder)
        snprintf(own, sizeof(own), "/u%u", (unsigned)found.uid);
    wc_os_close(fd);
    wc_entry_name(name, key);
    n = snprintf(NULL, 0, "%s%s/%s/%s", cache->store.dir, own, engine_namespace, name);
    if (n < 0 || (size_t)n >= size)
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                              "wasmcache_entry_path: %d bytes are needed, %zu "
                                              "were given",
                                              n + 1, size));
    snprintf(out, size, "%s%s/%s/%s", cache->store.dir, own, engine_namespace, name);
    return 0;
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
    if (rc != 0 && rc != WASMCACHE_EMISMATCH)
        return;
    out->kind = file->trailer.kind;
    memcpy(out->fingerprint, file->trailer.fingerprint, sizeof(out->fingerprint));
    out->artifact_bytes = file->trailer.artifact_bytes;
    out->wasm_bytes = file->trailer.wasm_bytes;
    out->compile_ns = file->trailer.compile_ns;
    out->created = file->trailer.created;
}

/* `ns_fd` is taken over. */
static void check_at(wasmcache_entry *out, wasmcache *cache, int ns_fd,
                     const struct wc_expect *expect, unsigned flags, struct wc_error *err)
{
    struct wc_entry_file file;
    int rc;
    memset(&file.st, 0, sizeof(file.st));
    rc = wc_store_open_entry_at(&cache->store, ns_fd, expect, &file, err);
    if (flags & WASMCACHE_CHECK_DIGEST && (rc == 0 || rc == WASMCACHE_EMISMATCH)) {
        int verified = wc_entry_file_verify(&file, err);
        if (verified < 0)
            rc = verified;
    }
    describe(out, expect, &file, rc, err);
    wc_entry_file_close(&file);
}

int wasmcache_entry_check(wasmcache_entry *out, wasmcache *cache, const char *engine_namespace,
                          const wasmcache_key *key, unsigned flags)
{
    const struct wc_expect expect = {(wasmcache_kind)0, key, engine_namespace, NULL};
    struct wc_error err;
    wasmcache_entry entry;
    int ns_fd, rc;

    wc_error_init(&err);
    if (!out || out->size < sizeof(size_t) || !wc_namespace_valid(engine_namespace) ||
        !wc_key_valid(key) || flags & ~(unsigned)WASMCACHE_CHECK_DIGEST)
        return misuse(&err, "wasmcache_entry_check");
    if (!wc_cache_usable(cache))
        return no_cache(&err);
    rc = wc_store_open_namespace(&cache->store, engine_namespace, WC_GATE_LOOK, &ns_fd, &err);
    if (rc == WASMCACHE_EMISS) {
        struct wc_entry_file none = {.ns_fd = -1, .fd = -1};
        describe(&entry, &expect, &none, rc, &err);
    } else if (rc < 0) {
        return wc_error_publish(&err, rc);
    } else {
        check_at(&entry, cache, ns_fd, &expect, flags, &err);
    }
    wc_sized_out(out, &entry, sizeof(entry));
    return 0;
}

int wasmcache_remove(wasmcache *cache, const char *engine_namespace, const wasmcache_key *key)
{
    char name[WC_ENTRY_NAME_SIZE];
    struct wc_error err;
    int ns_fd = -1, fd = -1, rc;

    wc_error_init(&err);
    if (!wc_namespace_valid(engine_namespace) || !wc_key_valid(key))
        return misuse(&err, "wasmcache_remove");
    if (!wc_cache_usable(cache))
        return no_cache(&err);
    wc_entry_name(name, key);
    if (cache->store.flags & WASMCACHE_READ_ONLY)
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_EIO, EROFS, NULL, name,
                                              "The cache was opened to be read only"));
    rc = wc_store_open_namespace(&cache->store, engine_namespace, WC_GATE_LOOK, &ns_fd, &err);
    if (rc < 0)
        return wc_error_publish(&err, rc);
    fd = wc_os_open_read(ns_fd, name); /* one that can be locked, if there is one */
    if (fd < 0 && fd != -ENOENT)
        fd = wc_os_open_identity(ns_fd, name);
    if (fd == -ENOENT)
        rc = wc_fail(&err, WASMCACHE_EMISS, 0, NULL, name, "There is no %s in %s", name,
                     engine_namespace);
    else if (fd < 0)
        rc = wc_fail(&err, WASMCACHE_EIO, fd, "open", name, "Cannot open %s in %s", name,
                     engine_namespace);
    else
        rc = wc_store_remove(&cache->store, ns_fd, engine_namespace, name, fd, &err);
    wc_os_close(fd);
    wc_os_close(ns_fd);
    return wc_error_publish(&err, rc);
}

/* ---- walks ---- */

struct wasmcache_iterator {
    wasmcache *cache;
    unsigned flags;
    int root_fd;             /* -1: nothing there */
    struct wc_os_walk *root; /* over the namespaces; NULL with `only` */
    int ns_fd;               /* the namespace that is open, -1 between two */
    struct wc_os_walk *walk; /* over its entries */
    char engine_namespace[WC_NAMESPACE_SIZE];
};

static void leave_namespace(wasmcache_iterator *it)
{
    wc_os_walk_close(it->walk);
    wc_os_close(it->ns_fd);
    it->walk = NULL;
    it->ns_fd = -1;
}

static int enter_namespace(wasmcache_iterator *it, const char *name, struct wc_error *err)
{
    const struct wc_store *store = &it->cache->store;
    int os;
    int rc =
        wc_gate_open_at(&store->gate, it->root_fd, name, store->dir, WC_GATE_LOOK, &it->ns_fd, err);
    if (rc < 0) {
        it->ns_fd = -1;
        return rc;
    }
    it->walk = wc_os_walk_open(it->ns_fd, &os);
    if (!it->walk) {
        leave_namespace(it);
        return wc_fail(err, wc_error_of_errno(os), os, "opendir", name, "Cannot list %s/%s",
                       store->dir, name);
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
        if (wc_namespace_valid(name))
            return enter_namespace(it, name, err);
    }
    wc_os_walk_close(it->root);
    it->root = NULL;
    if (os < 0)
        return wc_fail(err, WASMCACHE_EIO, os, "readdir", it->cache->store.dir, "Cannot list %s",
                       it->cache->store.dir);
    return WASMCACHE_EMISS;
}

static int start(wasmcache_iterator *it, const char *engine_namespace, struct wc_error *err)
{
    struct wc_gate_found found;
    int os, rc = open_root(it->cache, &it->root_fd, &found, err);
    if (rc < 0) {
        it->root_fd = -1;
        return rc == WASMCACHE_EMISS ? 0 : rc;
    }
    if (engine_namespace) {
        rc = enter_namespace(it, engine_namespace, err);
        return rc == WASMCACHE_EMISS ? 0 : rc;
    }
    it->root = wc_os_walk_open(it->root_fd, &os);
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
    it->root_fd = it->ns_fd = -1;
    if (wc_cache_usable(cache)) {
        it->cache = wc_cache_ref(cache);
        rc = start(it, engine_namespace, &err);
        if (rc < 0) {
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
                rc = wc_fail(&err, WASMCACHE_EIO, os, "readdir", it->engine_namespace,
                             "Cannot list %s/%s", it->cache->store.dir, it->engine_namespace);
            continue;
        }
        if (wc_entry_name_parse(&key, name) == 0) {
            const struct wc_expect expect = {(wasmcache_kind)0, &key, it->engine_namespace, NULL};
            int ns_fd = wc_os_dup(it->ns_fd);
            if (ns_fd < 0) {
                rc = wc_fail(&err, WASMCACHE_EIO, ns_fd, "dup", name, "Cannot open %s", name);
                continue;
            }
            check_at(&entry, it->cache, ns_fd, &expect, it->flags, &err);
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
    wc_os_close(it->root_fd);
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
            rc = wc_store_clean(&cache->store, it->ns_fd, it->engine_namespace, &count, &err);
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
