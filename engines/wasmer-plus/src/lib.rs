// SPDX-License-Identifier: Apache-2.0
//! libwasmer, all of it, and three functions more that a cache of compiled modules wants and
//! Wasmer's C API lacks. They are declared in `include/wasmer_plus.h`; nothing else is added.
//!
//! Wasmer's C types are wrappers around one Rust value each, with a private field. They are looked
//! through with casts, which hold only while a wrapper is its value and nothing else: the assertions
//! below end the build when that changes. A struct of one field that has the size and the alignment
//! of that field has it at offset 0.

use std::ffi::{CStr, OsStr, c_char};
use std::mem::{align_of, size_of};
use std::os::unix::ffi::OsStrExt;

use wasmer::{Engine, Module};
use wasmer_c_api::error::update_last_error;
use wasmer_c_api::wasm_c_api::engine::wasm_engine_t;
use wasmer_c_api::wasm_c_api::module::wasm_module_t;
use wasmer_c_api::wasm_c_api::types::wasm_byte_vec_t;

const _: () = assert!(size_of::<wasm_engine_t>() == size_of::<Engine>());
const _: () = assert!(align_of::<wasm_engine_t>() == align_of::<Engine>());
const _: () = assert!(size_of::<wasm_module_t>() == size_of::<Module>());
const _: () = assert!(align_of::<wasm_module_t>() == align_of::<Module>());

fn engine_of(engine: &wasm_engine_t) -> &Engine {
    // SAFETY: a wasm_engine_t is its Engine, by the assertions above.
    unsafe { &*std::ptr::from_ref(engine).cast::<Engine>() }
}

fn into_c(module: Module) -> Box<wasm_module_t> {
    // SAFETY: a wasm_module_t is its Module, by the assertions above; so the box has the layout that
    // it will be freed with.
    unsafe { Box::from_raw(Box::into_raw(Box::new(module)).cast::<wasm_module_t>()) }
}

/// A module from a file that holds a serialized one, mapped instead of copied. Bytes may follow it.
/// NULL: `wasmer_last_error_message()` says why.
///
/// # Safety
/// The file holds what this engine serialized, unchanged: nothing here checks it. `path` is a C
/// string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wasmer_plus_module_deserialize_file(
    engine: Option<&wasm_engine_t>,
    path: *const c_char,
) -> Option<Box<wasm_module_t>> {
    let engine = engine_of(engine?);
    if path.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    let path = OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes());
    // SAFETY: the caller's. "Unchecked" leaves out a validation of the archive's pointers, which is
    // what wasm_module_deserialize() leaves out too.
    match unsafe { Module::deserialize_from_file_unchecked(engine, path) } {
        Ok(module) => Some(into_c(module)),
        Err(error) => {
            update_last_error(error);
            None
        }
    }
}

/// Another handle of the same module; both are deleted with `wasm_module_delete()`.
#[unsafe(no_mangle)]
pub extern "C" fn wasmer_plus_module_clone(
    module: Option<&wasm_module_t>,
) -> Option<Box<wasm_module_t>> {
    Some(Box::new(module?.clone()))
}

/// What Wasmer's own cache names its folder by, before the version: compiler, settings, format, such
/// as "cranelift-opts-rkyv". `out` is the caller's, to be deleted with `wasm_byte_vec_delete()`.
#[unsafe(no_mangle)]
pub extern "C" fn wasmer_plus_engine_id(
    engine: Option<&wasm_engine_t>,
    out: Option<&mut wasm_byte_vec_t>,
) {
    let Some(out) = out else { return };
    let id = match engine.map(engine_of) {
        Some(engine) => format!("{}-{}", engine.deterministic_id(), engine.artifact_format()),
        None => String::new(),
    };
    out.set_buffer(id.into_bytes());
}
