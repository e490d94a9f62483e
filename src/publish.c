/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of a new entry:
 *
 *   unnamed    O_TMPFILE: no name; gone with its descriptor, whatever happens
 *   named      ".tmp-{random}" under a lock; where there is no O_TMPFILE, or no /proc to link
 *              from. Left behind only by a process that dies, and then without its lock
 *   whole      all bytes written, mode set; durable: on disk
 *   published  it has its name. Never written, truncated or chmod-ed from here on
 *
 * First wins: who finds a sound entry under the name drops its own, so that the pages and the inode
 * that others use stay. A bad one is removed by identity, and then it is tried again.
 */
#include "publish.h"

#include <errno.h>
#include <string.h>

/* Hashed and written in turn in pieces that stay in the cache of the processor in between. */
#define PIECE ((size_t)1 << 20)

struct target {
    const struct wc_store *store;
    const struct wc_trailer *trailer;
    unsigned flags;
    int ns_fd;
    int fd;
    char name[WC_ENTRY_NAME_SIZE];
    char temp[WC_PRIVATE_NAME_SIZE]; /* "" while unnamed */
    char path[512];                  /* of the entry, for messages */
};

static int system_failure(struct wc_error *err, const struct target *t, int os, const char *call)
{
    return wc_fail(err, wc_error_of_errno(os), os, call, t->path, "Cannot save %s", t->path);
}

/* ---- what is there already ---- */

enum verdict { ABSENT, SOUND, BAD };

/* Judges the entry under our name. Negative: it must stay, or cannot be judged. *file is open for
 * BAD, and the caller closes it. */
static int judge(const struct target *t, struct wc_entry_file *file, struct wc_error *err)
{
    const struct wc_expect expect = {t->trailer->kind, &t->trailer->key,
                                     t->trailer->engine_namespace, t->trailer->fingerprint};
    int rc = wc_store_open_entry_at(t->store, t->ns_fd, &expect, file, err);
    if (rc == 0)
        rc = wc_entry_file_verify(file, err);
    switch (rc) {
    case 0:
        return SOUND;
    case WASMCACHE_EMISS:
        return ABSENT;
    case WASMCACHE_EMISMATCH:
        return t->flags & WC_PUBLISH_LEAVE_FOREIGN ? rc : BAD;
    case WASMCACHE_ECORRUPT:
    case WASMCACHE_EUNTRUSTED:
        return BAD;
    default:
        return rc;
    }
}

static int remove_bad(const struct target *t, const struct wc_entry_file *file,
                      struct wc_error *err)
{
    int fd = file->fd, own = -1, rc;
    if (fd < 0)
        fd = own = wc_os_open_identity(t->ns_fd, t->name);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return system_failure(err, t, fd, "open");
    rc = wc_store_remove(t->store, t->ns_fd, t->trailer->engine_namespace, t->name, fd, err);
    wc_os_close(own);
    return rc == WASMCACHE_EMISS ? 0 : rc;
}

/*
 * Makes way for ours, or finds that it is not wanted: SOUND. ABSENT: the name is free now, as far
 * as it can be told.
 */
static int make_way(const struct target *t, struct wc_error *err)
{
    struct wc_entry_file file;
    int rc;
    file.fd = -1;
    rc = judge(t, &file, err);
    if (rc == BAD) {
        rc = remove_bad(t, &file, err);
        if (rc == 0)
            rc = ABSENT;
    }
    wc_os_close(file.fd); /* not ns_fd: that is the target's */
    return rc;
}

/* ---- writing ---- */

