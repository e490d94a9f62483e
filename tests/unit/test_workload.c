/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes with threads do random things to one directory, some are killed or stopped, and files
 * are damaged meanwhile; workload.c has what may come of each call. Here: who is started, killed
 * and stopped, that nobody hangs, and what is left at the end.
 *
 *     WASMCACHE_WORKLOAD_SEED=N     that seed (a finding names it); else a fixed one
 *     WASMCACHE_WORKLOAD_SECONDS=N  so long each, instead of a few seconds
 *
 * The latter without ctest, which ends a test after a minute:
 * build/release/tests/unit_test_workload
 * no-coverage: what it reaches is something else each time
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "key.h"
#include "namespace.h"
#include "tally.h"
#include "workload.h"

#define MILLISECOND UINT64_C(1000000)
/* Longer than any call takes here, waits for others included. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define HANGS (UINT64_C(60000) * MILLISECOND)
#else
#define HANGS (UINT64_C(20000) * MILLISECOND)
#endif

enum { PINNED = 3, DEFAULT_SEED = 20251, DEFAULT_SECONDS = 3 };

struct lab {
    struct scratch scratch;
    struct workload workload;
    uint8_t *wasm[WORKLOAD_WASMS];
    struct worker workers[WORKLOAD_PROCESSES];
    pid_t pids[WORKLOAD_PROCESSES]; /* 0: none */
    unsigned processes;
    uint64_t random, pause_until;
    unsigned lives, kills, stops, stopped; /* stopped: 1 + which; 0: none */
    char pinned_namespace[192];
};

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- what there is at the start ---- */

static void make_wasm(struct lab *l, unsigned i)
{
    struct workload *w = &l->workload;
    const size_t length = i == 5 ? 70000 : 40 + 97 * i;
    uint8_t *bytes = malloc(length);
    char head[40];
    wasmcache_key key;
    assert_non_null(bytes);
    memset(bytes, 'a' + (int)i, length);
    snprintf(head, sizeof(head), "%smodule %u", i == WORKLOAD_WASMS - 1 ? "!" : "", i);
    memcpy(bytes, head, strlen(head));
    w->wasm[i] = l->wasm[i] = bytes;
    w->length[i] = length;
    w->paths[i] = scratch_in(&l->scratch, "%u.wasm", i);
    scratch_write(w->paths[i], bytes, length, 0644);
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, bytes, length), 0);
    w->keys[i][0] = key;
    for (unsigned s = 1; s < WORKLOAD_SALTS; s++) {
        static const char *const salts[] = {"tenant a", "tenant b", "nobody's"};
        assert_int_equal(
            wasmcache_key_salted(&w->keys[i][s], &key, salts[s - 1], strlen(salts[s - 1])), 0);
    }
}

struct user {
    wasmcache *cache;
    struct fake_engine engine;
    wasmcache_attachment *wc;
};

static void user_open(struct user *u, const char *dir, unsigned engine, uint64_t max_bytes)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    options.dir = dir;
    options.max_bytes = max_bytes;
    options.evict_after_seconds = 1;
    workload_engine_init(&u->engine, engine);
    assert_int_equal(wasmcache_open(&u->cache, &options), 0);
    assert_int_equal(workload_attach(&u->wc, u->cache, &u->engine), 0);
}

static void user_close(struct user *u)
{
    wasmcache_detach(u->wc);
    wasmcache_close(u->cache);
    fake_engine_end(&u->engine);
}

static wasmcache_report user_get(const struct lab *l, struct user *u, unsigned wasm, int rc)
{
    const struct workload *w = &l->workload;
    const wasmcache_source source = wasmcache_source_bytes(w->wasm[wasm], w->length[wasm]);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    assert_int_equal(wasmcache_get(&module, u->wc, WASMCACHE_MODULE, &source, NULL, &report), rc);
    if (rc == 0)
        assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                                   u->engine.configuration, w->wasm[wasm], w->length[wasm]));
    wasmcache_module_release(module);
    return report;
}

static const char *namespace_of(struct user *u)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    assert_int_equal(wasmcache_attachment_status(u->wc, &info), 0);
    return info.engine_namespace;
}

