/* SPDX-License-Identifier: Apache-2.0 */
/* What is mounted where, from texts of /proc that no machine of ours has. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/os.h"
#include "support/below.h"
#include "support/scratch.h"

static const char mountinfo[] = "/proc/thread-self/mountinfo";

struct lab {
    struct scratch scratch;
    int fd;         /* of the directory that is asked about */
    char *text;     /* in the place of mountinfo */
    char seen[512]; /* what was visited, a newline behind each */
};

static int set_up(void **state)
{
    static struct lab lab;
    memset(&lab, 0, sizeof(lab));
    scratch_init(&lab.scratch);
    lab.text = scratch_in(&lab.scratch, "mountinfo");
    lab.fd = open(lab.scratch.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *state = &lab;
    return lab.fd < 0;
}

static int tear_down(void **state)
{
    struct lab *lab = *state;
    (void)below_off();
    close(lab->fd);
    scratch_end(&lab->scratch);
    return 0;
}

/* The mount that the directory is reached by. */
static unsigned mount_of(int fd)
{
    char path[64], line[128];
    unsigned id = 0;
    FILE *file;
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    file = fopen(path, "re");
    assert_non_null(file);
    while (!id && fgets(line, sizeof(line), file))
        (void)sscanf(line, "mnt_id: %u", &id);
    fclose(file);
    return id;
}

static void say(struct lab *lab, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    scratch_write(lab->text, text, strlen(text), 0600);
    below_open(mountinfo, lab->text);
}

static int visit(const char *path, void *payload)
{
    struct lab *lab = payload;
    const size_t used = strlen(lab->seen);
    snprintf(lab->seen + used, sizeof(lab->seen) - used, "%s\n", path);
    return strstr(path, "stop") ? 5 : 0;
}

static int each(struct lab *lab, int fd)
{
    lab->seen[0] = '\0';
    return wc_os_each_mount_below(fd, visit, lab);
}

static void only_mounts_below_are_visited(void **state)
{
    struct lab *lab = *state;
    const char *dir = lab->scratch.dir;
    say(lab,
        "1 0 8:1 / / rw - ext4 x rw\n"
        "2 1 8:2 / %s rw - ext4 x rw\n"
        "3 1 8:2 / %s/below rw - ext4 x rw\n"
        "4 1 8:2 / %sbeside rw - ext4 x rw\n",
        dir, dir, dir);
    assert_int_equal(each(lab, lab->fd), 0);
    assert_string_equal(lab->seen, scratch_text(&lab->scratch, "%s\n%s/below\n", dir, dir));
    say(lab, "3 1 8:2 / %s/stop rw - ext4 x rw\n4 1 8:2 / %s/more rw - ext4 x rw\n", dir, dir);
    assert_int_equal(each(lab, lab->fd), 5);
    assert_null(strstr(lab->seen, "more"));
}

static void the_root_has_all_mounts_below_it(void **state)
{
    struct lab *lab = *state;
    const int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    say(lab, "1 0 8:1 / / rw - ext4 x rw\n2 1 8:2 / /a rw - ext4 x rw\n");
    assert_int_equal(each(lab, root), 0);
    assert_string_equal(lab->seen, "/\n/a\n");
    close(root);
}

static void names_are_taken_out_of_their_escapes(void **state)
{
    struct lab *lab = *state;
    const char *dir = lab->scratch.dir;
    say(lab,
        "3 1 8:2 / %s/a\\040b\\011c\\134d rw - ext4 x rw\n"
        "4 1 8:2 / %s/cut\\ rw - ext4 x rw\n"
        "4 1 8:2 / %s/cut\\0 rw - ext4 x rw\n"
        "4 1 8:2 / %s/cut\\04 rw - ext4 x rw\n",
        dir, dir, dir, dir);
    assert_int_equal(each(lab, lab->fd), 0);
    assert_string_equal(lab->seen, scratch_text(&lab->scratch,
                                                "%s/a b\tc\\d\n%s/cut\\\n%s/cut\\0\n%s/cut\\04\n",
                                                dir, dir, dir, dir));
}

static void lines_that_are_none_are_passed_over(void **state)
{
    struct lab *lab = *state;
    const char *dir = lab->scratch.dir;
    say(lab,
        "\nx\n1\n1 2\n1 2 3\n1 2 3:x\n1 2 3:4\n1 2 3:4 \n1 2 3:4 /\n1 2 3:4 / \n1 2 3:4 / %s/cut\n"
        "x 2 3:4 / %s/a r\n1 x 3:4 / %s/b r\n1 2 x:4 / %s/c r\n1 2 3:x / %s/d r\n"
        "4294967296 2 3:4 / %s/e r\n99999999999999999999 2 3:4 / %s/f r\n"
        "4294967295 2 3:4 / %s/good r\n",
        dir, dir, dir, dir, dir, dir, dir, dir);
    assert_int_equal(each(lab, lab->fd), 0);
    assert_string_equal(lab->seen, scratch_text(&lab->scratch, "%s/good\n", dir));
}

static void what_cannot_be_read_is_an_error_and_no_answer(void **state)
{
    struct lab *lab = *state;
    below_open(mountinfo, "/nowhere");
    assert_int_equal(each(lab, lab->fd), -ENOENT);
    below_open(mountinfo, lab->scratch.dir); /* opens, and cannot be read */
    assert_int_equal(each(lab, lab->fd), -EIO);
    (void)below_off();
    below_fail("readlink", EACCES, 1);
    assert_int_equal(each(lab, lab->fd), -EACCES);
    assert_int_equal(below_off(), 0);
    assert_string_equal(lab->seen, "");
}

static int place(int fd, char *out, size_t size)
{
    uint64_t fs;
    return wc_os_place_in_fs(fd, &fs, out, size);
}

static void a_place_is_told_by_the_mount_that_leads_there(void **state)
{
    struct lab *lab = *state;
    const unsigned id = mount_of(lab->fd);
    const char *dir = lab->scratch.dir, *name = strrchr(dir, '/');
    char out[PATH_MAX], above[PATH_MAX];
    uint64_t fs = 0;
    snprintf(above, sizeof(above), "%.*s", (int)(name - dir), dir);
    say(lab, "%u 0 8:1 / / rw - ext4 x rw\n", id);
    assert_int_equal(wc_os_place_in_fs(lab->fd, &fs, out, sizeof(out)), 0);
    assert_string_equal(out, dir);
    assert_int_equal(fs, UINT64_C(8) << 32 | 1);
    say(lab, "%u 0 8:1 /sub %s rw - ext4 x rw\n", id, above);
    assert_int_equal(place(lab->fd, out, sizeof(out)), 0);
    assert_string_equal(out, scratch_text(&lab->scratch, "/sub%s", name));
    assert_int_equal(place(lab->fd, out, 5), -ENAMETOOLONG);
    /* It moved while it was asked about, or is not there any more. */
    say(lab, "%u 0 8:1 / /elsewhere rw - ext4 x rw\n", id);
    assert_int_equal(place(lab->fd, out, sizeof(out)), -ENOENT);
    say(lab, "%u 0 8:1 / %.3s rw - ext4 x rw\n", id, dir);
    assert_int_equal(place(lab->fd, out, sizeof(out)), -ENOENT);
    say(lab, "%u 0 8:1 / / rw - ext4 x rw\n", id + 1);
    assert_int_equal(place(lab->fd, out, sizeof(out)), -ENOENT);
}

static void a_place_that_cannot_be_told_is_an_error(void **state)
{
    struct lab *lab = *state;
    char out[PATH_MAX], info[64];
    snprintf(info, sizeof(info), "/proc/thread-self/fdinfo/%d", lab->fd);
    below_open(info, "/nowhere");
    assert_int_equal(place(lab->fd, out, sizeof(out)), -ENOENT);
    scratch_write(lab->text, "pos: 0\n", 7, 0600); /* a kernel that does not tell */
    below_open(info, lab->text);
    assert_int_equal(place(lab->fd, out, sizeof(out)), -ENOENT);
    (void)below_off();
    below_fail("readlink", EACCES, 1);
    assert_int_equal(place(lab->fd, out, sizeof(out)), -EACCES);
    assert_int_equal(below_off(), 0);
}

static void what_has_no_path_has_no_place(void **state)
{
    struct lab *lab = *state;
    char out[PATH_MAX];
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(place(ends[0], out, sizeof(out)), -ENOENT);
    assert_int_equal(each(lab, ends[0]), -ENOENT);
    close(ends[0]);
    close(ends[1]);
}

static void without_proc_nothing_can_be_told(void **state)
{
    struct lab *lab = *state;
    char out[64];
    wc_os_lacking = WC_OS_NO_PROC;
    assert_int_equal(place(lab->fd, out, sizeof(out)), -ENOENT);
    assert_int_equal(each(lab, lab->fd), -ENOENT);
    wc_os_lacking = 0;
    assert_string_equal(lab->seen, "");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(only_mounts_below_are_visited),
        TEST(the_root_has_all_mounts_below_it),
        TEST(names_are_taken_out_of_their_escapes),
        TEST(lines_that_are_none_are_passed_over),
        TEST(what_cannot_be_read_is_an_error_and_no_answer),
        TEST(a_place_is_told_by_the_mount_that_leads_there),
        TEST(a_place_that_cannot_be_told_is_an_error),
        TEST(what_has_no_path_has_no_place),
        TEST(without_proc_nothing_can_be_told),
    };
    return cmocka_run_group_tests_name("mounts", tests, NULL, NULL);
}
