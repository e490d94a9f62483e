/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever happens to the directory, the limits of the process or the source, a get gives a module
 * or the engine's own error, no good entry is lost, and the cache works again once it can.
 */
#define _GNU_SOURCE
#include "engine_host.h"

#include "support/lzw.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SKIPPED 77

static struct scratch scratch;

static int set_up(void **state)
{
    (void)state;
    scratch_init(&scratch);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scratch_end(&scratch);
    return 0;
}

static char *cache_dir(void)
{
    return scratch_in(&scratch, "cache");
}

/* Gets the small module, which must work, and says how. */
static wasmcache_report get_add(struct host *h)
{
    const int32_t numbers[] = {19, 23};
    wasmcache_report report;
    engine_module *module;
    host_forget(&h->seen);
    assert_int_equal(get_bytes(&module, h, wasm_add, wasm_add_size, &report), 0);
    assert_int_equal(call_export(h->engine, module, "add", numbers, 2), 42);
    engine_module_delete(module);
    return report;
}

static void assert_compiled_and_saved(struct host *h)
{
    const wasmcache_report report = get_add(h);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(h->seen.count[WASMCACHE_EVENT_SAVED], 1);
    assert_true(scratch_exists(entry_path(&scratch, h, wasm_add, wasm_add_size)));
}

static void assert_compiled_not_saved(struct host *h)
{
    const wasmcache_report report = get_add(h);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_not_equal(report.save_error, 0);
    assert_int_equal(h->seen.count[WASMCACHE_EVENT_SAVED], 0);
}

static void assert_hit(struct host *h)
{
    const wasmcache_report report = get_add(h);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
}

/* Runs the body as root in a child; skips where that, or what it needs, is not to be had. */
static void as_root(int (*body)(void *), const char *what)
{
    int status;
    if (!scratch_is_root(what))
        skip();
    status = scratch_child(body, NULL, 0, 60);
    if (status == SKIPPED) {
        printf("skipped, since mounts are not allowed: %s\n", what);
        skip();
    }
    assert_int_equal(status, 0);
}

static int own_mounts(void)
{
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* ---- where nothing can be mapped to run ---- */

/* Nothing is lost, whichever way the engine loads. */

static int run_noexec(void *unused)
{
    struct host h;
    char *path;
    ino_t inode;
    (void)unused;
    assert_int_equal(mkdir(cache_dir(), 0700), 0);
    if (!own_mounts() || mount("none", cache_dir(), "tmpfs", MS_NOEXEC, "size=16m,mode=0700") != 0)
        return SKIPPED;
    host_open(&h, cache_dir(), 0);
    assert_compiled_and_saved(&h);
    path = entry_path(&scratch, &h, wasm_add, wasm_add_size);
    inode = scratch_inode(path);

    /* The first time by trying, and from then on at once from bytes. */
    if (ENGINE_RUNS_FILES) {
        assert_hit(&h);
        assert_int_equal(host_called(ENGINE_LOAD_FILE), 1);
        assert_int_equal(host_called(ENGINE_LOAD), 1);
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_FALLBACK], 1);
    }
    for (int i = 0; i < 3; i++) {
        assert_hit(&h);
        if (ENGINE_RUNS_FILES)
            assert_int_equal(host_called(ENGINE_LOAD_FILE), 0);
        else
            assert_true(host_loaded_best());
        assert_int_equal(host_loads(), 1);
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_FALLBACK], 0);
    }
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_REMOVED], 0);
    assert_int_equal(scratch_inode(path), inode);
    host_close(&h);
    return 0;
}

static void noexec_directory_serves_hits(void **state)
{
    (void)state;
    as_root(run_noexec, "a noexec mount");
}

static int run_without_proc(void *unused)
{
    struct host h;
    const char *tree;
    (void)unused;
    assert_int_equal(mkdir(scratch_in(&scratch, "empty"), 0755), 0);
    if (!own_mounts() || mount(scratch_in(&scratch, "empty"), "/proc", NULL, MS_BIND, NULL) != 0)
        return SKIPPED;
    assert_false(scratch_exists("/proc/self"));
    host_open(&h, cache_dir(), 0);
    assert_compiled_and_saved(&h);
    tree = scratch_tree(&scratch, cache_dir());
    assert_null(strstr(tree, "tmp"));
    for (int i = 0; i < 2; i++) {
        assert_hit(&h);
        assert_int_equal(host_called(ENGINE_LOAD), 1);
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_REMOVED], 0);
    }
    assert_string_equal(scratch_tree(&scratch, cache_dir()), tree);
    host_close(&h);
    return 0;
}

