/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_ALLOCATIONS_H
#define TORTURE_ALLOCATIONS_H

/*
 * This program's malloc and its kin: those of the library, and what it calls, can be made to fail
 * and are counted while they live. What the program itself allocates (the engine on paper) never
 * fails.
 */

/* From now on: the nth allocation fails, and if `sticky` all after it. 0: none does. */
void allocations_fail(unsigned nth, int sticky);
void allocations_stop(void);

int allocations_met(void);          /* 1 if one was made to fail */
unsigned allocations_counted(void); /* since allocations_fail() */
long allocations_live(void);        /* of the library's, made at any time since the first call of
                                       allocations_watch() and not freed */
void allocations_watch(void);

/* Why it cannot be done in this build; NULL: it can. */
const char *allocations_missing(void);

#endif
