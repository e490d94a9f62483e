/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

/* Tables on stdout. All functions take NULL for a table that there was no memory for. */

#include <stdbool.h>
#include <stddef.h>

struct cli_column {
    const char *name;
    bool right; /* numbers */
    bool wrap;  /* goes on in the next line when the terminal is too narrow */
};

struct cli_table;

struct cli_table *cli_table_new(const struct cli_column *columns, size_t count);
/* As many cells as columns; they are copied. */
void cli_table_row(struct cli_table *table, const char *const *cells);
/* Prints and frees it. Nothing is printed if it has no rows. */
void cli_table_print(struct cli_table *table);

#endif
