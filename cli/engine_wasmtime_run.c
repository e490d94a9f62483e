/* SPDX-License-Identifier: Apache-2.0 */
/* How a module runs on Wasmtime: as a WASI command, or one of its functions. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine_wasmtime.h"
#include "output.h"

/* One instance and what it lives in. Zeroed is empty; release() takes any state. */
struct instance {
    wasmtime_store_t *store;
    wasmtime_linker_t *linker;
    wasmtime_context_t *context;
    wasmtime_instance_t native;
};

static void release(struct instance *instance)
{
    if (instance->linker)
        cli_wasmtime.wasmtime_linker_delete(instance->linker);
    if (instance->store)
        cli_wasmtime.wasmtime_store_delete(instance->store);
}

/* ---- errors -----------------------------------------------------------------------------------
 */

static void print_error(const char *file, const char *what, wasmtime_error_t *error)
{
    wasm_name_t text = {0, NULL};

    cli_wasmtime.wasmtime_error_message(error, &text);
    cli_error("%s %s:", what, file);
    cli_error_lines(text.data, text.size);
    cli_wasmtime.wasm_byte_vec_delete(&text);
    cli_wasmtime.wasmtime_error_delete(error);
}

static void print_trap(const char *file, wasm_trap_t *trap)
{
    wasm_name_t text = {0, NULL};

    cli_wasmtime.wasm_trap_message(trap, &text);
    /* C strings in the wasm.h API count their NUL. */
    while (text.size && !text.data[text.size - 1])
        text.size--;
    cli_error("%s trapped:", file);
    cli_error_lines(text.data, text.size);
    cli_wasmtime.wasm_byte_vec_delete(&text);
    cli_wasmtime.wasm_trap_delete(trap);
}

/* No exit status: the call returned, and the program goes on. */
enum { GO_ON = -1 };

/* What a call ended with: GO_ON or an exit status. Takes its error and trap. */
static int finish(const char *file, wasmtime_error_t *error, wasm_trap_t *trap)
{
    int status;

    if (trap) {
        print_trap(file, trap);
        return CLI_FAILED;
    }
    if (!error)
        return GO_ON;
    if (cli_wasmtime.wasmtime_error_exit_status(error, &status)) {
        cli_wasmtime.wasmtime_error_delete(error);
        /* The system keeps eight bits; what is no success must not become one. */
        return status && !(status & 0xff) ? CLI_FAILED : status & 0xff;
    }
    print_error(file, "cannot run", error);
    return CLI_FAILED;
}

/* ---- WASI -------------------------------------------------------------------------------------
 */

static bool preopen(wasi_config_t *config, const struct cli_preopen *dir)
{
    char path[64];
    struct stat by_fd, by_path;

    /* By its descriptor, so that it is the directory that was checked, whatever the name leads to
     * by now. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", dir->fd);
    if (fstat(dir->fd, &by_fd) || stat(path, &by_path) || by_fd.st_dev != by_path.st_dev ||
        by_fd.st_ino != by_path.st_ino) {
        cli_error("cannot give %s to the program: /proc is needed for it and is not there",
                  dir->host);
        return false;
    }
#if WASMTIME_VERSION_MAJOR >= 50
    if (cli_wasmtime.wasi_config_preopen_dir(config, path, dir->guest, true))
        return true;
#else
    if (cli_wasmtime.wasi_config_preopen_dir(
            config, path, dir->guest, WASMTIME_WASI_DIR_PERMS_READ | WASMTIME_WASI_DIR_PERMS_WRITE,
            WASMTIME_WASI_FILE_PERMS_READ | WASMTIME_WASI_FILE_PERMS_WRITE))
        return true;
#endif
    cli_error("cannot give %s to the program as %s: the engine refused", dir->host, dir->guest);
    return false;
}

static wasi_config_t *make_wasi(const struct cli_program *program)
{
    wasi_config_t *config = cli_wasmtime.wasi_config_new();
    size_t i;

    if (!config) {
        cli_error("cannot run %s: no memory", program->file);
        return NULL;
    }
    cli_wasmtime.wasi_config_inherit_stdin(config);
    cli_wasmtime.wasi_config_inherit_stdout(config);
    cli_wasmtime.wasi_config_inherit_stderr(config);
    if (!cli_wasmtime.wasi_config_set_argv(config, (size_t)program->argc, program->argv)) {
        cli_error("cannot run %s: an argument is not UTF-8", program->file);
        goto failed;
    }
    if (!cli_wasmtime.wasi_config_set_env(config, program->env_count, program->env_names,
                                          program->env_values)) {
        cli_error("cannot run %s: the environment is not UTF-8", program->file);
        goto failed;
    }
    for (i = 0; i < program->dir_count; i++)
        if (!preopen(config, &program->dirs[i]))
            goto failed;
    return config;
failed:
    cli_wasmtime.wasi_config_delete(config);
    return NULL;
}

static int instantiate(struct instance *out, wasm_engine_t *engine, wasmtime_module_t *module,
                       const struct cli_program *program)
{
    wasi_config_t *config = make_wasi(program);
    wasmtime_error_t *error;
    wasm_trap_t *trap = NULL;

    if (!config)
        return CLI_FAILED;
    out->store = cli_wasmtime.wasmtime_store_new(engine, NULL, NULL);
    out->linker = cli_wasmtime.wasmtime_linker_new(engine);
    if (!out->store || !out->linker) {
        cli_wasmtime.wasi_config_delete(config);
        cli_error("cannot run %s: no memory", program->file);
        return CLI_FAILED;
    }
    out->context = cli_wasmtime.wasmtime_store_context(out->store);
    error = cli_wasmtime.wasmtime_context_set_wasi(out->context, config); /* takes it */
    if (!error)
        error = cli_wasmtime.wasmtime_linker_define_wasi(out->linker);
    if (!error)
        error = cli_wasmtime.wasmtime_linker_instantiate(out->linker, out->context, module,
                                                         &out->native, &trap);
    return finish(program->file, error, trap);
}

