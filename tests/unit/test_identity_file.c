/* SPDX-License-Identifier: Apache-2.0 */
/* What a namespace's engine is, written down beside its entries: when, how, and what is believed of
 * it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "call.h"
#include "fixture.h"
#include "identity_file.h"
#include "key.h"
#include "seam.h"

static const char wasm[] = "a module";
static const char other[] = "another module";

static char *path_of(struct rig *r)
{
    return scratch_text(&r->scratch, "%s/" WC_IDENTITY_NAME, rig_namespace_dir(r));
}

static char *text_of(struct rig *r)
{
    size_t size;
    uint8_t *bytes = scratch_read(path_of(r), &size);
    char *text;
    assert_non_null(bytes);
    assert_int_equal(strlen((char *)bytes), size);
    text = scratch_text(&r->scratch, "%s", (char *)bytes);
    free(bytes);
    return text;
}

static wasmcache_identity own(struct rig *r)
{
    wasmcache_identity out = WASMCACHE_IDENTITY_INIT;
    assert_int_equal(wasmcache_identity_of(&out, r->wc), 0);
    return out;
}

/* Of the rig's namespace, whose name is asked for even if it is not attached as before. */
static int read_back(struct rig *r, wasmcache_identity *out)
{
    const wasmcache_identity init = WASMCACHE_IDENTITY_INIT;
    *out = init;
    return wasmcache_identity_read(out, r->cache, rig_namespace(r));
}

/* ---- what is written, when ---- */

static void a_save_writes_what_the_engine_is(void **state)
{
    struct rig *r = *state;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_identity mine, found;
    char hex[65];

    r->attach.engine_version = "7.4.2";
    r->attach.target = "x86_64";
    r->attach.settings = "metering: 5";
    rig_open(r);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_EMISS);
    assert_false(scratch_exists(r->dir)); /* a look makes nothing */
    assert_int_equal(rig_get(r, wasm, NULL), 0);

    mine = own(r);
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    assert_memory_equal(mine.fingerprint, info.fingerprint, 32);
    assert_string_equal(mine.adapter, r->engine.table.name);
    assert_string_equal(mine.compiler, "none");
    assert_string_equal(mine.engine_version, "7.4.2");
    assert_string_equal(mine.target, "x86_64");
    assert_string_equal(mine.settings, "metering: 5");
    assert_string_equal(mine.build, "");
    assert_int_equal(mine.artifact_version, 1);
    assert_int_equal(strlen(mine.probe), 64);
    assert_int_not_equal(strlen(mine.cpu), 0);

    wc_hex(hex, mine.fingerprint, 32);
    assert_string_equal(text_of(r),
                        scratch_text(&r->scratch,
                                     "wasmcache identity 1\nadapter: %s\ncompiler: none\n"
                                     "version: 7.4.2\ntarget: x86_64\ncpu: %s\nbuild: \n"
                                     "settings: metering: 5\nprobe: %s\nartifact: 1\n"
                                     "fingerprint: %s\n",
                                     mine.adapter, mine.cpu, mine.probe, hex));
    assert_int_equal(read_back(r, &found), 0);
    assert_memory_equal(&found, &mine, sizeof(mine));
}

static void it_is_written_once_and_again_if_it_is_gone(void **state)
{
    struct rig *r = *state;
    ino_t inode;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    inode = scratch_inode(path_of(r));
    assert_int_equal(rig_get(r, other, NULL), 0);
    rig_reopen(r);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, NULL), 0);
    assert_int_equal(scratch_inode(path_of(r)), inode);
    assert_null(strstr(scratch_tree(&r->scratch, r->dir), "/.tmp"));

    assert_int_equal(unlink(path_of(r)), 0);
    assert_int_equal(rig_get(r, wasm, NULL), 0); /* a hit writes nothing */
    assert_false(scratch_exists(path_of(r)));
    assert_int_equal(rig_save(r, wasm, NULL), 0); /* a sound one is there, and kept */
    assert_true(scratch_exists(path_of(r)));

    scratch_remove(r->dir); /* the same attachment */
    assert_int_equal(rig_get(r, other, NULL), 0);
    assert_true(scratch_exists(path_of(r)));
}

