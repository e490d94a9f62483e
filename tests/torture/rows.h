/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_ROWS_H
#define TORTURE_ROWS_H

/* The rows of the table that are programmed here, each in the file of what it does harm with. */

#include "torture/tally.h"

enum tier { TIER_QUICK, TIER_FULL, TIER_SOAK };

struct row_run {
    struct tally *tally;
    enum tier tier;
    unsigned seed;
    const char *place; /* "": where scratch directories lie; else the argument after the seed */
};

typedef void (*row_fn)(struct row_run *run);

/* row_calls.c: system calls that fail, are cut short, or are the last that a process makes */
void row_save(struct row_run *run);
void row_load(struct row_run *run);
void row_rest(struct row_run *run);
void row_killed(struct row_run *run);
void row_short(struct row_run *run);
void row_fsync(struct row_run *run);
void row_compound(struct row_run *run);

/* row_damage.c: bits that flip, torn shapes, sound entries in the wrong place */
void row_bits(struct row_run *run);
void row_torn(struct row_run *run);
void row_foreign(struct row_run *run);

/* row_races.c: others at the same time, and in the worst moment */
void row_writers(struct row_run *run);
void row_stampede(struct row_run *run);
void row_forked(struct row_run *run);
void row_removal(struct row_run *run);
void row_changed_in_use(struct row_run *run);

/* row_places.c: a directory that is pulled away, or full of junk */
void row_pulled(struct row_run *run);
void row_junk(struct row_run *run);

/* row_clock.c. What it runs this program for: `torture --act WHAT DIR`. */
void row_clock(struct row_run *run);
int row_clock_act(const char *what, char *dir);

/* row_names.c: names that mean harm */
void row_names(struct row_run *run);

/* row_leak.c. What it runs this program for: `torture --descriptors`. */
void row_leak(struct row_run *run);
int row_leak_descriptors(void);

/* row_hints.c: hints that are damaged under a running process */
void row_hints(struct row_run *run);

/* row_power.c: the power is cut */
void row_power(struct row_run *run);

/* row_server.c: a server does not give a page */
void row_bad_pages(struct row_run *run);

/* row_reorder.c: the power is cut, and the disk had not written in order */
void row_reorder(struct row_run *run);

/* row_limits.c: no memory, no room, no descriptors, small stacks, signals */
void row_memory(struct row_run *run);
void row_full(struct row_run *run);
void row_process_limits(struct row_run *run);
void row_signals(struct row_run *run);

/* row_kills.c: killed at random times, row 4 too */
void row_kills(struct row_run *run);

/* row_price.c: what protection costs */
void row_price(struct row_run *run);

#endif
