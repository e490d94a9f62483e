/* SPDX-License-Identifier: Apache-2.0 */
/* What is made has exactly its mode, whatever the umask, as root and as an ordinary user. */
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

#include "seam.h"
#include "support/rig.h"

static const char wasm[] = "a module";

static const mode_t masks[] = {000, 022, 077, 0777, 0400, 0200, 0100};

static const struct share {
    wasmcache_share share;
    mode_t dir, entry, tag;
} shares[] = {
    {WASMCACHE_SHARE_PRIVATE, 0700, 0400, 0600},
    {WASMCACHE_SHARE_READABLE, 0755, 0444, 0644},
    {WASMCACHE_SHARE_GROUP, 0750, 0440, 0640},
};

struct one {
    struct rig r;
    const struct share *share;
    mode_t mask;
    unsigned lacking;
    unsigned exit_at;
};

static int make_all(void *argument)
{
    struct one *o = argument;
    struct rig *r = &o->r;
    static const char *const folders[] = {"deep", "deep/er", "deep/er/cache"};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct stat st;

    wc_os_lacking = o->lacking;
    r->options.share = o->share->share;
    umask(o->mask);
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(scratch_mode(scratch_in(&r->scratch, "%s", folders[i])), o->share->dir);
    assert_int_equal(scratch_mode(scratch_in(&r->scratch, "deep/er/cache/%s", rig_namespace(r))),
                     o->share->dir);
    assert_int_equal(scratch_mode(scratch_in(&r->scratch, "deep/er/cache/CACHEDIR.TAG")),
                     o->share->tag);
    {
        char path[1024];
        wasmcache_key key = rig_key(wasm);
        assert_int_equal(wasmcache_entry_path(path, sizeof(path), r->cache, rig_namespace(r), &key),
                         0);
        assert_int_equal(lstat(path, &st), 0);
        assert_int_equal(st.st_mode, S_IFREG | o->share->entry);
        assert_int_equal(st.st_uid, geteuid());
        /* Replaced it is the same. */
        assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, &report), 0);
        assert_int_equal(report.save_error, 0);
        assert_int_equal(scratch_mode(path), o->share->entry);
    }
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    /* The umask is the host's. */
    assert_int_equal(umask(0), o->mask);
    rig_close(r);
    return 0;
}

static void one_start(struct one *o, uid_t uid)
{
    memset(o, 0, sizeof(*o));
    rig_init(&o->r);
    o->r.dir = scratch_in(&o->r.scratch, "deep/er/cache");
    o->r.options.dir = o->r.dir;
    if (uid)
        assert_int_equal(chown(o->r.scratch.dir, uid, (gid_t)uid), 0);
}

static unsigned all(uid_t uid)
{
    unsigned cases = 0;
    for (size_t m = 0; m < sizeof(masks) / sizeof(*masks); m++)
        for (size_t s = 0; s < sizeof(shares) / sizeof(*shares); s++)
            for (unsigned v = 0; v < seam_variant_count; v++) {
                struct one o;
                int status;
                one_start(&o, uid);
                o.mask = masks[m];
                o.share = &shares[s];
                o.lacking = seam_variants[v].lacking;
                status = scratch_child(make_all, &o, uid, 20);
                if (status)
                    fail_msg("umask %03o, share %d, %s, user %u: %d", (unsigned)o.mask,
                             (int)o.share->share, seam_variants[v].name, (unsigned)uid, status);
                rig_end(&o.r);
                cases++;
            }
    return cases;
}

static void modes_are_exact(void **state)
{
    (void)state;
    printf("umask: %u cases\n", all(0));
}

static void modes_are_exact_as_an_ordinary_user(void **state)
{
    (void)state;
    if (!scratch_is_root("umasks of an ordinary user")) {
        skip();
        return;
    }
    printf("umask, as user %u: %u cases\n", (unsigned)SCRATCH_NOBODY, all(SCRATCH_NOBODY));
}

/* ---- the folder of our own ---- */

static int make_own_folder(void *argument)
{
    struct one *o = argument;
    struct rig *r = &o->r;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->options.share = o->share->share;
    umask(o->mask);
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(scratch_mode(scratch_text(&r->scratch, "%s/u%u", r->dir, (unsigned)geteuid())),
                     0700);
    rig_close(r);
    return 0;
}

