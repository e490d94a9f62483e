/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an engine is: found out at the first use of its attachment, by a probe or from what was
 * remembered of one, and made into fingerprint and namespace.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attachment.h"
#include "key.h"
#include "number.h"

/* `version`: of the probe's artifact, 0 if the adapter cannot tell. */
static int probe(const wasmcache_attachment *attachment, uint8_t hash[32], uint32_t *version,
                 struct wc_error *err)
{
    wasmcache_artifact artifact = {NULL, 0, {NULL, NULL, NULL}};
    void *error = NULL;
    *version = 0;
    if (attachment->table.probe(attachment->engine, &artifact, &error))
        return wc_engine_failure(attachment, error, "probe", err);
    wc_sha256(hash, artifact.data, artifact.size);
    if (!attachment->table.artifact_version ||
        attachment->table.artifact_version(artifact.data, artifact.size, version))
        *version = 0;
    attachment->table.artifact_free(&artifact);
    return 0;
}

static void add_field(struct wc_sha256_state *state, const void *bytes, size_t length)
{
    uint8_t prefix[8];
    wc_put_number(prefix, length, sizeof(prefix));
    wc_sha256_add(state, prefix, sizeof(prefix));
    wc_sha256_add(state, bytes, length);
}

static void add_text(struct wc_sha256_state *state, const char *text)
{
    add_field(state, text, text ? strlen(text) : 0);
}

/* The build id of the image that the engine's code is in. */
struct build {
    uint8_t id[32];
    int length; /* 0: there is none; negative: it could not be found out */
    int own;    /* the image is also the host's */
};

static struct build find_build(const wasmcache_attachment *attachment)
{
    const wasmcache_attach_options *o = &attachment->options;
    struct build build = {.length = 0};
    if (o->code)
        build.length = wc_os_build_id(o->code_symbol, o->code, attachment->table_address, build.id,
                                      sizeof(build.id), &build.own);
    return build;
}

/* Of a build that is also the host's, nothing: the version that the host was compiled with is then
 * the engine's, and hosts with the same engine share. */
static int make_fingerprint(struct wc_identity *identity, const wasmcache_attachment *attachment,
                            const struct build *build, struct wc_error *err)
{
    static const char tag[] = "wasmcache fingerprint 1";
    const wasmcache_attach_options *o = &attachment->options;
    struct wc_sha256_state state;
    uint8_t version[4];
    if (build->length < 0)
        return wc_fail(err, WASMCACHE_ENOMEM, 0, "dlopen", NULL,
                       "No memory to find out which library the engine is");
    wc_put_number(version, identity->artifact_version, sizeof(version));
    wc_sha256_start(&state);
    wc_sha256_add(&state, tag, sizeof(tag));
    add_text(&state, attachment->name);
    add_text(&state, o->compiler);
    add_text(&state, o->engine_version);
    add_field(&state, version, sizeof(version));
    add_text(&state, o->target);
    add_text(&state, o->settings);
    add_field(&state, identity->probe, identity->probed ? sizeof(identity->probe) : 0);
    add_field(&state, build->id, build->own ? 0 : (size_t)build->length);
    wc_sha256_finish(&state, identity->fingerprint);
    return 0;
}

/*
 * What the probe depends on, if the embedder vouches with a string that it tells its configurations
 * apart: the very library, the string, the processor. 0: the probe has to be made.
 */
static int name_probe(uint8_t out[32], const wasmcache_attachment *attachment,
                      const struct build *build)
{
    const wasmcache_attach_options *o = &attachment->options;
    struct wc_sha256_state state;
    uint8_t cpu[64];
    int cpu_length;
    if (!o->settings || !o->settings[0] || build->length <= 0)
        return 0;
    cpu_length = wc_os_cpu(cpu);
    if (cpu_length <= 0)
        return 0;
    wc_sha256_start(&state);
    add_text(&state, attachment->name);
    add_text(&state, o->compiler);
    add_text(&state, o->engine_version);
    add_text(&state, o->target);
    add_text(&state, o->settings);
    add_field(&state, build->id, (size_t)build->length);
    add_field(&state, cpu, (size_t)cpu_length);
    wc_sha256_finish(&state, out);
    return 1;
}

