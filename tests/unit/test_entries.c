/* SPDX-License-Identifier: Apache-2.0 */
/* Entries without an engine: walks, judgements, clean-ups, and what is in the way of them. */
#define _GNU_SOURCE
#include <errno.h>
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

/* All that a walk gives. */
struct list {
    wasmcache_entry entries[300];
    unsigned count;
    int errors[16];
    char *paths[16]; /* that the errors named */
    unsigned error_count;
};

static void walk(struct rig *r, struct list *list, const char *engine_namespace, unsigned flags)
{
    wasmcache_iterator *it = NULL;
    wasmcache_entry end = WASMCACHE_ENTRY_INIT;
    unsigned open_before = scratch_descriptors();
    int rc = 0;

    list->count = list->error_count = 0;
    assert_int_equal(wasmcache_iterate(&it, r->cache, engine_namespace, flags), 0);
    while (rc != WASMCACHE_EMISS) {
        wasmcache_entry *entry = &list->entries[list->count];
        memset(entry, 0xee, sizeof(*entry));
        entry->size = sizeof(*entry);
        rc = wasmcache_iterator_next(it, entry);
        if (rc == 0) {
            assert_in_range(++list->count, 1, 299);
        } else if (rc != WASMCACHE_EMISS) {
            assert_in_range(list->error_count, 0, 15);
            list->paths[list->error_count] =
                scratch_text(&r->scratch, "%s", wasmcache_last_error()->message);
            list->errors[list->error_count++] = rc;
        }
    }
    /* It stays at its end. */
    assert_int_equal(wasmcache_iterator_next(it, &end), WASMCACHE_EMISS);
    wasmcache_iterator_close(it);
    assert_int_equal(scratch_descriptors(), open_before);
}

static const wasmcache_entry *find(const struct list *list, const char *wasm)
{
    const wasmcache_entry *found = NULL;
    wasmcache_key key = rig_key(wasm);
    for (unsigned i = 0; i < list->count; i++)
        if (wasmcache_key_equal(&list->entries[i].key, &key)) {
            assert_null(found);
            found = &list->entries[i];
        }
    return found;
}

static char *name_of(struct rig *r, int how)
{
    return scratch_text(&r->scratch, "%s module", spoil_name((enum spoil)how));
}

/* ---- what is listed ---- */

static void each_state_is_listed(void **state)
{
    struct rig *r = *state;
    struct list *list = calloc(1, sizeof(*list));
    const unsigned all = SPOIL_DIRECTORY; /* without COUNT, with the good one */

    assert_non_null(list);
    assert_int_equal(rig_get(r, "good", NULL), 0);
    for (int how = 0; how <= SPOIL_DIRECTORY; how++) {
        if (how == SPOIL_COUNT)
            continue;
        assert_int_equal(rig_get(r, name_of(r, how), NULL), 0);
        spoil(rig_entry(r, name_of(r, how)), (enum spoil)how);
    }
    unlink(scratch_text(&r->scratch, "%s.target", rig_entry(r, name_of(r, SPOIL_SYMLINK))));

    for (unsigned flags = 0; flags <= WASMCACHE_CHECK_DIGEST; flags++) {
        walk(r, list, NULL, flags);
        assert_int_equal(list->error_count, 0);
        assert_int_equal(list->count, all + 1);
        for (int how = 0; how <= SPOIL_DIRECTORY; how++) {
            const wasmcache_entry *entry;
            wasmcache_entry again = WASMCACHE_ENTRY_INIT;
            wasmcache_key key;
            wasmcache_reason expected = spoil_reason((enum spoil)how);
            if (how == SPOIL_COUNT)
                continue;
            key = rig_key(name_of(r, how));
            entry = find(list, name_of(r, how));
            assert_non_null(entry);
            /* No engine is asked for here, and without the digest the artifact is not read. */
            if (how == SPOIL_KIND || how == SPOIL_FINGERPRINT || (how == SPOIL_ARTIFACT && !flags))
                expected = WASMCACHE_REASON_NONE;
            if (entry->state != expected)
                fail_msg("spoilt %s is %s", spoil_name((enum spoil)how),
                         wasmcache_reason_name(entry->state));
            assert_string_equal(entry->engine_namespace, rig_namespace(r));
            assert_int_equal(entry->system_errno, 0);
            if (expected != WASMCACHE_REASON_NONE && expected != WASMCACHE_REASON_MISMATCHED) {
                static const uint8_t zero[32];
                assert_memory_equal(entry->fingerprint, zero, 32);
                assert_true(!entry->artifact_bytes && !entry->wasm_bytes && !entry->compile_ns &&
                            !entry->created);
            }
            /* Asked for alone it is the same. */
            assert_int_equal(wasmcache_entry_check(&again, r->cache, rig_namespace(r), &key, flags),
                             0);
            assert_int_equal(again.state, entry->state);
            assert_int_equal(again.file_bytes, entry->file_bytes);
        }
        assert_int_equal(find(list, name_of(r, SPOIL_KIND))->kind, WASMCACHE_COMPONENT);
        assert_int_equal(find(list, name_of(r, SPOIL_EMPTY))->file_bytes, 0);
        assert_int_equal(find(list, "good")->state, WASMCACHE_REASON_NONE);
    }
    free(list);
}

