/* SPDX-License-Identifier: Apache-2.0 */
/*
 *     torture ROW [quick|full|soak] [SEED] [PLACE]
 *
 * Runs a row of the table in docs/reliability.md and prints a line of JSON with what it counted;
 * what was bad is also on stderr. 0: nothing was bad, 1: something was, 77: it cannot run here.
 * `make torture` runs them all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/scratch.h"
#include "torture/rows.h"

static const struct {
    const char *name;
    row_fn run;
    int on_disk; /* not on a tmpfs */
} rows[] = {
    {"1", row_save, 0},       {"2", row_load, 0},           {"3", row_rest, 0},
    {"4", row_killed, 0},     {"5", row_short, 0},          {"6", row_memory, 0},
    {"7", row_full, 0},       {"8", row_process_limits, 0}, {"9", row_signals, 0},
    {"10", row_power, 0},     {"11", row_reorder, 0},       {"12", row_fsync, 0},
    {"13", row_compound, 0},  {"14", row_writers, 0},       {"15", row_stampede, 0},
    {"16", row_forked, 0},    {"18", row_removal, 0},       {"22", row_bits, 0},
    {"23", row_torn, 0},      {"24", row_foreign, 0},       {"32", row_changed_in_use, 0},
    {"26", row_bad_pages, 0}, {"20", row_pulled, 0},        {"21", row_clock, 0},
    {"28", row_names, 0},     {"36", row_junk, 0},          {"37", row_leak, 0},
    {"42", row_hints, 0},     {"40", row_price, 1},         {"4-random", row_kills, 0},
};

int main(int argc, char **argv)
{
    struct tally tally;
    struct row_run run = {&tally, TIER_QUICK, 1, ""};
    tally_init(&tally);
    if (argc == 4 && strcmp(argv[1], "--act") == 0)
        return row_clock_act(argv[2], argv[3]);
    if (argc == 2 && strcmp(argv[1], "--descriptors") == 0)
        return row_leak_descriptors();
    if (argc > 2)
        run.tier = strcmp(argv[2], "quick") == 0  ? TIER_QUICK
                   : strcmp(argv[2], "full") == 0 ? TIER_FULL
                                                  : TIER_SOAK;
    if (argc > 3)
        run.seed = (unsigned)strtoul(argv[3], NULL, 10);
    if (argc > 4)
        run.place = argv[4];
    for (size_t i = 0; argc > 1 && i < sizeof(rows) / sizeof(*rows); i++) {
        if (strcmp(rows[i].name, argv[1]) != 0)
            continue;
        if (!rows[i].on_disk)
            scratch_in_memory();
        rows[i].run(&run);
        if (!rows[i].on_disk)
            scratch_in_memory_end();
        tally_print(&tally, rows[i].name);
        return tally.skipped[0] ? 77 : tally_bad(&tally) != 0;
    }
    fprintf(stderr, "usage: torture ROW [quick|full|soak] [SEED] [PLACE]; rows:");
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        fprintf(stderr, " %s", rows[i].name);
    fprintf(stderr, "\n");
    return 2;
}
