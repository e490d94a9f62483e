/* SPDX-License-Identifier: Apache-2.0 */
/* Requests with Wasmtime: ten modules, compiled, saved, found, loaded, and run. */
#include "wasmtime_host.h"

#include <poll.h>

#include "wasmcache_async.h"

enum { MODULES = 10 };

static struct scratch scratch;

static struct {
    struct host h;
    wasmcache_executor *executor;
    uint8_t wasm[MODULES][WASM_ANSWER_ROOM(300)];
    size_t size[MODULES];
    wasmcache_key key[MODULES];
} team;

struct asked {
    int32_t value;
    unsigned answers;
    int error;
    wasmcache_report report;
    wasmcache_module *module;
};

static void answer(wasmcache_request *request, const wasmcache_result *result, void *payload)
{
    struct asked *a = payload;
    (void)request;
    a->answers++;
    a->error = result->error;
    a->report = *result->report;
    a->module = result->module;
}

/* As an event loop does it: until `count` callbacks came. */
static void dispatch_all(int count)
{
    struct pollfd p = {wasmcache_executor_fd(team.executor), POLLIN, 0};
    while (count > 0) {
        int n;
        assert_int_equal(poll(&p, 1, 60000), 1);
        n = wasmcache_executor_dispatch(team.executor);
        assert_true(n > 0);
        count -= n;
    }
    assert_int_equal(count, 0);
    assert_int_equal(poll(&p, 1, 0), 0);
}

static void run_and_release(struct asked *a, int error, wasmcache_outcome outcome)
{
    assert_int_equal(a->answers, 1);
    assert_int_equal(a->error, error);
    assert_int_equal(a->report.outcome, outcome);
    if (a->module)
        assert_int_equal(
            call_export(team.h.engine, wasmcache_module_native(a->module), "answer", NULL, 0),
            a->value);
    wasmcache_module_release(a->module);
    memset(a, 0, sizeof(*a));
}

static void ask_get(struct asked *a, int i, const wasmcache_get_options *options)
{
    const wasmcache_source source = wasmcache_source_bytes(team.wasm[i], team.size[i]);
    memset(a, 0, sizeof(*a));
    a->value = 500 + i;
    assert_int_equal(wasmcache_request_get(NULL, team.executor, team.h.wc, WASMCACHE_MODULE,
                                           &source, options, answer, a),
                     0);
}

static void ask_load(struct asked *a, int i)
{
    memset(a, 0, sizeof(*a));
    a->value = 500 + i;
    assert_int_equal(wasmcache_request_load(NULL, team.executor, team.h.wc, WASMCACHE_MODULE,
                                            &team.key[i], answer, a),
                     0);
}

static void ask_contains(struct asked *a, int i)
{
    memset(a, 0, sizeof(*a));
    assert_int_equal(wasmcache_request_contains(NULL, team.executor, team.h.wc, WASMCACHE_MODULE,
                                                &team.key[i], answer, a),
                     0);
}

