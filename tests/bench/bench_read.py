"""What a tick of reading costs against its floor: a C program that only preads the same kept-open files."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from nodeagent.kernel.reader import NodeReader
from nodeagent.model.pod import Member
from tests.bench.real_pods import real_pods
from tests.bench.table import Figure, cpu_s, in_turns, show

PODS = 300
ROUNDS = 40
PAUSE_S = 0.05
WARM_TICKS = 6  # after the first, in which everything is new


class Floor:
    """The compiled floor.c, running; `cost_s` makes it read everything once."""

    def __init__(self, paths: list[str], directory: str) -> None:
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise SystemExit("bench: no C compiler for the floor (Debian: apt-get install gcc libc6-dev)")
        program, listing = f"{directory}/floor", Path(directory, "files")
        source = str(Path(__file__).with_name("floor.c"))
        subprocess.run([compiler, "-O2", "-o", program, source], check=True)
        listing.write_text("".join(f"{path}\n" for path in paths))
        self._process = subprocess.Popen(
            [program, str(listing)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._answer = self._process.stdin, self._process.stdout
        self.count = int(self._answer.readline() or 0)

    def cost_s(self) -> float:
        self._ask.write("\n")
        self._ask.flush()
        return int(self._answer.readline()) / 1e9

    def close(self) -> None:
        self._process.communicate()


def naive(paths: list[str]) -> list[dict[str, object]]:
    """Open, read, split, dict: how it is done when nobody counts."""
    read: list[dict[str, object]] = []
    for path in paths:
        with open(path) as file:
            text = file.read()
        values: dict[str, object] = {}
        for line in text.splitlines():
            key, _, rest = line.partition(" ")
            if "=" in rest:
                values[key] = {name: float(value) for name, value in (f.split("=") for f in rest.split())}
            elif rest.isdigit():
                values[key] = int(rest)
            else:
                values[key] = rest or (int(key) if key.isdigit() else key)
        read.append(values)
    return read


def kept_paths(before: set[int]) -> list[str]:
    """Files that this process has open now and had not `before`."""
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in sorted(open_fds() - before)]


def main() -> bool:
    """Print the table; True when all targets were held."""
    with real_pods(PODS) as members, tempfile.TemporaryDirectory() as directory:
        before = open_fds()
        with closing(NodeReader(symptoms=False)) as whole:
            seen = whole.read(members, 0.0, full=True)
            assert len(seen.pods) == PODS, f"{len(seen.pods)} of {PODS} pods were read"
            assert not seen.misses, seen.misses
            whole.read(members, 0.0, full=True)  # the parents' files are opened in the second tick
            paths = kept_paths(before)
            with closing(NodeReader(symptoms=False)) as tiered, closing(Floor(paths, directory)) as floor:
                others = {"floor": floor.cost_s, "naive": lambda: cpu_s(lambda: naive(paths))}
                costs = _costs(members, whole, tiered, **others)
                assert floor.count == len(paths) == whole.kept
    ms = {name: statistics.median(each) * 1e3 for name, each in costs.items()}
    return show(
        f"Reading {PODS} pods ({len(paths)} files), 10 % of them active: CPU time, {ROUNDS} rounds in turns",
        [
            Figure("C: pread of the kept files", ms["floor"], "ms"),
            Figure("full tick", ms["full"], "ms"),
            Figure("open-read-dict Python", ms["naive"], "ms"),
            Figure("tiered tick (mean of the middle 80 %)", _mean(costs["tiered"]) * 1e3, "ms"),
            Figure("full tick / C", ms["full"] / ms["floor"], "x", 1.6),
            Figure("full tick / open-read-dict", ms["full"] / ms["naive"], "x", 0.25),
            Figure("tiered tick / full tick", _tiered_ratio(costs), "x", 0.4),
            Figure("the same, all pods active", _all_active(), "x"),
        ],
    )


def _all_active() -> float:
    """Tiered against full when no pod ever rests: what the tiers alone save."""
    with (
        real_pods(PODS, 1.0) as members,
        closing(NodeReader(symptoms=False)) as whole,
        closing(NodeReader(symptoms=False)) as tiered,
    ):
        return _tiered_ratio(_costs(members, whole, tiered))


def _tiered_ratio(costs: dict[str, list[float]]) -> float:
    return _mean(costs["tiered"]) / _mean(costs["full"])


def _mean(each: list[float]) -> float:
    """Mean of the middle 80 %: ticks differ by which pods' slow tier is due, and by what disturbs them."""
    tenth = len(each) // 10
    return statistics.mean(sorted(each)[tenth : len(each) - tenth])


def _costs(
    members: tuple[Member, ...], whole: NodeReader, tiered: NodeReader, **others: Callable[[], float]
) -> dict[str, list[float]]:
    for tick in range(WARM_TICKS):
        tiered.read(members, float(tick))
    whole.read(members, 0.0, full=True)
    gc.collect()
    gc.freeze()  # as the agent does
    clock = itertools.count(WARM_TICKS)
    variants = {
        "full": lambda: cpu_s(lambda: whole.read(members, time.monotonic(), full=True)),
        "tiered": lambda: cpu_s(lambda: tiered.read(members, float(next(clock)))),
    }
    try:
        return in_turns({**variants, **others}, ROUNDS, PAUSE_S)
    finally:
        gc.unfreeze()


def open_fds() -> set[int]:
    with os.scandir("/proc/self/fd") as entries:
        return {int(entry.name) for entry in entries if os.path.isfile(entry.path)}


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
