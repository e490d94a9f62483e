/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "workload_actor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "os/os.h"

const char *const workload_salts[WORKLOAD_SALTS] = {NULL, "tenant a", "tenant b", "nobody's"};

static const char *const op_names[WORKLOAD_OPS] = {
    "nothing",        "get",   "requests", "load",  "save",  "contains", "remove",
    "remove-damaged", "check", "verify",   "clear", "prune", "pin",      "clean",
    "stats",          "flush", "open",     "fork",  "spoil"};

const char *workload_op_name(int op)
{
    return op_names[op];
}

uint64_t workload_random(uint64_t *state)
{
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

unsigned actor_below(struct actor *a, unsigned limit)
{
    return (unsigned)(workload_random(&a->random) % limit);
}

int actor_one_in(struct actor *a, unsigned n)
{
    return actor_below(a, n) == 0;
}

_Noreturn void actor_broken(const struct actor *a, const char *format, ...)
{
    char text[1000];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof(text), format, list);
    va_end(list);
    atomic_fetch_add(&a->board->broken, 1);
    fprintf(stderr, "workload: seed %llu, process %u.%u, thread %u, operation %u (%s)%s: %s\n",
            (unsigned long long)a->workload->seed, a->process->worker->slot,
            a->process->worker->lives, a->index, a->nth, op_names[a->op],
            a->in_child ? ", in a child" : "", text);
    fflush(stderr);
    _exit(3);
}

int actor_allowed(int rc, const int *list)
{
    for (; *list; list++)
        if (rc == *list)
            return 1;
    return rc == 0;
}

/* ---- counting ---- */

void actor_count(struct workload_board *board, unsigned stat, uint64_t value)
{
    atomic_fetch_add(&board->counts[stat], value);
}

static unsigned bucket(uint64_t value)
{
    unsigned i = 0;
    while (i < 23 && value >= UINT64_C(1) << i)
        i++;
    return i;
}

void actor_count_report(struct workload_board *board, const wasmcache_report *report)
{
    actor_count(board, WC_STAT_WAIT_NS, report->wait_ns);
    if (report->in_memory) {
        actor_count(board, WC_STAT_MEMORY_HITS, 1);
    } else if (report->outcome == WASMCACHE_HIT) {
        actor_count(board, WC_STAT_HITS, 1);
        actor_count(board, WC_STAT_LAYER_HITS, report->layer != 0);
        actor_count(board, WC_STAT_LOADED_BYTES, report->artifact_bytes);
        actor_count(board, WC_STAT_HIT_TIMES + bucket(report->total_ns / 1000), 1);
    } else {
        actor_count(board, WC_STAT_JOINED, report->outcome == WASMCACHE_JOINED);
        if (report->outcome == WASMCACHE_COMPILED) {
            actor_count(board, WC_STAT_COMPILES, 1);
            actor_count(board, WC_STAT_COMPILE_NS, report->compile_ns);
            actor_count(board, WC_STAT_COMPILE_TIMES + bucket(report->compile_ns / 1000000), 1);
        }
        if (report->reason != WASMCACHE_REASON_NONE && report->reason != WASMCACHE_REASON_SOURCE)
            actor_count(board, WC_STAT_MISSES + (unsigned)report->reason, 1);
    }
    atomic_fetch_add(&board->ended, 1);
}

static void count_event(const wasmcache_event *event, void *payload)
{
    static const unsigned stats[16] = {
        [WASMCACHE_EVENT_SAVED] = WC_STAT_SAVES,
        [WASMCACHE_EVENT_KEPT] = WC_STAT_KEPT,
        [WASMCACHE_EVENT_SAVE_FAILED] = WC_STAT_SAVE_FAILURES,
        [WASMCACHE_EVENT_REMOVED] = WC_STAT_REMOVED,
        [WASMCACHE_EVENT_REMOVE_FAILED] = WC_STAT_REMOVE_FAILURES,
        [WASMCACHE_EVENT_FALLBACK] = WC_STAT_FALLBACKS,
        [WASMCACHE_EVENT_WAIT] = WC_STAT_WAITS,
    };
    struct workload_board *board = payload;
    if (stats[event->type])
        actor_count(board, stats[event->type], 1);
    if (event->type == WASMCACHE_EVENT_SAVED)
        actor_count(board, WC_STAT_SAVED_BYTES, event->bytes);
}

