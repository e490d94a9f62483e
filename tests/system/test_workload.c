/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes with threads get, remove and damage a few modules of one directory at random, with the
 * real engine, and are killed now and then: each module that is given out computes what its wasm
 * does, and at the end the directory is as if nobody had died. tests/unit/test_workload.c does much
 * more of it with an engine that is none.
 * no-asan no-tsan: engines start threads in the children, which are killed in the middle
 */
#define _GNU_SOURCE
#include "engine_host.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MODULES = 10, PROCESSES = 4, THREADS = 2, SECONDS = 4 };

/* In memory that all processes share. */
struct board {
    atomic_int stop;
    atomic_uint hits, compiled, joined, removed, spoilt;
};

struct lab {
    struct scratch scratch;
    struct board *board;
    char *dir, *attic;
    uint8_t wasm[MODULES][WASM_ANSWER_ROOM(2000)];
    size_t size[MODULES];
};

struct worker {
    struct lab *lab;
    unsigned life;
};

struct actor {
    struct worker *worker;
    struct host *host;
    unsigned index, random;
};

static _Noreturn void found(const struct actor *a, const char *what, int module)
{
    fprintf(stderr, "workload: process %u, thread %u, module %d: %s: %s\n", a->worker->life,
            a->index, module, what, wasmcache_last_error()->message);
    _exit(3);
}

static unsigned below(struct actor *a, unsigned limit)
{
    a->random = a->random * 1103515245u + 12345u;
    return (a->random >> 16) % limit;
}

static void get(struct actor *a, int module)
{
    const struct lab *l = a->worker->lab;
    const wasmcache_source source = wasmcache_source_bytes(l->wasm[module], l->size[module]);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *got = NULL;
    static const unsigned flags[] = {0, 0, 0, WASMCACHE_GET_NO_WAIT, WASMCACHE_GET_RECOMPILE};
    options.flags = flags[below(a, 5)];
    options.wait_ms = below(a, 3) ? 0 : 20;
    if (wasmcache_get(&got, a->host->wc, WASMCACHE_MODULE, &source, &options, &report))
        found(a, "get", module);
    if (call_export(a->host->engine, wasmcache_module_native(got), "answer", NULL, 0) != module)
        found(a, "another module", module);
    wasmcache_module_release(got);
    atomic_fetch_add(report.outcome == WASMCACHE_HIT        ? &l->board->hits
                     : report.outcome == WASMCACHE_COMPILED ? &l->board->compiled
                                                            : &l->board->joined,
                     1);
}

static void remove_entry(struct actor *a, int module)
{
    const wasmcache_key key = key_of(a->worker->lab->wasm[module], a->worker->lab->size[module]);
    const int rc = wasmcache_remove(a->host->cache, host_namespace(a->host), &key);
    if (rc && rc != WASMCACHE_EMISS)
        found(a, "remove", module);
    atomic_fetch_add(&a->worker->lab->board->removed, rc == 0);
}

