/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Old entries, which have no trailer: loaded where the cache was told to, left as they are, removed
 * if they are nothing that the engine loads; and never because something else failed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "seam.h"
#include "spoil.h"
#include "support/allocation.h"
#include "support/lzw.h"
#include "support/rig.h"
#include "unit/fixture.h"

static const char wasm[] = "a module that another cache saved";

/* A folder as Wasmer names it. `tells`: the engine tells the version of an artifact. */
static void open_old(struct rig *r, int tells)
{
    rig_close(r);
    r->options.flags = WASMCACHE_LEGACY;
    r->attach.engine_id = "cranelift-opts-rkyv";
    r->engine.table.artifact_version = tells ? fake_artifact_version : NULL;
    r->engine.knows_others = !tells; /* it is asked what it thinks of anything */
    rig_open(r);
    rig_forget_events(r);
    fake_engine_reset(&r->engine);
}

static char *put_bytes(struct rig *r, const void *bytes, size_t size)
{
    char *path = rig_entry(r, wasm);
    (void)mkdir(r->dir, 0755);
    (void)mkdir(rig_namespace_dir(r), 0755);
    scratch_write(path, bytes, size, 0644);
    return path;
}

/* The entry of the engine's artifact; `size` may be NULL. */
static char *put_old(struct rig *r, int compressed)
{
    size_t size, packed;
    uint8_t *artifact = fake_artifact(&size, &r->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    uint8_t *lzw = lzw_encode(&packed, artifact, size);
    char *path = compressed ? put_bytes(r, lzw, packed) : put_bytes(r, artifact, size);
    free(lzw);
    free(artifact);
    return path;
}

/* A file as it is now, to compare with later. */
struct kept {
    const char *path;
    uint8_t *bytes;
    size_t size;
    ino_t inode;
};

static struct kept keep(const char *path)
{
    struct kept k = {path, NULL, 0, scratch_inode(path)};
    k.bytes = scratch_read(path, &k.size);
    return k;
}

static int is_as_it_was(const struct kept *k)
{
    size_t size;
    uint8_t *now;
    int same;
    if (!scratch_exists(k->path) || scratch_inode(k->path) != k->inode)
        return 0;
    now = scratch_read(k->path, &size);
    same = size == k->size && memcmp(now, k->bytes, size) == 0 && scratch_mode(k->path) == 0644;
    free(now);
    return same;
}

/* ---- what is loaded ---- */

static void old_entries_are_loaded_and_left_alone(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 4; i++) {
        const int compressed = i & 1, tells = i >> 1;
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_key key = rig_key(wasm);
        struct kept k;
        size_t size;
        open_old(r, tells);
        k = keep(put_old(r, compressed));
        free(fake_artifact(&size, &r->engine, WASMCACHE_MODULE, wasm, strlen(wasm)));
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
        assert_int_equal(report.reason, WASMCACHE_REASON_NONE);
        assert_int_equal(report.artifact_bytes, size);
        assert_int_equal(rig_load(r, wasm, &report), 0);
        assert_int_equal(report.artifact_bytes, size);
        assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), 0);
        assert_string_equal(r->events.log, "hit,hit,");
        assert_int_equal(r->events.last[WASMCACHE_EVENT_HIT].bytes, size);
        assert_int_equal(r->engine.compiles, 0);
        assert_int_equal(r->engine.serializes, 0);
        if (!compressed) /* the file itself, and nothing besides */
            assert_int_equal(r->engine.files, 2);
        else if (tells) /* only what came out of it */
            assert_int_equal(r->engine.files + r->engine.deserializes, 2);
        assert_true(is_as_it_was(&k));
        free(k.bytes);
        scratch_remove(r->dir);
    }
}

/* Text of eight letters in no order, so that codes of all lengths come and the table fills. */
static char *long_wasm(size_t length)
{
    uint32_t x = 2463534242u;
    char *out = malloc(length + 1);
    if (!out)
        abort();
    for (size_t i = 0; i < length; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        out[i] = (char)('a' + (x >> 8 & 7));
    }
    out[length] = '\0';
    return out;
}

