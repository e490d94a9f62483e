/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens between two steps of the library that hardly anything comes between, and what the
 * last fall-backs do: each with what is returned, what is left on the disk, and what the engine was
 * asked for.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "asked.h"
#include "cache.h"
#include "fixture.h"
#include "key.h"
#include "namespace.h"
#include "seam.h"
#include "stats.h"
#include "support/allocation.h"
#include "support/below.h"

static const char wasm[] = "the module in question";
static const char other[] = "another module with as much text";

static void remove_entry(void *rig)
{
    unlink(rig_entry(rig, wasm));
}

/* ---- sources that grow ---- */

static void set_size(const char *path, off_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    close(fd);
}

/* Without a clear end they would be hashed for ever. */
static void a_file_that_grows_as_it_is_hashed_has_a_limit(void **state)
{
    struct rig *r = *state;
    const uint64_t piece = 256 * 1024;
    char *path = scratch_in(&r->scratch, "large.wasm");
    wasmcache_key key = rig_key(wasm);
    const wasmcache_key before = key;
    scratch_write(path, wasm, strlen(wasm), 0600);
    below_give("pread", (long)piece, (unsigned)(WC_WASM_MAX / piece) + 1);
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_XXH64, path), WASMCACHE_EIO);
    assert_int_equal(below_off(), 0);
    assert_int_equal(wasmcache_last_error()->system_errno, EFBIG);
    assert_true(wasmcache_key_equal(&key, &before));
}

static void grow_a_little(void *path)
{
    set_size(path, (off_t)WC_WASM_MAX + 1);
}

static void a_file_that_grows_before_it_is_read_has_a_limit(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "large.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    wasmcache_module *module = NULL;
    void *room;
    unsigned looks;
    scratch_write(path, wasm, strlen(wasm), 0600);
    seam_record();
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, NULL), 0);
    seam_off();
    wasmcache_module_release(module);
    module = NULL;
    looks = seam_calls_of("fstat");
    /* Whenever it comes, it is larger than anything that is compiled, or it was read before. */
    for (unsigned nth = 1; nth <= looks; nth++) {
        int rc;
        scratch_write(path, nth % 2 ? other : wasm, nth % 2 ? strlen(other) : strlen(wasm), 0600);
        remove_entry(r);
        unlink(rig_entry(r, other));
        seam_act_call("fstat", nth, grow_a_little, path);
        rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, NULL);
        seam_off();
        if (rc) {
            assert_int_equal(rc, WASMCACHE_EIO);
            assert_int_equal(wasmcache_last_error()->system_errno, EFBIG);
            assert_null(module);
        }
        wasmcache_module_release(module);
        module = NULL;
    }
    /* Nor is it read for ever where it grows as fast as it is read. */
    room = malloc((size_t)WC_WASM_MAX + 1);
    if (!room)
        skip();
    free(room);
    scratch_write(path, "", 0, 0600);
    set_size(path, (off_t)WC_WASM_MAX);
    r->options.dir = NULL; /* nothing is hashed */
    rig_close(r);
    assert_int_equal(wasmcache_attach(&r->wc, NULL, &r->engine.table, &r->engine, &r->attach), 0);
    below_give("pread", 1L << 30, 4);
    below_give("pread", 1, 1);
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, NULL),
                     WASMCACHE_EIO);
    assert_int_equal(below_off(), 0);
    assert_int_equal(wasmcache_last_error()->system_errno, EFBIG);
    assert_null(module);
    r->options.dir = r->dir;
}

static void cut_source(void *path)
{
    assert_int_equal(truncate(path, 1), 0);
}

static void touch_source(void *path)
{
    assert_int_equal(chmod(path, 0640), 0);
}

/* A file system that gives nothing says that a source ended: it is not filed under what is there of
 * it, nor compiled. */
