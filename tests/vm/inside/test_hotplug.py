"""CPUs that go and come back under placed pods: whoever owned them, the others keep what they have."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nodeagent.model.cpuset import CpuSet
from nodeagent.model.pod import OWN_TIER
from tests.live.running import RunningAgent, executed, held_set, running, unique, until
from tests.vm.inside.guest import ONLY_HERE, apart, online, settled, siblings, unplugged

pytestmark = ONLY_HERE
EVERY = online()
MOST = len(EVERY) - len(siblings(0))  # a core is left to Batch


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[RunningAgent]:
    """Places pods; the size of Batch's set stays as it was first."""
    with running(
        tmp_path, http__address="127.0.0.1:0", numa__placement=True, numa__move_after_s=3600
    ) as agent:
        yield agent


@pytest.fixture
def batch(agent: RunningAgent) -> Iterator[str]:
    """The cgroup of a Batch pod."""
    name = unique("batch")
    with executed(agent.runtime, "batch", name, "sleep 3600"):
        yield f"{OWN_TIER}/{name}"


def given_back(agent: RunningAgent, *cgroups: str) -> None:
    agent.stop()
    assert agent.named("giveback.left") + agent.named("giveback.refused") == []
    assert [held_set(cgroup) for cgroup in cgroups] == [EVERY] * len(cgroups)
    assert agent.named("tick.skipped") == []


def test_a_cpu_of_batch_goes_and_comes_back_and_the_bound_pod_keeps_its_own(
    agent: RunningAgent, batch: str
) -> None:
    name = unique("bound")
    bound = f"nodeagent/ls/{name}"
    with executed(agent.runtime, "ls", name, "sleep 3600", "--numa", "bind", "--cpus", "1"):
        until(lambda: not held_set(bound) & held_set(batch), "own cores")
        settled(agent)
        own, lent = held_set(bound), held_set(batch)
        for cpu in {min(lent - {0}), max(lent)}:
            with unplugged(cpu):
                settled(agent)
                apart([bound], [batch, OWN_TIER])
                assert held_set(bound) == own
            settled(agent)
            apart([bound], [batch, OWN_TIER])
            assert (held_set(bound), len(held_set(batch))) == (own, len(lent))
        given_back(agent, bound, batch, OWN_TIER)


@pytest.mark.parametrize("cpus", sorted({1, len(EVERY) // 2, MOST}))
def test_a_bound_pod_that_loses_a_cpu_gets_another_or_is_told_why_not(
    agent: RunningAgent, batch: str, cpus: int
) -> None:
    name = unique("loser")
    bound = f"nodeagent/ls/{name}"
    with executed(agent.runtime, "ls", name, "sleep 3600", "--numa", "bind", "--cpus", str(cpus)) as pod:
        until(lambda: not held_set(bound) & held_set(batch), "own cores")
        settled(agent)
        (child,) = psutil.Process(pod.pid).children()
        with unplugged(max(held_set(bound))):
            settled(agent)
            told = [event["why"] for event in agent.named("pod.unplaced")]
            if not told:
                apart([bound], [batch, OWN_TIER])
                assert len(held_set(bound)) >= cpus
            assert bool(told) is (cpus > len(online()) - 1)
            assert held_set(batch) and held_set(bound) == CpuSet(child.cpu_affinity())
        settled(agent)
        apart([bound], [batch, OWN_TIER])
        assert len(held_set(bound)) >= cpus
        assert held_set(bound) == CpuSet(child.cpu_affinity())
        given_back(agent, bound, batch, OWN_TIER)
