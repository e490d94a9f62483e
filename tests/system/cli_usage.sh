#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# Help, usage, exit statuses, where errors go, and what the engine is loaded from.
. "$(dirname "$0")/cli_common.inc"
tiny

commands="compile run info ls verify rm clear dir config doctor"
for arguments in --help -h help; do
	run_plain $arguments
	want_status 0
	want_no_err
	for c in $commands; do want_out "^  $c +[a-z]"; done
done
for c in $commands; do
	run_plain help $c
	want_status 0
	want_no_err
	want_out "^Usage: wasmcache \[OPTION...\] $c"
	cp out help
	run_plain $c --help
	want_status 0
	cmp -s out help || bad "help $c and $c --help differ"
done
# Lines for a terminal of 80 columns, without tabs.
for c in $commands ""; do
	# shellcheck disable=SC2086
	run_plain help $c
	awk 'length > 80 || /\t/ { exit 1 }' out || bad "help has long lines or tabs"
done
run_plain --version
want_status 0
want_out '^wasmcache [0-9]+\.[0-9]+\.[0-9]+ \(library [0-9.]+'
want_out "^$title [0-9.]+ \($ENGINE\)$"

# Wrong usage: status 2, nothing on stdout, one line on stderr that says where help is.
usage() {
	run "$@"
	want_status 2
	want_no_out
	want_err '^wasmcache: .*see "wasmcache (--help|help [a-z]+)"$'
	[ "$(wc -l <err)" -eq 1 ] || bad "one line on stderr wanted"
}
usage
usage nonsense
usage --nonsense ls
usage ls --nonsense
usage ls -x
usage ls --json=yes
usage ls operand
usage --engine
usage --engine= ls
usage --cache-dir= ls
usage compile
usage compile -j 0 x
usage compile -j x x
usage compile -j
usage run
usage run --dir wasm
usage run --dir :: wasm/exit0.wasm
usage run --dir wasm:: wasm/exit0.wasm
usage run --env =x wasm/exit0.wasm
usage info
usage info a b
usage rm
usage verify x
usage clear x
usage clear
usage dir x
usage help nonsense
for no_id in .. a..b ../x a/b '' -x .x; do
	run "--engine-id=$no_id" compile wasm/math.wasm
	want_status 2
	want_no_out
	want_err '^wasmcache: --engine-id: "'
done

# Options before and after the command, in groups, with = and after --.
run ls -qv --json
want_status 0
run -q --json compile --jobs=2 -- wasm/math.wasm
want_status 0
want_json 'row["outcome"] == "compiled"'

# An engine that is not there, or is none: what was tried.
run --engine nonsense compile wasm/math.wasm
want_status 2
want_err "^wasmcache: --engine: this tool was built without an engine \"nonsense\"; there is: .*$ENGINE"
export "$variable=$tmp/none"
run compile wasm/math.wasm
want_status 1
want_no_out
want_err "^wasmcache: cannot load $title: $tmp/none/lib/lib$ENGINE.so: .*$variable"
export "$variable=$root"
run --engine "$tmp/none.so" compile wasm/math.wasm
want_status 1
want_err "$tmp/none.so: .*No such file"
echo text >text.so
run --engine ./text.so compile wasm/math.wasm
want_status 1
want_err "text.so: "
# A library that is no engine.
foreign=$(find /lib /usr/lib -name 'libm.so.6' 2>/dev/null | head -n 1)
if [ -n "$foreign" ]; then
	run --engine "$foreign" compile wasm/math.wasm
	want_status 1
	want_err "^wasmcache: cannot use $foreign: it is no engine that this tool was built with \(.*$ENGINE"
fi
# By its path it is known for what it is, whatever is the default.
WASMCACHE_ENGINE='' run --engine "$library" --json compile wasm/math.wasm
want_status 0
want_json "row['outcome'] == 'hit' and row['engine'] == '$ENGINE'"
WASMCACHE_ENGINE=nonsense run compile wasm/math.wasm
want_status 2
want_err 'WASMCACHE_ENGINE'
WASMCACHE_ENGINE=$ENGINE run --json compile wasm/math.wasm
want_status 0
want_json "row['engine'] == '$ENGINE'"

# An engine of another version is refused.
if [ "$ENGINE" = wasmtime ]; then
	for other in "${WASMTIME_ROOT%/*}"/wasmtime-4*/lib/libwasmtime.so; do
		[ -e "$other" ] || continue
		run --engine "$other" compile wasm/math.wasm
		want_status 1
		want_err 'built for Wasmtime [0-9]+, and that is Wasmtime 4[05]|has no function'
	done
else
	left_out "an engine of another version: there is only one"
fi

# A stdout that cannot be written is an error.
command_line="ls >/dev/full"
"$WASMCACHE" --cache-dir "$cache" ls >/dev/full 2>err
status=$?
: >out
want_status 1
want_err '^wasmcache: cannot write to standard output: No space'
command_line="ls >&-"
"$WASMCACHE" --cache-dir "$cache" ls >&- 2>err
status=$?
want_status 1
want_err '^wasmcache: cannot write to standard output'
# With all three closed nothing lands in the cache's files.
command_line="compile <&- >&- 2>&-"
"$WASMCACHE" -v --cache-dir "$cache" compile --recompile wasm/math.wasm <&- >&- 2>&-
run verify
want_status 0
want_out '1 entry .* 1 good'

# Which directory.
dir_of() {
	run_plain dir
	[ "$(cat out)" = "$1" ] || bad "directory $1 wanted"
	want_status 0
}
dir_of "$tmp/home/.cache/wasmcache"
XDG_CACHE_HOME=$tmp/xdg dir_of "$tmp/xdg/wasmcache"
XDG_CACHE_HOME=relative dir_of "$tmp/home/.cache/wasmcache"
XDG_CACHE_HOME=$tmp/xdg WASMCACHE_DIR=$tmp/own dir_of "$tmp/own"
WASMCACHE_DIR=$tmp/own run --json dir
want_json 'row["dir"] == os.getcwd() + "/cache" and row["state"] == "on" and row["mode"] == "0700" and row["message"] is None'
run -v dir
want_out '^state +on$'
want_out '^mode +0700$'
finish