/* A layer with a few good entries and a damaged one. */
static void fill_layer(struct lab *l)
{
    struct workload *w = &l->workload;
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++) {
        struct user u;
        char path[600];
        user_open(&u, w->layer, e, 0);
        snprintf(w->namespaces[e], sizeof(w->namespaces[e]), "%s", namespace_of(&u));
        for (unsigned i = 0; i <= WORKLOAD_LAYERED; i++) {
            assert_int_equal(user_get(l, &u, i, 0).outcome, WASMCACHE_COMPILED);
            if (i < WORKLOAD_LAYERED)
                atomic_store(&w->board->ever[e][0][i][0], 1);
        }
        assert_int_equal(wasmcache_entry_path(path, sizeof(path), u.cache, w->namespaces[e],
                                              &w->keys[WORKLOAD_LAYERED][0]),
                         0);
        scratch_flip(path, 2000);
        user_close(&u);
    }
}

static void pin_some(struct lab *l)
{
    struct user u;
    user_open(&u, l->workload.dir, WORKLOAD_ENGINES, 0);
    snprintf(l->pinned_namespace, sizeof(l->pinned_namespace), "%s", namespace_of(&u));
    for (unsigned i = 0; i < PINNED; i++) {
        assert_int_equal(user_get(l, &u, i, 0).outcome, WASMCACHE_COMPILED);
        assert_int_equal(wasmcache_pin(u.cache, l->pinned_namespace, &l->workload.keys[i][0], 1),
                         0);
    }
    user_close(&u);
}

static int set_up(void **state)
{
    struct lab *l = calloc(1, sizeof(*l));
    struct workload *w = &l->workload;
    scratch_init(&l->scratch);
    w->board =
        mmap(NULL, sizeof(*w->board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(w->board, MAP_FAILED);
    w->seed = setting("WASMCACHE_WORKLOAD_SEED", DEFAULT_SEED);
    w->dir = scratch_in(&l->scratch, "cache");
    w->layer = scratch_in(&l->scratch, "layer");
    w->attic = scratch_in(&l->scratch, "attic");
    w->gate_path = scratch_in(&l->scratch, "gate");
    assert_int_equal(mkdir(w->attic, 0700), 0);
    scratch_write(w->gate_path, "", 0, 0600);
    for (unsigned i = 0; i < WORKLOAD_WASMS; i++)
        make_wasm(l, i);
    fill_layer(l);
    l->random = w->seed;
    /* Children of killed processes become ours, so that nobody is left. */
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lab *l = *state;
    for (unsigned i = 0; i < l->processes; i++)
        if (l->pids[i])
            kill(l->pids[i], SIGKILL);
    while (waitpid(-1, NULL, 0) > 0)
        ;
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    munmap(l->workload.board, sizeof(*l->workload.board));
    for (unsigned i = 0; i < WORKLOAD_WASMS; i++)
        free(l->wasm[i]);
    scratch_end(&l->scratch);
    free(l);
    return 0;
}

/* ---- while they work ---- */

static void start_worker(struct lab *l, unsigned slot)
{
    struct worker *worker = &l->workers[slot];
    worker->workload = &l->workload;
    worker->slot = slot;
    worker->lives = l->lives++;
    worker->ops = 50 + (unsigned)(workload_random(&l->random) % 400);
    l->pids[slot] = scratch_start(worker_run, worker, 0, 0);
}

static void clear_slots(struct lab *l, unsigned slot)
{
    for (unsigned t = 0; t < WORKLOAD_THREADS; t++)
        atomic_store(&l->workload.board->slots[slot][t].since, 0);
}

/* Waits for all that ended. Their status says whether they found something; -1: a finding. */
static int reap(struct lab *l, int flags)
{
    int status, found = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, flags)) > 0) {
        unsigned slot = 0;
        while (slot < l->processes && l->pids[slot] != pid)
            slot++;
        if (status &&
            !(slot < l->processes && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)) {
            fprintf(stderr, "process %u of seed %llu: status %#x\n", slot,
                    (unsigned long long)l->workload.seed, (unsigned)status);
            found = -1;
        }
        if (slot < l->processes) {
            l->pids[slot] = 0;
            clear_slots(l, slot);
        }
    }
    return found;
}

