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
 * A request (request.c) goes the same way, and looks between the two who else wants that key.
 *
 * No failure of the cache leaves this file as a failure of a get.
 */
#include "get.h"

#include "later.h"

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
static int save_compiled(struct wc_call *call, const struct wc_input *input,
                         const wasmcache_key *key, void *native)
{
    struct wc_error err;
    int rc;
    wc_error_init(&err);
    rc = wc_input_unchanged(input, key, &err);
    if (rc == 0 && wc_later_save(call, key, native) == 0) {
        call->report.save_later = 1;
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
    const unsigned known = WASMCACHE_GET_RECOMPILE | WASMCACHE_GET_NO_SAVE;
    wasmcache_get_options o = WASMCACHE_GET_OPTIONS_INIT;
    int rc = options
                 ? wc_sized_in(&o, sizeof(o), options, SIZE_0_1(wasmcache_get_options, reserved),
                               "wasmcache_get_options", err)
                 : 0;
    if (rc == 0 && (o.flags & ~known || o.reserved))
        rc = wc_misuse(err, "wasmcache_get", "unknown flags, or a reserved field that is not 0");
    if (rc == 0)
        rc = wc_source_check(&get->source, source, err);
    if (rc < 0) {
        call->report.reason = WASMCACHE_REASON_SOURCE;
        return rc;
    }
    call->flags = o.flags;
    call->replace = (o.flags & WASMCACHE_GET_RECOMPILE) != 0;
    wc_input_init(&get->input, &get->source);
    get->cached = 0;
    return 0;
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
    rc = wc_input_key(&get->input, &get->key, &call->look, err);
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

int wc_get_module(struct wc_get *get, struct wc_call *call, void **native, void **engine_error,
                  struct wc_error *err)
{
    struct wc_input *input = &get->input;
    const int recompile = (call->flags & WASMCACHE_GET_RECOMPILE) != 0;
    int rc;

    if (get->cached && recompile)
        call->report.reason = WASMCACHE_REASON_RECOMPILE;
    else if (get->cached && look(call, &get->key, native) == 0)
        return 0;

    rc = wc_call_go_on(call, err);
    if (rc < 0)
        return rc;
    rc = wc_input_read(input, err);
    if (rc < 0) {
        if (rc != WASMCACHE_EMISS)
            call->report.reason = WASMCACHE_REASON_SOURCE;
        return rc;
    }
    call->report.wasm_bytes = input->size;
    /* The file changed since it was hashed: what it holds now may be known too. */
    if (get->cached && wc_input_file_under(input, &get->key) && !recompile &&
        look(call, &get->key, native) == 0)
        return 0;
    rc = wc_call_go_on(call, err);
    if (rc == 0)
        rc = compile(call, input, native, engine_error, err);
    if (rc < 0)
        return rc;
    call->report.outcome = WASMCACHE_COMPILED;
    call->report.save_error = WASMCACHE_EOFF;
    if (get->cached && !(call->flags & WASMCACHE_GET_NO_SAVE) &&
        !(call->attachment->cache->store.flags & WASMCACHE_READ_ONLY))
        call->report.save_error = save_compiled(call, input, &get->key, *native);
    return 0;
}

int wc_get_is_of(const struct wc_get *get, const struct wc_call *call, const wasmcache_key *key)
{
    struct wc_error err;
    if (!wasmcache_key_equal(&get->key, key))
        return 0;
    if (call->report.outcome == WASMCACHE_HIT ||
        (call->report.outcome == WASMCACHE_COMPILED && call->report.save_error == 0))
        return 1;
    wc_error_init(&err);
    return wc_input_unchanged(&get->input, key, &err) == 0;
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
    if (rc == 0 && (!out || !call->attachment)) {
        call->report.reason = WASMCACHE_REASON_SOURCE;
        rc = wc_misuse(err, function,
                       "NULL; without an attachment there is no engine to compile with");
    }
    return rc;
}

/* What the two forms of get share. `engine_error` NULL: the error's text is enough. */
static int get_native(struct wc_call *call, void **native, void **engine_error,
                      const wasmcache_source *source, const wasmcache_get_options *options,
                      const wasmcache_report *report, const void *out, const char *function,
                      struct wc_error *err)
{
    struct wc_get get;
    int rc = wc_get_check_call(call, report, out, function, err);
    if (rc == 0)
        rc = wc_get_check(&get, call, source, options, err);
    if (rc)
        return rc;
    rc = wc_get_key(&get, call, err);
    if (rc == 0)
        rc = wc_get_module(&get, call, native, engine_error, err);
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
    rc = get_native(&call, &native, &error, source, options, report, engine_error ? out : NULL,
                    "wasmcache_get_native", &err);
    if (rc == 0)
        *out = native;
    else if (rc == WASMCACHE_EENGINE && engine_error)
        *engine_error = error;
    return wc_call_end(&call, report, rc, &err);
}

int wasmcache_get(wasmcache_module **out, wasmcache_attachment *attachment, wasmcache_kind kind,
                  const wasmcache_source *source, const wasmcache_get_options *options,
                  wasmcache_report *report)
{
    struct wc_error err;
    struct wc_call call;
    void *native = NULL;
    int rc;

    wc_error_init(&err);
    wc_call_start(&call, attachment, kind);
    rc = get_native(&call, &native, NULL, source, options, report, out, "wasmcache_get", &err);
    if (rc == 0)
        rc = wc_call_count(out, &call, native, &err);
    return wc_call_end(&call, report, rc, &err);
}
