#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# memory.sh BUILD [ROUNDS [MS]]: hits in memory, with each engine that BUILD/bench has a host for. Prints a line of JSON for
# each; bench/memory.c says what is in it.
set -eu
build=$1 rounds=${2:-100} ms=${3:-20}
wasm=$("$(dirname "$0")/../tools/modules" --have sqlite)
[ -n "$wasm" ] || { echo "no sqlite.wasm: tools/modules sqlite" >&2; exit 1; }
work=$(mktemp -d "${TMPDIR:-/var/tmp}/wasmcache-memory.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
status=0
for engine in wasmtime wasmer; do
	host=$build/bench/bench-memory-$engine
	[ -x "$host" ] || { echo "no $engine: $host is not there" >&2; continue; }
	"$host" "$work/$engine" "$wasm" "$rounds" "$ms" || status=1
done
exit $status
