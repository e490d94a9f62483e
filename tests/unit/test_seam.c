/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of the seam against what the system comes to rarely: signals in the middle, half
 * of what was asked for, a kernel without a call. */
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
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"
#include "support/allocation.h"
#include "support/below.h"
#include "support/scratch.h"

/* A file with some text, open for reading and writing, and the directory that it is in. */
struct lab {
    struct scratch scratch;
    char *path;
    int fd, at;
};

static const char text[] = "what the file has";

static int set_up(void **state)
{
    static struct lab lab;
    scratch_init(&lab.scratch);
    lab.path = scratch_in(&lab.scratch, "file");
    scratch_write(lab.path, text, sizeof(text), 0600);
    lab.fd = open(lab.path, O_RDWR | O_CLOEXEC);
    lab.at = open(lab.scratch.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = &lab;
    return lab.fd < 0 || lab.at < 0;
}

static int tear_down(void **state)
{
    struct lab *lab = *state;
    (void)below_off();
    wc_os_lacking = 0;
    close(lab->fd);
    close(lab->at);
    scratch_end(&lab->scratch);
    return 0;
}

/* ---- signals ---- */

static void a_signal_interrupts_no_call(void **state)
{
    const struct lab *lab = *state;
    char out[sizeof(text)];
    const void *view;
    struct wc_os_bell bell = WC_OS_BELL_INIT;
    int fd;
#define INTERRUPTED(call, expression, expected)                                                    \
    below_fail(call, EINTR, 2);                                                                    \
    assert_int_equal(expression, expected);                                                        \
    assert_int_equal(below_off(), 0)
    INTERRUPTED("pread", wc_os_pread(lab->fd, out, sizeof(out), 0), sizeof(out));
    assert_string_equal(out, text);
    INTERRUPTED("pwrite", wc_os_pwrite(lab->fd, text, sizeof(text), 0), 0);
    INTERRUPTED("write", wc_os_write(lab->fd, text, sizeof(text)), 0);
    INTERRUPTED("fdatasync", wc_os_sync_data(lab->fd), 0);
    INTERRUPTED("fsync", wc_os_sync_dir(lab->at), 0);
    INTERRUPTED("flock", wc_os_try_lock(lab->fd), 0);
    INTERRUPTED("fcntl", wc_os_try_lock_byte(lab->fd, 7), 0);
    INTERRUPTED("getrandom", wc_os_random(out, sizeof(out)), 0);
    if (scratch_has_views()) {
        INTERRUPTED("madvise", wc_os_view(lab->fd, 0, sizeof(text), &view), 0);
        assert_memory_equal(view, text, sizeof(text));
        wc_os_unmap(view, sizeof(text));
    }
    below_fail("openat", EINTR, 2);
    fd = wc_os_open_read(lab->at, "file");
    assert_true(fd >= 0);
    assert_int_equal(below_off(), 0);
    /* Of a close it is not said whether the number is free already: not again. */
    below_fail("close", EINTR, 1);
    assert_int_equal(wc_os_close(fd), 0);
    assert_int_equal(below_off(), 0);
    close(fd);
    assert_int_equal(wc_os_bell_open(&bell), 0);
    below_fail("write", EINTR, 2);
    wc_os_bell_ring(&bell);
    assert_int_equal(below_off(), 0);
    below_fail("read", EINTR, 2);
    wc_os_bell_hush(&bell);
    assert_int_equal(below_off(), 0);
    assert_int_equal(read(bell.fd, out, 8), -1); /* it was rung, and hushed */
    wc_os_bell_close(&bell);
#undef INTERRUPTED
}

/* ---- files ---- */

static void what_comes_in_pieces_is_put_together(void **state)
{
    /* Never touched: nothing is written. */
    const size_t size = ((size_t)1 << 30) + 5;
    void *large = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    (void)state;
    assert_true(large != MAP_FAILED);
    below_give("write", 1 << 30, 1);
    assert_int_equal(wc_os_write(-1, large, size), -EBADF); /* the second one */
    assert_int_equal(below_off(), 0);
    below_give("pread", 1 << 30, 1);
    assert_int_equal(wc_os_pread(-1, large, size, 0), -EBADF);
    assert_int_equal(below_off(), 0);
    munmap(large, size);
}

static void a_write_of_nothing_is_an_error_and_not_for_ever(void **state)
{
    const struct lab *lab = *state;
    below_give("write", 0, 1);
    assert_int_equal(wc_os_write(lab->fd, text, sizeof(text)), -EIO);
    below_give("pwrite", 0, 1);
    assert_int_equal(wc_os_pwrite(lab->fd, text, sizeof(text), 0), -EIO);
    assert_int_equal(below_off(), 0);
}

static void what_fails_says_why(void **state)
{
    struct lab *lab = *state;
    struct wc_os_stat st;
    uint64_t bytes = 7;
    char out[40];
    uint8_t random[4];
    const void *map = NULL;
    int fd;
    assert_int_equal(wc_os_close(9999), -EBADF);
    assert_int_equal(wc_os_close(-1), 0);
    assert_int_equal(wc_os_free_bytes(scratch_in(&lab->scratch, "missing"), &bytes), -ENOENT);
    assert_int_equal(bytes, 7);
    assert_int_equal(wc_os_fd_path(9999, NULL, out), -EBADF);
    assert_int_equal(wc_os_fstat(lab->fd, &st), 0);
    assert_int_equal(wc_os_fd_path(9999, &st, out), -ENOENT);
    assert_int_equal(wc_os_is_noexec(9999), 0);
    assert_int_equal(wc_os_is_read_only(9999), 0);
    assert_int_equal(wc_os_settles_after_ns(9999), 0);
    below_fail("getrandom", ENOSYS, 1);
    assert_int_equal(wc_os_random(random, sizeof(random)), -ENOSYS);
    below_fail("getrlimit", EINVAL, 1);
    assert_true(wc_os_file_size_limit() == UINT64_MAX);
    below_fail("fchmod", EPERM, 1);
    assert_int_equal(wc_os_create(lab->at, "new"), -EPERM);
    assert_int_equal(wc_os_stat_at(lab->at, "new", &st), -ENOENT);
    below_fail("fcntl", EACCES, 1); /* what a security module says: nobody has it */
    assert_int_equal(wc_os_try_lock_byte(lab->fd, 7), -EACCES);
    below_fail("fcntl", EINVAL, 1);
    assert_int_equal(wc_os_try_lock_byte(lab->fd, 7), -EINVAL);
    /* No O_TMPFILE, as kernels and file systems say it. */
    for (size_t i = 0; i < 3; i++) {
        const int errors[] = {EISDIR, ENOENT, EINVAL};
        below_fail("openat", errors[i], 1);
        assert_int_equal(wc_os_open_unnamed(lab->at), -EOPNOTSUPP);
    }
    below_fail("openat", EACCES, 1);
    assert_int_equal(wc_os_open_unnamed(lab->at), -EACCES);
    below_fail("mmap", ENODEV, 1);
    assert_int_equal(wc_os_map(lab->fd, sizeof(text), &map), -ENODEV);
    assert_null(map);
    below_fail("syscall", ENOSYS, 1);
    assert_int_equal(wc_os_rename_noreplace(lab->at, "file", "other"), -EINVAL);
    assert_int_equal(below_off(), 0);
    assert_true(scratch_exists(lab->path));
    /* What cannot be synced has nothing to sync. */
    fd = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(fsync(fd), -1);
    assert_int_equal(wc_os_sync_dir(fd), 0);
    close(fd);
}

/* EPERM of the one call may be a filter's that does not know it. */
static void whether_a_directory_can_be_written_is_asked_twice(void **state)
{
    struct lab *lab = *state;
    below_fail("faccessat", EPERM, 1);
    assert_int_equal(wc_os_check_write(lab->at), 0);
    below_fail("faccessat", EPERM, 1);
    below_fail("syscall", EPERM, 1); /* chattr +i */
    assert_int_equal(wc_os_check_write(lab->at), -EPERM);
    below_fail("faccessat", EROFS, 1);
    assert_int_equal(wc_os_check_write(lab->at), -EROFS);
    assert_int_equal(below_off(), 0);
}

static void a_system_without_links_says_so_in_one_way(void **state)
{
    static const int errors[] = {ENOSYS, EPERM, EMLINK};
    struct lab *lab = *state;
    int fd = wc_os_open_unnamed(lab->at);
    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        const int expected = errors[i] == ENOSYS ? -EPERM : -errors[i];
        below_fail("linkat", errors[i], 1);
        assert_int_equal(wc_os_link(lab->at, "file", "other"), expected);
        assert_int_equal(below_off(), 0);
        if (fd < 0)
            continue;
        below_fail("linkat", errors[i], 1);
        assert_int_equal(wc_os_link_unnamed(fd, lab->at, "other"), expected);
        assert_int_equal(below_off(), 0);
    }
    wc_os_close(fd);
    assert_false(scratch_exists(scratch_in(&lab->scratch, "other")));
}

