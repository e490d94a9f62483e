/* SPDX-License-Identifier: Apache-2.0 */
/* others.h: copies of directories, and what is in them. */
#define _GNU_SOURCE
#include "others.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

static void copy_file(const char *from, const char *to, const struct stat *st)
{
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    size_t size;
    uint8_t *bytes = scratch_read(from, &size);
    scratch_write(to, bytes, size, st->st_mode & 07777);
    assert_int_equal(utimensat(AT_FDCWD, to, times, 0), 0);
    free(bytes);
}

void tree_copy(const char *from, const char *to)
{
    struct dirent *entry;
    struct stat st;
    DIR *dir = opendir(from);
    assert_non_null(dir);
    assert_int_equal(mkdir(to, 0700), 0);
    while ((entry = readdir(dir)) != NULL) {
        char source[1024], target[1024];
        /* Ours: hints are about files that these copies are not. */
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            strncmp(entry->d_name, ".hints-", 7) == 0)
            continue;
        snprintf(source, sizeof(source), "%s/%s", from, entry->d_name);
        snprintf(target, sizeof(target), "%s/%s", to, entry->d_name);
        assert_int_equal(lstat(source, &st), 0);
        if (S_ISDIR(st.st_mode))
            tree_copy(source, target);
        else if (S_ISREG(st.st_mode))
            copy_file(source, target, &st);
    }
    closedir(dir);
    assert_int_equal(stat(from, &st), 0);
    assert_int_equal(chmod(to, st.st_mode & 07777), 0);
}

const char *tree_next(const char **tree, char *out, size_t size)
{
    const char *end = strchr(*tree, '\n');
    if (!end || (size_t)(end - *tree) >= size)
        return NULL;
    memcpy(out, *tree, (size_t)(end - *tree));
    out[end - *tree] = '\0';
    *tree = end + 1;
    return out;
}

int tree_has(const char *tree, const char *path)
{
    char line[1024];
    while (tree_next(&tree, line, sizeof(line)))
        if (strcmp(line, path) == 0)
            return 1;
    return 0;
}

char *tree_new_file(struct scratch *s, const char *dir, const char *before, const char *after)
{
    char line[1024], *found = NULL;
    off_t largest = -1;
    while (tree_next(&after, line, sizeof(line))) {
        char *path = scratch_text(s, "%s/%s", dir, line);
        struct stat st;
        if (!tree_has(before, line) && lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
            st.st_size > largest) {
            largest = st.st_size;
            found = path;
        }
    }
    return found;
}

void tree_age(const char *path)
{
    struct timespec times[2];
    struct dirent *entry;
    DIR *dir = opendir(path);
    clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= 86400;
    times[1] = times[0];
    while (dir && (entry = readdir(dir)) != NULL) {
        char child[1024];
        snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, "..") == 0 || strcmp(entry->d_name, ".") == 0)
            continue;
        if (entry->d_type == DT_DIR)
            tree_age(child);
        (void)utimensat(AT_FDCWD, child, times, AT_SYMLINK_NOFOLLOW);
    }
    if (dir)
        closedir(dir);
}
