/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "cache.h"
#include "cli.h"
#include "output.h"

static int fail(const struct cli *cli, const char *operand, bool pin, const char *why)
{
    cli_error("cannot %s %s: %s", pin ? "pin" : "unpin", operand, why);
    if (cli->json)
        cli_json_line(
            json_pack("{s:o,s:o}", "file", cli_json_text(operand), "error", cli_json_text(why)));
    return CLI_FAILED;
}

static int pin_operand(const struct cli *cli, wasmcache *cache, const struct cli_entries *entries,
                       const char *operand, bool pin, size_t *done)
{
    wasmcache_key key;
    char why[1024], hex[CLI_TEXT_SIZE];
    size_t i, found = 0;

    if (cli_key_find(&key, operand, entries, why, sizeof(why)))
        return fail(cli, operand, pin, why);
    for (i = 0; i < entries->count; i++) {
        const wasmcache_entry *entry = &entries->list[i];
        if (!wasmcache_key_equal(&entry->key, &key))
            continue;
        found++;
        if (wasmcache_pin(cache, entry->engine_namespace, &key, pin))
            return fail(cli, operand, pin, cli_last_message());
        if (cli->json)
            cli_json_line(json_pack("{s:o,s:o,s:o,s:b}", "file", cli_json_text(operand), "key",
                                    cli_json_key(&key), "namespace",
                                    cli_json_text(entry->engine_namespace), "pinned", (int)pin));
    }
    *done += found;
    if (found)
        return CLI_OK;
    snprintf(why, sizeof(why), "it is not in the cache (key %s)", cli_text_key(hex, &key, false));
    return fail(cli, operand, pin, why);
}

static int pin_operands(struct cli *cli, const struct cli_command *command, char *const *operands,
                        size_t count, bool pin)
{
    struct cli_entries entries = {0};
    wasmcache *cache = NULL;
    size_t done = 0, i;
    int status = cli_cache_open(cli, &cache, CLI_CACHE_ENTRIES);

    if (!status)
        status = cli_entries_collect(&entries, cache, NULL);
    for (i = 0; i < count && entries.list; i++)
        if (pin_operand(cli, cache, &entries, operands[i], pin, &done))
            status = CLI_FAILED;
    if (!status && !entries.list) {
        cli_error("the cache is empty: there is nothing to %s", command->name);
        status = CLI_FAILED;
    }
    if (done && !cli->json && !cli->quiet)
        cli_print("%zu %s %s\n", done, done == 1 ? "entry" : "entries",
                  pin ? "pinned" : "unpinned");
    cli_entries_free(&entries);
    wasmcache_close(cache);
    return status;
}

static int pin_all(struct cli *cli, int argc, char **argv, const struct cli_command *command,
                   bool pin)
{
    struct cli_scan scan = cli_scan_begin(cli, command, argc, argv);
    char **operands = calloc((size_t)argc + 1, sizeof(*operands));
    size_t count = 0;
    int id, status = CLI_OK;

    if (!operands) {
        cli_error("no memory for the operands");
        return CLI_FAILED;
    }
    while ((id = cli_scan_next(&scan)) == CLI_SCAN_OPERAND)
        operands[count++] = scan.value;
    if (id != CLI_SCAN_END)
        status = scan.status;
    else if (!count)
        status = cli_usage(command, "which ones? Name files or keys");
    else
        status = pin_operands(cli, command, operands, count, pin);
    free(operands);
    return status;
}

static int run_pin(struct cli *cli, int argc, char **argv)
{
    return pin_all(cli, argc, argv, &cli_command_pin, true);
}

static int run_unpin(struct cli *cli, int argc, char **argv)
{
    return pin_all(cli, argc, argv, &cli_command_unpin, false);
}

const struct cli_command cli_command_pin = {
    .name = "pin",
    .operands = "FILE|KEY...",
    .summary = "keep entries when others are evicted",
    .help = "Pins the entries of wasm files, or of keys, for all engines: they stay when room\n"
            "has to be made. They still count for the limits. \"rm\" and \"clear\" remove them.",
    .examples = "wasmcache pin app.wasm",
    .options = NULL,
    .run = run_pin,
};

const struct cli_command cli_command_unpin = {
    .name = "unpin",
    .operands = "FILE|KEY...",
    .summary = "let pinned entries be evicted again",
    .help = "Undoes \"wasmcache pin\".",
    .examples = "wasmcache unpin app.wasm",
    .options = NULL,
    .run = run_unpin,
};