static void a_link_is_read_whole_or_not(void **state)
{
    struct lab *lab = *state;
    char out[8];
    int fd;
    assert_int_equal(symlink("1234567", scratch_in(&lab->scratch, "fits")), 0);
    assert_int_equal(symlink("12345678", scratch_in(&lab->scratch, "not")), 0);
    fd = wc_os_open_identity(lab->at, "fits");
    assert_int_equal(wc_os_read_link(fd, out, sizeof(out)), 0);
    assert_string_equal(out, "1234567");
    close(fd);
    fd = wc_os_open_identity(lab->at, "not");
    assert_int_equal(wc_os_read_link(fd, out, sizeof(out)), -ENAMETOOLONG);
    close(fd);
    fd = wc_os_open_identity(lab->at, "file");
    assert_int_equal(wc_os_read_link(fd, out, sizeof(out)), -ENOENT);
    close(fd);
}

static void a_path_of_a_descriptor_is_for_that_file_only(void **state)
{
    struct lab *lab = *state;
    struct wc_os_stat st, other;
    char out[40];
    assert_int_equal(wc_os_fstat(lab->fd, &st), 0);
    assert_int_equal(wc_os_fd_path(lab->fd, &st, out), 0);
    scratch_write(scratch_in(&lab->scratch, "other"), text, sizeof(text), 0600);
    assert_int_equal(wc_os_stat_at(lab->at, "other", &other), 0);
    assert_int_equal(wc_os_fd_path(lab->fd, &other, out), -ENOENT);
    other = st;
    other.dev++;
    assert_int_equal(wc_os_fd_path(lab->fd, &other, out), -ENOENT);
    other = st;
    other.size++;
    assert_int_equal(wc_os_fd_path(lab->fd, &other, out), 1);
    other = st;
    other.mtime_ns++;
    assert_int_equal(wc_os_fd_path(lab->fd, &other, out), 1);
    other = st;
    other.ctime_ns++;
    assert_int_equal(wc_os_fd_path(lab->fd, &other, out), 1);
}

