/* SPDX-License-Identifier: Apache-2.0 */
#include "worth.h"

/* Of what is not known: a second, as a small module takes. */
#define COMPILE_NS UINT64_C(1000000000)

/* More uses than there are hours in which they count. */
#define USES_MAX UINT64_C(0xFFFFFFFF)

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

static uint64_t since(uint64_t then, uint64_t now)
{
    return now > then ? now - then : 0;
}

/* Of a use, before a half-life is over, in parts of ONE: 1 - 2^-x, of which this is the parabola
 * through both ends with its slope at 0, which counts most for what is used often. */
enum { ONE = 65536, SLOPE = 45426 /* ln 2 */ };
static uint64_t lost(uint64_t seconds)
{
    const uint64_t x = seconds * ONE / WC_WORTH_HALF_LIFE;
    return x * (SLOPE - (SLOPE - ONE / 2) * x / ONE) / ONE;
}

uint64_t wc_worth_use(uint64_t uses, uint64_t last, uint64_t now)
{
    const uint64_t idle = since(last, now), halvings = idle / WC_WORTH_HALF_LIFE;
    if (uses > USES_MAX)
        uses = USES_MAX;
    uses = halvings < 32 ? uses >> halvings : 0;
    return uses - uses * lost(idle % WC_WORTH_HALF_LIFE) / ONE + WC_WORTH_USE;
}

/*
 * Cost times uses, over size, as Greedy-Dual-Size-Frequency has it (Cherkasova 1998), where uses
 * fade with time, as in LRFU (Lee et al. 2001): what was popular once does not stay for that. Other
 * than there, uses are remembered of what was removed too. The half-life is a compromise: with a
 * shorter one less is known of what is seldom used, with a longer one a change is seen later. Two
 * or four weeks are nearly as good (bench/evict.c).
 */
unsigned wc_worth_step(const struct wc_worth *worth, uint64_t now)
{
    const uint64_t cost = worth->compile_ns ? worth->compile_ns : COMPILE_NS;
    const uint64_t faded = since(worth->last, now) / (WC_WORTH_HALF_LIFE / 16);
    const int step = WC_WORTH_STEPS / 2 + log2_16(cost) + log2_16(worth->uses) -
                     log2_16(worth->bytes) - (faded < WC_WORTH_STEPS ? (int)faded : WC_WORTH_STEPS);
    return step < 0 ? 0 : step >= WC_WORTH_STEPS ? WC_WORTH_STEPS - 1 : (unsigned)step;
}
