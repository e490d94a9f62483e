/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errnos that say more than that a call failed: it is not there, it is there already, it is
 * something else, it may not be done here. test_faults.c has those that say nothing of the kind.
 * Each call of the seam fails with each of them, once, in the calls that have to tell them apart;
 * whatever the library makes of it, no get fails, the engine sees nothing but its own, nothing is
 * left over, and afterwards the key works.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"
#include "spoil.h"

/* The first few also with what is used where something is missing; the last ones are for mounts. */
enum { AGAIN = 4, MOUNTS = 10 };
static const int errors[] = {ENOENT, EEXIST, EPERM, EINVAL,     ENOTDIR, ELOOP,
                             EACCES, EROFS,  EXDEV, EOPNOTSUPP, ESTALE,  ENOTCONN};
static const char wasm[] = "the module in question";
static const char by_wasm[] = "a module that nobody touches";

struct lab {
    struct rig *r;
    char *ns, *entry, *own_dir;
    wasmcache_key key;
    ino_t by;
    int guest; /* a directory that has nothing to do with the cache */
};

static unsigned violations;
static char context[256];

#define HOLD(condition, rule)                                                                      \
    do {                                                                                           \
        if (!(condition) && violations++ < 20)                                                     \
            printf("%s: %s\n    calls: %s\n", context, rule, seam_log());                          \
    } while (0)

static void absent(struct lab *l)
{
    unlink(l->entry);
}

static void good(struct lab *l)
{
    (void)rig_get_with(l->r, wasm, WASMCACHE_GET_RECOMPILE, NULL);
}

static void damaged(struct lab *l)
{
    good(l);
    spoil(l->entry, SPOIL_ARTIFACT);
}

static void a_link(struct lab *l)
{
    absent(l);
    assert_int_equal(symlink("/nowhere", l->entry), 0);
}

static int get(struct lab *l)
{
    return rig_get(l->r, wasm, NULL);
}

static int recompile(struct lab *l)
{
    return rig_get_with(l->r, wasm, WASMCACHE_GET_RECOMPILE, NULL);
}

static int save(struct lab *l)
{
    (void)rig_save(l->r, wasm, NULL);
    return 0;
}

static int look(struct lab *l)
{
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_identity identity = WASMCACHE_IDENTITY_INIT;
    wasmcache_iterator *it = NULL;
    int rc;
    HOLD(wasmcache_status(l->r->cache, &info) == 0, "status fails");
    (void)wasmcache_contains(l->r->wc, WASMCACHE_MODULE, &l->key);
    (void)wasmcache_identity_read(&identity, l->r->cache, l->ns);
    (void)wasmcache_entry_check(&entry, l->r->cache, l->ns, &l->key, 0);
    if (wasmcache_iterate(&it, l->r->cache, NULL, 0) == 0)
        for (int i = 0; i < 9 && (rc = wasmcache_iterator_next(it, &entry)) != WASMCACHE_EMISS; i++)
            HOLD(rc || entry.state != WASMCACHE_REASON_CORRUPT, "a good entry is called corrupt");
    wasmcache_iterator_close(it);
    return 0;
}

static int remove_it(struct lab *l)
{
    int rc = wasmcache_remove(l->r->cache, l->ns, &l->key);
    HOLD(rc != 0 || !scratch_exists(l->entry), "it is said to be removed, and is there");
    return 0;
}

static int remove_damaged(struct lab *l)
{
    (void)wasmcache_remove_damaged(l->r->cache, l->ns, &l->key);
    return 0;
}

static int pin(struct lab *l)
{
    (void)wasmcache_pin(l->r->cache, l->ns, &l->key, 1);
    (void)wasmcache_pin(l->r->cache, l->ns, &l->key, 0);
    return 0;
}

static int prune(struct lab *l)
{
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    options.max_bytes = WASMCACHE_UNLIMITED;
    (void)wasmcache_prune(l->r->cache, &options, &result);
    HOLD(result.removed_entries == 0, "something was removed that was not too much");
    return 0;
}

static int numbers(struct lab *l)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    (void)wasmcache_stats_read(l->r->cache, WASMCACHE_STATS_DIRECTORY, &stats);
    (void)wasmcache_stats_reset(l->r->cache);
    return 0;
}

