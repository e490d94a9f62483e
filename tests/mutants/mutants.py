#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plants the bugs of bugs.py one by one in a copy of the sources, and tells which test catches each.

    mutants.py [--only WORDS] [--controls] BUILD

BUILD is a build directory whose engines are used; the copy lies in BUILD/../mutants. Writes mutants.json there.
Exit status 1 if a named one, or more than two in all, were not caught. --controls: each row of the torture table runs
with the bug that it names as its control, and has to fail.
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


def targets_of(killer):
    kind, name = killer.split(" ", 1)
    if kind == "system":
        return [f"system_test_{name}", f"host_{name}"]
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
        # An engine, if it is there, for what is about the engine's own threads.
        wasmtime = shell([f"{root}/tools/engine-wasmtime", "--have"]).stdout.strip()
        os.environ.update(WASMCACHE_BINARY_DIR=self.build, TEST_BIN_DIR=f"{self.build}/tests")
        done = shell(["cmake", "-S", self.source, "-B", self.build, "-DCMAKE_BUILD_TYPE=Release",
                      "-DCMAKE_C_FLAGS_RELEASE=-O1 -g", "-DWASMCACHE_TOOL=OFF", f"-DWASMTIME_ROOT={wasmtime}", "-DWASMER_ROOT="])
        if done.returncode:
            sys.exit(done.stdout)
        self.has_engine = bool(wasmtime)

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
            done = copy.make(targets_of(killer))
            if done.returncode:
                return None, "it does not compile: " + next((l for l in done.stdout.splitlines() if "error:" in l), "?")
            try:
                done = shell(command_of(killer, copy.source, copy.build), timeout=LIMIT, cwd=copy.build)
            except subprocess.TimeoutExpired:
                return killer, "it hangs"
            if done.returncode not in (0, 77):
                return killer, why(killer, done.stdout, done.returncode)
        return None, "nobody noticed"


def fails_with(copy, bug, row, root):
    """Does the row fail on a build with the bug? (true, how)."""
    with copy.planted(bug) as places:
        if places != 1:
            return False, f"its place in {bug.file} is there {places} times"
        targets = ["torture"] + [p.command[0].rsplit("/", 1)[1] for p in row.parts if "_test_" in p.command[0]]
        targets += [t.replace("system_test_", "host_") for t in targets if t.startswith("system_test_")]
        done = copy.make(targets)
        if done.returncode:
            return False, "it does not compile"
        done = shell([sys.executable, f"{root}/tests/torture/torture.py", "--tier", row.parts[0].tier, "--rows", row.number,
                      copy.build], timeout=1200)
        lines = [l for l in done.stdout.splitlines() if l.startswith(f"row {row.number}: ")]
        return "1 failed" in done.stdout, lines[0].split(": ", 1)[1] if lines else done.stdout.strip()[-100:]


def run_controls(copy, root):
    by_name = {b.name: b for b in bugs.BUGS}
    results = []
    for row in rows.ROWS:
        if not row.control:
            results.append({"row": row.number, "control": "", "fails": False, "how": "it has none"})
        else:
            fails, how = fails_with(copy, by_name[row.control], row, root)
            results.append({"row": row.number, "control": row.control, "fails": fails, "how": how})
        r = results[-1]
        print(f"{'fails' if r['fails'] else 'PASSES' if r['control'] else 'none':6}  row {r['row']:>2}  {r['control']:50}  "
              f"{r['how'][:110]}", flush=True)
    with open(os.path.join(os.path.dirname(copy.source), "controls.json"), "w", encoding="utf-8") as file:
        json.dump(results, file, indent=1)
        file.write("\n")
    good = sum(1 for r in results if r["fails"])
    having = sum(1 for r in results if r["control"])
    print(f"controls: {good} of {having} rows fail with their bug, {len(results) - having} have none")
    return 0 if good == having else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--only", default="", help="those that have these words in their names")
    parser.add_argument("--controls", action="store_true")
    options = parser.parse_args()
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
    copy = Copy(root, options.build)
    if options.controls:
        return run_controls(copy, root)
    chosen = [b for b in bugs.BUGS if options.only in b.name]
    if not copy.has_engine:
        for bug in chosen:
            bug.killers = [k for k in bug.killers if not k.startswith("system")]
        chosen = [b for b in chosen if b.killers]
    targets = sorted({t for b in chosen for k in b.killers for t in targets_of(k)})
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