/* What is remembered of a probe: two hints, in one set. The caller ends *look. */
static void look_for_probe(struct wc_hint_look *look, struct wc_hint_about *probed,
                           struct wc_hint_about *versioned, const wasmcache_attachment *attachment,
                           const uint8_t name[32])
{
    wc_hint_of_hash(probed, WC_HINT_PROBE, name);
    wc_hint_of_hash(versioned, WC_HINT_VERSION, name);
    versioned->set = probed->set;
    wc_hint_look_start(look, &attachment->cache->hints);
    wc_cache_find_hints(attachment->cache, look, NULL, WC_GATE_CREATE);
}

/* 1: the probe of this engine is known from before. `keep`, unless it is NULL, has the table open
 * then. */
static int recall_probe(const wasmcache_attachment *attachment, const uint8_t name[32],
                        struct wc_hint_look *keep, uint8_t probe_hash[32], uint32_t *version)
{
    struct wc_hint_about probed, versioned;
    struct wc_hint_look look;
    struct wc_hint hint;
    int found;
    look_for_probe(&look, &probed, &versioned, attachment, name);
    found = wc_hint_get(&look, &probed, &hint);
    if (found)
        memcpy(probe_hash, hint.value, sizeof(hint.value));
    found = found && wc_hint_get(&look, &versioned, &hint);
    if (found)
        *version = (uint32_t)wc_get_number(hint.value, 4);
    if (found && keep) {
        wc_hint_look_leave(&look);
        *keep = look;
    } else {
        wc_hint_look_end(&look);
    }
    return found;
}

static void remember_probe(const wasmcache_attachment *attachment, const uint8_t name[32],
                           const uint8_t probe_hash[32], uint32_t version)
{
    struct wc_hint_about probed, versioned;
    struct wc_hint_look look;
    uint8_t version_value[32] = {0};
    wc_put_number(version_value, version, 4);
    look_for_probe(&look, &probed, &versioned, attachment, name);
    wc_hint_put_now(&look, &probed, probe_hash);
    wc_hint_put_now(&look, &versioned, version_value);
    wc_hint_look_end(&look);
}

/* The probe, made now or known from before. */
static int probe_or_recall(struct wc_identity *identity, const wasmcache_attachment *attachment,
                           const struct build *build, struct wc_hint_look *look, uint32_t *version,
                           struct wc_error *err)
{
    uint8_t name[32];
    const int named = name_probe(name, attachment, build);
    int rc;
    if (named && recall_probe(attachment, name, look, identity->probe, version))
        return 0;
    rc = probe(attachment, identity->probe, version, err);
    if (rc == 0 && named)
        remember_probe(attachment, name, identity->probe, *version);
    return rc;
}

/* Fills in what the probe shows. Negative: this engine cannot be cached. */
static int look_at_engine(struct wc_identity *identity, const wasmcache_attachment *attachment,
                          const struct build *build, struct wc_hint_look *look,
                          struct wc_error *err)
{
    const wasmcache_attach_options *o = &attachment->options;
    const wasmcache_engine_table *table = &attachment->table;
    uint32_t version = 0;
    int rc;

    if (!o->settings && (!table->probe || table->flags & WASMCACHE_ENGINE_SETTINGS_REQUIRED))
        return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                       "This engine does not show its configuration: pass a settings string "
                       "(\"\" if nothing is changed) or a fingerprint");
    if (!table->probe)
        return 0;
    rc = probe_or_recall(identity, attachment, build, look, &version, err);
    if (rc < 0)
        return rc;
    identity->probed = 1;
    if (!identity->artifact_version)
        identity->artifact_version = version;
    if (table->artifact_version && version && version != identity->artifact_version)
        return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                       "The engine makes artifacts of version %" PRIu32 ", but was attached with "
                       "%" PRIu32 "; leave it 0 to have it found out",
                       version, identity->artifact_version);
    return 0;
}

/* Fingerprint and namespace. Negative: this engine cannot be cached. */
static int identify(struct wc_identity *identity, const wasmcache_attachment *attachment,
                    struct wc_hint_look *look, struct wc_error *err)
{
    const wasmcache_attach_options *o = &attachment->options;
    char hex[17], id[WC_ENGINE_ID_MAX + 1];
    int rc;