static void without_proc_everything_works(void **state)
{
    (void)state;
    as_root(run_without_proc, "no /proc");
}

/* ---- limits of the process ---- */

/* The engine refuses a good entry: it stays, and all is well once the limit is gone. */
struct limited {
    struct host h;
    uint8_t *wasm;
    size_t size, artifact;
    char *path;
    const char *tree;
};

static size_t pages(uint64_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return ((size_t)bytes + page - 1) / page;
}

/*
 * An entry whose trailer begins a page of its own: the engine, which maps the file, then needs one
 * page more than the library, which looks at the artifact, so that there is a limit that lets the
 * one through and not the other.
 */
static void limited_make(struct limited *l)
{
    const unsigned most = 500;
    engine_module *module;
    wasmcache_report report;
    struct stat st;
    l->wasm = malloc(WASM_WORK_ROOM(most));
    host_open(&l->h, cache_dir(), 0);
    for (unsigned functions = 200;; functions++) {
        assert_true(functions < most);
        l->size = wasm_work(l->wasm, 3, functions);
        assert_int_equal(get_bytes(&module, &l->h, l->wasm, l->size, &report), 0);
        engine_module_delete(module);
        l->path = entry_path(&scratch, &l->h, l->wasm, l->size);
        assert_int_equal(stat(l->path, &st), 0);
        if (pages((uint64_t)st.st_size) > pages(report.artifact_bytes))
            break;
    }
    l->artifact = (size_t)report.artifact_bytes;
    /* Once more, to have seen all code. */
    assert_int_equal(get_bytes(&module, &l->h, l->wasm, l->size, &report), 0);
    engine_module_delete(module);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    l->tree = scratch_tree(&scratch, cache_dir());
    host_forget(&l->h.seen);
}

/* The same with an entry as Wasmer's own cache has them, plain or compressed, of which nothing says
 * that it is good. */
static void limited_make_old(struct limited *l, int compressed)
{
    wasmcache_attach_options attach = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    wasm_byte_vec_t artifact;
    engine_module *module;
    wasmcache_report report;
    uint8_t *bytes;
    size_t size;

    l->wasm = malloc(WASM_WORK_ROOM(300));
    l->size = wasm_work(l->wasm, 3, 300);
    options.dir = cache_dir();
    options.flags = WASMCACHE_LEGACY;
    host_open_with(&l->h, &options, engine_new(), "");
    wasmcache_detach(l->h.wc);
    attach.engine_id = "cranelift-opts-rkyv";
    attach.settings = "";
    l->h.wc = engine_attach_with(l->h.cache, l->h.engine, &attach);
    assert_int_equal(get_bytes(&module, &l->h, l->wasm, l->size, &report), 0);
    l->path = entry_path(&scratch, &l->h, l->wasm, l->size);
    assert_int_equal(engine_serialize(module, &artifact), 0);
    engine_module_delete(module);
    l->artifact = artifact.size;
    bytes = lzw_encode(&size, artifact.data, artifact.size);
    scratch_write(l->path, compressed ? (void *)bytes : artifact.data,
                  compressed ? size : artifact.size, 0644);
    free(bytes);
    wasm_byte_vec_delete(&artifact);
    assert_int_equal(get_bytes(&module, &l->h, l->wasm, l->size, &report), 0);
    engine_module_delete(module);
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    l->tree = scratch_tree(&scratch, cache_dir());
    host_forget(&l->h.seen);
}

static void limited_end(struct limited *l)
{
    host_close(&l->h);
    free(l->wasm);
}

static void set_limit(int which, rlim_t now)
{
    struct rlimit limit;
    assert_int_equal(getrlimit((__rlimit_resource_t)which, &limit), 0);
    limit.rlim_cur = now < limit.rlim_max ? now : limit.rlim_max;
    assert_int_equal(setrlimit((__rlimit_resource_t)which, &limit), 0);
}

/* A get that has nothing to compile. */
static int get_without_compile(engine_module **module, struct limited *l, const wasmcache_key *key)
{
    const wasmcache_source source = wasmcache_source_sha256(key->bytes, NULL, NULL);
    void *native = NULL, *error = NULL;
    const int rc =
        wasmcache_get_native(&native, &error, l->h.wc, WASMCACHE_MODULE, &source, NULL, NULL);
    *module = native;
    return rc;
}

