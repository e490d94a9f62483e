/* SPDX-License-Identifier: Apache-2.0 */
/*
 *     torture_others ROW quick|full SEED NAME cleans|ages|keeps PROGRAM [WORD...]
 *
 * Runs a row of docs/reliability.md against another cache: PROGRAM with WORDs is a host with it, as
 * subject.c says. cleans: it knows the word "clean"; ages: it cleans up itself what is old, when it
 * saves; keeps: it never cleans up. Prints a line of JSON, as `torture` does. 0: it was run,
 * whatever it counted; 77: it cannot run here; 1: it is broken, or no fault met its target.
 */
#include "others.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
    const char *name;
    others_row run;
    int traces;
} rows[] = {
    {"1", others_save, 1},     {"2", others_load, 1},     {"4", others_killed, 1},
    {"5", others_short, 1},    {"7", others_full, 0},     {"10", others_power, 1},
    {"14", others_writers, 0}, {"18", others_removal, 1}, {"20", others_pulled, 1},
    {"22", others_bits, 0},    {"23", others_torn, 0},    {"24", others_foreign, 0},
    {"29", others_planted, 0},
};

static int run(others_row row, const struct subject *subject, struct tally *t, unsigned seed,
               int quick)
{
    struct bench b;
    int broken = bench_init(&b, t, subject, seed, quick);
    if (!broken) {
        row(&b);
        tally_about(t, "%s", "");
        if (b.left && !t->note[0])
            tally_note(t, "%lu runs left files behind, before any clean-up", b.left);
        if (b.stuck)
            tally_note(t,
                       "%lu runs left files behind, before any clean-up; %lu of the %lu stuck keys "
                       "can be used after it",
                       b.left, b.freed, b.stuck);
        (void)bench_must(&b, b.met != 0 || t->skipped[0], "no fault met its target");
        broken = b.broken;
        bench_end(&b);
    }
    return broken;
}

int main(int argc, char **argv)
{
    struct subject subject = {.name = argc > 4 ? argv[4] : ""};
    struct tally tally;
    tally_init(&tally);
    tally.subject = subject.name;
    for (size_t i = 0; argc > 6 && argc < 10 && i < sizeof(rows) / sizeof(*rows); i++) {
        int broken;
        if (strcmp(rows[i].name, argv[1]) != 0)
            continue;
        for (int w = 6; w < argc; w++)
            subject.command[w - 6] = argv[w];
        subject.cleans = strcmp(argv[5], "cleans") == 0;
        subject.ages = strcmp(argv[5], "ages") == 0;
        scratch_in_memory();
        if (rows[i].traces && trace_missing()) {
            tally_skip(&tally, "%s", trace_missing());
            broken = 0;
        } else {
            broken = run(rows[i].run, &subject, &tally, (unsigned)strtoul(argv[3], NULL, 10),
                         strcmp(argv[2], "quick") == 0);
        }
        scratch_in_memory_end();
        tally_print(&tally, argv[1]);
        return tally.skipped[0] ? 77 : broken;
    }
    fprintf(stderr, "usage: torture_others ROW quick|full SEED NAME cleans|ages|keeps PROGRAM "
                    "[WORD [WORD]]; rows:");
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        fprintf(stderr, " %s", rows[i].name);
    fprintf(stderr, "\n");
    return 2;
}
