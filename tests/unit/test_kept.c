/* SPDX-License-Identifier: Apache-2.0 */
/* Modules that stay in memory: which, how many, for whom, and that each is freed. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"

static void open_keeping(struct rig *r, unsigned modules, uint64_t bytes)
{
    rig_close(r);
    r->options.memory_modules = modules;
    r->options.memory_bytes = bytes;
    rig_open(r);
}

static wasmcache_module *get(struct rig *r, wasmcache_attachment *wc, const char *wasm,
                             wasmcache_report *report)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    const wasmcache_report none = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    *report = none;
    assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, report), 0);
    assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                               r->engine.configuration, wasm, strlen(wasm)));
    return module;
}

/* Was it there? */
static int is_kept(struct rig *r, const char *wasm)
{
    wasmcache_report report;
    wasmcache_module_release(get(r, r->wc, wasm, &report));
    assert_true(!report.in_memory || report.outcome == WASMCACHE_HIT);
    return report.in_memory;
}

static void nothing_is_kept_unless_it_is_asked_for(void **state)
{
    struct rig *r = *state;
    assert_false(is_kept(r, "a"));
    assert_false(is_kept(r, "a"));
    assert_int_equal(r->engine.live_modules, 0);
}

static void the_second_get_finds_it_without_a_call(void **state)
{
    struct rig *r = *state;
    wasmcache_report report;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_module *first, *second;
    open_keeping(r, 4, 0);
    first = get(r, r->wc, "a", &report);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_false(report.in_memory);
    seam_record();
    second = get(r, r->wc, "a", &report);
    seam_off();
    assert_int_equal(seam_calls(), 0);
    assert_ptr_equal(first, second);
    assert_true(report.in_memory);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.reason, WASMCACHE_REASON_NONE);
    assert_true(report.artifact_bytes > 0);
    wasmcache_module_release(first);
    wasmcache_module_release(second);
    assert_int_equal(rig_load(r, "a", NULL), 0);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(r->engine.files + r->engine.deserializes, 0);
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_PROCESS, &stats), 0);
    assert_int_equal(stats.memory_hits, 2);
    assert_int_equal(stats.hits, 0);
    assert_int_equal(r->engine.live_modules, 1);
}

static void what_was_loaded_is_kept_too(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, "a", NULL), 0);
    open_keeping(r, 4, 0);
    assert_int_equal(rig_load(r, "a", NULL), 0);
    assert_true(is_kept(r, "a"));
}

static void what_was_used_least_lately_goes_first(void **state)
{
    struct rig *r = *state;
    wc_os_monotonic_forced = 5000000000; /* also if the clock does not move */
    for (int i = 0; i < 2; i++) {
        const char *again = i ? "a" : "b", *not = i ? "b" : "a";
        open_keeping(r, 2, 0);
        assert_false(is_kept(r, "a"));
        assert_false(is_kept(r, "b"));
        assert_true(is_kept(r, again));
        assert_false(is_kept(r, "c")); /* takes the place of the other */
        assert_true(is_kept(r, again));
        assert_true(is_kept(r, "c"));
        assert_int_equal(r->engine.live_modules, 2);
        assert_false(is_kept(r, not ));
    }
}

static void bytes_are_bounded_too(void **state)
{
    struct rig *r = *state;
    r->engine.artifact_size = 1000;
    open_keeping(r, 100, 2500);
    assert_false(is_kept(r, "a"));
    assert_false(is_kept(r, "b"));
    assert_false(is_kept(r, "c"));
    assert_int_equal(r->engine.live_modules, 2);
    r->engine.artifact_size = 3000; /* more than all */
    assert_false(is_kept(r, "huge"));
    assert_false(is_kept(r, "huge"));
    assert_int_equal(r->engine.live_modules, 2);
}

static void what_is_held_stays_and_nothing_new_comes(void **state)
{
    struct rig *r = *state;
    wasmcache_report report;
    wasmcache_module *a, *b;
    open_keeping(r, 2, 0);
    a = get(r, r->wc, "a", &report);
    b = get(r, r->wc, "b", &report);
    assert_false(is_kept(r, "c"));
    assert_false(is_kept(r, "c"));
    assert_true(is_kept(r, "a"));
    wasmcache_module_release(b);
    assert_false(is_kept(r, "c"));
    assert_true(is_kept(r, "c"));
    assert_true(is_kept(r, "a"));
    wasmcache_module_release(a);
}

