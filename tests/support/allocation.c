/* SPDX-License-Identifier: Apache-2.0 */
/* Goes with wasmcache_internal, in which src/CMakeLists.txt puts these names in the place of the
 * usual ones. */
#define _GNU_SOURCE
#include "allocation.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <xxhash.h>

static struct {
    atomic_int on, met, sticky;
    atomic_uint calls, nth;
} now;

static void start(unsigned nth, int sticky)
{
    allocation_off();
    atomic_store(&now.calls, 0);
    atomic_store(&now.met, 0);
    atomic_store(&now.nth, nth);
    atomic_store(&now.sticky, sticky);
    atomic_store(&now.on, 1);
}

void allocation_record(void)
{
    start(0, 0);
}

void allocation_fail(unsigned nth, int sticky)
{
    start(nth, sticky);
}

void allocation_off(void)
{
    atomic_store(&now.on, 0);
}

int allocation_met(void)
{
    return atomic_load(&now.met);
}

unsigned allocation_calls(void)
{
    return atomic_load(&now.calls);
}

/* 1: this one fails. */
static int fails(void)
{
    unsigned nth, call;
    if (!atomic_load(&now.on))
        return 0;
    nth = atomic_load(&now.nth);
    call = atomic_fetch_add(&now.calls, 1) + 1;
    if (!nth || call < nth || (call > nth && !atomic_load(&now.sticky)))
        return 0;
    atomic_store(&now.met, 1);
    errno = ENOMEM;
    return 1;
}

/* ---- what the library calls ---- */

/* Of below.c: what is not wanting is what a test may have put there. */
FILE *below_fopen(const char *path, const char *mode);
void *below_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);

void *allocation_malloc(size_t size);
void *allocation_calloc(size_t count, size_t size);
void *allocation_realloc(void *old, size_t size);
char *allocation_strdup(const char *text);
char *allocation_strndup(const char *text, size_t most);
int allocation_posix_memalign(void **out, size_t alignment, size_t size);
FILE *allocation_fopen(const char *path, const char *mode);
ssize_t allocation_getline(char **line, size_t *room, FILE *file);
ssize_t allocation___getdelim(char **line, size_t *room, int end, FILE *file);
DIR *allocation_fdopendir(int fd);
char *allocation_getcwd(char *out, size_t size);
void *allocation_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
XXH3_state_t *allocation_XXH3_createState(void);
XXH64_state_t *allocation_XXH64_createState(void);

void *allocation_malloc(size_t size)
{
    return fails() ? NULL : malloc(size);
}

void *allocation_calloc(size_t count, size_t size)
{
    return fails() ? NULL : calloc(count, size);
}

void *allocation_realloc(void *old, size_t size)
{
    return fails() ? NULL : realloc(old, size);
}

char *allocation_strdup(const char *text)
{
    return fails() ? NULL : strdup(text);
}

char *allocation_strndup(const char *text, size_t most)
{
    return fails() ? NULL : strndup(text, most);
}

int allocation_posix_memalign(void **out, size_t alignment, size_t size)
{
    return fails() ? ENOMEM : posix_memalign(out, alignment, size);
}

FILE *allocation_fopen(const char *path, const char *mode)
{
    return fails() ? NULL : below_fopen(path, mode);
}

/* As the one of the C library: without memory the file has no error, and is not at its end. */
ssize_t allocation_getline(char **line, size_t *room, FILE *file)
{
    return fails() ? -1 : getline(line, room, file);
}

ssize_t allocation___getdelim(char **line, size_t *room, int end, FILE *file)
{
    return fails() ? -1 : getdelim(line, room, end, file);
}

DIR *allocation_fdopendir(int fd)
{
    return fails() ? NULL : fdopendir(fd);
}

char *allocation_getcwd(char *out, size_t size)
{
    return fails() ? NULL : getcwd(out, size);
}

void *allocation_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    return flags & MAP_ANONYMOUS && fails() ? MAP_FAILED
                                            : below_mmap(at, size, protection, flags, fd, offset);
}

XXH3_state_t *allocation_XXH3_createState(void)
{
    return fails() ? NULL : XXH3_createState();
}

XXH64_state_t *allocation_XXH64_createState(void)
{
    return fails() ? NULL : XXH64_createState();
}
