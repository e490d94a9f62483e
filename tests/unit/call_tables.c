/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "call_tables.h"

#ifdef HAS_CALL_TABLES

#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#define COLUMN 0
#else
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#define COLUMN 1
#endif

/* ---- names ---- */

static const struct call_name {
    const char *name;
    int number; /* -1: not on this architecture */
} call_names[] = {
#define CALL(name)                                                                                 \
    {                                                                                              \
#name, __NR_##name                                                                         \
    }
#define NO_CALL(name)                                                                              \
    {                                                                                              \
#name, -1                                                                                  \
    }
    CALL(brk),
    CALL(clock_gettime),
    CALL(clock_nanosleep),
    CALL(clone),
#ifdef __NR_clone3
    CALL(clone3),
#else
    NO_CALL(clone3),
#endif
    CALL(close),
    CALL(eventfd2),
    CALL(exit),
    CALL(faccessat),
#ifdef __NR_faccessat2
    CALL(faccessat2),
#else
    NO_CALL(faccessat2),
#endif
    CALL(fallocate),
    CALL(fchmod),
    CALL(fchmodat),
#ifdef __NR_fchmodat2
    CALL(fchmodat2),
#else
    NO_CALL(fchmodat2),
#endif
#ifdef __NR_chmod
    CALL(chmod),
#else
    NO_CALL(chmod),
#endif
    CALL(fcntl),
    CALL(fdatasync),
    CALL(flock),
    CALL(fstat),
    CALL(fstatfs),
    CALL(fsync),
    CALL(futex),
    CALL(getcwd),
    CALL(getdents64),
    CALL(getegid),
    CALL(geteuid),
    CALL(getgid),
    CALL(getpid),
    CALL(getrandom),
    CALL(gettid),
    CALL(getuid),
    CALL(linkat),
    CALL(lseek),
    CALL(madvise),
    CALL(mkdirat),
    CALL(mmap),
    CALL(mprotect),
    CALL(mremap),
    CALL(munmap),
    CALL(newfstatat),
    CALL(openat),
#ifdef __NR_openat2
    CALL(openat2),
#else
    NO_CALL(openat2),
#endif
    CALL(pipe2),
    CALL(prctl),
    CALL(pread64),
    CALL(prlimit64),
    CALL(pwrite64),
    CALL(read),
#ifdef __NR_readlink
    CALL(readlink),
#else
    NO_CALL(readlink),
#endif
    CALL(readlinkat),
    CALL(renameat),
    CALL(renameat2),
    CALL(restart_syscall),
    CALL(rseq),
    CALL(rt_sigaction),
    CALL(rt_sigprocmask),
    CALL(sched_getaffinity),
    CALL(sched_yield),
    CALL(set_robust_list),
    CALL(statfs),
    CALL(unlinkat),
    CALL(utimensat),
    CALL(write),
#undef CALL
#undef NO_CALL
};

static const struct call_name *call_named(const char *name)
{
    for (size_t i = 0; i < sizeof(call_names) / sizeof(*call_names); i++)
        if (strcmp(call_names[i].name, name) == 0)
            return &call_names[i];
    return NULL;
}

const char *call_name_of(int number)
{
    static char text[32];
    for (size_t i = 0; i < sizeof(call_names) / sizeof(*call_names); i++)
        if (call_names[i].number == number)
            return call_names[i].name;
    snprintf(text, sizeof(text), "number %d", number);
    return text;
}

