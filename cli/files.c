/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "output.h"

/* There is nothing to be saved from here: the tool has done nothing yet. */
static void *checked(void *memory)
{
    if (!memory) {
        cli_error("no memory for the list of files");
        exit(CLI_FAILED);
    }
    return memory;
}

/* Room doubles at each power of two, so no second number is needed. */
static void *grown(void *list, size_t count, size_t size)
{
    if (count & (count - 1))
        return list;
    return checked(reallocarray(list, count ? count * 2 : 1, size));
}

void cli_files_operand(struct cli_files *files, char *operand)
{
    files->operand_list = grown(files->operand_list, files->operands, sizeof(char *));
    files->operand_list[files->operands++] = operand;
}

/* `why` is copied; NULL: it is a file. Takes `path`. */
static void append(struct cli_files *files, char *path, const char *why, uint64_t bytes)
{
    struct cli_file *file;

    files->list = grown(files->list, files->count, sizeof(*files->list));
    file = &files->list[files->count++];
    file->path = checked(path);
    file->why = why ? checked(strdup(why)) : NULL;
    file->bytes = bytes;
}

static bool is_wasm(const char *name)
{
    size_t length = strlen(name);

    return length > 5 && !strcmp(name + length - 5, ".wasm");
}

static int not_dots(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* By bytes, so that the order is the same everywhere. */
static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static bool is_below(const char *path, const char *root)
{
    size_t length = strlen(root);

    return !strncmp(path, root, length) && (root[length - 1] == '/' || path[length] == '/');
}

/* Files, and links to files below `root`, which is resolved. Links to folders may go in circles.
 * *bytes: its size. */
static bool is_file(const char *path, const char *root, const struct stat *st, uint64_t *bytes)
{
    struct stat target;
    char *resolved;
    bool below;

    *bytes = (uint64_t)st->st_size;
    if (!S_ISLNK(st->st_mode))
        return S_ISREG(st->st_mode);
    if (stat(path, &target) || !S_ISREG(target.st_mode))
        return false;
    *bytes = (uint64_t)target.st_size;
    resolved = realpath(path, NULL);
    below = resolved && is_below(resolved, root);
    free(resolved);
    if (!below)
        cli_warn("%s is a link that leads out of the folder, and is left out; name it to have it",
                 path);
    return below;
}

static void walk(struct cli_files *files, const char *folder, const char *root)
{
    const char *slash = folder[strlen(folder) - 1] == '/' ? "" : "/";
    struct dirent **names = NULL;
    int count = scandir(folder, &names, not_dots, by_name);
    int i;

    if (count < 0) {
        append(files, strdup(folder), strerror(errno), 0);
        return;
    }
    for (i = 0; i < count; i++) {
        char *path = NULL;
        struct stat st;
        uint64_t bytes;

        if (asprintf(&path, "%s%s%s", folder, slash, names[i]->d_name) < 0)
            checked(NULL);
        free(names[i]);
        if (!lstat(path, &st)) {
            if (S_ISDIR(st.st_mode)) {
                walk(files, path, root);
            } else if (is_wasm(path) && is_file(path, root, &st, &bytes)) {
                append(files, path, NULL, bytes);
                path = NULL;
            }
        }
        free(path);
    }
    free(names);
}

static void expand_folder(struct cli_files *files, const char *folder)
{
    size_t before = files->count;
    char *root = realpath(folder, NULL);

    if (!root) {
        append(files, strdup(folder), strerror(errno), 0);
        return;
    }
    walk(files, folder, root);
    free(root);
    if (files->count == before)
        append(files, strdup(folder), "the folder has no file *.wasm in it or below it", 0);
}

void cli_files_expand(struct cli_files *files)
{
    size_t i;

    for (i = 0; i < files->operands; i++) {
        const char *operand = files->operand_list[i];
        struct stat st;

        if (stat(operand, &st))
            append(files, strdup(operand), NULL, 0); /* who opens it says why not */
        else if (S_ISDIR(st.st_mode))
            expand_folder(files, operand);
        else
            append(files, strdup(operand), NULL, S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0);
    }
}

void cli_files_free(struct cli_files *files)
{
    size_t i;

    for (i = 0; i < files->count; i++) {
        free(files->list[i].path);
        free(files->list[i].why);
    }
    free(files->list);
    free(files->operand_list);
    memset(files, 0, sizeof(*files));
}
