"""The detector of memory that is away from its pod's CPUs, on literal views."""

from __future__ import annotations

from msgspec.structs import replace

from nodeagent.core.rates import view
from nodeagent.core.scene import Sight
from nodeagent.detect.numa_remote import detect
from nodeagent.model.decision import Condition
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.pod import Qos
from nodeagent.model.policy import NumaPolicy, Policy
from nodeagent.model.topology import NumaNode, Topology
from tests.unit import samples
from tests.unit.samples import GIB

CGROUP = "nodeagent/ls/pod0"
FOUR = samples.topology(8, 4)  # CPUs 0-1, 2-3, 4-5, 6-7


def found(
    pages: tuple[tuple[int, int], ...] | None,
    *,
    cpus: str = "0-1",
    bound: bool = False,
    qos: Qos = Qos.LS,
    topology: Topology = FOUR,
    policy: NumaPolicy | None = None,
    effective: bool = True,
) -> list[Condition]:
    pod = samples.pod(0, 1000.0, qos=qos)
    spec = replace(pod.spec, cgroup=CGROUP, numa_bind=bound)
    pod = replace(pod, spec=spec, reading=replace(pod.reading, pages_by_node=pages))
    told = KnobReading(
        Knob(Kind.CPUS, CGROUP), "" if effective else cpus, effective=cpus if effective else ""
    )
    seen = replace(samples.snapshot(1, pods=(pod,), knobs=(told,)), topology=topology)
    return list(detect(Sight(view(seen, None), {}), Policy(numa=policy or NumaPolicy())))


def test_memory_on_another_node_than_the_cpus_is_told_with_its_share() -> None:
    (condition,) = found(((0, GIB), (1, 2 * GIB), (3, GIB)))
    assert condition.subject == CGROUP
    assert condition.level == 0.75
    assert condition.evidence == "pod0 has 75% of its pages (3 GiB) on NUMA node 1,3, its CPUs are near 0"


def test_what_policy_allows_is_not_told() -> None:
    assert found(((0, GIB), (1, 0))) == []
    assert found(((0, 4 * GIB), (1, GIB))) == []
    assert len(found(((0, 4 * GIB - 4096), (1, GIB)))) == 1


def test_a_stricter_policy_tells_more() -> None:
    pages = ((0, 9 * GIB), (1, GIB))
    assert found(pages) == []
    assert len(found(pages, policy=NumaPolicy(remote_ratio=0.05))) == 1


def test_little_memory_does_not_count_however_far_it_is() -> None:
    pages = ((0, 0), (1, 32 << 20))
    assert found(pages) == []
    assert found(pages, policy=NumaPolicy(remote_min_bytes=0))[0].level == 1.0


def test_a_pod_on_many_nodes_is_near_all_unless_it_is_bound() -> None:
    pages = ((0, GIB), (3, GIB))
    assert found(pages, cpus="0-3") == []
    assert found(pages, cpus="0-3", bound=True)[0].level == 0.5
    assert found(((0, GIB), (1, GIB)), cpus="0-3", bound=True) == []


def test_batch_is_nobodys_concern() -> None:
    assert found(((1, GIB),), qos=Qos.BATCH) == []
    assert len(found(((1, GIB),), qos=Qos.MID)) == 1


def test_what_is_not_known_is_no_condition() -> None:
    assert found(None) == []
    assert found(((1, GIB),), cpus="") == []
    assert found(((1, GIB),), cpus="99") == []
    assert found((), bound=True) == []


def test_on_one_node_all_memory_is_near() -> None:
    assert found(((0, GIB),), topology=samples.topology(8, 1)) == []


def test_without_an_effective_set_the_set_itself_tells() -> None:
    assert len(found(((1, GIB),), effective=False)) == 1


def test_memory_without_cpus_is_away_from_everybody() -> None:
    cxl = replace(FOUR, nodes=(*FOUR.nodes, NumaNode(4, (), 64 * GIB, (40, 40, 40, 40, 10))))
    assert found(((0, GIB), (4, GIB)), topology=cxl)[0].level == 0.5


def test_the_nearest_memory_is_near_to_a_node_that_has_none() -> None:
    distances = ((10, 32, 12, 32), (32, 10, 32, 12), (12, 32, 10, 32), (32, 12, 32, 10))
    nodes = tuple(
        replace(node, distances=row, memory_bytes=0 if node.id == 0 else GIB)
        for node, row in zip(FOUR.nodes, distances, strict=True)
    )
    bare = replace(FOUR, nodes=nodes)
    assert found(((2, GIB),), topology=bare) == []
    assert found(((1, GIB),), topology=bare)[0].level == 1.0
