"""Replay: recorded runs are decided again and must come out the same; bad journals are told plainly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.limit import LS_PRESSURE
from nodeagent.journal import Journal
from nodeagent.model.decision import Memory
from nodeagent.model.errors import Failed
from nodeagent.model.policy import CapacityPolicy, Policy
from nodeagent.model.snapshot import Pod, Snapshot
from nodeagent.replay import Replayed, as_dict, as_json, as_text, replay
from tests.unit import samples
from tests.unit.courses import CALM_HURT_CALM, DEAF, POLICY, SMALL, record, recorded, snapshots, turn
from tests.unit.interference_samples import ticks


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
        parsed = json.loads(as_json(told))
        assert msgspec.convert(parsed, Replayed) == told
        assert json.loads(json.dumps(plain, allow_nan=False)) == parsed
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
    full_s = round(Policy().interference.window_s)  # from here on what is remembered is as large as it gets
    recorded(tmp_path / "short", [0.0] * (full_s + 20), segment_bytes=20_000)
    recorded(tmp_path / "long", [0.0] * (5 * full_s), segment_bytes=20_000)
    peaks = []
    for state in ("short", "long"):
        tracemalloc.start()
        replay(tmp_path / state)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]


def test_episodes_are_told_once_each_with_their_stories(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for tick in ticks():
        journal.append(tick, Policy(), Memory())
        if tick.snapshot.seq == 5:
            journal.rotate()  # an episode goes on in the next segment
    journal.close()
    told = replay(tmp_path)
    assert told.episode_count == 1
    text = as_text(told)
    assert "\n1 episode of interference recorded (times in UTC):\n" in text
    assert "because transcode-3 took CPU time; I capped it; search-7 recovered in 4 s" in text
    (episode,) = json.loads(as_json(told))["episodes"]
    assert (episode["victim_name"], episode["channel"]) == ("search-7", "cpu")


def test_an_episode_at_whose_end_nobody_recorded_is_told_as_it_was_last_known(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for tick in ticks()[:5]:
        journal.append(tick, Policy(), Memory())
    journal.close()
    told = replay(tmp_path)
    assert told.episode_count == 1 and told.episodes[0].cleared_unix is None
    assert "search-7 is slowed since 14:30:01 probably because transcode-3" in as_text(told)
    assert replay(tmp_path, POLICY).episode_count == 1
