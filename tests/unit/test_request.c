/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: what comes of them, who waits for whom, cancellation, and the one callback of each. */
#include "asked.h"
#include "executor.h"
#include "fixture.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct gate gate;

static int gated_rig(void **state)
{
    if (fixture_rig(state) < 0)
        return -1;
    gate_set(&gate, *state);
    rig_open(*state);
    return 0;
}

/* ---- what comes of them ---- */

static void a_get_misses_then_hits(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    struct asked a;
    ask_get(&a, r, executor, "wasm", 0);
    run_all(executor);
    assert_answered_once(&a);
    assert_int_equal(a.report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(a.report.save_error, 0);
    assert_int_equal(a.report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_true(a.report.total_ns >= a.report.key_ns + a.report.save_ns);
    assert_true(pthread_equal(a.thread, pthread_self()));
    ask_get(&a, r, executor, "wasm", 0);
    run_all(executor);
    assert_answered_once(&a);
    assert_int_equal(a.report.outcome, WASMCACHE_HIT);
    assert_int_equal(r->engine.compiles, 1);
    assert_string_equal(r->events.log, "miss,saved,hit,");
    wasmcache_executor_free(executor);
}

static void load_and_contains_find_what_a_save_saved(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    const wasmcache_key key = rig_key("wasm");
    void *native = fake_module_new(&r->engine, WASMCACHE_MODULE, "wasm", 4);
    wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    struct asked a;

    ask_contains(&a, r, executor, "wasm");
    run_all(executor);
    assert_int_equal(a.error, WASMCACHE_EMISS);
    assert_int_equal(a.report.reason, WASMCACHE_REASON_NOT_FOUND);
    ask_load(&a, r, executor, "wasm");
    run_all(executor);
    assert_int_equal(a.error, WASMCACHE_EMISS);
    assert_answered_once(&a);

    options.wasm_bytes = 4;
    asked_init(&a, r, "wasm");
    assert_int_equal(wasmcache_request_save(&a.handle, executor, r->wc, WASMCACHE_MODULE, &key,
                                            native, &options, answer, &a),
                     0);
    run_all(executor);
    assert_int_equal(a.error, 0);
    assert_int_equal(a.has_module, 0);
    assert_int_equal(a.report.outcome, WASMCACHE_SAVED);
    r->engine.table.module_free(WASMCACHE_MODULE, native);

    ask_contains(&a, r, executor, "wasm");
    run_all(executor);
    assert_int_equal(a.error, 0);
    assert_int_equal(a.has_module, 0);
    assert_true(wasmcache_key_equal(&a.report.key, &key));
    ask_load(&a, r, executor, "wasm");
    run_all(executor);
    assert_answered_once(&a);
    assert_int_equal(a.report.outcome, WASMCACHE_HIT);
    assert_int_equal(a.report.wasm_bytes, 4);
    wasmcache_executor_free(executor);
}

/* The detail is what the blocking call leaves as last error, and the thread's own stays. */
static void errors_are_those_of_the_blocking_call(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    const wasmcache_source source = wasmcache_source_path("/there/is/no/such.wasm");
    const wasmcache_key key = rig_key("wasm");
    wasmcache_module *module = NULL;
    struct asked a;

    ask_source(&a, r, executor, "", &source);
    run_all(executor);
    assert_string_equal(wasmcache_last_error()->message, "");
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, NULL),
                     WASMCACHE_EIO);
    assert_int_equal(a.error, WASMCACHE_EIO);
    assert_int_equal(a.system_errno, wasmcache_last_error()->system_errno);
    assert_string_equal(a.message, wasmcache_last_error()->message);
    assert_string_equal(a.call, wasmcache_last_error()->call);
    assert_int_equal(a.report.reason, WASMCACHE_REASON_SOURCE);

    ask_get(&a, r, executor, "!does not compile", 0);
    run_all(executor);
    assert_int_equal(a.error, WASMCACHE_EENGINE);
    assert_int_equal(rig_get(r, "!does not compile", NULL), WASMCACHE_EENGINE);
    assert_string_equal(a.message, wasmcache_last_error()->message);

    asked_init(&a, r, "wasm");
    assert_int_equal(
        wasmcache_request_load(NULL, executor, NULL, WASMCACHE_MODULE, &key, answer, &a), 0);
    run_all(executor);
    assert_int_equal(a.error, WASMCACHE_EOFF);
    assert_answered_once(&a);
    wasmcache_executor_free(executor);
}

