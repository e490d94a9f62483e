#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# Settings: where they come from, that they take effect, and what is wrong with them.
# no-tsan: the tool has one thread here, and takes minutes
. "$(dirname "$0")/cli_common.inc"
tiny
root_uid=$(id -u)
default=$HOME/.config/wasmcache/config
mkdir -p "$HOME/.config/wasmcache"

# write FILE LINE...
write() {
	file=$1
	shift
	printf '%s\n' "$@" >"$file"
	chmod 644 "$file"
}
# value NAME: a Python expression for its row.
of() { printf '[r for r in rows if r.get("setting") == "%s"][0]' "$1"; }
# want_setting NAME VALUE ORIGIN: VALUE in Python
want_setting() {
	want_json "$(of "$1")['value'] == $2 and $(of "$1")['origin'] == '$3'"
}

# ---- what holds without any ---------------------------------------------------------------------

run_plain --json config
want_status 0
want_no_err
want_json "len(rows) == 16 and [r['setting'] for r in rows if r.get('origin') not in ('default', None)] == ['engine']"
want_setting dir "'$HOME/.cache/wasmcache'" default
want_setting max_bytes 5368709120 default
want_setting max_entries "'unlimited'" default
want_setting wait 60 default
want_setting layers "[]" default
want_setting engine "'$ENGINE'" environment
want_json "rows[-1] == {'file': '$default', 'read': False}"
run_plain config
want_out "^engine +$ENGINE +\\\$WASMCACHE_ENGINE\$"
want_out "^max_bytes +5 GiB +default$"
want_out "^settings file: $default \(there is none\)$"
run_plain -v config
want_out 'WHAT IT IS'

# ---- the later of file, environment and option wins, for each setting ---------------------------

write "$default" '[cache]' 'dir = ~/a' 'layers = /l1:~/l2' 'layers = /l3' 'share = readable' 'verify = always' \
	'durable = yes' 'legacy = on' 'wait = 5m' '' '# a comment' '[limits]' '  max_bytes = 2 GiB ; and another' \
	'	max_entries = 10' 'max_age = 30d' 'max_disk_percent = 50%' 'evict_after = 2s' '[engine]' "engine = $ENGINE" \
	'settings =' 'engine_id = one'
(
	unset WASMCACHE_ENGINE
	run_plain --json config
	echo "$status" >status
)
status=$(cat status)
want_status 0
want_setting dir "'$HOME/a'" file
want_setting layers "['/l1', '$HOME/l2', '/l3']" file
want_setting share "'readable'" file
want_setting verify "'always'" file
want_setting durable True file
want_setting legacy True file
want_setting wait 300 file
want_setting max_bytes 2147483648 file
want_setting max_entries 10 file
want_setting max_age 2592000 file
want_setting max_disk_percent 50 file
want_setting evict_after 2 file
want_setting engine "'$ENGINE'" file
want_setting settings "''" file
want_setting engine_id "'one'" file
want_json "$(of max_bytes)['from'] == '$default:13' and $(of layers)['from'] == '$default:4'"
# its name, value in the environment and what it is, value of the option and what it is
while read -r setting variable inside option beyond; do
	env "WASMCACHE_$(echo "$setting" | tr a-z A-Z)=$variable" "$WASMCACHE" --json config >out 2>err
	status=$?
	command_line="config with $setting=$variable"
	want_status 0
	want_setting "$setting" "$inside" environment
	env "WASMCACHE_$(echo "$setting" | tr a-z A-Z)=$variable" "$WASMCACHE" --json --set "$setting=$option" config >out 2>err
	status=$?
	want_status 0
	want_setting "$setting" "$beyond" option
done <<-END
	dir /e '/e' o 'o'
	layers /e:f ['/e','f'] /o ['/o']
	share group 'group' private 'private'
	verify never 'never' once 'once'
	durable no False yes True
	legacy 0 False 1 True
	wait none 0 unlimited 'unlimited'
	max_bytes 3k 3000 1Ki 1024
	max_entries 7 7 unlimited 'unlimited'
	max_age 2w 1209600 1s 1
	max_disk_percent 9 9 100 100
	evict_after 1h 3600 1m 60
	settings x 'x' y=z 'y=z'
	engine_id e 'e' o 'o'
