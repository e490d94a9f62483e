/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "torture/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The same on ext4 and XFS. */
#define IOC_SHUTDOWN _IOR('X', 125, uint32_t)

extern char **environ;

int disk_has_program(const char *name)
{
    static const char *const places[] = {"/sbin", "/usr/sbin", "/bin", "/usr/bin"};
    char path[128];
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        snprintf(path, sizeof(path), "%s/%s", places[i], name);
        if (access(path, X_OK) == 0)
            return 1;
    }
    return 0;
}

static int run(char *const *arguments)
{
    posix_spawn_file_actions_t actions;
    pid_t child;
    int status = -1;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
    if (posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ) == 0)
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
    posix_spawn_file_actions_destroy(&actions);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

const char *disk_format(const struct disk *disk)
{
    static char why[100];
    char program[32], device[32];
    char *const ext4[] = {program, "-q",     "-F",   "-E", "lazy_itable_init=0,lazy_journal_init=0",
                          "-J",    "size=4", device, NULL};
    char *const others[] = {program, "-q", "-f", device, NULL};
    snprintf(program, sizeof(program), "mkfs.%s", disk->fs);
    snprintf(device, sizeof(device), "%s", disk->device);
    snprintf(why, sizeof(why), "%s is not installed or fails", program);
    return run(strcmp(disk->fs, "ext4") == 0 ? ext4 : others) == 0 ? NULL : why;
}

/* A device that is free, and whose node is there. */
static const char *attach(struct disk *disk)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), number;
    if (control < 0)
        return "there is no /dev/loop-control that may be opened";
    for (int attempt = 0; attempt < 20; attempt++) {
        struct loop_info64 info;
        number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            break;
        snprintf(disk->device, sizeof(disk->device), "/dev/loop%d", number);
        if (access(disk->device, F_OK) < 0)
            (void)mknod(disk->device, S_IFBLK | 0600, makedev(7, (unsigned)number));
        disk->loop = open(disk->device, O_RDWR | O_CLOEXEC);
        if (disk->loop < 0)
            break;
        if (ioctl(disk->loop, LOOP_SET_FD, disk->image) == 0) {
            memset(&info, 0, sizeof(info));
            info.lo_flags = LO_FLAGS_AUTOCLEAR;
            (void)ioctl(disk->loop, LOOP_SET_STATUS64, &info);
            close(control);
            return NULL;
        }
        close(disk->loop);
        disk->loop = -1;
        if (errno != EBUSY) /* else another took it meanwhile */
            break;
    }
    close(control);
    return "no loop device is to be had";
}

const char *disk_init(struct disk *disk, const char *fs, uint64_t size, int image)
{
    const char *why;
    memset(disk, 0, sizeof(*disk));
    disk->fs = fs;
    disk->loop = -1;
    disk->image = image >= 0 ? image : memfd_create("disk", MFD_CLOEXEC);
    if (geteuid() != 0)
        return "to mount needs root";
    if (disk->image < 0 || (image < 0 && ftruncate(disk->image, (off_t)size) < 0))
        return "there is no memory for a disk";
    why = attach(disk);
    if (!why && image < 0)
        why = disk_format(disk);
    if (why)
        return why;
    snprintf(disk->dir, sizeof(disk->dir), "/tmp/wasmcache-disk-XXXXXX");
    return mkdtemp(disk->dir) ? NULL : "no directory to mount on";
}

int disk_mount(struct disk *disk, const char *options)
{
    if (mount(disk->device, disk->dir, disk->fs, 0, options) < 0)
        return errno;
    disk->mounted = 1;
    return 0;
}

int disk_unmount(struct disk *disk)
{
    const struct timespec moment = {0, 2000000};
    if (!disk->mounted)
        return 0;
    /* Who was killed a moment ago may not be gone yet. */
    for (int attempt = 0; umount(disk->dir) < 0; attempt++) {
        if (errno != EBUSY || attempt > 1000)
            return errno;
        nanosleep(&moment, NULL);
    }
    disk->mounted = 0;
    return 0;
}

int disk_remount(struct disk *disk, const char *options)
{
    int rc = disk_unmount(disk);
    return rc ? rc : disk_mount(disk, options);
}

void disk_sync(const struct disk *disk)
{
    int fd = open(disk->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)syncfs(fd);
        close(fd);
    }
}

int disk_cut(const struct disk *disk, enum disk_cut how)
{
    uint32_t flag = (uint32_t)how;
    int rc, fd = open(disk->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    rc = ioctl(fd, IOC_SHUTDOWN, &flag) < 0 ? errno : 0;
    close(fd);
    return rc;
}

void disk_end(struct disk *disk)
{
    if (disk->mounted)
        (void)umount2(disk->dir, MNT_DETACH);
    if (disk->dir[0])
        (void)rmdir(disk->dir);
    if (disk->loop >= 0)
        close(disk->loop);
    if (disk->image >= 0)
        close(disk->image);
}
