/* SPDX-License-Identifier: Apache-2.0 */
/* What is done with a cache: the acts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "torture/lab_seen.h"
#include "wasmcache_async.h"

static void take(struct lab_seen *seen, struct rig *r, int rc, wasmcache_module *module,
                 const char *wasm)
{
    seen->ran = rc;
    if (rc == 0)
        seen->gave = fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                                    r->engine.configuration, wasm, strlen(wasm))
                         ? 1
                         : 2;
    wasmcache_module_release(module);
}

static void note_failure(struct lab_seen *seen)
{
    const wasmcache_error_detail *detail = wasmcache_last_error();
    seen->save_failed = 1;
    seen->save_errno = detail->system_errno;
    snprintf(seen->call, sizeof(seen->call), "%s", detail->call);
    snprintf(seen->message, sizeof(seen->message), "%s", detail->message);
}

static int get(struct rig *r, struct lab_seen *seen, const wasmcache_source *source, unsigned flags)
{
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    int rc;
    options.flags = flags;
    rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, source, &options, &report);
    if (rc == 0 && report.outcome == WASMCACHE_COMPILED && report.save_error == 0)
        seen->acknowledged = 1;
    if (report.reason == WASMCACHE_REASON_SOURCE)
        rc = 1; /* it was the source that could not be read: no fault of the cache's */
    take(seen, r, rc, module, LAB_WASM);
    return rc;
}

static int run_get(struct rig *r, struct lab_seen *seen)
{
    const wasmcache_source source = wasmcache_source_bytes(LAB_WASM, strlen(LAB_WASM));
    return get(r, seen, &source, 0);
}

static int run_recompile(struct rig *r, struct lab_seen *seen)
{
    const wasmcache_source source = wasmcache_source_bytes(LAB_WASM, strlen(LAB_WASM));
    return get(r, seen, &source, WASMCACHE_GET_RECOMPILE);
}

static int run_get_path(struct rig *r, struct lab_seen *seen)
{
    const wasmcache_source source = wasmcache_source_path(scratch_in(&r->scratch, "source.wasm"));
    return get(r, seen, &source, 0);
}

static int run_refused(struct rig *r, struct lab_seen *seen)
{
    r->engine.fail_file = r->engine.fail_bytes = 1;
    return run_get(r, seen);
}

static int run_load(struct rig *r, struct lab_seen *seen)
{
    wasmcache_key key = rig_key(LAB_WASM);
    wasmcache_module *module = NULL;
    int rc = wasmcache_load(&module, r->wc, WASMCACHE_MODULE, &key, NULL);
    take(seen, r, rc, module, LAB_WASM);
    return rc;
}

static int run_save(struct rig *r, struct lab_seen *seen)
{
    wasmcache_key key = rig_key(LAB_WASM);
    void *native = fake_module_new(&r->engine, WASMCACHE_MODULE, LAB_WASM, strlen(LAB_WASM));
    int rc = wasmcache_save(r->wc, WASMCACHE_MODULE, &key, native, NULL, NULL);
    if (rc == 0)
        seen->acknowledged = 1;
    else
        note_failure(seen);
    r->engine.table.module_free(WASMCACHE_MODULE, native);
    return rc;
}

/* rig_open() for when there may be no memory. */
static int open_softly(struct rig *r)
{
    int rc = wasmcache_open(&r->cache, &r->options);
    if (rc == 0)
        rc = wasmcache_attach(&r->wc, r->cache, &r->engine.table, &r->engine, &r->attach);
    return rc;
}

static int run_open(struct rig *r, struct lab_seen *seen)
{
    int rc = open_softly(r);
    if (rc == 0)
        rc = run_get(r, seen);
    return rc;
}

static int run_remove(struct rig *r, struct lab_seen *seen)
{
    wasmcache_key key = rig_key(LAB_WASM);
    int rc = wasmcache_remove(r->cache, rig_namespace(r), &key);
    seen->removed_said = rc == 0 || rc == WASMCACHE_EMISS;
    return rc;
}

static int run_remove_damaged(struct rig *r, struct lab_seen *seen)
{
    wasmcache_key key = rig_key(LAB_WASM);
    (void)seen;
    return wasmcache_remove_damaged(r->cache, rig_namespace(r), &key);
}

static int run_clean(struct rig *r, struct lab_seen *seen)
{
    (void)seen;
    return wasmcache_clean(r->cache, NULL);
}

static int run_prune(struct rig *r, struct lab_seen *seen)
{
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    (void)seen;
    options.max_entries = 1;
    return wasmcache_prune(r->cache, &options, &result);
}

static int run_verify(struct rig *r, struct lab_seen *seen)
{
    wasmcache_iterator *it = NULL;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    unsigned steps = 0;
    int rc = wasmcache_iterate(&it, r->cache, NULL, WASMCACHE_CHECK_DIGEST);
    if (rc == 0)
        while ((rc = wasmcache_iterator_next(it, &entry)) != WASMCACHE_EMISS && steps < 20) {
            /* What is sound is never called damaged, for that is what gets it removed. */
            if (rc == 0 && entry.state == WASMCACHE_REASON_CORRUPT)
                seen->gave = 2;
            steps++;
        }
    wasmcache_iterator_close(it);
    return steps < 20 ? 0 : 1;
}

