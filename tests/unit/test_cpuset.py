"""Placement in the loop: who gets which CPUs, what is given back, and that a restart moves nothing."""

from __future__ import annotations

from itertools import pairwise

from nodeagent.model.cpuset import CpuSet
from nodeagent.model.decision import Memory
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.policy import Policy
from tests.unit import samples
from tests.unit.seated_node import ALL, Node


def test_a_bound_pod_owns_its_cores_and_everybody_else_leaves_them() -> None:
    node = Node()
    for _ in range(3):
        node.step()
    own = node.cpus_of("nodeagent/ls/pod1")
    assert len(own) == 2
    assert own <= {0, 1, 2, 3} or own <= {4, 5, 6, 7}, "on one NUMA node"
    others = [node.cpus_of(p) for p in ("nodeagent/ls/pod2", samples.TIER, "nodeagent/batch/pod3")]
    assert all(cpus and not cpus & own for cpus in others)
    mems = node.kernel.knobs[Knob(Kind.MEMS, "nodeagent/ls/pod1")].actual
    assert mems == ("0" if own <= {0, 1, 2, 3} else "1")


def test_without_a_pod_that_binds_only_batch_is_moved() -> None:
    node = Node(bind=False)
    for _ in range(3):
        node.step()
    assert node.cpus_of("nodeagent/ls/pod1") == CpuSet.parse(ALL)
    assert node.cpus_of(samples.TIER)


def test_a_pod_that_does_not_fit_stays_in_the_pool_and_is_told_why() -> None:
    node = Node(cpus=64.0)
    node.step()
    placement = node.step().placement
    assert placement is not None
    assert placement.unplaced[0][0] == "nodeagent/ls/pod1"
    assert placement.bound == ()
    assert node.cpus_of("nodeagent/ls/pod1") == CpuSet.parse(ALL)


def test_a_restart_moves_nothing_and_turning_it_off_gives_every_set_back() -> None:
    node = Node()
    for _ in range(3):
        node.step()
    before = {k: r.actual for k, r in node.kernel.knobs.items() if k.kind is Kind.CPUS}
    node.memory = Memory()
    for _ in range(3):
        node.step()
        assert {k: r.actual for k, r in node.kernel.knobs.items() if k.kind is Kind.CPUS} == before
    node.step(Policy())
    assert all(r.actual == ALL for k, r in node.kernel.knobs.items() if k.kind is Kind.CPUS)
    assert not any(r.held for k, r in node.kernel.knobs.items() if k.kind is Kind.CPUS)


def test_a_cpu_that_v1_took_from_the_agents_own_directories_is_there_again_when_it_is_back() -> None:
    node = Node()
    own = Knob(Kind.CPUS, "nodeagent/ls")
    left = KnobReading(own, "0-6", nested=True, allowed=ALL, original=ALL, written="0-6")
    node.kernel.knobs[own] = left
    node.step()
    assert node.cpus_of("nodeagent/ls") == CpuSet.parse(ALL)
    node.step(Policy())
    assert not node.kernel.knobs[own].held


def test_batchs_cpus_change_no_more_often_than_the_policy_says() -> None:
    node = Node(bind=False)
    sets = []
    for _ in range(25):
        node.step()
        sets.append(node.cpus_of(samples.TIER))
    changes = sum(a != b for a, b in pairwise(sets))
    assert changes <= 3
