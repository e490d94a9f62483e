/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/os.h"
#include "workload_actor.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
/* Their run times do not bear a fork while other threads are in them. */
enum { FORKS_WITH_THREADS = 0 };
#else
enum { FORKS_WITH_THREADS = 1 };
#endif

/* ---- fork ---- */

static int open_gate(const struct workload *l)
{
    return open(l->gate_path, O_RDWR | O_CLOEXEC);
}

/* The child uses what it got, whatever its parent's other threads were doing. */
static _Noreturn void be_child(struct actor *a)
{
    static const struct timespec short_time = {0, 1000000};
    alarm(40);
    a->in_child = 1;
    close(a->gate);
    a->gate = open_gate(a->workload);
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++) {
        struct fake_engine *engine = &a->process->engines[e];
        pthread_mutex_init(&engine->lock, NULL); /* another thread may have it, */
        engine->handed = NULL;                   /* and have freed this under it */
    }
    for (unsigned i = 0; i < 4; i++) {
        actor_gate_enter(a);
        switch (actor_below(a, 5)) {
        case 0:
            actor_do_load(a);
            break;
        case 1:
            actor_do_requests(a);
            break;
        default:
            actor_do_get(a);
        }
        actor_gate_leave(a);
        nanosleep(&short_time, NULL);
    }
    actor_close(a->use);
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++)
        if (a->process->engines[e].wrong)
            actor_broken(a, "the engine was handed bytes that it did not make");
    _exit(0);
}

static void do_fork(struct actor *a)
{
    pid_t child;
    int status = 0;
    if (!FORKS_WITH_THREADS)
        return;
    child = fork();
    if (child < 0)
        return;
    if (child == 0)
        be_child(a);
    actor_gate_leave(a); /* the child is no call of ours */
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    actor_gate_enter(a);
    if (status)
        actor_broken(a, "the child ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    atomic_fetch_add(&a->board->forks, 1);
}

/* ---- threads ---- */

static enum workload_op choose_op(struct actor *a)
{
    static const struct {
        enum workload_op op;
        unsigned weight;
    } ops[] = {{OP_GET, 50},     {OP_REQUESTS, 8}, {OP_LOAD, 10}, {OP_SAVE, 6},
               {OP_CONTAINS, 4}, {OP_REMOVE, 4},   {OP_CHECK, 2}, {OP_REMOVE_DAMAGED, 2},
               {OP_VERIFY, 1},   {OP_CLEAR, 1},    {OP_PRUNE, 1}, {OP_PIN, 2},
               {OP_CLEAN, 1},    {OP_STATS, 2},    {OP_FLUSH, 1}, {OP_OPEN, 3},
               {OP_FORK, 1},     {OP_SPOIL, 8}};
    unsigned total = 0, at;
    for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
        total += ops[i].weight;
    at = actor_below(a, total);
    for (size_t i = 0;; i++) {
        if (at < ops[i].weight)
            return ops[i].op;
        at -= ops[i].weight;
    }
}

static void perform(struct actor *a)
{
    switch (a->op) {
    case OP_GET:
        actor_do_get(a);
        break;
    case OP_REQUESTS:
        actor_do_requests(a);
        break;
    case OP_LOAD:
        actor_do_load(a);
        break;
    case OP_SAVE:
        actor_do_save(a);
        break;
    case OP_CONTAINS:
        actor_do_contains(a);
        break;
    case OP_REMOVE:
    case OP_REMOVE_DAMAGED:
        actor_do_remove(a, a->op == OP_REMOVE_DAMAGED);
        break;
    case OP_CHECK:
        actor_do_check(a);
        break;
    case OP_VERIFY:
    case OP_CLEAR:
        actor_do_walk(a, a->op == OP_CLEAR);
        break;
    case OP_PRUNE:
        actor_do_prune(a);
        break;
    case OP_PIN:
        actor_do_pin(a);
        break;
    case OP_CLEAN:
        actor_do_clean(a);
        break;
    case OP_STATS:
        actor_do_stats(a);
        break;
    case OP_FLUSH:
        actor_do_flush(a);
        break;
    case OP_OPEN:
        actor_do_open(a);
        break;
    case OP_FORK:
        do_fork(a);
        break;
    case OP_SPOIL:
    case OP_NONE:
    case WORKLOAD_OPS:
        break;
    }
}

static void *act(void *argument)
{
    struct actor *a = argument;
    const struct worker *worker = a->process->worker;
    struct workload_slot *slot = &a->board->slots[worker->slot][a->index];
    for (a->nth = 0; a->nth < worker->ops && !atomic_load(&a->board->stop); a->nth++) {
        a->op = choose_op(a);
        a->use = a->own.cache && actor_one_in(a, 2) ? &a->own : &a->process->shared;
        atomic_store(&slot->op, a->op);
        atomic_store(&slot->since, wc_os_monotonic_ns());
        if (a->op == OP_SPOIL) {
            actor_do_spoil(a);
        } else {
            actor_gate_enter(a);
            perform(a);
            actor_gate_leave(a);
        }
        atomic_store(&slot->since, 0);
        atomic_fetch_add(&a->board->done[a->op], 1);
    }
    a->op = OP_NONE;
    actor_close(&a->own);
    close(a->gate);
    return NULL;
}

/* ---- a process ---- */

static unsigned count_threads(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[200];
    unsigned threads = 0;
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "Threads: %u", &threads) == 1)
            break;
    if (file)
        fclose(file);
    return threads;
}

