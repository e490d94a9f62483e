/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links-tool
 *
 * The input is a settings file. A second parser, written after the manual page, must agree on
 * whether anything is wrong with it, and if nothing is on each value and the line that it is of.
 * What is wrong is said, on one line that is fit for a terminal. The values as the tool shows them,
 * written to a file, give the same values again. Options go over the file, and do not hide what is
 * wrong in it.
 *
 * covers: cli/config_file.c cli/config_value.c cli/quantity.c
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/config.h"
#include "cli/engine.h"
#include "cli/output.h"
#include "fuzz/fuzz.h"

/* inih takes lines of up to 199 characters; the tool, files of up to 64 KiB. */
enum { LONGEST_LINE = 199, LONGEST_FILE = 64 * 1024 };

static const char home[] = "/home/fuzz", file_name[] = "config";
static char path[600];
static int planted = -1;

/* ---- in place of engine.c and cache.c ---- */

static const struct cli_engine_type wasmtime = {.name = "wasmtime", .title = "Wasmtime"};
static const struct cli_engine_type wasmer = {.name = "wasmer", .title = "Wasmer"};
const struct cli_engine_type *const cli_engine_types[] = {&wasmtime, &wasmer, NULL};

const char *cli_environment(const char *name)
{
    return strcmp(name, "HOME") == 0 ? home : NULL;
}

/* ---- the second parser ---- */

struct expected {
    char *text; /* NULL: not set */
    uint64_t number;
    unsigned line;
};

struct model {
    struct expected values[CLI_SETTINGS];
    const char *section; /* "": above all; "?": one that there is not */
    unsigned line;
    int wrong;
};

FUZZ_ORACLE static int is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Up to a comment, which is a ; behind a blank, or one of `ends`. */
FUZZ_ORACLE static size_t up_to(const char *text, size_t length, const char *ends)
{
    size_t i = 0;
    for (; i < length; i++)
        if ((text[i] == ';' && i && is_blank(text[i - 1])) || strchr(ends, text[i]))
            break;
    return i;
}

/* A copy without blanks around it. */
FUZZ_ORACLE static char *trimmed(const char *text, size_t length)
{
    char *copy;
    while (length && is_blank(*text)) {
        text++;
        length--;
    }
    while (length && is_blank(text[length - 1]))
        length--;
    copy = strndup(text, length);
    must(copy != NULL);
    return copy;
}

