/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One compile of a key, whoever wants it: threads, caches and processes at once; leaders that die,
 * stop, fork, close every descriptor, or cannot save; callers who lose their patience.
 */
#define _GNU_SOURCE
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "flight.h"
#include "seam.h"

static const char wasm[] = "the module that all want";

enum { THREADS = 8, PROCESSES = 8 };

/* What processes tell each other. */
struct board {
    atomic_uint ready, compiles, compiling, most, done, waiting;
    atomic_int go, hold;
    atomic_int leader;
};

static struct board *board_new(void)
{
    struct board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(board, MAP_FAILED);
    return board;
}

static void wait_until(const atomic_uint *counter, unsigned value)
{
    for (int i = 0; i < 40000 && atomic_load(counter) < value; i++)
        usleep(500);
    assert_true(atomic_load(counter) >= value);
}

/* ---- threads ---- */

struct crew {
    struct rig *r;
    wasmcache_attachment *wc;
    atomic_uint done, by_outcome[5], failed;
    atomic_int hold;
    unsigned flags;
    unsigned wait_ms;
};

static void *get_in_thread(void *argument)
{
    struct crew *crew = argument;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    options.flags = crew->flags;
    options.wait_ms = crew->wait_ms;
    if (wasmcache_get(&module, crew->wc, WASMCACHE_MODULE, &source, &options, &report) ||
        !fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                        crew->r->engine.configuration, wasm, strlen(wasm)))
        atomic_fetch_add(&crew->failed, 1);
    wasmcache_module_release(module);
    atomic_fetch_add(&crew->by_outcome[report.outcome], 1);
    atomic_fetch_add(&crew->done, 1);
    return NULL;
}

/* The first compile takes until all the others wait for it. */
static void hold_compile(void *argument)
{
    struct crew *crew = argument;
    for (int i = 0; i < 40000 && atomic_load(&crew->hold); i++)
        usleep(500);
}

static unsigned waiting(struct rig *r)
{
    return rig_events_of(r, WASMCACHE_EVENT_WAIT);
}

static void start_threads(struct crew *crew, pthread_t *threads, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_in_thread, crew), 0);
}