/* -1: somebody has been in a call for too long. */
static int look_for_hangs(const struct lab *l)
{
    const uint64_t time = now();
    for (unsigned p = 0; p < l->processes; p++)
        for (unsigned t = 0; t < WORKLOAD_THREADS; t++) {
            const struct workload_slot *slot = &l->workload.board->slots[p][t];
            const uint64_t since = atomic_load(&slot->since);
            if (since && time > since && time - since > HANGS) {
                fprintf(stderr, "seed %llu: thread %u of process %u (pid %d) hangs in %s\n",
                        (unsigned long long)l->workload.seed, t, p, (int)l->pids[p],
                        workload_op_name(atomic_load(&slot->op)));
                if (getenv("WASMCACHE_WORKLOAD_WAIT"))
                    pause(); /* for a debugger */
                kill(l->pids[p], SIGABRT);
                return -1;
            }
        }
    return 0;
}

static void harm_somebody(struct lab *l)
{
    const unsigned slot = (unsigned)(workload_random(&l->random) % l->processes);
    if (l->stopped) {
        if (now() < l->pause_until)
            return;
        kill(l->pids[l->stopped - 1], SIGCONT);
        l->stopped = 0;
    }
    if (!l->pids[slot])
        return;
    switch (workload_random(&l->random) % 12) {
    case 0:
    case 1:
        kill(l->pids[slot], SIGKILL);
        l->kills++;
        break;
    case 2:
        kill(l->pids[slot], SIGSTOP);
        l->stopped = slot + 1;
        l->pause_until = now() + (5 + workload_random(&l->random) % 200) * MILLISECOND;
        l->stops++;
        break;
    default:
        break;
    }
}

static void work(struct lab *l, unsigned processes, unsigned threads, int counting, int harm)
{
    const uint64_t seconds = setting("WASMCACHE_WORKLOAD_SECONDS", DEFAULT_SECONDS);
    const uint64_t until = now() + seconds * 1000 * MILLISECOND;
    struct workload_board *board = l->workload.board;
    int found = 0;

    l->processes = processes;
    l->workload.counting = counting;
    for (unsigned i = 0; i < processes; i++)
        l->workers[i].threads = threads;
    while (found == 0 && now() < until) {
        for (unsigned i = 0; i < processes; i++)
            if (!l->pids[i])
                start_worker(l, i);
        usleep(15000);
        if (harm)
            harm_somebody(l);
        found = reap(l, WNOHANG) | look_for_hangs(l);
    }
    if (l->stopped)
        kill(l->pids[l->stopped - 1], SIGCONT);
    atomic_store(&board->stop, 1);
    for (unsigned left = 1; left && found == 0;) {
        usleep(5000);
        found = reap(l, WNOHANG) | look_for_hangs(l);
        left = 0;
        for (unsigned i = 0; i < processes; i++)
            left += l->pids[i] != 0;
    }
    if (found == 0)
        found = reap(l, 0); /* the children of those that were killed */
    assert_int_equal(found, 0);
    assert_int_equal(atomic_load(&board->broken), 0);
}

/* ---- what is left ---- */

struct totals {
    uint64_t bytes, entries;
    unsigned temps;
};

/* Calls `visit` for all files of all namespaces. */
static void each_file(struct lab *l,
                      void (*visit)(const char *path, const char *name, const struct stat *st,
                                    void *payload),
                      void *payload)
{
    const struct dirent *space, *file;
    DIR *root = opendir(l->workload.dir), *dir;
    assert_non_null(root);
    while ((space = readdir(root)) != NULL) {
        char path[600];
        if (!wc_namespace_valid(space->d_name))
            continue;
        snprintf(path, sizeof(path), "%s/%s", l->workload.dir, space->d_name);
        dir = opendir(path);
        if (!dir)
            continue;
        while ((file = readdir(dir)) != NULL) {
            struct stat st;
            char name[1000];
            snprintf(name, sizeof(name), "%s/%s", path, file->d_name);
            if (lstat(name, &st) == 0)
                visit(name, file->d_name, &st, payload);
        }
        closedir(dir);
    }
    closedir(root);
}

static void add_file(const char *path, const char *name, const struct stat *st, void *payload)
{
    struct totals *t = payload;
    char of[WC_ENTRY_NAME_SIZE];
    wasmcache_key key;
    (void)path;
    t->temps += wc_private_name_parse(of, name) == 1;
    if (S_ISREG(st->st_mode) && wc_entry_name_parse(&key, name) == 0) {
        t->bytes += (uint64_t)st->st_size;
        t->entries++;
    }
}

static struct totals add_up(struct lab *l)
{
    struct totals t = {0, 0, 0};
    each_file(l, add_file, &t);
    return t;
}

static void is_unlocked(const char *path)
{
    struct flock lock;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    memset(&lock, 0, sizeof(lock));
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
    assert_int_equal(lock.l_type, F_UNLCK);
    close(fd);
}

