/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli.h"
#include "output.h"
#include "table.h"

enum { PLACE_SIZE = 4200 };

/* ---- for programs ---- */

static json_t *json_layers(const struct cli_config *config)
{
    char *paths[CLI_LAYERS_MAX];
    int i, count = cli_config_layers(paths, config);
    json_t *list = json_array();

    for (i = 0; i < count; i++) {
        json_array_append_new(list, cli_json_text(paths[i]));
        free(paths[i]);
    }
    return list;
}

static json_t *json_value(const struct cli_config *config, enum cli_setting_id id)
{
    const struct cli_setting_value *value = &config->values[id];

    switch (cli_settings[id].kind) {
    case CLI_KIND_TEXT:
        /* "" is a value, and not the same as none. */
        return value->text && !*value->text ? json_string("") : cli_json_text(value->text);
    case CLI_KIND_PATH:
    case CLI_KIND_ENGINE:
    case CLI_KIND_CHOICE:
        return cli_json_text(value->text);
    case CLI_KIND_PATHS:
        return json_layers(config);
    case CLI_KIND_SWITCH:
        return json_boolean(value->number);
    default:
        return value->number == UINT64_MAX ? json_string("unlimited")
                                           : json_integer((json_int_t)value->number);
    }
}

static void print_json(const struct cli_config *config)
{
    static const char *const origins[] = {"default", "file", "environment", "option"};
    int i;

    for (i = 0; i < CLI_SETTINGS; i++) {
        const enum cli_setting_id id = (enum cli_setting_id)i;
        const struct cli_setting_value *value = &config->values[id];
        char variable[CLI_VARIABLE_SIZE], place[PLACE_SIZE];
        json_t *object =
            json_pack("{s:s,s:s,s:o,s:s,s:s}", "setting", cli_settings[id].name, "section",
                      cli_settings[id].section, "value", json_value(config, id), "variable",
                      cli_config_variable(variable, id), "origin", origins[value->origin]);

        if (object && value->origin != CLI_FROM_DEFAULT)
            json_object_set_new(object, "from",
                                cli_json_text(cli_config_origin(place, sizeof(place), config, id)));
        cli_json_line(object);
    }
    cli_json_line(json_pack("{s:o,s:b}", "file", cli_json_text(config->file), "read",
                            (int)config->file_read));
}

/* ---- for people ---- */

static void print_table(const struct cli *cli)
{
    static const struct cli_column columns[] = {{"SETTING", false, false},
                                                {"VALUE", false, true},
                                                {"FROM", false, true},
                                                {"WHAT IT IS", false, true}};
    const struct cli_config *config = cli->config;
    struct cli_table *table = cli_table_new(columns, cli->verbose ? 4 : 3);
    int i;

    for (i = 0; i < CLI_SETTINGS; i++) {
        const enum cli_setting_id id = (enum cli_setting_id)i;
        char text[64], place[PLACE_SIZE];
        const char *cells[4];

        cells[0] = cli_settings[id].name;
        cells[1] = cli_config_text(text, sizeof(text), config, id);
        cells[2] = cli_config_origin(place, sizeof(place), config, id);
        cells[3] = cli_settings[id].help;
        cli_table_row(table, cells);
    }
    cli_table_print(table);
    if (cli->quiet)
        return;
    if (config->file)
        cli_print("\nsettings file: %s%s\n", config->file,
                  config->file_read ? "" : " (there is none)");
    else
        cli_print("\nsettings file: none is looked for\n");
}

static int run(struct cli *cli, int argc, char **argv)
{
    struct cli_scan scan = cli_scan_begin(cli, &cli_command_config, argc, argv);
    int id;

    while ((id = cli_scan_next(&scan)) != CLI_SCAN_END) {
        if (id == CLI_SCAN_OPERAND)
            return cli_usage(&cli_command_config,
                             "it takes no argument, and changes nothing; see --set");
        return scan.status;
    }
    if (cli->json)
        print_json(cli->config);
    else
        print_table(cli);
    return CLI_OK;
}

const struct cli_command cli_command_config = {
    .name = "config",
    .operands = "",
    .summary = "show the settings in force, and where each comes from",
    .help = "Settings come from a file, then from the environment, then from options; the\n"
            "later wins. The file is --config FILE, else $WASMCACHE_CONFIG, else\n"
            "$XDG_CONFIG_HOME/wasmcache/config, else ~/.config/wasmcache/config:\n\n"
            "  [cache]\n"
            "  dir = /var/cache/wasmcache\n"
            "  layers = /opt/app/cache:/usr/share/wasmcache\n"
            "  [limits]\n"
            "  max_bytes = 2 GiB\n"
            "  max_age = 30d\n"
            "  [engine]\n"
            "  engine = wasmer\n\n"
            "In the environment max_bytes is WASMCACHE_MAX_BYTES, as an option --set\n"
            "max_bytes=VALUE, and so all others. With -v it says what each is. A file that\n"
            "others may write to is refused, and a wrong line is an error.",
    .examples = "wasmcache config -v\n"
                "wasmcache --set max_bytes=500M --set wait=none compile plugins/\n"
                "wasmcache --config /dev/null config",
    .options = NULL,
    .run = run,
};
