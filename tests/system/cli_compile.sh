#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# compile: a miss, then a hit; what it says of each file; folders; input that is no wasm.
. "$(dirname "$0")/cli_common.inc"
tiny

fields='{"file", "key", "engine", "namespace", "path", "outcome", "reason", "wasm_bytes", "artifact_bytes", "key_ms", "compile_ms", "load_ms", "save_ms", "total_ms"}'
big=wasm/math.wasm
if [ -e "${MODULES:-}/boolector.wasm" ]; then
	big=$MODULES/boolector.wasm
fi

run --json compile "$big"
want_status 0
want_no_err
want_json "len(rows) == 1 and set(row) == $fields"
want_json 'row["outcome"] == "compiled" and row["reason"] == "not-found"'
want_json "row['engine'] == '$ENGINE' and re.fullmatch(r'$ENGINE-[a-z]+-[0-9A-F]{16}-v[0-9]+', row['namespace'])"
want_json 'row["path"] == os.getcwd() + "/cache/" + row["namespace"] + "/" + row["key"] + ".bin" and os.path.exists(row["path"])'
want_json 'row["wasm_bytes"] == os.path.getsize(row["file"]) and 0 < row["artifact_bytes"] < os.path.getsize(row["path"])'
# Times: each of its own step, together no more than all; the last digit is rounded.
sum='row["key_ms"] + row["load_ms"] + row["compile_ms"] + row["save_ms"] <= row["total_ms"] + 0.01'
want_json "row['key_ms'] > 0 and row['compile_ms'] > 0 and row['save_ms'] > 0 and $sum"
want_json '__import__("hashlib").sha256(open(row["file"], "rb").read()).hexdigest().upper() == row["key"]'
cp out first
run --json compile "$big"
want_status 0
want_json 'row["outcome"] == "hit" and row["reason"] == "none" and row["compile_ms"] == 0'
want_json "row['load_ms'] > 0 and row['save_ms'] == 0 and $sum"
want_json 'all(row[k] == json.load(open("first"))[k] for k in ("key", "path", "namespace", "wasm_bytes", "artifact_bytes"))'
# Microseconds, not the noise of binary fractions.
want_json 'all(re.fullmatch(r"[0-9]+\.[0-9]{1,3}", n) for n in re.findall(r"_ms\":([^,}]*)", open("out").read()))'

# Recompiled on request, in three ways.
run --json compile --recompile "$big"
want_json 'row["outcome"] == "compiled" and row["reason"] == "recompile" and "save_error" not in row'
want_json "row['load_ms'] == 0 and row['compile_ms'] > 0 and row['save_ms'] > 0 and $sum"
WASMCACHE_RECACHE=1 run --json compile wasm/math.wasm
want_json 'row["reason"] == "recompile"'
WASMCACHE_RECACHE=0 run --json compile wasm/math.wasm
want_json 'row["outcome"] == "hit"'

# Without the cache.
WASMCACHE_DISABLE=1 run --json compile wasm/math.wasm
want_status 0
want_no_err
want_json 'row["outcome"] == "compiled" and row["reason"] == "cache-off" and row["path"] is None and "save_error" not in row'

# Other settings, another folder.
run --json --settings metering=1 compile wasm/math.wasm
want_json 'row["outcome"] == "compiled" and row["namespace"] != json.load(open("first"))["namespace"]'
run --json --settings "" compile wasm/math.wasm
want_json 'row["outcome"] == "hit"'
run --durable --json compile wasm/trap.wasm
want_json 'row["outcome"] == "compiled"'