/* What weezl 0.1.12 made of the artifact, at one time. */
static void what_the_crate_wrote_is_read(void **state)
{
    struct rig *r = *state;
    char *text = long_wasm(16000);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    size_t size;
    uint8_t *golden = scratch_read(TESTS_DIR "/golden/lzw-weezl.bin", &size);
    char *path;
    open_old(r, 1);
    path = rig_entry(r, text);
    assert_int_equal(mkdir(r->dir, 0755), 0);
    assert_int_equal(mkdir(rig_namespace_dir(r), 0755), 0);
    scratch_write(path, golden, size, 0644);
    assert_int_equal(rig_load(r, text, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    free(golden);
    free(text);
}

/* ---- what is not taken ---- */

static void they_are_taken_only_where_they_were_asked_for(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key = rig_key(wasm);
    wasmcache_module *none = NULL;
    struct kept k;
    open_old(r, 1);
    k = keep(put_old(r, 0));
    /* As a component. */
    assert_int_equal(wasmcache_load(&none, r->wc, WASMCACHE_COMPONENT, &key, &report),
                     WASMCACHE_EMISMATCH);
    /* Without the flag, and with settings: nothing is known of how it was compiled. */
    for (int i = 0; i < 2; i++) {
        rig_close(r);
        r->options.flags = i ? WASMCACHE_LEGACY : 0;
        r->attach.settings = i ? "metering" : "";
        rig_open(r);
        rig_forget_events(r);
        assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EMISMATCH);
        assert_string_equal(r->events.log, "miss,");
        assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), WASMCACHE_EMISMATCH);
        /* Compiled, and it stays all the same. */
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, WASMCACHE_EMISMATCH);
        assert_true(is_as_it_was(&k));
    }
    assert_int_equal(r->engine.files + r->engine.deserializes, 0);
    free(k.bytes);
}

static void a_save_does_not_replace_them(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct kept k;
    open_old(r, 1);
    k = keep(put_old(r, 0));
    assert_int_equal(rig_save(r, wasm, &report), WASMCACHE_EMISMATCH);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EMISMATCH);
    assert_true(is_as_it_was(&k));
    free(k.bytes);
}

/* An entry of ours whose trailer is damaged is no old entry. */
static void a_damaged_trailer_does_not_make_an_old_entry(void **state)
{
    static const enum spoil how[] = {SPOIL_ARTIFACT, SPOIL_PADDING, SPOIL_TRAILER};
    struct rig *r = *state;
    open_old(r, 1);
    for (size_t i = 0; i < sizeof(how) / sizeof(*how); i++) {
        assert_int_equal(rig_save(r, wasm, NULL), 0);
        spoil(rig_entry(r, wasm), how[i]);
        assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_ECORRUPT);
        assert_int_equal(r->engine.files + r->engine.deserializes, 0);
        assert_false(scratch_exists(rig_entry(r, wasm)));
    }
}

/* ---- what is removed ---- */

/* `asked`: the engine may be shown it. */
static void assert_useless(struct rig *r, const void *bytes, size_t size, int asked)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char *path = put_bytes(r, bytes, size);
    rig_forget_events(r);
    fake_engine_reset(&r->engine);
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_ECORRUPT);
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    assert_string_equal(r->events.log, "miss,removed,");
    assert_int_equal(r->events.last[WASMCACHE_EVENT_MISS].reason, WASMCACHE_REASON_CORRUPT);
    assert_string_equal(r->events.last[WASMCACHE_EVENT_REMOVED].path, path);
    if (!asked)
        assert_int_equal(r->engine.files + r->engine.deserializes, 0);
    assert_false(scratch_exists(path));
    assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".old-"));
}

