/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call to the operating system fails, one after the other, in every scenario, with every
 * errno, once and for good, with each fall-back. After each run it must hold:
 *     D  a get returned its module
 *     W  the engine saw no bytes but its own
 *     L  no descriptor, module, error or artifact leaked
 *     T  no file but entries is left after one clean-up
 *     K  good entries are still there
 *     A  what save acknowledged can be loaded
 *     S  with the fault gone one get makes the key usable
 *
 * With the fall-backs two errnos are enough, unless it is run as "unit_test_faults everything".
 */
#define _GNU_SOURCE
#include <dirent.h>
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

#include "call.h"
#include "seam.h"
#include "spoil.h"
#include "support/rig.h"

static const int errors[] = {EIO, ENOSPC, EDQUOT, EROFS, EACCES, ENOMEM, EMFILE};
static const char *const error_names[] = {"EIO",    "ENOSPC", "EDQUOT", "EROFS",
                                          "EACCES", "ENOMEM", "EMFILE"};

static const char key_wasm[] = "the module in question";
static const char by_wasm[] = "a module that nobody touches";
static const char old_wasm[] = "a module whose removal was cut off";

/* What the scenarios start from, and where it lies. */
struct lab {
    struct rig r;
    char *ns_dir, *entry, *by, *old, *old_name, *temp_name, *source;
    uint8_t *good, *bad, *good_old;
    size_t good_size, bad_size, good_old_size;
    ino_t by_inode, inode; /* inode: of the entry before the run */
    int ran;               /* what the scenario's call returned */
};

enum start { ABSENT, GOOD, BAD };

struct scenario {
    const char *name;
    enum start start;
    void (*prepare)(struct lab *);
    void (*run)(struct lab *);
    int get;   /* 1: `ran` must be 0 */
    int stays; /* 1: the good entry must be the same file afterwards; 2: a good one must be there */
};

static int everything; /* all errnos also with the fall-backs */
static unsigned violations;
static const char *scenario_now;
static char context[256];

/* Tells of the first three of a kind. */
static void violated(const char *rule)
{
    static struct {
        const char *scenario, *rule;
        unsigned count;
    } seen[32];
    size_t i = 0;
    violations++;
    while (i < 31 && seen[i].rule && (seen[i].rule != rule || seen[i].scenario != scenario_now))
        i++;
    seen[i].rule = rule;
    seen[i].scenario = scenario_now;
    if (seen[i].count++ < 3)
        printf("%s: %s\n    calls: %s\n", context, rule, seam_log());
}

#define HOLD(condition, rule)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            violated(rule);                                                                        \
    } while (0)

/* ---- scenarios ---- */

static void run_get(struct lab *l)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    l->ran = rig_get(&l->r, key_wasm, &report);
    if (l->ran == 0 && report.outcome == WASMCACHE_COMPILED && report.save_error == 0) {
        seam_off();
        HOLD(rig_load(&l->r, key_wasm, NULL) == 0, "A: the report says that it was saved");
    }
}

static void run_get_path(struct lab *l)
{
    const wasmcache_source source = wasmcache_source_path(l->source);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    l->ran = wasmcache_get(&module, l->r.wc, WASMCACHE_MODULE, &source, NULL, &report);
    if (l->ran == 0)
        HOLD(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, key_wasm,
                            strlen(key_wasm)),
             "D: it is another module");
    else if (report.reason == WASMCACHE_REASON_SOURCE)
        l->ran = 0; /* it was the source that could not be read */
    wasmcache_module_release(module);
}

static void run_recompile(struct lab *l)
{
    l->ran = rig_get_with(&l->r, key_wasm, WASMCACHE_GET_RECOMPILE, NULL);
}

static void run_refused(struct lab *l)
{
    l->r.engine.fail_file = l->r.engine.fail_bytes = 1;
    l->ran = rig_get(&l->r, key_wasm, NULL);
    l->r.engine.fail_file = l->r.engine.fail_bytes = 0;
}

static void run_save(struct lab *l)
{
    l->ran = rig_save(&l->r, key_wasm, NULL);
    seam_off();
    if (l->ran == 0)
        HOLD(rig_load(&l->r, key_wasm, NULL) == 0, "A: save returned 0");
}

static void run_load(struct lab *l)
{
    l->ran = rig_load(&l->r, key_wasm, NULL);
}

static void run_remove(struct lab *l)
{
    wasmcache_key key = rig_key(key_wasm);
    l->ran = wasmcache_remove(l->r.cache, rig_namespace(&l->r), &key);
    seam_off();
    HOLD(scratch_exists(l->entry) ? l->ran != 0 && l->ran != WASMCACHE_EMISS : 1,
         "remove says that the entry is gone, but it is there");
}

