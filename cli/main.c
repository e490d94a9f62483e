/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "output.h"

static const struct cli_command *const commands[] = {
    &cli_command_compile, &cli_command_run,    &cli_command_info,   &cli_command_explain,
    &cli_command_ls,      &cli_command_verify, &cli_command_rm,     &cli_command_clear,
    &cli_command_prune,   &cli_command_pin,    &cli_command_unpin,  &cli_command_stats,
    &cli_command_dir,     &cli_command_config, &cli_command_doctor,
};

enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static const struct cli_command *find(const char *name)
{
    size_t i;

    for (i = 0; i < COMMANDS; i++)
        if (!strcmp(commands[i]->name, name))
            return commands[i];
    return NULL;
}

void cli_main_help(void)
{
    size_t i;

    cli_print("wasmcache: a cache of compiled WebAssembly modules\n\n"
              "Usage: wasmcache [OPTION...] COMMAND [ARGUMENT...]\n\nCommands:\n");
    for (i = 0; i < COMMANDS; i++)
        cli_print("  %-24s %s\n", commands[i]->name, commands[i]->summary);
    cli_print("  %-24s %s\n", "help COMMAND", "the options of a command, with examples");
    cli_print("\nOptions:\n");
    cli_options_print(stdout, cli_global_options);
    cli_print(
        "\nEnvironment:\n"
        "  WASMCACHE_DIR            the cache; else $XDG_CACHE_HOME/wasmcache, else\n"
        "                           ~/.cache/wasmcache\n"
        "  WASMCACHE_ENGINE         as --engine; each setting has one: see \"help config\"\n"
        "  WASMCACHE_CONFIG         the settings file; else wasmcache/config below\n"
        "                           $XDG_CONFIG_HOME, else ~/.config/wasmcache/config\n"
#ifdef CLI_HAS_WASMTIME
        "  WASMTIME_ROOT            where Wasmtime is: lib/libwasmtime.so below it\n"
#endif
#ifdef CLI_HAS_WASMER
        "  WASMER_ROOT              where Wasmer is: lib/libwasmer.so below it\n"
#endif
        "  WASMCACHE_DISABLE=1      compile and run without the cache\n"
        "  WASMCACHE_RECACHE=1      compile anew and replace what is in the cache\n"
        "\nExamples:\n"
        "  wasmcache compile app.wasm plugins/\n"
        "  wasmcache run --dir data::/data app.wasm --input /data/a.txt\n"
        "  wasmcache ls\n"
        "\nExit status: 0 done, 1 failed, 2 wrong usage; of verify and run: see their help.\n");
}

static int help(struct cli *cli, int argc, char **argv)
{
    const struct cli_command *command;

    (void)cli;
    if (argc == 0) {
        cli_main_help();
        return CLI_OK;
    }
    command = find(argv[0]);
    if (!command)
        return cli_usage(NULL, "there is no command \"%s\"", argv[0]);
    if (argc > 1)
        return cli_usage(NULL, "help takes one command");
    cli_command_help(command);
    return CLI_OK;
}

static int dispatch(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, NULL, argc, argv);
    const struct cli_command *command;
    int id;

    scan.stop_at_operand = true;
    id = cli_scan_next(&scan);
    if (id == CLI_SCAN_STOP)
        return scan.status;
    if (id == CLI_SCAN_END)
        return cli_usage(NULL, "no command was given");
    if (!strcmp(scan.value, "help"))
        return help(cli, argc - scan.index, argv + scan.index);
    command = find(scan.value);
    if (!command)
        return cli_usage(NULL, "there is no command \"%s\"", scan.value);
    return command->run(cli, argc - scan.index, argv + scan.index);
}

int main(int argc, char **argv)
{
    struct cli_config config = {0};
    struct cli cli = {.config = &config};
    int status;

    cli_output_init();
    status = cli_output_close(dispatch(&cli, argc > 0 ? argc - 1 : 0, argv + (argc > 0)));
    cli_config_free(&config);
    return status;
}
