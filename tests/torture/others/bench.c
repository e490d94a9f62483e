/* SPDX-License-Identifier: Apache-2.0 */
/* others.h: runs a subject and judges what it told. */
#define _GNU_SOURCE
#include "others.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { SECONDS = 10 };

uint32_t bench_random(struct bench *b)
{
    b->seed = b->seed * 1103515245u + 12345u;
    return (b->seed >> 8) ^ (b->seed << 20);
}

int bench_must(struct bench *b, int holds, const char *format, ...)
{
    char what[400];
    va_list arguments;
    if (holds)
        return 1;
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    b->broken = 1;
    return tally_check(b->tally, 'X', 0, "%s", what);
}

void bench_prepare(struct bench *b, const char *copy)
{
    scratch_remove(b->dir);
    if (copy)
        tree_copy(copy, b->dir);
}

void bench_write_entry(struct bench *b, const void *bytes, size_t size)
{
    scratch_write(b->entry[KEY], bytes, size, scratch_mode(b->key_copy));
}

/* ---- a get ---- */

struct start {
    const struct bench *b;
    const char *wasm, *settings;
    int out, traced;
};

static int become_subject(void *argument)
{
    const struct start *start = argument;
    const char *words[10];
    const struct rlimit none = {0, 0};
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    unsigned n = 0;
    for (unsigned i = 0; start->b->subject->command[i]; i++)
        words[n++] = start->b->subject->command[i];
    words[n++] = start->wasm ? "get" : "clean";
    words[n++] = start->b->dir;
    if (start->wasm) {
        words[n++] = start->wasm;
        words[n++] = start->settings;
    }
    words[n] = NULL;
    setrlimit(RLIMIT_CORE, &none);
    if (dup2(null, 0) < 0 || dup2(start->out, 1) < 0 || dup2(null, 2) < 0 || chdir("/") < 0)
        return 98;
    if (start->traced)
        trace_on();
    execv(words[0], (char *const *)(uintptr_t)words);
    return 98;
}

static void take_line(struct told *told, const char *line)
{
    unsigned long long hex;
    int number;
    if (strcmp(line, "outcome hit") == 0) {
        told->hit = 1;
    } else if (strcmp(line, "outcome compiled") == 0) {
        told->compiled = 1;
    } else if (strcmp(line, "saved") == 0) {
        told->saved = 1;
    } else if (sscanf(line, "answer %d", &number) == 1) {
        told->answered = 1;
        told->answer = number;
    } else if (sscanf(line, "artifact %llx", &hex) == 1) {
        told->proved = 1;
        told->artifact = hex;
    } else if (strstr(line, "-error ")) {
        snprintf(told->error, sizeof(told->error), "%.180s", line);
    }
}

static void take_output(struct told *told, int out)
{
    char text[8192], *rest = text, *line;
    const ssize_t n = pread(out, text, sizeof(text) - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    while ((line = strsep(&rest, "\n")) != NULL)
        take_line(told, line);
    close(out);
}

static void wait_for(pid_t child, struct trace_end *end, const struct timespec *until)
{
    const struct timespec moment = {0, 1000000};
    int status;
    end->exit_status = -1;
    while (waitpid(child, &status, WNOHANG) == 0) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (!end->late && now.tv_sec > until->tv_sec) {
            end->late = 1;
            kill(child, SIGKILL);
        }
        nanosleep(&moment, NULL);
    }
    if (WIFEXITED(status))
        end->exit_status = WEXITSTATUS(status);
    else
        end->signal = WTERMSIG(status);
}

static int output(void)
{
    const int out = memfd_create("out", MFD_CLOEXEC);
    assert_true(out >= 0);
    return out;
}

static pid_t start_get(struct start *start)
{
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        _exit(become_subject(start));
    return child;
}

void bench_get_many(struct bench *b, struct told *told, unsigned count, enum which which)
{
    pid_t children[64];
    int outs[64];
    struct timespec until;
    fflush(NULL);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += SECONDS;
    for (unsigned i = 0; i < count; i++) {
        struct start start = {b, b->wasm[which], "default", output(), 0};
        outs[i] = start.out;
        children[i] = start_get(&start);
    }
    for (unsigned i = 0; i < count; i++) {
        memset(&told[i], 0, sizeof(told[i]));
        wait_for(children[i], &told[i].end, &until);
        take_output(&told[i], outs[i]);
    }
}