static void a_sound_entry_tells_what_it_is(void **state)
{
    struct rig *r = *state;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_key key = rig_key("good"), absent = rig_key("absent");
    size_t size;

    assert_int_equal(rig_get(r, "good", &report), 0);
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    free(scratch_read(rig_entry(r, "good"), &size));
    assert_int_equal(
        wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, WASMCACHE_CHECK_DIGEST), 0);
    assert_int_equal(entry.size, sizeof(entry));
    assert_int_equal(entry.state, WASMCACHE_REASON_NONE);
    assert_true(wasmcache_key_equal(&entry.key, &key));
    assert_int_equal(entry.kind, WASMCACHE_MODULE);
    assert_string_equal(entry.engine_namespace, rig_namespace(r));
    assert_memory_equal(entry.fingerprint, info.fingerprint, 32);
    assert_int_equal(entry.file_bytes, size);
    assert_int_equal(entry.artifact_bytes, report.artifact_bytes);
    assert_int_equal(entry.wasm_bytes, 4);
    assert_int_equal(entry.compile_ns, report.compile_ns);
    assert_true(entry.created > 1600000000);

    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &absent, 0), 0);
    assert_int_equal(entry.state, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(entry.file_bytes + entry.artifact_bytes, 0);
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, "absent-v1", &key, 0), 0);
    assert_int_equal(entry.state, WASMCACHE_REASON_NOT_FOUND);

    assert_int_equal(wasmcache_entry_check(NULL, r->cache, rig_namespace(r), &key, 0),
                     WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, 2),
                     WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), NULL, 0),
                     WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_entry_check(&entry, NULL, rig_namespace(r), &key, 0),
                     WASMCACHE_EOFF);
    /* An older caller's struct is not written beyond its end. */
    memset(&entry, 0xee, sizeof(entry));
    entry.size = offsetof(wasmcache_entry, file_bytes);
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, 0), 0);
    assert_int_equal(entry.state, WASMCACHE_REASON_NONE);
    assert_true(entry.file_bytes == 0xeeeeeeeeeeeeeeeeu);
}

static void what_cannot_be_read_says_why(void **state)
{
    struct rig *r = *state;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_key key = rig_key("good");
    assert_int_equal(rig_get(r, "good", NULL), 0);
    seam_fail_call("open_read", 1, EMFILE);
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, 0), 0);
    seam_off();
    assert_int_equal(entry.state, WASMCACHE_REASON_UNREADABLE);
    assert_int_equal(entry.system_errno, EMFILE);
}