static void a_source_that_ends_early_is_no_source(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "short.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    wasmcache_key key;
    int fd;
    scratch_write(path, wasm, strlen(wasm), 0600);
    below_give("pread", 0, 1);
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path), WASMCACHE_EIO);
    assert_int_equal(below_off(), 0);
    assert_non_null(strstr(wasmcache_last_error()->message, path));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    below_give("pread", 0, 1);
    assert_int_equal(wasmcache_key_from_fd(&key, WASMCACHE_KEY_SHA256, fd), WASMCACHE_EIO);
    assert_int_equal(below_off(), 0);
    close(fd);
    /* Where nobody says how long it is now, what came is all. */
    below_give("pread", 0, 1);
    seam_fail_call("fstat", 2, EIO);
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(below_off(), 0);
    /* Nor where somebody changes it: it may have been as short as that for a moment. */
    below_give("pread", 0, 1);
    seam_act_call("fstat", 2, touch_source, path);
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path), 0);
    seam_off();
    assert_int_equal(below_off(), 0);
    below_give("pread", 0, 1);
    seam_act_call("fstat", 2, cut_source, path);
    assert_int_equal(wasmcache_key_from_path(&key, WASMCACHE_KEY_SHA256, path), 0);
    seam_off();
    assert_int_equal(below_off(), 0);
    scratch_write(path, wasm, strlen(wasm), 0600);
    r->options.dir = NULL; /* only read, not hashed before */
    rig_close(r);
    assert_int_equal(wasmcache_attach(&r->wc, NULL, &r->engine.table, &r->engine, &r->attach), 0);
    below_give("pread", 0, 1);
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, NULL, &report),
                     WASMCACHE_EIO);
    assert_int_equal(below_off(), 0);
    assert_null(module);
    assert_int_equal(r->engine.compiles, 0);
    r->options.dir = r->dir;
}

/* ---- entries elsewhere ---- */

static void shorten(void *rig)
{
    const char *path = rig_entry(rig, wasm);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, 100), 0);
    assert_int_equal(chmod(path, 0400), 0);
}

/* On the file system of a server entries are read. */
static void what_cannot_be_read_from_elsewhere_stays(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    unsigned failures = 0;
    ino_t inode;
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    inode = scratch_inode(rig_entry(r, wasm));
    wc_os_settles_forced = 0;
    for (unsigned nth = 1; nth < 100; nth++) { /* no memory */
        int rc;
        allocation_fail(nth, 0);
        rc = rig_load(r, wasm, NULL);
        allocation_off();
        if (!allocation_met())
            break;
        assert_true(rc == 0 || rc == WASMCACHE_ENOMEM);
        failures += rc != 0;
        assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
    }
    assert_true(failures >= 2); /* for its bytes, and for the digest of them */
    /* The file system says that it ends early, and not that it is any shorter. */
    below_give("pread", 0, 1);
    below_after(1);
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EIO);
    assert_int_equal(below_off(), 0);
    below_give("pread", 0, 1);
    below_after(1);
    seam_fail_call("fstat", 2, EIO); /* nor anything else */
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EIO);
    seam_off();
    assert_int_equal(below_off(), 0);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    /* It is shorter: that is damage. */
    seam_act_call("pread", 2, shorten, r);
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_ECORRUPT);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

/* ---- mappings ---- */

/* In a mount from which nothing may be run. 0: as it should be. */
static int load_from_noexec(void *rig)
{
    struct rig *r = rig;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mkdir(r->dir, 0700) < 0 || mount("none", r->dir, "tmpfs", MS_NOEXEC, "mode=0700") < 0)
        return 77;
    rig_open(r);
    if (rig_get(r, wasm, NULL) != 0 || rig_get(r, other, NULL) != 0)
        return 1;
    r->engine.fail_file = 1;
    fake_engine_reset(&r->engine);
    rig_forget_events(r);
    if (rig_get(r, wasm, &report) != 0 || report.outcome != WASMCACHE_HIT || r->engine.files != 1 ||
        r->engine.deserializes != 1)
        return 2;
    if (r->events.count[WASMCACHE_EVENT_FALLBACK] != 1)
        return 3;
    /* It is not tried again, and not told again. */
    for (int i = 0; i < 3; i++)
        if (rig_get(r, i % 2 ? wasm : other, &report) != 0 || report.outcome != WASMCACHE_HIT)
            return 4;
    if (r->engine.files != 1 || r->engine.deserializes != 4 ||
        r->events.count[WASMCACHE_EVENT_FALLBACK] != 1)
        return 5;
    return fake_engine_complaint(&r->engine) ? 6 : 0;
}