static int open_named(struct target *t, struct wc_error *err)
{
    for (int attempt = 0; attempt < 8; attempt++) {
        struct wc_os_stat st;
        int rc = wc_private_name(t->temp, NULL);
        if (rc < 0)
            return system_failure(err, t, rc, "getrandom");
        t->fd = wc_os_create(t->ns_fd, t->temp);
        if (t->fd == -EEXIST) {
            t->temp[0] = '\0';
            continue;
        }
        if (t->fd < 0) {
            t->temp[0] = '\0';
            return system_failure(err, t, t->fd, "open");
        }
        /* Between create and lock a clean-up may have taken it for a dead one's. */
        rc = wc_os_try_lock(t->fd);
        if (rc == 0)
            rc = wc_os_fstat(t->fd, &st);
        if (rc == 0 && st.nlink == 1)
            return 0;
        if (rc < 0 && rc != -EWOULDBLOCK) /* no locks on this file system: nobody cleans here */
            return 0;
        (void)wc_os_unlink(t->ns_fd, t->temp);
        wc_os_close(t->fd);
        t->fd = -1;
        t->temp[0] = '\0';
    }
    return wc_fail(err, WASMCACHE_EBUSY, 0, NULL, t->path, "Cannot save %s: no temporary file",
                   t->path);
}

static int open_temp(struct target *t, struct wc_error *err)
{
    uint64_t removed = 0;
    struct wc_error ignored = *err;

    t->fd = wc_os_open_unnamed(t->ns_fd);
    if (t->fd >= 0 && wc_os_can_link_unnamed(t->fd))
        return 0;
    if (t->fd < 0 && t->fd != -EOPNOTSUPP)
        return system_failure(err, t, t->fd, "open");
    wc_os_close(t->fd);
    t->fd = -1;
    /* Only writers that die in what follows leave files, so this is where they are looked for. */
    (void)wc_store_clean(t->store, t->ns_fd, t->trailer->engine_namespace, &removed, &ignored);
    return open_named(t, err);
}

/* Artifact, padding, trailer; the digest is made on the way. */
static int write_all(struct target *t, struct wc_trailer *trailer, const uint8_t *artifact,
                     struct wc_error *err)
{
    uint8_t tail[8 + WC_TRAILER_SIZE];
    unsigned padding = wc_entry_padding(trailer->artifact_bytes);
    size_t left = (size_t)trailer->artifact_bytes;
    struct wc_digest_state *digest = wc_digest_start();
    int rc;

    if (!digest)
        return wc_fail(err, WASMCACHE_ENOMEM, 0, "malloc", t->path, "No memory to save %s",
                       t->path);
    while (left) {
        size_t piece = left < PIECE ? left : PIECE;
        wc_digest_add(digest, artifact, piece);
        rc = wc_os_write(t->fd, artifact, piece);
        if (rc < 0) {
            wc_digest_free(digest);
            return system_failure(err, t, rc, "write");
        }
        artifact += piece;
        left -= piece;
    }
    wc_digest_finish(digest, &trailer->digest);
    memset(tail, 0, padding);
    wc_trailer_encode(tail + padding, trailer);
    rc = wc_os_write(t->fd, tail, padding + WC_TRAILER_SIZE);
    if (rc < 0)
        return system_failure(err, t, rc, "write");
    rc = wc_os_chmod(t->fd, wc_gate_file_mode(&t->store->gate));
    if (rc < 0)
        return system_failure(err, t, rc, "fchmod");
    if (t->store->flags & WASMCACHE_DURABLE) {
        rc = wc_os_sync_data(t->fd);
        if (rc < 0)
            return system_failure(err, t, rc, "fdatasync");
    }
    rc = wc_os_flush(t->fd);
    return rc < 0 ? system_failure(err, t, rc, "close") : 0;
}

/* ---- the name ---- */

/* Gives the temp the name `to`; -EEXIST if that is taken. The temp's own name is gone then. */
static int give_name(struct target *t, const char *to)
{
    struct wc_os_stat st;
    int rc;
    if (!t->temp[0])
        return wc_os_link_unnamed(t->fd, t->ns_fd, to);
    rc = wc_os_link(t->ns_fd, t->temp, to);
    if (rc == 0) {
        (void)wc_os_unlink(t->ns_fd, t->temp);
        t->temp[0] = '\0';
        return 0;
    }
    if (rc == -EEXIST)
        return rc;
    /* A file system without hard links. */
    rc = wc_os_rename_noreplace(t->ns_fd, t->temp, to);
    if (rc == -EINVAL) {
        rc = wc_os_stat_at(t->ns_fd, to, &st);
        rc = rc == 0 ? -EEXIST : rc == -ENOENT ? wc_os_rename(t->ns_fd, t->temp, to) : rc;
    }
    if (rc == 0)
        t->temp[0] = '\0';
    return rc;
}

