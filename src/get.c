/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy: load, else compile and save. The path of a hit, from here to the engine:
 *
 *     wasmcache_get -> get -> wc_input_key (source.c)       what are we looking for
 *                          -> load -> wc_store_open_folder  may it be trusted (gate.c)
 *                                  -> wc_store_open_entry   open, judge, compare (store_dir.c)
 *                                  -> wc_entry_file_verify  digest (store_dir.c)
 *                                  -> engine_load           the engine, on the same descriptor
 *
 * No failure of the cache leaves this file as a failure of a get.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "attachment.h"
#include "key.h"
#include "module.h"
#include "publish.h"
#include "source.h"

/* One call, from its arguments to its report. */
struct call {
    wasmcache_attachment *attachment;
    wasmcache_kind kind;
    unsigned flags; /* WASMCACHE_GET_... */
    int replace;    /* a save replaces a sound entry */
    wasmcache_report report;
    uint64_t started;
    char hex[WASMCACHE_KEY_HEX_SIZE];
};

static void call_start(struct call *call, wasmcache_attachment *attachment, wasmcache_kind kind)
{
    const wasmcache_report empty = WASMCACHE_REPORT_INIT;
    call->attachment = attachment;
    call->kind = kind;
    call->flags = 0;
    call->replace = 0;
    call->report = empty;
    call->started = wc_os_monotonic_ns();
    call->hex[0] = '\0';
}

static int call_end(struct call *call, wasmcache_report *report, int rc, const struct wc_error *err)
{
    call->report.total_ns = wc_os_monotonic_ns() - call->started;
    if (rc < 0)
        call->report.outcome = WASMCACHE_FAILED;
    if (report && report->size >= sizeof(size_t))
        wc_sized_out(report, &call->report, sizeof(call->report));
    return wc_error_publish(err, rc);
}

static void call_set_key(struct call *call, const wasmcache_key *key)
{
    call->report.key = *key;
    wasmcache_key_to_hex(call->hex, key);
}

/* Tells of something that happened to this call's entry. `path` may be NULL. */
static void tell(const struct call *call, wasmcache_event_type type, const char *path,
                 const struct wc_error *err, uint64_t ns)
{
    wasmcache_event fill = {0};
    fill.engine_namespace = call->attachment->engine_namespace;
    fill.key = call->hex;
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

static int misuse(struct wc_error *err, const char *function, const char *what)
{
    return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL, "%s: %s", function, what);
}

static int check_call(struct call *call, const wasmcache_report *report, const char *function,
                      struct wc_error *err)
{
    const wasmcache_attachment *attachment = call->attachment;
    call->report.reason = WASMCACHE_REASON_SOURCE;
    if (report && report->size < sizeof(size_t))
        return misuse(err, function, "the report's size is not set; use WASMCACHE_REPORT_INIT");
    if (call->kind != WASMCACHE_MODULE && call->kind != WASMCACHE_COMPONENT)
        return misuse(err, function, "the kind is neither module nor component");
    if (attachment && !(attachment->table.kinds & 1u << call->kind))
        return misuse(err, function, "the engine was built without that kind");
    call->report.reason = WASMCACHE_REASON_NONE;
    return 0;
}

/* ---- load ---- */

/* From the file that was checked, without a copy. EENGINE: not this way. */
static int engine_load_file(struct call *call, const struct wc_entry_file *file, void **native,
                            struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    void *error = NULL;
    char path[40];
    if (!a->table.deserialize_file || atomic_load_explicit(&a->cache->noexec, memory_order_relaxed))
        return wc_fail(err, WASMCACHE_EENGINE, 0, NULL, NULL, "The engine maps no file from here");
    if (wc_os_fd_path(file->fd, path) < 0)
        return wc_fail(err, WASMCACHE_EENGINE, 0, NULL, NULL,
                       "There is no /proc to open the file by");
    if (a->table.deserialize_file(a->engine, call->kind, path, native, &error) == 0)
        return 0;
    return wc_engine_failure(a, error, "deserialize_file", err);
}

/* From the bytes of the same file, which the engine copies. */
static int engine_load_bytes(struct call *call, const struct wc_entry_file *file, void **native,
                             struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    const size_t size = (size_t)file->trailer.artifact_bytes;
    void *error = NULL;
    const void *bytes;
    int rc = wc_os_map(file->fd, size, &bytes);
    if (rc < 0)
        return wc_fail(err, wc_error_of_errno(rc), rc, "mmap", file->path, "Cannot map %s",
                       file->path);
    rc = a->table.deserialize(a->engine, call->kind, bytes, size, native, &error);
    if (rc)
        rc = wc_engine_failure(a, error, "deserialize", err);
    wc_os_unmap(bytes, size);
    return rc;
}

