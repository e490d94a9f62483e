/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links-tool
 *
 * The input is a command line, with a zero byte behind each argument; first come variables of the
 * environment, as in a shell. Twice it is taken apart: by
 * cli_scan_next() as commands do it, and by a second scanner; they must agree on each option, value
 * and operand, on where it is wrong, and on the settings that come of it. Then the whole tool is
 * called with it, in which caches, engines, folders and the settings file are those below, that are
 * never there: it must end with a status that it has, say something exactly if that is no success,
 * print JSON where that was asked for, and get to open something only if nothing was wrong.
 *
 * covers: cli/options.c cli/main.c cli/config.c cli/nearest.c
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "cli/cache.h"
#include "cli/cli.h"
#include "cli/doctor.h"
#include "cli/engine.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/table.h"
#include "fuzz/fuzz.h"

enum { ARGUMENTS = 64 };

int wasmcache_tool_main(int argc, char **argv);

static const struct cli_command *const commands[] = {
    &cli_command_compile, &cli_command_run,    &cli_command_info,   &cli_command_explain,
    &cli_command_ls,      &cli_command_verify, &cli_command_rm,     &cli_command_clear,
    &cli_command_prune,   &cli_command_pin,    &cli_command_unpin,  &cli_command_stats,
    &cli_command_dir,     &cli_command_config, &cli_command_doctor,
};
enum { COMMANDS = sizeof(commands) / sizeof(*commands) };

/* ---- in place of cache.c, config_file.c, doctor_*.c, engine.c, files.c and table.c ---- */

static unsigned reached; /* how often a command wanted to do something */

static int reach(const struct cli *cli)
{
    const struct cli_config *config = cli->config;
    reached++;
    /* The settings are whole by now. */
    must(config->values[CLI_DIR].text && *config->values[CLI_DIR].text);
    must(config->values[CLI_MAX_BYTES].number && config->values[CLI_EVICT_AFTER].number);
    must(config->values[CLI_MAX_DISK_PERCENT].number <= 100);
    must(config->values[CLI_SHARE].number <= 2 && config->values[CLI_VERIFY].number <= 2);
    must(config->values[CLI_ENGINE].text && *config->values[CLI_ENGINE].text);
    must(!cli->quiet || !cli->verbose);
    cli_error("there is nothing here");
    return CLI_FAILED;
}

static const struct cli_engine_type wasmtime = {
    .name = "wasmtime", .title = "Wasmtime", .version = "1"};
static const struct cli_engine_type wasmer = {.name = "wasmer", .title = "Wasmer", .version = "1"};
const struct cli_engine_type *const cli_engine_types[] = {&wasmtime, &wasmer, NULL};

int cli_engine_open(struct cli_engine *out, const struct cli *cli)
{
    (void)out;
    return reach(cli);
}

int cli_engine_attach(wasmcache_attachment **out, const struct cli_engine *engine, wasmcache *cache,
                      const struct cli *cli)
{
    (void)out;
    (void)engine;
    (void)cache;
    return reach(cli);
}

void cli_engine_close(struct cli_engine *engine)
{
    (void)engine;
}

wasmcache_kind cli_engine_kind(const char *path)
{
    must(path != NULL);
    return WASMCACHE_MODULE;
}

int cli_cache_open(struct cli *cli, wasmcache **out, enum cli_cache_use use)
{
    (void)use;
    *out = NULL;
    return reach(cli);
}

int cli_cache_open_with(struct cli *cli, wasmcache **out, unsigned flags,
                        wasmcache_event_fn listener)
{
    (void)flags;
    (void)listener;
    *out = NULL;
    (void)reach(cli);
    return WASMCACHE_EOFF;
}

int cli_cache_error(void)
{
    return WASMCACHE_EOFF;
}

const char *cli_cache_dir(const struct cli *cli)
{
    return cli->config->values[CLI_DIR].text;
}

void cli_get_options(wasmcache_get_options *out, const struct cli *cli)
{
    (void)out;
    (void)cli;
}

const char *cli_save_error(void)
{
    return "";
}

void cli_save_error_clear(void)
{
}

const char *cli_last_message(void)
{
    return "";
}

int cli_entries_collect(struct cli_entries *out, wasmcache *cache, const char *engine_namespace)
{
    (void)out;
    (void)cache;
    (void)engine_namespace;
    return CLI_FAILED;
}

