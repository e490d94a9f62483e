# SPDX-License-Identifier: Apache-2.0
"""Runs the hosts and the other caches' programs, and collects what they say. See bench.py."""

import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time

MB = 1_000_000


class Failed(Exception):
    pass


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run(*command):
    """What a program says, as JSON; it says one object."""
    command = [str(word) for word in command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise Failed(f"{pathlib.Path(command[0]).name} {command[1]}: {last[0]}")
    return json.loads(done.stdout)


def emptied(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def bytes_below(folder):
    """Bytes of disk, as du counts them, without what is no entry."""
    return sum(p.stat().st_blocks * 512 for p in folder.rglob("*") if p.is_file() and p.name != "CACHEDIR.TAG" and not p.name.startswith("."))


def rollup(pid):
    """Memory of a process in bytes."""
    sizes = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        sizes[name] = int(value.split()[0]) * 1024
    return {"rss": sizes["Rss"], "pss": sizes["Pss"], "anonymous": sizes["Anonymous"]}


def mapped_pss(pid, folder):
    """The proportional part of what is mapped of files below a folder, and what is resident of it, in bytes."""
    pss = rss = 0
    counts = False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            counts = len(words) > 5 and words[5].startswith(str(folder))
        elif counts and words[0] == "Pss:":
            pss += int(words[1]) * 1024
        elif counts and words[0] == "Rss:":
            rss += int(words[1]) * 1024
    return pss, rss


class Held:
    """Processes that hold a module each, until the end of a with statement."""

    def __init__(self, command, count):
        self.all = [
            subprocess.Popen([str(w) for w in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(count)
        ]

    def __enter__(self):
        for process in self.all:
            if process.stdout.readline().strip() != "ready":
                message = process.stderr.read().strip()
                self.__exit__()
                raise Failed(f"hold: {message}")
        return self

    def touch(self):
        for process in self.all:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in self.all:
            process.stdout.readline()

    def memory(self):
        each = [rollup(process.pid) for process in self.all]
        return {name: statistics.mean(one[name] for one in each) for name in each[0]}

    def mapped(self, folder):
        return [mapped_pss(process.pid, folder) for process in self.all]

    def __exit__(self, *_):
        for process in self.all:
            process.stdin.close()
        for process in self.all:
            process.wait()
            process.stdout.close()
            process.stderr.close()


class Host:
    """An engine and a rig of it (host.h) for one module. `ways` are contenders by the host's own names."""

    def __init__(self, engine, binary):
        self.engine, self.binary = engine, binary

    def make(self, folder, wasm):
        self.folder, self.wasm = emptied(folder), wasm
        self.made = run(self.binary, "make", folder, wasm)

    def ways(self):
        ours = ["ours", "read", "map"]
        if self.made["maps"]:
            ours.insert(1, "bare")
        return ours + (["own"] if self.engine == "wasmtime" else [])

    def new(self, way):
        return run(self.binary, "new", self.folder, self.wasm, way)

    def warm(self, rounds, ways):
        return run(self.binary, "warm", self.folder, self.wasm, rounds, *ways)

    def hold(self, way):
        return [self.binary, "hold", self.folder, self.wasm, way]

    def disk(self, way):
        if way == "own":
            return bytes_below(self.folder / "own")
        if way == "ours":
            return bytes_below(self.folder / "cache")
        return (self.folder / "artifact.bin").stat().st_blocks * 512

    def artifact(self):
        return self.folder / "artifact.bin"

    def miss(self, way):
        folder = emptied(self.folder.parent / "miss")
        try:
            return run(self.binary, "miss", folder, self.wasm, way)
        finally:
            shutil.rmtree(folder)


class Other:
    """Another cache: a program of its own."""

    def __init__(self, binary):
        self.binary = binary

    def make(self, folder, wasm):
        self.folder, self.wasm = emptied(folder), wasm
        self.saved = self.save(folder)

    def save(self, folder):
        return run(self.binary, "save", folder, self.wasm)

    def new(self):
        return run(self.binary, "new", self.folder, self.wasm)

    def warm(self, rounds):
        return run(self.binary, "warm", self.folder, self.wasm, rounds)

    def hold(self):
        return [self.binary, "hold", self.folder, self.wasm]

    def disk(self):
        return bytes_below(self.folder)

    def miss(self):
        folder = emptied(self.folder.parent / "miss")
        try:
            return self.save(folder)
        finally:
            shutil.rmtree(folder)


class Samples:
    """Lists of numbers by (module, contender, what)."""

    def __init__(self):
        self.lists = {}

    def add(self, module, contender, what, *values):
        self.lists.setdefault((module, contender, what), []).extend(values)

    def get(self, module, contender, what):
        return self.lists.get((module, contender, what), [])

    def has(self, *key):
        return bool(self.lists.get(key))

    def median(self, *key):
        values = self.lists.get(key)
        return statistics.median(values) if values else None

    def summary(self):
        for (module, contender, what), values in sorted(self.lists.items()):
            ordered = sorted(values)
            quarter = len(ordered) // 4
            yield {
                "module": module, "contender": contender, "what": what, "n": len(values),
                "median": statistics.median(values), "low_quartile": ordered[quarter], "high_quartile": ordered[-1 - quarter],
                "min": ordered[0], "max": ordered[-1], "samples": values,
            }


def interval(above, below, times=1000):
    """95 % of what the ratio is when the rounds are drawn again, both of a pair at once (a bootstrap). Of as many rounds each, in
    turn, it is the median of each round's; else that of the medians."""
    n = min(len(above), len(below))
    if n < 2:
        return None
    draw = random.Random(1)
    pairs = [a / b for a, b in zip(above, below)]
    ratios = []
    for _ in range(times):
        chosen = [draw.randrange(n) for _ in range(n)]
        if len(above) == len(below):
            ratios.append(statistics.median(pairs[i] for i in chosen))
        else:
            ratios.append(statistics.median(above[i] for i in chosen) / statistics.median(below[i] for i in chosen))
    ratios.sort()
    return ratios[times * 25 // 1000], ratios[times * 975 // 1000 - 1]


def measure_new(samples, module, contenders, rounds):
    """One process after the other, each contender in each round; every other round backwards."""
    for i in range(rounds):
        for name, start in contenders if i % 2 == 0 else reversed(contenders):
            said = start()
            samples.add(module, name, "new", said["main"])
            for part in ("engine", "open", "load"):
                if part in said:
                    samples.add(module, name, "new-" + part, said[part])


def measure_warm(samples, module, runs, batches):
    """`runs`: functions that give {contender and what: times}; each once a batch."""
    for i in range(batches):
        for warm in runs if i % 2 == 0 else reversed(runs):
            for (name, what), times in warm().items():
                samples.add(module, name, what, *times)


def measure_memory(samples, module, name, command, processes, touch_below=None):
    with Held(command, 1) as held:
        for what, size in held.memory().items():
            samples.add(module, name, what, size)
    if processes < 2:
        return
    needed = samples.median(module, name, "rss") * processes
    if needed > available_memory() * 0.7:
        say(f"{name}, {module}: {processes} processes would take {needed / 1e9:.0f} GB; left out")
        return
    with Held(command, processes) as held:
        for what, size in held.memory().items():
            samples.add(module, name, f"{what}-{processes}", size)
        if touch_below:
            held.touch()
            mapped = held.mapped(touch_below)
            samples.add(module, name, f"mapped-pss-{processes}", sum(pss for pss, _ in mapped))
            samples.add(module, name, "mapped-rss", max(rss for _, rss in mapped))


def available_memory():
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


# ---- growth ----

def fill(folder, entry, count):
    """Makes the folder hold `count` more entries: hard links to copies of a small one, under random names."""
    names = random.Random(2)
    copy = None
    for i in range(count):
        target = folder / f"{names.getrandbits(256):064X}.bin"
        # ext4 has at most 65,000 links to a file.
        if i % 60_000 == 0:
            shutil.copyfile(entry, target)
            os.chmod(target, 0o400)
            copy = target
        else:
            os.link(copy, target)


def measure_growth(host, work, wasm, counts, batches, rounds):
    """Hits of one entry that is alone, and of the same among many, in turn. Nanoseconds, medians and quartiles."""
    small = work / "small.wasm"
    small.write_bytes(b"\0asm\1\0\0\0")
    host.make(work / "small", small)
    entry = next((work / "small/cache").rglob("*.bin"))
    host.make(work / "growth-one", wasm)
    one = (host.folder, host.wasm)
    host.make(work / "growth-many", wasm)
    many = (host.folder, host.wasm)
    namespace = next((host.folder / "cache").rglob("*.bin")).parent
    time.sleep(2.1)  # for stamps, where the file system's clock is coarse
    results, there = [], 1
    for count in counts:
        if count > there:
            say(f"growth: {count:,} entries")
            # A folder of its own for each count: names are drawn anew, from the start.
            for old in namespace.glob("*.bin"):
                if old.stat().st_size == entry.stat().st_size:
                    old.unlink()
            fill(namespace, entry, count - 1)
            there = count
        samples = Samples()
        for i in range(batches):
            for name, (host.folder, host.wasm) in (("one", one), ("many", many)) if i % 2 == 0 else (("many", many), ("one", one)):
                samples.add("", name, "hit", *host.warm(rounds, ["ours", "bare"])["ours"])
                for _ in range(4):
                    said = host.new("ours")
                    samples.add("", name, "open", said["open"])
                    samples.add("", name, "first", said["open"] + said["load"])
        row = {"entries": count, "n": len(samples.get("", "many", "hit")), "n_new": len(samples.get("", "many", "open"))}
        for name in ("one", "many"):
            for what in ("hit", "open", "first"):
                row[f"{what}_{name}"] = samples.median("", name, what)
        row["interval"] = interval(samples.get("", "many", "hit"), samples.get("", "one", "hit"))
        results.append(row)
    for folder in ("small", "growth-one", "growth-many"):
        shutil.rmtree(work / folder)
    return results


# ---- modules a second ----

def rate_of_threads(host, ways, number, milliseconds, pairs):
    """Modules a second by `number` threads that take turns; ratios of turns that are next to each other."""
    said = run(host.binary, "turns", host.folder, host.wasm, *ways, number, milliseconds, pairs)["per_second"]
    got = {way: [value for which, value in said if which == i] for i, way in enumerate(ways)}
    return got, pairs


def rate_of_processes(host, ways, kind, number, many, milliseconds, repeats):
    """The same of processes, or on many entries, which run one after the other."""
    got = {way: [] for way in ways}
    pair = (number, 1) if kind == "threads" else (1, number)
    for i in range(repeats):
        for way in ways if i % 2 == 0 else reversed(ways):
            said = run(host.binary, "rate", host.folder, host.wasm, way, *pair, milliseconds, many)
            got[way].append(said["per_second"])
    return got, repeats


def measure_rate(host, ways, threads, processes, many, milliseconds, repeats, pairs=0):
    """`pairs`: so many turns of each way where threads are on one entry, instead of runs."""
    rows = []
    for kind, numbers in (("threads", threads), ("processes", processes)):
        for number in numbers:
            if kind == "threads" and pairs:
                got, n = rate_of_threads(host, ways, number, milliseconds, pairs)
            else:
                got, n = rate_of_processes(host, ways, kind, number, many, milliseconds, repeats)
            row = {"kind": kind, "number": number, "entries": many, "n": n}
            for way in ways:
                row[way] = statistics.median(got[way])
            row["ratio"] = statistics.median(a / b for a, b in zip(*(got[way] for way in ways)))
            rows.append(row)
    return rows


# ---- a container's first start ----

def container(host, rounds):
    """First loads from a read-only layer that root owns; a new mount, with another device number, each time."""
    if os.geteuid() != 0:
        raise Failed("needs root, to mount a layer")
    layer, empty = host.folder / "layer", host.folder / "empty"
    for folder in (layer, empty, host.folder / "mnt"):
        emptied(folder)
    shutil.copytree(host.folder / "cache", layer / "cache")
    # What an image brings that was made by `wasmcache compile`: entries and what is known of the engine.
    shutil.copy(host.wasm, layer / "module.wasm")
    digest = next((host.folder / "cache").rglob("*.bin")).stem
    mnt = host.folder / "mnt"
    mounts = {
        "overlay": f'mount -t overlay overlay -o ro,lowerdir="{empty}":"{layer}" "{mnt}"',
        "bind": f'mount --bind "{layer}" "{mnt}" && mount -o remount,bind,ro "{mnt}"',
    }
    for kind, mount in mounts.items():
        try:
            subprocess.run(["unshare", "-m", "sh", "-c", mount], check=True, capture_output=True)
            break
        except (OSError, subprocess.CalledProcessError):
            continue
    else:
        raise Failed("neither an overlay nor a bind mount can be made here")
    result = {"mount": kind, "n": rounds, "path": [], "digest": []}
    for _ in range(rounds):
        for what in ("path", "digest"):
            word = "path" if what == "path" else digest
            said = run("unshare", "-m", "sh", "-c", mount + ' && exec "$@"', "sh", host.binary, "sealed", mnt, mnt / "module.wasm", word)
            result[what].append(said["main"])
    for folder in (layer, empty, mnt):
        shutil.rmtree(folder)
    for what in ("path", "digest"):
        result[what] = {"median": statistics.median(result[what]), "min": min(result[what]), "max": max(result[what])}
    return result
