/* SPDX-License-Identifier: Apache-2.0 */
#include "call.h"

#include "key.h"
#include "memory.h"
#include "module.h"
#include "stats.h"

void wc_call_start(struct wc_call *call, wasmcache_attachment *attachment, wasmcache_kind kind)
{
    const wasmcache_report empty = WASMCACHE_REPORT_INIT;
    call->attachment = attachment;
    call->identity = NULL;
    call->kind = kind;
    call->flags = 0;
    call->replace = 0;
    call->counts = 0;
    call->report = empty;
    call->started = wc_os_monotonic_ns();
    call->seen.ino = 0;
    call->seen.ctime_ns = 0;
    call->cancelled = NULL;
    call->wait_ns = 0;
    call->tick = NULL;
    call->tick_payload = NULL;
    call->spared_ns = 0;
    call->generation = 0;
    call->phase = WASMCACHE_PHASE_LOOKUP;
    call->phase_started = call->started;
    call->folder.fd = -1;
    wc_hint_look_start(&call->look, NULL);
}

#ifdef WASMCACHE_TESTING
uint64_t wc_call_judged_for = UINT64_C(100000000);
#else
#define wc_call_judged_for UINT64_C(100000000)
#endif

int wc_call_is_judged(struct wc_call *call)
{
    wasmcache_attachment *a = call->attachment;
    if (call->folder.fd >= 0 || a->cache->store.flags & WASMCACHE_SEALED ||
        wc_os_monotonic_ns() >= atomic_load_explicit(&a->judged_until, memory_order_relaxed))
        return 0;
    return wc_path_join(call->folder.path, a->cache->store.dir, call->identity->engine_namespace);
}

static void note_judged(const struct wc_call *call, int rc)
{
    const int straight = rc == 0 && call->folder.straight;
    atomic_store_explicit(&call->attachment->judged_until,
                          straight ? wc_os_monotonic_ns() + wc_call_judged_for : 0,
                          memory_order_relaxed);
}

int wc_call_enter(struct wc_call *call, struct wc_error *err)
{
    wasmcache *cache = call->attachment->cache;
    int rc;
    if (call->folder.fd >= 0)
        return 0;
    if (!call->look.hints)
        wc_hint_look_start(&call->look, &cache->hints);
    rc = wc_store_open_folder(&call->folder, &cache->store, call->identity->engine_namespace, err);
    note_judged(call, rc);
    if (rc == 0)
        wc_cache_find_hints(cache, &call->look, &call->folder, WC_GATE_CREATE);
    return rc;
}

static void find_hints(struct wc_hint_look *look, void *payload)
{
    struct wc_call *call = payload;
    struct wc_error ignored;
    (void)look;
    wc_error_init(&ignored);
    (void)wc_call_enter(call, &ignored); /* the lookup says what is wrong */
}

void wc_call_look_later(struct wc_call *call)
{
    if (!call->look.hints)
        wc_hint_look_start(&call->look, &call->attachment->cache->hints);
    if (call->folder.fd < 0)
        wc_hint_look_later(&call->look, find_hints, call);
}

void wc_call_leave(struct wc_call *call)
{
    wc_hint_look_end(&call->look);
    wc_folder_close(&call->folder);
}

/* What a get or load came to. Saves and removals are counted where they happen, since a worker may
 * do them later. */
static void count(const struct wc_call *call)
{
    const wasmcache_report *report = &call->report;
    struct wc_stats *stats = call->attachment->cache->stats;
    if (report->wait_ns)
        wc_stats_add(stats, WC_STAT_WAIT_NS, report->wait_ns);
    if (report->in_memory) {
        wc_stats_add_own(stats, WC_STAT_MEMORY_HITS, 1);
        return;
    }
    if (report->outcome == WASMCACHE_HIT) {
        wc_stats_hit(stats, report->total_ns); /* now they are this process's own */
        if (report->layer)
            wc_stats_add_own(stats, WC_STAT_LAYER_HITS, 1);
        wc_stats_add_own(stats, WC_STAT_LOADED_BYTES, report->artifact_bytes);
        wc_stats_add_own(stats, WC_STAT_SPARED_NS, call->spared_ns);
        return;
    }
    if (report->outcome == WASMCACHE_JOINED)
        wc_stats_add(stats, WC_STAT_JOINED, 1);
    if (report->outcome == WASMCACHE_COMPILED)
        wc_stats_compile(stats, report->compile_ns);
    if (report->reason != WASMCACHE_REASON_NONE && report->reason != WASMCACHE_REASON_SOURCE)
        wc_stats_add(stats, WC_STAT_MISSES + (unsigned)report->reason, 1);
}

void wc_call_close(struct wc_call *call, int rc)
{
    call->report.total_ns = wc_os_monotonic_ns() - call->started;
    if (rc < 0)
        call->report.outcome = WASMCACHE_FAILED;
    if (call->counts && call->attachment && call->attachment->cache)
        count(call);
}

