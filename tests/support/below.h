/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_BELOW_H
#define TESTS_BELOW_H

/*
 * What lies below the seam: single functions of the C library, as src/os/ calls them, come to what
 * a test wants, which the system comes to rarely or never (EINTR, a write of nothing, a kernel
 * without a call). As with allocation.h, only the test build of the library calls them by these
 * names; below.c has the list.
 *
 *     below_fail("pread", EINTR, 1);            // the next call of pread
 *     assert_int_equal(wc_os_pread(...), ...);
 *     assert_int_equal(below_off(), 0);         // it was met
 *
 * Up to four uses at a time, one thread.
 */

#include <dlfcn.h>
#include <link.h>
#include <stddef.h>

/* The next `times` calls of the function fail with that errno; those of pthread_* return it. */
void below_fail(const char *call, int error, unsigned times);
/* The next `times` calls return `result` and do nothing. */
void below_give(const char *call, long result, unsigned times);
/* What was asked for last begins with the call after so many that are as ever. */
void below_after(unsigned calls);
/* The file `other` is opened where the library wants the one at `path`. */
void below_open(const char *path, const char *other);
/* These images are loaded, and no others. */
void below_images(struct dl_phdr_info *images, size_t count);
/* Ends all of it. Returns how many of the `times` are left. */
unsigned below_off(void);

#endif
