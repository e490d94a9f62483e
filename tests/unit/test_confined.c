/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that may do less than others: in a chroot without /proc, after they gave up their
 * privileges, and with nearly all their descriptors in use. Gets give their modules, and no entry
 * is lost.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "asked.h"
#include "fixture.h"
#include "seam.h"
#include "support/rig.h"

static const char there[] = "the module that is there", missing[] = "the module that is not there";

#define SKIPPED 77

static int tear_down(void **state)
{
    wc_os_settles_forced = -1;
    return fixture_end(state);
}

/* Runs the body in a child; skips if that says so. */
static void in_a_child(int (*body)(void *), struct rig *r)
{
    const int status = scratch_child(body, r, 0, 60);
    if (status == SKIPPED)
        skip();
    assert_int_equal(status, 0);
}

static wasmcache_report get(struct rig *r, const char *wasm)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    return report;
}

static void assert_hit(struct rig *r, const char *wasm)
{
    assert_int_equal(get(r, wasm).outcome, WASMCACHE_HIT);
}

static void assert_saved(struct rig *r, const char *wasm)
{
    const wasmcache_report report = get(r, wasm);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, 0);
}

static void assert_compiled_and_not_saved(struct rig *r, const char *wasm, int error, int os)
{
    wasmcache_report report;
    rig_forget_events(r);
    report = get(r, wasm);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, error);
    if (r->events.count[WASMCACHE_EVENT_SAVE_FAILED]) {
        assert_int_equal(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].system_errno, os);
        assert_non_null(strstr(r->events.last[WASMCACHE_EVENT_SAVE_FAILED].message, "cache"));
    }
}

static wasmcache_status_info status_of(struct rig *r)
{
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    assert_int_equal(wasmcache_status(r->cache, &status), 0);
    return status;
}

/* ---- chroot ---- */

/* Becomes root of a user namespace of its own where it is not root. 0: that may not be done. */
static int become_root(void)
{
    char map[64];
    int fd;
    if (geteuid() == 0)
        return 1;
    snprintf(map, sizeof(map), "0 %u 1", (unsigned)geteuid());
    if (unshare(CLONE_NEWUSER) < 0)
        return 0;
    fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (write(fd, map, strlen(map)) < 0) {
        close(fd);
        return 0;
    }
    close(fd);
    return geteuid() == 0;
}

/* The scratch directory is all there is from now on. */
static int go_into_chroot(struct rig *r)
{
    if (!become_root() || chdir(r->scratch.dir) < 0 || chroot(".") < 0) {
        printf("skipped, since neither chroot nor a user namespace may be had: %s\n",
               strerror(errno));
        return 0;
    }
    assert_false(scratch_exists("/proc"));
    return 1;
}

/* How often hits looked at an artifact, and how they handed it over. */
struct hits {
    unsigned views, files, bytes;
};

static struct hits three_hits(struct rig *r)
{
    struct hits hits = {0, 0, 0};
    for (int i = 0; i < 3; i++) {
        fake_engine_reset(&r->engine);
        seam_record();
        assert_hit(r, there);
        seam_off();
        hits.views += seam_calls_of("view") > 0;
        hits.files += r->engine.files;
        hits.bytes += r->engine.deserializes;
    }
    return hits;
}