# Folders: all below, in order, by the name's end; links to files but not to folders.
mkdir -p tree/b tree/a "tree/empty folder"
cp wasm/exit0.wasm tree/b/2.wasm
cp wasm/exit7.wasm tree/a/1.wasm
cp wasm/math.wasm "tree/$(printf 'c\033[31m\n\374.wasm')"
echo text >tree/a/readme.txt
ln -s ../b/2.wasm tree/a/link.wasm
ln -s .. tree/a/loop
run --json compile tree/
want_status 0
want_json '[r["file"] for r in rows] == ["tree/a/1.wasm", "tree/a/link.wasm", "tree/b/2.wasm", "tree/c\x1b[31m\n\ufffd.wasm"]'
want_json '[r["outcome"] for r in rows][::3] == ["compiled", "hit"]'
# The link and its file are the same module: compiled for one of them, two at a time too.
want_json 'sorted(r["outcome"] for r in rows[1:3]) in (["compiled", "hit"], ["compiled", "joined"])'
want_json 'all(r["path"] and os.path.exists(r["path"]) for r in rows)'
run compile tree
grep -q "$(printf '\033')" out && bad "a file name must not reach the terminal raw"
run --json compile -j 8 --recompile tree wasm/exit0.wasm
want_status 0
want_json 'len(rows) == 5 and all(r["outcome"] == "compiled" for r in rows)'
run compile "tree/empty folder"
want_status 1
want_err '^wasmcache: cannot compile tree/empty folder: .*no file \*\.wasm'
run --json compile "tree/empty folder" wasm/math.wasm
want_status 1
want_json 'rows[0]["outcome"] == "failed" and rows[0]["error"] and rows[1]["outcome"] == "hit"'
# The folder's object has all fields, and of what there is none null or 0.
want_json "set(row) == $fields | {'error'} and row['file'] == 'tree/empty folder' and row['reason'] == 'source'"
want_json 'all(row[k] is None for k in ("key", "engine", "namespace", "path")) and all(row[k] == 0 for k in row if re.search("_(ms|bytes)$", k))'

# For people.
run compile wasm/math.wasm wasm/exit0.wasm
want_status 0
want_no_err
want_out '^FILE +OUTCOME +REASON +TIME +WASM +ARTIFACT$'
want_out '^wasm/math.wasm +hit +- +[0-9.]+ ms +[0-9]+ B +[0-9.]+ kB$'
run -q compile wasm/math.wasm
want_no_out
want_no_err
run -v compile wasm/math.wasm
want_err '^wasmcache: hit [0-9A-F]{12}'

# A component is known by its first bytes, and lies beside a module.
if [ "$ENGINE" = wasmer ]; then
	run --json compile wasm/component.wasm wasm/math.wasm
	want_status 1
	want_json '[r["outcome"] for r in rows] == ["failed", "hit"] and rows[0]["reason"] == "source" and "component" in row["error"]'
	want_err '^wasmcache: cannot compile wasm/component.wasm: it is a component, and Wasmer has modules only$'
	left_out "components: its C API has none"
else
	run --json compile wasm/component.wasm
	want_status 0
	want_json 'row["outcome"] == "compiled"'
	run info wasm/component.wasm
	want_out '^kind +component$'
fi

# What is no wasm does not stop the others, and nothing is saved for it.
: >empty.wasm
echo 'hello, this is text' >text.wasm
head -c 30 wasm/math.wasm >short.wasm
head -c 60 /dev/urandom >random.wasm
mkfifo fifo.wasm
before=$(entries | wc -l)
run --json compile none.wasm empty.wasm text.wasm short.wasm random.wasm /dev/null fifo.wasm wasm/math.wasm
want_status 1
want_json 'len(rows) == 8 and [r["outcome"] for r in rows] == ["failed"] * 7 + ["hit"]'
want_json 'all(r["error"] for r in rows[:7]) and all(r["path"] is None for r in rows[:7])'
want_json 'all(rows[i]["reason"] == "source" for i in (0, 5, 6))'
want_err '^wasmcache: cannot compile none.wasm: .*No such file or directory'
want_err '^wasmcache: cannot compile text.wasm: .*magic'
want_err '^wasmcache: cannot compile short.wasm: .*end'
[ "$(wc -l <err)" -eq 7 ] || bad "one line for each failure wanted"
[ "$(entries | wc -l)" -eq "$before" ] || bad "a failure left an entry"
run compile text.wasm
want_status 1
want_out '^text.wasm +failed'

# A damaged entry is compiled again, and says why.
run --json compile wasm/math.wasm
path=$(python3 -c 'import json; print(json.loads(open("out").readline())["path"])')
python3 - "$path" <<-'PYTHON'
	import os, sys
	data = bytearray(open(sys.argv[1], "rb").read())
	data[100] ^= 1
	os.chmod(sys.argv[1], 0o600)
	open(sys.argv[1], "wb").write(data)
	os.chmod(sys.argv[1], 0o400)
PYTHON
run --json compile wasm/math.wasm
want_status 0
want_json 'row["outcome"] == "compiled" and row["reason"] == "corrupt"'
run --json compile wasm/math.wasm
want_json 'row["outcome"] == "hit"'
[ -z "$(find "$cache" -type f ! -name '*.bin' ! -name CACHEDIR.TAG ! -name '.hints-*' ! -name .tally-1 ! -name .lock ! -name .identity)" ] || bad "left-over files"
finish
