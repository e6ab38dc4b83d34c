"""Replay by another policy: where it would have decided otherwise, and what that adds up to."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from nodeagent.journal import Journal
from nodeagent.model.policy import CpuPolicy, Policy
from nodeagent.replay import as_text, replay
from tests.unit.courses import CALM_HURT_CALM, DEAF, POLICY, record, recorded, snapshots, turn


def test_the_same_policy_would_have_decided_the_same(tmp_path: Path) -> None:
    recorded(tmp_path, CALM_HURT_CALM)
    other = replay(tmp_path, Policy()).otherwise
    assert other is not None
    assert (other.ticks, other.stretches, other.then == other.now) == (0, (), True)


def test_totals_are_the_integrals_of_the_recorded_ticks_whatever_the_segments(tmp_path: Path) -> None:
    ticks = recorded(tmp_path, CALM_HURT_CALM)
    recorded(tmp_path / "one", CALM_HURT_CALM, segment_bytes=1 << 20)
    other, whole = replay(tmp_path, DEAF).otherwise, replay(tmp_path / "one", DEAF).otherwise
    assert other is not None
    assert other == whole
    limits = [tick.decision.batch_limit_cores or 0.0 for tick in ticks]
    assert other.seconds == pytest.approx(32.0)
    assert other.then.batch_core_s == pytest.approx(sum(limits[:-1]))
    assert other.then.ls_pressure_s == pytest.approx(3.0)
    assert other.then.offered_core_s == pytest.approx(
        sum(t.decision.capacity.cpu.available for t in ticks[:-1])
    )


def test_a_policy_that_does_not_hear_gives_batch_more_and_says_where(tmp_path: Path) -> None:
    ticks = recorded(tmp_path, CALM_HURT_CALM)
    told = replay(tmp_path, DEAF)
    other = told.otherwise
    assert other is not None
    assert (other.then.ls_pressure_s, other.now.ls_pressure_s) == (3.0, 0.0)
    assert other.now.batch_core_s > other.then.batch_core_s
    (stretch,) = other.stretches
    assert stretch.first_seq == 11  # the first tick that hears of the waiting
    assert (stretch.then.hurt, stretch.now.hurt) == (("pod1",), ())
    worst = min(tick.decision.batch_limit_cores or 0.0 for tick in ticks[10:])
    assert stretch.then.low_cores == pytest.approx(worst)
    assert stretch.now.low_cores is not None
    assert stretch.now.low_cores > worst
    assert told.ok
    text = as_text(told)
    assert "pod1 -> none" in text
    assert "open loop" in text
    assert f"11..{stretch.last_seq}" in text


def test_stretches_end_where_the_policies_agree_again(tmp_path: Path) -> None:
    recorded(tmp_path, [0.0] * 5 + [0.5] + [0.0] * 60 + [0.5] + [0.0] * 60)
    other = replay(tmp_path, DEAF).otherwise
    assert other is not None
    assert [s.first_seq for s in other.stretches if s.then.hurt] == [6, 67]
    assert all(a.last_seq < b.first_seq for a, b in pairwise(other.stretches))
    assert other.ticks == sum(s.last_seq - s.first_seq + 1 for s in other.stretches)
    assert other.stretch_count == len(other.stretches)
    assert other.ticks < 60


def test_another_policy_keeps_its_own_memory_across_segments_but_not_across_runs(tmp_path: Path) -> None:
    slow = Policy(cpu=CpuPolicy(recover_ratio_per_s=0.001))
    recorded(tmp_path, CALM_HURT_CALM)
    recorded(tmp_path / "one", CALM_HURT_CALM, segment_bytes=1 << 20)
    assert replay(tmp_path, slow).otherwise == replay(tmp_path / "one", slow).otherwise

    state = tmp_path / "two"
    for _ in range(2):  # the agent is started again: tick numbers begin again, time goes on
        recorded(state, CALM_HURT_CALM)
    twice, once = replay(state, slow).otherwise, replay(tmp_path, slow).otherwise
    assert twice is not None
    assert once is not None
    assert twice.seconds == 2 * once.seconds
    assert twice.now.batch_core_s == pytest.approx(2 * once.now.batch_core_s)


def test_a_gap_in_the_recording_is_not_counted_as_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    seen = list(snapshots([0.0] * 20))
    memory = record(journal, seen[:5])
    for snapshot in seen[5:15]:  # decided, not recorded: the disk was full
        memory = turn(snapshot, POLICY, memory)[1]
    journal.rotate()
    record(journal, seen[15:], memory=memory)
    journal.close()
    told = replay(tmp_path)
    assert (told.ok, told.ticks) == (True, 10)
    other = replay(tmp_path, DEAF).otherwise
    assert other is not None
    assert other.seconds == pytest.approx(8.0)