/* Loads, then gets, under the limit; returns why the load was no hit. */
static wasmcache_reason under_limit(struct limited *l, int which, rlim_t limit)
{
    const ino_t inode = scratch_inode(l->path);
    const wasmcache_key key = key_of(l->wasm, l->size);
    wasmcache_report loaded = WASMCACHE_REPORT_INIT, got = WASMCACHE_REPORT_INIT;
    wasmcache_module *counted = NULL;
    engine_module *module = NULL;
    struct rlimit before;
    int load, get;

    assert_int_equal(getrlimit((__rlimit_resource_t)which, &before), 0);
    host_forget(&l->h.seen);
    set_limit(which, limit);
    load = wasmcache_load(&counted, l->h.wc, WASMCACHE_MODULE, &key, &loaded);
    wasmcache_module_release(counted);
    set_limit(which, before.rlim_cur);
    assert_int_equal(l->h.seen.count[WASMCACHE_EVENT_REMOVED], 0);
    assert_int_equal(scratch_inode(l->path), inode);

    set_limit(which, limit);
    if (ENGINE_STARTS_THREADS && which == RLIMIT_AS) /* one that fails ends the process */
        get = get_without_compile(&module, l, &key);
    else
        get = get_bytes(&module, &l->h, l->wasm, l->size, &got);
    set_limit(which, before.rlim_cur);
    assert_int_equal(load == 0, loaded.outcome == WASMCACHE_HIT);
    assert_true(get == 0 || get == WASMCACHE_EENGINE || get == WASMCACHE_EMISS);
    if (get == 0) {
        const int32_t seven[] = {7};
        assert_int_equal(call_export(l->h.engine, module, "work", seven, 1), 21);
        engine_module_delete(module);
    }
    assert_int_equal(l->h.seen.count[WASMCACHE_EVENT_REMOVED], 0);
    assert_string_equal(scratch_tree(&scratch, cache_dir()), l->tree);

    assert_int_equal(get_bytes(&module, &l->h, l->wasm, l->size, &got), 0);
    engine_module_delete(module);
    assert_int_equal(got.outcome, WASMCACHE_HIT);
    return loaded.reason;
}

static int run_few_descriptors(void *unused)
{
    struct limited l;
    unsigned hits = 0, unreadable = 0, fallbacks = 0;
    int next;
    (void)unused;
    limited_make(&l);
    next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(next);
    for (int more = 0; more <= 6; more++) {
        const unsigned before = scratch_descriptors();
        usleep(150000); /* a load that judges the folder anew, which takes one more */
        switch (under_limit(&l, RLIMIT_NOFILE, (rlim_t)(next + more))) {
        case WASMCACHE_REASON_NONE:
            hits++;
            fallbacks += l.h.seen.count[WASMCACHE_EVENT_FALLBACK] > 0;
            break;
        case WASMCACHE_REASON_UNREADABLE:
        case WASMCACHE_REASON_CACHE_OFF:
            unreadable++;
            break;
        default:
            return 1;
        }
        assert_int_equal(scratch_descriptors(), before);
    }
    printf("descriptors: %u hits, of which %u from bytes, %u unreadable\n", hits, fallbacks,
           unreadable);
    assert_true(hits > 1 && unreadable > 1 && fallbacks == (unsigned)engine_maps());
    limited_end(&l);
    return 0;
}

/* Nobody can say whether such an entry is good but the engine, which does not say why it is not: as
 * long as it may be the limit, it stays. */
static int run_few_descriptors_old(void *compressed)
{
    struct limited l;
    unsigned hits = 0, missed = 0;
    int next;
    limited_make_old(&l, compressed != NULL);
    next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    close(next);
    for (int more = 0; more <= 6; more++) {
        const wasmcache_reason reason = under_limit(&l, RLIMIT_NOFILE, (rlim_t)(next + more));
        if (reason == WASMCACHE_REASON_CORRUPT)
            return 1;
        hits += reason == WASMCACHE_REASON_NONE;
        missed += reason != WASMCACHE_REASON_NONE;
    }
    printf("descriptors, old entry: %u hits, %u not\n", hits, missed);
    assert_true(hits && missed);
    limited_end(&l);
    return 0;
}

