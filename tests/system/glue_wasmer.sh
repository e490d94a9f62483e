#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The glue header for Wasmer is compiled in hosts, with their compiler and in all ways in which they have the engine: C11 and
# C++17, gcc and clang, position independent and not; linked with the library that has wasmer-plus, with the one that has
# not, with the archive, or loaded with dlopen. Each runs in two processes, a compile and then a hit.
# no-asan no-tsan: the hosts here are compiled without
. "$(dirname "$0")/lib_hosts.sh"

[ -n "${WASMER_ROOT:-}" ] || skip "there is no Wasmer (tools/engine-wasmer)"
host=$WASMCACHE_SOURCE_DIR/tests/system/host_glue_wasmer.c
cp "$host" host_glue_wasmer.cc
plus=$WASMER_ROOT stock=$WASMER_ROOT/stock
built=0
: >fingerprints

# ran WHAT WAY INTO COMPILER COMMAND...: the command compiles and then hits.
# WAY and INTO are what it says of the engine, COMPILER what its id has.
ran() {
	local what=$1 way=$2 into=$3 compiler=$4 line again
	shift 4
	rm -rf cache
	line=$("$@" 2>err) || bad "$what: the first run fails: $(head -n 3 err)"
	case $line in
	[0-9]*" saved $way $into wasmer-$compiler-"*) ;;
	*) bad "$what: the first run says: $line" ;;
	esac
	again=$("$@" 2>err) || bad "$what: the second run fails: $(head -n 3 err)"
	[ "$again" = "${line/ saved / hit }" ] || bad "$what: the second run says: $again"
	[ "$(find cache -name '*.bin' | wc -l)" = 1 ] || bad "$what: not one entry"
	echo "$way $compiler ${line##* }" >>fingerprints
	built=$((built + 1))
}

# try COMPILER... FILE
try() {
	local compiler=("${@:1:$#-1}") file=${*: -1} what="${*:1:$#-1}"
	link=wasmer
	if compile with "$plus" "${compiler[@]}" -- "$file"; then
		ran "$what, wasmer-plus" file clone cranelift ./with cache
		if [ -d "$stock" ]; then
			ran "$what, linked with wasmer-plus, run without" bytes shared default env "LD_LIBRARY_PATH=$stock/lib" ./with cache
		fi
	else
		bad "$what, wasmer-plus: does not compile"
	fi
	if [ -d "$stock" ]; then
		if compile without "$stock" "${compiler[@]}" -- "$file"; then
			ran "$what, stock" bytes shared default ./without cache
		else
			bad "$what, stock: does not compile"
		fi
	fi
	# None is linked: what is loaded decides. The headers are the engine's.
	if compile loads "" "${compiler[@]}" -isystem "$plus/include" -DLOADED -- "$file"; then
		ran "$what, wasmer-plus loaded" file clone cranelift ./loads cache "$plus/lib/libwasmer.so"
		[ ! -d "$stock" ] || ran "$what, stock loaded" bytes shared default ./loads cache "$stock/lib/libwasmer.so"
	else
		bad "$what, loaded: does not compile"
	fi
}

# An archive: a weak reference takes nothing out of it, so the host says that it is there.
try_static() {
	local compiler=("${@:1:$#-1}") file=${*: -1} what="${*:1:$#-1}"
	[ -e "$plus/lib/libwasmer.a" ] || return
	link=wasmer.a
	if compile static "$plus" "${compiler[@]}" -DWASMCACHE_WASMER_PLUS -- "$file"; then
		ran "$what, static" file clone cranelift ./static cache
	else
		bad "$what, static: does not compile"
	fi
	if compile static "$plus" "${compiler[@]}" -- "$file"; then
		ran "$what, static without saying so" bytes shared default ./static cache
	else
		bad "$what, static without saying so: does not compile"
	fi
}

try cc -std=c11 "$host"
try cc -std=c11 -no-pie -fno-pie "$host"
try c++ -std=c++17 host_glue_wasmer.cc
try_static cc -std=c11 "$host"
try_static c++ -std=c++17 -no-pie -fno-pie host_glue_wasmer.cc
if command -v clang >/dev/null && command -v clang++ >/dev/null; then
	try clang -std=c11 "$host"
	try clang++ -std=c++17 -no-pie -fno-pie host_glue_wasmer.cc
	try_static clang -std=c11 "$host"
fi
# Whatever compiled the host: the same engine, the same fingerprint. Two libraries, and the archive in two ways.
distinct=$(sort -u fingerprints | wc -l)
wanted=1
[ ! -d "$stock" ] || wanted=2
[ ! -e "$plus/lib/libwasmer.a" ] || wanted=$((wanted + 2))
[ "$distinct" = $wanted ] || bad "$wanted fingerprints wanted, there are $distinct: $(sort -u fingerprints)"
finish "$built hosts compiled and ran"