static void the_folder_of_our_own_is_private(void **state)
{
    const int root = scratch_is_root("an ordinary user's folder");
    (void)state;
    for (int user = 0; user <= root; user++)
        for (size_t m = 0; m < sizeof(masks) / sizeof(*masks); m++)
            for (size_t s = 0; s < sizeof(shares) / sizeof(*shares); s++) {
                struct one o;
                one_start(&o, 0);
                o.r.dir = scratch_in(&o.r.scratch, "shared");
                o.r.options.dir = o.r.dir;
                o.mask = masks[m];
                o.share = &shares[s];
                assert_int_equal(mkdir(o.r.dir, 0700), 0);
                assert_int_equal(chmod(o.r.dir, 01777), 0);
                assert_int_equal(scratch_child(make_own_folder, &o, user ? SCRATCH_NOBODY : 0, 20),
                                 0);
                assert_int_equal(scratch_mode(o.r.dir), 01777);
                rig_end(&o.r);
            }
}

/* ---- what a dead writer left ---- */

static int save_and_be_killed(void *argument)
{
    struct one *o = argument;
    wc_os_lacking = WC_OS_NO_TMPFILE;
    umask(o->mask);
    rig_open(&o->r);
    seam_exit(o->exit_at);
    rig_get(&o->r, wasm, NULL);
    return 1;
}

static int clean_up(void *argument)
{
    struct one *o = argument;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    rig_open(&o->r);
    assert_int_equal(wasmcache_clean(o->r.cache, NULL), 0);
    assert_null(strstr(scratch_tree(&o->r.scratch, o->r.dir), "/.tmp"));
    assert_int_equal(rig_get(&o->r, wasm, &report), 0);
    assert_int_equal(report.save_error, 0);
    rig_close(&o->r);
    return 0;
}

static void a_dead_writers_file_goes_whatever_the_umask(void **state)
{
    unsigned runs = 0;
    (void)state;
    if (!scratch_is_root("what a killed ordinary user left")) {
        skip();
        return;
    }
    for (size_t m = 0; m < sizeof(masks) / sizeof(*masks); m++) {
        for (unsigned nth = 1;; nth++) {
            struct one o;
            int status;
            one_start(&o, SCRATCH_NOBODY);
            o.mask = masks[m];
            o.exit_at = nth;
            status = scratch_child(save_and_be_killed, &o, SCRATCH_NOBODY, 20);
            if (status == 0) {
                runs++;
                if (scratch_child(clean_up, &o, SCRATCH_NOBODY, 20) != 0)
                    fail_msg("umask %03o, killed before call %u", (unsigned)o.mask, nth);
            }
            rig_end(&o.r);
            if (status)
                break;
        }
    }
    printf("killed with all umasks at %u steps: nothing left after a clean-up\n", runs);
}

/* ---- set-group-id folders ---- */

static void a_set_group_id_folder_hands_its_group_on(void **state)
{
    struct one o;
    struct stat st;
    (void)state;
    if (!scratch_is_root("a folder of another group")) {
        skip();
        return;
    }
    one_start(&o, 0);
    assert_int_equal(chown(o.r.scratch.dir, 0, 4444), 0);
    assert_int_equal(chmod(o.r.scratch.dir, 02755), 0);
    o.r.options.share = WASMCACHE_SHARE_GROUP;
    rig_open(&o.r);
    assert_int_equal(rig_get(&o.r, wasm, NULL), 0);
    assert_int_equal(lstat(o.r.dir, &st), 0);
    assert_int_equal(st.st_mode, S_IFDIR | 02750);
    assert_int_equal(st.st_gid, 4444);
    {
        char path[1024];
        wasmcache_key key = rig_key(wasm);
        assert_int_equal(
            wasmcache_entry_path(path, sizeof(path), o.r.cache, rig_namespace(&o.r), &key), 0);
        assert_int_equal(lstat(path, &st), 0);
        assert_int_equal(st.st_mode, S_IFREG | 0440);
        assert_int_equal(st.st_gid, 4444); /* so that the group may load it */
    }
    rig_end(&o.r);
}

int main(void)
{
    int failed;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modes_are_exact),
        cmocka_unit_test(modes_are_exact_as_an_ordinary_user),
        cmocka_unit_test(the_folder_of_our_own_is_private),
        cmocka_unit_test(a_dead_writers_file_goes_whatever_the_umask),
        cmocka_unit_test(a_set_group_id_folder_hands_its_group_on),
    };
    scratch_in_memory();
    failed = cmocka_run_group_tests_name("umask", tests, NULL, NULL);
    scratch_in_memory_end();
    return failed;
}
