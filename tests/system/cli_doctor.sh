#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# doctor: what it finds in good caches and in bad ones, and that it changes nothing.
# no-tsan: the tool has one thread here, and takes minutes
. "$(dirname "$0")/cli_common.inc"
tiny
root_uid=$(id -u)

# want_check STATE CHECK [TEXT]: a row of that check has that state, and a text that matches.
want_check() {
	text=${3:-}
	case $text in
	^*) text=${text#^} ;;
	*) text=[^\"]*$text ;;
	esac
	case $text in
	*\$) text="${text%\$}\",\"advice\"" ;;
	esac
	want_out "^\{\"check\":\"$2\",\"state\":\"$1\",\"text\":\"$text"
}
# Names, sizes, modes, owners, inodes and times of all that is in the cache; not when it was read.
list() {
	find "$cache" -printf '%p %s %m %U %i %n %T@ %C@\n' | sort
	find "$cache" -type f -exec cat {} + | cksum
}
doctor() {
	list >before 2>/dev/null
	run --json "$@" doctor
	list >after 2>/dev/null
	cmp -s before after || bad "doctor changed something: $(diff before after | head -n 4)"
	# What is not ok, and that alone, comes with what to do.
	want_json "sum(rows[-1].values()) == len(rows) - 1 and all((r['state'] != 'ok') == bool(r['advice']) for r in rows[:-1])"
}

# ---- nothing there yet --------------------------------------------------------------------------

doctor
want_status 0
want_no_err
want_json "rows[-1]['failures'] == 0"
want_check ok directory "^$cache is not there, and will be made"
want_check ok space 'is free; entries take 0 B of 5.4 GB'
want_check ok locks 'held off another'
want_check ok mapping 'can be mapped'
want_check ok engine "^$title [0-9.]+, [a-z]+: /.*$ENGINE"
want_check ok settings '1 of the environment'
want_check ok layer 'there are none'
want_check ok processors '^[0-9]+ of [0-9]+$'
want_check ok system '^Linux '
[ ! -e "$cache" ] || bad "doctor made the directory"
[ "$(find . -maxdepth 1 -name '.doctor*')" = '' ] || bad "something is left of it"

# ---- a good cache -------------------------------------------------------------------------------

run -q --settings '' compile wasm/math.wasm wasm/trap.wasm wasm/exit0.wasm
run -q --settings '' compile wasm/math.wasm
want_status 0
doctor
want_status 0
want_json "rows[-1]['failures'] == 0"
want_check ok directory "^$cache: trusted and writable \(owner $root_uid, mode 0700\)$"
want_check ok namespace "^$ENGINE-[a-z]+-[0-9A-F]+-v[0-9]+: 3 entries, .*B \(owner $root_uid, mode 0700\)$"
want_check ok 'left over'
want_check ok total '^3 entries, .* as there are$'
want_check ok hints 'a table of ours'
want_check ok 'file system' '.'
# The same with a settings string, where an engine's probe is remembered.
doctor --settings never-seen
want_status 0
run doctor
want_status 0
want_no_err
want_out "^ok       directory    $cache: trusted"
want_out '^[0-9]+ ok, [0-9]+ warnings?, 0 failures$'
run -q doctor
want_status 0
! grep -q '^ok' out || bad "-q shows what is ok"
run doctor x
want_status 2
namespace=$(dirname "$(entries | head -n 1)")

# ---- what writers left, and a total that is wrong -----------------------------------------------

# One whose writer is gone, one whose writer lives, and one that is new.
: >"$namespace/.tmp-0123456789ABCDEF"
printf 12345 >"$namespace/.old-$(basename "$(entries | head -n 1)")-0123456789ABCDEF"
: >"$namespace/.tmp-1111111111111111"
python3 -c '
import fcntl, sys, time
f = open(sys.argv[1], "r")
fcntl.flock(f, fcntl.LOCK_EX)
open("held", "w").close()
time.sleep(150)' "$namespace/.tmp-1111111111111111" &
holder=$!
while [ ! -e held ]; do sleep 0.05; done
doctor
want_check ok 'left over'
cat >later.c <<'END'
#include <time.h>
time_t time(time_t *out) { struct timespec now; clock_gettime(CLOCK_REALTIME, &now); if (out) *out = now.tv_sec + 120; return now.tv_sec + 120; }
END
if ${CC:-cc} -shared -fPIC -o later.so later.c 2>/dev/null && [ -z "$(nm -D "$WASMCACHE" | grep -i __asan_init)" ]; then
	PREFIX="env LD_PRELOAD=$tmp/later.so"
	doctor
	PREFIX=
	want_status 0
	want_check warning 'left over' '^2 files, 5 B, of writers that are gone$'
else
	left_out "left-over files: the clock cannot be moved here"
fi
kill $holder
wait $holder 2>/dev/null
run -q prune
[ "$(find "$namespace" -name '.tmp-*' -o -name '.old-*')" = '' ] || bad "prune removes what doctor says it removes"
rm -f "$(entries | head -n 1)"
doctor
want_status 0
want_check warning total '^the running total is 3 entries, .*, and there are 2 entries, '
run -q prune
doctor
want_check ok total '^2 entries, '
rm "$cache/.tally-1"
doctor
want_check ok total '^not known yet'
echo rubbish >"$cache/.hints-1-le"
chmod 600 "$cache/.hints-1-le"
doctor
want_check warning hints 'its first bytes are not those of a table'
rm "$cache/.hints-1-le"
: >"$cache/.hints-1-le"
chmod 644 "$cache/.hints-1-le"
doctor
want_check warning hints 'group or others may use it'
rm "$cache/.hints-1-le"

# ---- trust --------------------------------------------------------------------------------------

