/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removal by identity: whatever somebody else does at whichever step of a removal, a good entry is
 * there afterwards, and nothing is left over.
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

#include "seam.h"
#include "spoil.h"
#include "support/rig.h"

static const char wasm[] = "the module whose entry is removed";

/* Two users of one directory: one removes, the other publishes meanwhile. */
struct lab {
    struct rig r;
    struct fake_engine engine;
    wasmcache *cache;
    wasmcache_attachment *wc;
    char *entry, *held, *good_file;
    int rc;
    unsigned published;
};

static void publish(void *argument)
{
    struct lab *l = argument;
    wasmcache_key key = rig_key(wasm);
    void *native = fake_module_new(&l->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    int rc = wasmcache_save(l->wc, WASMCACHE_MODULE, &key, native, NULL, NULL);
    l->engine.table.module_free(WASMCACHE_MODULE, native);
    if (rc)
        fail_msg("the other cannot publish: %s", wasmcache_last_error()->message);
    /* Its number is not to be used again while we compare. */
    unlink(l->held);
    assert_int_equal(link(l->entry, l->held), 0);
    l->published++;
}

static void clean(void *argument)
{
    struct lab *l = argument;
    assert_int_equal(wasmcache_clean(l->cache, NULL), 0);
}

static int set_up(void **state)
{
    struct lab *l = calloc(1, sizeof(*l));
    if (!l)
        return -1;
    rig_init(&l->r);
    rig_open(&l->r);
    fake_engine_init(&l->engine, 1);
    assert_int_equal(wasmcache_open(&l->cache, &l->r.options), 0);
    assert_int_equal(wasmcache_attach(&l->wc, l->cache, &l->engine.table, &l->engine, &l->r.attach),
                     0);
    l->entry = rig_entry(&l->r, wasm);
    l->held = scratch_in(&l->r.scratch, "held");
    l->good_file = scratch_in(&l->r.scratch, "good");
    assert_int_equal(rig_get(&l->r, wasm, NULL), 0);
    assert_int_equal(rename(l->entry, l->good_file), 0);
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lab *l = *state;
    seam_off();
    wc_os_lacking = 0;
    wasmcache_detach(l->wc);
    wasmcache_close(l->cache);
    fake_engine_end(&l->engine);
    rig_end(&l->r);
    free(l);
    return 0;
}

/* Puts a file, spoilt or good (SPOIL_COUNT), under a name. */
static void put(const struct lab *l, const char *path, enum spoil how)
{
    size_t size;
    uint8_t *bytes = scratch_read(l->good_file, &size);
    char target[4096];
    scratch_write(path, bytes, size, 0400);
    free(bytes);
    if (how != SPOIL_COUNT)
        spoil(path, how);
    snprintf(target, sizeof(target), "%s.target", path);
    unlink(target);
}

/* Nothing but the entry, or not even that. */
static int nothing_left(struct lab *l)
{
    const char *ns = rig_namespace(&l->r), *name = strrchr(l->entry, '/') + 1;
    const char *tree = scratch_tree(&l->r.scratch, l->r.dir);
    return strcmp(tree, scratch_text(&l->r.scratch, "CACHEDIR.TAG\n%s/\n", ns)) == 0 ||
           strcmp(tree, scratch_text(&l->r.scratch, "CACHEDIR.TAG\n%s/\n%s/%s\n", ns, ns, name)) ==
               0;
}

/* Neither a link nor a rename that does not replace: nothing there gives a file a name in one step
 * only if it is free. */
static int no_exclusive_name(void)
{
    return wc_os_lacking & WC_OS_NO_NOREPLACE && wc_os_lacking & WC_OS_NO_LINK;
}

/* ---- ways to remove ---- */

static void by_load(struct lab *l)
{
    l->rc = rig_load(&l->r, wasm, NULL);
}

static void by_save(struct lab *l)
{
    l->rc = rig_save(&l->r, wasm, NULL);
}

static void by_call(struct lab *l)
{
    wasmcache_key key = rig_key(wasm);
    l->rc = wasmcache_remove(l->r.cache, rig_namespace(&l->r), &key);
}

static const struct way {
    const char *name;
    enum spoil how; /* what is removed */
    void (*run)(struct lab *);
} ways[] = {
    {"load of a damaged entry", SPOIL_ARTIFACT, by_load},
    {"save over a damaged entry", SPOIL_ARTIFACT, by_save},
    {"save over a link", SPOIL_DANGLING, by_save},
    {"save over a FIFO", SPOIL_FIFO, by_save},
    {"remove of a damaged entry", SPOIL_ARTIFACT, by_call},
    {"remove of a link", SPOIL_DANGLING, by_call},
    {"remove of a socket", SPOIL_SOCKET, by_call},
};
#define WAYS (sizeof(ways) / sizeof(*ways))

/*
 * How many calls it takes. *taken_for: after which of them it knows what file it removes: the call
 * to remove takes what it finds then, good or not.
 */
static unsigned dry_run(struct lab *l, const struct way *way, unsigned *taken_for)
{
    const char *log, *at;
    put(l, l->entry, way->how);
    seam_record();
    way->run(l);
    seam_off();
    *taken_for = 0;
    if (way->run == by_call) {
        log = seam_log();
        at = strstr(log, way->how == SPOIL_ARTIFACT ? "open_read," : "open_identity,");
        assert_non_null(at);
        for (*taken_for = 1; log < at; log++)
            *taken_for += *log == ',';
    }
    assert_true(nothing_left(l));
    return seam_calls();
}

/* ---- somebody publishes meanwhile ---- */

static void a_good_entry_published_at_any_step_survives(void **state)
{
    struct lab *l = *state;
    unsigned runs = 0, lost = 0, left = 0;

    for (unsigned v = 0; v < seam_variant_count; v++) {
        for (size_t w = 0; w < WAYS; w++) {
            unsigned taken_for;
            wc_os_lacking = seam_variants[v].lacking;
            dry_run(l, &ways[w], &taken_for);
            for (unsigned nth = 1;; nth++) {
                int there;
                put(l, l->entry, ways[w].how);
                l->published = 0;
                seam_act(nth, publish, l);
                ways[w].run(l);
                seam_off();
                if (!seam_met())
                    break;
                runs++;
                assert_int_equal(l->published, 1);
                there = rig_load(&l->r, wasm, NULL) == 0;
                if (nth <= taken_for && !there && l->rc == 0)
                    continue; /* the good one was what was to be removed */
                /* It is the one that was published; a save may have been faster with its own. */
                if (!there ||
                    (ways[w].run != by_save && scratch_inode(l->entry) != scratch_inode(l->held))) {
                    lost++;
                    printf("%s (%s): lost when published before call %u of %s\n", ways[w].name,
                           seam_variants[v].name, nth, seam_log());
                }
                if (!nothing_left(l)) {
                    left++;
                    printf("%s (%s): files left when published before call %u of %s\n",
                           ways[w].name, seam_variants[v].name, nth, seam_log());
                }
            }
        }
    }
    printf("a good entry published at each of %u steps: %u lost, %u times something left\n", runs,
           lost, left);
    assert_int_equal(lost, 0);
    assert_int_equal(left, 0);
}

static void a_clean_up_at_any_step_does_no_harm(void **state)
{
    struct lab *l = *state;
    unsigned runs = 0;

    for (unsigned v = 0; v < seam_variant_count; v++) {
        for (size_t w = 0; w < WAYS; w++) {
            for (unsigned nth = 1;; nth++) {
                wc_os_lacking = seam_variants[v].lacking;
                put(l, l->entry, ways[w].how);
                seam_act(nth, clean, l);
                ways[w].run(l);
                seam_off();
                if (!seam_met())
                    break;
                runs++;
                if (!nothing_left(l))
                    fail_msg("%s (%s): files left after a clean-up before call %u of %s",
                             ways[w].name, seam_variants[v].name, nth, seam_log());
                if (scratch_exists(l->entry) != (ways[w].run == by_save))
                    fail_msg("%s (%s), clean-up before call %u of %s: the entry is %s",
                             ways[w].name, seam_variants[v].name, nth, seam_log(),
                             scratch_exists(l->entry) ? "still there" : "not there");
            }
        }
    }
    printf("a clean-up at each of %u steps: no harm\n", runs);
}

static void published_and_cleaned_at_any_two_steps_it_survives(void **state)
{
    struct lab *l = *state;
    const struct way *way = &ways[0];
    unsigned runs = 0, lost = 0;

    for (unsigned v = 0; v < seam_variant_count; v++) {
        unsigned taken_for, calls;
        wc_os_lacking = seam_variants[v].lacking;
        calls = dry_run(l, way, &taken_for);
        for (unsigned first = 1; first <= calls; first++) {
            for (unsigned second = first; second <= calls + 2; second++) {
                put(l, l->entry, way->how);
                l->published = 0;
                seam_act(first, publish, l);
                seam_also_act(second, clean, l);
                way->run(l);
                seam_off();
                runs++;
                if (l->published && (rig_load(&l->r, wasm, NULL) != 0 || !nothing_left(l))) {
                    lost++;
                    printf("%s (%s), published before call %u, cleaned before call %u of %s\n",
                           way->name, seam_variants[v].name, first, second, seam_log());
                }
            }
        }
    }
    printf("published and cleaned at %u pairs of steps: %u lost\n", runs, lost);
    assert_int_equal(lost, 0);
}

/* ---- the remover is killed ---- */

struct victim {
    struct lab *l;
    const struct way *way;
    unsigned publish_at, exit_at;
};

static int be_killed(void *argument)
{
    const struct victim *v = argument;
    if (v->publish_at) {
        seam_act(v->publish_at, publish, v->l);
        seam_also_exit(v->exit_at);
    } else {
        seam_exit(v->exit_at);
    }
    v->way->run(v->l);
    return 1; /* not killed: it takes fewer calls */
}

/* A fork takes long there. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FORK_VARIANTS 2
#else
#define FORK_VARIANTS seam_variant_count
#endif

static void killed_at_any_step_a_clean_up_repairs_it(void **state)
{
    struct lab *l = *state;
    unsigned runs = 0, lost = 0, left = 0;

    for (unsigned v = 0; v < FORK_VARIANTS; v++) {
        for (size_t w = 0; w < WAYS; w++) {
            /* With a publisher the pairs of steps are many: the two plain removals only. */
            const int pairs = ways[w].how == SPOIL_ARTIFACT && ways[w].run != by_save;
            unsigned taken_for, calls;
            wc_os_lacking = seam_variants[v].lacking;
            calls = dry_run(l, &ways[w], &taken_for);
            for (unsigned at = 0; at <= (pairs ? calls : 0); at++) {
                for (unsigned nth = at ? at : 1;; nth++) {
                    struct victim victim = {l, &ways[w], at, nth};
                    int status;
                    put(l, l->entry, ways[w].how);
                    status = scratch_child(be_killed, &victim, 0, 20);
                    if (status == 1)
                        break;
                    assert_int_equal(status, 0);
                    runs++;
                    /* A newer good one must not be hurt by what the dead one left. */
                    if (nth % 3 == 0 && !at)
                        publish(l);
                    if (wasmcache_clean(l->r.cache, NULL) != 0 || !nothing_left(l)) {
                        left++;
                        printf("%s (%s): killed before call %u, something stays: %s\n",
                               ways[w].name, seam_variants[v].name, nth,
                               scratch_tree(&l->r.scratch, l->r.dir));
                        scratch_remove(rig_namespace_dir(&l->r));
                        mkdir(rig_namespace_dir(&l->r), 0700);
                        continue;
                    }
                    if (at > taken_for && rig_load(&l->r, wasm, NULL) != 0) {
                        lost++;
                        printf("%s (%s): published before call %u, killed before call %u: lost\n",
                               ways[w].name, seam_variants[v].name, at, nth);
                    }
                    assert_int_equal(rig_get(&l->r, wasm, NULL), 0);
                    assert_int_equal(rig_load(&l->r, wasm, NULL), 0);
                }
            }
        }
    }
    printf("killed at each of %u steps: %u lost, %u times something left after a clean-up\n", runs,
           lost, left);
    assert_int_equal(lost, 0);
    assert_int_equal(left, 0);
}