    identity->artifact_version = o->artifact_version;
    if (o->fingerprint) {
        memcpy(identity->fingerprint, o->fingerprint, sizeof(identity->fingerprint));
    } else {
        const struct build build = find_build(attachment);
        if (build.length > 0 && !build.own) {
            memcpy(identity->build, build.id, (size_t)build.length);
            identity->build_length = build.length;
        }
        rc = look_at_engine(identity, attachment, &build, look, err);
        if (rc == 0)
            rc = make_fingerprint(identity, attachment, &build, err);
        if (rc < 0)
            return rc;
    }
    if (attachment->table.artifact_version && !identity->artifact_version)
        return wc_fail(err, WASMCACHE_EMISUSE, 0, NULL, NULL,
                       "The version of this engine's artifacts could not be found out: give it at "
                       "attach");
    wc_hex(hex, identity->fingerprint, 8);
    snprintf(id, sizeof(id), "%s-%s-%s", attachment->name, o->compiler, hex);
    wc_namespace_make(identity->engine_namespace, o->engine_id ? o->engine_id : id,
                      identity->artifact_version);
    return 0;
}

static void tell_unattached(const wasmcache_attachment *attachment,
                            const struct wc_identity *identity)
{
    wasmcache_event fill = {0};
    fill.reason = WASMCACHE_REASON_UNATTACHED;
    fill.error = identity->error;
    fill.message = identity->message;
    wc_event(attachment->cache, WASMCACHE_EVENT_UNATTACHED, fill);
}

/* Fills in what the engine is, or why that cannot be told. NULL: no memory. */
static struct wc_identity *identity_new(const wasmcache_attachment *attachment,
                                        struct wc_hint_look *look)
{
    struct wc_identity *identity = calloc(1, sizeof(*identity));
    struct wc_error err;
    if (!identity)
        return NULL;
    wc_error_init(&err);
    identity->error = identify(identity, attachment, look, &err);
    if (identity->error)
        snprintf(identity->message, sizeof(identity->message), "%s", err.message);
    return identity;
}

/* Misuse stays; want of memory, descriptors and the like may pass. */
static int is_final(const struct wc_identity *identity)
{
    return !identity->error || identity->error == WASMCACHE_EMISUSE;
}

const struct wc_identity *wc_attachment_identity(wasmcache_attachment *attachment,
                                                 struct wc_hint_look *look)
{
    static const struct wc_identity no_memory = {
        .error = WASMCACHE_ENOMEM, .message = "No memory to find out what the engine is"};
    static const struct wc_identity no_cache = {.error = WASMCACHE_EOFF,
                                                .message = "There is no cache"};
    struct wc_identity *known, *fresh;

    if (!wc_cache_usable(attachment->cache))
        return &no_cache;
    known = atomic_load_explicit(&attachment->identity, memory_order_acquire);
    if (known && is_final(known))
        return known;
    fresh = identity_new(attachment, look);
    if (!fresh)
        return known ? known : &no_memory;
    if (known && !is_final(fresh)) { /* no better than before */
        free(fresh);
        return known;
    }
    fresh->before = known; /* somebody may still read it */
    if (!atomic_compare_exchange_strong(&attachment->identity, &known, fresh)) {
        free(fresh); /* another thread was faster */
        return known;
    }
    if (fresh->error)
        tell_unattached(attachment, fresh);
    return fresh;
}

int wc_attachment_recheck(wasmcache_attachment *attachment, struct wc_error *err)
{
    const struct wc_identity *identity = wc_attachment_identity(attachment, NULL);
    uint8_t now[32], name[32];
    struct build build;
    uint32_t version;
    int rc;
    if (!identity->probed || attachment->table.flags & WASMCACHE_ENGINE_SETTINGS_REQUIRED)
        return 0;
    rc = probe(attachment, now, &version, err);
    if (rc < 0)
        return rc;
    if (memcmp(now, identity->probe, sizeof(now)) == 0)
        return 0;
    /* Whether it changed or was remembered wrongly: the next process is to know better. */
    build = find_build(attachment);
    if (name_probe(name, attachment, &build))
        remember_probe(attachment, name, now, version);
    return wc_fail(err, WASMCACHE_EMISMATCH, 0, "probe", NULL,
                   "The engine makes other code than when it was first used; nothing is saved");
}
