# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# Read by the scripts beside it, never run. A script sets $me first.

say() { printf '%s: %s\n' "$me" "$*" >&2; }
die() { say "$*"; exit 1; }

cache_home() { printf '%s\n' "${XDG_CACHE_HOME:-${HOME:?is not set, nor XDG_CACHE_HOME}/.cache}"; }

# quietly LOG COMMAND...: runs the command without a standard input; its output is shown only if it fails.
quietly() {
	quietly_log=$1
	shift
	"$@" </dev/null >"$quietly_log" 2>&1 && return 0
	tail -n 8 "$quietly_log" | sed 's/^/    /' >&2
	return 1
}

# temp_in DIR: sets $tmp to a new folder in DIR that goes away with the script, whatever ends it.
temp_in() {
	mkdir -p "$1" || die "could not make the folder $1; set XDG_CACHE_HOME to one that you may write to"
	# What a run that was killed left: nothing here takes two hours.
	find "$1" -maxdepth 1 -name '.tmp.*' -mmin +120 -exec rm -rf {} +
	tmp=$(mktemp -d "$1/.tmp.XXXXXX") || die "could not make a folder in $1"
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

# pip_download SPEC DIR: the one wheel, into DIR. `pip download` installs nothing, so that an externally managed Python does not mind.
pip_download() {
	command -v python3 >/dev/null || die "needs python3 to fetch $1 (Debian: apt-get install python3 python3-pip)"
	if python3 -c 'import pip' 2>/dev/null; then
		pip_python=python3
	else
		quietly "$tmp/venv.log" python3 -m venv "$tmp/venv" ||
			die "python3 has no pip, and a virtual environment could not be made (Debian: apt-get install python3-pip)"
		pip_python=$tmp/venv/bin/python3
	fi
	quietly "$tmp/pip.log" "$pip_python" -m pip download --quiet --no-input --disable-pip-version-check \
		--no-deps --only-binary=:all: --dest "$2" "$1" ||
		die "pip could not fetch $1 (its last words are above): is the package index reachable, and is there a wheel for $(uname -sm)?"
}

# unzip_to FILE.whl DIR
unzip_to() { python3 -m zipfile -e "$1" "$2"; }