static int overlaps(struct lab *l)
{
    const int folder = open(l->r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    HOLD(wasmcache_overlaps(l->r->cache, folder) != 0, "the cache does not overlap itself");
    close(folder);
    (void)wasmcache_overlaps(l->r->cache, l->guest);
    return 0;
}

/* In a directory that others may write to, where there is a folder of our own or has to be made. */
static void open_to_all(struct lab *l, int made)
{
    char own[32];
    scratch_remove(l->own_dir);
    (void)mkdir(l->own_dir, 0700);
    (void)chmod(l->own_dir, 01777);
    snprintf(own, sizeof(own), "u%u", (unsigned)geteuid());
    if (made)
        (void)mkdir(scratch_text(&l->r->scratch, "%s/%s", l->own_dir, own), 0700);
}

static void own_folder(struct lab *l)
{
    open_to_all(l, 1);
}

static void no_own_folder(struct lab *l)
{
    open_to_all(l, 0);
}

static int get_there(struct lab *l)
{
    wasmcache_options options = l->r->options;
    wasmcache *cache = NULL, *usual = l->r->cache;
    wasmcache_attachment *wc = NULL, *usual_wc = l->r->wc;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    int rc;
    options.dir = l->own_dir;
    HOLD(wasmcache_open(&cache, &options) == 0, "open fails");
    HOLD(wasmcache_attach(&wc, cache, &l->r->engine.table, &l->r->engine, &l->r->attach) == 0,
         "attach fails");
    l->r->cache = cache;
    l->r->wc = wc;
    rc = rig_get(l->r, wasm, NULL);
    HOLD(wasmcache_status(cache, &info) == 0, "status fails");
    wasmcache_detach(wc);
    wasmcache_close(cache);
    l->r->cache = usual;
    l->r->wc = usual_wc;
    return rc;
}

static const struct scenario {
    const char *name;
    void (*prepare)(struct lab *);
    int (*run)(struct lab *); /* not 0: a get failed */
    int changes;
} scenarios[] = {
    {"cold get", absent, get, 1},
    {"get of what is damaged", damaged, get, 1},
    {"get where a link lies", a_link, get, 1},
    {"hit", good, get, 1},
    {"recompile", good, recompile, 1},
    {"recompile where a link lies", a_link, recompile, 1},
    {"save", absent, save, 1},
    {"save over what is damaged", damaged, save, 1},
    {"look", good, look, 0},
    {"remove", good, remove_it, 1},
    {"remove a link", a_link, remove_it, 1},
    {"remove what is damaged", damaged, remove_damaged, 1},
    {"pin", good, pin, 0},
    {"prune", good, prune, 0},
    {"numbers", good, numbers, 0},
    {"overlaps", good, overlaps, 0},
    {"get where all may write", own_folder, get_there, 1},
    {"first get where all may write", no_own_folder, get_there, 1},
};

static int left_over(const char *dir)
{
    DIR *walk = opendir(dir);
    const struct dirent *entry;
    int found = 0;
    while (walk && (entry = readdir(walk)) != NULL)
        found |= strncmp(entry->d_name, ".tmp-", 5) == 0 || strncmp(entry->d_name, ".old-", 5) == 0;
    if (walk)
        closedir(walk);
    return found;
}

static void check(struct lab *l)
{
    struct rig *r = l->r;
    uint64_t removed;
    HOLD(!r->engine.wrong, "the engine was handed bytes that it did not make");
    HOLD(!r->engine.live_modules && !r->engine.live_errors && !r->engine.live_artifacts,
         "a module, error or artifact leaked");
    HOLD(wasmcache_clean(r->cache, &removed) == 0, "the clean-up failed");
    HOLD(!left_over(rig_namespace_dir(r)), "something is left over");
    HOLD(scratch_inode(rig_entry(r, by_wasm)) == l->by, "another entry is gone");
    HOLD(rig_get(r, wasm, NULL) == 0, "without fault the get failed");
    HOLD(rig_load(r, wasm, NULL) == 0, "the key cannot be used");
}

static void sweep(struct lab *l, const struct scenario *s, int error, unsigned lacking)
{
    for (unsigned nth = 1; nth < 400; nth++) {
        unsigned before;
        s->prepare(l);
        snprintf(context, sizeof(context), "%s, lacking %x, call %u fails with errno %d", s->name,
                 lacking, nth, error);
        before = scratch_descriptors();
        wc_os_lacking = lacking;
        seam_fail(nth, error, 0);
        HOLD(s->run(l) == 0, "a get failed");
        seam_off();
        wc_os_lacking = 0;
        HOLD(scratch_descriptors() == before, "a descriptor leaked");
        if (!seam_met())
            break;
        if (s->changes)
            check(l);
        HOLD(nth < 399, "it does not end");
    }
    check(l);
}

static void what_an_errno_says_is_never_taken_for_more(void **state)
{
    struct rig *r = *state;
    struct lab l;
    memset(&l, 0, sizeof(l));
    l.r = r;
    violations = 0;
    l.ns = scratch_text(&r->scratch, "%s", rig_namespace(r));
    l.entry = rig_entry(r, wasm);
    l.own_dir = scratch_in(&r->scratch, "open");
    l.key = rig_key(wasm);
    assert_int_equal(mkdir(scratch_in(&r->scratch, "guest"), 0700), 0);
    l.guest = open(scratch_in(&r->scratch, "guest"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(rig_get(r, by_wasm, NULL), 0);
    l.by = scratch_inode(rig_entry(r, by_wasm));
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
        const struct scenario *s = &scenarios[i];
        const size_t count = s->run == overlaps ? sizeof(errors) / sizeof(*errors) : (size_t)MOUNTS;
        for (size_t e = 0; e < count; e++)
            sweep(&l, s, errors[e], 0);
        for (size_t e = 0; e < AGAIN && s->changes; e++)
            sweep(&l, s, errors[e], WC_OS_NO_TMPFILE | WC_OS_NO_STRAIGHT);
    }
    close(l.guest);
    assert_int_equal(violations, 0);
}

int main(void)
{
    int failed;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_an_errno_says_is_never_taken_for_more,
                                        fixture_open_rig, fixture_end),
    };
    scratch_in_memory();
    failed = cmocka_run_group_tests_name("errnos", tests, NULL, NULL);
    scratch_in_memory_end();
    return failed;
}