static int engine_load(struct call *call, const struct wc_entry_file *file, void **native,
                       struct wc_error *err)
{
    struct wc_error why;
    int rc;
    wc_error_init(&why);
    if (engine_load_file(call, file, native, &why) == 0)
        return 0;
    rc = engine_load_bytes(call, file, native, err);
    if (rc == 0 && call->attachment->table.deserialize_file &&
        !atomic_load_explicit(&call->attachment->cache->noexec, memory_order_relaxed)) {
        if (wc_os_is_noexec(file->fd))
            atomic_store(&call->attachment->cache->noexec, 1);
        tell(call, WASMCACHE_EVENT_FALLBACK, file->path, &why, 0);
    }
    return rc;
}

/* A damaged entry goes, so that it is not read again; unless it was replaced meanwhile. */
static void remove_damaged(struct call *call, const struct wc_folder *folder,
                           const struct wc_entry_file *file)
{
    struct wc_error err;
    int rc;
    if (call->attachment->cache->store.flags & WASMCACHE_READ_ONLY)
        return;
    wc_error_init(&err);
    rc = wc_store_remove(folder, file->name, file->fd, &err);
    if (rc == 0)
        tell(call, WASMCACHE_EVENT_REMOVED, file->path, NULL, 0);
    else if (rc != WASMCACHE_EMISS && rc != WASMCACHE_EBUSY)
        tell(call, WASMCACHE_EVENT_REMOVE_FAILED, file->path, &err, 0);
}

/* Finds the entry and has the engine load it. */
static int load_from(struct call *call, const struct wc_folder *folder, struct wc_entry_file *file,
                     const wasmcache_key *key, void **native, struct wc_error *err)
{
    const wasmcache_attachment *a = call->attachment;
    const struct wc_expect expect = {call->kind, key, a->engine_namespace, a->fingerprint,
                                     a->shared_id};
    int rc = wc_store_open_entry(file, &a->cache->store, folder, &expect, err);
    if (rc == 0)
        rc = wc_entry_file_verify(file, err);
    if (rc < 0)
        return rc;
    call->report.artifact_bytes = file->trailer.artifact_bytes;
    rc = engine_load(call, file, native, err);
    if (rc == 0 && file->trailer.wasm_bytes)
        call->report.wasm_bytes = file->trailer.wasm_bytes;
    return rc;
}

static int load(struct call *call, const wasmcache_key *key, void **native, struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    const uint64_t started = wc_os_monotonic_ns();
    struct wc_folder folder;
    struct wc_entry_file file = {.fd = -1};
    int rc;

    call_set_key(call, key);
    rc = wc_store_open_folder(&folder, &a->cache->store, a->engine_namespace, WC_GATE_LOOK, err);
    wc_cache_note(a->cache, rc, err);
    if (rc == 0)
        rc = load_from(call, &folder, &file, key, native, err);
    call->report.load_ns = wc_os_monotonic_ns() - started;
    if (rc == 0) {
        call->report.outcome = WASMCACHE_HIT;
        call->report.reason = WASMCACHE_REASON_NONE;
        tell(call, WASMCACHE_EVENT_HIT, file.path, NULL, call->report.load_ns);
    } else {
        call->report.reason = err->off ? WASMCACHE_REASON_CACHE_OFF : wc_reason_of_error(rc);
        call->report.artifact_bytes = 0;
        tell(call, WASMCACHE_EVENT_MISS, NULL, err, call->report.load_ns);
        if (rc == WASMCACHE_ECORRUPT)
            remove_damaged(call, &folder, &file);
    }
    wc_entry_file_close(&file);
    wc_folder_close(&folder);
    return rc;
}

/* ---- save ---- */

static int serialize(struct call *call, void *native, wasmcache_artifact *out, struct wc_error *err)
{
    const wasmcache_attachment *a = call->attachment;
    void *error = NULL;
    if (!a->table.serialize)
        return wc_fail(err, WASMCACHE_EENGINE, 0, NULL, NULL, "The engine cannot serialize");
    if (a->table.serialize(a->engine, call->kind, native, out, &error))
        return wc_engine_failure(a, error, "serialize", err);
    if (out->size)
        return 0;
    a->table.artifact_free(out);
    return wc_fail(err, WASMCACHE_EENGINE, 0, "serialize", NULL,
                   "The engine serialized a module to nothing");
}

