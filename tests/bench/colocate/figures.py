"""The arithmetic of the experiment: pure functions of runs.

    left      CPUs x time - steal - what the online pods and their clients used
    work      of Batch, in CPU seconds: each job's work x the CPU seconds that a unit took with Batch alone
    EMU       online work + Batch work, each over its solo peak on the same node (Lo, Heracles, ISCA'15)

Clients are elsewhere in a data centre; here they are on this node, and Batch cannot have what they use.
Batch alone does CPUs x time of work, by definition. The solo peak of an online service is what all CPUs could
answer at the CPU time that a request takes alone.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence

from msgspec import Struct

from tests.bench.colocate.runs import ALONE, BATCH_ALONE, Run

CONFIDENCE, RESAMPLES = 0.95, 2000


class Measured(Struct, frozen=True):
    """The median of so many repeats with its bootstrap interval; all None without any."""

    value: float | None
    low: float | None
    high: float | None
    repeats: int


def left_core_s(run: Run) -> float:
    """The idle CPU that online work left, in seconds."""
    return run.cpus * run.seconds - run.steal_s - sum(one.cpu_s for one in run.online.values()) - run.client_s


def batch_core_s(run: Run) -> float:
    """CPU seconds that Batch used: what was lent."""
    return sum(job.cpu_s for job in run.batch.values())


def work_core_s(run: Run, alone: Run) -> float:
    """Batch work in CPU seconds of Batch alone; a job that did nothing alone tells nothing."""
    return sum(
        job.work * alone.batch[name].cpu_s / alone.batch[name].work
        for name, job in run.batch.items()
        if name in alone.batch and alone.batch[name].work > 0.0
    )


def utilisation_ratio(run: Run) -> float:
    """Busy share of the CPU time that the node had (steal is not the node's)."""
    had = run.busy_s + run.idle_s
    return run.busy_s / had if had > 0.0 else 0.0


def online_ratio(run: Run, alone: Run) -> float:
    """Online work over its solo peak: answers x CPU seconds that one took alone, of all CPU time."""
    cost = {name: one.cpu_s / one.answered for name, one in alone.online.items() if one.answered}
    done = sum(one.answered * cost[name] for name, one in run.online.items() if name in cost)
    return done / (run.cpus * run.seconds)


def emu(run: Run, online_alone: Run, batch_alone: Run) -> float:
    """Effective machine utilisation: both kinds of work over their solo peaks; above 1 is possible."""
    return online_ratio(run, online_alone) + work_core_s(run, batch_alone) / (run.cpus * run.seconds)


class Repeats:
    """The valid runs by variant and round; with `rejected_too` all of them."""

    def __init__(self, runs: Sequence[Run], *, rejected_too: bool = False) -> None:
        self._runs = {(r.variant, r.round): r for r in runs if rejected_too or not r.rejected}
        self.rounds = sorted({number for _, number in self._runs})

    def of(self, variant: str, number: int) -> Run | None:
        """That run, None when it is not valid."""
        return self._runs.get((variant, number))

    def solo(self, variant: str, number: int) -> Run | None:
        """What others are compared with: of the same round, else of the nearest one."""
        known = [n for n in self.rounds if (variant, n) in self._runs]
        return self._runs[variant, min(known, key=lambda n: abs(n - number))] if known else None

    def each(self, variant: str, value: Callable[[Run], float | None]) -> Measured:
        """A figure of every run of this variant."""
        runs = (self.of(variant, number) for number in self.rounds)
        return measured([value(run) for run in runs if run is not None])

    def work(self, variant: str, value: Callable[[Run, Run], float]) -> Measured:
        """A figure of a run and of Batch alone."""
        pairs = ((self.of(variant, number), self.solo(BATCH_ALONE, number)) for number in self.rounds)
        return measured([value(run, alone) for run, alone in pairs if run is not None and alone is not None])

    def emu(self, variant: str) -> Measured:
        """EMU; online alone and Batch alone have one kind of work."""
        values = []
        for number in self.rounds:
            run, online, batch = (
                self.of(variant, number),
                self.solo(ALONE, number),
                self.solo(BATCH_ALONE, number),
            )
            if run is not None and online is not None and batch is not None:
                values.append(emu(run, online, batch))
        return measured(values)

    def ratio(self, variant: str, base: str, value: Callable[[Run], float | None]) -> Measured:
        """A figure of this variant over that of another one, of the same rounds."""
        pairs = ((self.of(variant, number), self.of(base, number)) for number in self.rounds)
        found = [(value(a), value(b)) for a, b in pairs if a is not None and b is not None]
        return measured([None if a is None else a / b for a, b in found if b])


def measured(values: Sequence[float | None], seed: int = 7) -> Measured:
    """The median and the interval that CONFIDENCE of the medians of resamples lie in (Efron, 1979).

    What is not known counts as the worst, `inf`.
    """
    known = [math.inf if value is None else value for value in values]
    if not known:
        return Measured(None, None, None, 0)
    luck = random.Random(seed)
    medians = sorted(statistics.median(luck.choices(known, k=len(known))) for _ in range(RESAMPLES))
    tail = round(len(medians) * (1.0 - CONFIDENCE) / 2.0)
    low, high = _finite(medians[tail]), _finite(medians[-1 - tail])
    return Measured(_finite(statistics.median(known)), low, high, len(known))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
