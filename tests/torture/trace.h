/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_TRACE_H
#define TORTURE_TRACE_H

/*
 * A child whose system calls are seen, and changed, one by one: ptrace.
 *
 *     static void second_fails(struct trace_call *call, void *payload)
 *     {
 *         if (call->nth == 2 && !call->at_exit)
 *             trace_fail(call, EIO);
 *     }
 *     ...
 *     trace(&end, body, argument, second_fails, NULL, 10);
 *
 * body() runs in the child, and calls trace_on() where the calls begin that count, trace_off()
 * where they end. Only calls that work on files, memory, locks and threads are told of, of all its
 * threads, by number from 1; what a child of the child does is its own.
 */

#include <stdint.h>
#include <sys/types.h>

struct trace_call {
    unsigned nth;     /* from 1; the same at entry and exit */
    const char *name; /* "openat" */
    uint64_t arguments[6];
    int at_exit;
    int64_t result; /* at exit: as the kernel returns it, negative errno on failure */
    pid_t thread, process;

    /* What is to happen; use the functions below. */
    int order;
    int64_t value;
};

typedef void (*trace_fn)(struct trace_call *call, void *payload);

struct trace_end {
    int exit_status; /* what body returned; -1: it did not end by itself */
    int signal;      /* that ended it, 0 */
    int late;        /* 1: ended because it took too long */
    unsigned calls;  /* that were told of */
};

/* At entry: it fails. A close is made all the same, as the kernel's is when it fails. */
void trace_fail(struct trace_call *call, int error);
/* At entry of what has a count of bytes: of so many at most. It says whether it is such a call. */
int trace_shorten(struct trace_call *call, uint64_t bytes);
/* At entry: it is not made and returns `value`. */
void trace_answer(struct trace_call *call, int64_t value);
/* At entry or exit: the process is killed right there. */
void trace_kill(struct trace_call *call);

/* 1 if the call has a count of bytes, which is set in *count. */
int trace_counts_bytes(const struct trace_call *call, uint64_t *count);
/* 1 for the calls whose manual pages have EINTR, which then is no failure. */
int trace_can_be_interrupted(const char *name);
/* The path argument of the call as text, "" if it has none. */
const char *trace_path(const struct trace_call *call, char *out, unsigned size);

/* Why it cannot be done on this system; NULL: it can. */
const char *trace_missing(void);

/* Ends the child after `seconds`. The process must have no other children that end meanwhile. */
void trace(struct trace_end *end, int (*body)(void *), void *argument, trace_fn at, void *payload,
           unsigned seconds);

void trace_on(void);
void trace_off(void);

#endif
