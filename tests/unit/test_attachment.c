/* SPDX-License-Identifier: Apache-2.0 */
/* Engines bound to a cache: ids, fingerprints, probes, and engines that cannot be bound. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attachment.h"
#include "key.h"
#include "support/rig.h"

static const char wasm[] = "a module";

static int set_up(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    if (!r)
        return -1;
    rig_init(r);
    assert_int_equal(wasmcache_open(&r->cache, &r->options), 0);
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    rig_end(r);
    free(r);
    return 0;
}

/* Attaches with the options of the moment; the namespace is the scratch's. */
static const char *attach(struct rig *r, uint8_t fingerprint[32])
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    const char *ns;
    wasmcache_detach(r->wc);
    r->wc = NULL;
    assert_int_equal(wasmcache_attach(&r->wc, r->cache, &r->engine.table, &r->engine, &r->attach),
                     0);
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    if (fingerprint)
        memcpy(fingerprint, info.fingerprint, 32);
    ns = scratch_text(&r->scratch, "%s", info.engine_namespace);
    return ns;
}

/* ---- fingerprints ---- */

/* What attachment.h says that it is made of, put together by hand. */
static void by_hand(uint8_t out[32], const char *name, const char *compiler, const char *version,
                    uint32_t artifact_version, const char *target, const char *settings,
                    const uint8_t *probe, size_t probe_length)
{
    uint8_t bytes[2048], number[4], probed[32];
    size_t n = 0;
    const void *fields[8] = {name, compiler, version, number, target, settings, probed, ""};
    size_t lengths[8] = {strlen(name),   strlen(compiler), strlen(version),        4,
                         strlen(target), strlen(settings), probe ? (size_t)32 : 0, 0};
    for (int i = 0; i < 4; i++)
        number[i] = (uint8_t)(artifact_version >> (8 * i));
    if (probe)
        wc_sha256(probed, probe, probe_length);
    memcpy(bytes, "wasmcache fingerprint 1", 24);
    n = 24;
    for (int i = 0; i < 8; i++) {
        for (int b = 0; b < 8; b++)
            bytes[n++] = (uint8_t)(lengths[i] >> (8 * b));
        memcpy(bytes + n, fields[i], lengths[i]);
        n += lengths[i];
    }
    wc_sha256(out, bytes, n);
}

static void the_fingerprint_is_what_is_written(void **state)
{
    struct rig *r = *state;
    uint8_t got[32], expected[32];
    const uint8_t probe[] = {1, 0, 0, 0};
    char hex[65];

    r->attach.compiler = "none";
    r->attach.engine_version = "1.0";
    r->attach.artifact_version = 1;
    r->attach.target = "x86_64";
    r->attach.settings = "opt=2";
    attach(r, got);
    by_hand(expected, "fake", "none", "1.0", 1, "x86_64", "opt=2", probe, sizeof(probe));
    assert_memory_equal(got, expected, 32);
    /* Entries on disk depend on it: the number itself. */
    wc_hex(hex, got, 32);
    assert_string_equal(hex, "60DE245BCEB2524E3843CBA1B15A0B294EF8113B6CEA56ADEF6B2B680E49C669");

    r->engine.table.probe = NULL;
    attach(r, got);
    by_hand(expected, "fake", "none", "1.0", 1, "x86_64", "opt=2", NULL, 0);
    assert_memory_equal(got, expected, 32);
}

