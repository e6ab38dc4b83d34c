"""CPU use per NUMA node: measured for pods whose CPUs are on one node, split by use for the others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.rates import View, view
from nodeagent.core.reach import Reach, reach
from nodeagent.core.zone_cpu import zone_cores
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.decision import KnownUse, Memory
from nodeagent.model.placement import Placement
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy
from tests.unit import samples
from tests.unit.seated_node import Node


def seen(busy: dict[int, float], *pods: tuple[Qos, str, float]) -> tuple[View, dict[str, KnownUse]]:
    """Two NUMA nodes of 4 CPUs, each this busy; pods by class, effective CPUs and cores used."""
    made = tuple(samples.pod(n, 1000.0, qos=qos, containers=0) for n, (qos, _, _) in enumerate(pods))
    knobs = tuple(
        KnobReading(Knob(Kind.CPUS, pod.spec.cgroup), cpus, effective=cpus)
        for pod, (_, cpus, _) in zip(made, pods, strict=True)
        if cpus
    )
    first = view(samples.snapshot(1, pods=made, cores=8, numa_nodes=2, knobs=knobs), None)
    known = {pod.spec.uid: KnownUse(cores) for pod, (_, _, cores) in zip(made, pods, strict=True)}
    return replace(first, zone_busy_cores=busy), known


def test_a_bound_pods_use_is_on_its_node_and_not_split() -> None:
    node, known = seen({0: 2.0, 1: 2.0}, (Qos.LS, "4-5", 1.5), (Qos.LS, "0-7", 2.0))
    online, system = zone_cores(node, known, 0.0, 0.5)
    assert online == {0: pytest.approx(2.0 - 0.4), 1: pytest.approx(1.5 + 0.5 - 0.1)}
    assert system == {0: pytest.approx(0.4), 1: pytest.approx(0.1)}


def test_batch_that_is_confined_to_a_node_is_taken_off_there_alone() -> None:
    node, known = seen({0: 3.0, 1: 3.0}, (Qos.BATCH, "0-3", 2.0), (Qos.LS, "", 3.0))
    online, _ = zone_cores(node, known, 2.0, 0.0)
    assert online == {0: pytest.approx(1.0), 1: pytest.approx(3.0)}


def test_without_sets_it_is_all_split_by_use() -> None:
    node, known = seen({0: 3.0, 1: 1.0}, (Qos.LS, "", 2.0), (Qos.BATCH, "", 1.0))
    online, system = zone_cores(node, known, 1.0, 1.0)
    assert online == {0: pytest.approx(1.5), 1: pytest.approx(0.5)}
    assert system == {0: pytest.approx(0.75), 1: pytest.approx(0.25)}


@given(
    st.lists(st.floats(0, 4), min_size=2, max_size=2),
    st.lists(
        st.tuples(st.sampled_from(Qos), st.sampled_from(["", "0-1", "4-7", "0-7"]), st.floats(0, 4)),
        max_size=6,
    ),
    st.floats(0, 4),
)
def test_no_node_has_more_than_was_measured_or_less_than_what_is_known_to_be_there(
    busy: list[float], pods: list[tuple[Qos, str, float]], system: float
) -> None:
    node, known = seen(dict(enumerate(busy)), *pods)
    batch = sum(cores for qos, _, cores in pods if qos is Qos.BATCH)
    online, rest = zone_cores(node, known, batch, system)
    for which, homes in ((0, {"0-1"}), (1, {"4-7"})):
        bound = sum(cores for qos, cpus, cores in pods if qos is not Qos.BATCH and cpus in homes)
        assert bound - 1e-9 <= online[which] <= max(busy[which], bound) + 1e-9
    assert sum(rest.values()) <= system + 1e-9


def test_what_a_bound_pod_leaves_idle_of_its_own_cpus_is_neither_offered_nor_given() -> None:
    node = Node(cpus=4.0)  # which uses 0.2 cores, and the other LS pod as much
    last = node.run(120)
    assert last.placement is not None
    owned = CpuSet.parse(last.placement.bound[0].cpus)
    terms = {term.name: term.value for term in last.capacity.cpu.terms}
    assert (len(owned), terms["reach"]) == (4, 4.0)
    left = 4.0 * 0.95 - terms["system"] - terms["reach_online"]
    assert terms["reach_online"] == pytest.approx(0.2, abs=0.1)
    assert last.capacity.cpu.available == pytest.approx(left)
    assert last.batch_limit_cores is not None
    assert 0.5 * left < last.batch_limit_cores <= left
    for zone in last.capacity.zones:
        here = set(next(n.cpus for n in samples.topology(numa_nodes=2).nodes if n.id == zone.numa_node))
        assert zone.cpu.available <= len(here - owned) * 0.95 + 1e-6


def test_a_pod_whose_use_is_not_known_counts_on_the_shared_cpus_with_its_request() -> None:
    pod = samples.pod(1, 1000.0, qos=Qos.LS, containers=0, request_cores=3.0)
    now = view(samples.snapshot(1, 1000.0, pods=(pod,)), None)
    found = reach(now, {pod.spec.uid: KnownUse(cpu_at=1000.0)}, Memory(placement=Placement(shared="0-3")))
    assert found == Reach(4.0, {0: 4.0}, 3.0)


def test_without_placement_nothing_is_said_of_reach() -> None:
    node = Node()
    decision = [node.step(Policy()) for _ in range(5)][-1]
    assert "reach" not in {term.name for term in decision.capacity.cpu.terms}