END
# Options that are one by themselves.
run_plain --json --cache-dir x --engine "$ENGINE" --settings s --engine-id i --legacy --durable config
want_status 0
want_json "{r['from'] for r in rows if r.get('origin') == 'option'} == {'--cache-dir', '--engine', '--settings', '--engine-id', '--legacy', '--durable'}"
run_plain --durable --set durable=no --json config
want_setting durable False option
# Other files.
write other '[limits]' 'max_bytes = 1k'
run_plain config --json --config other
want_setting max_bytes 1000 file
want_setting dir "'$HOME/.cache/wasmcache'" default
WASMCACHE_CONFIG=other run_plain config --json
want_setting max_bytes 1000 file
write third '[limits]' 'max_bytes = 3k'
WASMCACHE_CONFIG=other run_plain config --json --config third
want_setting max_bytes 3000 file
mkdir -p xdg/wasmcache
write xdg/wasmcache/config '[limits]' 'max_bytes = 4k'
XDG_CONFIG_HOME=$tmp/xdg run_plain config --json
want_setting max_bytes 4000 file
XDG_CONFIG_HOME=xdg run_plain config --json
want_setting max_bytes 2147483648 file
run_plain --config /dev/null config --json
want_setting max_bytes 5368709120 default
# A byte order mark and the line ends of others are no fault.
printf '\357\273\277[limits]\r\nmax_bytes = 5k\r\n' >marked
run_plain --config marked config --json
want_status 0
want_setting max_bytes 5000 file
rm "$default"

# ---- they take effect ---------------------------------------------------------------------------

# The directory, and who else may load.
write set '[cache]' "dir = $tmp/from-file" 'share = readable'
run_plain --config set --json compile wasm/math.wasm
want_status 0
want_json "row['outcome'] == 'compiled' and row['path'].startswith('$tmp/from-file/')"
entry=$(find from-file -name '*.bin')
[ "$(stat -c %a from-file "$(dirname "$entry")" "$entry" | tr '\n' ' ')" = '755 755 444 ' ] || bad "modes of a readable cache"
run --json compile wasm/math.wasm
[ "$(stat -c %a "$(entries)")" = 400 ] || bad "mode of a private entry"

# A layer is asked when the directory has nothing, and nothing is written there.
ls -lRi --time-style=full-iso from-file >before
cache=$tmp/above
run --json --set "layers=$tmp/nowhere:$tmp/from-file" compile wasm/math.wasm wasm/trap.wasm
want_status 0
want_json "[r['outcome'] for r in rows] == ['hit', 'compiled'] and rows[0]['path'] == '$tmp/$entry'"
want_json "rows[1]['path'].startswith('$tmp/above/')"
[ "$(entries | wc -l)" -eq 1 ] || bad "only what the layer has not is saved"
ls -lRi --time-style=full-iso from-file >after
cmp -s before after || bad "something was written to the layer"
cache=$tmp/cache

# Engine, settings and id.
write set '[engine]' "engine = $library" 'engine_id = theirs'
(
	unset WASMCACHE_ENGINE
	run --config set --json compile wasm/math.wasm
	echo "$status" >status
)
status=$(cat status)
want_status 0
want_json "row['engine'] == '$ENGINE' and row['namespace'].startswith('theirs-v') and row['outcome'] == 'compiled'"
write set '[engine]' 'settings = metered'
run --config set --json compile wasm/math.wasm
want_json "row['outcome'] == 'compiled'"
run --settings metered --json compile wasm/math.wasm
want_json "row['outcome'] == 'hit'"
run --json compile wasm/math.wasm
want_json "row['outcome'] == 'hit'"
WASMCACHE_SETTINGS=other run --json compile wasm/math.wasm
want_json "row['outcome'] == 'compiled'"

# Limits.
cache=$tmp/limits
run --set max_bytes=100 --json compile wasm/math.wasm
want_status 0
want_json "row['outcome'] == 'compiled' and row['save_error'] == 'full' and row['path'] is None"
run --set max_bytes=unlimited -q compile wasm/math.wasm wasm/trap.wasm wasm/exit0.wasm
WASMCACHE_MAX_ENTRIES=1 run prune
want_out '^0 entries removed; 3 left'
sleep 1.1
WASMCACHE_MAX_ENTRIES=2 run --set evict_after=1s prune
want_out '^1 entry removed.*; 2 left'
sleep 1.1
run --set evict_after=1s --set max_entries=1 -q compile wasm/exit7.wasm
[ "$(entries | wc -l)" -eq 1 ] || bad "a save evicts when there are too many"
sleep 2.1
run --set evict_after=1s --set max_age=1h prune
want_out '^0 entries removed'
run --set evict_after=1s --set max_age=1s prune
want_out '^1 entry removed'
if [ "$root_uid" -eq 0 ] && mkdir small && mount -t tmpfs -o size=1m none small 2>/dev/null; then
	cache=$tmp/small/cache
	run --set max_disk_percent=1 --set evict_after=1s -q compile wasm/math.wasm
	sleep 1.1
	for f in trap exit0 exit7; do
		run --set max_disk_percent=1 --set evict_after=1s -q compile wasm/$f.wasm
		sleep 1.1
	done
	with=$(entries | wc -l)
	run -q compile wasm/math.wasm wasm/trap.wasm wasm/exit0.wasm wasm/exit7.wasm
	[ "$with" -lt 4 ] && [ "$(entries | wc -l)" -eq 4 ] || bad "max_disk_percent: $with of 4 entries with 1 %"
	umount small
