/* SPDX-License-Identifier: Apache-2.0 */
/* How a module runs on Wasmer: as a WASI command, or one of its functions. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine_wasmer.h"
#include "output.h"

/* One instance and what it lives in. Zeroed is empty; release() takes any state. */
struct instance {
    wasm_store_t *store;
    struct wasi_env_t *wasi;
    bool initialized; /* wasi: before that Wasmer cannot delete it, and ends the process */
    wasm_extern_vec_t imports;
    wasm_instance_t *native;
    wasm_extern_vec_t exports;
    wasm_exporttype_vec_t types; /* of the exports, in the same order */
};

static void release(struct instance *instance)
{
    if (instance->types.data)
        cli_wasmer.wasm_exporttype_vec_delete(&instance->types);
    if (instance->exports.data)
        cli_wasmer.wasm_extern_vec_delete(&instance->exports);
    /* The end of the program: its files are closed and flushed. */
    if (instance->initialized)
        cli_wasmer.wasi_env_delete(instance->wasi);
    if (instance->native)
        cli_wasmer.wasm_instance_delete(instance->native);
    if (instance->imports.data)
        cli_wasmer.wasm_extern_vec_delete(&instance->imports);
    if (instance->store)
        cli_wasmer.wasm_store_delete(instance->store);
}

/* ---- errors -----------------------------------------------------------------------------------
 */

/* "cannot run FILE:" and the text that Wasmer keeps for this thread. */
static int fail(const char *file)
{
    int length = cli_wasmer.wasmer_last_error_length();
    char *text = length > 0 ? malloc((size_t)length) : NULL;

    if (text && cli_wasmer.wasmer_last_error_message(text, length) > 0) {
        cli_error("cannot run %s:", file);
        cli_error_lines(text, strlen(text));
    } else {
        cli_error("cannot run %s: the engine refused", file);
    }
    free(text);
    return CLI_FAILED;
}

/* The status of a program that ended itself, which Wasmer tells only in the text of the trap; -1 if
 * it is another trap. */
static int exit_status(const char *text)
{
    static const char prefix[] = "WASI exited with code: ExitCode::";
    char *end;
    long status;

    if (strncmp(text, prefix, sizeof(prefix) - 1) != 0)
        return -1;
    text += sizeof(prefix) - 1;
    status = strtol(text, &end, 10);
    return end != text && !*end && status >= 0 && status <= 0xffff ? (int)status : -1;
}

/* Where it happened, the innermost function first. */
static void print_frames(const wasm_trap_t *trap)
{
    enum { MOST = 20 };
    char text[64 * (MOST + 2)] = "wasm backtrace:";
    wasm_frame_vec_t frames = {0, NULL};
    size_t i, used = strlen(text);

    cli_wasmer.wasm_trap_trace(trap, &frames);
    for (i = 0; i < frames.size && i < MOST; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used,
                                 "\n%5zu: %#8zx - <wasm function %" PRIu32 ">", i,
                                 cli_wasmer.wasm_frame_module_offset(frames.data[i]),
                                 cli_wasmer.wasm_frame_func_index(frames.data[i]));
    if (i < frames.size)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "\n       ... %zu more",
                                 frames.size - i);
    if (frames.size)
        cli_error_lines(text, used);
    if (frames.data)
        cli_wasmer.wasm_frame_vec_delete(&frames);
}

/* The program's status, or CLI_FAILED after a message. Takes the trap. */
static int finish(const char *file, wasm_trap_t *trap)
{
    wasm_name_t message = {0, NULL};
    char *text;
    int status = -1;

    cli_wasmer.wasm_trap_message(trap, &message);
    text = calloc(message.size + 1, 1);
    if (text && message.size)
        memcpy(text, message.data, message.size);
    if (text)
        status = exit_status(text);
    if (status >= 0) {
        status = cli_program_status(status);
    } else {
        cli_error("%s trapped:", file);
        if (text)
            cli_error_lines(text, strlen(text));
        print_frames(trap);
        status = CLI_FAILED;
    }
    free(text);
    if (message.data)
        cli_wasmer.wasm_byte_vec_delete(&message);
    cli_wasmer.wasm_trap_delete(trap);
    return status;
}

/* ---- WASI -------------------------------------------------------------------------------------
 */

static struct wasi_env_t *make_wasi(wasm_store_t *store, const struct cli_program *program)
{
    struct wasi_config_t *config = cli_wasmer.wasi_config_new(program->argv[0]);
    struct wasi_env_t *env;
    size_t i;

