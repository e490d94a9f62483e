#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The examples with an event loop: ten modules, cold and then from the cache, while a timer ticks. Facts, no timing.
. "$(dirname "$0")/lib_hosts.sh"
examples=$WASMCACHE_BINARY_DIR/examples
ran=
printf '\0asm\1\0\0\0' >small.wasm
printf '\0asm\1\0\0\0garbage' >bad.wasm

# run EXAMPLE STATUS ARGUMENT...: into out and err
run() {
	local example=$1 status=$2 got
	shift 2
	timeout 120 "$examples/$example" "$@" >out 2>err
	got=$?
	[ $got -eq "$status" ] || bad "$example $*: status $got instead of $status: $(cat out err)"
}

# want EXAMPLE LINES PATTERN: so many lines match
want() {
	[ "$(grep -cE -- "$3" out)" -eq "$2" ] || bad "$1: not $2 lines of '$3': $(cat out)"
}

for example in async_epoll async_uv; do
	if ! [ -x "$examples/$example" ]; then
		echo "$name: skipped: $example was not built"
		continue
	fi
	ran="$ran $example"
	run $example 0 "$tmp/cache-$example" small.wasm
	want $example 10 '^compiled +[0-9.]+ ms  small\.wasm$'
	want $example 1 '^10 modules: 0 hit, 0 failed; [1-9][0-9]* ticks of 1 ms, longest pause [0-9.]+ ms$'
	[ "$(find "$tmp/cache-$example" -name '*.bin' | wc -l)" -eq 10 ] || bad "$example left another number of entries than 10"
	run $example 0 "$tmp/cache-$example" small.wasm
	want $example 10 '^hit +[0-9.]+ ms  small\.wasm$'
	want $example 1 '^10 modules: 10 hit, 0 failed; [1-9][0-9]* ticks of 1 ms, longest pause [0-9.]+ ms$'
	[ -s err ] && bad "$example says: $(cat err)"
	# Half of them do not compile.
	run $example 1 "$tmp/cache-$example" small.wasm bad.wasm
	want $example 1 '^10 modules: 5 hit, 5 failed; [1-9]'
	run $example 1 "$tmp/cache-$example" missing.wasm
	run $example 2
done
[ -n "$ran" ] || skip "none of the examples was built"
finish "ten modules compiled, then hit, while a timer ticked:$ran"