static int set_up(void **state)
{
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    (void)state;
    scratch_init(&scratch);
    host_open(&team.h, scratch_in(&scratch, "cache"), NULL, 0);
    options.threads = 3;
    assert_int_equal(wasmcache_executor_new(&team.executor, &options), 0);
    for (int i = 0; i < MODULES; i++) {
        team.size[i] = wasm_answer(team.wasm[i], 500 + i, (size_t)i + 1);
        team.key[i] = key_of(team.wasm[i], team.size[i]);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    wasmcache_executor_free(team.executor);
    host_close(&team.h);
    scratch_end(&scratch);
    return 0;
}

static void ten_modules_are_got_then_found_then_loaded_then_hit(void **state)
{
    struct asked a[MODULES];
    (void)state;
    for (int i = 0; i < MODULES; i++)
        ask_contains(&a[i], i);
    dispatch_all(MODULES);
    for (int i = 0; i < MODULES; i++)
        run_and_release(&a[i], WASMCACHE_EMISS, WASMCACHE_FAILED);
    for (int i = 0; i < MODULES; i++)
        ask_get(&a[i], i, NULL);
    dispatch_all(MODULES);
    for (int i = 0; i < MODULES; i++) {
        assert_non_null(a[i].module);
        run_and_release(&a[i], 0, WASMCACHE_COMPILED);
    }
    assert_int_equal(host_loads(), 0);
    host_forget(&team.h.seen);
    for (int i = 0; i < MODULES; i++)
        ask_contains(&a[i], i);
    dispatch_all(MODULES);
    for (int i = 0; i < MODULES; i++)
        run_and_release(&a[i], 0, WASMCACHE_FAILED);
    for (int i = 0; i < MODULES; i++)
        ask_load(&a[i], i);
    dispatch_all(MODULES);
    for (int i = 0; i < MODULES; i++) {
        assert_non_null(a[i].module);
        run_and_release(&a[i], 0, WASMCACHE_HIT);
    }
    for (int i = 0; i < MODULES; i++)
        ask_get(&a[i], i, NULL);
    dispatch_all(MODULES);
    for (int i = 0; i < MODULES; i++) {
        assert_non_null(a[i].module);
        run_and_release(&a[i], 0, WASMCACHE_HIT);
    }
    assert_int_equal(host_called("wasmtime_module_new"), 0);
    assert_int_equal(host_called("wasmtime_module_deserialize_file"), 2 * MODULES);
}

static void ten_modules_are_saved_and_loaded(void **state)
{
    wasmtime_module_t *native[MODULES];
    struct asked a[MODULES];
    (void)state;
    for (int i = 0; i < MODULES; i++) {
        memset(&a[i], 0, sizeof(a[i]));
        assert_null(wasmtime_module_new(team.h.engine, team.wasm[i], team.size[i], &native[i]));
        assert_int_equal(wasmcache_request_save(NULL, team.executor, team.h.wc, WASMCACHE_MODULE,
                                                &team.key[i], native[i], NULL, answer, &a[i]),
                         0);
    }
    dispatch_all(MODULES);
    for (int i = 0; i < MODULES; i++) {
        run_and_release(&a[i], 0, WASMCACHE_SAVED);
        wasmtime_module_delete(native[i]);
        ask_load(&a[i], i);
    }
    dispatch_all(MODULES);
    for (int i = 0; i < MODULES; i++) {
        assert_non_null(a[i].module);
        run_and_release(&a[i], 0, WASMCACHE_HIT);
    }
}

/* All of the same, none saved: whoever finds another one compiling waits for that. */
static void what_is_asked_for_at_the_same_time_is_compiled_once_or_hit(void **state)
{
    static uint8_t wasm[WASM_WORK_ROOM(3000)];
    const size_t size = wasm_work(wasm, 7, 3000);
    const wasmcache_source source = wasmcache_source_bytes(wasm, size);
    enum { REQUESTS = 30 };
    struct asked a[REQUESTS];
    unsigned outcomes[WASMCACHE_JOINED + 1] = {0};
    const int32_t six = 6;
    (void)state;
    memset(a, 0, sizeof(a));
    host_forget(&team.h.seen);
    for (int i = 0; i < REQUESTS; i++)
        assert_int_equal(wasmcache_request_get(NULL, team.executor, team.h.wc, WASMCACHE_MODULE,
                                               &source, NULL, answer, &a[i]),
                         0);
    dispatch_all(REQUESTS);
    for (int i = 0; i < REQUESTS; i++) {
        assert_int_equal(a[i].answers, 1);
        assert_int_equal(a[i].error, 0);
        outcomes[a[i].report.outcome]++;
        assert_int_equal(
            call_export(team.h.engine, wasmcache_module_native(a[i].module), "work", &six, 1), 42);
    }
    for (int i = 0; i < REQUESTS; i++)
        wasmcache_module_release(a[i].module);
    assert_int_equal(outcomes[WASMCACHE_COMPILED], 1);
    assert_int_equal(team.h.seen.count[WASMCACHE_EVENT_SAVED], 1);
    assert_int_equal(outcomes[WASMCACHE_JOINED] + outcomes[WASMCACHE_HIT], REQUESTS - 1);
    print_message("of %d: 1 compiled, %u joined, %u hit\n", REQUESTS, outcomes[WASMCACHE_JOINED],
                  outcomes[WASMCACHE_HIT]);
}

static void what_does_not_compile_has_the_engines_words(void **state)
{
    const wasmcache_source source = wasmcache_source_bytes("\0asm garbage", 12);
    struct asked a = {0};
    (void)state;
    assert_int_equal(wasmcache_request_get(NULL, team.executor, team.h.wc, WASMCACHE_MODULE,
                                           &source, NULL, answer, &a),
                     0);
    dispatch_all(1);
    assert_null(a.module);
    run_and_release(&a, WASMCACHE_EENGINE, WASMCACHE_FAILED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(ten_modules_are_got_then_found_then_loaded_then_hit),
        TEST(ten_modules_are_saved_and_loaded),
        TEST(what_is_asked_for_at_the_same_time_is_compiled_once_or_hit),
        TEST(what_does_not_compile_has_the_engines_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