static void each_attachment_has_its_own(void **state)
{
    struct rig *r = *state;
    wasmcache_attachment *other;
    wasmcache_report report;
    open_keeping(r, 4, 0);
    assert_int_equal(wasmcache_attach(&other, r->cache, &r->engine.table, &r->engine, &r->attach),
                     0);
    assert_false(is_kept(r, "a"));
    wasmcache_module_release(get(r, other, "a", &report));
    assert_false(report.in_memory);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    wasmcache_module_release(get(r, other, "a", &report));
    assert_true(report.in_memory);
    assert_int_equal(r->engine.live_modules, 2);
    wasmcache_detach(other); /* its engine may be gone after that */
    assert_int_equal(r->engine.live_modules, 1);
    assert_true(is_kept(r, "a"));
}

/* ---- another cache of the process, on the same directory by another path ---- */

struct other {
    wasmcache *cache;
    wasmcache_attachment *wc;
};

static void other_open(struct other *o, struct rig *r)
{
    wasmcache_options options = r->options;
    char *link = scratch_in(&r->scratch, "link");
    assert_int_equal(symlink(r->dir, link), 0);
    options.dir = link;
    assert_int_equal(wasmcache_open(&o->cache, &options), 0);
    assert_int_equal(wasmcache_attach(&o->wc, o->cache, &r->engine.table, &r->engine, &r->attach),
                     0);
}

static void other_close(struct other *o)
{
    wasmcache_detach(o->wc);
    wasmcache_close(o->cache);
}

static wasmcache_report other_get(struct other *o, struct rig *r, const char *wasm)
{
    wasmcache_report report;
    wasmcache_module_release(get(r, o->wc, wasm, &report));
    return report;
}

/* Of both it is in memory. */
static void keep_in_both(struct other *o, struct rig *r, const char *wasm)
{
    (void)is_kept(r, wasm);
    assert_true(is_kept(r, wasm));
    (void)other_get(o, r, wasm);
    assert_true(other_get(o, r, wasm).in_memory);
}

static void two_caches_on_a_directory_agree(void **state)
{
    struct rig *r = *state;
    struct other o;
    wasmcache_report report;
    open_keeping(r, 4, 0);
    other_open(&o, r);
    assert_false(is_kept(r, "a"));
    report = other_get(&o, r, "a");
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_false(report.in_memory);
    assert_true(other_get(&o, r, "a").in_memory);
    other_close(&o);
}

static void what_one_cache_removes_no_other_has(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key("a");
    wasmcache_report report;
    struct other o;
    open_keeping(r, 4, 0);
    other_open(&o, r);
    for (int from = 0; from < 2; from++) {
        keep_in_both(&o, r, "a");
        keep_in_both(&o, r, "b");
        r->engine.compiles = 0;
        assert_int_equal(wasmcache_remove(from ? r->cache : o.cache, rig_namespace(r), &key), 0);
        report = other_get(&o, r, "a");
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
        assert_false(is_kept(r, "a"));
        assert_int_equal(r->engine.compiles, 1);
        /* The others are as they were. */
        assert_true(other_get(&o, r, "b").in_memory);
        assert_true(is_kept(r, "b"));
    }
    /* Also if the file, or all of them, went before. */
    keep_in_both(&o, r, "a");
    scratch_remove(r->dir);
    assert_true(other_get(&o, r, "a").in_memory);
    assert_int_equal(wasmcache_remove(r->cache, rig_namespace(r), &key), WASMCACHE_EMISS);
    assert_false(is_kept(r, "a"));
    assert_false(other_get(&o, r, "a").in_memory);
    other_close(&o);
}

