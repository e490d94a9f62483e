/* SPDX-License-Identifier: Apache-2.0 */
/* get, load, save and contains by the contract in wasmcache.h. Sources have a part of their own at
 * the end. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"
#include "spoil.h"
#include "support/rig.h"

static const char wasm[] = "a module";
static const char other[] = "another module";

/* What lies in the cache directory when `wasm` is all that is in it. */
static const char *tree_of_one(struct rig *r)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    wasmcache_key key = rig_key(wasm);
    const char *ns = rig_namespace(r);
    return scratch_text(&r->scratch, "CACHEDIR.TAG\n%s/\n%s/%s.bin\n", ns, ns,
                        wasmcache_key_to_hex(hex, &key));
}

/* The same when nothing was saved: a miss that was about to be saved needed the lock. */
static const char *tree_of_none(struct rig *r)
{
    return scratch_text(&r->scratch, "CACHEDIR.TAG\n%s/\n", rig_namespace(r));
}

static const char *tree(struct rig *r)
{
    return scratch_tree(&r->scratch, r->dir);
}

/* ---- miss and hit ---- */

static void a_miss_compiles_and_saves(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key = rig_key(wasm);
    uint8_t *artifact, *file;
    size_t artifact_size, file_size;
    unsigned open_before;

    rig_open(r);
    open_before = scratch_descriptors();
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(scratch_descriptors(), open_before);

    artifact = fake_artifact(&artifact_size, &r->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(report.save_error, 0);
    assert_true(wasmcache_key_equal(&report.key, &key));
    assert_int_equal(report.wasm_bytes, strlen(wasm));
    assert_int_equal(report.artifact_bytes, artifact_size);
    assert_true(report.total_ns >= report.compile_ns + report.save_ns + report.load_ns);
    assert_true(report.save_ns > 0);
    assert_string_equal(r->events.log, "miss,saved,");
    assert_int_equal(r->events.last[WASMCACHE_EVENT_MISS].reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(r->events.last[WASMCACHE_EVENT_SAVED].bytes, artifact_size);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(r->engine.serializes, 1);
    assert_int_equal(r->engine.files + r->engine.deserializes, 0);

    /* The artifact lies at the front of the one file that was made. */
    assert_string_equal(tree(r), tree_of_one(r));
    file = scratch_read(rig_entry(r, wasm), &file_size);
    assert_true(file_size > artifact_size);
    assert_memory_equal(file, artifact, artifact_size);
    free(file);
    free(artifact);
}

static void the_second_get_is_a_hit_without_a_compile(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char hex[WASMCACHE_KEY_HEX_SIZE];
    wasmcache_key key = rig_key(wasm);
    ino_t inode;
    uint8_t *file;
    size_t file_size;
    unsigned open_before;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    inode = scratch_inode(rig_entry(r, wasm));
    rig_reopen(r);
    fake_engine_reset(&r->engine);
    rig_forget_events(r);
    open_before = scratch_descriptors();

    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(scratch_descriptors(), open_before);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.reason, WASMCACHE_REASON_NONE);
    assert_int_equal(report.save_error, 0);
    assert_true(wasmcache_key_equal(&report.key, &key));
    assert_int_equal(report.wasm_bytes, strlen(wasm));
    assert_int_equal(report.compile_ns + report.save_ns, 0);
    assert_true(report.load_ns > 0);
    assert_string_equal(r->events.log, "hit,");
    assert_string_equal(r->events.last[WASMCACHE_EVENT_HIT].key, wasmcache_key_to_hex(hex, &key));
    assert_string_equal(r->events.last[WASMCACHE_EVENT_HIT].engine_namespace, rig_namespace(r));
    assert_int_equal(r->events.last[WASMCACHE_EVENT_HIT].bytes, report.artifact_bytes);
    assert_int_equal(r->engine.compiles + r->engine.serializes, 0);

    /* The engine opened the very file, whole. */
    assert_int_equal(r->engine.files, 1);
    assert_int_equal(r->engine.deserializes, 0);
    assert_int_equal(strncmp(r->engine.path, "/proc/thread-self/fd/", 21), 0);
    file = scratch_read(rig_entry(r, wasm), &file_size);
    assert_int_equal(r->engine.handed_size, file_size);
    assert_memory_equal(r->engine.handed, file, file_size);
    free(file);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
    assert_string_equal(tree(r), tree_of_one(r));
}

static void without_proc_or_a_file_call_the_bytes_are_handed_over(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    uint8_t *artifact;
    size_t size;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    artifact = fake_artifact(&size, &r->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    for (int way = 0; way < 2; way++) {
        wc_os_lacking = way ? 0 : WC_OS_NO_PROC;
        r->engine.table.deserialize_file = NULL;
        if (!way)
            fake_engine_init(&r->engine, 1);
        rig_reopen(r);
        fake_engine_reset(&r->engine);
        rig_forget_events(r);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
        assert_int_equal(r->engine.files, 0);
        assert_int_equal(r->engine.deserializes, 1);
        /* The artifact and nothing behind it. */
        assert_int_equal(r->engine.handed_size, size);
        assert_memory_equal(r->engine.handed, artifact, size);
        /* What the engine lacks is no event. */
        assert_string_equal(r->events.log, way ? "hit," : "fallback,hit,");
    }
    free(artifact);
}

static void an_empty_module_is_a_module(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(NULL, 0);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    wasmcache_key key = rig_key("");

    rig_open(r);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
                         0);
        assert_int_equal(report.outcome, i ? WASMCACHE_HIT : WASMCACHE_COMPILED);
        assert_true(wasmcache_key_equal(&report.key, &key));
        assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, "", 0));
        wasmcache_module_release(module);
    }
    assert_int_equal(r->engine.compiles, 1);
}

static void large_artifacts_are_written_in_pieces_and_come_back(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    const size_t mib = 1 << 20;
    const size_t sizes[] = {mib - 1, mib, mib + 1, 3 * mib + 5};

    rig_open(r);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        const char *name = scratch_text(&r->scratch, "large %zu", i);
        r->engine.artifact_size = sizes[i];
        assert_int_equal(rig_get(r, name, &report), 0);
        assert_int_equal(report.artifact_bytes, sizes[i]);
        assert_int_equal(rig_get(r, name, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
        assert_int_equal(report.artifact_bytes, sizes[i]);
    }
    assert_int_equal(r->engine.compiles, sizeof(sizes) / sizeof(*sizes));
}

static void modules_are_counted(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_module *module = NULL;

    rig_open(r);
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, NULL), 0);
    assert_ptr_equal(wasmcache_module_ref(module), module);
    wasmcache_module_release(module);
    assert_int_equal(r->engine.live_modules, 1);
    /* It stays valid when cache and attachment end. */
    rig_close(r);
    assert_true(
        fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, wasm, strlen(wasm)));
    wasmcache_module_release(module);
    assert_int_equal(r->engine.live_modules, 0);
    wasmcache_module_release(NULL);
    assert_null(wasmcache_module_ref(NULL));
    assert_null(wasmcache_module_native(NULL));
}