static void join_threads(pthread_t *threads, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void hold_until_all_wait(struct crew *crew, unsigned others)
{
    for (int i = 0; i < 40000 && waiting(crew->r) < others; i++)
        usleep(500);
    assert_int_equal(waiting(crew->r), others);
    atomic_store(&crew->hold, 0);
}

static void run_threads(struct rig *r, struct crew *crew)
{
    pthread_t threads[THREADS];
    crew->r = r;
    crew->wc = r->wc;
    atomic_store(&crew->hold, 1);
    r->engine.on_compile = hold_compile;
    r->engine.on_compile_argument = crew;
    start_threads(crew, threads, THREADS);
    hold_until_all_wait(crew, THREADS - 1);
    join_threads(threads, THREADS);
    assert_int_equal(crew->failed, 0);
    r->engine.on_compile = NULL;
}

static void threads_get_clones_of_one_compile(void **state)
{
    struct rig *r = *state;
    struct crew crew = {0};
    run_threads(r, &crew);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(r->engine.files, 0);
    assert_int_equal(crew.by_outcome[WASMCACHE_COMPILED], 1);
    assert_int_equal(crew.by_outcome[WASMCACHE_JOINED], THREADS - 1);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
}

static void threads_load_what_one_published_where_the_engine_cannot_clone(void **state)
{
    struct rig *r = *state;
    struct crew crew = {0};
    r->engine.table.module_clone = NULL;
    rig_reopen(r);
    run_threads(r, &crew);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(crew.by_outcome[WASMCACHE_COMPILED], 1);
    assert_int_equal(crew.by_outcome[WASMCACHE_HIT], THREADS - 1);
}

static void a_clone_that_fails_is_a_load(void **state)
{
    struct rig *r = *state;
    struct crew crew = {0};
    r->engine.fail_clone = 1;
    run_threads(r, &crew);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(crew.by_outcome[WASMCACHE_HIT], THREADS - 1);
}

static void who_cannot_get_what_was_not_saved_does_not_queue_for_it(void **state)
{
    struct rig *r = *state;
    struct crew crew = {0};
    r->engine.table.module_clone = NULL;
    r->engine.fail_serialize = 1;
    rig_reopen(r);
    run_threads(r, &crew);
    assert_int_equal(crew.by_outcome[WASMCACHE_COMPILED], THREADS);
    assert_int_equal(waiting(r), THREADS - 1); /* none waited a second time */
}

static void what_was_not_saved_is_shared_all_the_same(void **state)
{
    struct rig *r = *state;
    struct crew crew = {0};
    r->engine.fail_serialize = 1;
    run_threads(r, &crew);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(crew.by_outcome[WASMCACHE_JOINED], THREADS - 1);
}

static void a_read_only_cache_shares_between_threads(void **state)
{
    struct rig *r = *state;
    struct crew crew = {0};
    r->options.flags |= WASMCACHE_READ_ONLY;
    rig_reopen(r);
    run_threads(r, &crew);
    assert_int_equal(r->engine.compiles, 1);
    assert_false(scratch_exists(r->dir));
}

static void two_caches_of_a_process_compile_once(void **state)
{
    struct rig *r = *state;
    struct crew crew = {0}, other = {0};
    wasmcache *cache;
    pthread_t threads[4];

    assert_int_equal(wasmcache_open(&cache, &r->options), 0);
    assert_int_equal(wasmcache_attach(&other.wc, cache, &r->engine.table, &r->engine, &r->attach),
                     0);
    crew.r = other.r = r;
    crew.wc = r->wc;
    atomic_store(&crew.hold, 1);
    r->engine.on_compile = hold_compile;
    r->engine.on_compile_argument = &crew;
    start_threads(&crew, threads, 2);
    start_threads(&other, threads + 2, 2);
    hold_until_all_wait(&crew, 3);
    join_threads(threads, 4);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(crew.failed + other.failed, 0);
    wasmcache_detach(other.wc);
    wasmcache_close(cache);
}

static void another_attachment_of_the_cache_loads(void **state)
{
    struct rig *r = *state;
    struct crew crew = {0}, other = {0};
    pthread_t threads[4];

    assert_int_equal(
        wasmcache_attach(&other.wc, r->cache, &r->engine.table, &r->engine, &r->attach), 0);
    crew.r = other.r = r;
    crew.wc = r->wc;
    atomic_store(&crew.hold, 1);
    r->engine.on_compile = hold_compile;
    r->engine.on_compile_argument = &crew;
    start_threads(&crew, threads, 1);
    wait_until(&r->engine.compiles, 1);
    start_threads(&other, threads + 1, 3);
    hold_until_all_wait(&crew, 3);
    join_threads(threads, 4);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(other.by_outcome[WASMCACHE_HIT], 3);
    wasmcache_detach(other.wc);
}

/* ---- what a caller asks for ---- */

static void who_must_hit_gets_its_answer_at_once(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_MUST_HIT, &report), WASMCACHE_EMISS);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(r->engine.compiles, 0);
    assert_false(scratch_exists(r->dir));
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_MUST_HIT, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

/* It has nothing to compile: there is nothing to lead, and nothing to wait for. */
static void a_digest_without_bytes_takes_no_lock(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm);
    const wasmcache_source source = wasmcache_source_sha256(key.bytes, NULL, NULL);
    wasmcache_module *module = NULL;
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, NULL),
                     WASMCACHE_EMISS);
    assert_false(scratch_exists(r->dir));
}

