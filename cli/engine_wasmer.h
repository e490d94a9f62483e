/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_ENGINE_WASMER_H
#define CLI_ENGINE_WASMER_H

/* The functions of Wasmer that the tool calls, as pointers. */

#include <wasmer.h>

#include "engine.h"

/*
 * What a libwasmer may have or not, whatever the headers were generated for: the additions of
 * wasmer-plus, and WASI. Declared as they are there; where the headers do, a difference is an
 * error.
 */
struct wasi_config_t;
struct wasi_env_t;

wasm_module_t *wasmer_plus_module_deserialize_file(const wasm_engine_t *engine, const char *path);
wasm_module_t *wasmer_plus_module_clone(const wasm_module_t *module);
void wasmer_plus_engine_id(const wasm_engine_t *engine, wasm_byte_vec_t *out);

void wasi_config_arg(struct wasi_config_t *config, const char *arg);
void wasi_config_env(struct wasi_config_t *config, const char *key, const char *value);
bool wasi_config_mapdir(struct wasi_config_t *config, const char *alias, const char *dir);
struct wasi_config_t *wasi_config_new(const char *program_name);
void wasi_env_delete(struct wasi_env_t *state);
bool wasi_env_initialize_instance(struct wasi_env_t *wasi_env, wasm_store_t *store,
                                  wasm_instance_t *instance);
struct wasi_env_t *wasi_env_new(wasm_store_t *store, struct wasi_config_t *config);
bool wasi_get_imports(const wasm_store_t *store, struct wasi_env_t *wasi_env,
                      const wasm_module_t *module, wasm_extern_vec_t *imports);

#define CLI_WASMER_NAMES(X)                                                                        \
    X(wasm_byte_vec_delete)                                                                        \
    X(wasm_engine_delete)                                                                          \
    X(wasm_engine_new)                                                                             \
    X(wasm_exporttype_name)                                                                        \
    X(wasm_exporttype_type)                                                                        \
    X(wasm_exporttype_vec_delete)                                                                  \
    X(wasm_extern_as_func)                                                                         \
    X(wasm_extern_vec_delete)                                                                      \
    X(wasm_externtype_kind)                                                                        \
    X(wasm_frame_func_index)                                                                       \
    X(wasm_frame_module_offset)                                                                    \
    X(wasm_frame_vec_delete)                                                                       \
    X(wasm_func_call)                                                                              \
    X(wasm_func_type)                                                                              \
    X(wasm_functype_delete)                                                                        \
    X(wasm_functype_params)                                                                        \
    X(wasm_functype_results)                                                                       \
    X(wasm_importtype_module)                                                                      \
    X(wasm_importtype_name)                                                                        \
    X(wasm_importtype_vec_delete)                                                                  \
    X(wasm_instance_delete)                                                                        \
    X(wasm_instance_exports)                                                                       \
    X(wasm_instance_new)                                                                           \
    X(wasm_module_delete)                                                                          \
    X(wasm_module_deserialize)                                                                     \
    X(wasm_module_exports)                                                                         \
    X(wasm_module_imports)                                                                         \
    X(wasm_module_new)                                                                             \
    X(wasm_module_serialize)                                                                       \
    X(wasm_store_delete)                                                                           \
    X(wasm_store_new)                                                                              \
    X(wasm_trap_delete)                                                                            \
    X(wasm_trap_message)                                                                           \
    X(wasm_trap_trace)                                                                             \
    X(wasm_valtype_kind)                                                                           \
    X(wasmer_last_error_length)                                                                    \
    X(wasmer_last_error_message)                                                                   \
    X(wasmer_version)                                                                              \
    X(wasmer_version_major)

/* NULL where the library has none. */
#define CLI_WASMER_OPTIONAL_NAMES(X)                                                               \
    X(wasmer_plus_engine_id)                                                                       \
    X(wasmer_plus_module_clone)                                                                    \
    X(wasmer_plus_module_deserialize_file)                                                         \
    X(wasi_config_arg)                                                                             \
    X(wasi_config_env)                                                                             \
    X(wasi_config_mapdir)                                                                          \
    X(wasi_config_new)                                                                             \
    X(wasi_env_delete)                                                                             \
    X(wasi_env_initialize_instance)                                                                \
    X(wasi_env_new)                                                                                \
    X(wasi_get_imports)

/* __typeof__, so that every pointer has the type that the header declares: gcc's and clang's, and
 * C23's by another name. */
#define CLI_WASMER_POINTER(name) __typeof__(name) *(name);

struct cli_wasmer {
    CLI_WASMER_NAMES(CLI_WASMER_POINTER)
    CLI_WASMER_OPTIONAL_NAMES(CLI_WASMER_POINTER)
    bool has_wasi;   /* all of the functions above for it */
    char path[4096]; /* of the library, for messages */
};

/* Filled by load; constant from then on, for all threads. */
extern struct cli_wasmer cli_wasmer;

int cli_wasmer_run(void *native, void *module, const struct cli_program *program);
int cli_wasmer_invoke(void *native, void *module, const struct cli_program *program,
                      const char *function);

#endif
