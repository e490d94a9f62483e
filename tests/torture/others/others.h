/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_OTHERS_H
#define TORTURE_OTHERS_H

/*
 * Caches as programs (subject.c, bench/wasix), to which the same harm is done from outside, with
 * system calls that are told apart by whether they work on what lies in the cache's directory.
 *
 * What is seen: W the engine took an artifact that it had not made; D no module, a death, or no end
 * in time; S the second get after the fault is no hit; T files that a run without a fault does not
 * leave, after the subject's own clean-up if it has one; K the other entry changed, or the entry
 * was good and the next get is no hit; A the subject said "saved", and the next get is no hit; X
 * the fault met its target, and what a row says besides. Leaks are not seen: each get is a process.
 */

#include <stdint.h>

#include "support/scratch.h"
#include "torture/tally.h"
#include "torture/trace.h"

struct subject {
    const char *name;
    const char *command[4]; /* the program and its words, NULL */
    int cleans;             /* has the word "clean" */
    int ages;               /* cleans by itself, what is old, when it saves */
};

/* What a get told. */
struct told {
    int hit, compiled, saved, answered, proved;
    int32_t answer;
    uint64_t artifact;
    struct trace_end end;
    char error[200];
};

enum which { KEY, BY, THIRD, WHICH };

struct bench {
    struct tally *tally;
    const struct subject *subject;
    struct scratch scratch;
    unsigned seed;
    int quick;
    char *dir; /* the cache's */
    char *wasm[WHICH];
    char *with_by, *with_key;   /* copies of the directory: BY was saved; KEY too */
    char *entry[WHICH];         /* their files, below `dir` */
    char *by_copy, *key_copy;   /* the same in with_by and with_key */
    int32_t answer[WHICH];      /* what is right */
    uint64_t artifact[WHICH];   /* what the engine makes */
    uint64_t other_artifact;    /* of KEY, with other settings */
    char *usual;                /* the tree that is left without a fault */
    int broken;                 /* see bench_must() */
    unsigned long met;          /* faults that met something */
    unsigned long left;         /* runs that left files until the next clean-up */
    unsigned long stuck, freed; /* keys; those that could be used after that */
};

/* ---- module.c ---- */

/* A module whose export "work" gives *answer for 3. To be freed. */
uint8_t *others_module(uint32_t seed, size_t *size, int32_t *answer);

/* ---- trees.c ---- */

/* `to` is not there yet. Hints of ours are left out: they are about files that copies are not. */
void tree_copy(const char *from, const char *to);
/* All that is in it was last changed a day ago. */
void tree_age(const char *path);
/* The next path of a tree as scratch_tree() writes it; NULL: there are no more. */
const char *tree_next(const char **tree, char *out, size_t size);
int tree_has(const char *tree, const char *path);
/* The largest file in `dir` that the tree `after` has, and `before` has not. */
char *tree_new_file(struct scratch *s, const char *dir, const char *before, const char *after);

/* ---- bench.c ---- */

/* Makes the copies; 0, or the subject does not work, which the tally says. */
int bench_init(struct bench *b, struct tally *t, const struct subject *subject, unsigned seed,
               int quick);
void bench_end(struct bench *b);
/* What is no matter of the subject: the row is broken if it does not hold. Returns `holds`. */
int bench_must(struct bench *b, int holds, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;
/* The directory is as in that copy; NULL: it is not there. */
void bench_prepare(struct bench *b, const char *copy);
/* The entry of KEY has these bytes, as a new file. */
void bench_write_entry(struct bench *b, const void *bytes, size_t size);

/* A get in a process of its own. at: NULL, or called at its calls, as in trace.h. */
void bench_get(struct bench *b, struct told *told, enum which which, int other, trace_fn at,
               void *payload);
/* Several at once. */
void bench_get_many(struct bench *b, struct told *told, unsigned count, enum which which);
/* Does it work on what is in the directory? */
int bench_touches(const struct bench *b, const struct trace_call *call);

/* W and D of a get. `killed`: it was, on purpose. */
void bench_judge(struct bench *b, const struct told *told, enum which which, int killed);
/* What comes after a fault: K, A, S, T, by gets without one. `good`: the entry was, before. */
void bench_aftermath(struct bench *b, const struct told *told, int good);
/* K of the other entry alone, and T alone. */
void bench_check_by(struct bench *b);
void bench_check_left(struct bench *b);
/* Two gets: the second has to be a hit; W and D are not counted again. */
void bench_check_usable(struct bench *b, enum which which);

uint32_t bench_random(struct bench *b);

/* ---- the rows ---- */

typedef void (*others_row)(struct bench *b);

/* calls.c */
void others_save(struct bench *b);
void others_load(struct bench *b);
void others_killed(struct bench *b);
void others_short(struct bench *b);
void others_removal(struct bench *b);
void others_pulled(struct bench *b);
/* bytes.c */
void others_bits(struct bench *b);
void others_torn(struct bench *b);
void others_foreign(struct bench *b);
/* places.c */
void others_full(struct bench *b);
void others_power(struct bench *b);
void others_writers(struct bench *b);
void others_planted(struct bench *b);

#endif