static void misuse_is_told_at_once_and_has_no_callback(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    const wasmcache_source source = wasmcache_source_bytes("wasm", 4);
    const wasmcache_source no_source = wasmcache_source_bytes(NULL, 4);
    const wasmcache_key key = rig_key("wasm"), no_key = {0, 0, {0}};
    wasmcache_get_options get_options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_save_options save_options = WASMCACHE_SAVE_OPTIONS_INIT;
    const unsigned threads = threads_here();
    struct asked a;

    get_options.flags = 1u << 20;
    save_options.flags = 1u << 20;
    asked_init(&a, r, "wasm");
#define REFUSED(call)                                                                              \
    do {                                                                                           \
        a.handle = (wasmcache_request *)&a;                                                        \
        assert_int_equal(call, WASMCACHE_EMISUSE);                                                 \
        assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EMISUSE);                        \
        assert_null(a.handle);                                                                     \
    } while (0)
#define GET(executor, attachment, kind, source, options, callback)                                 \
    wasmcache_request_get(&a.handle, executor, attachment, kind, source, options, callback, &a)
    REFUSED(GET(NULL, r->wc, WASMCACHE_MODULE, &source, NULL, answer));
    REFUSED(GET(executor, NULL, WASMCACHE_MODULE, &source, NULL, answer));
    REFUSED(GET(executor, r->wc, (wasmcache_kind)7, &source, NULL, answer));
    REFUSED(GET(executor, r->wc, WASMCACHE_MODULE, NULL, NULL, answer));
    REFUSED(GET(executor, r->wc, WASMCACHE_MODULE, &no_source, NULL, answer));
    REFUSED(GET(executor, r->wc, WASMCACHE_MODULE, &source, &get_options, answer));
    REFUSED(GET(executor, r->wc, WASMCACHE_MODULE, &source, NULL, NULL));
#define KEYED(name, key)                                                                           \
    wasmcache_request_##name(&a.handle, executor, r->wc, WASMCACHE_MODULE, key, answer, &a)
    REFUSED(KEYED(load, NULL));
    REFUSED(KEYED(load, &no_key));
    REFUSED(KEYED(contains, &no_key));
#define SAVE(native, options)                                                                      \
    wasmcache_request_save(&a.handle, executor, r->wc, WASMCACHE_MODULE, &key, native, options,    \
                           answer, &a)
    REFUSED(SAVE(NULL, NULL));
    REFUSED(SAVE(&a, &save_options));
    assert_int_equal(wasmcache_request_cancel(NULL), WASMCACHE_EMISUSE);
    assert_int_equal(threads_here(), threads);
    assert_int_equal(wasmcache_executor_wait(executor, -1), 0);
    wasmcache_executor_free(executor);
    assert_int_equal(a.answers, 0);
    assert_int_equal(r->engine.compiles, 0);
}

/* ---- who waits for whom ---- */

static void one_thread_compiles_once_for_eight_requests(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    struct asked a[8];
    for (int i = 0; i < 8; i++)
        ask_get(&a[i], r, executor, "wasm", 0);
    run_all(executor);
    for (int i = 0; i < 8; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].error, 0);
    }
    assert_int_equal(r->engine.compiles, 1);
    wasmcache_executor_free(executor);
}

/* Waits until `count` requests are parked: they have told the gate nothing, so that another one
 * that is asked behind them, and hit, is the sign. */
static void let_them_park(struct rig *r, wasmcache_executor *executor, const char *known)
{
    struct asked a;
    ask_get(&a, r, executor, known, 0);
    while (!a.answers) {
        assert_int_equal(wasmcache_executor_wait(executor, 30000), 1);
        wasmcache_executor_dispatch(executor);
    }
    assert_int_equal(a.report.outcome, WASMCACHE_HIT);
}

/* Two threads: one compiles, and the other one is free whoever waits for that. */
static void who_waits_for_a_compile_holds_no_thread_and_no_descriptor(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    char *file = scratch_in(&r->scratch, "file.wasm");
    const wasmcache_source source = wasmcache_source_path(file);
    struct asked leader, a[20];
    unsigned descriptors;

    scratch_write(file, "wasm", 4, 0600);
    assert_int_equal(rig_save(r, "known", NULL), 0);
    descriptors = scratch_descriptors();
    ask_get(&leader, r, executor, "wasm", 0);
    wait_for(&gate.inside, 1);
    for (int i = 0; i < 20; i++)
        ask_source(&a[i], r, executor, "wasm", &source);
    let_them_park(r, executor, "known");
    assert_int_equal(scratch_descriptors(), descriptors + 1); /* the leader's lock */
    assert_int_equal(leader.answers, 0);
    assert_int_equal(a[0].answers, 0);
    gate_open(&gate);
    run_all(executor);
    assert_answered_once(&leader);
    assert_int_equal(leader.report.outcome, WASMCACHE_COMPILED);
    for (int i = 0; i < 20; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].report.outcome, WASMCACHE_JOINED);
        assert_int_equal(a[i].report.reason, WASMCACHE_REASON_NOT_FOUND);
        assert_int_equal(a[i].report.save_error, 0);
        assert_int_equal(a[i].report.artifact_bytes, leader.report.artifact_bytes);
        assert_int_equal(a[i].report.wasm_bytes, 4);
        assert_int_equal(a[i].report.compile_ns, 0);
        assert_true(a[i].report.key_ns > 0);
        assert_true(wasmcache_key_equal(&a[i].report.key, &leader.report.key));
    }
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(gate.inside, 1);
    wasmcache_executor_free(executor);
}

