/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "workload.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/os.h"
#include "wasmcache_async.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
/* Their run times do not bear a fork while other threads are in them. */
enum { FORKS_WITH_THREADS = 0 };
#else
enum { FORKS_WITH_THREADS = 1 };
#endif

#define MILLISECOND UINT64_C(1000000)

static const char *const salts[WORKLOAD_SALTS] = {NULL, "tenant a", "tenant b", "nobody's"};

/* A cache with the engines attached. */
struct opened {
    wasmcache *cache;
    wasmcache_attachment *wc[WORKLOAD_ENGINES];
    unsigned flags;
    int limited;
};

/* What a process has. */
struct process {
    struct worker *worker;
    struct fake_engine engines[WORKLOAD_ENGINES];
    wasmcache_executor *executor; /* of requests and later saves; its callbacks are on workers */
    struct opened shared;
};

/* A thread. */
struct actor {
    struct process *process;
    struct workload *workload;
    struct workload_board *board;
    unsigned index, nth;
    uint64_t random;
    int gate, in_child;
    enum workload_op op;
    struct opened own, *use;
};

/* What a get was asked for. */
struct wanted {
    struct actor *actor;
    unsigned engine, wasm, salt;
    wasmcache_kind kind;
    const struct opened *in;
    unsigned flags;
    unsigned refuse_at, ticks; /* refuse_at 0: never */
    int refused, refused_save, cancelled;
    int is_request; /* it may get what another request was given, a hit too */
};

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

static unsigned below(struct actor *a, unsigned limit)
{
    return (unsigned)(workload_random(&a->random) % limit);
}

static int one_in(struct actor *a, unsigned n)
{
    return below(a, n) == 0;
}

/* A finding ends the process. */
static _Noreturn void broken(const struct actor *a, const char *format, ...)
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

static int allowed(int rc, const int *list)
{
    for (; *list; list++)
        if (rc == *list)
            return 1;
    return rc == 0;
}

/* ---- counting ---- */

static void add(struct workload_board *board, unsigned stat, uint64_t value)
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

/* What a get or load counts for, as the header of the library has it. */
static void count_report(struct workload_board *board, const wasmcache_report *report)
{
    add(board, WC_STAT_WAIT_NS, report->wait_ns);
    if (report->in_memory) {
        add(board, WC_STAT_MEMORY_HITS, 1);
    } else if (report->outcome == WASMCACHE_HIT) {
        add(board, WC_STAT_HITS, 1);
        add(board, WC_STAT_LAYER_HITS, report->layer != 0);
        add(board, WC_STAT_LOADED_BYTES, report->artifact_bytes);
        add(board, WC_STAT_HIT_TIMES + bucket(report->total_ns / 1000), 1);
    } else {
        add(board, WC_STAT_JOINED, report->outcome == WASMCACHE_JOINED);
        if (report->outcome == WASMCACHE_COMPILED) {
            add(board, WC_STAT_COMPILES, 1);
            add(board, WC_STAT_COMPILE_NS, report->compile_ns);
            add(board, WC_STAT_COMPILE_TIMES + bucket(report->compile_ns / 1000000), 1);
        }
        if (report->reason != WASMCACHE_REASON_NONE && report->reason != WASMCACHE_REASON_SOURCE)
            add(board, WC_STAT_MISSES + (unsigned)report->reason, 1);
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
        add(board, stats[event->type], 1);
    if (event->type == WASMCACHE_EVENT_SAVED)
        add(board, WC_STAT_SAVED_BYTES, event->bytes);
}

/* ---- the gate ---- */

static void gate_enter(struct actor *a)
{
    while (wc_os_monotonic_ns() < atomic_load(&a->board->gate_until))
        usleep(200);
    while (flock(a->gate, LOCK_SH) < 0 && errno == EINTR)
        ;
}

static void gate_leave(struct actor *a)
{
    (void)flock(a->gate, LOCK_UN);
}

/* 1: nobody is in a call, nor begins one, until gate_leave(). */
static int gate_close(struct actor *a)
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

/* Long enough that others come meanwhile, now and then. */
static void in_compile(void *argument)
{
    struct fake_engine *engine = argument;
    const unsigned n = atomic_load(&engine->compiles);
    if (n % 3 == 0)
        usleep(500 * (n % 7));
}

static void close_all(struct opened *o)
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
    options->flags |= one_in(a, 30) ? WASMCACHE_DURABLE : 0;
    options->flags |= one_in(a, 10) ? WASMCACHE_REPRODUCIBLE : 0;
    options->verify = one_in(a, 4) ? WASMCACHE_VERIFY_ALWAYS : WASMCACHE_VERIFY_ONCE;
    options->memory_modules = one_in(a, 2) ? 1 + below(a, 8) : 0;
    options->save_executor = one_in(a, 2) ? a->process->executor : NULL;
    options->save_count_max = one_in(a, 2) ? 1 : 0;
    options->evict_after_seconds = 1;
    if (one_in(a, 3) && !a->workload->counting)
        options->max_bytes = 20000 + below(a, 200000);
    if (one_in(a, 12) && !a->workload->counting) /* what is only read is not counted */
        options->flags |= WASMCACHE_READ_ONLY;
    layer->dir = a->workload->layer;
    layer->flags = one_in(a, 2) ? WASMCACHE_LAYER_PROMOTE : 0;
    options->layer_count = one_in(a, 3) ? 1 : 0;
}