void bench_get(struct bench *b, struct told *told, enum which which, int other, trace_fn at,
               void *payload)
{
    struct start start = {b, b->wasm[which], other ? "other" : "default", output(), at != NULL};
    memset(told, 0, sizeof(*told));
    if (at) {
        trace(&told->end, become_subject, &start, at, payload, SECONDS);
    } else {
        struct timespec until;
        fflush(NULL);
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += SECONDS;
        wait_for(start_get(&start), &told->end, &until);
    }
    take_output(told, start.out);
}

/* ---- which calls ---- */

static int is_below(const struct bench *b, const char *path)
{
    const size_t length = strlen(b->dir);
    return strncmp(path, b->dir, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static int fd_is_below(const struct bench *b, pid_t thread, uint64_t fd)
{
    char link[64], path[1024];
    ssize_t n;
    if ((int)fd < 0)
        return 0;
    snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)thread, (int)fd);
    n = readlink(link, path, sizeof(path) - 1);
    path[n > 0 ? n : 0] = '\0';
    return is_below(b, path);
}

int bench_touches(const struct bench *b, const struct trace_call *call)
{
    static const char *const by_path[] = {"open",   "stat",     "lstat",  "mkdir", "unlink",
                                          "rename", "readlink", "access", "statfs"};
    static const char *const by_none[] = {
        "pipe",    "pipe2",     "dup",      "getcwd", "mprotect",         "mremap",
        "madvise", "getrandom", "eventfd2", "clone3", "sched_getaffinity"};
    char path[1024];
    for (size_t i = 0; i < sizeof(by_none) / sizeof(*by_none); i++)
        if (strcmp(call->name, by_none[i]) == 0)
            return 0;
    if (strcmp(call->name, "mmap") == 0)
        return fd_is_below(b, call->thread, call->arguments[4]);
    if (trace_path(call, path, sizeof(path))[0] == '/')
        return is_below(b, path);
    for (size_t i = 0; i < sizeof(by_path) / sizeof(*by_path); i++)
        if (strcmp(call->name, by_path[i]) == 0)
            return 0;
    return fd_is_below(b, call->thread, call->arguments[0]);
}

/* ---- judgement ---- */

void bench_judge(struct bench *b, const struct told *told, enum which which, int killed)
{
    const int right = told->answered && told->answer == b->answer[which] && told->proved &&
                      told->artifact == b->artifact[which];
    if (told->hit)
        tally_check(b->tally, 'W', right || (killed && !told->proved),
                    "a wrong artifact was taken");
    else
        tally_check(b->tally, 'W', !told->answered || told->answer == b->answer[which],
                    "compiled, and the answer is %d", (int)told->answer);
    if (killed)
        return;
    if (told->end.late)
        tally_check(b->tally, 'D', 0, "it did not end in time");
    else if (told->end.signal)
        tally_check(b->tally, 'D', told->answered, "it died of signal %d", told->end.signal);
    else
        tally_check(b->tally, 'D', told->answered, "it gave no module: exit status %d %s",
                    told->end.exit_status, told->error);
}

void bench_check_by(struct bench *b)
{
    tally_check(b->tally, 'K', scratch_same(b->entry[BY], b->by_copy),
                "the other entry was changed");
}

static void clean(struct bench *b)
{
    struct told told;
    if (b->subject->cleans) {
        struct start start = {b, NULL, NULL, output(), 0};
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += SECONDS;
        memset(&told, 0, sizeof(told));
        wait_for(start_get(&start), &told.end, &until);
        take_output(&told, start.out);
    } else if (b->subject->ages) {
        tree_age(b->dir);
        bench_get(b, &told, THIRD, 0, NULL, NULL);
    }
}

/* A path that a run without a fault does not leave; NULL: there is none. */
static const char *left_over(struct bench *b, char *out, size_t size)
{
    const char *tree = scratch_tree(&b->scratch, b->dir);
    while (tree_next(&tree, out, size)) {
        if (strncmp(out, ".cleanup.wip-", 13) == 0) /* Wasmtime's note of when it cleaned */
            continue;
        if (!tree_has(b->usual, out))
            return out;
    }
    return NULL;
}

void bench_check_left(struct bench *b)
{
    char path[1024];
    const char *left = scratch_exists(b->dir) ? left_over(b, path, sizeof(path)) : NULL;
    if (left) {
        b->left++;
        clean(b);
        left = left_over(b, path, sizeof(path));
    }
    tally_check(b->tally, 'T', left == NULL, "left over: %.200s", left ? left : "");
}

