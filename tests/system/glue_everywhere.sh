#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The glue header is compiled in hosts, with their compiler and their engine: C11 and C++17, gcc and clang, against each
# version of Wasmtime; and run, in two processes, a compile and then a hit. Also against headers of an engine that was
# built without components, or without a compiler; and with another build of the same version.
# no-asan no-tsan: the hosts here are compiled without
. "$(dirname "$0")/lib_hosts.sh"

host=$WASMCACHE_SOURCE_DIR/tests/system/host_glue.c
missing=
built=0
fingerprints=
no_compiler=$WASMCACHE_SOURCE_DIR/tests/system/host_no_compiler.c
cp "$host" host_glue.cc
cp "$no_compiler" host_no_compiler.cc

# try VERSION ROOT COMPILER... FILE
try() {
	local version=$1 root=$2
	shift 2
	local what="$version with ${*:1:$#-1}" file=${*: -1} line again
	rm -rf cache
	if ! compile host "$root" "${@:1:$#-1}" -- "$file"; then
		bad "$what does not compile"
		return
	fi
	line=$(./host cache) || bad "$what: the first run fails"
	case $line in
	"$version module saved component saved wasmtime-cranelift-"*"-v${version%%.*} "*) ;;
	*) bad "$what: the first run says: $line" ;;
	esac
	again=$(./host cache) || bad "$what: the second run fails"
	[ "$again" = "${line//saved/hit}" ] || bad "$what: the second run says: $again"
	[ "$(find cache -name '*.bin' | wc -l)" = 2 ] || bad "$what: not two entries"
	# C or C++, whichever compiler: the same engine, the same fingerprint.
	fingerprints="$fingerprints$version ${line##* }
"
	built=$((built + 1))
}

# without FEATURE... : a root like $root, in $tmp/less, whose headers lack these features; they have the first one
without() {
	local feature
	rm -rf less
	mkdir less
	cp -R "$root/include" less/include
	ln -s "$root/lib" less/lib
	grep -q "^#define WASMTIME_FEATURE_$1\\b" less/include/wasmtime/conf.h || bad "$version: no $1 in conf.h"
	for feature; do
		sed -i "/^#define WASMTIME_FEATURE_$feature\\b/d" less/include/wasmtime/conf.h
	done
}

# The entries that host_glue saved are what these have to load.
try_less() {
	local version=$1 root=$2 print fingerprint line language
	rm -rf cache
	compile host "$root" cc -std=c11 -- "$host" && print=$(./host cache) || {
		bad "$version: host_glue fails"
		return
	}
	fingerprint=${print##* }
	without COMPONENT_MODEL COMPONENT_MODEL_ASYNC
	for language in "cc -std=c11 $host" "c++ -std=c++17 host_glue.cc"; do
		# shellcheck disable=SC2086
		compile host less ${language% *} -- "${language##* }" || bad "$version, no components: does not compile"
		line=$(./host cache) || bad "$version, no components: fails"
		[ "$line" = "$(echo "$print" | sed 's/saved/hit/; s/ component saved//')" ] || bad "$version, no components: $line"
	done
	without CRANELIFT WINCH
	for language in "cc -std=c11 $no_compiler" "c++ -std=c++17 host_no_compiler.cc"; do
		# shellcheck disable=SC2086
		compile host less ${language% *} -- "${language##* }" || bad "$version, no compiler: does not compile"
		line=$(./host cache "$fingerprint") || bad "$version, no compiler: fails"
		[ "$line" = "hit 42 miss misuse" ] || bad "$version, no compiler: $line"
	done
	built=$((built + 4))
}

# A library that was replaced under the host by another build of the same version makes other code, perhaps: its entries
# are its own. The host need not be compiled again, so that headers cannot tell.
try_other_build() {
	local version=$1 root=$2 first other
	rm -rf cache other
	mkdir other
	compile host "$root" cc -std=c11 -no-pie -- "$host" || bad "$version, not position independent: does not compile"
	first=$(./host cache) || bad "$version, not position independent: fails"
	printf '%s\n' "$fingerprints" | grep -q "^$version ${first##* }$" || bad "$version: position dependence changes the fingerprint"
	cp "$root/lib/libwasmtime.so" other/
	python3 - other/libwasmtime.so <<-'PYTHON' || { bad "$version: no build id"; return; }
		import sys
		data = bytearray(open(sys.argv[1], "rb").read())
		at = data.find(b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0")
		if at < 0:
		    sys.exit(1)
		data[at + 16] ^= 1
		open(sys.argv[1], "wb").write(data)
	PYTHON
	compile host "$root" cc -std=c11 -Wl,-rpath,"$tmp/other" -- "$host" || bad "$version: does not compile"
	other=$(LD_LIBRARY_PATH=$tmp/other ./host cache) || bad "$version, another build: fails"
	case $other in
	"$version module saved component saved "*) ;;
	*) bad "$version, another build: $other" ;;
	esac
	[ "${other##* }" != "${first##* }" ] || bad "$version: another build has the same fingerprint"
	built=$((built + 2))
}

for version in $(engine_versions); do
	root=$(engine_root "$version")
	if [ -z "$root" ]; then
		missing="$missing $version"
		continue
	fi
	try "$version" "$root" cc -std=c11 "$host"
	try "$version" "$root" c++ -std=c++17 host_glue.cc
	if command -v clang >/dev/null && command -v clang++ >/dev/null; then
		try "$version" "$root" clang -std=c11 "$host"
		try "$version" "$root" clang++ -std=c++17 host_glue.cc
	fi
	try_less "$version" "$root"
	if command -v python3 >/dev/null; then
		try_other_build "$version" "$root"
	fi
done
[ -z "$missing" ] || [ $failures -gt 0 ] || skip "these engines were not fetched (tools/engine-wasmtime VERSION):$missing"
distinct=$(printf '%s' "$fingerprints" | sort -u | wc -l)
[ "$distinct" = "$(engine_versions | wc -l)" ] || bad "a fingerprint for each version wanted, there are $distinct"
finish "$built hosts compiled and ran"