static void what_is_nothing_that_loads_is_removed(void **state)
{
    struct rig *r = *state;
    for (int tells = 0; tells < 2; tells++) {
        struct fake_engine other;
        uint8_t *artifact, *packed;
        size_t size, packed_size;
        open_old(r, tells);
        assert_useless(r, "", 0, 0);
        assert_useless(r, "x", 1, !tells);
        assert_useless(r, "text that is no artifact of anything", 36, !tells);
        /* Another version's, plain and compressed. */
        fake_engine_init(&other, 2);
        artifact = fake_artifact(&size, &other, WASMCACHE_MODULE, wasm, strlen(wasm));
        fake_engine_end(&other);
        packed = lzw_encode(&packed_size, artifact, size);
        assert_useless(r, artifact, size, !tells);
        assert_useless(r, packed, packed_size, !tells);
        free(packed);
        /* Compressed, but nothing, or not all. */
        packed = lzw_encode(&packed_size, "", 0);
        assert_useless(r, packed, packed_size, !tells);
        free(packed);
        packed = lzw_encode(&packed_size, artifact, size);
        assert_useless(r, packed, packed_size - 4, !tells);
        free(packed);
        free(artifact);
    }
}

static void what_the_engine_refuses_is_removed(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 4; i++) {
        open_old(r, i >> 1);
        r->engine.fail_file = r->engine.fail_bytes = 1;
        put_old(r, i & 1);
        assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_ECORRUPT);
        assert_string_equal(r->events.log, "miss,removed,");
        assert_non_null(strstr(r->events.last[WASMCACHE_EVENT_MISS].message,
                               "no old entry that can be loaded"));
        assert_false(scratch_exists(rig_entry(r, wasm)));
        /* A get compiles, and saves one of ours. */
        put_old(r, i & 1);
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        r->engine.fail_file = r->engine.fail_bytes = 0;
        assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
        scratch_remove(r->dir);
    }
}

/* A good entry that another publishes at any moment stays. */
struct other {
    struct rig *r;
    uint8_t *good;
    size_t size;
    char *path;
};

static void publish(void *argument)
{
    const struct other *o = argument;
    scratch_write(o->path, o->good, o->size, 0400);
}

static void what_is_published_meanwhile_stays(void **state)
{
    struct rig *r = *state;
    struct other o = {r, NULL, 0, NULL};
    unsigned points = 0;
    open_old(r, 1);
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    o.path = rig_entry(r, wasm);
    o.good = scratch_read(o.path, &o.size);
    for (unsigned nth = 1;; nth++) {
        size_t size;
        uint8_t *now;
        int rc;
        put_bytes(r, "useless", 7);
        seam_act(nth, publish, &o);
        rc = rig_load(r, wasm, NULL);
        seam_off();
        if (!seam_met())
            break;
        assert_true(rc == 0 || rc == WASMCACHE_ECORRUPT);
        points++;
        if (!scratch_exists(o.path))
            fail_msg("the good entry is gone: published before call %u of %s", nth, seam_log());
        now = scratch_read(o.path, &size);
        assert_int_equal(size, o.size);
        assert_memory_equal(now, o.good, size);
        free(now);
        assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".old-"));
    }
    assert_true(points > 8);
    free(o.good);
}

static void a_read_only_cache_removes_nothing(void **state)
{
    struct rig *r = *state;
    struct kept k;
    open_old(r, 1);
    k = keep(put_bytes(r, "useless", 7));
    rig_close(r);
    r->options.flags = WASMCACHE_LEGACY | WASMCACHE_READ_ONLY;
    rig_open(r);
    rig_forget_events(r);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_ECORRUPT);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_string_equal(r->events.log, "miss,miss,");
    assert_true(is_as_it_was(&k));
    free(k.bytes);
    /* And loads good ones. */
    k = keep(put_old(r, 1));
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_true(is_as_it_was(&k));
    free(k.bytes);
}

/* ---- what stays, since it may not be the file's fault ---- */

static void refused_while_there_is_too_little_it_stays(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 4; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        struct kept k;
        open_old(r, i >> 1);
        r->engine.fail_file = r->engine.fail_bytes = 1;
        k = keep(put_old(r, i & 1));
        seam_fail_call("dup", 1, EMFILE);
        assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EENGINE);
        assert_true(seam_met());
        assert_int_equal(report.reason, WASMCACHE_REASON_ENGINE_REFUSED);
        assert_string_equal(r->events.log, "miss,");
        seam_fail_call("dup", 1, EMFILE);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_not_equal(report.save_error, 0);
        seam_off();
        assert_true(is_as_it_was(&k));
        r->engine.fail_file = r->engine.fail_bytes = 0;
        assert_int_equal(rig_load(r, wasm, &report), 0);
        free(k.bytes);
        scratch_remove(r->dir);
    }
}

