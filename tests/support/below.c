/* SPDX-License-Identifier: Apache-2.0 */
/* Goes with wasmcache_internal, as allocation.c does. */
#define _GNU_SOURCE
#include "below.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    atomic_int on; /* other threads of a test look only at this */
    struct use {
        const char *call;
        long result;
        int error;
        unsigned after, left;
    } uses[4];
    unsigned use_count, last;
    const char *path, *other;
    struct dl_phdr_info *images;
    size_t image_count;
} now;

static void start(const char *call, long result, int error, unsigned times)
{
    const struct use use = {call, result, error, 0, times};
    unsigned at = 0;
    while (at < now.use_count && now.uses[at].left)
        at++;
    if (at == sizeof(now.uses) / sizeof(*now.uses))
        abort();
    now.uses[at] = use;
    now.last = at;
    if (at == now.use_count)
        now.use_count++;
    atomic_store(&now.on, 1);
}

void below_fail(const char *call, int error, unsigned times)
{
    start(call, strncmp(call, "pthread_", 8) == 0 ? error : -1, error, times);
}

void below_give(const char *call, long result, unsigned times)
{
    start(call, result, 0, times);
}

void below_after(unsigned calls)
{
    now.uses[now.last].after = calls;
}

void below_open(const char *path, const char *other)
{
    now.path = path;
    now.other = other;
    atomic_store(&now.on, 1);
}

void below_images(struct dl_phdr_info *images, size_t count)
{
    now.images = images;
    now.image_count = count;
    atomic_store(&now.on, 1);
}

unsigned below_off(void)
{
    unsigned left = 0;
    atomic_store(&now.on, 0);
    for (unsigned i = 0; i < now.use_count; i++)
        left += now.uses[i].left;
    now.use_count = 0;
    now.path = now.other = NULL;
    now.images = NULL;
    return left;
}

/* 1: the call comes to *result. */
static int meets(const char *call, long *result)
{
    for (unsigned i = 0; atomic_load(&now.on) && i < now.use_count; i++) {
        struct use *use = &now.uses[i];
        if (!use->left || strcmp(call, use->call) != 0)
            continue;
        if (use->after) {
            use->after--;
            return 0;
        }
        use->left--;
        *result = use->result;
        if (use->error)
            errno = use->error;
        return 1;
    }
    return 0;
}

static const char *path_of(const char *path)
{
    return atomic_load(&now.on) && now.path && strcmp(path, now.path) == 0 ? now.other : path;
}

/* BELOW(TYPE, NAME, PARAMETERS, ARGUMENTS): a function that does as it is told, or what the one of
 * that name does. */