static void the_owned_form_gives_the_module_away(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    int untouched = 0;

    rig_open(r);
    for (int i = 0; i < 2; i++) {
        void *native = NULL, *error = &untouched;
        assert_int_equal(
            wasmcache_get_native(&native, &error, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
            0);
        assert_int_equal(report.outcome, i ? WASMCACHE_HIT : WASMCACHE_COMPILED);
        assert_ptr_equal(error, &untouched);
        assert_int_equal(r->engine.live_modules, 1);
        assert_true(fake_module_is(native, WASMCACHE_MODULE, 1, wasm, strlen(wasm)));
        r->engine.table.module_free(WASMCACHE_MODULE, native);
    }
}

/* ---- options of a get ---- */

static void recompile_does_not_look_and_replaces(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    ino_t before;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    before = scratch_inode(rig_entry(r, wasm));
    fake_engine_reset(&r->engine);
    rig_forget_events(r);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_RECOMPILE);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(r->engine.compiles, 1);
    assert_int_equal(r->engine.files + r->engine.deserializes, 0);
    assert_string_equal(r->events.log, "saved,");
    assert_int_not_equal(scratch_inode(rig_entry(r, wasm)), before);
    assert_string_equal(tree(r), tree_of_one(r));
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

static void no_save_compiles_and_leaves_nothing(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    rig_open(r);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_NO_SAVE, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(report.save_error, WASMCACHE_EOFF);
    assert_int_equal(r->engine.serializes, 0);
    assert_string_equal(tree(r), "");
    /* It does look. */
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_NO_SAVE, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

/* ---- no cache ---- */

static void without_a_cache_gets_compile(void **state)
{
    struct rig *r = *state;
    enum { NULL_CACHE, OFF_CACHE, CLOSED_CACHE, WAYS };

    for (int way = 0; way < WAYS; way++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_key key = rig_key(wasm);
        wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
        wasmcache_module *module = NULL;

        r->options.dir = way == OFF_CACHE ? NULL : r->dir;
        if (way == NULL_CACHE) {
            assert_int_equal(
                wasmcache_attach(&r->wc, NULL, &r->engine.table, &r->engine, &r->attach), 0);
        } else {
            rig_open(r);
        }
        if (way == CLOSED_CACHE) {
            assert_int_equal(rig_get(r, wasm, NULL), 0);
            wasmcache_close(r->cache);
            r->cache = NULL;
        } else {
            assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
            assert_int_equal(info.error, WASMCACHE_EOFF);
            assert_string_equal(info.engine_namespace, "");
        }
        fake_engine_reset(&r->engine);
        rig_forget_events(r);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason, WASMCACHE_REASON_CACHE_OFF);
        assert_int_equal(report.save_error, WASMCACHE_EOFF);
        assert_int_equal(report.key.length, 0);
        assert_int_equal(report.wasm_bytes, strlen(wasm));
        assert_int_equal(r->engine.compiles, 1);
        assert_int_equal(r->engine.serializes + r->engine.files + r->engine.deserializes, 0);
        assert_int_equal(wasmcache_load(&module, r->wc, WASMCACHE_MODULE, &key, &report),
                         WASMCACHE_EOFF);
        assert_int_equal(report.reason, WASMCACHE_REASON_CACHE_OFF);
        assert_null(module);
        assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), WASMCACHE_EOFF);
        assert_int_equal(rig_save(r, wasm, &report), WASMCACHE_EOFF);
        assert_string_equal(r->events.log, "");
        rig_close(r);
    }
}

static void a_null_attachment_misses_and_cannot_compile(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    wasmcache_key key = rig_key(wasm);
    (void)r;
    assert_int_equal(wasmcache_get(&module, NULL, WASMCACHE_MODULE, &source, NULL, &report),
                     WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_load(&module, NULL, WASMCACHE_MODULE, &key, &report),
                     WASMCACHE_EOFF);
    assert_int_equal(wasmcache_contains(NULL, WASMCACHE_MODULE, &key), WASMCACHE_EOFF);
    assert_null(module);
    wasmcache_detach(NULL);
    wasmcache_close(NULL);
}

/* ---- flags of a cache ---- */

static void a_read_only_cache_hits_and_never_writes(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key = rig_key(wasm);
    ino_t inode;

    /* It does not make the directory. */
    r->options.flags = WASMCACHE_READ_ONLY;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EOFF);
    assert_false(scratch_exists(r->dir));
    rig_close(r);

    r->options.flags = 0;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    rig_close(r);
    r->options.flags = WASMCACHE_READ_ONLY;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(rig_get(r, other, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(rig_save(r, other, &report), WASMCACHE_EIO);
    assert_string_equal(tree(r), tree_of_one(r));
    assert_int_equal(wasmcache_remove(r->cache, rig_namespace(r), &key), WASMCACHE_EIO);

    /* Not even a damaged entry is removed. */
    spoil(rig_entry(r, wasm), SPOIL_ARTIFACT);
    inode = scratch_inode(rig_entry(r, wasm));
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, &report), 0);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_CORRUPT);
}

static void reproducible_entries_have_the_same_bytes(void **state)
{
    struct rig *r = *state;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_key key = rig_key(wasm);
    char *first = scratch_in(&r->scratch, "first");

    r->options.flags = WASMCACHE_REPRODUCIBLE;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rename(rig_entry(r, wasm), first), 0);
    rig_reopen(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_true(scratch_same(first, rig_entry(r, wasm)));
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, 0), 0);
    assert_int_equal(entry.created, 0);
    assert_int_equal(entry.compile_ns, 0);
    assert_int_equal(entry.wasm_bytes, strlen(wasm));

    /* Without the flag the entry knows its age, so they differ. */
    rig_close(r);
    assert_int_equal(unlink(scratch_in(&r->scratch, "first")), 0);
    scratch_remove(r->dir);
    r->options.flags = 0;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, 0), 0);
    assert_true(entry.created > 1600000000);
    assert_true(entry.compile_ns > 0);
}

static void modes_are_as_the_share_says(void **state)
{
    struct rig *r = *state;
    static const struct {
        wasmcache_share share;
        mode_t dir, file, tag;
    } table[] = {
        {WASMCACHE_SHARE_PRIVATE, 0700, 0400, 0600},
        {WASMCACHE_SHARE_READABLE, 0755, 0444, 0644},
        {WASMCACHE_SHARE_GROUP, 0750, 0440, 0640},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
        r->options.share = table[i].share;
        scratch_remove(r->dir);
        rig_open(r);
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        assert_int_equal(scratch_mode(r->dir), table[i].dir);
        assert_int_equal(scratch_mode(rig_namespace_dir(r)), table[i].dir);
        assert_int_equal(scratch_mode(rig_entry(r, wasm)), table[i].file);
        assert_int_equal(scratch_mode(scratch_in(&r->scratch, "cache/CACHEDIR.TAG")), table[i].tag);
        rig_close(r);
    }
}

/* Where `call` is in the log of calls; they are searched from `from` on. */
static const char *called(const char *from, const char *call)
{
    const char *text = from ? strstr(from, call) : NULL;
    return text ? text + strlen(call) : NULL;
}

