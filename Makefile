# SPDX-License-Identifier: Apache-2.0
# A thin front for CMake: every target is a line or two that can be typed by hand.
#
#   make            build build/release: the library, and the tool if an engine is there already
#   make run        from nothing: packages, engine, modules, build; then compile, hit, and a solver run from the cache
#   make wasmer     builds Wasmer from source, once: some seven to twelve minutes; what is built after that has it too
#   make check      every test                    make check-large    what takes php, esbuild and yosys: minutes
#   make check-asan, check-tsan                   the tests under sanitizers
#   make torture [TIER=quick|full|soak] [ROWS=1,10] [SEED=N]    what must be survived, row by row, as a table: a minute; half an hour; hours
#   make torture-others [ROWS=22] [SEED=N]        the same harm to Wasmtime's own cache and to two versions of Wasmer's, beside ours: five minutes,
#                   and twenty more the first time (builds them)
#   make mutants                                  plants bugs one by one: which test catches each; ten minutes
#   make controls                                 each row of the table on a build with a bug that it must find: ten minutes
#   make check-workload [SECONDS=600] [SEED=N]     random work on one directory, so long for each of its three tests
#   make interop    one directory for Wasmer's own Rust cache and ours; what it needs is built once: some twenty minutes
#   make check-headers, check-includes, check-symbols, check-style, check-install
#   make coverage   which lines and branches of src/ the unit tests reach, against docs/coverage.md: two minutes
#   make check-fuzz                               each fuzz target for some seconds
#   make fuzz [FUZZ_SECONDS=3600] [FUZZER=libfuzzer|afl] [TARGETS="hint config"]     the same for long, with coverage: docs/fuzzing.md
#   make bench-quick                              ours and the bare engine on small modules: two minutes
#   make bench      side by side with other caches, on modules up to 69 MB: 90 minutes, and more the first time (builds them);
#                   writes the tables of docs/performance.md, and docs/bench-*.svg
#   make bench-crowd [ROUNDS=1000]                many that want the same module at once; dead leaders; cold starts
#   make bench-memory [ROUNDS=100]                hits in memory, on 1 to 8 threads: half a minute an engine
#   make bench-evict                              what the order of eviction saves, against others: a minute
#   make bench-writers [SECONDS=600]              16 processes that save into a full cache: is it ever over, does a hit fail
#   make bench-cleanup [ENTRIES=1000000]          memory of a clean-up of many entries, and what hits feel of it; some GB of disk
#   make install [PREFIX=/usr/local] [DESTDIR=]   make format    make clean
#
# WASMTIME_ROOT=DIR, WASMER_ROOT=DIR  engines of your own      WERROR=ON  warnings are errors      JOBS=N

.DEFAULT_GOAL := build
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
PREFIX ?= /usr/local
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
WERROR ?= $(if $(CI),ON,OFF)

# build,PRESET: configures and builds with the engines that are there, if any.
build = wasmtime=$$(tools/engine-wasmtime --have) && wasmer=$$(tools/engine-wasmer --have) && \
	cmake --preset $(1) -DWASMTIME_ROOT="$$wasmtime" -DWASMER_ROOT="$$wasmer" -DWASMCACHE_WERROR=$(WERROR) >build/$(1).log || { cat build/$(1).log; exit 1; }; \
	cmake --build build/$(1) -j $(JOBS) $(if $(V),-v)
# test,PRESET
test = ctest --preset $(1) -j $(JOBS)

.PHONY: coverage torture torture-others mutants controls build run wasmer check-workload bench-crowd bench-memory bench-evict bench-writers bench-cleanup check check-large check-asan check-tsan interop \
	check-headers check-includes check-symbols check-style \
	check-install check-fuzz fuzz bench bench-quick install format clean set-up-check set-up-run set-up-bench

build:
	@mkdir -p build
	@$(call build,release)

set-up-run:
	@tools/deps build
	@tools/engine-wasmtime >/dev/null || [ -n "$$(tools/engine-wasmer --have)" ] # one engine is enough
	@tools/modules boolector >/dev/null
	@tools/modules sqlite >/dev/null || true # one more to see; the demo does without

run: set-up-run
	@$(MAKE) build
	@tools/demo build/release/cli/wasmcache

wasmer:
	@tools/engine-wasmer

set-up-check:
	@tools/deps check
	@tools/engine-wasmtime >/dev/null
	@. tools/versions; for v in $$WASMTIME_OLDER; do tools/engine-wasmtime $$v >/dev/null || exit 1; done
	@tools/engine-wasmer >/dev/null || [ $$? -eq 3 ]
	@tools/modules boolector sqlite >/dev/null || [ $$? -eq 3 ]
	@tools/rust-program weezl >/dev/null || [ $$? -eq 3 ]

check: set-up-check
	@$(MAKE) build
	@$(call test,release)

check-large: set-up-check
	@tools/modules all >/dev/null || [ $$? -eq 3 ]
	@$(MAKE) build
	@WASMCACHE_TEST_LARGE=1 $(call test,release) -R 'large_modules|memory'

SECONDS ?= 600
check-workload: set-up-check
	@$(MAKE) build
	@WASMCACHE_WORKLOAD_SECONDS=$(SECONDS) WASMCACHE_WORKLOAD_SEED=$(SEED) build/release/tests/unit_test_workload

TIER ?= quick
torture: set-up-check
	@$(MAKE) build
	@python3 tests/torture/torture.py --tier $(TIER) --rows "$(ROWS)" --seed "$(if $(SEED),$(SEED),1)" \
		$(if $(filter full,$(TIER)),$(if $(ROWS),,--docs)) build/release

