// SPDX-License-Identifier: Apache-2.0
//! Wasmer's own `FileSystemCache` as a program, to share a directory with it.
//!
//!     interop save DIR WASM                    compiles and saves; prints the key
//!     interop load DIR WASM [FUNCTION I32...]  loads, never compiles; prints what the export gives
//!     interop key WASM                         the name of its entry
//!
//! Exit status 3: it is not in the cache. 1: anything else.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use wasmer::{Engine, Instance, Module, Store, Value, imports};
use wasmer_wasix::runtime::module_cache::{CacheError, FileSystemCache, ModuleCache};
use wasmer_wasix::runtime::task_manager::tokio::TokioTaskManager;

type Failure = Box<dyn std::error::Error>;

fn call(engine: &Engine, module: &Module, function: &str, arguments: &[String]) -> Result<(), Failure> {
    let mut store = Store::new(engine.clone());
    let instance = Instance::new(&mut store, module, &imports! {})?;
    let arguments = arguments
        .iter()
        .map(|a| a.parse().map(Value::I32))
        .collect::<Result<Vec<_>, _>>()?;
    for value in instance.exports.get_function(function)?.call(&mut store, &arguments)? {
        println!("{}", value.to_string());
    }
    Ok(())
}

fn run(arguments: &[String]) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let engine = Engine::default();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let hash = |wasm: &str| -> Result<_, Failure> { Ok(wasmer_types_hash(&std::fs::read(wasm)?)) };
    let open = |dir: &str| {
        FileSystemCache::new(Path::new(dir), Arc::new(TokioTaskManager::new(runtime.handle().clone())))
    };
    match words[..] {
        ["key", wasm] => println!("{}", hash(wasm)?),
        ["save", dir, wasm] => {
            let module = Module::from_binary(&engine, &std::fs::read(wasm)?)?;
            runtime.block_on(open(dir).save(hash(wasm)?, &engine, &module))?;
            println!("{}", hash(wasm)?);
        }
        ["load", dir, wasm, ..] => match runtime.block_on(open(dir).load(hash(wasm)?, &engine)) {
            Ok(module) => {
                println!("loaded");
                if let Some(function) = arguments.get(3) {
                    call(&engine, &module, function, &arguments[4..])?;
                }
            }
            Err(CacheError::NotFound) => return Ok(ExitCode::from(3)),
            Err(error) => return Err(error.into()),
        },
        _ => return Err("usage: interop save DIR WASM | load DIR WASM [FUNCTION I32...] | key WASM".into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn wasmer_types_hash(wasm: &[u8]) -> wasmer_wasix::runtime::module_cache::ModuleHash {
    wasmer_wasix::runtime::module_cache::ModuleHash::new(wasm)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("interop: {error}");
        ExitCode::FAILURE
    })
}