static void who_does_not_wait_compiles(void **state)
{
    struct rig *r = *state;
    struct crew crew = {0}, hasty = {0};
    pthread_t threads[2];
    crew.r = hasty.r = r;
    crew.wc = hasty.wc = r->wc;
    hasty.flags = WASMCACHE_GET_NO_WAIT;
    atomic_store(&crew.hold, 1);
    r->engine.on_compile = hold_compile;
    r->engine.on_compile_argument = &crew;
    start_threads(&crew, threads, 1);
    wait_until(&r->engine.compiles, 1);
    start_threads(&hasty, threads + 1, 1);
    wait_until(&r->engine.compiles, 2); /* while the first is still at it */
    atomic_store(&crew.hold, 0);
    join_threads(threads, 2);
    assert_int_equal(waiting(r), 0);
    assert_int_equal(crew.by_outcome[WASMCACHE_COMPILED] + hasty.by_outcome[WASMCACHE_COMPILED], 2);
}

/* ---- an injected clock: somebody has the lock for ever ---- */

static struct {
    uint64_t waited, longest;
    unsigned waits;
    void (*act)(void);
} clock_of_test;

static int pass_time(uint64_t ns)
{
    wc_os_monotonic_forced += (int64_t)ns;
    clock_of_test.waited += ns;
    clock_of_test.waits++;
    if (ns > clock_of_test.longest)
        clock_of_test.longest = ns;
    if (clock_of_test.act)
        clock_of_test.act();
    return 1;
}

static void start_clock(void)
{
    memset(&clock_of_test, 0, sizeof(clock_of_test));
    wc_os_monotonic_forced = INT64_C(1000000000);
    wc_os_wait_hook = pass_time;
}

static void stop_clock(void)
{
    wc_os_monotonic_forced = -1;
    wc_os_wait_hook = NULL;
}

/* Takes a lock of the key as another process would: a description of its own. */
static void take_lock(struct rig *r, struct wc_key_lock *lock, enum wc_lock_byte byte)
{
    struct wc_store store = {.dir = r->dir};
    struct wc_folder folder = WC_FOLDER_INIT;
    wasmcache_key key = rig_key(wasm);
    struct wc_error err;
    wc_error_init(&err);
    assert_int_equal(wc_store_make_folder(&folder, &store, rig_namespace(r), &err), 0);
    assert_true(wc_key_lock_open(lock, &store, &folder, WASMCACHE_MODULE, &key));
    assert_int_equal(wc_key_lock_try(lock, byte), WC_LOCK_HELD);
    wc_folder_close(&folder);
}

static int get_waiting(struct rig *r, unsigned wait_ms, wasmcache_tick_fn tick, void *payload,
                       wasmcache_report *report)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_module *module = NULL;
    int rc;
    options.wait_ms = wait_ms;
    options.tick = tick;
    options.tick_payload = payload;
    rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, report);
    wasmcache_module_release(module);
    return rc;
}

static const uint64_t second = UINT64_C(1000000000);

static void at_its_limit_it_goes_for_the_second_byte(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct wc_key_lock first, again;
    take_lock(r, &first, WC_LOCK_FIRST);
    start_clock();
    assert_int_equal(get_waiting(r, 0, NULL, NULL, &report), 0);
    assert_true(clock_of_test.waited == 60 * second); /* and for the second byte not at all */
    assert_true(clock_of_test.longest <= second / 50);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_true(report.wait_ns == 60 * second);
    assert_int_equal(waiting(r), 1);
    stop_clock();
    /* It gave the second byte back. */
    take_lock(r, &again, WC_LOCK_SECOND);
    wc_key_lock_close(&again, 0);
    wc_key_lock_close(&first, 0);
}

static void nobody_waits_for_ever(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct wc_key_lock first, other;
    take_lock(r, &first, WC_LOCK_FIRST);
    take_lock(r, &other, WC_LOCK_SECOND);
    start_clock();
    assert_int_equal(get_waiting(r, 1500, NULL, NULL, &report), 0);
    assert_true(clock_of_test.waited == 3 * second);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    stop_clock();
    wc_key_lock_close(&first, 0);
    wc_key_lock_close(&other, 0);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
}

