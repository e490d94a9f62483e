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
#include <inttypes.h>
#include <string.h>

/* Hashed and written in turn in pieces that stay in the cache of the processor in between, and are
 * as large as the pages that the system can keep them in (on x86-64), so that a hit maps fewer. */
#define PIECE ((size_t)2 << 20)

struct target {
    const struct wc_store *store;
    const struct wc_trailer *trailer;
    unsigned flags;
    struct wc_folder folder;
    int fd;
    int replaced; /* holds the sound entry that ours took the place of; -1 */
    char name[WC_ENTRY_NAME_SIZE];
    char temp[WC_PRIVATE_NAME_SIZE]; /* "" while unnamed */
    char path[WC_PATH_SIZE];         /* of the entry, for messages */
};

static int system_failure(struct wc_error *err, const struct target *t, int os, const char *call)
{
    return wc_fail(err, wc_error_of_errno(os), os, call, t->path, "Cannot save %s", t->path);
}

/* ---- what is there already ---- */

enum verdict { ABSENT, SOUND, BAD };

/* Judges the entry under our name. Negative: it must stay, or cannot be judged. The caller closes
 * *file. */
static int judge(const struct target *t, struct wc_entry_file *file, struct wc_error *err)
{
    const struct wc_expect expect = {.kind = t->trailer->kind,
                                     .key = &t->trailer->key,
                                     .engine_namespace = t->trailer->engine_namespace,
                                     .fingerprint = t->trailer->fingerprint,
                                     .shared = (t->flags & WC_PUBLISH_LEAVE_FOREIGN) != 0};
    const int replace = t->flags & WC_PUBLISH_REPLACE;
    int rc = wc_store_open_entry(file, t->store, &t->folder, &expect, err);
    if (rc == 0 && !replace)
        rc = wc_entry_file_verify(file, err);
    switch (rc) {
    case 0:
        return SOUND;
    case WASMCACHE_EMISS:
        return ABSENT;
    case WASMCACHE_ENEWER:
        return rc;
    case WASMCACHE_EMISMATCH:
    case WASMCACHE_EUNTRUSTED: /* nothing says whose it is */
        return t->flags & WC_PUBLISH_LEAVE_FOREIGN ? rc : BAD;
    case WASMCACHE_ECORRUPT:
        return BAD;
    default:
        /* It cannot be read, which says nothing about it; but who was told to replace it may. */
        return replace ? SOUND : rc;
    }
}

static int remove_bad(const struct target *t, const struct wc_entry_file *file,
                      struct wc_error *err)
{
    int fd = file->fd, own = -1, rc;
    if (fd < 0)
        fd = own = wc_os_open_identity(t->folder.fd, t->name);
    if (fd == -ENOENT)
        return 0;
    if (fd < 0)
        return system_failure(err, t, fd, "open");
    rc = wc_store_remove(&t->folder, t->name, fd, err);
    wc_os_close(own);
    return rc == WASMCACHE_EMISS || rc == WASMCACHE_EBUSY ? 0 : rc;
}

/* That a sound entry is there is said to be durable too: it may be another's, who did not sync. */
static int sync_kept(const struct target *t, const struct wc_entry_file *file, struct wc_error *err)
{
    int rc = wc_os_sync_data(file->fd);
    if (rc == 0)
        rc = wc_os_sync_dir(t->folder.fd);
    return rc < 0 ? system_failure(err, t, rc, "fsync") : 0;
}

/*
 * Makes way for ours, or finds that a sound one is there: SOUND. ABSENT: the name is free now, as
 * far as it can be told.
 */
static int make_way(const struct target *t, struct wc_error *err)
{
    struct wc_entry_file file;
    int verdict = judge(t, &file, err);
    int rc = 0;
    if (verdict == BAD) {
        rc = remove_bad(t, &file, err);
        verdict = ABSENT;
    } else if (verdict == SOUND && t->store->flags & WASMCACHE_DURABLE &&
               !(t->flags & WC_PUBLISH_REPLACE)) {
        rc = sync_kept(t, &file, err);
    }
    wc_entry_file_close(&file);
    return rc < 0 ? rc : verdict;
}

/* ---- writing ---- */

