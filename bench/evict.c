/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an order of eviction saves: simulates a cache that holds a tenth of all modules.
 *
 *     bench-evict [--json]
 *
 * Modules are the five that `make bench` measures (bytes of their entries and compile times are in
 * `measured` below), each of 1,000 scaled by a factor between 1/4 and 4 for its size and another
 * for its compile time. They are asked for by Zipf's law, in 200,000 gets a minute apart, on
 * average. "shift": every two weeks a tenth of the modules change places in popularity.
 *
 *     lru      least recently used first
 *     gdsf     greedy dual size frequency: L + uses * cost / size (Cherkasova 1998)
 *     ours     the library's own wc_worth_step() with what it remembers: uses by the hour; evicting
 *              when it is 5 % over
 *     offline  who knows the future: the least compile time for each byte and each minute until the
 *              next use first; or what it would be to keep the best tenth all the time, if that is
 *              better
 *
 * Printed is the compile time that hits saved, of all that there was to save. "of the way" is how
 * much of the way from lru to offline.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worth.h"

enum { MODULES = 1000, GETS = 200000, SHIFT_GETS = 20160 };

static const struct {
    const char *name;
    double bytes, compile_ns;
} measured[] = {
    {"sqlite", 2.4e6, 0.82e9}, {"boolector", 3.1e6, 1.1e9}, {"esbuild", 38e6, 6.7e9},
    {"php", 53.1e6, 9.6e9},    {"yosys", 152e6, 29.6e9},
};

struct module {
    uint64_t bytes, compile_ns;
    int cached;
    uint64_t first, last, uses; /* as the library has them */
    uint64_t last_get;
    double frequency, priority; /* gdsf */
    uint32_t *gets;             /* when it is asked for */
    uint32_t get_count, next;
};

static struct module modules[MODULES];
static uint16_t trace[GETS];
static uint64_t seconds[GETS];
static uint64_t budget, all_bytes;

/* xorshift64*: the same trace on every machine. */
static uint64_t state;
static double uniform(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (double)((state * UINT64_C(2685821657736338717)) >> 11) / 9007199254740992.0;
}

static void make_modules(void)
{
    all_bytes = 0;
    for (int i = 0; i < MODULES; i++) {
        const int of = (int)(uniform() * 5);
        modules[i].bytes = (uint64_t)(measured[of].bytes * pow(4, 2 * uniform() - 1));
        modules[i].compile_ns = (uint64_t)(measured[of].compile_ns * pow(4, 2 * uniform() - 1));
        all_bytes += modules[i].bytes;
    }
    budget = all_bytes / 10;
}

static void make_trace(double zipf, int shifts)
{
    static double sum[MODULES];
    static uint16_t rank[MODULES];
    uint64_t now = 1700000000;
    double total = 0;
    for (int i = 0; i < MODULES; i++) {
        sum[i] = total += 1 / pow(i + 1, zipf);
        rank[i] = (uint16_t)i; /* modules are in no order */
        free(modules[i].gets);
        modules[i].gets = NULL;
        modules[i].get_count = 0;
    }
    for (int g = 0; g < GETS; g++) {
        const double at = uniform() * total;
        int low = 0, high = MODULES - 1;
        if (shifts && g && g % SHIFT_GETS == 0)
            for (int i = 0; i < MODULES / 20; i++) {
                const int a = (int)(uniform() * MODULES), b = (int)(uniform() * MODULES);
                const uint16_t swap = rank[a];
                rank[a] = rank[b];
                rank[b] = swap;
            }
        while (low < high) {
            const int middle = (low + high) / 2;
            if (sum[middle] < at)
                low = middle + 1;
            else
                high = middle;
        }
        trace[g] = rank[low];
        now += (uint64_t)(-log(1 - uniform()) * 60);
        seconds[g] = now;
        modules[trace[g]].get_count++;
    }
    for (int i = 0; i < MODULES; i++) {
        modules[i].gets = malloc((modules[i].get_count + 1) * sizeof(uint32_t));
        if (!modules[i].gets)
            abort();
        modules[i].get_count = 0;
    }
    for (int g = 0; g < GETS; g++)
        modules[trace[g]].gets[modules[trace[g]].get_count++] = (uint32_t)g;
}

enum order { LRU, GDSF, OURS, FUTURE };

static double inflation; /* gdsf's L */

/* The smaller, the sooner it goes. */
static double worth(const struct module *m, enum order order, int g)
{
    if (order == LRU)
        return (double)m->last_get;
    if (order == GDSF)
        return m->priority;
    if (order == OURS) {
        const struct wc_worth w = {m->bytes, m->compile_ns, m->uses, m->first, m->last};
        return (double)wc_worth_step(&w, seconds[g]);
    }
    if (m->next >= m->get_count)
        return 0;
    return (double)m->compile_ns / (double)m->bytes / (double)(m->gets[m->next] - (uint32_t)g);
}

