# SPDX-License-Identifier: Apache-2.0
"""What the numbers say: the bars that are held, the tables, the pictures, docs/performance.md. See bench.py."""

import re
import statistics

import measure
import picture

TITLES = {
    "ours-wasmtime": "wasmcache, Wasmtime", "bare-wasmtime": "bare engine, file call", "map-wasmtime": "map + deserialize",
    "read-wasmtime": "read + deserialize", "own-wasmtime": "Wasmtime's own cache",
    "ours-wasmer": "wasmcache, Wasmer", "bare-wasmer": "bare engine, file call", "map-wasmer": "map + deserialize",
    "read-wasmer": "read + deserialize", "ours-wasmer-stock": "wasmcache, stock Wasmer", "map-wasmer-stock": "stock: map + deserialize",
    "read-wasmer-stock": "stock: read + deserialize",
    "wasix-0.704": "wasmer-wasix 0.704.2", "wasix-0.31": "wasmer-wasix 0.31.0", "wazero": "wazero 1.12.0",
}
# What each is compared with: ours on the same engine, and on Wasmtime what belongs to neither.
ENGINE_OF = {"wasix-0.704": "wasmer", "wasix-0.31": "wasmer", "wazero": "wasmtime"}


class Numbers:
    def __init__(self, results):
        self.rows = {(r["module"], r["contender"], r["what"]): r for r in results["rows"]}

    def row(self, *key):
        return self.rows.get(key)

    def median(self, *key):
        row = self.rows.get(key)
        return row["median"] if row else None

    def samples(self, *key):
        row = self.rows.get(key)
        return row["samples"] if row else []

    def hit(self, module, contender):
        """The hit of a contender, wherever it was measured: beside ours and the limit, or beside ours and the others."""
        for what in ("hit", "hit-others", "hit-checked"):
            if (module, contender, what) in self.rows:
                return self.rows[module, contender, what]
        return None


def engine_of(contender):
    return ENGINE_OF.get(contender) or contender.split("-", 1)[1]


# ---- numbers for people ----

def time_of(ns):
    if ns is None:
        return ""
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        if ns >= size:
            value = ns / size
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return f"{ns / 1e3:.0f} us"


def difference_of(ns):
    """Of two compiles, where the save cannot be seen alone: it can be smaller than what they differ by."""
    return "lost in noise" if ns is not None and ns <= 0 else time_of(ns)


def size_of(value):
    if value is None:
        return ""
    value /= measure.MB
    return f"{value:.{2 if value < 1 else 1 if value < 100 else 0}f}"


def times_of(value):
    if value is None:
        return ""
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def spread(row):
    return f"{time_of(row['low_quartile'])} to {time_of(row['high_quartile'])}" if row else ""


# ---- bars ----

def bar(text, limit, value=None, ok=None, note=""):
    return {"text": text, "limit": limit, "value": value, "ok": ok, "note": note}


def ratio_bar(numbers, text, limit, above, below, at_most=None, at_least=None):
    a, b = numbers.row(*above), numbers.row(*below)
    if not a or not b:
        return bar(text, limit, note="not measured: " + " ".join((above if not a else below)[:2]))
    same_rounds = at_most and a["n"] == b["n"]
    ratio = paired(a["samples"], b["samples"])[0] if same_rounds else a["median"] / b["median"]
    within = measure.interval(a["samples"], b["samples"])
    value = f"{ratio:.3f}x" if at_most else times_of(ratio)
    note = f"{time_of(a['median'])} and {time_of(b['median'])}"
    if within:
        digits = 3 if at_most else 0 if within[0] > 10 else 1
        note += f"; 95 %: {within[0]:.{digits}f} to {within[1]:.{digits}f}"
    return bar(text, limit, value, ratio <= at_most if at_most else ratio >= at_least, f"{note}; N {a['n']}, {b['n']}")


def paired(above, below):
    """Medians of what each round gave, ratio and difference: what the machine does between two rounds is in both."""
    pairs = list(zip(above, below))
    return statistics.median(a / b for a, b in pairs), statistics.median(a - b for a, b in pairs)