static void it_differs_by_each_of_its_parts(void **state)
{
    struct rig *r = *state;
    const wasmcache_attach_options plain = r->attach;
    uint8_t seen[16][32];
    unsigned count = 0;

#define ANOTHER(change)                                                                            \
    do {                                                                                           \
        r->attach = plain;                                                                         \
        change;                                                                                    \
        attach(r, seen[count]);                                                                    \
        for (unsigned i = 0; i < count; i++)                                                       \
            if (memcmp(seen[i], seen[count], 32) == 0)                                             \
                fail_msg("the same with: %s", #change);                                            \
        count++;                                                                                   \
    } while (0)
    ANOTHER((void)0);
    ANOTHER(r->attach.compiler = "cranelift");
    ANOTHER(r->attach.engine_version = "1.1");
    ANOTHER(r->attach.artifact_version = 2);
    ANOTHER(r->attach.artifact_version = 0x01000000);
    ANOTHER(r->attach.target = "x");
    ANOTHER(r->attach.settings = "x");
    ANOTHER((r->attach.target = "x", r->attach.settings = "x"));
    ANOTHER((r->attach.engine_version = "1.", r->attach.target = "0")); /* not run together */
    ANOTHER(r->engine.configuration = 2);
    ANOTHER(r->engine.table.name = "other");
    r->engine.table.name = "fake";
    r->engine.configuration = 1;
#undef ANOTHER
    /* And is the same again. */
    r->attach = plain;
    attach(r, seen[count]);
    assert_memory_equal(seen[0], seen[count], 32);
}

static void no_settings_are_empty_settings_where_there_is_a_probe(void **state)
{
    struct rig *r = *state;
    uint8_t without[32], empty[32];
    r->attach.settings = NULL;
    r->attach.target = NULL;
    attach(r, without);
    r->attach.settings = "";
    r->attach.target = "";
    attach(r, empty);
    assert_memory_equal(without, empty, 32);
}

static void a_given_fingerprint_is_taken(void **state)
{
    struct rig *r = *state;
    uint8_t given[32], got[32];
    const char *ns;

    for (int i = 0; i < 32; i++)
        given[i] = (uint8_t)(0xa0 + i);
    r->attach.fingerprint = given;
    ns = attach(r, got);
    assert_memory_equal(got, given, 32);
    assert_string_equal(ns, "fake-none-A0A1A2A3A4A5A6A7-v1");
    assert_int_equal(r->engine.probes, 0);
    /* It is a copy. */
    memset(given, 0, sizeof(given));
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_true(scratch_exists(rig_entry(r, wasm)));
    assert_string_equal(rig_namespace(r), "fake-none-A0A1A2A3A4A5A6A7-v1");
    assert_int_equal(r->engine.probes, 0);
}

static void the_default_id_has_the_fingerprint_in_it(void **state)
{
    struct rig *r = *state;
    uint8_t fingerprint[32];
    char hex[17];
    const char *ns = attach(r, fingerprint);
    wc_hex(hex, fingerprint, 8);
    assert_string_equal(ns, scratch_text(&r->scratch, "fake-none-%s-v1", hex));
    r->attach.artifact_version = UINT32_MAX;
    r->attach.engine_id = "id";
    assert_string_equal(attach(r, fingerprint), "id-v4294967295");
    r->attach.artifact_version = 0;
    assert_string_equal(attach(r, fingerprint), "id-v0");
}

/* ---- ids and words ---- */

static void ids_are_checked(void **state)
{
    struct rig *r = *state;
    char longest[130], too_long[131];
    const char *const good[] = {"a",   "A",       "0",    "cranelift-opts-rkyv",
                                "a.b", "a_b+c-d", "9.v1", longest};
    const char *const bad[] = {"",      ".a",  "-a",    "_a",  "+a",    "a..b", "..",
                               "a/b",   "/a",  "a b",   "a\n", "a\tb",  "a\\b", "\xc3\xa9",
                               "a\x7f", "a:b", "a\x01", "~a",  too_long};

    memset(longest, 'x', 128);
    longest[128] = '\0';
    memset(too_long, 'x', 129);
    too_long[129] = '\0';
    for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
        r->attach.engine_id = good[i];
        assert_string_equal(attach(r, NULL), scratch_text(&r->scratch, "%s-v1", good[i]));
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        assert_true(scratch_exists(rig_entry(r, wasm)));
    }
    wasmcache_detach(r->wc);
    r->wc = NULL;
    rig_forget_events(r);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        wasmcache_attachment *wc = (wasmcache_attachment *)r;
        r->attach.engine_id = bad[i];
        if (wasmcache_attach(&wc, r->cache, &r->engine.table, &r->engine, &r->attach) !=
            WASMCACHE_EMISUSE)
            fail_msg("the id \"%s\" is taken", bad[i]);
        assert_ptr_equal(wc, r); /* not written */
        assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EMISUSE);
    }
    assert_string_equal(r->events.log, "");
}