/* A copy with one byte changed takes the entry's name. */
static void spoil(struct actor *a, int module)
{
    const struct lab *l = a->worker->lab;
    const wasmcache_key key = key_of(l->wasm[module], l->size[module]);
    char path[600], copy[600];
    unsigned char *bytes;
    struct stat st;
    int in, out;
    if (wasmcache_entry_path(path, sizeof(path), a->host->cache, host_namespace(a->host), &key))
        found(a, "path", module);
    snprintf(copy, sizeof(copy), "%s/%u-%u", l->attic, a->worker->life, a->index);
    in = open(path, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        return;
    out = open(copy, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (out >= 0 && fstat(in, &st) == 0 && st.st_size > 0) {
        bytes = malloc((size_t)st.st_size);
        if (bytes && pread(in, bytes, (size_t)st.st_size, 0) == st.st_size) {
            bytes[below(a, (unsigned)st.st_size)] ^= 1;
            if (write(out, bytes, (size_t)st.st_size) == st.st_size && fchmod(out, 0400) == 0 &&
                rename(copy, path) == 0)
                atomic_fetch_add(&l->board->spoilt, 1);
        }
        free(bytes);
    }
    (void)unlink(copy);
    close(in);
    if (out >= 0)
        close(out);
}

static void *act(void *argument)
{
    struct actor *a = argument;
    for (int i = 0; i < 200 && !atomic_load(&a->worker->lab->board->stop); i++) {
        const int module = (int)below(a, MODULES);
        switch (below(a, 12)) {
        case 0:
            remove_entry(a, module);
            break;
        case 1:
            spoil(a, module);
            break;
        default:
            get(a, module);
        }
    }
    return NULL;
}

static int work(void *argument)
{
    struct worker *worker = argument;
    struct actor actors[THREADS];
    pthread_t threads[THREADS];
    struct host h;
    host_open(&h, worker->lab->dir, 0);
    for (unsigned t = 0; t < THREADS; t++) {
        const struct actor a = {worker, &h, t, worker->life * 100 + t};
        actors[t] = a;
        if (pthread_create(&threads[t], NULL, act, &actors[t]))
            return 4;
    }
    for (unsigned t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    host_close(&h);
    return 0;
}

static unsigned count_private(const struct lab *l, const char *ns)
{
    char path[600];
    const struct dirent *file;
    unsigned count = 0;
    DIR *dir;
    snprintf(path, sizeof(path), "%s/%s", l->dir, ns);
    dir = opendir(path);
    assert_non_null(dir);
    while ((file = readdir(dir)) != NULL)
        count += strncmp(file->d_name, ".tmp-", 5) == 0 || strncmp(file->d_name, ".old-", 5) == 0;
    closedir(dir);
    return count;
}

/* One get of each, and then all are hits, of a process that knows nothing. */
static int look_at_the_end(void *argument)
{
    const struct worker *worker = argument;
    const struct lab *l = worker->lab;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    struct host h;
    host_open(&h, l->dir, 0);
    assert_int_equal(wasmcache_prune(h.cache, NULL, NULL), 0);
    assert_int_equal(count_private(l, host_namespace(&h)), 0);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < MODULES; i++) {
            wasmcache_report report = WASMCACHE_REPORT_INIT;
            engine_module *module = NULL;
            assert_int_equal(get_bytes(&module, &h, l->wasm[i], l->size[i], &report), 0);
            assert_int_equal(call_export(h.engine, module, "answer", NULL, 0), i);
            engine_module_delete(module);
            if (round)
                assert_int_equal(report.outcome, WASMCACHE_HIT);
        }
    assert_int_equal(wasmcache_prune(h.cache, NULL, NULL), 0);
    assert_int_equal(wasmcache_stats_read(h.cache, WASMCACHE_STATS_DIRECTORY, &stats), 0);
    assert_int_equal(stats.entries, MODULES);
    host_close(&h);
    return 0;
}

static void modules_are_right_whoever_dies(void **state)
{
    struct lab *l = *state;
    struct worker workers[PROCESSES] = {{NULL, 0}};
    pid_t pids[PROCESSES] = {0};
    const time_t end = time(NULL) + SECONDS;
    unsigned lives = 0, kills = 0, random = 1;
    while (time(NULL) < end) {
        for (unsigned p = 0; p < PROCESSES; p++) {
            int status;
            if (pids[p] && waitpid(pids[p], &status, WNOHANG) == pids[p]) {
                assert_int_equal(status, 0);
                pids[p] = 0;
            }
            if (!pids[p]) {
                workers[p].lab = l;
                workers[p].life = lives++;
                pids[p] = scratch_start(work, &workers[p], 0, 60);
            }
        }
        usleep(60000);
        random = random * 1103515245u + 12345u;
        if ((random >> 16) % 3 == 0) {
            const unsigned p = (random >> 20) % PROCESSES;
            kill(pids[p], SIGKILL);
            if (scratch_wait(pids[p]) == 100 + SIGKILL)
                kills++;
            pids[p] = 0;
        }
    }
    atomic_store(&l->board->stop, 1);
    for (unsigned p = 0; p < PROCESSES; p++)
        if (pids[p])
            assert_int_equal(scratch_wait(pids[p]), 0);
    workers[0].lab = l;
    assert_int_equal(scratch_child(look_at_the_end, &workers[0], 0, 60), 0);
    printf(
        "%u processes, %u of them killed: 0 wrong of %u hits, %u compiles, %u joined; %u entries "
        "removed, %u spoilt\n",
        lives, kills, l->board->hits, l->board->compiled, l->board->joined, l->board->removed,
        l->board->spoilt);
    assert_true(l->board->hits > 0 && l->board->compiled > 0 && l->board->spoilt > 0);
}

static int set_up(void **state)
{
    struct lab *l = calloc(1, sizeof(*l));
    if (!l)
        return -1;
    scratch_init(&l->scratch);
    l->dir = scratch_in(&l->scratch, "cache");
    l->attic = scratch_in(&l->scratch, "attic");
    l->board =
        mmap(NULL, sizeof(*l->board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (l->board == MAP_FAILED || mkdir(l->attic, 0700) < 0)
        return -1;
    for (int i = 0; i < MODULES; i++)
        l->size[i] = wasm_answer(l->wasm[i], i, (size_t)(i + 1) * 150);
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lab *l = *state;
    munmap(l->board, sizeof(*l->board));
    scratch_end(&l->scratch);
    free(l);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(modules_are_right_whoever_dies, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