/* Down to the budget. */
static uint64_t evict(uint64_t used, enum order order, int g)
{
    while (used > budget) {
        int least = -1;
        double least_worth = INFINITY;
        for (int i = 0; i < MODULES; i++) {
            const double w = modules[i].cached ? worth(&modules[i], order, g) : INFINITY;
            if (w < least_worth) {
                least_worth = w;
                least = i;
            }
        }
        if (least < 0)
            abort();
        modules[least].cached = 0;
        used -= modules[least].bytes;
        if (order == GDSF)
            inflation = least_worth;
    }
    return used;
}

static void use(struct module *m, int g)
{
    m->last_get = (uint64_t)g;
    m->frequency += 1;
    m->priority = inflation + m->frequency * (double)m->compile_ns / (double)m->bytes;
    if (!m->first)
        m->first = seconds[g];
    if (!m->uses || seconds[g] - m->last >= 3600) { /* by the hour, as hints are written */
        m->last = seconds[g];
        m->uses++;
    }
    while (m->next < m->get_count && m->gets[m->next] <= (uint32_t)g)
        m->next++;
}

static double simulate(enum order order)
{
    const uint64_t most = order == OURS ? budget + budget / 20 : budget;
    double saved = 0, all = 0;
    uint64_t used = 0;
    inflation = 0;
    for (int i = 0; i < MODULES; i++) {
        struct module *m = &modules[i];
        m->cached = 0;
        m->first = m->last = m->uses = m->last_get = 0;
        m->frequency = 0;
        m->next = 0;
    }
    for (int g = 0; g < GETS; g++) {
        struct module *m = &modules[trace[g]];
        all += (double)m->compile_ns;
        if (m->cached)
            saved += (double)m->compile_ns;
        else if (order != OURS)
            m->frequency = 0; /* what is evicted is forgotten; our hints are not */
        use(m, g);
        if (m->cached || m->bytes > budget)
            continue;
        m->cached = 1;
        used += m->bytes;
        if (used > most)
            used = evict(used, order, g);
    }
    return saved / all;
}

static int by_density(const void *a, const void *b)
{
    const struct module *x = &modules[*(const int *)a], *y = &modules[*(const int *)b];
    const double dx = (double)x->compile_ns * x->get_count / (double)x->bytes;
    const double dy = (double)y->compile_ns * y->get_count / (double)y->bytes;
    return dx < dy ? 1 : dx > dy ? -1 : 0;
}

/* The best tenth, from the first time that each is asked for. */
static double keep_the_best(void)
{
    int order[MODULES];
    double saved = 0, all = 0;
    uint64_t used = 0;
    for (int i = 0; i < MODULES; i++)
        order[i] = i;
    qsort(order, MODULES, sizeof(*order), by_density);
    for (int i = 0; i < MODULES; i++) {
        const struct module *m = &modules[order[i]];
        all += (double)m->compile_ns * m->get_count;
        if (used + m->bytes > budget || !m->get_count)
            continue;
        used += m->bytes;
        saved += (double)m->compile_ns * (m->get_count - 1);
    }
    return saved / all;
}

int main(int argc, char **argv)
{
    static const double zipf[] = {0.7, 1.0, 1.2};
    const int json = argc > 1 && strcmp(argv[1], "--json") == 0;
    const char *comma = "";
    if (!json)
        printf("%-14s %8s %8s %8s %8s   %s\n", "zipf", "lru", "gdsf", "ours", "offline",
               "of the way");
    else
        printf("[");
    for (int shifts = 0; shifts < 2; shifts++)
        for (size_t z = 0; z < sizeof(zipf) / sizeof(*zipf); z++) {
            double lru, gdsf, ours, future, best;
            state = UINT64_C(88172645463325252);
            make_modules();
            make_trace(zipf[z], shifts);
            lru = simulate(LRU);
            gdsf = simulate(GDSF);
            ours = simulate(OURS);
            future = simulate(FUTURE);
            best = keep_the_best();
            if (best > future)
                future = best;
            if (json)
                printf("%s{\"zipf\": %.1f, \"shifts\": %d, \"lru\": %.4f, \"gdsf\": %.4f, "
                       "\"ours\": %.4f, \"offline\": %.4f}",
                       comma, zipf[z], shifts, lru, gdsf, ours, future);
            else
                printf("%.1f%-11s %7.1f%% %7.1f%% %7.1f%% %7.1f%%   %.0f%% (gdsf %.0f%%)\n",
                       zipf[z], shifts ? " shift" : "", 100 * lru, 100 * gdsf, 100 * ours,
                       100 * future, 100 * (ours - lru) / (future - lru),
                       100 * (gdsf - lru) / (future - lru));
            comma = ", ";
        }
    if (json)
        printf("]\n");
    return 0;
}
