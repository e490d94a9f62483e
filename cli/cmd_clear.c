/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache.h"
#include "cli.h"
#include "output.h"

static const struct cli_option options[] = {{'y', 'y', "yes", NULL, "do not ask"},
                                            {0, 0, NULL, NULL, NULL}};

/* Asks on stderr, for stdout is for results. */
static bool confirmed(const struct cli_entries *entries, const char *dir, int *status)
{
    char bytes[CLI_TEXT_SIZE];
    char answer[16] = "";
    uint64_t sum = 0;
    size_t i;

    for (i = 0; i < entries->count; i++)
        sum += entries->list[i].file_bytes;
    fprintf(stderr, "Remove all %zu entries (%s) of %s? [y/N] ", entries->count,
            cli_text_bytes(bytes, sum), dir);
    fflush(stderr);
    *status = CLI_FAILED;
    if (!fgets(answer, sizeof(answer), stdin)) {
        fputc('\n', stderr);
        return false;
    }
    return answer[0] == 'y' || answer[0] == 'Y';
}

static int clear(struct cli *cli, wasmcache *cache, const struct cli_entries *entries)
{
    size_t removed = 0, failed = 0, i;
    uint64_t bytes = 0, cleaned = 0;
    int status = entries->unreadable ? CLI_FAILED : CLI_OK;
    char text[CLI_TEXT_SIZE];

    cli_progress_start("removing");
    for (i = 0; i < entries->count; i++) {
        const wasmcache_entry *entry = &entries->list[i];
        int rc = wasmcache_remove(cache, entry->engine_namespace, &entry->key);

        cli_progress_set(i, entries->count, NULL);
        if (!rc) {
            removed++;
            bytes += entry->file_bytes;
        } else if (rc != WASMCACHE_EMISS) {
            failed++;
            cli_error("cannot remove %s: %s", cli_text_key(text, &entry->key, true),
                      cli_last_message());
            status = CLI_FAILED;
        }
    }
    if (wasmcache_clean(cache, &cleaned)) {
        cli_error("cannot remove all left-over files: %s", cli_last_message());
        status = CLI_FAILED;
    }
    cli_progress_stop();
    if (cli->json)
        cli_json_line(json_pack("{s:I,s:I,s:I,s:I}", "removed", (json_int_t)removed, "bytes",
                                (json_int_t)bytes, "failed", (json_int_t)failed, "cleaned",
                                (json_int_t)cleaned));
    if (cli->json || cli->quiet)
        return status;
    cli_print("%zu %s removed", removed, removed == 1 ? "entry" : "entries");
    if (removed)
        cli_print(", %s", cli_text_bytes(text, bytes));
    if (cleaned)
        cli_print(", and %" PRIu64 " left-over file%s", cleaned, cleaned == 1 ? "" : "s");
    cli_print("\n");
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_clear, argc, argv);
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    struct cli_entries entries = {0};
    wasmcache *cache;
    bool yes = false;
    int id, status;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == 'y')
            yes = true;
        else if (id == CLI_SCAN_OPERAND)
            return cli_usage(&cli_command_clear,
                             "it takes no argument and removes all; \"wasmcache rm\" removes some");
        else
            return scan.status;
    }
    if (!yes && !isatty(STDIN_FILENO))
        return cli_usage(&cli_command_clear, "there is nobody to ask: give --yes");
    status = cli_cache_open(cli, &cache, CLI_CACHE_ENTRIES);
    if (status)
        return status;
    wasmcache_status(cache, &info);
    status = cli_entries_collect(&entries, cache, NULL);
    if (!status && (yes || !entries.count || confirmed(&entries, info.dir, &status)))
        status = clear(cli, cache, &entries);
    cli_entries_free(&entries);
    wasmcache_close(cache);
    return status;
}

const struct cli_command cli_command_clear = {
    .name = "clear",
    .operands = "",
    .summary = "remove all entries",
    .help = "Removes the entries of all engines and what writers left behind, after asking.\n"
            "Other files in the directory stay.",
    .examples = "wasmcache clear\n"
                "wasmcache --cache-dir /tmp/cache clear --yes",
    .options = options,
    .run = run,
};
