#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# explain: every reason for a miss made for real. It says what a get would come to, which a compile then does, and changes not one
# file of the cache.
# no-tsan: the tool has one thread here, and takes minutes
. "$(dirname "$0")/cli_common.inc"
tiny
golden=${WASMCACHE_SOURCE_DIR:?}/tests/golden

# All that lies in the cache: names, inodes, modes, owners, times of change, contents.
snapshot() {
	[ -e "$cache" ] || {
		echo "there is none"
		return
	}
	find "$cache" -printf '%p %i %y %m %U %s %T@ %C@\n' | sort
	find "$cache" -type f -readable -exec sha256sum {} + | sort
}
# explain ARGUMENT...: runs it and sees that nothing changed.
explain() {
	snapshot >before
	run "$@"
	snapshot >after
	cmp -s before after || {
		bad "explain changed the cache"
		diff before after | head -n 5
	}
}
# verdict REASON ARGUMENT...: as text and as JSON; "none" is a hit.
verdict() {
	reason=$1
	shift
	explain "$@"
	want_no_err
	if [ "$reason" = none ]; then
		want_status 0
		want_out '^hit: wasm/math.wasm$'
		head -n 1 out | grep -q '^hit: ' || bad "the verdict is to be the first line"
	else
		want_status 1
		head -n 1 out | grep -q "^miss: wasm/math.wasm: $reason\$" || bad "the first line should be the verdict: $reason"
		want_out '^why +[A-Za-z$/]'
		want_out '^advice +[a-z]'
	fi
	cp out text
	explain --json "$@"
	want_json "len(rows) == 1 and row['reason'] == '$reason' and row['file'] == 'wasm/math.wasm' and row['verdict'] == ('hit' if '$reason' == 'none' else 'miss') and set(row) == {'file', 'verdict', 'reason', 'why', 'key', 'engine', 'settings', 'namespace', 'path', 'layer', 'bad_layers', 'near', 'advice'}"
}
want_text() {
	grep -Eq -- "$1" text || {
		bad "the text should have: $1"
		sed 's/^/  text: /' text
	}
}
# agree REASON ARGUMENT...: a compile finds the same.
agree() {
	reason=$1
	shift
	run --json "$@"
	want_json "row['reason'] == '$reason' and row['outcome'] == ('hit' if '$reason' == 'none' else 'compiled')"
}
path_of() {
	sed -n 's/.*"path":"\([^"]*\)".*/\1/p' out
}
fill() {
	run --json compile wasm/math.wasm
	entry=$(path_of)
	[ -f "$entry" ] || bad "there is no entry"
}

# ---- nothing there, a hit, other settings ------------------------------------------------------

verdict not-found explain wasm/math.wasm
want_text '^why +no entry was saved for these bytes$'
want_json 'row["near"] == [] and row["why"] == "no entry was saved for these bytes" and re.fullmatch("[0-9A-F]{64}", row["key"])'
[ ! -e "$cache" ] || bad "explain made the directory"

fill
identity=$(dirname "$entry")/.identity
[ -f "$identity" ] || bad "there is no identity file"
[ "$(stat -c %a "$identity")" = 400 ] || bad "the identity file has the mode $(stat -c %a "$identity")"
verdict none explain wasm/math.wasm
want_text "^path +$entry$"
want_text "^engine +$title "
want_text '^judged by +read whole, and loaded by the engine$'
want_json "row['path'] == '$entry' and row['layer'] == 0 and row['advice'] is None"
agree none compile wasm/math.wasm

verdict not-found --settings 'other one' explain wasm/math.wasm
want_text '^settings +other one$'
want_text "^near +$entry$"
want_text '^settings +other one +-$'
want_text '^advice +.* give no --settings$'
want_json 'len(row["near"]) == 1 and row["near"][0]["state"] == "ok" and row["near"][0]["unknown"] is None'
want_json 'row["near"][0]["differs"] == [{"what": "settings", "ours": "other one", "theirs": None}]'
agree not-found --settings 'other one' compile wasm/math.wasm
verdict not-found --settings third explain wasm/math.wasm
want_json 'len(row["near"]) == 2 and [d["theirs"] for n in row["near"] for d in n["differs"]].count("other one") == 1'
run clear --yes

