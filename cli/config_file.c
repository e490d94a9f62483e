/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of settings:
 *
 *     # a comment
 *     [limits]
 *     max_bytes = 2 GiB      ; one behind a value
 *
 * inih takes it apart. It hands over no line numbers, takes an indented line for more of the value
 * before it, and cuts a line that is too long for it in two. So lines go through our hands first:
 * they are counted, their indentation is taken off, whatever inih takes for that, and what is too
 * long is an error.
 */
#define _GNU_SOURCE 1
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <ini.h>

#include "cli.h"
#include "config.h"
#include "nearest.h"
#include "output.h"

/* Room for each setting at its longest, and some comments. */
enum { FILE_MAX = 64 * 1024 };

struct reading {
    struct cli_config *config;
    const char *at; /* the rest of the text */
    unsigned line;
    bool bad;
    unsigned seen[CLI_SETTINGS]; /* the line, 0: not yet */
};

__attribute__((format(printf, 2, 3))) static void complain(struct reading *reading,
                                                           const char *format, ...)
{
    va_list arguments;
    char text[768];

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    cli_error("%s:%u: %s", reading->config->file, reading->line, text);
    reading->bad = true;
}

/* ---- lines ----------------------------------------------------------------------------------- */

static const char *const sections[] = {"cache", "limits", "engine"};
enum { SECTIONS = sizeof(sections) / sizeof(*sections) };

static bool is_section(const char *name)
{
    size_t i;

    for (i = 0; i < SECTIONS; i++)
        if (!strcmp(sections[i], name))
            return true;
    return false;
}

/* "[limits]" and at most a comment behind. False: it was complained about. */
static bool check_section(struct reading *reading, const char *line)
{
    const char *end = strchr(line, ']');
    char name[64], meant[128];

    if (!end) {
        complain(reading, "there is no ] behind the name of the section");
        return false;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(end - line - 1), line + 1);
    end += 1 + strspn(end + 1, " \t\r");
    if (*end && *end != ';' && *end != '#') {
        complain(reading, "there is more behind [%s]; a setting has a line of its own", name);
        return false;
    }
    if (is_section(name))
        return true;
    complain(reading, "there is no section [%s]%s; there are [cache], [limits] and [engine]", name,
             cli_nearest_meant(meant, sizeof(meant), name, sections, SECTIONS));
    return false;
}

/* What inih passes over at the beginning of a line: blanks of all kinds, and in the first line a
 * byte order mark. */
static size_t unseen(const struct reading *reading, const char *line, size_t length)
{
    size_t i = 0;

    while (i < length) {
        if (isspace((unsigned char)line[i]))
            i++;
        else if (reading->line == 1 && !strncmp(line + i, "\xef\xbb\xbf", 3))
            i += 3;
        else
            break;
    }
    return i;
}

/* As fgets() does it: at most size - 1 characters. */
static char *next_line(char *out, int size, void *stream)
{
    struct reading *reading = stream;
    const char *start = reading->at;
    size_t length = strcspn(start, "\n"), blanks;

    if (!*start)
        return NULL;
    reading->at += length + (start[length] == '\n');
    reading->line++;
    blanks = unseen(reading, start, length);
    start += blanks;
    length -= blanks;
    if (*start == ';' || *start == '#')
        length = 0; /* of any length */
    if (length >= (size_t)size) {
        complain(reading, "the line is longer than %d characters%s", size - 1,
                 strncmp(start, "layers", 6) ? "" : "; each of several lines \"layers\" adds some");
        length = 0;
    }
    memcpy(out, start, length);
    out[length] = '\0';
    /* Below a section that there is not everything is passed over. */
    if (*out == '[' && !check_section(reading, out) && size > 3)
        memcpy(out, "[?]", 4);
    return out;
}

/* ---- settings -------------------------------------------------------------------------------- */

/* A path from the file means the same wherever the tool is called: it is absolute, or below the
 * home directory. To be freed; NULL: it was complained about. */
static char *whole_path(struct reading *reading, const char *name, const char *text, size_t length)
{
    char *home = NULL, *path = NULL;

    if (length && *text == '/')
        return strndup(text, length);
    if (length < 2 || text[0] != '~' || text[1] != '/') {
        complain(reading, "%s: \"%.*s\" is no path that begins with / or ~/", name, (int)length,
                 text);
        return NULL;
    }
    home = cli_home();
    if (!home)
        complain(reading, "%s: there is no home directory", name);
    else if (asprintf(&path, "%s%.*s", home, (int)length - 1, text + 1) < 0)
        path = NULL;
    free(home);
    return path;
}

/* All paths of a list, behind those of `before`. */
static char *whole_paths(struct reading *reading, const char *before, const char *text)
{
    char *list;

    if (*text == ':' || strstr(text, "::") || (*text && text[strlen(text) - 1] == ':'))
        return strdup(text); /* for cli_value_read() to refuse */
    list = strdup(before);
    while (list && *text) {
        size_t length = strcspn(text, ":");
        char *path = whole_path(reading, "layers", text, length), *more = NULL;

        if (path && asprintf(&more, "%s%s%s", list, *list ? ":" : "", path) < 0)
            more = NULL;
        free(path);
        free(list);
        list = more;
        text += length + (text[length] == ':');
    }
    return list;
}