/* ---- the clean-up itself ---- */

static char *old_name(struct lab *l)
{
    return scratch_text(&l->r.scratch, "%s/.old-%s-0123456789ABCDEF", rig_namespace_dir(&l->r),
                        strrchr(l->entry, '/') + 1);
}

static void a_good_entry_is_put_back_unless_there_is_a_newer_one(void **state)
{
    struct lab *l = *state;
    char *old = old_name(l);
    uint64_t removed;
    ino_t inode;

    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        unlink(l->entry);
        put(l, old, SPOIL_COUNT);
        inode = scratch_inode(old);
        removed = 7;
        assert_int_equal(wasmcache_clean(l->r.cache, &removed), 0);
        assert_int_equal(removed, 1);
        assert_int_equal(scratch_inode(l->entry), inode);
        assert_true(nothing_left(l));
        assert_int_equal(rig_load(&l->r, wasm, NULL), 0);

        put(l, old, SPOIL_COUNT);
        removed = 7;
        if (wasmcache_clean(l->r.cache, &removed) != 0)
            fail_msg("%s: %s", seam_variants[v].name, wasmcache_last_error()->message);
        assert_int_equal(removed, 1);
        assert_int_equal(scratch_inode(l->entry), inode);
        assert_true(nothing_left(l));
    }
}

