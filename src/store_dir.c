/* SPDX-License-Identifier: Apache-2.0 */
#include "store_dir.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A digest is made over views of this size: several of the largest pages, little address space. */
#define VIEW ((size_t)4 << 20)

/* And where that does not pay, or there are no views, by reading pieces of this one: below what
 * malloc gets from the system by itself, large enough for the speed of memory. */
#define PIECE ((size_t)120 * 1024)

/* ---- folders ---- */

/*
 * Directory and folder in one step, which is what there is to do in nearly all cases: both are
 * there, both are to be trusted, and no link leads to them. 0: look for what is wrong step by step.
 * The directory is judged as the one that the open folder lies in, so that it is that and no other.
 */
static int open_at_once(struct wc_folder *out, const struct wc_store *store,
                        const char *engine_namespace)
{
    struct wc_os_stat dir, folder;
    if (!wc_path_join(out->path, store->dir, engine_namespace))
        return 0;
    out->fd = wc_os_open_dir_straight(out->path);
    if (out->fd >= 0 && wc_os_fstat(out->fd, &folder) == 0 &&
        wc_gate_trusts(&store->gate, &folder) && wc_os_stat_parent(out->fd, &dir) == 0 &&
        wc_gate_trusts(&store->gate, &dir)) {
        out->owner = dir.uid;
        out->straight = 1;
        return 1;
    }
    wc_os_close(out->fd);
    out->fd = -1;
    return 0;
}

static int open_folder(struct wc_folder *out, const struct wc_store *store,
                       const char *engine_namespace, int create, struct wc_error *err)
{
    struct wc_gate_found found;
    char own[16] = "", dir[WC_PATH_SIZE];
    int root, rc;

    out->fd = -1;
    out->straight = 0;
    if (open_at_once(out, store, engine_namespace))
        return 0;
    rc = wc_gate_open(&store->gate, store->dir, create, &root, &found, err);
    if (rc < 0)
        return rc;
    if (found.own_folder)
        snprintf(own, sizeof(own), "/u%" PRIu32, found.uid);
    snprintf(dir, sizeof(dir), "%s%s", store->dir, own);
    wc_path_join(out->path, dir, engine_namespace);
    out->owner = found.uid;
    rc = wc_gate_open_at(&store->gate, root, engine_namespace, dir, WC_GATE_LOOK, &out->fd, err);
    if (rc == WASMCACHE_EMISS && create) {
        rc = wc_gate_open_at(&store->gate, root, engine_namespace, dir, create, &out->fd, err);
        if (rc == 0 && store->flags & WASMCACHE_DURABLE) {
            int os = wc_os_sync_dir(root); /* what is in a folder is as durable as the folder */
            if (os < 0) {
                wc_folder_close(out);
                rc = wc_fail(err, wc_error_of_errno(os), os, "fsync", dir, "Cannot sync %s", dir);
            }
        }
    }
    wc_os_close(root);
    return rc;
}

int wc_store_open_folder(struct wc_folder *out, const struct wc_store *store,
                         const char *engine_namespace, struct wc_error *err)
{
    return open_folder(out, store, engine_namespace, WC_GATE_LOOK, err);
}

int wc_store_make_folder(struct wc_folder *out, const struct wc_store *store,
                         const char *engine_namespace, struct wc_error *err)
{
    int rc = open_folder(out, store, engine_namespace, WC_GATE_CREATE, err);
    if (rc == WASMCACHE_EIO && err->system_errno == ENOENT)
        rc = open_folder(out, store, engine_namespace, WC_GATE_CREATE, err);
    return rc;
}

void wc_folder_close(struct wc_folder *folder)
{
    wc_os_close(folder->fd);
    folder->fd = -1;
}

/* ---- opening and judging ---- */

/* The file ended before its length. Was it cut meanwhile? If not, the file system says what is not
 * so, and that does not show that the entry is damaged. */
static int ended_early(const struct wc_entry_file *file, struct wc_error *err)
{
    struct wc_os_stat now;
    if (wc_os_fstat(file->fd, &now) == 0 && now.size < file->st.size)
        return wc_fail(err, WASMCACHE_ECORRUPT, 0, NULL, file->path,
                       "%s became shorter while it was read", file->path);
    return wc_fail(err, WASMCACHE_EIO, EIO, "pread", file->path,
                   "%s has bytes that could not be read", file->path);
}

