# SPDX-License-Identifier: Apache-2.0
"""The rows of the table: what goes wrong, and what runs it."""


class Part:
    """A command. `counts`: patterns for the number of cases that a test of the suite says it tried, each of which it
    asserts, and for what else it says that is worth a note; without them the command prints what the program `torture` does."""

    def __init__(self, command, counts=(), kinds="", tier="quick", environment=None, needs=""):
        self.command = command
        self.counts = counts
        self.kinds = kinds
        self.tier = tier
        self.environment = environment or {}
        self.needs = needs


class Row:
    """`control`: the planted bug (tests/mutants/bugs.py) with which the row has to fail."""

    def __init__(self, number, what, *parts, alone=False, control=""):
        self.number = number
        self.what = what
        self.parts = parts
        self.alone = alone
        self.control = control


def own(number, tier="quick"):
    return Part(["{build}/tests/torture", number, "{tier}", "{seed}"], tier=tier)


def unit(name, kinds, *counts, tier="quick", **environment):
    return Part(["{build}/tests/unit_test_" + name], counts, kinds, tier, environment)


def figures(what):
    return Part(["{source}/tests/torture/figures.py", what, "{source}", "{build}"], tier="full")


def system(name, kinds, *counts, tier="quick", **environment):
    return Part(["{build}/tests/system_test_" + name], counts, kinds, tier, environment, needs="its engine is not there")