/* The value as it is meant, to be freed; NULL: it was complained about, or there is no memory. */
static char *prepare(struct reading *reading, enum cli_setting_id id, const char *text)
{
    const struct cli_setting_value *value = &reading->config->values[id];

    switch (cli_settings[id].kind) {
    case CLI_KIND_PATH:
        return whole_path(reading, cli_settings[id].name, text, strlen(text));
    case CLI_KIND_ENGINE:
        return strchr(text, '/') ? whole_path(reading, "engine", text, strlen(text)) : strdup(text);
    case CLI_KIND_PATHS:
        return whole_paths(reading, value->origin == CLI_FROM_FILE ? value->text : "", text);
    default:
        return strdup(text);
    }
}

static void take(struct reading *reading, enum cli_setting_id id, const char *text)
{
    struct cli_setting_value *value = &reading->config->values[id];
    /* What an option says counts; what the file says is to be right all the same. */
    struct cli_setting_value unused = {0};
    bool counts = value->origin != CLI_FROM_OPTION;
    char *whole = prepare(reading, id, text);
    char why[512];

    if (!whole) {
        if (!reading->bad)
            complain(reading, "%s: no memory", cli_settings[id].name);
        return;
    }
    if (cli_value_read(counts ? value : &unused, id, whole, why, sizeof(why))) {
        complain(reading, "%s: %s", cli_settings[id].name, why);
    } else if (counts) {
        value->origin = CLI_FROM_FILE;
        value->line = reading->line;
    }
    free(whole);
    free(unused.text);
    reading->seen[id] = reading->line;
}

static int on_setting(void *user, const char *section, const char *name, const char *text)
{
    struct reading *reading = user;
    char meant[128];
    int id;

    if (*section && !is_section(section))
        return 1;
    id = cli_setting_find(name);
    if (id < 0)
        complain(reading, "there is no setting \"%s\"%s; \"wasmcache config\" lists them", name,
                 cli_setting_meant(meant, sizeof(meant), name));
    else if (strcmp(cli_settings[id].section, section) != 0)
        complain(reading, "%s belongs below [%s], and is %s%s%s", name, cli_settings[id].section,
                 *section ? "below [" : "above all sections", section, *section ? "]" : "");
    else if (reading->seen[id] && cli_settings[id].kind != CLI_KIND_PATHS)
        complain(reading, "%s is set in line %u already", name, reading->seen[id]);
    else
        take(reading, (enum cli_setting_id)id, text);
    return 1;
}

/* ---- the file -------------------------------------------------------------------------------- */

static int fail(const struct cli_config *config, const char *why, const char *named)
{
    cli_error("cannot read the settings file %s: %s%s%s", config->file, why,
              named ? "; it is named by " : "", named ? named : "");
    return CLI_USAGE;
}

/* Who may write to it chooses the engine's library, and so what code is run. */
static int judge(const struct cli_config *config, const struct stat *st, const char *named)
{
    if (S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3))
        return CLI_OK; /* /dev/null */
    if (!S_ISREG(st->st_mode))
        return fail(config, "it is no regular file", named);
    if (st->st_mode & 022) {
        cli_error("the settings file %s is refused: others may write to it (owner %" PRIu32
                  ", mode %04o), and what it says chooses what code is run; chmod go-w it",
                  config->file, (uint32_t)st->st_uid, (unsigned)(st->st_mode & 07777));
        return CLI_USAGE;
    }
    if (st->st_uid != 0 && st->st_uid != geteuid()) {
        cli_error("the settings file %s is refused: it belongs to user %" PRIu32
                  " (mode %04o), neither to root nor to user %" PRIu32 " who runs this; chown it, "
                  "or name another with --config",
                  config->file, (uint32_t)st->st_uid, (unsigned)(st->st_mode & 07777),
                  (uint32_t)geteuid());
        return CLI_USAGE;
    }
    return st->st_size > FILE_MAX ? fail(config, "it has more than 64 KiB", named) : CLI_OK;
}

/* `text` has room for FILE_MAX + 1. */
static int read_all(int fd, char *text)
{
    size_t used = 0;

    for (;;) {
        ssize_t got = read(fd, text + used, FILE_MAX - used);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        used += (size_t)got;
        if (!got || used == FILE_MAX)
            break;
    }
    text[used] = '\0';
    errno = EILSEQ;
    return strlen(text) == used ? 0 : -1;
}

static int parse(struct cli_config *config, const char *text)
{
    struct reading reading = {.config = config, .at = text};
    int line;

    line = ini_parse_stream(next_line, &reading, on_setting, &reading);
    if (line < 0)
        return fail(config, "no memory", NULL);
    if (line > 0) {
        reading.line = (unsigned)line;
        complain(&reading, "this is neither [section] nor name = value");
    }
    return reading.bad ? CLI_USAGE : CLI_OK;
}

int cli_config_file(struct cli_config *config, const char *named)
{
    /* Not to wait for a writer if it is a FIFO. */
    int fd = open(config->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    struct stat st;
    char *text = NULL;
    int status;

    if (fd < 0 && !named && (errno == ENOENT || errno == ENOTDIR))
        return CLI_OK;
    if (fd < 0 && !named && errno == EACCES) {
        /* The home of somebody else, as a service that root started may have it. */
        cli_warn("going on without the settings file %s: %s", config->file, strerror(errno));
        return CLI_OK;
    }
    if (fd < 0)
        return fail(config, strerror(errno), named);
    if (fstat(fd, &st)) {
        status = fail(config, strerror(errno), named);
        goto done;
    }
    status = judge(config, &st, named);
    if (status)
        goto done;
    text = malloc(FILE_MAX + 1);
    if (!text)
        status = fail(config, "no memory", named);
    else if (read_all(fd, text))
        status = fail(config, errno == EILSEQ ? "it is no text" : strerror(errno), named);
    else
        status = parse(config, text);
    config->file_read = true;
done:
    free(text);
    close(fd);
    return status;
}