static void what_one_cache_replaces_no_other_has(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key("a");
    wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    wasmcache_report report;
    struct other o;
    void *native;
    open_keeping(r, 4, 0);
    other_open(&o, r);
    keep_in_both(&o, r, "a");
    assert_int_equal(rig_get_with(r, "a", WASMCACHE_GET_RECOMPILE, NULL), 0);
    report = other_get(&o, r, "a");
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_false(report.in_memory); /* it is the new entry's */
    keep_in_both(&o, r, "a");
    native = fake_module_new(&r->engine, WASMCACHE_MODULE, "a", 1);
    assert_int_equal(wasmcache_save(o.wc, WASMCACHE_MODULE, &key, native, &options, NULL), 0);
    assert_true(is_kept(r, "a")); /* a sound entry stays: nothing was replaced */
    options.flags = WASMCACHE_SAVE_REPLACE;
    assert_int_equal(wasmcache_save(o.wc, WASMCACHE_MODULE, &key, native, &options, NULL), 0);
    r->engine.table.module_free(WASMCACHE_MODULE, native);
    assert_false(is_kept(r, "a"));
    assert_false(other_get(&o, r, "a").in_memory);
    other_close(&o);
}

static void what_was_mapped_from_a_damaged_entry_goes_with_it(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key("a");
    wasmcache_attachment *third;
    wasmcache_report report;
    struct other o;
    open_keeping(r, 4, 0);
    other_open(&o, r);
    keep_in_both(&o, r, "a");
    scratch_flip(rig_entry(r, "a"), 3);
    assert_int_equal(wasmcache_remove_damaged(r->cache, rig_namespace(r), &key), 0);
    assert_int_equal(other_get(&o, r, "a").outcome, WASMCACHE_COMPILED);
    keep_in_both(&o, r, "a");
    /* Or a get finds it: of an attachment that has nothing in memory. */
    assert_int_equal(wasmcache_attach(&third, r->cache, &r->engine.table, &r->engine, &r->attach),
                     0);
    scratch_flip(rig_entry(r, "a"), 3);
    wasmcache_module_release(get(r, third, "a", &report));
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    assert_int_equal(report.save_error, 0);
    assert_false(is_kept(r, "a"));
    assert_false(other_get(&o, r, "a").in_memory);
    /* What was compiled in its place is as good as any. */
    wasmcache_module_release(get(r, third, "a", &report));
    assert_true(report.in_memory);
    wasmcache_detach(third);
    other_close(&o);
}

static void remove_in_the_middle(void *argument)
{
    struct other *o = argument;
    const wasmcache_key key = rig_key("a");
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    assert_int_equal(wasmcache_attachment_status(o->wc, &info), 0);
    (void)wasmcache_remove(o->cache, info.engine_namespace, &key);
}

static void what_began_before_a_removal_is_not_kept_after_it(void **state)
{
    struct rig *r = *state;
    struct other o;
    open_keeping(r, 4, 0);
    other_open(&o, r);
    assert_false(is_kept(r, "b")); /* there is a folder to remove from */
    (void)other_get(&o, r, "b");
    r->engine.on_compile = remove_in_the_middle;
    r->engine.on_compile_argument = &o;
    assert_false(is_kept(r, "a"));
    r->engine.on_compile = NULL;
    assert_int_equal(r->engine.live_modules, 2); /* b, twice */
    assert_false(is_kept(r, "a"));
    assert_true(is_kept(r, "a"));
    other_close(&o);
}

static void what_is_outdated_is_the_first_to_go(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key("a");
    wasmcache_report report;
    wasmcache_module *held;
    struct other o;
    open_keeping(r, 2, 0);
    other_open(&o, r);
    assert_false(is_kept(r, "b"));
    held = get(r, r->wc, "a", &report);
    assert_int_equal(wasmcache_remove(o.cache, rig_namespace(r), &key), 0);
    assert_false(is_kept(r, "c")); /* takes the place of a, though that was used last and is held */
    assert_true(is_kept(r, "b"));
    assert_true(is_kept(r, "c"));
    assert_int_equal(r->engine.live_modules, 3);
    wasmcache_module_release(held);
    assert_int_equal(r->engine.live_modules, 2);
    other_close(&o);
}

/* ---- removal, and what has no memory ---- */

