/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation of the library fails, one after the other, in every public call, once and for
 * good. After each run it must hold:
 *     D  a get returned its module, or said that there is no memory
 *     W  the engine saw no bytes but its own
 *     L  no descriptor, module, error or artifact leaked; memory: where a sanitizer looks
 *     T  no file but entries is left after one clean-up
 *     K  good entries are still there, the very same files
 *     S  with memory again one get makes the key usable
 */
#define _GNU_SOURCE
#include <dirent.h>
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

#include "asked.h"
#include "os/os.h"
#include "spoil.h"
#include "support/allocation.h"
#include "support/lzw.h"

static const char key_wasm[] = "the module in question";
static const char by_wasm[] = "a module that nobody touches";
static const char layer_wasm[] = "a module that only the layer has";
static const char old_wasm[] = "a module that another cache saved";
static const char bad_wasm[] = "! nothing that compiles";

enum start { ABSENT, GOOD, BAD };

/* What the scenarios start from, and where it lies. */
struct lab {
    struct rig r;
    wasmcache_options options; /* of a cache as most scenarios have it */
    wasmcache_attach_options attach;
    char *layer_dir, *ns, *ns_dir, *entry, *by, *promoted, *temp, *source;
    wasmcache_key key;
    wasmcache_layer layer;
    const wasmcache_layer *layers[1];
    wasmcache_executor *executor; /* made before the fault */
    uint8_t *good, *bad;
    size_t good_size, bad_size;
    ino_t by_inode, inode; /* inode: of the entry before the run */
};

struct scenario {
    const char *name;
    void (*options)(struct lab *); /* before the cache is opened, NULL: as they are */
    int (*run)(struct lab *);      /* the call; what it returned */
    enum start start;
    /* How often it may fail for want of one allocation: where one thing is needed for which there
     * is nothing else, and its callers hear ENOMEM. */
    unsigned needs;
    int stays;  /* 1: the good entry must be the same file afterwards */
    int closed; /* 1: it opens the cache by itself */
};

enum { MANY = 99 }; /* any one of them; or another thread allocates, too, and it is not said when */

static unsigned violations;
static char context[256];

static void violated(const char *rule)
{
    if (violations++ < 20)
        printf("%s: %s\n", context, rule);
}

#define HOLD(condition, rule)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            violated(rule);                                                                        \
    } while (0)

/* ---- calls ---- */

static int is_of(const struct lab *l, wasmcache_module *module, const char *wasm)
{
    return fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                          l->r.engine.configuration, wasm, strlen(wasm));
}

/* A module that a call gave, or not. */
static int take(const struct lab *l, int rc, wasmcache_module *module, const char *wasm)
{
    HOLD((rc == 0) == (module != NULL), "D: a module without success, or the other way round");
    HOLD(rc || is_of(l, module, wasm), "D: it is another module");
    wasmcache_module_release(module);
    return rc;
}

static int get(struct lab *l, const char *wasm, const wasmcache_source *source, unsigned flags)
{
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    int rc;
    options.flags = flags;
    rc = wasmcache_get(&module, l->r.wc, WASMCACHE_MODULE, source, &options, &report);
    HOLD((rc == 0) == (report.outcome != WASMCACHE_FAILED), "D: the report says otherwise");
    return take(l, rc, module, wasm);
}

static int get_bytes(struct lab *l, const char *wasm, unsigned flags)
{
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    return get(l, wasm, &source, flags);
}

static int run_get(struct lab *l)
{
    return get_bytes(l, key_wasm, 0);
}

static int run_recompile(struct lab *l)
{
    return get_bytes(l, key_wasm, WASMCACHE_GET_RECOMPILE);
}

static int run_get_path(struct lab *l)
{
    const wasmcache_source source = wasmcache_source_path(l->source);
    return get(l, key_wasm, &source, 0);
}

static int run_get_fd(struct lab *l)
{
    const int fd = open(l->source, O_RDONLY | O_CLOEXEC);
    const wasmcache_source source = wasmcache_source_fd(fd);
    int rc = get(l, key_wasm, &source, 0);
    close(fd);
    return rc;
}

static int fetch(const void **bytes, size_t *length, void *payload)
{
    (void)payload;
    *bytes = key_wasm;
    *length = strlen(key_wasm);
    return 0;
}

