/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an order of eviction saves: simulates a cache that holds a tenth of all modules.
 *
 *     bench-evict [SEEDS=5]
 *
 * Modules are the five that `make bench` measures on two engines (bytes of their entries and
 * compile times are in `measured` below), each of 1,000 scaled by a factor between 1/4 and 4 for
 * its size and another for its compile time. They are asked for by Zipf's law, 200,000 times, at
 * random moments. Each trace is made with as many seeds.
 *
 *     lru      least recently used first
 *     gdsf     greedy dual size frequency with compile time for cost: L + uses * cost / size, where
 *              L is what the last one that went had. The better of two: what comes always stays, or
 *              does not if it is worth least (Cherkasova 1998)
 *     ours     what the library does. Its order is its own wc_worth_step(), with what its hints
 *              remember. Its limit is so much lower than the others' room that the 5 % that it may
 *              be over are in that room
 *     offline  who knows the future, a plan that could be followed; and `bound`, which nobody can
 *              exceed: bench/evict_offline.c
 *
 * Prints a line of JSON for each trace: of the compile time that there was to save, the share that
 * hits saved, medians over the seeds. "of_the_way" is how much of the way from lru to the bound,
 * "over_gdsf" how much more than gdsf was saved, in points. `bar`: "ok" if with each seed ours is
 * at least a quarter of the way and no worse than gdsf, else "MISSED", and the exit status is 1.
 * "none": the bar is not for this trace, which shows what happens when things are not as usual.
 */
#include "evict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worth.h"

enum { MAX_SEEDS = 25, HOUR = 3600, WEEK = 7 * 24 * HOUR, GRACE = 60 };

/* docs/performance.md: Wasmtime, then Wasmer. */
static const struct {
    double bytes, seconds;
} measured[] = {
    {2.4e6, 0.822}, {3.1e6, 1.11}, {30.5e6, 10.6}, {53.1e6, 15.0}, {152e6, 46.3},
    {4.1e6, 0.793}, {5.9e6, 1.14}, {59.7e6, 10.5}, {77.8e6, 14.1}, {273e6, 48.7},
};

/* ---- the trace ---- */

struct kind {
    double zipf;
    double every;         /* seconds between two gets, on average */
    unsigned shift_after; /* every two weeks or so a tenth of the modules change places: so many
                             gets; 0: never */
    int bar;
};

/* xorshift64*: the same trace on every machine. */
static uint64_t state;
static double uniform(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (double)((state * UINT64_C(2685821657736338717)) >> 11) / 9007199254740992.0;
}

static unsigned any_module(void)
{
    return (unsigned)(uniform() * MODULES);
}

static double factor(void)
{
    return pow(4, 2 * uniform() - 1);
}

static void make_modules(struct trace *t)
{
    uint64_t bytes = 0;
    for (int i = 0; i < MODULES; i++) {
        struct module *m = &t->modules[i];
        const unsigned of = (unsigned)(uniform() * (sizeof(measured) / sizeof(*measured)));
        m->bytes = (uint64_t)(measured[of].bytes * factor());
        m->compile_ns = (uint64_t)(measured[of].seconds * 1e9 * factor());
        bytes += m->bytes;
    }
    t->budget = bytes / 10;
}

static void shift(uint16_t by_rank[MODULES])
{
    for (int i = 0; i < MODULES / 20; i++) {
        const unsigned a = any_module(), b = any_module();
        const uint16_t swap = by_rank[a];
        by_rank[a] = by_rank[b];
        by_rank[b] = swap;
    }
}

static void make_trace(struct trace *t, const struct kind *kind, unsigned seed)
{
    static double sum[MODULES];
    static uint16_t by_rank[MODULES]; /* modules are in no order */
    double total = 0, now = 1700000000;
    state = UINT64_C(88172645463325252) * (2 * seed + 1);
    make_modules(t);
    for (int i = 0; i < MODULES; i++) {
        sum[i] = total += 1 / pow(i + 1, kind->zipf);
        by_rank[i] = (uint16_t)i;
    }
    t->compile_ns = 0;
    for (unsigned g = 0; g < GETS; g++) {
        const double at = uniform() * total;
        int low = 0, high = MODULES - 1;
        if (kind->shift_after && g && g % kind->shift_after == 0)
            shift(by_rank);
        while (low < high) {
            const int middle = (low + high) / 2;
            if (sum[middle] < at)
                low = middle + 1;
            else
                high = middle;
        }
        now += -log(1 - uniform()) * kind->every;
        t->asked[g] = by_rank[low];
        t->seconds[g] = (uint64_t)now;
        t->compile_ns += t->modules[by_rank[low]].compile_ns;
    }
}

/* ---- the cache ---- */

/* Which of the modules are there. */
struct cache {
    const struct trace *trace;
    uint64_t used;
    unsigned count;
    uint16_t there[MODULES];  /* the first `count`: in no order */
    uint16_t place[MODULES];  /* in `there`, 1 more; 0: is not */
    double priority[MODULES]; /* lru, gdsf: the least goes first */
};