static void check_lock(const char *path, const char *name, const struct stat *st, void *payload)
{
    unsigned *count = payload;
    (void)st;
    if (strcmp(name, ".lock") != 0)
        return;
    is_unlocked(path);
    ++*count;
}

/* After a clean-up the directory's totals are those of its files. */
static void totals_are_right(struct lab *l, struct user *u)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    const struct totals t = add_up(l);
    assert_int_equal(wasmcache_stats_read(u->cache, WASMCACHE_STATS_DIRECTORY, &stats), 0);
    assert_int_equal(stats.known, 1);
    assert_int_equal(stats.bytes, t.bytes);
    assert_int_equal(stats.entries, t.entries);
    assert_int_equal(t.temps, 0);
}

static void unpin(const char *path, const char *name, const struct stat *st, void *payload)
{
    struct lab *l = payload;
    (void)st;
    if (strcmp(name, WC_PINS) == 0 && !strstr(path, l->pinned_namespace))
        scratch_remove(path);
}

/* As a writer that was killed leaves it. */
static void leave_temps(struct lab *l)
{
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++) {
        char name[WC_PRIVATE_NAME_SIZE];
        assert_int_equal(wc_private_name(name, NULL), 0);
        scratch_write(scratch_in(&l->scratch, "cache/%s/%s", l->workload.namespaces[e], name),
                      "half", 4, 0600);
    }
}

static void the_end_is_clean(struct lab *l)
{
    const struct totals before = add_up(l);
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    struct user u;
    unsigned locks = 0;

    if (!l->kills)
        assert_int_equal(before.temps, 0);
    leave_temps(l);
    assert_int_equal(add_up(l).temps, before.temps + WORKLOAD_ENGINES);
    each_file(l, check_lock, &locks);
    assert_true(locks > 0);
    is_unlocked(scratch_in(&l->scratch, "cache/.tally-1"));

    user_open(&u, l->workload.dir, WORKLOAD_ENGINES, 0);
    assert_int_equal(wasmcache_prune(u.cache, NULL, &result), 0);
    totals_are_right(l, &u);

    /* A limit is held, once all are old enough to go. */
    each_file(l, unpin, l);
    usleep(2100000);
    options.max_bytes = 40000;
    assert_int_equal(wasmcache_prune(u.cache, &options, &result), 0);
    totals_are_right(l, &u);
    assert_true(add_up(l).bytes <= options.max_bytes);
    assert_int_equal(result.failed, 0);
    options.max_bytes = 1;
    assert_int_equal(wasmcache_prune(u.cache, &options, &result), 0);
    totals_are_right(l, &u);
    assert_int_equal(add_up(l).entries, PINNED);
    for (unsigned i = 0; i < PINNED; i++)
        assert_int_equal(user_get(l, &u, i, 0).outcome, WASMCACHE_HIT);
    user_close(&u);
}

/* Whatever was done to it: one get, and the key can be used again. */
static void all_keys_work(struct lab *l)
{
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++) {
        struct user u;
        user_open(&u, l->workload.dir, e, 0);
        for (unsigned i = 0; i < WORKLOAD_WASMS - 1; i++) {
            const wasmcache_report report = user_get(l, &u, i, 0);
            if (report.outcome == WASMCACHE_COMPILED)
                assert_int_equal(report.save_error, 0);
            assert_int_equal(user_get(l, &u, i, 0).outcome, WASMCACHE_HIT);
        }
        (void)user_get(l, &u, WORKLOAD_WASMS - 1, WASMCACHE_EENGINE);
        user_close(&u);
    }
}

static void say(const struct lab *l, const char *what)
{
    const struct workload_board *b = l->workload.board;
    uint64_t ops = 0;
    for (int i = 0; i < WORKLOAD_OPS; i++)
        ops += atomic_load(&b->done[i]);
    printf("%s, seed %llu: %llu operations by %u processes, %u of them killed, %u stopped for a "
           "while; 0 wrong of %llu hits, %llu compiles, %llu joined, %llu refused; %llu entries "
           "swapped, %llu changed in place, %u folders pulled away, %llu forks\n",
           what, (unsigned long long)l->workload.seed, (unsigned long long)ops, l->lives, l->kills,
           l->stops, (unsigned long long)b->hits, (unsigned long long)b->compiled,
           (unsigned long long)b->joined, (unsigned long long)b->refused,
           (unsigned long long)b->spoilt, (unsigned long long)b->in_place, b->pulled,
           (unsigned long long)b->forks);
}

