/* SPDX-License-Identifier: Apache-2.0 */
/* Counters: that each get counts once, that the directory has what processes counted, never more,
 * and that its file may be lost, cut, torn or filled with noise. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <xxhash.h>

#include "asked.h"
#include "fixture.h"
#include "number.h"
#include "seam.h"
#include "tally.h"

static wasmcache_stats read_stats(struct rig *r, wasmcache_stats_scope scope)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    assert_int_equal(wasmcache_stats_read(r->cache, scope, &stats), 0);
    return stats;
}

static uint64_t sum(const uint64_t *values, size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += values[i];
    return total;
}

static char *tally_path(struct rig *r)
{
    return scratch_in(&r->scratch, "cache/" WC_TALLY_NAME);
}

static void each_get_counts_once(void **state)
{
    struct rig *r = *state;
    wasmcache_stats stats;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(rig_get(r, "b", NULL), 0);
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(rig_load(r, "a", NULL), 0);
    assert_int_equal(rig_load(r, "c", NULL), WASMCACHE_EMISS);
    scratch_flip(rig_entry(r, "b"), 3);
    assert_int_equal(rig_get(r, "b", NULL), 0);
    assert_int_equal(rig_get_with(r, "a", WASMCACHE_GET_RECOMPILE, NULL), 0);
    assert_int_equal(rig_get(r, "!invalid", NULL), WASMCACHE_EENGINE);
    stats = read_stats(r, WASMCACHE_STATS_PROCESS);
    assert_int_equal(stats.hits, 2);
    assert_int_equal(stats.compiles, 4);
    assert_int_equal(stats.misses[WASMCACHE_REASON_NOT_FOUND], 4);
    assert_int_equal(stats.misses[WASMCACHE_REASON_CORRUPT], 1);
    assert_int_equal(stats.misses[WASMCACHE_REASON_RECOMPILE], 1);
    assert_int_equal(sum(stats.misses, 16), 6);
    assert_int_equal(stats.saves, 4);
    assert_int_equal(stats.removed, 1);
    assert_int_equal(sum(stats.hit_times, 24), 2);
    assert_int_equal(sum(stats.compile_times, 24), 4);
    assert_true(stats.loaded_bytes > 0);
    assert_true(stats.saved_bytes > 0);
    assert_true(stats.spared_ns > 0);
}

/* To ask whether it is there, or to save it, is neither a hit nor a miss, as a request too. */
static void only_gets_and_loads_are_hits_or_misses(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    const wasmcache_key key = rig_key("a");
    struct asked a;
    wasmcache_stats stats;
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), WASMCACHE_EMISS);
    ask_contains(&a, r, executor, "a");
    run_all(executor);
    assert_int_equal(a.error, WASMCACHE_EMISS);
    assert_int_equal(a.report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(rig_save(r, "a", NULL), 0);
    stats = read_stats(r, WASMCACHE_STATS_PROCESS);
    assert_int_equal(stats.hits + sum(stats.misses, 16), 0);
    assert_int_equal(stats.saves, 1);
    ask_load(&a, r, executor, "a");
    run_all(executor);
    ask_load(&a, r, executor, "b");
    run_all(executor);
    stats = read_stats(r, WASMCACHE_STATS_PROCESS);
    assert_int_equal(stats.hits, 1);
    assert_int_equal(sum(stats.misses, 16), 1);
    wasmcache_executor_free(executor);
}

static void the_directory_has_what_was_closed(void **state)
{
    struct rig *r = *state;
    wasmcache_stats stats;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    for (int i = 0; i < 5; i++)
        assert_int_equal(rig_get(r, "a", NULL), 0);
    rig_reopen(r);
    stats = read_stats(r, WASMCACHE_STATS_PROCESS);
    assert_int_equal(stats.hits, 0);
    stats = read_stats(r, WASMCACHE_STATS_DIRECTORY);
    assert_int_equal(stats.hits, 5);
    assert_int_equal(stats.compiles, 1);
    assert_int_equal(stats.entries, 1);
    assert_true(stats.bytes > 0);
    assert_true(stats.since > 0);
    /* What is read is also what this process has not written yet. */
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).hits, 6);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).hits, 6);
}

static void a_reset_starts_from_nothing(void **state)
{
    struct rig *r = *state;
    wasmcache_stats stats;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(wasmcache_stats_reset(r->cache), 0);
    stats = read_stats(r, WASMCACHE_STATS_DIRECTORY);
    assert_int_equal(stats.hits + stats.compiles + sum(stats.misses, 16), 0);
    assert_int_equal(stats.entries, 1);
    assert_int_equal(rig_get(r, "a", NULL), 0);
    rig_reopen(r);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).hits, 1);
}

