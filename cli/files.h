/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_FILES_H
#define CLI_FILES_H

/* The wasm files that operands stand for: files as they are, folders as the *.wasm below them. */

#include <stddef.h>

struct cli_files {
    char **operand_list; /* borrowed strings */
    size_t operands;
    char **list; /* by operand, below a folder by name */
    size_t count;
};

void cli_files_operand(struct cli_files *files, char *operand);
/* Fills the list. Returns CLI_OK, or CLI_FAILED if a folder could not be read or has no wasm in it,
 * after a call of `failed` for each. The others are in the list. */
int cli_files_expand(struct cli_files *files,
                     void (*failed)(const char *path, const char *why, void *payload),
                     void *payload);
void cli_files_free(struct cli_files *files);

#endif