static void open_all(struct actor *a, struct opened *o)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *layers[1] = {&layer};

    choose_options(a, &options, &layer);
    options.layers = layers;
    if (wasmcache_open(&o->cache, &options))
        broken(a, "open: %s", wasmcache_last_error()->message);
    o->flags = options.flags;
    o->limited = options.max_bytes != 0;
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++)
        if (workload_attach(&o->wc[e], o->cache, &a->process->engines[e]))
            broken(a, "attach: %s", wasmcache_last_error()->message);
}

/* ---- gets ---- */

static int tick(const wasmcache_progress *progress, void *payload)
{
    struct wanted *w = payload;
    if (++w->ticks != w->refuse_at)
        return 0;
    if (progress->phase == WASMCACHE_PHASE_SAVE)
        w->refused_save = 1;
    else
        w->refused = 1;
    return 1;
}

static void choose(struct actor *a, struct wanted *w)
{
    memset(w, 0, sizeof(*w));
    w->actor = a;
    w->in = a->use;
    w->engine = below(a, WORKLOAD_ENGINES);
    /* Few are wanted by many. */
    w->wasm = one_in(a, 2) ? below(a, 4) : below(a, WORKLOAD_WASMS);
    w->salt = one_in(a, 4) ? 1 + below(a, WORKLOAD_SALTS - 1) : 0;
    w->kind = one_in(a, 10) ? WASMCACHE_COMPONENT : WASMCACHE_MODULE;
}

static atomic_uint *ever(const struct wanted *w)
{
    return &w->actor->board->ever[w->engine][w->kind == WASMCACHE_COMPONENT][w->wasm][w->salt];
}

static void choose_get(struct actor *a, struct wanted *w, wasmcache_get_options *options)
{
    static const unsigned flags[] = {0,
                                     0,
                                     0,
                                     0,
                                     0,
                                     WASMCACHE_GET_MUST_HIT,
                                     WASMCACHE_GET_NO_SAVE,
                                     WASMCACHE_GET_NO_WAIT,
                                     WASMCACHE_GET_RECOMPILE};
    choose(a, w);
    w->flags = flags[below(a, sizeof(flags) / sizeof(*flags))];
    if (w->salt == WORKLOAD_SALTS - 1)
        w->flags = WASMCACHE_GET_MUST_HIT;
    if (one_in(a, 10))
        w->refuse_at = 1 + below(a, 4);
    options->flags = w->flags;
    options->wait_ms = one_in(a, 4) ? 1 + below(a, 40) : 0;
    options->tick = w->refuse_at || one_in(a, 2) ? tick : NULL;
    options->tick_payload = w;
    options->salt = salts[w->salt];
    options->salt_length = w->salt ? strlen(salts[w->salt]) : 0;
    if (!(w->flags & WASMCACHE_GET_MUST_HIT))
        atomic_store(ever(w), 1);
    atomic_fetch_add(&a->board->begun, 1);
}

static int fetch(const void **bytes, size_t *length, void *payload)
{
    struct wanted *w = payload;
    if (w->refuse_at == 4) {
        w->refused = 1;
        return 1;
    }
    *bytes = w->actor->workload->wasm[w->wasm];
    *length = w->actor->workload->length[w->wasm];
    return 0;
}

static wasmcache_source choose_source(struct actor *a, struct wanted *w)
{
    const struct workload *l = a->workload;
    wasmcache_source source;
    switch (below(a, 4)) {
    case 0:
        return wasmcache_source_path(l->paths[w->wasm]);
    case 1:
        source = wasmcache_source_sha256(l->keys[w->wasm][0].bytes, fetch, w);
        return source;
    default:
        return wasmcache_source_bytes(l->wasm[w->wasm], l->length[w->wasm]);
    }
}

