# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# For scripts that compile hosts themselves. Everything is in $tmp, which is removed.
#   WASMCACHE_SOURCE_DIR  WASMCACHE_BINARY_DIR  WASMTIME_ROOT WASMER_ROOT (the engines of this build)
set -u
name=${0##*/}
unset WASMCACHE_DIR WASMCACHE_ENGINE WASMCACHE_DISABLE WASMCACHE_RECACHE
export RUST_BACKTRACE=0

skip() {
	echo "$name: skipped: $1"
	exit 77
}

: "${WASMCACHE_SOURCE_DIR:?}" "${WASMCACHE_BINARY_DIR:?}"
library=$WASMCACHE_BINARY_DIR/src/libwasmcache.so
[ -e "$library" ] || skip "there is no $library"

tmp=$(mktemp -d "${TMPDIR:-/tmp}/wasmcache-$name.XXXXXX") || exit 1
tmp=$(cd "$tmp" && pwd -P)
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
cd "$tmp" || exit 1

failures=0
link=wasmtime
bad() {
	failures=$((failures + 1))
	echo "$name: FAILED: $*"
}

finish() {
	[ $failures -eq 0 ] || exit 1
	echo "$name: $*"
	exit 0
}

# engine_root VERSION: the root of an engine that was fetched, "" if it was not.
engine_root() {
	(unset WASMTIME_ROOT && "$WASMCACHE_SOURCE_DIR/tools/engine-wasmtime" --have "$1")
}

# The versions that the glue is for, the newest last.
engine_versions() {
	# shellcheck source=/dev/null
	(. "$WASMCACHE_SOURCE_DIR/tools/versions" && printf '%s\n' $WASMTIME_OLDER $WASMTIME) | sort -V
}

# compile OUT ROOT COMPILER... -- FILES: a host against the engine in ROOT ("": none is linked) and the shared library.
# $link says what of the engine is linked: wasmtime, wasmer, or with .a behind it the archive.
compile() {
	local out=$1 root=$2 log=compile.log
	shift 2
	local command=() engine=()
	while [ "$1" != -- ]; do
		command+=("$1")
		shift
	done
	shift
	if [ -n "$root" ] && [ "$link" != "${link%.a}" ]; then
		engine=("$root/lib/lib$link" -lgcc_s -lm)
	elif [ -n "$root" ]; then
		engine=(-L "$root/lib" "-l$link" "-Wl,-rpath,$root/lib")
	fi
	if ! "${command[@]}" -O1 -g -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror \
		-I "$WASMCACHE_SOURCE_DIR/include" ${root:+-isystem "$root/include"} -o "$out" "$@" \
		"$library" -Wl,-rpath,"$WASMCACHE_BINARY_DIR/src" "${engine[@]}" -ldl -lpthread >$log 2>&1; then
		sed 's/^/  /' $log | head -n 30
		return 1
	fi
}