else
	left_out "a share of the disk: no tmpfs can be mounted"
fi

# How long to wait for another that compiles the same: here one that never ends.
cache=$tmp/waits
run -q compile wasm/math.wasm
python3 -c '
import fcntl, struct, sys, time
f = open(sys.argv[1], "r+b")
fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 4096, 0, 0))
open("held", "w").close()
time.sleep(60)' "$(dirname "$(entries)")/.lock" &
holder=$!
while [ ! -e held ]; do sleep 0.05; done
run -v --set wait=none --json compile wasm/trap.wasm
want_status 0
want_json "row['outcome'] == 'compiled'"
! grep -q '^wasmcache: wait' err || bad "it waited"
run -v --set wait=1s --json compile wasm/exit0.wasm
want_json "row['outcome'] == 'compiled' and 1000 < row['total_ms'] < 20000"
want_err '^wasmcache: wait'
WASMCACHE_WAIT=none run -v run --invoke add wasm/math.wasm 1 2
! grep -q '^wasmcache: wait' err || bad "it waited"
kill $holder
wait $holder 2>/dev/null

# Durable: each new entry and its folder are synced.
if command -v strace >/dev/null && strace -o /dev/null true 2>/dev/null; then
	for durable in yes no; do
		command_line="durable=$durable"
		ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 strace -f -o trace -e trace=fdatasync,fsync "$WASMCACHE" --cache-dir "sync-$durable" --set durable=$durable -q compile wasm/math.wasm >out 2>err
		status=$?
		want_status 0
		grep -q 'fdatasync(' trace && found=yes || found=no
		[ $found = $durable ] || bad "fdatasync: $found"
	done
else
	left_out "syncs: no strace"
fi

# When digests are compared. A zero between the parts of Wasmtime's artifact is none of its code.
cache=$tmp/digests
run -q compile wasm/math.wasm
entry=$(entries)
if [ "$ENGINE" = wasmtime ]; then
	chmod u+w "$entry"
	python3 - "$entry" <<-'PYTHON'
		import sys
		data = bytearray(open(sys.argv[1], "rb").read())
		at = data.index(bytes(1024)) + 512
		data[at] = 1
		open(sys.argv[1], "r+b").write(data)
	PYTHON
	chmod u-w "$entry"
	WASMCACHE_VERIFY=never run --json compile wasm/math.wasm
	want_json "row['outcome'] == 'hit'"
	WASMCACHE_VERIFY=always run --json compile wasm/math.wasm
	want_json "row['outcome'] == 'compiled' and row['reason'] == 'corrupt'"
else
	left_out "verify: which bytes of its artifact are nothing is not known"
fi
# Old entries are a file without an end.
chmod u+w "$entry"
python3 - "$entry" <<-'PYTHON'
	import struct, sys
	data = open(sys.argv[1], "rb").read()
	size = struct.unpack("<Q", data[-416 + 16:-416 + 24])[0]
	f = open(sys.argv[1], "r+b")
	f.truncate(size)
PYTHON
chmod u-w "$entry"
run --set legacy=yes --json compile wasm/math.wasm
want_json "row['outcome'] == 'hit'"
run --json compile wasm/math.wasm
want_json "row['reason'] == 'corrupt'"

# ---- what is wrong ------------------------------------------------------------------------------

