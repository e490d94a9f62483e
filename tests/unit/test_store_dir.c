/* SPDX-License-Identifier: Apache-2.0 */
/* Lookups in the directory: what an entry is judged to be, files that change meanwhile, sizes that
 * cannot be, formats that a later version writes. */
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
#include <xxhash.h>

#include "cache.h"
#include "seam.h"
#include "spoil.h"
#include "support/rig.h"

static const char wasm[] = "a module";

struct lab {
    struct rig r;
    char *entry;
    wasmcache_key key;
    uint8_t fingerprint[32];
    struct wc_expect expect;
    struct wc_folder folder;
    struct wc_entry_file file;
    struct wc_error err;
};

static int set_up(void **state)
{
    struct lab *l = calloc(1, sizeof(*l));
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    if (!l)
        return -1;
    rig_init(&l->r);
    rig_open(&l->r);
    l->entry = rig_entry(&l->r, wasm);
    l->key = rig_key(wasm);
    assert_int_equal(wasmcache_attachment_status(l->r.wc, &info), 0);
    memcpy(l->fingerprint, info.fingerprint, sizeof(l->fingerprint));
    l->expect.kind = WASMCACHE_MODULE;
    l->expect.key = &l->key;
    l->expect.engine_namespace = rig_namespace(&l->r);
    l->expect.fingerprint = l->fingerprint;
    wc_error_init(&l->err);
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lab *l = *state;
    seam_off();
    wc_os_lacking = 0;
    rig_end(&l->r);
    free(l);
    return 0;
}

static int open_entry(struct lab *l)
{
    const struct wc_store *store = &l->r.cache->store;
    int rc = wc_store_open_folder(&l->folder, store, l->expect.engine_namespace, &l->err);
    l->file.fd = -1;
    return rc < 0 ? rc : wc_store_open_entry(&l->file, store, &l->folder, &l->expect, &l->err);
}

static void close_entry(struct lab *l)
{
    wc_entry_file_close(&l->file);
    wc_folder_close(&l->folder);
    assert_int_equal(l->file.fd, -1);
    assert_int_equal(l->folder.fd, -1);
}

/* ---- what it is judged to be ---- */

static void what_is_missing_is_a_miss(void **state)
{
    struct lab *l = *state;
    unsigned open_before = scratch_descriptors();

    assert_int_equal(open_entry(l), WASMCACHE_EMISS); /* no namespace */
    close_entry(l);
    mkdir(l->r.dir, 0700);
    assert_int_equal(mkdir(rig_namespace_dir(&l->r), 0700), 0);
    assert_int_equal(open_entry(l), WASMCACHE_EMISS); /* no entry */
    close_entry(l);
    scratch_remove(l->r.dir);
    assert_int_equal(open_entry(l), WASMCACHE_EMISS); /* no directory */
    close_entry(l);
    assert_false(scratch_exists(l->r.dir)); /* a lookup makes nothing */
    assert_int_equal(scratch_descriptors(), open_before);
}

static void each_way_to_be_bad_has_its_error(void **state)
{
    struct lab *l = *state;
    unsigned open_before = scratch_descriptors();

    for (int how = 0; how <= SPOIL_DIRECTORY; how++) {
        int rc, expected;
        if (how == SPOIL_COUNT)
            continue;
        switch (spoil_reason((enum spoil)how)) {
        case WASMCACHE_REASON_MISMATCHED:
            expected = WASMCACHE_EMISMATCH;
            break;
        case WASMCACHE_REASON_UNTRUSTED:
            expected = WASMCACHE_EUNTRUSTED;
            break;
        case WASMCACHE_REASON_NEWER_FORMAT:
            expected = WASMCACHE_ENEWER;
            break;
        default:
            expected = WASMCACHE_ECORRUPT;
        }
        assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
        spoil(l->entry, (enum spoil)how);
        wc_error_init(&l->err);
        rc = open_entry(l);
        if (rc == 0)
            rc = wc_entry_file_verify(&l->file, &l->err);
        close_entry(l);
        if (rc != expected)
            fail_msg("spoilt %s: %s", spoil_name((enum spoil)how), wasmcache_error_name(rc));
        assert_int_equal(l->err.error, rc);
        assert_true(strlen(l->err.message) > 0);
        /* Each names the entry, in path and message. */
        assert_non_null(strstr(l->err.path, strrchr(l->entry, '/') + 1));
        scratch_remove(l->entry);
        scratch_remove(scratch_text(&l->r.scratch, "%s.target", l->entry));
    }
    assert_int_equal(scratch_descriptors(), open_before);
}

