#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Not one byte of what the library writes is what memory happened to hold: unit tests that save, lock, count and promote run
# under valgrind, which follows each byte to the call that writes it. WASMCACHE_TEST_WRITTEN=all: more of them, for minutes.
# no-asan no-tsan no-coverage: valgrind does not go with them
. "$(dirname "$0")/lib_hosts.sh"
command -v valgrind >/dev/null || skip "no valgrind"

programs="get layers entries"
[ "${WASMCACHE_TEST_WRITTEN:-}" != all ] || programs="$programs hint stats later reproducible"
ran=0
for p in $programs; do
	program=$TEST_BIN_DIR/unit_test_$p
	[ -x "$program" ] || skip "there is no $program"
	rm -f log.*
	valgrind --quiet --log-file=log.%p --error-limit=no "$program" >out 2>&1 || bad "$p does not pass under valgrind: $(tail -n 3 out)"
	cat log.* >all 2>/dev/null
	found=$(grep -cE 'Syscall param p?writev?(64)?\(.*uninitialised' all)
	[ "$found" -eq 0 ] || bad "$p: uninitialised bytes are written: $(grep -A 6 -m 1 -E 'Syscall param p?write' all)"
	ran=$((ran + 1))
done
finish "$ran programs wrote no byte that was not set"
