/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SEAM_H
#define TESTS_SEAM_H

/*
 * Uses of the hook that the library calls before each of its calls to the operating system.
 * Calls are counted from 1. One use at a time, one thread.
 *
 *     for (unsigned nth = 1;; nth++) {
 *         seam_fail(nth, EIO, 0);
 *         ... the library ...
 *         seam_off();
 *         if (!seam_met())
 *             break;               // a run without a fault: that was the last point
 *     }
 */

#include "os/os.h"

/* Only records. */
void seam_record(void);
/* The nth call fails with `error`; sticky: and all after it. */
void seam_fail(unsigned nth, int error, int sticky);
/* All calls of that name fail, from the nth of them on. */
void seam_fail_call(const char *call, unsigned nth, int error);
/* Calls `act` before the nth call, with the hook switched off meanwhile. */
void seam_act(unsigned nth, void (*act)(void *), void *argument);
/* The same before the nth call of that name. */
void seam_act_call(const char *call, unsigned nth, void (*act)(void *), void *argument);
/* The same before each call of that name. */
void seam_act_each(const char *call, void (*act)(void *), void *argument);
/* After seam_act(): acts also before that call, which is not earlier than the other. */
void seam_also_act(unsigned nth, void (*act)(void *), void *argument);
/* The process ends before the nth call, as if it were killed; also after seam_act(), whose act
 * comes first. */
void seam_exit(unsigned nth);
void seam_also_exit(unsigned nth);
/* No hook. What follows still tells of the last use. */
void seam_off(void);

int seam_met(void);        /* 1 if the fault or the act happened */
unsigned seam_calls(void); /* how many calls there were */
/* How many of that name there were, as far as they are in the log. */
unsigned seam_calls_of(const char *call);
const char *seam_log(void); /* their names, a comma behind each, cut if there are very many */

/* What the fall-backs are tried with: wc_os_lacking, and a name for messages. */
struct seam_variant {
    const char *name;
    unsigned lacking;
};
extern const struct seam_variant seam_variants[];
extern const unsigned seam_variant_count;

#endif
