/* SPDX-License-Identifier: Apache-2.0 */
/* Values of settings: from text, and to the text that gives the same value again. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli.h"
#include "config.h"
#include "engine.h"
#include "nearest.h"
#include "quantity.h"

/* ---- from text ------------------------------------------------------------------------------- */

static int refuse(char *why, size_t size, const char *text, const char *what)
{
    snprintf(why, size, "\"%s\" is no %s", text, what);
    return -1;
}

static int read_switch(uint64_t *out, const char *text)
{
    static const char *const words[2][4] = {{"no", "off", "false", "0"},
                                            {"yes", "on", "true", "1"}};
    size_t i;

    for (i = 0; i < 8; i++)
        if (!strcasecmp(text, words[i / 4][i % 4])) {
            *out = i / 4;
            return 0;
        }
    return -1;
}

static int read_percent(uint64_t *out, const char *text)
{
    char number[8];
    size_t length = strlen(text);

    if (length && text[length - 1] == '%')
        length--;
    if (!length || length >= sizeof(number))
        return -1;
    memcpy(number, text, length);
    number[length] = '\0';
    return cli_quantity_count(out, number) || *out > 100 ? -1 : 0;
}

static int read_choice(uint64_t *out, const struct cli_setting *setting, const char *text,
                       char *why, size_t size)
{
    const char *const *choice;
    char all[128] = "", meant[128];
    size_t count = 0, used = 0;

    for (choice = setting->choices; *choice; choice++, count++) {
        if (!strcmp(*choice, text)) {
            *out = count;
            return 0;
        }
        if (used < sizeof(all))
            used +=
                (size_t)snprintf(all + used, sizeof(all) - used, "%s%s", used ? ", " : "", *choice);
    }
    snprintf(why, size, "\"%s\" is none of %s%s", text, all,
             cli_nearest_meant(meant, sizeof(meant), text, setting->choices, count));
    return -1;
}

static int read_engine(const char *text, char *why, size_t size)
{
    const struct cli_engine_type *const *type;

    if (strchr(text, '/'))
        return 0;
    for (type = cli_engine_types; *type; type++)
        if (!strcmp(text, (*type)->name))
            return 0;
    snprintf(why, size,
             "this tool was built without an engine \"%s\"; there is: " CLI_ENGINE_NAMES
             ". Give one of these, or the path of its library with a slash in it",
             text);
    return -1;
}

static int read_paths(const char *text, char *why, size_t size)
{
    int count = 0;

    if (!*text)
        return 0;
    for (;;) {
        size_t length = strcspn(text, ":");

        if (!length) {
            snprintf(why, size, "an empty path is in the list; there is one colon between two");
            return -1;
        }
        if (++count > CLI_LAYERS_MAX) {
            snprintf(why, size, "more than %d directories", CLI_LAYERS_MAX);
            return -1;
        }
        if (!text[length])
            return 0;
        text += length + 1;
    }
}

static int read_value(uint64_t *number, const struct cli_setting *setting, const char *text,
                      char *why, size_t size)
{
    switch (setting->kind) {
    case CLI_KIND_TEXT:
        return 0;
    case CLI_KIND_PATH:
        if (*text)
            return 0;
        snprintf(why, size, "it needs a directory");
        return -1;
    case CLI_KIND_ENGINE:
        return read_engine(text, why, size);
    case CLI_KIND_PATHS:
        return read_paths(text, why, size);
    case CLI_KIND_CHOICE:
        return read_choice(number, setting, text, why, size);
    case CLI_KIND_SWITCH:
        return read_switch(number, text) ? refuse(why, size, text, "switch: yes or no") : 0;
    case CLI_KIND_BYTES:
        return cli_quantity_bytes(number, text)
                   ? refuse(why, size, text, "size such as 500M, 5 GiB or unlimited")
                   : 0;
    case CLI_KIND_WAIT:
        if (!strcmp(text, "none")) {
            *number = 0;
            return 0;
        }
        return cli_quantity_seconds(number, text)
                   ? refuse(why, size, text, "time such as 60s, 5m, none or unlimited")
                   : 0;
    case CLI_KIND_SECONDS:
        return cli_quantity_seconds(number, text)
                   ? refuse(why, size, text, "time such as 90s, 12h, 30d or unlimited")
                   : 0;
    case CLI_KIND_COUNT:
        return cli_quantity_count(number, text)
                   ? refuse(why, size, text, "number from 1 on, or unlimited")
                   : 0;
    default:
        return read_percent(number, text) ? refuse(why, size, text, "number from 1 to 100") : 0;
    }
}

int cli_value_read(struct cli_setting_value *out, enum cli_setting_id id, const char *text,
                   char *why, size_t size)
{
    uint64_t number = 0;
    char *copy;

    if (read_value(&number, &cli_settings[id], text, why, size))
        return -1;
    copy = strdup(text);
    if (!copy) {
        snprintf(why, size, "no memory");
        return -1;
    }
    free(out->text);
    out->text = copy;
    out->number = number;
    return 0;
}

/* ---- to text --------------------------------------------------------------------------------- */

struct unit {
    const char *name;
    uint64_t size;
};

/* In the largest unit that leaves no rest. */
static void exact(char *out, size_t size, uint64_t number, const struct unit *unit)
{
    while (unit->size > 1 && number % unit->size)
        unit++;
    snprintf(out, size, "%" PRIu64 "%s", number / unit->size, unit->name);
}

const char *cli_config_text(char *out, size_t size, const struct cli_config *config,
                            enum cli_setting_id id)
{
    static const struct unit bytes[] = {{" TiB", UINT64_C(1) << 40},
                                        {" GiB", UINT64_C(1) << 30},
                                        {" MiB", UINT64_C(1) << 20},
                                        {" KiB", UINT64_C(1) << 10},
                                        {" TB", 1000000000000},
                                        {" GB", 1000000000},
                                        {" MB", 1000000},
                                        {" kB", 1000},
                                        {"", 1}};
    static const struct unit seconds[] = {{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}};
    static const struct unit counts[] = {{"", 1}};
    const struct cli_setting_value *value = &config->values[id];
    enum cli_setting_kind kind = cli_settings[id].kind;

    if (kind == CLI_KIND_SWITCH)
        return value->number ? "yes" : "no";
    if (kind == CLI_KIND_CHOICE || kind < CLI_KIND_CHOICE)
        return value->text && *value->text ? value->text : "-";
    if (value->number == UINT64_MAX)
        return "unlimited";
    if (kind == CLI_KIND_WAIT && !value->number)
        return "none";
    exact(out, size, value->number,
          kind == CLI_KIND_BYTES                              ? bytes
          : kind == CLI_KIND_SECONDS || kind == CLI_KIND_WAIT ? seconds
                                                              : counts);
    return out;
}
