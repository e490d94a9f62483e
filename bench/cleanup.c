/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A clean-up of many entries, and what hits feel of it:
 *
 *     bench-cleanup DIR ENTRIES [ROUNDS=3]
 *
 * Makes so many entries of 1 to 15 KiB with an engine on paper, one of which a process loads over
 * and over, all the time. Another process, which has done nothing else, prunes to half of what is
 * there, and again, in as many rounds; its memory is the most that it ever had (VmHWM). Hits of the
 * pause before a round are compared with those during it. They are the cache's own part of a hit
 * and little else: no engine's load hides what that costs more.
 *
 * Another thing than the clean-up that takes a core costs a hit something too, since cores share
 * what they have. So there are also rounds in which the other process only computes: `spin`.
 *
 * Prints a line of JSON; the exit status is 1 if a bar was missed: 64 MiB, and a ratio of the two
 * medians of 1.2, of which the rounds' median counts.
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
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"
#include "host_paper.h"

enum { MAX_ENTRIES = 10000000, MAX_ROUNDS = 20, MAX_HITS = 4000000, HOT = 1 };
enum { REST_SECONDS = 2, MAKERS = 2, PEAK_KIB = 64 * 1024 };

/* What happens while hits are timed. */
enum phase { REST, BUSY, PHASES };

struct board {
    atomic_int phase, stop;
    atomic_uint ready, failed_hits;
    atomic_uint count[PHASES];
    uint32_t ns[PHASES][MAX_HITS];
    /* Of the last clean-up. */
    uint64_t removed, left, failed, peak_kib, took_ns;
};

static struct board *board;

/* ---- a cache of ours ---- */

struct opened {
    void *engine;
    wasmcache *cache;
    wasmcache_attachment *wc;
};

static void open_cache(struct opened *o, const char *dir)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = dir;
    options.max_bytes = WASMCACHE_UNLIMITED;
    options.evict_after_seconds = 1;
    o->engine = bench_engine.engine_new();
    if (wasmcache_open(&o->cache, &options))
        die("%s", wasmcache_last_error()->message);
    o->wc = bench_engine.attach(o->cache, o->engine, "bench");
    if (!o->wc)
        die("%s", wasmcache_last_error()->message);
}

static void close_cache(struct opened *o)
{
    wasmcache_detach(o->wc);
    wasmcache_close(o->cache);
    bench_engine.engine_delete(o->engine);
}

static void key_of(wasmcache_key *key, uint64_t id)
{
    uint8_t wasm[PAPER_WASM];
    paper_wasm(wasm, id);
    if (wasmcache_key_from_bytes(key, WASMCACHE_KEY_SHA256, wasm, sizeof(wasm)))
        die("%s", wasmcache_last_error()->message);
}

static pid_t start(void (*body)(const char *dir, unsigned number), const char *dir, unsigned number)
{
    const pid_t pid = fork();
    if (pid < 0)
        die("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        body(dir, number);
        _exit(0);
    }
    return pid;
}

static void wait_for(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid || status)
        die("a process ended with %d", status);
}

/* ---- entries ---- */

static unsigned entries;

static void make_part(const char *dir, unsigned number)
{
    struct opened o;
    open_cache(&o, dir);
    for (uint64_t id = HOT + number; id <= entries; id += MAKERS) {
        wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
        void *native = paper_module(id);
        wasmcache_key key;
        key_of(&key, id);
        /* All kinds of worth; none is as dear for its size as the one that is loaded. */
        options.compile_ns = id == HOT ? UINT64_C(1000000000000) : 1000000 + id * 7919 % 1000000000;
        if (wasmcache_save(o.wc, WASMCACHE_MODULE, &key, native, &options, NULL))
            die("%s", wasmcache_last_error()->message);
        bench_engine.table()->module_free(WASMCACHE_MODULE, native);
    }
    close_cache(&o);
}

static void make(const char *dir)
{
    pid_t pids[MAKERS];
    for (unsigned i = 0; i < MAKERS; i++)
        pids[i] = start(make_part, dir, i);
    for (unsigned i = 0; i < MAKERS; i++)
        wait_for(pids[i]);
}

/* ---- hits ---- */

static void be_loader(const char *dir, unsigned number)
{
    struct opened o;
    wasmcache_key key;
    (void)number;
    open_cache(&o, dir);
    key_of(&key, HOT);
    for (unsigned hits = 0; !atomic_load(&board->stop); hits++) {
        const int phase = atomic_load(&board->phase);
        const uint64_t started = now_ns();
        wasmcache_module *module = NULL;
        const int rc = wasmcache_load(&module, o.wc, WASMCACHE_MODULE, &key, NULL);
        const uint64_t ns = now_ns() - started;
        const unsigned at = atomic_load(&board->count[phase]);
        if (rc || paper_id(wasmcache_module_native(module)) != HOT)
            atomic_fetch_add(&board->failed_hits, 1);
        wasmcache_module_release(module);
        if (at < MAX_HITS) {
            board->ns[phase][at] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
            atomic_store(&board->count[phase], at + 1);
        }
        if (hits == 1000)
            atomic_store(&board->ready, 1);
    }
    close_cache(&o);
}

