/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "support/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct scratch_string {
    struct scratch_string *next;
    char text[];
};

static _Noreturn void broken(const char *call, const char *path)
{
    fail_msg("%s %s: %s", call, path, strerror(errno));
    abort();
}

static char *keep(struct scratch *s, const char *text, size_t length)
{
    struct scratch_string *string = malloc(sizeof(*string) + length + 1);
    if (!string)
        abort();
    memcpy(string->text, text, length);
    string->text[length] = '\0';
    string->next = s->strings;
    s->strings = string;
    return string->text;
}

void scratch_init(struct scratch *s)
{
    const char *base = getenv("TMPDIR");
    snprintf(s->dir, sizeof(s->dir), "%s/wasmcache-test-XXXXXX", base && base[0] ? base : "/tmp");
    s->strings = NULL;
    if (!mkdtemp(s->dir) || chmod(s->dir, 0755) < 0)
        broken("mkdtemp", s->dir);
}

void scratch_end(struct scratch *s)
{
    scratch_remove(s->dir);
    while (s->strings) {
        struct scratch_string *next = s->strings->next;
        free(s->strings);
        s->strings = next;
    }
}

char *scratch_in(struct scratch *s, const char *format, ...)
{
    char path[4096];
    va_list args;
    int n = snprintf(path, sizeof(path), "%s/", s->dir);
    va_start(args, format);
    vsnprintf(path + n, sizeof(path) - (size_t)n, format, args);
    va_end(args);
    return keep(s, path, strlen(path));
}

char *scratch_text(struct scratch *s, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return keep(s, text, strlen(text));
}

/* ---- trees ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type == FTW_DNR && chmod(path, 0700) == 0) /* of an ordinary user */
        scratch_remove(path);
    else if (remove(path) < 0 && errno != ENOENT)
        broken("remove", path);
    return 0;
}

void scratch_remove(const char *path)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
        broken("nftw", path);
}

static char **tree_names;
static size_t tree_count, tree_prefix;

static int tree_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    char *name;
    (void)st;
    if (!ftw->level || strncmp(path + ftw->base, ".hints-", 7) == 0 ||
        strcmp(path + ftw->base, ".lock") == 0 || strncmp(path + ftw->base, ".tally-", 7) == 0 ||
        strcmp(path + ftw->base, ".identity") == 0)
        return 0;
    tree_names = realloc(tree_names, (tree_count + 1) * sizeof(*tree_names));
    name = malloc(strlen(path) + 2);
    if (!tree_names || !name)
        abort();
    strcpy(name, path + tree_prefix + 1);
    if (type == FTW_D || type == FTW_DNR)
        strcat(name, "/");
    tree_names[tree_count++] = name;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

const char *scratch_tree(struct scratch *s, const char *dir)
{
    size_t length = 0;
    char *text, *at;
    tree_names = NULL;
    tree_count = 0;
    tree_prefix = strlen(dir);
    if (nftw(dir, tree_one, 16, FTW_PHYS) < 0 && errno != ENOENT)
        broken("nftw", dir);
    if (tree_count)
        qsort(tree_names, tree_count, sizeof(*tree_names), by_name);
    for (size_t i = 0; i < tree_count; i++)
        length += strlen(tree_names[i]) + 1;
    text = at = malloc(length + 1);
    if (!text)
        abort();
    for (size_t i = 0; i < tree_count; i++) {
        size_t n = strlen(tree_names[i]);
        memcpy(at, tree_names[i], n);
        at += n;
        *at++ = '\n';
        free(tree_names[i]);
    }
    free(tree_names);
    at = keep(s, text, length);
    free(text);
    return at;
}

/* ---- files ---- */

static uint8_t *read_file(const char *path, size_t *size)
{
    uint8_t *bytes = NULL;
    size_t room = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t n = -1;
    *size = 0;
    if (fd < 0)
        return NULL;
    do {
        if (room - *size < 4096) {
            room = room ? room * 2 : 8192;
            bytes = realloc(bytes, room);
            if (!bytes)
                abort();
        }
        n = read(fd, bytes + *size, room - *size - 1);
        if (n > 0)
            *size += (size_t)n;
    } while (n > 0);
    close(fd);
    if (n < 0) {
        free(bytes);
        return NULL;
    }
    bytes[*size] = 0;
    return bytes;
}

uint8_t *scratch_read(const char *path, size_t *size)
{
    uint8_t *bytes = read_file(path, size);
    if (!bytes)
        broken("read", path);
    return bytes;
}