static void durable_syncs_before_the_name_and_the_folder_after(void **state)
{
    struct rig *r = *state;
    const char *log;

    for (unsigned v = 0; v < seam_variant_count; v++) {
        const unsigned lacking = seam_variants[v].lacking;
        const char *link = lacking & (WC_OS_NO_LINK | WC_OS_NO_NOREPLACE) &&
                                   (lacking & WC_OS_NO_LINK) && (lacking & WC_OS_NO_NOREPLACE)
                               ? ",rename,"
                           : lacking & WC_OS_NO_LINK                      ? ",rename_noreplace,"
                           : lacking & (WC_OS_NO_TMPFILE | WC_OS_NO_PROC) ? ",link,"
                                                                          : ",link_unnamed,";
        wc_os_lacking = lacking;
        scratch_remove(r->dir);
        r->options.flags = WASMCACHE_DURABLE;
        rig_open(r);
        assert_int_equal(rig_get(r, other, NULL), 0); /* makes the folders */
        seam_record();
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        seam_off();
        log = seam_log();
        log = called(log, ",write,write,chmod,sync_data,");
        assert_non_null(log);
        assert_null(called(log, ",write,")); /* nothing after the sync */
        assert_null(called(log, ",chmod,"));
        log = called(log - 1, link);
        assert_non_null(log);
        log = called(log - 1, ",sync_dir,");
        assert_non_null(log);
        rig_close(r);

        r->options.flags = 0;
        rig_open(r);
        scratch_remove(r->dir);
        seam_record();
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        seam_off();
        assert_null(strstr(seam_log(), "sync"));
        rig_close(r);
    }
}

static void what_was_not_written_or_synced_is_not_published(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    /* flush: a file system that tells of a failed write when the file is closed. */
    static const char *const calls[] = {"write", "chmod", "sync_data", "flush"};

    r->options.flags = WASMCACHE_DURABLE;
    for (unsigned i = 0; i < seam_variant_count * 4; i++) {
        const unsigned v = i / 4;
        wc_os_lacking = seam_variants[v].lacking;
        scratch_remove(r->dir);
        rig_open(r);
        assert_int_equal(rig_get(r, other, NULL), 0); /* makes the folders, and the tag */
        assert_int_equal(unlink(rig_entry(r, other)), 0);
        rig_forget_events(r);
        seam_fail_call(calls[i % 4], 1, EIO);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        seam_off();
        assert_true(seam_met());
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, WASMCACHE_EIO);
        assert_string_equal(r->events.log, "miss,save-failed,");
        assert_string_equal(tree(r),
                            scratch_text(&r->scratch, "CACHEDIR.TAG\n%s/\n", rig_namespace(r)));
        rig_close(r);
    }
}

/* ---- saves that fail ---- */

static void a_failed_save_is_no_failed_get(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    const wasmcache_error_detail *last;
    char *path = scratch_in(&r->scratch, "absent");
    wasmcache_key key;

    rig_open(r);
    /* The last error is that of a call that failed, which none of these is. */
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path), WASMCACHE_EIO);

    r->engine.fail_serialize = 1;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EENGINE);
    assert_string_equal(r->events.log, "miss,save-failed,");
    assert_non_null(
        strstr(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].message, "told to fail: serialize"));

    r->engine.fail_serialize = 2;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, WASMCACHE_EENGINE);
    assert_true(strlen(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].message) > 0);

    r->engine.fail_serialize = 0;
    r->engine.empty_artifact = 1;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, WASMCACHE_EENGINE);
    r->engine.empty_artifact = 0;
    assert_string_equal(tree(r),
                        scratch_text(&r->scratch, "CACHEDIR.TAG\n%s/\n", rig_namespace(r)));

    seam_fail_call("write", 1, ENOSPC);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    seam_off();
    assert_int_equal(report.save_error, WASMCACHE_EFULL);
    assert_int_equal(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].system_errno, ENOSPC);
    assert_string_equal(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].path, rig_entry(r, wasm));
    assert_string_equal(tree(r),
                        scratch_text(&r->scratch, "CACHEDIR.TAG\n%s/\n", rig_namespace(r)));

    last = wasmcache_last_error();
    assert_int_equal(last->error, WASMCACHE_EIO);
    assert_int_equal(last->system_errno, ENOENT);
    assert_string_equal(last->path, path);
    assert_string_equal(last->call, "open");
}

static void an_engine_that_makes_other_code_than_before_saves_nothing(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    rig_open(r);
    (void)rig_namespace(r); /* the first use */
    r->engine.configuration = 2;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, WASMCACHE_EMISMATCH);
    assert_string_equal(r->events.log, "miss,save-failed,");
    assert_string_equal(tree(r), tree_of_none(r));
    r->engine.configuration = 1;
    r->engine.fail_probe = 1;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, WASMCACHE_EENGINE);
    assert_string_equal(tree(r), tree_of_none(r));
    r->engine.fail_probe = 0;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
}

/* ---- the engine's errors ---- */

static void the_engines_own_error_comes_out(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes("!", 1);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    void *native = NULL, *error = NULL;
    char text[64];

    rig_open(r);
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
                     WASMCACHE_EENGINE);
    assert_null(module);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EENGINE);
    assert_non_null(strstr(wasmcache_last_error()->message, "told to fail: compile"));
    assert_int_equal(r->engine.live_errors, 0);

    /* The owned form hands the error itself over. */
    assert_int_equal(
        wasmcache_get_native(&native, &error, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
        WASMCACHE_EENGINE);
    assert_null(native);
    assert_non_null(error);
    assert_int_equal(r->engine.live_errors, 1);
    r->engine.table.error_message(error, text, sizeof(text));
    assert_non_null(strstr(text, "told to fail: compile"));
    assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EENGINE);
    assert_non_null(strstr(wasmcache_last_error()->message, "its own error"));
    r->engine.table.error_free(error);

    /* An engine that gives no error object. */
    r->engine.fail_compile = 2;
    error = &text;
    assert_int_equal(
        wasmcache_get_native(&native, &error, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
        WASMCACHE_EENGINE);
    assert_null(error);
    assert_int_equal(rig_get(r, wasm, &report), WASMCACHE_EENGINE);
    assert_true(strlen(wasmcache_last_error()->message) > 0);
    assert_string_equal(tree(r), tree_of_none(r));
}

