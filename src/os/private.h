/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_OS_PRIVATE_H
#define WC_OS_PRIVATE_H

/* What the files of the seam share. Include it after _GNU_SOURCE is defined. */

#include "os/os.h"

#include <errno.h>
#include <fcntl.h>

/* Where tests take away and make fail; nothing in what is released. */
#ifdef WASMCACHE_TESTING
static inline int wc_os_enter(const char *call)
{
    return wc_os_hook ? wc_os_hook(call) : 0;
}
#define ENTER(call)                                                                                \
    do {                                                                                           \
        int injected_ = wc_os_enter(call);                                                         \
        if (injected_)                                                                             \
            return injected_;                                                                      \
    } while (0)
#define LACKING(what) (wc_os_lacking & (what))
#else
#define ENTER(call) ((void)0)
#define LACKING(what) 0
#endif

/* A system call's result in the seam's terms. */
static inline int wc_os_result(int rc)
{
    return rc < 0 ? -errno : rc;
}

static inline int wc_os_openat(int at, const char *path, int flags, unsigned mode)
{
    int fd;
    do
        fd = openat(at, path, flags | O_CLOEXEC, (mode_t)mode);
    while (fd < 0 && errno == EINTR);
    return wc_os_result(fd);
}

#endif