/* Puts ours over a sound entry, which is never absent meanwhile. */
static int replace(struct target *t, struct wc_error *err)
{
    int rc;
    if (!t->temp[0]) {
        char temp[WC_PRIVATE_NAME_SIZE];
        rc = wc_private_name(temp, NULL);
        if (rc < 0)
            return system_failure(err, t, rc, "getrandom");
        (void)wc_os_try_lock(t->fd);
        rc = wc_os_link_unnamed(t->fd, t->ns_fd, temp);
        if (rc < 0)
            return system_failure(err, t, rc, "link");
        memcpy(t->temp, temp, sizeof(temp));
    }
    rc = wc_os_rename(t->ns_fd, t->temp, t->name);
    if (rc < 0)
        return system_failure(err, t, rc, "rename");
    t->temp[0] = '\0';
    return 0;
}

static int take_name(enum wc_published *result, struct target *t, struct wc_error *err)
{
    for (int attempt = 0; attempt < 8; attempt++) {
        int rc = give_name(t, t->name);
        if (rc == 0) {
            *result = WC_PUBLISHED_NEW;
            return 0;
        }
        if (rc != -EEXIST)
            return system_failure(err, t, rc, "link");
        rc = make_way(t, err);
        if (rc < 0)
            return rc;
        if (rc == SOUND) {
            *result = t->flags & WC_PUBLISH_REPLACE ? WC_PUBLISHED_NEW : WC_PUBLISHED_KEPT;
            return t->flags & WC_PUBLISH_REPLACE ? replace(t, err) : 0;
        }
    }
    return wc_fail(err, WASMCACHE_EBUSY, 0, NULL, t->path,
                   "Cannot save %s: others keep changing it; try again", t->path);
}

static int publish(enum wc_published *result, struct target *t, struct wc_trailer *trailer,
                   const void *artifact, struct wc_error *err)
{
    int rc = make_way(t, err); /* first, so that nothing is written for nothing */
    if (rc < 0)
        return rc;
    if (rc == SOUND && !(t->flags & WC_PUBLISH_REPLACE)) {
        *result = WC_PUBLISHED_KEPT;
        return 0;
    }
    rc = open_temp(t, err);
    if (rc == 0)
        rc = write_all(t, trailer, artifact, err);
    if (rc == 0)
        rc = take_name(result, t, err);
    if (rc == 0 && *result == WC_PUBLISHED_NEW && (t->store->flags & WASMCACHE_DURABLE)) {
        rc = wc_os_sync_dir(t->ns_fd);
        if (rc < 0)
            rc = system_failure(err, t, rc, "fsync");
    }
    if (t->temp[0])
        (void)wc_os_unlink(t->ns_fd, t->temp);
    wc_os_close(t->fd);
    return rc;
}

int wc_publish(enum wc_published *result, const struct wc_store *store, struct wc_trailer *trailer,
               const void *artifact, unsigned flags, struct wc_error *err)
{
    struct target t = {.store = store, .trailer = trailer, .flags = flags, .ns_fd = -1, .fd = -1};
    uint64_t limit = wc_os_file_size_limit();
    int rc;

    wc_entry_name(t.name, &trailer->key);
    wc_store_path(t.path, sizeof(t.path), store, trailer->engine_namespace, t.name);
    /* Not to be found out by SIGXFSZ, whose default ends the host. */
    if (trailer->artifact_bytes > limit || limit - trailer->artifact_bytes < 8 + WC_TRAILER_SIZE)
        return wc_fail(err, WASMCACHE_EFULL, EFBIG, NULL, t.path,
                       "Cannot save %s: this process may write files of at most %llu bytes "
                       "(RLIMIT_FSIZE)",
                       t.path, (unsigned long long)limit);
    rc = wc_store_open_namespace(store, trailer->engine_namespace, WC_GATE_CREATE, &t.ns_fd, err);
    if (rc == 0)
        rc = publish(result, &t, trailer, artifact, err);
    wc_os_close(t.ns_fd);
    return rc;
}
