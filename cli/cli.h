/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

/*
 * What all commands share: the global options, and how a command is declared.
 *
 * main.c fills a struct cli from the global options, which may stand before or after the command's
 * name, and calls the command's run(). A command scans its own arguments with cli_scan_next(),
 * which handles the global ones by itself.
 */

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "options.h"

enum cli_exit { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* What the user asked for, whatever the command. */
struct cli {
    struct cli_config *config; /* whole once a command has scanned its last argument */
    bool json;
    bool quiet;
    bool verbose;
    bool reproducible;    /* as $SOURCE_DATE_EPOCH wants it: */
    uint64_t source_date; /* its value */
};

struct cli_command {
    const char *name;
    const char *operands; /* for the usage line */
    const char *summary;  /* for the list of commands */
    const char *help;     /* a paragraph */
    const char *examples; /* a command a line */
    const struct cli_option *options;
    /* Arguments without the command's name. Returns the exit status of the tool. */
    int (*run)(struct cli *cli, int argc, char **argv);
};

extern const struct cli_command cli_command_compile;
extern const struct cli_command cli_command_run;
extern const struct cli_command cli_command_info;
extern const struct cli_command cli_command_explain;
extern const struct cli_command cli_command_ls;
extern const struct cli_command cli_command_verify;
extern const struct cli_command cli_command_rm;
extern const struct cli_command cli_command_clear;
extern const struct cli_command cli_command_dir;
extern const struct cli_command cli_command_stats;
extern const struct cli_command cli_command_prune;
extern const struct cli_command cli_command_pin;
extern const struct cli_command cli_command_unpin;
extern const struct cli_command cli_command_config;
extern const struct cli_command cli_command_doctor;

/* The environment, or NULL in a set-uid program, where the caller's environment is not ours. An
 * empty variable is as good as none. */
const char *cli_environment(const char *name);
/* A switch: set, and neither "" nor "0". */
bool cli_environment_flag(const char *name);

#endif
