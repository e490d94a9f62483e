#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Our LZW decoder against the crate weezl, with which Wasmer's cache once wrote: 10,000 inputs of many shapes that it encoded
# give what they were; and of 20,000 streams that are damaged or made of codes, those that its decoder accepts give the same
# bytes, and those that it refuses are refused.
. "$(dirname "$0")/lib_hosts.sh"

inputs=10000
program=$("$WASMCACHE_SOURCE_DIR/tools/rust-program" --have weezl)
[ -n "$program" ] || skip "the program in tests/weezl was not built (tools/rust-program weezl): is there a cargo?"

"$program" compare 1 $inputs 2>said | "$TEST_BIN_DIR/host_lzw" >out 2>err
statuses=("${PIPESTATUS[@]}")
[ "${statuses[*]}" = "0 0" ] || bad "weezl-streams and host_lzw: status ${statuses[*]}: $(head -n 4 said err)"
[ ! -s said ] || bad "weezl-streams says: $(head -n 3 said)"
grep -q "^$inputs streams encoded by weezl ($inputs accepted), $inputs streams damaged ([1-9][0-9]* accepted), $inputs streams made of codes ([1-9][0-9]* accepted), .*: 0 differ from weezl\$" out ||
	bad "it says: $(cat out)"
finish "$(cat out)"
