/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "torture/trace.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GO, FAIL, SHORT, ANSWER, KILL };

/* Closing this descriptor, which nobody has, switches what is told off. */
#define OFF_FD (-4242)

/* ---- the calls ---- */

/* count: the argument that has a number of bytes, path: the one that has a path; -1. */
struct known {
    long number;
    const char *name;
    int count, path;
};

/* brk is not among them: it never fails in a way that libc could see. */
#define CALL(name, count, path) {SYS_##name, #name, count, path},
static const struct known all_known[] = {
#ifdef SYS_open
    CALL(open, -1, 0)
#endif
        CALL(openat, -1, 1)
#ifdef SYS_openat2
            CALL(openat2, -1, 1)
#endif
                CALL(close, -1, -1) CALL(read, 2, -1) CALL(write, 2, -1) CALL(pread64, 2, -1) CALL(
                    pwrite64, 2, -1) CALL(fstat, -1, -1)
#ifdef SYS_stat
                    CALL(stat, -1, 0) CALL(lstat, -1, 0) CALL(mkdir, -1, 0) CALL(
                        unlink, -1, 0) CALL(rename, -1, 0) CALL(readlink, -1,
                                                                0) CALL(access, -1, 0) CALL(pipe,
                                                                                            -1, -1)
#endif
                        CALL(newfstatat, -1, 1)
#ifdef SYS_statx
                            CALL(statx, -1, 1)
#endif
                                CALL(statfs, -1,
                                     0) CALL(fstatfs, -1, -1)
                                    CALL(getdents64, -1, -1) CALL(lseek, -1, -1) CALL(fsync, -1, -1) CALL(
                                        fdatasync, -1, -1) CALL(fchmod, -1, -1)
                                        CALL(fchmodat, -1, 1) CALL(fallocate, -1, -1) CALL(
                                            ftruncate, -1, -1) CALL(linkat, -1, 3)
                                            CALL(unlinkat, -1, 1) CALL(mkdirat, -1,
                                                                       1) CALL(renameat2, -1, 3)
#ifdef SYS_renameat
                                                CALL(renameat, -1, 3)
#endif
                                                    CALL(readlinkat, -1,
                                                         1) CALL(utimensat, -1, 1)
                                                        CALL(faccessat, -1, 1)
#ifdef SYS_faccessat2
                                                            CALL(faccessat2, -1, 1)
#endif
                                                                CALL(fcntl, -1,
                                                                     -1) CALL(flock, -1,
                                                                              -1) CALL(dup, -1, -1)
                                                                    CALL(getcwd, -1, -1) CALL(
                                                                        mmap, -1,
                                                                        -1) CALL(mprotect, -1, -1)
                                                                        CALL(mremap, -1, -1) CALL(
                                                                            madvise,
                                                                            -1,
                                                                            -1) CALL(getrandom, 1, -1)
                                                                            CALL(eventfd2, -1,
                                                                                 -1) CALL(pipe2, -1,
                                                                                          -1)
                                                                                CALL(
                                                                                    sched_getaffinity,
                                                                                    -1, -1)
#ifdef SYS_clone3
                                                                                    CALL(clone3, -1,
                                                                                         -1)
#endif
};
#undef CALL

static const struct known *know(long number)
{
    for (size_t i = 0; i < sizeof(all_known) / sizeof(*all_known); i++)
        if (all_known[i].number == number)
            return &all_known[i];
    return NULL;
}

static const struct known *known_of(const struct trace_call *call)
{
    for (size_t i = 0; i < sizeof(all_known) / sizeof(*all_known); i++)
        if (all_known[i].name == call->name)
            return &all_known[i];
    return NULL;
}

int trace_can_be_interrupted(const char *call)
{
    static const char *const calls[] = {"openat",    "openat2",  "close",   "read",      "write",
                                        "pread64",   "pwrite64", "fsync",   "fdatasync", "flock",
                                        "fallocate", "statfs",   "fstatfs", "getrandom"};
    for (size_t i = 0; i < sizeof(calls) / sizeof(*calls); i++)
        if (strcmp(calls[i], call) == 0)
            return 1;
    return 0;
}

void trace_fail(struct trace_call *call, int error)
{
    call->order = FAIL;
    call->value = error;
}

void trace_answer(struct trace_call *call, int64_t value)
{
    call->order = ANSWER;
    call->value = value;
}

void trace_kill(struct trace_call *call)
{
    call->order = KILL;
}

int trace_counts_bytes(const struct trace_call *call, uint64_t *count)
{
    const struct known *k = known_of(call);
    if (!k || k->count < 0)
        return 0;
    *count = call->arguments[k->count];
    return 1;
}

