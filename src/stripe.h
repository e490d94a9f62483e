/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_STRIPE_H
#define WC_STRIPE_H

/*
 * What threads write to all the time is there several times, each on a line of memory of its own,
 * and each thread keeps to one: so two processors do not take the same line from each other.
 *
 *     atomic_fetch_add(&counts[wc_stripe()].value, 1);
 *
 * Threads get theirs in turn when they first ask. Two that have the same one are slower, not wrong.
 */

enum { WC_STRIPES = 32, WC_LINE = 64 };

/* The calling thread's, below WC_STRIPES; the same each time. */
unsigned wc_stripe(void);

#endif
