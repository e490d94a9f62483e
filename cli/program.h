/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

/*
 * What `run` is asked to do, and what is the same on every engine: numbers as text, messages, the
 * exit status, a folder by its descriptor. Used by the engines' *_run.c.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A directory of the host that the program may use, by another name. */
struct cli_preopen {
    const char *host;
    const char *guest;
    int fd; /* of the very directory that was checked */
};

/* What a program gets to see. */
struct cli_program {
    const char *file; /* for messages */
    int argc;
    const char **argv; /* [0] is the program's own name */
    size_t env_count;
    const char **env_names;
    const char **env_values;
    size_t dir_count;
    const struct cli_preopen *dirs;
};

/* A number of the engine's kind, out of its own header. */
enum cli_type { CLI_TYPE_OTHER, CLI_TYPE_I32, CLI_TYPE_I64, CLI_TYPE_F32, CLI_TYPE_F64 };

struct cli_value {
    enum cli_type type;
    union {
        int32_t i32;
        int64_t i64;
        float f32;
        double f64;
    } of;
};

/*
 * Arguments and results of a call:
 *     set the types of all values, parameters first; cli_values_parse(); call; copy the results
 *     into values + params; cli_values_print().
 * Parse fills the parameters from argv[1] and so on. CLI_OK, or CLI_FAILED after a message: the
 * wrong number of arguments, one that is no number of its type, a type that is no number.
 */
int cli_values_parse(const struct cli_program *program, const char *function,
                     struct cli_value *values, size_t params, size_t results);
/* One a line. */
void cli_values_print(const struct cli_value *values, size_t count);

/* "a, b, c, ..." of names that need no end. Zeroed is empty. */
struct cli_names {
    char text[512];
    size_t used;
    bool full;
};

void cli_names_add(struct cli_names *names, const char *name, size_t length);

/* Says that `name`, or for a command _start, is no function that the module exports, and which it
 * does. Returns CLI_FAILED. */
int cli_no_function(const struct cli_program *program, const struct cli_names *functions,
                    const char *name, bool command);

/* The tool's status for the program's: the system keeps eight bits, and what is no success must
 * not become one. */
int cli_program_status(int status);

/* A path that leads to the very directory that was checked, whatever its name leads to by now.
 * False after a message. */
bool cli_preopen_path(char *out, size_t size, const struct cli_preopen *dir);

#endif
