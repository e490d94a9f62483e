/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_DISK_H
#define TORTURE_DISK_H

/*
 * A file system of one's own on a loop device, whose power can be cut.
 *
 *     const char *why = disk_init(&disk, "ext4", 64 << 20, -1);
 *     if (why) ... it cannot be had here
 *     disk_mount(&disk, "");                  // at disk.dir
 *     disk_cut(&disk, DISK_NO_FLUSH);         // what was not written is lost from now on
 *     disk_remount(&disk, "");                // the power is back: the journal is replayed
 *     disk_end(&disk);
 *
 * It lies in memory. Needs root and a mount namespace of the process (scratch_in_memory()).
 */

#include <stdint.h>

struct disk {
    char dir[64];
    char device[32];
    const char *fs;
    int image; /* the bytes of the device */
    int loop;
    int mounted;
};

enum disk_cut { DISK_FLUSH_LOG = 1, DISK_NO_FLUSH = 2 };

/* `image` -1: one is made and formatted; else it is taken as it is. NULL, or why it cannot be. */
const char *disk_init(struct disk *disk, const char *fs, uint64_t size, int image);
void disk_end(struct disk *disk);
/* Makes the file system on an image that was given. NULL, or why it cannot be. */
const char *disk_format(const struct disk *disk);

/* 0, or errno. */
int disk_mount(struct disk *disk, const char *options);
int disk_unmount(struct disk *disk);
int disk_remount(struct disk *disk, const char *options);
/* Everything is on the device. */
void disk_sync(const struct disk *disk);
int disk_cut(const struct disk *disk, enum disk_cut how);

/* 1 if the program is there to be run. */
int disk_has_program(const char *name);

#endif
