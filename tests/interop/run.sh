#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh: one directory for Wasmer's own cache (its Rust FileSystemCache, tests/interop/src) and ours: what it saved we load and
# run, what we saved it loads and runs, compressed entries too; each leaves the other's alone. `make interop` runs it.
# Each for two modules, and for two builds of Wasmer's C API: with what wasmer-plus adds, and without.
#   WASMCACHE_SOURCE_DIR  WASMCACHE_BINARY_DIR (the library and the tool)
. "$(dirname "$0")/../system/lib_hosts.sh"
source=$WASMCACHE_SOURCE_DIR
tool=$WASMCACHE_BINARY_DIR/cli/wasmcache
id=cranelift-opts-rkyv
umask 022

theirs=$("$source/tools/rust-program" --have interop)
[ -n "$theirs" ] || skip "Wasmer's own cache was not built (tools/rust-program interop): is there a cargo?"
plus=$("$source/tools/engine-wasmer" --have)
[ -n "$plus" ] || skip "Wasmer's C API was not built (tools/engine-wasmer): is there a cargo?"

modules=(add.wasm)
printf '\0asm\1\0\0\0\1\7\1\140\2\177\177\1\177\3\2\1\0\7\7\1\3add\0\0\12\11\1\7\0\40\0\40\1\152\13' >add.wasm
sqlite=$("$source/tools/modules" --have sqlite)
if [ -n "$sqlite" ]; then
	cp "$sqlite" sqlite.wasm
	modules+=(sqlite.wasm)
fi
# What is called in each, and what comes of it; of sqlite's it is the address where the stack begins.
call_add.wasm() { "$@" add 19 23; }
call_sqlite.wasm() { "$@" Pa; }
gives() { if [ "$1" = add.wasm ]; then echo 42; else echo 5323072; fi; }

checks=0
# want WHAT WANTED COMMAND...: its standard output is that, its status is 0
want() {
	local what=$1 wanted=$2 got status
	shift 2
	checks=$((checks + 1))
	got=$("$@" 2>err)
	status=$?
	[ $status -eq 0 ] && [ "$got" = "$wanted" ] ||
		bad "$what: status $status, $(printf '%s' "$got" | tr '\n' '/') and not $(printf '%s' "$wanted" | tr '\n' '/'); $(head -n 3 err | tr '\n' ' ')"
}
same() {
	checks=$((checks + 1))
	[ "$2" = "$3" ] || bad "$1: it was $2 and is $3"
}
# A file as it must stay: the same one, the same bytes, the same mode.
state() { stat -c '%i %a %s %y' "$1" 2>/dev/null && sha256sum <"$1"; }

# we_run WHAT OUTCOME DIR MODULE [OPTION]: through the library, in a process of its own
we_run() {
	want "$1" "$2"$'\n'"$(gives "$4")" "call_$4" ./host ${5:+"$5"} $id "$3" "$4"
}
they_run() {
	want "$1" "loaded"$'\n'"$(gives "$3")" "call_$3" "$theirs" load "$2" "$3"
}

