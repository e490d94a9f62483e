/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_ENGINE_WASMTIME_H
#define CLI_ENGINE_WASMTIME_H

/* The functions of Wasmtime that the tool calls, as pointers; and how its errors are shown. */

#include <wasi.h>
#include <wasmtime.h>

#include "engine.h"

#if defined(WASMTIME_FEATURE_COMPONENT_MODEL)
#define CLI_WASMTIME_COMPONENT_NAMES(X)                                                            \
    X(wasmtime_component_new)                                                                      \
    X(wasmtime_component_serialize)                                                                \
    X(wasmtime_component_deserialize)                                                              \
    X(wasmtime_component_deserialize_file)                                                         \
    X(wasmtime_component_clone)                                                                    \
    X(wasmtime_component_delete)
#else
#define CLI_WASMTIME_COMPONENT_NAMES(X)
#endif

#define CLI_WASMTIME_NAMES(X)                                                                      \
    X(wasm_byte_vec_delete)                                                                        \
    X(wasm_engine_delete)                                                                          \
    X(wasm_engine_new)                                                                             \
    X(wasm_exporttype_name)                                                                        \
    X(wasm_exporttype_type)                                                                        \
    X(wasm_exporttype_vec_delete)                                                                  \
    X(wasm_externtype_kind)                                                                        \
    X(wasm_functype_delete)                                                                        \
    X(wasm_functype_params)                                                                        \
    X(wasm_functype_results)                                                                       \
    X(wasm_trap_delete)                                                                            \
    X(wasm_trap_message)                                                                           \
    X(wasm_valtype_kind)                                                                           \
    X(wasi_config_delete)                                                                          \
    X(wasi_config_inherit_stderr)                                                                  \
    X(wasi_config_inherit_stdin)                                                                   \
    X(wasi_config_inherit_stdout)                                                                  \
    X(wasi_config_new)                                                                             \
    X(wasi_config_preopen_dir)                                                                     \
    X(wasi_config_set_argv)                                                                        \
    X(wasi_config_set_env)                                                                         \
    X(wasmtime_context_set_wasi)                                                                   \
    X(wasmtime_engine_is_pulley)                                                                   \
    X(wasmtime_error_delete)                                                                       \
    X(wasmtime_error_exit_status)                                                                  \
    X(wasmtime_error_message)                                                                      \
    X(wasmtime_extern_delete)                                                                      \
    X(wasmtime_func_call)                                                                          \
    X(wasmtime_func_type)                                                                          \
    X(wasmtime_instance_export_get)                                                                \
    X(wasmtime_linker_define_wasi)                                                                 \
    X(wasmtime_linker_delete)                                                                      \
    X(wasmtime_linker_instantiate)                                                                 \
    X(wasmtime_linker_new)                                                                         \
    X(wasmtime_module_clone)                                                                       \
    X(wasmtime_module_delete)                                                                      \
    X(wasmtime_module_deserialize)                                                                 \
    X(wasmtime_module_deserialize_file)                                                            \
    X(wasmtime_module_exports)                                                                     \
    X(wasmtime_module_new)                                                                         \
    X(wasmtime_module_serialize)                                                                   \
    X(wasmtime_store_context)                                                                      \
    X(wasmtime_store_delete)                                                                       \
    X(wasmtime_store_new)                                                                          \
    CLI_WASMTIME_COMPONENT_NAMES(X)

/* __typeof__, so that every pointer has the type that the header declares: gcc's and clang's, and
 * C23's by another name. */
#define CLI_WASMTIME_POINTER(name) __typeof__(name) *(name);

struct cli_wasmtime {
    CLI_WASMTIME_NAMES(CLI_WASMTIME_POINTER)
};

/* Filled by load; constant from then on, for all threads. */
extern struct cli_wasmtime cli_wasmtime;

int cli_wasmtime_run(void *native, void *module, const struct cli_program *program);
int cli_wasmtime_invoke(void *native, void *module, const struct cli_program *program,
                        const char *function);

#endif