static void other_flags_kinds_and_attachments_do_not_join(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(4, 0);
    const wasmcache_source source = wasmcache_source_bytes("wasm", 4);
    wasmcache_attachment *other = NULL;
    struct asked a[4];

    assert_int_equal(wasmcache_attach(&other, r->cache, &r->engine.table, &r->engine, &r->attach),
                     0);
    ask_get(&a[0], r, executor, "wasm", 0);
    wait_for(&gate.inside, 1);
    ask_get(&a[1], r, executor, "wasm", WASMCACHE_GET_NO_SAVE);
    for (int i = 2; i < 4; i++) {
        asked_init(&a[i], r, "wasm");
        assert_int_equal(wasmcache_request_get(NULL, executor, i == 2 ? other : r->wc,
                                               i == 2 ? WASMCACHE_MODULE : WASMCACHE_COMPONENT,
                                               &source, NULL, answer, &a[i]),
                         0);
    }
    wait_for(&gate.inside, 3); /* at the same time; and the other attachment waits for an entry */
    gate_open(&gate);
    run_all(executor);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(a[i].error, 0);
        if (i != 2)
            assert_int_equal(a[i].report.outcome, WASMCACHE_COMPILED);
    }
    /* There is one entry for a key: the component may have taken the module's place by then. */
    if (a[2].report.outcome != WASMCACHE_HIT)
        assert_int_equal(a[2].report.reason, WASMCACHE_REASON_MISMATCHED);
    wasmcache_executor_free(executor);
    wasmcache_detach(other);
}

static void what_does_not_compile_is_tried_once(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    struct asked leader, a[5];
    assert_int_equal(rig_save(r, "known", NULL), 0);
    ask_get(&leader, r, executor, "!wasm", 0);
    wait_for(&gate.inside, 1);
    for (int i = 0; i < 5; i++)
        ask_get(&a[i], r, executor, "!wasm", 0);
    let_them_park(r, executor, "known");
    gate_open(&gate);
    run_all(executor);
    assert_int_equal(leader.error, WASMCACHE_EENGINE);
    for (int i = 0; i < 5; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].error, WASMCACHE_EENGINE);
        assert_string_equal(a[i].message, leader.message);
        assert_int_equal(a[i].report.outcome, WASMCACHE_FAILED);
    }
    assert_int_equal(r->engine.compiles, 1);
    wasmcache_executor_free(executor);
}

/* ---- leaders that fail, or have something else ---- */

/* A fetch that waits at the gate and then gives its payload, or fails without one. */
static int fetch_behind_gate(const void **bytes, size_t *length, void *payload)
{
    gate_wait(&gate);
    if (!payload)
        return 1;
    *bytes = payload;
    *length = strlen(payload);
    return 0;
}

static void ask_digest(struct asked *a, struct rig *r, wasmcache_executor *executor,
                       const char *wasm, const wasmcache_key *key, const char *fetched)
{
    const wasmcache_source source =
        wasmcache_source_sha256(key->bytes, fetch_behind_gate, (void *)(uintptr_t)fetched);
    ask_source(a, r, executor, wasm, &source);
}

static void when_a_leaders_source_fails_the_next_one_leads(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    const wasmcache_key key = rig_key("wasm");
    struct asked leader, a[5];
    assert_int_equal(rig_save(r, "known", NULL), 0);
    ask_digest(&leader, r, executor, "wasm", &key, NULL);
    wait_for(&gate.inside, 1);
    for (int i = 0; i < 5; i++)
        ask_get(&a[i], r, executor, "wasm", 0);
    let_them_park(r, executor, "known");
    gate_open(&gate);
    run_all(executor);
    assert_int_equal(leader.error, WASMCACHE_EABORTED);
    assert_string_equal(leader.call, "fetch");
    for (int i = 0; i < 5; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].error, 0);
        assert_int_equal(a[i].report.outcome, i ? WASMCACHE_JOINED : WASMCACHE_COMPILED);
    }
    assert_int_equal(r->engine.compiles, 1);
    wasmcache_executor_free(executor);
}