static void random_work_is_right_whoever_dies(void **state)
{
    struct lab *l = *state;
    pin_some(l);
    work(l, 6, 3, 0, 1);
    say(l, "random work");
    all_keys_work(l);
    the_end_is_clean(l);
    all_keys_work(l);
}

/* ---- the directory's numbers ---- */

/* How long compiling took that hits spared is in no report; the layer's failures are not either. */
static int is_compared(unsigned stat)
{
    return stat != WC_STAT_SPARED_NS && stat != WC_STAT_LAYER_FAILURES;
}

static struct wc_tally read_tally(const struct lab *l)
{
    struct wc_store store = {.dir = (char *)(uintptr_t)l->workload.dir};
    struct wc_tally tally;
    struct wc_error err;
    wc_error_init(&err);
    assert_int_equal(wc_tally_read(&tally, &store, &err), 0);
    return tally;
}

static void the_numbers_are_those_of_the_reports(void **state)
{
    struct lab *l = *state;
    const struct workload_board *board = l->workload.board;
    struct wc_tally tally;
    unsigned equal = 0, compared = 0, not_zero = 0;

    work(l, 16, 2, 1, 0);
    tally = read_tally(l);
    for (unsigned i = 0; i < WC_STAT_COUNT; i++) {
        if (!is_compared(i))
            continue;
        compared++;
        not_zero += board->counts[i] != 0;
        if (tally.counts[i] == board->counts[i])
            equal++;
        else
            fprintf(stderr, "counter %u: %llu in the directory, %llu by the reports\n", i,
                    (unsigned long long)tally.counts[i], (unsigned long long)board->counts[i]);
    }
    assert_int_equal(equal, compared);
    assert_int_equal(compared, WC_STAT_COUNT - 2);
    assert_true(not_zero >= 20);
    assert_int_equal(board->begun, board->ended);
    say(l, "numbers");
    printf("numbers: %u of %u counters equal, %u of them not 0\n", equal, compared, not_zero);
}

/* Of these one is a call's, or one of its events. */
static int counts_calls(unsigned stat)
{
    switch (stat) {
    case WC_STAT_COMPILE_NS:
    case WC_STAT_SPARED_NS:
    case WC_STAT_WAIT_NS:
    case WC_STAT_EVICTIONS:
    case WC_STAT_EVICTED_BYTES:
    case WC_STAT_LOADED_BYTES:
    case WC_STAT_SAVED_BYTES:
    case WC_STAT_LAYER_FAILURES:
        return 0;
    default:
        return 1;
    }
}

static void the_killed_are_never_counted_higher(void **state)
{
    struct lab *l = *state;
    const struct workload_board *board = l->workload.board;
    struct wc_tally tally;
    unsigned held = 0, compared = 0;
    uint64_t lost;

    work(l, 16, 2, 1, 1);
    tally = read_tally(l);
    /* Those that were in a call when they were killed: the library may have counted it, and we not
     * yet. A save of a killed process may be a worker's. */
    lost = board->begun - board->ended;
    for (unsigned i = 0; i < WC_STAT_COUNT; i++) {
        if (!counts_calls(i))
            continue;
        compared++;
        if (tally.counts[i] <= board->counts[i] + lost + l->kills * 2)
            held++;
        else
            fprintf(stderr, "counter %u: %llu in the directory, %llu by the reports\n", i,
                    (unsigned long long)tally.counts[i], (unsigned long long)board->counts[i]);
    }
    assert_int_equal(held, compared);
    assert_true(l->kills > 0);
    assert_true(tally.counts[WC_STAT_HITS] > 0);
    say(l, "numbers with kills");
    printf("numbers with kills: %u of %u counters no higher than the %llu calls whose report was "
           "lost allow; hits %llu of %llu\n",
           held, compared, (unsigned long long)lost, (unsigned long long)tally.counts[WC_STAT_HITS],
           (unsigned long long)board->counts[WC_STAT_HITS]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(random_work_is_right_whoever_dies),
        TEST(the_numbers_are_those_of_the_reports),
        TEST(the_killed_are_never_counted_higher),
    };
    setvbuf(stderr, NULL, _IOLBF, 0);
    return cmocka_run_group_tests_name("workload", tests, NULL, NULL);
}
