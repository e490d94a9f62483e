/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways through the library that few calls take: what is exchanged between two looks at it, what an
 * engine can do without, who asks where nobody usually does. One test for each, with its effect.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#include <cmocka.h>

#include "asked.h"
#include "call.h"
#include "fixture.h"
#include "gate.h"
#include "lock.h"
#include "seam.h"
#include "spoil.h"
#include "stats.h"
#include "support/allocation.h"
#include "support/below.h"
#include "support/lzw.h"
#include "tally.h"

static const char wasm[] = "the module in question";
static const char other[] = "another module with as much text";

/* The same with what rig_get() does not ask for. */
static int get_source(struct rig *r, const wasmcache_source *source, const char *expected,
                      unsigned flags, wasmcache_report *report)
{
    const wasmcache_report none = WASMCACHE_REPORT_INIT;
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_module *module = NULL;
    int rc;
    *report = none;
    options.flags = flags;
    rc = wasmcache_get(&module, r->wc, WASMCACHE_MODULE, source, &options, report);
    if (rc == 0)
        assert_true(fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE,
                                   r->engine.configuration, expected, strlen(expected)));
    wasmcache_module_release(module);
    return rc;
}

/* A file with other content, in the place of what it was or over it. */
struct change {
    const char *path, *content;
};

static void change_file(void *argument)
{
    const struct change *change = argument;
    scratch_write(change->path, change->content, strlen(change->content), 0600);
}

static void write_over(void *argument)
{
    const struct change *change = argument;
    const size_t length = strlen(change->content);
    int fd = open(change->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    assert_int_equal(write(fd, change->content, length), length);
    close(fd);
}

/* ---- errors ---- */

static void what_has_no_words_is_described_all_the_same(void **state)
{
    char long_name[WC_PATH_SIZE + 10], out[WC_PATH_SIZE];
    struct wc_error err;
    (void)state;
    wc_error_init(&err);
    wc_error_describe(&err, WASMCACHE_EIO, 99999, "call", NULL, "It failed");
    assert_non_null(strstr(err.message, "It failed: "));
    /* A message that the C library cannot make leaves the system's own. */
    wc_error_describe(&err, WASMCACHE_EIO, EPERM, "call", NULL, "%lc", (wint_t)0x10FFFFF);
    assert_string_equal(err.message, ": Operation not permitted");
    memset(long_name, 'x', sizeof(long_name) - 1);
    long_name[sizeof(long_name) - 1] = '\0';
    assert_int_equal(wc_path_join(out, "dir", long_name), 0);
    assert_int_equal(strlen(out), WC_PATH_SIZE - 1);
    assert_int_equal(wc_path_join(out, long_name, "name"), 0);
    assert_int_equal(strlen(out), WC_PATH_SIZE - 1);
    assert_int_equal(wc_path_join(out, "dir", "name"), 1);
}

/* ---- the directory ---- */

static void slashes_at_the_end_of_the_directory_do_not_count(void **state)
{
    struct rig *r = *state;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    r->options.flags = WASMCACHE_READ_ONLY;
    r->options.dir = "///";
    rig_open(r);
    assert_int_equal(wasmcache_status(r->cache, &info), 0);
    assert_string_equal(info.dir, "/");
    rig_close(r);
    r->options.dir = scratch_text(&r->scratch, "%s//", r->dir);
    rig_open(r);
    assert_int_equal(wasmcache_status(r->cache, &info), 0);
    assert_string_equal(info.dir, r->dir);
}

static void a_path_says_where_the_folder_of_our_own_would_be(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm);
    char path[1024], own[64];
    rig_open(r);
    assert_int_equal(mkdir(r->dir, 0700), 0);
    assert_int_equal(chmod(r->dir, 01777), 0);
    snprintf(own, sizeof(own), "%s/u%" PRIu32 "/", r->dir, wc_os_euid());
    assert_int_equal(wasmcache_entry_path(path, sizeof(path), r->cache, rig_namespace(r), &key), 0);
    assert_memory_equal(path, own, strlen(own));
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_true(scratch_exists(path));
}

static void what_could_be_made_is_asked_of_the_nearest_directory(void **state)
{
    const struct wc_gate_found nothing = {0}, found = {.uid = 1, .mode = 0700};
    struct rig *r = *state;
    assert_int_equal(wc_gate_could_make(scratch_in(&r->scratch, "a/b/c"), &nothing), 1);
    assert_int_equal(wc_gate_could_make("/wasmcache-nowhere", &nothing), geteuid() == 0);
    assert_int_equal(wc_gate_could_make("relative", &nothing), 0);
    /* It is there, and not to be used: nothing would be made. */
    assert_int_equal(wc_gate_could_make(r->scratch.dir, &found), 0);
}

static void a_folder_of_our_own_is_no_other_users(void **state)
{
    struct rig *r = *state;
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    if (!scratch_is_root("a folder of root's by the name of another user"))
        skip();
    assert_int_equal(mkdir(r->dir, 0700), 0);
    assert_int_equal(chmod(r->dir, 01777), 0);
    assert_int_equal(mkdir(scratch_text(&r->scratch, "%s/u4242", r->dir), 0700), 0);
    wc_os_euid_forced = 4242;
    rig_open(r);
    assert_int_equal(wasmcache_status(r->cache, &info), 0);
    wc_os_euid_forced = -1;
    assert_int_equal(info.state, WASMCACHE_STATE_OFF);
    assert_int_equal(info.error, WASMCACHE_EUNTRUSTED);
    assert_non_null(strstr(info.message, "u4242"));
}

