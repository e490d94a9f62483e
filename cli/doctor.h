/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_DOCTOR_H
#define CLI_DOCTOR_H

/*
 * What `doctor` looks at, a function each; none changes anything in the cache directory.
 *
 *     cli_doctor_directory(d);     first: it fills in what the others use
 *     cli_doctor_disk(d); ...
 *
 * Each says what it found with cli_doctor_say(), at least once.
 */

#include <stdint.h>
#include <sys/stat.h>

#include <wasmcache.h>

#include "cli.h"

enum cli_health { CLI_FINE, CLI_DOUBTFUL, CLI_BROKEN, CLI_HEALTHS };

struct cli_doctor {
    struct cli *cli;
    wasmcache *cache;             /* read-only, so that nothing is written through it; or NULL */
    wasmcache_status_info status; /* of one that may write */
    int dir;                      /* the directory, -1: it is not there, or cannot be opened */
    int place;               /* the same, or the nearest one above it; -1: none can be opened */
    uint64_t entries, bytes; /* what lies in the namespaces */
    unsigned found[CLI_HEALTHS];
};

/* `advice` NULL: there is nothing to do. */
__attribute__((format(printf, 5, 6))) void cli_doctor_say(struct cli_doctor *doctor,
                                                          enum cli_health health, const char *check,
                                                          const char *advice, const char *format,
                                                          ...);
/* "3 entries", "1 entry": into `out` of CLI_TEXT_SIZE, which is returned. */
char *cli_doctor_count(char *out, uint64_t count, const char *one, const char *many);
/* As cli_text_bytes(), but 0 is "0 B". */
char *cli_doctor_bytes(char *out, uint64_t bytes);
/* Would the library use it: root's or ours, and not writable by others? */
bool cli_doctor_trusts(const struct stat *st);

void cli_doctor_settings(struct cli_doctor *doctor);
/* The directory, its namespaces, left-over files, and what lies beside them. */
void cli_doctor_directory(struct cli_doctor *doctor);
/* Space, file system, locks, mapping. */
void cli_doctor_disk(struct cli_doctor *doctor);
void cli_doctor_layers(struct cli_doctor *doctor);
void cli_doctor_engines(struct cli_doctor *doctor);
/* Of the system and the process. */
void cli_doctor_limits(struct cli_doctor *doctor);

#endif