static int run_get_digest(struct lab *l)
{
    wasmcache_source source = wasmcache_source_sha256(l->key.bytes, fetch, NULL);
    return get(l, key_wasm, &source, 0);
}

static int run_get_twice(struct lab *l)
{
    int rc = run_get(l);
    return rc ? rc : run_get(l);
}

static int run_get_native(struct lab *l)
{
    const wasmcache_source source = wasmcache_source_bytes(key_wasm, strlen(key_wasm));
    void *native = NULL, *error = NULL;
    int rc = wasmcache_get_native(&native, &error, l->r.wc, WASMCACHE_MODULE, &source, NULL, NULL);
    HOLD(!error, "D: an error of the engine's");
    if (rc == 0)
        l->r.engine.table.module_free(WASMCACHE_MODULE, native);
    return rc;
}

/* The engine's own error goes through whatever else fails. */
static int run_does_not_compile(struct lab *l)
{
    const wasmcache_source source = wasmcache_source_bytes(bad_wasm, strlen(bad_wasm));
    wasmcache_module *module = NULL;
    int rc = wasmcache_get(&module, l->r.wc, WASMCACHE_MODULE, &source, NULL, NULL);
    HOLD(rc == WASMCACHE_EENGINE && !module, "D: the engine's error was lost");
    return rc == WASMCACHE_EENGINE ? 0 : rc;
}

static int run_get_another(struct lab *l)
{
    return get_bytes(l, layer_wasm, 0);
}

static int run_get_old(struct lab *l)
{
    return get_bytes(l, old_wasm, 0);
}

static int run_load(struct lab *l)
{
    wasmcache_module *module = NULL;
    int rc = wasmcache_load(&module, l->r.wc, WASMCACHE_MODULE, &l->key, NULL);
    return take(l, rc, module, key_wasm);
}

static int run_contains(struct lab *l)
{
    return wasmcache_contains(l->r.wc, WASMCACHE_MODULE, &l->key);
}

static int run_save(struct lab *l)
{
    return rig_save(&l->r, key_wasm, NULL);
}

static int run_into_native(struct lab *l)
{
    wasmcache_module *module = NULL;
    void *native;
    int rc = wasmcache_load(&module, l->r.wc, WASMCACHE_MODULE, &l->key, NULL);
    if (rc)
        return rc;
    native = wasmcache_module_into_native(wasmcache_module_ref(module));
    HOLD(native, "D: the engine's module was not handed over");
    l->r.engine.table.module_free(WASMCACHE_MODULE, native);
    wasmcache_module_release(module);
    return 0;
}

static int run_keys(struct lab *l)
{
    const int fd = open(l->source, O_RDONLY | O_CLOEXEC);
    wasmcache_key key;
    int rc = wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, l->source);
    HOLD(rc || wasmcache_key_equal(&key, &l->key), "D: it is another key");
    if (rc == 0)
        rc = wasmcache_key_from_path(&key, WASMCACHE_KEY_XXH64, l->source);
    if (rc == 0)
        rc = wasmcache_key_from_fd(&key, WASMCACHE_KEY_SHA256, fd);
    close(fd);
    return rc;
}

static int run_iterate(struct lab *l)
{
    wasmcache_iterator *it = NULL;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    unsigned found = 0, failed = 0;
    int rc, first = 0;
    rc = wasmcache_iterate(&it, l->r.cache, NULL, WASMCACHE_CHECK_DIGEST);
    if (rc)
        return rc;
    while ((rc = wasmcache_iterator_next(it, &entry)) != WASMCACHE_EMISS && failed < 9) {
        if (rc < 0) {
            failed++;
            first = first ? first : rc;
        } else {
            HOLD(entry.state == WASMCACHE_REASON_NONE || entry.state == WASMCACHE_REASON_UNREADABLE,
                 "K: a good entry is called bad");
            found++;
        }
    }
    HOLD(failed || found == 2, "D: the walk left one out");
    HOLD(failed < 9, "D: the walk does not end");
    wasmcache_iterator_close(it);
    return first;
}

static int run_iterate_one(struct lab *l)
{
    wasmcache_iterator *it = NULL;
    int rc = wasmcache_iterate(&it, l->r.cache, l->ns, 0);
    if (rc == 0)
        wasmcache_iterator_close(it);
    return rc;
}

