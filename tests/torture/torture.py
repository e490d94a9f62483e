#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the rows of the table in docs/reliability.md and prints it.

    torture.py [--tier quick|full|soak] [--rows 1,4,10] [--seed N] [--jobs N] BUILD

Writes BUILD/torture-TIER.json, and what the programs of a row that failed said to BUILD/torture-row-N.log; --docs also puts
the table of a full run into docs/reliability.md.
The last line is `rows: N passed, N failed, N skipped`. Exit status 1 if a row failed.
"""
import argparse
import concurrent.futures
import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time

import rows as table

KINDS = "WDSTLKAX"
MEANING = {
    "W": "wrong artifact handed to the engine",
    "D": "dead or hung host",
    "S": "stuck key",
    "T": "left-over files",
    "L": "leaks",
    "K": "good entries destroyed",
    "A": "acknowledged saves lost",
    "X": "anything else that must hold",
}
SECONDS = {"quick": 150, "full": 1500, "soak": 8 * 3600}


class Result:
    """What came of a row: counts by kind, each [bad, of]."""

    def __init__(self, row):
        self.row = row
        self.runs = 0
        self.counts = {}
        self.notes = []
        self.bad = []
        self.skipped = ""
        self.broken = ""
        self.said = []
        self.seconds = 0.0

    def add(self, kind, bad, of):
        have = self.counts.setdefault(kind, [0, 0])
        have[0] += bad
        have[1] += of

    def failed(self):
        return bool(self.broken) or any(bad for bad, _ in self.counts.values())

    def verdict(self):
        if self.failed():
            return "FAILED"
        if self.skipped and not self.runs:
            return "skipped"
        if not self.runs:
            self.broken = "it ran nothing"
            return "FAILED"
        return "passed"

    def as_json(self):
        return {
            "row": self.row.number,
            "what": self.row.what,
            "verdict": self.verdict(),
            "runs": self.runs,
            "counts": {k: {"bad": v[0], "of": v[1]} for k, v in self.counts.items()},
            "notes": self.notes,
            "bad": self.bad,
            "skipped": self.skipped,
            "broken": self.broken,
            "seconds": round(self.seconds, 1),
        }


def take_lines(result, text):
    """The lines of JSON that the program `torture` prints."""
    found = False
    for line in text.splitlines():
        if not line.startswith('{"row":'):
            continue
        found = True
        got = json.loads(line)
        result.runs += got["runs"]
        for kind in KINDS:
            if kind in got:
                result.add(kind, *got[kind])
        if got["note"]:
            result.notes.append(got["note"])
        if got["skipped"]:
            result.skipped = got["skipped"]
        result.bad += got["bad"]
    return found


def take_test(result, part, text, status):
    """What a test of the suite says: how many cases there were, each of which it asserts."""
    cases = 0
    for pattern in part.counts:
        for match in re.finditer(pattern, text):
            if match.groups():
                cases += int(match.group(1).replace(",", ""))
            result.notes.append(match.group(0).strip())
    failed = re.findall(r"^\[  FAILED  \] (\w+)$", text, re.M)
    if status == 77:
        result.skipped = next((l for l in reversed(text.splitlines()) if l.strip()), "it says no more")
        return
    if status != 0 and not failed:
        failed = [f"exit status {status}"]
    if not cases and not failed:
        result.broken = f"{part.command[0]} does not say how many cases there were"
    result.runs += cases
    for kind in part.kinds:
        result.add(kind, len(failed), max(cases, len(failed)))
    result.bad += failed


def run(row, options):
    result = Result(row)
    start = time.monotonic()
    for part in row.parts:
        if options.tier == "quick" and part.tier != "quick":
            result.skipped = result.skipped or "not in the quick tier"
            continue
        command = [word.format(build=options.build, tier=options.tier, seed=options.seed,
                               source=options.source) for word in part.command]
        environment = dict(os.environ, WASMCACHE_SOURCE_DIR=options.source, WASMCACHE_BINARY_DIR=options.build,
                           TEST_BIN_DIR=options.build + "/tests", WASMCACHE=options.build + "/cli/wasmcache",
                           **options.engines)
        environment.update(part.environment.get(options.tier, {}))
        if part.needs and not os.path.exists(command[0]):
            result.skipped = part.needs
            continue
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  errors="replace", timeout=SECONDS[options.tier], env=environment,
                                  stdin=subprocess.DEVNULL, cwd=options.build + "/tests")
            text, status = done.stdout, done.returncode
            result.said.append(f"$ {' '.join(command)}\n{text}")
        except subprocess.TimeoutExpired as late:
            said = late.output or ""
            result.said.append(said if isinstance(said, str) else said.decode(errors="replace"))
            result.broken = f"{command[0]} took more than {SECONDS[options.tier]} s"
            result.add("D", 1, 1)
            continue
        except OSError as error:
            result.broken = f"{command[0]}: {error.strerror}"
            continue
        if part.counts:
            take_test(result, part, text, status)
        elif not take_lines(result, text):
            result.broken = f"{' '.join(command[:2])} ended with {status}: " + " / ".join(text.splitlines()[-3:])
        if options.verbose:
            print(text, file=sys.stderr)
    result.seconds = time.monotonic() - start
    keep_what_was_said(result, options)
    return result


def log_of(result, options):
    return f"{options.build}/torture-row-{result.row.number}.log"


def keep_what_was_said(result, options):
    """What fails once in a thousand runs is not to be waited for again."""
    if result.failed():
        with open(log_of(result, options), "w", encoding="utf-8") as file:
            file.write("\n".join(result.said))
    elif os.path.exists(log_of(result, options)):
        os.remove(log_of(result, options))


def number(value):
    return f"{value:,}" if value < 100000 else f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value // 1000}k"


def cell(counts, kind):
    if kind not in counts:
        return ""
    bad, of = counts[kind]
    return f"{bad}/{number(of)}"


def print_table(results, options):
    head = ["row", "what", "runs"] + list(KINDS) + ["", "s"]
    lines = [head]
    for r in results:
        lines.append([r.row.number, r.row.what, number(r.runs)] + [cell(r.counts, k) for k in KINDS]
                     + [r.verdict(), f"{r.seconds:.0f}"])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        left = [line[0].rjust(widths[0]), line[1].ljust(widths[1])]
        print("  ".join(left + [c.rjust(w) for c, w in zip(line[2:], widths[2:])]).rstrip())
    for r in results:
        for text in ([r.broken] if r.broken else []) + r.bad[:8]:
            print(f"row {r.row.number}: {text}")
        if r.failed():
            print(f"row {r.row.number}: what was said is in {log_of(r, options)}")
    for r in results:
        if r.verdict() == "skipped":
            print(f"row {r.row.number} skipped: {r.skipped}")


def markdown(results, options):
    def escape(text):
        return text.replace("|", "\\|").replace("<", "&lt;")

    lines = [
        f"Made by `make torture TIER={options.tier}` on {datetime.date.today().isoformat()}, Linux {platform.release().split('-')[0]}, "
        f"{os.cpu_count()} cores, in {options.seconds / 60:.0f} minutes. Each count is so many bad ones of so many.",
        "",
        "| row | what goes wrong | runs | " + " | ".join(KINDS) + " | |",
        "|---|---|---|" + "---|" * len(KINDS) + "---|",
    ]
    for r in results:
        lines.append(f"| {r.row.number} | {escape(r.row.what)} | {number(r.runs)} | "
                     + " | ".join(cell(r.counts, k) for k in KINDS) + f" | {r.verdict()} |")
    lines.append("")
    for r in results:
        notes = list(dict.fromkeys(n for n in r.notes if n))
        if r.verdict() == "skipped":
            notes = [f"skipped: {r.skipped}"]
        if notes:
            lines.append(f"- {r.row.number}: " + escape("; ".join(notes[:6])))
    return "\n".join(lines) + "\n"


def write_docs(results, options):
    path = os.path.join(options.source, "docs/reliability.md")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    begin, end = "<!-- torture: the table -->\n", "<!-- end -->\n"
    if begin not in text or end not in text:
        sys.exit(f"{path} has no place for the table")
    head, rest = text.split(begin, 1)
    tail = rest.split(end, 1)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + begin + "\n" + markdown(results, options) + "\n" + end + tail)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--tier", choices=["quick", "full", "soak"], default="quick")
    parser.add_argument("--rows", default="", help="numbers with commas; all if it is not given")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--docs", action="store_true", help="write docs/reliability.md")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    options.source = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
    options.engines = {}
    for name in ("wasmtime", "wasmer"):
        try:
            found = subprocess.run([f"{options.source}/tools/engine-{name}", "--have"], stdout=subprocess.PIPE, text=True,
                                   check=False).stdout.strip()
        except OSError:
            found = ""
        options.engines[f"{name.upper()}_ROOT"] = found
    wanted = [n for n in options.rows.split(",") if n]
    chosen = [r for r in table.ROWS if not wanted or r.number in wanted]
    unknown = set(wanted) - {r.number for r in table.ROWS}
    if unknown:
        sys.exit("there is no row " + ", ".join(sorted(unknown)))
    start = time.monotonic()
    jobs = options.jobs or (os.cpu_count() or 1)
    # Those that measure, or load the machine, have it for themselves.
    together = [r for r in chosen if not r.alone]
    alone = [r for r in chosen if r.alone]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda row: run(row, options), together))
    results += [run(row, options) for row in alone]
    results.sort(key=lambda r: int(r.row.number))
    options.seconds = time.monotonic() - start
    with open(f"{options.build}/torture-{options.tier}.json", "w", encoding="utf-8") as file:
        json.dump({"tier": options.tier, "seed": options.seed, "seconds": round(options.seconds, 1),
                   "kinds": MEANING, "rows": [r.as_json() for r in results]}, file, indent=1)
        file.write("\n")
    print_table(results, options)
    if options.docs:
        write_docs(results, options)
    verdicts = [r.verdict() for r in results]
    print(f"rows: {verdicts.count('passed')} passed, {verdicts.count('FAILED')} failed, "
          f"{verdicts.count('skipped')} skipped")
    return 1 if "FAILED" in verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