int trace_shorten(struct trace_call *call, uint64_t bytes)
{
    uint64_t count;
    if (!trace_counts_bytes(call, &count))
        return 0;
    call->order = SHORT;
    call->value = (int64_t)(bytes < count ? bytes : count);
    return 1;
}

const char *trace_path(const struct trace_call *call, char *out, unsigned size)
{
    const struct known *k = known_of(call);
    struct iovec ours, theirs;
    ssize_t n = -1;
    out[0] = '\0';
    if (!k || k->path < 0 || !call->arguments[k->path])
        return out;
    /* In pieces that do not cross a page: what follows may not be mapped. */
    for (unsigned used = 0; used + 1 < size;) {
        uint64_t from = call->arguments[k->path] + used;
        size_t piece = 4096 - (size_t)(from % 4096);
        if (piece > size - 1 - used)
            piece = size - 1 - used;
        ours = (struct iovec){out + used, piece};
        theirs = (struct iovec){(void *)(uintptr_t)from, piece};
        n = process_vm_readv(call->thread, &ours, 1, &theirs, 1, 0);
        if (n <= 0)
            break;
        used += (unsigned)n;
        out[used] = '\0';
        if (strlen(out) < used)
            break;
    }
    return out;
}

/* ---- registers ---- */

#if defined(__x86_64__)
static long peek(pid_t t, size_t offset)
{
    return ptrace(PTRACE_PEEKUSER, t, offset, 0);
}
#define REGISTER(name) offsetof(struct user_regs_struct, name)
static const size_t argument_registers[6] = {REGISTER(rdi), REGISTER(rsi), REGISTER(rdx),
                                             REGISTER(r10), REGISTER(r8),  REGISTER(r9)};
static void set_argument(pid_t t, int which, uint64_t value)
{
    ptrace(PTRACE_POKEUSER, t, argument_registers[which], value);
}
static void skip_call(pid_t t)
{
    ptrace(PTRACE_POKEUSER, t, REGISTER(orig_rax), -1L);
}
static void set_result(pid_t t, int64_t value)
{
    ptrace(PTRACE_POKEUSER, t, REGISTER(rax), value);
}
static const char *unsupported(void)
{
    (void)peek;
    return NULL;
}
#elif defined(__aarch64__)
static void set_x(pid_t t, int which, uint64_t value)
{
    struct user_pt_regs regs;
    struct iovec io = {&regs, sizeof(regs)};
    if (ptrace(PTRACE_GETREGSET, t, NT_PRSTATUS, &io) == 0) {
        regs.regs[which] = value;
        ptrace(PTRACE_SETREGSET, t, NT_PRSTATUS, &io);
    }
}
static void set_argument(pid_t t, int which, uint64_t value)
{
    set_x(t, which, value);
}
static void skip_call(pid_t t)
{
    int number = -1;
    struct iovec io = {&number, sizeof(number)};
    ptrace(PTRACE_SETREGSET, t, NT_ARM_SYSTEM_CALL, &io);
}
static void set_result(pid_t t, int64_t value)
{
    set_x(t, 0, (uint64_t)value);
}
static const char *unsupported(void)
{
    return NULL;
}
#else
static void set_argument(pid_t t, int which, uint64_t value)
{
    (void)t, (void)which, (void)value;
}
static void skip_call(pid_t t)
{
    (void)t;
}
static void set_result(pid_t t, int64_t value)
{
    (void)t, (void)value;
}
static const char *unsupported(void)
{
    return "system calls are changed on x86-64 and arm64 only";
}
#endif

/* ---- the child ---- */

void trace_on(void)
{
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
        _exit(99);
    raise(SIGSTOP);
}

void trace_off(void)
{
    syscall(SYS_close, OFF_FD);
}

/* ---- the tracer ---- */

struct thread {
    pid_t id;
    const struct known *in; /* the call that it is in, if it is told of */
    struct trace_call call;
};

#define THREADS_MAX 64

static volatile sig_atomic_t alarmed;
static void on_alarm(int signal)
{
    (void)signal;
    alarmed = 1;
}

static struct thread *thread_of(struct thread *threads, pid_t id)
{
    for (int i = 0; i < THREADS_MAX; i++)
        if (threads[i].id == id)
            return &threads[i];
    for (int i = 0; i < THREADS_MAX; i++)
        if (!threads[i].id) {
            memset(&threads[i], 0, sizeof(threads[i]));
            threads[i].id = id;
            return &threads[i];
        }
    abort();
}

