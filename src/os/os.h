/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_OS_H
#define WC_OS_H

/*
 * The seam to the operating system: nothing else in src/ makes a system call.
 *
 * Unless a comment says otherwise a function returns 0 (or what it names) on success and a negative
 * errno on failure, leaves nothing half done, retries EINTR, and opens with close-on-exec.
 * `at` is a directory's descriptor, `name` one component in it; final symbolic links are not
 * followed.
 */

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum wc_os_type { WC_OS_OTHER = 0, WC_OS_FILE, WC_OS_DIR, WC_OS_SYMLINK };

struct wc_os_stat {
    uint64_t dev, ino, nlink;
    uint64_t size;
    int64_t mtime_ns, ctime_ns;
    uint32_t uid, mode; /* mode: the 07777 bits */
    enum wc_os_type type;
};

/* Seconds since 1970; 0 also for what is older. */
static inline uint64_t wc_os_modified_seconds(const struct wc_os_stat *st)
{
    return st->mtime_ns < 0 ? 0 : (uint64_t)st->mtime_ns / 1000000000u;
}

/* What tests take away, to force the fall-backs. Always 0 outside of test builds. */
enum {
    WC_OS_NO_TMPFILE = 1,   /* open_unnamed fails with -EOPNOTSUPP */
    WC_OS_NO_LINK = 2,      /* link and link_unnamed fail with -EPERM (FAT, some FUSE) */
    WC_OS_NO_NOREPLACE = 4, /* rename_noreplace fails with -EINVAL */
    WC_OS_NO_PROC = 8,      /* no /proc: fd_path fails with -ENOENT, nothing unnamed is linked, and
                               there is no boot id */
    WC_OS_NO_EVENTFD = 16,  /* a bell is a pipe */
    WC_OS_NO_STRAIGHT = 32, /* open_dir_straight and open_read_straight fail with -ENOSYS */
    WC_OS_NO_RESERVE = 64,  /* reserve does nothing */
    WC_OS_NO_VIEW = 128,    /* view fails with -EOPNOTSUPP */
    WC_OS_NO_BYTE_LOCKS = 256, /* try_lock_byte fails with -ENOLCK */
    WC_OS_NO_WIPE = 512,       /* wiped_memory is not wiped */
    WC_OS_NO_CPU = 1024        /* cpu tells nothing */
};

#ifdef WASMCACHE_TESTING
extern unsigned wc_os_lacking;
/*
 * Called before each call of the seam with its name below less the prefix. Non-zero: the call is
 * not made and fails with that negative errno. NULL: none. Not for several threads.
 */
extern int (*wc_os_hook)(const char *call);
/* What wc_os_euid() answers if it is not -1. */
extern int64_t wc_os_euid_forced;
/* The time since 1970 in nanoseconds if it is not -1; the age at which ctimes settle, the same. */
extern int64_t wc_os_wall_forced;
extern int64_t wc_os_settles_forced;
/* What the monotonic clock says if it is not -1. */
extern int64_t wc_os_monotonic_forced;
/* Called instead of a sleep or a wait for a condition (without its lock) with how long that is at
 * most. 0: wait all the same. NULL: none. */
extern int (*wc_os_wait_hook)(uint64_t ns);
#endif

/* ---- descriptors ---- */

/* Opens a directory by path; symbolic links in it are followed. */
int wc_os_open_dir(const char *path);
/* The same, but -ENOTDIR or -ELOOP if the path itself is a link. */
int wc_os_open_dir_nofollow(const char *path);
/* The same, but only if nothing on the way is a link. Any error, -ENOSYS among them, says no more
 * than that it was not opened this way. */
int wc_os_open_dir_straight(const char *path);
/* Opens directory `name` in `at`. -ENOTDIR or -ELOOP: it is something else. */
int wc_os_open_dir_at(int at, const char *name);
/* Opens the parent of the directory `fd`, and a directory by path, only to identify them and to go
 * on from there: search permission is enough. */
int wc_os_open_parent(int fd);
int wc_os_open_place(const char *path);
/* Reads what the symbolic link `fd` (opened for identity) says. -ENAMETOOLONG. */
int wc_os_read_link(int fd, char *out, size_t size);
/* Opens `name` for reading. Never blocks, whatever it is. -ELOOP: a symbolic link. */
int wc_os_open_read(int at, const char *name);
/* The same by path, as wc_os_open_dir_straight(). */
int wc_os_open_read_straight(const char *path);
/* Opens `name` for reading and writing, as above. */
int wc_os_open_update(int at, const char *name);
/* For reading by path, where symbolic links are followed. */
int wc_os_open_read_path(const char *path);
/* Opens whatever `name` is, only to identify it (fstat). */
int wc_os_open_identity(int at, const char *name);
/* Creates `name` for writing, mode 0600; -EEXIST if anything has that name. */
int wc_os_create(int at, const char *name);
/* Creates a file without a name in `at`, for writing. -EOPNOTSUPP: not on this file system. */
int wc_os_open_unnamed(int at);
/* Closes; an error is the write error of a file system that reports late. The descriptor is gone
 * in any case. A negative fd is ignored. */