static int publish(struct call *call, const wasmcache_key *key, const wasmcache_artifact *artifact,
                   enum wc_published *published, struct wc_error *err)
{
    const wasmcache_attachment *a = call->attachment;
    const int reproducible = (a->cache->store.flags & WASMCACHE_REPRODUCIBLE) != 0;
    struct wc_trailer trailer = {0};
    unsigned flags = a->shared_id ? WC_PUBLISH_LEAVE_FOREIGN : 0;

    if (call->replace || call->report.reason == WASMCACHE_REASON_ENGINE_REFUSED)
        flags |= WC_PUBLISH_REPLACE;
    trailer.kind = call->kind;
    trailer.artifact_bytes = artifact->size;
    trailer.key = *key;
    memcpy(trailer.fingerprint, a->fingerprint, sizeof(trailer.fingerprint));
    memcpy(trailer.engine_namespace, a->engine_namespace, sizeof(trailer.engine_namespace));
    trailer.wasm_bytes = call->report.wasm_bytes;
    trailer.compile_ns = reproducible ? 0 : call->report.compile_ns;
    trailer.created = reproducible ? 0 : wc_os_wall_seconds();
    return wc_publish(published, &a->cache->store, &trailer, artifact->data, flags, err);
}

static int save(struct call *call, const wasmcache_key *key, void *native, struct wc_error *err)
{
    wasmcache_attachment *a = call->attachment;
    const uint64_t started = wc_os_monotonic_ns();
    enum wc_published published = WC_PUBLISHED_NEW;
    wasmcache_artifact artifact = {NULL, 0, {NULL, NULL, NULL}};
    char path[WC_PATH_SIZE] = "";
    int rc;

    call_set_key(call, key);
    rc = wc_attachment_recheck(a, err);
    if (rc == 0) {
        rc = wc_publish_ready(&a->cache->store, a->engine_namespace, err);
        wc_cache_note(a->cache, rc, err);
    }
    if (rc == 0)
        rc = serialize(call, native, &artifact, err);
    if (rc == 0) {
        call->report.artifact_bytes = artifact.size;
        rc = publish(call, key, &artifact, &published, err);
        a->table.artifact_free(&artifact);
    }
    call->report.save_ns = wc_os_monotonic_ns() - started;
    if (rc < 0) {
        tell(call, WASMCACHE_EVENT_SAVE_FAILED, NULL, err, call->report.save_ns);
    } else if (a->cache->on_event) {
        (void)wasmcache_entry_path(path, sizeof(path), a->cache, a->engine_namespace, key);
        tell(call, published == WC_PUBLISHED_NEW ? WASMCACHE_EVENT_SAVED : WASMCACHE_EVENT_KEPT,
             path, NULL, call->report.save_ns);
    }
    return rc;
}

/* ---- get ---- */

/* Is there anything to look in? If not, the report says why. */
static int may_look(struct call *call)
{
    if (!wc_cache_usable(call->attachment->cache))
        call->report.reason = WASMCACHE_REASON_CACHE_OFF;
    else if (call->attachment->error)
        call->report.reason = WASMCACHE_REASON_UNATTACHED;
    else
        return 1;
    return 0;
}

static int compile(struct call *call, const struct wc_input *input, void **native,
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
    if (engine_error) {
        char text[512] = "";
        a->table.error_message(error, text, sizeof(text));
        *engine_error = error;
        return wc_fail(err, WASMCACHE_EENGINE, 0, "compile", NULL, "%s", text);
    }
    return wc_engine_failure(a, error, "compile", err);
}

static int look(struct call *call, const wasmcache_key *key, void **native)
{
    struct wc_error err;
    wc_error_init(&err);
    return load(call, key, native, &err);
}

/* What was compiled is filed only under its own hash: the caller's memory may have changed since.
 */
static int save_compiled(struct call *call, const struct wc_input *input, const wasmcache_key *key,
                         void *native)
{
    struct wc_error err;
    int rc;
    wc_error_init(&err);
    rc = wc_input_unchanged(input, key, &err);
    if (rc == 0)
        return save(call, key, native, &err);
    tell(call, WASMCACHE_EVENT_SAVE_FAILED, NULL, &err, 0);
    return rc;
}

static int get_input(struct call *call, struct wc_input *input, void **native, void **engine_error,
                     struct wc_error *err)
{
    const int cached = may_look(call);
    const int recompile = (call->flags & WASMCACHE_GET_RECOMPILE) != 0;
    wasmcache_key key;
    int rc = 0;