static int clean_and_be_killed(void *argument)
{
    const struct victim *v = argument;
    seam_exit(v->exit_at);
    wasmcache_clean(v->l->r.cache, NULL);
    return 1;
}

static void a_clean_up_that_is_killed_loses_nothing(void **state)
{
    struct lab *l = *state;
    unsigned runs = 0;

    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        for (unsigned nth = 1;; nth++) {
            struct victim victim = {l, NULL, 0, nth};
            int status;
            unlink(l->entry);
            put(l, old_name(l), SPOIL_COUNT);
            status = scratch_child(clean_and_be_killed, &victim, 0, 20);
            if (status == 1)
                break;
            assert_int_equal(status, 0);
            runs++;
            assert_int_equal(wasmcache_clean(l->r.cache, NULL), 0);
            assert_true(nothing_left(l));
            assert_int_equal(rig_load(&l->r, wasm, NULL), 0);
        }
    }
    printf("a clean-up killed at each of %u steps: 0 lost\n", runs);
}

static void what_a_clean_up_puts_back_does_not_hide_a_newer_entry(void **state)
{
    struct lab *l = *state;
    unsigned runs = 0, lost = 0;

    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        for (unsigned nth = 1;; nth++) {
            unlink(l->entry);
            put(l, old_name(l), SPOIL_ARTIFACT);
            seam_act(nth, publish, l);
            wasmcache_clean(l->r.cache, NULL);
            seam_off();
            if (!seam_met())
                break;
            runs++;
            /* Between its look whether the name is free and its rename there is a gap then. The
             * next get removes the damaged one: it costs a compile. */
            if (rig_load(&l->r, wasm, NULL) != 0 && !no_exclusive_name()) {
                lost++;
                printf("(%s) published before call %u of %s: hidden\n", seam_variants[v].name, nth,
                       seam_log());
            }
            unlink(old_name(l));
        }
    }
    printf("published at each of %u steps of a clean-up: %u hidden by a damaged one\n", runs, lost);
    assert_int_equal(lost, 0);
}