int wc_os_close(int fd);
int wc_os_dup(int fd);

int wc_os_fstat(int fd, struct wc_os_stat *out);
int wc_os_stat_at(int at, const char *name, struct wc_os_stat *out);
/* Of the directory that the directory `fd` lies in. */
int wc_os_stat_parent(int fd, struct wc_os_stat *out);
/* By path; links are followed. */
int wc_os_stat_path(const char *path, struct wc_os_stat *out);
/* By path; a link is not followed. */
int wc_os_lstat(const char *path, struct wc_os_stat *out);
/* Reads until `size` bytes or the end of the file. Returns how many. */
int64_t wc_os_pread(int fd, void *out, size_t size, uint64_t offset);
/* Writes everything, or fails. A write of nothing is -EIO. */
int wc_os_write(int fd, const void *bytes, size_t size);
/* Writes all of it at that place, or fails; -EFBIG without trying if this process may not write
 * files of that size (wc_os_file_size_limit()). */
int wc_os_pwrite(int fd, const void *bytes, size_t size, uint64_t offset);
/* Sees to it that `size` bytes can be written to the new file. -ENOSPC, -EDQUOT: there is no room.
 * 0 also where that cannot be done: the writes will tell. */
int wc_os_reserve(int fd, uint64_t size);
int wc_os_chmod(int fd, uint32_t mode);
/* Sets when it was last used and written to, in seconds since 1970. */
int wc_os_set_time(int fd, int64_t seconds);
/* The same of the directory that the directory `fd` lies in. */
int wc_os_set_time_of_parent(int fd, int64_t seconds);
int wc_os_sync_data(int fd);
int wc_os_sync_dir(int fd);
/* Makes a late write error of the file system show (a close of a duplicate, as NFS reports then).
 */
int wc_os_flush(int fd);
/* May this process create files in the directory `fd`? 0; -EACCES, -EROFS, ...: why not. */
int wc_os_check_write(int fd);
/* Takes the lock that lives as long as this open file; -EWOULDBLOCK: another has it. */
int wc_os_try_lock(int fd);
/*
 * Takes the lock of one byte, which may lie beyond the end, for as long as this open file
 * description lives or until it is given back; `fd` is open for writing. -EWOULDBLOCK: another
 * description has it. -ENOLCK and others: there are no such locks here.
 */
int wc_os_try_lock_byte(int fd, uint64_t offset);
/* Gives it back, whoever else has a descriptor of the same description. */
void wc_os_unlock_byte(int fd, uint64_t offset);
/* Writes on the open file description of `fd` that this process made it. */
int wc_os_mark(int fd);
/* 1: another process made and marked it, and this one has it by a fork. */
int wc_os_is_inherited(int fd);
/*
 * The path under which this thread can open the same file again. -ENOENT: there is none (no /proc,
 * or something else in its place). `st`: what fstat said of fd before, NULL: it is asked now. 1:
 * the path is right, and size or times of the file are not those of `st` any more.
 */
int wc_os_fd_path(int fd, const struct wc_os_stat *st, char out[40]);
/*
 * How far back a file's ctime must lie, on the file system of `fd`, so that a write from now on
 * cannot leave it as it is. 0: that cannot be said there (a network, FUSE, one that is not known).
 */
int64_t wc_os_settles_after_ns(int fd);
/* How much a user without privileges may still write to the file system of a directory. */
int wc_os_free_bytes(const char *path, uint64_t *out);
/* 1 if programs may not be mapped from the file system of `fd`, 0 if they may or it is unknown. */
int wc_os_is_noexec(int fd);
/* 1 if the file system of `fd` is mounted read-only, 0 if not or it is unknown. */
int wc_os_is_read_only(int fd);
/* Maps the first `size` (> 0) bytes for reading. */
int wc_os_map(int fd, size_t size, const void **out);
/* Maps `size` bytes (> 0) at `offset`, a multiple of 64 KiB, for one look from front to back: each
 * page is there when this returns, so that one that cannot be read, or is beyond the end of the
 * file now, fails here. -EOPNOTSUPP: not on this system; read instead. */
int wc_os_view(int fd, uint64_t offset, size_t size, const void **out);
/* Memory that is all zero; if it can be had (*wipes: 1), in the child of a fork again. NULL: none.
 */
void *wc_os_wiped_memory(size_t size, int *wipes);
/* Undoes any of these. */
void wc_os_unmap(const void *bytes, size_t size);
/* 1 if this process can have no descriptor more, or not three times `size` of memory: what a loader
 * that was handed so much may have missed. Asks by trying, `fd` for the descriptor. */