/* ---- gets ---- */

static void a_counted_get_without_a_cache_compiles(void **state)
{
    struct rig *r = *state;
    const wasmcache_source source = wasmcache_source_bytes(wasm, strlen(wasm));
    wasmcache_attachment *wc = NULL;
    wasmcache_module *module = NULL;
    assert_int_equal(wasmcache_attach(&wc, NULL, &r->engine.table, &r->engine, &r->attach), 0);
    assert_int_equal(wasmcache_get(&module, wc, WASMCACHE_MODULE, &source, NULL, NULL), 0);
    assert_true(
        fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, wasm, strlen(wasm)));
    wasmcache_module_release(module);
    wasmcache_detach(wc);
    assert_int_equal(r->engine.compiles, 1);
}

static void an_engine_without_a_compiler_or_a_serializer_goes_without(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->engine.table.serialize = NULL;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, WASMCACHE_EENGINE);
    assert_string_equal(scratch_tree(&r->scratch, rig_namespace_dir(r)), "");
    rig_close(r);
    r->engine.table.compile = NULL;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), WASMCACHE_EMISS);
    assert_int_equal(report.outcome, WASMCACHE_FAILED);
}

static int tells_none;

static int version_or_none(const void *artifact, size_t length, uint32_t *version)
{
    return tells_none ? -1 : fake_artifact_version(artifact, length, version);
}

static void an_artifact_that_the_engine_cannot_tell_is_not_saved(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->engine.probe_artifact = 1;
    r->engine.table.artifact_version = version_or_none;
    rig_open(r);
    assert_int_equal(rig_get(r, other, &report), 0);
    assert_int_equal(report.save_error, 0);
    tells_none = 1;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    tells_none = 0;
    assert_int_equal(report.save_error, WASMCACHE_EENGINE);
    assert_false(scratch_exists(rig_entry(r, wasm)));
}

static void a_recompiled_file_that_changed_is_filed_under_what_it_is(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "a.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    struct change change = {path, other};
    wasmcache_get_options options = WASMCACHE_GET_OPTIONS_INIT;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_module *module;
    wasmcache_key key;
    unsigned nth;
    options.flags = WASMCACHE_GET_RECOMPILE;
    rig_open(r);
    for (unsigned i = 2; i < 200; i++) {
        nth = i / 2;
        scratch_write(path, wasm, strlen(wasm), 0600);
        unlink(rig_entry(r, wasm));
        unlink(rig_entry(r, other));
        seam_act(nth, i % 2 ? write_over : change_file, &change);
        module = NULL;
        assert_int_equal(
            wasmcache_get(&module, r->wc, WASMCACHE_MODULE, &source, &options, &report), 0);
        seam_off();
        /* Whichever of the two was read, it is what the module and the key are of. */
        key = rig_key(
            fake_module_is(wasmcache_module_native(module), WASMCACHE_MODULE, 1, wasm, strlen(wasm))
                ? wasm
                : other);
        assert_true(wasmcache_key_equal(&report.key, &key));
        wasmcache_module_release(module);
        assert_int_equal(report.outcome, WASMCACHE_COMPILED);
        if (!seam_met())
            break;
    }
    assert_true(nth > 5 && nth < 100);
}

static void spoil_bytes(void *argument)
{
    ((char *)argument)[0] ^= 1;
}