static void what_is_older_than_1970_was_modified_then(void **state)
{
    const struct lab *lab = *state;
    const struct timespec old[2] = {{-100, 0}, {-100, 0}};
    struct wc_os_stat st;
    assert_int_equal(futimens(lab->fd, old), 0);
    assert_int_equal(wc_os_fstat(lab->fd, &st), 0);
    assert_true(st.mtime_ns < 0);
    assert_int_equal(wc_os_modified_seconds(&st), 0);
}

static void room_is_reserved_where_that_can_be(void **state)
{
    const struct lab *lab = *state;
    struct stat st;
    for (size_t i = 0; i < 3; i++) {
        const int errors[] = {ENOSPC, EDQUOT, EOPNOTSUPP};
        int rc;
        below_fail("fallocate", errors[i], 1);
        rc = wc_os_reserve(lab->fd, 100);
        /* Of the last, and where nothing is reserved, the writes will tell. */
        assert_int_equal(rc, below_off() || i == 2 ? 0 : -errors[i]);
    }
    assert_int_equal(wc_os_reserve(lab->fd, 4096), 0);
    assert_int_equal(fstat(lab->fd, &st), 0);
    assert_true(st.st_size == sizeof(text) || st.st_size == 4096);
}

/* ---- directories ---- */

static void a_new_directory_has_its_mode_whatever_is_missing(void **state)
{
    struct lab *lab = *state;
    const mode_t before = umask(077);
    assert_int_equal(wc_os_mkdir_at(lab->at, "a", 0755), 0);
    below_fail("fchmodat", EOPNOTSUPP, 1); /* an old libc, or no /proc */
    assert_int_equal(wc_os_mkdir_at(lab->at, "b", 0755), 0);
    assert_int_equal(below_off(), 0);
    assert_int_equal(scratch_mode(scratch_in(&lab->scratch, "a")), 0755);
    assert_int_equal(scratch_mode(scratch_in(&lab->scratch, "b")), 0755);
    below_fail("fchmodat", EOPNOTSUPP, 1);
    below_fail("openat", EMFILE, 1);
    assert_int_equal(wc_os_mkdir_at(lab->at, "d", 0755), -EMFILE);
    assert_int_equal(below_off(), 0);
    below_give("geteuid", 12345, 1); /* it was exchanged for somebody else's: left as it is */
    assert_int_equal(wc_os_mkdir_at(lab->at, "c", 0755), 0);
    assert_int_equal(scratch_mode(scratch_in(&lab->scratch, "c")), 0700);
    assert_int_equal(below_off(), 0);
    below_give("mkdirat", 0, 1); /* or for a file */
    assert_int_equal(wc_os_mkdir_at(lab->at, "file", 0755), 0);
    assert_int_equal(scratch_mode(lab->path), 0600);
    assert_int_equal(below_off(), 0);
    umask(before);
}

