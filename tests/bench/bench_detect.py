"""What detecting costs beside the reading: 100 real pods, half of them online and at work, half Batch."""

from __future__ import annotations

import gc
import statistics
import sys
import time
from contextlib import ExitStack, closing
from typing import NamedTuple

from msgspec.structs import replace

from nodeagent.core import rates
from nodeagent.core.interference.judge import judge
from nodeagent.core.interference.measures import measured
from nodeagent.kernel.reader import NodeReader, boot_id
from nodeagent.model.pod import Member, Qos
from nodeagent.model.policy import Policy
from nodeagent.model.senses import Senses
from nodeagent.model.snapshot import Snapshot
from tests.bench.real_pods import real_pods
from tests.bench.table import Figure, show

PODS = 100
PACE_S = 1.0
WARM_TICKS = 5
TICKS = 60
POLICY = Policy()


class Cost(NamedTuple):
    """CPU seconds in one tick."""

    read_s: float
    rates_s: float
    measured_s: float
    judged_s: float


class Ticks:
    """Reading and detecting, tick by tick, at the agent's pace."""

    def __init__(self, members: tuple[Member, ...]) -> None:
        half = PODS // 2
        self._members = tuple(
            Member(replace(m.spec, qos=Qos.LS if n < half else Qos.BATCH), m.containers, m.nested)
            for n, m in enumerate(members)
        )
        self._reader, self._boot_id = NodeReader(), boot_id()
        self._previous: Snapshot | None = None
        self.senses = Senses()
        self._cpus = dict.fromkeys((m.spec.cgroup for m in self._members), frozenset(range(64)))

    def tick(self, seq: int) -> Cost:
        """One tick as the agent does it."""
        at, clock = time.monotonic(), time.process_time
        began = clock()
        seen = self._reader.read(self._members, at)
        read = clock()
        snapshot = Snapshot(
            seq=seq, at=at, unix=time.time(), boot_id=self._boot_id,
            topology=seen.topology, node=seen.node, pods=seen.pods,
        )  # fmt: skip
        made = clock()
        view = rates.view(snapshot, self._previous)
        rated = clock()
        measures = measured(view, self._cpus, self.senses)
        measured_at = clock()
        verdicts, self.senses = judge(view, measures, POLICY, self.senses, frozenset(), self._cpus)
        judged = clock()
        assert len(verdicts) == PODS // 2
        self._previous = snapshot
        return Cost(read - began, rated - made, measured_at - rated, judged - measured_at)

    def close(self) -> None:
        """Close every file."""
        self._reader.close()


def main() -> bool:
    """Print the table; True when the target was held."""
    with ExitStack() as stack:
        members = stack.enter_context(real_pods(PODS, active_ratio=0.5))
        ticks = stack.enter_context(closing(Ticks(members)))
        for seq in range(WARM_TICKS):
            ticks.tick(seq)
            time.sleep(PACE_S)
        gc.collect()
        gc.freeze()
        costs = []
        for seq in range(WARM_TICKS, WARM_TICKS + TICKS):
            time.sleep(PACE_S)
            costs.append(ticks.tick(seq))
    return _shown(costs)


def _shown(costs: list[Cost]) -> bool:
    read_s, rates_s, measured_s, judged_s = (statistics.mean(part) for part in zip(*costs, strict=True))
    return show(
        f"Detection for {PODS} pods, half of them online and at work: mean CPU time of {TICKS} ticks",
        [
            Figure("reading", read_s * 1e3, "ms"),
            Figure("rates", rates_s * 1e3, "ms"),
            Figure("measured", measured_s * 1e3, "ms"),
            Figure("judge", judged_s * 1e3, "ms"),
            Figure("measured + judge / reading", (measured_s + judged_s) / read_s, "x", 0.25),
        ],
    )


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