static void bytes_that_change_are_not_kept_in_memory_either(void **state)
{
    struct rig *r = *state;
    char bytes[sizeof(wasm)];
    const wasmcache_source source = wasmcache_source_bytes(bytes, strlen(wasm));
    wasmcache_report report;
    memcpy(bytes, wasm, sizeof(wasm));
    r->options.memory_modules = 4;
    r->engine.on_compile = spoil_bytes;
    r->engine.on_compile_argument = bytes;
    rig_open(r);
    bytes[0] ^= 1;
    assert_int_equal(get_source(r, &source, wasm, WASMCACHE_GET_NO_SAVE, &report), 0);
    r->engine.on_compile = NULL;
    /* Neither by what they were nor by what they are. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(get_source(r, &source, bytes, WASMCACHE_GET_NO_SAVE, &report), 0);
        assert_int_equal(report.in_memory, 0);
        bytes[0] ^= 1;
    }
}

/* ---- identity ---- */

static void who_could_not_be_told_stays_so_without_memory(void **state)
{
    struct rig *r = *state;
    wasmcache_attachment_info info = WASMCACHE_ATTACHMENT_INFO_INIT;
    rig_open(r);
    r->engine.fail_probe = 1;
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    assert_int_equal(info.error, WASMCACHE_EENGINE);
    allocation_fail(1, 1);
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    allocation_off();
    assert_int_equal(info.error, WASMCACHE_EENGINE);
    r->engine.fail_probe = 0;
    assert_int_equal(wasmcache_attachment_status(r->wc, &info), 0);
    assert_int_equal(info.error, 0);
}

static void a_probe_that_fails_before_a_save_saves_nothing(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    rig_open(r);
    assert_int_equal(rig_get(r, other, NULL), 0);
    r->engine.fail_probe = 1;
    assert_int_equal(rig_get(r, wasm, &report), 0);
    r->engine.fail_probe = 0;
    assert_int_equal(report.save_error, WASMCACHE_EENGINE);
    assert_false(scratch_exists(rig_entry(r, wasm)));
}

static void texts_that_nobody_wrote_are_damaged(void **state)
{
#define HEAD "wasmcache identity 1\n"
    static const char *const texts[] = {
        "nothing of the kind\n",
        HEAD "artifact: 00000000001\n",
        HEAD "fingerprint: 0011223344556677889900AABBCCDDEEFF00112233445566778899AABBCCDDXX\n",
        HEAD "fingerprint: 00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFG\n",
    };
#undef HEAD
    struct rig *r = *state;
    wasmcache_identity found = WASMCACHE_IDENTITY_INIT;
    char *path;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    path = scratch_text(&r->scratch, "%s/.identity", rig_namespace_dir(r));
    assert_int_equal(wasmcache_identity_read(&found, r->cache, rig_namespace(r)), 0);
    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        scratch_write(path, texts[i], strlen(texts[i]), 0400);
        assert_int_equal(wasmcache_identity_read(&found, r->cache, rig_namespace(r)),
                         WASMCACHE_ECORRUPT);
    }
    seam_fail_call("fstat", 2, EIO); /* the first is of the folder */
    assert_int_equal(wasmcache_identity_read(&found, r->cache, rig_namespace(r)), WASMCACHE_EIO);
    seam_fail_call("pread", 1, EIO);
    assert_int_equal(wasmcache_identity_read(&found, r->cache, rig_namespace(r)), WASMCACHE_EIO);
    seam_fail_call("open_read", 1, EACCES);
    assert_int_equal(wasmcache_identity_read(&found, r->cache, rig_namespace(r)), WASMCACHE_EIO);
    seam_fail_call("open_read", 1, ENXIO);
    assert_int_equal(wasmcache_identity_read(&found, r->cache, rig_namespace(r)),
                     WASMCACHE_EUNTRUSTED);
    seam_off();
}

/* ---- limits ---- */

static void age(struct rig *r, const char *of)
{
    const struct timespec times[2] = {{time(NULL) - 3600, 0}, {time(NULL) - 3600, 0}};
    assert_int_equal(utimensat(AT_FDCWD, rig_entry(r, of), times, AT_SYMLINK_NOFOLLOW), 0);
}

struct exchange {
    struct rig *r;
    ino_t inode; /* of what came in its place */
};

static void exchange_entry(void *argument)
{
    struct exchange *e = argument;
    size_t size;
    uint8_t *bytes = scratch_read(rig_entry(e->r, wasm), &size);
    scratch_write(rig_entry(e->r, wasm), bytes, size, 0400);
    e->inode = scratch_inode(rig_entry(e->r, wasm));
    free(bytes);
}

static void an_eviction_takes_no_entry_that_it_did_not_look_at(void **state)
{
    struct rig *r = *state;
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    struct exchange e = {r, 0};
    unsigned opens;
    rig_open(r);
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
    seam_act_call("open_read", opens + 1, exchange_entry, &e); /* the one to remove it by */
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(result.removed_entries, 0);
    wc_os_wall_forced = -1;
    assert_int_equal(scratch_inode(rig_entry(r, wasm)), e.inode);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

static void a_number_of_entries_alone_is_a_limit(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    r->options.max_bytes = WASMCACHE_UNLIMITED;
    r->options.max_entries = 1;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, other, &report), 0); /* the first one is too young to go */
    assert_int_equal(report.save_error, WASMCACHE_EFULL);
    age(r, wasm);
    assert_int_equal(rig_get(r, other, &report), 0);
    assert_int_equal(report.save_error, 0);
    assert_false(scratch_exists(rig_entry(r, wasm)));
}

static void a_disk_of_which_little_may_be_taken_is_full(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    struct statvfs vfs;
    assert_int_equal(statvfs(r->scratch.dir, &vfs), 0);
    if ((uint64_t)vfs.f_bavail * vfs.f_frsize > 100 * 1024 * 1024)
        skip(); /* not on a small disk in memory */
    r->options.max_bytes = WASMCACHE_UNLIMITED;
    r->options.max_disk_percent = 1;
    r->engine.artifact_size = 2 * 1024 * 1024;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.save_error, WASMCACHE_EFULL);
    assert_false(scratch_exists(rig_entry(r, wasm)));
    r->engine.artifact_size = 1000;
    assert_int_equal(rig_get(r, other, &report), 0);
    assert_int_equal(report.save_error, 0);
    /* Where it cannot be told how much is free there is no such limit. */
    r->engine.artifact_size = 2 * 1024 * 1024;
    seam_fail_call("free_bytes", 1, EIO);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    seam_off();
    assert_int_equal(report.save_error, 0);
}

/* ---- numbers ---- */

static void a_flush_can_say_what_the_directory_has_then(void **state)
{
    struct rig *r = *state;
    struct wc_tally tally = {0};
    struct wc_error err;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    wc_error_init(&err);
    assert_int_equal(wc_stats_flush(r->cache, 0, 0, &tally, &err), 0);
    assert_int_equal(tally.entries, 1);
    assert_int_equal(tally.counts[WC_STAT_COMPILES], 1);
    assert_int_equal(tally.counts[WC_STAT_HITS], 1);
}

