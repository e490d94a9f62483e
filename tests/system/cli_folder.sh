#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# compile with folders: several files at a time, in order, each module once; modes and bytes of a directory for an image,
# which then serves as a layer; signals.
. "$(dirname "$0")/cli_common.inc"
tiny

# vary FROM TO N: the same module with other bytes.
vary() {
	python3 - "$@" <<-'PYTHON'
		import sys
		body = b"\4vary" + int(sys.argv[3]).to_bytes(4, "little")
		open(sys.argv[2], "wb").write(open(sys.argv[1], "rb").read() + b"\0" + bytes([len(body)]) + body)
	PYTHON
}

mkdir -p plugins/a plugins/b outside more
for i in 1 2 3 4 5 6 7 8; do
	vary wasm/math.wasm "plugins/a/$i.wasm" "$i"
done
cp plugins/a/1.wasm plugins/b/same.wasm
cp plugins/a/2.wasm plugins/also-same.wasm
cp wasm/trap.wasm more/x.wasm
echo '(module)' >plugins/text.wat

# ---- order, and each module once ----

for jobs in 1 2 8; do
	rm -rf "$cache"
	run --json compile -j $jobs plugins more/x.wasm
	want_status 0
	want_no_err
	want_json '[r["file"] for r in rows] == ["plugins/a/%d.wasm" % i for i in range(1, 9)] + ["plugins/also-same.wasm", "plugins/b/same.wasm", "more/x.wasm"]'
	want_json '[r["outcome"] for r in rows].count("compiled") == 9 and all(r["outcome"] in ("compiled", "hit", "joined") for r in rows)'
	want_json 'rows[8]["key"] == rows[1]["key"] and rows[9]["key"] == rows[0]["key"] and all(os.path.exists(r["path"]) for r in rows)'
	[ "$(entries | wc -l)" -eq 9 ] || bad "9 entries wanted with -j $jobs"
done
run compile plugins/ more wasm/exit0.wasm
want_status 0
want_out '^1 compiled, 11 were there already, [0-9.]+ kB, [0-9.]+ m?s$'

# A folder without wasm, and one that does not compile, have their rows where they stand.
mkdir empty
echo text >plugins/b/bad.wasm
run --json compile more empty plugins/b wasm/math.wasm
want_status 1
want_json '[(r["file"], r["outcome"]) for r in rows] == [("more/x.wasm", "hit"), ("empty", "failed"), ("plugins/b/bad.wasm", "failed"), ("plugins/b/same.wasm", "hit"), ("wasm/math.wasm", "compiled")]'
run compile more empty plugins/b wasm/math.wasm
want_status 1
want_out '^0 compiled, 3 were there already, 2 failed, '
[ "$(wc -l <err)" -eq 2 ] || bad "a line for each failure wanted"
rm plugins/b/bad.wasm

# ---- links ----

cp wasm/exit7.wasm outside/secret.wasm
ln -s ../outside/secret.wasm plugins/out.wasm
ln -s "$tmp/outside" plugins/folder
ln -s a/3.wasm plugins/in.wasm
ln -s nowhere plugins/broken.wasm
run --json compile plugins
want_status 0
want_json '"plugins/in.wasm" in [r["file"] for r in rows] and not any("out" in r["file"] or "folder" in r["file"] or "broken" in r["file"] for r in rows)'
want_err '^wasmcache: plugins/out\.wasm is a link that leads out of the folder'
[ "$(wc -l <err)" -eq 1 ] || bad "one line for the link wanted"
run --json compile plugins/out.wasm plugins/folder
want_status 0
want_json '[r["file"] for r in rows] == ["plugins/out.wasm", "plugins/folder/secret.wasm"]'
rm plugins/out.wasm plugins/folder plugins/in.wasm plugins/broken.wasm

# ---- a directory for an image ----

if [ -e "${MODULES:-}/sqlite.wasm" ]; then
	cp "$MODULES/sqlite.wasm" plugins/b/large.wasm