    if (cached) {
        rc = wc_input_key(input, &key, err);
        call->report.key_ns = wc_os_monotonic_ns() - call->started;
        call->report.wasm_bytes = input->size;
    }
    if (rc < 0) {
        call->report.reason = WASMCACHE_REASON_SOURCE;
        return rc;
    }
    if (cached && recompile)
        call->report.reason = WASMCACHE_REASON_RECOMPILE;
    else if (cached && look(call, &key, native) == 0)
        return 0;

    rc = wc_input_read(input, err);
    if (rc < 0) {
        if (rc != WASMCACHE_EMISS)
            call->report.reason = WASMCACHE_REASON_SOURCE;
        return rc;
    }
    call->report.wasm_bytes = input->size;
    /* The file changed since it was hashed: what it holds now may be known too. */
    if (cached && wc_input_file_under(input, &key) && !recompile && look(call, &key, native) == 0)
        return 0;
    rc = compile(call, input, native, engine_error, err);
    if (rc < 0)
        return rc;
    call->report.outcome = WASMCACHE_COMPILED;
    call->report.save_error = WASMCACHE_EOFF;
    if (cached && !(call->flags & WASMCACHE_GET_NO_SAVE) &&
        !(call->attachment->cache->store.flags & WASMCACHE_READ_ONLY))
        call->report.save_error = save_compiled(call, input, &key, *native);
    return 0;
}

static int get(struct call *call, void **native, void **engine_error,
               const wasmcache_source *source, const wasmcache_get_options *options,
               struct wc_error *err)
{
    const unsigned known = WASMCACHE_GET_RECOMPILE | WASMCACHE_GET_NO_SAVE;
    wasmcache_get_options o = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_source own;
    struct wc_input input;
    int rc = options
                 ? wc_sized_in(&o, sizeof(o), options, SIZE_0_1(wasmcache_get_options, reserved),
                               "wasmcache_get_options", err)
                 : 0;
    if (rc == 0 && o.flags & ~known)
        rc = misuse(err, "wasmcache_get", "unknown flags");
    if (rc == 0)
        rc = wc_source_check(&own, source, err);
    if (rc < 0) {
        call->report.reason = WASMCACHE_REASON_SOURCE;
        return rc;
    }
    call->flags = o.flags;
    call->replace = (o.flags & WASMCACHE_GET_RECOMPILE) != 0;
    wc_input_init(&input, &own);
    rc = get_input(call, &input, native, engine_error, err);
    wc_input_release(&input);
    return rc;
}

/* What the two forms of get share. `engine_error` NULL: the error's text is enough. */
static int get_checked(struct call *call, void **native, void **engine_error,
                       const wasmcache_source *source, const wasmcache_get_options *options,
                       const wasmcache_report *report, const void *out, const char *function,
                       struct wc_error *err)
{
    int rc = check_call(call, report, function, err);
    if (rc == 0 && (!out || !call->attachment)) {
        call->report.reason = WASMCACHE_REASON_SOURCE;
        rc =
            misuse(err, function, "NULL; without an attachment there is no engine to compile with");
    }
    return rc < 0 ? rc : get(call, native, engine_error, source, options, err);
}

int wasmcache_get_native(void **out, void **engine_error, wasmcache_attachment *attachment,
                         wasmcache_kind kind, const wasmcache_source *source,
                         const wasmcache_get_options *options, wasmcache_report *report)
{
    struct wc_error err;
    struct call call;
    void *native = NULL, *error = NULL;
    int rc;

    wc_error_init(&err);
    call_start(&call, attachment, kind);
    rc = get_checked(&call, &native, &error, source, options, report, engine_error ? out : NULL,
                     "wasmcache_get_native", &err);
    if (rc == 0)
        *out = native;
    else if (rc == WASMCACHE_EENGINE)
        *engine_error = error;
    return call_end(&call, report, rc, &err);
}

/* Counts what the engine gave. ENOMEM: it was freed. */
static int count_module(wasmcache_module **out, struct call *call, void *native,
                        struct wc_error *err)
{
    wasmcache_module *module = wc_module_new(&call->attachment->table, call->kind, native);
    if (!module) {
        call->attachment->table.module_free(call->kind, native);
        return wc_fail(err, WASMCACHE_ENOMEM, 0, "malloc", NULL, "No memory for a module");
    }
    *out = module;
    return 0;
}