static void run_clean(struct lab *l)
{
    uint64_t removed = 99;
    l->ran = wasmcache_clean(l->r.cache, &removed);
    HOLD(l->ran != 0 || removed == 2, "T: the clean-up returned 0, but did not do all");
}

static void run_iterate(struct lab *l)
{
    wasmcache_iterator *it = NULL;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_key key = rig_key(key_wasm);
    unsigned steps = 0;
    int rc = wasmcache_iterate(&it, l->r.cache, NULL, WASMCACHE_CHECK_DIGEST);
    if (rc == 0)
        while ((rc = wasmcache_iterator_next(it, &entry)) != WASMCACHE_EMISS && steps < 20)
            steps++;
    wasmcache_iterator_close(it);
    HOLD(steps < 20, "D: the walk does not end");
    l->ran = wasmcache_entry_check(&entry, l->r.cache, rig_namespace(&l->r), &key,
                                   WASMCACHE_CHECK_DIGEST);
    if (l->ran == 0)
        HOLD(entry.state == WASMCACHE_REASON_NONE || entry.state == WASMCACHE_REASON_UNREADABLE,
             "a good entry is called bad");
}

static void run_status(struct lab *l)
{
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    char path[1024];
    wasmcache_key key = rig_key(key_wasm);
    HOLD(wasmcache_status(l->r.cache, &info) == 0, "status fails");
    HOLD(info.state == WASMCACHE_STATE_ON || info.message[0], "off, but status does not say why");
    l->ran = wasmcache_contains(l->r.wc, WASMCACHE_MODULE, &key);
    (void)wasmcache_entry_path(path, sizeof(path), l->r.cache, rig_namespace(&l->r), &key);
}

static void run_overlaps(struct lab *l)
{
    int fd = wc_os_open_dir(l->ns_dir);
    if (fd < 0)
        return;
    l->ran = wasmcache_overlaps(l->r.cache, fd);
    HOLD(l->ran != 0, "a folder of the cache is said not to overlap it");
    if (l->ran < 0)
        l->ran = WASMCACHE_EIO; /* whatever it is, callers take it for a yes */
    wc_os_hook = NULL;
    wc_os_close(fd);
}

static void prepare_left_over(struct lab *l)
{
    scratch_write(l->old_name, l->good_old, l->good_old_size, 0400);
    scratch_write(l->temp_name, "half", 4, 0600);
    unlink(l->old);
}

static void prepare_no_folders(struct lab *l)
{
    rig_close(&l->r);
    scratch_remove(scratch_in(&l->r.scratch, "far"));
}

static void run_open(struct lab *l)
{
    rig_open(&l->r);
    run_get(l);
}

/* The folder was judged just now; else a run would depend on how long the one before took. */
static void prepare_judged(struct lab *l)
{
    wc_call_judged_for = UINT64_C(3600000000000);
    (void)rig_load(&l->r, by_wasm, NULL);
}

static const struct scenario scenarios[] = {
    {"cold get", ABSENT, NULL, run_get, 1, 0},
    {"cold get of a file", ABSENT, NULL, run_get_path, 1, 0},
    {"hit", GOOD, NULL, run_get, 1, 1},
    {"hit, folder judged", GOOD, prepare_judged, run_get, 1, 1},
    {"corrupt entry", BAD, NULL, run_get, 1, 0},
    {"corrupt entry, folder judged", BAD, prepare_judged, run_get, 1, 0},
    {"cold get, folder judged", ABSENT, prepare_judged, run_get, 1, 0},
    {"load", GOOD, NULL, run_load, 0, 1},
    {"save", ABSENT, NULL, run_save, 0, 0},
    {"save over a good entry", GOOD, NULL, run_save, 0, 1},
    {"save over a bad entry", BAD, NULL, run_save, 0, 0},
    {"replace", GOOD, NULL, run_recompile, 1, 2},
    {"replace what the engine refuses", GOOD, NULL, run_refused, 1, 2},
    {"remove", GOOD, NULL, run_remove, 0, 0},
    {"clean", GOOD, prepare_left_over, run_clean, 0, 1},
    {"iterate and check", GOOD, NULL, run_iterate, 0, 1},
    {"status", GOOD, NULL, run_status, 0, 1},
    {"overlaps", GOOD, NULL, run_overlaps, 0, 1},
};

static const struct scenario open_scenario = {
    "open, parents missing", ABSENT, prepare_no_folders, run_open, 1, 0};

/* ---- the sweep ---- */