static void check_module(const struct wanted *w, const void *native, const wasmcache_report *report)
{
    const struct actor *a = w->actor;
    if (!fake_module_is(native, w->kind, w->engine + 1, a->workload->wasm[w->wasm],
                        a->workload->length[w->wasm]))
        broken(a, "another module than wasm %u of engine %u (outcome %s)", w->wasm, w->engine,
               wasmcache_outcome_name(report->outcome));
    if (report->outcome == WASMCACHE_HIT && !atomic_load(ever(w)))
        broken(a, "a hit of wasm %u of engine %u, salt %u, which nobody saved", w->wasm, w->engine,
               w->salt);
    /* One that was not looked for, nor saved, has none. */
    if (!(report->key.length == 0 && report->outcome == WASMCACHE_COMPILED && report->save_error) &&
        !wasmcache_key_equal(&report->key, &a->workload->keys[w->wasm][w->salt]))
        broken(a,
               "the report's key is not that of wasm %u with salt %u (outcome %s, save_later %d)",
               w->wasm, w->salt, wasmcache_outcome_name(report->outcome), report->save_later);
}

/* Why something was not saved may be the limits, others, or a folder that was pulled away. */
static void check_save_error(const struct wanted *w, int rc)
{
    static const int any[] = {WASMCACHE_EBUSY, WASMCACHE_EFULL, 0};
    const struct actor *a = w->actor;
    const int off = w->flags & WASMCACHE_GET_NO_SAVE || w->in->flags & WASMCACHE_READ_ONLY;
    if (rc == WASMCACHE_EIO ? atomic_load(&a->board->pulled) != 0 : allowed(rc, any))
        return;
    if (rc == WASMCACHE_EOFF && off)
        return;
    /* JOINED: it may be the other's who refused. */
    if (rc == WASMCACHE_EABORTED)
        return;
    broken(a, "not saved: %s", wasmcache_error_name(rc));
}

static void check_got(const struct wanted *w, int rc, const void *native,
                      const wasmcache_report *report)
{
    const struct actor *a = w->actor;
    const int compiles = w->wasm != WORKLOAD_WASMS - 1;
    if (rc == WASMCACHE_EENGINE    ? !compiles
        : rc == WASMCACHE_EABORTED ? w->refused || w->cancelled
                                   : rc == WASMCACHE_EMISS && w->flags & WASMCACHE_GET_MUST_HIT) {
        if (rc == WASMCACHE_EABORTED)
            atomic_fetch_add(&a->board->refused, 1);
        return;
    }
    if (rc)
        broken(a, "%s: %s", wasmcache_error_name(rc), wasmcache_last_error()->message);
    if (!compiles)
        broken(a, "a module of wasm that does not compile");
    if (w->refused && !w->cancelled)
        broken(a, "it was refused, and went on");
    check_module(w, native, report);
    switch (report->outcome) {
    case WASMCACHE_HIT:
        atomic_fetch_add(&a->board->hits, 1);
        if (w->flags & WASMCACHE_GET_RECOMPILE)
            broken(a, "a hit where it was to be compiled");
        return;
    case WASMCACHE_COMPILED:
        atomic_fetch_add(&a->board->compiled, 1);
        if (w->flags & WASMCACHE_GET_NO_SAVE && report->save_error != WASMCACHE_EOFF)
            broken(a, "saved although it was not to be");
        if (w->refused_save && report->save_error != WASMCACHE_EABORTED)
            broken(a, "saved although the caller refused");
        break;
    case WASMCACHE_JOINED:
        atomic_fetch_add(&a->board->joined, 1);
        break;
    case WASMCACHE_FAILED:
    case WASMCACHE_SAVED:
        broken(a, "outcome %s of a get that gave a module",
               wasmcache_outcome_name(report->outcome));
    }
    if (w->flags & WASMCACHE_GET_MUST_HIT &&
        !(w->is_request && report->outcome == WASMCACHE_JOINED))
        broken(a, "%s where it had to hit", wasmcache_outcome_name(report->outcome));
    check_save_error(w, report->save_error);
}

static void do_get(struct actor *a)
{
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    void *native = NULL, *error = NULL;
    wasmcache_source source;
    struct wanted w;
    int rc, fd = -1, counted = !one_in(a, 4);

    choose_get(a, &w, &options);
    source = choose_source(a, &w);
    if (source.type == WASMCACHE_SOURCE_PATH && one_in(a, 2)) {
        fd = open(source.path, O_RDONLY | O_CLOEXEC);
        source = wasmcache_source_fd(fd);
    }
    if (counted) {
        rc = wasmcache_get(&module, a->use->wc[w.engine], w.kind, &source, &options, &report);
        native = wasmcache_module_native(module);
    } else {
        rc = wasmcache_get_native(&native, &error, a->use->wc[w.engine], w.kind, &source, &options,
                                  &report);
    }
    count_report(a->board, &report);
    if (fd >= 0)
        close(fd);
    check_got(&w, rc, native, &report);
    if (error)
        a->process->engines[w.engine].table.error_free(error);
    if (!counted && native)
        a->process->engines[w.engine].table.module_free(w.kind, native);
    wasmcache_module_release(module);
}

/* ---- requests ---- */

enum { REQUESTS = 6 };

struct requested {
    struct wanted wanted;
    struct batch *batch;
};

