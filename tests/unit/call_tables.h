/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_CALL_TABLES_H
#define TESTS_CALL_TABLES_H

/*
 * The tables of docs/system-calls.md, and programs for seccomp that allow what they have.
 *
 *     call_tables_read(path);
 *     struct call_rules rules = {.sections = 1u << READING, .without = -1, .failing = -1};
 *     call_rules_make(&rules);
 *     ... PR_SET_SECCOMP with a struct sock_fprog of rules.length and rules.program
 */

#include <linux/filter.h>
#include <stdint.h>

/* The architectures and the C library that the tables are of. */
#if (defined(__x86_64__) || defined(__aarch64__)) && defined(__GLIBC__)
#define HAS_CALL_TABLES 1

enum { READING, WRITING, REST, THREADS, LIBC, SECTIONS };

/* With a call forbidden: the gets of a module that is there and of one that is not. */
enum call_effect { UNSAID, SAME, HITS, MISSES, EFFECTS };
extern const char *const call_effect_names[EFFECTS];

/* What the column "arguments" may say: in which argument, and how it is compared. */
enum call_how { ONE_OF, ALL_OF, NONE_OF };
struct call_word {
    const char *text, *call;
    unsigned argument;
    enum call_how how;
    uint32_t value;
};

struct call_row {
    unsigned section;
    int number;
    const char *name;
    const struct call_word *words[8];
    unsigned word_count;
    int is_fallback;             /* made only where another call cannot be */
    enum call_effect effects[2]; /* with ENOSYS, with EPERM */
};

extern struct call_row call_rows[160];
extern unsigned call_row_count;

/* Fails the test at what it does not know. -1: there is no such file. */
int call_tables_read(const char *path);

/* In text that the next call of it may overwrite. */
const char *call_name_of(int number);

#define ALL_SECTIONS ((1u << SECTIONS) - 1)

struct call_rules {
    unsigned sections;  /* bits of those whose calls are allowed */
    int without;        /* a call that is taken off; -1: none */
    int failing, error; /* a call that fails with that error; -1: none */
    struct sock_filter program[1024];
    unsigned short length;
};

/* What the rules do not allow is SIGSYS; what they make fail gives its error. The test's own end,
 * and what it writes to standard error, are always allowed. */
void call_rules_make(struct call_rules *rules);

#endif
#endif