static void a_relative_path_is_made_absolute(void **state)
{
    struct lab *lab = *state;
    char *here = getcwd(NULL, 0), *gone = scratch_in(&lab->scratch, "gone"), *out;
    assert_int_equal(chdir("/"), 0);
    out = wc_os_absolute("cache");
    assert_string_equal(out, "/cache");
    free(out);
    /* Without a working directory it stays what it is. */
    assert_int_equal(mkdir(gone, 0700), 0);
    assert_int_equal(chdir(gone), 0);
    assert_int_equal(rmdir(gone), 0);
    out = wc_os_absolute("cache");
    assert_string_equal(out, "cache");
    free(out);
    assert_int_equal(chdir(here), 0);
    free(here);
}

/* ---- memory ---- */

static void memory_is_not_wiped_where_the_system_cannot(void **state)
{
    int wipes = 7;
    void *bytes;
    (void)state;
    below_fail("madvise", EINVAL, 1);
    bytes = wc_os_wiped_memory(100, &wipes);
    assert_non_null(bytes);
    assert_int_equal(wipes, 0);
    assert_int_equal(below_off(), 0);
    wc_os_unmap(bytes, 100);
    wc_os_unmap(NULL, 100);
}

static void a_view_fails_where_its_pages_cannot_be_had(void **state)
{
    const struct lab *lab = *state;
    const void *view = NULL;
    if (!scratch_has_views())
        skip();
    below_fail("mmap", ENODEV, 1);
    assert_int_equal(wc_os_view(lab->fd, 0, sizeof(text), &view), -ENODEV);
    below_fail("madvise", EFAULT, 1);
    assert_int_equal(wc_os_view(lab->fd, 0, sizeof(text), &view), -EFAULT);
    assert_int_equal(below_off(), 0);
    assert_null(view);
}

/* Whether the advice is known is found out once in a process. */
static int in_an_emulator(void *argument)
{
    const struct lab *lab = argument;
    const void *view = NULL;
    below_fail("mmap", ENOMEM, 1);
    if (wc_os_view(lab->fd, 0, sizeof(text), &view) != -EOPNOTSUPP)
        return 1;
    below_give("madvise", 0, 1); /* it takes any advice, and does nothing */
    if (wc_os_view(lab->fd, 0, sizeof(text), &view) != -EOPNOTSUPP || below_off())
        return 2;
    return wc_os_view(lab->fd, 0, sizeof(text), &view) == -EOPNOTSUPP ? 0 : 3;
}

static void there_are_no_views_where_advice_is_ignored(void **state)
{
    if (!scratch_has_views())
        skip();
    assert_int_equal(scratch_child(in_an_emulator, *state, 0, 30), 0);
}