static const struct call_word words[] = {
    {"O_CLOEXEC", "openat", 2, ALL_OF, O_CLOEXEC},
    {"F_GETFL", "fcntl", 1, ONE_OF, F_GETFL},
    {"F_SETFD", "fcntl", 1, ONE_OF, F_SETFD},
    {"F_DUPFD_CLOEXEC", "fcntl", 1, ONE_OF, F_DUPFD_CLOEXEC},
    {"F_OFD_SETLK", "fcntl", 1, ONE_OF, F_OFD_SETLK},
    {"F_SETOWN", "fcntl", 1, ONE_OF, F_SETOWN},
    {"F_SETSIG", "fcntl", 1, ONE_OF, F_SETSIG},
    {"F_GETSIG", "fcntl", 1, ONE_OF, F_GETSIG},
    {"F_GETOWN_EX", "fcntl", 1, ONE_OF, F_GETOWN_EX},
    {"33", "rt_sigaction", 0, ONE_OF, 33},
    {"LOCK_EX + LOCK_NB", "flock", 1, ONE_OF, LOCK_EX | LOCK_NB},
    {"MADV_WIPEONFORK", "madvise", 2, ONE_OF, 18},
    {"MADV_POPULATE_READ", "madvise", 2, ONE_OF, 22},
    {"MADV_DONTNEED", "madvise", 2, ONE_OF, MADV_DONTNEED},
    {"PROT_EXEC", "mmap", 2, NONE_OF, PROT_EXEC},
    {"PROT_EXEC", "mprotect", 2, NONE_OF, PROT_EXEC},
    {"EFD_CLOEXEC + EFD_NONBLOCK", "eventfd2", 1, ONE_OF, EFD_CLOEXEC | EFD_NONBLOCK},
    {"O_CLOEXEC + O_NONBLOCK", "pipe2", 1, ONE_OF, O_CLOEXEC | O_NONBLOCK},
    {"CLONE_THREAD + CLONE_VM", "clone", 0, ALL_OF, CLONE_THREAD | CLONE_VM},
    {"PR_SET_NAME", "prctl", 0, ONE_OF, PR_SET_NAME},
    {"RENAME_NOREPLACE", "renameat2", 4, ONE_OF, 1},
    {"RLIMIT_FSIZE", "prlimit64", 1, ONE_OF, 1 /* RLIMIT_FSIZE */},
    {"NULL", "prlimit64", 2, NONE_OF, UINT32_MAX},
};

/* ---- the tables ---- */

static const char *const call_section_names[SECTIONS] = {"reading", "writing", "rest", "threads",
                                                         "libc"};
const char *const call_effect_names[EFFECTS] = {"-", "same", "hits", "misses"};

struct call_row call_rows[160];
unsigned call_row_count;

static char *trimmed(char *text)
{
    char *end = text + strlen(text);
    while (*text == ' ')
        text++;
    while (end > text && (end[-1] == ' ' || end[-1] == '`' || end[-1] == '\n'))
        *--end = '\0';
    return *text == '`' ? text + 1 : text;
}

static void take_words(struct call_row *row, char *cell)
{
    for (char *at = strchr(cell, '`'); at; at = strchr(at + 1, '`')) {
        char *end = strchr(at + 1, '`');
        assert_non_null(end);
        *end = '\0';
        for (size_t i = 0; i <= sizeof(words) / sizeof(*words); i++) {
            if (i == sizeof(words) / sizeof(*words))
                fail_msg("%s: this test does not know the argument \"%s\"", row->name, at + 1);
            if (strcmp(words[i].text, at + 1) == 0 && strcmp(words[i].call, row->name) == 0) {
                assert_true(row->word_count < 8);
                row->words[row->word_count++] = &words[i];
                break;
            }
        }
        at = end;
    }
}

static enum call_effect effect_named(const char *text, const char *line)
{
    for (unsigned i = 0; i < EFFECTS; i++)
        if (strcmp(call_effect_names[i], text) == 0)
            return (enum call_effect)i;
    fail_msg("there is no effect \"%s\": %s", text, line);
    return UNSAID;
}

/* | `openat` | same | with `O_CLOEXEC` | what for | same | same | */
static void take_row(unsigned section, char *line)
{
    char *cells[6];
    unsigned count = 0;
    struct call_row *row = &call_rows[call_row_count];
    const struct call_name *call;
    for (char *at = line + 1, *bar; count < 6 && (bar = strchr(at, '|')) != NULL; at = bar + 1) {
        *bar = '\0';
        cells[count++] = at;
    }
    assert_int_equal(count, 6);
    cells[0] = trimmed(cells[0]);
    cells[1] = trimmed(cells[1]);
    if (strcmp(cells[0], "x86-64") == 0 || strncmp(cells[0], "---", 3) == 0)
        return;
    if (COLUMN == 1 && strcmp(cells[1], "same") != 0)
        cells[0] = cells[1];
    if (strcmp(cells[0], "none") == 0)
        return;
    call = call_named(cells[0]);
    if (!call)
        fail_msg("this test does not know the call \"%s\"", cells[0]);
    assert_true(call_row_count < sizeof(call_rows) / sizeof(*call_rows));
    memset(row, 0, sizeof(*row));
    row->section = section;
    row->name = call->name;
    row->number = call->number;
    take_words(row, cells[2]);
    row->is_fallback = strncmp(trimmed(cells[3]), "else: ", 6) == 0;
    row->effects[0] = effect_named(trimmed(cells[4]), cells[0]);
    row->effects[1] = effect_named(trimmed(cells[5]), cells[0]);
    call_row_count += call->number >= 0;
}

