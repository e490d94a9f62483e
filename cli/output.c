/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE 1
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "progress.h"

static bool as_json;
static bool quiet;
static bool verbose;
static pthread_mutex_t stdout_lock = PTHREAD_MUTEX_INITIALIZER;
static int write_errno;            /* the first failure to write to stdout */
static _Thread_local char *caught; /* where messages go, NULL: to stderr */
static _Thread_local size_t caught_size;

void cli_output_init(void)
{
    int fd;

    for (fd = 0; fd < 3; fd++)
        /* The wrong direction on purpose: using it fails, as it would have if it had stayed closed.
         */
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd ? O_RDONLY : O_WRONLY) < 0)
            _exit(CLI_FAILED);
    /* Of the locale only the characters: numbers in JSON and in arguments have a dot everywhere. */
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
}

void cli_output_set(bool json, bool be_quiet, bool be_verbose)
{
    as_json = json;
    quiet = be_quiet;
    verbose = be_verbose;
    cli_progress_allow(!json && !be_quiet);
}

bool cli_is_terminal(void)
{
    return isatty(STDOUT_FILENO) == 1;
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 || c == 0x7f;
}

/* An engine's text has a line for each cause, below "Caused by:"; on one line it reads "a: b: c".
 */
static void make_one_line(char *text)
{
    static const char causes[] = "\n\nCaused by:\n";
    char *in = text, *out = text;

    while (*in) {
        if (!strncmp(in, causes, sizeof(causes) - 1)) {
            *out++ = ':';
            in += sizeof(causes) - 2;
        } else if (*in == '\n' || *in == '\t') {
            in += strspn(in, " \n\t");
            if (*in)
                *out++ = ' ';
        } else {
            *out++ = is_control(*in) ? '?' : *in;
            in++;
        }
    }
    *out = '\0';
}

__attribute__((format(printf, 1, 0))) static void message(const char *format, va_list arguments)
{
    char *text = NULL;

    if (vasprintf(&text, format, arguments) < 0)
        return;
    make_one_line(text);
    if (caught) {
        snprintf(caught, caught_size, "%s", text);
    } else {
        cli_stderr_lock();
        fprintf(stderr, "wasmcache: %s\n", text);
        cli_stderr_unlock();
    }
    free(text);
}

void cli_errors_to(char *text, size_t size)
{
    caught = text;
    caught_size = size;
}

void cli_error(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    message(format, arguments);
    va_end(arguments);
}

void cli_warn(const char *format, ...)
{
    va_list arguments;

    if (quiet)
        return;
    va_start(arguments, format);
    message(format, arguments);
    va_end(arguments);
}

void cli_note(const char *format, ...)
{
    va_list arguments;

    if (!verbose)
        return;
    va_start(arguments, format);
    message(format, arguments);
    va_end(arguments);
}

void cli_error_lines(const char *text, size_t length)
{
    size_t i;

    cli_stderr_lock();
    for (i = 0; i < length; i++)
        putc(is_control(text[i]) && text[i] != '\n' && text[i] != '\t' ? '?' : text[i], stderr);
    if (length && text[length - 1] != '\n')
        putc('\n', stderr);
    cli_stderr_unlock();
}

/* ---- stdout ---------------------------------------------------------------------------------- */

static void remember(int error)
{
    if (!write_errno)
        write_errno = error ? error : EIO;
}

void cli_print(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    pthread_mutex_lock(&stdout_lock);
    errno = 0;
    if (vprintf(format, arguments) < 0)
        remember(errno);
    pthread_mutex_unlock(&stdout_lock);
    va_end(arguments);
}

int cli_output_close(int status)
{
    pthread_mutex_lock(&stdout_lock);
    errno = 0;
    if (fflush(stdout))
        remember(errno);
    else if (ferror(stdout))
        remember(0);
    pthread_mutex_unlock(&stdout_lock);
    if (!write_errno)
        return status;
    cli_error("cannot write to standard output: %s", strerror(write_errno));
    return status ? status : CLI_FAILED;
}

void cli_json_line(json_t *object)
{
    /* 15 digits show microseconds exactly and no noise of binary fractions. */
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;

    pthread_mutex_lock(&stdout_lock);
    errno = 0;
    if (!text)
        remember(ENOMEM);
    else if (printf("%s\n", text) < 0 || fflush(stdout))
        remember(errno);
    pthread_mutex_unlock(&stdout_lock);
    free(text);
    json_decref(object);
}

