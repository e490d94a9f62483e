/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cache.h"
#include "cli.h"
#include "output.h"

static void print_size(const char *name, uint64_t bytes)
{
    char text[CLI_TEXT_SIZE];

    if (bytes >= 1000)
        cli_print("%-12s %s (%" PRIu64 " bytes)\n", name, cli_text_bytes(text, bytes), bytes);
    else if (bytes)
        cli_print("%-12s %" PRIu64 " bytes\n", name, bytes);
}

static void print_entry(wasmcache *cache, const wasmcache_entry *entry)
{
    char text[CLI_TEXT_SIZE];
    char *path = cli_entry_path(cache, entry->engine_namespace, &entry->key);
    bool known = cli_entry_known(entry);

    cli_print("%-12s %s\n", "key", cli_text_key(text, &entry->key, false));
    cli_print("%-12s %s\n", "namespace", entry->engine_namespace);
    cli_print("%-12s %s\n", "state", cli_text_state(entry->state));
    if (known)
        cli_print("%-12s %s\n", "kind", cli_text_kind(entry->kind));
    print_size("wasm", entry->wasm_bytes);
    print_size("artifact", entry->artifact_bytes);
    if (!known)
        print_size("file", entry->file_bytes);
    if (entry->compile_ns)
        cli_print("%-12s %s\n", "compiled in", cli_text_duration(text, entry->compile_ns));
    if (entry->created)
        cli_print("%-12s %s\n", "created", cli_text_time(text, entry->created));
    if (entry->last_used)
        cli_print("%-12s %s\n", "last used", cli_text_time(text, entry->last_used));
    if (entry->pinned)
        cli_print("%-12s %s\n", "pinned", "yes");
    if (known)
        cli_print("%-12s %s\n", "fingerprint", cli_text_fingerprint(text, entry->fingerprint));
    if (path)
        cli_print("%-12s %s\n", "path", path);
    free(path);
}

static int fail(const struct cli *cli, const char *operand, const char *why)
{
    cli_error("cannot show %s: %s", operand, why);
    if (cli->json)
        cli_json_line(
            json_pack("{s:o,s:o}", "file", cli_json_text(operand), "error", cli_json_text(why)));
    return CLI_FAILED;
}

static int info(struct cli *cli, wasmcache *cache, const char *operand)
{
    struct cli_entries entries;
    wasmcache_key key;
    char why[1024];
    size_t i, found = 0;
    int status = cli_entries_collect(&entries, cache, NULL);

    if (status)
        return status;
    if (cli_key_find(&key, operand, &entries, why, sizeof(why))) {
        status = fail(cli, operand, why);
        goto done;
    }
    for (i = 0; i < entries.count; i++) {
        wasmcache_entry entry = WASMCACHE_ENTRY_INIT;

        if (!wasmcache_key_equal(&entries.list[i].key, &key))
            continue;
        /* It is one or a few: time enough to read them whole. */
        if (wasmcache_entry_check(&entry, cache, entries.list[i].engine_namespace, &key,
                                  WASMCACHE_CHECK_DIGEST)) {
            status = fail(cli, operand, cli_last_message());
            continue;
        }
        if (entry.state == WASMCACHE_REASON_NOT_FOUND)
            continue;
        if (cli->json) {
            cli_json_line(cli_json_entry(cache, &entry));
        } else {
            if (found)
                cli_print("\n");
            print_entry(cache, &entry);
        }
        found++;
    }
    if (!found && !status) {
        char hex[CLI_TEXT_SIZE];

        snprintf(why, sizeof(why), "it is not in the cache (key %s)",
                 cli_text_key(hex, &key, false));
        status = fail(cli, operand, why);
    }
done:
    cli_entries_free(&entries);
    return status;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_info, argc, argv);
    const char *operand = NULL;
    wasmcache *cache;
    int id, status;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id != CLI_SCAN_OPERAND)
            return scan.status;
        if (operand)
            return cli_usage(&cli_command_info, "one file or key at a time");
        operand = scan.value;
    }
    if (!operand)
        return cli_usage(&cli_command_info, "which one? Name a file or a key");
    status = cli_cache_open(cli, &cache, CLI_CACHE_ENTRIES);
    if (status)
        return status;
    status = info(cli, cache, operand);
    wasmcache_close(cache);
    return status;
}

const struct cli_command cli_command_info = {
    .name = "info",
    .operands = "FILE|KEY",
    .summary = "show what the cache has of a module",
    .help = "Shows the entries of a wasm file, or of a key (64 or 16 hex digits, or the\n"
            "first 8 or more of them), for all engines. Each is read and checked. The exit\n"
            "status is 1 if there is none.",
    .examples = "wasmcache info app.wasm\n"
                "wasmcache info 93A44BBB96C7",
    .options = NULL,
    .run = run,
};
