/* SPDX-License-Identifier: Apache-2.0 */
#include "fuzz/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void fuzz_failed(const char *what, const char *file, int line)
{
    /* Past stdio, which a target may have turned elsewhere. */
    dprintf(STDERR_FILENO, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

static char directory[512];
static int directory_fd = -1;
static pid_t owner;

static void empty(int at, int deep)
{
    struct dirent *item;
    int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return;
    while ((item = readdir(dir)) != NULL) {
        int folder;
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        if (unlinkat(at, item->d_name, 0) == 0 || !deep)
            continue;
        folder = openat(at, item->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (folder >= 0) {
            empty(folder, 0);
            close(folder);
        }
        (void)unlinkat(at, item->d_name, AT_REMOVEDIR);
    }
    closedir(dir);
}

static void clean_up(void)
{
    if (owner != getpid()) /* the child of a fork */
        return;
    empty(directory_fd, 1);
    (void)rmdir(directory);
}

const char *fuzz_directory(void)
{
    const char *where = getenv("TMPDIR");
    if (owner == getpid())
        return directory;
    if (!where || !*where)
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(directory, sizeof(directory), "%s/wasmcache-fuzz-XXXXXX", where);
    must(mkdtemp(directory) != NULL);
    directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    must(directory_fd >= 0);
    owner = getpid();
    (void)atexit(clean_up);
    return directory;
}

int fuzz_directory_fd(void)
{
    (void)fuzz_directory();
    return directory_fd;
}

int fuzz_plant(int at, const char *name, const void *bytes, size_t size, unsigned mode)
{
    int fd;
    (void)unlinkat(at, name, 0);
    fd = openat(at, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    must(fd >= 0);
    must(!size || pwrite(fd, bytes, size, 0) == (ssize_t)size);
    must(fchmod(fd, (mode_t)mode) == 0);
    return fd;
}
