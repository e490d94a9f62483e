/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many that want the same module at the same time, with a real engine:
 *
 *     once DIR PROCESSES THREADS ROUNDS   how many compile, each round on a key that nobody has
 *     kill DIR ROUNDS                     the leader of four processes is killed at a random moment
 *     stopped DIR ROUNDS                  it is stopped (SIGSTOP) while it compiles
 *     orphan DIR ROUNDS                   it dies while it compiles, and a child that it forked
 *                                         before has its descriptors still
 *     wall DIR WASM PROCESSES ROUNDS      how long a cold start takes, of one process and of many:
 *                                         ours, and the engine's own cache if it has one
 *
 * Each prints one line of JSON. Processes live through all rounds of `once` and `kill`, and meet
 * before each: a key of its own comes of a salt.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <pthread.h>

#include "host.h"

enum { MAX_PROCESSES = 128, MAX_THREADS = 64, MAX_ROUNDS = 100000 };

/* (module (func (export "f") (result i32) i32.const 42)) */
static const uint8_t small[] = {0, 'a', 's',  'm', 1, 0, 0, 0,    1,  5,   1, 0x60,
                                0, 1,   0x7F, 3,   2, 1, 0, 7,    5,  1,   1, 'f',
                                0, 0,   10,   6,   1, 4, 0, 0x41, 42, 0x0B};

/* What the processes share. */
struct board {
    atomic_uint arrived, generation; /* of a barrier */
    atomic_uint compiles;            /* that were begun in this round */
    atomic_uint got, wrong, failed;  /* modules; other ones than one that was asked for; errors */
    atomic_int leader;               /* who began the first */
    _Atomic uint64_t second_ns;      /* when the second was begun */
    atomic_uint waiting;
    int fate; /* enum fate, of who begins the first compile */
    atomic_int orphan;
};

enum fate { FATE_NONE, FATE_STOPPED, FATE_ORPHAN };
/* How long the others wait then. */
enum { LIMIT_MS = 200 };

static struct board *board;

static unsigned number(const char *text, unsigned most)
{
    char *end;
    const unsigned long value = strtoul(text, &end, 10);
    if (*end || !value || value > most)
        die("%s is not a number from 1 to %u", text, most);
    return (unsigned)value;
}

static struct board *board_new(void)
{
    void *bytes =
        mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        die("mmap: %s", strerror(errno));
    return bytes;
}

/* All `count` of them, and then on. */
static void meet(unsigned count)
{
    const unsigned generation = atomic_load(&board->generation);
    if (atomic_fetch_add(&board->arrived, 1) + 1 == count) {
        atomic_store(&board->arrived, 0);
        atomic_fetch_add(&board->generation, 1);
        return;
    }
    while (atomic_load(&board->generation) == generation)
        usleep(100);
}

/* What becomes of a leader, while it has the lock. */
static void meet_fate(void)
{
    pid_t child;
    if (board->fate == FATE_STOPPED)
        raise(SIGSTOP);
    if (board->fate != FATE_ORPHAN)
        return;
    child = fork();
    while (child == 0)
        pause();
    atomic_store(&board->orphan, (int)child);
    raise(SIGKILL);
}

static int count_phase(const wasmcache_progress *progress, void *payload)
{
    (void)payload;
    if (progress->phase == WASMCACHE_PHASE_WAIT)
        atomic_fetch_add(&board->waiting, progress->phase_ns == 0);
    if (progress->phase == WASMCACHE_PHASE_COMPILE) {
        if (atomic_fetch_add(&board->compiles, 1) == 0) {
            atomic_store(&board->leader, (int)getpid());
            meet_fate();
        } else {
            atomic_store(&board->second_ns, now_ns());
        }
    }
    return 0;
}

/* One get of the small module, under a key of this round. */
static void get_small(const struct rig *rig, unsigned round)
{
    const wasmcache_source source = wasmcache_source_bytes(small, sizeof(small));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    options.salt = &round;
    options.salt_length = sizeof(round);
    options.tick = count_phase;
    options.wait_ms = board->fate ? LIMIT_MS : 0;
    if (wasmcache_get(&module, rig->once.wc, WASMCACHE_MODULE, &source, &options, &report))
        atomic_fetch_add(&board->failed, 1);
    else
        atomic_fetch_add(&board->got, 1);
    wasmcache_module_release(module);
}

