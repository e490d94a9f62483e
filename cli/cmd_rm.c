/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "cache.h"
#include "cli.h"
#include "output.h"

enum { OPTION_NAMESPACE = 256 };

static const struct cli_option options[] = {
    {OPTION_NAMESPACE, 0, "namespace", "NS", "only those of this engine, as ls shows it"},
    {0, 0, NULL, NULL, NULL}};

struct sums {
    size_t entries;
    uint64_t bytes;
};

static int fail(const struct cli *cli, const char *operand, const char *why)
{
    cli_error("cannot remove %s: %s", operand, why);
    if (cli->json)
        cli_json_line(json_pack("{s:o,s:b,s:o}", "file", cli_json_text(operand), "removed", 0,
                                "error", cli_json_text(why)));
    return CLI_FAILED;
}

static int remove_entry(const struct cli *cli, wasmcache *cache, const wasmcache_entry *entry,
                        const char *operand, struct sums *sums)
{
    char *path = cli_entry_path(cache, entry->engine_namespace, &entry->key);
    int rc = wasmcache_remove(cache, entry->engine_namespace, &entry->key);

    if (rc && rc != WASMCACHE_EMISS) {
        free(path);
        return fail(cli, operand, cli_last_message());
    }
    if (!rc) {
        sums->entries++;
        sums->bytes += entry->file_bytes;
        cli_note("removed %s", path ? path : "");
        if (cli->json)
            cli_json_line(json_pack("{s:o,s:o,s:o,s:o,s:I,s:b}", "file", cli_json_text(operand),
                                    "key", cli_json_key(&entry->key), "namespace",
                                    cli_json_text(entry->engine_namespace), "path",
                                    cli_json_text(path), "file_bytes",
                                    (json_int_t)entry->file_bytes, "removed", 1));
    }
    free(path);
    return CLI_OK;
}

static int remove_operand(const struct cli *cli, wasmcache *cache,
                          const struct cli_entries *entries, const char *operand, struct sums *sums)
{
    wasmcache_key key;
    char why[1024], hex[CLI_TEXT_SIZE];
    size_t i, found = 0;
    int status = CLI_OK;

    if (cli_key_find(&key, operand, entries, why, sizeof(why)))
        return fail(cli, operand, why);
    for (i = 0; i < entries->count; i++) {
        if (!wasmcache_key_equal(&entries->list[i].key, &key))
            continue;
        found++;
        if (remove_entry(cli, cache, &entries->list[i], operand, sums))
            status = CLI_FAILED;
    }
    if (found)
        return status;
    snprintf(why, sizeof(why), "it is not in the cache (key %s)", cli_text_key(hex, &key, false));
    return fail(cli, operand, why);
}

/* By what the library takes for one: the name becomes a part of a path. */
static bool is_namespace(const char *name)
{
    wasmcache_key any;
    char path[1];

    return !wasmcache_key_from_hex(&any, "0000000000000000") &&
           wasmcache_entry_path(path, sizeof(path), NULL, name, &any) != WASMCACHE_EMISUSE;
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_rm, argc, argv);
    const char *engine_namespace = NULL;
    const char **operands = calloc((size_t)argc + 1, sizeof(*operands));
    struct cli_entries entries = {0};
    struct sums sums = {0};
    wasmcache *cache = NULL;
    char bytes[CLI_TEXT_SIZE];
    size_t count = 0, i;
    int id, status;

    if (!operands) {
        cli_error("no memory");
        return CLI_FAILED;
    }
    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == OPTION_NAMESPACE) {
            engine_namespace = scan.value;
        } else if (id == CLI_SCAN_OPERAND) {
            operands[count++] = scan.value;
        } else {
            status = scan.status;
            goto done;
        }
    }
    if (!count) {
        status = cli_usage(&cli_command_rm, "which ones? Name files or keys; \"wasmcache clear\" "
                                            "removes all");
        goto done;
    }
    if (engine_namespace && !is_namespace(engine_namespace)) {
        status = cli_usage(&cli_command_rm, "\"%s\" is no namespace; \"wasmcache ls\" shows them",
                           engine_namespace);
        goto done;
    }
    status = cli_cache_open(cli, &cache, CLI_CACHE_ENTRIES);
    if (!status)
        status = cli_entries_collect(&entries, cache, engine_namespace);
    if (status)
        goto done;
    for (i = 0; i < count; i++)
        if (remove_operand(cli, cache, &entries, operands[i], &sums))
            status = CLI_FAILED;
    if (sums.entries && !cli->json && !cli->quiet)
        cli_print("%zu %s removed, %s\n", sums.entries, sums.entries == 1 ? "entry" : "entries",
                  cli_text_bytes(bytes, sums.bytes));
done:
    cli_entries_free(&entries);
    wasmcache_close(cache);
    free(operands);
    return status;
}

const struct cli_command cli_command_rm = {
    .name = "rm",
    .operands = "FILE|KEY...",
    .summary = "remove the entries of modules",
    .help = "Removes the entries of wasm files, or of keys (64 or 16 hex digits, or the\n"
            "first 8 or more of them), for all engines. The files themselves stay. The exit\n"
            "status is 1 if one was not in the cache.",
    .examples = "wasmcache rm app.wasm\n"
                "wasmcache rm --namespace wasmtime-cranelift-0D8F01F6D3C9A7E2-v50 app.wasm",
    .options = options,
    .run = run,
};