static void a_leader_with_other_wasm_than_it_says_is_not_joined(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    const wasmcache_key key = rig_key("wasm");
    struct asked leader, a[3];
    assert_int_equal(rig_save(r, "known", NULL), 0);
    ask_digest(&leader, r, executor, "another", &key, "another");
    wait_for(&gate.inside, 1);
    for (int i = 0; i < 3; i++)
        ask_get(&a[i], r, executor, "wasm", 0);
    let_them_park(r, executor, "known");
    gate_open(&gate);
    run_all(executor);
    assert_answered_once(&leader); /* what it asked for is its own affair */
    assert_int_equal(leader.error, 0);
    for (int i = 0; i < 3; i++) {
        assert_answered_once(&a[i]); /* `right`: the module is that of "wasm" */
        assert_int_equal(a[i].error, 0);
    }
    assert_int_equal(r->engine.compiles, 2);
    wasmcache_executor_free(executor);
}

static void a_leader_whose_bytes_change_under_the_compile_is_not_joined(void **state)
{
    for (unsigned flags = 0; flags <= WASMCACHE_GET_NO_SAVE; flags += WASMCACHE_GET_NO_SAVE) {
        struct rig *r = *state;
        wasmcache_executor *executor = executor_with(2, 0);
        char bytes[] = "wasm 0";
        struct asked leader, a;
        bytes[5] = (char)('0' + flags);
        if (flags == 0)
            assert_int_equal(rig_save(r, "known", NULL), 0);
        gate.open = 0;
        atomic_store(&gate.inside, 0);
        ask_get(&leader, r, executor, bytes, flags);
        wait_for(&gate.inside, 1);
        ask_get(&a, r, executor, flags ? "wasm 2" : "wasm 0", flags);
        let_them_park(r, executor, "known");
        memcpy(bytes, "other!", 6);
        gate_open(&gate);
        run_all(executor);
        assert_int_equal(leader.error, 0);
        assert_answered_once(&a);
        assert_int_equal(a.report.outcome, WASMCACHE_COMPILED);
        wasmcache_executor_free(executor);
    }
}

static int (*real_deserialize_file)(void *engine, wasmcache_kind kind, const char *path,
                                    void **module, void **error);

static int deserialize_file_behind_gate(void *engine, wasmcache_kind kind, const char *path,
                                        void **module, void **error)
{
    gate_wait(&gate);
    return real_deserialize_file(engine, kind, path, module, error);
}

static void loads_join_too(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    struct asked a[6], missing;
    gate_init(&gate);
    real_deserialize_file = r->engine.table.deserialize_file;
    r->engine.table.deserialize_file = deserialize_file_behind_gate;
    rig_open(r);
    assert_int_equal(rig_save(r, "wasm", NULL), 0);
    for (int i = 0; i < 6; i++)
        ask_load(&a[i], r, executor, "wasm");
    ask_load(&missing, r, executor, "missing");
    while (!missing.answers) { /* the others are in the gate, or parked */
        assert_int_equal(wasmcache_executor_wait(executor, 30000), 1);
        wasmcache_executor_dispatch(executor);
    }
    assert_int_equal(missing.error, WASMCACHE_EMISS);
    wait_for(&gate.inside, 1);
    gate_open(&gate);
    run_all(executor);
    for (int i = 0; i < 6; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].error, 0);
    }
    assert_int_equal(r->engine.files, 1);
    wasmcache_executor_free(executor);
}

/* A load that fails says nothing about the next: each looks for itself. */
static void loads_that_fail_are_not_shared(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(4, 0);
    struct asked a[50];
    for (int i = 0; i < 50; i++)
        ask_load(&a[i], r, executor, "wasm");
    run_all(executor);
    for (int i = 0; i < 50; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].error, WASMCACHE_EMISS);
    }
    assert_int_equal(r->events.count[WASMCACHE_EVENT_MISS], 50);
    wasmcache_executor_free(executor);
}

static void without_a_cache_each_compiles(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    struct asked a[4];
    r->options.dir = NULL;
    rig_open(r);
    for (int i = 0; i < 4; i++)
        ask_get(&a[i], r, executor, "wasm", 0);
    run_all(executor);
    for (int i = 0; i < 4; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].report.reason, WASMCACHE_REASON_CACHE_OFF);
    }
    assert_int_equal(r->engine.compiles, 4);
    wasmcache_executor_free(executor);
}

/* ---- cancel ---- */

