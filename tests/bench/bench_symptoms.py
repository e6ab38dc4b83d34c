"""What the symptoms of pods add to a tick of reading, in steady state."""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
from contextlib import closing

from nodeagent.kernel.reader import NodeReader
from tests.bench.real_pods import real_pods
from tests.bench.table import Figure, cpu_s, in_turns, show

PODS = 100
ROUNDS = 60
PAUSE_S = 0.05
WARM_TICKS = 12  # until each pod's slow tier was read twice


def main() -> bool:
    """Print the table; True when all targets were held."""
    figures: list[Figure] = []
    for title, active, own_netns, most in (
        ("10 % active", 0.1, False, 1.2),
        ("10 % active, each with a network of its own", 0.1, True, 1.2),
        ("all active", 1.0, False, None),
        ("all active, each with a network of its own", 1.0, True, None),
    ):
        plain_s, told_s = _costs(active, own_netns=own_netns)
        figures.append(Figure(f"{title}: without", plain_s * 1e3, "ms"))
        figures.append(Figure(f"{title}: with", told_s * 1e3, "ms"))
        figures.append(Figure(f"{title}: with / without", told_s / plain_s, "x", most))
    return show(
        f"A tick of reading {PODS} pods with and without symptoms: CPU time, {ROUNDS} rounds in turns",
        figures,
    )


def _costs(active: float, *, own_netns: bool) -> tuple[float, float]:
    """Means over rounds in turns: which pods' slow tier is due differs from tick to tick."""
    with (
        real_pods(PODS, active, own_netns=own_netns) as members,
        closing(NodeReader(symptoms=False)) as plain,
        closing(NodeReader()) as told,
    ):
        clocks = {"plain": itertools.count(), "told": itertools.count()}

        def tick(name: str, reader: NodeReader) -> float:
            at = float(next(clocks[name]))
            return cpu_s(lambda: reader.read(members, at))

        for _ in range(WARM_TICKS):
            tick("plain", plain)
            tick("told", told)
        gc.collect()
        gc.freeze()  # as the agent does
        try:
            costs = in_turns(
                {"plain": lambda: tick("plain", plain), "told": lambda: tick("told", told)}, ROUNDS, PAUSE_S
            )
        finally:
            gc.unfreeze()
    return _mean(costs["plain"]), _mean(costs["told"])


def _mean(each: list[float]) -> float:
    """Of the middle 80 %: ticks differ by which pods' slow tier is due, and by what disturbs them."""
    tenth = len(each) // 10
    return statistics.mean(sorted(each)[tenth : len(each) - tenth])


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