ROWS = [
    Row("1", "a system call of a save fails", own("1"), control="a write is not checked"),
    Row("2", "a system call of a load fails", own("2"), control="what cannot be read is damaged"),
    Row("3", "a system call of clean, prune, verify, stats, pin, remove fails", own("3"),
        control="left-over files stay"),
    Row("4", "the process is killed at a system call", own("4"), own("4-random"), control="left-over files stay"),
    Row("5", "reads and writes are cut short", own("5"), control="a short write is taken for all"),
    Row("6", "no memory", own("6"), control="memory leaks when a digest fails"),
    Row("7", "no room or inodes on the disk", own("7"), control="a full disk is any error"),
    Row("8", "limits of the process, small stacks", own("8"), control="SIGXFSZ reaches the host"),
    Row("9", "a storm of signals", own("9"), control="an interrupted write fails"),
    Row("10", "the power is cut, writes in order", own("10"), control="drop fdatasync"),
    Row("11", "the power is cut, writes reordered", own("11"), control="drop the folder's fsync"),
    Row("12", "a sync fails", own("12"), control="drop fdatasync"),
    Row("13", "a second fault while recovering from one", own("13", tier="full"),
        control="left-over files stay"),
    Row("14", "many writers of one key", own("14"), control="a sound entry is taken for a bad one"),
    Row("15", "many want the same; the leader is killed or stopped", own("15"),
        control="no lock between processes"),
    Row("16", "the leader is killed, its child has the lock", own("16"),
        control="a lock without a deadline"),
    Row("17", "living modules are evicted and replaced",
        system("evicted.wasmtime", "WDK", r"([0-9]+) loads", quick={"WASMCACHE_TEST_LOADS": "5000"},
               full={"WASMCACHE_TEST_LOADS": "1000000"}, soak={"WASMCACHE_TEST_LOADS": "10000000"}),
        system("evicted.wasmer", "WDK", r"([0-9]+) loads", quick={"WASMCACHE_TEST_LOADS": "2000"},
               full={"WASMCACHE_TEST_LOADS": "50000"}, soak={"WASMCACHE_TEST_LOADS": "1000000"}),
        control="what goes is cut to nothing first"),
    Row("18", "a good save while a bad entry is removed", own("18"), control="unlink by name"),
    Row("19", "random work of many, against a model",
        unit("workload", "WDSTLKA", r"([0-9]+) operations", quick={"WASMCACHE_WORKLOAD_SECONDS": "5"},
             full={"WASMCACHE_WORKLOAD_SECONDS": "60"}, soak={"WASMCACHE_WORKLOAD_SECONDS": "1800"}), alone=True,
        control="no digest is compared"),
    Row("20", "the directory is pulled away", own("20"), control="a folder that is gone is gone for good"),
    Row("21", "clocks that are wrong", own("21"), control="a living writer's file is cleaned away"),
    Row("22", "bits that flip", own("22"), control="the digest is of the head only"),
    Row("23", "torn entries", own("23"), control="the file may be longer than the trailer says"),
    Row("24", "sound entries in the wrong place", own("24"), control="the key is not compared"),
    Row("25", "hostile bytes in parsers",
        *[Part(["{build}/tests/fuzz_" + name + "_corpus", "--as-is", "{source}/tests/fuzz/corpus/" + name], [r"([0-9]+) files"], "DX")
          for name in ("trailer", "hint", "records", "identity", "namespace", "lzw", "config", "options")],
        control="a slot's check is not compared"),
    Row("26", "a server does not give a page", own("26"), control="what lies elsewhere is mapped"),
    Row("27", "written to in place while it is loaded and run",
        system("overwritten.wasmtime", "WS", r"([0-9]+) trials", r"loaded before it was changed: .*",
               quick={"WASMCACHE_TEST_TRIALS": "20"}, full={"WASMCACHE_TEST_TRIALS": "1000"},
               soak={"WASMCACHE_TEST_TRIALS": "10000"}),
        system("overwritten.wasmer", "WS", r"([0-9]+) trials", r"loaded before it was changed: .*",
               quick={"WASMCACHE_TEST_TRIALS": "10"}, full={"WASMCACHE_TEST_TRIALS": "200"},
               soak={"WASMCACHE_TEST_TRIALS": "1000"}),
        control="a stamp is good for any size and time"),
    Row("28", "names that lead outside", own("28"), control="names may have slashes"),
    Row("29", "planted objects", unit("planted", "WDK", r"([0-9]+) cases"),
        control="links are followed"),
    Row("30", "hostile directories", unit("gate", "WK", r"([0-9]+) of \d+ cells", r"([0-9]+) cases"),
        control="entries of others are trusted"),
    Row("32", "changed between check and use", own("32"), control="no last look before the engine"),
    Row("34", "umasks and modes", unit("umask", "TX", r"([0-9]+) cases", r"at ([0-9]+) steps"),
        control="modes by the umask"),
    Row("35", "a guest sees the cache", unit("overlap", "X", r"([0-9]+) layouts"),
        control="only the directory itself overlaps"),
    Row("36", "a directory full of junk", own("36"), control="left-over files stay"),
    Row("37", "descriptors and memory that leak", own("37"),
        Part(["{source}/tests/system/written_bytes.sh"], [r"([0-9]+) programs wrote .*"], "L", tier="full",
             environment={"full": {"WASMCACHE_TEST_WRITTEN": "all"}, "soak": {"WASMCACHE_TEST_WRITTEN": "all"}}), control="descriptors go to other programs"),
    Row("38", "code that no test runs", figures("coverage")),
    Row("39", "bugs that no test finds", figures("mutants")),
    Row("40", "the price of protection", own("40", tier="full"), alone=True),
    Row("41", "exit in the middle",
        system("exit.wasmtime", "D", r"([0-9]+) processes", quick={"WASMCACHE_TEST_EXITS": "60"},
               full={"WASMCACHE_TEST_EXITS": "1000"}, soak={"WASMCACHE_TEST_EXITS": "10000"}),
        control="the library may be unloaded while its threads run"),
    Row("43", "the engine refuses good bytes: noexec, descriptors, memory",
        system("fallbacks.wasmtime", "DWKS", r"([0-9]+) hits", r"([0-9]+) gets"),
        system("fallbacks.wasmer", "DWKS", r"([0-9]+) hits", r"([0-9]+) gets"),
        control="what the engine refuses is damaged"),
    Row("44", "two engines in one process",
        Part(["{source}/tests/system/host_other_engine.sh"], [r"([0-9]+) pairs of engines"], "DX",
             environment={"quick": {"WASMCACHE_TEST_PAIRS": "2"}}),
        control="the first engine stands for all"),
    Row("45", "metering", system("metering.wasmer", "DW", r"([0-9]+) test\(s\) run"),
        control="settings do not count"),
    Row("42", "hints damaged under a running process", own("42"), control="a descriptor of the hints leaks"),
]