/* ---- old entries ---- */

static struct {
    const char *path;
    size_t size;
    uint8_t *instead;
    unsigned asked;
} moving;

/* The engine is asked for the version first of the file, then of what it begins with when it is
 * decompressed, which is between two readings of it. */
static int move_then_tell(const void *artifact, size_t length, uint32_t *version)
{
    if (moving.instead && moving.asked++) {
        int fd = open(moving.path, O_WRONLY | O_CLOEXEC);
        assert_int_equal(pwrite(fd, moving.instead, moving.size, 0), (ssize_t)moving.size);
        close(fd);
    }
    return fake_artifact_version(artifact, length, version);
}

static void an_old_entry_that_changes_while_it_is_read_is_left(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    size_t size, packed;
    uint8_t *artifact = fake_artifact(&size, &r->engine, WASMCACHE_MODULE, wasm, strlen(wasm));
    uint8_t *lzw = lzw_encode(&packed, artifact, size);
    char *path;
    r->options.flags = WASMCACHE_LEGACY;
    r->attach.engine_id = "old";
    r->engine.table.artifact_version = move_then_tell;
    rig_open(r);
    path = rig_entry(r, wasm);
    assert_int_equal(mkdir(r->dir, 0755), 0);
    assert_int_equal(mkdir(rig_namespace_dir(r), 0755), 0);
    scratch_write(path, lzw, packed, 0644);
    moving.path = path;
    moving.size = packed;
    moving.instead = malloc(packed);
    assert_non_null(moving.instead);
    /* Its head stays, so that it still looks like one. */
    memcpy(moving.instead, lzw, packed);
    memset(moving.instead + packed * 3 / 4, 0xFF, packed - packed * 3 / 4);
    assert_int_equal(rig_load(r, wasm, &report), WASMCACHE_EBUSY);
    free(moving.instead);
    moving.instead = NULL;
    assert_true(scratch_exists(path));
    free(artifact);
    free(lzw);
}

/* ---- locks ---- */

static void a_lock_whose_number_is_another_files_is_not_touched(void **state)
{
    struct rig *r = *state;
    struct wc_folder folder = WC_FOLDER_INIT;
    struct wc_key_lock lock = WC_KEY_LOCK_INIT;
    const wasmcache_key key = rig_key(wasm);
    struct wc_error err;
    int fd, number;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    wc_error_init(&err);
    assert_int_equal(wc_store_open_folder(&folder, &r->cache->store, rig_namespace(r), &err), 0);
    assert_int_equal(wc_key_lock_open(&lock, &r->cache->store, &folder, WASMCACHE_MODULE, &key), 1);
    assert_int_equal(wc_key_lock_try(&lock, WC_LOCK_FIRST), WC_LOCK_HELD);
    number = lock.fd;
    /* On the same file system, as it happens. */
    fd = open(rig_entry(r, wasm), O_RDONLY | O_CLOEXEC);
    assert_int_equal(dup2(fd, number), number);
    wc_key_lock_close(&lock, 1);
    assert_int_not_equal(fcntl(number, F_GETFD), -1);
    close(number);
    close(fd);
    wc_folder_close(&folder);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
}

/* ---- what is exchanged while it is read ---- */

static void touch_entry(void *argument)
{
    const struct timespec times[2] = {{1000, 0}, {1000, 0}};
    assert_int_equal(utimensat(AT_FDCWD, argument, times, 0), 0);
}

static void lengthen_entry(void *argument)
{
    size_t size;
    uint8_t *bytes = scratch_read(argument, &size);
    int fd;
    assert_int_equal(chmod(argument, 0600), 0);
    fd = open(argument, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(write(fd, bytes, 8), 8);
    close(fd);
    assert_int_equal(chmod(argument, 0400), 0);
    free(bytes);
}

static void shorten_entry(void *argument)
{
    struct stat st;
    assert_int_equal(stat(argument, &st), 0);
    assert_int_equal(truncate(argument, st.st_size - 8), 0);
}

static void what_was_checked_before_is_checked_again_if_it_changes(void **state)
{
    struct rig *r = *state;
    char *entry;
    r->engine.table.deserialize_file = NULL; /* it gets the bytes */
    wc_os_settles_forced = 1;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0); /* from now on it is known */
    entry = rig_entry(r, wasm);
    seam_act_call("map", 1, touch_entry, entry);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    assert_true(seam_met());
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    seam_act_call("map", 1, shorten_entry, entry);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_ECORRUPT);
    assert_true(seam_met());
    seam_off();
    wc_os_settles_forced = -1;
}

static void plant_newer(void *argument)
{
    struct rig *r = argument;
    size_t size;
    uint8_t *bytes = scratch_read(rig_entry(r, other), &size);
    scratch_write(rig_entry(r, wasm), bytes, size, 0400);
    spoil(rig_entry(r, wasm), SPOIL_NEWER);
    free(bytes);
}