struct batch {
    pthread_mutex_t lock;
    pthread_cond_t done;
    unsigned left;
    struct requested of[REQUESTS];
};

static void requested_came(wasmcache_request *request, const wasmcache_result *result,
                           void *payload)
{
    struct requested *r = payload;
    struct batch *batch = r->batch;
    (void)request;
    count_report(r->wanted.actor->board, result->report);
    check_got(&r->wanted, result->error, wasmcache_module_native(result->module), result->report);
    wasmcache_module_release(result->module);
    pthread_mutex_lock(&batch->lock);
    batch->left--;
    pthread_cond_signal(&batch->done);
    pthread_mutex_unlock(&batch->lock);
}

static void do_requests(struct actor *a)
{
    struct batch batch;
    const unsigned count = 1 + below(a, REQUESTS);
    const int same = one_in(a, 2);
    memset(&batch, 0, sizeof(batch));
    pthread_mutex_init(&batch.lock, NULL);
    pthread_cond_init(&batch.done, NULL);
    batch.left = count;
    for (unsigned i = 0; i < count; i++) {
        wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
        struct requested *r = &batch.of[i];
        const uint64_t random = a->random;
        wasmcache_request *request;
        wasmcache_source source;
        choose_get(a, &r->wanted, &options);
        source = choose_source(a, &r->wanted);
        if (same && i + 1 < count)
            a->random = random; /* the next one wants the same */
        r->batch = &batch;
        r->wanted.is_request = 1;
        r->wanted.cancelled = i % 3 == 1;
        pthread_mutex_lock(
            &batch.lock); /* so that its callback does not return: the handle stays */
        if (wasmcache_request_get(&request, a->process->executor, a->use->wc[r->wanted.engine],
                                  r->wanted.kind, &source, &options, requested_came, r))
            broken(a, "request: %s", wasmcache_last_error()->message);
        if (r->wanted.cancelled && wasmcache_request_cancel(request) < 0)
            broken(a, "cancel: %s", wasmcache_last_error()->message);
        pthread_mutex_unlock(&batch.lock);
    }
    pthread_mutex_lock(&batch.lock);
    while (batch.left)
        pthread_cond_wait(&batch.done, &batch.lock);
    pthread_mutex_unlock(&batch.lock);
    pthread_cond_destroy(&batch.done);
    pthread_mutex_destroy(&batch.lock);
}

/* ---- calls with a key ---- */

static void do_load(struct actor *a)
{
    static const int errors[] = {WASMCACHE_EMISS,      WASMCACHE_ECORRUPT, WASMCACHE_EMISMATCH,
                                 WASMCACHE_EUNTRUSTED, WASMCACHE_EBUSY,    0};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    struct wanted w;
    int rc;
    choose(a, &w);
    atomic_fetch_add(&a->board->begun, 1);
    rc = wasmcache_load(&module, a->use->wc[w.engine], w.kind, &a->workload->keys[w.wasm][w.salt],
                        &report);
    count_report(a->board, &report);
    if (rc == 0)
        check_module(&w, wasmcache_module_native(module), &report);
    else if (!allowed(rc, errors))
        broken(a, "%s: %s", wasmcache_error_name(rc), wasmcache_last_error()->message);
    if (rc == 0 && report.outcome != WASMCACHE_HIT)
        broken(a, "a load that is no hit");
    wasmcache_module_release(module);
}

static void do_save(struct actor *a)
{
    wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct fake_engine *engine;
    struct wanted w;
    void *native;
    int rc;
    choose(a, &w);
    if (w.salt == WORKLOAD_SALTS - 1 || w.wasm == WORKLOAD_WASMS - 1)
        return;
    atomic_store(ever(&w), 1);
    engine = &a->process->engines[w.engine];
    options.flags = one_in(a, 3) ? WASMCACHE_SAVE_REPLACE : 0;
    options.compile_ns = UINT64_C(1000) << below(a, 24);
    native =
        fake_module_new(engine, w.kind, a->workload->wasm[w.wasm], a->workload->length[w.wasm]);
    rc = wasmcache_save(a->use->wc[w.engine], w.kind, &a->workload->keys[w.wasm][w.salt], native,
                        &options, &report);
    engine->table.module_free(w.kind, native);
    if (w.in->flags & WASMCACHE_READ_ONLY) {
        if (rc != WASMCACHE_EIO)
            broken(a, "a save to what is read only: %s", wasmcache_error_name(rc));
        return;
    }
    check_save_error(&w, rc);
}

static void do_contains(struct actor *a)
{
    static const int errors[] = {WASMCACHE_EMISS,      WASMCACHE_ECORRUPT, WASMCACHE_EMISMATCH,
                                 WASMCACHE_EUNTRUSTED, WASMCACHE_EBUSY,    0};
    struct wanted w;
    int rc;
    choose(a, &w);
    rc = wasmcache_contains(a->use->wc[w.engine], w.kind, &a->workload->keys[w.wasm][w.salt]);
    if (rc == 0 && !atomic_load(ever(&w)))
        broken(a, "it has what nobody saved: wasm %u, salt %u", w.wasm, w.salt);
    if (!allowed(rc, errors))
        broken(a, "%s: %s", wasmcache_error_name(rc), wasmcache_last_error()->message);
}

