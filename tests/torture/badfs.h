/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_BADFS_H
#define TORTURE_BADFS_H

/*
 * A file system on FUSE that shows another directory, and fails where it is told to:
 *
 *     badfs_init(&fs, backing)               // NULL, or why it cannot be had
 *     fs.orders->fail_page = 3;              // reading page 3 of an entry fails
 *     fs.orders->error = EIO;
 *     ... in fs.dir
 *     badfs_end(&fs);
 */

#include <stdatomic.h>
#include <sys/types.h>

struct badfs_orders {
    atomic_int fail_page;   /* of files whose names end with ".bin"; -1: none */
    atomic_int error;       /* with this */
    atomic_int fail_syncs;  /* so many of the next fsyncs */
    atomic_int short_reads; /* reads give at most so many bytes; 0: all */
    atomic_int met;         /* counts */
};

struct badfs {
    char dir[64];
    pid_t server;
    struct badfs_orders *orders;
};

const char *badfs_init(struct badfs *fs, const char *backing);
void badfs_end(struct badfs *fs);

#endif