struct worker {
    const struct rig *rig;
    unsigned rounds;
    pthread_barrier_t *start, *end;
};

static void *work(void *argument)
{
    const struct worker *w = argument;
    for (unsigned round = 1; round <= w->rounds; round++) {
        pthread_barrier_wait(w->start);
        get_small(w->rig, round);
        pthread_barrier_wait(w->end);
    }
    return NULL;
}

static void open_cache(struct rig *rig, const char *dir)
{
    rig_paths(rig, dir, NULL);
    rig->engine = bench_engine.engine_new();
    attached_open(&rig->once, rig, WASMCACHE_VERIFY_ONCE, 0, "bench");
}

static void be_process(const char *dir, unsigned processes, unsigned threads, unsigned rounds)
{
    pthread_barrier_t start, end;
    pthread_t thread[MAX_THREADS];
    struct rig rig;
    struct worker worker = {&rig, rounds, &start, &end};
    open_cache(&rig, dir);
    pthread_barrier_init(&start, NULL, threads + 1);
    pthread_barrier_init(&end, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, work, &worker))
            die("pthread_create failed");
    for (unsigned round = 1; round <= rounds; round++) {
        meet(processes + 1);
        pthread_barrier_wait(&start);
        pthread_barrier_wait(&end);
        meet(processes + 1);
    }
    for (unsigned i = 0; i < threads; i++)
        pthread_join(thread[i], NULL);
    attached_close(&rig.once);
    bench_engine.engine_delete(rig.engine);
}

static pid_t start_process(void (*body)(void *), void *argument)
{
    const pid_t pid = fork();
    if (pid < 0)
        die("fork: %s", strerror(errno));
    if (pid == 0) {
        body(argument);
        _exit(0);
    }
    return pid;
}

/* ---- once ---- */

struct crowd {
    const char *dir;
    unsigned processes, threads, rounds;
};

static void be_one_of_crowd(void *argument)
{
    const struct crowd *c = argument;
    be_process(c->dir, c->processes, c->threads, c->rounds);
}

static int do_once(char **words)
{
    struct crowd c = {words[0], number(words[1], MAX_PROCESSES), number(words[2], MAX_THREADS),
                      number(words[3], MAX_ROUNDS)};
    unsigned exact = 0, most = 0;
    uint64_t compiles = 0;
    int status, failed = 0;
    const uint64_t started = now_ns();
    for (unsigned i = 0; i < c.processes; i++)
        start_process(be_one_of_crowd, &c);
    for (unsigned round = 1; round <= c.rounds; round++) {
        unsigned now;
        atomic_store(&board->compiles, 0);
        meet(c.processes + 1);
        meet(c.processes + 1);
        now = atomic_load(&board->compiles);
        exact += now == 1;
        most = now > most ? now : most;
        compiles += now;
    }
    while (wait(&status) > 0)
        failed |= status;
    printf("{\"engine\":\"%s\",\"processes\":%u,\"threads\":%u,\"rounds\":%u,\"compiles\":%" PRIu64
           ",\"rounds_with_one\":%u,\"most\":%u,\"modules\":%u,\"failed\":%u,\"seconds\":%.1f}\n",
           bench_engine.name, c.processes, c.threads, c.rounds, compiles, exact, most,
           atomic_load(&board->got), atomic_load(&board->failed),
           (double)(now_ns() - started) / 1e9);
    return failed || exact != c.rounds;
}

/* ---- kill ---- */

enum { FOUR = 4 };

struct victim {
    const char *dir;
    unsigned round;
};

/* A process for one round: an engine that compiled before a fork may not do so in a child. */
static void be_victim(void *argument)
{
    const struct victim *v = argument;
    struct rig rig;
    open_cache(&rig, v->dir);
    meet(FOUR + 1);
    get_small(&rig, v->round);
    attached_close(&rig.once);
}