/* EIO: what is read only, or where there are no locks, or a folder that is gone. */
static void check_change(struct actor *a, int rc, const int *errors)
{
    const int may_fail =
        a->use->flags & WASMCACHE_READ_ONLY || wc_os_lacking || atomic_load(&a->board->pulled);
    if (!(allowed(rc, errors) || (rc == WASMCACHE_EIO && may_fail)))
        broken(a, "%s: %s", wasmcache_error_name(rc), wasmcache_last_error()->message);
}

static void do_remove(struct actor *a, int damaged)
{
    static const int errors[] = {WASMCACHE_EMISS, WASMCACHE_EUNTRUSTED, 0};
    struct wanted w;
    const char *ns;
    const wasmcache_key *key;
    choose(a, &w);
    ns = a->workload->namespaces[w.engine];
    key = &a->workload->keys[w.wasm][w.salt];
    check_change(a,
                 damaged ? wasmcache_remove_damaged(a->use->cache, ns, key)
                         : wasmcache_remove(a->use->cache, ns, key),
                 errors);
}

static void do_check(struct actor *a)
{
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    struct wanted w;
    choose(a, &w);
    if (wasmcache_entry_check(&entry, a->use->cache, a->workload->namespaces[w.engine],
                              &a->workload->keys[w.wasm][w.salt],
                              one_in(a, 2) ? WASMCACHE_CHECK_DIGEST : 0))
        broken(a, "%s", wasmcache_last_error()->message);
    if (entry.state == WASMCACHE_REASON_UNREADABLE || entry.state == WASMCACHE_REASON_NEWER_FORMAT)
        broken(a, "state %s", wasmcache_reason_name(entry.state));
}

static void do_walk(struct actor *a, int clear)
{
    static const int errors[] = {WASMCACHE_EMISS, WASMCACHE_EUNTRUSTED, 0};
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it;
    int rc = wasmcache_iterate(&it, a->use->cache, clear ? a->workload->namespaces[0] : NULL,
                               clear ? 0 : WASMCACHE_CHECK_DIGEST);
    if (rc)
        broken(a, "iterate: %s", wasmcache_last_error()->message);
    while ((rc = wasmcache_iterator_next(it, &entry)) == 0)
        if (clear)
            check_change(a, wasmcache_remove(a->use->cache, entry.engine_namespace, &entry.key),
                         errors);
    wasmcache_iterator_close(it);
    if (rc != WASMCACHE_EMISS)
        check_change(a, rc, errors);
}

static void do_prune(struct actor *a)
{
    static const int errors[] = {0};
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    options.max_bytes = 10000 + below(a, 150000);
    options.max_entries = one_in(a, 3) ? 1 + below(a, 30) : 0;
    options.max_age_seconds = one_in(a, 6) ? 1 + below(a, 3) : 0;
    options.flags = one_in(a, 6) ? WASMCACHE_PRUNE_DRY_RUN : 0;
    check_change(a, wasmcache_prune(a->use->cache, &options, &result), errors);
    if (!options.flags) {
        add(a->board, WC_STAT_EVICTIONS, result.removed_entries);
        add(a->board, WC_STAT_EVICTED_BYTES, result.removed_bytes);
    }
}

static void do_pin(struct actor *a)
{
    static const int errors[] = {0};
    struct wanted w;
    choose(a, &w);
    check_change(a,
                 wasmcache_pin(a->use->cache, a->workload->namespaces[w.engine],
                               &a->workload->keys[w.wasm][w.salt], one_in(a, 3)),
                 errors);
}

static void do_clean(struct actor *a)
{
    static const int errors[] = {0};
    uint64_t removed;
    check_change(a, wasmcache_clean(a->use->cache, &removed), errors);
}

static void do_stats(struct actor *a)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    if (wasmcache_stats_read(a->use->cache,
                             one_in(a, 2) ? WASMCACHE_STATS_PROCESS : WASMCACHE_STATS_DIRECTORY,
                             &stats) ||
        wasmcache_status(a->use->cache, &status))
        broken(a, "%s", wasmcache_last_error()->message);
    if (status.state == WASMCACHE_STATE_OFF)
        broken(a, "off: %s", status.message);
}

static void do_flush(struct actor *a)
{
    if (wasmcache_flush(a->use->cache))
        broken(a, "%s", wasmcache_last_error()->message);
}

static void do_open(struct actor *a)
{
    if (a->own.cache)
        close_all(&a->own);
    if (one_in(a, 2))
        open_all(a, &a->own);
}