static void what_waits_is_cancelled_at_once(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    struct asked leader, blocker, parked, queued;
    assert_int_equal(rig_save(r, "known", NULL), 0);
    ask_get(&leader, r, executor, "wasm", 0);
    wait_for(&gate.inside, 1);
    ask_get(&parked, r, executor, "wasm", 0);
    let_them_park(r, executor, "known");
    ask_get(&blocker, r, executor, "blocker", 0);
    wait_for(&gate.inside, 2);
    ask_get(&queued, r, executor, "queued", 0);

    assert_int_equal(wasmcache_request_cancel(queued.handle), WASMCACHE_CANCEL_ABORTED);
    assert_int_equal(wasmcache_request_cancel(queued.handle), WASMCACHE_CANCEL_LATE);
    assert_int_equal(wasmcache_request_cancel(parked.handle), WASMCACHE_CANCEL_ABORTED);
    assert_int_equal(queued.answers + parked.answers, 0); /* not inside cancel */
    assert_int_equal(wasmcache_executor_dispatch(executor), 2);
    assert_int_equal(queued.error, WASMCACHE_EABORTED);
    assert_int_equal(parked.error, WASMCACHE_EABORTED);
    assert_int_equal(parked.report.outcome, WASMCACHE_FAILED);

    /* A compile goes on, and what comes of it is handed over. */
    assert_int_equal(wasmcache_request_cancel(leader.handle), WASMCACHE_CANCEL_ASKED);
    gate_open(&gate);
    run_all(executor);
    assert_int_equal(leader.error, 0);
    assert_int_equal(leader.report.outcome, WASMCACHE_COMPILED);
    assert_answered_once(&queued);
    assert_answered_once(&parked);
    assert_answered_once(&leader);
    assert_answered_once(&blocker);
    assert_int_equal(r->engine.compiles, 2);
    wasmcache_executor_free(executor);
}

static void what_is_finished_is_delivered(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    struct asked a;
    ask_get(&a, r, executor, "wasm", 0);
    assert_int_equal(wasmcache_executor_wait(executor, -1), 1);
    assert_int_equal(wasmcache_request_cancel(a.handle), WASMCACHE_CANCEL_LATE);
    run_all(executor);
    assert_answered_once(&a);
    assert_int_equal(a.error, 0);
    wasmcache_executor_free(executor);
}

/* Between lookup and compile, where the event of the miss is told. */
static atomic_bool hold_a_miss;

static void wait_at_a_miss(const wasmcache_event *event, void *payload)
{
    (void)payload;
    if (event->type == WASMCACHE_EVENT_MISS && atomic_exchange(&hold_a_miss, 0))
        gate_wait(&gate);
}

static void what_runs_stops_before_its_next_step_and_the_next_one_leads(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, 0);
    struct asked a, next;
    gate_init(&gate);
    r->options.on_event = wait_at_a_miss;
    rig_open(r);
    assert_int_equal(rig_save(r, "known", NULL), 0);
    atomic_store(&hold_a_miss, 1);
    ask_get(&a, r, executor, "wasm", 0);
    wait_for(&gate.inside, 1);
    ask_get(&next, r, executor, "wasm", 0);
    let_them_park(r, executor, "known");
    assert_int_equal(wasmcache_request_cancel(a.handle), WASMCACHE_CANCEL_ASKED);
    assert_int_equal(wasmcache_request_cancel(a.handle), WASMCACHE_CANCEL_ASKED);
    gate_open(&gate);
    run_all(executor);
    assert_answered_once(&a);
    assert_int_equal(a.error, WASMCACHE_EABORTED);
    assert_answered_once(&next);
    assert_int_equal(next.error, 0);
    assert_int_equal(next.report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(r->engine.compiles, 1);
    wasmcache_executor_free(executor);
}

static atomic_uint fetches;

static int count_fetch(const void **bytes, size_t *length, void *payload)
{
    (void)bytes, (void)length, (void)payload;
    atomic_fetch_add(&fetches, 1);
    return 1;
}

static void what_was_cancelled_fetches_nothing(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(1, 0);
    const wasmcache_key key = rig_key("wasm");
    const wasmcache_source source = wasmcache_source_sha256(key.bytes, count_fetch, NULL);
    struct asked a;
    gate_init(&gate);
    r->options.on_event = wait_at_a_miss;
    rig_open(r);
    atomic_store(&fetches, 0);
    atomic_store(&hold_a_miss, 1);
    ask_source(&a, r, executor, "wasm", &source);
    wait_for(&gate.inside, 1);
    assert_int_equal(wasmcache_request_cancel(a.handle), WASMCACHE_CANCEL_ASKED);
    gate_open(&gate);
    run_all(executor);
    assert_answered_once(&a);
    assert_int_equal(a.error, WASMCACHE_EABORTED);
    assert_int_equal(fetches, 0);
    wasmcache_executor_free(executor);
}

/* ---- callbacks ---- */

static struct {
    wasmcache_executor *executor;
    struct asked second, third;
} chain;

