/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many processes that save into a full cache all the time:
 *
 *     bench-writers DIR SECONDS [PROCESSES=16]
 *
 * Each asks for modules by Zipf's law (1.0, of 200,000), in turn by wasmcache_get(), which saves on
 * a miss, and by wasmcache_load() and wasmcache_save(). The engine is on paper, so that nothing is
 * done but loading, saving and evicting: entries of 1 to 15 KiB, no compile. An entry may go a
 * second after it was saved, the least that can be asked for.
 *
 * One more process, which knows nothing of the library, adds up the sizes of all files in the
 * directory, ten times a second. What is removed and what comes while it walks is both in the sum,
 * so it can be too large, which only makes the bar harder: the limit, 5 %, and one entry for each
 * process.
 *
 * A hit that fails is a load that finds an entry and cannot use it, whatever the reason: what is
 * evicted under a load must still be loaded, or be a plain miss. Prints a line of JSON; the exit
 * status is 1 if the bar was missed, a hit failed or a module was another one than was asked for.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host.h"
#include "host_paper.h"

enum { MODULES = 200000, MAX_PROCESSES = 128, HUNDRED_MS = 100000, PAPER_TRAILER = 512 };

static const uint64_t budget = UINT64_C(64) << 20;

/* What the processes share. */
struct board {
    atomic_int stop;
    atomic_ullong hits, misses, failed_hits, wrong, saves, full, busy, save_failures;
    atomic_ullong longest_ns; /* of one get, load or save */
    /* The observer's. */
    uint64_t most, walks;
};

static struct board *board;
static double *zipf; /* sums, by rank */

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static uint64_t module_next(uint64_t *state)
{
    const double at = (double)(random_next(state) >> 11) / 9007199254740992.0 * zipf[MODULES - 1];
    unsigned low = 0, high = MODULES - 1;
    while (low < high) {
        const unsigned middle = (low + high) / 2;
        if (zipf[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* ---- a writer ---- */

struct writer {
    void *engine;
    wasmcache *cache;
    wasmcache_attachment *wc;
    uint64_t state;
};

static void open_cache(struct writer *w, const char *dir)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = dir;
    options.max_bytes = budget;
    options.evict_after_seconds = 1;
    w->engine = bench_engine.engine_new();
    if (wasmcache_open(&w->cache, &options))
        die("%s", wasmcache_last_error()->message);
    w->wc = bench_engine.attach(w->cache, w->engine, "bench");
    if (!w->wc)
        die("%s", wasmcache_last_error()->message);
}

static void close_cache(struct writer *w)
{
    wasmcache_detach(w->wc);
    wasmcache_close(w->cache);
    bench_engine.engine_delete(w->engine);
}

static void note_time(uint64_t started)
{
    const uint64_t ns = now_ns() - started;
    unsigned long long longest = atomic_load(&board->longest_ns);
    while (ns > longest && !atomic_compare_exchange_weak(&board->longest_ns, &longest, ns))
        ;
}

static void note_failed(const char *what, wasmcache_reason reason, int rc)
{
    const unsigned long long before = atomic_fetch_add(&board->failed_hits, 1);
    if (before < 10)
        fprintf(stderr, "%s failed: %s, %d: %s\n", what, wasmcache_reason_name(reason), rc,
                rc ? wasmcache_last_error()->message : "");
}

static void note_save(int rc)
{
    if (rc == 0)
        atomic_fetch_add(&board->saves, 1);
    else if (rc == WASMCACHE_EFULL)
        atomic_fetch_add(&board->full, 1);
    else if (rc == WASMCACHE_EBUSY)
        atomic_fetch_add(&board->busy, 1);
    else if (atomic_fetch_add(&board->save_failures, 1) < 10)
        fprintf(stderr, "a save failed: %d\n", rc);
}

static void take(wasmcache_module *module, uint64_t id)
{
    if (paper_id(wasmcache_module_native(module)) != id)
        atomic_fetch_add(&board->wrong, 1);
    wasmcache_module_release(module);
}

static void get(struct writer *w, uint64_t id)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    wasmcache_source source;
    uint8_t wasm[PAPER_WASM];
    const int rc = (paper_wasm(wasm, id), source = wasmcache_source_bytes(wasm, sizeof(wasm)),
                    wasmcache_get(&module, w->wc, WASMCACHE_MODULE, &source, NULL, &report));
    if (rc) {
        note_failed("a get", report.reason, rc);
        return;
    }
    take(module, id);
    if (report.outcome == WASMCACHE_HIT) {
        atomic_fetch_add(&board->hits, 1);
        return;
    }
    if (report.reason == WASMCACHE_REASON_NOT_FOUND)
        atomic_fetch_add(&board->misses, 1);
    else
        note_failed("a hit", report.reason, 0);
    note_save(report.save_error);
}

static void load_and_save(struct writer *w, uint64_t id)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    wasmcache_module *module = NULL;
    wasmcache_key key;
    uint8_t wasm[PAPER_WASM];
    void *native;
    int rc;
    paper_wasm(wasm, id);
    if (wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, wasm, sizeof(wasm)))
        die("%s", wasmcache_last_error()->message);
    rc = wasmcache_load(&module, w->wc, WASMCACHE_MODULE, &key, &report);
    if (rc == 0) {
        atomic_fetch_add(&board->hits, 1);
        take(module, id);
        return;
    }
    if (rc == WASMCACHE_EMISS && report.reason == WASMCACHE_REASON_NOT_FOUND)
        atomic_fetch_add(&board->misses, 1);
    else
        note_failed("a load", report.reason, rc);
    options.compile_ns = 1000000 + random_next(&w->state) % 100000000;
    native = paper_module(id);
    note_save(wasmcache_save(w->wc, WASMCACHE_MODULE, &key, native, &options, NULL));
    bench_engine.table()->module_free(WASMCACHE_MODULE, native);
}