static void few_descriptors_cost_no_old_entry(void **state)
{
    static char compressed;
    (void)state;
    assert_int_equal(scratch_child(run_few_descriptors_old, NULL, 0, 60), 0);
    scratch_remove(cache_dir());
    assert_int_equal(scratch_child(run_few_descriptors_old, &compressed, 0, 60), 0);
}

static void few_descriptors_cost_no_entry(void **state)
{
    (void)state;
    assert_int_equal(scratch_child(run_few_descriptors, NULL, 0, 60), 0);
}

static size_t address_space(void)
{
    unsigned long count = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &count), 1);
    fclose(file);
    return (size_t)count * (size_t)sysconf(_SC_PAGESIZE);
}

/* What comes from malloc is there already: only maps fail, else the engine itself aborts. */
static void fill_heap(void)
{
    void *room;
    assert_true(mallopt(M_MMAP_THRESHOLD, 32 << 20) && mallopt(M_TRIM_THRESHOLD, 512 << 20));
    room = malloc(31 << 20);
    assert_non_null(room);
    free(room);
}

static int run_little_memory_old(void *compressed)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct limited l;
    unsigned hits = 0, missed = 0, refused = 0;
    limited_make_old(&l, compressed != NULL);
    fill_heap();
    for (size_t more = 0; more <= 3 * pages(l.artifact) + 8; more++) {
        const wasmcache_reason reason = under_limit(&l, RLIMIT_AS, address_space() + more * page);
        if (reason == WASMCACHE_REASON_CORRUPT)
            return 1;
        hits += reason == WASMCACHE_REASON_NONE;
        missed += reason != WASMCACHE_REASON_NONE;
        refused += reason == WASMCACHE_REASON_ENGINE_REFUSED;
    }
    printf("memory, old entry: %u hits, %u not, of which %u refused by the engine\n", hits, missed,
           refused);
    assert_true(hits && missed);
    limited_end(&l);
    return 0;
}

static int run_little_memory(void *unused)
{
    struct limited l;
    unsigned hits = 0, unreadable = 0, refused = 0;
    (void)unused;
    limited_make(&l);
    fill_heap();
    for (size_t more = 0; more <= 2 * pages(l.artifact) + 8; more++) {
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        switch (under_limit(&l, RLIMIT_AS, address_space() + more * page)) {
        case WASMCACHE_REASON_NONE:
            hits++;
            break;
        case WASMCACHE_REASON_UNREADABLE:
            unreadable++;
            break;
        case WASMCACHE_REASON_ENGINE_REFUSED:
            refused++;
            break;
        default:
            return 1;
        }
    }
    printf("memory: %u hits, %u unreadable, %u refused by the engine\n", hits, unreadable, refused);
    assert_true(hits && unreadable && refused);
    limited_end(&l);
    return 0;
}

static void little_memory_costs_no_entry(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("skipped: sanitizers need more addresses than any limit here leaves\n");
    skip();
#endif
    assert_int_equal(scratch_child(run_little_memory, NULL, 0, 120), 0);
}

static void little_memory_costs_no_old_entry(void **state)
{
    static char compressed;
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();
#endif
    assert_int_equal(scratch_child(run_little_memory_old, NULL, 0, 120), 0);
    scratch_remove(cache_dir());
    assert_int_equal(scratch_child(run_little_memory_old, &compressed, 0, 120), 0);
}

/* ---- directories that cannot be written, are not there, or go away ---- */

static int run_read_only(void *unused)
{
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    uint8_t other[WASM_ANSWER_ROOM(0)];
    const size_t size = wasm_answer(other, 5, 0);
    engine_module *module;
    wasmcache_report report;
    struct host h;
    (void)unused;
    host_open(&h, cache_dir(), 0);
    assert_hit(&h);
    assert_true(host_loaded_best());
    /* What is not in it is compiled. */
    assert_int_equal(get_bytes(&module, &h, other, size, &report), 0);
    assert_int_equal(call_export(h.engine, module, "answer", NULL, 0), 5);
    engine_module_delete(module);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_NOT_FOUND);
    assert_int_equal(report.save_error, WASMCACHE_EIO);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_SAVE_FAILED], 1);
    assert_int_equal(wasmcache_status(h.cache, &status), 0);
    assert_int_equal(status.state, WASMCACHE_STATE_READ_ONLY);
    assert_string_not_equal(status.message, "");
    assert_hit(&h);
    host_close(&h);
    return 0;
}