    if (!config) {
        fail(program->file);
        return NULL;
    }
    for (i = 1; i < (size_t)program->argc; i++)
        cli_wasmer.wasi_config_arg(config, program->argv[i]);
    for (i = 0; i < program->env_count; i++)
        cli_wasmer.wasi_config_env(config, program->env_names[i], program->env_values[i]);
    for (i = 0; i < program->dir_count; i++) {
        const struct cli_preopen *dir = &program->dirs[i];
        char path[64];

        /* A config that is not used up stays: the C API has no call that deletes it. */
        if (!cli_preopen_path(path, sizeof(path), dir))
            return NULL;
        if (!cli_wasmer.wasi_config_mapdir(config, dir->guest, path)) {
            cli_error("cannot give %s to the program as %s:", dir->host, dir->guest);
            fail(program->file);
            return NULL;
        }
    }
    env = cli_wasmer.wasi_env_new(store, config); /* takes it */
    if (!env)
        fail(program->file);
    return env;
}

/* ---- instances --------------------------------------------------------------------------------
 */

static bool is_wasi(const wasm_importtype_t *import)
{
    /* Preview 1 as on the other engine. Wasmer could do more (WASIX: sockets, processes), which is
     * more than a program is to get unasked. */
    static const char name[] = "wasi_snapshot_preview1";
    const wasm_name_t *from = cli_wasmer.wasm_importtype_module(import);

    return from->size == sizeof(name) - 1 && !memcmp(from->data, name, sizeof(name) - 1);
}

/* "module.name, ..." of the imports that are not WASI's. */
static void add_import(struct cli_names *names, const wasm_importtype_t *import)
{
    const wasm_name_t *from = cli_wasmer.wasm_importtype_module(import);
    const wasm_name_t *name = cli_wasmer.wasm_importtype_name(import);
    char text[64];

    snprintf(text, sizeof(text), "%.*s.%.*s", from->size < 31 ? (int)from->size : 31, from->data,
             name->size < 31 ? (int)name->size : 31, name->data);
    cli_names_add(names, text, strlen(text));
}

/* Fills instance->imports. */
static int take_imports(struct instance *instance, const wasm_module_t *module,
                        const struct cli_program *program)
{
    wasm_importtype_vec_t imports = {0, NULL};
    struct cli_names others = {0};
    bool wasi = false;
    size_t i;

    cli_wasmer.wasm_module_imports(module, &imports);
    for (i = 0; i < imports.size; i++) {
        if (is_wasi(imports.data[i]))
            wasi = true;
        else
            add_import(&others, imports.data[i]);
    }
    if (imports.data)
        cli_wasmer.wasm_importtype_vec_delete(&imports);
    if (others.used) {
        cli_error("cannot run %s: it imports what the tool does not have: %s", program->file,
                  others.text);
        return CLI_FAILED;
    }
    if (!wasi)
        return CLI_OK;
    if (!cli_wasmer.has_wasi) {
        cli_error("cannot run %s: it needs WASI, and %s was built without; have one built with "
                  "WASMER_FEATURES=wasi tools/engine-wasmer and name its lib/libwasmer.so with "
                  "--engine PATH, or take another engine",
                  program->file, cli_wasmer.path);
        return CLI_FAILED;
    }
    instance->wasi = make_wasi(instance->store, program);
    if (!instance->wasi)
        return CLI_FAILED;
    if (!cli_wasmer.wasi_get_imports(instance->store, instance->wasi, module, &instance->imports))
        return fail(program->file);
    return CLI_OK;
}

static wasm_externkind_t export_kind(const struct instance *instance, size_t i)
{
    return cli_wasmer.wasm_externtype_kind(
        cli_wasmer.wasm_exporttype_type(instance->types.data[i]));
}

static bool exports_memory(const struct instance *instance)
{
    size_t i;

    for (i = 0; i < instance->types.size; i++)
        if (export_kind(instance, i) == WASM_EXTERN_MEMORY)
            return true;
    return false;
}

static int instantiate(struct instance *out, wasm_engine_t *engine, const wasm_module_t *module,
                       const struct cli_program *program)
{
    wasm_trap_t *trap = NULL;
    int status;

    out->store = cli_wasmer.wasm_store_new(engine);
    if (!out->store) {
        cli_error("cannot run %s: no memory", program->file);
        return CLI_FAILED;
    }
    cli_wasmer.wasm_module_exports(module, &out->types);
    status = take_imports(out, module, program);
    if (status)
        return status;
    out->native = cli_wasmer.wasm_instance_new(out->store, module, &out->imports, &trap);
    if (!out->native)
        return trap ? finish(program->file, trap) : fail(program->file);
    cli_wasmer.wasm_instance_exports(out->native, &out->exports);
    if (!out->wasi)
        return CLI_OK;
    /* Without one Wasmer's call would end the process. */
    if (!exports_memory(out)) {
        cli_error("cannot run %s: it exports no memory, and WASI needs one", program->file);
        return CLI_FAILED;
    }
    if (!cli_wasmer.wasi_env_initialize_instance(out->wasi, out->store, out->native))
        return fail(program->file);
    out->initialized = true;
    return CLI_OK;
}

/* ---- functions --------------------------------------------------------------------------------
 */