/* Of the cache at `dir`, which is not there yet. */
static struct hits use_all_of_it(struct rig *r, const char *dir)
{
    wasmcache_prune_result pruned = WASMCACHE_PRUNE_RESULT_INIT;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    const wasmcache_key key = rig_key(missing), kept = rig_key(there);
    struct hits first, second;
    uint64_t removed = 7;
    const char *ns;
    wc_os_settles_forced = 1;
    r->engine.artifact_size = 300000;
    r->options.dir = dir;
    rig_open(r);
    assert_saved(r, there);
    assert_int_equal(status_of(r).state, WASMCACHE_STATE_ON);
    assert_string_equal(status_of(r).dir, dir);
    (void)get(r, there); /* is looked at, and stamped where that can be */
    first = three_hits(r);
    rig_reopen(r);
    second = three_hits(r);
    assert_int_equal(first.views, second.views);
    assert_saved(r, missing);
    ns = rig_namespace(r);
    assert_int_equal(wasmcache_clean(r->cache, &removed), 0);
    assert_int_equal(removed, 0);
    assert_int_equal(wasmcache_entry_check(&entry, r->cache, ns, &kept, WASMCACHE_CHECK_DIGEST), 0);
    assert_int_equal(entry.state, WASMCACHE_REASON_NONE);
    assert_int_equal(wasmcache_remove(r->cache, ns, &key), 0);
    assert_saved(r, missing);
    assert_int_equal(wasmcache_prune(r->cache, NULL, &pruned), 0);
    assert_int_equal(pruned.left_entries, 2);
    assert_int_equal(wasmcache_flush(r->cache), 0);
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_DIRECTORY, &stats), 0);
    assert_true(stats.known && stats.entries == 2);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_OFF], 0);
    assert_int_equal(r->events.count[WASMCACHE_EVENT_SAVE_FAILED], 0);
    assert_null(strstr(scratch_tree(&r->scratch, dir), ".tmp-"));
    rig_close(r);
    return second;
}

static int without_a_chroot(void *argument)
{
    struct rig *r = argument;
    const struct hits hits = use_all_of_it(r, r->dir);
    assert_int_equal(hits.views, 0);
    assert_int_equal(hits.files, 3);
    assert_int_equal(hits.bytes, 0);
    return 0;
}

static int with_a_chroot(void *argument)
{
    struct rig *r = argument;
    struct hits hits;
    int root, rc;
    if (!go_into_chroot(r))
        return SKIPPED;
    hits = use_all_of_it(r, "/cache");
    /* No boot id: what was checked is not remembered. No path of a descriptor: bytes. */
    assert_int_equal(hits.views, 3);
    assert_int_equal(hits.files, 0);
    assert_int_equal(hits.bytes, 3);
    /* What is mounted where cannot be told, so that no directory is safe to give away. */
    rig_open(r);
    assert_int_equal(mkdir("/guest", 0700), 0);
    for (int i = 0; i < 2; i++) {
        root = open(i ? "/guest" : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        rc = wasmcache_overlaps(r->cache, root);
        assert_int_equal(rc, i ? WASMCACHE_EIO : 1);
        close(root);
    }
    rig_close(r);
    return 0;
}

static void without_proc_nothing_is_stamped_and_all_else_works(void **state)
{
    if (!scratch_has_views())
        skip();
    in_a_child(without_a_chroot, *state);
    scratch_remove(((struct rig *)*state)->dir);
    in_a_child(with_a_chroot, *state);
}

static int damage_in_a_chroot(void *argument)
{
    struct rig *r = argument;
    wasmcache_report report;
    char hex[WASMCACHE_KEY_HEX_SIZE], *path;
    const wasmcache_key key = rig_key(there);
    if (!go_into_chroot(r))
        return SKIPPED;
    r->options.dir = "/cache";
    rig_open(r);
    assert_saved(r, there);
    assert_hit(r, there);
    path = scratch_text(&r->scratch, "/cache/%s/%s.bin", rig_namespace(r),
                        wasmcache_key_to_hex(hex, &key));
    scratch_flip(path, 99);
    report = get(r, there);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_CORRUPT);
    assert_int_equal(report.save_error, 0);
    assert_hit(r, there);
    rig_close(r);
    return 0;
}

static void damage_is_found_there_too(void **state)
{
    in_a_child(damage_in_a_chroot, *state);
}

