"""Explanations of interference: an online pod's signs with what is usual, and why a Batch pod is held."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nodeagent.core import rates
from nodeagent.core.decide import think
from nodeagent.core.explain import pod
from nodeagent.core.explain.ground import Ground
from nodeagent.core.interference.judge import judge
from nodeagent.core.interference.measures import measured
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.explanation import Explanation
from nodeagent.model.interference import Episode, Interference, State
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.policy import Policy
from nodeagent.model.senses import Senses
from nodeagent.model.symptom import Sign
from tests.unit import samples
from tests.unit.interference_samples import course, restraint
from tests.unit.test_explain import checked, named
from tests.unit.world import Load, World

LS = "nodeagent/ls/pod0"
BATCH = "nodeagent/batch/pod1"


class Judged:
    """A world whose LS pod is judged in each tick."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.world = World(policy=policy)
        self.senses = Senses()

    def step(self, load: Load, found: Interference | None = None) -> Ground:
        """One tick; `found` is what is going on in it, by default the verdicts alone."""
        world, before = self.world, self.world.memory
        seen = world.snapshot(load)
        view = rates.view(seen, before.previous)
        verdicts, senses = judge(
            view, measured(view, {}, self.senses), world.policy, self.senses, frozenset()
        )
        memory = replace(before, interference=InterferenceMemory(senses=self.senses))
        thought = replace(
            think(seen, world.policy, memory),
            felt=InterferenceMemory(senses=senses),
            interference=found or Interference(verdicts=verdicts),
        )
        self.senses, world.memory = senses, Memory(previous=seen)
        return Ground(Tick(seen, samples.decision(seen)), world.policy, memory, thought)


def told(ground: Ground, cgroup: str) -> Explanation:
    spec = next(p.spec for p in ground.tick.snapshot.pods if p.spec.cgroup == cgroup)
    seen = ground.tick.snapshot
    return Explanation(seen.seq, seen.unix, spec.name, tuple(pod.reasons(ground, spec)))


def signs(found: Explanation) -> dict[str, tuple[str, str]]:
    return {i.name: (i.value, i.source) for i in named(found)["signs"].inputs}


def hurt(ticks: int, policy: Policy | None = None) -> Ground:
    """After so many calm ticks three bad ones."""
    judged = Judged(policy)
    for n in range(ticks):
        judged.step(Load(stall_ratio=0.02 + 0.01 * (n % 3)))
    judged.step(Load(stall_ratio=0.5))
    judged.step(Load(stall_ratio=0.5))
    return judged.step(Load(stall_ratio=0.5))


def test_each_sign_of_an_online_pod_is_told_with_its_value_or_why_there_is_none() -> None:
    found = told(hurt(250), LS)
    each = signs(found)
    assert list(each) == [sign.value for sign in Sign]
    value, source = each["cpu.stall"]
    assert value == "50 %" and source.startswith("usual ") and "z 6.0, sum " in source
    assert each["cpi"][0] == "not known", "somebody reads it"
    assert each["app.latency"] == ("not supported", "this can never be known of this pod here")
    assert each["cpu.throttled"][1] == "raises no alarm of its own"
    result = named(found)["signs"].result
    assert result.startswith(("suspect", "confirmed")) and "not known now" in result


def test_the_deviation_of_a_sign_that_alarms_is_in_the_arithmetic() -> None:
    found = told(hurt(250), LS)
    alarm = named(found)["sign cpu.stall"]
    assert (alarm.result, alarm.by) == ("6", "interference")
    assert alarm.rule == "max(-clip, min(clip, (value - usual) / spread))"
    assert alarm.why.startswith("alarm: the sum is ") and "it takes 7" in alarm.why
    assert checked(found) >= 1


def test_a_sign_without_a_baseline_says_how_many_samples_it_has_and_what_counts() -> None:
    ground = hurt(30)
    found = told(ground, LS)
    assert "no baseline yet: " in signs(found)["cpu.stall"][1]
    assert "of 100 samples" in signs(found)["cpu.stall"][1]
    assert "bad from its limit on" in named(found)["sign cpu.stall"].rule