/* ---- functions --------------------------------------------------------------------------------
 */

static bool find_function(const struct instance *instance, const char *name, wasmtime_func_t *out)
{
    wasmtime_extern_t item;
    bool is_function;

    if (!cli_wasmtime.wasmtime_instance_export_get(instance->context, &instance->native, name,
                                                   strlen(name), &item))
        return false;
    is_function = item.kind == WASMTIME_EXTERN_FUNC;
    if (is_function)
        *out = item.of.func;
    cli_wasmtime.wasmtime_extern_delete(&item);
    return is_function;
}

/* "a, b, c, ..." of the functions that a module exports. */
static void list_functions(const wasmtime_module_t *module, char *out, size_t size)
{
    wasm_exporttype_vec_t exports;
    size_t i, used = 0;

    out[0] = '\0';
    cli_wasmtime.wasmtime_module_exports(module, &exports);
    for (i = 0; i < exports.size; i++) {
        const wasm_name_t *name = cli_wasmtime.wasm_exporttype_name(exports.data[i]);
        int length = name->size < 64 ? (int)name->size : 64;

        if (cli_wasmtime.wasm_externtype_kind(cli_wasmtime.wasm_exporttype_type(exports.data[i])) !=
            WASM_EXTERN_FUNC)
            continue;
        if (size - used < 80) {
            snprintf(out + used, size - used, ", ...");
            break;
        }
        used += (size_t)snprintf(out + used, size - used, "%s%.*s", used ? ", " : "", length,
                                 name->data);
    }
    cli_wasmtime.wasm_exporttype_vec_delete(&exports);
}

static int no_function(const struct cli_program *program, const wasmtime_module_t *module,
                       const char *name, bool command)
{
    char functions[512];

    list_functions(module, functions, sizeof(functions));
    if (!*functions)
        cli_error("cannot run %s: it exports no function", program->file);
    else if (command)
        cli_error("cannot run %s: it is no WASI command, for it exports no function %s; call one "
                  "of its functions with --invoke: %s",
                  program->file, name, functions);
    else
        cli_error("cannot run %s: it exports no function %s, but: %s", program->file, name,
                  functions);
    return CLI_FAILED;
}

