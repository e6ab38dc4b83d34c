"""The trial where the victim lacks memory: the suspect keeps a part of its own, and all of its CPU time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nodeagent.model.interference import Rung, TrialResult
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.settings import Actuator
from nodeagent.model.snapshot import MemoryEvents, Reading
from nodeagent.model.symptom import Channel
from tests.unit.troubled_node import HOG, LAMB, VICTIM, TroubledNode, node, suspect

MIB = 1 << 20
CACHED = Reading(memory_bytes=1000 * MIB, anon_bytes=100 * MIB, memory_events=MemoryEvents(high=0))


def on_trial(reading: Reading = CACHED, channel: Channel = Channel.MEMORY, **more: object) -> TroubledNode:
    """Bad for 3 s, so that the suspect is on trial since the last tick."""
    it = node(HOG, LAMB, **more)
    it.readings = {HOG: reading}
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(3, "bad", 0.6, channel=channel)
    return it


def test_the_suspect_keeps_three_quarters_of_its_memory_and_all_of_its_cpu_time() -> None:
    held = on_trial().restraint(HOG)
    assert held is not None
    assert (held.rung, held.memory_high_bytes) == (Rung.SHRINK, 750 * MIB)
    assert held.quota_cores is None and not held.idle and held.withheld_cores == 0.0


def test_it_is_said_in_bytes() -> None:
    (action,) = on_trial().episode.actions
    assert (action.rung, action.why) == (Rung.SHRINK, "trial: 750 MiB for 10 s")


def test_the_bound_stays_and_goes_on_down_when_the_victim_gets_better_but_not_well() -> None:
    it = on_trial()
    it.ticks(10, "odd", 0.1, channel=Channel.MEMORY)
    (trial,) = it.episode.trials
    assert trial.result is TrialResult.KEPT
    it.ticks(45, "bad", 0.3, channel=Channel.MEMORY)
    held = it.restraint(HOG)
    assert held is not None
    assert (held.rung, held.memory_high_bytes) == (Rung.SHRINK, 675 * MIB)


def test_the_bound_is_undone_when_the_victim_does_not_get_better() -> None:
    it = on_trial()
    it.ticks(10, "bad", 0.6, channel=Channel.MEMORY)
    assert it.results == ["undone"]
    assert it.told.restraints == ()


def test_a_bound_that_is_not_taken_proves_nothing() -> None:
    it = on_trial(obeys=False)
    it.ticks(8, "bad", 0.1, channel=Channel.MEMORY)
    assert it.results[:1] == ["cut-short"]


@pytest.mark.parametrize(
    "reading",
    [
        replace(CACHED, memory_events=MemoryEvents(max=0)),
        replace(CACHED, memory_events=None),
        replace(CACHED, anon_bytes=950 * MIB),
        replace(CACHED, memory_bytes=60 * MIB, anon_bytes=1 * MIB),
        replace(CACHED, anon_bytes=None),
    ],
    ids=["cgroup v1", "not told", "nearly all anonymous", "hardly any memory", "told in part"],
)
def test_where_memory_cannot_be_taken_back_it_is_cpu_time(reading: Reading) -> None:
    held = on_trial(reading).restraint(HOG)
    assert held is not None
    assert (held.rung, held.memory_high_bytes, held.quota_cores) == (Rung.QUOTA, None, 0.25)


def test_what_the_agent_may_not_do_is_not_tried() -> None:
    assert on_trial(policy=InterferencePolicy(top_rung=2)).quota(HOG) == 0.25
    assert on_trial(enforce=(Actuator.CPU,)).quota(HOG) == 0.25


def test_what_lacks_cpu_time_is_not_helped_by_memory() -> None:
    assert on_trial(channel=Channel.CPU).quota(HOG) == 0.5


def test_what_is_anonymous_is_not_taken() -> None:
    held = on_trial(replace(CACHED, anon_bytes=850 * MIB)).restraint(HOG)
    assert held is not None and held.memory_high_bytes == 850 * MIB


def test_what_a_trial_cannot_take_back_in_half_its_time_is_not_asked() -> None:
    held = on_trial(replace(CACHED, memory_bytes=2000 * MIB)).restraint(HOG)
    assert held is not None and held.memory_high_bytes == 1680 * MIB  # 64 MiB a tick, 5 s
    held = on_trial(replace(CACHED, memory_bytes=16_000 * MIB)).restraint(HOG)
    assert held is not None and (held.memory_high_bytes, held.quota_cores) == (None, 0.25)


def test_nothing_counts_before_the_bound_is_there() -> None:
    it = on_trial(replace(CACHED, memory_bytes=1200 * MIB), shrinks_by=64.0 * MIB)
    it.ticks(3, "bad", 0.6, channel=Channel.MEMORY)  # on its way to 900 MiB, of which a tenth more is near
    it.ticks(4, "odd", 0.1, channel=Channel.MEMORY)
    it.ticks(3, "odd", 0.2, channel=Channel.MEMORY)
    assert it.results == ["kept"]
    assert it.episode.trials[0].during == 0.1


def test_where_the_suspect_gave_its_memory_back_by_itself_nothing_is_proven() -> None:
    it = on_trial()
    it.readings[HOG] = replace(CACHED, memory_bytes=200 * MIB)
    it.ticks(10, "odd", 0.1, channel=Channel.MEMORY)
    assert it.results == ["cut-short"]
    assert it.told.restraints == ()


def test_with_slow_ticks_a_bound_has_its_time_to_be_seen() -> None:
    it = node(HOG, LAMB)
    it.readings = {HOG: CACHED}
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.policy = InterferencePolicy(trial_s=60.0)
    while it.restraint(HOG) is None:
        it.tick("bad", 0.6, channel=Channel.MEMORY, dt_s=6.0)
    it.obeys = False
    it.tick("bad", 0.6, channel=Channel.MEMORY, dt_s=6.0)  # it is being written
    it.obeys = True
    it.tick("bad", 0.6, channel=Channel.MEMORY, dt_s=6.0)
    assert it.results == ["running"]


def test_who_is_held_by_its_memory_gets_no_quota_because_the_victim_is_not_seen() -> None:
    it = on_trial()
    it.ticks(10, "odd", 0.1, channel=Channel.MEMORY)
    assert it.results == ["kept"]
    it.ticks(60, "blind", None, channel=Channel.MEMORY)
    held = it.restraint(HOG)
    assert held is not None
    assert (held.rung, held.memory_high_bytes, held.quota_cores) == (Rung.SHRINK, 750 * MIB, None)


def test_a_victim_that_is_out_of_sight_in_the_trial_leaves_the_bound_alone() -> None:
    it = on_trial()
    it.ticks(40, "blind", None, channel=Channel.MEMORY)
    held = it.restraint(HOG)
    assert held is not None and (held.memory_high_bytes, held.quota_cores) == (750 * MIB, None)
