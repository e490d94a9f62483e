#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A host that links Wasmtime statically and loads Wasmer, as host_other_engine.sh has it the other way round. The registries
# that tools/engine-wasmtime asks have no archive, only the shared library; a WASMTIME_ROOT of one's own may have it.
# no-asan no-tsan: the hosts here are compiled without
. "$(dirname "$0")/lib_other_engine.sh"
[ -n "${WASMTIME_ROOT:-}" ] && [ -e "$WASMTIME_ROOT/lib/libwasmtime.a" ] ||
	skip "there is no libwasmtime.a: what tools/engine-wasmtime fetches is the shared library"
[ -n "${WASMER_ROOT:-}" ] || skip "there is no Wasmer"
try_pair "wasmtime:static:$WASMTIME_ROOT" "wasmer:shared:$WASMER_ROOT"
finish "$pairs pair, compiled and hit"