static void what_must_stay_stays_if_it_comes_while_another_is_written(void **state)
{
    struct rig *r = *state;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    rig_open(r);
    assert_int_equal(rig_get(r, other, NULL), 0);
    seam_act_call("link_unnamed", 1, plant_newer, r);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    seam_off();
    assert_true(seam_met());
    assert_int_equal(report.save_error, WASMCACHE_ENEWER);
    assert_int_equal(rig_state(r, wasm), WASMCACHE_REASON_NEWER_FORMAT);
}

static void a_source_that_cannot_be_looked_at_again_is_not_remembered(void **state)
{
    struct rig *r = *state;
    char *path = scratch_in(&r->scratch, "a.wasm");
    const wasmcache_source source = wasmcache_source_path(path);
    wasmcache_report report;
    wc_os_settles_forced = 1;
    for (unsigned nth = 1; nth < 200; nth++) {
        int rc;
        scratch_write(path, wasm, strlen(wasm), 0600);
        rig_open(r);
        seam_fail(nth, EIO, 0);
        rc = get_source(r, &source, wasm, 0, &report);
        seam_off();
        assert_true(rc == 0 || (rc == WASMCACHE_EIO && report.reason == WASMCACHE_REASON_SOURCE));
        assert_int_equal(get_source(r, &source, wasm, 0, &report), 0);
        rig_close(r);
        if (!seam_met())
            break;
        unlink(scratch_text(&r->scratch, "%s/.hints-1-le", r->dir));
        unlink(scratch_text(&r->scratch, "%s/.hints-1-be", r->dir));
    }
    wc_os_settles_forced = -1;
}

static void an_entry_that_grows_while_it_is_checked_is_damaged(void **state)
{
    struct rig *r = *state;
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    /* One read of the trailer, then that of the artifact. */
    seam_act_call("pread", 2, lengthen_entry, rig_entry(r, wasm));
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_ECORRUPT);
    assert_true(seam_met());
    seam_off();
}

static void the_end_of_a_large_artifact_is_checked_too(void **state)
{
    struct rig *r = *state;
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    r->engine.artifact_size = (4u << 20) + 1001; /* one view, and too little for another */
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    scratch_flip(rig_entry(r, wasm), ((uint64_t)(4u << 20) + 1000) * 8);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_ECORRUPT);
}

static void a_damaged_entry_that_cannot_be_removed_is_told_of(void **state)
{
    struct rig *r = *state;
    unsigned told = 0;
    wc_call_judged_for = UINT64_C(3600000000000);
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    for (unsigned nth = 1; nth < 100; nth++) {
        (void)rig_get(r, wasm, NULL);
        (void)rig_load(r, wasm, NULL); /* the folder is judged */
        spoil(rig_entry(r, wasm), SPOIL_ARTIFACT);
        rig_forget_events(r);
        seam_fail(nth, EIO, 1);
        (void)rig_load(r, wasm, NULL);
        seam_off();
        told += r->events.count[WASMCACHE_EVENT_REMOVE_FAILED];
        assert_false(r->events.count[WASMCACHE_EVENT_REMOVED] &&
                     scratch_exists(rig_entry(r, wasm)));
        if (!seam_met())
            break;
    }
    wc_call_judged_for = UINT64_C(100000000);
    assert_true(told > 0);
}

static void a_promotion_that_fails_is_a_hit_all_the_same(void **state)
{
    struct rig *r = *state;
    wasmcache_layer layer = WASMCACHE_LAYER_INIT;
    const wasmcache_layer *layers[1] = {&layer};
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    layer.dir = scratch_in(&r->scratch, "layer");
    layer.flags = WASMCACHE_LAYER_PROMOTE;
    r->options.dir = layer.dir;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    rig_close(r);
    r->options.dir = r->dir;
    r->options.layers = layers;
    r->options.layer_count = 1;
    rig_open(r);
    for (int how = 0; how < 4; how++) /* 2: all of the folder is missing */
        for (unsigned nth = 1; nth < 200; nth++) {
            scratch_remove(how & 2 ? rig_namespace_dir(r) : rig_entry(r, wasm));
            seam_fail(nth, EIO, how & 1);
            assert_int_equal(rig_get(r, wasm, &report), 0);
            seam_off();
            if (!seam_met())
                break;
        }
    assert_int_equal(report.layer, 1);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.layer, 0);
}

static void an_entry_older_than_1970_is_counted(void **state)
{
    struct rig *r = *state;
    const struct timespec times[2] = {{-1000, 0}, {-1000, 0}};
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(utimensat(AT_FDCWD, rig_entry(r, wasm), times, 0), 0);
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), 0);
    assert_int_equal(result.left_entries, 1);
}

/* ---- hints ---- */

static void a_table_that_is_not_ours_is_made_anew(void **state)
{
    struct rig *r = *state;
    char *path = NULL;
    struct stat st;
    ino_t before;
    wc_os_settles_forced = 1;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    for (int big = 0; big < 2 && (!path || !scratch_exists(path)); big++)
        path = scratch_text(&r->scratch, "%s/.hints-1-%s", r->dir, big ? "be" : "le");
    before = scratch_inode(path);
    assert_int_equal(truncate(path, 1 << 30), 0); /* larger than any of ours */
    assert_int_equal(rig_get(r, other, NULL), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_ino != before && st.st_size < 1 << 30);
    wc_os_settles_forced = -1;
}