static void an_engine_without_a_compiler_only_hits(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    uint8_t fingerprint[32];

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    memcpy(fingerprint, info.fingerprint, sizeof(fingerprint));
    r->attach.fingerprint = fingerprint;
    r->engine.table.compile = NULL;
    r->engine.table.serialize = NULL;
    r->engine.table.probe = NULL;
    rig_reopen(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(rig_get(r, other, &report), WASMCACHE_EMISS);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
}

static void when_the_engine_refuses_the_file_it_gets_the_bytes(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    ino_t inode;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    inode = scratch_inode(rig_entry(r, wasm));
    for (int how = 1; how <= 2; how++) {
        fake_engine_reset(&r->engine);
        rig_forget_events(r);
        r->engine.fail_file = how;
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
        assert_int_equal(r->engine.files, 1);
        assert_int_equal(r->engine.deserializes, 1);
        assert_int_equal(r->engine.compiles, 0);
        assert_string_equal(r->events.log, "fallback,hit,");
        assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
    }
}

static void what_the_engine_refuses_stays_until_the_next_save_replaces_it(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char *kept = scratch_in(&r->scratch, "kept");
    ino_t inode;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(link(rig_entry(r, wasm), kept), 0);
    inode = scratch_inode(kept);
    r->engine.fail_file = r->engine.fail_bytes = 1;

    /* Not replaced: it is still the same file. */
    fake_engine_reset(&r->engine);
    rig_forget_events(r);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_NO_SAVE, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_ENGINE_REFUSED);
    assert_int_equal(r->engine.files, 1);
    assert_int_equal(r->engine.deserializes, 1);
    assert_string_equal(r->events.log, "miss,");
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EENGINE);
    assert_int_equal(report.reason, WASMCACHE_REASON_ENGINE_REFUSED);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);

    /* Replaced in one step: the name is never without a sound entry. */
    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        inode = scratch_inode(rig_entry(r, wasm));
        rig_forget_events(r);
        seam_record();
        assert_int_equal(rig_get(r, wasm, &report), 0);
        seam_off();
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason, WASMCACHE_REASON_ENGINE_REFUSED);
        assert_int_equal(report.save_error, 0);
        assert_string_equal(r->events.log, "miss,saved,");
        assert_int_not_equal(scratch_inode(rig_entry(r, wasm)), inode);
        assert_null(strstr(seam_log(), "unlink"));
        assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
        assert_string_equal(tree(r), tree_of_one(r));
    }
    r->engine.fail_file = r->engine.fail_bytes = 0;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

/* ---- entries that are no good ---- */

static void bad_entries_are_misses_and_are_replaced(void **state)
{
    struct rig *r = *state;
    char *held = scratch_in(&r->scratch, "held");

    rig_open(r);
    for (enum spoil how = 0; how < SPOIL_COUNT; how++) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_key key = rig_key(wasm);
        const wasmcache_reason reason = spoil_reason(how);
        unsigned open_before = scratch_descriptors();
        char *path = rig_entry(r, wasm);
        ino_t bad;

        assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, NULL), 0);
        spoil(path, how);
        bad = scratch_inode(path);
        assert_int_equal(link(path, held), 0); /* or its number would be used again */
        /* Without an engine it is not known which one and which kind is wanted. */
        assert_int_equal(rig_state(r, wasm), how == SPOIL_FINGERPRINT || how == SPOIL_KIND
                                                 ? WASMCACHE_REASON_NONE
                                                 : reason);
        /* contains reads all but the artifact. */
        assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key) == 0,
                         how == SPOIL_ARTIFACT);

        fake_engine_reset(&r->engine);
        rig_forget_events(r);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        if (report.reason != reason || report.outcome != WASMCACHE_COMPILED || report.save_error)
            fail_msg("spoilt %s: %s, %s, save %d", spoil_name(how),
                     wasmcache_outcome_name(report.outcome), wasmcache_reason_name(report.reason),
                     report.save_error);
        /* Nothing of it reached the engine. */
        assert_int_equal(r->engine.files + r->engine.deserializes, 0);
        assert_int_equal(r->engine.compiles, 1);
        assert_string_equal(r->events.log, reason == WASMCACHE_REASON_CORRUPT
                                               ? "miss,removed,saved,"
                                               : "miss,saved,");
        assert_int_not_equal(scratch_inode(path), bad);
        assert_int_equal(unlink(held), 0);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
        if (how == SPOIL_SYMLINK) {
            /* What it pointed to was not touched. */
            char *target = scratch_text(&r->scratch, "%s.target", path);
            assert_int_equal(scratch_mode(target), 0400);
            assert_int_equal(unlink(target), 0);
        }
        assert_string_equal(tree(r), tree_of_one(r));
        assert_int_equal(scratch_descriptors(), open_before);
    }
}

static void a_damaged_entry_is_removed_even_if_nothing_is_saved(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    spoil(rig_entry(r, wasm), SPOIL_ARTIFACT);
    rig_forget_events(r);
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_ECORRUPT);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    assert_string_equal(r->events.log, "miss,removed,");
    assert_string_equal(r->events.last[WASMCACHE_EVENT_REMOVED].engine_namespace, rig_namespace(r));
    assert_false(scratch_exists(rig_entry(r, wasm)));
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EMISS);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
}

static void a_newer_entry_stays_as_it_is(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key = rig_key(wasm);
    char *before = scratch_in(&r->scratch, "before");
    ino_t inode;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    spoil(rig_entry(r, wasm), SPOIL_NEWER);
    inode = scratch_inode(rig_entry(r, wasm));
    assert_int_equal(link(rig_entry(r, wasm), scratch_in(&r->scratch, "linked")), 0);
    {
        size_t size;
        uint8_t *bytes = scratch_read(rig_entry(r, wasm), &size);
        scratch_write(before, bytes, size, 0600);
        free(bytes);
    }
    rig_forget_events(r);
    for (unsigned flags = 0; flags <= WASMCACHE_GET_RECOMPILE; flags++) {
        assert_int_equal(rig_get_with(r, wasm, flags, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason,
                         flags ? WASMCACHE_REASON_RECOMPILE : WASMCACHE_REASON_NEWER_FORMAT);
        assert_int_equal(report.save_error, WASMCACHE_ENEWER);
    }
    assert_string_equal(r->events.log, "miss,save-failed,save-failed,");
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_ENEWER);
    assert_int_equal(rig_save(r, wasm, &report), WASMCACHE_ENEWER);
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), WASMCACHE_ENEWER);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
    assert_true(scratch_same(before, rig_entry(r, wasm)));
    assert_string_equal(tree(r), tree_of_one(r));
}