/* Four processes that want the same; the one of them that began to compile it. */
static int start_round(pid_t pids[FOUR], const char *dir, unsigned round, enum fate fate)
{
    struct victim v = {dir, round};
    int leader;
    memset(board, 0, sizeof(*board));
    board->fate = (int)fate;
    for (int i = 0; i < FOUR; i++)
        pids[i] = start_process(be_victim, &v);
    meet(FOUR + 1);
    while (!(leader = atomic_load(&board->leader)))
        usleep(20);
    return leader;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int do_kill(char **words)
{
    const unsigned rounds = number(words[1], MAX_ROUNDS);
    uint64_t *delays = calloc(rounds, sizeof(*delays)), state = now_ns() | 1;
    unsigned killed = 0, replaced = 0, most = 0, stuck = 0;
    if (!delays)
        die("no memory");
    for (unsigned round = 1; round <= rounds; round++) {
        pid_t pids[FOUR];
        uint64_t kill_ns;
        const int leader = start_round(pids, words[0], round, FATE_NONE);
        /* From right after it began to compile to after it let go. */
        state = state * UINT64_C(6364136223846793005) + 1;
        usleep((useconds_t)((state >> 33) % 1500));
        kill_ns = now_ns();
        kill(leader, SIGKILL);
        for (int i = 0; i < FOUR; i++) {
            int status;
            waitpid(pids[i], &status, 0);
            if (pids[i] == leader)
                killed += WIFSIGNALED(status);
            else
                stuck += status != 0;
        }
        if (atomic_load(&board->compiles) > 1)
            delays[replaced++] = atomic_load(&board->second_ns) - kill_ns;
        if (atomic_load(&board->compiles) - 1 > most)
            most = atomic_load(&board->compiles) - 1;
    }
    qsort(delays, replaced, sizeof(*delays), by_value);
    printf("{\"engine\":\"%s\",\"rounds\":%u,\"killed\":%u,\"replaced\":%u,\"most_more\":%u,"
           "\"failed\":%u,\"replaced_after_ms\":{\"median\":%.1f,\"most\":%.1f}}\n",
           bench_engine.name, rounds, killed, replaced, most, stuck,
           replaced ? (double)delays[replaced / 2] / 1e6 : 0,
           replaced ? (double)delays[replaced - 1] / 1e6 : 0);
    free(delays);
    return most > 1 || stuck;
}

/* ---- stopped, orphan ---- */

static int do_fate(char **words, enum fate fate)
{
    const unsigned rounds = number(words[1], MAX_ROUNDS);
    uint64_t *times = calloc(rounds, sizeof(*times));
    unsigned most = 0, exact = 0, failed = 0;
    if (!times)
        die("no memory");
    for (unsigned round = 1; round <= rounds; round++) {
        pid_t pids[FOUR];
        const int leader = start_round(pids, words[0], round, fate);
        const uint64_t started = now_ns();
        unsigned more;
        int status;
        for (int i = 0; i < FOUR; i++)
            if (pids[i] != leader) {
                waitpid(pids[i], &status, 0);
                failed += status != 0;
            }
        times[round - 1] = now_ns() - started;
        more = atomic_load(&board->compiles) - 1;
        exact += more == 1;
        most = more > most ? more : most;
        if (fate == FATE_STOPPED)
            kill(leader, SIGCONT);
        else
            kill(atomic_load(&board->orphan), SIGKILL);
        waitpid(leader, &status, 0);
        failed += fate == FATE_STOPPED && status != 0;
        /* All that lived have a module; of an orphan's parent there is none. */
        failed += atomic_load(&board->got) != (fate == FATE_STOPPED ? FOUR : FOUR - 1);
    }
    qsort(times, rounds, sizeof(*times), by_value);
    printf("{\"engine\":\"%s\",\"leader\":\"%s\",\"rounds\":%u,\"limit_ms\":%d,"
           "\"rounds_with_one_more\":%u,\"most_more\":%u,\"failed\":%u,"
           "\"others_done_after_ms\":{\"median\":%.1f,\"most\":%.1f}}\n",
           bench_engine.name, fate == FATE_STOPPED ? "stopped" : "dead, its child alive", rounds,
           LIMIT_MS, exact, most, failed, (double)times[rounds / 2] / 1e6,
           (double)times[rounds - 1] / 1e6);
    free(times);
    return most > 1 || failed;
}

static int do_stopped(char **words)
{
    return do_fate(words, FATE_STOPPED);
}

static int do_orphan(char **words)
{
    return do_fate(words, FATE_ORPHAN);
}

/* ---- wall ---- */

struct start {
    const char *dir, *wasm;
    unsigned processes;
    int own; /* the engine's own cache */
};

static void be_cold(void *argument)
{
    const struct start *s = argument;
    void *module = NULL, *error = NULL;
    struct bytes wasm = read_file(s->wasm);
    struct rig rig;
    rig_paths(&rig, s->dir, s->wasm);
    if (s->own) {
        rig.with_cache = bench_engine.engine_with_cache(rig.own_config);
        meet(s->processes + 1);
        if (rig.table->compile(rig.with_cache, WASMCACHE_MODULE, wasm.data, wasm.size, &module,
                               &error))
            die("compile failed");
    } else {
        const wasmcache_source source = wasmcache_source_bytes(wasm.data, wasm.size);
        open_cache(&rig, s->dir);
        meet(s->processes + 1);
        if (wasmcache_get_native(&module, &error, rig.once.wc, WASMCACHE_MODULE, &source, NULL,
                                 NULL))
            die("get failed");
    }
    meet(s->processes + 1); /* it has its module */
    _exit(0);
}

static double cold_start(const char *dir, const char *wasm, unsigned processes, int own)
{
    struct start s = {dir, wasm, processes, own};
    char command[4096];
    uint64_t started, ended;
    snprintf(command, sizeof(command), "rm -rf '%s/cache' '%s/own'; mkdir -p '%s/own'", dir, dir,
             dir);
    if (system(command))
        die("%s failed", command);
    memset(board, 0, sizeof(*board));
    for (unsigned i = 0; i < processes; i++)
        start_process(be_cold, &s);
    meet(processes + 1);
    started = now_ns();
    meet(processes + 1);
    ended = now_ns();
    while (wait(NULL) > 0)
        ;
    return (double)(ended - started) / 1e6;
}

static int by_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof(*values), by_double);
    return values[count / 2];
}

