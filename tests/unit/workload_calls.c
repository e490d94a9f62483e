/* SPDX-License-Identifier: Apache-2.0 */
/* The calls of the workload, and what may come of each. */
#define _GNU_SOURCE
#include "workload_actor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "os/os.h"

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
    actor_choose(a, w);
    w->flags = flags[actor_below(a, sizeof(flags) / sizeof(*flags))];
    if (w->salt == WORKLOAD_SALTS - 1)
        w->flags = WASMCACHE_GET_MUST_HIT;
    if (actor_one_in(a, 10))
        w->refuse_at = 1 + actor_below(a, 4);
    options->flags = w->flags;
    options->wait_ms = actor_one_in(a, 4) ? 1 + actor_below(a, 40) : 0;
    options->tick = w->refuse_at || actor_one_in(a, 2) ? tick : NULL;
    options->tick_payload = w;
    options->salt = workload_salts[w->salt];
    options->salt_length = w->salt ? strlen(workload_salts[w->salt]) : 0;
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
    switch (actor_below(a, 4)) {
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
        actor_broken(a, "another module than wasm %u of engine %u (outcome %s)", w->wasm, w->engine,
                     wasmcache_outcome_name(report->outcome));
    if (report->outcome == WASMCACHE_HIT && !atomic_load(ever(w)))
        actor_broken(a, "a hit of wasm %u of engine %u, salt %u, which nobody saved", w->wasm,
                     w->engine, w->salt);
    /* One that was not looked for, nor saved, has none. */
    if (!(report->key.length == 0 && report->outcome == WASMCACHE_COMPILED && report->save_error) &&
        !wasmcache_key_equal(&report->key, &a->workload->keys[w->wasm][w->salt]))
        actor_broken(
            a, "the report's key is not that of wasm %u with salt %u (outcome %s, save_later %d)",
            w->wasm, w->salt, wasmcache_outcome_name(report->outcome), report->save_later);
}

/* Why something was not saved may be the limits, others, or a folder that was pulled away. */
static void check_save_error(const struct wanted *w, int rc)
{
    static const int any[] = {WASMCACHE_EBUSY, WASMCACHE_EFULL, 0};
    const struct actor *a = w->actor;
    const int off = w->flags & WASMCACHE_GET_NO_SAVE || w->in->flags & WASMCACHE_READ_ONLY;
    if (rc == WASMCACHE_EIO ? atomic_load(&a->board->pulled) != 0 : actor_allowed(rc, any))
        return;
    if (rc == WASMCACHE_EOFF && off)
        return;
    /* JOINED: it may be the other's who refused. */
    if (rc == WASMCACHE_EABORTED)
        return;
    actor_broken(a, "not saved: %s", wasmcache_error_name(rc));
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
        actor_broken(a, "%s: %s", wasmcache_error_name(rc), wasmcache_last_error()->message);
    if (!compiles)
        actor_broken(a, "a module of wasm that does not compile");
    if (w->refused && !w->cancelled)
        actor_broken(a, "it was refused, and went on");
    check_module(w, native, report);
    switch (report->outcome) {
    case WASMCACHE_HIT:
        atomic_fetch_add(&a->board->hits, 1);
        if (w->flags & WASMCACHE_GET_RECOMPILE)
            actor_broken(a, "a hit where it was to be compiled");
        return;
    case WASMCACHE_COMPILED:
        atomic_fetch_add(&a->board->compiled, 1);
        if (w->flags & WASMCACHE_GET_NO_SAVE && report->save_error != WASMCACHE_EOFF)
            actor_broken(a, "saved although it was not to be");
        if (w->refused_save && report->save_error != WASMCACHE_EABORTED)
            actor_broken(a, "saved although the caller refused");
        break;
    case WASMCACHE_JOINED:
        atomic_fetch_add(&a->board->joined, 1);
        break;
    case WASMCACHE_FAILED:
    case WASMCACHE_SAVED:
        actor_broken(a, "outcome %s of a get that gave a module",
                     wasmcache_outcome_name(report->outcome));
    }
    if (w->flags & WASMCACHE_GET_MUST_HIT &&
        !(w->is_request && report->outcome == WASMCACHE_JOINED))
        actor_broken(a, "%s where it had to hit", wasmcache_outcome_name(report->outcome));
    check_save_error(w, report->save_error);
}

