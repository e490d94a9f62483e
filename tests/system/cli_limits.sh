#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# each-engine
# stats, prune, pin and unpin.
. "$(dirname "$0")/cli_common.inc"
tiny

# Nothing yet, and nothing comes of asking.
run stats
want_status 0
want_out '^hits +0$'
run prune
want_status 0
want_out '^0 entries removed; 0 left, 0 bytes$'
run pin wasm/math.wasm
want_status 1
want_err 'there is nothing to pin'
run pin
want_status 2
run prune --max-size many
want_status 2
want_err '--max-size many: not a quantity such as 500M'
run prune --max-age 3
want_status 2
run prune --max-entries 0
want_status 2
run stats extra
want_status 2
run --json stats --prometheus
want_status 2

run -q compile wasm/math.wasm wasm/trap.wasm wasm/exit0.wasm wasm/exit7.wasm
want_status 0
run -q compile wasm/math.wasm
want_status 0
run --json stats
want_status 0
want_json 'row["hits"] == 1 and row["compiles"] == 4 and row["misses"]["not-found"] == 4 and row["saves"] == 4'
want_json 'row["compile_ms"] > 0 and row["spared_ms"] > 0 and row["since"] > 0'
want_json 'sum(row["hit_microseconds_below_2_to_the"]) == 1 and len(row["compile_milliseconds_below_2_to_the"]) == 24'
run stats
want_out '^hits +1 of 5 \(20\.0 %\)$'
want_out '^  not-found +4$'
want_out '^compiles +4, '
run stats --prometheus
want_out '^wasmcache_hits_total 1$'
want_out '^wasmcache_misses_total\{reason="not-found"\} 4$'
want_out '^wasmcache_hit_duration_seconds_bucket\{le="\+Inf"\} 1$'
want_out '^# TYPE wasmcache_compile_duration_seconds histogram$'

# Young entries stay.
run prune --max-entries 2
want_status 0
want_out '^0 entries removed; 4 left'
find "$cache" -name '*.bin' -exec touch -d '1 hour ago' {} +
run pin wasm/math.wasm
want_status 0
want_out '^1 entry pinned$'
run info wasm/math.wasm
want_out '^pinned +yes$'
run --json prune --max-entries 2 --dry-run
want_status 0
want_json 'row["dry_run"] and row["removed"] == 2 and row["left"] == 2'
run --json ls
want_json 'len(rows) == 4'
run prune --max-entries 1
want_status 0
want_out '^3 entries removed, .*; 1 left, '
run --json ls
want_json 'len(rows) == 1 and row["pinned"]'
run unpin wasm/math.wasm
want_status 0
run prune --max-size 1
want_status 0
want_out '^1 entry removed, '
run --json stats
want_json 'row["evictions"] == 4 and row["evicted_bytes"] > 0 and row["entries"] == 0'
run stats --reset
want_status 0
run --json stats
want_json 'row["hits"] == 0 and row["evictions"] == 0 and row["entries"] == 0'
finish
