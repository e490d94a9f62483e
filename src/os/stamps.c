/* SPDX-License-Identifier: Apache-2.0 */
/* What file systems can do, how far a file's times can be trusted, and since when the machine runs.
 */
#define _GNU_SOURCE
#include "os/private.h"

#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

#define SECOND INT64_C(1000000000)

/*
 * Local file systems by their magic number (statfs(2)). Linux takes the time of a change from a
 * clock that ticks 100 to 1,000 times a second, so two writes less than a tick apart may have the
 * same; 20 ms are two of the slowest ticks. 2 s is what the coarsest of the others store. Not in
 * the list: what a server or another process can change without the times that we see here.
 *
 * `reserves`: reserving room makes writing faster, and asks for no more than writing would. Not so
 * on btrfs and ZFS, which compress what is written but not what is reserved.
 */
struct file_system {
    uint32_t magic;
    int reserves;
    int64_t settles;
};

static const struct file_system known[] = {
    {0xEF53, 1, SECOND / 50},     /* ext2, ext3, ext4 */
    {0x58465342, 1, SECOND / 50}, /* XFS */
    {0x9123683E, 0, SECOND / 50}, /* btrfs */
    {0x01021994, 1, SECOND / 50}, /* tmpfs */
    {0x794C7630, 0, 2 * SECOND},  /* overlay */
    {0x2FC12FC1, 0, 2 * SECOND},  /* ZFS */
    {0xF2F52010, 0, 2 * SECOND},  /* F2FS */
    {0xCA451A4E, 0, 2 * SECOND},  /* bcachefs */
    {0x73717368, 0, 2 * SECOND},  /* squashfs */
    {0xE0F5E1E2, 0, 2 * SECOND},  /* EROFS */
    {0x858458F6, 0, 2 * SECOND},  /* ramfs */
    {0x3153464A, 0, 2 * SECOND},  /* JFS */
};

/* NULL: none of these. */
static const struct file_system *file_system_of(int fd)
{
#ifdef __linux__
    struct statfs fs;
    if (fstatfs(fd, &fs) < 0)
        return NULL;
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if ((uint32_t)fs.f_type == known[i].magic)
            return &known[i];
#else
    (void)fd;
#endif
    return NULL;
}

int64_t wc_os_settles_after_ns(int fd)
{
    const struct file_system *fs;
#ifdef WASMCACHE_TESTING
    if (wc_os_settles_forced >= 0)
        return wc_os_settles_forced;
    if (wc_os_enter("statfs"))
        return 0;
#endif
    fs = file_system_of(fd);
    return fs ? fs->settles : 0;
}

int wc_os_reserve(int fd, uint64_t size)
{
    const struct file_system *fs;
    ENTER("reserve");
    fs = LACKING(WC_OS_NO_RESERVE) ? NULL : file_system_of(fd);
    if (!fs || !fs->reserves)
        return 0;
#ifdef __linux__
    /* Not posix_fallocate: where the file system cannot, that writes zeros. Not again after a
     * signal: older tmpfs gave up at each one, and a timer could keep it busy. */
    if (fallocate(fd, 0, 0, (off_t)size) < 0 && (errno == ENOSPC || errno == EDQUOT))
        return -errno;
#else
    (void)size;
#endif
    return 0;
}

/* Two hex digits; -1: they are none. */
static int hex_byte(const char *text)
{
    static const char digits[] = "0123456789abcdef";
    const char *high = text[0] ? strchr(digits, text[0]) : NULL;
    const char *low = high && text[1] ? strchr(digits, text[1]) : NULL;
    return low ? (int)((high - digits) * 16 + (low - digits)) : -1;
}

int wc_os_boot_id(uint8_t out[16])
{
    char text[36];
    ssize_t n;
    int fd, at = 0;
    ENTER("boot_id");
    if (LACKING(WC_OS_NO_PROC))
        return -ENOENT;
    fd = wc_os_openat(AT_FDCWD, "/proc/sys/kernel/random/boot_id", O_RDONLY, 0);
    if (fd < 0)
        return fd;
    n = read(fd, text, sizeof(text));
    close(fd);
    if (n != (ssize_t)sizeof(text))
        return -ENOENT;
    for (int i = 0; i < 16; i++) {
        int byte;
        if (i == 4 || i == 6 || i == 8 || i == 10)
            at++; /* a dash */
        byte = hex_byte(text + at);
        if (byte < 0)
            return -ENOENT;
        out[i] = (uint8_t)byte;
        at += 2;
    }
    return 0;
}
