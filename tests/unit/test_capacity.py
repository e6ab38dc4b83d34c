"""Capacity with inputs that are never told."""

from __future__ import annotations

import math

from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.model.decision import Memory
from nodeagent.model.snapshot import Snapshot
from tests.unit.world import Load, World


class NoMemAvailable(World):
    """/proc/meminfo without its MemAvailable: what the system uses of the memory is not known."""

    def snapshot(self, load: Load) -> Snapshot:
        seen = super().snapshot(load)
        memory = seen.node.memory
        assert memory is not None
        return replace(seen, node=replace(seen.node, memory=replace(memory, available_bytes=None)))


def test_nothing_is_offered_while_the_systems_use_of_memory_is_not_known() -> None:
    capacity = NoMemAvailable().run(*[Load()] * 20)[-1].capacity
    assert capacity.withdrawn == "system memory use is not known"
    assert (capacity.memory.available, capacity.cpu.available) == (0.0, 0.0)


class NoCpuacct(World):
    """The LS pod has a cgroup in the cpu hierarchy and none in cpuacct's; nor has it told a request."""

    def snapshot(self, load: Load) -> Snapshot:
        seen = super().snapshot(load)
        ls, *batch = seen.pods
        return replace(seen, pods=(replace(ls, reading=replace(ls.reading, cpu_us=None)), *batch))


def test_batch_is_bounded_by_what_the_node_leaves_where_an_online_pods_use_is_never_told() -> None:
    world, known = NoCpuacct(), World()
    told = world.run(*[Load(ls_cores=3.0, batch_cores=1.0)] * 20)[-1]
    known.run(*[Load(ls_cores=3.0, batch_cores=1.0)] * 20)
    assert told.capacity.withdrawn == "online CPU use is not known"
    assert math.isclose(world.quota, known.quota, abs_tol=0.1)


def test_that_bound_falls_at_once_and_does_not_rise_while_the_use_is_not_told() -> None:
    world = NoCpuacct()
    world.run(*[Load(ls_cores=1.0, batch_cores=1.0)] * 20)
    before = world.quota
    assert math.isfinite(before)
    world.run(*[Load(ls_cores=5.0, batch_cores=1.0)] * 2)
    low = world.quota
    assert low <= before - 3.5
    world.run(*[Load(ls_cores=1.0, batch_cores=1.0)] * 30)
    assert world.quota == low


def test_the_history_of_a_much_larger_machine_is_not_believed() -> None:
    large = World(cores=64)
    large.run(*[Load(ls_cores=40.0) for _ in range(20)])
    small = World(cores=2)
    small.memory = Memory(online=large.memory.online)
    last = small.run(*[Load(ls_cores=0.2, batch_cores=0.1) for _ in range(4)])[-1]
    assert last.capacity.cpu.computed > 1.0


def test_a_pod_in_no_memory_hierarchy_counts_as_the_system_and_does_not_withdraw_the_offer() -> None:
    world, offers = World(), []
    for _ in range(4):
        seen = world.snapshot(Load())
        ls, *rest = seen.pods
        blank = replace(ls.reading, memory_bytes=None, inactive_file_bytes=None)
        untold = replace(ls, unsupported=("memory",), reading=blank)
        decision, world.memory = decide(replace(seen, pods=(untold, *rest)), world.policy, world.memory)
        offers.append(decision.capacity)
    assert offers[-1].withdrawn == ""
    assert offers[-1].memory.computed > 0.0


def test_the_terms_of_a_numa_node_tell_their_age_as_the_nodes_do() -> None:
    world = World(numa_nodes=2)
    world.run(*[Load() for _ in range(4)])
    last = world.run(*[Load(ls_cores=None) for _ in range(3)])[-1].capacity
    ages = {t.name: t.age_s for t in last.cpu.terms}
    for zone in last.zones:
        told = {t.name: t.age_s for t in zone.cpu.terms}
        assert told["online_now"] == ages["online_now"] == 3.0