# Exit status 3: there is no cargo, or one that is too old. That column is left out.
torture-others:
	@tools/deps check
	@tools/engine-wasmtime >/dev/null
	@tools/engine-wasmer >/dev/null || [ $$? -eq 3 ]
	@for p in wasix-0.31 wasix-0.704; do tools/rust-program $$p >/dev/null || [ $$? -eq 3 ] || exit 1; done
	@$(MAKE) build
	@python3 tests/torture/others/others.py --rows "$(ROWS)" --seed "$(if $(SEED),$(SEED),1)" $(if $(ROWS),,--docs) build/release

mutants controls: set-up-check
	@$(MAKE) build
	@python3 tests/mutants/mutants.py $(if $(filter controls,$@),--controls) build/release

# Only what it runs is built, and without an engine: src/ knows none.
coverage:
	@tools/deps coverage
	@mkdir -p build
	@cmake --preset coverage -DWASMTIME_ROOT= -DWASMER_ROOT= -DWASMCACHE_WERROR=$(WERROR) >build/coverage.log || \
		{ cat build/coverage.log; exit 1; }
	@cmake --build build/coverage -j $(JOBS) --target unit_programs $(if $(V),-v)
	@JOBS=$(JOBS) tools/coverage build/coverage

check-asan check-tsan: check-%: set-up-check
	@mkdir -p build
	@$(call build,$*)
	@$(call test,$*)

# Exit status 3 of the tools and 77 of the script: there is no cargo. That is said, and no failure.
interop:
	@tools/deps check
	@tools/modules sqlite >/dev/null || [ $$? -eq 3 ]
	@tools/engine-wasmer >/dev/null || [ $$? -eq 3 ]
	@tools/rust-program interop >/dev/null || [ $$? -eq 3 ]
	@$(MAKE) build
	@WASMCACHE_SOURCE_DIR="$(CURDIR)" WASMCACHE_BINARY_DIR="$(CURDIR)/build/release" tests/interop/run.sh || [ $$? -eq 77 ]

# The fuzz targets, each for FUZZ_SECONDS: what clang says of the sources, and a look beyond the corpus.
check-fuzz:
	@JOBS=$(JOBS) WERROR=$(WERROR) tools/fuzz --quick --seconds $(or $(FUZZ_SECONDS),6) $(TARGETS)

fuzz:
	@tools/deps fuzz
	@JOBS=$(JOBS) WERROR=$(WERROR) tools/fuzz --fuzzer $(or $(FUZZER),libfuzzer) --seconds $(or $(FUZZ_SECONDS),3600) $(TARGETS)

check-headers:
	@tools/check-headers

check-includes:
	@tools/check-includes

check-symbols: build
	@tools/check-symbols build/release/src/libwasmcache.so build/release/src/libwasmcache.a

check-install: build
	@tools/check-install build/release

check-style: build
	@tools/check-style build/release

format:
	@tools/check-style --fix

set-up-bench:
	@tools/deps build
	@tools/engine-wasmtime >/dev/null
	@tools/engine-wasmer >/dev/null || [ $$? -eq 3 ]

# Not for CI: what is measured is a time, and the machine has to be quiet.
bench: set-up-bench
	@tools/modules all >/dev/null || [ $$? -eq 3 ]
	@$(MAKE) build
	@cmake --build build/release -j $(JOBS) --target bench_hosts $(if $(V),-v)
	@bench/bench.py --docs build/release

bench-quick: set-up-bench
	@tools/modules boolector sqlite >/dev/null || [ $$? -eq 3 ]
	@$(MAKE) build
	@cmake --build build/release -j $(JOBS) --target bench_hosts $(if $(V),-v)
	@bench/bench.py --quick build/release

# One compile of a module by many, and what an order of eviction saves.
bench-crowd: set-up-bench
	@tools/modules sqlite >/dev/null || [ $$? -eq 3 ]
	@$(MAKE) build
	@cmake --build build/release -j $(JOBS) --target bench_hosts $(if $(V),-v)
	@bench/crowd.sh build/release $(ROUNDS)

bench-memory: set-up-bench
	@tools/modules sqlite >/dev/null || [ $$? -eq 3 ]
	@$(MAKE) build
	@cmake --build build/release -j $(JOBS) --target bench_hosts $(if $(V),-v)
	@bench/memory.sh build/release $(ROUNDS)

bench-evict:
	@$(MAKE) build
	@cmake --build build/release -j $(JOBS) --target bench_evict $(if $(V),-v)
	@build/release/bench/bench-evict

# in_scratch,COMMAND,ARGUMENTS: a program of bench/ on a new directory, which is removed.
in_scratch = dir=$$(mktemp -d "$${TMPDIR:-/var/tmp}/wasmcache-bench.XXXXXX") && trap 'rm -rf "$$dir"' EXIT INT TERM && build/release/bench/$(1) "$$dir" $(2)

SECONDS ?= 600
bench-writers:
	@$(MAKE) build
	@cmake --build build/release -j $(JOBS) --target bench_writers $(if $(V),-v)
	@$(call in_scratch,bench-writers,$(SECONDS))

ENTRIES ?= 1000000
bench-cleanup:
	@$(MAKE) build
	@cmake --build build/release -j $(JOBS) --target bench_cleanup $(if $(V),-v)
	@$(call in_scratch,bench-cleanup,$(ENTRIES))

install: build
	@cmake --install build/release --prefix "$(PREFIX)"

clean:
	@rm -rf build
