/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that attaches and then forks its workers, with the engine as it is by default: one that
 * compiles on threads of its own. Those do not come along, so an engine that has compiled cannot in
 * a child; attaching must not be what makes it compile.
 * no-tsan: the children's engines start threads after a fork from a process with tsan's own
 */
#include "engine_host.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static struct scratch scratch;

struct worker {
    wasmcache *cache;
    wasm_engine_t *engine;
    wasmcache_attachment *wc;
    wasmcache_outcome expected;
};

static int work(void *argument)
{
    const struct worker *w = argument;
    wasmcache_source source = wasmcache_source_bytes(wasm_add, wasm_add_size);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    if (wasmcache_get(&module, w->wc, WASMCACHE_MODULE, &source, NULL, &report) != 0)
        return 1;
    wasmcache_module_release(module);
    return report.outcome == w->expected && report.save_error == 0 ? 0 : 2;
}

static void workers_of_a_server_that_attached_compile_and_hit(void **state)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    struct worker w = {NULL, wasm_engine_new(), NULL, WASMCACHE_COMPILED};
    (void)state;
    options.dir = scratch_in(&scratch, "cache");
    assert_int_equal(wasmcache_open(&w.cache, &options), 0);
    w.wc = engine_attach(w.cache, w.engine, "");
    assert_non_null(w.wc);
    assert_int_equal(scratch_child(work, &w, 0, 30), 0); /* 100 + SIGALRM: it hung */
    w.expected = WASMCACHE_HIT;
    assert_int_equal(scratch_child(work, &w, 0, 30), 0);
    assert_int_equal(work(&w), 0);
    wasmcache_detach(w.wc);
    wasm_engine_delete(w.engine);
    wasmcache_close(w.cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers_of_a_server_that_attached_compile_and_hit),
    };
    int failed;
    scratch_init(&scratch);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_end(&scratch);
    return failed;
}
