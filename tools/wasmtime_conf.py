#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""wasmtime_conf.py CRATE LIBRARY: prints the wasmtime/conf.h that matches a built libwasmtime.

conf.h says which features the C API was built with. Its template lists them; the headers guard declarations with them;
so a feature is on if the library exports the functions that the headers declare under it. Features that guard no
function are taken from the crate's defaults (cmake/features.cmake). At the end, every function that the headers
declare with the result must be exported.
"""

import pathlib
import re
import subprocess
import sys

DECLARED = re.compile(r"\b((?:wasm|wasmtime|wasi)_\w+)\s*\(")
PROPERTY = re.compile(r"\bWASMTIME_CONFIG_PROP\s*\(\s*[^,]+,\s*(\w+)\s*,")
PROPERTY_POOLING = re.compile(r"\bWASMTIME_POOLING_ALLOCATION_CONFIG_PROP\s*\(\s*(\w+)\s*,")


def exported(library):
    lines = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in lines.splitlines() if line.strip()}


def declarations(include):
    """(name, features that must all be on) of each function of the C headers that has a guard."""
    for header in sorted(include.rglob("*.h")):
        text = re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S)
        text = re.sub(r"//[^\n]*", "", text).replace("\\\n", " ")
        guards, code = [], []
        chunks = []
        for line in text.splitlines():
            words = re.match(r"\s*#\s*(\w+)\s*(.*)", line)
            if not words:
                code.append(line)
                continue
            kind, rest = words.groups()
            if kind in ("if", "ifdef", "ifndef", "else", "elif", "endif"):
                chunks.append((tuple(guards), "\n".join(code)))
                code = []
            if kind == "ifdef":
                guards.append(rest.strip())
            elif kind in ("if", "ifndef"):
                guards.append("")
            elif kind in ("else", "elif"):
                guards[-1] = ""
            elif kind == "endif":
                guards.pop()
        for stack, code in chunks:
            features = {g for g in stack if g.startswith("WASMTIME_FEATURE_")}
            if not features:
                continue
            for statement in code.split(";"):
                if re.search(r"\b(?:WASM_API_EXTERN|WASI_API_EXTERN|WASMTIME_\w*EXTERN)\b", statement):
                    found = DECLARED.search(statement)
                    if found and not re.search(r"\{", statement[: found.start()]):
                        yield found.group(1), features
            for name in PROPERTY.findall(code):
                yield f"wasmtime_config_{name}_set", features
            for name in PROPERTY_POOLING.findall(code):
                yield f"wasmtime_pooling_allocation_config_{name}_set", features


def main():
    crate, library = pathlib.Path(sys.argv[1]), sys.argv[2]
    symbols = exported(library)
    template = (crate / "include/wasmtime/conf.h.in").read_text()
    listed = re.findall(r"^#cmakedefine (\w+)", template, flags=re.M)
    defaults = {
        "WASMTIME_FEATURE_" + name.upper().replace("-", "_"): value == "ON"
        for name, value in re.findall(r"^feature\(([\w-]+) (ON|OFF)\)", (crate / "cmake/features.cmake").read_text(), flags=re.M)
    }
    declared = list(declarations(crate / "include"))

    # A function under two guards is evidence for both when it is there, and for neither when it is not.
    evidence = {f: sorted(n for n, fs in declared if f in fs and n in symbols) for f in listed + ["WASMTIME_FEATURE_COMPILER"]}
    counter = {f: sorted(n for n, fs in declared if fs == {f} and n not in symbols) for f in evidence}
    on, why = set(), {}
    for feature in listed:
        if evidence[feature]:
            on.add(feature)
            why[feature] = f"exports {evidence[feature][0]}"
        elif counter[feature]:
            why[feature] = f"does not export {counter[feature][0]}"
        else:
            if defaults.get(feature):
                on.add(feature)
            why[feature] = "no function tells; the crate's default"
    # The two compilers show as one: the headers guard what both need with WASMTIME_FEATURE_COMPILER, made from them below.
    compilers = ("WASMTIME_FEATURE_CRANELIFT", "WASMTIME_FEATURE_WINCH")
    if not evidence["WASMTIME_FEATURE_COMPILER"]:
        on.difference_update(compilers)
        for feature in compilers:
            why[feature] = "no function of a compiler is exported"
    elif not on.intersection(compilers):
        on.add(compilers[0])

    def line(match):
        feature = match.group(1)
        return f"#define {feature} // {why[feature]}" if feature in on else f"// #undef {feature} // {why[feature]}"

    result = on | ({"WASMTIME_FEATURE_COMPILER"} if on.intersection(compilers) else set())
    missing = sorted({n for n, fs in declared if fs <= result and n not in symbols})
    if missing:
        sys.exit(f"wasmtime_conf.py: {library} does not export what its headers would declare: {' '.join(missing)}")
    sys.stdout.write("// Made to match the library beside it from its exported functions.\n")
    sys.stdout.write(re.sub(r"^#cmakedefine (\w+)", line, template, flags=re.M))


main()
