"""What cores of its own are worth to an online server: its latency beside Batch, in the pool and bound."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.beside import CPUS, MEASURED_S, Phase, hogs, measured, serving, show_side_by_side
from tests.bench.open_loop import Latencies
from tests.bench.table import Figure, show
from tests.live.running import held_set, running, until

PROCESSES = max(1, CPUS // 2)
BIND = ("--numa", "bind", "--cpus", str(PROCESSES))
ROUNDS = (False, True, True, False)  # bound or not: a machine that gets busier hits both alike


def main() -> bool:
    """Print both columns and their ratios; there is no target, since machines differ."""
    if CPUS < 2:
        print("One CPU cannot be shared out.")
        return True
    rounds = [(bound, _round(bound, seed)) for seed, bound in enumerate(ROUNDS)]
    pooled, bound = (_joined([phase for was, phase in rounds if was is which]) for which in (False, True))
    show_side_by_side((pooled, bound), PROCESSES)
    ratios = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    figures = [
        Figure(f"{name}: bound / in the pool", _ratio(bound, pooled, quantile), "x")
        for name, quantile in ratios.items()
    ]
    figures.append(
        Figure("cores used by Batch: bound / in the pool", bound.batch_cores / pooled.batch_cores, "x")
    )
    return show(f"The same as ratios, {len(ROUNDS)} turns of {MEASURED_S:g} s", figures)


def _round(bound: bool, seed: int) -> Phase:
    with (
        tempfile.TemporaryDirectory(prefix="na-bench-") as directory,
        running(Path(directory), agent__tick_s=1, numa__placement=bound),
        serving(Path(directory), PROCESSES, *(BIND if bound else ())) as server,
        hogs(Path(directory)) as batch,
    ):
        if bound:
            until(lambda: not held_set(server.cgroup) & held_set(batch), "cores of its own")
        return measured("bound" if bound else "in the pool", server, batch, seed=seed)


def _joined(phases: list[Phase]) -> Phase:
    """All requests of several turns as one phase."""
    each = [phase.latencies for phase in phases]
    answers, late = (sorted(s for one in each for s in getattr(one, n)) for n in ("answer_s", "late_s"))
    mean = [
        sum(values) / len(phases)
        for values in zip(*((p.batch_cores, p.other_cores) for p in phases), strict=True)
    ]
    return Phase(phases[0].name, Latencies(answers, late), *mean)


def _ratio(bound: Phase, pooled: Phase, quantile: float) -> float:
    return bound.latencies.quantile_ms(quantile) / pooled.latencies.quantile_ms(quantile)


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
