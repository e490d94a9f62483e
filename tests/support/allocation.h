/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_ALLOCATION_H
#define TESTS_ALLOCATION_H

/*
 * Want of memory: makes allocations of the library fail, and only those of the library. In its test
 * build (wasmcache_internal) the names of the functions that allocate are replaced by the ones in
 * allocation.c; what tests, their engine and other libraries allocate is not counted. To those
 * functions belong some that allocate on the way: fopen, getline, fdopendir, getcwd, mmap of memory
 * without a file, and the states of libxxhash.
 *
 *     for (unsigned nth = 1;; nth++) {
 *         allocation_fail(nth, 0);
 *         ... the library ...
 *         allocation_off();
 *         if (!allocation_met())
 *             break;               // a run without a fault: that was the last one
 *     }
 *
 * Allocations are counted from 1, those of all threads together. One use at a time.
 */

/* Only counts. */
void allocation_record(void);
/* The nth allocation fails; sticky: and all after it. */
void allocation_fail(unsigned nth, int sticky);
/* None fails. What follows still tells of the last use. */
void allocation_off(void);

int allocation_met(void);        /* 1 if one failed */
unsigned allocation_calls(void); /* how many there were */

#endif