/* What a use says without a count of uses: then the entry's own trailer is asked. */
static void a_use_that_was_never_counted_says_nothing(void **state)
{
    struct rig *r = *state;
    const wasmcache_key key = rig_key(wasm);
    wasmcache_prune_options options = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT, again = result;
    struct wc_folder folder = WC_FOLDER_INIT;
    const uint8_t costs_much[32] = {0, 0, 0, 0, 0, 0, 0, 1};
    struct wc_hint_about about;
    struct wc_hint_look look;
    struct wc_error err;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    options.max_bytes = 1;
    options.flags = WASMCACHE_PRUNE_DRY_RUN;
    wc_os_wall_forced = ((int64_t)time(NULL) + 7200) * 1000000000;
    assert_int_equal(wasmcache_prune(r->cache, &options, &result), 0);
    assert_int_equal(result.removed_entries, 1);
    wc_error_init(&err);
    assert_int_equal(wc_store_open_folder(&folder, &r->cache->store, rig_namespace(r), &err), 0);
    wc_hint_look_start(&look, &r->cache->hints);
    wc_cache_find_hints(r->cache, &look, &folder, 0);
    wc_hint_of_entry(&about, rig_namespace(r), &key);
    wc_hint_put_now(&look, &about, costs_much);
    wc_hint_look_end(&look);
    wc_folder_close(&folder);
    assert_int_equal(wasmcache_prune(r->cache, &options, &again), 0);
    wc_os_wall_forced = -1;
    assert_int_equal(again.removed_entries, 1);
    assert_int_equal(again.removed_compile_ns, result.removed_compile_ns);
}

static void a_stamp_of_other_bytes_is_none(void **state)
{
    struct rig *r = *state;
    const uint8_t other_digest[32] = {1, 2, 3};
    struct wc_folder folder = WC_FOLDER_INIT;
    struct wc_hint_about about;
    struct wc_hint_look look;
    struct wc_os_stat st;
    struct wc_error err;
    const char *name;
    wc_os_settles_forced = 1;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    wc_error_init(&err);
    assert_int_equal(wc_store_open_folder(&folder, &r->cache->store, rig_namespace(r), &err), 0);
    name = strrchr(rig_entry(r, wasm), '/') + 1;
    assert_int_equal(wc_os_stat_at(folder.fd, name, &st), 0);
    wc_hint_look_start(&look, &r->cache->hints);
    wc_cache_find_hints(r->cache, &look, &folder, 0);
    assert_int_equal(wc_hint_of_file(&about, &r->cache->hints, WC_HINT_VERIFIED, &st), 1);
    wc_hint_put_now(&look, &about, other_digest);
    wc_hint_look_end(&look);
    wc_folder_close(&folder);
    seam_record();
    assert_int_equal(rig_load(r, wasm, NULL), 0);
    seam_off();
    assert_true(seam_calls_of("pread") + seam_calls_of("view") > 1); /* it was read, all of it */
    wc_os_settles_forced = -1;
}

/* ---- cancelled ---- */

static void a_tick_of_who_was_cancelled_says_so(void **state)
{
    struct rig *r = *state;
    atomic_bool cancelled;
    struct wc_error err;
    struct wc_call call;
    rig_open(r);
    wc_error_init(&err);
    wc_call_start(&call, r->wc, WASMCACHE_MODULE);
    atomic_init(&cancelled, 0);
    call.cancelled = &cancelled;
    assert_int_equal(wc_call_tick(&call, &err), 0);
    atomic_store(&cancelled, 1);
    assert_int_equal(wc_call_tick(&call, &err), WASMCACHE_EABORTED);
    assert_int_equal(err.error, WASMCACHE_EABORTED);
}

/* ---- what the system does not have ---- */

static void without_conditions_there_is_no_cache_and_no_executor(void **state)
{
    struct rig *r = *state;
    wasmcache_executor *executor = NULL;
    wasmcache *cache = NULL;
    const unsigned before = scratch_descriptors();
    below_fail("pthread_cond_init", ENOMEM, 1);
    assert_int_equal(wasmcache_executor_new(&executor, NULL), WASMCACHE_ENOMEM);
    assert_int_equal(below_off(), 0);
    below_fail("pthread_cond_init", ENOMEM, 1);
    below_after(1);
    assert_int_equal(wasmcache_executor_new(&executor, NULL), WASMCACHE_ENOMEM);
    assert_int_equal(below_off(), 0);
    assert_null(executor);
    below_fail("pthread_condattr_init", ENOMEM, 1);
    assert_int_equal(wasmcache_open(&cache, &r->options), WASMCACHE_ENOMEM);
    assert_int_equal(below_off(), 0);
    assert_null(cache);
    assert_int_equal(scratch_descriptors(), before);
}

/* ---- overlaps ---- */

static int overlaps(struct rig *r, const char *path)
{
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = wasmcache_overlaps(r->cache, fd);
    close(fd);
    return rc;
}

