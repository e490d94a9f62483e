/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <stdarg.h>
#include <string.h>

#include "cli.h"
#include "engine.h"
#include "output.h"

enum {
    OPTION_CACHE_DIR = 1000,
    OPTION_CONFIG,
    OPTION_SET,
    OPTION_ENGINE,
    OPTION_SETTINGS,
    OPTION_ENGINE_ID,
    OPTION_LEGACY,
    OPTION_JSON,
    OPTION_QUIET,
    OPTION_VERBOSE,
    OPTION_DURABLE,
    OPTION_HELP,
    OPTION_VERSION
};

const struct cli_option cli_global_options[] = {
    {OPTION_CONFIG, 0, "config", "FILE", "the settings file ($WASMCACHE_CONFIG)"},
    {OPTION_SET, 0, "set", "NAME=VALUE", "a setting; \"wasmcache config\" lists them"},
    {OPTION_CACHE_DIR, 0, "cache-dir", "DIR", "where the cache is ($WASMCACHE_DIR)"},
    {OPTION_ENGINE, 0, "engine", "NAME", CLI_ENGINE_NAMES ", or a path ($WASMCACHE_ENGINE)"},
    {OPTION_SETTINGS, 0, "settings", "S", "what else the program with the engine vouches for"},
    {OPTION_ENGINE_ID, 0, "engine-id", "ID", "share the folder ID-v... with another cache"},
    {OPTION_LEGACY, 0, "legacy", NULL, "load old entries of Wasmer's own cache too"},
    {OPTION_DURABLE, 0, "durable", NULL, "saved means on disk, whatever happens to the power"},
    {OPTION_JSON, 0, "json", NULL, "one JSON object a line"},
    {OPTION_QUIET, 'q', "quiet", NULL, "errors only"},
    {OPTION_VERBOSE, 'v', "verbose", NULL, "tell what the cache does"},
    {OPTION_HELP, 'h', "help", NULL, "this text, or that of the command"},
    {OPTION_VERSION, 'V', "version", NULL, "versions of the tool and the library"},
    {0, 0, NULL, NULL, NULL}};

int cli_usage(const struct cli_command *command, const char *format, ...)
{
    va_list arguments;
    char text[512];

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (command)
        cli_error("%s: %s; see \"wasmcache help %s\"", command->name, text, command->name);
    else
        cli_error("%s; see \"wasmcache --help\"", text);
    return CLI_USAGE;
}

struct cli_scan cli_scan_begin(struct cli *cli, const struct cli_command *command, int argc,
                               char **argv)
{
    struct cli_scan scan = {cli, command, argc, argv, 0, NULL, false, false, NULL, CLI_OK};

    return scan;
}

static const struct cli_option *find(const struct cli_option *options, char letter,
                                     const char *name, size_t length)
{
    for (; options && options->name; options++)
        if (name ? strlen(options->name) == length && !memcmp(options->name, name, length)
                 : options->letter && options->letter == letter)
            return options;
    return NULL;
}

static const struct cli_option *find_any(const struct cli_scan *scan, char letter, const char *name,
                                         size_t length)
{
    const struct cli_option *option = NULL;

    if (scan->command)
        option = find(scan->command->options, letter, name, length);
    return option ? option : find(cli_global_options, letter, name, length);
}

static int stop(struct cli_scan *scan, int status)
{
    scan->status = status;
    return CLI_SCAN_STOP;
}

static void print_version(void)
{
    const struct cli_engine_type *const *type;

    cli_print("wasmcache %s (library %s)\n", WASMCACHE_VERSION, wasmcache_version());
    for (type = cli_engine_types; *type; type++)
        cli_print("%s %s (%s)\n", (*type)->title, (*type)->version, (*type)->name);
}

/* An option of its own for a setting; returns as take_global(). */
static int take_setting(struct cli_scan *scan, enum cli_setting_id id, const char *text,
                        const char *option)
{
    int status = cli_config_option(scan->cli->config, id, text, option);

    return status ? stop(scan, status) : 0;
}

/* Takes a global option in; returns 0, or what cli_scan_next() is to return. */
static int take_global(struct cli_scan *scan, int id)
{
    switch (id) {
    case OPTION_CACHE_DIR:
        if (!scan->value || !*scan->value)
            return stop(scan, cli_usage(scan->command, "--cache-dir needs a directory"));
        return take_setting(scan, CLI_DIR, scan->value, "--cache-dir");
    case OPTION_CONFIG:
        if (!scan->value || !*scan->value)
            return stop(scan, cli_usage(scan->command, "--config needs a file"));
        scan->cli->config->named = scan->value;
        return 0;
    case OPTION_SET: {
        int status = cli_config_assign(scan->cli->config, scan->value);
        return status ? stop(scan, status) : 0;
    }
    case OPTION_ENGINE:
        if (!scan->value || !*scan->value)
            return stop(scan, cli_usage(scan->command, "--engine needs a name or a path"));
        return take_setting(scan, CLI_ENGINE, scan->value, "--engine");
    case OPTION_SETTINGS:
        return take_setting(scan, CLI_ENGINE_SETTINGS, scan->value, "--settings");
    case OPTION_ENGINE_ID:
        return take_setting(scan, CLI_ENGINE_ID, scan->value, "--engine-id");
    case OPTION_LEGACY:
        return take_setting(scan, CLI_LEGACY, "yes", "--legacy");
    case OPTION_DURABLE:
        return take_setting(scan, CLI_DURABLE, "yes", "--durable");
    case OPTION_JSON:
        scan->cli->json = true;
        break;
    case OPTION_QUIET:
        scan->cli->quiet = true;
        scan->cli->verbose = false;
        break;
    case OPTION_VERBOSE:
        scan->cli->verbose = true;
        scan->cli->quiet = false;
        break;
    case OPTION_HELP:
        if (scan->command)
            cli_command_help(scan->command);
        else
            cli_main_help();
        return stop(scan, CLI_OK);
    case OPTION_VERSION:
        print_version();
        return stop(scan, CLI_OK);
    default:
        return id;
    }
    cli_output_set(scan->cli->json, scan->cli->quiet, scan->cli->verbose);
    return 0;
}