chmod g+w "$namespace"
doctor
want_status 1
want_check failure namespace "^$(basename "$namespace") is not used: others may write to it \(owner $root_uid, mode 0720\)$"
chmod g-w "$namespace"
chmod o+w "$(entries | head -n 1)"
doctor
want_status 0
want_check warning entries '^1 entry is not used'
chmod o-w "$(entries | head -n 1)"
echo text >file
cache=$tmp/file doctor
want_status 1
want_check failure directory 'file'
run --cache-dir "$tmp/file" doctor
want_status 1
want_out '^failure  directory '
want_out '^ +-> until then all is compiled$'
want_out ', 1 failure$'

# ---- limits, space and settings -----------------------------------------------------------------

doctor --set max_bytes=1k
want_status 0
want_check warning space 'entries take .* of 1.0 kB; the next save evicts'
doctor --set max_bytes=unlimited
want_check warning space 'is free; entries take .* and may take what they want'
doctor --set max_bytes=unlimited --set max_disk_percent=50
want_check ok space
doctor --set max_entries=1000000000000
want_check warning inodes 'there are 2 entries and may be 1000000000000'
WASMCACHE_MAX_BITES=1 WASMCACHE_DISABLE=1 doctor
want_check warning settings 'WASMCACHE_MAX_BITES is no setting; the one like it is \\"max_bytes\\"'
want_check warning settings 'WASMCACHE_DISABLE is set'
(
	ulimit -n 40
	doctor
	want_check warning descriptors '^a process may have 40 only$'
	[ "$failures" -eq 0 ]
) || failures=$((failures + 1))
(
	ulimit -f 2048
	doctor
	want_check warning 'file size' 'no file may have more than '
	[ "$failures" -eq 0 ]
) || failures=$((failures + 1))

# ---- engines ------------------------------------------------------------------------------------

(
	export "$variable=$tmp/none"
	doctor
	want_status 1
	want_check failure engine "cannot load $title: $tmp/none/lib/lib$ENGINE.so"
	want_no_err
	[ "$failures" -eq 0 ]
) || failures=$((failures + 1))
doctor --engine "$tmp/none.so"
want_status 1
want_check failure engine 'none.so: .*No such file'
doctor --engine "$library"
want_status 0
want_json "len([r for r in rows if r.get('check') == 'engine' and r['state'] == 'ok' and r['text'].startswith('$title ')]) >= 1"
run -v doctor
want_out "^ok       engine       $title .*, $(basename "$namespace" | sed 's/[+.]/\\&/g')|$ENGINE-"

# ---- layers -------------------------------------------------------------------------------------

mkdir layer open
chmod 755 layer
chmod 777 open
doctor --set "layers=$tmp/layer:$tmp/nowhere:$cache"
want_status 0
want_check ok layer "^$tmp/layer: readable and trusted \(owner $root_uid, mode 0755\)"
want_check warning layer "^$tmp/nowhere: No such file"
want_check warning layer "^$cache is the cache directory itself"
doctor --set "layers=$tmp/open"
want_status 1
want_check failure layer "^nothing in $tmp/open is used: others may write to it \(owner $root_uid, mode 0777\)"
mkdir -m 700 "open/u$root_uid"
doctor --set "layers=$tmp/open"
want_status 0
want_check ok layer "^$tmp/open/u$root_uid: readable and trusted"
[ "$(find layer open | wc -l)" -eq 3 ] || bad "doctor made something in a layer"

# ---- file systems, as root, and as somebody else ------------------------------------------------

if [ "$root_uid" -eq 0 ] && mkdir m && mount -t tmpfs -o size=1m,nr_inodes=40,noexec none m 2>/dev/null; then
	cache=$tmp/m/cache
	run -q compile wasm/math.wasm
	doctor
	want_status 0
	want_check ok 'file system' '^tmpfs$'
	want_check warning mapping 'Operation not permitted \(the mount is noexec\)'
	want_check warning inodes 'inodes are free'
	want_check warning space 'and may take 5.4 GB'
	i=0
	while : >m/$i; do i=$((i + 1)); done 2>/dev/null
	doctor
	want_status 1
	want_check failure inodes 'none is free'
	rm -f m/[0-9]*
	dd if=/dev/zero of=m/full bs=4096 2>/dev/null
	doctor
	want_status 1
	want_check failure space 'nothing is free'
	rm m/full
	mount -o remount,ro m
	doctor
	want_status 0
	want_check warning directory 'cannot be written'
	want_check ok locks 'for reading only'
	want_check ok layer
	doctor --set "layers=$tmp/m/cache" --set "dir=$tmp/other"
	want_check ok layer 'mounted read-only'
	umount m
	cache=$tmp/cache
else
	left_out "file systems: no tmpfs can be mounted"
fi
if [ "$root_uid" -eq 0 ] && command -v setpriv >/dev/null; then
	cp "$WASMCACHE" tool
	mkdir -p engine/lib
	cp -L "$library" engine/lib/
	chmod -R a+rX "$tmp" 2>/dev/null
	chmod 755 "$tmp" tool
	PREFIX="setpriv --reuid 65534 --regid 65534 --clear-groups --"
	WASMCACHE=$tmp/tool
	export "$variable=$tmp/engine"
	if $PREFIX "$WASMCACHE" --version >/dev/null 2>&1; then
		# root's cache, which all may read
		doctor
		want_status 0
		want_check warning directory 'cannot be written'
		want_check ok namespace 'owner 0, mode 0755'
		want_check ok locks 'for reading only'
		want_check ok mapping 'can be mapped'
		# one that belongs to a third
		chown 1234 "$cache"
		doctor
		want_status 1
		want_check failure directory 'belongs to user 1234'
	else
		left_out "another user: it cannot run the tool from $tmp"
	fi
else
	left_out "another user: only root can be one"
fi

finish
