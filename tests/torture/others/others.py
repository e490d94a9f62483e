#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs rows of docs/reliability.md against other caches, and ours in the same way, and prints a table.

    others.py [--rows 1,22] [--subjects own-wasmtime,...] [--seed N] [--jobs N] [--quick] [--docs] BUILD
    others.py --check BUILD

Writes BUILD/torture-others.json; --docs also puts the table into docs/reliability.md. What is counted of others are figures,
not verdicts: exit status 1 only if a row could not be run, or no fault met its target, or ours failed.
--check: the driver itself. Ours must pass some of each row, and a cache without any care must fail it.
"""
import argparse
import concurrent.futures
import datetime
import json
import os
import platform
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import rows as table

KINDS = "WDSTKAX"
ROWS = ["1", "2", "4", "5", "7", "10", "14", "18", "20", "22", "23", "24", "29"]
SECONDS = 600
# The rows that a cache without any care has to fail, in the quick form.
CONTROLS = {"1": "S", "2": "D", "4": "S", "5": "A", "7": "S", "18": "K", "20": "S", "22": "W", "23": "W", "24": "W"}


class Subject:
    """`cleaning`: what main.c says. `command`: a program and its words; `missing`: why there is none."""

    def __init__(self, name, title, cleaning, command, missing=""):
        self.name = name
        self.title = title
        self.cleaning = cleaning
        self.command = command
        self.missing = missing


def output_of(*command):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def version_of(source, engine):
    root = output_of(f"{source}/tools/engine-{engine}", "--have")
    try:
        with open(f"{root}/VERSION", encoding="utf-8") as file:
            return file.read().split()[0]
    except (OSError, IndexError):
        return ""


def all_subjects(options):
    found = []
    for engine in ("wasmtime", "wasmer"):
        program = f"{options.build}/tests/torture_subject.{engine}"
        missing = "" if os.path.exists(program) else f"{engine} is not there"
        title = f"{engine.capitalize()} {version_of(options.source, engine)}".strip()
        found.append(Subject(f"ours-{engine}", f"wasmcache, {title}", "cleans", [program, "ours"], missing))
        if engine == "wasmtime":
            found.append(Subject("own-wasmtime", f"{title}'s own cache", "ages", [program, "own"], missing))
    for name, version in (("wasix-0.31", "0.31.0"), ("wasix-0.704", "0.704.2")):
        program = output_of(f"{options.source}/tools/rust-program", "--have", name)
        found.append(Subject(name, f"wasmer-wasix {version}", "keeps", [program], "" if program else "it was not built"))
    return found


def naive(options):
    return Subject("naive", "no care", "keeps", [f"{options.build}/tests/torture_subject.wasmtime", "naive"])


def run(subject, row, options):
    """The line that the driver prints, with "seconds" and, if it is of no use, "broken"."""
    command = [f"{options.build}/tests/torture_others", row, "quick" if options.quick else "full", options.seed, subject.name,
               subject.cleaning] + subject.command
    start = time.monotonic()
    got = {"row": row, "subject": subject.name, "runs": 0, "skipped": subject.missing, "note": "", "bad": [], "broken": ""}
    if subject.missing:
        return got
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace",
                              timeout=SECONDS, stdin=subprocess.DEVNULL, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith('{"row":')]
        if lines:
            got.update(json.loads(lines[-1]))
        if done.returncode not in (0, 77) or not lines:
            got["broken"] = "; ".join(got["bad"][-1:]) or f"{' '.join(command[:2])} ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        got["broken"] = f"it took more than {SECONDS} s"
    except OSError as error:
        got["broken"] = f"{command[0]}: {error.strerror}"
    got["seconds"] = round(time.monotonic() - start, 1)
    return got


def bad_of(got):
    return {k: got[k] for k in KINDS if k in got and got[k][0]}


def cell(got):
    """What was bad, then what was looked at and was not."""
    if got["broken"]:
        return "failed to run"
    if got["skipped"]:
        return "skipped"
    bad = [f"{k} {b}/{of}" for k, (b, of) in bad_of(got).items()]
    none = " ".join(k for k in KINDS if k in got and not got[k][0])
    return ", ".join(bad + ([f"{none} 0"] if none else [])) + f" ({got['runs']})"


def name_of(row):
    return next(r.what for r in table.ROWS if r.number == row)


def print_table(results, subjects, rows):
    for row in rows:
        print(f"{row}: {name_of(row)}")
        for subject in subjects:
            got = results[subject.name, row]
            print(f"    {subject.title:32} {cell(got)}  {got.get('seconds', 0):.0f} s")
            if got["broken"] or (got["skipped"] and not subject.missing):
                print(f"        {got['broken'] or got['skipped']}")


def markdown(results, subjects, rows, options):
    subjects = [s for s in subjects if not s.missing]
    lines = [
        f"Made by `make torture-others` on {datetime.date.today().isoformat()}, Linux {platform.release().split('-')[0]}, "
        f"{os.cpu_count()} cores, in {options.seconds / 60:.0f} minutes, seed {options.seed}. So many bad ones of so many, then the "
        "counts that are 0; in brackets the runs.",
        "",
        "| row | what goes wrong | " + " | ".join(s.title for s in subjects) + " |",
        "|---|---|" + "---|" * len(subjects),
    ]
    for row in rows:
        lines.append(f"| {row} | {name_of(row)} | " + " | ".join(cell(results[s.name, row]) for s in subjects) + " |")
    notes = [f"- {row}, {s.title}: {text}" for row in rows for s in subjects
             for text in [results[s.name, row]["skipped"] or results[s.name, row]["note"]] if text]
    return "\n".join(lines + [""] + notes).rstrip() + "\n"


def write_docs(text, options):
    path = os.path.join(options.source, "docs/reliability.md")
    begin, end = "<!-- torture: others -->\n", "<!-- end of others -->\n"
    with open(path, encoding="utf-8") as file:
        whole = file.read()
    if begin not in whole or end not in whole:
        sys.exit(f"{path} has no place for the table: no line {begin.strip()} or {end.strip()}")
    head, rest = whole.split(begin, 1)
    with open(path, "w", encoding="utf-8") as file:
        file.write(head + begin + "\n" + text + "\n" + end + rest.split(end, 1)[1])


def run_all(subjects, rows, options):
    wanted = [(s, row) for row in rows for s in subjects]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        done = list(pool.map(lambda w: run(*w, options), wanted))
    return {(s.name, row): got for (s, row), got in zip(wanted, done)}


def check(options):
    """77 where it cannot run, else whether the driver finds fault with what has faults, and none with ours."""
    options.quick = True
    ours, other = all_subjects(options)[0], naive(options)
    if ours.missing:
        print(f"skipped: {ours.missing}")
        return 77
    results = run_all([ours], ROWS, options) | run_all([other], CONTROLS, options)
    wrong = 0
    for (name, row), got in results.items():
        problem = got["broken"]
        if not problem and not got["skipped"]:
            if name == "naive" and CONTROLS[row] not in bad_of(got):
                problem = f"nothing of {CONTROLS[row]} was found in a cache without care"
            elif name != "naive" and bad_of(got):
                problem = "; ".join(got["bad"])
        print(f"row {row}, {name}: {problem or cell(got)}")
        wrong += bool(problem)
    print(f"{len(results)} rows, {wrong} wrong")
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build")
    parser.add_argument("--rows", default="", help="numbers with commas; all if it is not given")
    parser.add_argument("--subjects", default="", help="names with commas; all if it is not given")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="some of each row")
    parser.add_argument("--check", action="store_true", help="whether the driver finds what it is to find")
    parser.add_argument("--docs", action="store_true", help="write docs/reliability.md")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    options.source = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
    if options.check:
        return check(options)
    rows = [r for r in options.rows.split(",") if r] or ROWS
    names = [n for n in options.subjects.split(",") if n]
    subjects = [s for s in all_subjects(options) if not names or s.name in names]
    unknown = set(rows) - set(ROWS) | set(names) - {s.name for s in subjects}
    if unknown:
        sys.exit("there is no row or subject " + ", ".join(sorted(unknown)))
    start = time.monotonic()
    results = run_all(subjects, rows, options)
    options.seconds = time.monotonic() - start
    with open(f"{options.build}/torture-others.json", "w", encoding="utf-8") as file:
        json.dump({"seed": options.seed, "quick": options.quick, "seconds": round(options.seconds, 1),
                   "subjects": [{"name": s.name, "what": s.title, "missing": s.missing} for s in subjects],
                   "cells": list(results.values())}, file, indent=1)
        file.write("\n")
    print_table(results, subjects, rows)
    if options.docs:
        write_docs(markdown(results, subjects, rows, options), options)
    broken = [key for key, got in results.items() if got["broken"]]
    failed = [key for key, got in results.items() if key[0].startswith("ours-") and bad_of(got)]
    for name, row in failed:
        print(f"row {row}, {name}: " + "; ".join(results[name, row]["bad"]))
    print(f"others: {len(results)} cells in {options.seconds:.0f} s, {len(broken)} could not be run, {len(failed)} of ours failed")
    return 1 if broken or failed else 0


if __name__ == "__main__":
    sys.exit(main())