#define BELOW(type, name, parameters, arguments)                                                   \
    type below_##name parameters;                                                                  \
    type below_##name parameters                                                                   \
    {                                                                                              \
        long result;                                                                               \
        return meets(#name, &result) ? (type)result : name arguments;                              \
    }

BELOW(int, close, (int fd), (fd))
BELOW(ssize_t, read, (int fd, void *out, size_t size), (fd, out, size))
BELOW(ssize_t, write, (int fd, const void *bytes, size_t size), (fd, bytes, size))
BELOW(ssize_t, pread, (int fd, void *out, size_t size, off_t at), (fd, out, size, at))
BELOW(ssize_t, pwrite, (int fd, const void *bytes, size_t size, off_t at), (fd, bytes, size, at))
BELOW(int, flock, (int fd, int operation), (fd, operation))
BELOW(int, fsync, (int fd), (fd))
BELOW(int, fdatasync, (int fd), (fd))
BELOW(int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
BELOW(int, fchmod, (int fd, mode_t mode), (fd, mode))
BELOW(int, fchmodat, (int at, const char *name, mode_t mode, int flags), (at, name, mode, flags))
BELOW(int, faccessat, (int at, const char *name, int mode, int flags), (at, name, mode, flags))
BELOW(int, linkat, (int at, const char *from, int to_at, const char *to, int flags),
      (at, from, to_at, to, flags))
BELOW(int, mkdirat, (int at, const char *name, mode_t mode), (at, name, mode))
BELOW(int, getrlimit, (unsigned what, struct rlimit *out), (what, out))
BELOW(uid_t, geteuid, (void), ())
BELOW(ssize_t, getrandom, (void *out, size_t size, unsigned flags), (out, size, flags))
BELOW(int, madvise, (void *at, size_t size, int advice), (at, size, advice))
BELOW(int, eventfd, (unsigned count, int flags), (count, flags))
BELOW(int, pipe2, (int ends[2], int flags), (ends, flags))
BELOW(int, sched_getaffinity, (pid_t pid, size_t size, cpu_set_t *out), (pid, size, out))
BELOW(long, sysconf, (int name), (name))
BELOW(ssize_t, readlink, (const char *path, char *out, size_t size), (path, out, size))
BELOW(int, ferror, (FILE * file), (file))
BELOW(int, pthread_attr_init, (pthread_attr_t * out), (out))
BELOW(int, pthread_attr_setstacksize, (pthread_attr_t * out, size_t size), (out, size))
BELOW(int, pthread_cond_init, (pthread_cond_t * out, const pthread_condattr_t *with), (out, with))
BELOW(int, pthread_condattr_init, (pthread_condattr_t * out), (out))
BELOW(int, pthread_condattr_setclock, (pthread_condattr_t * out, clockid_t clock), (out, clock))
BELOW(int, dlinfo, (void *library, int what, void *out), (library, what, out))

int below_pthread_create(pthread_t *out, const pthread_attr_t *with, void *(*body)(void *),
                         void *argument);
int below_pthread_create(pthread_t *out, const pthread_attr_t *with, void *(*body)(void *),
                         void *argument)
{
    long result;
    return meets("pthread_create", &result) ? (int)result
                                            : pthread_create(out, with, body, argument);
}

int below_fcntl(int fd, int command, ...);
int below_fcntl(int fd, int command, ...)
{
    long result;
    void *argument;
    va_list list;
    va_start(list, command);
    argument = va_arg(list, void *); /* as the C library takes it, whatever it is */
    va_end(list);
    return meets("fcntl", &result) ? (int)result : fcntl(fd, command, argument);
}

int below_openat(int at, const char *path, int flags, ...);
int below_openat(int at, const char *path, int flags, ...)
{
    long result;
    unsigned mode;
    va_list list;
    va_start(list, flags);
    mode = va_arg(list, unsigned);
    va_end(list);
    return meets("openat", &result) ? (int)result : openat(at, path_of(path), flags, (mode_t)mode);
}

long below_syscall(long number, ...);
long below_syscall(long number, ...)
{
    long result, a[5];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 5; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    return meets("syscall", &result) ? result : syscall(number, a[0], a[1], a[2], a[3], a[4]);
}

/* NULL, whatever the result: these have no other failure. */
int below_dladdr(const void *address, Dl_info *out);
int below_dladdr(const void *address, Dl_info *out)
{
    long result;
    return meets("dladdr", &result) ? 0 : dladdr(address, out);
}

void *below_dlopen(const char *name, int flags);
void *below_dlopen(const char *name, int flags)
{
    long result;
    return meets("dlopen", &result) ? NULL : dlopen(name, flags);
}

FILE *below_fopen(const char *path, const char *mode);
FILE *below_fopen(const char *path, const char *mode)
{
    long result;
    return meets("fopen", &result) ? NULL : fopen(path_of(path), mode);
}

void *below_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *below_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    long result;
    return meets("mmap", &result) ? MAP_FAILED : mmap(at, size, protection, flags, fd, offset);
}

int below_dl_iterate_phdr(int (*visit)(struct dl_phdr_info *info, size_t size, void *payload),
                          void *payload);
int below_dl_iterate_phdr(int (*visit)(struct dl_phdr_info *info, size_t size, void *payload),
                          void *payload)
{
    int rc = 0;
    if (!atomic_load(&now.on) || !now.images)
        return dl_iterate_phdr(visit, payload);
    for (size_t i = 0; rc == 0 && i < now.image_count; i++)
        rc = visit(&now.images[i], sizeof(now.images[i]), payload);
    return rc;
}