def limit_bar(numbers, main):
    text = f"stamped hit, Wasmtime, warm process, against the bare call ({main})"
    limit = "at most 1.05x or +25 us, whichever is more"
    a, b = numbers.row(main, "ours-wasmtime", "hit"), numbers.row(main, "bare-wasmtime", "hit")
    if not a or not b:
        return bar(text, limit, note="not measured")
    ratio, more = paired(a["samples"], b["samples"])
    within = measure.interval(a["samples"], b["samples"])
    note = f"{time_of(a['median'])} and {time_of(b['median'])}; 95 %: {within[0]:.3f} to {within[1]:.3f}; N {a['n']}"
    return bar(text, limit, f"{ratio:.3f}x, +{more / 1e3:.0f} us", ratio <= 1.05 or more <= 25_000, note)


def checked_bar(numbers, main):
    text = f"unstamped hit, digest compared, against the bare call ({main})"
    a, b = numbers.row(main, "ours-checked-wasmtime", "hit-checked"), numbers.row(main, "bare-wasmtime", "hit-checked")
    if not a or not b:
        return bar(text, "at most +10 ms for 53 MB", note="not measured")
    more = a["median"] - b["median"]
    return bar(text, "at most +10 ms for 53 MB", f"+{more / 1e6:.1f} ms", more <= 10e6, f"{time_of(a['median'])} and {time_of(b['median'])}; N {a['n']}")


def memory_bars(numbers, main, processes):
    for engine in ("wasmtime", "wasmer"):
        text = f"anonymous memory of a hit against the bare call, {engine} ({main})"
        a, b = numbers.median(main, f"ours-{engine}", "anonymous"), numbers.median(main, f"bare-{engine}", "anonymous")
        if a is None or b is None:
            yield bar(text, "+1 MB at most", note="not measured")
        else:
            yield bar(text, "+1 MB at most", f"{(a - b) / 1e6:+.2f} MB", a - b <= measure.MB, f"{size_of(a)} and {size_of(b)} MB")
    text = f"{processes} processes share the artifact's pages, Wasmtime, all pages read ({main})"
    pss, rss = numbers.median(main, "ours-wasmtime", f"mapped-pss-{processes}"), numbers.median(main, "ours-wasmtime", "mapped-rss")
    if pss and rss:
        yield bar(text, "together at most 1.1x of one", f"{pss / rss:.3f}x", pss <= 1.1 * rss, f"{size_of(pss)} and {size_of(rss)} MB")
    else:
        yield bar(text, "together at most 1.1x of one", note="not measured")