static void a_hit_does_not_ask_for_it_and_a_save_once(void **state)
{
    struct rig *r = *state;
    unsigned first, later;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    seam_record();
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, NULL), 0);
    seam_off();
    later = seam_calls();
    /* In the folder that is open for the note of its use, one call. */
    assert_non_null(strstr(seam_log(), "open_dir,fstat,stat_at,stat_at,close,"));
    assert_int_equal(unlink(path_of(r)), 0);
    seam_record();
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, NULL), 0);
    seam_off();
    first = seam_calls();
    assert_non_null(strstr(seam_log(), "stat_at,stat_at,open_unnamed,write,chmod,flush,dup,close,"
                                       "link_unnamed,fd_path,close,close,"));
    assert_int_equal(first - later, 9);
    wc_call_judged_for = 0;
    seam_record();
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    seam_off();
    first = seam_calls();
    assert_int_equal(unlink(path_of(r)), 0);
    seam_record();
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    seam_off();
    assert_in_range(seam_calls(), 1, first); /* fewer, if the digest was remembered meanwhile */
    assert_int_equal(seam_calls_of("open_unnamed") + seam_calls_of("write"), 0);
    wc_call_judged_for = UINT64_C(100000000);
}

static void it_has_the_modes_of_entries(void **state)
{
    static const struct {
        wasmcache_share share;
        mode_t mode;
    } table[] = {{WASMCACHE_SHARE_PRIVATE, 0400},
                 {WASMCACHE_SHARE_READABLE, 0444},
                 {WASMCACHE_SHARE_GROUP, 0440}};
    struct rig *r = *state;
    for (unsigned v = 0; v < seam_variant_count; v++)
        for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
            wasmcache_identity found;
            r->options.share = table[i].share;
            wc_os_lacking = seam_variants[v].lacking;
            rig_open(r);
            assert_int_equal(rig_get(r, wasm, NULL), 0);
            assert_int_equal(scratch_mode(path_of(r)), table[i].mode);
            assert_int_equal(read_back(r, &found), 0);
            assert_null(strstr(scratch_tree(&r->scratch, r->dir), "/.tmp"));
            rig_close(r);
            wc_os_lacking = 0;
            scratch_remove(r->dir);
        }
}

static void what_is_promoted_from_a_layer_is_described_too(void **state)
{
    struct rig *r = *state;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *const list[] = {&layer};
    char *own_dir = r->dir;
    char *in_layer;

    layer.dir = scratch_in(&r->scratch, "layer");
    r->options.dir = layer.dir;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    in_layer = scratch_text(&r->scratch, "%s/%s/" WC_IDENTITY_NAME, layer.dir, rig_namespace(r));
    assert_int_equal(unlink(in_layer), 0);
    rig_close(r);

    layer.flags = WASMCACHE_LAYER_PROMOTE;
    r->options.dir = own_dir;
    r->options.layers = list;
    r->options.layer_count = 1;
    rig_open(r);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_true(scratch_exists(path_of(r)));
    assert_false(scratch_exists(in_layer)); /* a layer is not written to */
}

/* ---- texts ---- */

static void what_is_no_plain_text_is_escaped(void **state)
{
    struct rig *r = *state;
    wasmcache_identity found;
    r->attach.settings = "a\nfingerprint: 0\\ \x1b[31m\xc3\xa9\x7f end ";
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(read_back(r, &found), 0);
    assert_string_equal(found.settings, "a\\x0Afingerprint: 0\\x5C \\x1B[31m\\xC3\\xA9\\x7F end ");
    assert_memory_equal(found.fingerprint, own(r).fingerprint, 32);
}

/* Of the same beginning, so that only the hash at the end tells them apart. */
static void what_is_too_long_is_cut_and_still_differs(void **state)
{
    struct rig *r = *state;
    char first[4001], second[4001];
    wasmcache_identity found[2];
    memset(first, '\t', sizeof(first));
    first[4000] = '\0';
    memcpy(second, first, sizeof(first));
    second[3999] = '!';
    for (int i = 0; i < 2; i++) {
        r->attach.settings = i ? second : first;
        r->attach.target = r->attach.engine_version = i ? second : first;
        rig_open(r);
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        assert_int_equal(read_back(r, &found[i]), 0);
        assert_true(strlen(found[i].settings) < WASMCACHE_IDENTITY_TEXT);
        assert_string_equal(found[i].settings, found[i].target);
        assert_string_equal(found[i].settings, found[i].engine_version);
        assert_string_equal(strstr(found[i].settings, "\\+") - 4,
                            found[i].settings + strlen(found[i].settings) - 70);
        rig_close(r);
    }
    assert_string_not_equal(found[0].settings, found[1].settings);
}