static int run_entry_check(struct lab *l)
{
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    int rc = wasmcache_entry_check(&entry, l->r.cache, l->ns, &l->key, WASMCACHE_CHECK_DIGEST);
    HOLD(rc || entry.state == WASMCACHE_REASON_NONE || entry.state == WASMCACHE_REASON_UNREADABLE,
         "K: a good entry is called bad");
    HOLD(rc || entry.state == WASMCACHE_REASON_NONE || entry.system_errno,
         "D: it does not say why it cannot be read");
    return rc;
}

static int run_remove(struct lab *l)
{
    int rc = wasmcache_remove(l->r.cache, l->ns, &l->key);
    HOLD(scratch_exists(l->entry) == (rc != 0), "D: remove says otherwise");
    return rc;
}

static int run_remove_damaged(struct lab *l)
{
    int rc = wasmcache_remove_damaged(l->r.cache, l->ns, &l->key);
    HOLD(scratch_exists(l->entry) == (rc != 0), "D: remove says otherwise");
    return rc;
}

static int run_clean(struct lab *l)
{
    uint64_t removed = 9;
    int rc;
    scratch_write(l->temp, "half", 4, 0600);
    rc = wasmcache_clean(l->r.cache, &removed);
    HOLD(rc || removed == 1, "T: the clean-up returned 0, but did not do all");
    return rc;
}

static int run_prune(struct lab *l)
{
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    options.max_bytes = WASMCACHE_UNLIMITED;
    return wasmcache_prune(l->r.cache, &options, &result);
}

static int run_pin(struct lab *l)
{
    int rc = wasmcache_pin(l->r.cache, l->ns, &l->key, 1);
    return rc ? rc : wasmcache_pin(l->r.cache, l->ns, &l->key, 0);
}

static int run_stats(struct lab *l)
{
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    int rc = wasmcache_stats_read(l->r.cache, WASMCACHE_STATS_PROCESS, &stats);
    if (rc == 0)
        rc = wasmcache_stats_read(l->r.cache, WASMCACHE_STATS_DIRECTORY, &stats);
    return rc ? rc : wasmcache_stats_reset(l->r.cache);
}

static int run_status(struct lab *l)
{
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    char path[1024];
    int rc = wasmcache_status(l->r.cache, &info);
    HOLD(rc || info.state == WASMCACHE_STATE_ON, "D: it is said to be off");
    if (rc == 0)
        rc = wasmcache_entry_path(path, sizeof(path), l->r.cache, l->ns, &l->key);
    return rc;
}

/* Without a directory, whose parents are looked for. */
static int run_status_of_nothing(struct lab *l)
{
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    int rc = wasmcache_status(l->r.cache, &info);
    HOLD(rc || info.state == WASMCACHE_STATE_ON || info.message[0],
         "D: status does not say why it is off");
    return rc;
}

