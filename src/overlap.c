/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May a guest be given this directory? Not if it can reach the cache from there.
 *
 * A guest reaches what lies below its directory P, also across mount points. So there is an overlap
 *   1. if P is the cache C, lies below it or above it: seen by walking from each up to the root and
 *      comparing device and inode;
 *   2. if P was reached by a bind mount of something inside C (up from there is not C): so P is
 * also compared with the folders of C, which are only one level deep;
 *   3. if a mount point below P shows C, a directory above C, or one of C's folders;
 *   4. if C itself was reached by a mount of something that lies at, above or below P in its own
 * file system: so their places there are compared, too;
 *   5. if the path of C leads through P, as it does where ~/.cache is a link to another disk and
 * the guest is given the home directory: who can change the link chooses what the next process
 * takes for the cache. So each directory on the way is compared, and each link is followed by hand.
 *      This also sees a C that is not there yet and would be made below P.
 */
#include "cache.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
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
    int missing; /* 1: cache_fd is the nearest directory above a cache that is not there yet */
    struct id guest;
    uint64_t fs; /* the file system of the cache, and where the cache lies in it */
    char place[PATH_MAX];
};

/* Is one of the two paths the other, or above it? */
static int is_prefix(const char *a, const char *b)
{
    size_t length = strlen(a);
    return strncmp(a, b, length) == 0 && (!b[length] || b[length] == '/');
}

/* Does the directory `fd` lie at, above or below the cache in its own file system? */
static int is_near_in_fs(const struct question *q, int fd)
{
    char place[PATH_MAX];
    uint64_t fs;
    int rc = wc_os_place_in_fs(fd, &fs, place, sizeof(place));
    if (rc < 0)
        return rc;
    return fs == q->fs &&
           (is_prefix(place, q->place) || (!q->missing && is_prefix(q->place, place)));
}

/* Does the directory `fd` show the cache: is it, is it above it, or is it one of its folders? */
static int shows_cache(const struct question *q, int fd)
{
    struct id here;
    int rc = id_of(fd, &here);
    if (rc == 0)
        rc = is_at_or_above(q->cache_fd, &here);
    if (rc == 0 && !q->missing)
        rc = is_child(q->cache_fd, &here);
    if (rc == 0)
        rc = is_near_in_fs(q, fd);
    return rc;
}

/* One mount point: 1 if it shows the cache below the guest's directory. */
static int visit_mount(const char *path, void *payload)
{
    const struct question *q = payload;
    int fd = wc_os_open_place(path);
    struct id here;
    int rc = fd < 0 ? fd : id_of(fd, &here); /* where FUSE says what is wrong */
    if (rc == 0)
        rc = is_at_or_above(fd, &q->guest);
    if (rc == 1)
        rc = shows_cache(q, fd);
    wc_os_close(fd);
    switch (rc) {
    case -EACCES: /* another user's FUSE */
    case -EPERM:
    case -ENOENT:   /* a mount that another one hides */
    case -ENOTDIR:  /* a file */
    case -ENOTCONN: /* its server is gone, so nobody gets anywhere through it */
    case -ESTALE:
    case -EIO:
    case -ENODEV:
        return 0;
    default:
        return rc;
    }
}

/* 1 if the guest's directory shows the directory `cache_fd`, or is in it. */
static int overlaps(struct question *q, int cache_fd)
{
    struct id cache_id;
    int rc;
    q->cache_fd = cache_fd;
    rc = id_of(cache_fd, &cache_id);
    if (rc == 0)
        rc = wc_os_place_in_fs(cache_fd, &q->fs, q->place, sizeof(q->place));
    if (rc == 0 && !q->missing)
        rc = is_at_or_above(q->guest_fd, &cache_id);
    if (rc == 0)
        rc = shows_cache(q, q->guest_fd);
    if (rc == 0)
        rc = wc_os_each_mount_below(q->guest_fd, visit_mount, q);
    return rc;
}

/* What is left of a path that is walked by hand. */
struct way {
    char left[2 * PATH_MAX];
    int links;
};

/* Puts what the link `fd` says before what is left of the way. 1: it starts at the root. */
static int follow_link(struct way *way, int fd)
{
    char target[PATH_MAX];
    size_t length, left = strlen(way->left);
    int rc = ++way->links > 40 ? -ELOOP : wc_os_read_link(fd, target, sizeof(target));
    if (rc < 0)
        return rc;
    length = strlen(target);
    if (length + 1 + left >= sizeof(way->left))
        return -ENAMETOOLONG;
    memmove(way->left + length + 1, way->left, left + 1);
    memcpy(way->left, target, length);
    way->left[length] = '/';
    return target[0] == '/';
}

