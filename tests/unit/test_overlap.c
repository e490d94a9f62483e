/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can a guest reach the cache from the directory that it is given? Each layout is made in a mount
 * namespace of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fixture.h"
#include "seam.h"
#include "support/rig.h"

static const char wasm[] = "a module";

/* Directories below the scratch one, "cache" is the cache unless the layout says otherwise. */
struct layout {
    const char *name;
    const char *cache; /* NULL: "data/cache" */
    const char *guest; /* what the guest is given; "/" is the root itself */
    const char *link;  /* "path=target", made before */
    const char *bind;  /* "path=source": source is mounted at path, after the cache was made */
    int early;         /* sum of 1: mounted before; 2: the cache is never made */
    int expected;
};

static const struct layout layouts[] = {
    /* On one file system. */
    {"the cache itself", NULL, "data/cache", NULL, NULL, 0, 1},
    {"a folder of the cache", NULL, "data/cache/NS", NULL, NULL, 0, 1},
    {"above the cache", NULL, "data", NULL, NULL, 0, 1},
    {"far above the cache", NULL, "", NULL, NULL, 0, 1},
    {"the root", NULL, "/", NULL, NULL, 0, 1},
    {"beside the cache", NULL, "data/other", NULL, NULL, 0, 0},
    {"beside it, with its name at the front", NULL, "data/cache2", NULL, NULL, 0, 0},
    {"below a folder beside it", NULL, "data/other/sub", NULL, NULL, 0, 0},
    /* Symbolic links. */
    {"a link to the cache", NULL, "link", "link=data/cache", NULL, 0, 1},
    {"a link to what is above", NULL, "link", "link=data", NULL, 0, 1},
    {"the cache named by a link, and what is above it", "link/cache", "data", "link=data", NULL, 0,
     1},
    {"the cache is a link, and the guest has the true one", "link", "data/cache", "link=data/cache",
     NULL, 0, 1},
    {"the way to the cache leads through the guest's directory", "home/cache/wc", "home",
     "home/cache=../data/other", NULL, 0, 1},
    {"a link to the cache lies in what the guest has", NULL, "home", "home/l=../data/cache", NULL,
     0, 0}, /* a guest cannot follow it out */
    /* Bind mounts. */
    {"the cache mounted below the guest's directory", NULL, "home", NULL, "home/m=data/cache", 0,
     1},
    {"its parent mounted below the guest's directory", NULL, "home", NULL, "home/m=data", 0, 1},
    {"a folder of it mounted below the guest's directory", NULL, "home", NULL,
     "home/m=data/cache/NS", 0, 1},
    {"the cache mounted as the guest's directory", NULL, "home/m", NULL, "home/m=data/cache", 0, 1},
    {"its parent mounted as the guest's directory", NULL, "home/m", NULL, "home/m=data", 0, 1},
    {"a folder of it mounted as the guest's directory", NULL, "home/m", NULL,
     "home/m=data/cache/NS", 0, 1},
    {"a folder beside it mounted below the guest's directory", NULL, "home", NULL,
     "home/m=data/other", 0, 0},
    {"mounted beside the guest's directory", NULL, "home/s", NULL, "home/m=data", 0, 0},
    {"the cache is a mount of a folder that the guest has", "mnt/m", "data", NULL,
     "mnt/m=data/other", 1, 1},
    {"the guest is below a mount of the cache's parent", NULL, "home/m/cache/NS", NULL,
     "home/m=data", 0, 1},
    /* What does not exist yet. */
    {"a cache that is not there, to be made in the guest's directory", "data/not/there", "data",
     NULL, NULL, 2, 1},
    {"one whose parent is mounted below the guest's directory", "data/not/there", "home", NULL,
     "home/m=data", 3, 1},
    {"one below a mount of a folder that the guest has", "mnt/m/not/there", "data", NULL,
     "mnt/m=data/other", 3, 1},
    {"one whose parent is mounted beside the guest's directory", "data/not/there", "home/s", NULL,
     "home/m=data", 3, 0},
    {"a cache that is not there, elsewhere", "data/not/there", "home", NULL, NULL, 2, 0},
};

struct lab {
    struct rig r;
    const struct layout *layout;
    int result;
};

/* The path of a name in the layout; "NS" in it is the namespace. */
static char *place(struct lab *l, const char *name)
{
    const char *ns = strstr(name, "NS");
    if (strcmp(name, "/") == 0)
        return scratch_text(&l->r.scratch, "/");
    if (ns)
        return scratch_in(&l->r.scratch, "%.*s%s", (int)(ns - name), name, rig_namespace(&l->r));
    return scratch_in(&l->r.scratch, "%s", name);
}

static void bind_mount(struct lab *l)
{
    const char *equals = strchr(l->layout->bind, '=');
    char *to = scratch_in(&l->r.scratch, "%.*s", (int)(equals - l->layout->bind), l->layout->bind);
    assert_int_equal(mount(place(l, equals + 1), to, NULL, MS_BIND, NULL), 0);
}