static void where_nothing_may_be_run_no_file_is_tried_again(void **state)
{
    struct rig *r = *state;
    int rc;
    if (!scratch_is_root("a mount that is noexec"))
        skip();
    rc = scratch_child(load_from_noexec, r, 0, 30);
    if (rc == 77)
        skip();
    assert_int_equal(rc, 0);
}

static void touch(void *rig)
{
    const struct timespec times[2] = {{1000, 0}, {1000, 0}};
    assert_int_equal(utimensat(AT_FDCWD, rig_entry(rig, wasm), times, 0), 0);
}

/* That it changed says something only of what was checked before. */
static void what_nobody_checked_may_change(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->options.verify = WASMCACHE_VERIFY_NEVER;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    seam_act_call("fd_path", 1, touch, r);
    assert_int_equal(rig_load(r, wasm, &report), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(report.outcome, WASMCACHE_HIT);
    assert_int_equal(r->engine.files, 1);
}

/* ---- probes and processors ---- */

/* The first get of a new process, and how many probes it made. */
static unsigned probes_of(struct rig *r, const char *module)
{
    rig_reopen(r);
    fake_engine_reset(&r->engine);
    assert_int_equal(rig_load(r, module, NULL), 0);
    return r->engine.probes;
}

/* An engine in a library that has a build id, with settings that vouch for it. */
static void vouch(struct rig *r)
{
    r->attach.settings = "a=1";
    r->attach.code = (const void *)(uintptr_t)sysconf;
    r->attach.code_symbol = NULL;
}

static void half_of_what_is_known_of_a_probe_is_nothing(void **state)
{
    struct rig *r = *state;
    char *hints = NULL;
    vouch(r);
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0); /* there is no directory yet to remember it in */
    assert_int_equal(probes_of(r, wasm), 1);
    if (probes_of(r, wasm) != 0)
        skip(); /* libc has no build id here */
    for (int little = 0; little < 2; little++) {
        char *path = scratch_text(&r->scratch, "%s/.hints-1-%s", r->dir, little ? "le" : "be");
        hints = scratch_exists(path) ? path : hints;
    }
    assert_non_null(hints);
    /* The header and the probe are written, the version of the artifacts is not. */
    assert_int_equal(unlink(hints), 0);
    rig_reopen(r);
    seam_fail_call("pwrite", 3, EIO);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(probes_of(r, wasm), 1);
    assert_int_equal(probes_of(r, wasm), 0);
}

static void without_a_processor_nothing_is_known_of_the_engine(void **state)
{
    struct rig *r = *state;
    wasmcache_identity identity = WASMCACHE_IDENTITY_INIT;
    vouch(r);
    wc_os_lacking = WC_OS_NO_CPU;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(probes_of(r, wasm), 1);
    assert_int_equal(probes_of(r, wasm), 1);
    assert_int_equal(wasmcache_identity_read(&identity, r->cache, rig_namespace(r)), 0);
    assert_string_equal(identity.cpu, "");
    wc_os_lacking = 0;
}

/* The namespace of the engine whose functions are in the host's own image, or its own. */
static const char *namespace_of(struct rig *r, const wasmcache_engine_table *table,
                                const void *code, char build[])
{
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    wasmcache_identity identity = WASMCACHE_IDENTITY_INIT;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_attachment *wc = NULL;
    wasmcache_module *module = NULL;
    const char *out;
    r->attach.code = code;
    r->attach.code_symbol = NULL;
    assert_int_equal(wasmcache_attach(&wc, r->cache, table, &r->engine, &r->attach), 0);
    assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL), 0);
    wasmcache_module_release(module);
    assert_int_equal(wasmcache_attachment_status(wc, &info), 0);
    assert_int_equal(wasmcache_identity_read(&identity, r->cache, info.engine_namespace), 0);
    snprintf(build, sizeof(identity.build), "%s", identity.build);
    out = scratch_text(&r->scratch, "%s", info.engine_namespace);
    wasmcache_detach(wc);
    return out;
}

