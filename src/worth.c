/* SPDX-License-Identifier: Apache-2.0 */
#include "worth.h"

#define HOUR 3600

/* Of what is not known: a second, as a small module takes. */
#define COMPILE_NS UINT64_C(1000000000)

/* 16 log2(value), 0 for 0; exact at powers of two and straight in between. */
static int log2_16(uint64_t value)
{
    int log = 0;
    if (!value)
        return 0;
    for (uint64_t v = value; v >>= 1;)
        log++;
    /* The four bits behind the first. */
    return 16 * log + (int)((log >= 4 ? value >> (log - 4) : value << (4 - log)) & 15);
}

/*
 * Cost times uses, over size and over the hours since it came: what it saved in an hour for each
 * byte, as hyperbolic caching has it (Blankstein, Sen, Freedman 2017). The hours since its last use
 * count as well, so that what was popular once does not stay for that.
 */
unsigned wc_worth_step(const struct wc_worth *worth, uint64_t now)
{
    const uint64_t cost = worth->compile_ns ? worth->compile_ns : COMPILE_NS;
    const uint64_t age = now > worth->first ? (now - worth->first) / HOUR : 0;
    const uint64_t idle = now > worth->last ? (now - worth->last) / HOUR : 0;
    const int step = WC_WORTH_STEPS / 2 + log2_16(cost) + log2_16(worth->uses) -
                     log2_16(worth->bytes) - (log2_16(age + 1) + log2_16(idle + 1)) / 2;
    return step < 0 ? 0 : step >= WC_WORTH_STEPS ? WC_WORTH_STEPS - 1 : (unsigned)step;
}