static int gates_in_a_chroot(void *argument)
{
    static const struct {
        const char *dir;
        mode_t mode;
        uid_t owner;
        const char *used;
    } cases[] = {
        {"/a", 0700, 0, "/a"},
        {"/b", 0755, 0, "/b"},
        {"/c", 0770, 0, "/c/u0"},
        {"/d", 0777, 0, "/d/u0"},
        {"/e", 01777, 0, "/e/u0"},
        {"/f", 0700, SCRATCH_NOBODY, "/f/u0"},
        {"/g", 0777, SCRATCH_NOBODY, "/g/u0"},
    };
    struct rig *r = argument;
    const int real_root = geteuid() == 0;
    if (!go_into_chroot(r))
        return SKIPPED;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        if (cases[i].owner && !real_root)
            continue;
        assert_int_equal(mkdir(cases[i].dir, 0700), 0);
        assert_int_equal(chmod(cases[i].dir, cases[i].mode), 0);
        if (cases[i].owner)
            assert_int_equal(chown(cases[i].dir, cases[i].owner, (gid_t)cases[i].owner), 0);
        r->options.dir = cases[i].dir;
        rig_open(r);
        assert_saved(r, there);
        assert_string_equal(status_of(r).dir, cases[i].used);
        assert_hit(r, there);
        assert_int_equal(scratch_mode(cases[i].used),
                         strcmp(cases[i].dir, cases[i].used) == 0 ? cases[i].mode : 0700);
        rig_close(r);
    }
    return 0;
}

static void directories_are_judged_as_elsewhere(void **state)
{
    in_a_child(gates_in_a_chroot, *state);
}

static int open_before_chroot(void *argument)
{
    struct rig *r = argument;
    rig_open(r);
    assert_saved(r, there);
    if (!go_into_chroot(r))
        return SKIPPED;
    /* The path leads elsewhere now, where there is nothing yet. */
    assert_saved(r, missing);
    assert_hit(r, missing);
    assert_true(scratch_exists(r->dir));
    rig_close(r);
    return 0;
}

static void who_opens_and_then_goes_has_a_cache_where_the_path_leads(void **state)
{
    struct rig *r = *state;
    in_a_child(open_before_chroot, r);
    rig_open(r);
    assert_int_equal(rig_load(r, there, NULL), 0);
    assert_int_equal(rig_load(r, missing, NULL), WASMCACHE_EMISS);
    assert_true(scratch_exists(scratch_in(&r->scratch, "%s", r->dir)));
}

/* ---- privileges ---- */

static void drop(void)
{
    assert_int_equal(setgroups(0, NULL), 0);
    assert_int_equal(setgid((gid_t)SCRATCH_NOBODY), 0);
    assert_int_equal(setuid(SCRATCH_NOBODY), 0);
    prctl(PR_SET_DUMPABLE, 1);
}

static int drop_and_lose_the_cache(void *argument)
{
    struct rig *r = argument;
    rig_open(r);
    assert_hit(r, there);
    drop();
    /* Mode 0700, root's: off, at once, and said once. */
    assert_compiled_and_not_saved(r, there, WASMCACHE_EIO, EACCES);
    assert_compiled_and_not_saved(r, missing, WASMCACHE_EIO, EACCES);
    assert_int_equal(status_of(r).state, WASMCACHE_STATE_OFF);
    assert_int_equal(status_of(r).error, WASMCACHE_EIO);
    assert_int_equal(status_of(r).system_errno, EACCES);
    assert_non_null(strstr(status_of(r).message, r->dir));
    assert_int_not_equal(wasmcache_clean(r->cache, NULL), 0);
    assert_non_null(strstr(wasmcache_last_error()->message, r->dir));
    rig_close(r);
    return 0;
}

