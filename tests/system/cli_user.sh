#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# As an ordinary user, whom the system refuses things: unreadable files and entries, a cache that is off or read-only.
. "$(dirname "$0")/cli_common.inc"
tiny

if [ "$(id -u)" -eq 0 ]; then
	command -v setpriv >/dev/null || skip "no setpriv to become an ordinary user with"
	# Copies where that user can reach them.
	mkdir -p engine/lib
	cp "$WASMCACHE" tool
	cp -L "$library" engine/lib/
	WASMCACHE=$tmp/tool
	export "$variable=$tmp/engine"
	mkdir user
	chown 65534:65534 user home
	chmod 755 "$tmp"
	chmod -R a+rX wasm engine tool
	PREFIX="setpriv --reuid 65534 --regid 65534 --clear-groups --"
	$PREFIX "$WASMCACHE" --version >/dev/null 2>&1 || skip "an ordinary user cannot run the tool from $tmp"
else
	mkdir user
fi
cache=$tmp/user/cache
# explained REASON FILE: what explain says of the cache as it is now.
explained() {
	run --json explain "$2"
	case $1 in none) want_status 0 ;; *) want_status 1 ;; esac
	want_json "len(rows) == 1 and row['reason'] == '$1'"
}

run compile wasm/math.wasm wasm/trap.wasm
want_status 0
run --json compile wasm/math.wasm
want_json 'row["outcome"] == "hit" and row["path"].startswith(os.getcwd() + "/user/cache/")'
path=$(python3 -c 'import json; print(json.loads(open("out").readline())["path"])')

# A wasm file that must not be read.
cp wasm/exit0.wasm secret.wasm
chmod 000 secret.wasm
run --json compile secret.wasm wasm/math.wasm
want_status 1
want_err '^wasmcache: cannot compile secret.wasm: .*Permission denied'
want_json '[r["outcome"] for r in rows] == ["failed", "hit"] and rows[0]["reason"] == "source" and "ermission" in rows[0]["error"]'
run info secret.wasm
want_status 1
mkdir -p folder/closed
cp wasm/exit0.wasm folder/
chmod 000 folder/closed
run --json compile folder
want_status 1
want_json 'len(rows) == 2 and {r["outcome"] for r in rows} == {"failed", "compiled"}'
want_json 'set(rows[1]) | {"error"} == set(row) and row["error"] == "Permission denied"'
chmod 755 folder/closed

# An entry that cannot be read: 4; removed by nobody.
chmod 000 "$path"
run --json verify
want_status 4
want_json 'rows[-1]["unreadable"] == 1 and [r["error"] for r in rows if r.get("state") == "unreadable"] == ["Permission denied"]'
[ -e "$path" ] || bad "an unreadable entry was removed"
explained unreadable wasm/math.wasm
want_json "row['path'] == '$path' and 'ermission denied' in row['why'] and '$path' in row['why']"
run --json compile wasm/math.wasm
want_status 0
want_json 'row["outcome"] == "compiled" and row["reason"] == "unreadable"'
chmod 400 "$path"

# A cache that must not be written: hits go on, and nothing fails.
chmod 500 "$cache" "$(dirname "$path")"
run --json compile wasm/trap.wasm wasm/exit7.wasm
want_status 0
want_json '[r["outcome"] for r in rows] == ["hit", "compiled"]'
want_json 'rows[1]["save_error"] and rows[1]["path"] is None'
want_err '^wasmcache: compiled wasm/exit7.wasm, but it is not saved: cannot '
want_json 'open("err").read().endswith(" not saved: " + rows[1]["save_message"] + "\n")'
run -v dir
want_status 0
chmod 700 "$cache" "$(dirname "$path")"