void cli_entries_free(struct cli_entries *entries)
{
    (void)entries;
}

int cli_key_find(wasmcache_key *out, const char *operand, const struct cli_entries *entries,
                 char *why, size_t size)
{
    (void)out;
    (void)operand;
    (void)entries;
    snprintf(why, size, "there is none");
    return -1;
}

char *cli_entry_path(wasmcache *cache, const char *engine_namespace, const wasmcache_key *key)
{
    (void)cache;
    (void)engine_namespace;
    (void)key;
    return NULL;
}

char *cli_layer_entry_path(const struct cli *cli, wasmcache *cache, int layer,
                           const char *engine_namespace, const wasmcache_key *key)
{
    (void)cli;
    (void)layer;
    return cli_entry_path(cache, engine_namespace, key);
}

bool cli_entry_known(const wasmcache_entry *entry)
{
    (void)entry;
    return false;
}

json_t *cli_json_entry(wasmcache *cache, const wasmcache_entry *entry)
{
    (void)cache;
    (void)entry;
    return NULL;
}

/* What stands before the arguments. */
static char *const *environment;
static int variables;

const char *cli_environment(const char *name)
{
    const size_t length = strlen(name);
    for (int i = 0; i < variables; i++)
        if (strncmp(environment[i], name, length) == 0 && environment[i][length] == '=')
            return environment[i][length + 1] ? environment[i] + length + 1 : NULL;
    return strcmp(name, "HOME") == 0 ? "/home/fuzz" : NULL;
}

bool cli_environment_flag(const char *name)
{
    const char *value = cli_environment(name);
    return value && strcmp(value, "0") != 0;
}

FUZZ_ORACLE static int is_variable(const char *argument)
{
    static const char *const names[] = {
        "WASMCACHE_", "XDG_CONFIG_HOME=", "XDG_CACHE_HOME=", "HOME=", "SOURCE_DATE_EPOCH="};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strncmp(argument, names[i], strlen(names[i])) == 0)
            return strchr(argument, '=') != NULL;
    return 0;
}

int cli_config_file(struct cli_config *config, const char *named)
{
    must(config->file && *config->file);
    must(!config->named || (strcmp(config->named, config->file) == 0 && named));
    config->file_read = true;
    return CLI_OK;
}

void cli_files_operand(struct cli_files *files, char *operand)
{
    must(operand != NULL);
    files->operands++;
}

void cli_files_expand(struct cli_files *files)
{
    must(files->operands > 0);
}

void cli_files_free(struct cli_files *files)
{
    memset(files, 0, sizeof(*files));
}

struct cli_table {
    size_t columns;
};

struct cli_table *cli_table_new(const struct cli_column *columns, size_t count)
{
    static struct cli_table table;
    must(columns && count);
    table.columns = count;
    return &table;
}

void cli_table_row(struct cli_table *table, const char *const *cells)
{
    for (size_t i = 0; i < table->columns; i++)
        must(cells[i] && strlen(cells[i]) < 65536);
}

void cli_table_print(struct cli_table *table)
{
    (void)table;
}

static void look(struct cli_doctor *doctor)
{
    (void)reach(doctor->cli);
    doctor->found[CLI_BROKEN]++;
}

void cli_doctor_settings(struct cli_doctor *doctor)
{
    look(doctor);
}

void cli_doctor_directory(struct cli_doctor *doctor)
{
    (void)doctor;
}

void cli_doctor_disk(struct cli_doctor *doctor)
{
    (void)doctor;
}

void cli_doctor_layers(struct cli_doctor *doctor)
{
    (void)doctor;
}

void cli_doctor_engines(struct cli_doctor *doctor)
{
    (void)doctor;
}

void cli_doctor_limits(struct cli_doctor *doctor)
{
    (void)doctor;
}

/* ---- the second scanner ---- */

enum { END = -1, OPERAND = -2, WRONG = -3, ANSWERED = -4 };

struct scanner {
    const struct cli_option *options; /* of the command, NULL: before its name */
    char **argv;
    int argc, at;
    const char *group; /* letters that are left */
    int operands_only, stop_at_operand;
    const char *value;
    /* Settings: the last of each. */
    const char *settings[CLI_SETTINGS];
    const char *variables[CLI_SETTINGS]; /* where there is none of these */
    const char *named;
    int json, quiet, verbose;
};

