/* SPDX-License-Identifier: Apache-2.0 */
#include "store_dir.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void wc_store_path(char *out, size_t size, const struct wc_store *store,
                   const char *engine_namespace, const char *name)
{
    snprintf(out, size, "%s/%s%s%s", store->dir ? store->dir : "", engine_namespace,
             name ? "/" : "", name ? name : "");
}

int wc_store_open_namespace(const struct wc_store *store, const char *engine_namespace, int create,
                            int *fd, struct wc_error *err)
{
    struct wc_gate_found found;
    int root, rc;

    if (!store->dir)
        return wc_fail(err, WASMCACHE_EMISS, 0, NULL, NULL, "The cache has no directory");
    rc = wc_gate_open(&store->gate, store->dir, create, &root, &found, err);
    if (rc < 0) {
        err->off = rc != WASMCACHE_EMISS;
        return rc;
    }
    rc = wc_gate_open_at(&store->gate, root, engine_namespace, store->dir, create, fd, err);
    wc_os_close(root);
    return rc;
}

/* ---- opening and judging ---- */

static int read_trailer(struct wc_entry_file *file, const char *path, struct wc_error *err)
{
    uint8_t tail[WC_TRAILER_MAX + 8];
    /* One read for what this version writes; a longer trailer asks for a second. */
    int need = 512;
    for (;;) {
        size_t size = file->st.size < (uint64_t)need ? (size_t)file->st.size : (size_t)need;
        int64_t n = wc_os_pread(file->fd, tail, size, file->st.size - size);
        if (n < 0)
            return wc_fail(err, wc_error_of_errno((int)n), (int)n, "pread", path, "Cannot read %s",
                           path);
        if ((size_t)n != size)
            return wc_fail(err, WASMCACHE_ECORRUPT, 0, NULL, path,
                           "%s became shorter while it was read", path);
        need = wc_trailer_decode(&file->trailer, tail, size, file->st.size, err);
        if (need <= 0)
            break;
    }
    if (need < 0)
        snprintf(err->path, sizeof(err->path), "%s", path);
    return need;
}

static int compare(const struct wc_trailer *trailer, const struct wc_expect *expect,
                   const char *path, struct wc_error *err)
{
    const char *what = NULL;
    if (!wasmcache_key_equal(&trailer->key, expect->key))
        what = "another key";
    else if (strcmp(trailer->engine_namespace, expect->engine_namespace) != 0)
        what = "another namespace";
    else if (expect->kind && trailer->kind != expect->kind)
        what = trailer->kind == WASMCACHE_MODULE ? "a module" : "a component";
    else if (expect->fingerprint && memcmp(trailer->fingerprint, expect->fingerprint, 32) != 0)
        what = "another engine or configuration";
    if (!what)
        return 0;
    return wc_fail(err, WASMCACHE_EMISMATCH, 0, NULL, path, "%s was saved for %s", path, what);
}

int wc_store_open_entry_at(const struct wc_store *store, int ns_fd, const struct wc_expect *expect,
                           struct wc_entry_file *out, struct wc_error *err)
{
    char path[512];
    int rc;

    out->ns_fd = ns_fd;
    wc_entry_name(out->name, expect->key);
    wc_store_path(path, sizeof(path), store, expect->engine_namespace, out->name);
    out->fd = wc_os_open_read(ns_fd, out->name);
    if (out->fd == -ENOENT)
        return wc_fail(err, WASMCACHE_EMISS, ENOENT, "open", path, "There is no %s", path);
    if (out->fd == -ELOOP || out->fd == -ENXIO)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, out->fd, "open", path, "%s is not a regular file",
                       path);
    if (out->fd < 0)
        return wc_fail(err, wc_error_of_errno(out->fd), out->fd, "open", path, "Cannot open %s",
                       path);
    rc = wc_os_fstat(out->fd, &out->st);
    if (rc < 0)
        return wc_fail(err, wc_error_of_errno(rc), rc, "fstat", path, "Cannot look at %s", path);
    if (out->st.type != WC_OS_FILE)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path, "%s is not a regular file", path);
    if (!wc_gate_trusts(&store->gate, &out->st))
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, path,
                       "%s is not to be trusted (owner %" PRIu32 ", mode %04" PRIo32 ")", path,
                       out->st.uid, out->st.mode);
    rc = read_trailer(out, path, err);
    if (rc == 0)
        rc = compare(&out->trailer, expect, path, err);
    return rc;
}

int wc_store_open_entry(const struct wc_store *store, const struct wc_expect *expect,
                        struct wc_entry_file *out, struct wc_error *err)
{
    int ns_fd, rc;
    out->ns_fd = out->fd = -1;
    rc = wc_store_open_namespace(store, expect->engine_namespace, WC_GATE_LOOK, &ns_fd, err);
    if (rc < 0)
        return rc;
    return wc_store_open_entry_at(store, ns_fd, expect, out, err);
}

static int check_digest(const struct wc_entry_file *file, struct wc_error *err)
{
    const struct wc_trailer *trailer = &file->trailer;
    struct wc_digest digest;
    const void *bytes;
    size_t size = (size_t)trailer->artifact_bytes;
    int rc;

    if (size != trailer->artifact_bytes)
        return wc_fail(err, WASMCACHE_ENOMEM, 0, NULL, file->name, "%s does not fit into memory",
                       file->name);
    rc = wc_os_map(file->fd, size, &bytes);
    if (rc < 0)
        return wc_fail(err, wc_error_of_errno(rc), rc, "mmap", file->name, "Cannot map %s",
                       file->name);
    wc_digest_of(&digest, trailer->digest.kind, bytes, size);
    wc_os_unmap(bytes, size);
    if (memcmp(digest.bytes, trailer->digest.bytes, sizeof(digest.bytes)) == 0)
        return 0;
    return wc_fail(err, WASMCACHE_ECORRUPT, 0, NULL, file->name,
                   "%s is damaged: its bytes do not match their digest", file->name);
}

int wc_entry_file_verify(struct wc_entry_file *file, struct wc_error *err)
{
    /* A writer of named temps takes its second name away just after it published, which moves the
     * ctime of a good entry: look again. Who changes it for ever is not followed. */
    for (int attempt = 0; attempt < 3; attempt++) {
        struct wc_os_stat now;
        int rc = check_digest(file, err);
        if (rc < 0)
            return rc;
        rc = wc_os_fstat(file->fd, &now);
        if (rc < 0)
            return wc_fail(err, wc_error_of_errno(rc), rc, "fstat", file->name, "Cannot look at %s",
                           file->name);
        if (file->st.size == now.size && file->st.mtime_ns == now.mtime_ns &&
            file->st.ctime_ns == now.ctime_ns)
            return 0;
        file->st = now;
    }
    return wc_fail(err, WASMCACHE_EBUSY, 0, NULL, file->name, "%s keeps changing", file->name);
}

void wc_entry_file_close(struct wc_entry_file *file)
{
    wc_os_close(file->fd);
    wc_os_close(file->ns_fd);
    file->fd = file->ns_fd = -1;
}
