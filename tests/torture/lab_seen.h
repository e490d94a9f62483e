/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_LAB_SEEN_H
#define TORTURE_LAB_SEEN_H

/* Between lab_acts.c and lab.c only. */

#include "torture/lab.h"

/* What a child tells of the act that it did. */
struct lab_seen {
    int ran;          /* what the call returned */
    int done;         /* it returned */
    int finished;     /* the child came to its end */
    int acknowledged; /* it was told that the module is saved */
    int gave;         /* 1: the right module, 2: another */
    int removed_said; /* the call says that the entry is gone */
    unsigned wrong;
    int live_modules, live_errors, live_artifacts;
    int descriptors; /* more than before */
    int allocations; /* the same; of acts that close what they opened */
    int met;         /* finish() says: the fault happened */
    int mappings;    /* of files in the directory, afterwards */
    int save_failed, save_errno;
    char call[32];
    char message[640];
};

/* The module in question. */
#define LAB_WASM "the module in question"

#endif
