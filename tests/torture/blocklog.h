/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_BLOCKLOG_H
#define TORTURE_BLOCKLOG_H

/*
 * A disk that remembers in which order it was written to, and when it was told to flush: a file of
 * a FUSE file system that lies in memory, for a loop device.
 *
 *     blocklog_init(&log, size)           // NULL, or why it cannot be had
 *     int fd = open(log.path, O_RDWR);    // the disk
 *     ...
 *     blocklog_start(&log);               // from here on; what is there now is the base
 *     blocklog_image(&log, from, keep)    // what a power cut could have left
 *
 * A power cut leaves all that was written before the last flush and any of what came after it.
 */

#include <stdint.h>
#include <sys/types.h>

struct blocklog_write {
    uint64_t offset, size;
    uint64_t at; /* in the arena; size 0: a flush */
};

struct blocklog_shared;

struct blocklog {
    char dir[64], path[80];
    uint64_t size;
    pid_t server;
    struct blocklog_shared *shared;
    unsigned char *image, *arena;
    int base; /* a file: the disk when the log began */
};

const char *blocklog_init(struct blocklog *log, uint64_t size);
void blocklog_end(struct blocklog *log);
void blocklog_start(struct blocklog *log);

unsigned blocklog_count(const struct blocklog *log);
/* 1 if number `nth` is a flush. */
int blocklog_is_flush(const struct blocklog *log, unsigned nth);

/* A file with the base, all writes before number `until`, and those after that whose bit is in
 * `keep`: bit i for number until + i, of `count`. */
int blocklog_image(const struct blocklog *log, unsigned until, const unsigned char *keep,
                   unsigned count);

#endif