static void lab_start(struct lab *l, const char *dir)
{
    memset(l, 0, sizeof(*l));
    rig_init(&l->r);
    l->r.dir = scratch_in(&l->r.scratch, "%s", dir);
    l->r.options.dir = l->r.dir;
    rig_open(&l->r);
    l->ns_dir = scratch_text(&l->r.scratch, "%s/%s", l->r.dir, rig_namespace(&l->r));
#define NAME(of) strrchr(rig_entry(&l->r, of), '/') + 1
    l->entry = scratch_text(&l->r.scratch, "%s/%s", l->ns_dir, NAME(key_wasm));
    l->by = scratch_text(&l->r.scratch, "%s/%s", l->ns_dir, NAME(by_wasm));
    l->old = scratch_text(&l->r.scratch, "%s/%s", l->ns_dir, NAME(old_wasm));
    l->old_name =
        scratch_text(&l->r.scratch, "%s/.old-%s-0123456789ABCDEF", l->ns_dir, NAME(old_wasm));
#undef NAME
    l->temp_name = scratch_text(&l->r.scratch, "%s/.tmp-0123456789ABCDEF", l->ns_dir);
    l->source = scratch_in(&l->r.scratch, "source.wasm");
    scratch_write(l->source, key_wasm, strlen(key_wasm), 0600);

    assert_int_equal(rig_get(&l->r, key_wasm, NULL), 0);
    assert_int_equal(rig_get(&l->r, by_wasm, NULL), 0);
    assert_int_equal(rig_get(&l->r, old_wasm, NULL), 0);
    l->good = scratch_read(l->entry, &l->good_size);
    l->good_old = scratch_read(l->old, &l->good_old_size);
    assert_int_equal(unlink(l->old), 0);
    spoil(l->entry, SPOIL_ARTIFACT);
    l->bad = scratch_read(l->entry, &l->bad_size);
    l->by_inode = scratch_inode(l->by);
}

static void lab_end(struct lab *l)
{
    free(l->good);
    free(l->bad);
    free(l->good_old);
    rig_end(&l->r);
}

static void prepare(struct lab *l, const struct scenario *s)
{
    l->ran = 0;
    wc_call_judged_for = 0;
    if (s->start == ABSENT)
        unlink(l->entry);
    else if (s->start == GOOD &&
             (!l->inode || !scratch_exists(l->entry) || scratch_inode(l->entry) != l->inode))
        scratch_write(l->entry, l->good, l->good_size, 0400);
    else if (s->start == BAD)
        scratch_write(l->entry, l->bad, l->bad_size, 0400);
    l->inode = s->start == ABSENT ? 0 : scratch_inode(l->entry);
    if (s->prepare)
        s->prepare(l);
}

/* Anything in the folder that is no entry? */
static int left_over(const char *dir)
{
    DIR *walk = opendir(dir);
    const struct dirent *entry;
    int found = 0;
    while (walk && (entry = readdir(walk)) != NULL)
        if (entry->d_name[0] == '.' && strcmp(entry->d_name, ".") != 0 &&
            strcmp(entry->d_name, "..") != 0 && strcmp(entry->d_name, ".lock") != 0 &&
            strcmp(entry->d_name, ".identity") != 0)
            found = 1;
    if (walk)
        closedir(walk);
    return found;
}

static void check(struct lab *l, const struct scenario *s)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct rig *r = &l->r;
    unsigned compiles;
    uint64_t removed;

    HOLD(!s->get || l->ran == 0, "D: the get failed");
    HOLD(l->ran <= 1 && l->ran >= WASMCACHE_ENOMEM && l->ran != WASMCACHE_EMISUSE,
         "it returned what it may not");
    HOLD(!r->engine.wrong, "W: the engine was handed bytes that it did not make");
    HOLD(!r->engine.live_modules && !r->engine.live_errors && !r->engine.live_artifacts,
         "L: a module, error or artifact leaked");
    if (s->stays == 1)
        HOLD(scratch_exists(l->entry) && scratch_inode(l->entry) == l->inode &&
                 rig_load(r, key_wasm, NULL) == 0,
             "K: the good entry is gone");
    if (s->stays == 2)
        HOLD(rig_load(r, key_wasm, NULL) == 0, "K: no good entry is there");
    HOLD(wasmcache_clean(r->cache, &removed) == 0, "T: the clean-up failed");
    HOLD(!left_over(l->ns_dir), "T: something is left over");
    HOLD(s == &open_scenario || scratch_exists(l->ns_dir), "the folder is gone");
    if (s->start != ABSENT && l->ran != 0 && s->run == run_remove)
        HOLD(rig_load(r, key_wasm, NULL) == 0, "K: remove failed, but the entry is gone");
    if (s->prepare == prepare_left_over) {
        HOLD(rig_load(r, old_wasm, NULL) == 0, "K: the entry being removed was not put back");
        unlink(l->old);
    }
    if (s != &open_scenario)
        HOLD(scratch_inode(l->by) == l->by_inode, "K: another entry is gone");
    HOLD(rig_get(r, key_wasm, NULL) == 0, "D: without fault the get failed");
    compiles = r->engine.compiles;
    HOLD(rig_get(r, key_wasm, &report) == 0 && report.outcome == WASMCACHE_HIT &&
             r->engine.compiles == compiles,
         "S: the key cannot be used");
    HOLD(!r->engine.wrong, "W: the engine was handed bytes that it did not make");
}

