/* SPDX-License-Identifier: Apache-2.0 */
/*
 * May it be trusted? The tables of docs/trust.md, every cell of them: cache directory, namespace
 * and entry, with each owner and mode, as root and as an ordinary user.
 */
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

#include "gate.h"
#include "seam.h"
#include "support/rig.h"

#define TRUSTED ((uid_t)4242) /* in trust_uids */
#define OTHER ((uid_t)4343)
#define USER SCRATCH_NOBODY

enum result {
    USED = 1,   /* hits and saves */
    READ,       /* hits, but may not be written */
    OWN,        /* not itself, but through u{uid} in it */
    OFF,        /* the cache is off, EUNTRUSTED */
    SHUT,       /* the cache is off, EIO: it cannot be opened */
    MISTRUSTED, /* a miss, "untrusted" */
    UNREADABLE  /* a miss, "unreadable" */
};

struct row {
    uid_t uid; /* who calls */
    uid_t owner;
    enum result results[9]; /* by mode */
};

struct table {
    const char *what;
    mode_t modes[9];
    struct row rows[7];
};

static const struct table cache_table = {
    "cache directory",
    {0700, 0750, 0755, 01755, 0770, 0775, 0777, 01777, 0707},
    {
        {0, 0, {USED, USED, USED, USED, OWN, OWN, OWN, OWN, OWN}},
        {0, TRUSTED, {USED, USED, USED, USED, OWN, OWN, OWN, OWN, OWN}},
        {0, OTHER, {OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN, OWN}},
        {USER, 0, {SHUT, SHUT, READ, READ, SHUT, OFF, OWN, OWN, OWN}},
        {USER, TRUSTED, {SHUT, SHUT, READ, READ, SHUT, OFF, OWN, OWN, OWN}},
        {USER, USER, {USED, USED, USED, USED, OWN, OWN, OWN, OWN, OWN}},
        {USER, OTHER, {SHUT, SHUT, OFF, OFF, SHUT, OFF, OWN, OWN, OWN}},
    },
};

#define U UNREADABLE
#define M MISTRUSTED
static const struct table namespace_table = {
    "namespace",
    {0700, 0750, 0755, 01755, 0770, 0775, 0777, 01777, 0707},
    {
        {0, 0, {USED, USED, USED, USED, M, M, M, M, M}},
        {0, TRUSTED, {USED, USED, USED, USED, M, M, M, M, M}},
        {0, OTHER, {M, M, M, M, M, M, M, M, M}},
        {USER, 0, {U, U, READ, READ, U, M, M, M, M}},
        {USER, TRUSTED, {U, U, READ, READ, U, M, M, M, M}},
        {USER, USER, {USED, USED, USED, USED, M, M, M, M, M}},
        {USER, OTHER, {U, U, M, M, U, M, M, M, M}},
    },
};

static const struct table entry_table = {
    "entry",
    {0400, 0600, 0444, 0644, 0755, 04555, 0660, 0666, 0402},
    {
        {0, 0, {USED, USED, USED, USED, USED, USED, M, M, M}},
        {0, TRUSTED, {USED, USED, USED, USED, USED, USED, M, M, M}},
        {0, OTHER, {M, M, M, M, M, M, M, M, M}},
        {USER, 0, {U, U, USED, USED, USED, USED, U, M, U}},
        {USER, TRUSTED, {U, U, USED, USED, USED, USED, U, M, U}},
        {USER, USER, {USED, USED, USED, USED, USED, USED, M, M, M}},
        {USER, OTHER, {U, U, M, M, M, M, U, M, U}},
    },
};
#undef U
#undef M

static const char wasm[] = "a module";
static const char other[] = "another module";

/* ---- one cell ---- */

struct cell {
    struct rig r;
    const struct table *table;
    uid_t uid;
    mode_t mode;
    uid_t owner;
    enum result expected;
    char *judged; /* what has that owner and mode */
};

static const uint32_t trusted[] = {TRUSTED, 77};

