// SPDX-License-Identifier: Apache-2.0

// The cache of wazero as bench/bench.py measures it.
//
//	save DIR WASM         compiles and saves into DIR, which is empty
//	compile DIR WASM      compiles without a cache
//	warm DIR WASM ROUNDS  ROUNDS loads in one process, after one that does not count
//	new DIR WASM          one load, from main to the module
//	hold DIR WASM         loads, says "ready" and keeps the module until its standard input ends
//
// Prints one JSON object with times in nanoseconds. wazero is given the wasm and hashes and decodes it itself; reading it is
// timed apart, as "read".
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/tetratelabs/wazero"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-wazero:", err)
		os.Exit(1)
	}
	return value
}

func main() {
	started := time.Now()
	words := os.Args[1:]
	if len(words) < 3 || (words[0] == "warm" && len(words) < 4) {
		fmt.Fprintln(os.Stderr, "usage: bench-wazero save|compile|new|hold DIR WASM | warm DIR WASM ROUNDS")
		os.Exit(2)
	}
	what, dir, file := words[0], words[1], words[2]
	ctx := context.Background()
	wasm := must(os.ReadFile(file))
	read := time.Since(started)

	config := wazero.NewRuntimeConfigCompiler()
	if what != "compile" {
		config = config.WithCompilationCache(must(wazero.NewCompilationCacheWithDir(dir)))
	}
	runtime := wazero.NewRuntimeWithConfig(ctx, config)
	load := func() (wazero.CompiledModule, time.Duration) {
		start := time.Now()
		module := must(runtime.CompileModule(ctx, wasm))
		return module, time.Since(start)
	}

	result := map[string]any{"read": read.Nanoseconds()}
	switch what {
	case "save", "compile":
		_, took := load()
		result["compile"] = took.Nanoseconds()
	case "new":
		load()
		result["main"] = (time.Since(started) - read).Nanoseconds()
	case "warm":
		// A module that is closed is gone from memory: the next one comes from the disk.
		module, _ := load()
		module.Close(ctx)
		var times []int64
		for range must(strconv.Atoi(words[3])) {
			module, took := load()
			module.Close(ctx)
			times = append(times, took.Nanoseconds())
		}
		result["hit"] = times
	case "hold":
		module, _ := load()
		wasm = nil
		debug.FreeOSMemory()
		fmt.Println("ready")
		io.Copy(io.Discard, os.Stdin)
		module.Close(ctx)
		return
	}
	must(0, json.NewEncoder(os.Stdout).Encode(result))
}
