/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "cache.h"
#include "cli.h"
#include "output.h"
#include "table.h"

/* On a terminal there is no room for the namespace in each line: it stands above its entries. */
enum { COLUMNS = 8, COLUMNS_TERMINAL = 7 };

static struct cli_table *new_table(bool terminal)
{
    static const struct cli_column columns[COLUMNS] = {
        {"KEY", false, false},     {"KIND", false, false},     {"WASM", true, false},
        {"ARTIFACT", true, false}, {"COMPILE", true, false},   {"CREATED", false, false},
        {"STATE", false, false},   {"NAMESPACE", false, false}};

    return cli_table_new(columns, terminal ? COLUMNS_TERMINAL : COLUMNS);
}

static void add_row(struct cli_table *table, const wasmcache_entry *entry, bool brief)
{
    bool known = cli_entry_known(entry);
    char text[5][CLI_TEXT_SIZE];
    const char *cells[COLUMNS];

    cells[0] = cli_text_key(text[0], &entry->key, brief);
    cells[1] = known ? cli_text_kind(entry->kind) : "-";
    cells[2] = cli_text_bytes(text[1], entry->wasm_bytes);
    cells[3] = cli_text_bytes(text[2], known ? entry->artifact_bytes : entry->file_bytes);
    cells[4] = cli_text_duration(text[3], entry->compile_ns);
    cells[5] = cli_text_time(text[4], entry->created);
    cells[6] = cli_text_state(entry->state);
    cells[7] = entry->engine_namespace;
    cli_table_row(table, cells);
}

static void print_total(const struct cli_entries *entries)
{
    uint64_t wasm = 0, file = 0, compile = 0;
    char text[3][CLI_TEXT_SIZE];
    size_t i;

    if (!entries->count) {
        cli_print("no entries\n");
        return;
    }
    for (i = 0; i < entries->count; i++) {
        wasm += entries->list[i].wasm_bytes;
        file += entries->list[i].file_bytes;
        compile += entries->list[i].compile_ns;
    }
    cli_print("\n%zu %s: %s on disk for %s of wasm, %s to compile\n", entries->count,
              entries->count == 1 ? "entry" : "entries", cli_text_bytes(text[0], file),
              cli_text_bytes(text[1], wasm), cli_text_duration(text[2], compile));
}

static void print_tables(const struct cli *cli, const struct cli_entries *entries)
{
    bool terminal = cli_is_terminal();
    struct cli_table *table = NULL;
    size_t i;

    for (i = 0; i < entries->count; i++) {
        const wasmcache_entry *entry = &entries->list[i];

        if (!i || (terminal &&
                   strcmp(entry->engine_namespace, entries->list[i - 1].engine_namespace) != 0)) {
            if (i)
                cli_table_print(table);
            if (terminal)
                cli_print("%s%s\n", i ? "\n" : "", entry->engine_namespace);
            table = new_table(terminal);
        }
        add_row(table, entry, terminal && !cli->verbose);
    }
    if (entries->count)
        cli_table_print(table);
    if (!cli->quiet)
        print_total(entries);
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_ls, argc, argv);
    struct cli_entries entries;
    wasmcache *cache;
    int id, status;
    size_t i;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == CLI_SCAN_OPERAND)
            return cli_usage(&cli_command_ls, "it takes no argument; \"wasmcache info\" does");
        return scan.status;
    }
    status = cli_cache_open(cli, &cache, CLI_CACHE_ENTRIES);
    if (status)
        return status;
    status = cli_entries_collect(&entries, cache, NULL);
    if (!status && cli->json)
        for (i = 0; i < entries.count; i++)
            cli_json_line(cli_json_entry(cache, &entries.list[i]));
    else if (!status)
        print_tables(cli, &entries);
    if (entries.unreadable)
        status = CLI_FAILED;
    cli_entries_free(&entries);
    wasmcache_close(cache);
    return status;
}

const struct cli_command cli_command_ls = {
    .name = "ls",
    .operands = "",
    .summary = "list all entries",
    .help = "Lists the entries of all engines, oldest first. STATE is what the end of each\n"
            "file says; \"wasmcache verify\" reads them whole. On a terminal keys are\n"
            "shortened, which other commands understand; -v shows them whole.",
    .examples = "wasmcache ls\n"
                "wasmcache --json ls | jq -s 'map(.file_bytes) | add'",
    .options = NULL,
    .run = run,
};
