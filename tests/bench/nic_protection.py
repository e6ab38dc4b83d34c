"""LS requests beside four greedy Batch flows on one wire: alone, unshaped, shaped, shaped both ways."""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.nic_ends import GOODPUT, HOST, SETTLE_S, TOP_BPS, Ends, Seen, ends, greedy, measured
from tests.bench.table import Figure, show
from tests.live.nic_agent import BATCH, ONLINE, Meter, configured, shaping, until_classified, until_open
from tests.live.nic_lab import GIGABIT, Way

CASES = ("alone", "unshaped", "shaped", "shaped both ways")


def main(rounds: int, measured_s: float) -> bool:
    """Print the tables; True when all targets were held."""
    held = []
    for way in (HOST, Way.ROUTED, Way.BRIDGED):
        for family in (4, 6):
            with (
                tempfile.TemporaryDirectory(prefix="na-bench-") as home,
                ends(way, family, Path(home)) as both,
            ):
                seen: dict[str, list[Seen]] = {case: [] for case in CASES}
                for _ in range(rounds):
                    for case in random.sample(CASES, len(CASES)):
                        seen[case].append(_case(case, both, measured_s))
                idle_ratio = _idle(both, measured_s)
            held.append(_table(f"{way}, IPv{family}", family, seen, idle_ratio))
    return all(held)


def _case(case: str, both: Ends, measured_s: float) -> Seen:
    with contextlib.ExitStack() as stack:
        if case.startswith("shaped"):
            rule = {**ONLINE, "ingress_ratio": 0.8 if case == "shaped both ways" else 0.0}
            stack.enter_context(shaping(both.made, both.home, configured(both.home, rule)))
        if case != "alone":
            stack.enter_context(greedy(both))
        if case.startswith("shaped"):
            until_classified(both.made, BATCH)
            until_open(both.made, TOP_BPS)
        return measured(both, measured_s)


def _idle(both: Ends, seconds: float) -> float:
    """Batch's share of the top while LS asks for nothing."""
    both.asking.tell("pause")
    with shaping(both.made, both.home), greedy(both):
        until_classified(both.made, BATCH)
        until_open(both.made, TOP_BPS)
        time.sleep(SETTLE_S)
        meter = Meter(both.made)
        time.sleep(seconds)
        share = meter.bps(BATCH) / TOP_BPS
    both.asking.tell("go")
    return share


def _table(title: str, family: int, seen: dict[str, list[Seen]], idle_ratio: float) -> bool:
    def of(case: str, what: Callable[[Seen], float]) -> float:
        return statistics.median(map(what, seen[case]))

    alone_ms = of("alone", lambda one: one.p99_ms)
    wire = GIGABIT / 1e6 * GOODPUT[family]
    figures = [
        Figure(
            f"{case}: LS p50 (p99 {of(case, lambda one: one.p99_ms):.2f})",
            of(case, lambda one: one.p50_ms),
            "ms",
        )
        for case in CASES
    ]
    figures += [
        Figure("LS p99 unshaped / alone", of("unshaped", lambda one: one.p99_ms) / alone_ms, "x"),
        Figure("LS p99 shaped / alone", of("shaped", lambda one: one.p99_ms) / alone_ms, "x", 1.6),
        Figure(
            "LS p99 shaped both ways / alone", of("shaped both ways", lambda one: one.p99_ms) / alone_ms, "x"
        ),
        Figure("Batch unshaped / wire", of("unshaped", lambda one: one.batch_mbit_per_s) / wire, ""),
        Figure("Batch shaped / wire", of("shaped", lambda one: one.batch_mbit_per_s) / wire, "", least=0.90),
        Figure("Batch, LS idle / top of the tree", idle_ratio, "", least=0.95),
        Figure("LS requests that failed", sum(one.failed for case in CASES for one in seen[case]), "", 0.0),
        Figure(
            "requests left out, client late", max(one.late_ratio for case in CASES for one in seen[case]), ""
        ),
    ]
    return show(f"{title}: 500 LS requests/s of 8 kB beside 4 greedy Batch flows, 1 Gbit/s", figures)