static void a_way_that_cannot_be_followed_is_an_error(void **state)
{
    struct rig *r = *state;
    char *guest = scratch_in(&r->scratch, "guest"), *loop = scratch_in(&r->scratch, "loop");
    char *far = scratch_in(&r->scratch, "far");
    char long_path[9000], target[PATH_MAX - 1];
    assert_int_equal(mkdir(guest, 0700), 0);
    assert_int_equal(symlink("loop", loop), 0);
    /* A link that is as long as one can be, to somewhere below. */
    memset(target, '/', sizeof(target) - 1);
    memcpy(target + sizeof(target) - 6, "guest", 6);
    target[0] = '.';
    assert_int_equal(symlink(target, far), 0);
    for (int i = 0; i < 4; i++) {
        const char *const starts[] = {"/", r->scratch.dir, loop, far};
        const size_t lengths[] = {sizeof(long_path) - 1, 0, 0, 2 * PATH_MAX - 2};
        const int fills[] = {'x', 0, 0, 'y'};
        snprintf(long_path, sizeof(long_path), "%s/", starts[i]);
        if (i == 1) /* one name that is too long */
            snprintf(long_path, sizeof(long_path), "%s/%0300d", r->scratch.dir, 1);
        for (size_t at = strlen(long_path); at < lengths[i]; at++) {
            long_path[at] = (char)(at % 100 ? fills[i] : '/');
            long_path[at + 1] = '\0';
        }
        rig_close(r);
        r->options.dir = long_path;
        rig_open(r);
        assert_int_equal(overlaps(r, guest), WASMCACHE_EIO);
        assert_int_equal(wasmcache_last_error()->system_errno, i == 2 ? ELOOP : ENAMETOOLONG);
        seam_fail_call("open_place", 1, EMFILE); /* nor can it be begun */
        assert_int_equal(overlaps(r, guest), WASMCACHE_EIO);
        seam_off();
    }
    rig_close(r);
    r->options.dir = r->dir;
    rig_open(r);
}

enum { DEEP = 4200 };

static void a_directory_that_is_too_deep_is_an_error(void **state)
{
    struct rig *r = *state;
    char *top = scratch_in(&r->scratch, "top");
    int at;
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(mkdir(top, 0700), 0);
    at = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < DEEP; i++) {
        int next;
        assert_int_equal(mkdirat(at, "d", 0700), 0);
        next = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(at);
        at = next;
    }
    assert_int_equal(wasmcache_overlaps(r->cache, at), WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EIO);
    for (int i = 0; i < DEEP; i++) {
        int above = openat(at, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(above >= 0);
        close(at);
        at = above;
        assert_int_equal(unlinkat(at, "d", AT_REMOVEDIR), 0);
    }
    close(at);
}

/* In a namespace of mounts of its own, with a mount below the guest's directory. 0: as it should
 * be. */
