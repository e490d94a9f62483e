// SPDX-License-Identifier: Apache-2.0
//! Wasmer's own `FileSystemCache` as bench/bench.py measures it: the same program for two versions of wasmer-wasix.
//!
//!     save DIR WASM         compiles and saves into DIR, which is empty
//!     warm DIR WASM ROUNDS  ROUNDS loads in one process, after one that does not count
//!     new DIR WASM          one load, from main to the module
//!     hold DIR WASM         loads, says "ready" and keeps the module until its standard input ends
//!     get DIR WASM default|other   loads, or compiles and saves, as a host does; tells of it in lines. What tests/torture/others
//!                           does harm to: see subject.c there, which prints the same. "other": an engine that does not optimize
//!
//! The others print one JSON object with times in nanoseconds. The key is what the caller of that cache has to bring: reading and
//! hashing the wasm is timed apart, as "hash".

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use wasmer::sys::{Cranelift, CraneliftOptLevel, EngineBuilder};
use wasmer::{Engine, Instance, Module, Store, imports};
use wasmer_types::ModuleHash;
use wasmer_wasix::runtime::module_cache::{CacheError, FileSystemCache, ModuleCache};
use wasmer_wasix::runtime::task_manager::tokio::TokioTaskManager;

type Failure = Box<dyn std::error::Error>;

// Compilers before Rust 1.89 brought this function, which probes the pages of large frames; wasmer-vm 5.0.1 refers to it.
#[cfg(all(feature = "v031", target_arch = "x86_64"))]
std::arch::global_asm!(
    ".globl __rust_probestack",
    ".type __rust_probestack,@function",
    "__rust_probestack:",
    "push rbp",
    "mov rbp, rsp",
    "mov r11, rax",
    "2:",
    "cmp r11, 0x1000",
    "jna 3f",
    "sub rsp, 0x1000",
    "test [rsp + 8], rsp",
    "sub r11, 0x1000",
    "jmp 2b",
    "3:",
    "sub rsp, r11",
    "test [rsp + 8], rsp",
    "add rsp, rax",
    "leave",
    "ret",
    ".size __rust_probestack, . - __rust_probestack"
);

#[cfg(feature = "v031")]
fn hash_of(wasm: &[u8]) -> ModuleHash {
    ModuleHash::sha256(wasm)
}
#[cfg(not(feature = "v031"))]
fn hash_of(wasm: &[u8]) -> ModuleHash {
    ModuleHash::new(wasm)
}

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        found.push(path.clone());
        if path.is_dir() {
            files_below(&path, found)?;
        }
    }
    Ok(())
}

/// Until a power cut does no harm: the entry and the folders above it.
fn sync_below(dir: &Path) -> std::io::Result<()> {
    let mut all = vec![dir.to_path_buf()];
    files_below(dir, &mut all)?;
    for path in all {
        std::fs::File::open(path)?.sync_all()?;
    }
    Ok(())
}

fn ns(since: Instant) -> u128 {
    since.elapsed().as_nanos()
}

/// FNV-1a: tells in other processes whether bytes are the same.
fn print_of(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn engine_of(word: &str) -> Engine {
    if word != "other" {
        return Engine::default();
    }
    let mut compiler = Cranelift::new();
    compiler.opt_level(CraneliftOptLevel::None);
    EngineBuilder::new(compiler).into()
}

/// Each line is out before the next step, so that it is there if that one ends the process.
fn get(dir: &Path, file: &str, settings: &str) -> Result<(), Failure> {
    let wasm = std::fs::read(file)?;
    let key = hash_of(&wasm);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let engine = engine_of(settings);
    let cache = FileSystemCache::new(dir, Arc::new(TokioTaskManager::new(runtime.handle().clone())));
    let module = match runtime.block_on(cache.load(key, &engine)) {
        Ok(module) => {
            println!("outcome hit");
            module
        }
        Err(error) => {
            if !matches!(error, CacheError::NotFound) {
                println!("load-error {}", error.to_string().replace('\n', " "));
            }
            let module = Module::from_binary(&engine, &wasm)?;
            println!("outcome compiled");
            match runtime.block_on(cache.save(key, &engine, &module)) {
                Ok(()) => println!("saved"),
                Err(error) => println!("save-error {}", error.to_string().replace('\n', " ")),
            }
            module
        }
    };
    let mut store = Store::new(engine);
    let instance = Instance::new(&mut store, &module, &imports! {})?;
    let work = instance.exports.get_typed_function::<i32, i32>(&store, "work")?;
    println!("answer {}", work.call(&mut store, 3)?);
    println!("artifact {:016x}", print_of(&module.serialize()?));
    Ok(())
}

fn run(started: Instant, words: &[String]) -> Result<(), Failure> {
    if words[0] == "get" {
        return get(Path::new(&words[1]), &words[2], &words[3]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (what, dir, file) = (words[0], Path::new(words[1]), words[2]);

    let hash_started = Instant::now();
    let wasm = std::fs::read(file)?;
    let key = hash_of(&wasm);
    let hash = ns(hash_started);

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let engine = Engine::default();
    let cache = FileSystemCache::new(dir, Arc::new(TokioTaskManager::new(runtime.handle().clone())));
    let load = || runtime.block_on(cache.load(key, &engine));

    match what {
        "save" => {
            let compile_started = Instant::now();
            let module = Module::from_binary(&engine, &wasm)?;
            let compile = ns(compile_started);
            let save_started = Instant::now();
            runtime.block_on(cache.save(key, &engine, &module))?;
            let save = ns(save_started);
            sync_below(dir)?;
            println!("{{\"compile\":{compile},\"save\":{save},\"on_disk\":{},\"hash\":{hash}}}", ns(save_started));
        }
        "new" => {
            let module = load()?;
            println!("{{\"main\":{},\"hash\":{hash}}}", ns(started) - hash);
            drop(module);
        }
        "warm" => {
            drop(load()?);
            let mut times = Vec::new();
            for _ in 0..words[3].parse()? {
                let load_started = Instant::now();
                let module = load()?;
                times.push(ns(load_started).to_string());
                drop(module);
            }
            println!("{{\"hit\":[{}],\"hash\":{hash}}}", times.join(","));
        }
        "hold" => {
            drop(wasm);
            let module = load()?;
            println!("ready");
            std::io::stdin().read_to_end(&mut Vec::new())?;
            drop(module);
        }
        _ => return Err("unknown word".into()),
    }
    Ok(())
}

fn main() {
    let started = Instant::now();
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.len() < 3 || (["warm", "get"].contains(&words[0].as_str()) && words.len() < 4) {
        eprintln!("usage: bench-wasix save|new|hold DIR WASM | warm DIR WASM ROUNDS | get DIR WASM default|other");
        std::process::exit(2);
    }
    if let Err(error) = run(started, &words) {
        eprintln!("bench-wasix: {error}");
        std::process::exit(1);
    }
    // As a program that ends: what the module's threads and memory take to go is nobody's time.
    std::process::exit(0);
}
