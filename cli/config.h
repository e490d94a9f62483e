/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_CONFIG_H
#define CLI_CONFIG_H

/*
 * Settings: what may be said in a file, in the environment and by options, the later of these over
 * the earlier. One table (cli_settings) has them all. Each is known by one name: NAME in the file,
 * WASMCACHE_NAME in the environment, --set NAME=VALUE; some have an option of their own too.
 *
 *     cli_config_option(config, CLI_MAX_BYTES, "5 GiB", "--set");   while options are scanned
 *     status = cli_config_load(config);                             after the last one
 *     if (config->values[CLI_MAX_BYTES].origin != CLI_FROM_DEFAULT) ... .number ...
 *     cli_config_free(config);
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum cli_setting_id {
    CLI_DIR,
    CLI_LAYERS,
    CLI_SHARE,
    CLI_VERIFY,
    CLI_DURABLE,
    CLI_LEGACY,
    CLI_WAIT,
    CLI_MAX_BYTES,
    CLI_MAX_ENTRIES,
    CLI_MAX_AGE,
    CLI_MAX_DISK_PERCENT,
    CLI_EVICT_AFTER,
    CLI_ENGINE,
    CLI_ENGINE_SETTINGS,
    CLI_ENGINE_ID,
    CLI_SETTINGS
};

/* How the text of a value is read, and what of struct cli_setting_value it fills. */
enum cli_setting_kind {
    CLI_KIND_TEXT,
    CLI_KIND_PATH,
    CLI_KIND_ENGINE, /* a name, or a path with a slash in it */
    CLI_KIND_PATHS,  /* with colons between them; "" is none */
    CLI_KIND_CHOICE, /* number: which */
    CLI_KIND_SWITCH, /* number: 0, 1 */
    CLI_KIND_BYTES,
    CLI_KIND_SECONDS,
    CLI_KIND_WAIT, /* as SECONDS; "none" is 0 */
    CLI_KIND_COUNT,
    CLI_KIND_PERCENT
};

enum { CLI_LAYERS_MAX = 16 };

struct cli_setting {
    const char *name;
    const char *section; /* of the file */
    enum cli_setting_kind kind;
    const char *unset; /* what holds without it, as text; NULL: nothing, or it depends */
    const char *help;
    const char *const *choices; /* CHOICE: ends with NULL */
};

extern const struct cli_setting cli_settings[CLI_SETTINGS];

enum cli_origin { CLI_FROM_DEFAULT, CLI_FROM_FILE, CLI_FROM_ENVIRONMENT, CLI_FROM_OPTION };

struct cli_setting_value {
    char *text;      /* owned; NULL: none */
    uint64_t number; /* UINT64_MAX: unlimited */
    enum cli_origin origin;
    unsigned line;      /* FILE: the last that set it */
    const char *option; /* OPTION: "--set" or its own */
};

struct cli_config {
    struct cli_setting_value values[CLI_SETTINGS];
    const char *named; /* by --config; NULL: not */
    char *file;        /* that is used or looked for; NULL: there is none to look for */
    bool file_read;    /* it is there */
};

/* Takes a value from an option. CLI_OK, or CLI_USAGE after a message. */
int cli_config_option(struct cli_config *config, enum cli_setting_id id, const char *text,
                      const char *option);
/* --set NAME=VALUE. The same. */
int cli_config_assign(struct cli_config *config, const char *assignment);
/* Reads file and environment, and fills in what holds without them. CLI_OK, or CLI_USAGE after a
 * message for each thing that is wrong. */
int cli_config_load(struct cli_config *config);
void cli_config_free(struct cli_config *config);

/* Where a value comes from: "default", "/path/config:3", "$WASMCACHE_DIR", "--set". Into `out`,
 * which is returned. */
char *cli_config_origin(char *out, size_t size, const struct cli_config *config,
                        enum cli_setting_id id);
/* A value as it can be written in the file; "-" if there is none. Into `out`, which is returned,
 * if it is not there already. */
const char *cli_config_text(char *out, size_t size, const struct cli_config *config,
                            enum cli_setting_id id);
/* "WASMCACHE_MAX_BYTES", into `out`, which is returned. */
enum { CLI_VARIABLE_SIZE = 48 };
char *cli_config_variable(char out[CLI_VARIABLE_SIZE], enum cli_setting_id id);

/* The paths of CLI_LAYERS, each to be freed. How many; -1: no memory. */
int cli_config_layers(char *out[CLI_LAYERS_MAX], const struct cli_config *config);

/* ---- for those that read settings --------------------------------------------------------------
 */

/* -1: there is none of that name. */
int cli_setting_find(const char *name);
/* " (is \"max_bytes\" meant?)" or "", into `out`, which is returned. */
char *cli_setting_meant(char *out, size_t size, const char *name);
/* Reads a value; what was there before is freed. 0, or -1 with the reason in `why`, to go on after
 * "NAME: ". Origin and place are the caller's to set. */
int cli_value_read(struct cli_setting_value *out, enum cli_setting_id id, const char *text,
                   char *why, size_t size);
/* Reads the file `config->file`; `named`: by whom it is named, NULL: by nobody, and then it need
 * not be there. Values that have another origin already stay. As cli_config_load(). */
int cli_config_file(struct cli_config *config, const char *named);
/* The home directory, to be freed; NULL: there is none. */
char *cli_home(void);

#endif
