#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the library cannot do because it does not call it: read or change the environment, print, end the process, handle
# signals, start processes, hook into exit or fork; and it links no engine. Threads are started in one place.
# no-asan no-tsan no-coverage: sanitizers, and what counts lines, call all of that
. "$(dirname "$0")/lib_hosts.sh"
command -v nm >/dev/null && command -v readelf >/dev/null || skip "no binutils"

nm -D --undefined-only "$library" | sed 's/.* //; s/@.*//' | sort -u >undefined
[ "$(wc -l <undefined)" -gt 20 ] || bad "nm shows too little: $(cat undefined)"

# refuse WHY PATTERN: no undefined name matches the extended regular expression
refuse() {
	local found
	found=$(grep -Ex -- "$2" undefined | tr '\n' ' ')
	[ -z "$found" ] || bad "$1: $found"
}
refuse "the environment" '_*(secure_)?getenv|setenv|putenv|unsetenv|clearenv|_*environ|wordexp'
refuse "printing" '_*v?(f|d)?w?printf(_chk)?|_*(IO_)?(puts|putchar|fputs|fputc|putc|perror|psignal)|v?syslog|std(in|out|err)|_*f?write_chk|fwrite'
refuse "ending the process" '_?exit|_Exit|abort|__assert(_perror)?_fail|quick_exit|raise|kill|tgkill|longjmp|_*siglongjmp'
refuse "hooks" 'atexit|at_quick_exit|on_exit|__cxa_(thread_)?atexit(_impl)?|(__register_|pthread_)atfork'
refuse "signals" '_*(bsd_|sysv_)?signal|_*sigaction|sigprocmask|sigaltstack|sigset|alarm|setitimer|timer_create'
refuse "processes" 'thrd_create|clone|fork|vfork|exec[lv]p?e?|posix_spawnp?|system|popen|daemon'
refuse "changing the process" 'umask|chdir|fchdir|chroot|setlocale|set(e|re|res)?[ug]id|setgroups|setrlimit|prctl|srand(om)?|mallopt'
# Threads of its own block all signals; masks are not touched elsewhere.
grep -rlE 'pthread_(create|sigmask) *\(' "$WASMCACHE_SOURCE_DIR/src" | grep -v '/os/threads\.c$' >odd &&
	bad "threads are started, or signals masked, in $(tr '\n' ' ' <odd)"
# dlopen is there to ask for what is loaded (RTLD_NOLOAD); that source is a few lines.
refuse "loading code" 'dlmopen|dlvsym'
asks=$(grep -rhow 'dlopen([^;]*' "$WASMCACHE_SOURCE_DIR/src" | grep -cv 'RTLD_NOLOAD')
[ "$asks" = 0 ] || bad "it loads code: $(grep -rn 'dlopen(' "$WASMCACHE_SOURCE_DIR/src")"
refuse "an engine" 'wasm_.*|wasmtime_.*|wasi_.*|wasmer_.*'
refuse "libcrypto beyond plain SHA-256" '(EVP|OPENSSL|CRYPTO|ERR|RAND|SSL)_.*'

readelf -d "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' >needed
grep -Evx 'lib(c|crypto|xxhash|pthread|atomic|gcc_s)\.so\.[0-9.]+|ld-linux.*|libc\.musl.*' needed >odd &&
	bad "it needs other libraries: $(tr '\n' ' ' <odd)"
# Nothing runs when it is loaded or unloaded but what the compiler itself puts there.
readelf -d "$library" | grep -E '\((PREINIT_ARRAY|TEXTREL)\)' && bad "it has more than plain code"
for array in INIT FINI; do
	size=$(readelf -d "$library" | sed -n "s/.*(${array}_ARRAYSZ) *\([0-9]*\) .*/\1/p")
	[ "${size:-0}" -le 8 ] || bad "it has a constructor or destructor ($array: $size bytes)"
done
finish "$(wc -l <undefined) names needed, none of those that it must not"
