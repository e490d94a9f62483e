#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A host that links one engine and loads another: both compile and then hit in one directory, and no call binds to the
# wrong one. Each pair of versions of Wasmtime, in both directions, and Wasmtime with Wasmer: its library with wasmer-plus,
# without, and as an archive. The host itself looks where each function is (dladdr). WASMCACHE_TEST_PAIRS=N: only so many.
# no-asan no-tsan: the hosts here are compiled without
. "$(dirname "$0")/lib_other_engine.sh"

missing=
engines=()
for version in $(engine_versions); do
	root=$(engine_root "$version")
	if [ -z "$root" ]; then
		missing="$missing $version"
	else
		engines+=("wasmtime:shared:$root")
	fi
done
wasmer=()
if [ -n "${WASMER_ROOT:-}" ]; then
	for root in "$WASMER_ROOT" "$WASMER_ROOT/stock"; do
		[ ! -e "$root/lib/libwasmer.so" ] || wasmer+=("wasmer:shared:$root")
	done
else
	missing="$missing Wasmer"
fi
[ $((${#engines[@]} + ${#wasmer[@]})) -ge 2 ] ||
	skip "two engines are needed, and these were not fetched (tools/engine-wasmtime VERSION, tools/engine-wasmer):$missing"

# What is linked and what is loaded, one a line; the most different first.
pairs_to_try() {
	local i j other newest
	# Any Wasmtime is as good as another here: the newest.
	if [ ${#engines[@]} -gt 0 ] && [ ${#wasmer[@]} -gt 0 ]; then
		newest=${engines[-1]}
		for other in "${wasmer[@]}"; do
			echo "$newest $other"
			echo "$other $newest"
		done
		[ ${#wasmer[@]} -lt 2 ] || echo "${wasmer[0]} ${wasmer[1]}"
		if [ -e "$WASMER_ROOT/lib/libwasmer.a" ]; then
			echo "wasmer:static:$WASMER_ROOT $newest"
			[ ${#wasmer[@]} -lt 2 ] || echo "wasmer:static:$WASMER_ROOT ${wasmer[1]}"
		fi
	fi
	for i in "${!engines[@]}"; do
		for j in "${!engines[@]}"; do
			[ "$i" = "$j" ] || echo "${engines[i]} ${engines[j]}"
		done
	done
}

mapfile -t todo < <(pairs_to_try)
all=${#todo[@]}
[ -z "${WASMCACHE_TEST_PAIRS:-}" ] || todo=("${todo[@]:0:WASMCACHE_TEST_PAIRS}")
for pair in "${todo[@]}"; do
	try_pair "${pair% *}" "${pair#* }"
done
left=
[ ${#todo[@]} -eq "$all" ] || left=", of $all"
finish "$pairs pairs of engines$left, each compiled and hit${missing:+ (not fetched:$missing)}"
