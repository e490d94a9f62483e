#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a save and a hit do to the entry, seen from the kernel: a save reserves the room once, writes each byte once in large
# writes and reads none; a hit maps it, once for the digest and once for the engine, and reads the trailer. For each engine.
# no-asan no-tsan: strace and leak checking do not go together
. "$(dirname "$0")/lib_hosts.sh"

hosts=$(find "${TEST_BIN_DIR:?}" -maxdepth 1 -name 'host_module.*' -type f -perm -u+x | sort)
[ -n "$hosts" ] || skip "there is no host_module in $TEST_BIN_DIR"
command -v strace >/dev/null || skip "there is no strace"
command -v python3 >/dev/null || skip "there is no python3"
strace -o /dev/null true 2>/dev/null || skip "strace may not trace here"

wasm=${MODULES:-}/boolector.wasm
if [ ! -f "$wasm" ]; then
	wasm=$tmp/add.wasm
	printf '\0asm\1\0\0\0\1\7\1\140\2\177\177\1\177\3\2\1\0\7\7\1\3add\0\0\12\11\1\7\0\040\0\040\1\152\13' >"$wasm"
fi
trace=read,pread64,readv,preadv,write,pwrite64,writev,pwritev,mmap,sendfile,copy_file_range,splice,ftruncate,fallocate

cat >judge.py <<'PYTHON'
import os, re, sys

entry, compiled, hit = sys.argv[1:]
size, folder, name = os.path.getsize(entry), os.path.dirname(os.path.realpath(entry)), os.path.basename(entry)
call = re.compile(r"^\d+\s+(\w+)\((?:NULL, (\d+), ([A-Z_|]+), [A-Z_|]+, )?\d+<([^>]*)>(?:\(deleted\))?.* = (-?\w+)")
failures = []


def calls(trace):
    for line in open(trace, errors="replace"):
        found = call.match(line)
        if found and os.path.dirname(found.group(4)) == folder:
            yield found.group(1), found.group(3), os.path.basename(found.group(4)), int(found.group(5), 0)


# The new entry has no name while it is written, or one that begins with a dot, as the file of the locks does. After it comes
# what the folder is of: in one write, on a descriptor without a name too.
new = [c for c in calls(compiled) if c[2] not in (name, ".lock")]
described = os.path.getsize(os.path.join(folder, ".identity"))
if new and new[-1][0] == "write" and new[-1][3] == described:
    new.pop()
else:
    failures.append("the identity file is not written in one piece, after the entry")
written = [result for what, _, _, result in new if "write" in what]
reserved = [c for c in new if c[0] == "fallocate"]
others = [c for c in new if "write" not in c[0] and c[0] != "fallocate"]
if sum(written) != size:
    failures.append(f"{sum(written)} bytes written for an entry of {size}")
if len(reserved) > 1 or (reserved and new[0][0] != "fallocate"):
    failures.append("room is reserved more than once, or not first")
if others:
    failures.append(f"the new entry is also touched by {others}")
if len(written) > size / 2**21 + 2:
    failures.append(f"{len(written)} writes")

mine = [c for c in calls(hit)]
read = sum(result for what, _, _, result in mine if "read" in what)
maps = [flags for what, flags, _, _ in mine if what == "mmap"]
if [c for c in mine if "write" in c[0]]:
    failures.append("a hit writes")
# The host gets the module twice. Beside what is mapped there are the trailer, and the head of the file, which the engine
# looks at itself. A small entry is read for its digest.
if read > 2 * 8192 + (0 if size > 2**17 else 2 * size):
    failures.append(f"two hits read {read} bytes")
if not maps:
    failures.append("a hit maps nothing")
for failure in failures:
    print("  " + failure)
print(f"  entry of {size} bytes: {len(written)} writes, {len(others)} other calls; two hits: {read} bytes read, {len(maps)} maps")
sys.exit(1 if failures else 0)
PYTHON

for host in $hosts; do
	engine=${host##*.}
	echo "$engine:"
	rm -rf cache
	strace -f -y -e trace=$trace -o compile.trace "$host" cache "$wasm" - >out || bad "$engine: the compile: status $?"
	grep -q ' compiled$' out || bad "$engine: not compiled: $(cat out)"
	strace -f -y -e trace=$trace -o hit.trace "$host" cache "$wasm" - >out || bad "$engine: the hit: status $?"
	grep -q ' loaded$' out || bad "$engine: not loaded: $(cat out)"
	python3 judge.py "$(find cache -name '*.bin')" compile.trace hit.trace || bad "$engine: see above"
done
finish "each byte written once"