/* ---- from outside ---- */

static void entry_path(const struct actor *a, char *out, size_t size, const struct wanted *w)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    snprintf(out, size, "%s/%s/%s.bin", a->workload->dir, a->workload->namespaces[w->engine],
             wasmcache_key_to_hex(hex, &a->workload->keys[w->wasm][w->salt]));
}

static int flip(int fd, struct actor *a)
{
    struct stat st;
    unsigned char byte;
    off_t at;
    if (fstat(fd, &st) < 0 || st.st_size == 0)
        return 0;
    at = (off_t)(workload_random(&a->random) % (uint64_t)st.st_size);
    if (pread(fd, &byte, 1, at) != 1)
        return 0;
    byte ^= (unsigned char)(1u << below(a, 8));
    return pwrite(fd, &byte, 1, at) == 1;
}

/* A changed copy takes the entry's name, as a new file. */
static void swap_in(struct actor *a, const struct wanted *w)
{
    char from[600], to[600], copy[600];
    struct wanted other = *w;
    struct stat st;
    size_t size = 0;
    char *bytes;
    int in, out, changed;

    entry_path(a, to, sizeof(to), w);
    if (one_in(a, 3)) /* another's entry */
        choose(a, &other);
    entry_path(a, from, sizeof(from), &other);
    snprintf(copy, sizeof(copy), "%s/%u-%u-%d", a->workload->attic, a->process->worker->slot,
             a->index, (int)getpid());
    in = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    out = open(copy, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in >= 0 && out >= 0 && fstat(in, &st) == 0 && S_ISREG(st.st_mode)) {
        size = (size_t)st.st_size;
        bytes = malloc(size + 1);
        if (!bytes)
            abort();
        if (pread(in, bytes, size, 0) != (ssize_t)size ||
            pwrite(out, bytes, size, 0) != (ssize_t)size)
            size = 0;
        free(bytes);
        switch (below(a, 4)) {
        case 0:
            changed = ftruncate(out, (off_t)below(a, (unsigned)size + 1)) == 0;
            break;
        case 1:
            changed = pwrite(out, "more", 4, (off_t)size) == 4;
            break;
        default:
            changed = other.wasm != w->wasm || flip(out, a);
        }
        (void)fchmod(out, 0400);
        if (changed && rename(copy, to) == 0)
            atomic_fetch_add(&a->board->spoilt, 1);
    }
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    (void)unlink(copy);
}

static void change_in_place(struct actor *a, const struct wanted *w)
{
    char path[600];
    int fd;
    entry_path(a, path, sizeof(path), w);
    if (!gate_close(a))
        return;
    (void)chmod(path, 0600);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        struct stat st;
        int changed = one_in(a, 3) && fstat(fd, &st) == 0 && st.st_size > 0
                          ? ftruncate(fd, (off_t)below(a, (unsigned)st.st_size)) == 0
                          : flip(fd, a);
        atomic_fetch_add(&a->board->in_place, (unsigned)changed);
        (void)fchmod(fd, 0400);
        close(fd);
    }
    gate_leave(a);
}

static void link_in(struct actor *a, const struct wanted *w)
{
    char path[600], target[600];
    struct wanted other;
    choose(a, &other);
    entry_path(a, path, sizeof(path), w);
    entry_path(a, target, sizeof(target), &other);
    (void)unlink(path);
    if (strcmp(path, target) != 0 && symlink(target, path) == 0)
        atomic_fetch_add(&a->board->spoilt, 1);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    (void)remove(path); /* others put more there */
    return 0;
}