def miss_bars(numbers, main):
    for way, save, limits in (("ours", "before it returns", (0.02, 0.05)), ("later", "on a thread, later", (0.01, 0.01))):
        for engine, most in zip(("wasmtime", "wasmer"), limits):
            text = f"get on a miss, saved {save}, {engine}: outside of the compile call, against it ({main})"
            limit = f"at most {most:.0%}"
            total, compile = (numbers.samples(main, f"{way}-{engine}", what) for what in ("miss-total", "miss-compile"))
            if not total:
                yield bar(text, limit, note="not measured")
                continue
            parts = sorted((t - c) / c for t, c in zip(total, compile))
            share = parts[len(parts) // 2]
            yield bar(text, limit, f"{share:.2%}", share <= most, f"{parts[0]:.2%} to {parts[-1]:.2%}; N {len(parts)}")


def rate_bar(results, main):
    text = f"hits a second on one entry, each number of threads, against the bare engine with as many ({main})"
    rows = [r for r in results["rate"] if r["kind"] == "threads" and r["entries"] == 1]
    if not rows:
        return bar(text, "at least 0.95x", note="not measured")
    least = min(rows, key=lambda r: r["ratio"])
    value = least["ratio"]
    return bar(text, "at least 0.95x", f"{value:.2f}x", value >= 0.95, f"the least, with {least['number']}: {least['ours']:.0f} and {least['bare']:.0f} a second")


def growth_bar(results, main):
    text = f"stamped hit with many entries in the folder against one ({main})"
    if not results["growth"]:
        return bar(text, "at most 1.2x", note="not measured")
    last = results["growth"][-1]
    value = last["hit_many"] / last["hit_one"]
    within = last["interval"]
    note = f"{last['entries']:,} entries: {time_of(last['hit_many'])} and {time_of(last['hit_one'])}; 95 %: {within[0]:.3f} to {within[1]:.3f}; N {last['n']}"
    return bar(text, "at most 1.2x", f"{value:.3f}x", value <= 1.2, note)


def publish_bar(results, main):
    said = results["publish"]
    text = f"publish against write(2) of the same bytes to the same folder ({main})"
    if not said:
        return bar(text, "at most 1.25x", note="not measured")
    rows = {(what,): {"median": sorted(v)[len(v) // 2], "samples": v, "n": len(v)} for what, v in said.items() if isinstance(v, list)}
    numbers = Numbers({"rows": []})
    numbers.rows = rows
    return ratio_bar(numbers, text, "at most 1.25x", ("publish",), ("write",), at_most=1.25)


def bars(results):
    numbers, main = Numbers(results), results["main"]
    own = ("ours-wasmtime", "hit-others")
    all_bars = [
        limit_bar(numbers, main),
        ratio_bar(numbers, f"stamped hit, Wasmtime, new process, main to module, against engine + bare call ({main})", "at most 1.10x",
                  (main, "ours-wasmtime", "new"), (main, "bare-wasmtime", "new"), at_most=1.10),
        checked_bar(numbers, main),
        ratio_bar(numbers, f"stamped hit against Wasmtime's own cache, warm process both ({main})", "at least 100x faster",
                  (main, "own-wasmtime", "hit-others"), (main, *own), at_least=100),
        ratio_bar(numbers, "the same (yosys)", "at least 150x faster", ("yosys", "own-wasmtime", "hit-others"), ("yosys", *own), at_least=150),
        ratio_bar(numbers, f"stamped hit on Wasmtime against wazero, warm process both ({main})", "at least 200x faster",
                  (main, "wazero", "hit"), (main, "ours-wasmtime", "hit"), at_least=200),
        ratio_bar(numbers, f"stamped hit, Wasmer with wasmer-plus, against the bare file call ({main})", "at most 1.03x",
                  (main, "ours-wasmer", "hit"), (main, "bare-wasmer", "hit"), at_most=1.03),
        ratio_bar(numbers, f"the same against wasmer-wasix 0.704.2 ({main})", "at most 1.03x",
                  (main, "ours-wasmer", "hit"), (main, "wasix-0.704", "hit"), at_most=1.03),
        ratio_bar(numbers, f"the same against wasmer-wasix 0.31.0 ({main})", "at least 3.5x faster",
                  (main, "wasix-0.31", "hit"), (main, "ours-wasmer", "hit"), at_least=3.5),
        ratio_bar(numbers, f"Wasmer, stock library, against map + wasm_module_deserialize ({main})", "at most 1.03x",
                  (main, "ours-wasmer-stock", "hit"), (main, "map-wasmer-stock", "hit"), at_most=1.03),
        *memory_bars(numbers, main, results["processes"]),
        *miss_bars(numbers, main),
        publish_bar(results, main),
        growth_bar(results, main),
        rate_bar(results, main),
    ]
    return all_bars


def verdict(one):
    return "" if one["ok"] is None else "ok" if one["ok"] else "MISSED"


def table_of_bars(all_bars):
    rows = [[b["text"], b["limit"], b["value"] or "", verdict(b), b["note"]] for b in all_bars]
    return ["what", "limit", "measured", "", "medians"], rows


# ---- tables ----

def order(results):
    return list(results["sizes"])


def saved(numbers, module, name):
    """(compile, save as the caller sees it, until it is synced, how many): what of it the contender shows apart."""
    get = lambda what: numbers.median(module, name, "miss-" + what)
    row = numbers.row(module, name, "miss-compile") or numbers.row(module, name, "miss-total")
    if not row:
        return None, None, None, 0
    compile, save, disk = get("compile"), get("save"), get("on_disk")
    if name == "own-wasmtime":  # it saves inside of its compile call
        compile = numbers.median(module, "bare-wasmtime", "miss-compile")
        save = get("total") - compile if compile else None
        disk = save + get("sync") if save is not None else None
    elif name == "wazero":  # the same; it syncs there too
        compile = get("alone")
        save = disk = get("compile") - compile
    elif save is not None and name.startswith("ours"):
        save = get("total") - get("compile")  # with the look that missed
        disk = disk - get("save") + save
    return compile, save, disk, row["n"]


def contenders(results, module):
    measured = {r["contender"] for r in results["rows"] if r["module"] == module}
    return [name for name in TITLES if name in measured]


def table_of_module(results, numbers, module):
    processes = results["processes"]
    head = ["", "compile", "save", "on disk", "hit", "of ours", "new process", "of ours", "MB on disk", "resident", "anonymous", f"pss of 1", f"pss of {processes}"]
    rows = []
    for name in contenders(results, module):
        ours = f"ours-{engine_of(name)}"
        hit, ours_hit = numbers.hit(module, name), numbers.hit(module, ours)
        new, ours_new = numbers.median(module, name, "new"), numbers.median(module, ours, "new")
        compile, save, disk, _ = saved(numbers, module, name)
        if numbers.row(module, name, "hit-others") and not numbers.row(module, name, "hit"):
            ours_hit = numbers.row(module, ours, "hit-others")  # of the same run
        rows.append([
            TITLES[name], time_of(compile), difference_of(save), difference_of(disk), time_of(hit and hit["median"]),
            times_of(hit["median"] / ours_hit["median"]) if hit and ours_hit and name != ours else "",
            time_of(new), times_of(new / ours_new) if new and ours_new and name != ours else "",
            *(size_of(numbers.median(module, name, what)) for what in ("disk", "rss", "anonymous", "pss", f"pss-{processes}")),
        ])
    return head, rows


def table_of_ways(results, numbers):
    """Ours, by what the caller brings, and what each adds to the bare call."""
    head = ["module", "artifact MB", "bare call", "by path", "adds", "by SHA-256", "by bytes", "digest compared"]
    rows = []
    for module in order(results):
        get = lambda name, what="hit": numbers.median(module, f"{name}-wasmtime", what)
        if get("ours") is None:
            continue
        rows.append([
            module, size_of(results["sizes"][module]["wasmtime"]), time_of(get("bare")), time_of(get("ours")),
            f"{(get('ours') - get('bare')) / 1e3:.0f} us", time_of(get("ours-digest")), time_of(get("ours-bytes", "hit-checked")),
            time_of(get("ours-checked", "hit-checked")),
        ])
    return head, rows


def table_of_growth(results):
    head = ["entries", "hit", "against one entry", "open", "open and first hit", "against one entry"]
    rows = [
        [f"{r['entries']:,}", time_of(r["hit_many"]), f"{r['hit_many'] / r['hit_one']:.3f}x", time_of(r["open_many"]), time_of(r["first_many"]),
         f"{r['first_many'] / r['first_one']:.3f}x"]
        for r in results["growth"]
    ]
    return head, rows


def table_of_rate(results):
    head = ["", "on one entry: ours", "bare", "", f"on {results['rate'][-1]['entries'] if results['rate'] else 'many'} entries: ours", "bare", ""]
    rows = []
    one = {(r["kind"], r["number"]): r for r in results["rate"] if r["entries"] == 1}
    many = {(r["kind"], r["number"]): r for r in results["rate"] if r["entries"] > 1}
    for key, row in one.items():
        cells = [f"{key[1]} {key[0] if key[1] > 1 else key[0].replace('processes', 'process').rstrip('s') if key[0] == 'threads' else 'process'}"]
        for r in (row, many.get(key)):
            cells += [f"{r['ours']:,.0f}", f"{r['bare']:,.0f}", f"{r['ratio']:.3f}x"] if r else ["", "", ""]
        rows.append(cells)
    return head, rows


def table_of_container(results):
    said = results["container"]
    if not said:
        return ["container's first start", "not measured"], [["", results["skipped"].get("container", "")]]
    head = [f"first start, {said['mount']} mount, N {said['n']}", "main to module", "least", "most"]
    return head, [[f"by {'SHA-256' if w == 'digest' else 'path'}", *(time_of(said[w][k]) for k in ("median", "min", "max"))] for w in ("path", "digest")]


def table_of_spread(results, numbers):
    """For each time: how many, and the quartiles."""
    head = ["module", "", "hit: quartiles", "N", "new process: quartiles", "N", "compile: N"]
    rows = []
    for module in order(results):
        for name in contenders(results, module):
            hit, new = numbers.hit(module, name), numbers.row(module, name, "new")
            rows.append([module, TITLES[name], spread(hit), str(hit["n"]) if hit else "", spread(new), str(new["n"]) if new else "",
                         str(saved(numbers, module, name)[3] or "")])
    return head, rows


def print_table(title, table):
    head, rows = table
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    numeric = [i > 0 and all(re.match(r"^[+-]?[\d,.]*[ a-z%/]*$", str(row[i])) for row in rows) for i in range(len(head))]
    print(f"\n{title}" if title else "")
    for row in [head, *rows]:
        print("  ".join(str(cell).rjust(w) if n else str(cell).ljust(w) for cell, w, n in zip(row, widths, numeric)).rstrip())


def all_tables(results, all_bars):
    numbers = Numbers(results)
    tables = {"bars": ("What is held", table_of_bars(all_bars))}
    for module in order(results):
        wasm = results["sizes"][module]["wasm"]
        tables[module] = (f"{module}, {size_of(wasm)} MB of wasm (memory in MB)", table_of_module(results, numbers, module))
    tables["ways"] = ("Ours on Wasmtime, warm process, by what the caller has", table_of_ways(results, numbers))
    tables["growth"] = (f"Entries in the folder ({results['main']})", table_of_growth(results))
    tables["rate"] = (f"Modules a second ({results['main']} on one entry, sqlite on many)", table_of_rate(results))
    tables["container"] = ("A container's first start", table_of_container(results))
    tables["spread"] = ("Spread", table_of_spread(results, numbers))
    return tables


def print_all(results, all_bars):
    tables = all_tables(results, all_bars)
    for name, (title, table) in tables.items():
        if name not in ("bars", "spread") and table[1]:
            print_table(title, table)
    print_table(*tables["bars"])
    for what, why in results["skipped"].items():
        print(f"skipped: {what}: {why}")
    held = [b["ok"] for b in all_bars]
    print(f"\n{held.count(True)} ok, {held.count(False)} missed, {held.count(None)} without a limit or not measured, {len(results['skipped'])} skipped; {results['seconds']:.0f} s")


# ---- documents ----

def markdown(table):
    head, rows = table
    lines = ["| " + " | ".join(str(c) for c in head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


def machine_of(results):
    m, v = results["machine"], results["versions"]
    virtual = f", virtual ({m['virtual']})" if m["virtual"] not in ("", "none") else ""
    return (
        f"{results['when']}: {m['cpu']}, {m['cores']} cores, {m['memory']}{virtual}; Linux {m['kernel']}, {m['system']}, {m['file_system']}; "
        f"{m['compiler']}; Wasmtime {v.get('wasmtime', 'none')}, Wasmer {v.get('wasmer', 'none')}; cores busy before: {m['busy_before']:.2f}; "
        f"the whole run took {results['seconds'] / 60:.0f} minutes."
    )


def write_docs(results, all_bars, path):
    """Fills what is between <!-- bench: NAME --> and <!-- end -->. The rest is written by hand."""
    texts = {name: markdown(table) for name, (_, table) in all_tables(results, all_bars).items()}
    texts["machine"] = machine_of(results)
    texts["skipped"] = "\n".join(f"- {what}: {why}" for what, why in results["skipped"].items()) or "Nothing was skipped."

    for file in path.parent.glob("bench-*.svg"):
        title = re.search(r"<title>(.*?)</title>", file.read_text()).group(1)
        texts[file.stem.replace("bench-", "picture-")] = f"![{title}]({file.name})"

    def fill(match):
        name = match.group(1)
        return f"<!-- bench: {name} -->\n{texts.get(name, 'Not measured.')}\n<!-- end -->"

    path.write_text(re.sub(r"<!-- bench: ([\w-]+) -->\n.*?<!-- end -->", fill, path.read_text(), flags=re.S))


def draw(results, folder):
    picture.draw(results, Numbers(results), folder)