/* Then the version that the host was compiled with is the engine's: hosts with the same one share.
 * A library's is told by its build id. */
static void an_engine_that_is_linked_to_the_host_is_told_by_its_version(void **state)
{
    static wasmcache_engine_table table; /* in the host, as that of the glue is */
    struct rig *r = *state;
    char none[65], own[65], library[65];
    const char *unknown, *linked, *loaded;
    table = r->engine.table;
    unknown = namespace_of(r, &table, NULL, none);
    linked = namespace_of(r, &table, (const void *)(uintptr_t)namespace_of, own);
    loaded = namespace_of(r, &table, (const void *)(uintptr_t)sysconf, library);
    assert_string_equal(linked, unknown);
    assert_string_equal(none, "");
    assert_string_equal(own, "");
    if (!library[0])
        skip(); /* libc has no build id here */
    assert_string_not_equal(loaded, unknown);
}

/* ---- evictions, folders ---- */

static void what_is_gone_need_not_be_evicted(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    unsigned opens;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    wc_os_wall_forced = ((int64_t)time(NULL) + 7200) * 1000000000;
    options.max_age_seconds = 3600;
    options.flags = WASMCACHE_PRUNE_DRY_RUN;
    seam_record();
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), 0);
    seam_off();
    assert_int_equal(result.removed_entries, 1);
    opens = seam_calls_of("open_read");
    options.flags = 0;
    seam_act_call("open_read", opens + 1, remove_entry, r); /* the one to remove it by */
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), 0);
    seam_off();
    wc_os_wall_forced = -1;
    assert_true(seam_met());
    assert_int_equal(result.removed_entries, 0);
    assert_false(scratch_exists(rig_entry(r, wasm)));
}

/* From some call on everything is said not to be there. */
static void where_all_is_gone_a_get_compiles(void **state)
{
    struct rig *r = *state;
    for (unsigned nth = 1; nth < 200; nth++) {
        assert_int_equal(rig_get(r, wasm, NULL), 0); /* with all that is beside it */
        remove_entry(r);
        seam_fail(nth, ENOENT, 1);
        assert_int_equal(rig_get(r, wasm, NULL), 0);
        seam_off();
        if (!seam_met())
            break;
        assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".old-"));
    }
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