static void add(struct cache *c, unsigned module)
{
    c->there[c->count] = (uint16_t)module;
    c->place[module] = (uint16_t)++c->count;
    c->used += c->trace->modules[module].bytes;
}

static void drop(struct cache *c, unsigned module)
{
    const unsigned hole = c->place[module] - 1u;
    const uint16_t last = c->there[--c->count];
    c->there[hole] = last;
    c->place[last] = (uint16_t)(hole + 1);
    c->place[module] = 0;
    c->used -= c->trace->modules[module].bytes;
}

static unsigned least(const struct cache *c)
{
    unsigned found = c->there[0];
    for (unsigned i = 1; i < c->count; i++)
        if (c->priority[c->there[i]] < c->priority[found])
            found = c->there[i];
    return found;
}

/* ---- lru ---- */

static uint64_t simulate_lru(const struct trace *t)
{
    static struct cache c;
    uint64_t saved = 0;
    memset(&c, 0, sizeof(c));
    c.trace = t;
    for (unsigned g = 0; g < GETS; g++) {
        const unsigned asked = t->asked[g];
        c.priority[asked] = g;
        if (c.place[asked]) {
            saved += t->modules[asked].compile_ns;
            continue;
        }
        if (t->modules[asked].bytes > t->budget)
            continue;
        while (c.used + t->modules[asked].bytes > t->budget)
            drop(&c, least(&c));
        add(&c, asked);
    }
    return saved;
}

/* ---- gdsf ---- */

static double gdsf_priority(const struct trace *t, unsigned module, double uses, double inflation)
{
    const struct module *m = &t->modules[module];
    return inflation + uses * (double)m->compile_ns / (double)m->bytes;
}

/* Makes room for one that is worth so much. 0: there is none, nothing has changed. */
static int gdsf_make_room(struct cache *c, unsigned module, int always, double *inflation)
{
    static uint16_t gone[MODULES];
    unsigned count = 0;
    double last = *inflation;
    while (c->used + c->trace->modules[module].bytes > c->trace->budget) {
        const unsigned next = least(c);
        if (!always && c->priority[next] >= c->priority[module]) {
            while (count)
                add(c, gone[--count]);
            return 0;
        }
        last = c->priority[next];
        gone[count++] = (uint16_t)next;
        drop(c, next);
    }
    *inflation = last;
    return 1;
}

static uint64_t simulate_gdsf(const struct trace *t, int always)
{
    static struct cache c;
    static double uses[MODULES];
    double inflation = 0;
    uint64_t saved = 0;
    memset(&c, 0, sizeof(c));
    c.trace = t;
    for (unsigned g = 0; g < GETS; g++) {
        const unsigned asked = t->asked[g];
        /* What is not there is not remembered. */
        uses[asked] = c.place[asked] ? uses[asked] + 1 : 1;
        c.priority[asked] = gdsf_priority(t, asked, uses[asked], inflation);
        if (c.place[asked]) {
            saved += t->modules[asked].compile_ns;
            continue;
        }
        if (t->modules[asked].bytes <= t->budget && gdsf_make_room(&c, asked, always, &inflation)) {
            c.priority[asked] = gdsf_priority(t, asked, 1, inflation);
            add(&c, asked);
        }
    }
    return saved;
}

/* ---- ours ---- */

/* What the hints have of a module: src/stamp.c. */
struct hints {
    uint64_t uses, last; /* by its name */
    int stamped;         /* of its file */
    uint64_t checked, stamp_used;
    uint64_t born; /* when the file was made */
};

struct ours {
    struct cache cache;
    struct hints hints[MODULES];
    uint64_t limit;
};

static void note(struct hints *h, uint64_t now, int in_any_case)
{
    if (h->uses && !in_any_case && now - h->last < HOUR)
        return;
    h->uses = wc_worth_use(h->uses, h->last, now);
    h->last = now;
}

static void note_hit(struct hints *h, uint64_t now)
{
    if (!h->stamped || now - h->checked >= WEEK) {
        h->stamped = 1;
        h->checked = h->stamp_used = now;
        note(h, now, 0);
    } else if (now - h->stamp_used >= HOUR) {
        h->stamp_used = now;
        note(h, now, 1);
    }
}

static unsigned step_of(const struct ours *o, unsigned module, uint64_t now)
{
    const struct module *m = &o->cache.trace->modules[module];
    const struct hints *h = &o->hints[module];
    const struct wc_worth worth = {m->bytes, m->compile_ns, h->uses, h->last};
    return wc_worth_step(&worth, now);
}

/* As src/evict.c: one pass to count what there is of each worth, one to remove, in no order, all
 * that is below the cut, and of what is at it as much as is needed. */
static void ours_evict(struct ours *o, uint64_t incoming, uint64_t now)
{
    static uint64_t bytes[WC_WORTH_STEPS];
    struct cache *c = &o->cache;
    uint64_t over = c->used + incoming - o->limit;
    unsigned cut = 0;
    memset(bytes, 0, sizeof(bytes));
    for (unsigned i = 0; i < c->count; i++)
        if (o->hints[c->there[i]].born + GRACE <= now)
            bytes[step_of(o, c->there[i], now)] += c->trace->modules[c->there[i]].bytes;
    for (; cut < WC_WORTH_STEPS && bytes[cut] < over; cut++)
        over -= bytes[cut];
    for (unsigned i = c->count; i-- > 0;) {
        const unsigned module = c->there[i], step = step_of(o, module, now);
        const uint64_t size = c->trace->modules[module].bytes;
        if (o->hints[module].born + GRACE > now || step > cut || (step == cut && !over))
            continue;
        if (step == cut)
            over = over > size ? over - size : 0;
        drop(c, module);
        o->hints[module].stamped = 0;
    }
}