static int drop_and_read_on(void *argument)
{
    struct rig *r = argument;
    const wasmcache_key key = rig_key(there);
    wasmcache_executor *executor = executor_with(2, 0);
    struct asked a[3];
    char *ns;
    void *native;
    rig_open(r);
    ns = scratch_text(&r->scratch, "%s", rig_namespace(r));
    /* Threads that are there already become somebody else too, although they block signals. */
    ask_get(&a[0], r, executor, there, 0);
    run_all(executor);
    drop();
    for (int i = 0; i < 3; i++)
        assert_hit(r, there);
    assert_int_equal(status_of(r).state, WASMCACHE_STATE_READ_ONLY);
    assert_compiled_and_not_saved(r, missing, WASMCACHE_EIO, EACCES);
    native = fake_module_new(&r->engine, WASMCACHE_MODULE, there, strlen(there));
    assert_int_equal(wasmcache_save(r->wc, WASMCACHE_MODULE, &key, native, NULL, NULL),
                     WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->system_errno, EACCES);
    assert_non_null(strstr(wasmcache_last_error()->message, r->dir));
    r->engine.table.module_free(WASMCACHE_MODULE, native);
    assert_int_equal(wasmcache_remove(r->cache, ns, &key), WASMCACHE_EIO);
    ask_get(&a[1], r, executor, there, 0);
    ask_get(&a[2], r, executor, missing, 0);
    run_all(executor);
    assert_int_equal(a[1].report.outcome, WASMCACHE_HIT);
    assert_int_equal(a[2].report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(a[2].report.save_error, WASMCACHE_EIO);
    for (int i = 0; i < 3; i++)
        assert_answered_once(&a[i]);
    rig_close(r);
    wasmcache_executor_free(executor);
    return 0;
}

static int drop_first(void *argument)
{
    struct rig *r = argument;
    drop();
    rig_open(r);
    assert_saved(r, missing);
    assert_hit(r, missing);
    assert_string_equal(status_of(r).dir,
                        scratch_text(&r->scratch, "%s/u%u", r->dir, (unsigned)SCRATCH_NOBODY));
    rig_close(r);
    return 0;
}

/* The same entry is there and sound, and nothing besides. */
static void assert_nothing_lost(struct rig *r, const char *path, ino_t inode, const char *tree)
{
    assert_int_equal(scratch_inode(path), inode);
    assert_string_equal(scratch_tree(&r->scratch, r->dir), tree);
    rig_open(r);
    assert_int_equal(rig_state(r, there), WASMCACHE_REASON_NONE);
    assert_int_equal(rig_load(r, there, NULL), 0);
    rig_close(r);
}

static void filled_then(struct rig *r, wasmcache_share share, int (*body)(void *))
{
    const char *path, *tree;
    ino_t inode;
    if (!scratch_is_root("dropping privileges"))
        skip();
    r->options.share = share;
    rig_open(r);
    assert_saved(r, there);
    path = rig_entry(r, there);
    inode = scratch_inode(path);
    rig_close(r);
    tree = scratch_tree(&r->scratch, r->dir);
    in_a_child(body, r);
    assert_nothing_lost(r, path, inode, tree);
}

static void a_private_cache_is_off_after_privileges_were_dropped(void **state)
{
    filled_then(*state, WASMCACHE_SHARE_PRIVATE, drop_and_lose_the_cache);
}

static void a_readable_one_is_read_on(void **state)
{
    filled_then(*state, WASMCACHE_SHARE_READABLE, drop_and_read_on);
}

static void who_drops_them_first_is_an_ordinary_user(void **state)
{
    struct rig *r = *state;
    if (!scratch_is_root("dropping privileges"))
        skip();
    assert_int_equal(mkdir(r->dir, 0700), 0);
    assert_int_equal(chmod(r->dir, 01777), 0);
    in_a_child(drop_first, r);
    /* Root does not take what that user left. */
    rig_open(r);
    assert_int_equal(rig_load(r, missing, NULL), WASMCACHE_EMISS);
}

/* ---- descriptors ---- */

enum { LIMIT = 256, THREADS = 16, ROUNDS = 20, REQUESTS = 100 };

static void use_descriptors(unsigned all)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = LIMIT;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (scratch_descriptors() < all)
        assert_true(open("/dev/null", O_RDONLY | O_CLOEXEC) >= 0);
}

struct crowd {
    struct rig *r;
    pthread_barrier_t start;
    atomic_uint modules, hits;
};

static const char *names[8];

static void *get_many(void *argument)
{
    struct crowd *c = argument;
    pthread_barrier_wait(&c->start);
    for (unsigned i = 0; i < ROUNDS; i++) {
        const char *wasm = i % 4 ? names[i % 8] : there;
        const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        const int rc = wasmcache_get(&module, c->r->wc, WASMCACHE_MODULE, &source, NULL, &report);
        atomic_fetch_add(&c->modules,
                         rc == 0 &&
                             fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                                            c->r->engine.configuration, wasm, strlen(wasm)));
        atomic_fetch_add(&c->hits, rc == 0 && report.outcome == WASMCACHE_HIT);
        wasmcache_module_release(module);
    }
    return NULL;
}

