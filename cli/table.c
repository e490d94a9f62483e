/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <stdlib.h>

#include <libsmartcols.h>

#include "output.h"

struct cli_table {
    struct libscols_table *scols;
    size_t columns;
    bool failed;
};

static void discard(struct cli_table *table)
{
    if (table) {
        scols_unref_table(table->scols);
        free(table);
    }
}

struct cli_table *cli_table_new(const struct cli_column *columns, size_t count)
{
    struct cli_table *table = calloc(1, sizeof(*table));
    size_t i;

    if (!table)
        return NULL;
    table->columns = count;
    table->scols = scols_new_table();
    if (!table->scols || scols_table_set_column_separator(table->scols, "  "))
        table->failed = true;
    for (i = 0; i < count && !table->failed; i++) {
        int flags = (columns[i].right ? SCOLS_FL_RIGHT : 0) | (columns[i].wrap ? SCOLS_FL_WRAP : 0);

        if (!scols_table_new_column(table->scols, columns[i].name, 0, flags))
            table->failed = true;
    }
    return table;
}

void cli_table_row(struct cli_table *table, const char *const *cells)
{
    struct libscols_line *line;
    size_t i;

    if (!table || table->failed)
        return;
    line = scols_table_new_line(table->scols, NULL);
    for (i = 0; line && i < table->columns; i++)
        if (scols_line_set_data(line, i, cells[i]))
            line = NULL;
    if (!line)
        table->failed = true;
}

void cli_table_print(struct cli_table *table)
{
    char *text = NULL;

    if (!table || table->failed) {
        cli_error("no memory for the table");
        discard(table);
        return;
    }
    if (scols_table_get_nlines(table->scols)) {
        /* Through a string, so that a failing stdout is noticed like everywhere else. */
        if (!cli_is_terminal())
            scols_table_set_termforce(table->scols, SCOLS_TERMFORCE_NEVER);
        if (scols_print_table_to_string(table->scols, &text) || !text)
            cli_error("cannot make the table");
        else
            cli_print("%s%s", text, "\n");
        free(text);
    }
    discard(table);
}
