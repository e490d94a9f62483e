/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy: load, else compile and save. The path of a hit, from here to the engine:
 *
 *     wasmcache_get -> wc_get_key -> wc_input_key (source.c)    what are we looking for
 *                   -> wc_get_module -> wc_load (load.c)
 *                             -> wc_call_enter (call.c)         may the folder be trusted (gate.c);
 *                                                               known, if that was just asked
 *                             -> wc_store_open_entry            open, judge, compare (store_dir.c)
 *                             -> wc_entry_file_verify           digest (store_dir.c)
 *                             -> wc_engine_load                 the engine, on the same descriptor
 *
 * A miss asks for leave to compile, which it gets if no other thread or process does (flight.c).
 * A request (request.c) goes the same way, and looks between the two who else wants that key.
 *
 * No failure of the cache leaves this file as a failure of a get.
 */
#include "get.h"

#include <string.h>

#include "key.h"
#include "later.h"
#include "memory.h"

/* How long to wait for another's compile where the options do not say. */
#define WAIT_MS 60000u

static int compile(struct wc_call *call, const struct wc_input *input, void **native,
                   void **engine_error, struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    const uint64_t started = wc_os_monotonic_ns();
    void *error = NULL;
    int failed;
    if (!a->table.compile)
        return wc_fail(err, WASMCACHE_EMISS, 0, NULL, NULL,
                       "The module is not in the cache, and this engine has no compiler");
    failed = a->table.compile(a->engine, call->kind, input->bytes, input->length, native, &error);
    call->report.compile_ns = wc_os_monotonic_ns() - started;
    if (!failed)
        return 0;
    if (!engine_error)
        return wc_engine_failure(a, error, "compile", err);
    *engine_error = error;
    return wc_fail(err, WASMCACHE_EENGINE, 0, "compile", NULL,
                   "The engine did not compile the module; its own error says why");
}

static int look(struct wc_call *call, const wasmcache_key *key, void **native)
{
    struct wc_error err;
    wc_error_init(&err);
    return wc_load(call, key, native, &err);
}

/* What was compiled is filed only under its own hash: the caller's memory may have changed since.
 */
static int save_compiled(struct wc_call *call, const struct wc_get *get, void *native,
                         struct wc_key_lock *lock)
{
    const wasmcache_key *key = &get->key;
    struct wc_error err;
    int rc;
    wc_error_init(&err);
    rc = wc_call_phase(call, WASMCACHE_PHASE_SAVE, &err);
    if (rc == 0)
        rc = wc_input_unchanged(&get->input, &get->content, &err);
    if (rc == 0 && wc_later_save(call, key, native, lock) == 0) {
        call->report.save_later = 1;
        call->report.key = *key; /* also where it was not looked for under that */
        return 0;
    }
    if (rc == 0)
        return wc_save(call, key, native, &err);
    wc_call_tell(call, WASMCACHE_EVENT_SAVE_FAILED, NULL, &err, 0);
    return rc;
}

int wc_get_check(struct wc_get *get, struct wc_call *call, const wasmcache_source *source,
                 const wasmcache_get_options *options, struct wc_error *err)
{
    const unsigned known = WASMCACHE_GET_RECOMPILE | WASMCACHE_GET_NO_SAVE |
                           WASMCACHE_GET_MUST_HIT | WASMCACHE_GET_NO_WAIT;
    const unsigned contradiction = WASMCACHE_GET_RECOMPILE | WASMCACHE_GET_MUST_HIT;
    wasmcache_get_options o = WASMCACHE_GET_OPTIONS_INIT;
    int rc = options
                 ? wc_sized_in(&o, sizeof(o), options, SIZE_0_1(wasmcache_get_options, salt_length),
                               "wasmcache_get_options", err)
                 : 0;
    if (rc == 0 && (o.flags & ~known || (o.flags & contradiction) == contradiction))
        rc = wc_misuse(err, "wasmcache_get", "unknown flags, or flags that exclude each other");
    if (rc == 0 && (o.salt_length > WC_SALT_MAX || (o.salt_length && !o.salt)))
        rc =
            wc_misuse(err, "wasmcache_get", "a salt of more than 128 bytes, or NULL with a length");
    if (rc == 0)
        rc = wc_source_check(&get->source, source, err);
    if (rc < 0) {
        call->report.reason = WASMCACHE_REASON_SOURCE;
        return rc;
    }
    call->flags = o.flags;
    call->replace = (o.flags & WASMCACHE_GET_RECOMPILE) != 0;
    call->tick = o.tick;
    call->tick_payload = o.tick_payload;
    if (!(o.flags & WASMCACHE_GET_NO_WAIT))
        call->wait_ns = (o.wait_ms ? o.wait_ms : WAIT_MS) * UINT64_C(1000000);
    wc_input_init(&get->input, &get->source);
    get->cached = 0;
    get->flies = 0;
    get->salt = o.salt;
    get->salt_length = o.salt_length;
    return 0;
}

