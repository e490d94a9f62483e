/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the seam that makes, moves, removes and lists names. */
#define _GNU_SOURCE
#include "os/private.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int wc_os_mkdir_at(int at, const char *name, uint32_t mode)
{
    struct stat st;
    mode_t want;
    int fd, rc;
    ENTER("mkdir_at");
    if (mkdirat(at, name, (mode_t)mode) < 0)
        return -errno;
    /* What the umask took away comes back; the set-group-id bit that a parent handed down stays.
     * Not through a link that somebody put in its place. */
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode) ||
        (st.st_mode & 0777) == (mode_t)mode || st.st_uid != geteuid())
        return 0;
    want = (mode_t)mode | (st.st_mode & 07000);
    if (fchmodat(at, name, want, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    fd = wc_os_open_dir_at(at, name); /* without /proc, or with an old libc */
    if (fd < 0)
        return fd;
    rc = wc_os_result(fchmod(fd, want));
    close(fd);
    return rc;
}

int wc_os_mkdir(const char *path, uint32_t mode)
{
    return wc_os_mkdir_at(AT_FDCWD, path, mode);
}

/* EPERM is what file systems without links say; so is a filter that does not know them. */
static int link_result(int rc)
{
    return rc < 0 && errno == ENOSYS ? -EPERM : wc_os_result(rc);
}

int wc_os_link_unnamed(int fd, int at, const char *name)
{
    char path[40];
    int rc;
    ENTER("link_unnamed");
    if (LACKING(WC_OS_NO_LINK))
        return -EPERM;
    rc = wc_os_fd_path(fd, NULL, path);
    return rc < 0 ? rc : link_result(linkat(AT_FDCWD, path, at, name, AT_SYMLINK_FOLLOW));
}

int wc_os_link(int at, const char *from, const char *to)
{
    ENTER("link");
    if (LACKING(WC_OS_NO_LINK))
        return -EPERM;
    return link_result(linkat(at, from, at, to, 0));
}

int wc_os_rename_noreplace(int at, const char *from, const char *to)
{
    ENTER("rename_noreplace");
    if (LACKING(WC_OS_NO_NOREPLACE))
        return -EINVAL;
#if defined(SYS_renameat2)
    /* The raw call: musl has no wrapper. 1 is RENAME_NOREPLACE. */
    int rc = (int)syscall(SYS_renameat2, at, from, at, to, 1u);
    return rc < 0 && errno == ENOSYS ? -EINVAL : wc_os_result(rc);
#else
    return -EINVAL;
#endif
}

int wc_os_rename(int at, const char *from, const char *to)
{
    ENTER("rename");
    return wc_os_result(renameat(at, from, at, to));
}

int wc_os_unlink(int at, const char *name)
{
    ENTER("unlink");
    return wc_os_result(unlinkat(at, name, 0));
}

struct wc_os_walk {
    DIR *dir;
};

struct wc_os_walk *wc_os_walk_open(int fd, int *error)
{
    struct wc_os_walk *walk;
    int own;
#ifdef WASMCACHE_TESTING
    if ((*error = wc_os_enter("walk_open")) != 0)
        return NULL;
#endif
    /* A fresh open file, so that two walks over one directory do not share an offset. */
    own = wc_os_openat(fd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (own < 0) {
        *error = own;
        return NULL;
    }
    walk = malloc(sizeof(*walk));
    if (walk)
        walk->dir = fdopendir(own);
    if (!walk || !walk->dir) {
        *error = walk ? -errno : -ENOMEM;
        free(walk);
        close(own);
        return NULL;
    }
    *error = 0;
    return walk;
}

const char *wc_os_walk_next(struct wc_os_walk *walk, int *error)
{
    struct dirent *entry;
#ifdef WASMCACHE_TESTING
    if ((*error = wc_os_enter("walk_next")) != 0)
        return NULL;
#endif
    do {
        errno = 0;
        entry = readdir(walk->dir);
    } while (entry && (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0));
    *error = entry ? 0 : -errno;
    return entry ? entry->d_name : NULL;
}

void wc_os_walk_close(struct wc_os_walk *walk)
{
    if (!walk)
        return;
    closedir(walk->dir);
    free(walk);
}

char *wc_os_absolute(const char *path)
{
    char *cwd, *out;
    size_t length;
    if (path[0] == '/')
        return strdup(path);
    cwd = getcwd(NULL, 0);
    if (!cwd) /* it was removed: then nothing below it can be used either, and that shows in time */
        return errno == ENOMEM ? NULL : strdup(path);
    length = strlen(cwd) + 1 + strlen(path) + 1;
    out = malloc(length);
    if (out)
        snprintf(out, length, "%s/%s", cwd[1] ? cwd : "", path);
    free(cwd);
    return out;
}
