#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A host that links one Wasmtime and loads another: both compile and then hit in one directory, and no call binds to the
# wrong one. Each pair of versions, in both directions; the host itself looks where each function is (dladdr).
# no-asan no-tsan: the hosts here are compiled without
. "$(dirname "$0")/lib_hosts.sh"

host=$WASMCACHE_SOURCE_DIR/tests/system/host_with_other_engine.c
missing=
roots=()
versions=()
for version in $(engine_versions); do
	root=$(engine_root "$version")
	if [ -z "$root" ]; then
		missing="$missing $version"
	else
		roots+=("$root")
		versions+=("$version")
	fi
done
[ ${#roots[@]} -ge 2 ] || skip "two engines are needed, and these were not fetched (tools/engine-wasmtime VERSION):$missing"

pairs=0
for i in "${!roots[@]}"; do
	for j in "${!roots[@]}"; do
		[ "$i" != "$j" ] || continue
		what="${versions[i]} linked, ${versions[j]} loaded"
		linked=${roots[i]}/lib/libwasmtime.so loaded=${roots[j]}/lib/libwasmtime.so
		if ! cc -std=c11 -g -Wall -Wextra -Wpedantic -Werror -DLOADED_ENGINE -I "$WASMCACHE_SOURCE_DIR/include" \
			-isystem "${roots[j]}/include" -c -o loaded.o "$host" ||
			! compile host "${roots[i]}" cc -std=c11 -- "$host" loaded.o; then
			bad "$what: does not compile"
			continue
		fi
		readelf -d host | grep -q 'NEEDED.*\[libwasmtime.so\]' || bad "$what: the host does not link the engine"
		rm -rf cache
		for first in saved hit; do
			./host cache "$linked" "$loaded" >out 2>err || bad "$what: status $?: $(head -n 3 err)"
			sed 's/[0-9A-F]\{16\}/ID/' out >got
			cat >wanted <<-END
				linked ${versions[i]} $first hit wasmtime-cranelift-ID-v${versions[i]%%.*}
				loaded ${versions[j]} $first hit wasmtime-cranelift-ID-v${versions[j]%%.*}
				linked ${versions[i]} hit hit wasmtime-cranelift-ID-v${versions[i]%%.*}
				loaded ${versions[j]} hit hit wasmtime-cranelift-ID-v${versions[j]%%.*}
			END
			cmp -s got wanted || bad "$what: $(diff wanted got)"
			[ ! -s err ] || bad "$what: says $(head -n 3 err)"
		done
		[ "$(find cache -name '*.bin' | wc -l)" = 2 ] || bad "$what: not one entry each"
		pairs=$((pairs + 1))
	done
done
finish "$pairs pairs of engines, each compiled and hit${missing:+ (not fetched:$missing)}"