void scratch_write(const char *path, const void *bytes, size_t size, mode_t mode)
{
    char temp[4096];
    int fd;
    snprintf(temp, sizeof(temp), "%s.scratch", path);
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size || fchmod(fd, mode) < 0 ||
        close(fd) < 0 || rename(temp, path) < 0)
        broken("write", path);
}

void scratch_flip(const char *path, uint64_t bit)
{
    mode_t mode = scratch_mode(path);
    uint8_t byte;
    int fd;
    if (chmod(path, 0600) < 0)
        broken("chmod", path);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || pread(fd, &byte, 1, (off_t)(bit / 8)) != 1)
        broken("read", path);
    byte = (uint8_t)(byte ^ 1u << bit % 8);
    if (pwrite(fd, &byte, 1, (off_t)(bit / 8)) != 1 || fchmod(fd, mode) < 0 || close(fd) < 0)
        broken("write", path);
}

int scratch_same(const char *a, const char *b)
{
    size_t a_size, b_size;
    uint8_t *a_bytes = read_file(a, &a_size), *b_bytes = read_file(b, &b_size);
    int same = a_bytes && b_bytes && a_size == b_size && memcmp(a_bytes, b_bytes, a_size) == 0;
    free(a_bytes);
    free(b_bytes);
    return same;
}

static struct stat stat_of(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        broken("lstat", path);
    return st;
}

ino_t scratch_inode(const char *path)
{
    return stat_of(path).st_ino;
}

mode_t scratch_mode(const char *path)
{
    return stat_of(path).st_mode & 07777;
}

int scratch_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

unsigned scratch_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;
    if (!dir)
        broken("opendir", "/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    return count - 3; /* ".", ".." and the walk's own */
}

/* ---- children ---- */

static _Noreturn void run_child(int (*body)(void *), void *argument, uid_t uid, unsigned seconds)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS};
    const struct rlimit no_core = {0, 0};
    int status;
    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        signal(signals[i], SIG_DFL); /* cmocka's would go on with the parent's next test */
    setrlimit(RLIMIT_CORE, &no_core);
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    alarm(seconds);
    if (uid && (setgroups(0, NULL) < 0 || setgid((gid_t)uid) < 0 || setuid(uid) < 0)) {
        perror("setuid");
        _exit(99);
    }
    prctl(PR_SET_DUMPABLE, 1); /* or /proc/self stays root's, as it is for no real user */
    status = body(argument);
    fflush(NULL);
    _exit(status);
}

pid_t scratch_start(int (*body)(void *), void *argument, uid_t uid, unsigned seconds)
{
    pid_t child;
    fflush(NULL);
    child = fork();
    if (child < 0)
        broken("fork", "");
    if (child == 0)
        run_child(body, argument, uid, seconds);
    return child;
}

int scratch_wait(pid_t child)
{
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            broken("waitpid", "");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

int scratch_child(int (*body)(void *), void *argument, uid_t uid, unsigned seconds)
{
    int status = scratch_wait(scratch_start(body, argument, uid, seconds));
#if defined(__SANITIZE_ADDRESS__)
    /* The sanitizer's allocator is not made for a fork while another thread (an engine's)
     * allocates: now and then the child finds its lock taken for good. What hangs for another
     * reason does so again. */
    if (status == 100 + SIGALRM) {
        printf("a child did not end, and is started once more\n");
        status = scratch_wait(scratch_start(body, argument, uid, seconds));
    }
#endif
    return status;
}

int scratch_is_root(const char *skipped)
{
    if (geteuid() == 0)
        return 1;
    printf("skipped, since it needs root: %s\n", skipped);
    return 0;
}

/* ---- memory ---- */

static struct scratch memory;

void scratch_in_memory(void)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return;
    scratch_init(&memory);
    if (mount("tmpfs", memory.dir, "tmpfs", 0, "size=64m,mode=755") < 0)
        scratch_in_memory_end();
    else
        setenv("TMPDIR", memory.dir, 1);
}

void scratch_in_memory_end(void)
{
    if (!memory.dir[0])
        return;
    unsetenv("TMPDIR");
    (void)umount2(memory.dir, MNT_DETACH); /* who was killed a moment ago may still be in it */
    scratch_end(&memory);
    memory.dir[0] = '\0';
}

int scratch_has_views(void)
{
#ifdef MADV_POPULATE_READ
    const size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int has = page != MAP_FAILED && madvise(page, size, MADV_POPULATE_READ) == 0;
    if (page != MAP_FAILED)
        munmap(page, size);
    return has;
#else
    return 0;
#endif
}
