"""Recorded runs: what the loop does without a kernel, real decisions over generated readings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.journal import Journal, read_segments
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.plan import Outcome, one_owner
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy, PressurePolicy
from nodeagent.model.snapshot import Snapshot, Stall
from tests.unit import samples

POLICY = Policy()
DEAF = Policy(pressure=PressurePolicy(ls_cpu_stall_ratio=1.0))
SMALL = 6_000  # bytes per segment: a few ticks


def snapshots(stalls: Iterable[float], first: int = 1) -> Iterator[Snapshot]:
    """One second each, in which the LS pod waits for this share of the time."""
    waited_us = 0
    for seq, stall in enumerate(stalls, first):
        waited_us += int(stall * 1e6)
        ls = samples.pod(1, 1000.0 + seq, cores=1.0)
        hurt = replace(ls, reading=replace(ls.reading, cpu_stall=Stall(waited_us)))
        batch = samples.pod(2, 1000.0 + seq, qos=Qos.BATCH, cores=2.0)
        yield samples.snapshot(seq, pods=(hurt, batch), busy_ratio=0.5)


def turn(seen: Snapshot, policy: Policy, memory: Memory) -> tuple[Tick, Memory]:
    decision, after = decide(seen, policy, memory)
    changes = diff(one_owner(decision.plan), seen.knobs, decision.yielded)
    return Tick(seen, decision, changes, tuple(Outcome(change, change.new) for change in changes)), after


def record(
    journal: Journal, seen: Iterable[Snapshot], policy: Policy = POLICY, memory: Memory | None = None
) -> Memory:
    """What the loop does, without a kernel; the memory after it."""
    memory = Memory() if memory is None else memory
    for snapshot in seen:
        tick, after = turn(snapshot, policy, memory)
        journal.append(tick, policy, memory)
        assert journal.stopped == ""
        memory = after
    return memory


def recorded(state: Path, stalls: Iterable[float], segment_bytes: int = SMALL) -> list[Tick]:
    journal = Journal(state, segment_bytes=segment_bytes)
    record(journal, snapshots(stalls))
    journal.close()
    return [tick for segment in read_segments(state / "journal", pytest.fail) for tick in segment.ticks()]


CALM_HURT_CALM = [0.0] * 10 + [0.5] * 3 + [0.0] * 20
