/* SPDX-License-Identifier: Apache-2.0 */
/* Files as memory. */
#define _GNU_SOURCE
#include "os/private.h"

#include <sys/mman.h>

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

void wc_os_unmap(const void *bytes, size_t size)
{
    if (bytes)
        munmap((void *)(uintptr_t)bytes, size);
}

int wc_os_view(int fd, uint64_t offset, size_t size, const void **out)
{
    ENTER("view");
    if (LACKING(WC_OS_NO_VIEW))
        return -EOPNOTSUPP;
#ifdef MADV_POPULATE_READ
    void *bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, (off_t)offset);
    int rc;
    if (bytes == MAP_FAILED)
        return -errno;
    do
        rc = madvise(bytes, size, MADV_POPULATE_READ);
    while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        rc = errno == EINVAL ? -EOPNOTSUPP : -errno;
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