FUZZ_ORACLE static const struct cli_option *named(const struct cli_option *list, const char *name,
                                                  size_t length)
{
    for (; list && list->name; list++)
        if (strncmp(list->name, name, length) == 0 && !list->name[length])
            return list;
    return NULL;
}

FUZZ_ORACLE static const struct cli_option *lettered(const struct cli_option *list, char letter)
{
    for (; list && list->name; list++)
        if (list->letter == letter && letter)
            return list;
    return NULL;
}

/* 0, or WRONG: a value that the setting does not take. */
FUZZ_ORACLE static int set(struct scanner *s, int id, const char *text)
{
    struct cli_setting_value value = {0};
    char why[512];
    int rc = cli_value_read(&value, (enum cli_setting_id)id, text, why, sizeof(why));
    must(rc == 0 || why[0]);
    free(value.text);
    s->settings[id] = text;
    return rc ? WRONG : 0;
}

FUZZ_ORACLE static int assign(struct scanner *s, const char *text)
{
    const size_t length = strcspn(text, "=");
    for (int id = 0; id < CLI_SETTINGS && text[length]; id++)
        if (strlen(cli_settings[id].name) == length &&
            memcmp(cli_settings[id].name, text, length) == 0)
            return set(s, id, text + length + 1);
    return WRONG;
}

/* 0: it was a global one, and taken in. */
FUZZ_ORACLE static int take(struct scanner *s, const struct cli_option *option)
{
    static const struct {
        const char *name;
        int id;
        const char *means;
    } settings[] = {{"cache-dir", CLI_DIR, NULL},
                    {"engine", CLI_ENGINE, NULL},
                    {"settings", CLI_ENGINE_SETTINGS, NULL},
                    {"engine-id", CLI_ENGINE_ID, NULL},
                    {"legacy", CLI_LEGACY, "yes"},
                    {"durable", CLI_DURABLE, "yes"}};
    const char *name = option->name;
    if (option < cli_global_options || option->id < 1000)
        return option->id;
    for (size_t i = 0; i < sizeof(settings) / sizeof(*settings); i++) {
        const char *text = settings[i].means ? settings[i].means : s->value;
        if (strcmp(name, settings[i].name) == 0)
            return settings[i].id == CLI_ENGINE && !*text ? WRONG : set(s, settings[i].id, text);
    }
    if (strcmp(name, "set") == 0)
        return assign(s, s->value);
    if (strcmp(name, "config") == 0) {
        s->named = s->value;
        return *s->value ? 0 : WRONG;
    }
    if (strcmp(name, "json") == 0)
        s->json = 1;
    else if (strcmp(name, "quiet") == 0 || strcmp(name, "verbose") == 0)
        s->verbose = !(s->quiet = *name == 'q');
    else
        return ANSWERED; /* help, version */
    return 0;
}

FUZZ_ORACLE static int letter(struct scanner *s)
{
    const struct cli_option *option = lettered(s->options, *s->group);
    if (!option)
        option = lettered(cli_global_options, *s->group);
    s->group++;
    s->value = NULL;
    if (!option)
        return WRONG;
    if (option->value) {
        s->value = *s->group ? s->group : s->at < s->argc ? s->argv[s->at++] : NULL;
        s->group = NULL;
        if (!s->value)
            return WRONG;
    }
    return take(s, option);
}

FUZZ_ORACLE static int word(struct scanner *s, const char *text)
{
    const size_t length = strcspn(text, "=");
    const struct cli_option *option = named(s->options, text, length);
    if (!option)
        option = named(cli_global_options, text, length);
    s->value = text[length] ? text + length + 1 : NULL;
    if (!option || (s->value && !option->value))
        return WRONG;
    if (option->value && !s->value) {
        if (s->at == s->argc)
            return WRONG;
        s->value = s->argv[s->at++];
    }
    return take(s, option);
}

FUZZ_ORACLE static int naive_next(struct scanner *s)
{
    for (;;) {
        const char *text;
        int id;
        if (s->group && *s->group) {
            id = letter(s);
        } else if (s->at == s->argc) {
            return END;
        } else {
            text = s->argv[s->at++];
            s->value = text;
            s->group = NULL;
            if (s->operands_only || text[0] != '-' || !text[1]) {
                s->operands_only |= s->stop_at_operand;
                return OPERAND;
            }
            id = 0;
            if (text[1] != '-')
                s->group = text + 1;
            else if (text[2])
                id = word(s, text + 2);
            else
                s->operands_only = 1;
        }
        if (id)
            return id;
    }
}