/* Borrowed from the instance; NULL: there is none of that name. */
static wasm_func_t *find_function(const struct instance *instance, const char *name)
{
    size_t length = strlen(name);
    size_t i;

    for (i = 0; i < instance->types.size && i < instance->exports.size; i++) {
        const wasm_name_t *text = cli_wasmer.wasm_exporttype_name(instance->types.data[i]);

        if (text->size == length && !memcmp(text->data, name, length))
            return cli_wasmer.wasm_extern_as_func(instance->exports.data[i]);
    }
    return NULL;
}

static int no_function(const struct cli_program *program, const struct instance *instance,
                       const char *name, bool command)
{
    struct cli_names functions = {0};
    size_t i;

    for (i = 0; i < instance->types.size; i++) {
        const wasm_name_t *text = cli_wasmer.wasm_exporttype_name(instance->types.data[i]);

        if (export_kind(instance, i) == WASM_EXTERN_FUNC)
            cli_names_add(&functions, text->data, text->size);
    }
    return cli_no_function(program, &functions, name, command);
}

static void take_types(struct cli_value *out, const wasm_valtype_vec_t *types)
{
    size_t i;

    for (i = 0; i < types->size; i++)
        switch (cli_wasmer.wasm_valtype_kind(types->data[i])) {
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

static wasm_val_t to_engine(const struct cli_value *value)
{
    wasm_val_t out;

    memset(&out, 0, sizeof(out));
    switch (value->type) {
    case CLI_TYPE_I32:
        out.kind = WASM_I32;
        out.of.i32 = value->of.i32;
        break;
    case CLI_TYPE_I64:
        out.kind = WASM_I64;
        out.of.i64 = value->of.i64;
        break;
    case CLI_TYPE_F32:
        out.kind = WASM_F32;
        out.of.f32 = value->of.f32;
        break;
    default:
        out.kind = WASM_F64;
        out.of.f64 = value->of.f64;
    }
    return out;
}

/* Into a value whose type is the result's. */
static void from_engine(struct cli_value *out, const wasm_val_t *value)
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

static int call(wasm_func_t *function, const struct cli_program *program, const char *name)
{
    wasm_functype_t *type = cli_wasmer.wasm_func_type(function);
    const wasm_valtype_vec_t *params = cli_wasmer.wasm_functype_params(type);
    const wasm_valtype_vec_t *results = cli_wasmer.wasm_functype_results(type);
    size_t count = params->size + results->size;
    struct cli_value *values = calloc(count + 1, sizeof(*values));
    wasm_val_t *native = calloc(count + 1, sizeof(*native));
    wasm_val_vec_t given, got;
    wasm_trap_t *trap;
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
    /* Numbers own nothing, so these need no delete. */
    given = (wasm_val_vec_t){params->size, native};
    got = (wasm_val_vec_t){results->size, native + params->size};
    trap = cli_wasmer.wasm_func_call(function, &given, &got);
    if (trap) {
        status = finish(program->file, trap);
        goto done;
    }
    for (i = params->size; i < count; i++)
        from_engine(&values[i], &native[i]);
    cli_values_print(values + params->size, results->size);
done:
    free(native);
    free(values);
    cli_wasmer.wasm_functype_delete(type);
    return status;
}

/* ---- the two ways ------------------------------------------------------------------------------
 */

/* Calls a function without parameters and results. GO_ON: it returned. */
enum { GO_ON = -1 };

static int call_plain(wasm_func_t *function, const struct cli_program *program)
{
    wasm_val_vec_t given = {0, NULL}, got = {0, NULL};
    wasm_trap_t *trap = cli_wasmer.wasm_func_call(function, &given, &got);

    return trap ? finish(program->file, trap) : GO_ON;
}

int cli_wasmer_run(void *native, void *module, const struct cli_program *program)
{
    struct instance instance = {0};
    int status = instantiate(&instance, native, module, program);

    if (!status) {
        wasm_func_t *start = find_function(&instance, "_start");

        status =
            start ? call_plain(start, program) : no_function(program, &instance, "_start", true);
    }
    release(&instance);
    return status == GO_ON ? CLI_OK : status;
}

int cli_wasmer_invoke(void *native, void *module, const struct cli_program *program,
                      const char *name)
{
    struct instance instance = {0};
    int status = instantiate(&instance, native, module, program);

    if (!status) {
        wasm_func_t *function = find_function(&instance, name);
        /* A WASI reactor wants this one first. */
        wasm_func_t *initialize =
            strcmp(name, "_initialize") != 0 ? find_function(&instance, "_initialize") : NULL;

        if (!function)
            status = no_function(program, &instance, name, false);
        else if (initialize)
            status = call_plain(initialize, program);
        else
            status = GO_ON;
        if (status == GO_ON)
            status = call(function, program, name);
    }
    release(&instance);
    return status;
}