/* rm -rf of a namespace; with `at_once` it is moved away first. */
static void pull(struct actor *a, unsigned engine, int at_once)
{
    char path[600], moved[600];
    snprintf(path, sizeof(path), "%s/%s", a->workload->dir, a->workload->namespaces[engine]);
    snprintf(moved, sizeof(moved), "%s/pulled-%u-%u-%u-%d", a->workload->attic,
             a->process->worker->slot, a->index, a->nth, (int)getpid());
    atomic_fetch_add(&a->board->pulled, 1);
    if (at_once && rename(path, moved) < 0)
        return;
    (void)nftw(at_once ? moved : path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Noise in a file beside the entries. */
static void spoil_beside(struct actor *a, const char *name)
{
    char path[600], copy[600];
    int fd;
    snprintf(path, sizeof(path), "%s/%s", a->workload->dir, name);
    snprintf(copy, sizeof(copy), "%s/noise-%u-%u-%d", a->workload->attic, a->process->worker->slot,
             a->index, (int)getpid());
    fd = open(copy, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    for (int i = 0; i < 600; i++) {
        const uint64_t noise = workload_random(&a->random);
        if (write(fd, &noise, sizeof(noise)) < 0)
            break;
    }
    close(fd);
    (void)rename(copy, path);
}

static void do_spoil(struct actor *a)
{
    struct wanted w;
    char path[600];
    choose(a, &w);
    switch (below(a, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        swap_in(a, &w);
        return;
    case 4:
    case 5:
        if (one_in(a, 2)) /* all others stop for it */
            change_in_place(a, &w);
        return;
    case 6:
        entry_path(a, path, sizeof(path), &w);
        (void)unlink(path);
        return;
    case 7:
        link_in(a, &w);
        return;
    case 8:
        if (one_in(a, 3) && !a->workload->counting)
            pull(a, w.engine, one_in(a, 2));
        return;
    case 9:
        if (!a->workload->counting)
            spoil_beside(a, one_in(a, 2) ? ".tally-1" : ".hints-1-le");
        return;
    default:
        swap_in(a, &w);
    }
}

/* ---- fork ---- */

static int open_gate(const struct workload *l)
{
    return open(l->gate_path, O_RDWR | O_CLOEXEC);
}

/* The child uses what it got, whatever its parent's other threads were doing. */
static _Noreturn void be_child(struct actor *a)
{
    static const struct timespec short_time = {0, 1000000};
    alarm(40);
    a->in_child = 1;
    close(a->gate);
    a->gate = open_gate(a->workload);
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++)
        pthread_mutex_init(&a->process->engines[e].lock, NULL); /* another thread may have it */
    for (unsigned i = 0; i < 4; i++) {
        gate_enter(a);
        switch (below(a, 5)) {
        case 0:
            do_load(a);
            break;
        case 1:
            do_requests(a);
            break;
        default:
            do_get(a);
        }
        gate_leave(a);
        nanosleep(&short_time, NULL);
    }
    close_all(a->use);
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++)
        if (a->process->engines[e].wrong)
            broken(a, "the engine was handed bytes that it did not make");
    _exit(0);
}

static void do_fork(struct actor *a)
{
    pid_t child;
    int status = 0;
    if (!FORKS_WITH_THREADS)
        return;
    child = fork();
    if (child < 0)
        return;
    if (child == 0)
        be_child(a);
    gate_leave(a); /* the child is no call of ours */
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    gate_enter(a);
    if (status)
        broken(a, "the child ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    atomic_fetch_add(&a->board->forks, 1);
}

/* ---- threads ---- */

static enum workload_op choose_op(struct actor *a)
{
    static const struct {
        enum workload_op op;
        unsigned weight;
    } ops[] = {{OP_GET, 50},     {OP_REQUESTS, 8}, {OP_LOAD, 10}, {OP_SAVE, 6},
               {OP_CONTAINS, 4}, {OP_REMOVE, 4},   {OP_CHECK, 2}, {OP_REMOVE_DAMAGED, 2},
               {OP_VERIFY, 1},   {OP_CLEAR, 1},    {OP_PRUNE, 1}, {OP_PIN, 2},
               {OP_CLEAN, 1},    {OP_STATS, 2},    {OP_FLUSH, 1}, {OP_OPEN, 3},
               {OP_FORK, 1},     {OP_SPOIL, 8}};
    unsigned total = 0, at;
    for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++)
        total += ops[i].weight;
    at = below(a, total);
    for (size_t i = 0;; i++) {
        if (at < ops[i].weight)
            return ops[i].op;
        at -= ops[i].weight;
    }
}

static void perform(struct actor *a)
{
    switch (a->op) {
    case OP_GET:
        do_get(a);
        break;
    case OP_REQUESTS:
        do_requests(a);
        break;
    case OP_LOAD:
        do_load(a);
        break;
    case OP_SAVE:
        do_save(a);
        break;
    case OP_CONTAINS:
        do_contains(a);
        break;
    case OP_REMOVE:
    case OP_REMOVE_DAMAGED:
        do_remove(a, a->op == OP_REMOVE_DAMAGED);
        break;
    case OP_CHECK:
        do_check(a);
        break;
    case OP_VERIFY:
    case OP_CLEAR:
        do_walk(a, a->op == OP_CLEAR);
        break;
    case OP_PRUNE:
        do_prune(a);
        break;
    case OP_PIN:
        do_pin(a);
        break;
    case OP_CLEAN:
        do_clean(a);
        break;
    case OP_STATS:
        do_stats(a);
        break;
    case OP_FLUSH:
        do_flush(a);
        break;
    case OP_OPEN:
        do_open(a);
        break;
    case OP_FORK:
        do_fork(a);
        break;
    case OP_SPOIL:
    case OP_NONE:
    case WORKLOAD_OPS:
        break;
    }
}

static void *act(void *argument)
{
    struct actor *a = argument;
    const struct worker *worker = a->process->worker;
    struct workload_slot *slot = &a->board->slots[worker->slot][a->index];
    for (a->nth = 0; a->nth < worker->ops && !atomic_load(&a->board->stop); a->nth++) {
        a->op = choose_op(a);
        a->use = a->own.cache && one_in(a, 2) ? &a->own : &a->process->shared;
        atomic_store(&slot->op, a->op);
        atomic_store(&slot->since, wc_os_monotonic_ns());
        if (a->op == OP_SPOIL) {
            do_spoil(a);
        } else {
            gate_enter(a);
            perform(a);
            gate_leave(a);
        }
        atomic_store(&slot->since, 0);
        atomic_fetch_add(&a->board->done[a->op], 1);
    }
    a->op = OP_NONE;
    close_all(&a->own);
    close(a->gate);
    return NULL;
}

/* ---- a process ---- */

static unsigned count_threads(void)
{
    FILE *file = fopen("/proc/self/status", "re");
    char line[200];
    unsigned threads = 0;
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "Threads: %u", &threads) == 1)
            break;
    if (file)
        fclose(file);
    return threads;
}