static void what_is_only_read_is_not_written(void **state)
{
    struct rig *r = *state;
    size_t before_size, after_size;
    uint8_t *before, *after;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    rig_close(r);
    before = scratch_read(tally_path(r), &before_size);
    r->options.flags |= WASMCACHE_READ_ONLY;
    rig_open(r);
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_PROCESS).hits, 1);
    rig_reopen(r);
    after = scratch_read(tally_path(r), &after_size);
    assert_int_equal(before_size, after_size);
    assert_memory_equal(before, after, after_size);
    free(before);
    free(after);
}

static void a_cache_that_is_not_there_has_no_numbers(void **state)
{
    struct rig *r = *state;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    assert_int_equal(wasmcache_stats_read(NULL, WASMCACHE_STATS_PROCESS, &stats), WASMCACHE_EOFF);
    assert_int_equal(wasmcache_stats_reset(NULL), WASMCACHE_EOFF);
    assert_int_equal(wasmcache_stats_read(r->cache, 7, &stats), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_PROCESS, NULL),
                     WASMCACHE_EMISUSE);
    /* Nothing was counted, and nothing is made by asking. */
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_DIRECTORY, &stats), 0);
    assert_false(scratch_exists(r->dir));
}

/* ---- the file ---- */

static void a_torn_slot_is_the_one_before(void **state)
{
    struct rig *r = *state;
    const int page = 2048;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    rig_reopen(r);
    for (int i = 0; i < 3; i++) {
        uint64_t before = read_stats(r, WASMCACHE_STATS_DIRECTORY).hits;
        struct wc_tally tally;
        struct wc_store store = {.dir = r->dir};
        struct wc_error err;
        size_t size;
        uint8_t *bytes;
        wc_error_init(&err);
        assert_int_equal(rig_get(r, "a", NULL), 0);
        assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).hits, before + 1);
        bytes = scratch_read(tally_path(r), &size);
        assert_int_equal(size, 2 * page);
        for (int slot = 0; slot < 2; slot++) {
            uint8_t keep = bytes[slot * page + 100];
            bytes[slot * page + 100] ^= 1;
            scratch_write(tally_path(r), bytes, size, 0600);
            assert_int_equal(wc_tally_read(&tally, &store, &err), 0);
            assert_true(tally.counts[WC_STAT_HITS] == before + 1 ||
                        tally.counts[WC_STAT_HITS] == before);
            bytes[slot * page + 100] = keep;
        }
        scratch_write(tally_path(r), bytes, size, 0600);
        free(bytes);
    }
}

static void noise_counts_anew(void **state)
{
    struct rig *r = *state;
    static const size_t sizes[] = {0, 1, 100, 2048, 4096, 10000};
    assert_int_equal(rig_get(r, "a", NULL), 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        uint8_t noise[10000];
        for (size_t j = 0; j < sizeof(noise); j++)
            noise[j] = (uint8_t)(j * 31 + i);
        scratch_write(tally_path(r), noise, sizes[i], 0600);
        assert_int_equal(rig_get(r, "a", NULL), 0);
        rig_reopen(r);
        assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).hits, 1);
        assert_false(read_stats(r, WASMCACHE_STATS_DIRECTORY).known);
    }
}

static void what_is_no_file_of_ours_is_left_alone(void **state)
{
    struct rig *r = *state;
    char *target = scratch_in(&r->scratch, "target");
    assert_int_equal(rig_get(r, "a", NULL), 0);
    for (int what = 0; what < 4; what++) {
        scratch_remove(tally_path(r));
        if (what == 0)
            assert_int_equal(mkdir(tally_path(r), 0700), 0);
        else if (what == 1)
            assert_int_equal(mkfifo(tally_path(r), 0600), 0);
        else if (what == 2)
            assert_int_equal(symlink(target, tally_path(r)), 0);
        else
            scratch_write(tally_path(r), "x", 1, 0666);
        assert_int_equal(rig_get(r, "a", NULL), 0);
        assert_int_equal(rig_get(r, "b", NULL), 0);
        assert_int_equal(wasmcache_remove(r->cache, rig_namespace(r), &(wasmcache_key){0}),
                         WASMCACHE_EMISUSE);
        scratch_remove(rig_entry(r, "b"));
        rig_reopen(r);
        assert_false(scratch_exists(target));
    }
    scratch_remove(tally_path(r));
}