cache=$tmp/untouched
# wrong ERROR LINE...: of a file. Status 2, nothing done, FILE:LINE: ERROR.
wrong() {
	error=$1
	shift
	write bad "$@"
	for c in $commands; do
		run --config bad "$c" ${operand:-}
		want_status 2
		want_no_out
		want_err "$error"
	done
	[ ! -e "$cache" ] || bad "something was done"
}
commands="compile info rm" operand=wasm/math.wasm
wrong '^wasmcache: bad:2: there is no setting "max_byte" \(is "max_bytes" meant\?\)' '[limits]' 'max_byte = 1'
commands="ls verify dir doctor prune stats" operand=''
wrong '^wasmcache: bad:2: there is no setting "max_byte" \(is "max_bytes" meant\?\)' '[limits]' 'max_byte = 1'
commands=config
wrong '^wasmcache: bad:2: there is no setting "MAX-BYTES" \(is "max_bytes" meant\?\)' '[limits]' 'MAX-BYTES = 1'
wrong '^wasmcache: bad:2: there is no setting "colour"; ' '[limits]' 'colour = 1'
wrong '^wasmcache: bad:3: there is no section \[limit\] \(is "limits" meant\?\)' '' '' '[limit]'
wrong '^wasmcache: bad:1: max_bytes belongs below \[limits\], and is above all sections' 'max_bytes = 1'
wrong '^wasmcache: bad:2: max_bytes belongs below \[limits\], and is below \[cache\]' '[cache]' 'max_bytes = 1'
wrong '^wasmcache: bad:4: max_bytes is set in line 2 already' '[limits]' 'max_bytes = 1' '[limits]' 'max_bytes = 2'
wrong '^wasmcache: bad:2: this is neither' '[limits]' 'max_bytes'
wrong '^wasmcache: bad:1: there is no \]' '[limits' 'max_bytes = 1'
wrong '^wasmcache: bad:1: there is more behind \[limits\]' '[limits] max_bytes = 1'
wrong '^wasmcache: bad:2: max_bytes: "many" is no size such as 500M' '[limits]' 'max_bytes = many'
wrong '^wasmcache: bad:2: max_bytes: "0" is no size' '[limits]' 'max_bytes = 0'
wrong '^wasmcache: bad:2: max_bytes: "" is no size' '[limits]' 'max_bytes ='
wrong '^wasmcache: bad:2: max_bytes: "1G # one" is no size' '[limits]' 'max_bytes = 1G # one'
wrong '^wasmcache: bad:2: max_age: "30" is no time' '[limits]' 'max_age = 30'
wrong '^wasmcache: bad:2: max_disk_percent: "101" is no number' '[limits]' 'max_disk_percent = 101'
wrong '^wasmcache: bad:2: wait: "never" is no time' '[cache]' 'wait = never'
wrong '^wasmcache: bad:2: share: "readble" is none of private, readable, group \(is "readable" meant\?\)' '[cache]' 'share = readble'
wrong '^wasmcache: bad:2: durable: "maybe" is no switch' '[cache]' 'durable = maybe'
wrong '^wasmcache: bad:2: dir: "relative" is no path that begins with / or ~/' '[cache]' 'dir = relative'
wrong '^wasmcache: bad:2: layers: an empty path' '[cache]' 'layers = /a::/b'
wrong '^wasmcache: bad:2: layers: "b" is no path' '[cache]' 'layers = /a:b'
wrong '^wasmcache: bad:2: layers: more than 16' '[cache]' 'layers = /:/:/:/:/:/:/:/:/:/:/:/:/:/:/:/:/'
wrong '^wasmcache: bad:2: engine: this tool was built without an engine "v8"' '[engine]' 'engine = v8'
wrong '^wasmcache: bad:3: the line is longer than' '[engine]' '# x' "settings = $(printf '%0500d' 0)"
# A wrong line does not mislead who reads the next.
wrong '^wasmcache: bad:2: layers: an empty path' '[cache]' 'layers = /a::/b' 'layers = /c'
# Blanks of any kind, and marks in front, hide nothing.
wrong '^wasmcache: bad:1: there is no section \[cahce\]' "$(printf '\f[cahce]')" 'dir = relative'
wrong '^wasmcache: bad:1: there is no section \[cahce\]' "$(printf ' \357\273\277\357\273\277[cahce]')" 'dir = relative'
wrong '^wasmcache: bad:3: this is neither' '[cache]' 'layers = /a' "$(printf '\v/b')"
# Each of several is told.
wrong '^wasmcache: bad:3: max_age' '[limits]' 'max_bytes = x' 'max_age = y'
want_err '^wasmcache: bad:2: max_bytes'
# Also what an option overrides is to be right.
run --config bad --set max_bytes=1k --set max_age=1d config
want_status 2
# The environment and options.
WASMCACHE_MAX_BYTES=x run ls
want_status 2
want_err '^wasmcache: \$WASMCACHE_MAX_BYTES: "x" is no size'
for set in max_bytes=x max_bites=1 max_bytes =1 dir= layers=: "wait= "; do
	run --set "$set" ls
	want_status 2
	want_no_out
	want_err "^wasmcache: --set"