static void misuse_makes_no_attachment(void **state)
{
    struct rig *r = *state;
    const wasmcache_attach_options plain = r->attach;
    const wasmcache_engine_table table = r->engine.table;
    wasmcache_attachment *wc = NULL;
    unsigned probes;

#define ATTACH(out, cache, t, engine, o)                                                           \
    assert_int_equal(wasmcache_attach(out, cache, t, engine, o), WASMCACHE_EMISUSE)
    ATTACH(NULL, r->cache, &table, &r->engine, &plain);
    ATTACH(&wc, r->cache, NULL, &r->engine, &plain);
    ATTACH(&wc, r->cache, &table, NULL, &plain);
    ATTACH(&wc, r->cache, &table, &r->engine, NULL);
    probes = r->engine.probes;
#define BAD_OPTIONS(change)                                                                        \
    do {                                                                                           \
        r->attach = plain;                                                                         \
        change;                                                                                    \
        ATTACH(&wc, r->cache, &r->engine.table, &r->engine, &r->attach);                           \
    } while (0)
    BAD_OPTIONS(r->attach.size = 0);
    BAD_OPTIONS(r->attach.size = 8);
    BAD_OPTIONS(r->attach.size = SIZE_MAX);
    BAD_OPTIONS(r->attach.compiler = NULL);
    BAD_OPTIONS(r->attach.compiler = "");
    BAD_OPTIONS(r->attach.compiler = "Upper");
    BAD_OPTIONS(r->attach.compiler = "a-b");
    BAD_OPTIONS(r->attach.compiler = "abcdefghijklmnopqrstuvwxyz012345"); /* 32 */
    r->attach = plain;
#define BAD_TABLE(change)                                                                          \
    do {                                                                                           \
        r->engine.table = table;                                                                   \
        change;                                                                                    \
        ATTACH(&wc, r->cache, &r->engine.table, &r->engine, &plain);                               \
    } while (0)
    BAD_TABLE(r->engine.table.size = 0);
    BAD_TABLE(r->engine.table.size = 16);
    BAD_TABLE(r->engine.table.size = SIZE_MAX);
    BAD_TABLE(r->engine.table.name = NULL);
    BAD_TABLE(r->engine.table.name = "no-word");
    BAD_TABLE(r->engine.table.kinds = 0);
    BAD_TABLE(r->engine.table.deserialize = NULL);
    BAD_TABLE(r->engine.table.module_free = NULL);
    BAD_TABLE(r->engine.table.error_message = NULL);
    BAD_TABLE(r->engine.table.error_free = NULL);
    BAD_TABLE(r->engine.table.artifact_free = NULL);
    r->engine.table = table;
#undef BAD_OPTIONS
#undef BAD_TABLE
#undef ATTACH
    assert_null(wc);
    assert_int_equal(r->engine.probes, probes);
    assert_false(scratch_exists(r->dir));
    assert_null(wasmcache_attachment_engine(NULL));
}

static void what_was_passed_is_copied(void **state)
{
    struct rig *r = *state;
    char compiler[] = "none", version[] = "1.0", target[] = "t", settings[] = "s", id[] = "my-id";
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    r->attach.compiler = compiler;
    r->attach.engine_version = version;
    r->attach.target = target;
    r->attach.settings = settings;
    r->attach.engine_id = id;
    attach(r, NULL);
    assert_ptr_equal(wasmcache_attachment_engine(r->wc), &r->engine);
    memset(compiler, 'x', sizeof(compiler) - 1);
    memset(version, 'x', sizeof(version) - 1);
    memset(target, 'x', sizeof(target) - 1);
    memset(settings, 'x', sizeof(settings) - 1);
    memset(id, 'x', sizeof(id) - 1);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_string_equal(rig_namespace(r), "my-id-v1");
}

/* ---- engines that cannot be bound ---- */

static void unattached(struct rig *r, int error, const char *word)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key = rig_key(wasm);

    rig_forget_events(r);
    attach(r, NULL);
    assert_string_equal(r->events.log, "unattached,");
    assert_int_equal(r->events.last[WASMCACHE_EVENT_UNATTACHED].reason,
                     WASMCACHE_REASON_UNATTACHED);
    assert_int_equal(r->events.last[WASMCACHE_EVENT_UNATTACHED].error, error);
    assert_non_null(strstr(r->events.last[WASMCACHE_EVENT_UNATTACHED].message, word));
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    assert_int_equal(info.error, error);
    assert_string_equal(info.engine, "fake");
    assert_string_equal(info.engine_namespace, "");
    assert_non_null(strstr(info.message, word));

    fake_engine_reset(&r->engine);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_UNATTACHED);
    assert_int_equal(report.save_error, WASMCACHE_EOFF);
    assert_int_equal(r->engine.serializes, 0);
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EOFF);
    assert_int_equal(report.reason, WASMCACHE_REASON_UNATTACHED);
    assert_int_equal(rig_save(r, wasm, &report), WASMCACHE_EOFF);
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), WASMCACHE_EOFF);
    assert_false(scratch_exists(r->dir));
}