int wc_call_end(struct wc_call *call, wasmcache_report *report, int rc, const struct wc_error *err)
{
    wc_call_close(call, rc);
    if (report && report->size >= sizeof(size_t))
        wc_sized_out(report, &call->report, sizeof(call->report));
    return wc_error_publish(err, rc);
}

static void count_event(const struct wc_call *call, wasmcache_event_type type)
{
    static const struct {
        wasmcache_event_type type;
        enum wc_stat stat;
    } counted[] = {
        {WASMCACHE_EVENT_SAVED, WC_STAT_SAVES},
        {WASMCACHE_EVENT_KEPT, WC_STAT_KEPT},
        {WASMCACHE_EVENT_SAVE_FAILED, WC_STAT_SAVE_FAILURES},
        {WASMCACHE_EVENT_REMOVED, WC_STAT_REMOVED},
        {WASMCACHE_EVENT_REMOVE_FAILED, WC_STAT_REMOVE_FAILURES},
        {WASMCACHE_EVENT_FALLBACK, WC_STAT_FALLBACKS},
        {WASMCACHE_EVENT_WAIT, WC_STAT_WAITS},
    };
    struct wc_stats *stats = call->attachment->cache->stats;
    if (type == WASMCACHE_EVENT_HIT || type == WASMCACHE_EVENT_MISS)
        return; /* a get counts what it came to, once */
    for (size_t i = 0; i < sizeof(counted) / sizeof(*counted); i++)
        if (counted[i].type == type)
            wc_stats_add(stats, counted[i].stat, 1);
    if (type == WASMCACHE_EVENT_SAVED)
        wc_stats_add(stats, WC_STAT_SAVED_BYTES, call->report.artifact_bytes);
}

void wc_call_tell(const struct wc_call *call, wasmcache_event_type type, const char *path,
                  const struct wc_error *err, uint64_t ns)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    wasmcache_event fill = {0};
    count_event(call, type);
    if (!wc_event_is_heard(call->attachment->cache))
        return;
    fill.engine_namespace = call->identity->engine_namespace;
    fill.key = wasmcache_key_to_hex(hex, &call->report.key);
    fill.reason = call->report.reason;
    fill.bytes = call->report.artifact_bytes;
    fill.ns = ns;
    fill.path = path;
    if (err) {
        fill.error = err->error;
        fill.system_errno = err->system_errno;
        fill.path = err->path[0] ? err->path : path;
        fill.message = err->message;
    }
    wc_event(call->attachment->cache, type, fill);
}

int wc_call_go_on(const struct wc_call *call, struct wc_error *err)
{
    if (!call->cancelled || !atomic_load(call->cancelled))
        return 0;
    return wc_fail(err, WASMCACHE_EABORTED, 0, NULL, NULL, "The request was cancelled");
}

/* What is known of the call, for its caller. */
static int ask_caller(const struct wc_call *call, struct wc_error *err)
{
    static const char *const doing[] = {"", "look it up", "wait for another compile", "compile",
                                        "save"};
    const uint64_t now = wc_os_monotonic_ns();
    wasmcache_progress progress = {sizeof(progress),          call->phase,
                                   call->report.key,          call->report.reason,
                                   call->report.wasm_bytes,   call->report.artifact_bytes,
                                   now - call->phase_started, now - call->started};
    if (!call->tick || call->tick(&progress, call->tick_payload) == 0)
        return 0;
    return wc_fail(err, WASMCACHE_EABORTED, 0, NULL, NULL, "The caller did not want to %s",
                   doing[call->phase]);
}

int wc_call_phase(struct wc_call *call, wasmcache_phase phase, struct wc_error *err)
{
    int rc = wc_call_go_on(call, err);
    call->phase = phase;
    if (call->tick)
        call->phase_started = wc_os_monotonic_ns();
    return rc < 0 ? rc : ask_caller(call, err);
}

int wc_call_tick(const struct wc_call *call, struct wc_error *err)
{
    int rc = wc_call_go_on(call, err);
    return rc < 0 ? rc : ask_caller(call, err);
}

int wc_misuse(struct wc_error *err, const char *function, const char *what)
{
    return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL, "%s: %s", function, what);
}

int wc_call_check(struct wc_call *call, const wasmcache_report *report, const char *function,
                  struct wc_error *err)
{
    const wasmcache_attachment *attachment = call->attachment;
    call->report.reason = WASMCACHE_REASON_SOURCE;
    if (report && report->size < sizeof(size_t))
        return wc_misuse(err, function, "the report's size is not set; use WASMCACHE_REPORT_INIT");
    if (call->kind != WASMCACHE_MODULE && call->kind != WASMCACHE_COMPONENT)
        return wc_misuse(err, function, "the kind is neither module nor component");
    if (attachment && !(attachment->table.kinds & 1u << call->kind))
        return wc_misuse(err, function, "the engine was built without that kind");
    call->report.reason = WASMCACHE_REASON_NONE;
    return 0;
}