static void what_is_not_expected_is_not_compared(void **state)
{
    struct lab *l = *state;
    assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
    spoil(l->entry, SPOIL_FINGERPRINT);
    assert_int_equal(open_entry(l), WASMCACHE_EMISMATCH);
    /* Its trailer can be read all the same. */
    assert_int_equal(l->file.trailer.fingerprint[31], l->fingerprint[31] ^ 1);
    close_entry(l);
    l->expect.fingerprint = NULL;
    assert_int_equal(open_entry(l), 0);
    close_entry(l);
    spoil(l->entry, SPOIL_KIND);
    assert_int_equal(open_entry(l), WASMCACHE_EMISMATCH);
    close_entry(l);
    l->expect.kind = (wasmcache_kind)0;
    assert_int_equal(open_entry(l), 0);
    close_entry(l);
}

/* ---- a file that changes ---- */

static void touch(void *argument)
{
    const struct lab *l = argument;
    mode_t mode = scratch_mode(l->entry);
    /* The change time moves with the clock's tick only: let it tick. */
    usleep(12000);
    assert_int_equal(chmod(l->entry, mode), 0);
}

static void cut(void *argument)
{
    const struct lab *l = argument;
    assert_int_equal(chmod(l->entry, 0600), 0);
    assert_int_equal(truncate(l->entry, 100), 0);
    assert_int_equal(chmod(l->entry, 0400), 0);
}