/* One that was joined may still be seen for a moment. */
static unsigned count_settled_threads(unsigned expected)
{
    unsigned count = count_threads();
    for (int i = 0; i < (expected ? 500 : 20) && count != expected; i++) {
        usleep(1000);
        count = count_threads();
    }
    return count;
}

static void start_process(struct process *p, struct actor *first)
{
    static const unsigned lacking[] = {WC_OS_NO_TMPFILE,   WC_OS_NO_TMPFILE | WC_OS_NO_LINK,
                                       WC_OS_NO_NOREPLACE, WC_OS_NO_PROC,
                                       WC_OS_NO_VIEW,      WC_OS_NO_BYTE_LOCKS};
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    options.flags = WASMCACHE_EXECUTOR_ON_WORKER;
    options.threads = 2;
    wc_os_lacking =
        one_in(first, 2) ? lacking[below(first, sizeof(lacking) / sizeof(*lacking))] : 0;
    if (first->workload->counting && wc_os_lacking & WC_OS_NO_BYTE_LOCKS)
        wc_os_lacking = 0; /* nobody counts there */
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++) {
        workload_engine_init(&p->engines[e], e);
        p->engines[e].on_compile = in_compile;
        p->engines[e].on_compile_argument = &p->engines[e];
        if (one_in(first, 3))
            p->engines[e].table.module_clone = NULL;
    }
    if (wasmcache_executor_new(&p->executor, &options))
        broken(first, "executor: %s", wasmcache_last_error()->message);
    open_all(first, &p->shared);
}

static void end_process(struct process *p, struct actor *first)
{
    struct workload_slot *slot = &first->board->slots[p->worker->slot][0];
    atomic_store(&slot->op, OP_OPEN);
    atomic_store(&slot->since, wc_os_monotonic_ns());
    close_all(&p->shared);
    wasmcache_executor_free(p->executor);
    atomic_store(&slot->since, 0);
    for (unsigned e = 0; e < WORKLOAD_ENGINES; e++) {
        const char *complaint = fake_engine_complaint(&p->engines[e]);
        if (complaint)
            broken(first, "%s", complaint);
        free(p->engines[e].handed);
    }
}

/* A sanitizer starts threads of its own with the first one. */
static void *do_nothing(void *argument)
{
    return argument;
}

int worker_run(void *argument)
{
    struct worker *worker = argument;
    static struct process p;
    static struct actor actors[WORKLOAD_THREADS];
    pthread_t threads[WORKLOAD_THREADS];
    const unsigned descriptors = scratch_descriptors();
    unsigned alive, after;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    p.worker = worker;
    for (unsigned t = 0; t < worker->threads; t++) {
        struct actor *a = &actors[t];
        a->process = &p;
        a->workload = worker->workload;
        a->board = worker->workload->board;
        a->index = t;
        a->random = worker->workload->seed + (UINT64_C(1) << 40) * (worker->lives + 1) +
                    UINT64_C(1000) * worker->slot + t;
        (void)workload_random(&a->random);
        a->gate = open_gate(worker->workload);
    }
    if (pthread_create(&threads[0], NULL, do_nothing, NULL))
        broken(&actors[0], "no thread");
    pthread_join(threads[0], NULL);
    alive = count_settled_threads(0);
    start_process(&p, &actors[0]);
    for (unsigned t = 0; t < worker->threads; t++)
        if (pthread_create(&threads[t], NULL, act, &actors[t]))
            broken(&actors[t], "no thread");
    for (unsigned t = 0; t < worker->threads; t++)
        pthread_join(threads[t], NULL);
    end_process(&p, &actors[0]);
    if (scratch_descriptors() != descriptors)
        broken(&actors[0], "%u descriptors at the start, %u at the end", descriptors,
               scratch_descriptors());
    after = count_settled_threads(alive);
    if (after != alive)
        broken(&actors[0], "%u threads at the start, %u at the end", alive, after);
    return 0;
}
