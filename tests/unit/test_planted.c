/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seven kinds of things, planted in five places where the cache expects something of its own:
 * nothing blocks, nothing is written or read through them, and gets return their modules.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "seam.h"
#include "support/rig.h"

enum kind { LINK_TO_FILE, LINK, HARD_LINK, FIFO, DEVICE, SOCKET, DIRECTORY, KINDS };
enum place { ENTRY, TEMP, TAG, NAMESPACE, CACHE, PLACES };

static const char *const kind_names[] = {"symbolic link to a file",
                                         "dangling link, or to a folder",
                                         "hard link",
                                         "FIFO",
                                         "device",
                                         "socket",
                                         "directory"};
static const char *const place_names[] = {"entry", "temporary file", "CACHEDIR.TAG", "namespace",
                                          "cache directory"};

/* What a get has for save_error, and whether what was planted is still there in the end. */
static const struct expected {
    int save_error;
    int stays;
} table[PLACES][KINDS] = {
    [ENTRY] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}, {WASMCACHE_EUNTRUSTED, 1}},
    [TEMP] = {{0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 0}, {0, 1}},
    [TAG] = {{0, 1}, {0, 1}, {0, 1}, {0, 1}, {0, 1}, {0, 1}, {0, 1}},
    [NAMESPACE] = {{WASMCACHE_EUNTRUSTED, 1},
                   {WASMCACHE_EUNTRUSTED, 1},
                   {WASMCACHE_EUNTRUSTED, 1},
                   {WASMCACHE_EUNTRUSTED, 1},
                   {WASMCACHE_EUNTRUSTED, 1},
                   {WASMCACHE_EUNTRUSTED, 1},
                   {WASMCACHE_EUNTRUSTED, 1}},
    /* A link to a folder is followed there: it is the path that the embedder named. A folder that
     * all may write is used through one of our own in it. */
    [CACHE] = {{WASMCACHE_EIO, 1},
               {0, 1},
               {WASMCACHE_EIO, 1},
               {WASMCACHE_EIO, 1},
               {WASMCACHE_EIO, 1},
               {WASMCACHE_EIO, 1},
               {0, 1}},
};

static const char wasm[] = "a module";
static const char precious[] = "what the victim holds";

struct lab {
    struct rig r;
    const char *ns; /* what the namespace is called */
    char *victim, *victim_dir, *planted, *ns_dir;
    enum kind kind;
    enum place place;
};

static void plant_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int cwd = open(".", O_RDONLY | O_CLOEXEC);
    char *folder = strdup(path);
    *strrchr(folder, '/') = '\0';
    snprintf(name, sizeof(name), "s");
    memcpy(address.sun_path, name, 2);
    /* The names of sockets are short. */
    assert_int_equal(chdir(folder), 0);
    assert_int_equal(bind(s, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fchdir(cwd), 0);
    strcat(folder, "/s");
    assert_int_equal(rename(folder, path), 0);
    free(folder);
    close(cwd);
    close(s);
}

static void plant(const struct lab *l, uid_t uid)
{
    const char *path = l->planted;
    const int folder = l->place == NAMESPACE || l->place == CACHE;
    mode_t mask = umask(0);
    switch (l->kind) {
    case LINK_TO_FILE:
        assert_int_equal(symlink(l->victim, path), 0);
        break;
    case LINK:
        assert_int_equal(symlink(folder ? l->victim_dir : "/nowhere/at/all", path), 0);
        break;
    case HARD_LINK:
        assert_int_equal(link(l->victim, path), 0);
        break;
    case FIFO:
        assert_int_equal(mkfifo(path, 0600), 0);
        break;
    case DEVICE:
        assert_int_equal(mknod(path, S_IFCHR | 0666, makedev(1, 5)), 0);
        break;
    case SOCKET:
        plant_socket(path);
        break;
    default:
        assert_int_equal(mkdir(path, 0777), 0);
        break;
    }
    umask(mask);
    if (uid && l->kind != DEVICE)
        assert_int_equal(lchown(path, uid, (gid_t)uid), 0);
}

