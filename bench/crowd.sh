#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# crowd.sh BUILD [ROUNDS]: many that want the same module at the same time, with each engine that BUILD/bench has a host
# for. Prints a line of JSON for each measurement; bench/crowd.c says what they are.
set -eu
build=$1 rounds=${2:-1000}
few=$((rounds < 100 ? rounds : 100)) # of those that take as long as the others wait
wasm=$("$(dirname "$0")/../tools/modules" --have sqlite)
work=$(mktemp -d "${TMPDIR:-/var/tmp}/wasmcache-crowd.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM
status=0
for engine in wasmtime wasmer; do
	host=$build/bench/bench-crowd-$engine
	[ -x "$host" ] || { echo "no $engine: $host is not there" >&2; continue; }
	"$host" once "$work/once-$engine" 64 8 "$rounds" || status=1
	"$host" kill "$work/kill-$engine" "$rounds" || status=1
	"$host" stopped "$work/stopped-$engine" "$few" || status=1
	"$host" orphan "$work/orphan-$engine" "$few" || status=1
	[ -z "$wasm" ] || "$host" wall "$work/wall-$engine" "$wasm" 8 9 || status=1
done
exit $status
