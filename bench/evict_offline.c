/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an order of eviction can save at best: practical flow-based offline optimal, PFOO (Berger,
 * Beckmann, Harchol-Balter 2018), with compile times for what a hit saves.
 *
 * From one get of a module to its next it can be kept, which takes its bytes for so long and saves
 * one compile. These stretches are gone through by what they save for each byte and get, the best
 * first. Taken as long as bytes times gets of the whole cache are not used up, whenever that is,
 * they save more than any cache can: the bound. Taken only where at each moment of them there is
 * room, they are a plan that a cache could follow.
 */
#include "evict.h"

#include <stdlib.h>
#include <string.h>

struct stretch {
    uint32_t from, to; /* gets */
    uint64_t bytes, compile_ns;
};

/* What is taken at each get: the most in a node's half, but for what `whole` says of all of it. */
enum { LEAVES = 1 << 18 };
struct taken {
    uint64_t most[2 * LEAVES], whole[2 * LEAVES];
};
_Static_assert(GETS <= (int)LEAVES, "each get has a leaf");

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The most in [from, to), of a node that has [low, high). */
static uint64_t most_in(const struct taken *t, uint32_t node, uint32_t low, uint32_t high,
                        uint32_t from, uint32_t to)
{
    const uint32_t middle = low + (high - low) / 2;
    if (to <= low || high <= from)
        return 0;
    if (from <= low && high <= to)
        return t->most[node];
    return t->whole[node] + larger(most_in(t, 2 * node, low, middle, from, to),
                                   most_in(t, 2 * node + 1, middle, high, from, to));
}

static void take(struct taken *t, uint32_t node, uint32_t low, uint32_t high,
                 const struct stretch *s)
{
    const uint32_t middle = low + (high - low) / 2;
    if (s->to <= low || high <= s->from)
        return;
    if (s->from <= low && high <= s->to) {
        t->most[node] += s->bytes;
        t->whole[node] += s->bytes;
        return;
    }
    take(t, 2 * node, low, middle, s);
    take(t, 2 * node + 1, middle, high, s);
    t->most[node] = t->whole[node] + larger(t->most[2 * node], t->most[2 * node + 1]);
}

static double room(const struct stretch *s)
{
    return (double)s->bytes * (s->to - s->from);
}

static int by_what_room_saves(const void *a, const void *b)
{
    const struct stretch *x = a, *y = b;
    const double dx = (double)x->compile_ns / room(x), dy = (double)y->compile_ns / room(y);
    return dx < dy ? 1 : dx > dy ? -1 : 0;
}

static uint32_t find_stretches(struct stretch *out, const struct trace *trace)
{
    static uint32_t last[MODULES]; /* 1 more than the get */
    uint32_t count = 0;
    memset(last, 0, sizeof(last));
    for (uint32_t g = 0; g < GETS; g++) {
        const unsigned asked = trace->asked[g];
        const struct module *m = &trace->modules[asked];
        if (last[asked])
            out[count++] = (struct stretch){last[asked] - 1, g, m->bytes, m->compile_ns};
        last[asked] = g + 1;
    }
    return count;
}

void offline_find(struct offline *out, const struct trace *trace)
{
    struct stretch *stretches = malloc(GETS * sizeof(*stretches));
    struct taken *taken = calloc(1, sizeof(*taken));
    double left = (double)trace->budget * GETS;
    uint32_t count;

    if (!stretches || !taken)
        abort();
    memset(out, 0, sizeof(*out));
    count = find_stretches(stretches, trace);
    qsort(stretches, count, sizeof(*stretches), by_what_room_saves);
    for (uint32_t i = 0; i < count; i++) {
        const struct stretch *s = &stretches[i];
        const double part = left < room(s) ? left / room(s) : 1;
        out->bound_ns += (uint64_t)(part * (double)s->compile_ns);
        left -= part * room(s);
        if (s->bytes > trace->budget ||
            most_in(taken, 1, 0, LEAVES, s->from, s->to) > trace->budget - s->bytes)
            continue;
        take(taken, 1, 0, LEAVES, s);
        out->reached_ns += s->compile_ns;
    }
    free(taken);
    free(stretches);
}
