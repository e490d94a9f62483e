/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_TIMES_H
#define TORTURE_TIMES_H

/* Waits, and how long something took: in nanoseconds, of the clock that never goes back. */

#include <stdint.h>

uint64_t times_now(void);
void times_pause_us(long us);

/* Sorts, the shortest first; the one in the middle is the median. */
void times_sort(uint64_t *ns, unsigned count);

#endif
