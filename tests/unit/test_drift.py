"""Somebody else's writes: each is answered, the first at once, the others after a wait that doubles."""

from __future__ import annotations

import itertools

import pytest

from nodeagent.core.drift import watch, yielded
from nodeagent.model.decision import Drift
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.policy import DriftPolicy, OnDrift

KNOB = Knob(Kind.CPU_QUOTA, "a")
POLICY = DriftPolicy(backoff_s=2.0, backoff_max_s=8.0)


def course(ticks: int, written_over: bool, policy: DriftPolicy = POLICY) -> tuple[list[int], int]:
    """Ticks in which the knob may be written, and the count: with another writer who writes each time we did,
    or one who wrote twice and no more."""
    drifts: tuple[Drift, ...] = ()
    theirs, foreign, written = True, 1, []
    for now in range(ticks):
        reading = KnobReading(KNOB, 3.9 if theirs else 0.5, original=3.9, written=0.5)
        drifts = watch(now, [reading], drifts, policy)
        if theirs and KNOB not in yielded(now, drifts, policy):
            written.append(now)
            theirs = written_over or foreign < 2
            foreign += 1
    return written, drifts[0].count


def test_a_second_foreign_write_is_written_over_after_the_wait() -> None:
    assert course(30, written_over=False) == ([0, 3], 2)


def test_two_writers_never_fight_at_full_speed() -> None:
    written, count = course(60, written_over=True)
    assert written[:4] == [0, 3, 8, 17]
    assert {later - earlier for earlier, later in itertools.pairwise(written[4:])} == {9}
    assert count - len(written) in (0, 1)  # each foreign write is counted once; the last may still wait


def test_a_writer_to_whom_we_yield_is_never_written_over() -> None:
    assert course(30, written_over=True, policy=DriftPolicy(on_drift=OnDrift.YIELD)) == ([], 1)


@pytest.mark.parametrize("actual", [0.5, 3.9])
def test_what_is_ours_or_not_held_is_no_drift(actual: float) -> None:
    assert watch(0.0, [KnobReading(KNOB, actual)], (), POLICY) == ()
    assert watch(0.0, [KnobReading(KNOB, 0.5, original=3.9, written=0.5)], (), POLICY) == ()
