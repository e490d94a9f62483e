#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two engines, and two builds of one, in one cache; a folder that is shared with another cache (--engine-id), and what
# that one saved (--legacy).
. "$(dirname "$0")/cli_common.inc"
tiny

wasmtime=${WASMTIME_ROOT:-}/lib/libwasmtime.so
wasmer=${WASMER_ROOT:-}/lib/libwasmer.so
stock=${WASMER_ROOT:-}/stock/lib/libwasmer.so
[ -e "$wasmtime" ] && [ -e "$wasmer" ] || skip "two engines are needed: WASMTIME_ROOT and WASMER_ROOT"
unset WASMCACHE_ENGINE

# Wasmtime is the default, a name or a path chooses.
modules="wasm/math.wasm wasm/trap.wasm"
engine_of_default=wasmtime
for outcome in compiled hit; do
	for engine in "" wasmer "$stock"; do
		[ -z "$engine" ] || [ "$engine" = wasmer ] || [ -e "$engine" ] || continue
		# shellcheck disable=SC2086
		run ${engine:+--engine "$engine"} --json compile $modules
		want_status 0
		case $engine in "") expected=$engine_of_default ;; *) expected=wasmer ;; esac
		want_json "len(rows) == 2 and all(r['outcome'] == '$outcome' and r['engine'] == '$expected' for r in rows)"
		want_json "all(r['namespace'].startswith('$expected-') for r in rows)"
	done
done
for engine in "$wasmtime" "$wasmer"; do
	WASMCACHE_ENGINE=$engine run --json compile wasm/math.wasm
	want_json 'row["outcome"] == "hit"'
	run --engine "$engine" run --invoke add wasm/math.wasm 2 3
	want_status 0
	want_out '^5$'
done
builds=2
[ ! -e "$stock" ] || builds=3 # its build id is another, and so it is another engine

run --json ls
want_status 0
want_json "len(rows) == 2 * $builds and len({r['namespace'] for r in rows}) == $builds and len({r['key'] for r in rows}) == 2"
want_json '{r["namespace"].split("-")[0] for r in rows} == {"wasmtime", "wasmer"} and all(r["state"] == "ok" for r in rows)'
run ls
want_out ' wasmtime-cranelift-'
want_out ' wasmer-cranelift-'
run --json info wasm/math.wasm
want_json "len(rows) == $builds"
run verify
want_status 0
want_out "^$((2 * builds)) entries .* $((2 * builds)) good$"
# One engine's entry under the other one's name is mismatched, and nobody loads it.
python3 - "$cache" <<-'PYTHON'
	import glob, os, shutil, sys
	old = glob.glob(sys.argv[1] + "/wasmtime-*/AF49*.bin")[0]
	new = glob.glob(sys.argv[1] + "/wasmer-cranelift-*/AF49*.bin")[0]
	os.unlink(new)
	shutil.copy2(old, new)
PYTHON
run verify
want_status 2
want_out '^mismatched +.*/wasmer-cranelift-'
run --engine wasmer --json compile wasm/math.wasm
want_json 'row["outcome"] == "compiled" and row["reason"] == "mismatched"'
run --engine wasmer --json compile wasm/math.wasm
want_json 'row["outcome"] == "hit"'
run --json rm wasm/math.wasm
want_status 0
want_json "len(rows) == $builds and all(r['removed'] for r in rows)"
run clear --yes

# ---- a folder that is shared -------------------------------------------------------------------

# What another cache saves there has no end of ours: an artifact as it is. Made of our entry, under another engine's id.
# lay ENGINE ID: that of math.wasm, and its path in $foreign
lay() {
	run --engine "$1" --engine-id "$2" --json compile wasm/math.wasm
	want_status 0
	want_json "row['namespace'].startswith('$2-v')"
	foreign=$(python3 -c 'import json; print(json.loads(open("out").readline())["path"])')
	python3 - "$foreign" "$(python3 -c 'import json; print(json.loads(open("out").readline())["artifact_bytes"])')" <<-'PYTHON'
		import os, sys
		data = open(sys.argv[1], "rb").read()[:int(sys.argv[2])]
		os.unlink(sys.argv[1])
		with open(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
		    file.write(data)
	PYTHON
	before=$(stat -c '%i %s %Y' "$foreign") sum=$(sha256sum <"$foreign")
}
same() {
	[ "$(stat -c '%i %s %Y' "$foreign")" = "$before" ] && [ "$(sha256sum <"$foreign")" = "$sum" ] ||
		bad "the other cache's file is not what it was"
}
for pair in wasmtime:shared.id wasmer:cranelift-opts-rkyv; do
	engine=${pair%%:*}
	id=${pair#*:}
	lay "$engine" "$id"
	# Not ours, so neither damaged nor to be removed or replaced.
	run --json ls
	want_status 0
	want_json 'len(rows) == 1 and row["state"] == "mismatched" and row["kind"] is None and row["fingerprint"] is None and row["file_bytes"] > 0'
	run ls
	want_out "^[0-9A-F]{64} +- .* mismatched +$id-v[0-9]+$"
	run info wasm/math.wasm
	want_status 0
	want_out '^state +mismatched$'
	same
	run verify --remove
	want_status 2
	want_out "^mismatched +$foreign$"
	same
	run --engine "$engine" --engine-id "$id" --json compile wasm/math.wasm wasm/trap.wasm
	want_status 0
	want_json '[r["outcome"] for r in rows] == ["compiled", "compiled"] and row["reason"] == "mismatched" and row["save_error"] == "mismatched"'
	want_err '^wasmcache: compiled wasm/math.wasm, but it is not saved: '
	want_json 'rows[1]["reason"] == "not-found" and rows[1]["path"] and "save_error" not in rows[1]'
	same
	# Asked for, it is loaded; never with settings, which the file does not tell.
	run --engine "$engine" --engine-id "$id" --legacy --json compile wasm/math.wasm
	want_status 0
	want_no_err
	want_json 'row["outcome"] == "hit"'
	run --engine "$engine" --engine-id "$id" --legacy run --invoke add wasm/math.wasm 20 22
	want_out '^42$'
	run --engine "$engine" --engine-id "$id" --legacy --settings other --json compile wasm/math.wasm
	want_json 'row["outcome"] == "compiled"'
	same
	# Under an id of the engine's own, nobody else saves: there such a file is damage.
	run --engine "$engine" --json compile wasm/math.wasm
	want_json 'row["outcome"] == "compiled" and row["reason"] == "not-found"'
	own=$(python3 -c 'import json; print(json.loads(open("out").readline())["path"])')
	cp -p "$foreign" "$own"
	run --engine "$engine" --json compile wasm/math.wasm
	want_json 'row["outcome"] == "compiled" and row["reason"] == "corrupt"'
	run clear --yes
	want_status 0
done

finish
