#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants the bugs of bugs.py one by one in a copy of the sources, and tells which test catches each.

    mutants.py [--only WORDS] [--controls [--rows 1,4]] BUILD

BUILD is a build directory whose engines are used; the copy lies in BUILD/../mutants. Writes mutants.json there.
Exit status 1 if a named one, or more than two in all, were not caught. --controls: each row of the torture table runs
with the bug that it names as its control, and has to fail; one that runs tests of the suite also without, and has to pass.
"""
import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time

import bugs

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../torture"))
import rows  # noqa: E402

NEEDED, SPARED = 40, 2
LIMIT = 180


def shell(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                          stdin=subprocess.DEVNULL, **more)


def system_targets(source, name):
    """A test and the program that it starts, if it has one."""
    host = os.path.exists(f"{source}/tests/system/host_{name.split('.')[0]}.c")
    return [f"system_test_{name}"] + ([f"host_{name}"] if host else [])


def targets_of(killer, source):
    kind, name = killer.split(" ", 1)
    if kind == "system":
        return system_targets(source, name)
    return [{"row": "torture", "unit": f"unit_test_{name}", "fuzz": f"fuzz_{name}_corpus"}[kind]]


def command_of(killer, source, build):
    kind, name = killer.split(" ", 1)
    if kind == "row":
        return [f"{build}/tests/torture", name, "quick"]
    if kind in ("unit", "system"):
        return [f"{build}/tests/{kind}_test_{name}"]
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
        # The engines that are there, for what is about them.
        roots = {name: shell([f"{root}/tools/engine-{name}", "--have"]).stdout.strip() for name in ("wasmtime", "wasmer")}
        os.environ.update(WASMCACHE_BINARY_DIR=self.build, TEST_BIN_DIR=f"{self.build}/tests")
        done = shell(["cmake", "-S", self.source, "-B", self.build, "-DCMAKE_BUILD_TYPE=Release",
                      "-DCMAKE_C_FLAGS_RELEASE=-O1 -g", "-DWASMCACHE_TOOL=OFF", f"-DWASMTIME_ROOT={roots['wasmtime']}", f"-DWASMER_ROOT={roots['wasmer']}"])
        if done.returncode:
            sys.exit(done.stdout)
        self.engines = {name for name, place in roots.items() if place}

    def make(self, targets):
        return shell(["cmake", "--build", self.build, "-j", str(os.cpu_count() or 1), "--target", *targets])

    @contextlib.contextmanager
    def planted(self, bug):
        """How often its place is there; only if that is once it is planted, and taken out again afterwards."""
        path = os.path.join(self.source, bug.file)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        places = text.count(bug.old)
        if places == 1:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text.replace(bug.old, bug.new))
        try:
            yield places
        finally:
            if places == 1:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)


def caught_by(copy, bug):
    """(who, how), or (None, why not)."""
    with copy.planted(bug) as places:
        if places != 1:
            return None, f"its place in {bug.file} is there {places} times"
        for killer in bug.killers:
            done = copy.make(targets_of(killer, copy.source))
            if done.returncode:
                return None, "it does not compile: " + next((l for l in done.stdout.splitlines() if "error:" in l), "?")
            try:
                done = shell(command_of(killer, copy.source, copy.build), timeout=LIMIT, cwd=copy.build)
            except subprocess.TimeoutExpired:
                return killer, "it hangs"
            if done.returncode not in (0, 77):
                return killer, why(killer, done.stdout, done.returncode)
        return None, "nobody noticed"


def row_targets(copy, row):
    """What has to be built for it; None: an engine is missing."""
    targets, missing = {"torture"}, 0
    for part in row.parts:
        name = part.command[0].rsplit("/", 1)[1]
        if name.startswith("system_test_"):
            name = name[len("system_test_"):]
            if name.split(".")[-1] in copy.engines:
                targets.update(system_targets(copy.source, name))
            else:
                missing += 1
        elif name.startswith(("unit_test_", "fuzz_")):
            targets.add(name)
    return None if missing == len(row.parts) else sorted(targets)


def run_row(copy, row, root):
    """(verdict, how): "passed", "failed", "skipped"."""
    done = shell([sys.executable, f"{root}/tests/torture/torture.py", "--tier", row.parts[0].tier, "--rows", row.number,
                  copy.build], timeout=1200)
    lines = [l for l in done.stdout.splitlines() if re.match(rf"row {row.number}( skipped)?: ", l)]
    verdict = next((v for v in ("failed", "skipped", "passed") if f"1 {v}" in done.stdout.splitlines()[-1]), "failed")
    return verdict, lines[0].split(": ", 1)[1] if lines else done.stdout.strip()[-100:]


def fails_with(copy, bug, row, root):
    """("fails", "PASSES" or "skipped", how) on a build with the bug."""
    targets = row_targets(copy, row)
    if not targets:
        return "skipped", "its engine is not there"
    # A test that fails anyway, or cannot be run, would be taken for one that sees the bug.
    if any(part.counts for part in row.parts):
        done = copy.make(targets)
        verdict, how = run_row(copy, row, root) if not done.returncode else ("failed", "it does not compile")
        if verdict != "passed":
            return "skipped" if verdict == "skipped" else "PASSES", f"{verdict} without the bug: {how}"
    with copy.planted(bug) as places:
        if places != 1:
            return "PASSES", f"its place in {bug.file} is there {places} times"
        if copy.make(targets).returncode:
            return "PASSES", "it does not compile"
        verdict, how = run_row(copy, row, root)
        return {"failed": "fails", "passed": "PASSES"}.get(verdict, verdict), how


def run_controls(copy, root, wanted):
    by_name = {b.name: b for b in bugs.BUGS}
    results = []
    for row in rows.ROWS:
        if wanted and row.number not in wanted:
            continue
        verdict, how = fails_with(copy, by_name[row.control], row, root) if row.control else ("none", "it has none")
        results.append({"row": row.number, "control": row.control, "verdict": verdict, "how": how})
        print(f"{verdict:7}  row {row.number:>2}  {row.control:50}  {how[:110]}", flush=True)
    with open(os.path.join(os.path.dirname(copy.source), "controls.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    counts = {v: sum(1 for r in results if r["verdict"] == v) for v in ("fails", "PASSES", "skipped", "none")}
    print(f"controls: {counts['fails']} of {counts['fails'] + counts['PASSES']} rows fail with their bug, "
          f"{counts['skipped']} skipped, {counts['none']} have none")
    return 1 if counts["PASSES"] else 0


def write(path, results, seconds, some):
    """`some` of the bugs are put among what the last run of all found."""
    if some:
        try:
            with open(path, encoding="utf-8") as file:
                last = json.load(file)
        except FileNotFoundError:
            return
        by_name = {r["bug"]: r for r in results}
        results = [by_name.get(r["bug"], r) for r in last["bugs"]]
        seconds = last["seconds"]
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"seconds": seconds, "bugs": results}, file, indent=1)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--only", default="", help="those that have these words in their names")
    parser.add_argument("--controls", action="store_true")
    parser.add_argument("--rows", default="", help="with --controls: numbers with commas; all if it is not given")
    options = parser.parse_args()
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
    copy = Copy(root, options.build)
    if options.controls:
        return run_controls(copy, root, [n for n in options.rows.split(",") if n])
    chosen = [b for b in bugs.BUGS if options.only in b.name]
    for bug in chosen:
        bug.killers = [k for k in bug.killers if not k.startswith("system") or k.split(".")[-1] in copy.engines]
    chosen = [b for b in chosen if b.killers]
    targets = sorted({t for b in chosen for k in b.killers for t in targets_of(k, copy.source)})
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
    write(os.path.join(os.path.dirname(copy.source), "mutants.json"), results, round(time.monotonic() - start), bool(options.only))
    named = sum(1 for b in chosen if b.named)
    print(f"bugs: {caught} of {len(results)} caught, {named - len(missed_named)} of {named} named ones")
    if options.only:
        return 0 if caught == len(results) else 1
    return 1 if missed_named or len(results) < NEEDED or caught < len(results) - SPARED else 0


if __name__ == "__main__":
    sys.exit(main())
