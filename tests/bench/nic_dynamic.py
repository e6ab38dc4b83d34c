"""LS at 200 Mbit/s, two seconds on, two off, beside greedy Batch: a following ceiling, and a static one."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench.nic_ends import HOST, SETTLE_S, TOP_BPS, Ends, Seen, ends, greedy
from tests.bench.table import Figure, show
from tests.live.nic_agent import BATCH, ONLINE, Rule, configured, shaping, until_classified, until_open
from tests.live.nic_loads import mbit_per_s

STATIC: Rule = {"batch_pressed_ratio": 1.0}  # under pressure, too, Batch may take all
CASES: dict[str, Rule] = {"static, full": STATIC, "dynamic": {}, "dynamic, beat 0.25 s": {}}
BEATS = {"dynamic, beat 0.25 s": {"beat_s": 0.25}}
PHASE_S = 2.0


def main(rounds: int, measured_s: float) -> bool:
    """Print the table; True when all targets were held."""
    seen: dict[str, list[Seen]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        home = Path(directory)
        with ends(HOST, 4, home, per_s=250, answer_bytes=100_000) as both:
            for _ in range(rounds):
                for case in random.sample(list(CASES), len(CASES)):
                    config = configured(home, {**ONLINE, **CASES[case]}, **BEATS.get(case, {}))
                    with shaping(both.made, home, config), greedy(both):
                        until_classified(both.made, BATCH)
                        seen[case].append(_on_and_off(both, max(2, round(measured_s / 2))))

    def of(case: str, what: Callable[[Seen], float]) -> float:
        return statistics.median(map(what, seen[case]))

    figures = [
        *(Figure(f"{case}: LS p50", of(case, lambda one: one.p50_ms), "ms") for case in CASES),
        *(Figure(f"{case}: LS p99", of(case, lambda one: one.p99_ms), "ms") for case in CASES),
        *(Figure(f"{case}: Batch", of(case, lambda one: one.batch_mbit_per_s), "Mbit/s") for case in CASES),
        Figure("LS p99 dynamic / static", _ratio(of, lambda one: one.p99_ms), "x", 0.75),
        Figure("Batch dynamic / static", _ratio(of, lambda one: one.batch_mbit_per_s), "x", least=0.75),
    ]
    return show("Dynamic ceiling: LS at 200 Mbit/s on and off (2 s) beside 4 greedy Batch flows", figures)


def _ratio(of: Callable[[str, Callable[[Seen], float]], float], what: Callable[[Seen], float]) -> float:
    static, dynamic, _ = CASES
    return of(dynamic, what) / of(static, what)


def _on_and_off(both: Ends, times: int) -> Seen:
    """LS goes on and off `times` times; its latencies, and Batch's rate over all of it."""
    both.asking.tell("pause")
    until_open(both.made, TOP_BPS)
    time.sleep(SETTLE_S)
    both.asking.tell()
    before = both.swallowing.tell()
    for _ in range(times):
        for word in ("go", "pause"):
            both.asking.tell(word)
            time.sleep(PHASE_S)
    requests, after = both.asking.tell(), both.swallowing.tell()
    both.asking.tell("go")
    late = requests["late"] / max(1.0, requests["late"] + requests["answers"])
    return Seen(requests["p50_ms"], requests["p99_ms"], mbit_per_s(before, after), requests["lost"], late)