static void what_is_removed_or_compiled_anew_is_not_taken_from_there(void **state)
{
    struct rig *r = *state;
    wasmcache_key key = rig_key("a");
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(wasmcache_remove(r->cache, rig_namespace(r), &key), 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(r->engine.compiles, 2);
    assert_int_equal(rig_get_with(r, "a", WASMCACHE_GET_RECOMPILE, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_true(is_kept(r, "a"));
}

static void what_was_compiled_anew_takes_the_old_ones_place(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes("a", 1);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report;
    wasmcache_module *old, *fresh, *found;
    open_keeping(r, 4, 0);
    old = get(r, r->wc, "a", &report);
    options.flags = WASMCACHE_GET_RECOMPILE;
    assert_int_equal(wasmcache_get(&fresh, r->wc, WASMCACHE_MODULE, &source, &options, NULL), 0);
    found = get(r, r->wc, "a", &report);
    assert_true(report.in_memory);
    assert_ptr_equal(found, fresh);
    assert_ptr_not_equal(found, old);
    wasmcache_module_release(old);
    wasmcache_module_release(fresh);
    wasmcache_module_release(found);
    assert_int_equal(r->engine.live_modules, 1);
}

static void an_engine_that_cannot_clone_has_it_too(void **state)
{
    struct rig *r = *state;
    r->engine.table.module_clone = NULL;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_true(is_kept(r, "a"));
}

/* Whether the engine clones or not: what is in memory is for counted modules only. */
static void modules_of_the_engine_are_not_of_memory(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes("a", 1);
    for (int clones = 0; clones < 2; clones++) {
        void *native, *error = NULL;
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        if (!clones)
            r->engine.table.module_clone = NULL;
        open_keeping(r, 4, 0);
        assert_int_equal(
            wasmcache_get_native(&native, &error, r->wc, WASMCACHE_MODULE, &source, NULL, NULL), 0);
        r->engine.table.module_free(WASMCACHE_MODULE, native);
        assert_int_equal(r->engine.live_modules, 0); /* it was not kept */
        assert_false(is_kept(r, "a"));
        assert_true(is_kept(r, "a"));
        r->engine.files = r->engine.clones = 0;
        assert_int_equal(
            wasmcache_get_native(&native, &error, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
            0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
        assert_false(report.in_memory); /* nor is it what is kept */
        assert_int_equal(r->engine.files, 1);
        assert_int_equal(r->engine.clones, 0);
        r->engine.table.module_free(WASMCACHE_MODULE, native);
        assert_true(is_kept(r, "a"));
        rig_close(r);
        fake_engine_end(&r->engine);
        fake_engine_init(&r->engine, 1);
        rig_open(r);
    }
}

static void what_is_kept_is_not_taken_apart(void **state)
{
    struct rig *r = *state;
    for (int clones = 1; clones >= 0; clones--) {
        wasmcache_report report;
        wasmcache_module *module;
        void *native;
        if (!clones)
            r->engine.table.module_clone = NULL;
        open_keeping(r, 4, 0);
        module = get(r, r->wc, "a", &report);
        native = wasmcache_module_into_native(module);
        assert_int_equal(native != NULL, clones);
        if (native)
            r->engine.table.module_free(WASMCACHE_MODULE, native);
        assert_true(is_kept(r, "a"));
        if (!clones) { /* it is the caller's alone, once memory has given it up */
            wasmcache_detach(r->wc);
            r->wc = NULL;
            native = wasmcache_module_into_native(module);
            assert_non_null(native);
            r->engine.table.module_free(WASMCACHE_MODULE, native);
        }
    }
}

/* ---- by a digest ---- */

static int get_by_digest(struct rig *r, wasmcache_kind kind, const wasmcache_get_options *options,
                         wasmcache_report *report)
{
    const wasmcache_key key = rig_key("a");
    const wasmcache_source source = wasmcache_source_sha256(key.bytes, NULL, NULL);
    wasmcache_module *module = NULL;
    int rc = wasmcache_get(&module, r->wc, kind, &source, options, report);
    if (rc == 0)
        assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                                   r->engine.configuration, "a", 1));
    wasmcache_module_release(module);
    return rc;
}

static uint64_t memory_hits(struct rig *r)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_PROCESS, &stats), 0);
    return stats.memory_hits;
}

