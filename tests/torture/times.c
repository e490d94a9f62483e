/* SPDX-License-Identifier: Apache-2.0 */
#include "torture/times.h"

#include <stdlib.h>
#include <time.h>

uint64_t times_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

void times_pause_us(long us)
{
    const struct timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void times_sort(uint64_t *ns, unsigned count)
{
    qsort(ns, count, sizeof(*ns), by_size);
}