static void start_two_and_cancel_one(struct asked *a)
{
    ask_get(&chain.second, a->r, chain.executor, "second", 0);
    ask_get(&chain.third, a->r, chain.executor, "third", 0);
    assert_true(wasmcache_request_cancel(chain.third.handle) >= 0);
    assert_true(wasmcache_request_cancel(a->handle) == WASMCACHE_CANCEL_LATE);
    wasmcache_executor_dispatch(chain.executor);
}

static void a_callback_starts_cancels_and_dispatches(void **state)
{
    struct rig *r = *state;
    struct asked first;
    chain.executor = executor_with(1, 0);
    ask_get(&first, r, chain.executor, "first", 0);
    first.then = start_two_and_cancel_one;
    run_all(chain.executor);
    assert_answered_once(&first);
    assert_answered_once(&chain.second);
    assert_answered_once(&chain.third);
    assert_int_equal(chain.second.error, 0);
    wasmcache_executor_free(chain.executor);
}

static void start_while_freed(struct asked *a)
{
    const wasmcache_source source = wasmcache_source_bytes("late", 4);
    asked_init(&chain.second, a->r, "late");
    assert_int_equal(wasmcache_request_get(&chain.second.handle, chain.executor, a->r->wc,
                                           WASMCACHE_MODULE, &source, NULL, answer, &chain.second),
                     WASMCACHE_EABORTED);
    assert_null(chain.second.handle);
}

/* Finished, running, parked and queued at once. */
static void free_answers_all_that_is_left(void **state)
{
    struct rig *r = *state;
    struct asked done, leader, parked, blocker, queued[10];
    const unsigned threads = threads_here(), descriptors = scratch_descriptors();

    chain.executor = executor_with(2, 0);
    assert_int_equal(rig_save(r, "known", NULL), 0);
    ask_get(&leader, r, chain.executor, "leader", 0);
    wait_for(&gate.inside, 1);
    ask_get(&parked, r, chain.executor, "leader", 0);
    let_them_park(r, chain.executor, "known");
    ask_get(&done, r, chain.executor, "known", 0);
    assert_int_equal(wasmcache_executor_wait(chain.executor, -1), 1);
    ask_get(&blocker, r, chain.executor, "blocker", 0);
    wait_for(&gate.inside, 2);
    for (int i = 0; i < 10; i++)
        ask_get(&queued[i], r, chain.executor, "queued", 0);
    queued[5].then = start_while_freed;
    assert_int_equal(done.answers + leader.answers + parked.answers, 0);
    gate_open(&gate);
    wasmcache_executor_free(chain.executor);
    assert_answered_once(&done);
    assert_int_equal(done.error, 0);
    assert_answered_once(&leader);
    assert_answered_once(&parked);
    assert_answered_once(&blocker);
    for (int i = 0; i < 10; i++)
        assert_answered_once(&queued[i]);
    assert_int_equal(chain.second.answers, 0);
    assert_int_equal(threads_soon(threads), threads);
    assert_int_equal(scratch_descriptors(), descriptors);
}

/* Once the executor is being freed, lets the host's pool run and compiles go on. */
struct opener {
    struct wc_pool *pool;
    struct host_pool *host;
};

static void *open_when_freed(void *argument)
{
    const struct opener *o = argument;
    int closing = 0;
    while (!closing) {
        pthread_mutex_lock(&o->pool->lock);
        closing = o->pool->closing;
        pthread_mutex_unlock(&o->pool->lock);
        sched_yield();
    }
    host_pool_hold(o->host, 0);
    gate_open(&gate);
    return NULL;
}

static void free_and_open(wasmcache_executor *executor, struct host_pool *host)
{
    struct opener opener;
    pthread_t thread;
    opener.pool = atomic_load(&executor->pool);
    opener.host = host;
    assert_int_equal(pthread_create(&thread, NULL, open_when_freed, &opener), 0);
    wasmcache_executor_free(executor);
    pthread_join(thread, NULL);
    host_pool_end(host);
}

static void free_cancels_what_waits_and_waits_for_the_hosts_pool(void **state)
{
    struct rig *r = *state;
    struct host_pool host;
    wasmcache_executor *executor;
    struct asked a[10];

    host_pool_init(&host, 2);
    host_pool_hold(&host, 1);
    executor = host_pool_executor(&host, 0);
    for (int i = 0; i < 10; i++)
        ask_get(&a[i], r, executor, "wasm", 0);
    free_and_open(executor, &host);
    for (int i = 0; i < 10; i++) {
        assert_answered_once(&a[i]);
        assert_int_equal(a[i].error, WASMCACHE_EABORTED);
    }
    assert_int_equal(host.ran, 10);
    assert_int_equal(r->engine.compiles, 0);
}

