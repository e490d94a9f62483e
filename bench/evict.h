/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_EVICT_H
#define BENCH_EVICT_H

/* Gets of modules over time, and what who knows all of them in advance could save. bench/evict.c
 * says how they are made. */

#include <stdint.h>

enum { MODULES = 1000, GETS = 200000 };

struct module {
    uint64_t bytes, compile_ns;
};

struct trace {
    struct module modules[MODULES];
    uint16_t asked[GETS];   /* which module */
    uint64_t seconds[GETS]; /* since 1970 */
    uint64_t budget;        /* bytes: a tenth of all modules */
    uint64_t compile_ns;    /* of all gets, if each compiled */
};

/* What a cache of trace->budget saves of trace->compile_ns. */
struct offline {
    uint64_t reached_ns; /* by a plan that could be followed */
    uint64_t bound_ns;   /* no plan saves more */
};

void offline_find(struct offline *out, const struct trace *trace);

#endif
