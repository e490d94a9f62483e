# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# For scripts that make a host which links one engine and loads another: host_with_other_engine.c says what it does.
# An engine is a word NAME:HOW:ROOT, NAME wasmtime or wasmer, HOW "shared" or "static".
. "$(dirname "$0")/lib_hosts.sh"

host=$WASMCACHE_SOURCE_DIR/tests/system/host_with_other_engine.c
pairs=0

engine_name() { echo "${1%%:*}"; }
engine_dir() { echo "${1#*:*:}"; }
engine_upper() { engine_name "$1" | tr '[:lower:]' '[:upper:]'; }
engine_is_static() { case $1 in *:static:*) return 0 ;; *) return 1 ;; esac; }
engine_file() { echo "$(engine_dir "$1")/lib/lib$(engine_name "$1").so"; }

# What its host prints first: "wasmtime 50.0.1"
engine_says() {
	local root file
	root=$(engine_dir "$1")
	file=$root/include/wasmtime.h
	[ "$(engine_name "$1")" = wasmtime ] || file=$root/include/wasmer.h
	sed -n "s/^#define $(engine_upper "$1")_VERSION \"\(.*\)\"/$(engine_name "$1") \1/p" "$file"
}

# Its namespace, with the fingerprint as ID and, for Wasmer, whose headers do not tell the version of its artifacts, V.
engine_namespace() {
	local version
	version=$(engine_says "$1")
	version=${version#* }
	case $1 in
	wasmtime:*) echo "wasmtime-cranelift-ID-v${version%%.*}" ;;
	wasmer:static:*) echo "wasmer-cranelift-ID-vV" ;;
	*) if nm -D "$(engine_file "$1")" | grep -q wasmer_plus_engine_id; then
		echo "wasmer-cranelift-ID-vV"
	else
		echo "wasmer-default-ID-vV"
	fi ;;
	esac
}

# try_pair LINKED LOADED
try_pair() {
	local linked=$1 loaded=$2 what place flags=() link first one two
	what="$(engine_says "$1") ($1) linked, $(engine_says "$2") ($2) loaded"
	link=$(engine_name "$linked")
	place=$(engine_file "$linked")
	if engine_is_static "$linked"; then
		link=$link.a place=$tmp/host
		flags=(-DWASMCACHE_WASMER_PLUS)
	fi
	if ! cc -std=c11 -g -Wall -Wextra -Wpedantic -Werror -DLOADED_ENGINE "-DENGINE_$(engine_upper "$loaded")" \
		-I "$WASMCACHE_SOURCE_DIR/include" -isystem "$(engine_dir "$loaded")/include" -c -o loaded.o "$host" ||
		! compile host "$(engine_dir "$linked")" cc -std=c11 "-DENGINE_$(engine_upper "$linked")" "${flags[@]}" -- \
			"$host" loaded.o; then
		bad "$what: does not compile"
		return
	fi
	if engine_is_static "$linked"; then
		! readelf -d host | grep -q 'NEEDED.*libwasm\(time\|er\)\.so' || bad "$what: the host is not linked statically"
	else
		readelf -d host | grep -q "NEEDED.*\[lib$link.so\]" || bad "$what: the host does not link the engine"
	fi
	one="$(engine_says "$linked") FIRST hit $(engine_namespace "$linked")"
	two="$(engine_says "$loaded") FIRST hit $(engine_namespace "$loaded")"
	rm -rf cache
	for first in saved hit; do
		./host cache "$place" "$(engine_file "$loaded")" >out 2>err || bad "$what: status $?: $(head -n 3 err)"
		sed 's/[0-9A-F]\{16\}/ID/; s/\( wasmer-.*-v\)[0-9]*$/\1V/' out >got
		{
			echo "linked $one" "loaded $two" | sed "s/ loaded /\nloaded /; s/FIRST/$first/; s/\n\(.*\)FIRST/\n\1$first/"
			echo "linked $one" "loaded $two" | sed "s/ loaded /\nloaded /; s/FIRST/hit/g"
		} >wanted
		cmp -s got wanted || bad "$what: $(diff wanted got)"
		[ ! -s err ] || bad "$what: says $(head -n 3 err)"
	done
	[ "$(find cache -name '*.bin' | wc -l)" = 2 ] || bad "$what: not one entry each"
	pairs=$((pairs + 1))
}
