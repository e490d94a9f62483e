/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "torture/badfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef TORTURE_FUSE
#define FUSE_USE_VERSION 31
#include <fuse.h>

enum { PAGE = 4096 };

static int root; /* of what is shown */
static struct badfs_orders *orders;

static const char *below(const char *path)
{
    return path[1] ? path + 1 : ".";
}

static int result(int rc)
{
    return rc < 0 ? -errno : 0;
}

static int on_getattr(const char *path, struct stat *st, struct fuse_file_info *file)
{
    return result(file ? fstat((int)file->fh, st)
                       : fstatat(root, below(path), st, AT_SYMLINK_NOFOLLOW));
}

static int on_open(const char *path, struct fuse_file_info *file)
{
    int fd = openat(root, below(path), file->flags & ~O_CREAT, 0);
    if (fd < 0)
        return -errno;
    file->fh = (uint64_t)fd;
    return 0;
}

static int on_create(const char *path, mode_t mode, struct fuse_file_info *file)
{
    int fd = openat(root, below(path), file->flags, mode);
    if (fd < 0)
        return -errno;
    file->fh = (uint64_t)fd;
    return 0;
}

static int on_release(const char *path, struct fuse_file_info *file)
{
    (void)path;
    close((int)file->fh);
    return 0;
}

static int is_bad_page(const char *path, off_t offset, size_t size)
{
    const size_t length = strlen(path);
    const int page = atomic_load(&orders->fail_page);
    return page >= 0 && length > 4 && strcmp(path + length - 4, ".bin") == 0 &&
           offset < ((off_t)page + 1) * PAGE && offset + (off_t)size > (off_t)page * PAGE;
}

static int on_read(const char *path, char *out, size_t size, off_t offset,
                   struct fuse_file_info *file)
{
    const size_t at_most = (size_t)atomic_load(&orders->short_reads);
    ssize_t n;
    if (is_bad_page(path, offset, size)) {
        atomic_fetch_add(&orders->met, 1);
        return -atomic_load(&orders->error);
    }
    if (at_most && size > at_most) {
        atomic_fetch_add(&orders->met, 1);
        size = at_most;
    }
    n = pread((int)file->fh, out, size, offset);
    return n < 0 ? -errno : (int)n;
}

static int on_write(const char *path, const char *bytes, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    ssize_t n = pwrite((int)file->fh, bytes, size, offset);
    (void)path;
    return n < 0 ? -errno : (int)n;
}

static int on_fsync(const char *path, int data, struct fuse_file_info *file)
{
    (void)path;
    if (atomic_load(&orders->fail_syncs) > 0) {
        atomic_fetch_sub(&orders->fail_syncs, 1);
        atomic_fetch_add(&orders->met, 1);
        return -atomic_load(&orders->error);
    }
    return result(data ? fdatasync((int)file->fh) : fsync((int)file->fh));
}

static int on_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *file, enum fuse_readdir_flags flags)
{
    int fd = openat(root, below(path), O_RDONLY | O_DIRECTORY);
    DIR *walk = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    (void)offset;
    (void)file;
    (void)flags;
    if (!walk)
        return -errno;
    while ((entry = readdir(walk)) != NULL)
        (void)fill(buffer, entry->d_name, NULL, 0, 0);
    closedir(walk);
    return 0;
}

static int on_mkdir(const char *path, mode_t mode)
{
    return result(mkdirat(root, below(path), mode));
}

static int on_unlink(const char *path)
{
    return result(unlinkat(root, below(path), 0));
}

static int on_rmdir(const char *path)
{
    return result(unlinkat(root, below(path), AT_REMOVEDIR));
}

static int on_rename(const char *from, const char *to, unsigned flags)
{
    return result(renameat2(root, below(from), root, below(to), flags));
}

static int on_link(const char *from, const char *to)
{
    return result(linkat(root, below(from), root, below(to), 0));
}

static int on_chmod(const char *path, mode_t mode, struct fuse_file_info *file)
{
    return result(file ? fchmod((int)file->fh, mode) : fchmodat(root, below(path), mode, 0));
}

static int on_utimens(const char *path, const struct timespec times[2], struct fuse_file_info *file)
{
    return result(file ? futimens((int)file->fh, times)
                       : utimensat(root, below(path), times, AT_SYMLINK_NOFOLLOW));
}

static int on_truncate(const char *path, off_t size, struct fuse_file_info *file)
{
    int fd, rc;
    if (file)
        return result(ftruncate((int)file->fh, size));
    fd = openat(root, below(path), O_WRONLY);
    if (fd < 0)
        return -errno;
    rc = result(ftruncate(fd, size));
    close(fd);
    return rc;
}

static int on_statfs(const char *path, struct statvfs *st)
{
    (void)path;
    return result(fstatvfs(root, st));
}

static const struct fuse_operations operations = {
    .getattr = on_getattr,
    .open = on_open,
    .create = on_create,
    .release = on_release,
    .read = on_read,
    .write = on_write,
    .fsync = on_fsync,
    .readdir = on_readdir,
    .mkdir = on_mkdir,
    .unlink = on_unlink,
    .rmdir = on_rmdir,
    .rename = on_rename,
    .link = on_link,
    .chmod = on_chmod,
    .utimens = on_utimens,
    .truncate = on_truncate,
    .statfs = on_statfs,
};

static _Noreturn void serve(struct badfs *fs, const char *backing)
{
    char program[] = "badfs", foreground[] = "-f", single[] = "-s";
    char *arguments[] = {program, foreground, single, fs->dir, NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    umask(0);
    orders = fs->orders;
    root = open(backing, O_RDONLY | O_DIRECTORY);
    _exit(root < 0 ? 1 : fuse_main(4, arguments, &operations, NULL));
}
#else
static _Noreturn void serve(struct badfs *fs, const char *backing)
{
    (void)fs;
    (void)backing;
    _exit(1);
}
#endif

const char *badfs_init(struct badfs *fs, const char *backing)
{
    const struct timespec moment = {0, 10000000};
    struct stat before, now;
    memset(fs, 0, sizeof(*fs));
#ifndef TORTURE_FUSE
    return "libfuse3 was not there when this was built";
#endif
    if (access("/dev/fuse", R_OK | W_OK) < 0)
        return "there is no /dev/fuse that may be opened";
    fs->orders =
        mmap(NULL, sizeof(*fs->orders), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(fs->dir, sizeof(fs->dir), "/tmp/wasmcache-badfs-XXXXXX");
    if (fs->orders == MAP_FAILED || !mkdtemp(fs->dir) || stat(fs->dir, &before) < 0)
        return "there is no memory";
    atomic_store(&fs->orders->fail_page, -1);
    fflush(NULL);
    fs->server = fork();
    if (fs->server == 0)
        serve(fs, backing);
    for (int i = 0; i < 500; i++) {
        if (stat(fs->dir, &now) == 0 && now.st_dev != before.st_dev)
            return NULL;
        nanosleep(&moment, NULL);
    }
    return "its FUSE file system does not come up";
}

void badfs_end(struct badfs *fs)
{
    if (fs->dir[0])
        (void)umount2(fs->dir, MNT_DETACH);
    if (fs->server > 0) {
        kill(fs->server, SIGKILL);
        waitpid(fs->server, NULL, 0);
    }
    if (fs->dir[0])
        (void)rmdir(fs->dir);
    if (fs->orders)
        munmap(fs->orders, sizeof(*fs->orders));
}
