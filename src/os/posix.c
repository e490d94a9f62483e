/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seam on Linux and other POSIX systems. What only Linux has (O_TMPFILE, O_PATH,
 * renameat2, /proc) fails as the header says where it is missing, and the callers' fall-backs do
 * the rest.
 */
#define _GNU_SOURCE
#include "os/private.h"

#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#if defined(SYS_openat2)
#include <linux/openat2.h>
#endif

#ifdef WASMCACHE_TESTING
unsigned wc_os_lacking;
int (*wc_os_hook)(const char *call);
int64_t wc_os_euid_forced = -1;
int64_t wc_os_wall_forced = -1;
int64_t wc_os_settles_forced = -1;
int64_t wc_os_monotonic_forced = -1;
#endif

/* For descriptors that are only looked at. */
#ifdef O_PATH
#define PLACE O_PATH
#else
#define PLACE (O_RDONLY | O_NONBLOCK | O_NOCTTY)
#endif

/* One write(2) of this size keeps the data in cache between hash and copy; larger gains nothing. */
#define IO_PIECE ((size_t)1 << 30)

/* ---- descriptors ---- */

int wc_os_open_dir(const char *path)
{
    ENTER("open_dir");
    return wc_os_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
}

int wc_os_open_dir_nofollow(const char *path)
{
    ENTER("open_dir");
    return wc_os_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

static int open_straight(const char *path, int flags)
{
    if (LACKING(WC_OS_NO_STRAIGHT))
        return -ENOSYS;
#ifdef SYS_openat2
    const struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC),
                                 .resolve = RESOLVE_NO_SYMLINKS};
    return wc_os_result((int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how)));
#else
    (void)path;
    (void)flags;
    return -ENOSYS;
#endif
}

int wc_os_open_dir_straight(const char *path)
{
    ENTER("open_dir");
    return open_straight(path, O_RDONLY | O_DIRECTORY);
}