static int run_overlaps(struct lab *l)
{
    const int fd = open(l->ns_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = wasmcache_overlaps(l->r.cache, fd);
    close(fd);
    HOLD(rc != 0, "D: a folder of the cache is said not to overlap it");
    return rc == 1 ? 0 : WASMCACHE_ENOMEM; /* whatever it is, callers take it for a yes */
}

static int run_identity(struct lab *l)
{
    wasmcache_identity identity = WASMCACHE_IDENTITY_INIT;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    int rc = wasmcache_attachment_status(l->r.wc, &info);
    HOLD(rc || info.error == 0 || info.error == WASMCACHE_ENOMEM, "D: it is said to be uncached");
    rc = rc ? rc : wasmcache_identity_of(&identity, l->r.wc);
    return rc ? rc : wasmcache_identity_read(&identity, l->r.cache, l->ns);
}

static int open_and_attach(struct lab *l)
{
    int rc = wasmcache_open(&l->r.cache, &l->r.options);
    HOLD(!rc == !!l->r.cache, "D: a cache without success, or the other way round");
    if (rc == 0)
        rc = wasmcache_attach(&l->r.wc, l->r.cache, &l->r.engine.table, &l->r.engine, &l->r.attach);
    return rc;
}

static int run_open(struct lab *l)
{
    int rc = open_and_attach(l);
    if (rc == 0)
        rc = run_get(l);
    return rc;
}

static int run_open_in_directory(struct lab *l)
{
    int rc;
    assert_int_equal(chdir(l->r.scratch.dir), 0);
    rc = run_open(l);
    assert_int_equal(chdir("/"), 0);
    return rc;
}

/* ---- requests ---- */

static int ask(struct lab *l, wasmcache_executor *executor)
{
    const wasmcache_source source = wasmcache_source_bytes(key_wasm, strlen(key_wasm));
    struct asked asked[4];
    void *native = fake_module_new(&l->r.engine, WASMCACHE_MODULE, key_wasm, strlen(key_wasm));
    int rcs[4], rc = 0;
    for (int i = 0; i < 4; i++)
        asked_init(&asked[i], &l->r, key_wasm);
    rcs[0] = wasmcache_request_get(&asked[0].handle, executor, l->r.wc, WASMCACHE_MODULE, &source,
                                   NULL, answer, &asked[0]);
    rcs[1] = wasmcache_request_load(&asked[1].handle, executor, l->r.wc, WASMCACHE_MODULE, &l->key,
                                    answer, &asked[1]);
    rcs[2] = wasmcache_request_save(&asked[2].handle, executor, l->r.wc, WASMCACHE_MODULE, &l->key,
                                    native, NULL, answer, &asked[2]);
    rcs[3] = wasmcache_request_contains(&asked[3].handle, executor, l->r.wc, WASMCACHE_MODULE,
                                        &l->key, answer, &asked[3]);
    while (wasmcache_executor_wait(executor, 30000) == 1)
        wasmcache_executor_dispatch(executor);
    for (int i = 0; i < 4; i++) {
        HOLD(asked[i].answers == (rcs[i] == 0), "D: not as many callbacks as requests");
        HOLD(rcs[i] == 0 || !asked[i].handle, "D: a handle of a request that was not started");
        HOLD(asked[i].answers == 0 || asked[i].right == asked[i].has_module,
             "D: it is another module");
        if (rcs[i] == 0)
            rcs[i] = asked[i].error;
        if (rcs[i] && rcs[i] != WASMCACHE_EMISS) /* load and contains may be first */
            rc = rc ? rc : rcs[i];
    }
    l->r.engine.table.module_free(WASMCACHE_MODULE, native);
    return rc;
}

static int run_executor(struct lab *l)
{
    wasmcache_executor_options options = WASMCACHE_EXECUTOR_OPTIONS_INIT;
    wasmcache_executor *executor = NULL;
    int rc;
    options.threads = 1;
    rc = wasmcache_executor_new(&executor, &options);
    HOLD(!rc == !!executor, "D: an executor without success, or the other way round");
    if (rc == 0)
        rc = ask(l, executor);
    wasmcache_executor_free(executor);
    return rc;
}

static int run_save_later(struct lab *l)
{
    int rc = run_get(l);
    (void)wasmcache_flush(l->r.cache);
    return rc;
}

/* ---- options ---- */

static void with_all(struct lab *l)
{
    static const uint32_t trusted[2] = {12345, 12346};
    l->r.options.trust_uids = trusted;
    l->r.options.trust_uid_count = 2;
    l->r.options.hints_dir = scratch_in(&l->r.scratch, "hints");
    l->r.options.memory_modules = 2;
    l->r.options.layers = l->layers;
    l->r.options.layer_count = 1;
    l->r.attach.target = "a target";
    l->r.attach.code_symbol = "none";
}

static void with_relative_dir(struct lab *l)
{
    l->r.options.dir = "cache";
}

static void with_no_folders(struct lab *l)
{
    l->r.options.dir = scratch_in(&l->r.scratch, "far/away/cache");
    scratch_remove(scratch_in(&l->r.scratch, "far"));
}

/* What was hashed and checked is remembered. */
static void with_hints(struct lab *l)
{
    rig_open(&l->r);
    (void)run_get_path(l);
    rig_close(&l->r);
}

static void with_digests(struct lab *l)
{
    l->r.options.verify = WASMCACHE_VERIFY_ALWAYS;
}

static void without_views(struct lab *l)
{
    l->r.options.verify = WASMCACHE_VERIFY_ALWAYS;
    wc_os_lacking = WC_OS_NO_VIEW;
}

static void without_temps(struct lab *l)
{
    (void)l;
    wc_os_lacking = WC_OS_NO_TMPFILE;
}

static void with_probe(struct lab *l)
{
    l->r.engine.probe_artifact = 1;
    l->r.engine.table.artifact_version = fake_artifact_version;
}

static void with_promotion(struct lab *l)
{
    l->layer.flags = WASMCACHE_LAYER_PROMOTE;
    l->r.options.layers = l->layers;
    l->r.options.layer_count = 1;
}

static void with_memory(struct lab *l)
{
    l->r.options.memory_modules = 1;
}

static void with_few_entries(struct lab *l)
{
    l->r.options.max_entries = 1;
    l->r.options.evict_after_seconds = 3600;
}

static void with_save_executor(struct lab *l)
{
    l->r.options.save_executor = l->executor;
}

/* An entry that was compressed, as it lies in a folder of Wasmer's. */
static void with_old_entry(struct lab *l)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];
    const wasmcache_key key = rig_key(old_wasm);
    char *folder = scratch_in(&l->r.scratch, "cache/old-v1");
    uint8_t *artifact, *lzw;
    size_t size, packed;
    l->r.options.flags = WASMCACHE_LEGACY;
    l->r.attach.engine_id = "old";
    l->r.attach.settings = NULL;
    l->r.engine.table.artifact_version = fake_artifact_version;
    artifact = fake_artifact(&size, &l->r.engine, WASMCACHE_MODULE, old_wasm, strlen(old_wasm));
    lzw = lzw_encode(&packed, artifact, size);
    (void)mkdir(folder, 0755);
    scratch_write(scratch_text(&l->r.scratch, "%s/%s.bin", folder, wasmcache_key_to_hex(hex, &key)),
                  lzw, packed, 0644);
    free(artifact);
    free(lzw);
}