static void a_hit_by_digest_is_as_any_other(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key("a");
    wasmcache_report report = WASMCACHE_REPORT_INIT, other = WASMCACHE_REPORT_INIT;
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    memset(&report, 0xA5, sizeof(report)); /* all of it is filled */
    report.size = sizeof(report);
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, NULL, &report), 0);
    wasmcache_module_release(get(r, r->wc, "a", &other));
    assert_true(report.total_ns > 0);
    other.total_ns = report.total_ns;
    other.key_ns = report.key_ns; /* nothing was hashed */
    other.wasm_bytes = report.wasm_bytes;
    assert_int_equal(report.key_ns, 0);
    assert_int_equal(report.wasm_bytes, 0);
    assert_memory_equal(&report, &other, sizeof(report));
    assert_int_equal(memory_hits(r), 2);
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, NULL, NULL), 0);
    assert_int_equal(memory_hits(r), 3);
    options.flags = WASMCACHE_GET_MUST_HIT | WASMCACHE_GET_NO_WAIT | WASMCACHE_GET_NO_SAVE;
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, &options, NULL), 0);
    assert_int_equal(memory_hits(r), 4);
    memset(&report, 0xA5, sizeof(report)); /* an older caller's report is not written beyond */
    report.size = offsetof(wasmcache_report, save_later);
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, NULL, &report), 0);
    assert_int_equal(memory_hits(r), 5);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_true(wasmcache_key_equal(&report.key, &key));
    assert_int_equal((unsigned)report.save_later, 0xA5A5A5A5u);
}

static void what_is_wrong_is_wrong_in_memory_too(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key("a");
    wasmcache_source source = wasmcache_source_sha256(key.bytes, NULL, NULL);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(get_by_digest(r, (wasmcache_kind)7, NULL, NULL), WASMCACHE_EMISUSE);
    report.size = 1;
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, NULL, &report), WASMCACHE_EMISUSE);
    options.flags = 1u << 30;
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, &options, NULL), WASMCACHE_EMISUSE);
    options.flags = WASMCACHE_GET_RECOMPILE; /* without bytes */
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, &options, NULL), WASMCACHE_EMISS);
    options.flags = 0;
    options.salt = "salt";
    options.salt_length = 4;
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, &options, NULL), WASMCACHE_EMISS);
    assert_int_equal(wasmcache_get(NULL, r->wc, WASMCACHE_MODULE, &source, NULL, NULL),
                     WASMCACHE_EMISUSE);
    source.digest_length = 31;
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, NULL),
                     WASMCACHE_EMISUSE);
    source.digest_length = 32;
    source.digest_algorithm = "blake3"; /* the same bytes are another key */
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, NULL),
                     WASMCACHE_EMISS);
    assert_int_equal(wasmcache_load(NULL, r->wc, WASMCACHE_MODULE, &key, NULL), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_load(&module, r->wc, (wasmcache_kind)7, &key, NULL),
                     WASMCACHE_EMISUSE);
    assert_null(module);
    assert_int_equal(memory_hits(r), 0);
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, NULL, NULL), 0);
    assert_int_equal(memory_hits(r), 1);
}

static void a_closed_cache_has_no_memory(void **state)
{
    struct rig *r = *state;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, NULL, NULL), 0);
    wasmcache_close(r->cache);
    r->cache = NULL;
    assert_int_equal(get_by_digest(r, WASMCACHE_MODULE, NULL, NULL), WASMCACHE_EMISS);
    assert_false(is_kept(r, "a"));
    assert_false(is_kept(r, "a"));
    assert_int_equal(r->engine.compiles, 3);
}

/* ---- which goes ---- */

static void uses_are_told_apart_by_a_clock(void **state)
{
    struct rig *r = *state;
    wc_os_monotonic_forced = 5000000000;
    open_keeping(r, 3, 0);
    assert_false(is_kept(r, "a"));
    assert_false(is_kept(r, "b"));
    assert_false(is_kept(r, "c"));
    wc_os_monotonic_forced += 4000000;
    assert_true(is_kept(r, "b"));
    wc_os_monotonic_forced += 4000000;
    assert_true(is_kept(r, "a"));
    wc_os_monotonic_forced += 4000000;
    assert_true(is_kept(r, "c"));
    assert_false(is_kept(r, "d")); /* takes the place of b */
    assert_true(is_kept(r, "a"));
    assert_true(is_kept(r, "c"));
    assert_true(is_kept(r, "d"));
}