static void all_at_once(struct rig *r, unsigned used)
{
    static struct asked asked[REQUESTS];
    pthread_t threads[THREADS];
    wasmcache_executor *executor;
    unsigned before, right = 0;
    struct crowd c = {.r = r};
    use_descriptors(used);
    before = scratch_descriptors();
    if (LIMIT - used >= 6) {
        assert_hit(r, there);
        assert_saved(r, missing);
        assert_hit(r, missing);
    }
    assert_int_equal(scratch_descriptors(), before);
    pthread_barrier_init(&c.start, NULL, THREADS);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, get_many, &c), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&c.start);
    assert_int_equal(c.modules, THREADS * ROUNDS);
    assert_int_equal(scratch_descriptors(), before);
    executor = executor_with(8, 0);
    for (unsigned i = 0; i < REQUESTS; i++)
        ask_get(&asked[i], r, executor, i % 2 ? there : names[i % 8], 0);
    run_all(executor);
    for (unsigned i = 0; i < REQUESTS; i++) {
        assert_answered_once(&asked[i]);
        right += asked[i].right != 0;
    }
    assert_int_equal(right, REQUESTS);
    wasmcache_executor_free(executor);
    assert_int_equal(scratch_descriptors(), before);
    assert_int_equal(rig_events_of(r, WASMCACHE_EVENT_REMOVED), 0);
    printf("%u descriptors of %u in use: %u gets of %u threads gave %u modules, %u from the "
           "cache; %u of %u requests theirs\n",
           used, LIMIT, THREADS * ROUNDS, THREADS, (unsigned)c.modules, (unsigned)c.hits, right,
           REQUESTS);
}

static unsigned descriptors_in_use;

static int with_most_descriptors_used(void *argument)
{
    struct rig *r = argument;
    rig_open(r);
    all_at_once(r, descriptors_in_use);
    rig_close(r);
    return 0;
}

static void with_descriptors(void **state, unsigned used)
{
    struct rig *r = *state;
    const char *path;
    ino_t inode;
    descriptors_in_use = used;
    for (unsigned i = 0; i < 8; i++)
        names[i] = scratch_text(&r->scratch, "module %u", i);
    r->engine.artifact_size = 20000;
    rig_open(r);
    assert_saved(r, there);
    path = rig_entry(r, there);
    inode = scratch_inode(path);
    rig_close(r);
    in_a_child(with_most_descriptors_used, r);
    assert_int_equal(scratch_inode(path), inode);
    rig_open(r);
    assert_int_equal(rig_state(r, there), WASMCACHE_REASON_NONE);
    assert_int_equal(rig_load(r, there, NULL), 0);
    assert_int_equal(wasmcache_clean(r->cache, NULL), 0);
    assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".tmp-"));
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(rig_get(r, names[i], NULL), 0);
        assert_int_equal(rig_load(r, names[i], NULL), 0);
    }
}

static void a_host_with_a_limit_of_256_gets_its_modules(void **state)
{
    with_descriptors(state, 20);
}

static void and_one_with_six_descriptors_left(void **state)
{
    with_descriptors(state, 250);
}

/* One get alone needs more. */
static void and_one_with_two_left(void **state)
{
    with_descriptors(state, 254);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_rig, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(without_proc_nothing_is_stamped_and_all_else_works),
        TEST(damage_is_found_there_too),
        TEST(directories_are_judged_as_elsewhere),
        TEST(who_opens_and_then_goes_has_a_cache_where_the_path_leads),
        TEST(a_private_cache_is_off_after_privileges_were_dropped),
        TEST(a_readable_one_is_read_on),
        TEST(who_drops_them_first_is_an_ordinary_user),
        TEST(a_host_with_a_limit_of_256_gets_its_modules),
        TEST(and_one_with_six_descriptors_left),
        TEST(and_one_with_two_left),
    };
#undef TEST
    return cmocka_run_group_tests(tests, first_thread, NULL);
}