fi
# All that somebody who packs it sees.
packed() {
	(cd "$1" && tar --sort=name --owner=0 --group=0 --numeric-owner -cf - .) | sha256sum
	(cd "$1" && find . -printf '%P %y %m %T@ %s\n' | sort)
}
for i in 1 2; do
	cache=$tmp/image$i
	SOURCE_DATE_EPOCH=1700000000
	export SOURCE_DATE_EPOCH
	if [ $i = 1 ]; then
		(umask 077 && run --json compile --readable -j 8 plugins more) || bad "a shell"
		run --json compile --readable plugins # hits leave nothing
		want_json 'all(r["outcome"] == "hit" for r in rows)'
	else
		sleep 1 # another second on the clock
		run --json compile --readable -j 1 more/x.wasm plugins/b plugins/also-same.wasm plugins/a
		want_status 0
	fi
	unset SOURCE_DATE_EPOCH
	packed "$cache" >"packed$i"
	command_line="packed$i"
	cp "packed$i" out
	[ -z "$(find "$cache" -name '.*' ! -path "$cache" ! -name .identity)" ] || bad "hidden files in a directory for an image"
	[ -z "$(find "$cache" -type d ! -perm 0755)" ] || bad "folders of another mode than 0755"
	[ -z "$(find "$cache" -name '*.bin' ! -perm 0444)" ] || bad "entries of another mode than 0444"
	[ -z "$(find "$cache" -newermt @1700000000 -o ! -newermt @1699999999)" ] || bad "another time"
done
cmp packed1 packed2 || bad "two runs give different directories"
diff -r image1 image2 || bad "two runs give different files"
[ "$(find image1 -name '*.bin' | wc -l)" -ge 9 ] || bad "entries are missing"
cache=$tmp/image1
SOURCE_DATE_EPOCH=yesterday run compile more
want_status 2
want_err 'SOURCE_DATE_EPOCH'
SOURCE_DATE_EPOCH=99999999999999999999 run compile more
want_status 2
SOURCE_DATE_EPOCH=-1 run compile more
want_status 2
cache=$tmp/private
SOURCE_DATE_EPOCH='' run compile more
want_status 0
[ -e "$cache/.tally-1" ] || bad "an empty variable is none"
# What was there keeps its mode, which is said.
run compile --readable plugins
want_status 0
want_err "^wasmcache: $cache was there already with mode 0700"

# ---- as a layer, of root or another, that nobody writes to ----

host=${TEST_BIN_DIR:-}/host_layer.$ENGINE
if [ -x "$host" ]; then
	files=$(find plugins more -name '*.wasm' | sort)
	count=$(echo "$files" | wc -l)
	command_line="host_layer"
	status=0
	traced=
	if command -v strace >/dev/null && strace -o /dev/null true 2>/dev/null; then
		traced="env ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 strace -f -y -o trace -e trace=file,desc"
	else
		left_out "the calls on a layer: there is no strace"
	fi
	chmod -R a-w image1
	find image1 -printf '%P %i %m %T@ %C@ %s\n' | sort >before
	# shellcheck disable=SC2086
	$traced "$host" "$tmp/own" "$tmp/image1" $files >out 2>err || bad "the host failed"
	[ "$(grep -c '^hit 1 0$' out)" -eq "$count" ] || bad "$count hits in the layer wanted, and nothing saved"
	find image1 -printf '%P %i %m %T@ %C@ %s\n' | sort | cmp - before || bad "the layer was changed"
	[ -z "$(find own -name '*.bin' 2>/dev/null)" ] || bad "hits were copied"
	if [ -n "$traced" ]; then
		grep -q "image1/.*\.bin" trace || bad "the trace shows no entry of the layer"
		# Calls that write, by path or by a descriptor (-y shows its path), and opens that could.
		grep -E '(^| )(write|pwrite64|writev|ftruncate|truncate|fallocate|mkdir|mkdirat|unlink|unlinkat|rename[a-z0-9]*|link|linkat|symlink|symlinkat|f?chmod|fchmodat|f?chown|fchownat|utimensat|fsetxattr|setxattr|open|openat|openat2|creat)\(' trace |
			grep -F "$tmp/image1" | grep -Ev '(open|openat|openat2)\([^)]*O_RDONLY|openat2?\([^)]*O_PATH' >writes
		[ ! -s writes ] || {
			cp writes out
			bad "calls that write to the layer"
		}
	fi
	if [ "$(id -u)" -eq 0 ] && command -v setpriv >/dev/null; then
		# The build and the engine may lie where only we can read.
		chmod 755 "$tmp" && mkdir -m 777 others && chmod -R a+rX plugins more
		mkdir lib && cp "$host" "$library" "${WASMCACHE_BINARY_DIR:?}"/src/libwasmcache.so.* lib && chmod -R a+rX lib
		# shellcheck disable=SC2086
		HOME=$tmp/others LD_LIBRARY_PATH=$tmp/lib setpriv --reuid=65534 --regid=65534 --clear-groups \
			"lib/${host##*/}" "$tmp/others/own" "$tmp/image1" $files >out 2>err || bad "the host of another user failed"
		[ "$(grep -c '^hit 1 0$' out)" -eq "$count" ] || bad "$count hits of another user wanted"
	else
		left_out "another user: we are not root"
	fi
	chmod -R u+w image1