/* Takes the next name off the way and opens it in `at`, which is closed; links are followed.
 * Returns the descriptor; -ENODATA: there is no next name. */
static int next_place(struct way *way, int at)
{
    char name[NAME_MAX + 1];
    struct wc_os_stat st;
    const size_t start = strspn(way->left, "/");
    const size_t length = strcspn(way->left + start, "/");
    int rc, next;

    if (!length || length > NAME_MAX) {
        wc_os_close(at);
        return length ? -ENAMETOOLONG : -ENODATA;
    }
    memcpy(name, way->left + start, length);
    name[length] = '\0';
    memmove(way->left, way->left + start + length, strlen(way->left + start + length) + 1);
    next = wc_os_open_identity(at, name);
    rc = next < 0 ? next : wc_os_fstat(next, &st);
    if (rc == 0 && st.type != WC_OS_SYMLINK && st.type != WC_OS_DIR)
        rc = -ENOTDIR;
    if (rc < 0 || st.type != WC_OS_SYMLINK) {
        wc_os_close(at);
        if (rc < 0)
            wc_os_close(next);
        return rc < 0 ? rc : next;
    }
    rc = follow_link(way, next);
    wc_os_close(next);
    if (rc == 0)
        return at; /* a relative link: go on from where it lies */
    wc_os_close(at);
    return rc < 0 ? rc : wc_os_open_place("/");
}

/* Is the guest's directory, or one below it, on the way to the cache? 1, 0, negative errno. */
static int way_leads_through(const struct question *q, const char *path, int *nearest)
{
    struct way way;
    int at = wc_os_open_place("/");
    int rc = strlen(path) < sizeof(way.left) ? 0 : -ENAMETOOLONG;

    way.links = 0;
    if (rc == 0)
        memcpy(way.left, path, strlen(path) + 1);
    while (rc == 0 && at >= 0) {
        rc = is_at_or_above(at, &q->guest);
        if (rc == 0) {
            wc_os_close(*nearest);
            *nearest = wc_os_dup(at);
            rc = *nearest < 0 ? *nearest : 0;
        }
        if (rc == 0)
            at = next_place(&way, at);
    }
    if (at >= 0)
        wc_os_close(at);
    else if (rc == 0 && at != -ENODATA && at != -ENOENT && at != -ENOTDIR && at != -EACCES)
        rc = at;
    return rc;
}

/* The folder of our own in a directory that is not to be trusted: 1, 0, negative errno. */
static int overlaps_own_folder(struct question *q, int dir)
{
    char name[16];
    int fd, rc;
    snprintf(name, sizeof(name), "u%" PRIu32, wc_os_euid());
    fd = wc_os_open_dir_at(dir, name);
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EACCES)
        return 0; /* not there, and what else there is nobody goes through */
    if (fd < 0)
        return fd;
    rc = overlaps(q, fd);
    wc_os_close(fd);
    return rc;
}

int wasmcache_overlaps(wasmcache *cache, int dir_fd)
{
    struct question q = {-1, dir_fd, 0, {0, 0}, 0, ""};
    struct wc_error err;
    struct wc_os_stat st;
    int fd, rc, nearest = -1;

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
    rc = way_leads_through(&q, cache->store.dir, &nearest);
    fd = rc == 0 ? wc_os_open_dir(cache->store.dir) : -ENOENT;
    if (fd >= 0) {
        rc = overlaps(&q, fd);
        if (rc == 0)
            rc = overlaps_own_folder(&q, fd);
        wc_os_close(fd);
    } else if (rc == 0 && fd == -ENOENT) { /* it would be made below the nearest that is there */
        q.missing = 1;
        rc = overlaps(&q, nearest);
    } else if (rc == 0 && fd != -ENOTDIR) {
        rc = fd; /* missing, or a file: there is nothing to reach */
    }
    wc_os_close(nearest);
    if (rc < 0)
        rc = wc_error_publish(&err, wc_fail(&err, WASMCACHE_EIO, rc, NULL, cache->store.dir,
                                            "Cannot tell whether the directory shows the cache %s",
                                            cache->store.dir));
    return rc;
}
