# SPDX-License-Identifier: Apache-2.0
"""Pictures of a run as SVG, written by hand: on a panel of their own, so that they can be read on light and on dark pages."""

import math
from xml.sax.saxutils import escape

INK, FAINT, PANEL, GRID = "#1f2328", "#59636e", "#ffffff", "#d8dee4"
OURS, LIMIT, OTHER = "#0a7d5a", "#6e7781", "#c4622d"
FONT = "font-family='system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif'"


class Picture:
    def __init__(self, width, height, title, subtitle):
        self.width, self.height = width, height
        self.parts = [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}' height='{height}' role='img' {FONT}>",
            f"<title>{escape(title)}</title>",
            f"<rect x='0.5' y='0.5' width='{width - 1}' height='{height - 1}' rx='8' fill='{PANEL}' stroke='{GRID}'/>",
        ]
        self.text(20, 30, title, 16, weight=600)
        self.text(20, 50, subtitle, 12, FAINT)

    def text(self, x, y, text, size=12, fill=INK, anchor="start", weight=400):
        self.parts.append(f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{fill}' text-anchor='{anchor}' font-weight='{weight}'>{escape(text)}</text>")

    def rect(self, x, y, width, height, fill):
        self.parts.append(f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(width, 1):.1f}' height='{height:.1f}' rx='2' fill='{fill}'/>")

    def line(self, x1, y1, x2, y2, stroke=GRID, width=1.0, dash=""):
        dash = f" stroke-dasharray='{dash}'" if dash else ""
        self.parts.append(f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{stroke}' stroke-width='{width}'{dash}/>")

    def curve(self, points, stroke, dash="", dots=True):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = f" stroke-dasharray='{dash}'" if dash else ""
        self.parts.append(f"<polyline points='{path}' fill='none' stroke='{stroke}' stroke-width='2'{dash}/>")
        for x, y in points if dots else []:
            self.parts.append(f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{stroke}'/>")

    def save(self, path):
        path.write_text("\n".join(self.parts + ["</svg>"]) + "\n")


class Axis:
    """Values to places; logarithmic, or from 0."""

    def __init__(self, low, high, start, end, log):
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def at(self, value):
        if self.log:
            part = (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)


def decades(low, high):
    return [10.0 ** n for n in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def steps(high):
    """Round numbers from 0 to just over what is shown."""
    step = 10 ** math.floor(math.log10(high / 4))
    step = next(step * n for n in (1, 2, 2.5, 5, 10) if step * n >= high / 4)
    return [step * i for i in range(math.ceil(high / step) + 1)]


def time_of(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"


def color_of(name):
    return OURS if name.startswith("ours") else LIMIT if name.startswith(("bare", "map", "read")) else OTHER


def legend(picture, x, y, items):
    for color, text, dash in items:
        picture.line(x, y - 4, x + 22, y - 4, color, 3, dash)
        picture.text(x + 28, y, text, 12, FAINT)
        x += 44 + len(text) * 6.6


def bars(picture, rows, top, axis, format_value):
    """rows: (name, title, value)"""
    for i, (name, title, value) in enumerate(rows):
        y = top + i * 26
        picture.text(axis.start - 10, y + 14, title, 12, INK, "end", 600 if name.startswith("ours") else 400)
        picture.rect(axis.start, y + 2, axis.at(value) - axis.start, 17, color_of(name))
        picture.text(axis.at(value) + 6, y + 14, format_value(value), 12, FAINT)


def draw_hits(results, numbers, titles, folder):
    main = results["main"]
    rows = []
    for name, title in titles.items():
        row = numbers.hit(main, name)
        if row:
            engine = "" if "Wasm" in title or name.startswith(("wasix", "wazero")) else ", Wasmer" if "wasmer" in name else ", Wasmtime"
            rows.append((name, title + engine, row["median"]))
    if not rows:
        return
    rows.sort(key=lambda r: r[2])
    ticks = decades(min(r[2] for r in rows), max(r[2] for r in rows))
    height = 120 + 26 * len(rows)
    p = Picture(860, height, f"A hit in a warm process: {main}.wasm", "Time to a module that can be instantiated, median, logarithmic; less is better")
    axis = Axis(ticks[0], ticks[-1], 250, 780, True)
    for tick in ticks:
        p.line(axis.at(tick), 66, axis.at(tick), height - 40)
        p.text(axis.at(tick), height - 24, time_of(tick), 11, FAINT, "middle")
    bars(p, rows, 70, axis, time_of)
    p.save(folder / "bench-hit.svg")


def draw_size(results, numbers, titles, folder):
    series = {}
    for name in ("ours-wasmtime", "bare-wasmtime", "own-wasmtime", "ours-wasmer", "bare-wasmer", "wasix-0.31", "wasix-0.704", "wazero"):
        points = []
        for module, sizes in results["sizes"].items():
            row = numbers.hit(module, name)
            if row:
                points.append((sizes["wasm"] / 1e6, row["median"]))
        if len(points) > 1:
            series[name] = sorted(points)
    if not series:
        return
    low, high = min(y for s in series.values() for _, y in s), max(y for s in series.values() for _, y in s)
    ticks = decades(low, high)
    p = Picture(860, 460, "A hit in a warm process, by the size of the module", "Medians; both axes are logarithmic; less is better")
    x, y = Axis(0.5, 100, 80, 620, True), Axis(ticks[0], ticks[-1], 410, 70, True)
    for tick in ticks:
        p.line(80, y.at(tick), 620, y.at(tick))
        p.text(72, y.at(tick) + 4, time_of(tick), 11, FAINT, "end")
    for module, sizes in results["sizes"].items():
        at = x.at(sizes["wasm"] / 1e6)
        p.line(at, 70, at, 410, GRID, 1, "2 4")
        # Neighbours in two lines.
        p.text(at, 428 if module not in ("esbuild", "boolector") else 444, f"{module} {sizes['wasm'] / 1e6:.1f} MB", 11, FAINT, "middle")
    labels = []
    for name, points in series.items():
        dash = "5 4" if "wasmer" in name or "wasix" in name else ""
        p.curve([(x.at(a), y.at(b)) for a, b in points], color_of(name), dash)
        labels.append([y.at(points[-1][1]) + 4, name])
    labels.sort()
    for before, label in zip(labels, labels[1:]):
        label[0] = max(label[0], before[0] + 15)
    for at, name in labels:
        title = titles[name].replace("bare engine", "bare " + ("Wasmer" if "wasmer" in name else "Wasmtime"))
        p.text(x.at(100) + 8, at, title, 12, color_of(name), weight=600 if name.startswith("ours") else 400)
    p.save(folder / "bench-size.svg")


def draw_growth(results, folder):
    rows = results["growth"]
    if len(rows) < 2:
        return
    series = (("first_many", OURS, "5 4", "new process: open and first hit"), ("hit_many", OURS, "", "hit, warm process"), ("open_many", LIMIT, "", "open"))
    ticks = steps(max(r["first_many"] for r in rows))
    p = Picture(860, 400, "Entries in the folder", f"Time by the number of entries beside the one that is loaded ({results['main']}.wasm), medians; less is better")
    x, y = Axis(1, rows[-1]["entries"], 90, 800, True), Axis(0, ticks[-1], 330, 90, False)
    for value in ticks:
        p.line(90, y.at(value), 800, y.at(value))
        p.text(82, y.at(value) + 4, time_of(value) if value else "0", 11, FAINT, "end")
    for row in rows:
        p.text(x.at(row["entries"]), 350, f"{row['entries']:,}", 11, FAINT, "middle")
    for name, color, dash, _ in series:
        p.curve([(x.at(r["entries"]), y.at(max(r[name], 1))) for r in rows], color, dash)
    legend(p, 90, 380, [(color, text, dash) for _, color, dash, text in series])
    p.save(folder / "bench-growth.svg")


def draw_rate(results, folder):
    rows = [r for r in results["rate"] if r["kind"] == "threads"]
    if not rows:
        return
    p = Picture(860, 400, "Modules a second, by the number of threads", f"Load and delete, {results['machine']['cores']} cores, medians; more is better")
    panels = ((1, 80, f"{results['main']}, one entry"), (max(r["entries"] for r in rows), 490, "sqlite, many entries"))
    for entries, left, title in panels:
        here = [r for r in rows if r["entries"] == entries]
        if not here:
            continue
        ticks = steps(max(max(r["ours"], r["bare"]) for r in here))
        x, y = Axis(1, max(r["number"] for r in here), left, left + 330, True), Axis(0, ticks[-1], 320, 100, False)
        p.text(left, 84, title, 12, INK, weight=600)
        for value in ticks:
            p.line(left, y.at(value), left + 330, y.at(value))
            p.text(left - 8, y.at(value) + 4, f"{value:,.0f}", 11, FAINT, "end")
        for row in here:
            p.text(x.at(row["number"]), 340, str(row["number"]), 11, FAINT, "middle")
        p.curve([(x.at(r["number"]), y.at(r["bare"])) for r in here], LIMIT)
        p.curve([(x.at(r["number"]), y.at(r["ours"])) for r in here], OURS)
    legend(p, 80, 376, [(OURS, "wasmcache", ""), (LIMIT, "the bare engine's file call", "")])
    p.save(folder / "bench-rate.svg")


def draw_memory(results, numbers, titles, folder):
    main, processes = results["main"], results["processes"]
    rows = []
    for name, title in titles.items():
        one = numbers.median(main, name, f"pss-{processes}")
        if one:
            engine = "" if "Wasm" in title or name.startswith(("wasix", "wazero")) else ", Wasmer" if "wasmer" in name else ", Wasmtime"
            rows.append((name, title + engine, one * processes / 1e6))
    if not rows:
        return
    rows.sort(key=lambda r: r[2])
    height = 110 + 26 * len(rows)
    p = Picture(860, height, f"{processes} processes that hold {main}.wasm", "Proportional memory of all of them together, MB; less is better")
    axis = Axis(0, rows[-1][2], 250, 770, False)
    bars(p, rows, 70, axis, lambda value: f"{value:,.0f} MB")
    p.save(folder / "bench-memory.svg")


def draw(results, numbers, folder):
    import report  # it has the names, and uses this module

    draw_hits(results, numbers, report.TITLES, folder)
    draw_size(results, numbers, report.TITLES, folder)
    draw_growth(results, folder)
    draw_rate(results, folder)
    draw_memory(results, numbers, report.TITLES, folder)