static struct rig *publisher;
static void publish_after_a_second(void)
{
    if (clock_of_test.waited < second)
        return;
    clock_of_test.act = NULL;
    wc_os_wait_hook = NULL;
    assert_int_equal(rig_save(publisher, wasm, NULL), 0);
    wc_os_wait_hook = pass_time;
}

static void the_entry_itself_ends_the_wait(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct wc_key_lock first;
    take_lock(r, &first, WC_LOCK_FIRST);
    start_clock();
    publisher = r;
    clock_of_test.act = publish_after_a_second;
    assert_int_equal(get_waiting(r, 0, NULL, NULL, &report), 0);
    stop_clock();
    assert_true(clock_of_test.waited < second + second / 10);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(r->engine.compiles, 0);
    wc_key_lock_close(&first, 0);
}

static struct wc_key_lock *to_close;
static void end_in_vain(void)
{
    if (clock_of_test.waited >= second)
        wc_key_lock_close(to_close, 1);
}

static void a_leader_that_could_not_save_lets_all_go(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct wc_key_lock first, free_again;
    take_lock(r, &first, WC_LOCK_FIRST);
    start_clock();
    to_close = &first;
    clock_of_test.act = end_in_vain;
    r->engine.on_compile = NULL;
    assert_int_equal(get_waiting(r, 0, NULL, NULL, &report), 0);
    stop_clock();
    assert_true(clock_of_test.waited < second + second / 10);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    take_lock(r, &free_again, WC_LOCK_FIRST);
    wc_key_lock_close(&free_again, 0);
}

/* Published between the look that misses and the lock that it then gets. */
static void publish_now(void *argument)
{
    struct rig *r = argument;
    assert_int_equal(rig_save(r, wasm, NULL), 0);
}

static void what_is_published_at_any_step_is_not_compiled_again(void **state)
{
    struct rig *r = *state;
    unsigned hits = 0;
    for (unsigned nth = 1;; nth++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        unsigned compiles = r->engine.compiles;
        int compile_came_first;
        scratch_remove(rig_entry(r, wasm));
        seam_act(nth, publish_now, r);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        seam_off();
        compile_came_first = r->engine.compiles > compiles;
        hits += report.outcome == WASMCACHE_HIT;
        if (!seam_met())
            break;
        /* Only who had the lock already, and looked, may compile what comes after that. */
        assert_true(!compile_came_first || strstr(seam_log(), "try_lock_byte,stat_at,"));
    }
    assert_true(hits >= 5);
}

/* ---- tick ---- */

struct ticks {
    unsigned count[5]; /* by phase */
    wasmcache_phase refuses;
    unsigned after; /* so many ticks of that phase */
    uint64_t last, longest;
};

static int on_tick(const wasmcache_progress *progress, void *payload)
{
    struct ticks *ticks = payload;
    assert_true(progress->size == sizeof(*progress));
    if (progress->phase == WASMCACHE_PHASE_WAIT && ticks->count[WASMCACHE_PHASE_WAIT] &&
        progress->total_ns - ticks->last > ticks->longest)
        ticks->longest = progress->total_ns - ticks->last;
    ticks->last = progress->total_ns;
    assert_int_equal(progress->reason, WASMCACHE_REASON_NOT_FOUND);
    return ++ticks->count[progress->phase] > ticks->after && progress->phase == ticks->refuses;
}

static void phases_come_in_order_and_a_wait_ticks(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct ticks ticks = {0};
    struct wc_key_lock first;
    take_lock(r, &first, WC_LOCK_FIRST);
    start_clock();
    assert_int_equal(get_waiting(r, 5000, on_tick, &ticks, &report), 0);
    stop_clock();
    assert_true(ticks.count[WASMCACHE_PHASE_WAIT] >= 50);
    assert_true(ticks.longest <= second / 10);
    assert_int_equal(ticks.count[WASMCACHE_PHASE_COMPILE], 1);
    assert_int_equal(ticks.count[WASMCACHE_PHASE_SAVE], 1);
    wc_key_lock_close(&first, 0);
}

