/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BATCH_H
#define CLI_BATCH_H

/*
 * Many pieces of work, several at a time, until all are done or a signal (SIGINT, SIGTERM, SIGHUP)
 * asks to stop.
 *
 *     struct cli_batch batch = {.count = n, .jobs = 4, .work = work, ..., .payload = &mine};
 *     if (cli_batch_run(&batch) == CLI_OK && (stopped = cli_batch_signal()) != 0) {
 *         ... say what was done ...
 *         cli_batch_die(stopped);
 *     }
 *
 * A compile cannot be stopped from outside, and takes up to minutes. But it has written nothing
 * yet, so that the process can end in the middle of it. Hence a worker is in one of two states:
 *
 *     held   it looks, waits or saves: that is waited for
 *     left   it is inside the engine; the process may end
 *
 * It begins held, and says with cli_batch_leave() and cli_batch_hold() when that changes. After a
 * signal nothing new is begun, and cli_batch_run() returns once no worker is held; those that are
 * left go on and never come back. A second signal ends the process at once.
 */

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stddef.h>

struct cli_batch {
    size_t count;
    size_t jobs;
    /* Does a piece, on any thread. False: it was not done, because of a signal. */
    bool (*work)(struct cli_batch *batch, size_t index);
    void (*begun)(struct cli_batch *batch, size_t index);    /* before work; one at a time */
    void (*finished)(struct cli_batch *batch, size_t index); /* as soon as it is done; the same */
    void (*in_order)(struct cli_batch *batch, size_t index); /* the same, each after those before
                                                                it, but those that were not done */
    void *payload;

    /* From here on its own. */
    pthread_mutex_t lock; /* of all below */
    sem_t bell;           /* rung when something changed, from a signal handler too */
    bool *done;
    size_t next, row;
    size_t working, held; /* workers */
    bool over;            /* nobody waits any more */
};

/* How many at a time where nobody says: as many as CPUs that we may use, at most 4. An engine keeps
 * all CPUs busy with one module of a megabyte, and it is small ones that gain (docs/operations.md);
 * each that is under way takes memory. */
size_t cli_batch_default_jobs(void);

/* CLI_OK when all was done that will be, or CLI_FAILED after a message: there was no memory. */
int cli_batch_run(struct cli_batch *batch);
/* The signal that asked to stop, 0 if none did. */
int cli_batch_signal(void);
bool cli_batch_was_done(const struct cli_batch *batch, size_t index);
/* Also where it did not run. Not after a signal. */
void cli_batch_release(struct cli_batch *batch);
/* Ends the process by that signal, as who sent it expects. */
_Noreturn void cli_batch_die(int number);

/* In work, about the calling thread. True: a signal asks to stop, so that nothing need be begun. */
bool cli_batch_leave(struct cli_batch *batch);
/* True: it is too late, nothing may be written any more. */
bool cli_batch_hold(struct cli_batch *batch);

#endif