static const struct scenario scenarios[] = {
    {"open, attach, get", NULL, run_open, GOOD, MANY, 1, 1},
    {"the same with all options", with_all, run_open, GOOD, MANY, 1, 1},
    {"the same with a relative directory", with_relative_dir, run_open_in_directory, GOOD, MANY, 1,
     1},
    {"the same where the directory is missing", with_no_folders, run_open, GOOD, MANY, 1, 1},
    {"cold get", NULL, run_get, ABSENT, 1, 0, 0},
    {"cold get, named temps", without_temps, run_get, ABSENT, 1, 0, 0},
    {"cold get of an engine with versions", with_probe, run_get, ABSENT, 1, 0, 0},
    {"cold get of a file", NULL, run_get_path, ABSENT, 2, 0, 0},
    {"cold get of a descriptor", NULL, run_get_fd, ABSENT, 2, 0, 0},
    {"cold get of a digest", NULL, run_get_digest, ABSENT, 1, 0, 0},
    {"cold get, native", NULL, run_get_native, ABSENT, 0, 0, 0},
    {"get of what does not compile", NULL, run_does_not_compile, ABSENT, 0, 0, 0},
    {"hit", NULL, run_get, GOOD, 1, 1, 0},
    {"hit of a file", NULL, run_get_path, GOOD, 2, 1, 0},
    {"hit of a file, known", with_hints, run_get_path, GOOD, 1, 1, 0},
    {"hit, native", NULL, run_get_native, GOOD, 0, 1, 0},
    {"hit with a digest", with_digests, run_get, GOOD, 1, 1, 0},
    {"hit with a digest, read", without_views, run_get, GOOD, 1, 1, 0},
    {"corrupt entry", NULL, run_get, BAD, 1, 0, 0},
    {"recompile", NULL, run_recompile, GOOD, 1, 0, 0},
    {"hit in a layer, promoted", with_promotion, run_get_another, GOOD, 1, 1, 0},
    {"get and get again, kept in memory", with_memory, run_get_twice, ABSENT, 1, 0, 0},
    {"get into a full cache", with_few_entries, run_get, ABSENT, 1, 0, 0},
    {"get of an old entry", with_old_entry, run_get_old, GOOD, 1, 1, 0},
    {"get that is saved later", with_save_executor, run_save_later, ABSENT, MANY, 0, 0},
    {"load", NULL, run_load, GOOD, 5, 1, 0},
    {"contains", NULL, run_contains, GOOD, 1, 1, 0},
    {"save", NULL, run_save, ABSENT, 3, 0, 0},
    {"save over a bad entry", NULL, run_save, BAD, 6, 0, 0},
    {"load and into_native", NULL, run_into_native, GOOD, 5, 1, 0},
    {"keys", NULL, run_keys, GOOD, 4, 1, 0},
    {"iterate", NULL, run_iterate, GOOD, 9, 1, 0},
    {"iterate one namespace", NULL, run_iterate_one, GOOD, 9, 1, 0},
    {"entry_check", NULL, run_entry_check, GOOD, 0, 1, 0},
    {"remove", NULL, run_remove, GOOD, 0, 0, 0},
    {"remove_damaged", NULL, run_remove_damaged, BAD, 9, 0, 0},
    {"clean", NULL, run_clean, GOOD, 9, 1, 0},
    {"prune", with_few_entries, run_prune, GOOD, 9, 1, 0},
    {"pin", NULL, run_pin, GOOD, 0, 1, 0},
    {"stats", NULL, run_stats, GOOD, 0, 1, 0},
    {"status", NULL, run_status, GOOD, 0, 1, 0},
    {"status without a directory", with_no_folders, run_status_of_nothing, GOOD, 0, 1, 0},
    {"overlaps", NULL, run_overlaps, GOOD, MANY, 1, 0},
    {"identity", with_probe, run_identity, GOOD, 2, 1, 0},
    {"executor and requests", NULL, run_executor, ABSENT, MANY, 0, 0},
    {"executor and requests, kept in memory", with_memory, run_executor, GOOD, MANY, 1, 0},
};

