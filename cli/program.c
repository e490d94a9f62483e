/* SPDX-License-Identifier: Apache-2.0 */
#include "program.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli.h"
#include "output.h"

/* ---- numbers -----------------------------------------------------------------------------------
 */

static const char *type_name(enum cli_type type)
{
    static const char *const names[] = {NULL, "i32", "i64", "f32", "f64"};

    return names[type];
}

/* Decimal, hexadecimal or octal; both the signed and the unsigned range of the type. */
static bool parse_integer(const char *text, unsigned bits, uint64_t *out)
{
    bool negative = *text == '-';
    const char *digits = text + (negative || *text == '+');
    unsigned long long value;
    char *end;

    if (*digits < '0' || *digits > '9')
        return false;
    errno = 0;
    value = strtoull(digits, &end, digits[0] == '0' && (digits[1] | 0x20) == 'x' ? 16 : 10);
    if (errno || *end)
        return false;
    if (negative && value > (UINT64_C(1) << (bits - 1)))
        return false;
    if (!negative && bits == 32 && value > UINT32_MAX)
        return false;
    *out = negative ? 0 - (uint64_t)value : (uint64_t)value;
    return true;
}

static bool parse_value(const char *text, struct cli_value *value)
{
    uint64_t bits = 0;
    char *end = NULL;

    switch (value->type) {
    case CLI_TYPE_I32:
        if (!parse_integer(text, 32, &bits))
            return false;
        value->of.i32 = (int32_t)(uint32_t)bits;
        return true;
    case CLI_TYPE_I64:
        if (!parse_integer(text, 64, &bits))
            return false;
        value->of.i64 = (int64_t)bits;
        return true;
    case CLI_TYPE_F32:
        value->of.f32 = strtof(text, &end);
        break;
    case CLI_TYPE_F64:
        value->of.f64 = strtod(text, &end);
        break;
    default:
        return false;
    }
    return end != text && !*end;
}

int cli_values_parse(const struct cli_program *program, const char *function,
                     struct cli_value *values, size_t params, size_t results)
{
    size_t given = (size_t)program->argc - 1;
    size_t i;

    for (i = 0; i < results; i++)
        if (!type_name(values[params + i].type)) {
            cli_error("cannot call %s of %s: its result %zu is no number", function, program->file,
                      i + 1);
            return CLI_FAILED;
        }
    if (given != params) {
        cli_error("cannot call %s of %s: it takes %zu argument%s, not %zu", function, program->file,
                  params, params == 1 ? "" : "s", given);
        return CLI_FAILED;
    }
    for (i = 0; i < params; i++) {
        if (!type_name(values[i].type)) {
            cli_error("cannot call %s of %s: its parameter %zu is no number", function,
                      program->file, i + 1);
            return CLI_FAILED;
        }
        if (!parse_value(program->argv[i + 1], &values[i])) {
            cli_error("cannot call %s of %s: argument %zu, \"%s\", is no %s", function,
                      program->file, i + 1, program->argv[i + 1], type_name(values[i].type));
            return CLI_FAILED;
        }
    }
    return CLI_OK;
}

/* The shortest text that reads back as the same number. */
static void print_float(double value, bool single)
{
    char text[64];
    int digits;

    for (digits = single ? 6 : 15; digits < (single ? 9 : 17); digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, value);
        if (single ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value)
            break;
    }
    cli_print("%.*g\n", digits, value);
}

void cli_values_print(const struct cli_value *values, size_t count)
{
    size_t i;

    for (i = 0; i < count; i++)
        switch (values[i].type) {
        case CLI_TYPE_I32:
            cli_print("%" PRId32 "\n", values[i].of.i32);
            break;
        case CLI_TYPE_I64:
            cli_print("%" PRId64 "\n", values[i].of.i64);
            break;
        case CLI_TYPE_F32:
            print_float((double)values[i].of.f32, true);
            break;
        case CLI_TYPE_F64:
            print_float(values[i].of.f64, false);
            break;
        default:
            cli_print("(a value that cannot be shown)\n");
        }
}

/* ---- messages ----------------------------------------------------------------------------------
 */

void cli_names_add(struct cli_names *names, const char *name, size_t length)
{
    size_t room = sizeof(names->text) - names->used;

    if (names->full)
        return;
    if (room < 80) {
        snprintf(names->text + names->used, room, ", ...");
        names->full = true;
        return;
    }
    names->used += (size_t)snprintf(names->text + names->used, room, "%s%.*s",
                                    names->used ? ", " : "", length < 64 ? (int)length : 64, name);
}

int cli_no_function(const struct cli_program *program, const struct cli_names *functions,
                    const char *name, bool command)
{
    if (!functions->used)
        cli_error("cannot run %s: it exports no function", program->file);
    else if (command)
        cli_error("cannot run %s: it is no WASI command, for it exports no function %s; call one "
                  "of its functions with --invoke: %s",
                  program->file, name, functions->text);
    else
        cli_error("cannot run %s: it exports no function %s, but: %s", program->file, name,
                  functions->text);
    return CLI_FAILED;
}

int cli_program_status(int status)
{
    return status && !(status & 0xff) ? CLI_FAILED : status & 0xff;
}

bool cli_preopen_path(char *out, size_t size, const struct cli_preopen *dir)
{
    struct stat by_fd, by_path;

    snprintf(out, size, "/proc/self/fd/%d", dir->fd);
    if (!fstat(dir->fd, &by_fd) && !stat(out, &by_path) && by_fd.st_dev == by_path.st_dev &&
        by_fd.st_ino == by_path.st_ino)
        return true;
    cli_error("cannot give %s to the program: /proc is needed for it and is not there", dir->host);
    return false;
}
