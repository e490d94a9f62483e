/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "cli.h"
#include "output.h"
#include "table.h"

enum { OPTION_REMOVE = 256 };

/* Bits of the exit status. */
enum { CORRUPT = 1, MISMATCHED = 2, UNREADABLE = 4 };

static const struct cli_option options[] = {
    {OPTION_REMOVE, 0, "remove", NULL, "remove what is corrupt"}, {0, 0, NULL, NULL, NULL}};

struct sums {
    size_t checked, good, corrupt, mismatched, untrusted, unreadable, newer, removed;
    uint64_t bytes;
    uint64_t cleaned;
};

static int count(struct sums *sums, const wasmcache_entry *entry)
{
    sums->checked++;
    sums->bytes += entry->file_bytes;
    switch (entry->state) {
    case WASMCACHE_REASON_NONE:
        sums->good++;
        return 0;
    case WASMCACHE_REASON_CORRUPT:
        sums->corrupt++;
        return CORRUPT;
    case WASMCACHE_REASON_MISMATCHED:
        sums->mismatched++;
        return MISMATCHED;
    case WASMCACHE_REASON_UNTRUSTED:
        sums->untrusted++;
        return MISMATCHED;
    case WASMCACHE_REASON_NEWER_FORMAT:
        sums->newer++; /* Sound, as far as can be told. */
        return 0;
    default:
        sums->unreadable++;
        return UNREADABLE;
    }
}

static void row(struct cli_table *table, const wasmcache_entry *entry, const char *path,
                bool removed)
{
    char state[128];
    const char *cells[3];

    snprintf(state, sizeof(state), "%s%s%s%s%s", cli_text_state(entry->state),
             entry->system_errno ? ": " : "",
             entry->system_errno ? strerror(entry->system_errno) : "", removed ? ", " : "",
             removed ? "removed" : "");
    cells[0] = state;
    cells[1] = path ? path : "-";
    cli_table_row(table, cells);
}

static void print_sums(const struct cli *cli, const struct sums *sums)
{
    char bytes[CLI_TEXT_SIZE];
    const struct {
        size_t count;
        const char *name;
    } parts[] = {{sums->corrupt, "corrupt"},         {sums->mismatched, "mismatched"},
                 {sums->untrusted, "untrusted"},     {sums->unreadable, "unreadable"},
                 {sums->newer, "of a newer format"}, {sums->removed, "removed"}};
    size_t i;

    if (cli->json) {
        cli_json_line(
            json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "checked",
                      (json_int_t)sums->checked, "bytes", (json_int_t)sums->bytes, "good",
                      (json_int_t)sums->good, "corrupt", (json_int_t)sums->corrupt, "mismatched",
                      (json_int_t)sums->mismatched, "untrusted", (json_int_t)sums->untrusted,
                      "unreadable", (json_int_t)sums->unreadable, "newer", (json_int_t)sums->newer,
                      "removed", (json_int_t)sums->removed, "cleaned", (json_int_t)sums->cleaned));
        return;
    }
    if (cli->quiet)
        return;
    if (sums->checked)
        cli_print("%zu %s (%s) checked: %zu good", sums->checked,
                  sums->checked == 1 ? "entry" : "entries", cli_text_bytes(bytes, sums->bytes),
                  sums->good);
    else
        cli_print("0 entries checked");
    for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (parts[i].count)
            cli_print(", %zu %s", parts[i].count, parts[i].name);
    cli_print("\n");
    if (sums->cleaned)
        cli_print("%" PRIu64 " left-over file%s removed\n", sums->cleaned,
                  sums->cleaned == 1 ? "" : "s");
}

/* The bits for a cache that could not be opened or listed. */
static int unusable(void)
{
    return cli_cache_error() == WASMCACHE_EUNTRUSTED ? MISMATCHED : UNREADABLE;
}