/* The longest that is not cut, and one byte more. */
static void lengths_around_the_limit(void **state)
{
    struct rig *r = *state;
    for (size_t length = WASMCACHE_IDENTITY_TEXT - 3; length <= WASMCACHE_IDENTITY_TEXT + 1;
         length++) {
        char text[WASMCACHE_IDENTITY_TEXT + 2];
        wasmcache_identity found;
        memset(text, 'x', length);
        text[length] = '\0';
        r->attach.settings = text;
        rig_open(r);
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        assert_int_equal(read_back(r, &found), 0);
        if (length < WASMCACHE_IDENTITY_TEXT)
            assert_string_equal(found.settings, text);
        else
            assert_non_null(strstr(found.settings, "\\+"));
        rig_close(r);
    }
}

/* ---- what is believed ---- */

static void plant(struct rig *r, const char *text, size_t size)
{
    scratch_write(path_of(r), text, size, 0400);
}

static int planted(struct rig *r, const char *text)
{
    wasmcache_identity found;
    plant(r, text, strlen(text));
    return read_back(r, &found);
}

#define HEAD "wasmcache identity 1\n"
#define FINGERPRINT "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF"

static void what_others_write_is_judged(void **state)
{
    struct rig *r = *state;
    wasmcache_identity found;
    char *path, *kept;
    char long_text[WC_IDENTITY_FILE_MAX + 2];

    assert_int_equal(rig_get(r, wasm, NULL), 0);
    path = path_of(r);
    kept = text_of(r);

    assert_int_equal(planted(r, HEAD), 0);
    assert_int_equal(planted(r, HEAD "colour: red\nsettings: a\nfingerprint: " FINGERPRINT "\n"),
                     0);
    assert_int_equal(read_back(r, &found), 0);
    assert_string_equal(found.settings, "a");
    assert_int_equal(found.fingerprint[1], 0x11);
    assert_string_equal(found.adapter, "");

    assert_int_equal(planted(r, "wasmcache identity 2\nsettings: a\n"), WASMCACHE_ENEWER);
    assert_int_equal(planted(r, ""), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, "wasmcache"), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, HEAD "settings: a"), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, HEAD "settings\n"), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, HEAD "settings: \x1b[2J\n"), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, HEAD "settings: \xc2\x9b\n"), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, HEAD "artifact: 4294967296\n"), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, HEAD "artifact: -1\n"), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, HEAD "artifact: \n"), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, HEAD "fingerprint: 00\n"), WASMCACHE_ECORRUPT);
    assert_int_equal(planted(r, HEAD "adapter: 0123456789012345678901234567890\n"), 0);
    assert_int_equal(planted(r, HEAD "adapter: 01234567890123456789012345678901\n"),
                     WASMCACHE_ECORRUPT);
    plant(r, HEAD "settings: a\0b\n", sizeof(HEAD "settings: a\0b\n") - 1);
    assert_int_equal(read_back(r, &found), WASMCACHE_ECORRUPT);
    memset(long_text, 'x', sizeof(long_text));
    memcpy(long_text, HEAD "a: ", strlen(HEAD "a: "));
    long_text[WC_IDENTITY_FILE_MAX - 1] = '\n';
    plant(r, long_text, WC_IDENTITY_FILE_MAX);
    assert_int_equal(read_back(r, &found), 0);
    long_text[WC_IDENTITY_FILE_MAX] = '\n';
    plant(r, long_text, WC_IDENTITY_FILE_MAX + 1);
    assert_int_equal(read_back(r, &found), WASMCACHE_ECORRUPT);

    scratch_write(path, kept, strlen(kept), 0422);
    assert_int_equal(read_back(r, &found), WASMCACHE_EUNTRUSTED);
    assert_non_null(strstr(wasmcache_last_error()->message, path));
    if (scratch_is_root("an identity file of another user's")) {
        scratch_write(path, kept, strlen(kept), 0400);
        assert_int_equal(chown(path, SCRATCH_NOBODY, SCRATCH_NOBODY), 0);
        assert_int_equal(read_back(r, &found), WASMCACHE_EUNTRUSTED);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(read_back(r, &found), WASMCACHE_EMISS);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_int_equal(read_back(r, &found), WASMCACHE_EUNTRUSTED);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0400), 0);
    assert_int_equal(read_back(r, &found), WASMCACHE_EUNTRUSTED);
    assert_int_equal(rig_get(r, other, NULL), 0); /* what is there stays */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(read_back(r, &found), WASMCACHE_EUNTRUSTED);
    assert_int_equal(rig_get_with(r, other, WASMCACHE_GET_RECOMPILE, NULL), 0);
}