static void a_refused_wait_leaves_nothing(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct ticks ticks = {.refuses = WASMCACHE_PHASE_WAIT, .after = 7};
    const unsigned before = scratch_descriptors();
    struct wc_key_lock first;
    take_lock(r, &first, WC_LOCK_FIRST);
    start_clock();
    assert_int_equal(get_waiting(r, 0, on_tick, &ticks, &report), WASMCACHE_EABORTED);
    stop_clock();
    wc_key_lock_close(&first, 0);
    assert_int_equal(ticks.count[WASMCACHE_PHASE_WAIT], 8);
    assert_int_equal(r->engine.compiles, 0);
    assert_int_equal(scratch_descriptors(), before);
    take_lock(r, &first, WC_LOCK_FIRST);
    wc_key_lock_close(&first, 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
}

static void a_refused_compile_lets_the_others_go_on(void **state)
{
    struct rig *r = *state;
    struct ticks ticks = {.refuses = WASMCACHE_PHASE_COMPILE};
    struct wc_key_lock first;
    assert_int_equal(get_waiting(r, 0, on_tick, &ticks, NULL), WASMCACHE_EABORTED);
    assert_int_equal(r->engine.compiles, 0);
    take_lock(r, &first, WC_LOCK_FIRST);
    wc_key_lock_close(&first, 0);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
}

static void a_refused_save_keeps_the_module(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct ticks ticks = {.refuses = WASMCACHE_PHASE_SAVE};
    assert_int_equal(get_waiting(r, 0, on_tick, &ticks, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EABORTED);
    assert_false(scratch_exists(rig_entry(r, wasm)));
}

/* ---- the lock file ---- */

static void where_there_are_no_locks_each_compiles(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wc_os_lacking = WC_OS_NO_BYTE_LOCKS;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(waiting(r), 0);
}

static void a_network_file_system_gets_no_locks(void **state)
{
    struct rig *r = *state;
    struct wc_key_lock first;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    take_lock(r, &first, WC_LOCK_FIRST);
    wc_os_settles_forced = 0; /* what is said of one */
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(waiting(r), 0);
    wc_key_lock_close(&first, 0);
}

static void what_is_no_lock_file_is_left_alone(void **state)
{
    struct rig *r = *state;
    char *path = NULL, *target = scratch_in(&r->scratch, "target");
    for (int what = 0; what < 4; what++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        assert_int_equal(rig_get(r, "makes the folder", NULL), 0);
        path = scratch_in(&r->scratch, "cache/%s/" WC_LOCK_NAME, rig_namespace(r));
        scratch_remove(path);
        if (what == 0)
            assert_int_equal(mkdir(path, 0700), 0);
        else if (what == 1)
            assert_int_equal(mkfifo(path, 0600), 0);
        else if (what == 2)
            assert_int_equal(symlink(target, path), 0);
        else
            scratch_write(path, "", 0, 0666);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, 0);
        assert_false(scratch_exists(target));
        scratch_remove(rig_entry(r, wasm));
        scratch_remove(path);
    }
}

static void each_failing_call_costs_no_module(void **state)
{
    struct rig *r = *state;
    static const int errors[] = {EIO, EACCES, ENOLCK, EMFILE, ENOSPC, EROFS};
    for (size_t e = 0; e < sizeof(errors) / sizeof(*errors); e++) {
        for (unsigned nth = 1;; nth++) {
            const unsigned before = scratch_descriptors();
            scratch_remove(r->dir);
            seam_fail(nth, errors[e], 0);
            assert_int_equal(rig_get(r, wasm, NULL), 0);
            seam_off();
            assert_int_equal(scratch_descriptors(), before);
            if (!seam_met())
                break;
        }
    }
}

/* A process that may write no files, and whose compiles come to nothing: the word that says so was
 * written by another, and lies beyond what this one may write. */
static int get_without_files(void *argument)
{
    struct rig *r = argument;
    const struct rlimit limit = {100, 100};
    if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
        return 1;
    return rig_get(r, wasm, NULL) ? 2 : 0;
}

static void who_may_write_no_files_is_sent_no_signal(void **state)
{
    struct rig *r = *state;
    r->engine.empty_artifact = 1; /* nothing can be saved, which is told to who waits */
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(scratch_child(get_without_files, r, 0, 20), 0);
}

/* ---- processes ---- */

struct part {
    struct rig *r;
    struct board *board;
    unsigned wait_ms;
    int threads;
};

static void count_compile(void *argument)
{
    struct board *board = argument;
    const unsigned now = atomic_fetch_add(&board->compiling, 1) + 1;
    unsigned most = atomic_load(&board->most);
    int nobody = 0;
    while (now > most && !atomic_compare_exchange_weak(&board->most, &most, now)) {
    }
    atomic_compare_exchange_strong(&board->leader, &nobody, (int)getpid());
    atomic_fetch_add(&board->compiles, 1);
    for (int i = 0; i < 20000 && atomic_load(&board->hold); i++)
        usleep(1000);
    atomic_fetch_sub(&board->compiling, 1);
}

static void count_wait(const wasmcache_event *event, void *payload)
{
    struct board *board = payload;
    if (event->type == WASMCACHE_EVENT_WAIT)
        atomic_fetch_add(&board->waiting, 1);
}

static int be_one_of_many(void *argument)
{
    struct part *p = argument;
    struct rig *r = p->r;
    struct crew crew = {0};
    pthread_t threads[16];
    r->options.on_event = count_wait;
    r->options.payload = p->board;
    r->engine.on_compile = count_compile;
    r->engine.on_compile_argument = p->board;
    rig_open(r);
    crew.r = r;
    crew.wc = r->wc;
    crew.wait_ms = p->wait_ms;
    atomic_fetch_add(&p->board->ready, 1);
    while (!atomic_load(&p->board->go))
        usleep(100);
    start_threads(&crew, threads, (unsigned)p->threads);
    join_threads(threads, (unsigned)p->threads);
    rig_close(r);
    assert_int_equal(crew.failed, 0);
    if (fake_engine_complaint(&r->engine))
        fail_msg("%s", fake_engine_complaint(&r->engine));
    atomic_fetch_add(&p->board->done, 1);
    return 0;
}

static void run_processes(struct rig *r, int clones)
{
    struct board *board = board_new();
    struct part part = {r, board, 0, 4};
    pid_t children[PROCESSES];
    if (!clones)
        r->engine.table.module_clone = NULL;
    rig_close(r);
    for (int round = 0; round < 25; round++) {
        memset(board, 0, sizeof(*board));
        scratch_remove(r->dir);
        for (int i = 0; i < PROCESSES; i++)
            children[i] = scratch_start(be_one_of_many, &part, 0, 60);
        wait_until(&board->ready, PROCESSES);
        atomic_store(&board->go, 1);
        for (int i = 0; i < PROCESSES; i++)
            assert_int_equal(scratch_wait(children[i]), 0);
        assert_int_equal(board->compiles, 1);
    }
    munmap(board, sizeof(*board));
    rig_open(r);
}

static void processes_compile_once(void **state)
{
    run_processes(*state, 1);
}

static void processes_compile_once_where_the_engine_cannot_clone(void **state)
{
    run_processes(*state, 0);
}

/* One that compiles until it is told not to, and others that wait for it. */
static void start_leader_and_waiters(struct part *leader, struct part *others, pid_t *pids,
                                     int count)
{
    struct board *board = leader->board;
    memset(board, 0, sizeof(*board));
    atomic_store(&board->hold, 1);
    atomic_store(&board->go, 1);
    scratch_remove(leader->r->dir);
    pids[0] = scratch_start(be_one_of_many, leader, 0, 60);
    wait_until(&board->compiles, 1);
    for (int i = 1; i <= count; i++)
        pids[i] = scratch_start(be_one_of_many, others, 0, 60);
    wait_until(&board->waiting, (unsigned)count);
}

static void a_dead_leader_is_replaced_by_one(void **state)
{
    struct rig *r = *state;
    struct board *board = board_new();
    struct part part = {r, board, 0, 1};
    pid_t pids[5];
    rig_close(r);
    for (int round = 0; round < 10; round++) {
        start_leader_and_waiters(&part, &part, pids, 4);
        kill(pids[0], SIGKILL);
        assert_int_equal(scratch_wait(pids[0]), 100 + SIGKILL);
        wait_until(&board->compiles, 2);
        atomic_store(&board->hold, 0);
        for (int i = 1; i <= 4; i++)
            assert_int_equal(scratch_wait(pids[i]), 0);
        assert_int_equal(board->compiles, 2);
    }
    munmap(board, sizeof(*board));
    rig_open(r);
}

static void a_stopped_leader_costs_one_compile_more(void **state)
{
    struct rig *r = *state;
    struct board *board = board_new();
    struct part leader = {r, board, 0, 1}, others = {r, board, 300, 1};
    pid_t pids[5];
    rig_close(r);
    start_leader_and_waiters(&leader, &others, pids, 4);
    kill(pids[0], SIGSTOP);
    wait_until(&board->compiles, 2);
    atomic_store(&board->hold, 0);
    for (int i = 1; i <= 4; i++)
        assert_int_equal(scratch_wait(pids[i]), 0);
    assert_int_equal(board->compiles, 2);
    kill(pids[0], SIGCONT);
    assert_int_equal(scratch_wait(pids[0]), 0);
    munmap(board, sizeof(*board));
    rig_open(r);
}

/* A leader that dies in the middle of its compile, and leaves a child with all its descriptors. */
static void fork_and_die(void *argument)
{
    struct board *board = argument;
    if (atomic_fetch_add(&board->compiles, 1) == 0) {
        const pid_t child = fork();
        if (child == 0) {
            while (atomic_load(&board->hold))
                usleep(1000);
            _exit(0);
        }
        atomic_store(&board->leader, (int)child);
        while (atomic_load(&board->waiting) < 4)
            usleep(1000);
        _exit(7);
    }
}

static int be_forking_leader(void *argument)
{
    struct part *p = argument;
    p->r->options.on_event = count_wait;
    p->r->options.payload = p->board;
    p->r->engine.on_compile = fork_and_die;
    p->r->engine.on_compile_argument = p->board;
    rig_open(p->r);
    (void)get_waiting(p->r, p->wait_ms, NULL, NULL, NULL);
    rig_close(p->r);
    return 0;
}

static void a_child_of_a_dead_leader_costs_one_compile_more(void **state)
{
    struct rig *r = *state;
    struct board *board = board_new();
    struct part part = {r, board, 300, 1};
    pid_t pids[5];
    rig_close(r);
    memset(board, 0, sizeof(*board));
    atomic_store(&board->hold, 1);
    pids[0] = scratch_start(be_forking_leader, &part, 0, 60);
    wait_until(&board->compiles, 1);
    for (int i = 1; i < 5; i++)
        pids[i] = scratch_start(be_forking_leader, &part, 0, 60);
    assert_int_equal(scratch_wait(pids[0]), 7);
    for (int i = 1; i < 5; i++)
        assert_int_equal(scratch_wait(pids[i]), 0);
    assert_int_equal(board->compiles, 2);
    atomic_store(&board->hold, 0);
    munmap(board, sizeof(*board));
    rig_open(r);
}

static void a_leader_gives_its_lock_back_though_a_child_has_it_too(void **state)
{
    struct rig *r = *state;
    struct wc_key_lock lock, again;
    int go[2];
    pid_t child;
    char byte;
    take_lock(r, &lock, WC_LOCK_FIRST);
    assert_int_equal(pipe(go), 0);
    child = fork();
    if (child == 0) {
        close(go[1]);
        (void)!read(go[0], &byte, 1);
        _exit(0);
    }
    wc_key_lock_close(&lock, 0);
    take_lock(r, &again, WC_LOCK_FIRST); /* while the child lives */
    wc_key_lock_close(&again, 0);
    close(go[0]);
    close(go[1]);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

/* A host that closes all it does not know, and opens something of its own there. */
struct closer {
    int lowest, highest;
};

static void close_all(void *argument)
{
    struct closer *closer = argument;
    for (int fd = closer->lowest; fd < closer->lowest + 64; fd++)
        close(fd);
    for (int i = 0; i < 8; i++)
        closer->highest = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int be_closer(void *argument)
{
    struct rig *r = argument;
    struct closer closer;
    struct stat st;
    rig_open(r);
    closer.lowest = dup(0);
    close(closer.lowest);
    r->engine.on_compile = close_all;
    r->engine.on_compile_argument = &closer;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    for (int fd = closer.lowest; fd <= closer.highest; fd++)
        assert_int_equal(fstat(fd, &st), 0); /* the host's are all open */
    rig_close(r);
    return 0;
}

static void descriptors_that_were_closed_and_reused_are_the_hosts(void **state)
{
    struct rig *r = *state;
    rig_close(r);
    assert_int_equal(scratch_child(be_closer, r, 0, 30), 0);
    rig_open(r);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
}

/* In the child of a fork the table may be locked, and has flights that never land. */
static void fork_in_compile(void *argument)
{
    struct rig *r = argument;
    pid_t child;
    int status;
    r->engine.on_compile = NULL;
    child = fork();
    if (child == 0) {
        /* The parent leads and waits for this child: the lock is the parent's. */
        const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
        wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
        wasmcache_module *module = NULL;
        options.wait_ms = 100;
        _exit(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, NULL) ? 1 : 0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void the_child_of_a_fork_has_no_flights(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->engine.on_compile = fork_in_compile;
    r->engine.on_compile_argument = r;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
}

static int tear_down(void **state)
{
    stop_clock();
    wc_os_settles_forced = -1;
    return fixture_end(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(threads_get_clones_of_one_compile),
        TEST(threads_load_what_one_published_where_the_engine_cannot_clone),
        TEST(a_clone_that_fails_is_a_load),
        TEST(who_cannot_get_what_was_not_saved_does_not_queue_for_it),
        TEST(what_was_not_saved_is_shared_all_the_same),
        TEST(a_read_only_cache_shares_between_threads),
        TEST(two_caches_of_a_process_compile_once),
        TEST(another_attachment_of_the_cache_loads),
        TEST(who_must_hit_gets_its_answer_at_once),
        TEST(a_digest_without_bytes_takes_no_lock),
        TEST(who_does_not_wait_compiles),
        TEST(at_its_limit_it_goes_for_the_second_byte),
        TEST(nobody_waits_for_ever),
        TEST(the_entry_itself_ends_the_wait),
        TEST(a_leader_that_could_not_save_lets_all_go),
        TEST(what_is_published_at_any_step_is_not_compiled_again),
        TEST(phases_come_in_order_and_a_wait_ticks),
        TEST(a_refused_wait_leaves_nothing),
        TEST(a_refused_compile_lets_the_others_go_on),
        TEST(a_refused_save_keeps_the_module),
        TEST(where_there_are_no_locks_each_compiles),
        TEST(a_network_file_system_gets_no_locks),
        TEST(what_is_no_lock_file_is_left_alone),
        TEST(each_failing_call_costs_no_module),
        TEST(who_may_write_no_files_is_sent_no_signal),
        TEST(processes_compile_once),
        TEST(processes_compile_once_where_the_engine_cannot_clone),
        TEST(a_dead_leader_is_replaced_by_one),
        TEST(a_stopped_leader_costs_one_compile_more),
        TEST(a_child_of_a_dead_leader_costs_one_compile_more),
        TEST(a_leader_gives_its_lock_back_though_a_child_has_it_too),
        TEST(descriptors_that_were_closed_and_reused_are_the_hosts),
        TEST(the_child_of_a_fork_has_no_flights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