static void read_only_directory_serves_hits_to_anybody(void **state)
{
    wasmcache_options options = WASMCACHE_OPTIONS_INIT;
    const char *tree;
    struct host h;
    char *folder;
    (void)state;
    options.dir = cache_dir();
    options.share = WASMCACHE_SHARE_READABLE;
    host_open_with(&h, &options, engine_new(), "");
    assert_compiled_and_saved(&h);
    folder = scratch_in(&scratch, "cache/%s", host_namespace(&h));
    host_close(&h);
    assert_int_equal(chmod(folder, 0555), 0);
    assert_int_equal(chmod(cache_dir(), 0555), 0);
    tree = scratch_tree(&scratch, cache_dir());
    assert_int_equal(scratch_child(run_read_only, NULL, geteuid() == 0 ? SCRATCH_NOBODY : 0, 60),
                     0);
    assert_string_equal(scratch_tree(&scratch, cache_dir()), tree);
    /* So that who is not root can remove them. */
    assert_int_equal(chmod(cache_dir(), 0755) || chmod(folder, 0755), 0);
}

static void read_only_cache_changes_nothing(void **state)
{
    struct host h;
    const char *tree;
    char *path;
    ino_t inode;
    (void)state;
    host_open(&h, cache_dir(), 0);
    assert_compiled_and_saved(&h);
    path = entry_path(&scratch, &h, wasm_add, wasm_add_size);
    host_close(&h);
    tree = scratch_tree(&scratch, cache_dir());
    inode = scratch_inode(path);
    host_open(&h, cache_dir(), WASMCACHE_READ_ONLY);
    assert_hit(&h);
    /* Not even a damaged entry is removed. */
    scratch_flip(path, 77);
    assert_compiled_not_saved(&h);
    assert_int_equal(host_loads(), 0);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_REMOVED], 0);
    host_close(&h);
    assert_string_equal(scratch_tree(&scratch, cache_dir()), tree);
    assert_int_equal(scratch_inode(path), inode);
}

/* The cache is to be below a directory where we may make nothing. */
static int run_unwritable(void *unused)
{
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    struct host h;
    (void)unused;
    host_open(&h, scratch_in(&scratch, "closed/cache"), 0);
    assert_int_equal(wasmcache_status(h.cache, &status), 0);
    assert_int_equal(status.state, WASMCACHE_STATE_OFF);
    assert_int_equal(status.system_errno, EACCES);
    assert_non_null(strstr(status.message, "closed/cache"));
    for (int i = 0; i < 2; i++) {
        assert_compiled_not_saved(&h);
        assert_int_equal(host_loads(), 0);
        /* One event when it went off, and not one a get. */
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_OFF], 0);
        assert_int_equal(h.seen.count[WASMCACHE_EVENT_ON], 0);
    }
    host_close(&h);
    return 0;
}

static void unwritable_parent_means_compile(void **state)
{
    char *closed = scratch_in(&scratch, "closed");
    (void)state;
    assert_int_equal(mkdir(closed, 0755), 0);
    assert_int_equal(chmod(closed, 0555), 0);
    assert_int_equal(scratch_child(run_unwritable, NULL, geteuid() == 0 ? SCRATCH_NOBODY : 0, 60),
                     0);
    assert_string_equal(scratch_tree(&scratch, closed), "");
}

static void directory_that_goes_away_is_made_again(void **state)
{
    char *elsewhere = scratch_in(&scratch, "elsewhere");
    const unsigned before = scratch_descriptors();
    struct host h;
    char *path;
    (void)state;
    host_open(&h, cache_dir(), 0);
    path = entry_path(&scratch, &h, wasm_add, wasm_add_size);
    assert_compiled_and_saved(&h);
    assert_hit(&h);

    scratch_remove(cache_dir());
    assert_compiled_and_saved(&h);
    assert_hit(&h);

    assert_int_equal(rename(cache_dir(), elsewhere), 0);
    assert_compiled_and_saved(&h);
    assert_hit(&h);
    scratch_remove(cache_dir());
    assert_int_equal(rename(elsewhere, cache_dir()), 0);
    assert_hit(&h);

    scratch_remove(scratch_in(&scratch, "cache/%s", host_namespace(&h)));
    assert_compiled_and_saved(&h);
    assert_int_equal(unlink(path), 0);
    assert_compiled_and_saved(&h);
    host_close(&h);
    assert_int_equal(scratch_descriptors(), before);
}

