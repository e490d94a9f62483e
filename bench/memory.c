/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-memory-ENGINE DIR WASM ROUNDS MS: what a hit in memory costs, and how many there are.
 *
 * A hit is a get with the caller's digest and the release of what it gave. Each of the ROUNDS has a
 * batch of hits on one thread for each of: without a report, with one, by wasmcache_load(); and
 * then 1, 2, 4 and 8 threads that do nothing else for MS milliseconds, on one module and on 64.
 * Prints one JSON object:
 *
 *     hit, hit_report, load    nanoseconds of one, on one thread
 *     one, many                by the number of threads
 *       cpu_ns                 of processor time a hit, all rounds
 *       full                   in how many rounds the threads had, of as many processors as they
 *                              can use, 90 % or more to themselves: on a machine that others use
 *                              the rest says nothing of us. Of these:
 *       per_second             hits of all threads
 *       times_one              its median over that of one thread
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

enum { BATCH = 2000, MODULES = 64, SIZES = 4, MAX_THREADS = 8, MAX_ROUNDS = 1000 };

static const unsigned sizes[SIZES] = {1, 2, 4, MAX_THREADS};

static wasmcache_attachment *wc;
static uint8_t digests[MODULES][32];

static unsigned number(const char *text, unsigned most)
{
    char *end;
    const unsigned long value = strtoul(text, &end, 10);
    if (*end || !value || value > most)
        die("%s is not a number from 1 to %u", text, most);
    return (unsigned)value;
}

/* ---- hits ---- */

static void hit(unsigned which)
{
    const wasmcache_source source = wasmcache_source_sha256(digests[which], NULL, NULL);
    wasmcache_module *module;
    if (wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL))
        die("%s", wasmcache_last_error()->message);
    wasmcache_module_release(module);
}

static void hit_report(unsigned which)
{
    const wasmcache_source source = wasmcache_source_sha256(digests[which], NULL, NULL);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module;
    if (wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, &report))
        die("%s", wasmcache_last_error()->message);
    if (!report.in_memory)
        die("no hit in memory: %s", wasmcache_outcome_name(report.outcome));
    wasmcache_module_release(module);
}

static void hit_load(unsigned which)
{
    wasmcache_module *module;
    wasmcache_key key;
    if (wasmcache_key_from_digest(&key, WASMCACHE_KEY_SHA256, digests[which], 32) ||
        wasmcache_load(&module, wc, WASMCACHE_MODULE, &key, NULL))
        die("%s", wasmcache_last_error()->message);
    wasmcache_module_release(module);
}

static double time_batch(void (*one)(unsigned))
{
    const uint64_t started = now_ns();
    for (unsigned i = 0; i < BATCH; i++)
        one(0);
    return (double)(now_ns() - started) / BATCH;
}

/* ---- rates ---- */

/* Each on lines of its own: threads that count side by side would be measured with it. */
struct worker {
    _Alignas(128) unsigned first;
    unsigned modules;
    uint64_t hits, cpu_ns, started, ended;
    pthread_t thread;
};

static atomic_bool stopped;
static pthread_barrier_t start;

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *work(void *argument)
{
    struct worker *w = argument;
    uint64_t hits = 0, used;
    pthread_barrier_wait(&start);
    w->started = now_ns();
    used = cpu_ns();
    while (!atomic_load_explicit(&stopped, memory_order_relaxed))
        for (unsigned i = 0; i < 64; i++, hits++)
            hit((w->first + i) % w->modules);
    w->hits = hits;
    w->cpu_ns = cpu_ns() - used;
    w->ended = now_ns();
    return NULL;
}

struct rate {
    double per_second, cpu_ns, share;
};

/* From the first that begins to the last that ends: on a busy machine some come late. */
static struct rate measure(unsigned threads, unsigned modules, unsigned ms)
{
    const struct timespec time = {ms / 1000, (long)(ms % 1000) * 1000000};
    const unsigned cpus = (unsigned)sysconf(_SC_NPROCESSORS_ONLN);
    static struct worker workers[MAX_THREADS];
    uint64_t hits = 0, cpu = 0, started = UINT64_MAX, ended = 0;
    double span;
    atomic_store(&stopped, 0);
    pthread_barrier_init(&start, NULL, threads + 1);
    for (unsigned i = 0; i < threads; i++) {
        workers[i].first = i * MODULES / MAX_THREADS;
        workers[i].modules = modules;
        if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
            die("pthread_create failed");
    }
    pthread_barrier_wait(&start);
    nanosleep(&time, NULL);
    atomic_store(&stopped, 1);
    for (unsigned i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
        hits += workers[i].hits;
        cpu += workers[i].cpu_ns;
        started = workers[i].started < started ? workers[i].started : started;
        ended = workers[i].ended > ended ? workers[i].ended : ended;
    }
    pthread_barrier_destroy(&start);
    span = (double)(ended - started);
    return (struct rate){(double)hits * 1e9 / span, (double)cpu / (double)hits,
                         (double)cpu / span / (threads < cpus ? threads : cpus)};
}

