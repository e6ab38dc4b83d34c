"""Replay: real decisions over generated readings, recorded, decided again and judged by other policies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.core.limit import LS_PRESSURE
from nodeagent.journal import Journal, read_segments
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.errors import Failed
from nodeagent.model.plan import Outcome, one_owner
from nodeagent.model.pod import Qos
from nodeagent.model.policy import CapacityPolicy, CpuPolicy, Policy, PressurePolicy
from nodeagent.model.snapshot import Pod, Snapshot, Stall
from nodeagent.replay import Replayed, as_dict, as_text, replay
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


def test_a_recorded_run_is_decided_the_same_again(tmp_path: Path) -> None:
    ticks = recorded(tmp_path, CALM_HURT_CALM)
    assert any(signal.name == LS_PRESSURE for tick in ticks for signal in tick.decision.signals)
    assert any(tick.changes for tick in ticks)
    told = replay(tmp_path)
    assert (told.ok, told.ticks, told.differing, told.warnings) == (True, 33, (), ())
    assert told.segments > 3
    assert "every decision is the same" in as_text(told)
    assert replay(tmp_path / "journal") == told  # the journal's own directory will do as well


def test_another_process_with_another_hash_seed_decides_the_same(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    record(journal, (samples.snapshot(seq, pods=40, numa_nodes=2) for seq in range(1, 12)))
    journal.close()
    code = "import sys, pathlib, nodeagent.replay as r; sys.exit(not r.replay(pathlib.Path(sys.argv[1])).ok)"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=environment, check=False, timeout=60
        )
        assert done.returncode == 0


def test_a_decision_that_differs_is_named_with_its_fields(tmp_path: Path) -> None:
    ticks = recorded(tmp_path / "honest", CALM_HURT_CALM)
    journal = Journal(tmp_path)
    memory = Memory()
    for tick in ticks:
        forged = tick
        if tick.snapshot.seq == 5:
            (setting, *rest) = tick.decision.plan
            plan = (replace(setting, value=0.125), *rest)
            forged = replace(tick, decision=replace(tick.decision, plan=plan, limit_why="because"))
        journal.append(forged, POLICY, memory)
        memory = turn(tick.snapshot, POLICY, memory)[1]
    journal.close()
    told = replay(tmp_path)
    assert (told.ok, told.differing_count, [d.seq for d in told.differing]) == (False, 1, [5])
    assert "decision.plan[cpu.quota nodeagent/batch" in told.differing[0].what
    assert ".value: 0.125 recorded" in told.differing[0].what
    assert "decision.limit_why: 'because' recorded" in told.differing[0].what
    assert "tick 5 at" in as_text(told)
    assert as_dict(told)["ok"] is False


def test_changes_that_do_not_follow_from_the_plan_differ(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (seen,) = snapshots([0.0])
    tick, _ = turn(seen, POLICY, Memory())
    assert tick.changes
    journal.append(replace(tick, changes=()), POLICY, Memory())
    journal.close()
    assert "changes[cpu." in replay(tmp_path).differing[0].what


def test_a_run_that_lost_its_memory_between_segments_is_told(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    seen = list(snapshots([0.0] * 8))
    memory = record(journal, seen[:4])
    journal.rotate()
    record(journal, seen[4:], memory=replace(memory, lent=replace(memory.lent, used_core_s=777.0)))
    journal.close()
    told = replay(tmp_path)
    assert [d.seq for d in told.differing] == [5]
    assert "memory.lent.used_core_s: 777.0 recorded" in told.differing[0].what


def test_a_reload_in_the_middle_is_followed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    seen = list(snapshots(CALM_HURT_CALM))
    memory = record(journal, seen[:11])
    record(journal, seen[11:], DEAF, memory)
    journal.close()
    told = replay(tmp_path)
    assert (told.ok, told.ticks, told.segments) == (True, 33, 2)


def test_replay_can_begin_at_any_segment(tmp_path: Path) -> None:
    recorded(tmp_path, CALM_HURT_CALM)
    names = sorted((tmp_path / "journal").iterdir())
    for name in names[:-1]:
        name.unlink()
        told = replay(tmp_path)
        assert told.ok
        assert replay(tmp_path, POLICY).otherwise is not None


readings = st.lists(
    st.tuples(
        st.floats(0.0, 1.0),  # stall
        st.integers(0, 5),  # pods
        st.floats(0.0, 1.0),  # use of the node
        st.sampled_from(["", "node", "pods", "knobs"]),  # what is not seen
        st.floats(0.01, 15.0),  # time since the last tick
    ),
    min_size=1,
    max_size=12,
)


def blurred(seen: Snapshot, missing: str) -> Snapshot:
    if missing == "node":
        return replace(seen, node=replace(seen.node, cpus=None, memory=None))
    if missing == "pods":
        return replace(seen, pods=tuple(replace(pod, reading=type(pod.reading)()) for pod in seen.pods))
    return replace(seen, knobs=()) if missing == "knobs" else seen


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(course=readings)
def test_any_course_is_decided_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, course: list[tuple[float, int, float, str, float]]
) -> None:
    state = tmp_path_factory.mktemp("course")
    at, seen = 1000.0, []
    for seq, (stall, count, busy, missing, gap_s) in enumerate(course, 1):
        at += gap_s
        pods: tuple[Pod, ...] = samples.mixed_pods(count, at, ls_stall_ratio=stall)
        seen.append(blurred(samples.snapshot(seq, at, pods=pods, busy_ratio=busy), missing))
    journal = Journal(state, segment_bytes=SMALL)
    record(journal, seen)
    journal.close()
    told = replay(state)
    assert told.differing == ()
    same = replay(state, POLICY).otherwise
    assert same is not None
    assert (same.ticks, same.then) == (0, same.now)


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


def test_a_torn_journal_is_replayed_up_to_there_with_a_warning(tmp_path: Path) -> None:
    recorded(tmp_path, CALM_HURT_CALM)
    names = sorted((tmp_path / "journal").iterdir())
    os.truncate(names[1], names[1].stat().st_size - 1)
    names[2].write_bytes(b"garbage")
    told = replay(tmp_path)
    assert told.ok
    assert told.ticks < 33
    assert len(told.warnings) == 2
    assert "torn at byte" in as_text(told)


def test_the_answer_is_json(tmp_path: Path) -> None:
    recorded(tmp_path, CALM_HURT_CALM)
    for policy in (None, DEAF, Policy(capacity=CapacityPolicy(cpu_ceiling_ratio=0.0))):
        told = replay(tmp_path, policy)
        plain = as_dict(told)
        parsed = json.loads(json.dumps(plain, allow_nan=False))
        assert msgspec.convert(parsed, Replayed) == told
        assert parsed["ok"]
        assert ("note" in plain) == (policy is not None)


def test_nothing_to_replay_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"no \*\.journal file"):
        replay(tmp_path)
    with pytest.raises(Failed, match="No such file"):
        replay(tmp_path / "missing")
    (tmp_path / "x.journal").write_bytes(b"garbage")
    with pytest.raises(Failed, match="no tick can be read") as caught:
        replay(tmp_path)
    assert "x.journal: not a journal segment" in caught.value.hint


def test_progress_is_told_every_hundred_ticks(tmp_path: Path) -> None:
    recorded(tmp_path, [0.0] * 250, segment_bytes=1 << 20)
    seen: list[int] = []
    replay(tmp_path, progress=seen.append)
    assert seen == [100, 200]


def test_a_long_journal_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    recorded(tmp_path / "short", [0.0] * 50, segment_bytes=20_000)
    recorded(tmp_path / "long", [0.0] * 500, segment_bytes=20_000)
    peaks = []
    for state in ("short", "long"):
        tracemalloc.start()
        replay(tmp_path / state)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
