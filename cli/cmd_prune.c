/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache.h"
#include "cli.h"
#include "output.h"
#include "quantity.h"

enum { MAX_SIZE = 256, MAX_AGE, MAX_ENTRIES };

static const struct cli_option options[] = {
    {MAX_SIZE, 0, "max-size", "SIZE", "bytes of all entries: 500M, 2G, 1Gi"},
    {MAX_AGE, 0, "max-age", "TIME", "time since their last use: 90s, 12h, 30d, 4w"},
    {MAX_ENTRIES, 0, "max-entries", "N", "how many there may be"},
    {'n', 'n', "dry-run", NULL, "remove nothing, show what would be"},
    {0, 0, NULL, NULL, NULL}};

static int bad_value(const char *option, const char *value, const char *example)
{
    return cli_usage(&cli_command_prune, "--%s %s: not a quantity such as %s", option, value,
                     example);
}

static int prune(const struct cli *cli, wasmcache *cache, const wasmcache_prune_options *prune)
{
    wasmcache_prune_result result = WASMCACHE_PRUNE_RESULT_INIT;
    const bool dry = (prune->flags & WASMCACHE_PRUNE_DRY_RUN) != 0;
    char bytes[CLI_TEXT_SIZE], left[CLI_TEXT_SIZE], time[CLI_TEXT_SIZE];
    int status = CLI_OK;

    cli_progress_start("looking through the entries");
    if (wasmcache_prune(cache, prune, &result)) {
        cli_error("cannot prune: %s", cli_last_message());
        status = CLI_FAILED;
    }
    cli_progress_stop();
    if (result.failed) {
        cli_error("%" PRIu64 " entries could not be removed", result.failed);
        status = CLI_FAILED;
    }
    if (cli->json) {
        cli_json_line(json_pack(
            "{s:b,s:I,s:I,s:o,s:I,s:I,s:I}", "dry_run", (int)dry, "removed",
            (json_int_t)result.removed_entries, "removed_bytes", (json_int_t)result.removed_bytes,
            "removed_compile_ms", cli_json_ms(result.removed_compile_ns), "left",
            (json_int_t)result.left_entries, "left_bytes", (json_int_t)result.left_bytes, "failed",
            (json_int_t)result.failed));
    } else if (!cli->quiet) {
        cli_print("%" PRIu64 " %s %s%s", result.removed_entries,
                  result.removed_entries == 1 ? "entry" : "entries", dry ? "would be " : "",
                  "removed");
        if (result.removed_entries)
            cli_print(", %s, compiled in %s", cli_text_bytes(bytes, result.removed_bytes),
                      cli_text_duration(time, result.removed_compile_ns));
        cli_print("; %" PRIu64 " left, %s\n", result.left_entries,
                  result.left_entries ? cli_text_bytes(left, result.left_bytes) : "0 bytes");
    }
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_prune, argc, argv);
    wasmcache_prune_options limits = WASMCACHE_PRUNE_OPTIONS_INIT;
    wasmcache *cache;
    int id, status;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == 'n')
            limits.flags |= WASMCACHE_PRUNE_DRY_RUN;
        else if (id == CLI_SCAN_OPERAND)
            return cli_usage(&cli_command_prune,
                             "it takes no argument; \"wasmcache rm\" removes what you name");
        else if (id == MAX_SIZE && cli_quantity_bytes(&limits.max_bytes, scan.value))
            return bad_value("max-size", scan.value, "500M");
        else if (id == MAX_AGE && cli_quantity_seconds(&limits.max_age_seconds, scan.value))
            return bad_value("max-age", scan.value, "30d");
        else if (id == MAX_ENTRIES && cli_quantity_count(&limits.max_entries, scan.value))
            return bad_value("max-entries", scan.value, "1000");
        else if (id == CLI_SCAN_STOP)
            return scan.status;
    }
    status = cli_cache_open(cli, &cache, CLI_CACHE_ENTRIES);
    if (status)
        return status;
    status = prune(cli, cache, &limits);
    wasmcache_close(cache);
    return status;
}

const struct cli_command cli_command_prune = {
    .name = "prune",
    .operands = "",
    .summary = "remove what is worth least until it fits",
    .help = "Removes entries until the cache is within its limits (5 GiB if nothing else is\n"
            "said): those unused for --max-age, then those of engines that nobody used for a\n"
            "week, then those that save least compile time for their size. Pinned entries and\n"
            "those of the last minute stay. Programs that have an entry open keep it.",
    .examples = "wasmcache prune\n"
                "wasmcache prune --max-size 500M --dry-run\n"
                "wasmcache prune --max-age 30d",
    .options = options,
    .run = run,
};
