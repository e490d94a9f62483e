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
    Row("19", "random work of many, against a model",
        unit("workload", "WDSTLKA", r"([0-9]+) operations", quick={"WASMCACHE_WORKLOAD_SECONDS": "5"},
             full={"WASMCACHE_WORKLOAD_SECONDS": "60"}, soak={"WASMCACHE_WORKLOAD_SECONDS": "1800"}), alone=True),
    Row("29", "planted objects", unit("planted", "WDK", r"([0-9]+) cases")),
    Row("30", "hostile directories", unit("gate", "WK", r"([0-9]+) of \d+ cells", r"([0-9]+) cases")),
    Row("34", "umasks and modes", unit("umask", "TX", r"([0-9]+) cases", r"at ([0-9]+) steps")),
    Row("35", "a guest sees the cache", unit("overlap", "X", r"([0-9]+) layouts")),
]
