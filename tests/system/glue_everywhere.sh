#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The glue header is compiled in hosts, with their compiler and their engine: C11 and C++17, gcc and clang, against each
# version of Wasmtime; and run, in two processes, a compile and then a hit.
# no-asan no-tsan: the hosts here are compiled without
. "$(dirname "$0")/lib_hosts.sh"

host=$WASMCACHE_SOURCE_DIR/tests/system/host_glue.c
missing=
built=0
namespaces=
cp "$host" host_glue.cc

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
	"$version module saved component saved wasmtime-cranelift-"*"-v${version%%.*}") ;;
	*) bad "$what: the first run says: $line" ;;
	esac
	again=$(./host cache) || bad "$what: the second run fails"
	[ "$again" = "${line//saved/hit}" ] || bad "$what: the second run says: $again"
	[ "$(find cache -name '*.bin' | wc -l)" = 2 ] || bad "$what: not two entries"
	# C or C++, whichever compiler: the same engine, the same entries.
	namespaces="$namespaces$version ${line##* }
"
	built=$((built + 1))
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
done
[ -z "$missing" ] || [ $failures -gt 0 ] || skip "these engines were not fetched (tools/engine-wasmtime VERSION):$missing"
distinct=$(printf '%s' "$namespaces" | sort -u | wc -l)
[ "$distinct" = "$(engine_versions | wc -l)" ] || bad "a namespace for each version wanted, there are $distinct"
finish "$built hosts compiled, then hit"