static int open_named(struct target *t, struct wc_error *err)
{
    for (int attempt = 0; attempt < 8; attempt++) {
        struct wc_os_stat st;
        int rc = wc_private_name(t->temp, NULL);
        if (rc < 0)
            return system_failure(err, t, rc, "getrandom");
        t->fd = wc_os_create(t->folder.fd, t->temp);
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
        (void)wc_os_unlink(t->folder.fd, t->temp);
        wc_os_close(t->fd);
        t->fd = -1;
        t->temp[0] = '\0';
    }
    return wc_fail(err, WASMCACHE_EBUSY, 0, NULL, t->path, "Cannot save %s: no temporary file",
                   t->path);
}

static int open_unnamed(struct target *t, struct wc_error *err)
{
    t->fd = wc_os_open_unnamed(t->folder.fd);
    if (t->fd < 0 && t->fd != -EOPNOTSUPP)
        return system_failure(err, t, t->fd, "open");
    return 0;
}

/* Where there are named temps, they are also looked for: only a writer that dies leaves one. */
static int open_named_and_clean(struct target *t, struct wc_error *err)
{
    uint64_t removed = 0;
    struct wc_error ignored = *err;
    (void)wc_store_clean(&t->folder, &removed, &ignored);
    return open_named(t, err);
}

/* Artifact, padding, trailer; the digest is made on the way. */
static int write_all(struct target *t, struct wc_trailer *trailer, const uint8_t *artifact,
                     struct wc_error *err)
{
    uint8_t tail[8 + WC_TRAILER_SIZE];
    unsigned padding = wc_entry_padding(trailer->artifact_bytes);
    size_t left = (size_t)trailer->artifact_bytes;
    struct wc_digest_state *digest = wc_digest_start(WC_DIGEST_XXH3_128);
    int rc;

    if (!digest)
        return wc_fail(err, WASMCACHE_ENOMEM, 0, "malloc", t->path, "No memory to save %s",
                       t->path);
    rc = wc_os_reserve(t->fd, trailer->artifact_bytes + padding + WC_TRAILER_SIZE);
    if (rc < 0) {
        wc_digest_free(digest);
        return system_failure(err, t, rc, "fallocate");
    }
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
    rc = wc_gate_date(&t->store->gate, t->fd);
    if (rc < 0)
        return system_failure(err, t, rc, "futimens");
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
        return wc_os_link_unnamed(t->fd, t->folder.fd, to);
    rc = wc_os_link(t->folder.fd, t->temp, to);
    if (rc == 0) {
        (void)wc_os_unlink(t->folder.fd, t->temp);
        t->temp[0] = '\0';
        return 0;
    }
    if (rc == -EEXIST)
        return rc;
    /* A file system without hard links. */
    rc = wc_os_rename_noreplace(t->folder.fd, t->temp, to);
    if (rc == -EINVAL) {
        rc = wc_os_stat_at(t->folder.fd, to, &st);
        rc = rc == 0 ? -EEXIST : rc == -ENOENT ? wc_os_rename(t->folder.fd, t->temp, to) : rc;
    }
    if (rc == 0)
        t->temp[0] = '\0';
    return rc;
}

/* Puts ours over a sound entry, which is never absent meanwhile. Nor is it after a power cut: so
 * ours has to be on the disk first, and the old one is held until the folder is, since there are
 * file systems (ext4 with data=writeback) that give its blocks to others before. */
