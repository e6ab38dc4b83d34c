"""What an online server feels: its latency alone, beside Batch, and beside Batch that the agent bounds."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from pathlib import Path

from nodeagent.model.pod import OWN_TIER
from nodeagent.model.policy import CapacityPolicy
from tests.bench.beside import CPUS, Phase, hogs, measured, serving, show_side_by_side
from tests.bench.table import Figure, show
from tests.live.running import quota_cores, running

REGROWN_RATIO, REGROW_PATIENCE_S = 0.8, 45.0


def main() -> bool:
    """Print the tables; True when the targets were held."""
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        home = Path(directory)
        with serving(home) as server:
            alone = measured("alone", server, None)
        with serving(home) as server, hogs(home) as batch:
            beside = measured("Batch, no agent", server, batch)
        with running(home, agent__tick_s=1), serving(home) as server, hogs(home) as batch:
            bounded = measured("Batch, agent", server, batch)
            regrown_s = _regrown_s()
    show_side_by_side((alone, beside, bounded), CPUS)
    return show("The same as ratios", _ratios(alone, beside, bounded, regrown_s))


def _regrown_s() -> float:
    """Seconds from the end of the load until Batch may use REGROWN_RATIO of its ceiling again."""
    began = time.monotonic()
    wanted = REGROWN_RATIO * CapacityPolicy().cpu_ceiling_ratio * CPUS
    while (quota_cores(OWN_TIER) or math.inf) < wanted:
        if time.monotonic() - began > REGROW_PATIENCE_S:
            return math.inf
        time.sleep(0.1)
    return time.monotonic() - began


def _ratios(alone: Phase, beside: Phase, bounded: Phase, regrown_s: float) -> list[Figure]:
    a, b, c = (phase.latencies for phase in (alone, beside, bounded))
    figures = []
    for name, ratio in (("p50", 0.5), ("p99", 0.99)):
        figures += [
            Figure(f"{name}: Batch without agent / alone", b.quantile_ms(ratio) / a.quantile_ms(ratio), "x"),
            Figure(f"{name}: Batch with agent / alone", c.quantile_ms(ratio) / a.quantile_ms(ratio), "x"),
        ]
    figures.append(Figure("p99: with agent / without", c.quantile_ms(0.99) / b.quantile_ms(0.99), "x", 1.0))
    what = f"LS load ends: Batch's quota at {REGROWN_RATIO:.0%} of its ceiling after"
    figures.append(Figure(what, regrown_s, "s"))
    return figures


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