static void foreign_files_are_passed_over(void **state)
{
    struct rig *r = *state;
    struct list *list = calloc(1, sizeof(*list));
    static const char *const in_root[] = {"README",        ".hidden", "lost+found",
                                          "no-namespace",  "a-v01",   "a-v4294967296",
                                          "with space-v1", "..a-v1"};
    char hex[WASMCACHE_KEY_HEX_SIZE], *lower;
    wasmcache_key key = rig_key("good");
    char *ns;

    assert_non_null(list);
    assert_int_equal(rig_get(r, "good", NULL), 0);
    ns = rig_namespace_dir(r);
    wasmcache_key_to_hex(hex, &key);
    lower = scratch_text(&r->scratch, "%s", hex);
    for (char *c = lower; *c; c++)
        if (*c >= 'A' && *c <= 'F')
            *c = (char)(*c - 'A' + 'a');
#define FILE_IN_NS(...) scratch_write(scratch_text(&r->scratch, __VA_ARGS__), "x", 1, 0600)
    FILE_IN_NS("%s/README", ns);
    FILE_IN_NS("%s/%s", ns, hex);
    FILE_IN_NS("%s/%s.bin", ns, lower);
    FILE_IN_NS("%s/%s.bin.bak", ns, hex);
    FILE_IN_NS("%s/%s.BIN", ns, hex);
    FILE_IN_NS("%s/%.62s.bin", ns, hex);
    FILE_IN_NS("%s/%s00.bin", ns, hex);
    FILE_IN_NS("%s/.bin", ns);
    FILE_IN_NS("%s/.%s.bin", ns, hex);
    FILE_IN_NS("%s/.tmp-0123456789ABCDEF", ns);
    FILE_IN_NS("%s/.old-%s.bin-0123456789ABCDEF", ns, hex);
    for (size_t i = 0; i < sizeof(in_root) / sizeof(*in_root); i++)
        assert_int_equal(mkdir(scratch_text(&r->scratch, "%s/%s", r->dir, in_root[i]), 0777), 0);
    scratch_write(scratch_in(&r->scratch, "cache/file"), "x", 1, 0600);
    walk(r, list, NULL, WASMCACHE_CHECK_DIGEST);
    assert_int_equal(list->error_count, 0);
    assert_int_equal(list->count, 1);
    assert_non_null(find(list, "good"));

    /* The short keys of Wasmer's directories are entries too. */
    FILE_IN_NS("%s/0CC78860D414714C.bin", ns);
    walk(r, list, NULL, 0);
    assert_int_equal(list->count, 2);
#undef FILE_IN_NS
    free(list);
}

static void untrusted_namespaces_are_told_of_and_passed_over(void **state)
{
    struct rig *r = *state;
    struct list *list = calloc(1, sizeof(*list));
    char *dirs[4];

    assert_non_null(list);
    for (unsigned i = 0; i < 4; i++) {
        rig_close(r);
        r->engine.configuration = 1 + i;
        rig_open(r);
        assert_int_equal(rig_get(r, "good", NULL), 0);
        dirs[i] = rig_namespace_dir(r);
    }
    walk(r, list, NULL, 0);
    assert_int_equal(list->count, 4);
    assert_int_equal(chmod(dirs[1], 0777), 0);
    assert_int_equal(rename(dirs[2], scratch_in(&r->scratch, "moved")), 0);
    assert_int_equal(symlink(scratch_in(&r->scratch, "moved"), dirs[2]), 0);
    walk(r, list, NULL, 0);
    assert_int_equal(list->count, 2);
    assert_int_equal(list->error_count, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(list->errors[i], WASMCACHE_EUNTRUSTED);
        assert_true(strstr(list->paths[i], dirs[1]) || strstr(list->paths[i], dirs[2]));
    }
    /* Asked for by name it is refused at once. */
    {
        wasmcache_iterator *it = NULL;
        assert_int_equal(wasmcache_iterate(&it, r->cache, strrchr(dirs[1], '/') + 1, 0),
                         WASMCACHE_EUNTRUSTED);
        assert_null(it);
    }
    assert_int_equal(unlink(dirs[2]), 0);
    free(list);
}

static void one_namespace_alone(void **state)
{
    struct rig *r = *state;
    struct list *list = calloc(1, sizeof(*list));
    const char *first;

    assert_non_null(list);
    assert_int_equal(rig_get(r, "one", NULL), 0);
    assert_int_equal(rig_get(r, "two", NULL), 0);
    first = scratch_text(&r->scratch, "%s", rig_namespace(r));
    rig_close(r);
    r->engine.configuration = 2;
    rig_open(r);
    assert_int_equal(rig_get(r, "three", NULL), 0);
    walk(r, list, first, 0);
    assert_int_equal(list->count, 2);
    assert_non_null(find(list, "one"));
    assert_non_null(find(list, "two"));
    walk(r, list, rig_namespace(r), 0);
    assert_int_equal(list->count, 1);
    assert_non_null(find(list, "three"));
    walk(r, list, "absent-v1", 0);
    assert_int_equal(list->count, 0);
    assert_int_equal(list->error_count, 0);
    free(list);
}

