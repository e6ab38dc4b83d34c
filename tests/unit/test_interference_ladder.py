"""The ladder: steps up while the victim suffers, steps down when it is calm, and an end by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from nodeagent.model.interference import Rung, TrialResult
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.plan import Kind, Knob
from nodeagent.model.pod import Qos
from nodeagent.model.settings import Actuator, Mode
from nodeagent.model.snapshot import Reading, Stall
from nodeagent.model.symptom import AppReading, Channel, Slo
from nodeagent.model.topology import Cpu, NumaNode, Topology
from tests.unit import samples
from tests.unit.troubled_node import HOG, OTHER, VICTIM, TroubledNode, node, spec, suspect

MIB = 1 << 20


def kept(channel: Channel = Channel.CPU, **more: object) -> TroubledNode:
    """HOG has just been proven to be the one, and the victim still suffers a little."""
    it = node(HOG, **more)
    return proven(it, channel)


def proven(it: TroubledNode, channel: Channel = Channel.CPU) -> TroubledNode:
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(3, "bad", 0.6, channel=channel)
    it.ticks(10, "bad", 0.3, channel=channel)
    assert it.episode.trials[-1].result is TrialResult.KEPT
    return it


def rungs_over(it: TroubledNode, seconds: int, channel: Channel) -> list[tuple[float, Rung]]:
    """When each new rung was reached, in seconds from now."""
    seen: list[tuple[float, Rung]] = []
    start = it.at
    for _ in range(seconds):
        it.tick("bad", 0.3, channel=channel)
        found = it.restraint(HOG)
        assert found is not None
        if not seen or found.rung is not seen[-1][1]:
            seen.append((it.at - start, found.rung))
    return seen


def test_a_quota_is_halved_every_ten_seconds_down_to_its_floor() -> None:
    it = kept()
    quotas = [it.quota(HOG)]
    for _ in range(40):
        it.tick("bad", 0.3)
        if it.quota(HOG) != quotas[-1]:
            quotas.append(it.quota(HOG))
    assert quotas == [0.5, 0.25, 0.125, 0.1]
    assert it.episode.held == "who is held is held as much as may be"


def test_what_is_idle_anyway_needs_no_such_step_and_what_is_not_becomes_idle() -> None:
    it = kept()
    found = it.restraint(HOG)
    assert found is not None and found.idle and found.rung is Rung.QUOTA


def test_cpus_are_left_to_the_victim_where_others_remain() -> None:
    it = kept(cpus={VICTIM: "0-1", HOG: "0-3"})
    reached = rungs_over(it, 60, Channel.CPU)
    assert [rung for _, rung in reached] == [Rung.QUOTA, Rung.CPUSET]
    found = it.restraint(HOG)
    assert found is not None and found.away_from == "0-1"


def test_no_cpus_are_left_where_none_would_remain() -> None:
    it = kept(cpus={VICTIM: "0-3", HOG: "0-3"})
    assert [rung for _, rung in rungs_over(it, 90, Channel.CPU)] == [Rung.QUOTA]


def test_for_a_cache_the_cpus_go_before_the_quota_and_as_far_as_the_cache_reaches() -> None:
    it = node(HOG, cpus={VICTIM: "0-1", HOG: "0-7"}, cores=8)
    cpus = tuple(Cpu(n, n, n // 4, 0, n // 4, (n,)) for n in range(8))
    it.topology = Topology(cpus, (NumaNode(0, tuple(range(8)), 1 << 30, (10,)),))
    proven(it, Channel.LLC)
    quota = it.quota(HOG)
    assert [rung for _, rung in rungs_over(it, 11, Channel.LLC)] == [Rung.QUOTA, Rung.CPUSET]
    found = it.restraint(HOG)
    assert found is not None and found.away_from == "0-3", "all CPUs of the victim's L3"
    assert found.quota_cores == quota, "what proved it stays as it is"


def test_memory_is_shrunk_in_small_steps_with_dwell_times() -> None:
    it = node(HOG)
    it.readings = {HOG: Reading(memory_bytes=1000 * MIB)}
    proven(it, Channel.MEMORY)
    sizes = []
    for _ in range(90):
        it.tick("bad", 0.3, channel=Channel.MEMORY)
        found = it.restraint(HOG)
        assert found is not None
        if found.memory_high_bytes is not None and found.memory_high_bytes not in sizes:
            sizes.append(found.memory_high_bytes)
    assert sizes == [900 * MIB, 810 * MIB, 729 * MIB]


def test_a_victim_that_stands_still_for_memory_does_not_wait_for_small_steps() -> None:
    it = node(HOG)
    it.readings = {HOG: Reading(memory_bytes=1000 * MIB)}
    proven(it, Channel.MEMORY)
    for n in range(3):
        stall = Stall(10**6 * n, 5 * 10**5 * n * 5)
        it.readings = {**it.readings, VICTIM: Reading(slow_at=it.at, memory_stall=stall)}
        it.ticks(5, "bad", 0.3, channel=Channel.MEMORY)
    found = it.restraint(HOG)
    assert found is not None and found.rung is Rung.SHRINK


def test_the_policy_bounds_the_ladder() -> None:
    it = kept(policy=InterferencePolicy(top_rung=2), cpus={VICTIM: "0-1", HOG: "0-3"})
    assert [rung for _, rung in rungs_over(it, 120, Channel.CPU)] == [Rung.QUOTA]


def test_freezing_is_in_turns_and_never_long() -> None:
    it = kept(policy=InterferencePolicy(top_rung=5, changes_per_pod=50))
    it.ticks(100, "bad", 0.3)
    frozen = []
    for _ in range(60):
        it.tick("bad", 0.3)
        found = it.restraint(HOG)
        assert found is not None and found.rung is Rung.FREEZE
        frozen.append(found.frozen)
    assert 20 <= sum(frozen) <= 40
    assert not any(a and b for a, b in pairwise(frozen))
    it.tick("bad", 0.3, dt_s=15.0)
    found = it.restraint(HOG)
    assert found is None or not found.frozen, "ticks so far apart would freeze it for too long"


def test_eviction_is_asked_for_once_and_not_done() -> None:
    it = node(HOG, policy=InterferencePolicy(top_rung=6, changes_per_pod=50))
    it.readings = {HOG: Reading(memory_bytes=70 * MIB)}
    proven(it, Channel.MEMORY)
    it.ticks(300, "bad", 0.3, channel=Channel.MEMORY)
    asked = [a for a in it.episode.actions if a.rung is Rung.EVICT]
    assert len(asked) == 1
    found = it.restraint(HOG)
    assert found is not None and found.rung is Rung.FREEZE


def test_after_calm_the_quota_grows_back_and_the_pod_is_let_go() -> None:
    it = kept()
    quotas: list[float | None] = []
    for _ in range(600):
        it.tick("calm", 0.0)
        quotas.append(it.quota(HOG))
    known = [q for q in quotas if q is not None]
    assert known == sorted(known), "it only grows"
    assert quotas[59] == 0.5, "not before a minute of calm"
    assert quotas[95] != 0.5, "and soon after it: at most half as long again"
    assert it.told.restraints == () and it.course.cases == {}


def test_trouble_that_comes_back_doubles_the_patience() -> None:
    def calm_until_growth(it: TroubledNode) -> float:
        start, quota = it.at, it.quota(HOG)
        while it.quota(HOG) == quota:
            it.tick("calm", 0.0)
            assert it.at - start < 1000
        return it.at - start

    it = kept(policy=InterferencePolicy(changes_per_pod=50))
    first = calm_until_growth(it)
    it.ticks(2, "calm", 0.0)
    before = it.quota(HOG)
    it.tick("bad", 0.6)
    after = it.quota(HOG)
    assert before is not None and after is not None and after < before, "at once, without another trial"
    second = calm_until_growth(it)
    assert 60 <= first <= 91 and 120 <= second <= 181
    it.tick("bad", 0.6)
    assert 240 <= calm_until_growth(it) <= 361


def test_the_patience_ends_somewhere() -> None:
    it = kept(policy=InterferencePolicy(relax_after_s=5.0, relax_max_s=10.0, changes_per_pod=100))
    for _ in range(6):
        quota, start = it.quota(HOG), it.at
        while it.quota(HOG) == quota:
            it.tick("calm", 0.0)
        assert it.at - start <= 16.0
        it.tick("bad", 0.6)


def test_a_pod_gets_so_many_steps_and_then_is_held_and_that_is_said() -> None:
    it = kept(policy=InterferencePolicy(changes_per_pod=2))
    it.ticks(12, "bad", 0.3)
    assert it.quota(HOG) == 0.25
    it.ticks(100, "bad", 0.3)
    assert it.quota(HOG) == 0.25
    assert "its steps" in it.episode.held
    it.ticks(500, "bad", 0.3)
    quota = it.quota(HOG)
    assert quota is not None and quota < 0.25, "ten minutes later it goes on"


def test_nothing_is_loosened_while_the_victim_is_not_seen() -> None:
    it = kept()
    it.ticks(400, "blind", None)
    assert it.quota(HOG) == 0.5
    assert it.episode.cleared_unix is None
    assert "not seen" in it.episode.held


def test_what_was_given_back_is_taken_again_when_the_victim_stays_unseen() -> None:
    it = kept()
    while (it.quota(HOG) or 0.0) <= 0.7:
        it.tick("calm", 0.0)
    grown = it.quota(HOG)
    it.ticks(25, "blind", None)
    assert it.quota(HOG) == grown
    it.ticks(10, "blind", None)
    quota = it.quota(HOG)
    assert quota is not None and grown is not None and quota < grown


def test_a_lease_that_was_not_renewed_has_ended() -> None:
    it = kept()
    found = it.restraint(HOG)
    assert found is not None and found.until == it.at + it.policy.lease_s
    it.tick("bad", 0.6, dt_s=it.policy.lease_s + 1.0)
    assert it.restraint(HOG) is None


def test_a_restraint_ends_with_its_victim_and_with_its_pod() -> None:
    it = kept()
    del it.pods[VICTIM]
    it.tick("calm")
    assert it.told.restraints == ()
    it = kept()
    it.pods[HOG] = spec(HOG, inode=5)
    it.tick("bad", 0.6)
    assert it.told.restraints == ()


def test_a_restraint_ends_when_its_pod_becomes_online_work() -> None:
    it = kept()
    it.pods[HOG] = replace(it.pods[HOG], qos=Qos.LS)
    it.tick("bad", 0.6)
    assert it.told.restraints == ()


def test_a_restraint_ends_when_the_agent_observes() -> None:
    it = kept()
    it.mode = Mode.OBSERVE
    it.tick("bad", 0.6)
    assert it.told.restraints == () and "observes" in it.episode.held


def test_of_two_victims_of_one_pod_the_harsher_restraint_holds() -> None:
    it = kept()
    it.pods[OTHER] = spec(OTHER, Qos.LS)
    it.suspects[OTHER] = (suspect(HOG),)
    it.uses[HOG] = 0.5
    for _ in range(4):
        it.tick({VICTIM: "calm", OTHER: "bad"}, 0.6)
    assert it.quota(HOG) == 0.25
    assert len(it.told.restraints) == 1
    for _ in range(10):
        it.tick({VICTIM: "calm", OTHER: "calm"}, 0.0)
    assert it.quota(HOG) == 0.25
    assert it.told.directed == (OTHER, VICTIM)


def test_of_two_antagonists_both_are_found_before_one_is_held_harder() -> None:
    it = node(HOG, "shark")
    it.suspects = {VICTIM: (suspect(HOG), suspect("shark"))}
    it.ticks(3, "bad", 0.6)
    it.ticks(10, "bad", 0.3)
    assert it.quota(HOG) == 0.5 and it.quota("shark") == 0.5
    it.ticks(10, "calm", 0.0)
    assert [t.result for t in it.episode.trials] == [TrialResult.KEPT, TrialResult.KEPT]
    assert it.quota(HOG) == 0.5


def test_a_victim_that_its_application_calls_well_lets_go_in_the_end() -> None:
    it = kept()
    it.ticks(600, "odd", 0.3)
    assert it.told.restraints == ()


@pytest.mark.parametrize("enforce", [(Actuator.NIC,), ()])
def test_without_the_cpu_actuator_nothing_is_tried(enforce: tuple[Actuator, ...]) -> None:
    it = node(HOG, enforce=enforce)
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(20, "bad", 0.6)
    assert it.told.restraints == () and "without cpu" in it.episode.held


def test_a_broken_promise_is_dire_need_and_stale_words_are_none() -> None:
    it = kept()
    slo = Slo(0.99, 0.02)
    it.apps = {VICTIM: AppReading("grpc", it.at, window_requests=1000, latency_s=((0.99, 0.05),), slo=slo)}
    it.ticks(3, "bad", 0.3)
    assert it.quota(HOG) == 0.1, "at once to the floor"
    it = kept()
    old = it.at - 60.0
    it.apps = {VICTIM: AppReading("grpc", old, window_requests=1000, latency_s=((0.99, 0.05),), slo=slo)}
    it.ticks(3, "bad", 0.3)
    assert it.quota(HOG) == 0.5


def test_same_in_same_out() -> None:
    def once() -> list[object]:
        it = kept()
        return [it.tick("calm" if n % 70 else "bad", 0.1) for n in range(400)]

    assert once() == once()
    assert samples.BOOT_ID


def test_when_trouble_comes_back_the_quota_is_what_it_was_when_all_was_well() -> None:
    it = kept(policy=InterferencePolicy(changes_per_pod=50))
    it.ticks(150, "calm", 0.0)
    grown = it.quota(HOG)
    assert grown is not None and grown > 1.2
    it.tick("bad", 0.6)
    assert it.quota(HOG) == 0.5
    it.ticks(11, "bad", 0.3)
    assert it.quota(HOG) == 0.25, "and if that does not do any more, less"


def test_who_was_proven_not_long_ago_is_tried_again_although_nobody_stands_out_now() -> None:
    it = kept()
    it.ticks(500, "calm", 0.0)
    assert it.told.restraints == ()
    it.suspects = {VICTIM: (suspect(HOG, named=False),)}
    it.ticks(3, "bad", 0.6)
    assert it.quota(HOG) == 0.5
    it.ticks(10, "calm", 0.0)
    assert it.results == ["kept"]
    start = it.at
    while it.quota(HOG) == 0.5:
        it.tick("calm", 0.0)
    assert it.at - start >= 110.0, "the patience has doubled"
    it.ticks(2000, "calm", 0.0)
    it.ticks(1500, "calm", 0.0)
    it.ticks(10, "bad", 0.6)
    assert it.told.restraints == (), "that was long ago"


def test_a_step_that_this_host_has_no_knob_for_is_not_taken_further() -> None:
    it = node(HOG, policy=InterferencePolicy(top_rung=5))
    it.readings = {HOG: Reading(memory_bytes=1000 * MIB)}
    proven(it, Channel.MEMORY)
    it.ticks(11, "bad", 0.3, channel=Channel.MEMORY)
    it.absent = (Knob(Kind.MEMORY_HIGH, it.pods[HOG].cgroup),)
    it.ticks(31, "bad", 0.3, channel=Channel.MEMORY)
    found = it.restraint(HOG)
    assert found is not None and found.rung is Rung.FREEZE
