#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a hit costs where neither the wasm nor the artifact is read (both are known), as instructions that callgrind counts:
# a number that no load of the machine changes. The engine of host_hits does nothing.
# no-asan no-tsan: valgrind does not go with them. no-coverage: to count is instructions too
. "$(dirname "$0")/lib_hosts.sh"
command -v valgrind >/dev/null || skip "no valgrind"

# The limits, in instructions a hit. "ours" is libwasmcache.so alone; "all" has besides what it calls in libc, libcrypto (the
# SHA-256 of two identities, without the processor's own instructions for it, which valgrind does not have) and libxxhash.
# Raise one only with the reason in the commit: 1,000 instructions are some 0.3 microseconds.
OURS_PATH=4700 ALL_PATH=17500
OURS_DIGEST=4500 ALL_DIGEST=12500

hits=200
compile host "" cc -std=c11 -D_POSIX_C_SOURCE=200809L -- "$WASMCACHE_SOURCE_DIR/tests/system/host_hits.c" || bad "the host does not compile"

# count WHAT: sets $ours and $all
count() {
	rm -rf cache
	head -c 100000 "$library" >source.wasm
	if ! valgrind --tool=callgrind --toggle-collect=hits --callgrind-out-file=out --error-exitcode=9 \
		./host "$1" cache source.wasm $hits >log 2>&1; then
		bad "by $1: $(tail -n 3 log)"
		return 1
	fi
	# Own costs by object: a line after "calls=" is what was called, and counted there.
	read -r ours all < <(awk -v hits=$hits '
		/^ob=/ { split($0, part, /[()]/); object = part[2]; if (/\) /) name[object] = $2; next }
		/^cob=/ { split($0, part, /[()]/); if (/\) /) name[part[2]] = $2; next }
		/^calls=/ { called = 1; next }
		/^[0-9+*-]/ { if (!called) { cost[object] += $2; all += $2 } called = 0 }
		END {
			for (o in cost) if (name[o] ~ /libwasmcache/) ours += cost[o]
			printf "%d %d\n", ours / hits, all / hits
		}' out)
	[ "$ours" -gt 500 ] || bad "by $1: $ours instructions of ours are too few to be true"
}

# hold WHAT: LIMIT LIMIT
hold() {
	count "$1" || return
	echo "$name: by $1: $ours instructions of ours (limit $2), $all with the libraries' (limit $3)"
	[ "$ours" -le "$2" ] || bad "by $1: $ours instructions of ours, over $2"
	[ "$all" -le "$3" ] || bad "by $1: $all instructions, over $3"
}
hold path $OURS_PATH $ALL_PATH
hold digest $OURS_DIGEST $ALL_DIGEST
finish "counted in $hits hits each"