void actor_do_get(struct actor *a)
{
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    void *native = NULL, *error = NULL;
    wasmcache_source source;
    struct wanted w;
    int rc, fd = -1, counted = !actor_one_in(a, 4);

    choose_get(a, &w, &options);
    source = choose_source(a, &w);
    if (source.type == WASMCACHE_SOURCE_PATH && actor_one_in(a, 2)) {
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
    actor_count_report(a->board, &report);
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
    actor_count_report(r->wanted.actor->board, result->report);
    check_got(&r->wanted, result->error, wasmcache_module_native(result->module), result->report);
    wasmcache_module_release(result->module);
    pthread_mutex_lock(&batch->lock);
    batch->left--;
    pthread_cond_signal(&batch->done);
    pthread_mutex_unlock(&batch->lock);
}

void actor_do_requests(struct actor *a)
{
    struct batch batch;
    const unsigned count = 1 + actor_below(a, REQUESTS);
    const int same = actor_one_in(a, 2);
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
            actor_broken(a, "request: %s", wasmcache_last_error()->message);
        if (r->wanted.cancelled && wasmcache_request_cancel(request) < 0)
            actor_broken(a, "cancel: %s", wasmcache_last_error()->message);
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

void actor_do_load(struct actor *a)
{
    static const int errors[] = {WASMCACHE_EMISS,      WASMCACHE_ECORRUPT, WASMCACHE_EMISMATCH,
                                 WASMCACHE_EUNTRUSTED, WASMCACHE_EBUSY,    0};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    struct wanted w;
    int rc;
    actor_choose(a, &w);
    atomic_fetch_add(&a->board->begun, 1);
    rc = wasmcache_load(&module, a->use->wc[w.engine], w.kind, &a->workload->keys[w.wasm][w.salt],
                        &report);
    actor_count_report(a->board, &report);
    if (rc == 0)
        check_module(&w, wasmcache_module_native(module), &report);
    else if (!actor_allowed(rc, errors))
        actor_broken(a, "%s: %s", wasmcache_error_name(rc), wasmcache_last_error()->message);
    if (rc == 0 && report.outcome != WASMCACHE_HIT)
        actor_broken(a, "a load that is no hit");
    wasmcache_module_release(module);
}

void actor_do_save(struct actor *a)
{
    wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct fake_engine *engine;
    struct wanted w;
    void *native;
    int rc;
    actor_choose(a, &w);
    if (w.salt == WORKLOAD_SALTS - 1 || w.wasm == WORKLOAD_WASMS - 1)
        return;
    atomic_store(ever(&w), 1);
    engine = &a->process->engines[w.engine];
    options.flags = actor_one_in(a, 3) ? WASMCACHE_SAVE_REPLACE : 0;
    options.compile_ns = UINT64_C(1000) << actor_below(a, 24);
    native =
        fake_module_new(engine, w.kind, a->workload->wasm[w.wasm], a->workload->length[w.wasm]);
    rc = wasmcache_save(a->use->wc[w.engine], w.kind, &a->workload->keys[w.wasm][w.salt], native,
                        &options, &report);
    engine->table.module_free(w.kind, native);
    if (w.in->flags & WASMCACHE_READ_ONLY) {
        if (rc != WASMCACHE_EIO)
            actor_broken(a, "a save to what is read only: %s", wasmcache_error_name(rc));
        return;
    }
    check_save_error(&w, rc);
}

void actor_do_contains(struct actor *a)
{
    static const int errors[] = {WASMCACHE_EMISS,      WASMCACHE_ECORRUPT, WASMCACHE_EMISMATCH,
                                 WASMCACHE_EUNTRUSTED, WASMCACHE_EBUSY,    0};
    struct wanted w;
    int rc;
    actor_choose(a, &w);
    rc = wasmcache_contains(a->use->wc[w.engine], w.kind, &a->workload->keys[w.wasm][w.salt]);
    if (rc == 0 && !atomic_load(ever(&w)))
        actor_broken(a, "it has what nobody saved: wasm %u, salt %u", w.wasm, w.salt);
    if (!actor_allowed(rc, errors))
        actor_broken(a, "%s: %s", wasmcache_error_name(rc), wasmcache_last_error()->message);
}

/* EIO: what is read only, or where there are no locks, or a folder that is gone. */
static void check_change(struct actor *a, int rc, const int *errors)
{
    const int may_fail =
        a->use->flags & WASMCACHE_READ_ONLY || wc_os_lacking || atomic_load(&a->board->pulled);
    if (!(actor_allowed(rc, errors) || (rc == WASMCACHE_EIO && may_fail)))
        actor_broken(a, "%s: %s", wasmcache_error_name(rc), wasmcache_last_error()->message);
}

void actor_do_remove(struct actor *a, int damaged)
{
    static const int errors[] = {WASMCACHE_EMISS, WASMCACHE_EUNTRUSTED, 0};
    static const int of_damaged[] = {WASMCACHE_EMISS, WASMCACHE_EUNTRUSTED, WASMCACHE_EBUSY, 0};
    struct wanted w;
    const char *ns;
    const wasmcache_key *key;
    actor_choose(a, &w);
    ns = a->workload->namespaces[w.engine];
    key = &a->workload->keys[w.wasm][w.salt];
    check_change(a,
                 damaged ? wasmcache_remove_damaged(a->use->cache, ns, key)
                         : wasmcache_remove(a->use->cache, ns, key),
                 damaged ? of_damaged : errors);
}

void actor_do_check(struct actor *a)
{
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    struct wanted w;
    actor_choose(a, &w);
    if (wasmcache_entry_check(&entry, a->use->cache, a->workload->namespaces[w.engine],
                              &a->workload->keys[w.wasm][w.salt],
                              actor_one_in(a, 2) ? WASMCACHE_CHECK_DIGEST : 0))
        actor_broken(a, "%s", wasmcache_last_error()->message);
    /* Without an errno: others gave the file names, or took them, each time that it was read. */
    if ((entry.state == WASMCACHE_REASON_UNREADABLE && entry.system_errno) ||
        entry.state == WASMCACHE_REASON_NEWER_FORMAT)
        actor_broken(a, "state %s, errno %d", wasmcache_reason_name(entry.state),
                     entry.system_errno);
}

void actor_do_walk(struct actor *a, int clear)
{
    static const int errors[] = {WASMCACHE_EMISS, WASMCACHE_EUNTRUSTED, 0};
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it;
    int rc = wasmcache_iterate(&it, a->use->cache, clear ? a->workload->namespaces[0] : NULL,
                               clear ? 0 : WASMCACHE_CHECK_DIGEST);
    if (rc)
        actor_broken(a, "iterate: %s", wasmcache_last_error()->message);
    while ((rc = wasmcache_iterator_next(it, &entry)) == 0)
        if (clear)
            check_change(a, wasmcache_remove(a->use->cache, entry.engine_namespace, &entry.key),
                         errors);
    wasmcache_iterator_close(it);
    if (rc != WASMCACHE_EMISS)
        check_change(a, rc, errors);
}

void actor_do_prune(struct actor *a)
{
    static const int errors[] = {0};
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    options.max_bytes = 10000 + actor_below(a, 150000);
    options.max_entries = actor_one_in(a, 3) ? 1 + actor_below(a, 30) : 0;
    options.max_age_seconds = actor_one_in(a, 6) ? 1 + actor_below(a, 3) : 0;
    options.flags = actor_one_in(a, 6) ? WASMCACHE_PRUNE_DRY_RUN : 0;
    check_change(a, wasmcache_prune(a->use->cache, &options, &result), errors);
    if (!options.flags) {
        actor_count(a->board, WC_STAT_EVICTIONS, result.removed_entries);
        actor_count(a->board, WC_STAT_EVICTED_BYTES, result.removed_bytes);
    }
}

void actor_do_pin(struct actor *a)
{
    static const int errors[] = {0};
    struct wanted w;
    actor_choose(a, &w);
    check_change(a,
                 wasmcache_pin(a->use->cache, a->workload->namespaces[w.engine],
                               &a->workload->keys[w.wasm][w.salt], actor_one_in(a, 3)),
                 errors);
}

void actor_do_clean(struct actor *a)
{
    static const int errors[] = {0};
    uint64_t removed;
    check_change(a, wasmcache_clean(a->use->cache, &removed), errors);
}

void actor_do_stats(struct actor *a)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    if (wasmcache_stats_read(
            a->use->cache, actor_one_in(a, 2) ? WASMCACHE_STATS_PROCESS : WASMCACHE_STATS_DIRECTORY,
            &stats) ||
        wasmcache_status(a->use->cache, &status))
        actor_broken(a, "%s", wasmcache_last_error()->message);
    if (status.state == WASMCACHE_STATE_OFF)
        actor_broken(a, "off: %s", status.message);
}

void actor_do_flush(struct actor *a)
{
    if (wasmcache_flush(a->use->cache))
        actor_broken(a, "%s", wasmcache_last_error()->message);
}

void actor_do_open(struct actor *a)
{
    if (a->own.cache)
        actor_close(&a->own);
    if (actor_one_in(a, 2))
        actor_open(a, &a->own);
}
