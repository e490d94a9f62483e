# SPDX-License-Identifier: Apache-2.0
"""The rows of the table: what goes wrong, and what runs it."""


class Part:
    """A command. `counts`: patterns for the number of cases that a test of the suite says it tried, each of which it
    asserts; without them the command prints what the program `torture` does."""

    def __init__(self, command, counts=(), kinds="", tier="quick", environment=None, needs=""):
        self.command = command
        self.counts = counts
        self.kinds = kinds
        self.tier = tier
        self.environment = environment or {}
        self.needs = needs


class Row:
    def __init__(self, number, what, *parts, alone=False):
        self.number = number
        self.what = what
        self.parts = parts
        self.alone = alone


def own(number, tier="quick"):
    return Part(["{build}/tests/torture", number, "{tier}", "{seed}"], tier=tier)


def unit(name, kinds, *counts, tier="quick", **environment):
    return Part(["{build}/tests/unit_test_" + name], counts, kinds, tier, environment)


def system(name, kinds, *counts, tier="quick", **environment):
    return Part(["{build}/tests/system_test_" + name], counts, kinds, tier, environment, needs="its engine is not there")


ROWS = [
    Row("1", "a system call of a save fails", own("1")),
    Row("2", "a system call of a load fails", own("2")),
    Row("3", "a system call of clean, prune, verify, stats, pin, remove fails", own("3")),
    Row("4", "the process is killed at a system call", own("4")),
    Row("5", "reads and writes are cut short", own("5")),
    Row("6", "no memory", own("6")),
    Row("7", "no room or inodes on the disk", own("7")),
    Row("8", "limits of the process, small stacks", own("8")),
    Row("9", "a storm of signals", own("9")),
    Row("10", "the power is cut, writes in order", own("10")),
    Row("11", "the power is cut, writes reordered", own("11")),
    Row("12", "a sync fails", own("12")),
    Row("13", "a second fault while recovering from one", own("13", tier="full")),
    Row("14", "many writers of one key", own("14")),
    Row("15", "many want the same; the leader is killed or stopped", own("15")),
    Row("16", "the leader is killed, its child has the lock", own("16")),
    Row("18", "a good save while a bad entry is removed", own("18")),
    Row("19", "random work of many, against a model",
        unit("workload", "WDSTLKA", r"([0-9]+) operations", quick={"WASMCACHE_WORKLOAD_SECONDS": "5"},
             full={"WASMCACHE_WORKLOAD_SECONDS": "60"}, soak={"WASMCACHE_WORKLOAD_SECONDS": "1800"}), alone=True),
    Row("20", "the directory is pulled away", own("20")),
    Row("21", "clocks that are wrong", own("21")),
    Row("22", "bits that flip", own("22")),
    Row("23", "torn entries", own("23")),
    Row("24", "sound entries in the wrong place", own("24")),
    Row("28", "names that lead outside", own("28")),
    Row("29", "planted objects", unit("planted", "WDK", r"([0-9]+) cases")),
    Row("30", "hostile directories", unit("gate", "WK", r"([0-9]+) of \d+ cells", r"([0-9]+) cases")),
    Row("32", "changed between check and use", own("32")),
    Row("34", "umasks and modes", unit("umask", "TX", r"([0-9]+) cases", r"at ([0-9]+) steps")),
    Row("35", "a guest sees the cache", unit("overlap", "X", r"([0-9]+) layouts")),
    Row("36", "a directory full of junk", own("36")),
    Row("37", "descriptors and memory that leak", own("37")),
    Row("41", "exit in the middle",
        system("exit.wasmtime", "D", r"([0-9]+) processes", quick={"WASMCACHE_TEST_EXITS": "60"},
               full={"WASMCACHE_TEST_EXITS": "1000"}, soak={"WASMCACHE_TEST_EXITS": "10000"})),
    Row("42", "hints damaged under a running process", own("42")),
]