/* The way to a cache that is not there yet is walked by hand. */
static void a_link_that_cannot_be_read_is_no_way(void **state)
{
    struct rig *r = *state;
    char *target = scratch_in(&r->scratch, "target"), *guest = scratch_in(&r->scratch, "guest");
    int fd;
    assert_int_equal(mkdir(target, 0700), 0);
    assert_int_equal(mkdir(guest, 0700), 0);
    assert_int_equal(symlink(target, scratch_in(&r->scratch, "link")), 0);
    r->options.dir = scratch_in(&r->scratch, "link/cache");
    rig_open(r);
    fd = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(wasmcache_overlaps(r->cache, fd), 1);
    close(fd);
    fd = open(guest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(wasmcache_overlaps(r->cache, fd), 0);
    seam_fail_call("read_link", 1, EIO);
    assert_int_equal(wasmcache_overlaps(r->cache, fd), WASMCACHE_EIO);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(wasmcache_last_error()->system_errno, EIO);
    close(fd);
}

/* In a mount of a kind where room is not reserved. 0: as it should be. */
static int reserve_on_ramfs(void *dir)
{
    static const struct {
        const char *type;
        int reserves;
    } kinds[] = {{"tmpfs", 1}, {"ramfs", 0}};
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return 77;
    for (int i = 0; i < 2; i++) {
        struct stat st;
        int at, fd;
        if (mount("none", dir, kinds[i].type, 0, NULL) < 0)
            return 77;
        at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        fd = wc_os_create(at, "file");
        if (fd < 0 || wc_os_reserve(fd, 1 << 20) != 0 || fstat(fd, &st) < 0 ||
            (st.st_blocks > 0) != kinds[i].reserves)
            return 1 + i;
        close(fd);
        close(at);
    }
    return 0;
}

static void room_is_reserved_where_that_costs_nothing(void **state)
{
    struct rig *r = *state;
    int rc;
    if (!scratch_is_root("mounts of two kinds"))
        skip();
    rc = scratch_child(reserve_on_ramfs, r->scratch.dir, 0, 30);
    if (rc == 77)
        skip();
    assert_int_equal(rc, 0);
}

/* ---- what is saved ---- */

static int taken = -1;

/* A clean-up looks at the new file before its writer has locked it. */
static void take_for_a_dead_ones(void *rig)
{
    const char *dir = rig_namespace_dir(rig);
    DIR *walk = opendir(dir);
    const struct dirent *entry;
    assert_non_null(walk);
    while ((entry = readdir(walk)) != NULL)
        if (strncmp(entry->d_name, ".tmp-", 5) == 0) {
            taken = openat(dirfd(walk), entry->d_name, O_RDONLY | O_CLOEXEC);
            assert_int_equal(flock(taken, LOCK_EX | LOCK_NB), 0);
        }
    closedir(walk);
}

static void what_a_clean_up_takes_is_written_again(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    assert_int_equal(rig_get(r, other, NULL), 0);
    wc_os_lacking = WC_OS_NO_TMPFILE;
    taken = -1;
    seam_act_call("try_lock", 1, take_for_a_dead_ones, r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    seam_off();
    wc_os_lacking = 0;
    assert_true(taken >= 0);
    close(taken);
    assert_int_equal(report.save_error, 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_null(strstr(scratch_tree(&r->scratch, r->dir), ".tmp-"));
}

static const char *artifact_file; /* what serialize gives: all of this file. NULL: as ever */
static wasmcache_engine_table usual;

static int serialize_file(void *engine, wasmcache_kind kind, void *module, wasmcache_artifact *out,
                          void **error)
{
    if (!artifact_file)
        return usual.serialize(engine, kind, module, out, error);
    *error = NULL;
    out->data = scratch_read(artifact_file, &out->size);
    return 0;
}

static void free_either(wasmcache_artifact *artifact)
{
    if (!artifact_file)
        usual.artifact_free(artifact);
    else
        free((void *)(uintptr_t)artifact->data);
}

/* A module that was loaded from an entry may be serialized to all of that file. */
static void a_trailer_is_no_part_of_an_artifact(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm);
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_save_options options = WASMCACHE_SAVE_OPTIONS_INIT;
    void *native = fake_module_new(&r->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    uint64_t artifact_bytes;
    struct stat before, after;
    usual = r->engine.table;
    r->engine.table.probe = NULL; /* it would have to be told which of the two it is */
    r->engine.table.serialize = serialize_file;
    r->engine.table.artifact_free = free_either;
    r->attach.settings = "";
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    artifact_bytes = report.artifact_bytes;
    assert_int_equal(stat(rig_entry(r, wasm), &before), 0);
    artifact_file = rig_entry(r, wasm);
    options.flags = WASMCACHE_SAVE_REPLACE;
    assert_int_equal(wasmcache_save(r->wc, WASMCACHE_MODULE, &key, native, &options, &report), 0);
    artifact_file = NULL;
    assert_int_equal(report.artifact_bytes, artifact_bytes);
    r->engine.table.module_free(WASMCACHE_MODULE, native);
    /* What was saved is another entry, and as the first. */
    assert_int_equal(stat(rig_entry(r, wasm), &after), 0);
    assert_true(after.st_ino != before.st_ino);
    assert_int_equal(after.st_size, before.st_size);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NONE);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

/* ---- counters ---- */

static void what_takes_for_ever_is_counted_with_all_that_is_long(void **state)
{
    struct rig *r = *state;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wc_stats_hit(r->cache->stats, UINT64_MAX);
    wc_stats_compile(r->cache->stats, UINT64_MAX);
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_PROCESS, &stats), 0);
    assert_int_equal(stats.hit_times[23], 1);
    assert_int_equal(stats.compile_times[23], 1);
}

static atomic_llong *owner; /* the first that is in struct wc_stats */
static unsigned waits;

static int begin_meanwhile(uint64_t ns)
{
    assert_true(ns > 0);
    if (++waits == 3)
        atomic_store(owner, (long long)getpid());
    return 1;
}

/* In the child of a fork two threads count for the first time. */
static void while_another_thread_begins_counters_wait(void **state)
{
    struct rig *r = *state;
    uint64_t sum[WC_STAT_COUNT];
    wc_stats_add(r->cache->stats, WC_STAT_HITS, 1);
    owner = (atomic_llong *)(void *)r->cache->stats;
    assert_int_equal(atomic_load(owner), getpid());
    waits = 0;
    atomic_store(owner, -(long long)getpid());
    wc_os_wait_hook = begin_meanwhile;
    wc_stats_add(r->cache->stats, WC_STAT_HITS, 1);
    wc_os_wait_hook = NULL;
    assert_int_equal(waits, 3);
    wc_stats_sum(r->cache->stats, sum);
    assert_int_equal(sum[WC_STAT_HITS], 2); /* nobody began once more */
}

/* And where one cannot be had no number is lost: it is told later. */
static void a_lock_that_cannot_be_marked_is_one_all_the_same(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    wasmcache_stats stats = WASMCACHE_STATS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    unsigned calls, gets = 1, saved = 0, before;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    before = scratch_descriptors();
    for (calls = 0; calls < 100; calls++, gets++) {
        remove_entry(r);
        below_fail("fcntl", EINVAL, 1);
        below_after(calls);
        assert_int_equal(rig_get(r, wasm, &report), 0);
        if (below_off())
            break;
        saved += report.save_error == 0;
        assert_int_equal(scratch_exists(rig_entry(r, wasm)), report.save_error == 0);
        assert_int_equal(scratch_descriptors(), before);
    }
    assert_true(calls >= 4 && calls < 100); /* each lock is marked by two calls, and taken */
    assert_true(saved >= calls - 1);        /* one is of the file that is written */
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), 0);
    assert_int_equal(result.left_entries, 1);
    assert_int_equal(wasmcache_stats_read(r->cache, WASMCACHE_STATS_DIRECTORY, &stats), 0);
    assert_int_equal(stats.compiles, gets + 1);
    assert_int_equal(stats.entries, 1);
}