static void many_are_listed_once_each_and_may_be_removed_on_the_way(void **state)
{
    struct rig *r = *state;
    struct list *list = calloc(1, sizeof(*list));
    enum { MANY = 200 };
    wasmcache_iterator *it = NULL;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    unsigned removed = 0;

    assert_non_null(list);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(rig_save(r, scratch_text(&r->scratch, "%u", i), NULL), 0);
    walk(r, list, NULL, 0);
    assert_int_equal(list->count, MANY);
    for (unsigned i = 0; i < MANY; i++)
        assert_non_null(find(list, scratch_text(&r->scratch, "%u", i)));

    assert_int_equal(wasmcache_iterate(&it, r->cache, NULL, 0), 0);
    while (wasmcache_iterator_next(it, &entry) == 0) {
        assert_int_equal(entry.state, WASMCACHE_REASON_NONE);
        assert_int_equal(wasmcache_remove(r->cache, entry.engine_namespace, &entry.key), 0);
        removed++;
    }
    wasmcache_iterator_close(it);
    assert_int_equal(removed, MANY);
    walk(r, list, NULL, 0);
    assert_int_equal(list->count, 0);
    free(list);
}

static unsigned position(const char *log, const char *call)
{
    const char *at = strstr(log, call);
    unsigned n = 1;
    assert_non_null(at);
    for (; log < at; log++)
        n += *log == ',';
    return n;
}

static void a_namespace_that_vanishes_does_not_end_the_walk(void **state)
{
    struct rig *r = *state;
    struct list *list = calloc(1, sizeof(*list));
    unsigned nth;

    assert_non_null(list);
    for (unsigned i = 0; i < 3; i++) {
        rig_close(r);
        r->engine.configuration = 1 + i;
        rig_open(r);
        assert_int_equal(rig_get(r, "good", NULL), 0);
    }
    wc_os_lacking = WC_OS_NO_STRAIGHT; /* step by step */
    seam_record();
    walk(r, list, NULL, 0);
    seam_off();
    assert_int_equal(list->count, 3);
    /* Listed, but gone when it is to be opened. */
    nth = position(seam_log(), "open_dir_at,");
    seam_fail(nth, ENOENT, 0);
    walk(r, list, NULL, 0);
    seam_off();
    wc_os_lacking = 0;
    assert_true(seam_met());
    assert_int_equal(list->error_count, 0);
    assert_int_equal(list->count, 2);
    free(list);
}

static void without_a_directory_there_is_nothing(void **state)
{
    struct rig *r = *state;
    struct list *list = calloc(1, sizeof(*list));
    wasmcache_iterator *it = (wasmcache_iterator *)r;
    wasmcache *cache = r->cache;

    assert_non_null(list);
    walk(r, list, NULL, 0); /* not made yet */
    assert_int_equal(list->count + list->error_count, 0);
    assert_false(scratch_exists(r->dir));
    r->cache = NULL;
    walk(r, list, NULL, 0);
    assert_int_equal(list->count + list->error_count, 0);
    r->cache = cache;

    scratch_write(r->dir, "", 0, 0600); /* off */
    assert_int_equal(wasmcache_iterate(&it, r->cache, NULL, 0), WASMCACHE_EIO);
    assert_ptr_equal(it, r);
    assert_int_equal(wasmcache_clean(r->cache, NULL), WASMCACHE_EIO);

    assert_int_equal(wasmcache_iterate(NULL, r->cache, NULL, 0), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_iterate(&it, r->cache, NULL, 2), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_iterator_next(NULL, &list->entries[0]), WASMCACHE_EMISUSE);
    wasmcache_iterator_close(NULL);
    free(list);
}

static void a_walk_outlives_its_cache(void **state)
{
    struct rig *r = *state;
    wasmcache_iterator *it = NULL;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;

    assert_int_equal(rig_get(r, "good", NULL), 0);
    assert_int_equal(wasmcache_iterate(&it, r->cache, NULL, 0), 0);
    rig_close(r);
    entry.size = 0;
    assert_int_equal(wasmcache_iterator_next(it, &entry), WASMCACHE_EMISUSE);
    entry.size = sizeof(entry);
    (void)wasmcache_iterator_next(it, &entry);
    wasmcache_iterator_close(it);
}

/* ---- clean-ups ---- */

