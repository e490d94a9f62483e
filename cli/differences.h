/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_DIFFERENCES_H
#define CLI_DIFFERENCES_H

/* In what an entry that is there differs from the one that is looked for. */

#include <stdbool.h>
#include <stddef.h>

#include <wasmcache.h>

#include "cpu.h"

enum { CLI_DIFFERENCES_MAX = 12 };

struct cli_difference {
    const char *name;
    const char *ours; /* "" if there is nothing */
    const char *theirs;
};

/* Points into what it was made of, and into itself: not to be copied. */
struct cli_differences {
    struct cli_difference list[CLI_DIFFERENCES_MAX];
    size_t count;
    bool known;          /* what the entry's fingerprint was made of is known */
    char numbers[2][12]; /* artifact versions */
    char ids[2][192];    /* engine ids */
    char hashes[2][72];  /* fingerprints */
    char cpus[2][CLI_CPU_SIZE];
};

/* What is looked for. */
struct cli_wanted {
    wasmcache_kind kind;
    const char *engine_namespace;
    const wasmcache_identity *identity;
};

/* `theirs`: what is written down of the entry's namespace, NULL: nothing that can be used. */
void cli_differences_find(struct cli_differences *out, const struct cli_wanted *wanted,
                          const wasmcache_entry *entry, const wasmcache_identity *theirs);

/* What to do about them: a sentence, into `out`. */
void cli_differences_advice(const struct cli_differences *differences, char *out, size_t size);

/* A table on stdout; long values are cut to where they begin to differ. */
void cli_differences_print(const struct cli_differences *differences);

#endif
