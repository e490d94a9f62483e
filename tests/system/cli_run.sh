#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# run: what a program gets to see, what it cannot have, and what becomes of its end.
. "$(dirname "$0")/cli_common.inc"
tiny

# ---- what needs no WASI ------------------------------------------------------------------------

run run wasm/trap.wasm
want_status 1
want_err 'trap.wasm'
want_err 'unreachable'
want_err 'wasm backtrace'
want_err '0: +0x[0-9a-f]+ - .*<wasm function 0>'
run -v run wasm/trap.wasm
want_err 'trap.wasm: hit, '
run -v run --recompile wasm/trap.wasm
want_err 'trap.wasm: compiled \(recompile\)'
WASMCACHE_DISABLE=1 run -v run wasm/trap.wasm
want_status 1
want_err 'trap.wasm: compiled \(cache-off\)'

# Functions.
run run --invoke add wasm/math.wasm 2 -3
want_status 0
[ "$(cat out)" = -1 ] || bad "2 + -3"
run run --invoke add wasm/math.wasm 0x7fffffff 1
[ "$(cat out)" = -2147483648 ] || bad "i32 wraps"
run run --invoke half wasm/math.wasm 0.3
[ "$(cat out)" = 0.15 ] || bad "0.3 / 2"
run run --invoke two wasm/math.wasm -9223372036854775808
[ "$(cat out)" = "-9223372036854775808
0.1" ] || bad "two results"
for arguments in "add 1" "add 1 2 3" "add 1 x" "add 1 4294967296" "add 1 1.5" "half 1x" "two 18446744073709551616"; do
	# shellcheck disable=SC2086
	set -- $arguments
	function=$1
	shift
	run run --invoke "$function" wasm/math.wasm "$@"
	want_status 1
	want_no_out
	want_err "^wasmcache: cannot call $function of wasm/math.wasm: "
done
run run --invoke none wasm/math.wasm
want_status 1
want_err 'exports no function none, but: add, half, two'
run run wasm/math.wasm
want_status 1
want_err 'no WASI command.*--invoke: add, half, two'
run run wasm/component.wasm
want_status 1
want_err 'component'
run run none.wasm
want_status 1
want_err '^wasmcache: cannot compile none.wasm: .*No such file'

# Imports that nobody gives it.
run run --invoke go wasm/wants.wasm
want_status 1
want_no_out
want_err '^wasmcache: cannot run wasm/wants.wasm'
want_err 'host.*missing'

mkdir data
# None that reaches the cache: itself, above, below, through a link, and when the cache is switched off.
refused() {
	run run --dir "$1" wasm/create.wasm
	want_status 1
	want_err "^wasmcache: cannot give $1 to the program: .*$cache"
}
namespace=$(find "$cache" -mindepth 1 -maxdepth 1 -type d -name "$ENGINE-*" | head -n 1)
ln -s "$cache" link
refused "$cache"
refused "$tmp"
refused /
refused "$namespace"
refused link
WASMCACHE_DISABLE=1 refused "$cache"
WASMCACHE_DISABLE=1 refused "$tmp"
cache=$tmp/data/sub/cache refused data
[ ! -e data/sub/cache ] || bad "looking made the cache"
[ ! -e f ] && [ ! -e data/f ] && [ ! -e "$cache/f" ] || bad "a refused folder was written to"

# A folder that is none.
run run --dir none wasm/create.wasm
want_status 1
want_err '^wasmcache: cannot give none to the program: No such file'
run run --dir wasm/exit0.wasm wasm/create.wasm
want_status 1
want_err 'Not a directory'

# ---- WASI --------------------------------------------------------------------------------------

find_wasi
if [ "$wasi" != "$library" ]; then
	# A libwasmer without WASI: it says so, and how to get one.
	run run wasm/exit0.wasm
	want_status 1
	want_no_out
	want_err "^wasmcache: cannot run wasm/exit0.wasm: it needs WASI, and $library was built without; .*WASMER_FEATURES=wasi .*--engine PATH"
	run run --invoke _start wasm/exit0.wasm
	want_status 1
	want_err 'it needs WASI'
fi
if [ -z "$wasi" ]; then
	left_out "WASI commands: there is no build with WASI (WASMER_FEATURES=wasi tools/engine-wasmer)"
	finish
fi
WASMCACHE_ENGINE=$wasi

# Its end is the tool's.
run run wasm/exit0.wasm
want_status 0
want_no_out
want_no_err
run run wasm/exit7.wasm
want_status 7
want_no_err
run -v run wasm/exit7.wasm
want_status 7
want_err 'exit7.wasm: hit, '
WASMCACHE_DISABLE=1 run -v run wasm/exit7.wasm
want_status 7
want_err 'exit7.wasm: compiled \(cache-off\)'
run run wasm/bare.wasm
want_status 1
want_err '^wasmcache: cannot run wasm/bare.wasm:'
want_err 'memory'
if [ "$ENGINE" = wasmer ]; then
	left_out "an exit status of 256: it keeps eight bits itself"
else
	run run wasm/exit256.wasm
	want_status 1
fi

# Arguments: the base name, then what follows the file, options too.
run run wasm/args.wasm --help -- -v --json
want_status 0
[ "$(tr -s '\000' ' ' <out)" = "args.wasm --help -- -v --json " ] || bad "arguments are not the program's"

# Variables: those that are given, and no other.
SECRET=x FOO=outside run run wasm/env.wasm
[ -z "$(tr -d '\000' <out)" ] || bad "the environment leaked"
FOO=outside run run --env FOO --env BAR=a=b --env UNSET --env EMPTY= wasm/env.wasm
[ "$(tr -s '\000' ' ' <out)" = "FOO=outside BAR=a=b EMPTY= " ] || bad "variables are not as given"

# Folders: with one, files in it.
run run --dir data::/d wasm/create.wasm
want_status 0
[ -f data/f ] || bad "the program did not make its file"
run run wasm/create.wasm
want_status 8 # EBADF: it has no folder

# What lies outside of a folder cannot be reached from it, by a path or by a link.
mkdir outside
ln -s ../outside data/link
for escape in above through; do
	run run --dir data::/d "wasm/$escape.wasm"
	[ "$status" -ne 0 ] || bad "$escape.wasm should not have got a file"
done
rm data/link
ln -s "$tmp/outside" data/link
run run --dir data::/d wasm/through.wasm
[ "$status" -ne 0 ] || bad "a file through an absolute link"
rm data/link data/f
ln -s "$tmp/outside/f" data/f
run run --dir data::/d wasm/create.wasm
rm data/f
[ -z "$(ls outside)" ] || bad "something was made outside of the folder"

# A real solver, from the cache.
if [ -e "${MODULES:-}/boolector.wasm" ]; then
	cat >data/problem.smt2 <<-'SMT'
		(set-option :produce-models true)
		(set-logic QF_BV)
		(declare-const p (_ BitVec 32))
		(declare-const q (_ BitVec 32))
		(assert (= (bvmul p q) (_ bv14508353 32)))
		(assert (bvult (_ bv1 32) p))
		(assert (bvult p q))
		(assert (bvult q (_ bv65536 32)))
		(check-sat)
		(get-model)
	SMT
	run -q compile "$MODULES/boolector.wasm"
	want_status 0
	run -v run --dir data::/data "$MODULES/boolector.wasm" -d /data/problem.smt2
	want_status 10
	want_err 'boolector.wasm: hit'
	want_out '^sat$'
	want_out 'bv[0-9]+'
	command_line="run boolector.wasm <problem"
	"$WASMCACHE" --cache-dir "$cache" run "$MODULES/boolector.wasm" <data/problem.smt2 >out 2>err
	status=$?
	want_status 10
	want_out '^sat$'
fi
finish