/* ---- waits ---- */

static struct gate gate;

static void *get_it(void *rig)
{
    return rig_get(rig, wasm, NULL) == 0 ? rig : NULL;
}

struct leader {
    pthread_t thread;
    int landed;
};

/* Just before the wait begins who is waited for has landed. */
static int let_it_land(const wasmcache_progress *progress, void *payload)
{
    struct leader *leader = payload;
    void *got;
    if (progress->phase != WASMCACHE_PHASE_WAIT || leader->landed)
        return 0;
    gate_open(&gate);
    leader->landed = pthread_join(leader->thread, &got) == 0 && got;
    return 0;
}

static void who_has_landed_is_not_waited_for(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module = NULL;
    struct leader leader = {.landed = 0};
    gate_set(&gate, r);
    rig_open(r);
    assert_int_equal(pthread_create(&leader.thread, NULL, get_it, r), 0);
    wait_for(&gate.inside, 1);
    options.tick = let_it_land;
    options.tick_payload = &leader;
    assert_int_equal(wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, &report),
                     0);
    assert_int_equal(leader.landed, 1);
    assert_true(report.outcome == WASMCACHE_JOINED || report.outcome == WASMCACHE_HIT);
    assert_int_equal(r->engine.compiles, 1);
    wasmcache_module_release(module);
}

/* ---- folders that go as soon as they are made ---- */

static void remove_folder(void *folder)
{
    scratch_remove(folder);
}

static void move_directory(void *rig)
{
    struct rig *r = rig;
    char *attic = scratch_in(&r->scratch, "attic");
    scratch_remove(attic);
    (void)rename(r->dir, attic);
}