void bench_check_usable(struct bench *b, enum which which)
{
    struct told told;
    bench_get(b, &told, which, 0, NULL, NULL);
    if (!told.hit)
        bench_get(b, &told, which, 0, NULL, NULL);
    tally_check(b->tally, 'S', told.hit && told.artifact == b->artifact[which],
                "the second get after the fault is no hit %s", told.error);
}

void bench_aftermath(struct bench *b, const struct told *told, int good)
{
    struct told next;
    int stuck;
    bench_check_by(b);
    bench_get(b, &next, KEY, 0, NULL, NULL);
    bench_judge(b, &next, KEY, 0);
    if (good)
        tally_check(b->tally, 'K', next.hit, "the good entry is gone or bad");
    if (!good && told->saved)
        tally_check(b->tally, 'A', next.hit, "it said \"saved\", and the next get is no hit");
    if (!next.hit) {
        bench_get(b, &next, KEY, 0, NULL, NULL);
        bench_judge(b, &next, KEY, 0);
    }
    tally_check(b->tally, 'S', next.hit, "the second get after the fault is no hit %s", next.error);
    stuck = !next.hit;
    bench_check_left(b);
    if (stuck) {
        b->stuck++;
        bench_get(b, &next, KEY, 0, NULL, NULL);
        bench_get(b, &next, KEY, 0, NULL, NULL);
        b->freed += (unsigned long)next.hit;
    }
}

/* ---- the start ---- */

static void write_module(struct bench *b, enum which which)
{
    size_t size;
    uint8_t *wasm = others_module((uint32_t)which + 1, &size, &b->answer[which]);
    b->wasm[which] = scratch_in(&b->scratch, "module-%d.wasm", (int)which);
    scratch_write(b->wasm[which], wasm, size, 0644);
    free(wasm);
}

/* The first get compiles, the second one hits, and both have the same artifact. */
static int learn(struct bench *b, enum which which)
{
    struct told first, second;
    bench_get(b, &first, which, 0, NULL, NULL);
    bench_get(b, &second, which, 0, NULL, NULL);
    b->artifact[which] = first.artifact;
    return bench_must(b,
                      first.compiled && first.proved && second.hit && second.proved &&
                          first.answer == b->answer[which] && second.answer == first.answer &&
                          second.artifact == first.artifact,
                      "without a fault: %s, exit status %d, then %s, exit status %d; artifact "
                      "%016llx, then %016llx %s%s",
                      first.compiled ? "compiled" : "not compiled", first.end.exit_status,
                      second.hit ? "hit" : "no hit", second.end.exit_status,
                      (unsigned long long)first.artifact, (unsigned long long)second.artifact,
                      first.error, second.error);
}

int bench_init(struct bench *b, struct tally *t, const struct subject *subject, unsigned seed,
               int quick)
{
    const char *before, *after;
    struct told told;
    memset(b, 0, sizeof(*b));
    b->tally = t;
    b->subject = subject;
    b->seed = seed;
    b->quick = quick;
    scratch_init(&b->scratch);
    b->dir = scratch_in(&b->scratch, "cache");
    b->with_by = scratch_in(&b->scratch, "with-by");
    b->with_key = scratch_in(&b->scratch, "with-key");
    for (int i = 0; i < WHICH; i++)
        write_module(b, (enum which)i);
    if (!learn(b, BY))
        return -1;
    tree_copy(b->dir, b->with_by);
    before = scratch_tree(&b->scratch, b->dir);
    b->entry[BY] = tree_new_file(&b->scratch, b->dir, "", before);
    if (!learn(b, KEY))
        return -1;
    tree_copy(b->dir, b->with_key);
    after = scratch_tree(&b->scratch, b->dir);
    b->entry[KEY] = tree_new_file(&b->scratch, b->dir, before, after);
    if (!learn(b, THIRD))
        return -1;
    clean(b);
    b->usual = scratch_text(&b->scratch, "%s", scratch_tree(&b->scratch, b->dir));
    if (!bench_must(b, b->entry[BY] && b->entry[KEY], "no entry is to be seen in %s", after))
        return -1;
    b->by_copy = scratch_text(&b->scratch, "%s%s", b->with_by, b->entry[BY] + strlen(b->dir));
    b->key_copy = scratch_text(&b->scratch, "%s%s", b->with_key, b->entry[KEY] + strlen(b->dir));
    bench_prepare(b, NULL);
    bench_get(b, &told, KEY, 1, NULL, NULL);
    b->other_artifact = told.artifact;
    t->runs = 0;
    return 0;
}

void bench_end(struct bench *b)
{
    scratch_remove(b->dir);
    scratch_end(&b->scratch);
}
