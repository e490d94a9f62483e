/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removal by identity, and of what dead writers left.
 *
 * A name can get another file between the moment a bad entry was judged and the unlink: somebody
 * published a good one. So the name is first moved to a private one, which nobody else uses; then
 * there is time to look whether it is the file that was judged. If it is not, it gets its name
 * back. At each step the good entry has its public name or a private one that says where it
 * belongs, so that a process that dies here loses nothing either: wc_store_clean() puts it back.
 */
#include "store_dir.h"

#include <errno.h>

static int same_file(const struct wc_os_stat *a, const struct wc_os_stat *b)
{
    return a->dev == b->dev && a->ino == b->ino;
}

/* rename_noreplace, or what comes near it. `to` is private and random: nobody else makes it. */
static int move_to_private(int dir, const char *from, const char *to)
{
    int rc = wc_os_rename_noreplace(dir, from, to);
    return rc == -EINVAL ? wc_os_rename(dir, from, to) : rc;
}

/* Gives `from` the public name `to` unless that is taken; afterwards `from` is gone in any case but
 * an error. */
static int put_back(int dir, const char *from, const char *to)
{
    struct wc_os_stat st;
    int rc = wc_os_link(dir, from, to);
    if (rc == 0 || rc == -EEXIST)
        return wc_os_unlink(dir, from);
    /* No hard links here (FAT and the like). */
    rc = wc_os_rename_noreplace(dir, from, to);
    if (rc == -EEXIST)
        return wc_os_unlink(dir, from);
    if (rc != -EINVAL)
        return rc;
    rc = wc_os_stat_at(dir, to, &st);
    if (rc == -ENOENT)
        return wc_os_rename(dir, from, to);
    return rc < 0 ? rc : wc_os_unlink(dir, from);
}

int wc_store_remove(const struct wc_folder *folder, const char *name, int fd, struct wc_error *err)
{
    char private[WC_PRIVATE_NAME_SIZE], path[WC_PATH_SIZE];
    const int ns_fd = folder->fd;
    struct wc_os_stat want, got;
    int looked, rc;

    wc_path_join(path, folder->path, name);
    rc = wc_os_fstat(fd, &want);
    if (rc < 0)
        return wc_fail(err, WASMCACHE_EIO, rc, "fstat", path, "Cannot look at %s", path);
    if (want.type == WC_OS_DIR)
        return wc_fail(err, WASMCACHE_EUNTRUSTED, EISDIR, NULL, path,
                       "A directory lies in place of the entry %s; remove it", path);
    rc = wc_private_name(private, name);
    if (rc < 0)
        return wc_fail(err, WASMCACHE_EIO, rc, "getrandom", path, "Cannot remove %s", path);
    /* Held while the private name exists, so that no clean-up puts the bad file back. A file that
     * cannot be locked is removed all the same. */
    (void)wc_os_try_lock(fd);
    rc = move_to_private(ns_fd, name, private);
    if (rc == -ENOENT)
        return wc_fail(err, WASMCACHE_EMISS, ENOENT, "rename", path, "%s is gone already", path);
    if (rc < 0)
        return wc_fail(err, WASMCACHE_EIO, rc, "rename", path, "Cannot remove %s", path);

    looked = wc_os_stat_at(ns_fd, private, &got);
    if (looked == -ENOENT)
        return wc_fail(err, WASMCACHE_EMISS, 0, NULL, path, "%s is gone already", path);
    if (looked == 0 && same_file(&want, &got)) {
        rc = wc_os_unlink(ns_fd, private);
        if (rc < 0 && rc != -ENOENT) /* a clean-up may have been faster */
            return wc_fail(err, WASMCACHE_EIO, rc, "unlink", path, "Cannot remove %s", path);
        return 0;
    }
    rc = put_back(ns_fd, private, name);
    if (rc < 0 && rc != -ENOENT)
        return wc_fail(err, WASMCACHE_EIO, rc, "link", path,
                       "Cannot put back %s, which was replaced while it was removed; the next "
                       "clean-up will",
                       path);
    if (looked < 0)
        return wc_fail(err, WASMCACHE_EIO, looked, "fstatat", path, "Cannot look at %s", path);
    return wc_fail(err, WASMCACHE_EBUSY, 0, NULL, path, "%s was replaced meanwhile", path);
}

/* One left-over file. 1: removed; 0: its owner lives, or it is gone; negative: errno. */
static int clean_one(int ns_fd, const char *name, const char *of)
{
    struct wc_os_stat st;
    int rc, fd = wc_os_open_read(ns_fd, name);

    if (fd == -ENOENT)
        return 0;
    if (fd >= 0) {
        rc = wc_os_try_lock(fd);
        if (rc == 0)
            rc = wc_os_fstat(fd, &st);
        if (rc == 0 && st.type == WC_OS_DIR)
            rc = -EISDIR;
        if (rc == 0)
            rc = of[0] ? put_back(ns_fd, name, of) : wc_os_unlink(ns_fd, name);
        wc_os_close(fd);
    } else {
        /* What cannot be opened (a planted link or socket) is no writer's, for those hold it open.
         */
        rc = fd == -ELOOP || fd == -ENXIO ? wc_os_unlink(ns_fd, name) : fd;
    }
    if (rc == -EWOULDBLOCK || rc == -ENOENT)
        return 0;
    return rc < 0 ? rc : 1;
}

int wc_store_clean(const struct wc_folder *folder, uint64_t *removed, struct wc_error *err)
{
    char of[WC_ENTRY_NAME_SIZE];
    const char *name;
    int os, rc = 0;
    struct wc_os_walk *walk = wc_os_walk_open(folder->fd, &os);

    if (!walk)
        return wc_fail(err, wc_error_of_errno(os), os, "opendir", folder->path, "Cannot list %s",
                       folder->path);
    while ((name = wc_os_walk_next(walk, &os)) != NULL) {
        int cleaned;
        if (!wc_private_name_parse(of, name))
            continue;
        cleaned = clean_one(folder->fd, name, of);
        if (cleaned < 0)
            rc = wc_fail(err, WASMCACHE_EIO, cleaned, "unlink", folder->path, "Cannot remove %s/%s",
                         folder->path, name);
        else
            *removed += (uint64_t)cleaned;
    }
    if (os < 0)
        rc = wc_fail(err, WASMCACHE_EIO, os, "readdir", folder->path, "Cannot list %s",
                     folder->path);
    wc_os_walk_close(walk);
    return rc;
}