static unsigned sweep(struct lab *l, const struct scenario *s, const struct seam_variant *variant,
                      size_t error, int sticky)
{
    unsigned runs = 0;
    for (unsigned nth = 1;; nth++) {
        unsigned before;
        snprintf(context, sizeof(context), "%s (%s), call %u fails with %s%s", s->name,
                 variant->name, nth, error_names[error], sticky ? " and all after it" : "");
        wc_os_lacking = variant->lacking;
        prepare(l, s);
        before = scratch_descriptors();
        seam_fail(nth, errors[error], sticky);
        s->run(l);
        seam_off();
        HOLD(scratch_descriptors() == before, "L: a descriptor leaked");
        runs++;
        if (!seam_met())
            return runs;
        /* A directory that could not be made is no place to look into. */
        if (s == &open_scenario)
            HOLD(wasmcache_status(l->r.cache, &(wasmcache_status_info)WASMCACHE_STATUS_INIT) == 0,
                 "status fails");
        check(l, s);
        if (nth > 500) {
            violated("D: it does not end");
            return runs;
        }
    }
}

static unsigned sweep_all(struct lab *l, const struct scenario *s)
{
    unsigned runs = 0;
    scenario_now = s->name;
    for (unsigned v = 0; v < seam_variant_count; v++) {
        /* It walks over many mounts, and only looks. */
        if (s->run == run_overlaps && v && seam_variants[v].lacking != WC_OS_NO_PROC)
            continue;
        for (size_t e = 0; e < (v && !everything ? 2 : sizeof(errors) / sizeof(*errors)); e++)
            for (int sticky = 0; sticky <= 1; sticky++)
                runs += sweep(l, s, &seam_variants[v], e, sticky);
    }
    wc_os_lacking = 0;
    return runs;
}

static void no_fault_does_harm(void **state)
{
    struct lab l;
    unsigned all = 0;
    (void)state;

    violations = 0;
    lab_start(&l, "cache");
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
        unsigned runs = sweep_all(&l, &scenarios[i]);
        printf("%6u runs: %s\n", runs, scenarios[i].name);
        all += runs;
    }
    lab_end(&l);
    printf("%6u runs, %u violations\n", all, violations);
    assert_int_equal(violations, 0);
}

static void no_fault_of_a_durable_save_does_harm(void **state)
{
    struct lab l;
    unsigned all = 0;
    (void)state;

    violations = 0;
    lab_start(&l, "cache");
    rig_close(&l.r);
    l.r.options.flags = WASMCACHE_DURABLE;
    rig_open(&l.r);
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
        if (strstr(scenarios[i].name, "save") || strcmp(scenarios[i].name, "replace") == 0)
            all += sweep_all(&l, &scenarios[i]);
    lab_end(&l);
    printf("%6u runs: durable, %u violations\n", all, violations);
    assert_int_equal(violations, 0);
}

static void no_fault_at_open_does_harm(void **state)
{
    struct lab l;
    unsigned runs;
    (void)state;

    violations = 0;
    lab_start(&l, "far/away/cache");
    l.r.options.flags = WASMCACHE_DURABLE;
    runs = sweep_all(&l, &open_scenario);
    lab_end(&l);
    printf("%6u runs: %s, %u violations\n", runs, open_scenario.name, violations);
    assert_int_equal(violations, 0);
}

int main(int argc, char **argv)
{
    int failed;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_fault_does_harm),
        cmocka_unit_test(no_fault_of_a_durable_save_does_harm),
        cmocka_unit_test(no_fault_at_open_does_harm),
    };
    everything = argc > 1 && strcmp(argv[1], "everything") == 0;
    scratch_in_memory();
    failed = cmocka_run_group_tests_name("faults", tests, NULL, NULL);
    scratch_in_memory_end();
    return failed;
}