static void file_under_content(struct wc_get *get, struct wc_call *call)
{
    get->key = get->content;
    if (get->salt_length)
        wc_key_salt(&get->key, &get->content, get->salt, get->salt_length);
    call->generation = wc_memory_generation(&get->key);
}

int wc_get_key(struct wc_get *get, struct wc_call *call, struct wc_error *err)
{
    const int cached = wc_call_may_look(call, &call->look);
    const uint64_t started = wc_os_monotonic_ns(); /* not the first use's probe */
    int rc;

    if (!cached)
        return 0;
    if (wc_input_is_file(&get->input))
        wc_call_look_later(call);
    rc = wc_input_key(&get->input, &get->content, &call->look, err);
    if (rc == 0)
        file_under_content(get, call);
    call->report.key_ns = wc_os_monotonic_ns() - started;
    call->report.wasm_bytes = get->input.size;
    if (rc == WASMCACHE_ENOMEM) { /* the engine may have enough all the same */
        call->report.reason = WASMCACHE_REASON_UNREADABLE;
        return 0;
    }
    if (rc < 0)
        call->report.reason = WASMCACHE_REASON_SOURCE;
    get->cached = rc == 0;
    return rc;
}

/* Does it matter to others that this one compiles, and to this one that others do? */
static int is_shared(const struct wc_get *get, const struct wc_call *call)
{
    const unsigned alone = WASMCACHE_GET_RECOMPILE | WASMCACHE_GET_NO_SAVE;
    const wasmcache_source *source = &get->source;
    const int has_bytes = source->type != WASMCACHE_SOURCE_DIGEST || source->fetch;
    return get->cached && has_bytes && !(call->flags & alone) && call->attachment->table.compile;
}

int wc_get_look(struct wc_get *get, struct wc_call *call, void **native, struct wc_error *err)
{
    int rc;
    if (get->cached && call->flags & WASMCACHE_GET_RECOMPILE)
        call->report.reason = WASMCACHE_REASON_RECOMPILE;
    else if (get->cached && look(call, &get->key, native) == 0)
        return WC_GET_DONE;
    if (call->flags & WASMCACHE_GET_MUST_HIT)
        return wc_fail(err, WASMCACHE_EMISS, 0, NULL, NULL,
                       "The module is not in the cache (%s), and it was not to be compiled",
                       wasmcache_reason_name(call->report.reason));
    rc = wc_call_go_on(call, err);
    return rc < 0 ? rc : WC_GET_MAKE;
}

/* What the flight's turn means for the get. LOOK: look again, and ask again if it is not there. */
static int step_of(struct wc_get *get, struct wc_call *call, int turn, void **native)
{
    if (turn < 0)
        return turn;
    if (turn == WC_FLIGHT_LEAD)
        return WC_GET_MAKE;
    if (turn == WC_FLIGHT_JOINED || (turn == WC_FLIGHT_LOOK && look(call, &get->key, native) == 0))
        return WC_GET_DONE;
    return WC_GET_WAIT;
}

static void start_flight(struct wc_get *get, struct wc_call *call)
{
    if (!get->flies)
        wc_flight_start(&get->flight, call, &get->key);
    get->flies = 1;
}

int wc_get_ask(struct wc_get *get, struct wc_call *call, void **native, uint64_t *ns,
               struct wc_error *err)
{
    if (!is_shared(get, call))
        return WC_GET_MAKE;
    start_flight(get, call);
    *ns = 0;
    return step_of(get, call, wc_flight_ask(&get->flight, native, ns, err), native);
}