static void be_writer(const char *dir, unsigned number)
{
    struct writer w = {.state = UINT64_C(88172645463325252) * (2 * number + 1)};
    open_cache(&w, dir);
    while (!atomic_load(&board->stop)) {
        const uint64_t id = module_next(&w.state), started = now_ns();
        if (random_next(&w.state) >> 63)
            get(&w, id);
        else
            load_and_save(&w, id);
        note_time(started);
    }
    close_cache(&w);
}

/* To the limit, with what is asked for least. */
static void fill(const char *dir)
{
    struct writer w = {.state = 1};
    uint64_t bytes = 0;
    open_cache(&w, dir);
    for (uint64_t id = MODULES; bytes < budget && id-- > 0; bytes += paper_size(id) + PAPER_TRAILER)
        load_and_save(&w, id);
    close_cache(&w);
}

/* ---- who looks on ---- */

/* The entries, and what is on its way to be one or to be none, in all folders. */
static uint64_t bytes_below(const char *dir, int depth)
{
    uint64_t bytes = 0;
    const struct dirent *entry;
    DIR *list = opendir(dir);
    while (list && (entry = readdir(list))) {
        struct stat st;
        char path[2048];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (depth && entry->d_type == DT_REG) { /* tally and hints lie beside the folders */
            if (fstatat(dirfd(list), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
                bytes += (uint64_t)st.st_size;
        } else if (entry->d_type == DT_DIR) {
            snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
            bytes += bytes_below(path, depth + 1);
        }
    }
    if (list)
        closedir(list);
    return bytes;
}

static void be_observer(const char *dir)
{
    while (!atomic_load(&board->stop)) {
        const uint64_t now = bytes_below(dir, 0);
        if (now > board->most)
            board->most = now;
        board->walks++;
        usleep(HUNDRED_MS);
    }
}

/* ---- all ---- */

static void make_zipf(void)
{
    double sum = 0;
    zipf = malloc(MODULES * sizeof(*zipf));
    if (!zipf)
        die("no memory");
    for (unsigned i = 0; i < MODULES; i++)
        zipf[i] = sum += 1 / (double)(i + 1);
}

static void start(const char *dir, unsigned processes)
{
    for (unsigned i = 0; i <= processes; i++) {
        const pid_t pid = fork();
        if (pid < 0)
            die("fork: %s", strerror(errno));
        if (pid)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (i == processes)
            be_observer(dir);
        else
            be_writer(dir, i + 1);
        _exit(0);
    }
}

/* What the library itself counted. */
static wasmcache_stats stats_of(const char *dir)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    struct writer w = {.state = 1};
    open_cache(&w, dir);
    if (wasmcache_stats_read(w.cache, WASMCACHE_STATS_DIRECTORY, &stats))
        die("%s", wasmcache_last_error()->message);
    close_cache(&w);
    return stats;
}

int main(int argc, char **argv)
{
    const unsigned seconds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
    const unsigned processes = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 16;
    const uint64_t bound =
        budget + budget / 20 + (uint64_t)processes * (PAPER_SIZE_MAX + PAPER_TRAILER);
    wasmcache_stats stats;
    uint64_t left;
    int status, failed = 0;
    if (!seconds || !processes || processes > MAX_PROCESSES || argc > 4) {
        fprintf(stderr, "usage: bench-writers DIR SECONDS [PROCESSES]: see bench/writers.c\n");
        return 2;
    }
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (board == MAP_FAILED)
        die("mmap: %s", strerror(errno));
    make_zipf();
    fill(argv[1]);
    start(argv[1], processes);
    sleep(seconds);
    atomic_store(&board->stop, 1);
    while (wait(&status) > 0)
        failed |= status;
    failed |= board->most > bound || !board->most || board->failed_hits || board->wrong ||
              board->save_failures;
    stats = stats_of(argv[1]);
    left = bytes_below(argv[1], 0);
    printf("{\"processes\":%u,\"seconds\":%u,\"budget\":%" PRIu64 ",\"bound\":%" PRIu64
           ",\"most_seen\":%" PRIu64 ",\"at_the_end\":%" PRIu64 ",\"tally\":%" PRIu64
           ",\"walks\":%" PRIu64
           ",\"hits\":%llu,\"misses\":%llu,\"failed_hits\":%llu,\"wrong\":%llu,\"saves\":%llu"
           ",\"evictions\":%" PRIu64 ",\"not_saved\":{\"full\":%llu,\"busy\":%llu,\"failed\":%llu}"
           ",\"longest_ms\":%.0f,\"bar\":\"%s\"}\n",
           processes, seconds, budget, bound, board->most, left, stats.bytes, board->walks,
           board->hits, board->misses, board->failed_hits, board->wrong, board->saves,
           stats.evictions, board->full, board->busy, board->save_failures,
           (double)board->longest_ns / 1e6, failed ? "MISSED" : "ok");
    return failed != 0;
}
