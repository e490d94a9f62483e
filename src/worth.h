/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WC_WORTH_H
#define WC_WORTH_H

/*
 * What an entry is worth to who needs its room: how much compile time it can be expected to save
 * for each byte that it takes. docs/operations.md says how well that does against other orders;
 * bench/evict.c measures it with these very functions.
 */

#include <stdint.h>

enum {
    WC_WORTH_USE = 65536,                  /* one use now */
    WC_WORTH_HALF_LIFE = 21 * 24 * 60 * 60 /* seconds after which a use counts half */
};

struct wc_worth {
    uint64_t bytes;
    uint64_t compile_ns; /* 0: not known */
    uint64_t uses;       /* hours in which it was used, faded, as they counted at the last one */
    uint64_t last;       /* when it was used last, seconds since 1970 */
};

/* Worths are told apart in steps of a sixteenth of a power of two. */
enum { WC_WORTH_STEPS = 2048 };

/* 0: the first to go, to WC_WORTH_STEPS - 1. */
unsigned wc_worth_step(const struct wc_worth *worth, uint64_t now);

/* wc_worth.uses after one more, now. `uses` 0: it is the first. */
uint64_t wc_worth_use(uint64_t uses, uint64_t last, uint64_t now);

#endif