/* ---- the cache ---- */

/* The same module under many keys, each in memory. */
static void fill(const struct rig *rig)
{
    void *native = NULL, *error = NULL;
    if (rig->table->compile(rig->engine, WASMCACHE_MODULE, rig->wasm.data, rig->wasm.size, &native,
                            &error))
        die("compile failed");
    for (unsigned i = 0; i < MODULES; i++) {
        wasmcache_key key;
        /* Keys are hashes: where they lie in a table is what they are taken for. */
        const unsigned salt = i + 1;
        if (wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, &salt, sizeof(salt)) ||
            wasmcache_save(wc, WASMCACHE_MODULE, &key, native, NULL, NULL))
            die("save: %s", wasmcache_last_error()->message);
        memcpy(digests[i], key.bytes, sizeof(digests[i]));
        hit(i);
        hit_report(i);
    }
    module_free(rig, native);
}

static wasmcache *open_cache(struct rig *rig, const char *dir, const char *wasm)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache *cache;
    rig_paths(rig, dir, wasm);
    rig->wasm = read_file(wasm);
    rig->engine = bench_engine.engine_new();
    options.dir = rig->cache_dir;
    options.memory_modules = MODULES;
    if (wasmcache_open(&cache, &options))
        die("%s", wasmcache_last_error()->message);
    wc = bench_engine.attach(cache, rig->engine, "bench");
    if (!wc)
        die("%s", wasmcache_last_error()->message);
    return cache;
}

/* ---- what is printed ---- */

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print_spread(const char *name, double *values, unsigned count, int digits)
{
    qsort(values, count, sizeof(*values), by_value);
    printf("\"%s\":{\"median\":%.*f,\"least\":%.*f,\"most\":%.*f}", name, digits, values[count / 2],
           digits, values[0], digits, values[count - 1]);
}

static void print_rates(const char *name, struct rate (*rates)[MAX_ROUNDS], unsigned rounds)
{
    static double cpu[MAX_ROUNDS], full[MAX_ROUNDS];
    double one = 0;
    printf(",\"%s\":{", name);
    for (unsigned s = 0; s < SIZES; s++) {
        unsigned count = 0;
        for (unsigned i = 0; i < rounds; i++) {
            cpu[i] = rates[s][i].cpu_ns;
            if (rates[s][i].share >= 0.9)
                full[count++] = rates[s][i].per_second;
        }
        printf("%s\"%u\":{", s ? "," : "", sizes[s]);
        print_spread("cpu_ns", cpu, rounds, 1);
        printf(",\"full\":%u", count);
        if (count) {
            putchar(',');
            print_spread("per_second", full, count, 0);
            one = s ? one : full[count / 2];
        }
        if (count && one > 0)
            printf(",\"times_one\":%.2f", full[count / 2] / one);
        putchar('}');
    }
    putchar('}');
}

static void run(unsigned rounds, unsigned ms)
{
    static const struct {
        const char *name;
        void (*one)(unsigned);
    } kinds[] = {{"hit", hit}, {"hit_report", hit_report}, {"load", hit_load}};
    static double ns[3][MAX_ROUNDS];
    static struct rate one[SIZES][MAX_ROUNDS], many[SIZES][MAX_ROUNDS];

    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned k = 0; k < 3; k++)
            ns[k][i] = time_batch(kinds[k].one);
        for (unsigned s = 0; s < SIZES; s++) {
            one[s][i] = measure(sizes[s], 1, ms);
            many[s][i] = measure(sizes[s], MODULES, ms);
        }
    }
    printf("{\"engine\":\"%s\",\"rounds\":%u,\"batch\":%d,\"ms\":%u", bench_engine.name, rounds,
           (int)BATCH, ms);
    for (unsigned k = 0; k < 3; k++) {
        putchar(',');
        print_spread(kinds[k].name, ns[k], rounds, 1);
    }
    print_rates("one", one, rounds);
    print_rates("many", many, rounds);
    puts("}");
}

int main(int argc, char **argv)
{
    struct rig rig;
    wasmcache *cache;
    if (argc != 5) {
        fprintf(stderr, "usage: bench-memory-%s DIR WASM ROUNDS MS\n", bench_engine.name);
        return 2;
    }
    if (mkdir(argv[1], 0700) && errno != EEXIST)
        die("mkdir %s: %s", argv[1], strerror(errno));
    cache = open_cache(&rig, argv[1], argv[2]);
    fill(&rig);
    run(number(argv[3], MAX_ROUNDS), number(argv[4], 60000));
    wasmcache_detach(wc);
    wasmcache_close(cache);
    bench_engine.engine_delete(rig.engine);
    free(rig.wasm.data);
    return 0;
}