static int look_at_mounts(void *argument)
{
    static const int passed_over[] = {EACCES,   EPERM,  ENOENT, ENOTDIR,
                                      ENOTCONN, ESTALE, EIO,    ENODEV};
    struct rig *r = argument;
    char *guest = scratch_in(&r->scratch, "guest"), *below = scratch_in(&r->scratch, "guest/m");
    char *deep = scratch_in(&r->scratch, "deep"), *pins;
    const wasmcache_key key = rig_key(wasm);
    int fd, rc;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", below, "tmpfs", 0, NULL) < 0)
        return 77;
    fd = open(guest, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (wasmcache_overlaps(r->cache, fd) != 0)
        return 1;
    /* A mount that one cannot get to, whatever the reason, is no way to the cache. */
    for (size_t i = 0; i < sizeof(passed_over) / sizeof(*passed_over); i++) {
        seam_fail_call("open_place", 2, passed_over[i]); /* after that of the root */
        rc = wasmcache_overlaps(r->cache, fd);
        seam_off();
        if (rc != 0 || !seam_met())
            return 2;
    }
    seam_fail_call("open_place", 2, EMFILE);
    rc = wasmcache_overlaps(r->cache, fd);
    seam_off();
    if (rc != WASMCACHE_EIO)
        return 3;
    /* Whichever call fails, nothing is said to overlap. */
    for (unsigned nth = 1; nth < 500; nth++) {
        seam_fail(nth, ELOOP, 0);
        rc = wasmcache_overlaps(r->cache, fd);
        seam_off();
        if (rc > 0)
            return 4;
        if (!seam_met())
            break;
    }
    /* Hidden by another mount, its mounts are not below it any more. */
    if (mount("none", guest, "tmpfs", 0, NULL) < 0 || wasmcache_overlaps(r->cache, fd) != 0)
        return 5;
    close(fd);
    /* A folder of a folder of the cache, which is mounted elsewhere. */
    if (wasmcache_pin(r->cache, rig_namespace(r), &key, 1) != 0)
        return 6;
    pins = scratch_text(&r->scratch, "%s/.pins", rig_namespace_dir(r));
    if (!scratch_exists(pins) || mount(pins, deep, NULL, MS_BIND, NULL) < 0)
        return 7;
    return overlaps(r, deep) == 1 ? 0 : 8;
}

static void mounts_that_cannot_be_reached_lead_nowhere(void **state)
{
    struct rig *r = *state;
    int rc;
    if (!scratch_is_root("mounts below a guest's directory"))
        skip();
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(mkdir(scratch_in(&r->scratch, "guest"), 0700), 0);
    assert_int_equal(mkdir(scratch_in(&r->scratch, "guest/m"), 0700), 0);
    assert_int_equal(mkdir(scratch_in(&r->scratch, "deep"), 0700), 0);
    rc = scratch_child(look_at_mounts, r, 0, 30);
    if (rc == 77)
        skip();
    assert_int_equal(rc, 0);
}

/* ---- sealed ---- */

/* In a mount of its own, which is made read-only. 0: as it should be. */
static int load_sealed(void *argument)
{
    struct rig *r = argument;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount(r->dir, r->dir, NULL, MS_BIND, NULL) < 0 ||
        mount("none", r->dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
        return 77;
    rig_open(r);
    /* What is wrong with it is not looked for: the engine is what finds it. */
    if (rig_load(r, wasm, &report) != WASMCACHE_EENGINE ||
        report.reason != WASMCACHE_REASON_ENGINE_REFUSED)
        return 1;
    return rig_load(r, other, &report) == 0 ? 0 : 2;
}

/* The same of a directory that is not root's, which root can be handed by others. */
static int load_of_another_user(void *argument)
{
    struct rig *r = argument;
    if (chown(r->dir, 4242, (gid_t)-1) < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount(r->dir, r->dir, NULL, MS_BIND, NULL) < 0 ||
        mount("none", r->dir, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
        return 77;
    rig_open(r);
    return rig_load(r, wasm, NULL) == WASMCACHE_ECORRUPT && rig_load(r, other, NULL) == 0 ? 0 : 1;
}

static void what_is_sealed_is_not_read_before_it_is_loaded(void **state)
{
    static const uint32_t trusted[1] = {4242};
    struct rig *r = *state;
    int rc;
    if (!scratch_is_root("a mount that is read-only"))
        skip();
    r->options.trust_uids = trusted;
    r->options.trust_uid_count = 1;
    rig_open(r);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(rig_get(r, other, NULL), 0);
    spoil(rig_entry(r, wasm), SPOIL_ARTIFACT);
    rig_close(r);
    assert_int_equal(chmod(r->dir, 0755), 0);
    r->options.flags = WASMCACHE_SEALED | WASMCACHE_READ_ONLY;
    r->options.verify = WASMCACHE_VERIFY_ALWAYS;
    r->engine.knows_others = 1;
    rc = scratch_child(load_sealed, r, 0, 30);
    if (rc == 77)
        skip();
    assert_int_equal(rc, 0);
    assert_int_equal(scratch_child(load_of_another_user, r, 0, 30), 0);
    /* Here it can be written to, and so it is read. */
    rig_open(r);
    assert_int_equal(rig_load(r, wasm, NULL), WASMCACHE_ECORRUPT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_rig, fixture_end)
#define OPEN(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)

int main(void)
{
    int failed;
    const struct CMUnitTest tests[] = {
        TEST(what_has_no_words_is_described_all_the_same),
        TEST(slashes_at_the_end_of_the_directory_do_not_count),
        TEST(a_path_says_where_the_folder_of_our_own_would_be),
        TEST(what_could_be_made_is_asked_of_the_nearest_directory),
        TEST(a_folder_of_our_own_is_no_other_users),
        TEST(a_counted_get_without_a_cache_compiles),
        TEST(an_engine_without_a_compiler_or_a_serializer_goes_without),
        TEST(an_artifact_that_the_engine_cannot_tell_is_not_saved),
        TEST(a_recompiled_file_that_changed_is_filed_under_what_it_is),
        TEST(bytes_that_change_are_not_kept_in_memory_either),
        TEST(who_could_not_be_told_stays_so_without_memory),
        TEST(a_probe_that_fails_before_a_save_saves_nothing),
        TEST(texts_that_nobody_wrote_are_damaged),
        TEST(an_eviction_takes_no_entry_that_it_did_not_look_at),
        TEST(a_number_of_entries_alone_is_a_limit),
        TEST(a_disk_of_which_little_may_be_taken_is_full),
        TEST(a_flush_can_say_what_the_directory_has_then),
        TEST(an_old_entry_that_changes_while_it_is_read_is_left),
        TEST(a_lock_whose_number_is_another_files_is_not_touched),
        TEST(what_was_checked_before_is_checked_again_if_it_changes),
        TEST(an_entry_that_grows_while_it_is_checked_is_damaged),
        TEST(the_end_of_a_large_artifact_is_checked_too),
        TEST(a_damaged_entry_that_cannot_be_removed_is_told_of),
        TEST(a_promotion_that_fails_is_a_hit_all_the_same),
        TEST(an_entry_older_than_1970_is_counted),
        TEST(a_table_that_is_not_ours_is_made_anew),
        TEST(a_stamp_of_other_bytes_is_none),
        TEST(a_use_that_was_never_counted_says_nothing),
        TEST(what_must_stay_stays_if_it_comes_while_another_is_written),
        TEST(a_source_that_cannot_be_looked_at_again_is_not_remembered),
        TEST(a_tick_of_who_was_cancelled_says_so),
        TEST(without_conditions_there_is_no_cache_and_no_executor),
        TEST(what_is_sealed_is_not_read_before_it_is_loaded),
        OPEN(a_way_that_cannot_be_followed_is_an_error),
        OPEN(a_directory_that_is_too_deep_is_an_error),
        OPEN(mounts_that_cannot_be_reached_lead_nowhere),
    };
    scratch_in_memory();
    failed = cmocka_run_group_tests_name("corners", tests, NULL, NULL);
    scratch_in_memory_end();
    return failed;
}