static void who_changes_meanwhile_is_looked_at_again(void **state)
{
    struct lab *l = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    ino_t inode;

    assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
    inode = scratch_inode(l->entry);

    /* Once: looked at again, and fine. */
    seam_act_call("pread", 2, touch, l); /* the first is for the trailer */
    assert_int_equal(rig_load(&l->r, wasm, &report), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(report.outcome, WASMCACHE_HIT);

    /* For ever: given up, and left alone. */
    seam_act_each("pread", touch, l);
    assert_int_equal(rig_load(&l->r, wasm, &report), WASMCACHE_EBUSY);
    seam_off();
    assert_int_equal(report.reason, WASMCACHE_REASON_UNREADABLE);
    assert_int_equal(l->r.engine.wrong, 0);
    assert_int_equal(scratch_inode(l->entry), inode);
    assert_int_equal(rig_load(&l->r, wasm, &report), 0);
}

static void who_becomes_shorter_is_damaged(void **state)
{
    struct lab *l = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    for (unsigned nth = 1; nth <= 2; nth++) { /* while the trailer is read, the artifact */
        assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
        seam_act_call("pread", nth, cut, l);
        assert_int_equal(rig_get(&l->r, wasm, &report), 0);
        seam_off();
        assert_true(seam_met());
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
        assert_int_equal(report.save_error, 0);
        assert_int_equal(rig_load(&l->r, wasm, &report), 0);
    }
}

/* ---- sizes ---- */

static void each_cut_of_an_entry_is_damage(void **state)
{
    struct lab *l = *state;
    size_t size;
    uint8_t *bytes;

    assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
    bytes = scratch_read(l->entry, &size);
    for (size_t length = 0; length < size; length++) {
        scratch_write(l->entry, bytes, length, 0400);
        if (wasmcache_contains(l->r.wc, WASMCACHE_MODULE, &l->key) != WASMCACHE_ECORRUPT ||
            rig_load(&l->r, wasm, NULL) != WASMCACHE_ECORRUPT)
            fail_msg("the first %zu of %zu bytes", length, size);
        assert_false(scratch_exists(l->entry)); /* and it was removed */
        /* The end without the front. */
        scratch_write(l->entry, bytes + size - length, length, 0400);
        if (rig_load(&l->r, wasm, NULL) != WASMCACHE_ECORRUPT)
            fail_msg("the last %zu of %zu bytes", length, size);
    }
    free(bytes);
    assert_int_equal(l->r.engine.files + l->r.engine.deserializes, 0);
}

static void a_huge_file_of_nothing_is_refused_by_its_end(void **state)
{
    struct lab *l = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    size_t size;
    uint8_t *bytes;
    off_t huge = (off_t)1 << 40;
    int fd;

    assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
    bytes = scratch_read(l->entry, &size);
    for (int with_trailer = 0; with_trailer <= 1; with_trailer++) {
        scratch_write(l->entry, bytes, size, 0600);
        fd = open(l->entry, O_WRONLY | O_CLOEXEC);
        while (ftruncate(fd, huge) < 0)
            huge /= 2; /* as large as this file system has them */
        if (with_trailer)
            assert_int_equal(pwrite(fd, bytes + size - WC_TRAILER_SIZE, WC_TRAILER_SIZE,
                                    huge - (off_t)WC_TRAILER_SIZE),
                             WC_TRAILER_SIZE);
        close(fd);
        /* By its trailer alone: nothing else of it is read. */
        seam_record();
        assert_int_equal(rig_load(&l->r, wasm, &report), WASMCACHE_ECORRUPT);
        seam_off();
        assert_null(strstr(seam_log(), "map,"));
        assert_true(strstr(strstr(seam_log(), "pread,") + 1, "pread,") >
                    strstr(seam_log(), "unlink,")); /* of the tally */
        assert_false(scratch_exists(l->entry));
    }
    free(bytes);
}

/* ---- later versions ---- */

static void put_number(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

/* The entry with a trailer of `length` bytes, as a compatible version would write it. */
static void grow_trailer(const struct lab *l, size_t length)
{
    size_t size, front;
    uint8_t *bytes = scratch_read(l->entry, &size), *grown, *trailer, *footer;
    front = size - WC_TRAILER_SIZE;
    grown = calloc(1, front + length);
    assert_non_null(grown);
    memcpy(grown, bytes, front + WC_TRAILER_SIZE - WC_FOOTER_SIZE);
    trailer = grown + front;
    footer = trailer + length - WC_FOOTER_SIZE;
    memset(trailer + WC_TRAILER_SIZE - WC_FOOTER_SIZE, 0x5a, length - WC_TRAILER_SIZE);
    put_number(footer, length, 4);
    put_number(footer + 4, WC_FORMAT_INCOMPATIBLE, 2);
    put_number(footer + 6, WC_FORMAT_COMPATIBLE + 1, 2);
    put_number(footer + 8, XXH3_64bits(footer, 8), 4);
    memcpy(footer + 12, bytes + size - 4, 4);
    put_number(trailer, XXH3_64bits(trailer + 8, length - 8), 8);
    scratch_write(l->entry, grown, front + length, 0400);
    free(grown);
    free(bytes);
}

static void a_compatible_later_version_is_read(void **state)
{
    struct lab *l = *state;
    static const size_t lengths[] = {424, 496, 504, 512, 520, 1024, WC_TRAILER_MAX};
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        unlink(l->entry);
        assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
        grow_trailer(l, lengths[i]);
        if (rig_load(&l->r, wasm, &report) != 0)
            fail_msg("a trailer of %zu bytes: %s", lengths[i], wasmcache_last_error()->message);
    }
    unlink(l->entry);
    assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
    grow_trailer(l, WC_TRAILER_MAX + 8);
    assert_int_equal(rig_load(&l->r, wasm, &report), WASMCACHE_ECORRUPT);
}

/* ---- paths ---- */

static void the_path_of_an_entry_is_where_it_lies(void **state)
{
    struct lab *l = *state;
    const char *ns = rig_namespace(&l->r);
    size_t length = strlen(l->entry);
    char path[1024];
    wasmcache_key bad = l->key;

    assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
    assert_int_equal(wasmcache_entry_path(path, sizeof(path), l->r.cache, ns, &l->key), 0);
    assert_string_equal(path, l->entry);
    memset(path, 'x', sizeof(path));
    assert_int_equal(wasmcache_entry_path(path, length + 1, l->r.cache, ns, &l->key), 0);
    assert_string_equal(path, l->entry);
    memset(path, 'x', sizeof(path));
    assert_int_equal(wasmcache_entry_path(path, length, l->r.cache, ns, &l->key),
                     WASMCACHE_EMISUSE);
    assert_int_equal(path[0], 'x'); /* nothing is cut */
    assert_int_equal(wasmcache_entry_path(path, 0, l->r.cache, ns, &l->key), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_entry_path(NULL, 9, l->r.cache, ns, &l->key), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_entry_path(path, sizeof(path), NULL, ns, &l->key), WASMCACHE_EOFF);
    bad.algorithm = 9;
    assert_int_equal(wasmcache_entry_path(path, sizeof(path), l->r.cache, ns, &bad),
                     WASMCACHE_EMISUSE);
    /* Also where it would lie. */
    assert_int_equal(wasmcache_entry_path(path, sizeof(path), l->r.cache, "a-v1", &l->key), 0);
    assert_string_equal(
        path, scratch_text(&l->r.scratch, "%s/a-v1/%s", l->r.dir, strrchr(l->entry, '/') + 1));
    assert_false(scratch_exists(scratch_in(&l->r.scratch, "cache/a-v1")));

    /* In a directory that is not to be trusted it lies in a folder of our own. */
    assert_int_equal(chmod(l->r.dir, 0777), 0);
    assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
    assert_int_equal(wasmcache_entry_path(path, sizeof(path), l->r.cache, ns, &l->key), 0);
    assert_string_equal(path, scratch_text(&l->r.scratch, "%s/u%u/%s/%s", l->r.dir,
                                           (unsigned)geteuid(), ns, strrchr(l->entry, '/') + 1));
    assert_true(scratch_exists(path));
}

static void namespaces_cannot_lead_out(void **state)
{
    struct lab *l = *state;
    static const char *const names[] = {
        "",
        ".",
        "..",
        "../x-v1",
        "/etc-v1",
        "a/b-v1",
        "a-v1/",
        "a-v1/../../x-v1",
        "a..b-v1",
        "-v1",
        "a-v",
        "a-v01",
        "a-v4294967296",
        "a\n-v1",
        "a b-v1",
        ".a-v1",
        "\xff-v1",
        "a-V1",
        "a-v1.bin",
        "u0",
    };
    char path[1024], *outside = scratch_in(&l->r.scratch, "x-v1");
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it = NULL;

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        const char *name = names[i];
        seam_record();
        assert_int_equal(wasmcache_entry_path(path, sizeof(path), l->r.cache, name, &l->key),
                         WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_entry_check(&entry, l->r.cache, name, &l->key, 0),
                         WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_remove(l->r.cache, name, &l->key), WASMCACHE_EMISUSE);
        assert_int_equal(wasmcache_iterate(&it, l->r.cache, name, 0), WASMCACHE_EMISUSE);
        seam_off();
        assert_int_equal(seam_calls(), 0); /* it does not come to that */
        assert_null(it);
    }
    assert_false(scratch_exists(outside));
}

static void no_descriptor_is_inherited(void **state)
{
    struct lab *l = *state;
    /* All that are opened in a get have close-on-exec set: looked at while they are open. */
    assert_int_equal(rig_save(&l->r, wasm, NULL), 0);
    assert_int_equal(open_entry(l), 0);
    assert_true(fcntl(l->file.fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(l->folder.fd, F_GETFD) & FD_CLOEXEC);
    close_entry(l);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(what_is_missing_is_a_miss),
        TEST(each_way_to_be_bad_has_its_error),
        TEST(what_is_not_expected_is_not_compared),
        TEST(who_changes_meanwhile_is_looked_at_again),
        TEST(who_becomes_shorter_is_damaged),
        TEST(each_cut_of_an_entry_is_damage),
        TEST(a_huge_file_of_nothing_is_refused_by_its_end),
        TEST(a_compatible_later_version_is_read),
        TEST(the_path_of_an_entry_is_where_it_lies),
        TEST(namespaces_cannot_lead_out),
        TEST(no_descriptor_is_inherited),
    };
    return cmocka_run_group_tests_name("store_dir", tests, NULL, NULL);
}