static void something_else_in_place_of_the_directory(void **state)
{
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    assert_compiled_and_saved(&h);
    scratch_remove(cache_dir());
    scratch_write(cache_dir(), "a file", 6, 0600);
    assert_compiled_not_saved(&h);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_OFF], 1);
    assert_compiled_not_saved(&h);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_OFF], 0);
    assert_int_equal(unlink(cache_dir()), 0);
    assert_compiled_and_saved(&h);
    assert_int_equal(h.seen.count[WASMCACHE_EVENT_ON], 1);
    assert_hit(&h);

    /* A link that leads nowhere is not followed into making something. */
    scratch_remove(cache_dir());
    assert_int_equal(symlink("nowhere", cache_dir()), 0);
    assert_compiled_not_saved(&h);
    assert_false(scratch_exists(scratch_in(&scratch, "nowhere")));
    assert_int_equal(unlink(cache_dir()), 0);
    assert_compiled_and_saved(&h);
    host_close(&h);
}

static int remove_quietly(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    (void)remove(path); /* a directory can have got something new */
    return 0;
}

static int pull_away(void *unused)
{
    char *dir = cache_dir(), *away = scratch_in(&scratch, "away");
    (void)unused;
    for (int i = 0; i < 300; i++) {
        const char *from = i % 3 == 0 && rename(dir, away) == 0 ? away : dir;
        nftw(from, remove_quietly, 8, FTW_DEPTH | FTW_PHYS);
        nftw(away, remove_quietly, 8, FTW_DEPTH | FTW_PHYS);
        usleep(500);
    }
    return 0;
}

/* Has the child ended? It must have ended well then. */
static int ended(pid_t child)
{
    int status = 0;
    const pid_t got = waitpid(child, &status, WNOHANG);
    assert_true(got == 0 || got == child);
    assert_int_equal(status, 0);
    return got == child;
}

static void directory_that_keeps_going_away(void **state)
{
    const unsigned before = scratch_descriptors();
    unsigned compiled = 0, rounds = 0;
    struct host h;
    pid_t puller;
    (void)state;
    host_open(&h, cache_dir(), 0);
    puller = scratch_start(pull_away, NULL, 0, 60);
    while (!ended(puller)) {
        compiled += get_add(&h).outcome == WASMCACHE_COMPILED;
        rounds++;
    }
    assert_true(compiled > 1);
    printf("%u gets, %u of them compiled\n", rounds, compiled);
    if (get_add(&h).outcome == WASMCACHE_COMPILED)
        assert_hit(&h);
    host_close(&h);
    assert_int_equal(scratch_descriptors(), before);
}

/* ---- sources ---- */

/* A path or descriptor that cannot be read is the caller's error, and leaves nothing. */
static int run_bad_source(void *payload)
{
    const char *path = payload;
    wasmcache_source source = wasmcache_source_path(path);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    const unsigned before = scratch_descriptors();
    struct host h;
    const char *tree;
    int fd;

    host_open(&h, cache_dir(), 0);
    tree = scratch_tree(&scratch, cache_dir());
    assert_int_equal(wasmcache_get(&module, h.wc, WASMCACHE_MODULE, &source, NULL, &report),
                     WASMCACHE_EIO);
    assert_null(module);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
    assert_int_equal(report.reason, WASMCACHE_REASON_SOURCE);
    assert_non_null(strstr(wasmcache_last_error()->message, path));
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        source = wasmcache_source_fd(fd);
        assert_int_equal(wasmcache_get(&module, h.wc, WASMCACHE_MODULE, &source, NULL, &report),
                         WASMCACHE_EIO);
        assert_int_equal(report.reason, WASMCACHE_REASON_SOURCE);
        close(fd);
    }
    assert_int_equal(host_called(ENGINE_COMPILE), 0);
    assert_int_equal(host_loads(), 0);
    assert_string_equal(scratch_tree(&scratch, cache_dir()), tree);
    host_close(&h);
    assert_int_equal(scratch_descriptors(), before);
    return 0;
}

static void sources_that_are_no_files(void **state)
{
    char *dir = scratch_in(&scratch, "dir.wasm"), *fifo = scratch_in(&scratch, "fifo.wasm"),
         *loop = scratch_in(&scratch, "loop.wasm");
    (void)state;
    assert_int_equal(mkdir(dir, 0755), 0);
    assert_int_equal(mkfifo(fifo, 0644), 0);
    assert_int_equal(symlink("loop.wasm", loop), 0);
    assert_int_equal(scratch_child(run_bad_source, dir, 0, 20), 0);
    assert_int_equal(scratch_child(run_bad_source, fifo, 0, 20), 0);
    assert_int_equal(scratch_child(run_bad_source, loop, 0, 20), 0);
    assert_int_equal(scratch_child(run_bad_source, scratch_in(&scratch, "not there"), 0, 20), 0);
    assert_int_equal(scratch_child(run_bad_source, "/dev/null", 0, 20), 0);
}