/* Length of the UTF-8 sequence at `s`, 0 if there is none. */
static size_t utf8_length(const unsigned char *s)
{
    size_t length, i;
    uint32_t code;

    if (s[0] < 0x80)
        return 1;
    if (s[0] >= 0xc2 && s[0] <= 0xdf)
        length = 2;
    else if ((s[0] & 0xf0) == 0xe0)
        length = 3;
    else if (s[0] >= 0xf0 && s[0] <= 0xf4)
        length = 4;
    else
        return 0;
    code = s[0] & (0xffu >> (length + 1));
    for (i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    if (length == 3 && (code < 0x800 || (code >= 0xd800 && code <= 0xdfff)))
        return 0;
    if (length == 4 && (code < 0x10000 || code > 0x10ffff))
        return 0;
    return length;
}

json_t *cli_json_text(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    json_t *string;
    char *copy, *out;

    if (!text || !*text)
        return json_null();
    string = json_string(text);
    if (string)
        return string;
    /* Not UTF-8: each bad byte becomes U+FFFD, three bytes. */
    copy = out = malloc(strlen(text) * 3 + 1);
    if (!copy)
        return NULL;
    while (*s) {
        size_t length = utf8_length(s);
        if (length) {
            memcpy(out, s, length);
            out += length;
            s += length;
        } else {
            memcpy(out, "\xef\xbf\xbd", 3);
            out += 3;
            s++;
        }
    }
    *out = '\0';
    string = json_string(copy);
    free(copy);
    return string;
}

json_t *cli_json_ms(uint64_t ns)
{
    uint64_t us = (ns + 500) / 1000;

    return json_real((double)us / 1000.0);
}

json_t *cli_json_key(const wasmcache_key *key)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];

    return cli_json_text(wasmcache_key_to_hex(hex, key));
}

/* ---- values for people -------------------------------------------------------------------------
 */

char *cli_text_bytes(char *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 999.5 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1000;
        unit++;
    }
    if (!bytes)
        snprintf(out, CLI_TEXT_SIZE, "-");
    else
        snprintf(out, CLI_TEXT_SIZE, unit && value < 99.95 ? "%.1f %s" : "%.0f %s", value,
                 units[unit]);
    return out;
}

char *cli_text_duration(char *out, uint64_t ns)
{
    double ms = (double)ns / 1e6;

    if (!ns)
        snprintf(out, CLI_TEXT_SIZE, "-");
    else if (ms < 9.995)
        snprintf(out, CLI_TEXT_SIZE, "%.2f ms", ms);
    else if (ms < 999.5)
        snprintf(out, CLI_TEXT_SIZE, "%.0f ms", ms);
    else
        snprintf(out, CLI_TEXT_SIZE, "%.1f s", ms / 1000);
    return out;
}

char *cli_text_time(char *out, uint64_t seconds)
{
    time_t when = (time_t)seconds;
    struct tm local;

    if (!seconds || !localtime_r(&when, &local) ||
        !strftime(out, CLI_TEXT_SIZE, "%Y-%m-%d %H:%M", &local))
        snprintf(out, CLI_TEXT_SIZE, "-");
    return out;
}

char *cli_text_key(char *out, const wasmcache_key *key, bool brief)
{
    char hex[WASMCACHE_KEY_HEX_SIZE];

    wasmcache_key_to_hex(hex, key);
    if (brief && strlen(hex) > 16)
        snprintf(out, CLI_TEXT_SIZE, "%.12s%s", hex,
                 strcmp(nl_langinfo(CODESET), "UTF-8") ? "~" : "\xe2\x80\xa6");
    else
        snprintf(out, CLI_TEXT_SIZE, "%s", hex);
    return out;
}

char *cli_text_fingerprint(char out[CLI_TEXT_SIZE], const uint8_t fingerprint[32])
{
    size_t i;

    for (i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02X", fingerprint[i]);
    return out;
}

const char *cli_text_state(wasmcache_reason state)
{
    return state == WASMCACHE_REASON_NONE ? "ok" : wasmcache_reason_name(state);
}

const char *cli_text_kind(wasmcache_kind kind)
{
    return kind == WASMCACHE_COMPONENT ? "component" : "module";
}