/* The settings once all options were seen. 0, or WRONG. */
FUZZ_ORACLE static int take_environment(struct scanner *s)
{
    int rc = 0;
    for (int id = 0; id < CLI_SETTINGS; id++) {
        struct cli_setting_value value = {0};
        char name[64] = "WASMCACHE_", why[512];
        const char *text;
        for (size_t i = 0, at = strlen(name); i <= strlen(cli_settings[id].name); i++)
            name[at + i] = (char)toupper((unsigned char)cli_settings[id].name[i]);
        text = cli_environment(name);
        if (!text || s->settings[id])
            continue;
        s->variables[id] = text;
        if (cli_value_read(&value, (enum cli_setting_id)id, text, why, sizeof(why)))
            rc = WRONG;
        free(value.text);
    }
    return rc;
}

/* ---- what is printed ---- */

struct printed {
    FILE *out, *err, *real_out, *real_err;
    char *out_text, *err_text;
    size_t out_size, err_size;
};

static void catch (struct printed *p)
{
    memset(p, 0, sizeof(*p));
    p->out = open_memstream(&p->out_text, &p->out_size);
    p->err = open_memstream(&p->err_text, &p->err_size);
    must(p->out && p->err);
    p->real_out = stdout;
    p->real_err = stderr;
    stdout = p->out;
    stderr = p->err;
}

static void let_go(struct printed *p)
{
    stdout = p->real_out;
    stderr = p->real_err;
    fclose(p->out);
    fclose(p->err);
    cli_output_set(false, false, false);
}

/* Each line begins with the tool's name, and has nothing that a terminal would obey. */
FUZZ_ORACLE static unsigned check_messages(const struct printed *p)
{
    static const char name[] = "wasmcache: ";
    unsigned lines = 0;
    for (const char *line = p->err_text, *end = line + p->err_size; line < end; lines++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        must(newline && strncmp(line, name, sizeof(name) - 1) == 0);
        for (; line < newline; line++)
            must((unsigned char)*line >= 0x20 && *line != 0x7F);
        line = newline + 1;
    }
    return lines;
}

FUZZ_ORACLE static void check_json(const struct printed *p)
{
    for (const char *line = p->out_text, *end = line + p->out_size; line < end;) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        json_t *object;
        must(newline != NULL);
        object = json_loadb(line, (size_t)(newline - line), JSON_REJECT_DUPLICATES, NULL);
        must(json_is_object(object));
        json_decref(object);
        line = newline + 1;
    }
}

/* ---- what is checked ---- */

FUZZ_ORACLE static void check_settings(const struct scanner *s, const struct cli *cli)
{
    must(cli->json == (s->json != 0) && cli->quiet == (s->quiet != 0));
    must(cli->verbose == (s->verbose != 0) && cli->config->named == s->named);
    for (int id = 0; id < CLI_SETTINGS; id++) {
        const struct cli_setting_value *value = &cli->config->values[id];
        must((value->origin == CLI_FROM_OPTION) == (s->settings[id] != NULL));
        must((value->origin == CLI_FROM_ENVIRONMENT) == (s->variables[id] != NULL));
        must(!s->settings[id] || strcmp(value->text, s->settings[id]) == 0);
        must(!s->variables[id] || strcmp(value->text, s->variables[id]) == 0);
    }
}

/* Both scanners side by side. */
static void check_scan(const struct cli_command *command, int argc, char **argv,
                       int stop_at_operand)
{
    struct cli_config config = {0};
    struct cli cli = {.config = &config};
    struct cli_scan scan = cli_scan_begin(&cli, command, argc, argv);
    struct scanner s = {.argv = argv, .argc = argc, .stop_at_operand = stop_at_operand};
    struct printed printed;
    int id, expected;

    s.options = command ? command->options : NULL;
    scan.stop_at_operand = stop_at_operand != 0;
    catch (&printed);
    do {
        id = cli_scan_next(&scan);
        expected = naive_next(&s);
        if (command && (expected == END || (expected == OPERAND && stop_at_operand)) &&
            take_environment(&s))
            expected = WRONG;
        if (expected == WRONG || expected == ANSWERED) {
            must(id == CLI_SCAN_STOP);
            must(scan.status == (expected == WRONG ? CLI_USAGE : CLI_OK));
            break;
        }
        must(id == expected);
        must(id == CLI_SCAN_END || !s.value || scan.value == s.value);
        must(scan.index == s.at);
    } while (id != CLI_SCAN_END && !(id == CLI_SCAN_OPERAND && stop_at_operand));
    let_go(&printed);
    must((check_messages(&printed) != 0) == (expected == WRONG));
    must((printed.out_size != 0) == (expected == ANSWERED));
    if (expected != WRONG)
        check_settings(&s, &cli);
    free(printed.out_text);
    free(printed.err_text);
    cli_config_free(&config);
}