static int read_trailer(struct wc_entry_file *file, const struct wc_expect *expect,
                        struct wc_error *err)
{
    uint8_t tail[WC_TRAILER_MAX + 8];
    /* One read for what this version writes; a longer trailer asks for a second. */
    int need = 512;
    for (;;) {
        size_t size = file->st.size < (uint64_t)need ? (size_t)file->st.size : (size_t)need;
        int64_t n = wc_os_pread(file->fd, tail, size, file->st.size - size);
        if (n < 0)
            return wc_fail(err, wc_error_of_errno((int)n), (int)n, "pread", file->path,
                           "Cannot read %s", file->path);
        if ((size_t)n != size)
            return ended_early(file, err);
        need = wc_trailer_decode(&file->trailer, tail, size, file->st.size, err);
        if (need <= 0)
            break;
    }
    if (need == 0)
        file->has_trailer = 1;
    else
        snprintf(err->path, sizeof(err->path), "%s", file->path);
    if (need == WASMCACHE_ECORRUPT && err->foreign && expect->legacy) {
        const struct wc_trailer none = {.artifact_bytes = file->st.size};
        file->trailer = none;
        return 0;
    }
    if (need == WASMCACHE_ECORRUPT && err->foreign && expect->shared)
        return wc_fail(err, WASMCACHE_EMISMATCH, 0, NULL, file->path,
                       "%s was saved by another program", file->path);
    return need;
}

static int compare(const struct wc_entry_file *file, const struct wc_expect *expect,
                   struct wc_error *err)
{
    const struct wc_trailer *trailer = &file->trailer;
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
    return wc_fail(err, WASMCACHE_EMISMATCH, 0, NULL, file->path, "%s was saved for %s", file->path,
                   what);
}

int wc_store_open_entry(struct wc_entry_file *out, const struct wc_store *store,
                        const struct wc_folder *folder, const struct wc_expect *expect,
                        struct wc_error *err)
{
    int rc;

    out->has_trailer = 0;
    out->checked = 0;
    memset(&out->st, 0, sizeof(out->st));
    wc_entry_name(out->name, expect->key);
    wc_path_join(out->path, folder->path, out->name);
    out->fd = folder->fd < 0 ? wc_os_open_read_straight(out->path)
                             : wc_os_open_read(folder->fd, out->name);
    if (out->fd == -ENOENT)
        return wc_fail(err, WASMCACHE_EMISS, ENOENT, "open", out->path, "There is no %s",
                       out->path);
    if (out->fd == -ELOOP || out->fd == -ENXIO)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, out->fd, "open", out->path,
                       "%s is not a regular file", out->path);
    if (out->fd < 0)
        return wc_fail(err, wc_error_of_errno(out->fd), out->fd, "open", out->path,
                       "Cannot open %s", out->path);
    rc = wc_os_fstat(out->fd, &out->st);
    if (rc < 0)
        return wc_fail(err, wc_error_of_errno(rc), rc, "fstat", out->path, "Cannot look at %s",
                       out->path);
    if (out->st.type != WC_OS_FILE)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, out->path, "%s is not a regular file",
                       out->path);
    if (!wc_gate_trusts(&store->gate, &out->st))
        return wc_fail(err, WASMCACHE_EUNTRUSTED, 0, NULL, out->path,
                       "%s is not to be trusted (owner %" PRIu32 ", mode %04" PRIo32 ")", out->path,
                       out->st.uid, out->st.mode);
    rc = read_trailer(out, expect, err);
    return rc < 0 || !out->has_trailer ? rc : compare(out, expect, err);
}

/* ---- the digest ---- */

/* Adds `size` bytes at `offset` by reading them, which says why where it fails. */
static int digest_read(const struct wc_entry_file *file, struct wc_digest_state *state,
                       uint64_t offset, size_t size, struct wc_error *err)
{
    const size_t room = size < PIECE ? size : PIECE;
    uint8_t *piece = malloc(room);
    int rc = 0;
    if (!piece)
        return wc_fail(err, WASMCACHE_ENOMEM, ENOMEM, "malloc", file->path, "No memory to check %s",
                       file->path);
    while (rc == 0 && size) {
        const size_t want = size < room ? size : room;
        const int64_t n = wc_os_pread(file->fd, piece, want, offset);
        if (n < 0)
            rc = wc_fail(err, wc_error_of_errno((int)n), (int)n, "pread", file->path,
                         "Cannot read %s", file->path);
        else if ((size_t)n != want)
            rc = ended_early(file, err);
        else
            wc_digest_add(state, piece, want);
        offset += want;
        size -= want;
    }
    free(piece);
    return rc;
}

