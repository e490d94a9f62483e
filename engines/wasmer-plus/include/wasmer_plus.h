/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WASMER_PLUS_H
#define WASMER_PLUS_H

/* The three functions that wasmer-plus adds to libwasmer. */

#include <wasm.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A module from a file that holds what wasm_module_serialize() of the same engine gave; bytes may
 * follow it. The file is mapped, not copied, and nothing in it is checked. NULL: it cannot be read,
 * or is another version's or CPU's; wasmer_last_error_message() says why. Any thread.
 */
wasm_module_t *wasmer_plus_module_deserialize_file(const wasm_engine_t *engine, const char *path);

/* Another handle of the same module; both are deleted with wasm_module_delete(). Any thread. */
wasm_module_t *wasmer_plus_module_clone(const wasm_module_t *module);

/*
 * What Wasmer's own cache names its folder by, before the version: compiler, settings and format,
 * such as "cranelift-opts-rkyv". `out` is to be deleted with wasm_byte_vec_delete().
 */
void wasmer_plus_engine_id(const wasm_engine_t *engine, wasm_byte_vec_t *out);

#ifdef __cplusplus
}
#endif

#endif