/* What is wrong with a whole command line as far as its options go: END, WRONG or ANSWERED; which
 * command it is of. */
FUZZ_ORACLE static int naive_main(const struct cli_command **command, int *json, int argc,
                                  char **argv)
{
    struct scanner s = {.argv = argv, .argc = argc, .stop_at_operand = 1};
    int id = naive_next(&s);
    *command = NULL;
    *json = s.json;
    if (id != OPERAND)
        return id == END ? WRONG : id;
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i]->name, s.value) == 0)
            *command = commands[i];
    if (!*command) /* help has no options */
        return strcmp(s.value, "help") == 0 ? ANSWERED : WRONG;
    s.options = (*command)->options;
    s.operands_only = 0;
    s.group = NULL;
    s.stop_at_operand = *command == &cli_command_run;
    do
        id = naive_next(&s);
    while (id >= 0 || (id == OPERAND && !s.stop_at_operand));
    *json = s.json;
    if (id == OPERAND)
        id = END;
    return id == END && take_environment(&s) ? WRONG : id;
}

static void check_main(int argc, char **argv)
{
    const struct cli_command *command;
    struct printed printed;
    int json, status;
    const int expected = naive_main(&command, &json, argc - 1, argv + 1);
    unsigned messages;

    reached = 0;
    catch (&printed);
    status = wasmcache_tool_main(argc, argv);
    let_go(&printed);
    messages = check_messages(&printed);
    must(status == CLI_OK || status == CLI_FAILED || status == CLI_USAGE ||
         (command == &cli_command_verify && status <= 7));
    must((status == CLI_OK) == (messages == 0));
    must(messages < 2 || reached || variables); /* each that is wrong is told */
    must(reached == 0 || (status != CLI_OK && expected == END));
    if (expected == WRONG)
        must(status == CLI_USAGE && !printed.out_size);
    if (expected == ANSWERED && command)
        must(status == CLI_OK || status == CLI_USAGE);
    if (status == CLI_OK)
        must(printed.out_size != 0 || command == &cli_command_config);
    if (status == CLI_OK && command == &cli_command_config && expected == END && json)
        check_json(&printed);
    free(printed.out_text);
    free(printed.err_text);
}

/* Arguments of exactly their size, so that a look beyond one is seen. */
static int split(char *argv[ARGUMENTS + 1], const uint8_t *data, size_t size)
{
    int argc = 0;
    while (size && argc < ARGUMENTS) {
        const size_t length = strnlen((const char *)data, size);
        argv[argc] = strndup((const char *)data, length);
        must(argv[argc++] != NULL);
        data += length + (length < size);
        size -= length + (length < size);
    }
    argv[argc] = NULL;
    return argc;
}

static void free_all(char **argv, int argc)
{
    while (argc)
        free(argv[--argc]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *all[ARGUMENTS + 1], *whole[ARGUMENTS + 2], name[] = "wasmcache";
    const int count = split(all, data, size);
    char **argv;
    int argc = count;
    size_t which = COMMANDS;

    environment = all;
    for (variables = 0; argc && is_variable(environment[variables]); argc--)
        variables++;
    argv = all + variables;

    /* As the command's that is named first would be scanned; none: as what is before it. */
    for (size_t i = 0; i < COMMANDS && argc; i++)
        if (strcmp(commands[i]->name, argv[0]) == 0)
            which = i;
    if (which < COMMANDS) {
        check_scan(commands[which], argc - 1, argv + 1, 0);
        check_scan(commands[which], argc - 1, argv + 1, 1);
    } else {
        check_scan(NULL, argc, argv, 1);
    }
    whole[0] = name;
    memcpy(whole + 1, argv, ((size_t)argc + 1) * sizeof(*whole));
    check_main(argc + 1, whole);
    free_all(all, count);
    return 0;
}