static void without_probe_settings_or_fingerprint_it_is_unattached(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->engine.table.probe = NULL;
    unattached(r, WASMCACHE_EMISUSE, "settings");
    /* A string is enough, an empty one too. */
    r->attach.settings = "";
    attach(r, NULL);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

/* Its probe does not show how it was configured. */
static void an_engine_that_requires_settings_is_unattached_without(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->engine.table.flags = WASMCACHE_ENGINE_SETTINGS_REQUIRED;
    unattached(r, WASMCACHE_EMISUSE, "settings");
    assert_int_equal(r->engine.probes, 0);
    r->attach.settings = "";
    attach(r, NULL);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_get(r, "another", &report), 0);
    assert_int_equal(report.save_error, 0);
    /* What the probe shows does not change, so that it is made once. */
    assert_int_equal(r->engine.probes, 1);
}

/* ---- the version of artifacts ---- */

static void the_version_can_be_left_to_the_probe(void **state)
{
    struct rig *r = *state;
    char *given;
    r->engine.table.artifact_version = fake_artifact_version;
    r->engine.probe_artifact = 1;
    r->attach.artifact_version = 1;
    attach(r, NULL);
    given = scratch_text(&r->scratch, "%s", rig_namespace(r));
    r->attach.artifact_version = 0;
    attach(r, NULL);
    assert_string_equal(rig_namespace(r), given); /* the fingerprint, too */
    assert_non_null(strstr(given, "-v1"));
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_HIT], 1);
}

static void without_any_version_it_is_unattached(void **state)
{
    struct rig *r = *state;
    const uint8_t fingerprint[32] = {1};
    r->engine.table.artifact_version = fake_artifact_version;
    r->attach.artifact_version = 0;
    unattached(r, WASMCACHE_EMISUSE, "version"); /* this probe gives no artifact */
    r->attach.fingerprint = fingerprint;
    unattached(r, WASMCACHE_EMISUSE, "version");
}

static void a_given_version_that_is_not_the_probes_is_refused(void **state)
{
    struct rig *r = *state;
    r->engine.table.artifact_version = fake_artifact_version;
    r->engine.probe_artifact = 1;
    r->attach.artifact_version = 7;
    unattached(r, WASMCACHE_EMISUSE, "version 1");
    unattached(r, WASMCACHE_EMISUSE, "with 7");
}

/* Nothing probed, so that it shows when an artifact is made. */
static void an_artifact_of_another_version_is_not_saved(void **state)
{
    struct rig *r = *state;
    const uint8_t fingerprint[32] = {1};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->engine.table.artifact_version = fake_artifact_version;
    r->attach.fingerprint = fingerprint;
    r->attach.artifact_version = 7;
    attach(r, NULL);
    rig_forget_events(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EENGINE);
    assert_string_equal(r->events.log, "miss,save-failed,");
    assert_non_null(strstr(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].message, "than 7"));
    assert_int_equal(rig_save(r, wasm, &report), WASMCACHE_EENGINE);
    assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".bin"));
    assert_null(strstr(scratch_tree(&r->scratch, r->dir), "tmp"));
    /* With the right one it is. */
    r->attach.artifact_version = 1;
    attach(r, NULL);
    assert_int_equal(rig_save(r, wasm, &report), 0);
}

static void a_probe_that_fails_leaves_it_unattached(void **state)
{
    struct rig *r = *state;
    r->engine.fail_probe = 1;
    unattached(r, WASMCACHE_EENGINE, "told to fail: probe");
    assert_int_equal(r->engine.live_errors, 0);
    r->engine.fail_probe = 2;
    unattached(r, WASMCACHE_EENGINE, "no reason");
}

static void a_probe_that_fails_once_is_made_again(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->engine.fail_probe = 1;
    attach(r, NULL);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.reason, WASMCACHE_REASON_UNATTACHED);
    r->engine.fail_probe = 0;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_string_equal(r->events.log, "unattached,miss,saved,hit,"); /* told once */
}

static void after_close_there_is_no_cache(void **state)
{
    struct rig *r = *state;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    attach(r, NULL);
    wasmcache_close(r->cache);
    r->cache = NULL;
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    assert_int_equal(info.error, WASMCACHE_EOFF);
    assert_string_equal(info.engine_namespace, "");
}

static void a_null_attachment_has_a_status(void **state)
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    (void)state;
    info.engine = info.message = NULL;
    assert_int_equal(wasmcache_attachment_status(NULL, &info), 0);
    assert_int_equal(info.error, WASMCACHE_EOFF);
    assert_string_equal(info.engine, "");
    assert_string_equal(info.engine_namespace, "");
    assert_string_equal(info.message, "");
    assert_int_equal(wasmcache_attachment_status(NULL, NULL), WASMCACHE_EMISUSE);
    info.size = 0;
    assert_int_equal(wasmcache_attachment_status(NULL, &info), WASMCACHE_EMISUSE);
}

