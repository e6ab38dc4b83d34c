"""The whole loop on a SYNTHETIC node: decided, written, and felt in the next second."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.limit import LS_PRESSURE
from nodeagent.model.decision import Decision, Memory
from nodeagent.model.interference import Episode, TrialResult
from nodeagent.model.plan import Kind, Knob
from nodeagent.model.pod import Qos
from nodeagent.model.policy import CpuPolicy, Policy
from nodeagent.model.settings import Mode
from tests.synthetic import Actor, Cause, Synthetic, constant, path, steps

FAIR = Policy(cpu=CpuPolicy(idle=False))  # Batch weighs as much as others, so that it can do harm
WEB = Actor("web", constant(1.0), Qos.LS, cpus="0-1")
LAMB = Actor("lamb", constant(0.5), noise=0.2)


@dataclass
class Loop:
    """decide, write, one more second."""

    world: Synthetic
    policy: Policy = field(default_factory=Policy)
    mode: Mode = Mode.ENFORCE
    memory: Memory = field(default_factory=Memory)
    decisions: list[Decision] = field(default_factory=list)

    def run(self, seconds: int) -> Decision:
        for _ in range(seconds):
            snapshot = replace(self.world.second(), mode=self.mode)
            decision, self.memory = decide(snapshot, self.policy, self.memory)
            if self.mode is Mode.ENFORCE:
                self.world.obey(decision.plan, decision.yielded)
            self.decisions.append(decision)
        return self.decisions[-1]

    @property
    def cleared(self) -> list[Episode]:
        every = (e for d in self.decisions for e in d.interference.episodes)
        return [e for e in every if e.cleared_unix is not None]

    def restrained(self) -> set[str]:
        """Names of all who ever were."""
        every = (r.cgroup for d in self.decisions for r in d.interference.restraints)
        return {cgroup.rpartition("/")[2] for cgroup in every}

    def caused(self, since: int, until: int) -> list[Cause]:
        """What WEB really suffered from, by second."""
        return [labels[path(WEB)].cause for labels in self.world.labels[since:until]]

    def quota(self, actor: Actor) -> float:
        found = self.world.kernel.knobs[Knob(Kind.CPU_QUOTA, path(actor))].actual
        assert isinstance(found, float)
        return found


def attacked(*attacks: tuple[float, float]) -> tuple[Loop, Actor]:
    """HOG wants 4 cores from the first second to the second one of each, else a fifth of one."""
    points = [(0.0, 0.2), *((at, cores) for a, b in attacks for at, cores in ((a, 4.0), (b, 0.2)))]
    hog = Actor("hog", steps(*points), cpus="0-1")
    return Loop(Synthetic([WEB, hog, LAMB], cores=4, tick_s=0.02), FAIR), hog


@cache
def under_attack() -> Loop:
    """185 s, the last 35 of them under attack."""
    loop, _ = attacked((150, 190))
    loop.run(185)
    return loop


def test_the_antagonist_is_named_tried_and_held_and_the_victim_recovers() -> None:
    loop = under_attack()
    assert loop.caused(150, 152) == [Cause.CONTENTION] * 2
    (episode,) = loop.cleared
    assert episode.opened_at - 1000.0 <= 156.0, "within a few seconds of the onset"
    assert episode.suspects[0].name == "hog" and episode.suspects[0].named
    assert [t.result for t in episode.trials] == [TrialResult.KEPT]
    assert loop.caused(158, 185) == [Cause.CALM] * 27, "while the antagonist still wants all it can get"
    assert loop.restrained() == {"hog"}


def test_the_innocent_keeps_what_it_had() -> None:
    loop = under_attack()
    used = [s.get(path(LAMB)) for s in loop.world.labels[150:185]]
    assert all(label is not None and label.throttled < 0.1 for label in used)
    assert not any(s.named and s.name == "lamb" for e in loop.cleared for s in e.suspects)


def test_while_one_is_directed_at_batch_as_a_whole_is_not_halved() -> None:
    loop = under_attack()
    limits = [d.batch_limit_cores for d in loop.decisions if d.interference.directed]
    assert len(limits) > 20
    assert all(a is not None and b is not None and b > 0.6 * a for a, b in pairwise(limits))
    assert not any(
        s.name == LS_PRESSURE for d in loop.decisions[165:] for s in d.signals if d.interference.directed
    )


def test_after_calm_the_antagonist_gets_everything_back() -> None:
    loop, hog = attacked((150, 170))
    loop.run(420)
    assert loop.decisions[-1].interference.restraints == ()
    assert loop.quota(hog) > 1.0
    assert len(loop.cleared) == 1


def test_who_does_it_again_waits_twice_as_long() -> None:
    def held_s(loop: Loop, since: int) -> int:
        """Seconds from the first restraint after `since` to the first step down."""
        quotas = [
            next((r.quota_cores for r in d.interference.restraints), None) for d in loop.decisions[since:]
        ]
        first = next(n for n, q in enumerate(quotas) if q is not None)
        lowest = min(q for q in quotas[first:] if q is not None)
        last = max(n for n, q in enumerate(quotas) if q == lowest)
        return last - first

    loop, _ = attacked((150, 170), (450, 470))
    loop.run(720)
    assert held_s(loop, 140) <= 115 < held_s(loop, 440)


def test_a_restart_in_the_middle_of_a_trial_gives_the_cap_back() -> None:
    loop, hog = attacked((150, 400))
    loop.run(158)
    assert loop.decisions[-1].interference.restraints
    capped = loop.quota(hog)
    loop.memory = Memory()
    loop.run(3)
    assert loop.decisions[-1].interference.restraints == ()
    assert loop.quota(hog) > 1.5 * capped


def test_an_observing_agent_names_it_and_says_why_nothing_was_tried() -> None:
    loop, hog = attacked((150, 190))
    loop.mode = Mode.OBSERVE
    loop.run(190)
    episodes = [e for d in loop.decisions for e in d.interference.episodes]
    assert episodes[-1].suspects[0].name == "hog" and "observes" in episodes[-1].held
    assert all(e.trials == () for e in episodes) and loop.restrained() == set()
    assert math.isinf(loop.quota(hog))


def test_memory_traffic_is_found_without_a_pmu_by_what_requests_cost() -> None:
    web = Actor("web", constant(1.0), Qos.LS, requests_per_core=1000, sensitivity=1.5)
    hog = Actor("hog", steps((0, 0.1), (150, 1.5)), traffic=5e9)
    loop = Loop(Synthetic([web, hog, Actor("lamb", constant(0.8), noise=0.3)], cores=4, tick_s=0.02))
    loop.run(190)
    (episode, *_) = loop.cleared
    assert episode.suspects[0].name == "hog"
    assert episode.trials[0].result is TrialResult.KEPT
    assert loop.world.labels[189][path(web)].inflation < 1.3 < loop.world.labels[150][path(web)].inflation
    assert loop.restrained() == {"hog"}


def test_a_node_without_trouble_sees_none() -> None:
    loop, _ = attacked()
    loop.run(300)
    assert loop.cleared == [] and loop.restrained() == set()


def test_its_own_quota_is_nobody_elses_fault() -> None:
    web = Actor("web", steps((0, 0.3), (150, 1.0)), Qos.LS, quota=0.6)
    loop = Loop(Synthetic([web, Actor("hog", steps((0, 0.2), (150, 2.0))), LAMB], cores=4, tick_s=0.02), FAIR)
    loop.run(200)
    assert loop.restrained() == set()
