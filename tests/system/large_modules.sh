#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# each-engine
# The modules that a cache is for: php, esbuild and yosys, whose compiles take half a minute, compile once and then hit;
# on Wasmer with wasmer-plus and without; yosys runs from the cache. Prints what each took.
#   make check-large    fetches them and runs this
# no-asan no-tsan: the engine's own time counts here, and it is not instrumented
. "$(dirname "$0")/lib_hosts.sh"

[ -n "${WASMCACHE_TEST_LARGE:-}" ] || skip "minutes of compiling; make check-large runs it"
[ -x "${WASMCACHE:-}" ] || skip "WASMCACHE does not name the tool"
command -v python3 >/dev/null || skip "no python3"
modules=()
for module in php esbuild yosys; do
	file=${MODULES:?}/$module.wasm
	[ -f "$file" ] || skip "there is no $file (tools/modules php esbuild yosys)"
	modules+=("$file")
done

engine=${ENGINE:-wasmtime}
case $engine in
wasmtime) builds=("${WASMTIME_ROOT:-}/lib/libwasmtime.so") ;;
*) builds=("${WASMER_ROOT:-}/lib/libwasmer.so" "${WASMER_ROOT:-}/stock/lib/libwasmer.so") ;;
esac
[ -e "${builds[0]}" ] || skip "there is no ${builds[0]}"

# run NAME COMMAND...: the tool with the engine $build, its output in NAME.out and NAME.err
run() {
	local into=$1
	shift
	"$WASMCACHE" --engine "$build" --cache-dir "$tmp/cache" "$@" >"$into.out" 2>"$into.err" </dev/null
	local status=$?
	[ $status -eq 0 ] || bad "wasmcache $*: status $status: $(head -n 5 "$into.err")"
	return $status
}

# Each build is another engine, with a folder of its own.
for build in "${builds[@]}"; do
	if [ ! -e "$build" ]; then
		echo "[  SKIPPED ] large modules with $engine: there is no $build"
		continue
	fi
	began=$SECONDS
	run compiled --json compile "${modules[@]}"
	run hit --json compile "${modules[@]}"
	python3 - "$tmp/cache" "${modules[@]}" <<'PYTHON' || bad "see above"
import hashlib, json, os, sys

cache, modules = sys.argv[1], sys.argv[2:]
first, second = ({row["file"]: row for row in map(json.loads, open(name))} for name in ("compiled.out", "hit.out"))
failures = []


def check(condition, what):
    if not condition:
        failures.append(what)


print(f"  {first[modules[0]]['namespace'] if modules[0] in first else '?'}")
print(f"  {'module':<9}{'wasm':>11}{'artifact':>12}{'compile':>11}{'save':>10}{'hit':>9}   (bytes, milliseconds)")
for module in modules:
    name = os.path.basename(module)
    if module not in first or module not in second:
        failures.append(f"{name}: no line")
        continue
    a, b = first[module], second[module]
    key = hashlib.sha256(open(module, "rb").read()).hexdigest().upper()
    check((a["outcome"], a["reason"]) == ("compiled", "not-found"), f"{name}: first {a['outcome']}, {a['reason']}")
    check(b["outcome"] == "hit", f"{name}: second {b['outcome']}, {b['reason']}")
    for row in a, b:
        check(row["key"] == key, f"{name}: key {row['key']}")
        check(row["path"] == f"{cache}/{row['namespace']}/{key}.bin", f"{name}: path {row['path']}")
        check(row["wasm_bytes"] == os.path.getsize(module), f"{name}: wasm_bytes {row['wasm_bytes']}")
    check(a["artifact_bytes"] == b["artifact_bytes"], f"{name}: the artifact has two sizes")
    size = os.path.getsize(b["path"])
    check(0 < size - b["artifact_bytes"] < 4096, f"{name}: {size} bytes on disk")
    check(b["compile_ms"] == 0 and b["save_ms"] == 0, f"{name}: the hit compiled or saved")
    print(f"  {name:<9}{a['wasm_bytes']:>11}{a['artifact_bytes']:>12}"
          f"{a['compile_ms']:>11.1f}{a['save_ms']:>10.1f}{b['total_ms']:>9.1f}")
for failure in failures:
    print("  " + failure)
sys.exit(1 if failures else 0)
PYTHON
	echo "  all of it: $((SECONDS - began)) s"
done
run verify verify
folders=$(find "$tmp/cache" -mindepth 1 -maxdepth 1 -name "$engine-*" | wc -l)
tried=0
for build in "${builds[@]}"; do [ ! -e "$build" ] || tried=$((tried + 1)); done
[ "$folders" -eq "$tried" ] || bad "$tried builds have $folders folders"

# yosys, from the cache. Wasmer has WASI only where it was asked for.
if [ "$engine" != wasmtime ]; then
	echo "[  SKIPPED ] large modules with $engine: yosys is not run, for WASI is not in the default build"
	finish "compiled, then hit, with $tried builds of $engine"
fi
build=${builds[0]}
yosys=${modules[2]}
if run version -v run "$yosys" -V; then
	grep -q '^Yosys [0-9]' version.out || bad "yosys -V says: $(head -n 3 version.out)"
	grep -q 'yosys.wasm: hit' version.err || bad "yosys did not come from the cache: $(head -n 3 version.err)"
fi
mkdir work
cat >work/adder.v <<'VERILOG'
module adder(input [3:0] a, b, output [4:0] sum);
  assign sum = a + b;
endmodule
VERILOG
if run synth -v run --dir "$tmp/work::/data" "$yosys" -q -p \
	'read_verilog /data/adder.v; prep -top adder; alumacc; maccmap -unmap; simplemap; opt; write_json /data/adder.json; tee -o /data/stat stat'; then
	grep -q 'yosys.wasm: hit' synth.err || bad "yosys did not come from the cache: $(head -n 3 synth.err)"
	python3 - work/adder.json <<'PYTHON' || bad "yosys made no adder"
import json, sys

ports = json.load(open(sys.argv[1]))["modules"]["adder"]["ports"]
assert {name: len(port["bits"]) for name, port in ports.items()} == {"a": 4, "b": 4, "sum": 5}, ports
PYTHON
	grep -q 'cells' work/stat || bad "yosys has no statistics: $(head -n 5 work/stat)"
fi
finish "compiled, then hit; yosys synthesizes from the cache"