static void no_more_goes_than_there_is_need_for(void **state)
{
    struct rig *r = *state;
    wc_os_monotonic_forced = 5000000000;
    r->engine.artifact_size = 1000;
    open_keeping(r, 4, 0);
    for (const char *wasm = "a\0b\0c\0d\0"; *wasm; wasm += 2)
        assert_false(is_kept(r, wasm));
    for (const char *wasm = "a\0b\0c\0d\0"; *wasm; wasm += 2)
        assert_true(is_kept(r, wasm)); /* all at the same time */
    assert_false(is_kept(r, "e"));
    assert_int_equal(r->engine.live_modules, 4);
    assert_true(is_kept(r, "e"));
}

static void what_the_engine_refuses_is_not_kept(void **state)
{
    struct rig *r = *state;
    open_keeping(r, 4, 0);
    assert_int_equal(rig_get(r, "!a", NULL), WASMCACHE_EENGINE);
    assert_int_equal(rig_get(r, "!a", NULL), WASMCACHE_EENGINE);
    assert_int_equal(r->engine.compiles, 2);
}

static void salts_are_apart(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes("a", 1);
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module;
    wasmcache_key key;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    for (int i = 0; i < 4; i++) {
        options.salt = i % 2 ? "one" : "two";
        options.salt_length = 3;
        assert_int_equal(
            wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, &report), 0);
        wasmcache_module_release(module);
        assert_int_equal(report.outcome, i < 2 ? WASMCACHE_COMPILED : WASMCACHE_HIT);
        key = rig_key("a");
        assert_int_equal(wasmcache_key_salted(&key, &key, options.salt, 3), 0);
        assert_true(wasmcache_key_equal(&key, &report.key));
    }
    assert_int_equal(r->engine.compiles, 3);
}

static int use_in_child(void *argument)
{
    struct rig *r = argument;
    assert_false(is_kept(r, "a")); /* its locks may be held by nobody */
    assert_false(is_kept(r, "a"));
    rig_close(r);
    return 0;
}

static void the_child_of_a_fork_has_none(void **state)
{
    struct rig *r = *state;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(scratch_child(use_in_child, r, 0, 30), 0);
    assert_true(is_kept(r, "a"));
    wc_os_lacking = WC_OS_NO_WIPE;
    open_keeping(r, 4, 0);
    assert_false(is_kept(r, "a"));
    assert_int_equal(scratch_child(use_in_child, r, 0, 30), 0);
    assert_true(is_kept(r, "a"));
}

struct crowd {
    struct rig *r;
    atomic_uint wrong;
};

static void *get_many(void *argument)
{
    struct crowd *crowd = argument;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    for (int i = 0; i < 2000; i++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        char wasm[16];
        wasmcache_source source;
        seed = seed * 1103515245 + 12345;
        snprintf(wasm, sizeof(wasm), "m%u", (seed >> 16) % 12);
        source = wasmcache_source_bytes(wasm, strlen(wasm));
        if (wasmcache_get(&module, crowd->r->wc, WASMCACHE_MODULE, &source, NULL, &report) ||
            !fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                            crowd->r->engine.configuration, wasm, strlen(wasm)))
            atomic_fetch_add(&crowd->wrong, 1);
        wasmcache_module_release(module);
    }
    return NULL;
}

/* Hands modules on: taken by one thread, given back by another. */
struct exchange {
    struct rig *r;
    _Atomic(wasmcache_module *) slots[16];
    atomic_uint wrong, turn;
    atomic_bool stop;
};

