/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "cache.h"
#include "cli.h"
#include "output.h"

static const char *state_name(wasmcache_state state)
{
    switch (state) {
    case WASMCACHE_STATE_ON:
        return "on";
    case WASMCACHE_STATE_READ_ONLY:
        return "read-only";
    default:
        return "off";
    }
}

static void print_json(const wasmcache_status_info *info)
{
    char mode[8];
    json_t *object;

    snprintf(mode, sizeof(mode), "%04" PRIo32, info->mode & 07777);
    object = json_pack(
        "{s:o,s:s,s:o,s:o,s:o}", "dir", cli_json_text(info->dir), "state", state_name(info->state),
        "uid", info->mode ? json_integer((json_int_t)info->uid) : json_null(), "mode",
        info->mode ? json_string(mode) : json_null(), "message", cli_json_text(info->message));
    if (object && info->error)
        json_object_set_new(object, "error", json_string(wasmcache_error_name(info->error)));
    cli_json_line(object);
}

static void print_verbose(const wasmcache_status_info *info)
{
    cli_print("%-9s %s\n", "dir", info->dir);
    cli_print("%-9s %s\n", "state", state_name(info->state));
    if (info->mode) {
        cli_print("%-9s %" PRIu32 "\n", "owner", info->uid);
        cli_print("%-9s %04" PRIo32 "\n", "mode", info->mode & 07777);
    }
    /* Of a cache that is off the error says it. */
    if (*info->message && info->state != WASMCACHE_STATE_OFF)
        cli_print("%-9s %s\n", "message", info->message);
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_dir, argc, argv);
    wasmcache_status_info info = WASMCACHE_STATUS_INIT;
    wasmcache *cache;
    int id, status;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == CLI_SCAN_OPERAND)
            return cli_usage(&cli_command_dir, "it takes no argument; see --cache-dir");
        return scan.status;
    }
    status = cli_cache_open(cli, &cache, CLI_CACHE_SHOW);
    if (status)
        return status;
    wasmcache_status(cache, &info);
    if (cli->json)
        print_json(&info);
    else if (cli->verbose)
        print_verbose(&info);
    else if (*info.dir)
        cli_print("%s\n", info.dir);
    if (info.state == WASMCACHE_STATE_OFF) {
        cli_error("the cache is off: %s", *info.message ? info.message : "it has no directory");
        status = CLI_FAILED;
    }
    wasmcache_close(cache);
    return status;
}

const struct cli_command cli_command_dir = {
    .name = "dir",
    .operands = "",
    .summary = "print the cache directory in use",
    .help = "Prints the directory; with -v also whether it can be used, its owner and mode.\n"
            "The exit status is 1 if it cannot be used.",
    .examples = "wasmcache dir\n"
                "du -sh \"$(wasmcache dir)\"",
    .options = NULL,
    .run = run,
};