static void unreadable_source(void **state)
{
    char *path = scratch_in(&scratch, "secret.wasm");
    (void)state;
    scratch_write(path, wasm_add, wasm_add_size, 0000);
    assert_int_equal(mkdir(cache_dir(), 0777), 0);
    assert_int_equal(chmod(cache_dir(), 0777), 0);
    assert_int_equal(scratch_child(run_bad_source, path, geteuid() == 0 ? SCRATCH_NOBODY : 0, 20),
                     0);
}

/* ---- a source that changes while it is read ---- */

#define PADDING 300000 /* more than one piece of what is read at a time */

/* The glue's table, but each compile notes the key of what the engine was really given. */
static wasmcache_key compiled_keys[4096]; /* each once */
static size_t compiled_count;
static unsigned compile_calls;
static wasmcache_key compiled_last;

static int was_compiled(const wasmcache_key *key)
{
    int known = 0;
    for (size_t i = 0; i < compiled_count && !known; i++)
        known = wasmcache_key_equal(key, &compiled_keys[i]);
    return known;
}

static int noting_compile(void *engine, wasmcache_kind kind, const void *wasm, size_t length,
                          void **module, void **error)
{
    compile_calls++;
    compiled_last = key_of(wasm, length);
    if (!was_compiled(&compiled_last) && compiled_count < 4096)
        compiled_keys[compiled_count++] = compiled_last;
    return engine_table()->compile(engine, kind, wasm, length, module, error);
}

static int change_the_source(void *payload)
{
    const char *path = payload;
    uint8_t *wasm[2];
    size_t size[2];
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (int i = 0; i < 2; i++) {
        wasm[i] = malloc(WASM_ANSWER_ROOM(PADDING + 4096));
        size[i] = wasm_answer(wasm[i], 1000 + i, PADDING + (size_t)i * 4096);
    }
    for (int i = 0; i < 1000; i++) {
        const int which = i & 1;
        switch (i % 5) {
        case 0: /* shorter, then all of it */
            assert_int_equal(ftruncate(fd, 100), 0);
            break;
        case 1: /* longer */
            assert_int_equal(ftruncate(fd, (off_t)size[which] + 100000), 0);
            break;
        case 2: /* nothing */
            assert_int_equal(ftruncate(fd, 0), 0);
            break;
        }
        assert_int_equal(pwrite(fd, wasm[which], size[which], 0), size[which]);
        assert_int_equal(ftruncate(fd, (off_t)size[which]), 0);
        usleep(200);
    }
    for (int i = 0; i < 2; i++)
        free(wasm[i]);
    close(fd);
    return 0;
}

/* Each entry has the key of something that was compiled, and holds that. */
static void assert_keys_are_right(struct host *h)
{
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it;
    unsigned entries = 0;
    int rc;
    assert_int_equal(wasmcache_iterate(&it, h->cache, NULL, WASMCACHE_CHECK_DIGEST), 0);
    while ((rc = wasmcache_iterator_next(it, &entry)) == 0) {
        assert_true(was_compiled(&entry.key));
        assert_int_equal(entry.state, WASMCACHE_REASON_NONE);
        entries++;
    }
    assert_int_equal(rc, WASMCACHE_EMISS);
    wasmcache_iterator_close(it);
    printf("%u entries\n", entries);
}