# A cache that cannot be used: one warning, and the work is done.
mkdir closed
chmod 700 closed
chown 0:0 closed 2>/dev/null
[ "$(id -u)" -eq 0 ] || chmod 000 closed
cache=$tmp/closed/cache
run --json compile wasm/trap.wasm wasm/exit7.wasm
want_status 0
want_json 'all(r["outcome"] == "compiled" and r["reason"] == "cache-off" and r["path"] is None for r in rows)'
[ "$(grep -c 'the cache is off' err)" -eq 1 ] || bad "one warning wanted"
[ "$(wc -l <err)" -eq 1 ] || bad "and nothing else"
explained cache-off wasm/trap.wasm
want_json 'row["why"] and row["path"] is None and row["near"] == []'
want_no_err
run -q run --invoke add wasm/math.wasm 1 2
want_status 0
want_out '^3$'
want_no_err
for c in ls verify "clear --yes" "info wasm/trap.wasm" "rm wasm/trap.wasm"; do
	# shellcheck disable=SC2086
	run $c
	# To verify, 1 would be a corrupt entry.
	case $c in verify) want_status 4 ;; *) want_status 1 ;; esac
	want_no_out
	want_err "^wasmcache: the cache is off: .*$tmp/closed"
done
run --json dir
want_status 1
want_json 'row["state"] == "off" and row["message"] and row["error"]'
run -v dir
want_status 1
want_out '^state +off$'
[ "$(cat out err | grep -c 'ermission denied')" -eq 1 ] || bad "the reason wanted once"
want_err '^wasmcache: the cache is off: .*ermission denied'

# One that is not to be trusted: all may write to it, and our folder in it is a link.
uid=$(id -u)
[ "$uid" -ne 0 ] || uid=65534
mkdir shared
chmod 777 shared
ln -s "$tmp/user" "shared/u$uid"
cache=$tmp/shared
run verify
want_status 2
want_no_out
want_err '^wasmcache: the cache is off: '
run --json dir
want_json 'row["state"] == "off" and row["error"] == "untrusted"'
explained cache-off wasm/trap.wasm

# Somebody else's directory that everybody may write to: one of our own in it.
if [ "$(id -u)" -eq 0 ]; then
	mkdir open
	chmod 0777 open
	cache=$tmp/open
	run --json compile wasm/trap.wasm
	want_json 'row["path"].startswith(os.getcwd() + "/open/u65534/")'
	explained none wasm/trap.wasm
	want_json 'row["path"].startswith(os.getcwd() + "/open/u65534/")'
	run dir
	want_out "^$tmp/open/u65534$"
	run run --dir "$tmp/open/u65534" wasm/create.wasm
	want_status 1
	want_err "$tmp/open/u65534"
fi
# One that is missing and cannot be made: a get would find it off, not merely empty.
if [ "$(id -u)" -eq 0 ]; then
	mkdir -m 755 rooted
	cache=$tmp/rooted/cache
	explained cache-off wasm/trap.wasm
	run --json compile wasm/trap.wasm
	want_json 'row["reason"] == "cache-off"'
fi
# A tool with more rights than its caller asks neither the environment nor the caller what code to run.
if [ "$(id -u)" -eq 0 ]; then
	plain=$WASMCACHE
	cp "$plain" secure
	chmod 4755 secure
	WASMCACHE=$tmp/secure
	mkdir evil
	chmod 777 evil
	WASMCACHE_DIR=$tmp/evil XDG_CACHE_HOME=$tmp/evil HOME=$tmp/evil run_plain dir
	if [ "$(WASMCACHE_DIR=$tmp/evil $PREFIX "$plain" dir)" != "$tmp/evil/u65534" ]; then
		bad "without more rights the environment counts"
	elif grep -q "$tmp/evil" out; then
		bad "the environment chose the cache of a tool with more rights"
	fi
	run --engine "./engine/lib/lib$ENGINE.so" compile wasm/exit0.wasm
	want_status 1
	want_err 'more rights than its caller'
	WASMCACHE_ENGINE=$tmp/engine/lib/lib$ENGINE.so WASMTIME_ROOT=$tmp/nowhere WASMER_ROOT=$tmp/nowhere run compile wasm/exit0.wasm
	! grep -q "$tmp/nowhere" err || bad "the environment chose the engine of a tool with more rights"
	WASMCACHE=$plain
fi

finish
