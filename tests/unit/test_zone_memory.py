"""Online memory per NUMA node: by measured pages where they are known, by what is left where not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.zone_memory import zone_bytes
from nodeagent.model.decision import Decision, KnownUse
from nodeagent.model.snapshot import NodeMemory, Snapshot
from tests.unit.samples import GIB
from tests.unit.world import Load, World


def node(number: int, used: int, total: int = 64 * GIB) -> NodeMemory:
    return NodeMemory(total, total - used, None, 0, 0, number)


def pod(size: int | None, pages: tuple[tuple[int, int], ...] | None) -> KnownUse:
    return KnownUse(memory_bytes=size, pages=pages)


TWO = (node(0, 10 * GIB), node(1, 10 * GIB))


def test_a_pod_counts_where_its_pages_are_with_its_working_set() -> None:
    online, _ = zone_bytes(TWO, [pod(4 * GIB, ((0, 1 * GIB), (1, 7 * GIB)))], [], 0.0)
    assert online == {0: GIB / 2, 1: 3.5 * GIB}


def test_when_no_pages_are_known_the_nodes_use_tells() -> None:
    uneven = (node(0, 15 * GIB), node(1, 5 * GIB))
    online, system = zone_bytes(uneven, [pod(8 * GIB, None)], [pod(4 * GIB, None)], 8.0 * GIB)
    assert online == {0: 6.0 * GIB, 1: 2.0 * GIB}
    assert system == {0: 6.0 * GIB, 1: 2.0 * GIB}


def test_with_all_pages_known_what_nobody_accounts_for_is_not_online() -> None:
    online, _ = zone_bytes(TWO, [pod(GIB, ((0, GIB),))], [pod(GIB, ((1, GIB),))], 0.0)
    assert online == {0: GIB, 1: 0.0}


def test_batch_where_it_is_leaves_less_for_the_unknown_to_be() -> None:
    online, _ = zone_bytes(TWO, [pod(5 * GIB, None)], [pod(10 * GIB, ((1, 10 * GIB),))], 0.0)
    assert online == {0: 10.0 * GIB, 1: 0.0}


def test_the_system_is_where_the_pods_are_not() -> None:
    online, system = zone_bytes(TWO, [pod(10 * GIB, ((0, GIB),))], [], 4.0 * GIB)
    assert online == {0: 10 * GIB, 1: 0.0}
    assert system == {0: 0.0, 1: 4 * GIB}


def test_a_node_without_cpus_or_without_its_meminfo_counts_too() -> None:
    online, _ = zone_bytes(TWO[:1], [pod(GIB, ((0, GIB), (5, 3 * GIB)))], [], 0.0)
    assert online == {0: GIB / 4, 5: GIB * 3 / 4}


def test_a_pod_without_a_page_is_nowhere_and_hides_nothing() -> None:
    online, _ = zone_bytes(TWO, [pod(GIB, ((0, 0), (1, 0)))], [], 0.0)
    assert online == {0: 0.0, 1: 0.0}


sizes = st.integers(0, 64 * GIB)
pods = st.builds(
    pod, st.none() | sizes, st.none() | st.tuples(st.tuples(st.just(0), sizes), st.tuples(st.just(1), sizes))
)


@given(st.lists(pods, max_size=4), st.lists(pods, max_size=4), st.floats(0, 64 * GIB), sizes, sizes)
def test_no_amount_is_negative_and_the_system_is_shared_out_whole(
    online: list[KnownUse], batch: list[KnownUse], system: float, first: int, second: int
) -> None:
    used = (node(0, first), node(1, second))
    online_of, system_of = zone_bytes(used, online, batch, system)
    assert min(*online_of.values(), *system_of.values()) >= 0.0
    if first or second:
        assert sum(system_of.values()) == pytest.approx(system)


class Placed(World):
    """The LS pod's pages are as given, and Batch's on both nodes; None: not told in this tick."""

    pages: tuple[tuple[int, int], ...] | None = ((0, 0), (1, GIB))

    def snapshot(self, load: Load) -> Snapshot:
        seen = super().snapshot(load)
        ls, *batch = seen.pods
        evenly = [replace(p, reading=replace(p.reading, pages_by_node=((0, 1), (1, 1)))) for p in batch]
        return replace(
            seen, pods=(replace(ls, reading=replace(ls.reading, pages_by_node=self.pages)), *evenly)
        )


def online_now(decision: Decision) -> list[float]:
    return [
        next(term.value for term in zone.memory.terms if term.name == "online_now")
        for zone in decision.capacity.zones
    ]


def test_each_numa_node_has_the_pages_of_its_online_pods_in_its_terms() -> None:
    world = Placed(numa_nodes=2)
    decision = world.run(*[Load()] * 5)[-1]
    size = world.memory.known["nodeagent/ls/pod0"].memory_bytes
    assert online_now(decision) == [0.0, size]
    world.pages = ((0, GIB), (1, GIB))
    assert online_now(world.step(Load()))[0] > 0.0


def test_pages_that_are_not_told_for_a_while_stay_where_they_were() -> None:
    world = Placed(numa_nodes=2)
    known = online_now(world.run(*[Load()] * 3)[-1])
    world.pages = None
    hidden = online_now(world.step(Load()))
    assert known[0] == hidden[0] == 0.0
    assert hidden[1] > 0.0