/* Removed by others between the call that makes it and the one that opens it. */
static void a_folder_that_goes_when_it_is_made_is_made_again(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm);
    char *folder = rig_namespace_dir(r);
    unsigned looks;
    /* How many there are to make one: the last one finds it. */
    seam_record();
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    seam_off();
    looks = seam_calls_of("open_dir_at");
    assert_true(looks >= 2);
    for (unsigned nth = 1; nth <= looks; nth++)
        for (int all = 0; all < 2; all++) { /* the folder, the directory */
            scratch_remove(folder);
            seam_act_call("open_dir_at", nth, all ? move_directory : remove_folder,
                          all ? (void *)r : (void *)folder);
            assert_int_equal(rig_save(r, wasm, NULL), 0);
            seam_off();
            assert_true(seam_met());
            assert_true(scratch_exists(rig_entry(r, wasm)));
            assert_int_equal(rig_load(r, wasm, NULL), 0);
        }
    /* Whenever it is made: not for ever, and not as if nothing were in the cache. */
    scratch_remove(folder);
    seam_act_each("open_dir_at", remove_folder, folder);
    assert_int_equal(rig_save(r, wasm, NULL), WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->system_errno, ENOENT);
    assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, 1), WASMCACHE_EIO);
    seam_off();
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    /* Nor is something pinned whose pin is nowhere. */
    seam_act_each("open_dir_at", remove_folder,
                  scratch_in(&r->scratch, "cache/%s/%s", rig_namespace(r), WC_PINS));
    assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, 1), WASMCACHE_EIO);
    seam_off();
    assert_int_equal(wasmcache_pin(r->cache, rig_namespace(r), &key, 1), 0);
}

static void touch_entry(void *rig)
{
    static struct timespec times[2];
    times[1].tv_sec++;
    assert_int_equal(utimensat(AT_FDCWD, rig_entry(rig, wasm), times, 0), 0);
}

/* One that changes each time that it is read is neither damaged nor sound, and stays. */
static void what_keeps_changing_cannot_be_judged(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm);
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    ino_t inode;
    assert_int_equal(rig_save(r, wasm, NULL), 0);
    inode = scratch_inode(rig_entry(r, wasm));
    seam_act_each("fstat", touch_entry, r);
    assert_int_equal(wasmcache_remove_damaged(r->cache, rig_namespace(r), &key), WASMCACHE_EBUSY);
    assert_int_equal(
        wasmcache_entry_check(&entry, r->cache, rig_namespace(r), &key, WASMCACHE_CHECK_DIGEST), 0);
    seam_off();
    assert_int_equal(entry.state, WASMCACHE_REASON_UNREADABLE);
    assert_int_equal(entry.system_errno, 0);
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), inode);
    assert_int_equal(wasmcache_remove_damaged(r->cache, rig_namespace(r), &key), WASMCACHE_EMISS);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_rig, fixture_end)
#define OPEN(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)

int main(void)
{
    int failed;
    const struct CMUnitTest tests[] = {
        OPEN(a_file_that_grows_as_it_is_hashed_has_a_limit),
        OPEN(a_file_that_grows_before_it_is_read_has_a_limit),
        OPEN(a_source_that_ends_early_is_no_source),
        TEST(what_cannot_be_read_from_elsewhere_stays),
        TEST(where_nothing_may_be_run_no_file_is_tried_again),
        TEST(what_nobody_checked_may_change),
        TEST(half_of_what_is_known_of_a_probe_is_nothing),
        TEST(without_a_processor_nothing_is_known_of_the_engine),
        OPEN(an_engine_that_is_linked_to_the_host_is_told_by_its_version),
        OPEN(what_is_gone_need_not_be_evicted),
        OPEN(where_all_is_gone_a_get_compiles),
        TEST(a_link_that_cannot_be_read_is_no_way),
        TEST(room_is_reserved_where_that_costs_nothing),
        OPEN(what_a_clean_up_takes_is_written_again),
        TEST(a_trailer_is_no_part_of_an_artifact),
        OPEN(what_takes_for_ever_is_counted_with_all_that_is_long),
        OPEN(while_another_thread_begins_counters_wait),
        OPEN(a_lock_that_cannot_be_marked_is_one_all_the_same),
        TEST(who_has_landed_is_not_waited_for),
        OPEN(a_folder_that_goes_when_it_is_made_is_made_again),
        OPEN(what_keeps_changing_cannot_be_judged),
    };
    scratch_in_memory();
    failed = cmocka_run_group_tests_name("edges", tests, NULL, NULL);
    scratch_in_memory_end();
    return failed;
}