static void source_that_changes_while_it_is_read(void **state)
{
    char *path = scratch_in(&scratch, "changing.wasm");
    wasmcache_attach_options options = WASMCACHE_ATTACH_OPTIONS_INIT;
    wasmcache_engine_table table = *engine_table();
    unsigned rounds = 0, right = 0, refused = 0, mixed = 0;
    uint8_t *wasm = malloc(WASM_ANSWER_ROOM(PADDING + 4096));
    wasmcache_source source = wasmcache_source_path(path);
    wasmcache_key own[2];
    struct host h;
    pid_t writer;
    (void)state;

    table.compile = noting_compile;
    compiled_count = 0;
    host_open(&h, cache_dir(), 0);
    wasmcache_detach(h.wc);
    options.compiler = "cranelift";
    options.engine_version = "changing";
    options.artifact_version = table.artifact_version ? 0 : 1;
    options.settings = "";
    assert_int_equal(wasmcache_attach(&h.wc, h.cache, &table, h.engine, &options), 0);
    for (int i = 1; i >= 0; i--) {
        const size_t size = wasm_answer(wasm, 1000 + i, PADDING + (size_t)i * 4096);
        own[i] = key_of(wasm, size);
        scratch_write(path, wasm, size, 0644);
    }
    writer = scratch_start(change_the_source, path, 0, 60);
    while (!ended(writer)) {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        const unsigned compiled = compile_calls;
        int rc = wasmcache_get(&module, h.wc, WASMCACHE_MODULE, &source, NULL, &report);
        rounds++;
        if (rc == WASMCACHE_EENGINE) { /* half a module */
            refused++;
            continue;
        }
        assert_int_equal(rc, 0);
        if (report.outcome == WASMCACHE_COMPILED) {
            /* Filed under what was compiled, whatever was hashed before. */
            assert_int_equal(report.save_error, 0);
            assert_int_equal(compile_calls, compiled + 1);
            assert_true(wasmcache_key_equal(&report.key, &compiled_last));
        }
        if (wasmcache_key_equal(&report.key, &own[0]) ||
            wasmcache_key_equal(&report.key, &own[1])) {
            const int which = wasmcache_key_equal(&report.key, &own[1]);
            assert_int_equal(
                call_export(h.engine, wasmcache_module_native(module), "answer", NULL, 0),
                1000 + which);
            right++;
        } else {
            mixed++; /* the end of one behind the start of the other: a module of its own */
        }
        wasmcache_module_release(module);
    }
    printf("%u gets: %u of a whole content, %u of a mixed one, %u refused by the engine\n", rounds,
           right, mixed, refused);
    assert_true(rounds > 0);
    assert_keys_are_right(&h);
    /* Now that it is quiet, it is one of the two, and found. */
    {
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        assert_int_equal(wasmcache_get(&module, h.wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
        assert_true(wasmcache_key_equal(&report.key, &own[1]));
        assert_int_equal(call_export(h.engine, wasmcache_module_native(module), "answer", NULL, 0),
                         1001);
        wasmcache_module_release(module);
    }
    free(wasm);
    host_close(&h);
}

/* A rename between hash and read is no change: the file that was opened is the one that is read. */
static void source_that_is_replaced_by_rename(void **state)
{
    char *path = scratch_in(&scratch, "replaced.wasm");
    uint8_t wasm[WASM_ANSWER_ROOM(0)];
    struct host h;
    (void)state;
    host_open(&h, cache_dir(), 0);
    for (int32_t i = 0; i < 20; i++) {
        wasmcache_source source = wasmcache_source_path(path);
        wasmcache_report report = WASMCACHE_REPORT_INIT;
        wasmcache_module *module = NULL;
        const size_t size = wasm_answer(wasm, i % 7, 0);
        const wasmcache_key key = key_of(wasm, size);
        scratch_write(path, wasm, size, 0644);
        assert_int_equal(wasmcache_get(&module, h.wc, WASMCACHE_MODULE, &source, NULL, &report), 0);
        assert_true(wasmcache_key_equal(&report.key, &key));
        assert_int_equal(report.outcome, i < 7 ? WASMCACHE_COMPILED : WASMCACHE_HIT);
        assert_int_equal(call_export(h.engine, wasmcache_module_native(module), "answer", NULL, 0),
                         i % 7);
        wasmcache_module_release(module);
    }
    host_close(&h);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(noexec_directory_serves_hits),
        TEST(without_proc_everything_works),
        TEST(few_descriptors_cost_no_entry),
        TEST(few_descriptors_cost_no_old_entry),
        TEST(little_memory_costs_no_entry),
        TEST(little_memory_costs_no_old_entry),
        TEST(read_only_directory_serves_hits_to_anybody),
        TEST(read_only_cache_changes_nothing),
        TEST(unwritable_parent_means_compile),
        TEST(directory_that_goes_away_is_made_again),
        TEST(something_else_in_place_of_the_directory),
        TEST(directory_that_keeps_going_away),
        TEST(sources_that_are_no_files),
        TEST(unreadable_source),
        TEST(source_that_changes_while_it_is_read),
        TEST(source_that_is_replaced_by_rename),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