/* A lie in it misleads who reads it, and no lookup. */
static void no_lookup_believes_it(void **state)
{
    struct rig *r = *state;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    plant(r, HEAD "settings: other\nfingerprint: " FINGERPRINT "\n",
          strlen(HEAD "settings: other\nfingerprint: " FINGERPRINT "\n"));
    rig_reopen(r);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, other, NULL), 0);
}

static void walks_and_limits_pass_it_over(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_options prune = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it;
    uint64_t removed = 77;
    struct stat st;

    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(stat(rig_entry(r, wasm), &st), 0);
    assert_int_equal(wasmcache_iterate(&it, r->cache, NULL, 0), 0);
    assert_int_equal(wasmcache_iterator_next(it, &entry), 0);
    assert_int_equal(wasmcache_iterator_next(it, &entry), WASMCACHE_EMISS);
    wasmcache_iterator_close(it);
    assert_int_equal(wasmcache_clean(r->cache, &removed), 0);
    assert_int_equal(removed, 0);
    assert_int_equal(wasmcache_prune(r->cache, NULL, &result), 0);
    assert_int_equal(result.left_entries, 1);
    assert_int_equal(result.left_bytes, st.st_size);
    rig_close(r);
    r->options.evict_after_seconds = 1;
    rig_open(r);
    prune.max_bytes = 1;
    for (int i = 0; i < 30 && scratch_exists(rig_entry(r, wasm)); i++) {
        assert_int_equal(wasmcache_prune(r->cache, &prune, &result), 0);
        usleep(100000);
    }
    assert_false(scratch_exists(rig_entry(r, wasm)));
    assert_true(scratch_exists(path_of(r)));
}

/* ---- trouble ---- */

/* Each call of the writing fails once, and from it on all do; nothing is half there, and nothing of
 * it is left. */
static void no_fault_leaves_a_part_of_it(void **state)
{
    struct rig *r = *state;
    unsigned runs = 0;
    char *whole;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    whole = text_of(r);
    for (unsigned v = 0; v < seam_variant_count; v++)
        for (int sticky = 0; sticky <= 1; sticky++)
            for (unsigned nth = 1;; nth++) {
                struct wc_folder folder = WC_FOLDER_INIT;
                struct wc_error err;
                int met;
                wc_error_init(&err);
                if (scratch_exists(path_of(r)))
                    assert_int_equal(unlink(path_of(r)), 0);
                assert_int_equal(
                    wc_store_open_folder(&folder, &r->cache->store, rig_namespace(r), &err), 0);
                wc_os_lacking = seam_variants[v].lacking;
                seam_fail(nth, nth % 2 ? ENOSPC : EIO, sticky);
                wc_identity_file_write(&r->cache->store, &folder, r->wc,
                                       wc_attachment_identity(r->wc, NULL));
                met = seam_met();
                seam_off();
                wc_os_lacking = 0;
                wc_folder_close(&folder);
                if (scratch_exists(path_of(r)))
                    assert_string_equal(text_of(r), whole);
                else
                    assert_true(met);
                /* A temp that could not be taken away is no writer's any more. */
                if (!sticky)
                    assert_int_equal(wasmcache_clean(r->cache, NULL), 0);
                else
                    (void)wasmcache_clean(r->cache, NULL);
                assert_null(strstr(scratch_tree(&r->scratch, r->dir), "/.tmp"));
                runs++;
                if (!met)
                    break;
            }
    printf("%6u runs\n", runs);
    assert_in_range(runs, 2 * seam_variant_count * 5, 10000);
}