int wc_get_wait(struct wc_get *get, struct wc_call *call, void **native, struct wc_error *err)
{
    int step;
    if (!is_shared(get, call))
        return WC_GET_MAKE;
    start_flight(get, call);
    do
        step = step_of(get, call, wc_flight_wait(&get->flight, native, err), native);
    while (step == WC_GET_WAIT);
    return step;
}

int wc_get_make(struct wc_get *get, struct wc_call *call, void **native, void **engine_error,
                struct wc_error *err)
{
    struct wc_key_lock none = WC_KEY_LOCK_INIT;
    struct wc_input *input = &get->input;
    int rc = wc_input_read(input, err);
    if (rc < 0) {
        if (rc != WASMCACHE_EMISS)
            call->report.reason = WASMCACHE_REASON_SOURCE;
        return rc;
    }
    call->report.wasm_bytes = input->size;
    /* The file changed since it was hashed: what it holds now may be known too. */
    if (get->cached && wc_input_file_under(input, &get->content)) {
        file_under_content(get, call);
        if (!(call->flags & WASMCACHE_GET_RECOMPILE) && look(call, &get->key, native) == 0)
            return 0;
    }
    rc = wc_call_phase(call, WASMCACHE_PHASE_COMPILE, err);
    if (rc == 0)
        rc = compile(call, input, native, engine_error, err);
    if (rc < 0)
        return rc;
    call->report.outcome = WASMCACHE_COMPILED;
    call->report.save_error = WASMCACHE_EOFF;
    if (get->cached && !(call->flags & WASMCACHE_GET_NO_SAVE) &&
        !(call->attachment->cache->store.flags & WASMCACHE_READ_ONLY))
        call->report.save_error =
            save_compiled(call, get, *native, get->flies ? &get->flight.lock : &none);
    return 0;
}

void wc_get_land(struct wc_get *get, struct wc_call *call, int rc, void *native)
{
    enum wc_flight_end end = WC_FLIGHT_VAIN;
    if (!get->flies)
        return;
    get->flies = 0;
    if (rc == WASMCACHE_EABORTED || !wasmcache_key_equal(&get->flight.key, &get->key))
        end = WC_FLIGHT_NOTHING;
    else if (rc == 0 && (call->report.outcome == WASMCACHE_HIT || call->report.save_error == 0))
        end = WC_FLIGHT_PUBLISHED;
    if (rc < 0 ||
        (wc_flight_is_awaited(&get->flight) && !wc_get_is_of(get, call, &get->flight.key)))
        native = NULL;
    wc_flight_land(&get->flight, end, native);
}

int wc_get_module(struct wc_get *get, struct wc_call *call, void **native, void **engine_error,
                  struct wc_error *err)
{
    int step = wc_get_look(get, call, native, err);
    if (step == WC_GET_MAKE)
        step = wc_get_wait(get, call, native, err);
    if (step == WC_GET_MAKE)
        step = wc_get_make(get, call, native, engine_error, err);
    wc_get_land(get, call, step, *native);
    return step;
}

int wc_get_is_of(const struct wc_get *get, const struct wc_call *call, const wasmcache_key *key)
{
    struct wc_error err;
    if (!wasmcache_key_equal(&get->key, key))
        return 0;
    if (call->report.outcome == WASMCACHE_HIT || call->report.outcome == WASMCACHE_JOINED ||
        (call->report.outcome == WASMCACHE_COMPILED && call->report.save_error == 0))
        return 1;
    wc_error_init(&err);
    return wc_input_unchanged(&get->input, &get->content, &err) == 0;
}

void wc_get_release(struct wc_get *get, struct wc_call *call)
{
    wc_input_release(&get->input);
    wc_call_leave(call);
}

int wc_get_check_call(struct wc_call *call, const wasmcache_report *report, const void *out,
                      const char *function, struct wc_error *err)
{
    int rc = wc_call_check(call, report, function, err);
    call->counts = 1;
    if (rc == 0 && (!out || !call->attachment)) {
        call->report.reason = WASMCACHE_REASON_SOURCE;
        rc = wc_misuse(err, function,
                       "NULL; without an attachment there is no engine to compile with");
    }
    return rc;
}

int wc_get_remembered(const struct wc_get *get, struct wc_call *call, wasmcache_module **out)
{
    const wasmcache_attachment *a = call->attachment;
    if (!a->cache || !a->cache->memory || !get->cached || call->flags & WASMCACHE_GET_RECOMPILE)
        return 0;
    *out = wc_call_remembered(call, &get->key);
    return *out != NULL;
}