static int next_long(struct cli_scan *scan, char *argument)
{
    char *equals = strchr(argument, '=');
    size_t length = equals ? (size_t)(equals - argument) : strlen(argument);
    const struct cli_option *option = find_any(scan, 0, argument, length);

    if (!option)
        return stop(scan,
                    cli_usage(scan->command, "there is no option --%.*s", (int)length, argument));
    scan->value = equals ? equals + 1 : NULL;
    if (!option->value && equals)
        return stop(scan, cli_usage(scan->command, "--%s takes no value", option->name));
    if (option->value && !equals) {
        if (scan->index >= scan->argc)
            return stop(scan, cli_usage(scan->command, "--%s needs a value: --%s %s", option->name,
                                        option->name, option->value));
        scan->value = scan->argv[scan->index++];
    }
    return take_global(scan, option->id);
}

static int next_letter(struct cli_scan *scan)
{
    char letter = *scan->letters++;
    const struct cli_option *option = find_any(scan, letter, NULL, 0);

    if (!option)
        return stop(scan, cli_usage(scan->command, "there is no option -%c", letter));
    if (option->value) {
        if (*scan->letters) {
            /* The argument is writable: argv is ours. */
            char *group = scan->argv[scan->index - 1];
            scan->value = group + (scan->letters - group);
        } else if (scan->index < scan->argc) {
            scan->value = scan->argv[scan->index++];
        } else {
            return stop(scan, cli_usage(scan->command, "-%c needs a value: -%c %s", letter, letter,
                                        option->value));
        }
        scan->letters = NULL;
    }
    return take_global(scan, option->id);
}

static int next(struct cli_scan *scan)
{
    for (;;) {
        int id;
        char *argument;

        if (scan->letters && *scan->letters) {
            id = next_letter(scan);
            if (id)
                return id;
            continue;
        }
        scan->letters = NULL;
        if (scan->index >= scan->argc)
            return CLI_SCAN_END;
        argument = scan->argv[scan->index++];
        if (scan->only_operands || argument[0] != '-' || !argument[1]) {
            scan->value = argument;
            if (scan->stop_at_operand)
                scan->only_operands = true;
            return CLI_SCAN_OPERAND;
        }
        if (argument[1] != '-') {
            scan->letters = argument + 1;
            continue;
        }
        if (!argument[2]) {
            scan->only_operands = true;
            continue;
        }
        id = next_long(scan, argument + 2);
        if (id)
            return id;
    }
}

int cli_scan_next(struct cli_scan *scan)
{
    int id = next(scan);

    /* Not before: the last option may name the file. */
    if (scan->command &&
        (id == CLI_SCAN_END || (id == CLI_SCAN_OPERAND && scan->stop_at_operand))) {
        int status = cli_config_load(scan->cli->config);
        if (status)
            return stop(scan, status);
    }
    return id;
}

/* ---- help ------------------------------------------------------------------------------------ */

void cli_options_print(FILE *out, const struct cli_option *options)
{
    for (; options && options->name; options++) {
        char left[64];
        char letter[8] = "    ";

        if (options->letter)
            snprintf(letter, sizeof(letter), "-%c, ", options->letter);
        snprintf(left, sizeof(left), "%s--%s%s%s", letter, options->name, options->value ? " " : "",
                 options->value ? options->value : "");
        fprintf(out, "  %-24s %s\n", left, options->help);
    }
}

/* Indented lines of a text whose lines end with \n, save perhaps the last. */
static void print_lines(const char *text)
{
    while (*text) {
        size_t length = strcspn(text, "\n");
        cli_print("  %.*s\n", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

void cli_command_help(const struct cli_command *command)
{
    cli_print("wasmcache %s: %s\n\n", command->name, command->summary);
    cli_print("Usage: wasmcache [OPTION...] %s%s%s\n\n", command->name,
              *command->operands ? " " : "", command->operands);
    cli_print("%s\n", command->help);
    if (command->options && command->options->name) {
        cli_print("\nOptions:\n");
        cli_options_print(stdout, command->options);
    }
    cli_print("\nOptions of every command:\n");
    cli_options_print(stdout, cli_global_options);
    if (command->examples) {
        cli_print("\nExamples:\n");
        print_lines(command->examples);
    }
}
