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

static void append(char ***list, size_t *count, char *string)
{
    /* Room doubles at each power of two, so no second number is needed. */
    if (!(*count & (*count - 1)))
        *list = checked(reallocarray(*list, *count ? *count * 2 : 1, sizeof(**list)));
    (*list)[(*count)++] = string;
}

void cli_files_operand(struct cli_files *files, char *operand)
{
    append(&files->operand_list, &files->operands, operand);
}

static bool is_wasm(const char *name)
{
    size_t length = strlen(name);

    return length > 5 && !strcmp(name + length - 5, ".wasm");
}

/* Whom to tell of a folder that gives nothing. */
struct listener {
    void (*failed)(const char *path, const char *why, void *payload);
    void *payload;
};

static int report(const struct listener *listener, const char *path, const char *why)
{
    listener->failed(path, why, listener->payload);
    return CLI_FAILED;
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

/* Links to files count, links to folders may go in circles. */
static bool is_file(const char *path, const struct stat *st)
{
    struct stat target;

    return S_ISREG(st->st_mode) ||
           (S_ISLNK(st->st_mode) && !stat(path, &target) && S_ISREG(target.st_mode));
}

static int walk(struct cli_files *files, const char *folder, const struct listener *listener)
{
    struct dirent **names = NULL;
    int count = scandir(folder, &names, not_dots, by_name);
    int status = CLI_OK;
    int i;

    if (count < 0)
        return report(listener, folder, strerror(errno));
    for (i = 0; i < count; i++) {
        const char *slash = folder[strlen(folder) - 1] == '/' ? "" : "/";
        char *path = NULL;
        struct stat st;

        if (asprintf(&path, "%s%s%s", folder, slash, names[i]->d_name) < 0)
            checked(NULL);
        free(names[i]);
        if (!lstat(path, &st)) {
            if (S_ISDIR(st.st_mode)) {
                if (walk(files, path, listener))
                    status = CLI_FAILED;
            } else if (is_wasm(path) && is_file(path, &st)) {
                append(&files->list, &files->count, path);
                path = NULL;
            }
        }
        free(path);
    }
    free(names);
    return status;
}

int cli_files_expand(struct cli_files *files,
                     void (*failed)(const char *path, const char *why, void *payload),
                     void *payload)
{
    const struct listener listener = {failed, payload};
    int status = CLI_OK;
    size_t i;

    for (i = 0; i < files->operands; i++) {
        const char *operand = files->operand_list[i];
        size_t before = files->count;
        struct stat st;

        if (stat(operand, &st) || !S_ISDIR(st.st_mode)) {
            append(&files->list, &files->count, checked(strdup(operand)));
        } else if (walk(files, operand, &listener)) {
            status = CLI_FAILED;
        } else if (files->count == before) {
            status = report(&listener, operand, "the folder has no file *.wasm in it or below it");
        }
    }
    return status;
}

void cli_files_free(struct cli_files *files)
{
    size_t i;

    for (i = 0; i < files->count; i++)
        free(files->list[i]);
    free(files->list);
    free(files->operand_list);
    memset(files, 0, sizeof(*files));
}