int wc_call_may_look(struct wc_call *call, struct wc_hint_look *look)
{
    const struct wc_identity *identity;
    if (!wc_cache_usable(call->attachment->cache)) {
        call->report.reason = WASMCACHE_REASON_CACHE_OFF;
        return 0;
    }
    identity = wc_attachment_identity(call->attachment, look);
    if (identity->error) {
        call->report.reason = WASMCACHE_REASON_UNATTACHED;
        return 0;
    }
    call->identity = identity;
    return 1;
}

int wc_call_check_key(struct wc_call *call, const wasmcache_key *key,
                      const wasmcache_report *report, const void *argument, const char *function,
                      struct wc_error *err)
{
    int rc = wc_call_check(call, report, function, err);
    if (rc < 0 || (wc_key_valid(key) && argument))
        return rc;
    call->report.reason = WASMCACHE_REASON_SOURCE;
    return wc_misuse(err, function, "NULL, or a key that the library did not make");
}

int wc_call_check_cache(struct wc_call *call, struct wc_error *err)
{
    if (call->attachment && wc_call_may_look(call, NULL))
        return 0;
    if (!call->attachment)
        call->report.reason = WASMCACHE_REASON_UNATTACHED;
    return wc_fail(err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no cache: %s",
                   wasmcache_reason_name(call->report.reason));
}

wasmcache_module *wc_call_remembered(struct wc_call *call, const wasmcache_key *key)
{
    const wasmcache_attachment *a = call->attachment;
    uint64_t bytes = 0;
    wasmcache_module *module = wc_memory_find(a->cache->memory, a, call->kind, key, &bytes);
    if (module) {
        call->report.outcome = WASMCACHE_HIT;
        call->report.in_memory = 1;
        call->report.key = *key;
        call->report.artifact_bytes = bytes;
    }
    return module;
}

/* What the report of a hit in memory says. */
static void report_recalled(wasmcache_report *out, const wasmcache_key *key, uint64_t bytes,
                            uint64_t ns)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    report.outcome = WASMCACHE_HIT;
    report.in_memory = 1;
    report.key = *key;
    report.artifact_bytes = bytes;
    report.total_ns = ns;
    wc_sized_out(out, &report, sizeof(report));
}

int wc_call_recall(wasmcache_module **out, const wasmcache_attachment *attachment,
                   wasmcache_kind kind, const wasmcache_key *key, wasmcache_report *report)
{
    wasmcache *cache = attachment->cache;
    uint64_t started = 0, bytes = 0;
    wasmcache_module *module;
    if (!out || !wc_cache_usable(cache) || (report && report->size < sizeof(size_t)))
        return 0;
    if (report) /* nobody else wants to know the time */
        started = wc_os_monotonic_ns();
    module = wc_memory_find(cache->memory, attachment, kind, key, &bytes);
    if (!module)
        return 0;
    wc_stats_add_own(cache->stats, WC_STAT_MEMORY_HITS, 1); /* a child has no memory */
    if (report)
        report_recalled(report, key, bytes, wc_os_monotonic_ns() - started);
    *out = module;
    return 1;
}

void wc_call_outdate(struct wc_call *call, const wasmcache_key *key)
{
    const uint64_t generation = wc_memory_outdate(key);
    if (call->generation + 1 == generation) /* nobody else did meanwhile */
        call->generation = generation;
}

int wc_call_count(wasmcache_module **out, struct wc_call *call, const wasmcache_key *key,
                  void *native, struct wc_error *err)
{
    const wasmcache_engine_table *table = &call->attachment->table;
    wasmcache_module *module = key ? wc_module_new_striped(table, call->kind, native)
                                   : wc_module_new(table, call->kind, native);
    if (!module) {
        call->attachment->table.module_free(call->kind, native);
        return wc_fail(err, WASMCACHE_ENOMEM, 0, "malloc", NULL, "No memory for a module");
    }
    if (key)
        wc_memory_put(call->attachment->cache->memory, call->attachment, call->kind, key, module,
                      call->report.artifact_bytes, call->generation);
    *out = module;
    return 0;
}

struct wc_expect wc_call_expect(const struct wc_call *call, const wasmcache_key *key)
{
    const struct wc_expect expect = {.kind = call->kind,
                                     .key = key,
                                     .engine_namespace = call->identity->engine_namespace,
                                     .fingerprint = call->identity->fingerprint,
                                     .shared = wc_attachment_is_shared(call->attachment),
                                     .legacy = call->kind == WASMCACHE_MODULE &&
                                               wc_attachment_takes_legacy(call->attachment)};
    return expect;
}