/* All that the library can be asked, in a child that may take ten seconds. */
static int use(void *argument)
{
    struct lab *l = argument;
    struct rig *r = &l->r;
    const struct expected *expected = &table[l->place][l->kind];
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    wasmcache_iterator *it = NULL;
    wasmcache_key key = rig_key(wasm);
    unsigned open_before = scratch_descriptors();
    int fd;

    rig_open(r);
    assert_int_equal(wasmcache_status(r->cache, &status), 0);
    (void)wasmcache_contains(r->wc, WASMCACHE_MODULE, &key);
    (void)wasmcache_entry_check(&entry, r->cache, l->ns, &key, WASMCACHE_CHECK_DIGEST);
    if (l->place == ENTRY && l->kind != HARD_LINK)
        assert_int_equal(entry.state, WASMCACHE_REASON_UNTRUSTED);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    if (report.save_error != expected->save_error)
        fail_msg("save: %d, %s", report.save_error,
                 r->events.last[WASMCACHE_EVENT_SAVE_FAILED].message);
    (void)rig_save(r, wasm, NULL);
    assert_int_equal(rig_get(r, wasm, &report), 0);
    assert_int_equal(report.outcome, expected->save_error ? WASMCACHE_COMPILED : WASMCACHE_HIT);
    if (wasmcache_iterate(&it, r->cache, NULL, WASMCACHE_CHECK_DIGEST) == 0) {
        int steps = 0;
        while (wasmcache_iterator_next(it, &entry) != WASMCACHE_EMISS)
            assert_true(++steps < 20);
        wasmcache_iterator_close(it);
    }
    fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)wasmcache_overlaps(r->cache, fd);
    close(fd);
    (void)wasmcache_clean(r->cache, NULL);
    assert_int_equal(rig_get_with(r, wasm, WASMCACHE_GET_RECOMPILE, &report), 0);
    assert_int_equal(report.save_error, expected->save_error);
    (void)wasmcache_remove(r->cache, l->ns, &key);
    assert_int_equal(r->engine.wrong, 0);
    rig_close(r);
    assert_int_equal(scratch_descriptors(), open_before);
    return 0;
}