/* A counter that this version does not have lies behind the last one. */
static void what_a_later_version_counts_is_kept(void **state)
{
    struct rig *r = *state;
    enum { SLOT = 2048, BEHIND = 64 + 8 * WC_STAT_COUNT };
    uint8_t *bytes, check[8];
    size_t size;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    bytes = scratch_read(tally_path(r), &size);
    assert_true(size >= SLOT);
    for (size_t at = 0; at < size; at += SLOT) {
        bytes[at + BEHIND] = 77;
        wc_put_number(check, XXH3_64bits(bytes + at, SLOT - 8), 8);
        memcpy(bytes + at + SLOT - 8, check, 8);
    }
    scratch_write(tally_path(r), bytes, size, 0600);
    free(bytes);
    assert_int_equal(rig_get(r, "b", NULL), 0);
    rig_reopen(r);
    assert_int_equal(rig_get(r, "c", NULL), 0);
    rig_close(r);
    bytes = scratch_read(tally_path(r), &size);
    assert_int_equal(size, 2 * SLOT);
    assert_int_equal(bytes[BEHIND], 77);
    assert_int_equal(bytes[SLOT + BEHIND], 77);
    free(bytes);
    rig_open(r);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).compiles, 3);
}

/* Changes a number in both slots, whose checks are right again. */
static void set_in_tally(struct rig *r, size_t place, uint64_t value)
{
    enum { SLOT = 2048 };
    size_t size;
    uint8_t *bytes = scratch_read(tally_path(r), &size);
    assert_int_equal(size, 2 * SLOT);
    for (size_t at = 0; at < size; at += SLOT) {
        wc_put_number(bytes + at + place, value, 8);
        wc_put_number(bytes + at + SLOT - 8, XXH3_64bits(bytes + at, SLOT - 8), 8);
    }
    scratch_write(tally_path(r), bytes, size, 0600);
    free(bytes);
}

/* Behind the largest sequence comes the first again, and what is counted then is not lost. */
static void sequences_go_round(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    (void)read_stats(r, WASMCACHE_STATS_DIRECTORY);
    assert_int_equal(rig_get(r, "a", NULL), 0);
    (void)read_stats(r, WASMCACHE_STATS_DIRECTORY);
    set_in_tally(r, 8, UINT64_MAX - 2);
    for (unsigned i = 0; i < 6; i++) {
        const uint64_t before = read_stats(r, WASMCACHE_STATS_DIRECTORY).hits;
        assert_int_equal(rig_get(r, "a", NULL), 0);
        assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).hits, before + 1);
    }
}

static void totals_do_not_go_round(void **state)
{
    struct rig *r = *state;
    rig_close(r);
    r->options.max_bytes = WASMCACHE_UNLIMITED; /* nothing looks whether the totals are right */
    rig_open(r);
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(rig_get(r, "b", NULL), 0);
    (void)read_stats(r, WASMCACHE_STATS_DIRECTORY);
    set_in_tally(r, 32, UINT64_MAX - 1);
    set_in_tally(r, 40, UINT64_MAX);
    assert_int_equal(rig_get(r, "c", NULL), 0);
    assert_true(read_stats(r, WASMCACHE_STATS_DIRECTORY).bytes == UINT64_MAX);
    assert_true(read_stats(r, WASMCACHE_STATS_DIRECTORY).entries == UINT64_MAX);
}

/* A total to which nothing can be added is no room. */
static void the_largest_total_is_counted_again(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(rig_get(r, "b", NULL), 0);
    (void)read_stats(r, WASMCACHE_STATS_DIRECTORY);
    set_in_tally(r, 32, UINT64_MAX - 1);
    set_in_tally(r, 24, 1); /* as if a clean-up had counted so */
    assert_int_equal(rig_get(r, "c", NULL), 0);
    assert_true(read_stats(r, WASMCACHE_STATS_DIRECTORY).bytes < 1000000);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).entries, 3);
}

/* ---- forks, threads, processes ---- */

static int get_and_close(void *argument)
{
    struct rig *r = argument;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    rig_close(r);
    return 0;
}

static void a_child_counts_what_it_does_itself(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(scratch_child(get_and_close, r, 0, 30), 0);
    rig_reopen(r);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).hits, 11);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).compiles, 1);
}

static void *get_some(void *argument)
{
    struct rig *r = argument;
    for (int i = 0; i < 100; i++)
        assert_int_equal(rig_get(r, "a", NULL), 0);
    return NULL;
}

static int get_on_threads(void *argument)
{
    struct rig *r = argument;
    wasmcache_stats stats;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_some, r), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    stats = read_stats(r, WASMCACHE_STATS_PROCESS);
    assert_int_equal(stats.hits, 400);
    assert_int_equal(stats.compiles, 0);
    return 0;
}

/* Whoever counts first begins, and the others wait for it. */
static void threads_of_a_child_begin_from_nothing(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(rig_get(r, "a", NULL), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(scratch_child(get_on_threads, r, 0, 30), 0);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_PROCESS).hits, 10);
}

static int get_in_a_child(void *argument)
{
    struct rig *r = argument;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(scratch_child(get_and_close, r, 0, 30), 0);
    rig_close(r);
    return 0;
}

static void a_child_of_a_child_too(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    assert_int_equal(scratch_child(get_in_a_child, r, 0, 30), 0);
    rig_reopen(r);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).hits, 2);
    assert_int_equal(read_stats(r, WASMCACHE_STATS_DIRECTORY).compiles, 1);
}

