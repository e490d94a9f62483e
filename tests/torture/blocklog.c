/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "torture/blocklog.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WRITES_MAX = 1 << 16 };
#define ARENA_SIZE ((uint64_t)1 << 30)

struct blocklog_shared {
    atomic_uint count;
    atomic_ullong used;
    atomic_int logging, full;
    struct blocklog_write writes[WRITES_MAX];
};

#ifdef TORTURE_FUSE
#define FUSE_USE_VERSION 31
#include <fuse.h>

static const char disk_name[] = "/disk";

static struct blocklog *served;

static void note(const void *bytes, uint64_t offset, uint64_t size)
{
    struct blocklog_shared *s = served->shared;
    unsigned nth;
    uint64_t at;
    if (!atomic_load(&s->logging))
        return;
    nth = atomic_fetch_add(&s->count, 1);
    at = atomic_fetch_add(&s->used, size);
    if (nth >= WRITES_MAX || at + size > ARENA_SIZE) {
        atomic_store(&s->full, 1);
        atomic_fetch_sub(&s->count, 1);
        return;
    }
    s->writes[nth] = (struct blocklog_write){offset, size, at};
    if (size)
        memcpy(served->arena + at, bytes, size);
}

static int on_getattr(const char *path, struct stat *st, struct fuse_file_info *file)
{
    (void)file;
    memset(st, 0, sizeof(*st));
    if (strcmp(path, "/") == 0) {
        st->st_mode = S_IFDIR | 0700;
        st->st_nlink = 2;
    } else if (strcmp(path, disk_name) == 0) {
        st->st_mode = S_IFREG | 0600;
        st->st_nlink = 1;
        st->st_size = (off_t)served->size;
    } else {
        return -ENOENT;
    }
    return 0;
}

static int on_open(const char *path, struct fuse_file_info *file)
{
    (void)file;
    return strcmp(path, disk_name) == 0 ? 0 : -ENOENT;
}

static int on_read(const char *path, char *out, size_t size, off_t offset,
                   struct fuse_file_info *file)
{
    (void)path;
    (void)file;
    if ((uint64_t)offset >= served->size)
        return 0;
    if (size > served->size - (uint64_t)offset)
        size = (size_t)(served->size - (uint64_t)offset);
    memcpy(out, served->image + offset, size);
    return (int)size;
}

static int on_write(const char *path, const char *bytes, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    (void)path;
    (void)file;
    if ((uint64_t)offset + size > served->size)
        return -ENOSPC;
    memcpy(served->image + offset, bytes, size);
    note(bytes, (uint64_t)offset, size);
    return (int)size;
}

static int on_fsync(const char *path, int data, struct fuse_file_info *file)
{
    (void)path;
    (void)data;
    (void)file;
    note(NULL, 0, 0);
    return 0;
}

static const struct fuse_operations operations = {
    .getattr = on_getattr,
    .open = on_open,
    .read = on_read,
    .write = on_write,
    .fsync = on_fsync,
};

static _Noreturn void serve(struct blocklog *log)
{
    char program[] = "blocklog", foreground[] = "-f", single[] = "-s";
    char *arguments[] = {program, foreground, single, log->dir, NULL};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    served = log;
    _exit(fuse_main(4, arguments, &operations, NULL));
}
#else
static _Noreturn void serve(struct blocklog *log)
{
    (void)log;
    _exit(1);
}
#endif

static void *shared_memory(uint64_t size)
{
    void *bytes = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return bytes == MAP_FAILED ? NULL : bytes;
}