# A string that is there, and one with what does no good on a terminal. Hints would be written by a get with settings.
run -q --settings "$(printf 'a\033[31m\nb')" compile wasm/math.wasm
want_status 0
rm -f "$cache"/.hints-*
verdict not-found --settings a explain wasm/math.wasm
want_text '^advice +.* give --settings "a\\x1B\[31m\\x0Ab"$'
! LC_ALL=C grep -q "$(printf '\033')" text || bad "a control character came through"
for file in "$cache"/.hints-*; do
	[ ! -e "$file" ] || bad "explain wrote hints"
done
run clear --yes

# ---- the entry is there, and no good -----------------------------------------------------------

fill
# spoil CODE: changes the bytes of the entry, `data`, in Python. What lies there is a new file.
spoil() {
	python3 - "$entry" "$1" <<-'PYTHON'
		import os, sys
		path, code = sys.argv[1:]
		data = bytearray(open(path, "rb").read())
		names = {"data": data}
		exec(code, names)
		os.unlink(path)
		with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
		    file.write(names["data"])
		os.chmod(path, 0o400)
	PYTHON
}
for damage in 'data[len(data) // 3] ^= 4' 'data[-100] ^= 1' 'data[-1] ^= 1' 'del data[-1]' 'del data[len(data) // 2:]' 'data += b"x"' 'data.clear()'; do
	fill
	spoil "$damage"
	verdict corrupt explain wasm/math.wasm
	want_text "^why +.* (damaged|shorter|trailer|digest)"
	want_text "^path +$entry$"
	want_text '^judged by +the file was looked at, and left as it is$'
	want_json "row['path'] == '$entry' and row['near'] == []"
	agree corrupt compile wasm/math.wasm
done

# Sound, and the engine does not take it.
fill
"${TEST_BIN_DIR:?}/host_reseal" "$entry" || bad "the entry was not resealed"
run --json info wasm/math.wasm
want_json 'row["state"] == "ok"'
verdict engine-refused explain wasm/math.wasm
want_text "^why +[A-Za-z]"
want_text "^path +$entry$"
want_text '^advice +the entry is sound; '
agree engine-refused compile wasm/math.wasm

# Not used for too long: nobody knows of a use, and the file is old.
fill
rm -f "$cache"/.hints-*
touch -d '10 days ago' "$entry"
verdict none --set max_age=20d explain wasm/math.wasm
verdict expired --set max_age=5d explain wasm/math.wasm
want_text "^why +$entry was not used for longer than max_age_seconds \\(432000 s\\)$"
want_text '^advice +a get compiles and replaces it; '
agree expired --set max_age=5d compile wasm/math.wasm
verdict none --set max_age=5d explain wasm/math.wasm

# Written by a later version.
fill
cp "$golden/newer-incompatible.bin" newer && chmod 400 newer && mv -f newer "$entry"
verdict newer-format explain wasm/math.wasm
want_text "^path +$entry$"
run --json compile wasm/math.wasm
want_json 'row["reason"] == "newer-format" and row["save_error"] == "newer-format"'
rm -f "$entry"

# Of another module, under this one's name.
run --json compile wasm/trap.wasm
other=$(path_of)
cp -p "$other" "$entry"
verdict mismatched explain wasm/math.wasm
want_text "^why +$entry was saved for another key$"
agree mismatched compile wasm/math.wasm
run -q rm wasm/trap.wasm

# Anybody may write it; another user's; no file.
chmod 0666 "$entry"
verdict untrusted explain wasm/math.wasm
want_text "^why +$entry is not to be trusted \(owner $(id -u), mode 0666\)$"
agree untrusted compile wasm/math.wasm
if [ "$(id -u)" -eq 0 ]; then
	chown 65534 "$entry"
	verdict untrusted explain wasm/math.wasm
	want_text "^why +$entry is not to be trusted \(owner 65534, mode 0400\)$"
	agree untrusted compile wasm/math.wasm