int wasmcache_get(wasmcache_module **out, wasmcache_attachment *attachment, wasmcache_kind kind,
                  const wasmcache_source *source, const wasmcache_get_options *options,
                  wasmcache_report *report)
{
    struct wc_error err;
    struct call call;
    void *native = NULL;
    int rc;

    wc_error_init(&err);
    call_start(&call, attachment, kind);
    rc = get_checked(&call, &native, NULL, source, options, report, out, "wasmcache_get", &err);
    if (rc == 0)
        rc = count_module(out, &call, native, &err);
    return call_end(&call, report, rc, &err);
}

/* ---- the caller has the key ---- */

/* EMISUSE; EMISS: there is no cache. */
static int check_keyed(struct call *call, const wasmcache_key *key, const wasmcache_report *report,
                       const void *argument, const char *function, struct wc_error *err)
{
    int rc = check_call(call, report, function, err);
    if (rc < 0)
        return rc;
    if (!wc_key_valid(key) || !argument) {
        call->report.reason = WASMCACHE_REASON_SOURCE;
        return misuse(err, function, "NULL, or a key that the library did not make");
    }
    if (call->attachment && may_look(call))
        return 0;
    if (!call->attachment)
        call->report.reason = WASMCACHE_REASON_UNATTACHED;
    return wc_fail(err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no cache: %s",
                   wasmcache_reason_name(call->report.reason));
}

int wasmcache_load(wasmcache_module **out, wasmcache_attachment *attachment, wasmcache_kind kind,
                   const wasmcache_key *key, wasmcache_report *report)
{
    struct wc_error err;
    struct call call;
    void *native = NULL;
    int rc;

    wc_error_init(&err);
    call_start(&call, attachment, kind);
    rc = check_keyed(&call, key, report, out, "wasmcache_load", &err);
    if (rc == 0)
        rc = load(&call, key, &native, &err);
    if (rc == 0)
        rc = count_module(out, &call, native, &err);
    return call_end(&call, report, rc, &err);
}

int wasmcache_save(wasmcache_attachment *attachment, wasmcache_kind kind, const wasmcache_key *key,
                   void *native, const wasmcache_save_options *options, wasmcache_report *report)
{
    wasmcache_save_options o = WASMCACHE_SAVE_OPTIONS_INIT;
    struct wc_error err;
    struct call call;
    int rc;

    wc_error_init(&err);
    call_start(&call, attachment, kind);
    rc = options ? wc_sized_in(&o, sizeof(o), options, SIZE_0_1(wasmcache_save_options, compile_ns),
                               "wasmcache_save_options", &err)
                 : 0;
    if (rc == 0 && o.flags & ~(unsigned)WASMCACHE_SAVE_REPLACE)
        rc = misuse(&err, "wasmcache_save", "unknown flags");
    if (rc == 0)
        rc = check_keyed(&call, key, report, native, "wasmcache_save", &err);
    if (rc == 0 && attachment->cache->store.flags & WASMCACHE_READ_ONLY)
        rc = wc_fail(&err, WASMCACHE_EIO, EROFS, NULL, attachment->cache->store.dir,
                     "The cache %s was opened to be read only; nothing is saved",
                     attachment->cache->store.dir);
    call.report.wasm_bytes = o.wasm_bytes;
    call.report.compile_ns = o.compile_ns;
    call.replace = (o.flags & WASMCACHE_SAVE_REPLACE) != 0;
    if (rc == 0)
        rc = save(&call, key, native, &err);
    call.report.save_error = rc;
    return call_end(&call, report, rc, &err);
}

int wasmcache_contains(wasmcache_attachment *attachment, wasmcache_kind kind,
                       const wasmcache_key *key)
{
    struct wc_folder folder = WC_FOLDER_INIT;
    struct wc_entry_file file = {.fd = -1};
    struct wc_error err;
    struct call call;
    int rc;

    wc_error_init(&err);
    call_start(&call, attachment, kind);
    rc = check_keyed(&call, key, NULL, key, "wasmcache_contains", &err);
    if (rc == 0)
        rc = wc_store_open_folder(&folder, &attachment->cache->store, attachment->engine_namespace,
                                  WC_GATE_LOOK, &err);
    if (rc == 0) {
        const struct wc_expect expect = {kind, key, attachment->engine_namespace,
                                         attachment->fingerprint, attachment->shared_id};
        rc = wc_store_open_entry(&file, &attachment->cache->store, &folder, &expect, &err);
    }
    wc_entry_file_close(&file);
    wc_folder_close(&folder);
    return wc_error_publish(&err, rc);
}