int wc_get_count(wasmcache_module **out, const struct wc_get *get, struct wc_call *call,
                 void *native, struct wc_error *err)
{
    const wasmcache *cache = call->attachment->cache;
    const int keep = cache && cache->memory && get->cached && wc_get_is_of(get, call, &get->key);
    return wc_call_count(out, call, keep ? &get->key : NULL, native, err);
}

static int run_get(struct wc_get *get, struct wc_call *call, void **native, void **engine_error,
                   wasmcache_module **counted, struct wc_error *err)
{
    int rc = wc_get_key(get, call, err);
    if (rc < 0 || (counted && wc_get_remembered(get, call, counted)))
        return rc;
    rc = wc_get_module(get, call, native, engine_error, err);
    return rc == 0 && counted ? wc_get_count(counted, get, call, *native, err) : rc;
}

/* What the two forms of get share: a module of the engine's, or a counted one. `engine_error` NULL:
 * the error's text is enough. */
static int get_either(struct wc_call *call, void **native, void **engine_error,
                      wasmcache_module **counted, const wasmcache_source *source,
                      const wasmcache_get_options *options, const wasmcache_report *report,
                      const void *out, const char *function, struct wc_error *err)
{
    struct wc_get get;
    int rc = wc_get_check_call(call, report, out, function, err);
    if (rc == 0)
        rc = wc_get_check(&get, call, source, options, err);
    if (rc)
        return rc;
    rc = run_get(&get, call, native, engine_error, counted, err);
    wc_get_release(&get, call);
    return rc;
}

int wasmcache_get_native(void **out, void **engine_error, wasmcache_attachment *attachment,
                         wasmcache_kind kind, const wasmcache_source *source,
                         const wasmcache_get_options *options, wasmcache_report *report)
{
    struct wc_error err;
    struct wc_call call;
    void *native = NULL, *error = NULL;
    int rc;

    wc_error_init(&err);
    wc_call_start(&call, attachment, kind);
    rc = get_either(&call, &native, &error, NULL, source, options, report,
                    engine_error ? out : NULL, "wasmcache_get_native", &err);
    if (rc == 0)
        *out = native;
    else if (rc == WASMCACHE_EENGINE && engine_error) /* without a place for it, it is misuse */
        *engine_error = error;
    return wc_call_end(&call, report, rc, &err);
}

/*
 * A hit in memory of a SHA-256 that the caller has, which takes no more than its own arguments: 1.
 * Whatever is not as plain as that, is not there, or is wrong goes the whole way: 0.
 */
static int recall(wasmcache_module **out, const wasmcache_attachment *attachment,
                  wasmcache_kind kind, const wasmcache_source *source,
                  const wasmcache_get_options *options, wasmcache_report *report)
{
    const unsigned plain = WASMCACHE_GET_NO_SAVE | WASMCACHE_GET_MUST_HIT | WASMCACHE_GET_NO_WAIT;
    wasmcache_key key;
    if (!source || source->size != sizeof(*source) || source->type != WASMCACHE_SOURCE_DIGEST ||
        !source->digest || source->digest_length != 32 || !source->digest_algorithm ||
        strcmp(source->digest_algorithm, "sha256") != 0)
        return 0;
    if (options &&
        (options->size != sizeof(*options) || options->flags & ~plain || options->salt_length))
        return 0;
    wc_key_of_sha256(&key, source->digest);
    return wc_call_recall(out, attachment, kind, &key, report);
}

int wasmcache_get(wasmcache_module **out, wasmcache_attachment *attachment, wasmcache_kind kind,
                  const wasmcache_source *source, const wasmcache_get_options *options,
                  wasmcache_report *report)
{
    struct wc_error err;
    struct wc_call call;
    wasmcache_module *module = NULL;
    void *native = NULL;
    int rc;

    if (attachment && attachment->cache && attachment->cache->memory &&
        recall(out, attachment, kind, source, options, report))
        return 0;
    wc_error_init(&err);
    wc_call_start(&call, attachment, kind);
    rc = get_either(&call, &native, NULL, &module, source, options, report, out, "wasmcache_get",
                    &err);
    if (rc == 0)
        *out = module;
    return wc_call_end(&call, report, rc, &err);
}