static const char *type_name(wasm_valkind_t kind)
{
    switch (kind) {
    case WASM_I32:
        return "i32";
    case WASM_I64:
        return "i64";
    case WASM_F32:
        return "f32";
    case WASM_F64:
        return "f64";
    default:
        return NULL;
    }
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

static bool parse_value(const char *text, wasm_valkind_t kind, wasmtime_val_t *out)
{
    uint64_t bits = 0;
    char *end = NULL;

    memset(out, 0, sizeof(*out));
    switch (kind) {
    case WASM_I32:
        out->kind = WASMTIME_I32;
        if (!parse_integer(text, 32, &bits))
            return false;
        out->of.i32 = (int32_t)(uint32_t)bits;
        return true;
    case WASM_I64:
        out->kind = WASMTIME_I64;
        if (!parse_integer(text, 64, &bits))
            return false;
        out->of.i64 = (int64_t)bits;
        return true;
    case WASM_F32:
        out->kind = WASMTIME_F32;
        out->of.f32 = strtof(text, &end);
        break;
    case WASM_F64:
        out->kind = WASMTIME_F64;
        out->of.f64 = strtod(text, &end);
        break;
    default:
        return false;
    }
    return end != text && !*end;
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

static void print_value(const wasmtime_val_t *value)
{
    switch (value->kind) {
    case WASMTIME_I32:
        cli_print("%" PRId32 "\n", value->of.i32);
        break;
    case WASMTIME_I64:
        cli_print("%" PRId64 "\n", value->of.i64);
        break;
    case WASMTIME_F32:
        print_float((double)value->of.f32, true);
        break;
    case WASMTIME_F64:
        print_float(value->of.f64, false);
        break;
    default:
        cli_print("(a value that cannot be shown)\n");
    }
}

/* Reads the arguments by the function's type. */
static int parse_arguments(const struct cli_program *program, const char *name,
                           const wasm_valtype_vec_t *params, wasmtime_val_t *out)
{
    size_t given = (size_t)program->argc - 1;
    size_t i;

    if (given != params->size) {
        cli_error("cannot call %s of %s: it takes %zu argument%s, not %zu", name, program->file,
                  params->size, params->size == 1 ? "" : "s", given);
        return CLI_FAILED;
    }
    for (i = 0; i < params->size; i++) {
        wasm_valkind_t kind = cli_wasmtime.wasm_valtype_kind(params->data[i]);

        if (!type_name(kind)) {
            cli_error("cannot call %s of %s: its parameter %zu is no number", name, program->file,
                      i + 1);
            return CLI_FAILED;
        }
        if (!parse_value(program->argv[i + 1], kind, &out[i])) {
            cli_error("cannot call %s of %s: argument %zu, \"%s\", is no %s", name, program->file,
                      i + 1, program->argv[i + 1], type_name(kind));
            return CLI_FAILED;
        }
    }
    return CLI_OK;
}

static int call(struct instance *instance, const wasmtime_func_t *function,
                const struct cli_program *program, const char *name)
{
    wasm_functype_t *type = cli_wasmtime.wasmtime_func_type(instance->context, function);
    const wasm_valtype_vec_t *params = cli_wasmtime.wasm_functype_params(type);
    const wasm_valtype_vec_t *results = cli_wasmtime.wasm_functype_results(type);
    wasmtime_val_t *values = calloc(params->size + results->size + 1, sizeof(*values));
    wasmtime_error_t *error;
    wasm_trap_t *trap = NULL;
    int status = CLI_FAILED;
    size_t i;

    if (!values) {
        cli_error("cannot run %s: no memory", program->file);
        goto done;
    }
    for (i = 0; i < results->size; i++)
        if (!type_name(cli_wasmtime.wasm_valtype_kind(results->data[i]))) {
            cli_error("cannot call %s of %s: its result %zu is no number", name, program->file,
                      i + 1);
            goto done;
        }
    status = parse_arguments(program, name, params, values);
    if (status)
        goto done;
    error = cli_wasmtime.wasmtime_func_call(instance->context, function, values, params->size,
                                            values + params->size, results->size, &trap);
    if (error || trap) {
        status = finish(program->file, error, trap);
        goto done;
    }
    for (i = 0; i < results->size; i++)
        print_value(&values[params->size + i]);
    status = CLI_OK;
done:
    free(values);
    cli_wasmtime.wasm_functype_delete(type);
    return status;
}

/* ---- the two ways ------------------------------------------------------------------------------
 */

/* Calls a function without parameters and results. */
static int call_plain(struct instance *instance, const wasmtime_func_t *function,
                      const struct cli_program *program)
{
    wasm_trap_t *trap = NULL;
    wasmtime_error_t *error =
        cli_wasmtime.wasmtime_func_call(instance->context, function, NULL, 0, NULL, 0, &trap);

    return finish(program->file, error, trap);
}

int cli_wasmtime_run(void *native, void *module, const struct cli_program *program)
{
    struct instance instance = {0};
    wasmtime_func_t function;
    int status = instantiate(&instance, native, module, program);

    if (status == GO_ON) {
        if (find_function(&instance, "_start", &function))
            status = call_plain(&instance, &function, program);
        else
            status = no_function(program, module, "_start", true);
    }
    release(&instance);
    return status == GO_ON ? CLI_OK : status;
}

int cli_wasmtime_invoke(void *native, void *module, const struct cli_program *program,
                        const char *name)
{
    struct instance instance = {0};
    wasmtime_func_t function;
    int status = instantiate(&instance, native, module, program);

    if (status == GO_ON && !find_function(&instance, name, &function)) {
        status = no_function(program, module, name, false);
    } else if (status == GO_ON) {
        wasmtime_func_t initialize;

        /* A WASI reactor wants this one first. */
        if (strcmp(name, "_initialize") != 0 &&
            find_function(&instance, "_initialize", &initialize))
            status = call_plain(&instance, &initialize, program);
        if (status == GO_ON)
            status = call(&instance, &function, program, name);
    }
    release(&instance);
    return status == GO_ON ? CLI_OK : status;
}
