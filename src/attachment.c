/* SPDX-License-Identifier: Apache-2.0 */
#include "attachment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "key.h"

int wc_engine_failure(const wasmcache_attachment *attachment, void *engine_error, const char *doing,
                      struct wc_error *err)
{
    char text[512] = "";
    attachment->table.error_message(engine_error, text, sizeof(text));
    if (engine_error)
        attachment->table.error_free(engine_error);
    return wc_fail(err, WASMCACHE_EENGINE, 0, doing, NULL, "%s",
                   text[0] ? text : "The engine failed and gave no reason");
}

static int probe(const wasmcache_attachment *attachment, uint8_t hash[32], struct wc_error *err)
{
    wasmcache_artifact artifact = {NULL, 0, {NULL, NULL, NULL}};
    void *error = NULL;
    if (attachment->table.probe(attachment->engine, &artifact, &error))
        return wc_engine_failure(attachment, error, "probe", err);
    wc_sha256(hash, artifact.data, artifact.size);
    attachment->table.artifact_free(&artifact);
    return 0;
}

static void add_field(struct wc_sha256_state *state, const void *bytes, size_t length)
{
    uint8_t prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (uint8_t)((uint64_t)length >> (8 * i));
    wc_sha256_add(state, prefix, sizeof(prefix));
    wc_sha256_add(state, bytes, length);
}

static void add_text(struct wc_sha256_state *state, const char *text)
{
    add_field(state, text, text ? strlen(text) : 0);
}

/* The build id of the engine's image. Nothing if that is also the host's: the version that the host
 * was compiled with is then the engine's, and hosts with the same engine share. */
static size_t engine_build_id(const wasmcache_attach_options *o, const void *table, uint8_t out[32])
{
    size_t length;
    int own;
    if (!o->code)
        return 0;
    length = wc_os_build_id(o->code_symbol, o->code, table, out, 32, &own);
    return own ? 0 : length;
}

static void make_fingerprint(wasmcache_attachment *attachment, const wasmcache_attach_options *o,
                             const void *table)
{
    static const char tag[] = "wasmcache fingerprint 1";
    struct wc_sha256_state state;
    uint8_t version[4], build_id[32];
    for (int i = 0; i < 4; i++)
        version[i] = (uint8_t)(o->artifact_version >> (8 * i));
    wc_sha256_start(&state);
    wc_sha256_add(&state, tag, sizeof(tag));
    add_text(&state, attachment->name);
    add_text(&state, o->compiler);
    add_text(&state, o->engine_version);
    add_field(&state, version, sizeof(version));
    add_text(&state, o->target);
    add_text(&state, o->settings);
    add_field(&state, attachment->probe, attachment->probed ? sizeof(attachment->probe) : 0);
    add_field(&state, build_id, engine_build_id(o, table, build_id));
    wc_sha256_finish(&state, attachment->fingerprint);
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

/* Fingerprint and namespace. Negative: this engine cannot be cached. */
static int identify(wasmcache_attachment *attachment, const wasmcache_attach_options *o,
                    const void *table, struct wc_error *err)
{
    char hex[17], id[WC_ENGINE_ID_MAX + 1];
    int rc;

    if (o->fingerprint) {
        memcpy(attachment->fingerprint, o->fingerprint, sizeof(attachment->fingerprint));
    } else {
        if (attachment->table.probe) {
            rc = probe(attachment, attachment->probe, err);
            if (rc < 0)
                return rc;
            attachment->probed = 1;
        } else if (!o->settings) {
            return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                           "This engine does not show its configuration: pass a settings string "
                           "(\"\" if nothing is changed) or a fingerprint");
        }
        make_fingerprint(attachment, o, table);
    }
    wc_hex(hex, attachment->fingerprint, 8);
    snprintf(id, sizeof(id), "%s-%s-%s", attachment->name, o->compiler, hex);
    attachment->shared_id = o->engine_id != NULL;
    wc_namespace_make(attachment->engine_namespace, o->engine_id ? o->engine_id : id,
                      o->artifact_version);
    return 0;
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
        rc = wc_sized_in(&t, sizeof(t), table, SIZE_0_1(wasmcache_engine_table, probe),
                         "wasmcache_engine_table", &err);
    if (rc == 0)
        rc = check(&t, &o, &err);
    if (rc < 0)
        return wc_error_publish(&err, rc);
    attachment = calloc(1, sizeof(*attachment));
    if (!attachment)
        return wc_error_publish(&err, wc_fail(&err, WASMCACHE_ENOMEM, 0, "malloc", NULL,
                                              "No memory to attach an engine"));
    attachment->cache = wc_cache_ref(cache);
    attachment->table = t;
    attachment->engine = engine;
    snprintf(attachment->name, sizeof(attachment->name), "%s", t.name);
    if (wc_cache_usable(cache))
        rc = identify(attachment, &o, table, &err);
    else
        rc = wc_fail(&err, WASMCACHE_EOFF, 0, NULL, NULL, "There is no cache");
    if (rc < 0) {
        attachment->error = rc;
        snprintf(attachment->message, sizeof(attachment->message), "%s", err.message);
    }
    if (rc < 0 && rc != WASMCACHE_EOFF) {
        wasmcache_event fill = {0};
        fill.reason = WASMCACHE_REASON_UNATTACHED;
        fill.error = rc;
        fill.message = attachment->message;
        wc_event(cache, WASMCACHE_EVENT_UNATTACHED, fill);
    }
    *out = attachment;
    return 0;
}

void wasmcache_detach(wasmcache_attachment *attachment)
{
    if (!attachment)
        return;
    wc_cache_unref(attachment->cache);
    free(attachment);
}

void *wasmcache_attachment_engine(const wasmcache_attachment *attachment)
{
    return attachment ? attachment->engine : NULL;
}

int wasmcache_attachment_status(const wasmcache_attachment *attachment,
                                wasmcache_attachment_info *out)
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
        info.error = attachment->error;
        info.engine = attachment->name;
        info.engine_namespace = attachment->engine_namespace;
        memcpy(info.fingerprint, attachment->fingerprint, sizeof(info.fingerprint));
        info.message = attachment->message;
    }
    wc_sized_out(out, &info, sizeof(info));
    return 0;
}

int wc_attachment_usable(const wasmcache_attachment *attachment)
{
    return !attachment->error && wc_cache_usable(attachment->cache);
}

int wc_attachment_recheck(const wasmcache_attachment *attachment, struct wc_error *err)
{
    uint8_t now[32];
    int rc;
    if (!attachment->probed)
        return 0;
    rc = probe(attachment, now, err);
    if (rc < 0)
        return rc;
    if (memcmp(now, attachment->probe, sizeof(now)) == 0)
        return 0;
    return wc_fail(err, WASMCACHE_EMISMATCH, 0, "probe", NULL,
                   "The engine makes other code than when it was attached; nothing is saved");
}