int wc_os_open_dir_at(int at, const char *name)
{
    ENTER("open_dir_at");
    return wc_os_openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

int wc_os_open_parent(int fd)
{
    ENTER("open_parent");
    return wc_os_openat(fd, "..", PLACE | O_DIRECTORY, 0);
}

int wc_os_open_place(const char *path)
{
    ENTER("open_place");
    return wc_os_openat(AT_FDCWD, path, PLACE | O_DIRECTORY, 0);
}

int wc_os_read_link(int fd, char *out, size_t size)
{
    ssize_t n;
    ENTER("read_link");
    n = readlinkat(fd, "", out, size);
    if (n < 0)
        return -errno;
    if ((size_t)n >= size)
        return -ENAMETOOLONG;
    out[n] = '\0';
    return 0;
}

int wc_os_open_read(int at, const char *name)
{
    ENTER("open_read");
    return wc_os_openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
}

int wc_os_open_read_straight(const char *path)
{
    ENTER("open_read");
    return open_straight(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
}

int wc_os_open_update(int at, const char *name)
{
    ENTER("open_update");
    return wc_os_openat(at, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
}

int wc_os_open_read_path(const char *path)
{
    ENTER("open_read_path");
    return wc_os_openat(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
}

int wc_os_open_identity(int at, const char *name)
{
    ENTER("open_identity");
    return wc_os_openat(at, name, PLACE | O_NOFOLLOW, 0);
}

int wc_os_create(int at, const char *name)
{
    int fd, rc;
    ENTER("create");
    fd = wc_os_openat(at, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fd;
    rc = wc_os_result(fchmod(fd, 0600)); /* whatever the umask */
    if (rc == 0)
        return fd;
    unlinkat(at, name, 0);
    close(fd);
    return rc;
}

int wc_os_open_unnamed(int at)
{
    ENTER("open_unnamed");
    if (LACKING(WC_OS_NO_TMPFILE))
        return -EOPNOTSUPP;
#ifdef O_TMPFILE
    int fd = wc_os_openat(at, ".", O_RDWR | O_TMPFILE, 0600);
    /* Kernels and file systems without it see O_DIRECTORY and a writing open. */
    return fd == -EISDIR || fd == -ENOENT || fd == -EINVAL ? -EOPNOTSUPP : fd;
#else
    (void)at;
    return -EOPNOTSUPP;
#endif
}

int wc_os_close(int fd)
{
    if (fd < 0)
        return 0;
#ifdef WASMCACHE_TESTING
    int injected = wc_os_enter("close");
    if (injected) {
        close(fd);
        return injected;
    }
#endif
    /* Not retried: on Linux the descriptor is gone after EINTR too. */
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

int wc_os_dup(int fd)
{
    ENTER("dup");
    return wc_os_result(fcntl(fd, F_DUPFD_CLOEXEC, 0));
}

static void stat_from(const struct stat *st, struct wc_os_stat *out)
{
    out->dev = (uint64_t)st->st_dev;
    out->ino = (uint64_t)st->st_ino;
    out->nlink = (uint64_t)st->st_nlink;
    out->size = st->st_size < 0 ? 0 : (uint64_t)st->st_size;
    out->mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    out->ctime_ns = (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
    out->uid = (uint32_t)st->st_uid;
    out->mode = (uint32_t)(st->st_mode & 07777);
    out->type = S_ISREG(st->st_mode)   ? WC_OS_FILE
                : S_ISDIR(st->st_mode) ? WC_OS_DIR
                : S_ISLNK(st->st_mode) ? WC_OS_SYMLINK
                                       : WC_OS_OTHER;
}

int wc_os_fstat(int fd, struct wc_os_stat *out)
{
    struct stat st;
    ENTER("fstat");
    if (fstat(fd, &st) < 0)
        return -errno;
    stat_from(&st, out);
    return 0;
}

int wc_os_stat_at(int at, const char *name, struct wc_os_stat *out)
{
    struct stat st;
    ENTER("stat_at");
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -errno;
    stat_from(&st, out);
    return 0;
}

int wc_os_stat_parent(int fd, struct wc_os_stat *out)
{
    return wc_os_stat_at(fd, "..", out);
}

int wc_os_stat_path(const char *path, struct wc_os_stat *out)
{
    struct stat st;
    ENTER("stat_path");
    if (stat(path, &st) < 0)
        return -errno;
    stat_from(&st, out);
    return 0;
}

int wc_os_lstat(const char *path, struct wc_os_stat *out)
{
    return wc_os_stat_at(AT_FDCWD, path, out);
}

int64_t wc_os_pread(int fd, void *out, size_t size, uint64_t offset)
{
    size_t done = 0;
    ENTER("pread");
    while (done < size) {
        size_t want = size - done < IO_PIECE ? size - done : IO_PIECE;
        ssize_t n = pread(fd, (char *)out + done, want, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

int wc_os_write(int fd, const void *bytes, size_t size)
{
    size_t done = 0;
    ENTER("write");
    while (done < size) {
        size_t want = size - done < IO_PIECE ? size - done : IO_PIECE;
        ssize_t n = write(fd, (const char *)bytes + done, want);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        done += (size_t)n;
    }
    return 0;
}

int wc_os_pwrite(int fd, const void *bytes, size_t size, uint64_t offset)
{
    size_t done = 0;
    ENTER("pwrite");
    /* Also what overwrites bytes beyond the limit is answered by SIGXFSZ, which ends the host. */
    if (offset + size > wc_os_file_size_limit())
        return -EFBIG;
    while (done < size) {
        ssize_t n = pwrite(fd, (const char *)bytes + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        done += (size_t)n;
    }
    return 0;
}

int wc_os_chmod(int fd, uint32_t mode)
{
    ENTER("chmod");
    return wc_os_result(fchmod(fd, (mode_t)mode));
}

static int set_time(int at, const char *name, int64_t seconds)
{
    struct timespec times[2] = {{0}, {0}};
    times[0].tv_sec = times[1].tv_sec = (time_t)seconds;
    return wc_os_result(name ? utimensat(at, name, times, 0) : futimens(at, times));
}

int wc_os_set_time(int fd, int64_t seconds)
{
    ENTER("set_time");
    return set_time(fd, NULL, seconds);
}

int wc_os_set_time_of_parent(int fd, int64_t seconds)
{
    ENTER("set_time");
    return set_time(fd, "..", seconds);
}

static int sync_retry(int (*sync)(int), int fd)
{
    int rc;
    do
        rc = sync(fd);
    while (rc < 0 && errno == EINTR);
    return wc_os_result(rc);
}

int wc_os_sync_data(int fd)
{
    ENTER("sync_data");
    return sync_retry(fdatasync, fd);
}

int wc_os_sync_dir(int fd)
{
    int rc;
    ENTER("sync_dir");
    rc = sync_retry(fsync, fd);
    /* File systems that cannot sync a directory say EINVAL; there is nothing more to do there. */
    return rc == -EINVAL ? 0 : rc;
}

int wc_os_flush(int fd)
{
    int copy;
    ENTER("flush");
    copy = wc_os_dup(fd);
    return copy < 0 ? copy : wc_os_close(copy);
}

int wc_os_check_write(int fd)
{
    int rc;
    ENTER("access");
    rc = wc_os_result(faccessat(fd, ".", W_OK | X_OK, AT_EACCESS));
    /* EPERM is of a directory that nobody may change (chattr +i), or of a filter of system calls
     * that is older than faccessat2. The call before it asks for the real user, and is asked only
     * which of the two it is. */
    if (rc == -EPERM && syscall(SYS_faccessat, fd, ".", W_OK | X_OK) == 0)
        rc = 0;
    return rc;
}

/* As snprintf would, at a tenth of the cost. */
static void put_fd_path(char out[40], unsigned fd)
{
    char digits[12];
    size_t at = sizeof(digits) - 1;
    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + fd % 10);
    while (fd /= 10);
    stpcpy(stpcpy(out, "/proc/thread-self/fd/"), digits + at);
}

int wc_os_fd_path(int fd, const struct wc_os_stat *st, char out[40])
{
    struct wc_os_stat by_fd, now;
    struct stat by_path;
    ENTER("fd_path");
    if (LACKING(WC_OS_NO_PROC))
        return -ENOENT;
    /* Not /proc/self: that is the first thread, which may have ended, or have other descriptors
     * than this one. Whatever lies on /proc, it has to be the same file. */
    put_fd_path(out, (unsigned)fd);
    if (!st) {
        if (fstat(fd, &by_path) < 0)
            return -errno;
        stat_from(&by_path, &by_fd);
        st = &by_fd;
    }
    if (stat(out, &by_path) < 0)
        return -errno;
    stat_from(&by_path, &now);
    if (st->dev != now.dev || st->ino != now.ino)
        return -ENOENT;
    return st->size != now.size || st->mtime_ns != now.mtime_ns || st->ctime_ns != now.ctime_ns;
}

/* Is the file system of `fd` mounted with that flag? */
static int is_mounted_with(int fd, unsigned long flag)
{
    struct statvfs vfs;
    return fstatvfs(fd, &vfs) == 0 && (vfs.f_flag & flag) != 0;
}

int wc_os_free_bytes(const char *path, uint64_t *out)
{
    struct statvfs vfs;
    ENTER("free_bytes");
    if (statvfs(path, &vfs) < 0)
        return -errno;
    *out = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    return 0;
}

int wc_os_is_noexec(int fd)
{
#ifdef ST_NOEXEC
    return is_mounted_with(fd, ST_NOEXEC);
#else
    return is_mounted_with(fd, 0);
#endif
}

int wc_os_is_read_only(int fd)
{
    return is_mounted_with(fd, ST_RDONLY);
}

/* ---- process ---- */

uint32_t wc_os_euid(void)
{
#ifdef WASMCACHE_TESTING
    if (wc_os_euid_forced >= 0)
        return (uint32_t)wc_os_euid_forced;
#endif
    return (uint32_t)geteuid();
}

uint64_t wc_os_file_size_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return (uint64_t)limit.rlim_cur;
}

static struct timespec clock_now(clockid_t id)
{
    struct timespec now = {0, 0};
    clock_gettime(id, &now);
    return now;
}

uint64_t wc_os_monotonic_ns(void)
{
    struct timespec now;
#ifdef WASMCACHE_TESTING
    if (wc_os_monotonic_forced >= 0)
        return (uint64_t)wc_os_monotonic_forced;
#endif
    now = clock_now(CLOCK_MONOTONIC);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t wc_os_coarse_ns(void)
{
#ifdef CLOCK_MONOTONIC_COARSE
    struct timespec now;
#ifdef WASMCACHE_TESTING
    if (wc_os_monotonic_forced >= 0)
        return (uint64_t)wc_os_monotonic_forced;
#endif
    now = clock_now(CLOCK_MONOTONIC_COARSE);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#else
    return wc_os_monotonic_ns();
#endif
}

int64_t wc_os_wall_ns(void)
{
    struct timespec now;
#ifdef WASMCACHE_TESTING
    if (wc_os_wall_forced != -1)
        return wc_os_wall_forced;
#endif
    now = clock_now(CLOCK_REALTIME);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

uint64_t wc_os_wall_seconds(void)
{
    const int64_t now = wc_os_wall_ns();
    return now < 0 ? 0 : (uint64_t)now / 1000000000u;
}

int wc_os_random(void *out, size_t size)
{
    size_t done = 0;
    ENTER("random");
    while (done < size) {
        ssize_t n = getrandom((char *)out + done, size - done, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        done += (size_t)n;
    }
    return 0;
}