/* The digits in front; how many there are. 0: there are none, or they are nothing or too many. */
FUZZ_ORACLE static int naive_number(uint64_t *out, const char *text, size_t *used)
{
    uint64_t number = 0;
    size_t i = 0;
    for (; text[i] >= '0' && text[i] <= '9'; i++) {
        if (number > (UINT64_MAX - (uint64_t)(text[i] - '0')) / 10)
            return 0;
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    *out = number;
    *used = i;
    return i && number;
}

FUZZ_ORACLE static int naive_times(uint64_t *out, uint64_t number, uint64_t unit)
{
    *out = number * unit;
    return number <= UINT64_MAX / unit;
}

FUZZ_ORACLE static int naive_bytes(uint64_t *out, const char *text)
{
    static const char letters[] = "kMGT";
    uint64_t number, unit = 1, base = 1000;
    size_t used;
    const char *letter;
    if (!naive_number(&number, text, &used))
        return 0;
    text += used;
    if (text[0] == ' ' && text[1])
        text++;
    letter = *text ? strchr(letters, *text == 'K' ? 'k' : *text) : NULL;
    if (letter) {
        if (text[1] == 'i' && *text != 'k') {
            base = 1024;
            text++;
        }
        text++;
        for (const char *l = letters; l <= letter; l++)
            unit *= base;
    }
    if (*text == 'B')
        text++;
    return !*text && naive_times(out, number, unit);
}

FUZZ_ORACLE static int naive_seconds(uint64_t *out, const char *text)
{
    static const struct {
        char letter;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
    uint64_t number;
    size_t used;
    if (!naive_number(&number, text, &used))
        return 0;
    text += used;
    if (*text == ' ')
        text++;
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
        if (text[0] == units[i].letter && !text[1])
            return naive_times(out, number, units[i].seconds);
    return 0;
}

FUZZ_ORACLE static int naive_count(uint64_t *out, const char *text)
{
    size_t used;
    return naive_number(out, text, &used) && !text[used];
}

FUZZ_ORACLE static int is_one_of(uint64_t *out, const char *text, const char *const *words,
                                 int (*compare)(const char *a, const char *b))
{
    for (*out = 0; words[*out]; ++*out)
        if (compare(words[*out], text) == 0)
            return 1;
    return 0;
}

/* Of a value that is no path. */
FUZZ_ORACLE static int naive_value(uint64_t *out, enum cli_setting_kind kind,
                                   const char *const *choices, const char *text)
{
    static const char *const switches[] = {"no", "off",  "false", "0", "yes",
                                           "on", "true", "1",     NULL};
    static const char *const engines[] = {"wasmtime", "wasmer", NULL};
    char *number;
    int right;

    *out = UINT64_MAX;
    if (strcmp(text, "unlimited") == 0 && (kind == CLI_KIND_BYTES || kind == CLI_KIND_SECONDS ||
                                           kind == CLI_KIND_WAIT || kind == CLI_KIND_COUNT))
        return 1;
    switch (kind) {
    case CLI_KIND_CHOICE:
        return is_one_of(out, text, choices, strcmp);
    case CLI_KIND_SWITCH:
        right = is_one_of(out, text, switches, strcasecmp);
        *out = *out >= 4;
        return right;
    case CLI_KIND_ENGINE:
        right = is_one_of(out, text, engines, strcmp);
        *out = 0;
        return right;
    case CLI_KIND_BYTES:
        return naive_bytes(out, text);
    case CLI_KIND_WAIT:
        *out = 0;
        return strcmp(text, "none") == 0 || naive_seconds(out, text);
    case CLI_KIND_SECONDS:
        return naive_seconds(out, text);
    case CLI_KIND_COUNT:
        return naive_count(out, text);
    case CLI_KIND_PERCENT:
        number = strndup(text, strlen(text) - (*text && text[strlen(text) - 1] == '%'));
        right = number && strlen(number) < 8 && naive_count(out, number) && *out <= 100;
        free(number);
        return right;
    default:
        *out = 0;
        return 1;
    }
}

/* One path, as it is meant; NULL: it is none. */
FUZZ_ORACLE static char *naive_path(const char *text, size_t length)
{
    char *whole = NULL;
    if (length && text[0] == '/')
        return strndup(text, length);
    if (length < 2 || text[0] != '~' || text[1] != '/')
        return NULL;
    must(asprintf(&whole, "%s%.*s", home, (int)length - 1, text + 1) >= 0);
    return whole;
}

/* Those of `before` and these; NULL: something is wrong with them. */
FUZZ_ORACLE static char *naive_paths(const char *before, const char *text)
{
    char *list = strdup(before ? before : "");
    int count = 0;
    while (list && *text) {
        const size_t length = strcspn(text, ":");
        char *one = naive_path(text, length), *longer = NULL;
        if (one && text[length] == ':' && !text[length + 1]) {
            free(one);
            one = NULL;
        }
        if (one)
            must(asprintf(&longer, "%s%s%s", list, *list ? ":" : "", one) >= 0);
        free(one);
        free(list);
        list = longer;
        text += length + (text[length] == ':');
    }
    for (const char *c = list; c && *c; c++)
        count += *c == ':';
    if (list && *list && count + 1 > CLI_LAYERS_MAX) {
        free(list);
        return NULL;
    }
    return list;
}

FUZZ_ORACLE static void naive_setting(struct model *m, const char *name, const char *text)
{
    struct expected *value;
    const struct cli_setting *setting;
    char *whole;
    uint64_t number = 0;
    int id = 0;

    while (id < CLI_SETTINGS && strcmp(cli_settings[id].name, name) != 0)
        id++;
    if (id == CLI_SETTINGS || strcmp(cli_settings[id].section, m->section) != 0) {
        m->wrong = 1;
        return;
    }
    setting = &cli_settings[id];
    value = &m->values[id];
    if (value->line && setting->kind != CLI_KIND_PATHS) {
        m->wrong = 1;
        return;
    }
    if (setting->kind == CLI_KIND_PATHS)
        whole = naive_paths(value->text, text);
    else if (setting->kind == CLI_KIND_PATH ||
             (setting->kind == CLI_KIND_ENGINE && strchr(text, '/')))
        whole = naive_path(text, strlen(text));
    else
        whole = naive_value(&number, setting->kind, setting->choices, text) ? strdup(text) : NULL;
    if (!whole) {
        m->wrong = 1;
        return;
    }
    free(value->text);
    value->text = whole;
    value->number = number;
    value->line = m->line;
}

FUZZ_ORACLE static const char *naive_section(const char *line, size_t length)
{
    static const char *const sections[] = {"cache", "limits", "engine"};
    for (int i = 0; i < 3; i++) {
        size_t at = strlen(sections[i]) + 1;
        if (length <= at || line[at] != ']' || memcmp(line + 1, sections[i], at - 1) != 0)
            continue;
        for (at++; at < length && (line[at] == ' ' || line[at] == '\t' || line[at] == '\r');)
            at++;
        return at == length || line[at] == ';' || line[at] == '#' ? sections[i] : "?";
    }
    return "?";
}

FUZZ_ORACLE static void naive_line(struct model *m, const char *line, size_t length)
{
    char *name, *value;
    size_t equals;
    m->line++;
    while (length && is_blank(*line)) {
        line++;
        length--;
    }
    if (!length || *line == '#' || *line == ';')
        return;
    if (length > LONGEST_LINE) {
        m->wrong = 1;
        return;
    }
    if (*line == '[') {
        m->section = naive_section(line, length);
        m->wrong |= *m->section == '?';
        return;
    }
    equals = up_to(line, length, "=:");
    if (equals == length || (line[equals] != '=' && line[equals] != ':')) {
        m->wrong = 1;
        return;
    }
    if (*m->section == '?')
        return;
    name = trimmed(line, equals);
    line += equals + 1;
    length -= equals + 1;
    value = trimmed(line, up_to(line, length, ""));
    naive_setting(m, name, value);
    free(name);
    free(value);
}

FUZZ_ORACLE static void naive_file(struct model *m, const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *end = text + size;
    memset(m, 0, sizeof(*m));
    m->section = "";
    if ((size && memchr(data, 0, size)) || size > LONGEST_FILE) {
        m->wrong = 1;
        return;
    }
    /* A byte order mark, and blanks around it. */
    for (;;) {
        if (end - text >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
            text += 3;
        else if (text < end && *text != '\n' && is_blank(*text))
            text++;
        else
            break;
    }
    while (text < end) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        naive_line(m, text, (size_t)((newline ? newline : end) - text));
        text = newline ? newline + 1 : end;
    }
}

/* ---- what is read ---- */

static char message[2048];

static int load(struct cli_config *config, const uint8_t *data, size_t size)
{
    int status;
    must(ftruncate(planted, (off_t)size) == 0);
    must(!size || pwrite(planted, data, size, 0) == (ssize_t)size);
    message[0] = '\0';
    config->named = path;
    cli_errors_to(message, sizeof(message));
    status = cli_config_load(config);
    cli_errors_to(NULL, 0);
    must(status == CLI_OK || status == CLI_USAGE);
    must((status == CLI_OK) == !message[0]);
    for (const char *c = message; *c; c++)
        must((unsigned char)*c >= 0x20 && *c != 0x7F);
    return status;
}

FUZZ_ORACLE static void check_range(const struct cli_setting_value *value,
                                    const struct cli_setting *setting)
{
    switch (setting->kind) {
    case CLI_KIND_SWITCH:
        must(value->number <= 1);
        break;
    case CLI_KIND_CHOICE:
        must(value->number <= 2 && strcmp(setting->choices[value->number], value->text) == 0);
        break;
    case CLI_KIND_PERCENT:
        must(value->number >= 1 && value->number <= 100);
        break;
    case CLI_KIND_BYTES:
    case CLI_KIND_SECONDS:
    case CLI_KIND_COUNT:
        must(value->number >= 1);
        break;
    default:
        break;
    }
}

FUZZ_ORACLE static void check_values(const struct cli_config *config, const struct model *m)
{
    char *layers[CLI_LAYERS_MAX];
    int count;
    for (int id = 0; id < CLI_SETTINGS; id++) {
        const struct cli_setting_value *value = &config->values[id];
        const struct expected *expected = &m->values[id];
        if (value->text)
            check_range(value, &cli_settings[id]);
        if (!expected->line) {
            must(value->origin == CLI_FROM_DEFAULT);
            continue;
        }
        must(value->origin == CLI_FROM_FILE && value->line == expected->line);
        must(strcmp(value->text, expected->text) == 0 && value->number == expected->number);
    }
    count = cli_config_layers(layers, config);
    must(count >= 0 && count <= CLI_LAYERS_MAX);
    while (count) {
        must(layers[--count][0] == '/');
        free(layers[count]);
    }
}

/* Adds a line, if it is one that can be read. 0: it is not. */
FUZZ_ORACLE static int add_line(char *out, size_t *used, const char *section, const char *name,
                                const char *value)
{
    if (strlen(name) + 1 + strlen(value) > LONGEST_LINE)
        return 0;
    *used +=
        (size_t)snprintf(out + *used, LONGEST_FILE - *used, "[%s]\n%s=%s\n", section, name, value);
    return 1;
}

/* What the tool shows, as a file. */
static void check_round_trip(const struct cli_config *config)
{
    static char text[LONGEST_FILE + 1];
    struct cli_config again = {0};
    uint8_t written[CLI_SETTINGS] = {0};
    size_t used = 0;
    for (int id = 0; id < CLI_SETTINGS; id++) {
        char buffer[64];
        const char *shown =
            cli_config_text(buffer, sizeof(buffer), config, (enum cli_setting_id)id);
        const struct cli_setting *s = &cli_settings[id];
        if (config->values[id].origin != CLI_FROM_FILE ||
            (s->kind <= CLI_KIND_CHOICE && !*config->values[id].text))
            continue;
        written[id] = (uint8_t)add_line(text, &used, s->section, s->name, shown);
    }
    must(used < LONGEST_FILE);
    must(load(&again, (const uint8_t *)text, used) == CLI_OK);
    for (int id = 0; id < CLI_SETTINGS; id++) {
        if (!written[id])
            continue;
        must(again.values[id].origin == CLI_FROM_FILE);
        must(again.values[id].number == config->values[id].number);
        must(cli_settings[id].kind > CLI_KIND_CHOICE ||
             strcmp(again.values[id].text, config->values[id].text) == 0);
    }
    cli_config_free(&again);
}

static void check_under_options(const uint8_t *data, size_t size, int wrong)
{
    struct cli_config config = {0};
    must(cli_config_option(&config, CLI_MAX_BYTES, "3 KiB", "--set") == CLI_OK);
    must(cli_config_option(&config, CLI_DIR, "here", "--cache-dir") == CLI_OK);
    must(cli_config_option(&config, CLI_LEGACY, "yes", "--legacy") == CLI_OK);
    must((load(&config, data, size) != CLI_OK) == wrong);
    must(config.values[CLI_MAX_BYTES].number == 3072 && config.values[CLI_LEGACY].number == 1);
    must(strcmp(config.values[CLI_DIR].text, "here") == 0);
    must(config.values[CLI_DIR].origin == CLI_FROM_OPTION);
    cli_config_free(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cli_config config = {0};
    struct model m;
    int status;

    if (planted < 0) {
        planted = fuzz_plant(fuzz_directory_fd(), file_name, NULL, 0, 0600);
        snprintf(path, sizeof(path), "%s/%s", fuzz_directory(), file_name);
    }
    naive_file(&m, data, size);
    status = load(&config, data, size);
    must((status != CLI_OK) == m.wrong);
    if (status == CLI_OK) {
        check_values(&config, &m);
        check_round_trip(&config);
    }
    check_under_options(data, size, m.wrong);
    for (int id = 0; id < CLI_SETTINGS; id++)
        free(m.values[id].text);
    cli_config_free(&config);
    return 0;
}
