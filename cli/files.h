/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_FILES_H
#define CLI_FILES_H

/* The wasm files that operands stand for: files as they are, folders as the *.wasm below them. */

#include <stddef.h>
#include <stdint.h>

struct cli_file {
    char *path;
    char *why;      /* not NULL: it is a folder, or something in one, that gives nothing, and why */
    uint64_t bytes; /* 0: not known */
};

struct cli_files {
    char **operand_list; /* borrowed strings */
    size_t operands;
    struct cli_file *list; /* by operand, below a folder by name */
    size_t count;
};

void cli_files_operand(struct cli_files *files, char *operand);
/* Fills the list. Links to files count if they stay below the operand, so that a folder that
 * somebody else filled leads nowhere else; one that leads out is told of and passed over. */
void cli_files_expand(struct cli_files *files);
void cli_files_free(struct cli_files *files);

#endif
