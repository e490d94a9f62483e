/* SPDX-License-Identifier: Apache-2.0 */
#include "support/rig.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void record(struct rig_events *events, const wasmcache_event *event)
{
    size_t type = (size_t)event->type, used = strlen(events->log);
    assert_true(type < sizeof(events->count) / sizeof(*events->count));
    assert_non_null(event->engine_namespace);
    assert_non_null(event->key);
    assert_non_null(event->path);
    assert_non_null(event->message);
    events->count[type]++;
    snprintf(events->log + used, sizeof(events->log) - used, "%s,",
             wasmcache_event_name(event->type));
    events->last[type].reason = event->reason;
    events->last[type].error = event->error;
    events->last[type].system_errno = event->system_errno;
    events->last[type].bytes = event->bytes;
#define COPY(field)                                                                                \
    snprintf(events->last[type].field, sizeof(events->last[type].field), "%s", event->field)
    COPY(engine_namespace);
    COPY(key);
    COPY(path);
    COPY(message);
#undef COPY
}

static pthread_mutex_t events_lock = PTHREAD_MUTEX_INITIALIZER;

/* Requests tell of theirs on several threads. */
static void on_event(const wasmcache_event *event, void *payload)
{
    pthread_mutex_lock(&events_lock);
    record(payload, event);
    pthread_mutex_unlock(&events_lock);
}

unsigned rig_events_of(const struct rig *r, wasmcache_event_type type)
{
    unsigned count;
    pthread_mutex_lock(&events_lock);
    count = r->events.count[type];
    pthread_mutex_unlock(&events_lock);
    return count;
}

void rig_init(struct rig *r)
{
    const wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    const wasmcache_attach_options attach = WASMCACHE_ATTACH_OPTIONS_INIT;
    memset(r, 0, sizeof(*r));
    scratch_init(&r->scratch);
    r->dir = scratch_in(&r->scratch, "cache");
    r->options = options;
    r->options.dir = r->dir;
    r->options.on_event = on_event;
    r->options.payload = &r->events;
    r->attach = attach;
    r->attach.compiler = "none";
    r->attach.engine_version = "1.0";
    r->attach.artifact_version = 1;
    fake_engine_init(&r->engine, 1);
}

void rig_open(struct rig *r)
{
    assert_int_equal(wasmcache_open(&r->cache, &r->options), 0);
    assert_int_equal(wasmcache_attach(&r->wc, r->cache, &r->engine.table, &r->engine, &r->attach),
                     0);
}

void rig_close(struct rig *r)
{
    wasmcache_detach(r->wc);
    wasmcache_close(r->cache);
    r->wc = NULL;
    r->cache = NULL;
}

void rig_end(struct rig *r)
{
    rig_close(r);
    scratch_end(&r->scratch);
    fake_engine_end(&r->engine);
}

void rig_reopen(struct rig *r)
{
    rig_close(r);
    rig_open(r);
}

void rig_forget_events(struct rig *r)
{
    memset(&r->events, 0, sizeof(r->events));
}

static void take(struct rig *r, wasmcache_module *module, const char *wasm)
{
    assert_non_null(module);
    assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                               r->engine.configuration, wasm, strlen(wasm)));
    wasmcache_module_release(module);
}

int rig_get_with(struct rig *r, const char *wasm, unsigned flags, wasmcache_report *report)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_module *module = NULL;
    int rc;
    options.flags = flags;
    rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, report);
    if (rc == 0)
        take(r, module, wasm);
    else
        assert_null(module);
    return rc;
}

int rig_get(struct rig *r, const char *wasm, wasmcache_report *report)
{
    return rig_get_with(r, wasm, 0, report);
}

int rig_load(struct rig *r, const char *wasm, wasmcache_report *report)
{
    wasmcache_key key = rig_key(wasm);
    wasmcache_module *module = NULL;
    int rc = wasmcache_load(&module, r->wc, WASMCACHE_MODULE, &key, report);
    if (rc == 0)
        take(r, module, wasm);
    else
        assert_null(module);
    return rc;
}

int rig_save(struct rig *r, const char *wasm, wasmcache_report *report)
{
    wasmcache_key key = rig_key(wasm);
    void *native = fake_module_new(&r->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    int rc = wasmcache_save(r->wc, WASMCACHE_MODULE, &key, native, NULL, report);
    r->engine.table.module_free(WASMCACHE_MODULE, native);
    return rc;
}

wasmcache_key rig_key(const char *wasm)
{
    wasmcache_key key;
    assert_int_equal(wasmcache_key_from_bytes(&key, WASMCACHE_KEY_SHA256, wasm, strlen(wasm)), 0);
    return key;
}

const char *rig_namespace(const struct rig *r)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    return info.engine_namespace;
}

char *rig_namespace_dir(struct rig *r)
{
    return scratch_in(&r->scratch, "cache/%s", rig_namespace(r));
}

char *rig_entry(struct rig *r, const char *wasm)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    wasmcache_key key = rig_key(wasm);
    return scratch_in(&r->scratch, "cache/%s/%s.bin", rig_namespace(r),
                      wasmcache_key_to_hex(hex, &key));
}

wasmcache_reason rig_state(struct rig *r, const char *wasm)
{
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_key key = rig_key(wasm);
    assert_int_equal(
        wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, WASMCACHE_CHECK_DIGEST), 0);
    return entry.state;
}
