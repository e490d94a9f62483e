#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# The progress line: on a terminal, once a second has gone by, and nowhere else.
. "$(dirname "$0")/cli_common.inc"

for module in boolector sqlite; do
	[ -e "${MODULES:-}/$module.wasm" ] || skip "no $module.wasm in MODULES"
	ln -s "$MODULES/$module.wasm" "wasm/$module.wasm"
done

# As run, with a terminal of 60 columns for stderr; what it got is in ./err.
run_on_terminal() {
	command_line="wasmcache $*, stderr on a terminal"
	python3 - "$WASMCACHE" --cache-dir "$cache" "$@" <<-'PYTHON'
		import fcntl, os, pty, struct, subprocess, sys, termios
		ours, theirs = pty.openpty()
		fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
		with open("out", "wb") as out:
		    tool = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=out, stderr=theirs)
		os.close(theirs)
		with open("err", "wb") as err:
		    while True:
		        try:
		            data = os.read(ours, 4096)
		        except OSError:  # Linux: the last that had it open has closed it
		            break
		        if not data:
		            break
		        err.write(data)
		sys.exit(tool.wait())
	PYTHON
	status=$?
}

# A Python expression about `err`, the bytes, and `lines`, what was drawn between carriage returns.
want_drawn() {
	python3 - "$1" <<-'PYTHON' || bad "the terminal should show: $1"
		import re, sys
		err = open("err", "rb").read()
		lines = [line.replace(b"\x1b[K", b"") for line in err.split(b"\r")]
		sys.exit(0 if eval(sys.argv[1]) else 1)
	PYTHON
}

TERM=xterm
export TERM
modules="wasm/boolector.wasm wasm/sqlite.wasm"

# A pipe is no terminal.
command_line="wasmcache compile, stderr in a pipe"
began=$(date +%s%N)
# shellcheck disable=SC2086
{
	"$WASMCACHE" --cache-dir "$cache" compile --recompile $modules 2>&1 >out
	echo $? >status
} | cat >err
took=$((($(date +%s%N) - began) / 1000000))
status=$(cat status)
want_status 0
want_no_err
want_out '^wasm/boolector.wasm +compiled'

# So often that the line has its second and one more, however fast the machine is. A file that fails is among them.
echo text >text.wasm
files=$modules
mixed="wasm/boolector.wasm text.wasm wasm/sqlite.wasm"
all=$took
while [ "$all" -lt 2000 ] && [ "$took" -gt 0 ]; do
	files="$files $modules"
	mixed="$mixed wasm/boolector.wasm text.wasm wasm/sqlite.wasm"
	all=$((all + took))
done

# shellcheck disable=SC2086
run_on_terminal compile --recompile $mixed
want_status 1
want_out '^wasm/sqlite.wasm +compiled'
bar='compiling \[#*\.*\] [0-9]+/[0-9]+, [0-9.]+( [kM]?B)? of [0-9.]+ MB, [1-9][0-9]* s'
want_drawn "any(re.match(rb'$bar', line) for line in lines)"
want_drawn 'all(len(line) < 60 for line in lines if line.startswith(b"compiling"))'
# A message takes the place of the line and is whole; at the end nothing of the line stays.
want_drawn 're.search(rb"(^|\r\x1b\[K)wasmcache: cannot compile text\.wasm: [^\r]*\r\n", err)'
want_drawn 'err.endswith((b"\r\x1b[K", b"\n"))'

for options in -q --json; do
	# shellcheck disable=SC2086
	run_on_terminal $options compile --recompile $files
	want_status 0
	want_no_err
done
finish