static void with_a_shared_id_what_does_not_match_is_others(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    ino_t inode;

    r->attach.engine_id = "shared-id";
    rig_open(r);
    assert_string_equal(rig_namespace(r), "shared-id-v1");
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    inode = scratch_inode(rig_entry(r, wasm));
    r->engine.configuration = 2;
    rig_reopen(r);
    rig_forget_events(r);
    for (unsigned flags = 0; flags <= WASMCACHE_GET_RECOMPILE; flags++) {
        assert_int_equal(rig_get_with(r, wasm, flags, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.save_error, WASMCACHE_EMISMATCH);
    }
    assert_string_equal(r->events.log, "miss,save-failed,save-failed,");
    assert_int_equal(r->events.last[WASMCACHE_EVENT_MISS].reason, WASMCACHE_REASON_MISMATCHED);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
    /* So is what another program saved there, which has no trailer of ours. */
    scratch_write(rig_entry(r, wasm), "not by us", 9, 0400);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.reason, WASMCACHE_REASON_MISMATCHED);
    assert_int_equal(report.save_error, WASMCACHE_EMISMATCH);
    {
        size_t size;
        uint8_t *bytes = scratch_read(rig_entry(r, wasm), &size);
        assert_int_equal(size, 9);
        assert_memory_equal(bytes, "not by us", 9);
        free(bytes);
    }
    assert_int_equal(unlink(rig_entry(r, wasm)), 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    /* A damaged one is nobody's. */
    spoil(rig_entry(r, wasm), SPOIL_ARTIFACT);
    spoil(rig_entry(r, wasm), SPOIL_FOOTER);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

static void configurations_lie_side_by_side(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    for (unsigned round = 0; round < 2; round++) {
        for (unsigned configuration = 1; configuration <= 3; configuration++) {
            r->engine.configuration = configuration;
            rig_open(r);
            assert_int_equal(rig_get(r, wasm, &report), 0);
            assert_int_equal(report.outcome, round ? WASMCACHE_HIT : WASMCACHE_COMPILED);
            rig_close(r);
        }
    }
    assert_int_equal(r->engine.compiles, 3);
}

static void an_unreadable_entry_is_not_removed(void **state)
{
    struct rig *r = *state;
    static const int errors[] = {EIO, EMFILE, EACCES, ENOMEM};
    char *kept = scratch_in(&r->scratch, "kept");
    unsigned runs = 0;
    ino_t inode;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(link(rig_entry(r, wasm), kept), 0);
    inode = scratch_inode(kept);
    for (size_t e = 0; e < sizeof(errors) / sizeof(*errors); e++) {
        for (int sticky = 0; sticky <= 1; sticky++) {
            for (unsigned nth = 1;; nth++) {
                wasmcache_report report = WASMCACHE_REPORT_INIT;
                unsigned open_before = scratch_descriptors();
                int rc;
                seam_fail(nth, errors[e], sticky);
                rc = rig_load(r, wasm, &report);
                seam_off();
                if (rc != 0 && rc != WASMCACHE_EIO && rc != WASMCACHE_ENOMEM)
                    fail_msg("call %u of %s fails with %s: load returns %s", nth, seam_log(),
                             strerror(errors[e]), wasmcache_error_name(rc));
                if (rc)
                    assert_true(report.reason == WASMCACHE_REASON_UNREADABLE ||
                                report.reason == WASMCACHE_REASON_CACHE_OFF);
                seam_fail(nth, errors[e], sticky);
                assert_int_equal(rig_get(r, wasm, &report), 0);
                seam_off();
                assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
                assert_int_equal(scratch_descriptors(), open_before);
                runs++;
                if (!seam_met())
                    break;
            }
        }
    }
    assert_true(scratch_same(kept, rig_entry(r, wasm)));
    assert_string_equal(tree(r), tree_of_one(r));
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    printf("unreadable in %u ways: 0 entries lost\n", runs);
}

static void a_component_is_not_the_module_of_the_same_bytes(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key = rig_key(wasm);
    wasmcache_module *module = NULL;

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), 0);
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_COMPONENT, &key), WASMCACHE_EMISMATCH);
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_COMPONENT, &source, NULL, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_MISMATCHED);
    assert_int_equal(report.save_error, 0);
    assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_COMPONENT, 1, wasm,
                               strlen(wasm)));
    wasmcache_module_release(module);
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_COMPONENT, &source, NULL, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    wasmcache_module_release(module);

    /* An engine built without components. */
    r->engine.table.kinds = 1u << WASMCACHE_MODULE;
    rig_reopen(r);
    module = NULL;
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_COMPONENT, &source, NULL, &report),
                     WASMCACHE_EMISUSE);
    assert_null(module);
}

/* ---- the caller has the key ---- */

static void save_load_and_contains(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key = rig_key(wasm), short_key;
    wasmcache_module *module = NULL;
    unsigned open_before;
    void *native;
    ino_t inode;

    rig_open(r);
    open_before = scratch_descriptors();
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), WASMCACHE_EMISS);
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EMISS);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EMISS);
    rig_forget_events(r);

    assert_int_equal(rig_save(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_true(wasmcache_key_equal(&report.key, &key));
    assert_true(report.artifact_bytes > 0);
    assert_string_equal(r->events.log, "saved,");
    assert_int_equal(r->engine.compiles, 0);
    assert_string_equal(tree(r), tree_of_one(r));
    inode = scratch_inode(rig_entry(r, wasm));

    /* A sound one stays. */
    rig_forget_events(r);
    assert_int_equal(rig_save(r, wasm, &report), 0);
    assert_string_equal(r->events.log, "kept,");
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);

    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &key), 0);
    assert_int_equal(rig_load(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.wasm_bytes, 0); /* save was not told */
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.wasm_bytes, strlen(wasm));
    assert_int_equal(r->engine.compiles, 0);

    /* Under a key of another algorithm it is another entry. */
    assert_int_equal(wasmcache_key_from_bytes(&short_key, WASMCACHE_KEY_XXH64, wasm, strlen(wasm)),
                     0);
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, &short_key), WASMCACHE_EMISS);
    native = fake_module_new(&r->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    assert_int_equal(wasmcache_save(r->wc, WASMCACHE_MODULE, &short_key, native, NULL, NULL), 0);
    r->engine.table.module_free(WASMCACHE_MODULE, native);
    assert_int_equal(wasmcache_load(&module, r->wc, WASMCACHE_MODULE, &short_key, NULL), 0);
    wasmcache_module_release(module);

    r->engine.fail_serialize = 1;
    assert_int_equal(rig_save(r, other, &report), WASMCACHE_EENGINE);
    assert_int_equal(report.save_error, WASMCACHE_EENGINE);
    r->engine.fail_serialize = 0;
    assert_int_equal(rig_load(r, other, &report), WASMCACHE_EMISS);
    assert_int_equal(scratch_descriptors(), open_before);
}

static int save_with(struct rig *r, const wasmcache_save_options *options, wasmcache_report *report)
{
    wasmcache_key key = rig_key(wasm);
    void *native = fake_module_new(&r->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    int rc = wasmcache_save(r->wc, WASMCACHE_MODULE, &key, native, options, report);
    r->engine.table.module_free(WASMCACHE_MODULE, native);
    return rc;
}

static void options_of_a_save(void **state)
{
    struct rig *r = *state;
    wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_key key = rig_key(wasm);
    char *held = scratch_in(&r->scratch, "held");

    options.wasm_bytes = 1234;
    options.compile_ns = 5678;
    for (int reproducible = 0; reproducible <= 1; reproducible++) {
        r->options.flags = reproducible ? WASMCACHE_REPRODUCIBLE : 0;
        rig_open(r);
        options.flags = reproducible ? WASMCACHE_SAVE_REPLACE : 0;
        assert_int_equal(save_with(r, &options, &report), 0);
        assert_int_equal(report.wasm_bytes, 1234);
        assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, 0), 0);
        assert_int_equal(entry.wasm_bytes, 1234);
        assert_int_equal(entry.compile_ns, reproducible ? 0 : 5678);
        rig_close(r);
    }

    /* Only who is told to replaces a sound one. */
    rig_open(r);
    assert_int_equal(link(rig_entry(r, wasm), held), 0);
    options.flags = 0;
    options.wasm_bytes = 99;
    assert_int_equal(save_with(r, &options, &report), 0);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), scratch_inode(held));
    options.flags = WASMCACHE_SAVE_REPLACE;
    assert_int_equal(save_with(r, &options, &report), 0);
    assert_int_not_equal(scratch_inode(rig_entry(r, wasm)), scratch_inode(held));
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, 0), 0);
    assert_int_equal(entry.wasm_bytes, 99);
    assert_string_equal(tree(r), tree_of_one(r));

    rig_forget_events(r);
    options.flags = 2;
    assert_int_equal(save_with(r, &options, &report), WASMCACHE_EMISUSE);
    options.flags = 0;
    options.size = 8;
    assert_int_equal(save_with(r, &options, &report), WASMCACHE_EMISUSE);
    assert_int_equal(report.save_error, WASMCACHE_EMISUSE);
    assert_string_equal(r->events.log, "");
}