static void short_is_who_has_no_descriptor_or_memory_left(void **state)
{
    const struct lab *lab = *state;
    assert_int_equal(wc_os_is_short(lab->fd, 1000), 0);
    assert_int_equal(wc_os_is_short(9999, 1000), 1);
    assert_int_equal(wc_os_is_short(lab->fd, SIZE_MAX / 2), 1);
    allocation_fail(1, 0);
    assert_int_equal(wc_os_is_short(lab->fd, 1000), 1);
    allocation_off();
}

/* ---- the machine ---- */

/* What /proc has in the place of the boot id. */
static int boot_id_of(struct lab *lab, const char *content, size_t size, uint8_t out[16])
{
    char *path = scratch_in(&lab->scratch, "boot_id");
    int rc;
    scratch_write(path, content, size, 0600);
    below_open("/proc/sys/kernel/random/boot_id", path);
    rc = wc_os_boot_id(out);
    (void)below_off();
    return rc;
}

static void a_boot_id_is_sixteen_bytes_of_hex_or_none(void **state)
{
    const uint8_t want[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                              0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    static const char good[] = "01234567-89ab-cdef-0123-456789abcdef\n";
    struct lab *lab = *state;
    uint8_t out[16];
    char bad[sizeof(good)];
    assert_int_equal(boot_id_of(lab, good, strlen(good), out), 0);
    assert_memory_equal(out, want, sizeof(want));
    assert_int_equal(boot_id_of(lab, good, 20, out), -ENOENT);
    for (size_t i = 0; i < 36; i++) {
        if (good[i] == '-')
            continue;
        strcpy(bad, good);
        bad[i] = 'g';
        assert_int_equal(boot_id_of(lab, bad, strlen(good), out), -ENOENT);
        bad[i] = '\0';
        assert_int_equal(boot_id_of(lab, bad, strlen(good), out), -ENOENT);
    }
    below_open("/proc/sys/kernel/random/boot_id", "/nowhere");
    assert_int_equal(wc_os_boot_id(out), -ENOENT);
}

static void there_is_always_a_processor(void **state)
{
    cpu_set_t set;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
    assert_int_equal(wc_os_cpus(), CPU_COUNT(&set));
    below_fail("sched_getaffinity", EINVAL, 1); /* more than the set has room for */
    assert_int_equal(wc_os_cpus(), sysconf(_SC_NPROCESSORS_ONLN));
    below_fail("sched_getaffinity", EINVAL, 1);
    below_give("sysconf", -1, 1);
    assert_int_equal(wc_os_cpus(), 1);
    below_give("sched_getaffinity", 0, 1); /* of none */
    assert_int_equal(wc_os_cpus(), 1);
    assert_int_equal(below_off(), 0);
}

static void a_processor_that_cannot_be_told_has_no_name(void **state)
{
    uint8_t out[64];
    (void)state;
    assert_true(wc_os_cpu(out) > 0 && wc_os_cpu(out) <= 64);
    wc_os_lacking = WC_OS_NO_CPU;
    assert_int_equal(wc_os_cpu(out), 0);
    wc_os_lacking = 0;
}

static void a_clock_before_1970_stands_at_its_beginning(void **state)
{
    (void)state;
    wc_os_wall_forced = -2000000000;
    assert_int_equal(wc_os_wall_seconds(), 0);
    wc_os_wall_forced = 2000000000;
    assert_int_equal(wc_os_wall_seconds(), 2);
    wc_os_wall_forced = -1;
    assert_true(wc_os_wall_seconds() > 2);
}

/* ---- threads ---- */

static void *nothing(void *argument)
{
    return argument;
}

static void a_thread_that_cannot_start_says_why(void **state)
{
    static const char *const calls[] = {"pthread_attr_init", "pthread_attr_setstacksize",
                                        "pthread_create"};
    pthread_t thread;
    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        below_fail(calls[i], EAGAIN, 1);
        assert_int_equal(wc_os_thread_start(&thread, 100000, nothing, NULL), -EAGAIN);
        assert_int_equal(below_off(), 0);
    }
    assert_int_equal(wc_os_thread_start(&thread, 100000, nothing, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void a_condition_that_cannot_be_had_says_why(void **state)
{
    static const char *const calls[] = {"pthread_condattr_init", "pthread_condattr_setclock",
                                        "pthread_cond_init"};
    pthread_cond_t cond;
    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
        below_fail(calls[i], ENOMEM, 1);
        assert_int_equal(wc_os_cond_init(&cond), -ENOMEM);
        assert_int_equal(below_off(), 0);
    }
    assert_int_equal(wc_os_cond_init(&cond), 0);
    pthread_cond_destroy(&cond);
}

static int no_wait_is_spared(uint64_t ns)
{
    (void)ns;
    return 0;
}

static void a_wait_that_a_test_does_not_take_over_is_one(void **state)
{
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t cond;
    uint64_t start = wc_os_monotonic_ns();
    (void)state;
    wc_os_wait_hook = no_wait_is_spared;
    wc_os_sleep(2000000);
    assert_true(wc_os_monotonic_ns() - start >= 2000000);
    assert_int_equal(wc_os_cond_init(&cond), 0);
    start = wc_os_monotonic_ns();
    pthread_mutex_lock(&lock);
    wc_os_cond_wait(&cond, &lock, 2000000);
    pthread_mutex_unlock(&lock);
    wc_os_wait_hook = NULL;
    assert_true(wc_os_monotonic_ns() - start >= 2000000);
    pthread_cond_destroy(&cond);
}

static void a_bell_is_a_pipe_where_there_is_no_eventfd(void **state)
{
    static const int errors[] = {ENOSYS, EINVAL, ENODEV, EPERM};
    struct wc_os_bell bell = WC_OS_BELL_INIT;
    const unsigned before = scratch_descriptors();
    char byte;
    (void)state;
    for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
        below_fail("eventfd", errors[i], 1);
        assert_int_equal(wc_os_bell_open(&bell), 0);
        assert_int_equal(below_off(), 0);
        assert_int_not_equal(bell.fd, bell.ring_fd);
        wc_os_bell_ring(&bell);
        wc_os_bell_ring(&bell);
        wc_os_bell_hush(&bell);
        assert_int_equal(read(bell.fd, &byte, 1), -1);
        wc_os_bell_close(&bell);
    }
    below_fail("eventfd", EMFILE, 1);
    assert_int_equal(wc_os_bell_open(&bell), -EMFILE);
    wc_os_lacking = WC_OS_NO_EVENTFD;
    below_fail("pipe2", EMFILE, 1);
    assert_int_equal(wc_os_bell_open(&bell), -EMFILE);
    assert_int_equal(below_off(), 0);
    assert_int_equal(bell.fd, -1);
    assert_int_equal(scratch_descriptors(), before);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(there_are_no_views_where_advice_is_ignored), /* first: it is asked once */
        TEST(a_signal_interrupts_no_call),
        TEST(what_comes_in_pieces_is_put_together),
        TEST(a_write_of_nothing_is_an_error_and_not_for_ever),
        TEST(what_fails_says_why),
        TEST(whether_a_directory_can_be_written_is_asked_twice),
        TEST(a_system_without_links_says_so_in_one_way),
        TEST(a_link_is_read_whole_or_not),
        TEST(a_path_of_a_descriptor_is_for_that_file_only),
        TEST(what_is_older_than_1970_was_modified_then),
        TEST(room_is_reserved_where_that_can_be),
        TEST(a_new_directory_has_its_mode_whatever_is_missing),
        TEST(a_relative_path_is_made_absolute),
        TEST(memory_is_not_wiped_where_the_system_cannot),
        TEST(a_view_fails_where_its_pages_cannot_be_had),
        TEST(short_is_who_has_no_descriptor_or_memory_left),
        TEST(a_boot_id_is_sixteen_bytes_of_hex_or_none),
        TEST(there_is_always_a_processor),
        TEST(a_processor_that_cannot_be_told_has_no_name),
        TEST(a_clock_before_1970_stands_at_its_beginning),
        TEST(a_thread_that_cannot_start_says_why),
        TEST(a_condition_that_cannot_be_had_says_why),
        TEST(a_wait_that_a_test_does_not_take_over_is_one),
        TEST(a_bell_is_a_pipe_where_there_is_no_eventfd),
    };
    return cmocka_run_group_tests_name("seam", tests, NULL, NULL);
}