static uint64_t simulate_ours(const struct trace *t)
{
    static struct ours o;
    uint64_t saved = 0, most;
    memset(&o, 0, sizeof(o));
    o.cache.trace = t;
    o.limit = t->budget / 21 * 20;
    most = o.limit + o.limit / 20;
    for (unsigned g = 0; g < GETS; g++) {
        const unsigned asked = t->asked[g];
        const uint64_t now = t->seconds[g], size = t->modules[asked].bytes;
        if (o.cache.place[asked]) {
            saved += t->modules[asked].compile_ns;
            note_hit(&o.hints[asked], now);
            continue;
        }
        if (size > o.limit)
            continue;
        if (o.cache.used + size > most)
            ours_evict(&o, size, now);
        if (o.cache.used + size > most)
            continue; /* what is there is too young to go */
        add(&o.cache, asked);
        o.hints[asked].born = now;
        note(&o.hints[asked], now, 0);
        if (o.cache.used > t->budget)
            abort();
    }
    return saved;
}

/* ---- all ---- */

enum order { LRU, GDSF, OURS, OFFLINE, BOUND, ORDERS };

/* Shares of what there was to save. */
static void simulate(double out[ORDERS], const struct trace *t)
{
    const uint64_t always = simulate_gdsf(t, 1), cherkasova = simulate_gdsf(t, 0);
    const double all = (double)t->compile_ns;
    struct offline offline;
    offline_find(&offline, t);
    out[LRU] = (double)simulate_lru(t) / all;
    out[GDSF] = (double)(always > cherkasova ? always : cherkasova) / all;
    out[OURS] = (double)simulate_ours(t) / all;
    out[OFFLINE] = (double)offline.reached_ns / all;
    out[BOUND] = (double)offline.bound_ns / all;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void sort(double *values, unsigned count)
{
    qsort(values, count, sizeof(*values), by_value);
}

/* 1: a bar was missed. */
static int measure(const struct kind *kind, unsigned seeds)
{
    static struct trace trace;
    double shares[ORDERS][MAX_SEEDS], way[MAX_SEEDS], more[MAX_SEEDS];
    int missed;
    for (unsigned s = 0; s < seeds; s++) {
        double of[ORDERS];
        make_trace(&trace, kind, s);
        simulate(of, &trace);
        for (int i = 0; i < ORDERS; i++)
            shares[i][s] = of[i];
        way[s] = 100 * (of[OURS] - of[LRU]) / (of[BOUND] - of[LRU]);
        more[s] = 100 * (of[OURS] - of[GDSF]);
    }
    for (int i = 0; i < ORDERS; i++)
        sort(shares[i], seeds);
    sort(way, seeds);
    sort(more, seeds);
    missed = kind->bar && (way[0] < 25 || more[0] < 0);
    printf("{\"zipf\":%.1f,\"seconds_between\":%.0f,\"shifts\":%s,\"seeds\":%u,\"lru\":%.4f,"
           "\"gdsf\":%.4f,\"ours\":%.4f,\"offline\":%.4f,\"bound\":%.4f,"
           "\"of_the_way\":{\"median\":%.1f,\"least\":%.1f},"
           "\"over_gdsf\":{\"median\":%.2f,\"least\":%.2f},\"bar\":\"%s\"}\n",
           kind->zipf, kind->every, kind->shift_after ? "true" : "false", seeds,
           shares[LRU][seeds / 2], shares[GDSF][seeds / 2], shares[OURS][seeds / 2],
           shares[OFFLINE][seeds / 2], shares[BOUND][seeds / 2], way[seeds / 2], way[0],
           more[seeds / 2], more[0],
           !kind->bar ? "none"
           : missed   ? "MISSED"
                      : "ok");
    fflush(stdout);
    return missed;
}

int main(int argc, char **argv)
{
    static const struct kind kinds[] = {
        {0.7, 60, 0, 1},      {1.0, 60, 0, 1},     {1.2, 60, 0, 1},
        {0.7, 60, 20160, 0},  {1.0, 60, 20160, 0}, {1.2, 60, 20160, 0},
        {1.0, 10, 120960, 0}, {1.0, 600, 2016, 0}, {0.7, 600, 0, 0},
    };
    const unsigned long seeds = argc > 1 ? strtoul(argv[1], NULL, 10) : 5;
    int missed = 0;
    if (!seeds || seeds > MAX_SEEDS || argc > 2) {
        fprintf(stderr, "usage: bench-evict [SEEDS], from 1 to %d\n", MAX_SEEDS);
        return 2;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
        missed |= measure(&kinds[i], (unsigned)seeds);
    return missed;
}