static void one_case(enum kind kind, enum place place, uid_t uid)
{
    struct lab l;
    struct stat before, after, planted;
    char *bytes;
    size_t size;
    int status;

    memset(&l, 0, sizeof(l));
    l.kind = kind;
    l.place = place;
    rig_init(&l.r);
    rig_open(&l.r); /* to learn the names */
    l.ns = scratch_text(&l.r.scratch, "%s", rig_namespace(&l.r));
    l.ns_dir = rig_namespace_dir(&l.r);
    l.victim = scratch_in(&l.r.scratch, "victim");
    l.victim_dir = scratch_in(&l.r.scratch, "victims");
    scratch_write(l.victim, precious, strlen(precious), 0644);
    assert_int_equal(mkdir(l.victim_dir, 0700), 0);
    assert_int_equal(mkdir(l.r.dir, 0700), 0);
    switch (place) {
    case ENTRY:
        assert_int_equal(mkdir(l.ns_dir, 0700), 0);
        l.planted = rig_entry(&l.r, wasm);
        break;
    case TEMP:
        assert_int_equal(mkdir(l.ns_dir, 0700), 0);
        l.planted = scratch_text(&l.r.scratch, "%s/.tmp-0123456789ABCDEF", l.ns_dir);
        break;
    case TAG:
        l.planted = scratch_in(&l.r.scratch, "cache/CACHEDIR.TAG");
        break;
    case NAMESPACE:
        l.planted = l.ns_dir;
        break;
    default:
        l.planted = l.r.dir;
        assert_int_equal(rmdir(l.r.dir), 0);
        break;
    }
    rig_close(&l.r);
    plant(&l, uid);
    if (uid) {
        assert_int_equal(chown(l.r.scratch.dir, uid, (gid_t)uid), 0);
        assert_int_equal(chown(l.victim_dir, uid, (gid_t)uid), 0);
        assert_int_equal(chown(l.victim, uid, (gid_t)uid), 0);
        if (place != CACHE)
            assert_int_equal(chown(l.r.dir, uid, (gid_t)uid), 0);
        if (place <= TEMP)
            assert_int_equal(chown(l.ns_dir, uid, (gid_t)uid), 0);
    }
    assert_int_equal(lstat(l.victim, &before), 0);
    assert_int_equal(lstat(l.planted, &planted), 0);

    status = scratch_child(use, &l, uid, 10);
    if (status)
        fail_msg("a %s in place of the %s, as user %u: %d", kind_names[kind], place_names[place],
                 (unsigned)uid, status);

    /* The victims are as they were. */
    assert_int_equal(lstat(l.victim, &after), 0);
    assert_int_equal(after.st_mode, before.st_mode);
    assert_int_equal(after.st_uid, before.st_uid);
    assert_int_equal(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
    assert_int_equal(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
    bytes = (char *)scratch_read(l.victim, &size);
    assert_string_equal(bytes, precious);
    free(bytes);
    if (place != CACHE)
        assert_string_equal(scratch_tree(&l.r.scratch, l.victim_dir), "");
    /* And what was planted, if it is still there. */
    if (lstat(l.planted, &after) == 0 && after.st_ino == planted.st_ino &&
        (after.st_mode & S_IFMT) == (planted.st_mode & S_IFMT)) {
        assert_true(table[place][kind].stays);
        assert_int_equal(after.st_mode, planted.st_mode);
        assert_int_equal(after.st_uid, planted.st_uid);
    } else {
        assert_false(table[place][kind].stays);
    }
    rig_end(&l.r);
}

static unsigned all_cases(uid_t uid)
{
    unsigned cases = 0;
    for (enum kind kind = 0; kind < KINDS; kind++)
        for (enum place place = 0; place < PLACES; place++) {
            if (kind == DEVICE && geteuid() != 0)
                continue;
            one_case(kind, place, uid);
            cases++;
        }
    return cases;
}

static void nothing_planted_is_followed(void **state)
{
    unsigned cases = all_cases(0);
    (void)state;
    scratch_is_root("5 cases of devices");
    printf("planted: %u cases\n", cases);
}

static void nor_is_it_as_an_ordinary_user(void **state)
{
    (void)state;
    if (!scratch_is_root("what is planted, as another user")) {
        skip();
        return;
    }
    printf("planted, as user %u: %u cases\n", (unsigned)SCRATCH_NOBODY, all_cases(SCRATCH_NOBODY));
}

static int use_dangling(void *argument)
{
    struct lab *l = argument;
    wasmcache_report report = WASMCACHE_REPORT_INIT;
    wasmcache_status_info status = WASMCACHE_STATUS_INIT;
    rig_open(&l->r);
    assert_int_equal(rig_get(&l->r, wasm, &report), 0);
    assert_int_equal(report.outcome, WASMCACHE_COMPILED);
    assert_int_not_equal(report.save_error, 0);
    assert_int_equal(wasmcache_status(l->r.cache, &status), 0);
    assert_int_equal(status.state, WASMCACHE_STATE_OFF);
    rig_close(&l->r);
    return 0;
}

static void a_dangling_link_as_cache_directory_is_not_made_true(void **state)
{
    struct lab l;
    (void)state;
    memset(&l, 0, sizeof(l));
    rig_init(&l.r);
    assert_int_equal(symlink(scratch_in(&l.r.scratch, "target"), l.r.dir), 0);
    assert_int_equal(scratch_child(use_dangling, &l, 0, 10), 0);
    assert_false(scratch_exists(scratch_in(&l.r.scratch, "target")));
    rig_end(&l.r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_planted_is_followed),
        cmocka_unit_test(nor_is_it_as_an_ordinary_user),
        cmocka_unit_test(a_dangling_link_as_cache_directory_is_not_made_true),
    };
    return cmocka_run_group_tests_name("planted", tests, NULL, NULL);
}