/* Carries out at a stop what the order says. 1: the process was killed. */
static int obey(struct thread *t, pid_t child, int entry)
{
    struct trace_call *call = &t->call;
    if (call->order == KILL) {
        kill(child, SIGKILL);
        return 1;
    }
    if (entry) {
        if (call->order == SHORT)
            set_argument(t->id, t->in->count, (uint64_t)call->value);
        else if (call->order == ANSWER || (call->order == FAIL && strcmp(call->name, "close") != 0))
            skip_call(t->id);
        return 0;
    }
    if (call->order == SHORT)
        set_argument(t->id, t->in->count, call->arguments[t->in->count]);
    else if (call->order == FAIL)
        set_result(t->id, -call->value);
    else if (call->order == ANSWER)
        set_result(t->id, call->value);
    return 0;
}

/* What a stop at a system call asks for. 1: the process was killed. */
static int at_call(struct thread *t, pid_t child, trace_fn at, void *payload, int *on,
                   unsigned *calls)
{
    struct __ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, t->id, sizeof(info), &info) <= 0)
        return 0;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        t->in = NULL;
        if (info.entry.nr == SYS_close && (int)info.entry.args[0] == OFF_FD)
            *on = 0;
        if (!*on || (t->in = know((long)info.entry.nr)) == NULL)
            return 0;
        memset(&t->call, 0, sizeof(t->call));
        t->call.nth = ++*calls;
        t->call.name = t->in->name;
        t->call.thread = t->id;
        t->call.process = child;
        for (int i = 0; i < 6; i++)
            t->call.arguments[i] = info.entry.args[i];
        at(&t->call, payload);
        return obey(t, child, 1);
    }
    if (info.op == PTRACE_SYSCALL_INFO_EXIT && t->in) {
        int killed;
        t->call.at_exit = 1;
        t->call.result = info.exit.rval;
        if (t->call.order == GO)
            at(&t->call, payload);
        killed = obey(t, child, 0);
        t->in = NULL;
        return killed;
    }
    return 0;
}

static void start_watch(unsigned seconds, struct sigaction *old)
{
    struct sigaction action;
    struct itimerval timer = {{0, 100000}, {(time_t)seconds, 0}};
    memset(&action, 0, sizeof(action));
    action.sa_handler = on_alarm; /* without SA_RESTART: it ends a wait */
    alarmed = 0;
    sigaction(SIGALRM, &action, old);
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void stop_watch(const struct sigaction *old)
{
    const struct itimerval none = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &none, NULL);
    sigaction(SIGALRM, old, NULL);
}

static void take_end(struct trace_end *end, int status)
{
    if (WIFEXITED(status))
        end->exit_status = WEXITSTATUS(status);
    else
        end->signal = WTERMSIG(status);
}

void trace(struct trace_end *end, int (*body)(void *), void *argument, trace_fn at, void *payload,
           unsigned seconds)
{
    static struct thread threads[THREADS_MAX];
    struct sigaction old;
    pid_t child;
    int status, on = 1, started = 0;

    memset(end, 0, sizeof(*end));
    end->exit_status = -1;
    memset(threads, 0, sizeof(threads));
    fflush(NULL);
    child = fork();
    if (child < 0) {
        perror("fork");
        exit(1);
    }
    if (child == 0)
        _exit(body(argument));
    start_watch(seconds, &old);
    for (;;) {
        pid_t id = waitpid(-1, &status, __WALL);
        long deliver = 0;
        if (id < 0 && errno == EINTR) {
            if (alarmed) {
                end->late = 1;
                kill(child, SIGKILL);
            }
            continue;
        }
        if (id < 0)
            break;
        if (!WIFSTOPPED(status)) {
            if (id == child)
                take_end(end, status);
            thread_of(threads, id)->id = 0;
            if (id == child)
                break;
            continue;
        }
        if (id == child && !started) {
            started = 1;
            ptrace(PTRACE_SETOPTIONS, child, 0,
                   PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL);
        } else if (WSTOPSIG(status) == (SIGTRAP | 0x80)) {
            if (!end->late && at_call(thread_of(threads, id), child, at, payload, &on, &end->calls))
                continue;
        } else if (status >> 16 == 0 && WSTOPSIG(status) != SIGSTOP &&
                   WSTOPSIG(status) != SIGTRAP) {
            deliver = WSTOPSIG(status);
        }
        ptrace(PTRACE_SYSCALL, id, 0, deliver);
    }
    stop_watch(&old);
}

static int nothing(void *argument)
{
    (void)argument;
    trace_on();
    close(-1);
    trace_off();
    return 7;
}

static void look_on(struct trace_call *call, void *payload)
{
    (void)payload;
    (void)call;
}

const char *trace_missing(void)
{
    static int tried;
    static const char *missing;
    if (!tried) {
        struct trace_end end;
        tried = 1;
        missing = unsupported();
        if (!missing) {
            trace(&end, nothing, NULL, look_on, NULL, 5);
            if (end.exit_status != 7 || end.calls == 0)
                missing = "ptrace is not allowed here";
        }
    }
    return missing;
}