/* Checks one entry; returns its bits of the exit status. */
static int check(struct cli *cli, wasmcache *cache, const wasmcache_entry *listed, bool remove,
                 struct sums *sums, struct cli_table *table)
{
    wasmcache_entry entry = WASMCACHE_ENTRY_INIT;
    char *path = cli_entry_path(cache, listed->engine_namespace, &listed->key);
    bool removed = false;
    int bits;

    if (wasmcache_entry_check(&entry, cache, listed->engine_namespace, &listed->key,
                              WASMCACHE_CHECK_DIGEST)) {
        cli_error("cannot check %s: %s", path ? path : "an entry", cli_last_message());
        sums->checked++;
        sums->unreadable++;
        free(path);
        return UNREADABLE;
    }
    if (entry.state == WASMCACHE_REASON_NOT_FOUND) {
        free(path); /* Somebody removed it meanwhile. */
        return 0;
    }
    bits = count(sums, &entry);
    if (entry.state == WASMCACHE_REASON_CORRUPT && remove) {
        /* Not by name: a good one may have taken its place since. */
        int rc = wasmcache_remove_damaged(cache, entry.engine_namespace, &entry.key);
        if (!rc) {
            removed = true;
            sums->removed++;
        } else if (rc != WASMCACHE_EMISS) {
            cli_error("cannot remove %s: %s", path ? path : "an entry", cli_last_message());
        }
    }
    if (cli->json) {
        json_t *object = cli_json_entry(cache, &entry);
        if (object && entry.system_errno)
            json_object_set_new(object, "error", json_string(strerror(entry.system_errno)));
        if (object)
            json_object_set_new(object, "removed", json_boolean(removed));
        cli_json_line(object);
    } else if (entry.state) {
        row(table, &entry, path, removed);
    }
    free(path);
    return bits;
}

static int verify(struct cli *cli, wasmcache *cache, bool remove)
{
    static const struct cli_column columns[] = {{"STATE", false, false}, {"ENTRY", false, false}};
    struct sums sums = {0};
    struct cli_entries entries;
    struct cli_table *table = cli_table_new(columns, 2);
    int status = cli_entries_collect(&entries, cache, NULL);
    size_t i;

    if (status) {
        cli_table_print(table);
        cli_entries_free(&entries);
        return unusable();
    }
    if (entries.unreadable)
        status |= UNREADABLE;
    cli_progress_start("checking");
    for (i = 0; i < entries.count; i++) {
        char key[CLI_TEXT_SIZE];

        cli_progress_set(i, entries.count, cli_text_key(key, &entries.list[i].key, true));
        status |= check(cli, cache, &entries.list[i], remove, &sums, table);
    }
    if (wasmcache_clean(cache, &sums.cleaned)) {
        cli_error("cannot remove all left-over files: %s", cli_last_message());
        status |= UNREADABLE;
    }
    cli_progress_stop();
    cli_table_print(table);
    print_sums(cli, &sums);
    cli_entries_free(&entries);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_verify, argc, argv);
    bool remove = false;
    wasmcache *cache;
    int id, status;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == OPTION_REMOVE)
            remove = true;
        else if (id == CLI_SCAN_OPERAND)
            return cli_usage(&cli_command_verify, "it takes no argument; it checks all entries");
        else
            return scan.status;
    }
    status = cli_cache_open(cli, &cache, CLI_CACHE_ENTRIES);
    if (status)
        return unusable();
    status = verify(cli, cache, remove);
    wasmcache_close(cache);
    return status;
}

const struct cli_command cli_command_verify = {
    .name = "verify",
    .operands = "",
    .summary = "read and check all entries",
    .help = "Reads every entry whole and checks it. Files that a writer left behind are\n"
            "removed. What is mismatched is sound, but lies under another key or engine\n"
            "than its own.\n\n"
            "The exit status is the sum of 1 if something is corrupt, 2 if mismatched or\n"
            "untrusted, 4 if unreadable; the cache itself too can be one of the last two.",
    .examples = "wasmcache verify\n"
                "wasmcache verify --remove --quiet || logger \"wasmcache: status $?\"",
    .options = options,
    .run = run,
};