done
run --set max_bites=1 ls
want_err 'there is no setting "max_bites" \(is "max_bytes" meant\?\)'
run --config
want_status 2
run --config= ls
want_status 2
run config x
want_status 2
# Help and versions do not mind.
run_plain --config bad --help
want_status 0
run_plain --config bad help config
want_status 0

# Files that are not there, or are none.
for how in "--config $tmp/none" WASMCACHE_CONFIG; do
	case $how in
	--*) run $how ls ;;
	*) WASMCACHE_CONFIG=$tmp/none run ls ;;
	esac
	want_status 2
	want_err "^wasmcache: cannot read the settings file $tmp/none: No such file or directory; it is named by (--config|\\\$WASMCACHE_CONFIG)$"
done
mkfifo fifo
run --config fifo ls
want_status 2
want_err 'cannot read the settings file fifo: it is no regular file'
run --config wasm ls
want_status 2
printf '[limits]\0\n' >zero
run --config zero ls
want_status 2
want_err 'zero: it is no text'
python3 -c 'print("#" * 70000)' >large
run --config large ls
want_status 2
want_err 'large: it has more than 64 KiB'
# Files that others may write to.
write open '[limits]' 'max_bytes = 1k'
for mode in 666 664 646; do
	chmod $mode open
	run --config open ls
	want_status 2
	want_err "^wasmcache: the settings file open is refused: others may write to it \(owner $root_uid, mode 0$mode\)"
done
cp -p open "$default"
run ls
want_status 2
want_err "^wasmcache: the settings file $default is refused"
rm "$default"

# ---- a guest must not reach what says which code is run -----------------------------------------

mkdir -p conf layer guest
write conf/c '[limits]' 'max_bytes = 1M'
cache=$tmp/apart/cache
run --config conf/c run --dir conf wasm/exit0.wasm
want_status 1
want_err '^wasmcache: cannot give conf to the program: the folder of the settings file, conf is in it or around it'
run --set "layers=$tmp/layer" run --dir layer wasm/exit0.wasm
want_status 1
want_err "^wasmcache: cannot give layer to the program: the layer $tmp/layer is in it or around it"
run run --dir "$HOME" wasm/exit0.wasm
want_status 1
want_err 'settings file'
run --config conf/c --set "layers=$tmp/layer" run --dir guest --invoke add wasm/math.wasm 1 2
want_status 0

# ---- other users --------------------------------------------------------------------------------

if [ "$root_uid" -eq 0 ] && command -v setpriv >/dev/null; then
	cp "$WASMCACHE" tool
	chmod 755 "$tmp" tool
	write theirs '[limits]' 'max_bytes = 1k'
	chown 65534 theirs
	run --config theirs ls
	want_status 2
	want_err '^wasmcache: the settings file theirs is refused: it belongs to user 65534'
	PREFIX="setpriv --reuid 65534 --regid 65534 --clear-groups --"
	WASMCACHE=$tmp/tool
	if $PREFIX "$WASMCACHE" --version >/dev/null 2>&1; then
		run_plain --config theirs --json config
		want_status 0
		want_setting max_bytes 1000 file
		# root's
		run_plain --config other --json config
		want_status 0
		want_setting max_bytes 1000 file
		# A home that cannot be read is no reason to stop; it is told.
		mkdir -p closed/.config
		chmod 700 closed
		HOME=$tmp/closed run_plain --json config
		want_status 0
		want_err "^wasmcache: going on without the settings file $tmp/closed/.config/wasmcache/config: Permission denied"
		want_setting max_bytes 5368709120 default

		# With more rights than its caller it reads neither environment nor file.
		cp tool secure
		chmod 4755 secure
		WASMCACHE=$tmp/secure
		chown 65534 "$HOME"
		write "$default" '[limits]' 'max_bytes = 6k'
		WASMCACHE_CONFIG=$tmp/other WASMCACHE_MAX_AGE=1h run_plain --json config
		want_status 0
		want_json "not [r for r in rows if r.get('origin') not in ('default', None)] and rows[-1]['file'] is None"
		run_plain --config other --json config
		want_status 2
		want_no_out
		want_err '^wasmcache: --config: the tool runs with more rights than its caller'
	else
		left_out "other users: an ordinary user cannot run the tool from $tmp"
	fi
else
	left_out "other users: only root can be one"
fi

finish