static void who_is_told_to_replace_replaces_what_cannot_be_read(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char *held = scratch_in(&r->scratch, "held");

    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(link(rig_entry(r, wasm), held), 0);
    seam_fail_call("open_read", 1, EACCES);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.reason, WASMCACHE_REASON_UNREADABLE);
    assert_int_equal(report.save_error, WASMCACHE_EIO);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), scratch_inode(held));
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, &report), 0);
    seam_off();
    assert_int_equal(report.save_error, 0);
    assert_int_not_equal(scratch_inode(rig_entry(r, wasm)), scratch_inode(held));
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

/* ---- misuse ---- */

static void misuse_touches_nothing(void **state)
{
    struct rig *r = *state;
    const wasmcache_report stale = {.size = sizeof(stale), .outcome = WASMCACHE_HIT};
    wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_module *module = NULL;
    wasmcache_key key = rig_key(wasm), no_key;
    wasmcache_report report = stale;
    void *native = &report, *error = &report;
    unsigned open_before;

    memset(&no_key, 0, sizeof(no_key));
    rig_open(r);
    open_before = scratch_descriptors();
    rig_forget_events(r);

#define MISUSE(call)                                                                               \
    do {                                                                                           \
        report = stale;                                                                            \
        assert_int_equal(call, WASMCACHE_EMISUSE);                                                 \
        assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EMISUSE);                        \
        assert_true(strlen(wasmcache_last_error()->message) > 0);                                  \
        assert_int_equal(report.outcome, WASMCACHE_FAILED);                                        \
        assert_int_equal(report.reason, WASMCACHE_REASON_SOURCE);                                  \
    } while (0)
#define GET(out, wc, kind, src, opt) wasmcache_get(out, wc, kind, src, opt, &report)

    MISUSE(GET(NULL, r->wc, WASMCACHE_MODULE, &source, NULL));
    MISUSE(GET(&module, NULL, WASMCACHE_MODULE, &source, NULL));
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, NULL, NULL));
    MISUSE(GET(&module, r->wc, (wasmcache_kind)0, &source, NULL));
    MISUSE(GET(&module, r->wc, (wasmcache_kind)3, &source, NULL));
    MISUSE(GET(&module, r->wc, (wasmcache_kind)64, &source, NULL));
    options.flags = 16;
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, &options));
    options.flags = 0;
    options.size = 0;
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, &options));
    options.size = SIZE_MAX;
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, &options));
    source.size = 0;
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, NULL));
    source = wasmcache_source_bytes(NULL, 1);
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, NULL));
    source = wasmcache_source_bytes(wasm, (size_t)PTRDIFF_MAX + 1);
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, NULL));
    source = wasmcache_source_bytes(wasm, SIZE_MAX);
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, NULL));
    source = wasmcache_source_path(NULL);
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, NULL));
    source = wasmcache_source_path("");
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, NULL));
    source = wasmcache_source_fd(-1);
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, NULL));
    source = wasmcache_source_empty((wasmcache_source_type)9);
    MISUSE(GET(&module, r->wc, WASMCACHE_MODULE, &source, NULL));
    source = wasmcache_source_bytes(wasm, strlen(wasm));
    MISUSE(wasmcache_get_native(NULL, &error, r->wc, WASMCACHE_MODULE, &source, NULL, &report));
    MISUSE(wasmcache_get_native(&native, NULL, r->wc, WASMCACHE_MODULE, &source, NULL, &report));
    MISUSE(wasmcache_get_native(&native, &error, NULL, WASMCACHE_MODULE, &source, NULL, &report));

    MISUSE(wasmcache_load(NULL, r->wc, WASMCACHE_MODULE, &key, &report));
    MISUSE(wasmcache_load(&module, r->wc, WASMCACHE_MODULE, NULL, &report));
    MISUSE(wasmcache_load(&module, r->wc, WASMCACHE_MODULE, &no_key, &report));
    MISUSE(wasmcache_load(&module, r->wc, (wasmcache_kind)0, &key, &report));
    MISUSE(wasmcache_save(r->wc, WASMCACHE_MODULE, &key, NULL, NULL, &report));
    MISUSE(wasmcache_save(r->wc, WASMCACHE_MODULE, &no_key, &report, NULL, &report));
    no_key = key;
    no_key.length = 31; /* a length that is not the algorithm's */
    MISUSE(wasmcache_load(&module, r->wc, WASMCACHE_MODULE, &no_key, &report));
    assert_int_equal(wasmcache_contains(r->wc, WASMCACHE_MODULE, NULL), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_contains(r->wc, (wasmcache_kind)0, &key), WASMCACHE_EMISUSE);

    /* A report whose size is not set is not written. */
    memset(&report, 0, sizeof(report));
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
                     WASMCACHE_EMISUSE);
    assert_int_equal(report.total_ns, 0);

    assert_null(module);
    assert_ptr_equal(native, &report);
    assert_ptr_equal(error, &report);
    assert_int_equal(r->engine.compiles + r->engine.serializes + r->engine.deserializes, 0);
    assert_string_equal(r->events.log, "");
    assert_string_equal(tree(r), "");
    assert_int_equal(scratch_descriptors(), open_before);
#undef GET
#undef MISUSE
}

static void a_report_of_an_older_header_is_filled_as_far_as_it_goes(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_module *module = NULL;
    wasmcache_report report;

    rig_open(r);
    memset(&report, 0xaa, sizeof(report));
    report.size = offsetof(wasmcache_report, save_error);
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
    wasmcache_module_release(module);
    assert_int_equal(report.size, offsetof(wasmcache_report, save_error));
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal((unsigned)report.save_error, 0xaaaaaaaau);
    assert_true(report.total_ns == 0xaaaaaaaaaaaaaaaau);
}

/* ---- sources ---- */

static int get_source(struct rig *r, const wasmcache_source *source, const char *expected,
                      wasmcache_report *report)
{
    wasmcache_module *module = NULL;
    int rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, source, NULL, report);
    if (rc) {
        assert_null(module);
        assert_int_equal(report->outcome, WASMCACHE_FAILED);
        return rc;
    }
    assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                               r->engine.configuration, expected, strlen(expected)));
    wasmcache_module_release(module);
    return 0;
}

static void paths_and_descriptors_give_the_same_key_as_bytes(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char *path = scratch_in(&r->scratch, "a.wasm"), *link_path = scratch_in(&r->scratch, "link");
    wasmcache_source source = wasmcache_source_path(path);
    unsigned open_before;
    int fd;

    rig_open(r);
    scratch_write(path, wasm, strlen(wasm), 0600);
    open_before = scratch_descriptors();
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.wasm_bytes, strlen(wasm));
    assert_string_equal(tree(r), tree_of_one(r));
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);

    assert_int_equal(symlink("a.wasm", link_path), 0);
    source = wasmcache_source_path(link_path);
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(scratch_descriptors(), open_before);

    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(lseek(fd, 3, SEEK_SET), 3);
    source = wasmcache_source_fd(fd);
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    scratch_remove(r->dir);
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    /* Neither used, nor moved, nor closed. */
    assert_int_equal(lseek(fd, 0, SEEK_CUR), 3);
    close(fd);
    assert_string_equal(tree(r), tree_of_one(r));
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(scratch_descriptors(), open_before);

    /* Also where there is no cache. */
    rig_close(r);
    r->options.dir = NULL;
    rig_open(r);
    source = wasmcache_source_path(path);
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.reason, WASMCACHE_REASON_CACHE_OFF);
}