/* Whoever frees it waits for it, and the host's loop may be gone. */
static void what_ends_while_the_executor_is_freed_wakes_nobody(void **state)
{
    struct rig *r = *state;
    struct host_pool host;
    struct asked a;
    wasmcache_executor *executor;
    host_pool_init(&host, 1);
    executor = host_pool_executor(&host, 0);
    ask_get(&a, r, executor, "wasm", 0);
    wait_for(&gate.inside, 1);
    free_and_open(executor, &host);
    assert_answered_once(&a);
    assert_int_equal(host.ran, 1);
    assert_int_equal(host.woken, 0);
}

/* ---- on the worker ---- */

static void on_the_worker_callbacks_come_by_themselves(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = executor_with(2, WASMCACHE_EXECUTOR_ON_WORKER);
    struct asked leader, parked, queued[3];
    assert_int_equal(rig_save(r, "known", NULL), 0);
    ask_get(&leader, r, executor, "wasm", 0);
    wait_for(&gate.inside, 1);
    ask_get(&parked, r, executor, "wasm", 0);
    for (int i = 0; i < 3; i++)
        ask_get(&queued[i], r, executor, "known", 0);
    for (int i = 0; i < 3; i++)
        wait_for(&queued[i].answers, 1);
    assert_false(pthread_equal(queued[0].thread, pthread_self()));
    assert_int_equal(wasmcache_executor_dispatch(executor), 0);
    assert_int_equal(wasmcache_executor_wait(executor, 0), 0);
    /* Cancelled here, told there. */
    assert_int_equal(wasmcache_request_cancel(parked.handle), WASMCACHE_CANCEL_ABORTED);
    wait_for(&parked.answers, 1);
    assert_false(pthread_equal(parked.thread, pthread_self()));
    assert_int_equal(parked.error, WASMCACHE_EABORTED);
    gate_open(&gate);
    assert_int_equal(wasmcache_executor_wait(executor, -1), 0);
    assert_answered_once(&leader);
    assert_answered_once(&parked);
    assert_int_equal(leader.error, 0);
    wasmcache_executor_free(executor);
}

/* ---- all races ---- */

/* What may be cancelled is what was not answered yet, so the thread that dispatches does it. */
static unsigned dice(unsigned *seed)
{
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 16;
}

static void one_race(struct rig *r, unsigned seed)
{
    enum { COUNT = 40 };
    static const char *const wasm[] = {"a", "b", "c", "d", "!e"};
    const unsigned kind = dice(&seed) % 3;
    struct asked a[COUNT];
    struct host_pool pool;
    wasmcache_executor *executor;
    int started = 0;

    host_pool_init(&pool, kind == 2 ? 1 + dice(&seed) % 3 : 0);
    executor = kind == 2 ? host_pool_executor(&pool, 0) : executor_with(1 + dice(&seed) % 4, 0);
    while (started < COUNT) {
        const char *module = wasm[dice(&seed) % 5];
        unsigned act = dice(&seed) % 12;
        if (act < 6) {
            ask_get(&a[started++], r, executor, module,
                    dice(&seed) % 2 ? WASMCACHE_GET_NO_SAVE : 0);
        } else if (act == 6) {
            ask_load(&a[started++], r, executor, module);
        } else if (act == 7) {
            ask_contains(&a[started++], r, executor, module);
        } else if (act < 10 && started) {
            struct asked *one = &a[dice(&seed) % (unsigned)started];
            if (!one->answers) {
                int found = wasmcache_request_cancel(one->handle);
                assert_in_range(found, WASMCACHE_CANCEL_ABORTED, WASMCACHE_CANCEL_LATE);
            }
        } else if (act == 10) {
            wasmcache_executor_dispatch(executor);
        } else {
            sched_yield();
        }
    }
    if (dice(&seed) % 2)
        run_all(executor);
    wasmcache_executor_free(executor);
    host_pool_end(&pool);
    for (int i = 0; i < COUNT; i++) {
        if (a[i].answers != 1)
            fail_msg("seed %u: request %d was answered %u times", seed, i, a[i].answers);
        assert_true(!a[i].has_module || a[i].right);
    }
}

static void each_is_answered_once_whatever_happens(void **state)
{
    struct rig *r = *state;
    const unsigned threads = threads_here(), descriptors = scratch_descriptors();
    for (unsigned seed = 1; seed <= 300; seed++) {
        one_race(r, seed);
        if (seed % 10 == 0)
            scratch_remove(rig_namespace_dir(r));
    }
    assert_int_equal(threads_soon(threads), threads);
    assert_int_equal(scratch_descriptors(), descriptors);
}

/* One thread starts, two dispatch, one cancels under a lock that callbacks take too. */
static struct {
    struct asked asked[2000];
    pthread_mutex_t locks[2000];
    atomic_uint started, stop, cancels[3];
    wasmcache_executor *executor;
} crowd;