/* ---- the gate ---- */

void actor_gate_enter(struct actor *a)
{
    while (wc_os_monotonic_ns() < atomic_load(&a->board->gate_until))
        usleep(200);
    while (flock(a->gate, LOCK_SH) < 0 && errno == EINTR)
        ;
}

void actor_gate_leave(struct actor *a)
{
    (void)flock(a->gate, LOCK_UN);
}

/* 1: nobody is in a call, nor begins one, until actor_gate_leave(). */
int actor_gate_close(struct actor *a)
{
    const uint64_t until = wc_os_monotonic_ns() + 40 * MILLISECOND;
    atomic_store(&a->board->gate_until, until);
    while (flock(a->gate, LOCK_EX | LOCK_NB) < 0) {
        if (wc_os_monotonic_ns() >= until)
            return 0;
        usleep(300);
    }
    return 1;
}

/* ---- open and close ---- */

void workload_engine_init(struct fake_engine *engine, unsigned index)
{
    fake_engine_init(engine, index + 1);
    engine->artifact_size = 3000;
}

int workload_attach(wasmcache_attachment **out, wasmcache *cache, struct fake_engine *engine)
{
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    options.compiler = "none";
    options.engine_version = "1.0";
    options.artifact_version = 1;
    return wasmcache_attach(out, cache, &engine->table, engine, &options);
}

void actor_close(struct opened *o)
{
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++)
        wasmcache_detach(o->wc[e]);
    wasmcache_close(o->cache);
    memset(o, 0, sizeof(*o));
}

static void choose_options(struct actor *a, wasmcache_options *options, wasmcache_layer *layer)
{
    options->dir = a->workload->dir;
    options->on_event = count_event;
    options->payload = a->board;
    options->flags |= actor_one_in(a, 30) ? WASMCACHE_DURABLE : 0;
    options->flags |= actor_one_in(a, 10) ? WASMCACHE_REPRODUCIBLE : 0;
    options->verify = actor_one_in(a, 4) ? WASMCACHE_VERIFY_ALWAYS : WASMCACHE_VERIFY_ONCE;
    options->memory_modules = actor_one_in(a, 2) ? 1 + actor_below(a, 8) : 0;
    options->save_executor = actor_one_in(a, 2) ? a->process->executor : NULL;
    options->save_count_max = actor_one_in(a, 2) ? 1 : 0;
    options->evict_after_seconds = 1;
    if (actor_one_in(a, 3) && !a->workload->counting)
        options->max_bytes = 20000 + actor_below(a, 200000);
    if (actor_one_in(a, 12) && !a->workload->counting) /* what is only read is not counted */
        options->flags |= WASMCACHE_READ_ONLY;
    layer->dir = a->workload->layer;
    layer->flags = actor_one_in(a, 2) ? WASMCACHE_LAYER_PROMOTE : 0;
    options->layer_count = actor_one_in(a, 3) ? 1 : 0;
}

void actor_open(struct actor *a, struct opened *o)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *layers[1] = {&layer};

    choose_options(a, &options, &layer);
    options.layers = layers;
    if (wasmcache_open(&o->cache, &options))
        actor_broken(a, "open: %s", wasmcache_last_error()->message);
    o->flags = options.flags;
    o->limited = options.max_bytes != 0;
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++)
        if (workload_attach(&o->wc[e], o->cache, &a->process->engines[e]))
            actor_broken(a, "attach: %s", wasmcache_last_error()->message);
}

void actor_choose(struct actor *a, struct wanted *w)
{
    memset(w, 0, sizeof(*w));
    w->actor = a;
    w->in = a->use;
    w->engine = actor_below(a, WORKLOAD_ENGINES);
    /* Few are wanted by many. */
    w->wasm = actor_one_in(a, 2) ? actor_below(a, 4) : actor_below(a, WORKLOAD_WASMS);
    w->salt = actor_one_in(a, 4) ? 1 + actor_below(a, WORKLOAD_SALTS - 1) : 0;
    w->kind = actor_one_in(a, 10) ? WASMCACHE_COMPONENT : WASMCACHE_MODULE;
}