static void a_clean_up_takes_its_own_files_only(void **state)
{
    struct rig *r = *state;
    static const char *const ours[] = {".tmp-0123456789ABCDEF", ".tmp-FFFFFFFFFFFFFFFF"};
    static const char *const others[] = {
        ".tmp-",    ".tmp-0123456789ABCDE",    ".tmp-0123456789abcdef", ".tmp-0123456789ABCDEF0",
        ".nfs0001", ".old-x-0123456789ABCDEF", "tmp-0123456789ABCDEF",  ".old-0123456789ABCDEF"};
    char *ns;
    uint64_t removed = 9;

    assert_int_equal(rig_get(r, "good", NULL), 0);
    ns = rig_namespace_dir(r);
    for (size_t i = 0; i < 2; i++)
        scratch_write(scratch_text(&r->scratch, "%s/%s", ns, ours[i]), "x", 1, 0600);
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        scratch_write(scratch_text(&r->scratch, "%s/%s", ns, others[i]), "x", 1, 0600);
    /* Nor outside of namespaces. */
    scratch_write(scratch_in(&r->scratch, "cache/.tmp-0123456789ABCDEF"), "x", 1, 0600);

    rig_close(r);
    r->options.flags = WASMCACHE_READ_ONLY;
    rig_open(r);
    assert_int_equal(wasmcache_clean(r->cache, &removed), 0);
    assert_int_equal(removed, 0);
    assert_true(scratch_exists(scratch_text(&r->scratch, "%s/%s", ns, ours[0])));
    rig_close(r);
    r->options.flags = 0;
    rig_open(r);
    assert_int_equal(wasmcache_clean(r->cache, &removed), 0);
    assert_int_equal(removed, 2);
    for (size_t i = 0; i < 2; i++)
        assert_false(scratch_exists(scratch_text(&r->scratch, "%s/%s", ns, ours[i])));
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        assert_true(scratch_exists(scratch_text(&r->scratch, "%s/%s", ns, others[i])));
    assert_true(scratch_exists(scratch_in(&r->scratch, "cache/.tmp-0123456789ABCDEF")));
    assert_int_equal(rig_load(r, "good", NULL), 0);
    assert_int_equal(wasmcache_clean(r->cache, NULL), 0);
}

static void what_cannot_be_removed_does_not_keep_the_rest(void **state)
{
    struct rig *r = *state;
    uint64_t removed = 9;
    char *ns, *untrusted;

    assert_int_equal(rig_get(r, "good", NULL), 0);
    untrusted = scratch_in(&r->scratch, "cache/a-v1");
    assert_int_equal(mkdir(untrusted, 0700), 0);
    assert_int_equal(chmod(untrusted, 0777), 0);
    scratch_write(scratch_text(&r->scratch, "%s/.tmp-0123456789ABCDEF", untrusted), "x", 1, 0600);
    ns = rig_namespace_dir(r);
    assert_int_equal(mkdir(scratch_text(&r->scratch, "%s/.tmp-00000000000000AA", ns), 0700), 0);
    for (unsigned i = 0; i < 20; i++)
        scratch_write(scratch_text(&r->scratch, "%s/.tmp-00000000000000%02u", ns, i), "x", 1, 0600);
    assert_int_not_equal(wasmcache_clean(r->cache, &removed), 0);
    assert_int_equal(removed, 20);
    assert_true(strlen(wasmcache_last_error()->message) > 0);
    /* What is not to be trusted is not touched. */
    assert_true(scratch_exists(scratch_text(&r->scratch, "%s/.tmp-0123456789ABCDEF", untrusted)));
}

/* What has no trailer of ours in a folder whose name was given is another program's: it is not
 * damaged, and stays. In one of ours nobody else writes. */