static int do_wall(char **words)
{
    const unsigned processes = number(words[2], MAX_PROCESSES), rounds = number(words[3], 1000);
    const int own = bench_engine.engine_with_cache != NULL;
    static double one[1000], many[1000], ratio[1000], own_one[1000], own_many[1000];
    struct rig rig;
    rig_paths(&rig, words[0], words[1]);
    if (own) {
        char text[2200];
        struct bytes bytes = {(uint8_t *)text, 0};
        unlink(rig.own_config);
        bytes.size =
            (size_t)snprintf(text, sizeof(text), "[cache]\ndirectory = \"%s\"\n", rig.own_dir);
        write_file(rig.own_config, bytes);
    }
    for (unsigned i = 0; i < rounds; i++) {
        one[i] = cold_start(words[0], words[1], 1, 0);
        many[i] = cold_start(words[0], words[1], processes, 0);
        ratio[i] = many[i] / one[i];
        if (own) {
            own_one[i] = cold_start(words[0], words[1], 1, 1);
            own_many[i] = cold_start(words[0], words[1], processes, 1);
        }
    }
    printf("{\"engine\":\"%s\",\"processes\":%u,\"rounds\":%u,\"ratio\":%.3f,\"one_ms\":%.1f,"
           "\"many_ms\":%.1f",
           bench_engine.name, processes, rounds, median(ratio, rounds), median(one, rounds),
           median(many, rounds));
    if (own)
        printf(",\"own_one_ms\":%.1f,\"own_many_ms\":%.1f", median(own_one, rounds),
               median(own_many, rounds));
    printf("}\n");
    return 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int words;
        int (*run)(char **words);
    } commands[] = {{"once", 4, do_once},
                    {"kill", 2, do_kill},
                    {"stopped", 2, do_stopped},
                    {"orphan", 2, do_orphan},
                    {"wall", 4, do_wall}};
    board = board_new();
    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(argv[1], commands[i].name) == 0 && argc - 2 == commands[i].words) {
            if (mkdir(argv[2], 0700) && errno != EEXIST)
                die("mkdir %s: %s", argv[2], strerror(errno));
            return commands[i].run(argv + 2);
        }
    fprintf(stderr, "usage: bench-crowd-%s WORD...: see the top of bench/crowd.c\n",
            bench_engine.name);
    return 2;
}