def test_what_is_not_read_in_this_tick_is_not_known_and_not_calm() -> None:
    judged = Judged()
    for _ in range(5):
        judged.step(Load())
    found = told(judged.step(Load(stall_ratio=None)), LS)
    assert signs(found)["cpu.stall"][0] == "not known"
    assert named(found)["signs"].result.startswith("unknown")


def test_who_does_not_look_says_so() -> None:
    ground = hurt(3, Policy(interference=InterferencePolicy(detect=False)))
    assert named(told(ground, LS))["signs"].result == "not looked at"


def episode(of: Ground, **more: object) -> Episode:
    """The one of search-7 in its seventh tick, of this ground's LS pod and its first Batch pod."""
    (found,) = list(course())[6].episodes
    batch = next(p.spec for p in of.tick.snapshot.pods if not p.spec.online)
    suspects = (replace(found.suspects[0], uid=batch.uid), found.suspects[1])
    return replace(
        found,
        victim=next(p.spec.uid for p in of.tick.snapshot.pods if p.spec.online),
        suspects=suspects,
        trials=tuple(replace(t, uid=batch.uid) for t in found.trials),
        actions=tuple(replace(a, uid=batch.uid) for a in found.actions),
        **more,
    )


def acting(**more: object) -> Ground:
    ground = hurt(20)
    uid = next(p.spec.uid for p in ground.tick.snapshot.pods if p.spec.cgroup == BATCH)
    held = replace(restraint(1), uid=uid, cgroup=BATCH, until=ground.tick.snapshot.at + 12.0)
    found = Interference(episodes=(episode(ground, **more),), restraints=(held,))
    return replace(ground, thought=replace(ground.thought, interference=found))


def test_a_pod_that_is_held_back_is_told_for_whom_why_and_for_how_long() -> None:
    found = named(told(acting(), BATCH))[f"restraint {BATCH}"]
    given = {i.name: (i.value, i.source) for i in found.inputs}
    assert (found.result, found.why) == ("0.5 cores", "search-7 waits for CPU")
    assert given["victim"] == ("search-7", "episode cpu-1, confirmed")
    assert given["resource"][0] == "cpu" and given["step"][0] == "quota"
    assert given["cpu.stall"] == ("41 %", "at its worst: cpu.stall 41 % (usual 3 %, z 6.0)")
    assert (
        given["trial"][0] == "kept"
        and "was 38 % above what is usual before, 4 % during it" in given["trial"][1]
    )
    assert given["lease_left"][0] == "12.0 s"


def test_a_restraint_outlives_its_episode_and_another_pod_has_none() -> None:
    ground = acting()
    told_of = {each.name for each in told(ground, "nodeagent/batch/pod2").reasons}
    assert not any(name.startswith("restraint") for name in told_of)
    over = replace(ground.thought.interference, episodes=())
    ground = replace(ground, thought=replace(ground.thought, interference=over))
    found = named(told(ground, BATCH))[f"restraint {BATCH}"]
    assert {i.name for i in found.inputs} == {"step", "lease_left"}


def test_a_victim_is_told_by_whom_it_is_slowed_and_what_was_done() -> None:
    found = named(told(acting(held="6 changes in 10 minutes"), LS))["episode cpu-1"]
    assert found.result == "confirmed: slowed by transcode-3"
    assert found.why == "quota: 0.5 cores on trial; 6 changes in 10 minutes"
    given = [(i.name, i.value) for i in found.inputs]
    assert ("suspect", "transcode-3") in given and ("trial", "transcode-3: kept") in given


@pytest.mark.parametrize("state", [State.SUSPECT, State.CALM])
def test_the_state_of_an_episode_is_in_its_result(state: State) -> None:
    assert named(told(acting(state=state), LS))["episode cpu-1"].result.startswith(f"{state.value}: ")