int call_tables_read(const char *path)
{
    char line[1024];
    unsigned section = SECTIONS, seen = 0;
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    call_row_count = 0;
    while (fgets(line, sizeof(line), file)) {
        if (strncmp(line, "<!-- calls: ", 12) == 0) {
            *strchr(line + 12, ' ') = '\0';
            for (section = 0; strcmp(call_section_names[section], line + 12) != 0; section++)
                assert_true(section + 1 < SECTIONS);
            seen |= 1u << section;
        } else if (strncmp(line, "<!-- end -->", 12) == 0) {
            section = SECTIONS;
        } else if (section < SECTIONS && line[0] == '|') {
            take_row(section, line);
        }
    }
    fclose(file);
    assert_int_equal(seen, (1u << SECTIONS) - 1);
    assert_true(call_row_count > 40);
    return 0;
}

/* ---- filters ---- */

static void emit(struct call_rules *r, unsigned code, uint32_t k, unsigned yes, unsigned no)
{
    const struct sock_filter f = {(uint16_t)code, (uint8_t)yes, (uint8_t)no, k};
    assert_true(r->length < sizeof(r->program) / sizeof(*r->program));
    r->program[r->length++] = f;
}

#define LOAD (BPF_LD | BPF_W | BPF_ABS)
#define EQUALS (BPF_JMP | BPF_JEQ | BPF_K)
#define RETURN (BPF_RET | BPF_K)

/* All arguments that are looked at are numbers of 32 bits, and the machines little-endian. */
static uint32_t argument(unsigned n)
{
    return (uint32_t)(offsetof(struct seccomp_data, args) + (size_t)8 * n);
}

/* The call of that number gets that answer; of any other it goes on. */
static void emit_call(struct call_rules *r, int number, uint32_t answer)
{
    emit(r, LOAD, offsetof(struct seccomp_data, nr), 0, 0);
    emit(r, EQUALS, (uint32_t)number, 0, 1);
    emit(r, RETURN, answer, 0, 0);
}

/* Allows the call with the arguments that the row has; goes on behind with any other. */
static void emit_row(struct call_rules *r, const struct call_row *row)
{
    const unsigned at = r->length + 1u;
    unsigned one_of = 0;
    emit(r, LOAD, offsetof(struct seccomp_data, nr), 0, 0);
    emit(r, EQUALS, (uint32_t)row->number, 0, 0); /* the way on is put in below */
    for (unsigned i = 0; i < row->word_count; i++) {
        const struct call_word *w = row->words[i];
        one_of += w->how == ONE_OF;
        if (w->how == ONE_OF)
            continue;
        emit(r, LOAD, argument(w->argument), 0, 0);
        emit(r, BPF_ALU | BPF_AND | BPF_K, w->value, 0, 0);
        emit(r, EQUALS, w->how == ALL_OF ? w->value : 0, 1, 0);
        emit(r, RETURN, SECCOMP_RET_TRAP, 0, 0);
    }
    for (unsigned i = 0; i < row->word_count; i++) {
        const struct call_word *w = row->words[i];
        if (w->how != ONE_OF)
            continue;
        emit(r, LOAD, argument(w->argument), 0, 0);
        emit(r, EQUALS, w->value, 0, 1);
        emit(r, RETURN, SECCOMP_RET_ALLOW, 0, 0);
    }
    if (!one_of)
        emit(r, RETURN, SECCOMP_RET_ALLOW, 0, 0);
    r->program[at].jf = (uint8_t)(r->length - at - 1);
}

void call_rules_make(struct call_rules *r)
{
    r->length = 0;
    emit(r, LOAD, offsetof(struct seccomp_data, arch), 0, 0);
    emit(r, EQUALS, ARCHITECTURE, 1, 0);
    emit(r, RETURN, SECCOMP_RET_KILL_PROCESS, 0, 0);
    /* The test's own: how it ends, and what cmocka says before. */
    emit_call(r, __NR_exit_group, SECCOMP_RET_ALLOW);
    emit_call(r, __NR_rt_sigreturn, SECCOMP_RET_ALLOW);
    emit(r, LOAD, offsetof(struct seccomp_data, nr), 0, 0);
    emit(r, EQUALS, __NR_write, 0, 3);
    emit(r, LOAD, argument(0), 0, 0);
    emit(r, EQUALS, STDERR_FILENO, 0, 1);
    emit(r, RETURN, SECCOMP_RET_ALLOW, 0, 0);
    if (r->failing >= 0)
        emit_call(r, r->failing, SECCOMP_RET_ERRNO | (uint32_t)r->error);
    for (unsigned i = 0; i < call_row_count; i++)
        if (r->sections >> call_rows[i].section & 1 && call_rows[i].number != r->without)
            emit_row(r, &call_rows[i]);
    emit(r, RETURN, SECCOMP_RET_TRAP, 0, 0);
}

#endif