else
	left_out "an entry of another user, without root"
fi
rm -f "$entry"
ln -s /etc/passwd "$entry"
verdict untrusted explain wasm/math.wasm
want_text "^why +$entry is not a regular file"
agree untrusted compile wasm/math.wasm
rm -f "$entry"
mkdir "$entry"
verdict untrusted explain wasm/math.wasm
rmdir "$entry"

# Removed.
verdict not-found explain wasm/math.wasm
want_json 'row["near"] == []'
fill
run -q rm wasm/math.wasm
verdict not-found explain wasm/math.wasm
want_text '^why +no entry was saved for these bytes$'
run clear --yes

# ---- other engines, ids -------------------------------------------------------------------------

fill
verdict not-found --engine-id shared.id explain wasm/math.wasm
want_json '[d["what"] for d in row["near"][0]["differs"]] == ["engine id"]'
want_text 'give no --engine-id$'
run -q --engine-id shared.id compile wasm/math.wasm
run -q rm --namespace "$(basename "$(dirname "$entry")")" wasm/math.wasm
verdict not-found explain wasm/math.wasm
want_text 'give --engine-id shared.id$'
# In a shared folder an entry of other settings lies in the very place.
verdict mismatched --engine-id shared.id --settings b explain wasm/math.wasm
want_text '^settings +b +-$'
want_json 'row["near"][0]["differs"] == [{"what": "settings", "ours": "b", "theirs": None}] and row["near"][0]["path"] == row["path"]'
agree mismatched --engine-id shared.id --settings b compile wasm/math.wasm
# What is written down there is of whoever was first: of others nothing is known.
run -q --engine-id shared.id --settings b compile wasm/trap.wasm
run -q --engine-id shared.id rm wasm/math.wasm
run -q --engine-id shared.id --settings b compile wasm/math.wasm
verdict mismatched --engine-id shared.id --settings c explain wasm/math.wasm
want_json '[d["what"] for d in row["near"][0]["differs"]] == ["fingerprint"] and row["near"][0]["unknown"]'
want_text '^saved for +not known: what is written down of its namespace is of another'
run clear --yes

case $ENGINE in
wasmtime) second=wasmer second_library=${WASMER_ROOT:-}/lib/libwasmer.so ;;
*) second=wasmtime second_library=${WASMTIME_ROOT:-}/lib/libwasmtime.so ;;
esac
if [ -e "$second_library" ]; then
	run -q --engine "$second" compile wasm/math.wasm
	verdict not-found explain wasm/math.wasm
	want_text "^engine +$ENGINE +$second$"
	want_text "give --engine $second$"
	want_json "{d['what']: d['theirs'] for d in row['near'][0]['differs']}['engine'] == '$second'"
	want_json '{"version", "probe", "build", "artifact version"} <= {d["what"] for d in row["near"][0]["differs"]}'
	run clear --yes
else
	left_out "an entry of another engine: there is none"
fi
stock=$root/stock/lib/lib$ENGINE.so
if [ -e "$stock" ]; then # the same version, and a library with another build id
	run -q --engine "$stock" compile wasm/math.wasm
	verdict not-found explain wasm/math.wasm
	want_json '"build" in {d["what"] for d in row["near"][0]["differs"]} and "version" not in {d["what"] for d in row["near"][0]["differs"]}'
	run clear --yes
fi

