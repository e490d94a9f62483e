/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1
#include "config.h"

#include <ctype.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "cli.h"
#include "engine.h"
#include "nearest.h"
#include "output.h"

static const char *const shares[] = {"private", "readable", "group", NULL};
static const char *const verifies[] = {"once", "always", "never", NULL};

#define SETTING(id, name, section, kind, unset, help)                                              \
    [CLI_##id] = {name, section, CLI_KIND_##kind, unset, help, NULL}
#define CHOICE(id, name, section, choices, unset, help)                                            \
    [CLI_##id] = {name, section, CLI_KIND_CHOICE, unset, help, choices}

const struct cli_setting cli_settings[CLI_SETTINGS] = {
    SETTING(DIR, "dir", "cache", PATH, NULL, "the cache directory"),
    SETTING(LAYERS, "layers", "cache", PATHS, "",
            "read-only directories that are asked after it, with colons between"),
    CHOICE(SHARE, "share", "cache", shares, "private", "who else may load what is saved"),
    CHOICE(VERIFY, "verify", "cache", verifies, "once", "when an entry's digest is compared"),
    SETTING(DURABLE, "durable", "cache", SWITCH, "no",
            "saved means on disk, whatever happens to the power"),
    SETTING(LEGACY, "legacy", "cache", SWITCH, "no", "load old entries of Wasmer's own cache too"),
    SETTING(WAIT, "wait", "cache", WAIT, "60s",
            "for another program that compiles the same; none: compile too"),
    SETTING(MAX_BYTES, "max_bytes", "limits", BYTES, "5 GiB", "size of all entries"),
    SETTING(MAX_ENTRIES, "max_entries", "limits", COUNT, "unlimited", "how many there may be"),
    SETTING(MAX_AGE, "max_age", "limits", SECONDS, "unlimited", "time since an entry's last use"),
    SETTING(MAX_DISK_PERCENT, "max_disk_percent", "limits", PERCENT, "100",
            "of what entries take and what is free on the disk"),
    SETTING(EVICT_AFTER, "evict_after", "limits", SECONDS, "60s",
            "an entry stays so long after it was saved"),
    SETTING(ENGINE, "engine", "engine", ENGINE, NULL,
            "of compile and run: " CLI_ENGINE_NAMES ", or the path of one"),
    SETTING(ENGINE_SETTINGS, "settings", "engine", TEXT, NULL,
            "what else the program with the engine vouches for"),
    SETTING(ENGINE_ID, "engine_id", "engine", TEXT, NULL,
            "share the folder ID-v... with another cache"),
};

int cli_setting_find(const char *name)
{
    int id;

    for (id = 0; id < CLI_SETTINGS; id++)
        if (!strcmp(cli_settings[id].name, name))
            return id;
    return -1;
}

char *cli_setting_meant(char *out, size_t size, const char *name)
{
    const char *names[CLI_SETTINGS];
    int id;

    for (id = 0; id < CLI_SETTINGS; id++)
        names[id] = cli_settings[id].name;
    return cli_nearest_meant(out, size, name, names, CLI_SETTINGS);
}

char *cli_config_variable(char out[CLI_VARIABLE_SIZE], enum cli_setting_id id)
{
    char *c;

    snprintf(out, CLI_VARIABLE_SIZE, "WASMCACHE_%s", cli_settings[id].name);
    for (c = out; *c; c++)
        *c = (char)toupper((unsigned char)*c);
    return out;
}

char *cli_config_origin(char *out, size_t size, const struct cli_config *config,
                        enum cli_setting_id id)
{
    const struct cli_setting_value *value = &config->values[id];
    char variable[CLI_VARIABLE_SIZE];

    switch (value->origin) {
    case CLI_FROM_FILE:
        snprintf(out, size, "%s:%u", config->file, value->line);
        break;
    case CLI_FROM_ENVIRONMENT:
        snprintf(out, size, "$%s", cli_config_variable(variable, id));
        break;
    case CLI_FROM_OPTION:
        snprintf(out, size, "%s", value->option);
        break;
    default:
        snprintf(out, size, "default");
    }
    return out;
}

int cli_config_layers(char *out[CLI_LAYERS_MAX], const struct cli_config *config)
{
    const char *at = config->values[CLI_LAYERS].text;
    int count = 0;

    while (at && *at) {
        size_t length = strcspn(at, ":");

        if (count == CLI_LAYERS_MAX || !(out[count] = strndup(at, length))) {
            while (count)
                free(out[--count]);
            return -1;
        }
        count++;
        at += length + (at[length] == ':');
    }
    return count;
}

void cli_config_free(struct cli_config *config)
{
    int id;

    for (id = 0; id < CLI_SETTINGS; id++)
        free(config->values[id].text);
    free(config->file);
    memset(config, 0, sizeof(*config));
}

/* ---- options --------------------------------------------------------------------------------- */

int cli_config_option(struct cli_config *config, enum cli_setting_id id, const char *text,
                      const char *option)
{
    struct cli_setting_value *value = &config->values[id];
    char why[512];

    if (cli_value_read(value, id, text, why, sizeof(why))) {
        if (!strcmp(option, "--set"))
            cli_error("--set %s: %s", cli_settings[id].name, why);
        else
            cli_error("%s: %s", option, why);
        return CLI_USAGE;
    }
    value->origin = CLI_FROM_OPTION;
    value->option = option;
    return CLI_OK;
}

int cli_config_assign(struct cli_config *config, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    char name[64], meant[128];
    int id;

    if (!equals) {
        cli_error("--set %s: it needs NAME=VALUE, such as max_bytes=2GiB", assignment);
        return CLI_USAGE;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(equals - assignment), assignment);
    id = cli_setting_find(name);
    if (id < 0) {
        cli_error("--set: there is no setting \"%s\"%s; \"wasmcache config\" lists them", name,
                  cli_setting_meant(meant, sizeof(meant), name));
        return CLI_USAGE;
    }
    return cli_config_option(config, (enum cli_setting_id)id, equals + 1, "--set");
}

/* ---- environment ----------------------------------------------------------------------------- */

static int load_environment(struct cli_config *config)
{
    int id, status = CLI_OK;

    for (id = 0; id < CLI_SETTINGS; id++) {
        struct cli_setting_value *value = &config->values[id];
        char variable[CLI_VARIABLE_SIZE], why[512];
        const char *text = cli_environment(cli_config_variable(variable, (enum cli_setting_id)id));

        if (!text || value->origin == CLI_FROM_OPTION)
            continue;
        if (cli_value_read(value, (enum cli_setting_id)id, text, why, sizeof(why))) {
            cli_error("$%s: %s", variable, why);
            status = CLI_USAGE;
        }
        value->origin = CLI_FROM_ENVIRONMENT;
    }
    return status;
}

char *cli_home(void)
{
    const char *home = cli_environment("HOME");

    if (!home || *home != '/') {
        const struct passwd *user = getpwuid(geteuid());
        home = user ? user->pw_dir : NULL;
    }
    return home && *home == '/' ? strdup(home) : NULL;
}

/* The XDG specification: a relative path in the variable is to be ignored. */
static char *below_xdg(const char *variable, const char *instead, const char *below)
{
    const char *base = cli_environment(variable);
    char *home, *path = NULL;

    if (base && *base == '/')
        return asprintf(&path, "%s%s", base, below) < 0 ? NULL : path;
    home = cli_home();
    if (home && asprintf(&path, "%s%s%s", home, instead, below) < 0)
        path = NULL;
    free(home);
    return path;
}

/* ---- all ------------------------------------------------------------------------------------- */

static int load_file(struct cli_config *config)
{
    const char *variable = cli_environment("WASMCACHE_CONFIG");

    /* What it says would be said by who called, and what it is could be read off the messages. */
    if (getauxval(AT_SECURE)) {
        if (!config->named)
            return CLI_OK;
        cli_error("--config: the tool runs with more rights than its caller, who may not choose "
                  "what it reads");
        return CLI_USAGE;
    }
    if (config->named || variable) {
        config->file = strdup(config->named ? config->named : variable);
        return cli_config_file(config, config->named ? "--config" : "$WASMCACHE_CONFIG");
    }
    config->file = below_xdg("XDG_CONFIG_HOME", "/.config", "/wasmcache/config");
    return config->file ? cli_config_file(config, NULL) : CLI_OK;
}

static int fill_defaults(struct cli_config *config)
{
    int id;

    for (id = 0; id < CLI_SETTINGS; id++) {
        const struct cli_setting *setting = &cli_settings[id];
        struct cli_setting_value *value = &config->values[id];
        const char *text = id == CLI_ENGINE ? cli_engine_types[0]->name : setting->unset;
        char why[512];

        if (value->origin != CLI_FROM_DEFAULT)
            continue;
        if (id == CLI_DIR) {
            free(value->text);
            value->text = below_xdg("XDG_CACHE_HOME", "/.cache", "/wasmcache");
        } else if (text && cli_value_read(value, (enum cli_setting_id)id, text, why, sizeof(why))) {
            cli_error("%s: %s", setting->name, why);
            return CLI_FAILED;
        }
    }
    return CLI_OK;
}

int cli_config_load(struct cli_config *config)
{
    int from_file = load_file(config);
    int from_environment = load_environment(config);

    if (from_file || from_environment)
        return from_file ? from_file : from_environment;
    return fill_defaults(config);
}
