#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench.py [--quick] [--docs] [--modules NAME,... [--add]] [--again PART] [--results FILE] BUILD: measures ours side by side with others, prints a table, writes JSON and pictures.

BUILD is the build folder with the hosts in BUILD/bench. --quick: the small modules, ours and the bare engine, under two
minutes. --docs: also the tables of docs/performance.md and the pictures docs/bench-*.svg. --results FILE: measures nothing,
and prints and draws what a run wrote.

How it is measured
  - Ours and the bare engine are measured in one process, in turn, each round in another order; other programs in turn with
    that process, in batches. New processes are started in turn, one of each a round. So whatever the machine does at that
    moment, it does to all.
  - The page cache is warm. The first two loads of a process do not count in "warm".
  - Numbers are medians; N is written beside them. JSON has all samples and the quartiles. A ratio of what ran in turn, as often,
    is the median of the rounds' ratios; else that of two medians. Its interval is a bootstrap over the rounds.
  - Sizes are in MB of 1,000,000 bytes.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time

import measure
import report
from measure import Failed, Host, Other, Samples, say

TOP = pathlib.Path(__file__).resolve().parent.parent
MODULES = ["sqlite", "boolector", "esbuild", "php", "yosys"]

FULL = {
    "parts": ["modules", "rate", "rest"],
    "modules": MODULES,
    "batches": 4,  # of each warm process
    "pair": 25,  # rounds a batch of ours and bare
    "rounds": 5,  # rounds a batch of everything else
    "new": 40,
    "compiles": {"sqlite": 20, "boolector": 20, "esbuild": 3, "php": 3, "yosys": 1},
    "processes": 16,
    "growth": [1, 1_000, 100_000, 1_000_000],
    "growth_batches": 10,
    "growth_rounds": 20,
    "threads": [1, 2, 4, 8, 16, 32, 64],
    "forks": [1, 2, 4, 16, 64],
    "rate_ms": 500,
    "rate_pairs": 30,  # of threads on one entry, which have a bar
    "rate_repeats": 7,
    "many": 64,
    "publish": 40,
    "container": 20,
    "others": True,
    "main": "php",
    "small": "sqlite",
}
QUICK = dict(
    FULL, modules=["sqlite", "boolector"], batches=2, pair=20, rounds=10, compiles={"sqlite": 3, "boolector": 3}, growth=[1, 1000],
    growth_batches=2, threads=[1, 2, 8], forks=[1, 2], rate_ms=300, rate_pairs=4, rate_repeats=2, new=20, many=16, others=False, main="boolector",
)
BATCH_BYTES = 6e9  # of artifacts that a process may load
# Programs of others: contender, how it is called, how its program is built.
OTHERS = [
    ("wasix-0.31", "tools/rust-program", "wasix-0.31"),
    ("wasix-0.704", "tools/rust-program", "wasix-0.704"),
    ("wazero", "tools/go-program", "wazero"),
]


def output_of(*command):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def busy(seconds=2):
    """How many cores are at work now. Not the load, which says what was in the last minutes."""

    def idle():
        fields = [int(word) for word in open("/proc/stat").readline().split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    before = idle()
    time.sleep(seconds)
    after = idle()
    return len(os.sched_getaffinity(0)) * (1 - (after[0] - before[0]) / max(1, after[1] - before[1]))


def machine(work):
    cpu = memory = ""
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
    for line in open("/proc/meminfo"):
        if line.startswith("MemTotal"):
            memory = f"{int(line.split()[1]) / 1024 / 1024:.0f} GiB"
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "") if hasattr(platform, "freedesktop_os_release") else ""
    return {
        "cpu": cpu, "cores": len(os.sched_getaffinity(0)), "memory": memory, "kernel": platform.release().split("-")[0], "system": system,
        "file_system": output_of("stat", "-f", "-c", "%T", str(work)).replace("ext2/ext3", "ext4"),
        "virtual": output_of("systemd-detect-virt") or "", "busy_before": busy(),
        "compiler": (output_of("cc", "--version").splitlines() or [""])[0],
    }


