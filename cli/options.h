/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

/*
 * Command-line options: one table serves the parser and the help.
 *
 *     struct cli_scan scan = cli_scan_begin(cli, &command, argc, argv);
 *     while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) switch (id) {
 *         case 'j': ... scan.value ...
 *         case CLI_SCAN_OPERAND: ... scan.value ...
 *         default: return scan.status;   (bad usage, or --help was answered)
 *     }
 */

#include <stdbool.h>
#include <stdio.h>

struct cli;
struct cli_command;

struct cli_option {
    int id;            /* what cli_scan_next() returns: the letter, or a number over 255 */
    char letter;       /* 0: none */
    const char *name;  /* the long name */
    const char *value; /* the value's name in the help; NULL: it takes none */
    const char *help;  /* one line */
};

enum {
    CLI_SCAN_END = -1,
    CLI_SCAN_OPERAND = -2,
    CLI_SCAN_STOP = -3 /* nothing more to do: exit with `status` */
};

struct cli_scan {
    struct cli *cli;
    const struct cli_command *command; /* NULL: before the command's name */
    int argc;
    char **argv;
    int index;            /* of the next argument */
    const char *letters;  /* rest of a group such as -qv */
    bool only_operands;   /* after "--" */
    bool stop_at_operand; /* set it for: everything from the first operand on is left alone */
    char *value;
    int status;
};

struct cli_scan cli_scan_begin(struct cli *cli, const struct cli_command *command, int argc,
                               char **argv);

/* The next option's id, or one of the above. Global options are dealt with inside, and so are the
 * settings, once a command's last option was seen: what is wrong with them stops it. */
int cli_scan_next(struct cli_scan *scan);

/* Prints a usage error with the command's name and where help is. Returns CLI_USAGE. */
__attribute__((format(printf, 2, 3))) int cli_usage(const struct cli_command *command,
                                                    const char *format, ...);

/* The aligned lines of the help. */
void cli_options_print(FILE *out, const struct cli_option *options);
void cli_command_help(const struct cli_command *command);
void cli_main_help(void);

extern const struct cli_option cli_global_options[];

#endif