/* ---- the contract of remove ---- */

static void remove_takes_any_entry_away(void **state)
{
    struct lab *l = *state;
    wasmcache_key key = rig_key(wasm);
    const char *ns = rig_namespace(&l->r);
    unsigned open_before = scratch_descriptors();

    for (unsigned v = 0; v < seam_variant_count; v++) {
        wc_os_lacking = seam_variants[v].lacking;
        for (int how = 0; how <= SPOIL_NEWER; how++) {
            put(l, l->entry, (enum spoil)how);
            assert_int_equal(wasmcache_remove(l->r.cache, ns, &key), 0);
            assert_false(scratch_exists(l->entry));
            assert_true(nothing_left(l));
            assert_int_equal(wasmcache_remove(l->r.cache, ns, &key), WASMCACHE_EMISS);
        }
    }
    assert_int_equal(scratch_descriptors(), open_before);

    /* But a directory is not ours to remove. */
    put(l, l->entry, SPOIL_DIRECTORY);
    assert_int_equal(wasmcache_remove(l->r.cache, ns, &key), WASMCACHE_EUNTRUSTED);
    assert_true(scratch_exists(l->entry));
    assert_int_equal(rmdir(l->entry), 0);

    assert_int_equal(wasmcache_remove(l->r.cache, "no-such-v1", &key), WASMCACHE_EMISS);
    assert_int_equal(wasmcache_remove(NULL, ns, &key), WASMCACHE_EOFF);
    assert_int_equal(wasmcache_remove(l->r.cache, "../x-v1", &key), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_remove(l->r.cache, NULL, &key), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_remove(l->r.cache, ns, NULL), WASMCACHE_EMISUSE);
    assert_false(scratch_exists(scratch_in(&l->r.scratch, "cache/no-such-v1")));
}

static void a_mapped_module_survives_its_entrys_removal(void **state)
{
    struct lab *l = *state;
    wasmcache_key key = rig_key(wasm);
    wasmcache_module *module = NULL;

    assert_int_equal(rig_get(&l->r, wasm, NULL), 0);
    assert_int_equal(wasmcache_load(&module, l->r.wc, WASMCACHE_MODULE, &key, NULL), 0);
    assert_int_equal(wasmcache_remove(l->r.cache, rig_namespace(&l->r), &key), 0);
    assert_true(
        fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, wasm, strlen(wasm)));
    wasmcache_module_release(module);
}

int main(void)
{
    int failed;
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_good_entry_published_at_any_step_survives),
        TEST(a_clean_up_at_any_step_does_no_harm),
        TEST(published_and_cleaned_at_any_two_steps_it_survives),
        TEST(killed_at_any_step_a_clean_up_repairs_it),
        TEST(a_good_entry_is_put_back_unless_there_is_a_newer_one),
        TEST(a_clean_up_that_is_killed_loses_nothing),
        TEST(what_a_clean_up_puts_back_does_not_hide_a_newer_entry),
        TEST(remove_takes_any_entry_away),
        TEST(a_mapped_module_survives_its_entrys_removal),
    };
    scratch_in_memory();
    failed = cmocka_run_group_tests_name("remove", tests, NULL, NULL);
    scratch_in_memory_end();
    return failed;
}
