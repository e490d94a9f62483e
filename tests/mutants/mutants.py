#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants the bugs of bugs.py one by one in a copy of the sources, and tells which test catches each.

    mutants.py [--only WORDS] BUILD

BUILD is a build directory whose engines are used; the copy lies in BUILD/../mutants. Writes mutants.json there.
Exit status 1 if a named one, or more than two in all, were not caught.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

import bugs

NEEDED, SPARED = 40, 2
LIMIT = 180


def shell(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                          stdin=subprocess.DEVNULL, **more)


def target_of(killer):
    kind, name = killer.split(" ", 1)
    return {"row": "torture", "unit": f"unit_test_{name}", "fuzz": f"fuzz_{name}_corpus"}[kind]


def command_of(killer, source, build):
    kind, name = killer.split(" ", 1)
    if kind == "row":
        return [f"{build}/tests/torture", name, "quick"]
    if kind == "unit":
        return [f"{build}/tests/unit_test_{name}"]
    return [f"{build}/tests/fuzz_{name}_corpus", f"{source}/tests/fuzz/corpus/{name}"]


def why(killer, output, status):
    for line in output.splitlines():
        if killer.startswith("row") and re.match(r"^  [A-Z]: ", line):
            return line.strip()
        if re.match(r"^\[  FAILED  \] \w", line):
            return line[13:].strip()
    return f"status {status}"


class Copy:
    """The sources, copied; a bug is planted and taken out again."""

    def __init__(self, root, build):
        self.source = os.path.join(os.path.dirname(os.path.abspath(build)), "mutants/source")
        self.build = os.path.join(os.path.dirname(os.path.abspath(build)), "mutants/build")
        os.makedirs(self.source, exist_ok=True)
        names = shell(["git", "-C", root, "ls-files"]).stdout.splitlines()
        for name in names:
            to = os.path.join(self.source, name)
            os.makedirs(os.path.dirname(to), exist_ok=True)
            from_ = os.path.join(root, name)
            if not os.path.exists(from_):
                continue
            if not os.path.exists(to) or open(from_, "rb").read() != open(to, "rb").read():
                shutil.copy(from_, to)
        done = shell(["cmake", "-S", self.source, "-B", self.build, "-DCMAKE_BUILD_TYPE=Release",
                      "-DCMAKE_C_FLAGS_RELEASE=-O1 -g", "-DWASMCACHE_TOOL=OFF", "-DWASMTIME_ROOT=", "-DWASMER_ROOT="])
        if done.returncode:
            sys.exit(done.stdout)

    def make(self, targets):
        return shell(["cmake", "--build", self.build, "-j", str(os.cpu_count() or 1), "--target", *targets])

    def path(self, bug):
        return os.path.join(self.source, bug.file)


def caught_by(copy, bug):
    """(who, how), or (None, why not)."""
    with open(copy.path(bug), encoding="utf-8") as file:
        text = file.read()
    if text.count(bug.old) != 1:
        return None, f"its place in {bug.file} is there {text.count(bug.old)} times"
    with open(copy.path(bug), "w", encoding="utf-8") as file:
        file.write(text.replace(bug.old, bug.new))
    try:
        for killer in bug.killers:
            done = copy.make([target_of(killer)])
            if done.returncode:
                return None, "it does not compile: " + next((l for l in done.stdout.splitlines() if "error:" in l), "?")
            try:
                done = shell(command_of(killer, copy.source, copy.build), timeout=LIMIT, cwd=copy.build)
            except subprocess.TimeoutExpired:
                return killer, "it hangs"
            if done.returncode not in (0, 77):
                return killer, why(killer, done.stdout, done.returncode)
        return None, "nobody noticed"
    finally:
        with open(copy.path(bug), "w", encoding="utf-8") as file:
            file.write(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--only", default="", help="those that have these words in their names")
    options = parser.parse_args()
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
    copy = Copy(root, options.build)
    chosen = [b for b in bugs.BUGS if options.only in b.name]
    targets = sorted({target_of(k) for b in chosen for k in b.killers})
    done = copy.make(targets)
    if done.returncode:
        sys.exit(done.stdout[-3000:])
    # Without a bug all of them pass, or what they say of one means nothing.
    for killer in sorted({k for b in chosen for k in b.killers}):
        done = shell(command_of(killer, copy.source, copy.build), timeout=LIMIT, cwd=copy.build)
        if done.returncode not in (0, 77):
            sys.exit(f"without a bug \"{killer}\" fails: {why(killer, done.stdout, done.returncode)}")
    results, start = [], time.monotonic()
    for bug in chosen:
        who, how = caught_by(copy, bug)
        results.append({"bug": bug.name, "file": bug.file, "named": bug.named, "caught_by": who, "how": how})
        print(f"{'caught' if who else 'MISSED':6}  {bug.name:52}  {who or '':18}  {how[:120]}", flush=True)
    copy.make(targets)
    caught = sum(1 for r in results if r["caught_by"])
    missed_named = [r["bug"] for r in results if r["named"] and not r["caught_by"]]
    with open(os.path.join(os.path.dirname(copy.source), "mutants.json"), "w", encoding="utf-8") as file:
        json.dump({"seconds": round(time.monotonic() - start), "bugs": results}, file, indent=1)
        file.write("\n")
    named = sum(1 for b in chosen if b.named)
    print(f"bugs: {caught} of {len(results)} caught, {named - len(missed_named)} of {named} named ones")
    if options.only:
        return 0 if caught == len(results) else 1
    return 1 if missed_named or len(results) < NEEDED or caught < len(results) - SPARED else 0


if __name__ == "__main__":
    sys.exit(main())