static void what_has_no_trailer_is_judged_by_its_folder(void **state)
{
    static const char *const ids[] = {"cranelift-opts-rkyv", NULL};
    static const char *const texts[] = {"", "x", "an artifact that has no trailer at all"};
    struct rig *r = *state;
    struct list *list = calloc(1, sizeof(*list));
    wasmcache_key key = rig_key("m");

    assert_non_null(list);
    for (size_t i = 0; i < 2; i++) {
        const wasmcache_reason state_wanted =
            ids[i] ? WASMCACHE_REASON_MISMATCHED : WASMCACHE_REASON_CORRUPT;
        char *path, *ns;
        rig_close(r);
        r->attach.engine_id = ids[i];
        rig_open(r);
        ns = scratch_text(&r->scratch, "%s", rig_namespace(r));
        path = rig_entry(r, "m");
        for (size_t t = 0; t < sizeof(texts) / sizeof(*texts); t++) {
            wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
            assert_int_equal(rig_save(r, "m", NULL), 0);
            scratch_write(path, texts[t], strlen(texts[t]), 0600);
            for (unsigned flags = 0; flags <= WASMCACHE_CHECK_DIGEST; flags++) {
                assert_int_equal(wasmcache_entry_check(&entry, r->cache, ns, &key, flags), 0);
                assert_int_equal(entry.state, state_wanted);
                assert_int_equal(entry.artifact_bytes, 0);
                assert_int_equal(entry.file_bytes, strlen(texts[t]));
                walk(r, list, ns, flags);
                assert_int_equal(list->count, 1);
                assert_int_equal(list->error_count, 0);
                assert_int_equal(list->entries[0].state, state_wanted);
            }
            assert_int_equal(wasmcache_remove_damaged(r->cache, ns, &key),
                             ids[i] ? WASMCACHE_EMISS : 0);
            assert_int_equal(scratch_exists(path), ids[i] != NULL);
            scratch_remove(path);
        }
        /* A trailer that is damaged is ours, wherever it is. */
        assert_int_equal(rig_save(r, "m", NULL), 0);
        spoil(path, SPOIL_TRAILER);
        assert_int_equal(rig_state(r, "m"), WASMCACHE_REASON_CORRUPT);
        assert_int_equal(wasmcache_remove_damaged(r->cache, ns, &key), 0);
        assert_false(scratch_exists(path));
    }
    free(list);
}

/* ---- removal of damaged entries ---- */

static void only_damaged_entries_are_removed_as_damaged(void **state)
{
    struct rig *r = *state;
    wasmcache_key key = rig_key("m");
    const char *ns = scratch_text(&r->scratch, "%s", rig_namespace(r));
    char *path = rig_entry(r, "m");

    assert_int_equal(wasmcache_remove_damaged(r->cache, ns, &key), WASMCACHE_EMISS);
    for (int how = 0; how <= SPOIL_DIRECTORY; how++) {
        int rc, damaged =
                    how < SPOIL_COUNT && spoil_reason((enum spoil)how) == WASMCACHE_REASON_CORRUPT;
        assert_int_equal(rig_save(r, "m", NULL), 0);
        if (how == SPOIL_COUNT) /* a good one */
            assert_int_equal(wasmcache_remove_damaged(r->cache, ns, &key), WASMCACHE_EMISS);
        else
            spoil(path, (enum spoil)how);
        rc = wasmcache_remove_damaged(r->cache, ns, &key);
        if (rc !=
            (damaged ? 0
             : how == SPOIL_COUNT || spoil_reason((enum spoil)how) == WASMCACHE_REASON_MISMATCHED ||
                     how == SPOIL_NEWER || how == SPOIL_FINGERPRINT || how == SPOIL_KIND
                 ? WASMCACHE_EMISS
                 : WASMCACHE_EUNTRUSTED))
            fail_msg("%s: %s", spoil_name((enum spoil)how), wasmcache_error_name(rc));
        assert_int_equal(scratch_exists(path), !damaged);
        scratch_remove(path);
        scratch_remove(scratch_text(&r->scratch, "%s.target", path));
    }
    assert_int_equal(wasmcache_remove_damaged(NULL, ns, &key), WASMCACHE_EOFF);
    assert_int_equal(wasmcache_remove_damaged(r->cache, "..", &key), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_remove_damaged(r->cache, ns, NULL), WASMCACHE_EMISUSE);
    rig_close(r);
    r->options.flags = WASMCACHE_READ_ONLY;
    rig_open(r);
    assert_int_equal(wasmcache_remove_damaged(r->cache, ns, &key), WASMCACHE_EIO);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)
    const struct CMUnitTest tests[] = {
        TEST(each_state_is_listed),
        TEST(a_sound_entry_tells_what_it_is),
        TEST(what_cannot_be_read_says_why),
        TEST(foreign_files_are_passed_over),
        TEST(untrusted_namespaces_are_told_of_and_passed_over),
        TEST(one_namespace_alone),
        TEST(many_are_listed_once_each_and_may_be_removed_on_the_way),
        TEST(a_namespace_that_vanishes_does_not_end_the_walk),
        TEST(without_a_directory_there_is_nothing),
        TEST(a_walk_outlives_its_cache),
        TEST(a_clean_up_takes_its_own_files_only),
        TEST(what_cannot_be_removed_does_not_keep_the_rest),
        TEST(what_has_no_trailer_is_judged_by_its_folder),
        TEST(only_damaged_entries_are_removed_as_damaged),
    };
    return cmocka_run_group_tests_name("iterator", tests, NULL, NULL);
}