const char *blocklog_init(struct blocklog *log, uint64_t size)
{
    const struct timespec moment = {0, 10000000};
    struct stat st;
    memset(log, 0, sizeof(*log));
    log->base = -1;
    log->size = size;
#ifndef TORTURE_FUSE
    return "libfuse3 was not there when this was built";
#endif
    if (access("/dev/fuse", R_OK | W_OK) < 0)
        return "there is no /dev/fuse that may be opened";
    log->shared = shared_memory(sizeof(*log->shared));
    log->image = shared_memory(size);
    log->arena = shared_memory(ARENA_SIZE);
    snprintf(log->dir, sizeof(log->dir), "/tmp/wasmcache-blocks-XXXXXX");
    if (!log->shared || !log->image || !log->arena || !mkdtemp(log->dir))
        return "there is no memory for a disk";
    snprintf(log->path, sizeof(log->path), "%s/disk", log->dir);
    fflush(NULL);
    log->server = fork();
    if (log->server == 0)
        serve(log);
    for (int i = 0; i < 500; i++) {
        if (stat(log->path, &st) == 0)
            return NULL;
        nanosleep(&moment, NULL);
    }
    return "its FUSE file system does not come up";
}

void blocklog_end(struct blocklog *log)
{
    if (log->dir[0])
        (void)umount2(log->dir, MNT_DETACH);
    if (log->server > 0) {
        kill(log->server, SIGKILL);
        waitpid(log->server, NULL, 0);
    }
    if (log->dir[0])
        (void)rmdir(log->dir);
    if (log->shared)
        munmap(log->shared, sizeof(*log->shared));
    if (log->image)
        munmap(log->image, (size_t)log->size);
    if (log->arena)
        munmap(log->arena, (size_t)ARENA_SIZE);
    if (log->base >= 0)
        close(log->base);
}

static int write_all(int fd, const unsigned char *bytes, uint64_t size, uint64_t offset)
{
    while (size) {
        ssize_t n = pwrite(fd, bytes, (size_t)size, (off_t)offset);
        if (n <= 0)
            return -1;
        bytes += n;
        offset += (uint64_t)n;
        size -= (uint64_t)n;
    }
    return 0;
}

void blocklog_start(struct blocklog *log)
{
    enum { PIECE = 4096 };
    static const unsigned char zeros[PIECE];
    log->base = memfd_create("base", MFD_CLOEXEC);
    if (log->base < 0 || ftruncate(log->base, (off_t)log->size) < 0)
        abort();
    for (uint64_t at = 0; at < log->size; at += PIECE)
        if (memcmp(log->image + at, zeros, PIECE) != 0 &&
            write_all(log->base, log->image + at, PIECE, at) < 0)
            abort();
    atomic_store(&log->shared->count, 0);
    atomic_store(&log->shared->used, 0);
    atomic_store(&log->shared->logging, 1);
}

unsigned blocklog_count(const struct blocklog *log)
{
    return atomic_load(&log->shared->count);
}

int blocklog_is_flush(const struct blocklog *log, unsigned nth)
{
    return log->shared->writes[nth].size == 0;
}

static void copy_base(const struct blocklog *log, int to)
{
    off_t from = 0, end;
    while ((from = lseek(log->base, from, SEEK_DATA)) >= 0) {
        end = lseek(log->base, from, SEEK_HOLE);
        if (end < 0)
            break;
        while (from < end) {
            unsigned char piece[65536];
            const size_t want =
                (uint64_t)(end - from) < sizeof(piece) ? (size_t)(end - from) : sizeof(piece);
            if (pread(log->base, piece, want, from) != (ssize_t)want ||
                write_all(to, piece, want, (uint64_t)from) < 0)
                abort();
            from += (off_t)want;
        }
    }
}

int blocklog_image(const struct blocklog *log, unsigned until, const unsigned char *keep,
                   unsigned count)
{
    int fd = memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)log->size) < 0)
        abort();
    copy_base(log, fd);
    for (unsigned i = 0; i < until + count; i++) {
        const struct blocklog_write *w = &log->shared->writes[i];
        if (w->size && (i < until || keep[(i - until) / 8] >> (i - until) % 8 & 1) &&
            write_all(fd, log->arena + w->at, w->size, w->offset) < 0)
            abort();
    }
    return fd;
}
