// SPDX-License-Identifier: Apache-2.0
//! Wasmer's own `FileSystemCache` as a program, to share a directory with it.
//!
//!     interop path WASM                        where its entry lies in the directory
//!     interop save DIR WASM                    compiles and saves
//!     interop save-lzw DIR WASM                the same file as older versions wrote it: compressed
//!     interop load DIR WASM [FUNCTION I32...]  loads, never compiles; prints what the export gives
//!
//! Exit status 3: it is not in the cache. 1: anything else that went wrong.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use wasmer::{Engine, ExternType, Function, Imports, Instance, Module, RuntimeError, Store, Value};
use wasmer_types::{MetadataHeader, ModuleHash};
use wasmer_wasix::runtime::module_cache::{CacheError, FileSystemCache, ModuleCache};
use wasmer_wasix::runtime::task_manager::tokio::TokioTaskManager;
use weezl::{BitOrder, encode::Encoder};

type Failure = Box<dyn std::error::Error>;

/// A function that traps for each import.
fn imports(store: &mut Store, module: &Module) -> Result<Imports, Failure> {
    let mut all = Imports::new();
    for import in module.imports() {
        let ExternType::Function(ty) = import.ty() else {
            return Err(format!("the import {} is no function", import.name()).into());
        };
        let trap = |_: &[Value]| Err(RuntimeError::new("an import was called"));
        all.define(
            import.module(),
            import.name(),
            Function::new(store, ty, trap),
        );
    }
    Ok(all)
}

fn call(engine: &Engine, module: &Module, name: &str, arguments: &[String]) -> Result<(), Failure> {
    let mut store = Store::new(engine.clone());
    let imports = imports(&mut store, module)?;
    let instance = Instance::new(&mut store, module, &imports)?;
    let arguments = arguments
        .iter()
        .map(|a| a.parse().map(Value::I32))
        .collect::<Result<Vec<_>, _>>()?;
    let function = instance.exports.get_function(name)?;
    for value in function.call(&mut store, &arguments)? {
        println!("{}", value.to_string());
    }
    Ok(())
}

/// As FileSystemCache::path() makes it.
fn entry(hash: ModuleHash, engine: &Engine) -> PathBuf {
    let namespace = format!(
        "{}-{}-v{}",
        engine.deterministic_id(),
        engine.artifact_format(),
        MetadataHeader::CURRENT_VERSION
    );
    Path::new(&namespace)
        .join(hash.to_string())
        .with_extension("bin")
}

/// As the last version that compressed them: encoded into a new file, which then got its name.
fn save_compressed(path: &Path, artifact: &[u8]) -> Result<(), Failure> {
    let temporary = path.with_extension("tmp0");
    std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    let mut file = std::fs::File::create(&temporary)?;
    let mut encoder = Encoder::new(BitOrder::Msb, 8);
    encoder
        .into_stream(&mut file)
        .encode_all(Cursor::new(artifact))
        .status?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    Ok(())
}

fn run(arguments: &[String]) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let engine = Engine::default();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let open = |dir: &str| {
        let tasks = TokioTaskManager::new(runtime.handle().clone());
        FileSystemCache::new(Path::new(dir), Arc::new(tasks))
    };
    let (Some(command), Some(wasm)) = (
        words.first(),
        words.get(if words.len() == 2 { 1 } else { 2 }),
    ) else {
        return Err(
            "usage: interop path WASM | save DIR WASM | save-lzw DIR WASM | \
                    load DIR WASM [FUNCTION I32...]"
                .into(),
        );
    };
    let bytes = std::fs::read(wasm)?;
    let hash = ModuleHash::new(&bytes);
    match (*command, &words[1..]) {
        ("path", [_]) => println!("{}", entry(hash, &engine).display()),
        ("save", [dir, _]) => {
            let module = Module::from_binary(&engine, &bytes)?;
            runtime.block_on(open(dir).save(hash, &engine, &module))?;
            println!("saved");
        }
        ("save-lzw", [dir, _]) => {
            let artifact = Module::from_binary(&engine, &bytes)?.serialize()?;
            save_compressed(&Path::new(dir).join(entry(hash, &engine)), &artifact)?;
            println!("saved");
        }
        ("load", [dir, _, rest @ ..]) => match runtime.block_on(open(dir).load(hash, &engine)) {
            Ok(module) => {
                println!("loaded");
                if !rest.is_empty() {
                    call(&engine, &module, rest[0], &arguments[4..])?;
                }
            }
            Err(CacheError::NotFound) => return Ok(ExitCode::from(3)),
            Err(error) => return Err(error.into()),
        },
        _ => return Err(format!("{command}: wrong usage").into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    run(&arguments).unwrap_or_else(|error| {
        eprintln!("interop: {error}");
        let mut cause = error.source();
        while let Some(inner) = cause {
            eprintln!("interop: because: {inner}");
            cause = inner.source();
        }
        ExitCode::FAILURE
    })
}