/* ---- the sweep ---- */

static void lab_start(struct lab *l)
{
    const wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    memset(l, 0, sizeof(*l));
    rig_init(&l->r);
    l->layer_dir = scratch_in(&l->r.scratch, "layer");
    l->layer = layer;
    l->layer.dir = l->layer_dir;
    l->layers[0] = &l->layer;
    l->r.attach.settings = "some";
    l->r.engine.artifact_size = 300 * 1024; /* its digest is made over views */
    l->r.options.dir = l->layer_dir;
    rig_open(&l->r);
    assert_int_equal(rig_get(&l->r, layer_wasm, NULL), 0);
    rig_close(&l->r);
    l->r.options.dir = l->r.dir;
    l->options = l->r.options;
    l->attach = l->r.attach;
    l->executor = executor_with(1, 0);
    rig_open(&l->r);
    l->ns = scratch_text(&l->r.scratch, "%s", rig_namespace(&l->r));
    l->ns_dir = rig_namespace_dir(&l->r);
    l->entry = rig_entry(&l->r, key_wasm);
    l->by = rig_entry(&l->r, by_wasm);
    l->promoted = rig_entry(&l->r, layer_wasm);
    l->temp = scratch_text(&l->r.scratch, "%s/.tmp-0123456789ABCDEF", l->ns_dir);
    l->source = scratch_in(&l->r.scratch, "source.wasm");
    l->key = rig_key(key_wasm);
    scratch_write(l->source, key_wasm, strlen(key_wasm), 0600);
    assert_int_equal(rig_get(&l->r, key_wasm, NULL), 0);
    assert_int_equal(rig_get(&l->r, by_wasm, NULL), 0);
    l->good = scratch_read(l->entry, &l->good_size);
    spoil(l->entry, SPOIL_ARTIFACT);
    l->bad = scratch_read(l->entry, &l->bad_size);
    l->by_inode = scratch_inode(l->by);
    rig_close(&l->r);
}

static void lab_end(struct lab *l)
{
    wasmcache_executor_free(l->executor);
    free(l->good);
    free(l->bad);
    rig_end(&l->r);
}

/* Other engines' entries, and what was remembered: each run meets the same. */
static void forget_others(struct lab *l)
{
    DIR *walk = opendir(l->r.dir);
    const struct dirent *entry;
    while (walk && (entry = readdir(walk)) != NULL)
        if (strncmp(entry->d_name, ".hints-", 7) == 0 ||
            (entry->d_name[0] != '.' && strcmp(entry->d_name, l->ns) != 0)) {
            char path[512];
            snprintf(path, sizeof(path), "%s/%s", l->r.dir, entry->d_name);
            scratch_remove(path);
        }
    if (walk)
        closedir(walk);
}