# What Wasmer's cache saved, in both forms.
loads_theirs() {
	local module=$1 what=$2 save=$3 dir=theirs entry before
	rm -rf $dir
	mkdir $dir
	want "$what: theirs" saved "$theirs" "$save" $dir "$module"
	entry=$dir/$("$theirs" path "$module")
	before=$(state "$entry")
	for round in first second; do
		we_run "$what: we load what they saved, the $round time" "hit none ok" $dir "$module"
	done
	same "$what: their entry after our loads" "$before" "$(state "$entry")"
	# Not told that there may be such entries, we take them for a stranger's: they stay.
	we_run "$what: we without the flag" "compiled mismatched mismatched" $dir "$module" --no-legacy
	same "$what: their entry after our compile" "$before" "$(state "$entry")"
	we_run "$what: we, told to compile" "compiled recompile mismatched" $dir "$module" --recompile
	same "$what: their entry after our compile, which was asked for" "$before" "$(state "$entry")"
	same "$what: files in the namespace" 1 "$(find "${entry%/*}" -type f ! -name .lock ! -name .identity | wc -l)"
	if [ "$save" = save ]; then
		they_run "$what: they load what they saved" $dir "$module"
		same "$what: their entry after all" "$before" "$(state "$entry")"
	else
		# The present version no longer reads these. It removes what it cannot load.
		"$theirs" load $dir "$module" >/dev/null 2>&1
		same "$what: their load of a compressed entry" 1 $?
		same "$what: a compressed entry after their load" "" "$(state "$entry")"
	fi
}

# What we saved; then what they save in its place.
loads_ours() {
	local module=$1 what=$2 dir=ours entry before
	rm -rf $dir
	we_run "$what: we save" "compiled not-found ok" $dir "$module"
	entry=$dir/$("$theirs" path "$module")
	before=$(state "$entry")
	[ -n "$before" ] || bad "$what: we did not save in $entry but in $(find $dir -type f)"
	for round in first second; do
		they_run "$what: they load what we saved, the $round time" $dir "$module"
	done
	same "$what: our entry after their loads" "$before" "$(state "$entry")"
	we_run "$what: we load what we saved" "hit none ok" $dir "$module"
	want "$what: they save over ours" saved "$theirs" save $dir "$module"
	same "$what: our trailer in what they saved" 0 "$(tail -c 4 "$entry" | LC_ALL=C grep -ac '^WCa')"
	before=$(state "$entry")
	we_run "$what: we load what they saved over ours" "hit none ok" $dir "$module"
	they_run "$what: they load it" $dir "$module"
	same "$what: the entry after that" "$before" "$(state "$entry")"
}

# A namespace that their umask left open to the group: we do not load from it and do not write there.
open_to_a_group() {
	local module=$1 what=$2 dir=open entry before
	rm -rf $dir
	mkdir $dir
	umask 002
	want "$what: they save with umask 002" saved "$theirs" save $dir "$module"
	umask 022
	entry=$dir/$("$theirs" path "$module")
	before=$(state "$entry")
	we_run "$what: a namespace that a group may write" "compiled untrusted untrusted" $dir "$module"
	same "$what: their entry in it" "$before" "$(state "$entry")"
}

# The same through the tool.
outcome() { "$@" | sed -n 's/.*"outcome": *"\([a-z]*\)".*/\1/p'; }
by_tool() {
	local module=$1 what=$2 dir entry before
	local command=("$tool" --engine wasmer --engine-id $id --legacy)
	for save in save save-lzw; do
		dir=tool-$save
		rm -rf "$dir"
		mkdir "$dir"
		want "$what: theirs" saved "$theirs" $save "$dir" "$module"
		entry=$dir/$("$theirs" path "$module")
		before=$(state "$entry")
		want "$what: the tool loads what they saved ($save)" hit outcome "${command[@]}" --cache-dir "$dir" --json compile "$module"
		if [ "$module" = add.wasm ]; then
			want "$what: the tool runs it" 42 "${command[@]}" --cache-dir "$dir" run --invoke add "$module" 19 23
		fi
		same "$what: their entry after the tool" "$before" "$(state "$entry")"
	done
	dir=tool-ours
	rm -rf "$dir"
	want "$what: the tool compiles" compiled outcome "${command[@]}" --cache-dir "$dir" --json compile "$module"
	they_run "$what: they load what the tool saved" "$dir" "$module"
}

builds=0
for root in "$plus" "$plus/stock"; do
	[ -d "$root/include" ] || continue # an engine of the user's own comes alone
	builds=$((builds + 1))
	kind="with wasmer-plus"
	[ "$root" = "$plus" ] || kind=stock
	cc -std=c11 -O1 -g -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -I "$source/include" \
		-isystem "$root/include" -o host "$source/tests/interop/host.c" "$library" -Wl,-rpath,"$WASMCACHE_BINARY_DIR/src" \
		-L "$root/lib" -lwasmer -Wl,-rpath,"$root/lib" || { bad "the host does not compile ($kind)"; continue; }
	for module in "${modules[@]}"; do
		loads_theirs "$module" "$module, $kind" save
		loads_theirs "$module" "$module, $kind, compressed" save-lzw
		loads_ours "$module" "$module, $kind"
	done
	open_to_a_group add.wasm "add.wasm, $kind"
done

without=
[ -n "$sqlite" ] || without=" (sqlite.wasm was not fetched)"
if "$tool" --help 2>/dev/null | grep -q -e '--legacy'; then
	for module in "${modules[@]}"; do
		by_tool "$module" "$module, tool"
	done
else
	without="$without (the tool knows no --legacy)"
fi
[ $failures -eq 0 ] || echo "$name: $failures of $checks checks failed"
finish "Wasmer's own cache and ours in one directory: ${#modules[@]} modules, $builds builds of the engine, $checks checks held$without"