static int digest_artifact(const struct wc_entry_file *file, struct wc_digest *out,
                           struct wc_error *err)
{
    const uint64_t size = file->trailer.artifact_bytes;
    struct wc_digest_state *state = wc_digest_start(file->trailer.digest.kind);
    /* Of a network's or another process's file system a page that is there can be gone again. */
    const int views = size > PIECE && wc_os_settles_after_ns(file->fd) > 0;
    uint64_t done = 0;
    int rc = 0;

    if (!state)
        return wc_fail(err, WASMCACHE_ENOMEM, ENOMEM, "malloc", file->path, "No memory to check %s",
                       file->path);
    while (rc == 0 && done < size) {
        const size_t part = size - done < VIEW ? (size_t)(size - done) : VIEW;
        const void *bytes;
        if (views && part > PIECE && wc_os_view(file->fd, done, part, &bytes) == 0) {
            wc_digest_add(state, bytes, part);
            wc_os_unmap(bytes, part);
        } else {
            rc = digest_read(file, state, done, part, err);
        }
        done += part;
    }
    if (rc == 0)
        wc_digest_finish(state, out);
    else
        wc_digest_free(state);
    return rc;
}

static int damaged(const struct wc_entry_file *file, struct wc_error *err)
{
    return wc_fail(err, WASMCACHE_ECORRUPT, 0, NULL, file->path,
                   "%s is damaged: its bytes do not match their digest", file->path);
}

static int digest_of(struct wc_digest *out, const struct wc_entry_file *file, const uint8_t *bytes,
                     size_t size, struct wc_error *err)
{
    struct wc_digest_state *state = wc_digest_start(file->trailer.digest.kind);
    if (!state)
        return wc_fail(err, WASMCACHE_ENOMEM, ENOMEM, "malloc", file->path, "No memory to check %s",
                       file->path);
    wc_digest_add(state, bytes, size);
    wc_digest_finish(state, out);
    return 0;
}

int wc_entry_file_read(const struct wc_entry_file *file, uint8_t **out, struct wc_error *err)
{
    const size_t size = (size_t)file->trailer.artifact_bytes;
    uint8_t *bytes = malloc(size);
    struct wc_digest digest;
    int64_t n;
    int rc;
    if (!bytes)
        return wc_fail(err, WASMCACHE_ENOMEM, ENOMEM, "malloc", file->path, "No memory to read %s",
                       file->path);
    n = wc_os_pread(file->fd, bytes, size, 0);
    if (n < 0)
        rc = wc_fail(err, wc_error_of_errno((int)n), (int)n, "pread", file->path, "Cannot read %s",
                     file->path);
    else if ((uint64_t)n != size)
        rc = ended_early(file, err);
    else
        rc = digest_of(&digest, file, bytes, size, err);
    if (rc == 0 && memcmp(digest.bytes, file->trailer.digest.bytes, sizeof(digest.bytes)) != 0)
        rc = damaged(file, err);
    if (rc == 0)
        *out = bytes;
    else
        free(bytes);
    return rc;
}

int wc_entry_file_unchanged(const struct wc_entry_file *file)
{
    struct wc_os_stat now;
    return wc_os_fstat(file->fd, &now) == 0 && now.size == file->st.size &&
           now.mtime_ns == file->st.mtime_ns && now.ctime_ns == file->st.ctime_ns;
}

int wc_entry_file_verify(struct wc_entry_file *file, struct wc_error *err)
{
    /* A writer of named temps takes its second name away just after it published, which moves the
     * ctime of a good entry: look again. Who changes it for ever is not followed. */
    for (int attempt = 0; attempt < 3; attempt++) {
        struct wc_digest digest;
        struct wc_os_stat now;
        int rc = digest_artifact(file, &digest, err);
        if (rc < 0)
            return rc;
        if (memcmp(digest.bytes, file->trailer.digest.bytes, sizeof(digest.bytes)) != 0)
            return damaged(file, err);
        rc = wc_os_fstat(file->fd, &now);
        if (rc < 0)
            return wc_fail(err, wc_error_of_errno(rc), rc, "fstat", file->path, "Cannot look at %s",
                           file->path);
        if (file->st.size != now.size)
            return wc_fail(err, WASMCACHE_ECORRUPT, 0, NULL, file->path,
                           "%s changed its size while it was read", file->path);
        if (file->st.mtime_ns == now.mtime_ns && file->st.ctime_ns == now.ctime_ns) {
            file->checked = 1;
            return 0;
        }
        file->st = now;
    }
    return wc_fail(err, WASMCACHE_EBUSY, 0, NULL, file->path, "%s keeps changing", file->path);
}

void wc_entry_file_close(struct wc_entry_file *file)
{
    wc_os_close(file->fd);
    file->fd = -1;
}
