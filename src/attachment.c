/* SPDX-License-Identifier: Apache-2.0 */
#include "attachment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "later.h"
#include "memory.h"

int wc_engine_describe(const wasmcache_attachment *attachment, const void *engine_error,
                       const char *doing, struct wc_error *err)
{
    char text[512] = "";
    attachment->table.error_message(engine_error, text, sizeof(text));
    return wc_fail(err, WASMCACHE_EENGINE, 0, doing, NULL, "%s",
                   text[0] ? text : "The engine failed and gave no reason");
}

int wc_engine_failure(const wasmcache_attachment *attachment, void *engine_error, const char *doing,
                      struct wc_error *err)
{
    int rc = wc_engine_describe(attachment, engine_error, doing, err);
    if (engine_error)
        attachment->table.error_free(engine_error);
    return rc;
}

int wc_attachment_is_shared(const wasmcache_attachment *attachment)
{
    return attachment->options.engine_id != NULL;
}

int wc_attachment_takes_legacy(const wasmcache_attachment *attachment)
{
    const char *settings = attachment->options.settings;
    return attachment->cache->store.flags & WASMCACHE_LEGACY && (!settings || !settings[0]);
}

static int word_valid(const char *word, size_t most)
{
    size_t length = word ? strnlen(word, most + 1) : 0;
    return length && length <= most &&
           strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789") == length;
}

static int check(const wasmcache_engine_table *table, const wasmcache_attach_options *o,
                 struct wc_error *err)
{
    const char *wrong = NULL;
    if (!word_valid(table->name, 31) || !word_valid(o->compiler, 31))
        wrong = "engine and compiler need names of 1 to 31 of [a-z0-9]";
    else if (!table->deserialize || !table->module_free || !table->error_message ||
             !table->error_free || !table->kinds)
        wrong = "the engine's table lacks functions";
    else if ((table->serialize || table->probe) && !table->artifact_free)
        wrong = "the engine's table lacks artifact_free";
    else if (o->engine_id && !wc_engine_id_valid(o->engine_id))
        wrong = "an engine id is 1 to 128 of [A-Za-z0-9._+-], starts with a letter or digit, and "
                "has no \"..\"";
    if (!wrong)
        return 0;
    return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL, "wasmcache_attach: %s", wrong);
}

/* Makes the strings in *options copies of ours. 0: no memory. */
static int copy_text(const char **text)
{
    if (!*text)
        return 1;
    *text = strdup(*text);
    return *text != NULL;
}

static void free_text(const char *text)
{
    free((void *)(uintptr_t)text);
}

static void attachment_free(wasmcache_attachment *attachment)
{
    free_text(attachment->options.compiler);
    free_text(attachment->options.engine_version);
    free_text(attachment->options.target);
    free_text(attachment->options.settings);
    free_text(attachment->options.engine_id);
    free_text(attachment->options.code_symbol);
    for (struct wc_identity *next, *i = atomic_load(&attachment->identity); i; i = next) {
        next = i->before;
        free(i);
    }
    wc_cache_unref(attachment->cache);
    free(attachment);
}

static wasmcache_attachment *attachment_new(wasmcache *cache, const wasmcache_engine_table *table,
                                            void *engine, const wasmcache_attach_options *o)
{
    wasmcache_attachment *attachment = calloc(1, sizeof(*attachment));
    wasmcache_attach_options *own;
    int ok = 1;
    if (!attachment)
        return NULL;
    atomic_init(&attachment->identity, NULL);
    atomic_init(&attachment->judged_until, 0);
    attachment->cache = wc_cache_ref(cache);
    attachment->table = *table;
    attachment->engine = engine;
    snprintf(attachment->name, sizeof(attachment->name), "%s", table->name);
    own = &attachment->options;
    *own = *o;
    /* All of them, also after a failure: what is freed must be ours. */
    ok &= copy_text(&own->compiler);
    ok &= copy_text(&own->engine_version);
    ok &= copy_text(&own->target);
    ok &= copy_text(&own->settings);
    ok &= copy_text(&own->engine_id);
    ok &= copy_text(&own->code_symbol);
    if (o->fingerprint) {
        memcpy(attachment->given_fingerprint, o->fingerprint, 32);
        own->fingerprint = attachment->given_fingerprint;
    }
    if (ok)
        return attachment;
    attachment_free(attachment);
    return NULL;
}

int wasmcache_attach(wasmcache_attachment **out, wasmcache *cache,
                     const wasmcache_engine_table *table, void *engine,
                     const wasmcache_attach_options *options)
{
    wasmcache_attach_options o = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_engine_table t = {0};
    wasmcache_attachment *attachment;
    struct wc_error err;
    int rc = 0;

    wc_error_init(&err);
    if (!out || !table || !engine || !options)
        rc = wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL, "wasmcache_attach: NULL");
    if (rc == 0)
        rc = wc_sized_in(&o, sizeof(o), options, SIZE_0_1(wasmcache_attach_options, code_symbol),
                         "wasmcache_attach_options", &err);
    if (rc == 0)
        rc = wc_sized_in(&t, sizeof(t), table, SIZE_0_1(wasmcache_engine_table, module_clone),
                         "wasmcache_engine_table", &err);
    if (rc == 0)
        rc = check(&t, &o, &err);
    if (rc < 0)
        return wc_error_publish(&err, rc);
    attachment = attachment_new(cache, &t, engine, &o);
    if (!attachment)
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_ENOMEM, 0, "malloc", NULL,
                                              "No memory to attach an engine"));
    attachment->table_address = table;
    *out = attachment;
    return 0;
}

void wasmcache_detach(wasmcache_attachment *attachment)
{
    if (!attachment)
        return;
    wc_later_wait_attachment(attachment);
    if (attachment->cache)
        wc_memory_forget(attachment->cache->memory, attachment);
    attachment_free(attachment);
}

void *wasmcache_attachment_engine(const wasmcache_attachment *attachment)
{
    return attachment ? attachment->engine : NULL;
}

int wasmcache_attachment_status(wasmcache_attachment *attachment, wasmcache_attachment_info *out)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    struct wc_error err;

    wc_error_init(&err);
    if (!out || out->size < sizeof(size_t))
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                                              "wasmcache_attachment_status: NULL, or without "
                                              "WASMCACHE_ATTACHMENT_INFO_INIT"));
    info.error = WASMCACHE_EOFF;
    if (attachment) {
        const struct wc_identity *identity = wc_attachment_identity(attachment, NULL);
        info.error = identity->error;
        info.engine = attachment->name;
        info.engine_namespace = identity->engine_namespace;
        memcpy(info.fingerprint, identity->fingerprint, sizeof(info.fingerprint));
        info.message = identity->message;
    }
    wc_sized_out(out, &info, sizeof(info));
    return 0;
}