static int run_stats(struct rig *r, struct lab_seen *seen)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    int rc = wasmcache_stats_read(r->cache, WASMCACHE_STATS_DIRECTORY, &stats);
    (void)run_get(r, seen);
    seen->acknowledged = 0;
    (void)wasmcache_flush(r->cache);
    (void)wasmcache_stats_reset(r->cache);
    return rc;
}

static int run_pin(struct rig *r, struct lab_seen *seen)
{
    wasmcache_key key = rig_key(LAB_WASM);
    (void)seen;
    return wasmcache_pin(r->cache, rig_namespace(r), &key, 1);
}

static void on_result(wasmcache_request *request, const wasmcache_result *result, void *payload)
{
    struct lab_seen *seen = payload;
    (void)request;
    seen->ran = result->error;
    if (result->error == 0)
        seen->gave = fake_module_is(wasmcache_module_native(result->module), WASMCACHE_MODULE, 1,
                                    LAB_WASM, strlen(LAB_WASM))
                         ? 1
                         : 2;
    wasmcache_module_release(result->module);
}

/* A request, whose save is another thread's: the cache is opened with an executor for both. */
static int run_request(struct rig *r, struct lab_seen *seen)
{
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL;
    const wasmcache_source source = wasmcache_source_bytes(LAB_WASM, strlen(LAB_WASM));
    int rc;
    options.threads = 1;
    rc = wasmcache_executor_new(&executor, &options);
    r->options.save_executor = executor;
    if (rc == 0)
        rc = open_softly(r);
    if (rc == 0)
        rc = wasmcache_request_get(NULL, executor, r->wc, WASMCACHE_MODULE, &source, NULL,
                                   on_result, seen);
    if (rc == 0) {
        while (wasmcache_executor_wait(executor, -1) == 1)
            wasmcache_executor_dispatch(executor);
        rc = seen->ran;
    }
    rig_close(r);
    wasmcache_executor_free(executor);
    r->options.save_executor = NULL;
    return rc;
}

const struct lab_act lab_acts[] = {
    {"save", 1, LAB_ABSENT, 0, 0, run_save},
    {"save, durable", 1, LAB_ABSENT, 0, WASMCACHE_DURABLE, run_save},
    {"save over a good entry", 1, LAB_GOOD, LAB_KEEPS, 0, run_save},
    {"save over a damaged entry", 1, LAB_DAMAGED, 0, 0, run_save},
    {"get that compiles", 1, LAB_ABSENT, LAB_GIVES, 0, run_get},
    {"get that compiles, durable", 1, LAB_ABSENT, LAB_GIVES, WASMCACHE_DURABLE, run_get},
    {"get that replaces", 1, LAB_GOOD, LAB_GIVES | LAB_STAYS, 0, run_recompile},
    {"first get of all", 1, LAB_NO_FOLDERS, LAB_GIVES | LAB_OPENS, 0, run_open},
    {"hit", 2, LAB_GOOD, LAB_GIVES | LAB_KEEPS, 0, run_get},
    {"open and hit", 2, LAB_GOOD, LAB_GIVES | LAB_KEEPS | LAB_OPENS, 0, run_open},
    {"hit of a file", 2, LAB_GOOD, LAB_KEEPS, 0, run_get_path},
    {"load", 2, LAB_GOOD, LAB_KEEPS, 0, run_load},
    {"load of nothing", 2, LAB_ABSENT, 0, 0, run_load},
    {"load of a damaged entry", 2, LAB_DAMAGED, 0, 0, run_load},
    {"get of a damaged entry", 2, LAB_DAMAGED, LAB_GIVES, 0, run_get},
    {"get that the engine refuses", 2, LAB_GOOD, LAB_GIVES | LAB_STAYS, 0, run_refused},
    {"get of an old entry", 2, LAB_OLD, LAB_GIVES | LAB_STAYS, WASMCACHE_LEGACY, run_get},
    {"clean", 3, LAB_GOOD, LAB_KEEPS | LAB_LEFT, 0, run_clean},
    {"prune", 3, LAB_GOOD, LAB_MANY, 0, run_prune},
    {"verify", 3, LAB_GOOD, LAB_KEEPS, 0, run_verify},
    {"remove", 3, LAB_GOOD, LAB_REMOVES, 0, run_remove},
    {"remove what is damaged", 3, LAB_DAMAGED, 0, 0, run_remove_damaged},
    {"counters", 3, LAB_GOOD, LAB_KEEPS, 0, run_stats},
    {"pin", 3, LAB_GOOD, LAB_KEEPS, 0, run_pin},
    {"request, saved later", 3, LAB_ABSENT, LAB_OPENS, 0, run_request},
};
const unsigned lab_act_count = sizeof(lab_acts) / sizeof(*lab_acts);

const struct lab_act *lab_act_of(const char *name)
{
    for (unsigned i = 0; i < lab_act_count; i++)
        if (strcmp(lab_acts[i].name, name) == 0)
            return &lab_acts[i];
    abort();
}