static int replace(struct target *t, struct wc_error *err)
{
    int rc = t->store->flags & WASMCACHE_DURABLE ? 0 : wc_os_sync_data(t->fd);
    if (rc < 0)
        return system_failure(err, t, rc, "fdatasync");
    if (!t->temp[0]) {
        char temp[WC_PRIVATE_NAME_SIZE];
        rc = wc_private_name(temp, NULL);
        if (rc < 0)
            return system_failure(err, t, rc, "getrandom");
        (void)wc_os_try_lock(t->fd);
        rc = wc_os_link_unnamed(t->fd, t->folder.fd, temp);
        if (rc < 0)
            return system_failure(err, t, rc, "link");
        memcpy(t->temp, temp, sizeof(temp));
    }
    wc_os_close(t->replaced);
    t->replaced = wc_os_open_identity(t->folder.fd, t->name);
    rc = wc_os_rename(t->folder.fd, t->temp, t->name);
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

static void drop_temp(struct target *t)
{
    if (t->temp[0])
        (void)wc_os_unlink(t->folder.fd, t->temp);
    t->temp[0] = '\0';
    wc_os_close(t->fd);
    t->fd = -1;
}

/* An unnamed file cannot get its name here: no /proc to link from, or a rule against it. */
static int cannot_link(int os)
{
    return os == EPERM || os == ENOENT || os == EXDEV || os == EOPNOTSUPP || os == EINVAL;
}

static int write_and_name(enum wc_published *result, struct target *t, struct wc_trailer *trailer,
                          const void *artifact, struct wc_error *err)
{
    char ignored[40];
    int rc = open_unnamed(t, err);
    if (rc < 0)
        return rc;
    if (t->fd >= 0 && wc_os_fd_path(t->fd, NULL, ignored) >= 0) {
        rc = write_all(t, trailer, artifact, err);
        if (rc == 0)
            rc = take_name(result, t, err);
        if (rc != WASMCACHE_EIO || !cannot_link(err->system_errno) ||
            strcmp(err->call, "link") != 0)
            return rc;
    }
    drop_temp(t);
    rc = open_named_and_clean(t, err);
    if (rc == 0)
        rc = write_all(t, trailer, artifact, err);
    if (rc == 0)
        rc = take_name(result, t, err);
    return rc;
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
    rc = write_and_name(result, t, trailer, artifact, err);
    drop_temp(t);
    wc_gate_date_folder(&t->store->gate, t->folder.fd);
    if (rc == 0 && *result == WC_PUBLISHED_NEW && (t->store->flags & WASMCACHE_DURABLE)) {
        rc = wc_os_sync_dir(t->folder.fd);
        if (rc < 0)
            rc = system_failure(err, t, rc, "fsync");
    } else if (t->replaced >= 0) {
        (void)wc_os_sync_dir(t->folder.fd);
    }
    wc_os_close(t->replaced);
    t->replaced = -1;
    return rc;
}

/* Was the folder removed under us? */
static int folder_is_gone(const struct target *t)
{
    struct wc_os_stat st;
    return wc_os_fstat(t->folder.fd, &st) == 0 && st.nlink == 0;
}

/* Not to be found out by SIGXFSZ, whose default ends the host. */
static int check_limit(const struct target *t, struct wc_error *err)
{
    const uint64_t limit = wc_os_file_size_limit(), size = t->trailer->artifact_bytes;
    if (size <= limit && limit - size >= 8 + WC_TRAILER_SIZE)
        return 0;
    return wc_fail(err, WASMCACHE_EFULL, EFBIG, NULL, t->path,
                   "Cannot save %s: this process may write files of at most %" PRIu64
                   " bytes (RLIMIT_FSIZE)",
                   t->path, limit);
}

/* *gone: it failed because the directory was removed meanwhile. */
static int publish_once(enum wc_published *result, char path[WC_PATH_SIZE],
                        const struct wc_store *store, struct wc_trailer *trailer,
                        const void *artifact, unsigned flags, int *gone, struct wc_error *err)
{
    struct target t = {
        .store = store, .trailer = trailer, .flags = flags, .fd = -1, .replaced = -1};
    int rc = wc_store_make_folder(&t.folder, store, trailer->engine_namespace, err);
    if (rc < 0)
        return rc;
    wc_entry_name(t.name, &trailer->key);
    wc_path_join(t.path, t.folder.path, t.name);
    rc = check_limit(&t, err);
    if (rc == 0)
        rc = publish(result, &t, trailer, artifact, err);
    memcpy(path, t.path, sizeof(t.path));
    *gone = rc == WASMCACHE_EIO && err->system_errno == ENOENT && folder_is_gone(&t);
    wc_folder_close(&t.folder);
    return rc;
}

int wc_publish(enum wc_published *result, char path[WC_PATH_SIZE], const struct wc_store *store,
               struct wc_trailer *trailer, const void *artifact, unsigned flags,
               struct wc_error *err)
{
    int gone = 0;
    int rc = publish_once(result, path, store, trailer, artifact, flags, &gone, err);
    if (gone) /* it is made anew, once */
        rc = publish_once(result, path, store, trailer, artifact, flags, &gone, err);
    return rc;
}

int wc_publish_ready(const struct wc_store *store, const char *engine_namespace,
                     struct wc_error *err)
{
    struct wc_folder folder;
    int rc = wc_store_make_folder(&folder, store, engine_namespace, err);
    if (rc == 0) {
        int os = wc_os_check_write(folder.fd);
        if (os < 0)
            rc = wc_fail(err, WASMCACHE_EIO, os, "access", folder.path, "Cannot write to %s",
                         folder.path);
    }
    wc_folder_close(&folder);
    return rc;
}