# Another processor, another version, another configuration of the host's: as another host would have written it down. The
# fingerprint goes along, in the name and in the file that tells what it is of.
run -q --settings x compile wasm/math.wasm
there=$(dirname "$(entries)")
# as NAME VALUE...: rewrites lines of the identity file; one without a value goes.
as() {
	python3 - "$there/.identity" "$@" <<-'PYTHON'
		import os, sys
		path, *changes = sys.argv[1:]
		lines = dict(line.split(": ", 1) for line in open(path).read().split("\n")[1:-1])
		lines.update(zip(changes[::2], changes[1::2]))
		os.unlink(path)
		with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
		    file.write("wasmcache identity 1\n" + "".join(f"{name}: {value}\n" for name, value in lines.items()))
		os.chmod(path, 0o400)
	PYTHON
}
as settings '' version 49.0.0
verdict not-found explain wasm/math.wasm
want_json '[(d["what"], d["theirs"]) for d in row["near"][0]["differs"]] == [("version", "49.0.0")]'
want_text '^advice +it was saved for version 49.0.0 of the engine'
cp "$there/.identity" kept
version=$(sed -n 's/^version: //p' "$there/.identity")
[ "$version" = 49.0.0 ] || bad "the version was not written"
run --json info wasm/math.wasm
as version "$(python3 - "$WASMCACHE" <<-'PYTHON'
	import os, re, subprocess, sys
	out = subprocess.run([sys.argv[1], "--cache-dir", os.environ["HOME"] + "/none", "explain", "wasm/math.wasm"], capture_output=True, text=True).stdout
	print(re.search(r"^engine +\w+ ([^,]+),", out, re.M).group(1))
PYTHON
)" cpu 00FF
verdict not-found explain wasm/math.wasm
want_json '[d["what"] for d in row["near"][0]["differs"]] == ["cpu"]'
want_text '^advice +it was saved on another kind of processor'
# One feature more or less, by name; and one that no engine looks at.
for change in 'words[7] ^= 1 << 16' 'words[9] ^= 1 << 31'; do
	cpu=$(sed -n 's/^cpu: //p' kept | python3 -c "
import struct, sys
raw = bytes.fromhex(sys.stdin.read())
if len(raw) == 52:
    words = list(struct.unpack('<13I', raw))
    $change
    print(struct.pack('<13I', *words).hex().upper())")
	if [ -z "$cpu" ]; then
		left_out "features of the processor by name: not an x86-64"
		break
	fi
	as cpu "$cpu"
	verdict not-found explain wasm/math.wasm
	want_json '[d["what"] for d in row["near"][0]["differs"]] == ["cpu"]'
	case $change in
	*16) want_json '" with avx512f" in json.dumps(row["near"][0]["differs"])' && want_json 'not re.search(r"[0-9A-F]{20}", json.dumps(row["near"][0]["differs"]))' ;;
	*) want_json 'all(re.fullmatch("[0-9A-F]{104}", row["near"][0]["differs"][0][who]) for who in ("ours", "theirs"))' ;;
	esac
done
# What cannot be used is said, and does no harm.
printf 'wasmcache identity 1\nsettings: \033[2J\n' >planted && chmod 400 planted && mv -f planted "$there/.identity"
verdict not-found explain wasm/math.wasm
want_text '^saved for +not known: .*/\.identity is damaged'
want_json '"damaged" in row["near"][0]["unknown"] and [d["what"] for d in row["near"][0]["differs"]] == ["fingerprint"]'
! LC_ALL=C grep -q "$(printf '\033')" text || bad "a control character came through"
cp kept "$there/.identity.new" && chmod 0666 "$there/.identity.new" && mv -f "$there/.identity.new" "$there/.identity"
verdict not-found explain wasm/math.wasm
want_text '^saved for +not known: .*/\.identity is not to be trusted'
rm -f "$there/.identity"
verdict not-found explain wasm/math.wasm
want_text '^saved for +not known: there is no .*/\.identity$'
# The next save there writes it anew.
run -q --settings x compile wasm/trap.wasm
[ -f "$there/.identity" ] || bad "the identity file was not written anew"
run clear --yes
[ -f "$there/.identity" ] || bad "clear took what is not an entry"
run --json ls
want_no_out

# ---- layers -------------------------------------------------------------------------------------