/* Whatever call fails, with whatever errno, once or for good: a good one stays, and what is loaded
 * is the module (rig_load looks). */
static void no_failure_costs_a_good_one(void **state)
{
    static const int errors[] = {EMFILE, ENFILE, ENOMEM, EIO, EACCES};
    struct rig *r = *state;
    unsigned points = 0, hits = 0;
    for (int i = 0; i < 8; i++) {
        struct kept k;
        open_old(r, i >> 1 & 1);
        k = keep(put_old(r, i & 1));
        wc_os_settles_forced = i & 4 ? 0 : -1; /* 0: it is read, not mapped */
        for (int e = 0; e < 2 * (int)(sizeof(errors) / sizeof(*errors)); e++)
            for (unsigned nth = 1;; nth++) {
                int rc;
                seam_fail(nth, errors[e / 2], e & 1);
                rc = rig_load(r, wasm, NULL);
                seam_off();
                if (!seam_met())
                    break;
                points++;
                hits += rc == 0;
                if (!is_as_it_was(&k))
                    fail_msg("it is gone: %s, call %u of %s", strerror(errors[e / 2]), nth,
                             seam_log());
            }
        assert_int_equal(rig_load(r, wasm, NULL), 0);
        free(k.bytes);
        scratch_remove(r->dir);
    }
    wc_os_settles_forced = -1;
    print_message("%u failures, %u hits in spite of them\n", points, hits);
    assert_true(points > 100 && hits > 0 && hits < points);
}

static void shorten(void *path)
{
    assert_int_equal(truncate(path, 10), 0);
}

/* From the file system of a server. */
static void what_is_read_whole_or_not_stays(void **state)
{
    struct rig *r = *state;
    unsigned failures = 0;
    struct kept k;
    open_old(r, 1);
    k = keep(put_old(r, 0));
    wc_os_settles_forced = 0;
    for (unsigned nth = 1; nth < 100; nth++) {
        int rc;
        allocation_fail(nth, 0);
        rc = rig_load(r, wasm, NULL);
        allocation_off();
        if (!allocation_met())
            break;
        failures += rc == WASMCACHE_ENOMEM;
        assert_true(rc == 0 || rc == WASMCACHE_ENOMEM);
        assert_true(is_as_it_was(&k));
    }
    assert_true(failures > 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_int_equal(r->engine.files, 0);
    seam_act_call("pread", 2, shorten, (void *)(uintptr_t)k.path);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_EIO);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(scratch_inode(k.path), k.inode);
    wc_os_settles_forced = -1;
    free(k.bytes);
}

/* Old entries are of an engine that nobody changed. */
static void settings_that_are_empty_are_none(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct kept k;
    r->attach.settings = "";
    open_old(r, 1);
    k = keep(put_old(r, 0));
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    r->attach.settings = "opt=2";
    open_old(r, 1);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_true(is_as_it_was(&k));
    free(k.bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)
    const struct CMUnitTest tests[] = {
        TEST(old_entries_are_loaded_and_left_alone),
        TEST(what_the_crate_wrote_is_read),
        TEST(they_are_taken_only_where_they_were_asked_for),
        TEST(a_save_does_not_replace_them),
        TEST(a_damaged_trailer_does_not_make_an_old_entry),
        TEST(what_is_nothing_that_loads_is_removed),
        TEST(what_the_engine_refuses_is_removed),
        TEST(what_is_published_meanwhile_stays),
        TEST(a_read_only_cache_removes_nothing),
        TEST(refused_while_there_is_too_little_it_stays),
        TEST(no_failure_costs_a_good_one),
        TEST(what_is_read_whole_or_not_stays),
        TEST(settings_that_are_empty_are_none),
    };
    return cmocka_run_group_tests_name("legacy", tests, NULL, NULL);
}