static void *take_and_hand_on(void *argument)
{
    struct exchange *x = argument;
    const unsigned me = atomic_fetch_add(&x->turn, 1);
    for (unsigned i = 0; i < 3000; i++) {
        char wasm[16];
        wasmcache_key key;
        wasmcache_source source;
        wasmcache_module *module = NULL, *before;
        snprintf(wasm, sizeof(wasm), "m%u", (i / 7 + me) % 6);
        key = rig_key(wasm);
        source = i % 2 ? wasmcache_source_sha256(key.bytes, NULL, NULL)
                       : wasmcache_source_bytes(wasm, strlen(wasm));
        if (wasmcache_get(&module, x->r->wc, WASMCACHE_MODULE, &source, NULL, NULL))
            continue; /* without bytes, and removed */
        if (!fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                            x->r->engine.configuration, wasm, strlen(wasm)))
            atomic_fetch_add(&x->wrong, 1);
        before = atomic_exchange(&x->slots[(i + me) % 16], wasmcache_module_ref(module));
        if (before && ((struct fake_module *)wasmcache_module_native(before))->wasm[0] != 'm')
            atomic_fetch_add(&x->wrong, 1);
        wasmcache_module_release(before);
        wasmcache_module_release(module);
    }
    return NULL;
}

static void *remove_now_and_then(void *argument)
{
    struct exchange *x = argument;
    for (unsigned i = 0; !atomic_load(&x->stop); i++) {
        char wasm[16];
        wasmcache_key key;
        snprintf(wasm, sizeof(wasm), "m%u", i % 6);
        key = rig_key(wasm);
        (void)wasmcache_remove(x->r->cache, rig_namespace(x->r), &key);
        usleep(2000);
    }
    return NULL;
}

static void threads_hand_on_what_is_evicted_and_removed(void **state)
{
    struct rig *r = *state;
    struct exchange x = {.r = r};
    pthread_t threads[6], remover;
    open_keeping(r, 4, 0); /* fewer than there are */
    assert_false(is_kept(r, "m0"));
    (void)rig_namespace(r);
    assert_int_equal(pthread_create(&remover, NULL, remove_now_and_then, &x), 0);
    for (int i = 0; i < 6; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_hand_on, &x), 0);
    for (int i = 0; i < 6; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&x.stop, 1);
    pthread_join(remover, NULL);
    assert_int_equal(x.wrong, 0);
    for (int i = 0; i < 16; i++)
        wasmcache_module_release(x.slots[i]);
    assert_true(r->engine.live_modules <= 4); /* what memory has, and nothing else */
    wasmcache_detach(r->wc);
    r->wc = NULL;
    assert_int_equal(r->engine.live_modules, 0);
}

static void threads_share_it(void **state)
{
    struct rig *r = *state;
    struct crowd crowd = {r, 0};
    pthread_t threads[8];
    open_keeping(r, 5, 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_many, &crowd), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(crowd.wrong, 0);
    assert_true(r->engine.live_modules <= 5 + 8);
    assert_int_equal(r->engine.compiles, 12);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_kept_unless_it_is_asked_for),
        TEST(the_second_get_finds_it_without_a_call),
        TEST(what_was_loaded_is_kept_too),
        TEST(what_was_used_least_lately_goes_first),
        TEST(bytes_are_bounded_too),
        TEST(what_is_held_stays_and_nothing_new_comes),
        TEST(each_attachment_has_its_own),
        TEST(two_caches_on_a_directory_agree),
        TEST(what_one_cache_removes_no_other_has),
        TEST(what_one_cache_replaces_no_other_has),
        TEST(what_was_mapped_from_a_damaged_entry_goes_with_it),
        TEST(what_began_before_a_removal_is_not_kept_after_it),
        TEST(what_is_outdated_is_the_first_to_go),
        TEST(what_is_removed_or_compiled_anew_is_not_taken_from_there),
        TEST(what_was_compiled_anew_takes_the_old_ones_place),
        TEST(an_engine_that_cannot_clone_has_it_too),
        TEST(modules_of_the_engine_are_not_of_memory),
        TEST(what_is_kept_is_not_taken_apart),
        TEST(a_hit_by_digest_is_as_any_other),
        TEST(what_is_wrong_is_wrong_in_memory_too),
        TEST(a_closed_cache_has_no_memory),
        TEST(uses_are_told_apart_by_a_clock),
        TEST(no_more_goes_than_there_is_need_for),
        TEST(what_the_engine_refuses_is_not_kept),
        TEST(salts_are_apart),
        TEST(the_child_of_a_fork_has_none),
        TEST(threads_share_it),
        TEST(threads_hand_on_what_is_evicted_and_removed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