class Bench:
    def __init__(self, build, setup, work):
        self.build, self.setup, self.work = build, setup, work
        self.samples = Samples()
        self.skipped, self.sizes = {}, {}
        self.hosts, self.others = {}, {}
        self.wasms = {}
        self.result = {"growth": [], "rate": [], "publish": {}, "container": {}}

    def find(self):
        for engine, binary in (("wasmtime", "bench-wasmtime"), ("wasmer", "bench-wasmer"), ("wasmer-stock", "bench-wasmer-stock")):
            path = self.build / "bench" / binary
            if path.exists():
                self.hosts[engine] = Host(engine, path)
            else:
                self.skipped[engine] = f"there was no {engine} when the hosts were built"
        if self.setup["others"]:
            for name, tool, argument in OTHERS:
                done = subprocess.run([TOP / tool, argument], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
                if done.returncode == 0:
                    self.others[name] = Other(done.stdout.strip())
                else:
                    compiler = "go" if name == "wazero" else "cargo"
                    self.skipped[name] = f"no {compiler}, or one that is too old" if done.returncode == 3 else "its program could not be built"
        setup = self.setup
        for name in dict.fromkeys([*setup["modules"], *([setup["small"]] if setup["main"] in setup["modules"] else [])]):
            path = output_of(TOP / "tools/modules", "--have", name)
            if not path:
                self.skipped[name] = "tools/modules did not get it"
                continue
            self.wasms[name] = pathlib.Path(shutil.copy(path, self.work))
        # What is remembered of a file needs its last change to be over.
        time.sleep(2.1)

    def versions(self):
        found = {}
        for engine in ("wasmtime", "wasmer"):
            root = output_of(TOP / f"tools/engine-{engine}", "--have")
            if root and (pathlib.Path(root) / "VERSION").exists():
                found[engine] = (pathlib.Path(root) / "VERSION").read_text().strip()
        return found

    def attempt(self, what, function, *arguments):
        """A measurement that fails is said and left out; the others go on."""
        try:
            return function(*arguments)
        except (Failed, OSError) as error:
            say(f"{what} failed: {error}")
            self.skipped[what] = str(error)
        return None

    # ---- a module: hits, new processes, misses, memory ----

    def contenders(self):
        """(name, host or other, way or None) of all that can be measured."""
        for engine, host in self.hosts.items():
            for way in host.ways():
                yield f"{way}-{engine}", host, way
        for name, other in self.others.items():
            yield name, other, None

    def one_module(self, module):
        wasm, folder = self.wasms[module], self.work / module
        say(f"{module}: compiling once for each")
        for engine, host in self.hosts.items():
            host.make(folder / engine, wasm)
        for name, other in list(self.others.items()):
            if self.attempt(f"{name}, {module}", other.make, folder / name, wasm) is None and f"{name}, {module}" in self.skipped:
                del self.others[name]
        self.sizes[module] = {"wasm": wasm.stat().st_size, **{e: h.artifact().stat().st_size for e, h in self.hosts.items()}}
        time.sleep(2.1)
        contenders = list(self.contenders())
        say(f"{module}: new processes")
        starts = []
        for name, thing, way in contenders:
            starts.append((name, (lambda t=thing, w=way: t.new(w)) if way else thing.new))
            if way == "ours":
                for more in ("ours-digest", "ours-bytes", "ours-checked"):
                    starts.append((f"{more}-{thing.engine}", lambda t=thing, w=more: t.new(w)))
        measure.measure_new(self.samples, module, starts, self.setup["new"])
        say(f"{module}: warm processes")
        measure.measure_warm(self.samples, module, list(self.warm_runs()), self.setup["batches"])
        say(f"{module}: memory and disk")
        for name, thing, way in contenders:
            command = thing.hold(way) if way else thing.hold()
            below = {"ours": thing.folder / "cache", "bare": thing.folder}.get(way)
            self.attempt(
                f"memory of {name}, {module}", measure.measure_memory, self.samples, module, name, command, self.setup["processes"], below
            )
            self.samples.add(module, name, "disk", thing.disk(way) if way else thing.disk())
        for engine, host in self.hosts.items():
            measure.measure_memory(self.samples, module, f"nothing-{engine}", host.hold("nothing"), 1)
        say(f"{module}: misses")
        self.misses(module)

    def warm_runs(self):
        """Functions that run a process each and give its times. Times that are only of this run have a name of their own."""
        rounds = self.setup["rounds"]

        def of_host(host, count, ways, suffix):
            said = host.warm(count, ways)
            return {(f"{way}-{host.engine}", "hit" + suffix): times for way, times in said.items()}

        for host in self.hosts.values():
            maps = host.made["maps"]
            # Wasmer keeps the code of what it loaded until the engine ends: yosys, loaded over and over, had 24 GB.
            pair = max(rounds, min(self.setup["pair"], int(BATCH_BYTES / (3 * host.artifact().stat().st_size))))
            limit = "bare" if maps else "map"
            yield lambda h=host, w=limit: of_host(h, pair, ["ours", w, "ours-digest"], "")
            yield lambda h=host, w=limit: of_host(h, rounds, [w, "ours-checked", "ours-bytes"], "-checked")
            rest = ["ours"] + [way for way in host.ways() if way not in ("ours", limit)]
            yield lambda h=host, w=rest: of_host(h, rounds, w, "-others")
        for name, other in self.others.items():
            yield lambda n=name, o=other: {(n, "hit"): o.warm(rounds)["hit"]}

    def misses(self, module):
        count = self.setup["compiles"].get(module, 1)
        for i in range(count):
            runs = []
            for engine, host in self.hosts.items():
                if engine != "wasmer-stock":  # the same compiler again
                    runs += [(f"{way}-{engine}", host, way) for way in ("ours", "later", "bare", "own") if way != "own" or "own" in host.ways()]
            runs += [(name, other, None) for name, other in self.others.items()]
            for name, thing, way in runs if i % 2 == 0 else reversed(runs):
                said = self.attempt(f"miss of {name}, {module}", thing.miss, *([way] if way else []))
                for what, value in (said or {}).items():
                    self.samples.add(module, name, "miss-" + what, value)
            if "wazero" in self.others:
                other = self.others["wazero"]
                said = measure.run(other.binary, "compile", other.folder, other.wasm)
                self.samples.add(module, "wazero", "miss-alone", said["compile"])

    def all(self):
        self.find()
        if "modules" in self.setup["parts"]:
            for module in self.setup["modules"]:
                if module in self.wasms:
                    self.attempt(module, self.one_module, module)
        if self.setup["main"] in self.wasms and "wasmtime" in self.hosts:
            self.main_module()

    def main_module(self):
        """What is measured of one module only."""
        main, setup = self.setup["main"], self.setup
        host = self.hosts["wasmtime"]
        small, large = self.work / setup["small"] / "wasmtime", self.work / main / "wasmtime"
        for module, folder in ((setup["small"], small), (main, large)):
            if not folder.exists():
                host.make(folder, self.wasms[module])
        host.folder, host.wasm = large, self.wasms[main]
        if "rate" in setup["parts"]:
            say("modules a second")
            self.attempt("rate", self.rate, host, small, large)
        if "rest" in setup["parts"]:
            self.attempt("publish", self.publish, host)
            self.result["container"] = self.attempt("container", measure.container, host, setup["container"]) or {}
            say("growth")
            self.result["growth"] = (
                self.attempt(
                    "growth", measure.measure_growth, host, self.work, self.wasms[main], setup["growth"], setup["growth_batches"], setup["growth_rounds"]
                )
                or []
            )

    def publish(self, host):
        say("publish")
        said = measure.run(host.binary, "publish", measure.emptied(self.work / "publish"), host.artifact(), self.setup["publish"])
        self.result["publish"] = dict(said, bytes=host.artifact().stat().st_size)

    def rate(self, host, small, large):
        setup = self.setup
        large_wasm = host.wasm
        rows = measure.measure_rate(
            host, ["ours", "bare"], setup["threads"], setup["forks"], 1, setup["rate_ms"], setup["rate_repeats"], setup["rate_pairs"]
        )
        host.folder, host.wasm = small, self.wasms[setup["small"]]
        measure.run(host.binary, "many", host.folder, host.wasm, setup["many"])
        rows += measure.measure_rate(
            host, ["ours", "bare"], setup["threads"], setup["forks"], setup["many"], setup["rate_ms"], setup["rate_repeats"]
        )
        host.folder, host.wasm = large, large_wasm
        self.result["rate"] = rows

    def to_json(self, info, seconds):
        return {
            "machine": info, "versions": self.versions(), "when": datetime.date.today().isoformat(), "seconds": seconds,
            "quick": self.setup is QUICK, "main": self.setup["main"], "processes": self.setup["processes"], "sizes": self.sizes,
            "skipped": self.skipped, "rows": list(self.samples.summary()), **self.result,
        }


def joined(earlier, now):
    """The results of two runs of the same setup. Of what both have, the later; what is of the main module, of who measured it."""
    measured = set(now["sizes"])
    rows = [row for row in earlier["rows"] if row["module"] not in measured] + now["rows"]
    sizes = {m: (now if m in measured else earlier)["sizes"][m] for m in MODULES if m in measured or m in earlier["sizes"]}
    newer, older = (earlier, now) if FULL["main"] not in measured and FULL["main"] in earlier["sizes"] else (now, earlier)
    kept = {what: why for what, why in earlier["skipped"].items() if what.split(", ")[-1] not in measured}
    skipped = {**kept, **now["skipped"]}
    return {**older, **newer, "rows": rows, "sizes": sizes, "skipped": skipped, "seconds": earlier["seconds"] + now["seconds"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--docs", action="store_true")
    parser.add_argument("--results", type=pathlib.Path)
    parser.add_argument("--modules", help="only these, with commas between them")
    parser.add_argument("--add", action="store_true", help="keep what the last run wrote of other modules: a long run in parts")
    parser.add_argument("--again", choices=["rate", "rest"], help="only that part, of the main module; all else is as in the last run")
    parser.add_argument("build", type=pathlib.Path)
    options = parser.parse_args()

    if options.results:
        results = json.loads(options.results.read_text())
    else:
        setup = QUICK if options.quick else FULL
        if options.modules:
            setup["modules"] = options.modules.split(",")
        if options.again:
            setup["parts"], setup["modules"] = [options.again], [setup["main"]]
        started = time.monotonic()
        out = TOP / "build/bench"
        out.mkdir(parents=True, exist_ok=True)
        # Beside the results, so that it is not a file system in memory by chance.
        with tempfile.TemporaryDirectory(prefix="work.", dir=out) as work:
            info = machine(work)
            if info["busy_before"] > 0.2:
                say(f"{info['busy_before']:.1f} cores are busy: others are at work, and the numbers are worth little")
            bench = Bench(options.build.resolve(), setup, pathlib.Path(work))
            bench.all()
            results = bench.to_json(info, time.monotonic() - started)
        name = "quick.json" if options.quick else "results.json"
        if options.again:
            earlier = json.loads((out / name).read_text())
            part = {key: results[key] for key in (["rate"] if options.again == "rate" else ["publish", "container", "growth"])}
            skipped = {key: why for key, why in earlier["skipped"].items() if key not in ("rate", *part)}
            results = {**earlier, **part, "main": setup["main"], "skipped": skipped, "seconds": earlier["seconds"] + results["seconds"]}
        elif options.add and (out / name).exists():
            results = joined(json.loads((out / name).read_text()), results)
        (out / name).write_text(json.dumps(results, indent=1))
        say(f"{out.relative_to(TOP) / name} has all numbers")
    bars = report.bars(results)
    report.print_all(results, bars)
    report.draw(results, TOP / "docs" if options.docs else TOP / "build/bench")
    if options.docs:
        report.write_docs(results, bars, TOP / "docs/performance.md")


if __name__ == "__main__":
    sys.exit(main())