static int by_value(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static double median_us(enum phase phase)
{
    const unsigned count = atomic_load(&board->count[phase]);
    if (!count)
        die("no hit was timed");
    qsort(board->ns[phase], count, sizeof(*board->ns[phase]), by_value);
    return board->ns[phase][count / 2] / 1e3;
}

/* ---- the other process ---- */

static uint64_t peak_kib(void)
{
    unsigned long long kib = 0;
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmHWM: %llu", &kib) == 1)
            break;
    if (!file || !kib)
        die("/proc/self/status does not say VmHWM");
    fclose(file);
    return kib;
}

static void be_cleaner(const char *dir, unsigned number)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_prune_options prune = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    const uint64_t started = now_ns();
    wasmcache *cache;
    (void)number;
    options.dir = dir;
    options.max_bytes = WASMCACHE_UNLIMITED;
    options.evict_after_seconds = 1;
    prune.max_entries = (board->left + 1) / 2;
    if (wasmcache_open(&cache, &options) || wasmcache_prune(cache, &prune, &result))
        die("%s", wasmcache_last_error()->message);
    wasmcache_close(cache);
    board->took_ns = now_ns() - started;
    board->removed += result.removed_entries;
    board->left = result.left_entries;
    board->failed += result.failed;
    board->peak_kib = peak_kib();
}

static void be_spinner(const char *dir, unsigned number)
{
    const uint64_t until = now_ns() + REST_SECONDS * UINT64_C(1000000000);
    (void)dir;
    (void)number;
    while (now_ns() < until)
        ;
}

struct round {
    double before_us, busy_us, ratio;
    unsigned hits;
};

static void run_round(struct round *out, void (*body)(const char *, unsigned), const char *dir)
{
    atomic_store(&board->count[REST], 0);
    atomic_store(&board->count[BUSY], 0);
    sleep(REST_SECONDS);
    atomic_store(&board->phase, BUSY);
    wait_for(start(body, dir, 0));
    atomic_store(&board->phase, REST);
    usleep(10000); /* the one that is under way */
    out->before_us = median_us(REST);
    out->busy_us = median_us(BUSY);
    out->ratio = out->busy_us / out->before_us;
    out->hits = atomic_load(&board->count[BUSY]);
}

static int by_ratio(const void *a, const void *b)
{
    const double x = ((const struct round *)a)->ratio, y = ((const struct round *)b)->ratio;
    return x < y ? -1 : x > y;
}

static unsigned number(const char *text, unsigned most)
{
    char *end;
    const unsigned long value = strtoul(text, &end, 10);
    if (*end || !value || value > most)
        die("%s is not a number from 1 to %u", text, most);
    return (unsigned)value;
}

int main(int argc, char **argv)
{
    struct round cleanups[MAX_ROUNDS], spins[MAX_ROUNDS];
    const char *dir = argv[1];
    uint64_t peak = 0, made_ns, first_ns = 0;
    unsigned rounds, hits = 0;
    int missed;
    pid_t loader;

    if (argc != 3 && argc != 4) {
        fprintf(stderr, "usage: bench-cleanup DIR ENTRIES [ROUNDS]: see bench/cleanup.c\n");
        return 2;
    }
    entries = number(argv[2], MAX_ENTRIES);
    rounds = argc > 3 ? number(argv[3], MAX_ROUNDS) : 3;
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        die("mmap: %s", strerror(errno));
    made_ns = now_ns();
    make(dir);
    made_ns = now_ns() - made_ns;
    board->left = entries;
    sleep(REST_SECONDS); /* so that all may go, and stamps can be made */
    loader = start(be_loader, dir, 0);
    while (!atomic_load(&board->ready))
        usleep(1000);
    for (unsigned i = 0; i < rounds; i++) {
        run_round(&spins[i], be_spinner, dir);
        run_round(&cleanups[i], be_cleaner, dir);
        first_ns = i ? first_ns : board->took_ns;
        peak = board->peak_kib > peak ? board->peak_kib : peak;
        hits += cleanups[i].hits;
    }
    atomic_store(&board->stop, 1);
    wait_for(loader);
    qsort(cleanups, rounds, sizeof(*cleanups), by_ratio);
    qsort(spins, rounds, sizeof(*spins), by_ratio);
    missed = peak >= PEAK_KIB || cleanups[rounds / 2].ratio > 1.2 || board->failed_hits ||
             board->failed || board->removed + board->left != entries;
    printf("{\"entries\":%u,\"make_seconds\":%.0f,\"rounds\":%u,\"removed\":%" PRIu64
           ",\"left\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"first_seconds\":%.1f"
           ",\"peak_kib\":%" PRIu64 ",\"hit_us\":{\"before\":%.1f,\"meanwhile\":%.1f}"
           ",\"ratio\":{\"median\":%.3f,\"most\":%.3f},\"spin\":{\"median\":%.3f,\"most\":%.3f}"
           ",\"hits\":%u,\"failed_hits\":%u,\"bar\":\"%s\"}\n",
           entries, (double)made_ns / 1e9, rounds, board->removed, board->left, board->failed,
           (double)first_ns / 1e9, peak, cleanups[rounds / 2].before_us,
           cleanups[rounds / 2].busy_us, cleanups[rounds / 2].ratio, cleanups[rounds - 1].ratio,
           spins[rounds / 2].ratio, spins[rounds - 1].ratio, hits, atomic_load(&board->failed_hits),
           missed ? "MISSED" : "ok");
    return missed;
}
