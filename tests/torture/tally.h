/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TORTURE_TALLY_H
#define TORTURE_TALLY_H

/*
 * What a row of the table counts. W wrong artifact handed to the engine, D dead or hung host, S
 * stuck key, T left-over files, L leaks, K good entries destroyed, A acknowledged saves lost;
 * anything else that must hold is X. Each is so many bad ones of so many.
 */

#include <stddef.h>

#define TALLY_KINDS "WDSTLKAX"

enum { TALLY_KIND_COUNT = 8, TALLY_TOLD = 8 };

struct tally {
    const char *subject; /* what was tried; "" for this library */
    unsigned long runs;
    struct {
        unsigned long bad, of;
    } counts[TALLY_KIND_COUNT];
    char told[TALLY_TOLD][512]; /* the first that were bad */
    unsigned told_count;
    char skipped[256]; /* why the row cannot run here, "" */
    char note[512];    /* figures for people */
    char about[256];   /* put before each complaint: what is being tried now */
};

void tally_init(struct tally *t);

/* Counts one of `kind`; bad if it does not hold, and then says so. Returns `holds`. */
int tally_check(struct tally *t, char kind, int holds, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 4, 5)))
#endif
    ;
/* So many at once, of which some were bad. */
void tally_add(struct tally *t, char kind, unsigned long bad, unsigned long of, const char *what);

void tally_about(struct tally *t, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
void tally_note(struct tally *t, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
void tally_skip(struct tally *t, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

unsigned long tally_bad(const struct tally *t);

/* One line of JSON on stdout. */
void tally_print(const struct tally *t, const char *row);

#endif