static void large_sources_are_hashed_in_pieces(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char *path = scratch_in(&r->scratch, "large.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    const size_t piece = 256 * 1024;
    static const size_t around[] = {0, 1, 2};

    rig_open(r);
    for (size_t i = 0; i < sizeof(around) / sizeof(*around); i++) {
        size_t size = 2 * piece + around[i] - 1;
        char *bytes = malloc(size + 1);
        assert_non_null(bytes);
        memset(bytes, 'x', size);
        bytes[size] = '\0';
        scratch_write(path, bytes, size, 0600);
        assert_int_equal(get_source(r, &source, bytes, &report), 0);
        assert_int_equal(report.wasm_bytes, size);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(rig_get(r, bytes, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
        free(bytes);
    }
}

static void sources_that_cannot_be_read_are_the_callers_error(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    char *folder = scratch_in(&r->scratch, "folder"), *fifo = scratch_in(&r->scratch, "fifo"),
         *absent = scratch_in(&r->scratch, "absent"), *file = scratch_in(&r->scratch, "file");
    wasmcache_source source;
    unsigned open_before;
    int fds[2], fd;

    assert_int_equal(mkdir(folder, 0700), 0);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    scratch_write(file, wasm, strlen(wasm), 0600);
    for (int off = 0; off <= 1; off++) {
        r->options.dir = off ? NULL : r->dir;
        rig_open(r);
        open_before = scratch_descriptors();
        source = wasmcache_source_path(absent);
        assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EIO);
        assert_int_equal(report.reason, WASMCACHE_REASON_SOURCE);
        assert_int_equal(wasmcache_last_error()->system_errno, ENOENT);
        assert_string_equal(wasmcache_last_error()->path, absent);
        source = wasmcache_source_path(folder);
        assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EIO);
        assert_int_equal(wasmcache_last_error()->system_errno, EISDIR);
        source = wasmcache_source_path(fifo);
        assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EIO);
        assert_non_null(strstr(wasmcache_last_error()->message, "regular file"));
        source = wasmcache_source_fd(9999);
        assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EIO);
        assert_int_equal(wasmcache_last_error()->system_errno, EBADF);
        assert_int_equal(pipe(fds), 0);
        source = wasmcache_source_fd(fds[0]);
        assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EIO);
        close(fds[0]);
        close(fds[1]);
        fd = open(file, O_WRONLY | O_CLOEXEC);
        source = wasmcache_source_fd(fd);
        assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EIO);
        assert_int_equal(wasmcache_last_error()->system_errno, EBADF);
        close(fd);
        assert_int_equal(scratch_descriptors(), open_before);
        assert_int_equal(r->engine.compiles, 0);
        rig_close(r);
    }
    assert_string_equal(tree(r), "");
}

static void sources_that_fail_while_they_are_read_are_the_callers_error(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "a.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    unsigned open_before;

    scratch_write(path, wasm, strlen(wasm), 0600);
    rig_open(r);
    open_before = scratch_descriptors();
    for (unsigned nth = 1; nth <= 2; nth++) { /* hashing, reading */
        seam_fail_call("pread", nth, EIO);
        assert_int_equal(get_source(r, &source, wasm, &report), WASMCACHE_EIO);
        seam_off();
        assert_int_equal(report.reason, WASMCACHE_REASON_SOURCE);
        assert_string_equal(wasmcache_last_error()->call, "pread");
        assert_int_equal(scratch_descriptors(), open_before);
    }
    assert_int_equal(r->engine.compiles, 0);
    assert_string_equal(tree(r), tree_of_none(r));
}

struct change {
    const char *path;
    const char *content;
    int in_place;
};

static void change_file(void *argument)
{
    const struct change *change = argument;
    if (change->in_place) {
        int fd = open(change->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, change->content, strlen(change->content)),
                         strlen(change->content));
        close(fd);
    } else {
        scratch_write(change->path, change->content, strlen(change->content), 0600);
    }
}

static void a_file_that_changes_is_filed_under_what_was_compiled(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "a.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct change change = {path, other, 1};
    wasmcache_key key = rig_key(other);

    /* Written to between the hash and the read. */
    rig_open(r);
    scratch_write(path, wasm, strlen(wasm), 0600);
    seam_act_call("open_dir", 3, change_file, &change); /* twice before the hash */
    assert_int_equal(get_source(r, &source, other, &report), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_true(wasmcache_key_equal(&report.key, &key));
    assert_int_equal(report.wasm_bytes, strlen(other));
    assert_false(scratch_exists(rig_entry(r, wasm)));
    assert_int_equal(rig_get(r, other, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);

    /* To what the cache knows: no compile. */
    scratch_write(path, wasm, strlen(wasm), 0600);
    fake_engine_reset(&r->engine);
    seam_act_call("open_read", 2, change_file, &change); /* after the hints */
    assert_int_equal(get_source(r, &source, other, &report), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.reason, WASMCACHE_REASON_NONE);
    assert_true(wasmcache_key_equal(&report.key, &key));
    assert_int_equal(r->engine.compiles, 0);

    /* Another file under the path does not matter: it was opened once. */
    scratch_write(path, wasm, strlen(wasm), 0600);
    change.in_place = 0;
    seam_act_call("open_read", 2, change_file, &change); /* after the hints */
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);

    /* Longer and shorter than when its size was asked for. */
    for (int i = 0; i < 2; i++) {
        const char *from = i ? "short" : "a rather long module, longer than the other";
        const char *to = i ? "a module that grew to more than twice its length" : "less";
        change.in_place = 1;
        change.content = to;
        scratch_write(path, from, strlen(from), 0600);
        seam_act_call("pread", 2, change_file, &change);
        assert_int_equal(get_source(r, &source, to, &report), 0);
        seam_off();
        assert_true(seam_met());
        assert_int_equal(rig_get(r, to, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
    }
}

struct store {
    const char *wasm;
    int refuse;
    unsigned fetched, released;
};

static int fetch(const void **bytes, size_t *length, void *payload)
{
    struct store *s = payload;
    s->fetched++;
    if (s->refuse)
        return s->refuse;
    *bytes = s->wasm;
    *length = strlen(s->wasm);
    return 0;
}

static void release(const void *bytes, size_t length, void *payload)
{
    struct store *s = payload;
    assert_ptr_equal(bytes, s->wasm);
    assert_int_equal(length, strlen(s->wasm));
    s->released++;
}

static void a_digest_is_fetched_on_a_miss_only(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct store store = {wasm, 0, 0, 0};
    wasmcache_key key = rig_key(wasm);
    wasmcache_source source = wasmcache_source_sha256(key.bytes, fetch, &store);
    source.release = release;

    rig_open(r);
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.wasm_bytes, strlen(wasm));
    assert_int_equal(store.fetched, 1);
    assert_int_equal(store.released, 1);
    assert_string_equal(tree(r), tree_of_one(r));
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(report.wasm_bytes, strlen(wasm));
    assert_int_equal(store.fetched, 1);
    source.fetch = NULL;
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);

    /* Without fetch a miss is a miss; with one that refuses the caller stopped it. */
    scratch_remove(r->dir);
    assert_int_equal(get_source(r, &source, wasm, &report), WASMCACHE_EMISS);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    source.fetch = fetch;
    store.refuse = 7;
    assert_int_equal(get_source(r, &source, wasm, &report), WASMCACHE_EABORTED);
    assert_int_equal(store.fetched, 2);
    assert_int_equal(store.released, 1);
    store.refuse = 0;

    /* Released too when it does not compile. */
    store.wasm = "!";
    assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EENGINE);
    assert_int_equal(store.fetched, 3);
    assert_int_equal(store.released, 2);
}

