/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1
#include "batch.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"

static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
enum { NUMBERS = sizeof(numbers) / sizeof(numbers[0]), JOBS_MAX = 256 };

/* Signals are of the process, and so is what they say. */
static atomic_int signalled;
static sem_t *bell;

static _Thread_local bool is_left;

static void on_signal(int number)
{
    int saved = errno;

    signalled = number;
    sem_post(bell);
    errno = saved;
}

/*
 * A handler and not a thread that waits for them: engines have threads of their own by now, which
 * do not block them. What is ignored stays ignored, as nohup wants it.
 */
static void catch_signals(struct sigaction before[NUMBERS])
{
    struct sigaction action;
    int i;

    memset(&action, 0, sizeof(action));
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART | (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    for (i = 0; i < NUMBERS; i++)
        if (!sigaction(numbers[i], NULL, &before[i]) && before[i].sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
}

static void restore_signals(const struct sigaction before[NUMBERS])
{
    int i;

    for (i = 0; i < NUMBERS; i++)
        sigaction(numbers[i], &before[i], NULL);
}

/* The process ends soon, and nothing that this thread has is anybody's any more. */
static _Noreturn void stay(void)
{
    for (;;)
        pause();
}

static void give_rows(struct cli_batch *batch)
{
    while (batch->row < batch->count && batch->done[batch->row])
        batch->in_order(batch, batch->row++);
}

/* Under the lock. False: there is no more to do. */
static bool begin(struct cli_batch *batch, size_t *index)
{
    if (signalled || batch->next == batch->count)
        return false;
    *index = batch->next++;
    batch->held++;
    is_left = false;
    batch->begun(batch, *index);
    return true;
}

/* Under the lock. */
static void end(struct cli_batch *batch, size_t index, bool done)
{
    if (batch->over) {
        pthread_mutex_unlock(&batch->lock);
        stay();
    }
    if (!is_left)
        batch->held--;
    batch->done[index] = done;
    if (done)
        batch->finished(batch, index);
    give_rows(batch);
}

static void *work(void *argument)
{
    struct cli_batch *batch = argument;
    size_t index;

    pthread_mutex_lock(&batch->lock);
    while (begin(batch, &index)) {
        bool done;

        pthread_mutex_unlock(&batch->lock);
        done = batch->work(batch, index);
        pthread_mutex_lock(&batch->lock);
        end(batch, index, done);
        sem_post(&batch->bell);
    }
    batch->working--;
    sem_post(&batch->bell);
    pthread_mutex_unlock(&batch->lock);
    return NULL;
}

/* Until all workers have ended, or none of those that are left may be waited for. */
static void wait_for_workers(struct cli_batch *batch)
{
    pthread_mutex_lock(&batch->lock);
    while (batch->working && !(signalled && !batch->held)) {
        pthread_mutex_unlock(&batch->lock);
        while (sem_wait(&batch->bell) && errno == EINTR) {
        }
        pthread_mutex_lock(&batch->lock);
    }
    if (batch->working)
        batch->over = true;
    for (; batch->row < batch->count; batch->row++)
        if (batch->done[batch->row])
            batch->in_order(batch, batch->row);
    pthread_mutex_unlock(&batch->lock);
}

size_t cli_batch_default_jobs(void)
{
    enum { MOST = 4 };
    cpu_set_t cpus;
    int count = sched_getaffinity(0, sizeof(cpus), &cpus) ? MOST : CPU_COUNT(&cpus);

    return count < MOST ? (size_t)count : MOST;
}

int cli_batch_run(struct cli_batch *batch)
{
    struct sigaction before[NUMBERS];
    pthread_t threads[JOBS_MAX];
    size_t jobs = batch->jobs < JOBS_MAX ? batch->jobs : JOBS_MAX;
    size_t started = 0;

    batch->done = calloc(batch->count + 1, sizeof(*batch->done));
    if (!batch->done) {
        cli_error("no memory");
        return CLI_FAILED;
    }
    pthread_mutex_init(&batch->lock, NULL);
    sem_init(&batch->bell, 0, 0);
    bell = &batch->bell;
    catch_signals(before);
    if (jobs > batch->count)
        jobs = batch->count;
    batch->working = jobs;
    while (started < jobs && !pthread_create(&threads[started], NULL, work, batch))
        started++;
    if (started < jobs) {
        pthread_mutex_lock(&batch->lock);
        batch->working -= jobs - started - (started == 0);
        pthread_mutex_unlock(&batch->lock);
    }
    /* All is done even where no thread can be made. */
    if (!started && jobs)
        work(batch);
    wait_for_workers(batch);
    if (!batch->over)
        while (started)
            pthread_join(threads[--started], NULL);
    restore_signals(before);
    return CLI_OK;
}

int cli_batch_signal(void)
{
    return signalled;
}

bool cli_batch_was_done(const struct cli_batch *batch, size_t index)
{
    return batch->done && batch->done[index];
}

void cli_batch_release(struct cli_batch *batch)
{
    if (!batch->done)
        return;
    free(batch->done);
    batch->done = NULL;
    sem_destroy(&batch->bell);
    pthread_mutex_destroy(&batch->lock);
}

_Noreturn void cli_batch_die(int number)
{
    struct sigaction action;
    sigset_t set;

    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    raise(number);
    _exit(128 + number);
}

bool cli_batch_leave(struct cli_batch *batch)
{
    pthread_mutex_lock(&batch->lock);
    if (!is_left && !signalled) {
        is_left = true;
        batch->held--;
    }
    pthread_mutex_unlock(&batch->lock);
    sem_post(&batch->bell);
    return signalled != 0;
}

bool cli_batch_hold(struct cli_batch *batch)
{
    bool late;

    pthread_mutex_lock(&batch->lock);
    late = batch->over;
    if (!late && is_left) {
        is_left = false;
        batch->held++;
    }
    pthread_mutex_unlock(&batch->lock);
    return late;
}