static int save_under_a_limit(void *argument)
{
    struct rig *r = argument;
    const struct rlimit limit = {1000, 1000};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    if (setrlimit(RLIMIT_FSIZE, &limit) < 0)
        return 1;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0); /* the entry is small enough */
    assert_true(scratch_exists(rig_entry(r, wasm)));
    assert_false(scratch_exists(path_of(r)));
    rig_close(r);
    return 0;
}

static void a_file_size_limit_ends_nobody(void **state)
{
    struct rig *r = *state;
    char settings[1000];
    memset(settings, 's', sizeof(settings) - 1);
    settings[999] = '\0';
    r->attach.settings = r->attach.target = settings;
    assert_int_equal(scratch_child(save_under_a_limit, r, 0, 20), 0);
}

/* ---- arguments ---- */

static void what_cannot_be_told(void **state)
{
    struct rig *r = *state;
    const wasmcache_identity init = WASMCACHE_IDENTITY_INIT;
    wasmcache_identity out = init;
    rig_open(r);
    assert_int_equal(wasmcache_identity_of(NULL, r->wc), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_identity_read(NULL, r->cache, "a-v1"), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_identity_read(&out, r->cache, "../a-v1"), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_identity_read(&out, r->cache, NULL), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_identity_read(&out, NULL, "a-v1"), WASMCACHE_EOFF);
    assert_int_equal(wasmcache_identity_read(&out, r->cache, "a-v1"), WASMCACHE_EMISS);
    assert_int_equal(wasmcache_identity_of(&out, NULL), WASMCACHE_EOFF);
    assert_memory_equal(&out, &init, sizeof(out)); /* only success writes */
    out.size = 0;
    assert_int_equal(wasmcache_identity_of(&out, r->wc), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_identity_read(&out, r->cache, "a-v1"), WASMCACHE_EMISUSE);
    rig_close(r);

    out = init;
    r->engine.table.probe = NULL; /* and no settings: nobody knows what it is */
    rig_open(r);
    assert_int_equal(wasmcache_identity_of(&out, r->wc), WASMCACHE_EMISUSE);
    assert_non_null(strstr(wasmcache_last_error()->message, "settings"));
}

/* A caller with an older struct gets what it has room for. */
static void an_older_struct_is_filled_as_far_as_it_goes(void **state)
{
    struct rig *r = *state;
    wasmcache_identity out = WASMCACHE_IDENTITY_INIT;
    memset(out.cpu, '?', sizeof(out.cpu));
    out.size = offsetof(wasmcache_identity, cpu);
    assert_int_equal(wasmcache_identity_of(&out, r->wc), 0);
    assert_string_equal(out.compiler, "none");
    assert_int_equal(out.cpu[0], '?');
    assert_int_equal(out.size, offsetof(wasmcache_identity, cpu));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_rig, fixture_end)
#define OPEN(f) cmocka_unit_test_setup_teardown(f, fixture_open_rig, fixture_end)
    const struct CMUnitTest tests[] = {
        TEST(a_save_writes_what_the_engine_is),
        OPEN(it_is_written_once_and_again_if_it_is_gone),
        OPEN(a_hit_does_not_ask_for_it_and_a_save_once),
        TEST(it_has_the_modes_of_entries),
        TEST(what_is_promoted_from_a_layer_is_described_too),
        TEST(what_is_no_plain_text_is_escaped),
        TEST(what_is_too_long_is_cut_and_still_differs),
        TEST(lengths_around_the_limit),
        OPEN(what_others_write_is_judged),
        OPEN(no_lookup_believes_it),
        OPEN(walks_and_limits_pass_it_over),
        OPEN(no_fault_leaves_a_part_of_it),
        TEST(a_file_size_limit_ends_nobody),
        TEST(what_cannot_be_told),
        OPEN(an_older_struct_is_filled_as_far_as_it_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