static void own(const char *path, uid_t owner, mode_t mode)
{
    assert_int_equal(chown(path, owner, (gid_t)owner), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* Status names what was judged. */
static void names_it(const struct cell *c, const wasmcache_status_info *info)
{
    char owner[16], mode[16];
    snprintf(owner, sizeof(owner), "%u", (unsigned)c->owner);
    snprintf(mode, sizeof(mode), "%04o", (unsigned)c->mode);
    assert_string_equal(info->dir, c->r.dir);
    assert_int_equal(info->uid, c->owner);
    assert_int_equal(info->mode, c->mode);
    assert_non_null(strstr(info->message, owner));
    assert_non_null(strstr(info->message, mode));
}

static void judge_status(struct cell *c)
{
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    assert_int_equal(wasmcache_status(c->r.cache, &info), 0);
    switch (c->expected) {
    case OWN:
        assert_int_equal(info.state, WASMCACHE_STATE_ON);
        assert_string_equal(info.dir,
                            scratch_text(&c->r.scratch, "%s/u%u", c->r.dir, (unsigned)c->uid));
        assert_int_equal(info.uid, c->uid);
        assert_int_equal(info.mode, 0700);
        break;
    case OFF:
        assert_int_equal(info.state, WASMCACHE_STATE_OFF);
        assert_int_equal(info.error, WASMCACHE_EUNTRUSTED);
        names_it(c, &info);
        assert_non_null(strstr(info.message, c->r.dir));
        break;
    case SHUT:
        assert_int_equal(info.state, WASMCACHE_STATE_OFF);
        assert_int_equal(info.error, WASMCACHE_EIO);
        assert_int_equal(info.system_errno, EACCES);
        assert_non_null(strstr(info.message, c->r.dir));
        break;
    case READ:
        assert_int_equal(info.state, WASMCACHE_STATE_READ_ONLY);
        assert_int_equal(info.error, WASMCACHE_EIO);
        names_it(c, &info);
        break;
    default:
        assert_int_equal(info.state, WASMCACHE_STATE_ON);
        assert_int_equal(info.error, 0);
        assert_string_equal(info.dir, c->r.dir);
        assert_string_equal(info.message, "");
        break;
    }
}

/* Saves something that was not there; twice. */
static void judge_saves(struct cell *c, int save_error)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    assert_int_equal(rig_get(&c->r, other, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    if (report.save_error != save_error)
        fail_msg("save: %s", wasmcache_error_name(report.save_error));
    assert_int_equal(rig_get(&c->r, other, &report), 0);
    assert_int_equal(report.outcome, save_error ? WASMCACHE_COMPILED : WASMCACHE_HIT);
}

static int judge(void *argument)
{
    struct cell *c = argument;
    struct rig *r = &c->r;
    const int whole_cache = c->table == &cache_table;
    wasmcache_report report = WASMCACHE_REPORT_INIT;

    rig_open(r);
    /* There is a good entry in any case. */
    assert_int_equal(rig_get(r, wasm, &report), 0);
    if (c->expected == USED || c->expected == READ) {
        assert_int_equal(report.outcome, WASMCACHE_HIT);
    } else {
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        assert_int_equal(r->engine.files + r->engine.deserializes, 0);
    }
    if (c->expected == MISTRUSTED || c->expected == UNREADABLE)
        assert_int_equal(report.reason, c->expected == MISTRUSTED ? WASMCACHE_REASON_UNTRUSTED
                                                                  : WASMCACHE_REASON_UNREADABLE);
    if (c->expected == SHUT || c->expected == OFF)
        assert_int_equal(report.reason, WASMCACHE_REASON_CACHE_OFF);
    if (c->table != &entry_table) {
        if (whole_cache)
            judge_status(c);
        if (whole_cache) {
            /* In a namespace that is not there yet. */
            rig_close(r);
            r->engine.configuration = 2;
            rig_open(r);
        }
        judge_saves(c, c->expected == READ || c->expected == SHUT || c->expected == UNREADABLE
                           ? WASMCACHE_EIO
                       : c->expected == OFF || c->expected == MISTRUSTED ? WASMCACHE_EUNTRUSTED
                                                                         : 0);
    } else if (c->expected == UNREADABLE) {
        /* What cannot be read is left. */
        assert_int_equal(report.save_error, WASMCACHE_EIO);
    } else {
        /* What is not to be trusted is replaced. */
        assert_int_equal(report.save_error, 0);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
    }
    assert_int_equal(r->engine.wrong, 0);
    rig_close(r);
    return 0;
}

static void one_cell(const struct table *table, const struct row *row, size_t column)
{
    struct cell c;
    struct rig *r = &c.r;
    struct stat before, after;
    char *ns_dir, *entry;
    int status;

    memset(&c, 0, sizeof(c));
    c.table = table;
    c.uid = row->uid;
    c.owner = row->owner;
    c.mode = table->modes[column];
    c.expected = row->results[column];
    rig_init(r);
    r->options.trust_uids = trusted;
    r->options.trust_uid_count = 2;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    ns_dir = rig_namespace_dir(r);
    entry = rig_entry(r, wasm);
    rig_close(r);
    fake_engine_reset(&r->engine);

    /* All is the caller's but what is judged; below that it is root's, and may be read by all. */
    own(r->scratch.dir, c.uid, 0755);
    own(r->dir, c.uid, 0700);
    own(ns_dir, table == &entry_table ? c.uid : 0, table == &entry_table ? 0700 : 0755);
    own(entry, 0, 0444);
    c.judged = table == &cache_table ? r->dir : table == &namespace_table ? ns_dir : entry;
    own(c.judged, c.owner, c.mode);
    if (table == &entry_table) /* or its number would be used again */
        assert_int_equal(link(entry, scratch_in(&r->scratch, "held")), 0);
    assert_int_equal(lstat(c.judged, &before), 0);

    status = scratch_child(judge, &c, c.uid, 20);
    if (status)
        fail_msg("%s of user %u, mode %04o, as user %u: %d", table->what, (unsigned)c.owner,
                 (unsigned)c.mode, (unsigned)c.uid, status);

    /* Nothing was made better that is not ours. */
    assert_int_equal(lstat(c.judged, &after), 0);
    if (table == &entry_table && c.expected == MISTRUSTED) {
        assert_int_not_equal(after.st_ino, before.st_ino);
        assert_int_equal(after.st_uid, c.uid);
        assert_int_equal(after.st_mode & 07777, 0400);
    } else {
        assert_int_equal(after.st_ino, before.st_ino);
        assert_int_equal(after.st_uid, before.st_uid);
        assert_int_equal(after.st_mode, before.st_mode);
    }
    if (c.expected == OWN) {
        char *folder = scratch_text(&r->scratch, "%s/u%u", r->dir, (unsigned)c.uid);
        assert_int_equal(lstat(folder, &after), 0);
        assert_int_equal(after.st_uid, c.uid);
        assert_int_equal(after.st_mode, S_IFDIR | 0700);
    } else if (table == &cache_table) {
        assert_null(strstr(scratch_tree(&r->scratch, r->dir), "/u"));
    }
    rig_end(r);
}

static void every_cell(const struct table *table)
{
    unsigned cells = 0;
    if (!scratch_is_root("a table of docs/trust.md")) {
        skip();
        return;
    }
    for (size_t row = 0; row < sizeof(table->rows) / sizeof(*table->rows); row++)
        for (size_t column = 0; column < sizeof(table->modes) / sizeof(*table->modes); column++) {
            one_cell(table, &table->rows[row], column);
            cells++;
        }
    printf("%s: %u of %u cells as the table says\n", table->what, cells, cells);
}

static void the_cache_directory(void **state)
{
    (void)state;
    every_cell(&cache_table);
}

static void a_namespace(void **state)
{
    (void)state;
    every_cell(&namespace_table);
}

static void an_entry(void **state)
{
    (void)state;
    every_cell(&entry_table);
}

/* ---- u{uid} ---- */

enum folder { GOOD, FILE_THERE, LINK_THERE, GROUP_READS, GROUP_WRITES, ROOTS, OTHERS };

static int use_own_folder(void *argument)
{
    struct cell *c = argument;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    char *folder = scratch_text(&c->r.scratch, "/u%u", (unsigned)c->uid);

    rig_open(&c->r);
    assert_int_equal(wasmcache_status(c->r.cache, &info), 0);
    assert_int_equal(info.state, c->expected == OWN ? WASMCACHE_STATE_ON : WASMCACHE_STATE_OFF);
    if (c->expected != OWN) {
        assert_int_equal(info.error, WASMCACHE_EUNTRUSTED);
        assert_non_null(strstr(info.message, folder));
    }
    assert_int_equal(rig_get(&c->r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, c->expected == OWN ? 0 : WASMCACHE_EUNTRUSTED);
    rig_close(&c->r);
    return 0;
}

static void the_folder_of_our_own_is_ours_alone(void **state)
{
    static const mode_t modes[] = {0777, 01777};
    unsigned cases = 0;
    (void)state;
    if (!scratch_is_root("folders of other users")) {
        skip();
        return;
    }
    for (size_t m = 0; m < sizeof(modes) / sizeof(*modes); m++)
        for (int user = 0; user <= 1; user++)
            for (enum folder kind = GOOD; kind <= OTHERS; kind++) {
                struct cell c;
                struct stat before, after;
                char *folder, *mine;
                int status;

                memset(&c, 0, sizeof(c));
                rig_init(&c.r);
                c.uid = user ? USER : 0;
                c.expected = kind == GOOD || (kind == ROOTS && !user) ? OWN : OFF;
                assert_int_equal(mkdir(c.r.dir, 0777), 0);
                own(c.r.dir, OTHER, modes[m]);
                folder = scratch_text(&c.r.scratch, "%s/u%u", c.r.dir, (unsigned)c.uid);
                mine = scratch_in(&c.r.scratch, "mine");
                assert_int_equal(mkdir(mine, 0700), 0);
                own(mine, c.uid, 0700);
                if (kind == FILE_THERE)
                    scratch_write(folder, "", 0, 0600);
                else if (kind == LINK_THERE)
                    assert_int_equal(symlink(mine, folder), 0);
                else
                    assert_int_equal(mkdir(folder, 0700), 0);
                if (kind != LINK_THERE)
                    own(folder,
                        kind == ROOTS    ? 0
                        : kind == OTHERS ? OTHER
                                         : c.uid,
                        kind == GROUP_READS    ? 0750
                        : kind == GROUP_WRITES ? 0770
                                               : 0700);
                assert_int_equal(lstat(folder, &before), 0);
                status = scratch_child(use_own_folder, &c, c.uid, 20);
                if (status)
                    fail_msg("u%u, kind %d, in a directory of mode %04o: %d", (unsigned)c.uid,
                             (int)kind, (unsigned)modes[m], status);
                assert_int_equal(lstat(folder, &after), 0);
                assert_int_equal(after.st_mode, before.st_mode);
                assert_int_equal(after.st_uid, before.st_uid);
                assert_string_equal(scratch_tree(&c.r.scratch, mine), "");
                rig_end(&c.r);
                cases++;
            }
    printf("u{uid}: %u cases\n", cases);
}

static void a_folder_of_our_own_is_used_where_it_could_not_be_made(void **state)
{
    struct cell c;
    char *folder;
    (void)state;
    if (!scratch_is_root("a directory of another user")) {
        skip();
        return;
    }
    memset(&c, 0, sizeof(c));
    rig_init(&c.r);
    c.uid = USER;
    c.expected = OWN;
    assert_int_equal(mkdir(c.r.dir, 0755), 0);
    folder = scratch_text(&c.r.scratch, "%s/u%u", c.r.dir, (unsigned)USER);
    assert_int_equal(mkdir(folder, 0700), 0);
    own(folder, USER, 0700);
    own(c.r.dir, OTHER, 0755);
    assert_int_equal(scratch_child(use_own_folder, &c, USER, 20), 0);
    rig_end(&c.r);
}

/* ---- the rule itself ---- */

static void every_mode_and_owner_by_the_rule(void **state)
{
    uint32_t uids[] = {7, 8};
    const struct wc_gate gate = {.trust_uids = uids, .trust_uid_count = 2};
    static const uint32_t owners[] = {0, 7, 8, 9, 1000, UINT32_MAX};
    (void)state;
    wc_os_euid_forced = 1000;
    for (uint32_t mode = 0; mode <= 07777; mode++)
        for (size_t i = 0; i < sizeof(owners) / sizeof(*owners); i++) {
            struct wc_os_stat st = {.uid = owners[i], .mode = mode, .type = WC_OS_DIR};
            const int may = owners[i] == 0 || owners[i] == 7 || owners[i] == 8 || owners[i] == 1000;
            const int written = (mode & 0020) || (mode & 0002);
            assert_int_equal(wc_gate_trusts(&gate, &st), may && !written);
        }
    wc_os_euid_forced = -1;
}

static void trusted_users_are_copied_and_counted(void **state)
{
    struct rig r;
    uint32_t many[65] = {TRUSTED};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    (void)state;

    rig_init(&r);
    r.options.trust_uids = many;
    r.options.trust_uid_count = 65;
    assert_int_equal(wasmcache_open(&r.cache, &r.options), WASMCACHE_EMISUSE);
    assert_null(r.cache);
    r.options.trust_uids = NULL;
    r.options.trust_uid_count = 1;
    assert_int_equal(wasmcache_open(&r.cache, &r.options), WASMCACHE_EMISUSE);
    assert_false(scratch_exists(r.dir));
    r.options.trust_uids = many;
    r.options.trust_uid_count = 64;
    rig_open(&r);
    memset(many, 0xff, sizeof(many));
    assert_int_equal(rig_get(&r, wasm, NULL), 0);
    if (geteuid() == 0) {
        own(rig_entry(&r, wasm), TRUSTED, 0400);
        assert_int_equal(rig_get(&r, wasm, &report), 0);
        assert_int_equal(report.outcome, WASMCACHE_HIT);
    }
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cache_directory),
        cmocka_unit_test(a_namespace),
        cmocka_unit_test(an_entry),
        cmocka_unit_test(the_folder_of_our_own_is_ours_alone),
        cmocka_unit_test(a_folder_of_our_own_is_used_where_it_could_not_be_made),
        cmocka_unit_test(every_mode_and_owner_by_the_rule),
        cmocka_unit_test(trusted_users_are_copied_and_counted),
    };
    return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