static void a_digest_that_lies_is_filed_under_the_truth(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct store store = {other, 0, 0, 0};
    wasmcache_key key = rig_key(wasm), truth = rig_key(other);
    wasmcache_source source = wasmcache_source_sha256(key.bytes, fetch, &store);

    rig_open(r);
    assert_int_equal(get_source(r, &source, other, &report), 0);
    assert_true(wasmcache_key_equal(&report.key, &truth));
    assert_false(scratch_exists(rig_entry(r, wasm)));
    assert_true(scratch_exists(rig_entry(r, other)));

    /* What the fetched bytes really are is known by now: no compile. */
    fake_engine_reset(&r->engine);
    assert_int_equal(get_source(r, &source, other, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(r->engine.compiles, 0);
    assert_int_equal(store.fetched, 2);
}

static void a_foreign_digest_is_filed_under_itself_if_vouched_for(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct store store = {wasm, 0, 0, 0};
    wasmcache_source source = wasmcache_source_empty(WASMCACHE_SOURCE_DIGEST);
    wasmcache_key first, truth = rig_key(wasm);
    source.digest_algorithm = "blake3";
    source.digest = "0123456789abcdef0123456789abcdef";
    source.digest_length = 32;
    source.fetch = fetch;
    source.payload = &store;

    rig_open(r);
    /* Not vouched for: each get fetches, the second does not compile. */
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_true(wasmcache_key_equal(&report.key, &truth));
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(store.fetched, 2);

    source.vouched = 1;
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_false(wasmcache_key_equal(&report.key, &truth));
    first = report.key;
    assert_int_equal(store.fetched, 3);
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_true(wasmcache_key_equal(&report.key, &first));
    assert_int_equal(store.fetched, 3);

    /* The name of the algorithm is part of the key, and so is every byte. */
    source.digest_algorithm = "blake2";
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    source.digest_length = 31;
    assert_int_equal(get_source(r, &source, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);

    /* Digests that are none. */
    {
        static const struct {
            const char *algorithm;
            const void *digest;
            size_t length;
        } bad[] = {
            {NULL, "x", 1},
            {"", "x", 1},
            {"blake3", NULL, 32},
            {"blake3", "x", 0},
            {"blake3", "x", 129},
            {"sha256", "0123456789abcdef0123456789abcdef", 31},
            {"blake3", "x", SIZE_MAX},
        };
        unsigned fetched = store.fetched;
        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
            source.digest_algorithm = bad[i].algorithm;
            source.digest = bad[i].digest;
            source.digest_length = bad[i].length;
            assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EMISUSE);
            assert_int_equal(report.reason, WASMCACHE_REASON_SOURCE);
        }
        /* Nor where there is no cache to look in. */
        rig_close(r);
        r->options.dir = NULL;
        rig_open(r);
        assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EMISUSE);
        assert_int_equal(store.fetched, fetched);
    }
}

static int fetch_nothing(const void **bytes, size_t *length, void *payload)
{
    (void)payload;
    *bytes = NULL;
    *length = 5;
    return 0;
}

static void a_fetch_that_gives_a_length_without_bytes_is_refused(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_key key = rig_key(wasm);
    wasmcache_source source = wasmcache_source_sha256(key.bytes, fetch_nothing, NULL);

    rig_open(r);
    assert_int_equal(get_source(r, &source, "", &report), WASMCACHE_EABORTED);
    assert_int_equal(r->engine.compiles, 0);
    assert_string_equal(tree(r), tree_of_none(r));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_rig, fixture_end)
    const struct CMUnitTest tests[] = {
        TEST(a_miss_compiles_and_saves),
        TEST(the_second_get_is_a_hit_without_a_compile),
        TEST(without_proc_or_a_file_call_the_bytes_are_handed_over),
        TEST(an_empty_module_is_a_module),
        TEST(large_artifacts_are_written_in_pieces_and_come_back),
        TEST(modules_are_counted),
        TEST(the_owned_form_gives_the_module_away),
        TEST(recompile_does_not_look_and_replaces),
        TEST(no_save_compiles_and_leaves_nothing),
        TEST(without_a_cache_gets_compile),
        TEST(a_null_attachment_misses_and_cannot_compile),
        TEST(a_read_only_cache_hits_and_never_writes),
        TEST(reproducible_entries_have_the_same_bytes),
        TEST(modes_are_as_the_share_says),
        TEST(durable_syncs_before_the_name_and_the_folder_after),
        TEST(what_was_not_written_or_synced_is_not_published),
        TEST(a_failed_save_is_no_failed_get),
        TEST(an_engine_that_makes_other_code_than_before_saves_nothing),
        TEST(the_engines_own_error_comes_out),
        TEST(an_engine_without_a_compiler_only_hits),
        TEST(when_the_engine_refuses_the_file_it_gets_the_bytes),
        TEST(what_the_engine_refuses_stays_until_the_next_save_replaces_it),
        TEST(bad_entries_are_misses_and_are_replaced),
        TEST(a_damaged_entry_is_removed_even_if_nothing_is_saved),
        TEST(a_newer_entry_stays_as_it_is),
        TEST(with_a_shared_id_what_does_not_match_is_others),
        TEST(configurations_lie_side_by_side),
        TEST(an_unreadable_entry_is_not_removed),
        TEST(a_component_is_not_the_module_of_the_same_bytes),
        TEST(save_load_and_contains),
        TEST(options_of_a_save),
        TEST(who_is_told_to_replace_replaces_what_cannot_be_read),
        TEST(misuse_touches_nothing),
        TEST(a_report_of_an_older_header_is_filled_as_far_as_it_goes),
        TEST(paths_and_descriptors_give_the_same_key_as_bytes),
        TEST(large_sources_are_hashed_in_pieces),
        TEST(sources_that_cannot_be_read_are_the_callers_error),
        TEST(sources_that_fail_while_they_are_read_are_the_callers_error),
        TEST(a_file_that_changes_is_filed_under_what_was_compiled),
        TEST(a_digest_is_fetched_on_a_miss_only),
        TEST(a_digest_that_lies_is_filed_under_the_truth),
        TEST(a_foreign_digest_is_filed_under_itself_if_vouched_for),
        TEST(a_fetch_that_gives_a_length_without_bytes_is_refused),
    };
    return cmocka_run_group_tests_name("get", tests, NULL, NULL);
}