/* What really happened, as the processes say it. */
struct oracle {
    atomic_ullong hits, compiles, misses, saves;
};

struct part {
    struct rig *r;
    struct oracle *oracle;
    unsigned seed;
    int rounds;
};

static void count_save(const wasmcache_event *event, void *payload)
{
    struct oracle *oracle = payload;
    if (event->type == WASMCACHE_EVENT_SAVED)
        atomic_fetch_add(&oracle->saves, 1);
}

static int do_random_things(void *argument)
{
    struct part *p = argument;
    struct rig *r = p->r;
    r->options.on_event = count_save;
    r->options.payload = p->oracle;
    rig_open(r);
    for (int i = 0; i < p->rounds; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        char wasm[16];
        p->seed = p->seed * 1103515245 + 12345;
        snprintf(wasm, sizeof(wasm), "module %u", (p->seed >> 16) % 20);
        if ((p->seed >> 8) % 8 == 0) {
            wasmcache_key key = rig_key(wasm);
            (void)wasmcache_remove(r->cache, rig_namespace(r), &key);
            continue;
        }
        assert_int_equal(rig_get(r, wasm, &report), 0);
        if (report.outcome == WASMCACHE_HIT)
            atomic_fetch_add(&p->oracle->hits, 1);
        else if (report.outcome == WASMCACHE_COMPILED)
            atomic_fetch_add(&p->oracle->compiles, 1);
        if (report.outcome == WASMCACHE_COMPILED)
            atomic_fetch_add(&p->oracle->misses, 1);
        if (i % 40 == 39)
            rig_reopen(r);
    }
    rig_close(r);
    return 0;
}

static void run_processes(struct rig *r, struct oracle *oracle, int kill_some)
{
    enum { PROCESSES = 16 };
    struct part parts[PROCESSES];
    pid_t children[PROCESSES];
    rig_close(r);
    for (unsigned i = 0; i < PROCESSES; i++) {
        struct part part = {r, oracle, i + 1, 150};
        parts[i] = part;
        children[i] = scratch_start(do_random_things, &parts[i], 0, 60);
    }
    for (unsigned i = 0; kill_some && i < PROCESSES; i += 2) {
        usleep(10000);
        kill(children[i], SIGKILL);
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status = scratch_wait(children[i]);
        assert_true(status == 0 || (kill_some && status == 100 + SIGKILL));
    }
    rig_open(r);
}

static struct oracle *oracle_new(void)
{
    struct oracle *oracle =
        mmap(NULL, sizeof(*oracle), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(oracle, MAP_FAILED);
    return oracle;
}

static void sixteen_processes_are_counted_exactly(void **state)
{
    struct rig *r = *state;
    struct oracle *oracle = oracle_new();
    wasmcache_stats stats;
    run_processes(r, oracle, 0);
    stats = read_stats(r, WASMCACHE_STATS_DIRECTORY);
    assert_int_equal(stats.hits, oracle->hits);
    assert_int_equal(stats.compiles, oracle->compiles);
    assert_int_equal(sum(stats.misses, 16), oracle->misses);
    assert_int_equal(stats.saves, oracle->saves);
    munmap(oracle, sizeof(*oracle));
}

static void killed_processes_are_never_counted_higher(void **state)
{
    struct rig *r = *state;
    struct oracle *oracle = oracle_new();
    wasmcache_stats stats;
    run_processes(r, oracle, 1);
    stats = read_stats(r, WASMCACHE_STATS_DIRECTORY);
    /* One that was killed between its get and its own note of it may be one ahead. */
    assert_true(stats.hits <= oracle->hits + 8);
    assert_true(stats.compiles <= oracle->compiles + 8);
    assert_true(stats.hits > 0);
    munmap(oracle, sizeof(*oracle));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_get_counts_once),
        TEST(only_gets_and_loads_are_hits_or_misses),
        TEST(the_directory_has_what_was_closed),
        TEST(a_reset_starts_from_nothing),
        TEST(what_is_only_read_is_not_written),
        TEST(a_cache_that_is_not_there_has_no_numbers),
        TEST(a_torn_slot_is_the_one_before),
        TEST(noise_counts_anew),
        TEST(what_is_no_file_of_ours_is_left_alone),
        TEST(what_a_later_version_counts_is_kept),
        TEST(sequences_go_round),
        TEST(totals_do_not_go_round),
        TEST(the_largest_total_is_counted_again),
        TEST(a_child_counts_what_it_does_itself),
        TEST(threads_of_a_child_begin_from_nothing),
        TEST(a_child_of_a_child_too),
        TEST(sixteen_processes_are_counted_exactly),
        TEST(killed_processes_are_never_counted_higher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
