/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May a guest be given this directory? Not if it can reach the cache from there.
 *
 * A guest reaches what lies below its directory P, also across mount points. So there is an overlap
 *   1. if P is the cache C, lies below it or above it: seen by walking from each up to the root and
 *      comparing device and inode;
 *   2. if P was reached by a bind mount of something inside C (up from there is not C): so P is
 * also compared with the folders of C, which are only one level deep;
 *   3. if a mount point below P shows C, a directory above C, or one of C's folders.
 */
#include "cache.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEEPEST 4096 /* directories between one and the root: more is a loop */

struct id {
    uint64_t dev, ino;
};

static int id_of(int fd, struct id *out)
{
    struct wc_os_stat st;
    int rc = wc_os_fstat(fd, &st);
    if (rc == 0) {
        out->dev = st.dev;
        out->ino = st.ino;
    }
    return rc;
}

static int same(const struct id *a, const struct id *b)
{
    return a->dev == b->dev && a->ino == b->ino;
}

/* Is `wanted` the directory `fd` or above it? 1, 0, negative errno. */
static int is_at_or_above(int fd, const struct id *wanted)
{
    int current = wc_os_dup(fd);
    int rc = current < 0 ? current : 0;
    struct id here = {0, 0}, below = {0, 0};

    for (int depth = 0; rc == 0; depth++) {
        int parent;
        rc = id_of(current, &here);
        if (rc < 0)
            break;
        if (same(&here, wanted)) {
            rc = 1;
            break;
        }
        if (depth > 0 && same(&here, &below))
            break; /* the root is its own parent */
        if (depth > DEEPEST) {
            rc = -ELOOP;
            break;
        }
        below = here;
        parent = wc_os_open_parent(current);
        wc_os_close(current);
        current = parent;
        rc = current < 0 ? current : 0;
    }
    wc_os_close(current);
    return rc;
}

/* Is `wanted` one of the folders right below `fd`? 1, 0, negative errno. */
static int is_child(int fd, const struct id *wanted)
{
    const char *name;
    int os, found = 0;
    struct wc_os_walk *walk = wc_os_walk_open(fd, &os);
    if (!walk)
        return os;
    while (!found && (name = wc_os_walk_next(walk, &os)) != NULL) {
        struct wc_os_stat st;
        int rc = wc_os_stat_at(fd, name, &st);
        if (rc == 0 && st.type == WC_OS_DIR && st.dev == wanted->dev && st.ino == wanted->ino)
            found = 1;
    }
    wc_os_walk_close(walk);
    return found ? 1 : os;
}

struct question {
    int cache_fd, guest_fd;
    struct id guest;
};

/* Does the directory `fd` show the cache: is it, is it above it, or is it one of its folders? */
static int shows_cache(const struct question *q, int fd)
{
    struct id here;
    int rc = id_of(fd, &here);
    if (rc == 0)
        rc = is_at_or_above(q->cache_fd, &here);
    if (rc == 0)
        rc = is_child(q->cache_fd, &here);
    return rc;
}

/* One mount point: 1 if it shows the cache below the guest's directory. */
static int visit_mount(const char *path, void *payload)
{
    const struct question *q = payload;
    int fd = wc_os_open_dir(path);
    int rc;
    if (fd < 0) /* a file, a mount that is hidden by another, or one that we may not enter */
        return fd == -EACCES || fd == -ENOTDIR || fd == -ENOENT || fd == -EPERM ? 0 : fd;
    rc = is_at_or_above(fd, &q->guest);
    if (rc == 1)
        rc = shows_cache(q, fd);
    wc_os_close(fd);
    return rc;
}

/* 1 if the guest's directory shows the directory `cache_fd`, or is in it. */
static int overlaps(struct question *q, int cache_fd)
{
    struct id cache_id;
    int rc;
    q->cache_fd = cache_fd;
    rc = id_of(cache_fd, &cache_id);
    if (rc == 0)
        rc = is_at_or_above(q->guest_fd, &cache_id);
    if (rc == 0)
        rc = shows_cache(q, q->guest_fd);
    if (rc == 0)
        rc = wc_os_each_mount(visit_mount, q);
    return rc;
}

/*
 * Opens the cache directory, trusted or not: it may be trusted tomorrow. *missing: it is not there,
 * and this is the nearest directory above it that is.
 */
static int open_nearest(const char *path, int *missing)
{
    char *copy = strdup(path);
    int fd = copy ? wc_os_open_dir(copy) : -ENOMEM;
    *missing = 0;
    while (fd == -ENOENT) {
        char *slash = strrchr(copy, '/');
        *missing = 1;
        if (!slash)
            break;
        slash[slash == copy] = '\0'; /* the root keeps its slash */
        fd = wc_os_open_dir(copy);
        if (slash == copy)
            break;
    }
    free(copy);
    return fd;
}

/* The folder of our own in a directory that is not to be trusted: 1, 0, negative errno. */
static int overlaps_own_folder(struct question *q, int dir)
{
    char name[16];
    int fd, rc;
    snprintf(name, sizeof(name), "u%" PRIu32, wc_os_euid());
    fd = wc_os_open_dir_at(dir, name);
    if (fd < 0)
        return 0; /* not there, and what else there is nobody goes through */
    rc = overlaps(q, fd);
    wc_os_close(fd);
    return rc;
}

int wasmcache_overlaps(wasmcache *cache, int dir_fd)
{
    struct question q = {-1, dir_fd, {0, 0}};
    struct wc_error err;
    struct wc_os_stat st;
    int fd, missing, rc;

    wc_error_init(&err);
    rc = dir_fd < 0 ? -EBADF : wc_os_fstat(dir_fd, &st);
    if (rc < 0 || st.type != WC_OS_DIR)
        return wc_error_publish(&err,
                                wc_fail(&err, WASMCACHE_EMISUSE, rc, "fstat", NULL,
                                        "wasmcache_overlaps: %d is no open directory", dir_fd));
    if (!wc_cache_usable(cache))
        return 0;
    q.guest.dev = st.dev;
    q.guest.ino = st.ino;
    fd = open_nearest(cache->store.dir, &missing);
    rc = fd;
    if (fd >= 0 && missing) {
        /* A guest that can make it can fill it. One beside it cannot. */
        rc = is_at_or_above(fd, &q.guest);
    } else if (fd >= 0) {
        rc = overlaps(&q, fd);
        if (rc == 0)
            rc = overlaps_own_folder(&q, fd);
    }
    wc_os_close(fd);
    if (rc < 0)
        rc = wc_error_publish(&err, wc_fail(&err, WASMCACHE_EIO, rc, NULL, cache->store.dir,
                                            "Cannot tell whether the directory shows the cache %s",
                                            cache->store.dir));
    return rc;
}
