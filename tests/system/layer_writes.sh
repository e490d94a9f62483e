#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A read-only layer is only read: every system call of a host that names something in the layer, or has a descriptor of it, is
# one that changes nothing there and locks nothing; over hits, misses, damaged entries, promotion, numbers, prune, removal. Also
# where the layer could not be written. For each engine.
# no-asan no-tsan: strace and leak checking do not go together
. "$(dirname "$0")/lib_hosts.sh"

hosts=$(find "${TEST_BIN_DIR:?}" -maxdepth 1 -name 'host_layers.*' -type f -perm -u+x | sort)
[ -n "$hosts" ] || skip "there is no host_layers in $TEST_BIN_DIR"
command -v strace >/dev/null || skip "there is no strace"
command -v python3 >/dev/null || skip "there is no python3"
strace -o /dev/null true 2>/dev/null || skip "strace may not trace here"

# judge.py LAYER TRACE: how many calls there were on the layer, by name, and which of them are none of a reader.
cat >judge.py <<'PYTHON'
import collections, re, sys

layer, trace = sys.argv[1:]
reads = {"access", "close", "faccessat", "faccessat2", "fadvise64", "fstat", "fstatfs", "getdents64", "getxattr", "fgetxattr",
         "lseek", "lstat", "newfstatat", "pread64", "preadv", "read", "readlink", "readlinkat", "readv", "stat", "statfs", "statx",
         "execve"}
on_layer = re.compile(r"[<\"]" + re.escape(layer) + r"(?=[/>\"])")
counts, writes = collections.Counter(), []
for line in open(trace, errors="replace"):
    found = re.match(r"^\d+\s+(\w+)\((.*)", line)
    if not found or not on_layer.search(line):
        continue
    call, rest = found.groups()
    counts[call] += 1
    if call in ("open", "openat", "openat2"):
        harmless = not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|TMPFILE|APPEND)", rest)
    elif call == "mmap":
        harmless = not ("PROT_WRITE" in rest and "MAP_SHARED" in rest)
    elif call == "fcntl":
        harmless = re.search(r", F_(GETFD|SETFD|GETFL|DUPFD|DUPFD_CLOEXEC)\b", rest)
    elif call == "ioctl":
        harmless = "FIGETBSZ" in rest or "FS_IOC_GETFLAGS" in rest or "TCGETS" in rest
    else:
        harmless = call in reads
    if not harmless:
        writes.append(line.strip()[:200])
for line in writes[:10]:
    print("  " + line)
print(f"  {sum(counts.values())} calls on the layer, {len(writes)} of them no reader's: "
      + ", ".join(f"{n} {c}" for c, n in counts.most_common()))
sys.exit(len(writes) > 0 or counts["openat"] < 10)
PYTHON

for host in $hosts; do
	engine=${host##*.}
	layer=$tmp/layer-$engine
	echo "$engine:"
	strace -f -y -o fill.trace "$host" fill "$layer" >entries || bad "$engine: fill: status $?"
	# The judge knows a writer when it sees one.
	if python3 judge.py "$layer" fill.trace >judged; then
		bad "$engine: writing is not seen"
	fi
	mapfile -t entry <entries
	[ ${#entry[@]} -eq 6 ] || bad "$engine: ${#entry[@]} entries"
	chmod u+w "${entry[@]:3}"
	printf 'damage' | dd of="${entry[3]}" bs=1 seek=2000 conv=notrunc 2>/dev/null
	truncate -s 3000 "${entry[4]}"
	: >"${entry[5]}"
	find "$layer" -type f -exec chmod 0444 {} +
	find "$layer" -type d -exec chmod 0555 {} +
	find "$layer" -exec stat -c '%n %i %s %Y %Z %a' {} + | sort >before
	for flags in - p r s ps pr; do
		rm -rf cache
		[ "$flags" = "${flags#*r}" ] || mkdir -m 0700 cache
		strace -f -y -o use.trace "$host" use cache "$layer" $flags >out || bad "$engine, $flags: the host: status $?"
		echo "  $flags: $(cat out)"
		python3 judge.py "$layer" use.trace || bad "$engine, $flags: see above"
	done
	find "$layer" -exec stat -c '%n %i %s %Y %Z %a' {} + | sort >after
	cmp before after || bad "$engine: the layer is not what it was"
	find "$layer" -type d -exec chmod 0755 {} +
done
finish "layers are only read"
