#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# info, ls, verify, rm and clear, on entries that are good, damaged and misplaced.
. "$(dirname "$0")/cli_common.inc"
tiny

# Nothing yet.
run ls
want_status 0
want_out '^no entries$'
run --json ls
want_status 0
want_no_out
run verify
want_status 0
want_out '^0 entries checked$'
run clear --yes
want_status 0
want_out '^0 entries removed'
run info wasm/math.wasm
want_status 1
want_no_out
want_err '^wasmcache: .*wasm/math.wasm: it is not in the cache \(key [0-9A-F]{64}\)'
run --json info wasm/math.wasm
want_status 1
want_json 'len(rows) == 1 and set(row) == {"file", "error"} and row["file"] == "wasm/math.wasm"'

# Four modules, one of them with other settings too.
fill() {
	run -q compile wasm/math.wasm wasm/trap.wasm wasm/exit0.wasm wasm/exit7.wasm
	want_status 0
	run -q --settings other compile wasm/math.wasm
	want_status 0
}
fill
run --json ls
want_status 0
want_json 'len(rows) == 5 and len({r["key"] for r in rows}) == 4 and len({r["namespace"] for r in rows}) == 2'
want_json 'set(row) == {"key", "namespace", "path", "kind", "state", "file_bytes", "artifact_bytes", "wasm_bytes", "compile_ms", "created", "last_used", "pinned", "fingerprint"}'
want_json 'all(r["state"] == "ok" and r["kind"] == "module" and os.path.getsize(r["path"]) == r["file_bytes"] for r in rows)'
want_json 'all(r["wasm_bytes"] > 0 and r["compile_ms"] > 0 and re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", r["created"]) for r in rows)'
want_json 'all(re.fullmatch("[0-9A-F]{64}", r["fingerprint"]) and r["fingerprint"][:16] in r["namespace"] for r in rows)'
run ls
want_out '^KEY +KIND +WASM +ARTIFACT +COMPILE +CREATED +STATE +NAMESPACE$'
want_out "^[0-9A-F]{64} +module .* ok +$ENGINE-"
want_out '^5 entries: '

run --json info wasm/math.wasm
want_status 0
want_json 'len(rows) == 2 and rows[0]["key"] == rows[1]["key"] and rows[0]["namespace"] != rows[1]["namespace"]'
key=$(python3 -c 'import json; print(json.loads(open("out").readline())["key"])')
path=$(python3 -c 'import json; print(json.loads(open("out").readline())["path"])')
for name_of in "$key" "$(echo "$key" | tr A-F a-f)" "$(echo "$key" | cut -c 1-12)"; do
	run --json info "$name_of"
	want_status 0
	want_json "len(rows) == 2 and row['key'] == '$key'"
done
run info "$key"
want_out "^key +$key$"
want_out '^state +ok$'
want_out "^path +$path$"
for none in none "$(echo "$key" | cut -c 1-7)" 0000000000000000 "$(printf %064d 0)" /; do
	run info "$none"
	want_status 1
	want_no_out
	want_err '^wasmcache: '
done

run verify
want_status 0
want_out '^5 entries \(.*\) checked: 5 good$'
run --json verify
want_json 'len(rows) == 6 and rows[-1]["checked"] == 5 and rows[-1]["good"] == 5 and rows[-1]["bytes"] == sum(r["file_bytes"] for r in rows[:-1])'
run -q verify
want_no_out

# One bit of the artifact: corrupt, found by verify alone, removed only on request.
flip() {
	python3 - "$1" <<-'PYTHON'
		import os, sys
		data = bytearray(open(sys.argv[1], "rb").read())
		data[len(data) // 3] ^= 4
		os.chmod(sys.argv[1], 0o600)
		open(sys.argv[1], "wb").write(data)
		os.chmod(sys.argv[1], 0o400)
	PYTHON
}
flip "$path"
run verify
want_status 1
want_out "^corrupt +$path$"
want_out '4 good, 1 corrupt$'
[ -e "$path" ] || bad "verify removed without being asked"
run --json verify
want_status 1
want_json '[r["removed"] for r in rows if r.get("state") == "corrupt"] == [False]'
run verify --remove
want_status 1
want_out "^corrupt, removed +$path$"
[ ! -e "$path" ] || bad "the corrupt entry is still there"
run verify
want_status 0

# The entry of one key under another: mismatched. Writable by others: untrusted. Both stay.
fill
other=$(dirname "$path")/$(printf %064d 0).bin
cp -p "$path" "$other"
run verify --remove
want_status 2
want_out "^mismatched +$other$"
[ -e "$other" ] || bad "only corrupt entries are to be removed"
flip "$path"
run verify
want_status 3
run --json info "$(printf %064d 0)"
want_status 0
want_json 'row["state"] == "mismatched" and row["fingerprint"]'
run rm "$(printf %064d 0)"
want_status 0
[ ! -e "$other" ] || bad "rm left it"
run --json compile wasm/math.wasm
chmod 0666 "$path"
run verify
want_status 2
want_out "^untrusted +$path$"
rm -f "$path"

# rm: by file, by key, in one namespace; what is not there.
fill
namespace=$(basename "$(dirname "$path")")
run --json rm --namespace "$namespace" wasm/math.wasm
want_status 0
want_json "len(rows) == 1 and row['removed'] and row['namespace'] == '$namespace'"
run --json info wasm/math.wasm
want_json 'len(rows) == 1'
run rm "$key" wasm/trap.wasm
want_status 0
want_out '^2 entries removed, [0-9.]+ kB$'
run rm wasm/trap.wasm wasm/exit0.wasm
want_status 1
want_err '^wasmcache: cannot remove wasm/trap.wasm: it is not in the cache'
want_out '^1 entry removed'
[ -e wasm/exit0.wasm ] || bad "rm removed the wasm file"
for no_namespace in ../.. ../x . "$namespace/" "$namespace/../$namespace"; do
	run rm --namespace "$no_namespace" wasm/exit7.wasm
	want_status 2
	want_no_out
	want_err "^wasmcache: rm: \"$no_namespace\" is no namespace; \"wasmcache ls\" shows them"
done
run info wasm/exit7.wasm
want_status 0

# A folder that is not to be trusted is reported; the others are listed all the same.
fill
ln -s "$tmp" "$cache/planted-v1"
run --json ls
want_status 1
want_json 'len([r for r in rows if "key" in r]) == 5'
want_err 'planted-v1 should be a directory'
rm "$cache/planted-v1"
run clear --yes
want_status 0

# clear: all entries, and nothing else. It has to be told when there is nobody to ask.
fill
echo mine >"$cache/notes"
run clear
want_status 2
want_no_out
run --json clear --yes
want_status 0
want_json 'row["removed"] == 5 and row["bytes"] > 0 and row["failed"] == 0'
[ -z "$(entries)" ] || bad "clear left entries"
[ -e "$cache/notes" ] || bad "clear took what is not ours"
finish