/* As a new process finds it: nothing is in memory. */
static void prepare(struct lab *l, const struct scenario *s)
{
    wc_os_lacking = 0;
    l->r.options = l->options;
    l->r.attach = l->attach;
    l->r.engine.probe_artifact = 0;
    l->r.engine.table.artifact_version = NULL;
    l->layer.flags = 0;
    forget_others(l);
    unlink(l->promoted);
    if (s->start == ABSENT)
        unlink(l->entry);
    else
        scratch_write(l->entry, s->start == GOOD ? l->good : l->bad,
                      s->start == GOOD ? l->good_size : l->bad_size, 0400);
    l->inode = s->start == ABSENT ? 0 : scratch_inode(l->entry);
    if (s->options)
        s->options(l);
    if (!s->closed)
        rig_open(&l->r);
}

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

/* With memory again, and a cache as the others have it. */
static void check(struct lab *l, const struct scenario *s)
{
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct rig *r = &l->r;
    uint64_t removed;

    wc_os_lacking = 0;
    HOLD(!r->engine.wrong, "W: the engine was handed bytes that it did not make");
    HOLD(!r->engine.live_modules && !r->engine.live_errors && !r->engine.live_artifacts,
         "L: a module, error or artifact leaked");
    r->options = l->options;
    r->attach = l->attach;
    r->engine.probe_artifact = 0;
    r->engine.table.artifact_version = NULL;
    rig_open(r);
    HOLD(wasmcache_clean(r->cache, &removed) == 0, "T: the clean-up failed");
    HOLD(!left_over(l->ns_dir), "T: something is left over");
    if (s->stays)
        HOLD(scratch_exists(l->entry) && scratch_inode(l->entry) == l->inode,
             "K: the good entry is gone");
    HOLD(scratch_inode(l->by) == l->by_inode && rig_load(r, by_wasm, NULL) == 0,
         "K: another entry is gone");
    HOLD(rig_get(r, key_wasm, NULL) == 0, "D: with memory the get failed");
    HOLD(rig_get(r, key_wasm, &report) == 0 && report.outcome == WASMCACHE_HIT,
         "S: the key cannot be used");
    rig_close(r);
}

/* What a call may return that lacked memory. */
static void judge(int rc)
{
    const wasmcache_error_detail *detail = wasmcache_last_error();
    HOLD(rc == 0 || rc == WASMCACHE_ENOMEM || rc == WASMCACHE_EOFF,
         "D: it returned what it may not");
    HOLD(rc == 0 || detail->message[0], "D: nothing says why");
}

/* How many runs there were; *failed: how many of them returned an error. */
static unsigned sweep(struct lab *l, const struct scenario *s, int sticky, unsigned *failed)
{
    unsigned runs = 0;
    *failed = 0;
    for (unsigned nth = 1; nth < 500; nth++) {
        unsigned before;
        int rc;
        snprintf(context, sizeof(context), "%s, allocation %u fails%s", s->name, nth,
                 sticky ? " and all after it" : "");
        before = scratch_descriptors();
        prepare(l, s);
        allocation_fail(nth, sticky);
        rc = s->run(l);
        allocation_off();
        rig_close(&l->r);
        HOLD(scratch_descriptors() == before, "L: a descriptor leaked");
        judge(rc);
        *failed += rc != 0;
        runs++;
        if (!allocation_met()) {
            HOLD(rc == 0, "D: it failed with all the memory that it asked for");
            return runs;
        }
        check(l, s);
    }
    violated("D: it does not end");
    return runs;
}

static void want_of_memory_does_no_harm(void **state)
{
    struct lab l;
    unsigned all = 0;
    (void)state;
    violations = 0;
    lab_start(&l);
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
        unsigned failed, failed_for_good, runs;
        runs = sweep(&l, &scenarios[i], 0, &failed);
        if (scenarios[i].needs != MANY)
            HOLD(failed <= scenarios[i].needs, "D: it fails more often than it has to");
        runs += sweep(&l, &scenarios[i], 1, &failed_for_good);
        printf("%6u runs, %u and %u failed: %s\n", runs, failed, failed_for_good,
               scenarios[i].name);
        all += runs;
    }
    lab_end(&l);
    printf("%6u runs, %u violations\n", all, violations);
    assert_int_equal(violations, 0);
}

int main(void)
{
    int failed;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(want_of_memory_does_no_harm),
    };
    scratch_in_memory();
    wc_os_settles_forced = 1;
    failed = cmocka_run_group_tests_name("allocations", tests, NULL, NULL);
    scratch_in_memory_end();
    return failed;
}