static void forget_handle(struct asked *a)
{
    pthread_mutex_lock(&crowd.locks[a - crowd.asked]);
    a->handle = NULL;
    pthread_mutex_unlock(&crowd.locks[a - crowd.asked]);
}

static void *dispatcher(void *unused)
{
    (void)unused;
    while (!atomic_load(&crowd.stop)) {
        wasmcache_executor_dispatch(crowd.executor);
        sched_yield();
    }
    return NULL;
}

static void *canceller(void *unused)
{
    unsigned seed = 7;
    (void)unused;
    while (!atomic_load(&crowd.stop)) {
        const unsigned started = atomic_load(&crowd.started);
        unsigned i = started ? started - 1 - dice(&seed) % (started < 20 ? started : 20) : 0;
        if (!started)
            continue;
        pthread_mutex_lock(&crowd.locks[i]);
        if (crowd.asked[i].handle)
            atomic_fetch_add(&crowd.cancels[wasmcache_request_cancel(crowd.asked[i].handle)], 1);
        pthread_mutex_unlock(&crowd.locks[i]);
    }
    return NULL;
}

static void threads_that_start_cancel_and_dispatch_meet(void **state)
{
    struct rig *r = *state;
    static const char *const wasm[] = {"a", "b", "c"};
    pthread_t threads[3];
    unsigned seed = 3;
    int aborted = 0;

    memset(&crowd, 0, sizeof(crowd));
    crowd.executor = executor_with(3, 0);
    for (int i = 0; i < 2000; i++)
        pthread_mutex_init(&crowd.locks[i], NULL);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? dispatcher : canceller, NULL),
                         0);
    for (unsigned i = 0; i < 2000; i++) {
        struct asked *a = &crowd.asked[i];
        const char *module = wasm[dice(&seed) % 3];
        const wasmcache_source source = wasmcache_source_bytes(module, 1);
        asked_init(a, r, module);
        a->then = forget_handle;
        pthread_mutex_lock(&crowd.locks[i]);
        assert_int_equal(wasmcache_request_get(&a->handle, crowd.executor, r->wc, WASMCACHE_MODULE,
                                               &source, NULL, answer, a),
                         0);
        pthread_mutex_unlock(&crowd.locks[i]);
        atomic_store(&crowd.started, i + 1);
        if (i % 16 == 0)
            sched_yield();
    }
    for (unsigned i = 0; i < 2000; i++)
        wait_for(&crowd.asked[i].answers, 1);
    atomic_store(&crowd.stop, 1);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    wasmcache_executor_free(crowd.executor);
    for (int i = 0; i < 2000; i++) {
        assert_answered_once(&crowd.asked[i]);
        aborted += crowd.asked[i].error == WASMCACHE_EABORTED;
    }
    print_message("%d of 2000 were aborted; %u cancels met one that waited, %u ran, %u were late\n",
                  aborted, crowd.cancels[0], crowd.cancels[1], crowd.cancels[2]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)
#define GATED(name) cmocka_unit_test_setup_teardown(name, gated_rig, fixture_end)
#define CLOSED(name) cmocka_unit_test_setup_teardown(name, fixture_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_get_misses_then_hits),
        TEST(load_and_contains_find_what_a_save_saved),
        TEST(errors_are_those_of_the_blocking_call),
        TEST(misuse_is_told_at_once_and_has_no_callback),
        TEST(one_thread_compiles_once_for_eight_requests),
        GATED(who_waits_for_a_compile_holds_no_thread_and_no_descriptor),
        GATED(other_flags_kinds_and_attachments_do_not_join),
        GATED(what_does_not_compile_is_tried_once),
        GATED(when_a_leaders_source_fails_the_next_one_leads),
        GATED(a_leader_with_other_wasm_than_it_says_is_not_joined),
        GATED(a_leader_whose_bytes_change_under_the_compile_is_not_joined),
        CLOSED(loads_join_too),
        TEST(loads_that_fail_are_not_shared),
        CLOSED(without_a_cache_each_compiles),
        GATED(what_waits_is_cancelled_at_once),
        TEST(what_is_finished_is_delivered),
        CLOSED(what_runs_stops_before_its_next_step_and_the_next_one_leads),
        CLOSED(what_was_cancelled_fetches_nothing),
        TEST(a_callback_starts_cancels_and_dispatches),
        GATED(free_answers_all_that_is_left),
        GATED(free_cancels_what_waits_and_waits_for_the_hosts_pool),
        GATED(what_ends_while_the_executor_is_freed_wakes_nobody),
        GATED(on_the_worker_callbacks_come_by_themselves),
        TEST(each_is_answered_once_whatever_happens),
        TEST(threads_that_start_cancel_and_dispatch_meet),
    };
    return cmocka_run_group_tests(tests, first_thread, NULL);
}