# below DIR ARGUMENT...: with DIR as the layer below the cache.
upper=$cache
layer=$tmp/layer
mkdir "$layer" && chmod 755 "$layer"
cache=$layer
fill
below=$entry
cache=$upper
explain_layers() {
	find "$layer" -printf '%p %i %m %s %T@ %C@\n' | sort >layer-before
	verdict "$@"
	find "$layer" -printf '%p %i %m %s %T@ %C@\n' | sort >layer-after
	cmp -s layer-before layer-after || bad "explain changed the layer"
}
explain_layers none --set "layers=$tmp/nowhere:$layer" explain wasm/math.wasm
want_text "^path +$below$"
want_text "^layer +it is in layer 2; in the cache's own directory: none$"
want_json "row['layer'] == 2 and row['path'] == '$below' and row['bad_layers'] == 0"
agree none --set "layers=$tmp/nowhere:$layer" compile wasm/math.wasm
want_json "row['path'] == '$below'"
[ -z "$(entries)" ] || bad "a hit in the layer was saved"
# Damaged in the cache's own directory: the layer has it yet, and that is what a get would take.
fill
spoil 'data[len(data) // 3] ^= 4'
explain_layers none --set "layers=$layer" explain wasm/math.wasm
want_text "^path +$below$"
want_text "^layer +it is in layer 1; in the cache's own directory: corrupt$"
rm -f "$entry"
# Damaged in the layer alone.
entry=$below
spoil 'data[len(data) // 3] ^= 4'
explain_layers not-found --set "layers=$layer" explain wasm/math.wasm
want_text "^layers +1 of the layers have an entry that cannot be used$"
want_json "row['bad_layers'] == 1 and row['layer'] == 0 and row['path'].startswith('$upper/')"
agree not-found --set "layers=$layer" compile wasm/math.wasm
run clear --yes

# ---- no cache ----------------------------------------------------------------------------------

WASMCACHE_DISABLE=1
export WASMCACHE_DISABLE
verdict cache-off explain wasm/math.wasm
want_text '^why +\$WASMCACHE_DISABLE is set$'
unset WASMCACHE_DISABLE
echo "not a directory" >file
kept_cache=$cache
cache=$tmp/file
verdict cache-off explain wasm/math.wasm
want_text "^why +.*$tmp/file"
want_text '^advice +wasmcache dir says'
cache=$kept_cache

# ---- several, folders, what cannot be read, usage ------------------------------------------------

run -q compile wasm/math.wasm wasm/trap.wasm
explain --json explain wasm/math.wasm wasm/trap.wasm
want_status 0
want_json '[r["verdict"] for r in rows] == ["hit", "hit"]'
explain --json explain wasm/math.wasm wasm/exit0.wasm wasm/none.wasm
want_status 1
want_json '[r["reason"] for r in rows] == ["none", "not-found", "source"] and rows[2]["key"] is None'
want_err '^wasmcache: cannot explain wasm/none.wasm: '
explain -q explain wasm/math.wasm
want_status 0
want_no_out
mkdir folder && cp wasm/math.wasm wasm/exit7.wasm folder
explain --json explain folder
want_status 1
want_json '[(r["file"], r["verdict"]) for r in rows] == [("folder/exit7.wasm", "miss"), ("folder/math.wasm", "hit")]'
mkdir empty
explain --json explain empty
want_status 1
want_json 'row["reason"] == "source"'
explain explain wasm/component.wasm
want_status 1
if [ "$ENGINE" = wasmer ]; then
	want_out '^miss: wasm/component.wasm: source$'
	want_out '^why +it is a component, and Wasmer has modules only$'
else
	want_out '^miss: wasm/component.wasm: not-found$'
	run -q compile wasm/component.wasm
	explain explain wasm/component.wasm
	want_status 0
fi
run explain
want_status 2
want_no_out
want_err 'explain: which files\?'
run explain --remove wasm/math.wasm
want_status 2
run help explain
want_status 0
want_out '^wasmcache explain: '
finish