/* ---- probes ---- */

static void the_probe_is_made_at_first_use_and_before_each_save_only(void **state)
{
    struct rig *r = *state;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    assert_int_equal(wasmcache_attach(&r->wc, r->cache, &r->engine.table, &r->engine, &r->attach),
                     0);
    assert_int_equal(r->engine.probes, 0); /* whoever forks now has an engine that never compiled */
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    assert_int_equal(r->engine.probes, 1);
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    assert_int_equal(r->engine.probes, 1);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(r->engine.probes, 2);
    assert_int_equal(rig_get(r, wasm, NULL), 0); /* a hit */
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_int_equal(r->engine.probes, 2);
    assert_int_equal(rig_get_with(r, "x", WASMCACHE_GET_NO_SAVE, NULL), 0);
    assert_int_equal(r->engine.probes, 2);
    assert_int_equal(rig_save(r, "y", NULL), 0);
    assert_int_equal(r->engine.probes, 3);
    assert_int_equal(r->engine.compiles, 2); /* the probe is none */
}

struct first_use {
    struct rig *r;
    pthread_barrier_t *start;
    const char *engine_namespace; /* the attachment's own: the address tells which identity it is */
};

static void *use_first(void *argument)
{
    struct first_use *u = argument;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    pthread_barrier_wait(u->start);
    wasmcache_attachment_status(u->r->wc, &info);
    u->engine_namespace = info.engine_namespace;
    return NULL;
}

static void threads_that_use_it_first_together_agree(void **state)
{
    struct rig *r = *state;
    for (int round = 0; round < 20; round++) {
        pthread_barrier_t start;
        pthread_t threads[4];
        struct first_use uses[4];
        wasmcache_detach(r->wc);
        r->wc = NULL;
        assert_int_equal(
            wasmcache_attach(&r->wc, r->cache, &r->engine.table, &r->engine, &r->attach), 0);
        assert_int_equal(pthread_barrier_init(&start, NULL, 4), 0);
        for (int i = 0; i < 4; i++) {
            uses[i] = (struct first_use){r, &start, NULL};
            assert_int_equal(pthread_create(&threads[i], NULL, use_first, &uses[i]), 0);
        }
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&start);
        for (int i = 0; i < 4; i++)
            assert_ptr_equal(uses[i].engine_namespace, uses[0].engine_namespace);
        assert_true(uses[0].engine_namespace[0]);
    }
    assert_string_equal(r->events.log, "");
}

static void an_attachment_keeps_its_cache(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    attach(r, NULL);
    wasmcache_close(r->cache);
    r->cache = NULL;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.reason, WASMCACHE_REASON_CACHE_OFF);
}

static void two_attachments_of_one_engine_share(void **state)
{
    struct rig *r = *state;
    wasmcache_attachment *first;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    attach(r, NULL);
    first = r->wc;
    r->wc = NULL;
    attach(r, NULL);
    assert_ptr_not_equal(first, r->wc);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    wasmcache_detach(r->wc);
    r->wc = first;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_fingerprint_is_what_is_written),
        TEST(it_differs_by_each_of_its_parts),
        TEST(no_settings_are_empty_settings_where_there_is_a_probe),
        TEST(a_given_fingerprint_is_taken),
        TEST(the_default_id_has_the_fingerprint_in_it),
        TEST(ids_are_checked),
        TEST(misuse_makes_no_attachment),
        TEST(what_was_passed_is_copied),
        TEST(without_probe_settings_or_fingerprint_it_is_unattached),
        TEST(an_engine_that_requires_settings_is_unattached_without),
        TEST(the_version_can_be_left_to_the_probe),
        TEST(without_any_version_it_is_unattached),
        TEST(a_given_version_that_is_not_the_probes_is_refused),
        TEST(an_artifact_of_another_version_is_not_saved),
        TEST(a_probe_that_fails_leaves_it_unattached),
        TEST(a_probe_that_fails_once_is_made_again),
        TEST(after_close_there_is_no_cache),
        TEST(a_null_attachment_has_a_status),
        TEST(the_probe_is_made_at_first_use_and_before_each_save_only),
        TEST(threads_that_use_it_first_together_agree),
        TEST(an_attachment_keeps_its_cache),
        TEST(two_attachments_of_one_engine_share),
    };
    return cmocka_run_group_tests_name("attachment", tests, NULL, NULL);
}