static int one_layout(void *argument)
{
    struct lab *l = argument;
    const struct layout *layout = l->layout;
    static const char *const folders[] = {"data",        "data/other", "data/other/sub",
                                          "data/cache2", "home",       "home/m",
                                          "home/s",      "mnt",        "mnt/m"};
    unsigned open_before;
    int guest, rc;

    if (layout->bind) {
        assert_int_equal(unshare(CLONE_NEWNS), 0);
        assert_int_equal(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    }
    for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++)
        assert_int_equal(mkdir(scratch_in(&l->r.scratch, "%s", folders[i]), 0700), 0);
    assert_int_equal(mkdir(scratch_in(&l->r.scratch, "data/cache"), 0700), 0);
    if (layout->link) {
        const char *equals = strchr(layout->link, '=');
        assert_int_equal(
            symlink(equals + 1,
                    scratch_in(&l->r.scratch, "%.*s", (int)(equals - layout->link), layout->link)),
            0);
    }
    if (layout->early & 1)
        bind_mount(l);
    l->r.dir = scratch_in(&l->r.scratch, "%s", layout->cache ? layout->cache : "data/cache");
    l->r.options.dir = l->r.dir;
    rig_open(&l->r);
    if (!(layout->early & 2))
        assert_int_equal(rig_get(&l->r, wasm, NULL), 0);
    if (layout->bind && !(layout->early & 1))
        bind_mount(l);
    guest = open(place(l, layout->guest), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(guest >= 0);
    open_before = scratch_descriptors();
    rc = wasmcache_overlaps(l->r.cache, guest);
    assert_int_equal(scratch_descriptors(), open_before);
    close(guest);
    rig_close(&l->r);
    if (layout->bind) /* or the clean-up would go through it */
        assert_int_equal(
            umount2(scratch_in(&l->r.scratch, "%.*s",
                               (int)(strchr(layout->bind, '=') - layout->bind), layout->bind),
                    MNT_DETACH),
            0);
    return rc == 1 ? 11 : rc == 0 ? 10 : 12;
}

static void each_layout(void **state)
{
    const int root = scratch_is_root("layouts with bind mounts");
    unsigned layouts_tried = 0;
    (void)state;
    for (size_t i = 0; i < sizeof(layouts) / sizeof(*layouts); i++) {
        struct lab l;
        int status;
        if (layouts[i].bind && !root)
            continue;
        memset(&l, 0, sizeof(l));
        l.layout = &layouts[i];
        rig_init(&l.r);
        status = scratch_child(one_layout, &l, 0, 20);
        if (status != 10 + layouts[i].expected)
            fail_msg("%s: %s", layouts[i].name,
                     status == 10   ? "said to be no overlap"
                     : status == 11 ? "said to be an overlap"
                                    : "failed");
        rig_end(&l.r);
        layouts_tried++;
    }
    printf("overlap: %u layouts\n", layouts_tried);
}

/* ---- without mounts ---- */

static int overlaps(struct rig *r, const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;
    assert_true(fd >= 0);
    rc = wasmcache_overlaps(r->cache, fd);
    close(fd);
    return rc;
}

static void the_folder_of_our_own_counts(void **state)
{
    struct rig *r = *state;
    char *beside = scratch_in(&r->scratch, "cache/beside"), *own;
    assert_int_equal(mkdir(r->dir, 0700), 0);
    assert_int_equal(chmod(r->dir, 01777), 0);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    own = scratch_in(&r->scratch, "cache/u%u", (unsigned)geteuid());
    assert_true(scratch_exists(own));
    assert_int_equal(mkdir(beside, 0700), 0);
    assert_int_equal(overlaps(r, own), 1);
    assert_int_equal(overlaps(r, scratch_text(&r->scratch, "%s/%s", own, rig_namespace(r))), 1);
    assert_int_equal(overlaps(r, r->dir), 1);
    assert_int_equal(overlaps(r, r->scratch.dir), 1);
}

static void misuse_and_no_cache(void **state)
{
    struct rig *r = *state;
    int fds[2], fd;
    assert_int_equal(wasmcache_overlaps(r->cache, -1), WASMCACHE_EMISUSE);
    assert_int_equal(wasmcache_overlaps(r->cache, 9999), WASMCACHE_EMISUSE);
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(wasmcache_overlaps(r->cache, fds[0]), WASMCACHE_EMISUSE);
    close(fds[0]);
    close(fds[1]);
    scratch_write(scratch_in(&r->scratch, "file"), "", 0, 0600);
    fd = open(scratch_in(&r->scratch, "file"), O_RDONLY | O_CLOEXEC);
    assert_int_equal(wasmcache_overlaps(r->cache, fd), WASMCACHE_EMISUSE);
    close(fd);
    rig_close(r);
    assert_int_equal(overlaps(r, r->scratch.dir), 0);
    r->options.dir = NULL;
    rig_open(r);
    assert_int_equal(overlaps(r, "/"), 0);
}

static void what_cannot_be_told_is_an_error(void **state)
{
    struct rig *r = *state;
    char *beside = scratch_in(&r->scratch, "beside");
    assert_int_equal(mkdir(beside, 0700), 0);
    assert_int_equal(rig_get(r, wasm, NULL), 0);
    assert_int_equal(overlaps(r, beside), 0);
    /* Without a list of mounts it is not known what is mounted below. */
    wc_os_lacking = WC_OS_NO_PROC;
    assert_int_equal(overlaps(r, beside), WASMCACHE_EIO);
    assert_int_equal(wasmcache_last_error()->error, WASMCACHE_EIO);
    assert_int_equal(overlaps(r, r->scratch.dir), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_open_rig, fixture_end)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_layout),
        TEST(the_folder_of_our_own_counts),
        TEST(misuse_and_no_cache),
        TEST(what_cannot_be_told_is_an_error),
    };
    return cmocka_run_group_tests_name("overlap", tests, NULL, NULL);
}