else
	left_out "the layer: there is no $host"
fi

# ---- signals ----

if [ ! -e "${MODULES:-}/boolector.wasm" ]; then
	left_out "signals: no boolector.wasm in MODULES"
	finish
fi
cache=$tmp/stopped
mkdir slow
for i in 1 2 3 4 5 6; do
	vary "$MODULES/boolector.wasm" "slow/$i.wasm" "$i"
done
# The signal comes when an entry is there, so that something is done, something begun and something not.
# stop SIGNAL OPTION...: starts, sends, and has the return code of Popen in $status, how long the end took in ./took.
stop() {
	command_line="wasmcache $*, stopped"
	python3 - "$WASMCACHE" --cache-dir "$cache" "$@" <<-'PYTHON'
		import glob, os, signal, subprocess, sys, time
		number = getattr(signal, os.environ["SIGNAL"])
		with open("out", "wb") as out, open("err", "wb") as err:
		    tool = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
		    while tool.poll() is None and not glob.glob(sys.argv[3] + "/*/*.bin"):
		        time.sleep(0.01)
		    began = time.monotonic()
		    tool.send_signal(number)
		    code = tool.wait()
		open("took", "w").write(f"{(time.monotonic() - began) * 1000:.0f}")
		sys.exit(128 - code if code < 0 else code)
	PYTHON
	status=$?
}
SIGNAL=SIGINT
export SIGNAL
stop --json compile -j 2 slow
want_status 130
want_err '^wasmcache: stopped by a signal: [1-5] of 6 files are done$'
[ "$(wc -l <err)" -eq 1 ] || bad "nothing else is to be said"
done=$(wc -l <out)
want_json '0 < len(rows) < 6 and all(r["outcome"] == "compiled" and os.path.exists(r["path"]) for r in rows)'
[ "$(entries | wc -l)" -eq "$done" ] || bad "a row for each entry wanted"
[ -z "$(find "$cache" -name '.*' ! -name '.lock' ! -name '.tally-*' ! -name '.hints-*' ! -name .identity)" ] || bad "temporary files are left"
# It does not wait for the engine, which has some seconds to go; a save takes milliseconds.
[ "$(cat took)" -lt 2000 ] || bad "it took $(cat took) ms to stop"
run verify
want_status 0
before=$done
SIGNAL=SIGTERM
rm -rf "$cache"
stop compile -j 2 slow
want_status 143
want_out '^[1-5] compiled, [1-5] not done, '
done=$(entries | wc -l)
[ "$(grep -c '^slow/[1-6]\.wasm *compiled' out)" -eq "$done" ] || bad "a line for each entry wanted"
run --json compile slow
want_status 0
want_json "len(rows) == 6 and [r['outcome'] for r in rows].count('hit') == $done"
[ "$before" -gt 0 ] || bad "nothing was done before the signal"

# Who waits for another process stops too, and that one goes on.
cache=$tmp/waiting
python3 - "$WASMCACHE" --cache-dir "$cache" -v compile slow/1.wasm <<-'PYTHON'
	import signal, subprocess, sys, time
	leader = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
	for line in leader.stderr:
	    if b"miss" in line:
	        break
	waiter = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
	for line in waiter.stderr:
	    if b"wait" in line:
	        break
	began = time.monotonic()
	waiter.send_signal(signal.SIGINT)
	code, took = waiter.wait(), time.monotonic() - began
	leader.stderr.read()
	open("out", "w").write(f"{code} {took:.3f} {leader.wait()}\n")
PYTHON
command_line="two processes, the one that waits is stopped"
grep -Eq '^-2 0\.[0-9]+ 0$' out || bad "the one that waits ends at once by the signal, the other goes on"
[ "$(entries | wc -l)" -eq 1 ] || bad "one entry wanted"
finish