/* One that was joined may still be seen for a moment. */
static unsigned count_settled_threads(unsigned expected)
{
    unsigned count = count_threads();
    for (int i = 0; i < (expected ? 500 : 20) && count != expected; i++) {
        usleep(1000);
        count = count_threads();
    }
    return count;
}

/* Long enough that others come meanwhile, now and then. */
static void in_compile(void *argument)
{
    struct fake_engine *engine = argument;
    const unsigned n = atomic_load(&engine->compiles);
    if (n % 3 == 0)
        usleep(500 * (n % 7));
}

static void start_process(struct process *p, struct actor *first)
{
    static const unsigned lacking[] = {WC_OS_NO_TMPFILE,   WC_OS_NO_TMPFILE | WC_OS_NO_LINK,
                                       WC_OS_NO_NOREPLACE, WC_OS_NO_PROC,
                                       WC_OS_NO_VIEW,      WC_OS_NO_BYTE_LOCKS};
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    options.flags = WASMCACHE_EXECUTOR_ON_WORKER;
    options.threads = 2;
    wc_os_lacking = actor_one_in(first, 2)
                        ? lacking[actor_below(first, sizeof(lacking) / sizeof(*lacking))]
                        : 0;
    if (first->workload->counting && wc_os_lacking & WC_OS_NO_BYTE_LOCKS)
        wc_os_lacking = 0; /* nobody counts there */
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++) {
        workload_engine_init(&p->engines[e], e);
        p->engines[e].on_compile = in_compile;
        p->engines[e].on_compile_argument = &p->engines[e];
        if (actor_one_in(first, 3))
            p->engines[e].table.module_clone = NULL;
    }
    if (wasmcache_executor_new(&p->executor, &options))
        actor_broken(first, "executor: %s", wasmcache_last_error()->message);
    actor_open(first, &p->shared);
}

static void end_process(struct process *p, struct actor *first)
{
    struct workload_slot *slot = &first->board->slots[p->worker->slot][0];
    atomic_store(&slot->op, OP_OPEN);
    atomic_store(&slot->since, wc_os_monotonic_ns());
    actor_close(&p->shared);
    wasmcache_executor_free(p->executor);
    atomic_store(&slot->since, 0);
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++) {
        const char *complaint = fake_engine_complaint(&p->engines[e]);
        if (complaint)
            actor_broken(first, "%s", complaint);
        free(p->engines[e].handed);
    }
}

/* A sanitizer starts threads of its own with the first one. */
static void *do_nothing(void *argument)
{
    return argument;
}

int worker_run(void *argument)
{
    struct worker *worker = argument;
    static struct process p;
    static struct actor actors[WORKLOAD_THREADS];
    pthread_t threads[WORKLOAD_THREADS];
    const unsigned descriptors = scratch_descriptors();
    unsigned alive, after;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    p.worker = worker;
    for (unsigned t = 0; t < worker->threads; t++) {
        struct actor *a = &actors[t];
        a->process = &p;
        a->workload = worker->workload;
        a->board = worker->workload->board;
        a->index = t;
        a->random = worker->workload->seed + (UINT64_C(1) << 40) * (worker->lives + 1) +
                    UINT64_C(1000) * worker->slot + t;
        (void)workload_random(&a->random);
        a->gate = open_gate(worker->workload);
    }
    if (pthread_create(&threads[0], NULL, do_nothing, NULL))
        actor_broken(&actors[0], "no thread");
    pthread_join(threads[0], NULL);
    alive = count_settled_threads(0);
    start_process(&p, &actors[0]);
    for (unsigned t = 0; t < worker->threads; t++)
        if (pthread_create(&threads[t], NULL, act, &actors[t]))
            actor_broken(&actors[t], "no thread");
    for (unsigned t = 0; t < worker->threads; t++)
        pthread_join(threads[t], NULL);
    end_process(&p, &actors[0]);
    if (scratch_descriptors() != descriptors)
        actor_broken(&actors[0], "%u descriptors at the start, %u at the end", descriptors,
                     scratch_descriptors());
    after = count_settled_threads(alive);
    if (after != alive)
        actor_broken(&actors[0], "%u threads at the start, %u at the end", alive, after);
    return 0;
}
