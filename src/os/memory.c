/* SPDX-License-Identifier: Apache-2.0 */
/* Files as memory. */
#define _GNU_SOURCE
#include "os/private.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

/* Linux 5.14; older C libraries do not name it. */
#if defined(__linux__) && !defined(MADV_POPULATE_READ)
#define MADV_POPULATE_READ 22
#endif

int wc_os_map(int fd, size_t size, const void **out)
{
    void *bytes;
    ENTER("map");
    bytes = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED)
        return -errno;
    *out = bytes;
    return 0;
}

void *wc_os_wiped_memory(size_t size, int *wipes)
{
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *wipes = 0;
    if (bytes == MAP_FAILED)
        return NULL;
#ifdef MADV_WIPEONFORK
    *wipes = !LACKING(WC_OS_NO_WIPE) && madvise(bytes, size, MADV_WIPEONFORK) == 0;
#endif
    return bytes;
}

void wc_os_unmap(const void *bytes, size_t size)
{
    if (bytes)
        munmap((void *)(uintptr_t)bytes, size);
}

#ifdef MADV_POPULATE_READ
/* Emulators take advice that they do not know and do nothing; then a page that cannot be read would
 * be found out by SIGBUS. On memory that may not be read it has to fail. */
static int can_populate(void)
{
    static atomic_int known; /* 1: yes, -1: no */
    int can = atomic_load_explicit(&known, memory_order_relaxed);
    if (!can) {
        const size_t size = (size_t)sysconf(_SC_PAGESIZE);
        void *none = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (none == MAP_FAILED)
            return 0;
        can = madvise(none, size, MADV_POPULATE_READ) < 0 ? 1 : -1;
        munmap(none, size);
        atomic_store_explicit(&known, can, memory_order_relaxed);
    }
    return can > 0;
}
#endif

int wc_os_view(int fd, uint64_t offset, size_t size, const void **out)
{
    ENTER("view");
    if (LACKING(WC_OS_NO_VIEW))
        return -EOPNOTSUPP;
#ifdef MADV_POPULATE_READ
    void *bytes;
    int rc;
    if (!can_populate())
        return -EOPNOTSUPP;
    bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, (off_t)offset);
    if (bytes == MAP_FAILED)
        return -errno;
    do
        rc = madvise(bytes, size, MADV_POPULATE_READ);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        rc = -errno;
        munmap(bytes, size);
        return rc;
    }
    *out = bytes;
    return 0;
#else
    (void)fd;
    (void)offset;
    (void)size;
    (void)out;
    return -EOPNOTSUPP;
#endif
}

int wc_os_is_short(int fd, size_t size)
{
    const size_t room = size > SIZE_MAX / 3 ? size : 3 * size;
    int descriptor = wc_os_dup(fd);
    void *memory;
    if (descriptor < 0)
        return 1;
    wc_os_close(descriptor);
    memory = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    munmap(memory, room);
    return 0;
}
