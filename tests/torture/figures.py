#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Rows 38 and 39: what `make coverage` and `make mutants` found last, as the line of JSON that `torture` prints.

    figures.py coverage|mutants SOURCE BUILD

What is older than the sources, or not there, is skipped: neither is run from here, as each takes minutes.
"""
import json
import os
import sys

LINES, BRANCHES, BUGS, SPARED = 95, 90, 40, 2


def newest(folder):
    return max(os.path.getmtime(os.path.join(where, name)) for where, _, names in os.walk(folder) for name in names)


def read(source, path, command):
    """What is in the file; the text of why not, if it cannot count."""
    try:
        if os.path.getmtime(path) < newest(os.path.join(source, "src")):
            return f"{command} has not run since the sources were changed"
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except FileNotFoundError:
        return f"{command} has not run here"


def answer(row, runs=0, counts=(0, 0), skipped="", note="", bad=()):
    line = {"row": row, "subject": "", "runs": runs, "skipped": skipped, "note": note, "bad": list(bad)[:8]}
    if counts[1]:
        line["X"] = counts
    # As C prints it: without spaces, so that both are found in the same way.
    print(json.dumps(line, separators=(",", ":")))
    sys.exit(77 if skipped else 1 if counts[0] else 0)


def coverage(source, build):
    got = read(source, os.path.join(build, "../coverage/coverage.json"), "make coverage")
    if isinstance(got, str):
        answer("38", skipped=got)
    short = [f"{got[what]['percent']:.2f} % of {what}, and {least} are needed"
             for what, least in (("lines", LINES), ("branches", BRANCHES)) if got[what]["percent"] < least]
    short += [f"no reason is given for {what}" for what in got["unexplained"]]
    answer("38", got["branches"]["count"], [len(short), got["branches"]["count"]], bad=short,
           note=f"{got['lines']['percent']:.2f} % of {got['lines']['count']} lines, "
                f"{got['branches']['percent']:.2f} % of {got['branches']['count']} branches")


def mutants(source, build):
    got = read(source, os.path.join(build, "../mutants/mutants.json"), "make mutants")
    if isinstance(got, str):
        answer("39", skipped=got)
    bugs = got["bugs"]
    if len(bugs) < BUGS:
        answer("39", skipped=f"make mutants ran last with {len(bugs)} bugs only")
    missed = [b for b in bugs if not b["caught_by"]]
    named = [b for b in bugs if b["named"]]
    # Two that nobody notices are allowed, but none of the named ones.
    bad = missed if len(missed) > SPARED else [b for b in missed if b["named"]]
    answer("39", len(bugs), [len(bad), len(bugs)], bad=[b["bug"] + ": " + b["how"] for b in bad],
           note=f"{len(bugs) - len(missed)} of {len(bugs)} planted bugs caught, "
                f"{sum(1 for b in named if b['caught_by'])} of {len(named)} named ones")


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("coverage", "mutants"):
        sys.exit(__doc__)
    {"coverage": coverage, "mutants": mutants}[sys.argv[1]](sys.argv[2], sys.argv[3])