int wc_os_is_short(int fd, size_t size);

/* ---- names ---- */

/* Makes a directory of exactly that mode, whatever the umask. */
int wc_os_mkdir(const char *path, uint32_t mode);
int wc_os_mkdir_at(int at, const char *name, uint32_t mode);
/* Gives an unnamed file its name; -EEXIST if anything has it. */
int wc_os_link_unnamed(int fd, int at, const char *name);
/* A second name for a file; -EEXIST if anything has it. */
int wc_os_link(int at, const char *from, const char *to);
/* Renames within `at`; -EEXIST if anything has the new name. -EINVAL: not on this file system. */
int wc_os_rename_noreplace(int at, const char *from, const char *to);
int wc_os_rename(int at, const char *from, const char *to);
int wc_os_unlink(int at, const char *name);

/* Walks a directory; `fd` stays the caller's and keeps its own offset. NULL and *error on failure.
 */
struct wc_os_walk;
struct wc_os_walk *wc_os_walk_open(int fd, int *error);
/* The next name, without "." and ".."; NULL at the end (*error 0) or on failure. Valid until the
 * next call. */
const char *wc_os_walk_next(struct wc_os_walk *walk, int *error);
void wc_os_walk_close(struct wc_os_walk *walk);

/* Calls `visit` with the path of each mount point at or below the directory `fd` until it returns
 * non-zero, which is returned. */
int wc_os_each_mount_below(int fd, int (*visit)(const char *path, void *payload), void *payload);

/*
 * Where in its file system the directory `fd` lies, whatever mount it was reached by: *fs tells
 * file systems apart, `out` gets the path from the file system's root.
 */
int wc_os_place_in_fs(int fd, uint64_t *fs, char *out, size_t size);

/* A malloc-ed absolute form of `path`, not resolved; without a working directory the path itself.
 * NULL: no memory. */
char *wc_os_absolute(const char *path);

/* ---- process ---- */

/*
 * The GNU build id of the loaded image (program or library) that defines the function `symbol`,
 * which was seen at `address`; at most `size` bytes of it. *own: that image is the one that `here`
 * lies in. Returns the length, 0 if there is none.
 */
int wc_os_build_id(const char *symbol, const void *address, const void *here, uint8_t *out,
                   size_t size, int *own);

/*
 * Keeps the image (program or library) that `here` lies in loaded until the process ends, whatever
 * dlclose() says. -ENOMEM: it could not be had.
 */
int wc_os_stay_loaded(const void *here);

int64_t wc_os_pid(void);
/* What this processor can do, as far as it makes a difference to compilers: at most 64 bytes, the
 * same for all processors of the machine. Returns how many; 0: it cannot be told here. */
int wc_os_cpu(uint8_t out[64]);

uint32_t wc_os_euid(void);
/* The largest file this process may write without being sent SIGXFSZ. */
uint64_t wc_os_file_size_limit(void);
uint64_t wc_os_monotonic_ns(void);
/* The same clock as of its last tick, some milliseconds ago: a few nanoseconds to ask. */
uint64_t wc_os_coarse_ns(void);
/* Since 1970. Tests can force what they say. */
uint64_t wc_os_wall_seconds(void);
int64_t wc_os_wall_ns(void);
/* What is another one each time the machine starts. -ENOENT: there is none (no /proc). */
int wc_os_boot_id(uint8_t out[16]);
/* Unpredictable bytes. */
int wc_os_random(void *out, size_t size);

/* ---- threads ---- */

/* Starts a thread that blocks all signals, with a stack of at least `stack` bytes (0: the system's
 * default). -EAGAIN: no more threads, -ENOMEM. */
int wc_os_thread_start(pthread_t *out, size_t stack, void *(*body)(void *), void *argument);
/* Names the calling thread, for debuggers; at most 15 bytes. */
void wc_os_name_thread(const char *name);
/* How many CPUs this process may use, at least 1. */
unsigned wc_os_cpus(void);

/* Returns after that time, or earlier: after a signal handler of the host's ran. */
void wc_os_sleep(uint64_t ns);
/* A condition whose waits are by the monotonic clock. -ENOMEM. */
int wc_os_cond_init(pthread_cond_t *cond);
/* Until it is signalled or that time is over; or earlier. */
void wc_os_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t ns);

/* A descriptor to poll: readable from a ring to the next hush. It never blocks. */
struct wc_os_bell {
    int fd;      /* to poll, never to read */
    int ring_fd; /* the same, or the other end of a pipe; -1 */
};
#define WC_OS_BELL_INIT                                                                            \
    {                                                                                              \
        -1, -1                                                                                     \
    }
int wc_os_bell_open(struct wc_os_bell *bell);
void wc_os_bell_ring(const struct wc_os_bell *bell);
void wc_os_bell_hush(const struct wc_os_bell *bell);
void wc_os_bell_close(struct wc_os_bell *bell);

#endif
