"""What each part of a tick costs, and how a tick grows with the pods."""

from __future__ import annotations

import gc
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.journal import Journal
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.reader import NodeReader, boot_id
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.pod import Member
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Snapshot
from nodeagent.originals import Originals
from nodeagent.restore import give_back
from tests.bench.real_pods import real_pods
from tests.bench.table import Figure, cpu_s, in_turns, show

SIZES = (100, 300, 1000)
SHOWN = 300
WARM_TICKS = 8  # until the histograms are there, every knob is written and every file is open
ROUNDS = 30
PAUSE_S = 0.02


class Cost(NamedTuple):
    """CPU seconds of one tick by part; `written` counts its changes."""

    read_s: float
    decide_s: float
    journal_s: float
    written: int

    @property
    def all_s(self) -> float:
        """All parts together."""
        return self.read_s + self.decide_s + self.journal_s


class Ticks:
    """The loop's parts over pods that no other loop holds, a second of its own clock apart; `close` it."""

    def __init__(self, members: tuple[Member, ...], state_dir: str) -> None:
        self._members = members
        self._clock = itertools.count()
        self._boot_id = boot_id()
        self._reader = NodeReader()
        self._knobs = Knobs(find_hierarchies())
        self._targets = self._knobs.targets_for(self._members)
        self._originals = Originals(state_dir, self._boot_id)
        self._journal = Journal(Path(state_dir))
        self._memory = Memory()
        self._policy = Policy(scope=("na-bench-*/**",))

    def full_read_s(self) -> float:
        """CPU seconds of reading all files of the node and of all pods."""
        return cpu_s(lambda: self._reader.read(self._members, float(next(self._clock)), full=True))

    def tick(self) -> Cost:
        """One tick as the loop does it, written and recorded."""
        began = time.process_time()
        snapshot = self._read()
        read = time.process_time()
        decision, memory = decide(snapshot, self._policy, self._memory)
        changes = diff({s.knob: s for s in decision.plan}, snapshot.knobs, decision.yielded)
        decided = time.process_time()
        outcomes = self._knobs.apply(self._originals.intend(changes, self._knobs.inode))
        self._originals.confirm(outcomes)
        tick = Tick(snapshot, decision, changes, outcomes)
        written = time.process_time()
        self._journal.append(tick, self._policy, self._memory)
        recorded = time.process_time()
        self._memory = memory
        assert not self._journal.stopped, self._journal.stopped
        assert all(outcome.ok for outcome in outcomes)
        return Cost(read - began, decided - read, recorded - written, len(changes))

    def close(self) -> None:
        """Give every value back and close every file."""
        give_back(self._originals, self._knobs)
        for part in (self._journal, self._originals, self._knobs, self._reader):
            part.close()

    def _read(self) -> Snapshot:
        seq = next(self._clock)
        seen = self._reader.read(self._members, float(seq))
        assert len(seen.pods) == len(self._members)
        return Snapshot(
            seq=seq,
            at=float(seq),
            unix=1.7e9 + seq,
            boot_id=self._boot_id,
            topology=seen.topology,
            node=seen.node,
            pods=seen.pods,
            knobs=self._knobs.read(self._targets, self._originals.held),
            misses=seen.misses,
        )


def main() -> bool:
    """Print the tables; True when all targets were held."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="na-bench-"))
        ticks: dict[int, Ticks] = {}
        for size in SIZES:
            members = stack.enter_context(real_pods(size))
            ticks[size] = stack.enter_context(closing(Ticks(members, f"{directory}/{size}")))
            for _ in range(WARM_TICKS):
                ticks[size].tick()
        gc.collect()
        gc.freeze()  # as the agent does
        return _compare(ticks)


def _compare(ticks: dict[int, Ticks]) -> bool:
    costs: dict[int, list[Cost]] = {size: [] for size in ticks}

    def tick(size: int) -> float:
        costs[size].append(ticks[size].tick())
        return costs[size][-1].all_s

    work: dict[str, Callable[[], float]] = {"full": ticks[SHOWN].full_read_s}
    for size in ticks:
        work[str(size)] = partial(tick, size)
    whole = in_turns(work, ROUNDS, PAUSE_S)
    full_s = statistics.median(whole["full"])
    means_s = {size: statistics.mean(whole[str(size)]) for size in ticks}
    return all([_parts(costs[SHOWN], full_s), _growth(means_s)])


def _parts(costs: list[Cost], full_s: float) -> bool:
    read_s, decide_s, journal_s, _ = (statistics.median(part) for part in zip(*costs, strict=True))
    return show(
        f"One tick of {SHOWN} pods, 25 % of them Batch: CPU time, {ROUNDS} rounds in turns",
        [
            Figure("full reading", full_s * 1e3, "ms"),
            Figure("tiered reading and knobs", read_s * 1e3, "ms"),
            Figure("decide + diff", decide_s * 1e3, "ms"),
            Figure("journal", journal_s * 1e3, "ms"),
            Figure("knobs written per tick", statistics.mean(c.written for c in costs), "writes"),
            Figure("decide + diff / full reading", decide_s / full_s, "x", 0.5),
        ],
    )


def _growth(tick_s: dict[int, float]) -> bool:
    least, most = min(tick_s), max(tick_s)
    per_pod_us = {size: cost / size * 1e6 for size, cost in tick_s.items()}
    slopes_us = {
        (a, b): (tick_s[b] - tick_s[a]) / (b - a) * 1e6 for a, b in itertools.pairwise(sorted(tick_s))
    }
    return show(
        "Growth of a whole tick (tiered reading, decide, diff, journal): mean CPU time",
        [
            *(Figure(f"{size} pods", cost * 1e3, "ms") for size, cost in tick_s.items()),
            *(Figure(f"{size} pods: per pod", cost, "us") for size, cost in per_pod_us.items()),
            *(
                Figure(f"slope from {a} to {b}: each more pod", cost, "us")
                for (a, b), cost in slopes_us.items()
            ),
            Figure(f"per pod, {most} / {least}", per_pod_us[most] / per_pod_us[least], "x", 1.3),
        ],
    )


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
