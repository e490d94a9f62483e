/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target without a fuzzer: over each file of the folders that are given, and over each
 * of them again with single bytes changed, always the same ones. So the corpus is a plain test for
 * any compiler and sanitizer. A folder without a file fails, lest a moved corpus passes unseen.
 *
 * --as-is: no byte is changed, and files of any size are taken, as coverage of a corpus is
 * measured.
 */
#include <dirent.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Changed bytes for each file: all of a small one, four ways each, or as many places of a large
 * one. */
#define MUTATIONS 2000u
#define FILE_MAX ((long)1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t executions;
static int as_is;

static void run(const uint8_t *data, size_t size)
{
    /* As libFuzzer does: memory of exactly that size. */
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    (void)LLVMFuzzerTestOneInput(copy, size);
    executions++;
    free(copy);
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void mutate(uint8_t *data, size_t size)
{
    uint64_t state = UINT64_C(0x9E3779B97F4A7C15);
    size_t mutations = size < MUTATIONS / 4 ? size * 4 : MUTATIONS;
    for (size_t i = 0; i < mutations; i++) {
        size_t at = size < MUTATIONS / 4 ? i / 4 : (size_t)(next_random(&state) % size);
        uint8_t before = data[at];
        switch (i % 4) {
        case 0:
            data[at] ^= (uint8_t)(1u << next_random(&state) % 8);
            break;
        case 1:
            data[at] = (uint8_t)(before + 1);
            break;
        case 2:
            data[at] = before ? 0 : 0xFF;
            break;
        default:
            data[at] = (uint8_t)next_random(&state);
        }
        run(data, size);
        data[at] = before;
    }
}

/* 1: a file, 0: something else, -1: it cannot be read. */
static int run_file(const char *path)
{
    struct stat st;
    uint8_t *data;
    FILE *file;
    size_t size;
    if (stat(path, &st) < 0)
        return -1;
    if (!S_ISREG(st.st_mode))
        return 0;
    if (st.st_size > FILE_MAX && !as_is) /* no seed of ours is that large */
        return -1;
    size = (size_t)st.st_size;
    data = malloc(size + 1);
    file = fopen(path, "rb");
    if (!data || !file || fread(data, 1, size + 1, file) != size || ferror(file)) {
        if (file)
            fclose(file);
        free(data);
        return -1;
    }
    fclose(file);
    run(data, size);
    if (!as_is)
        mutate(data, size);
    free(data);
    return 1;
}

static int run_folder(const char *folder)
{
    struct dirent *item;
    unsigned files = 0;
    uint64_t before = executions;
    DIR *dir = opendir(folder);
    if (!dir) {
        perror(folder);
        return -1;
    }
    while ((item = readdir(dir)) != NULL) {
        char path[4096];
        int rc;
        if (item->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", folder, item->d_name);
        rc = run_file(path);
        if (rc < 0) {
            fprintf(stderr, "%s: cannot be read, or is too large for a seed\n", path);
            closedir(dir);
            return -1;
        }
        files += (unsigned)rc;
    }
    closedir(dir);
    if (!files) {
        fprintf(stderr, "%s: there is no file in it\n", folder);
        return -1;
    }
    printf("%s: %u files, %" PRIu64 " executions\n", folder, files, executions - before);
    return 0;
}

int main(int argc, char **argv)
{
    int failed, first = 1;
    as_is = argc > 1 && strcmp(argv[1], "--as-is") == 0;
    first += as_is;
    failed = argc <= first;
    if (failed)
        fprintf(stderr, "usage: %s [--as-is] FOLDER...\n", argv[0]);
    for (int i = first; i < argc; i++)
        if (run_folder(argv[i]) < 0)
            failed = 1;
    return failed;
}
