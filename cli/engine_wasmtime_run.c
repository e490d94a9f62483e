/* SPDX-License-Identifier: Apache-2.0 */
/* How a module runs on Wasmtime: as a WASI command, or one of its functions. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        return cli_program_status(status);
    }
    print_error(file, "cannot run", error);
    return CLI_FAILED;
}

/* ---- WASI -------------------------------------------------------------------------------------
 */

static bool preopen(wasi_config_t *config, const struct cli_preopen *dir)
{
    char path[64];

    if (!cli_preopen_path(path, sizeof(path), dir))
        return false;
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

static int no_function(const struct cli_program *program, const wasmtime_module_t *module,
                       const char *name, bool command)
{
    wasm_exporttype_vec_t exports;
    struct cli_names functions = {0};
    size_t i;

    cli_wasmtime.wasmtime_module_exports(module, &exports);
    for (i = 0; i < exports.size; i++) {
        const wasm_exporttype_t *item = exports.data[i];
        const wasm_name_t *text = cli_wasmtime.wasm_exporttype_name(item);

        if (cli_wasmtime.wasm_externtype_kind(cli_wasmtime.wasm_exporttype_type(item)) ==
            WASM_EXTERN_FUNC)
            cli_names_add(&functions, text->data, text->size);
    }
    cli_wasmtime.wasm_exporttype_vec_delete(&exports);
    return cli_no_function(program, &functions, name, command);
}

static void take_types(struct cli_value *out, const wasm_valtype_vec_t *types)
{
    size_t i;

    for (i = 0; i < types->size; i++)
        switch (cli_wasmtime.wasm_valtype_kind(types->data[i])) {
        case WASM_I32:
            out[i].type = CLI_TYPE_I32;
            break;
        case WASM_I64:
            out[i].type = CLI_TYPE_I64;
            break;
        case WASM_F32:
            out[i].type = CLI_TYPE_F32;
            break;
        case WASM_F64:
            out[i].type = CLI_TYPE_F64;
            break;
        default:
            out[i].type = CLI_TYPE_OTHER;
        }
}

static wasmtime_val_t to_engine(const struct cli_value *value)
{
    wasmtime_val_t out;

    memset(&out, 0, sizeof(out));
    switch (value->type) {
    case CLI_TYPE_I32:
        out.kind = WASMTIME_I32;
        out.of.i32 = value->of.i32;
        break;
    case CLI_TYPE_I64:
        out.kind = WASMTIME_I64;
        out.of.i64 = value->of.i64;
        break;
    case CLI_TYPE_F32:
        out.kind = WASMTIME_F32;
        out.of.f32 = value->of.f32;
        break;
    default:
        out.kind = WASMTIME_F64;
        out.of.f64 = value->of.f64;
    }
    return out;
}

/* Into a value whose type is the result's. */
static void from_engine(struct cli_value *out, const wasmtime_val_t *value)
{
    switch (out->type) {
    case CLI_TYPE_I32:
        out->of.i32 = value->of.i32;
        break;
    case CLI_TYPE_I64:
        out->of.i64 = value->of.i64;
        break;
    case CLI_TYPE_F32:
        out->of.f32 = value->of.f32;
        break;
    default:
        out->of.f64 = value->of.f64;
    }
}

static int call(struct instance *instance, const wasmtime_func_t *function,
                const struct cli_program *program, const char *name)
{
    wasm_functype_t *type = cli_wasmtime.wasmtime_func_type(instance->context, function);
    const wasm_valtype_vec_t *params = cli_wasmtime.wasm_functype_params(type);
    const wasm_valtype_vec_t *results = cli_wasmtime.wasm_functype_results(type);
    size_t count = params->size + results->size;
    struct cli_value *values = calloc(count + 1, sizeof(*values));
    wasmtime_val_t *native = calloc(count + 1, sizeof(*native));
    wasmtime_error_t *error;
    wasm_trap_t *trap = NULL;
    int status = CLI_FAILED;
    size_t i;

    if (!values || !native) {
        cli_error("cannot run %s: no memory", program->file);
        goto done;
    }
    take_types(values, params);
    take_types(values + params->size, results);
    status = cli_values_parse(program, name, values, params->size, results->size);
    if (status)
        goto done;
    for (i = 0; i < params->size; i++)
        native[i] = to_engine(&values[i]);
    error = cli_wasmtime.wasmtime_func_call(instance->context, function, native, params->size,
                                            native + params->size, results->size, &trap);
    if (error || trap) {
        status = finish(program->file, error, trap);
        goto done;
    }
    for (i = params->size; i < count; i++)
        from_engine(&values[i], &native[i]);
    cli_values_print(values + params->size, results->size);
    status = CLI_OK;
done:
    free(native);
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
