"""The Batch limit as a whole: what it depends on, and what it does not."""

from __future__ import annotations

import random

from msgspec.structs import replace

from nodeagent.model.decision import Memory
from nodeagent.model.policy import CpuPolicy, Policy
from nodeagent.model.snapshot import Snapshot
from tests.unit.world import TIER, Load, World


class NoMemoryCgroup(World):
    """The LS pod has no cgroup in the memory hierarchy, as with a rule for one in the cpu hierarchy alone."""

    def snapshot(self, load: Load) -> Snapshot:
        seen = super().snapshot(load)
        ls, *batch = seen.pods
        spec = replace(ls.spec, memory_request_bytes=None)
        reading = replace(ls.reading, memory_bytes=None, inactive_file_bytes=None)
        return replace(seen, pods=(replace(ls, spec=spec, reading=reading), *batch))


def test_batch_gets_its_cpus_back_also_where_the_memory_of_an_online_pod_is_not_told() -> None:
    world = NoMemoryCgroup()
    world.run(*[Load()] * 5)
    free = world.quota
    world.step(Load(stall_ratio=0.5))
    assert world.quota <= free / 2
    world.run(*[Load()] * 60)
    assert world.quota >= 0.95 * free


def test_the_offer_is_withdrawn_while_the_memory_of_an_online_pod_is_not_told() -> None:
    last = NoMemoryCgroup().run(*[Load()] * 5)[-1]
    assert last.capacity.withdrawn == "online memory use is not known"


def test_a_floor_that_was_raised_holds_at_once_also_while_an_online_pod_is_not_seen() -> None:
    world = World(policy=Policy(cpu=CpuPolicy(floor_cores=0.5)))
    world.run(*[Load()] * 3, *[Load(stall_ratio=0.9)] * 8)
    assert world.quota < 0.6
    world.policy = Policy(cpu=CpuPolicy(floor_cores=2.0))
    decision = world.step(Load(ls_cores=None, stall_ratio=None))
    assert (decision.batch_limit_cores, world.quota) == (2.0, 2.0)


def test_a_restart_below_the_floor_begins_at_the_floor() -> None:
    world = World(batch=0, policy=Policy(cpu=CpuPolicy(floor_cores=2.0)))
    world.run(*[Load()] * 3)
    held = world.kernel.knobs[TIER]
    world.kernel.knobs[TIER] = replace(held, actual=0.5, written=0.5)
    world.memory = Memory()
    assert world.step(Load()).batch_limit_cores == 2.0


def test_after_a_machine_has_slept_the_limit_does_not_jump() -> None:
    world = World()
    world.run(*[Load(batch_cores=1.0, stall_ratio=0.5) for _ in range(4)])
    low = world.quota
    world.seq += 600
    world.step(Load(batch_cores=1.0))
    assert world.quota <= low + 0.05 * 8 * 10.0 + 0.05


def test_a_large_node_keeps_to_a_small_floor() -> None:
    world = World(cores=256)
    world.run(*[Load(batch_cores=1.0, stall_ratio=0.9) for _ in range(12)])
    assert world.quota == 0.1


def test_noise_in_what_light_pods_use_causes_few_writes() -> None:
    world, luck = World(batch=4), random.Random(3)
    world.run(*[Load(batch_cores=0.3) for _ in range(10)])
    writes = 0
    for _ in range(60):
        before = {k: r.actual for k, r in world.kernel.knobs.items()}
        world.step(Load(ls_cores=luck.uniform(0.4, 0.6), batch_cores=luck.uniform(0.2, 0.4)))
        writes += sum(r.actual != before[k] for k, r in world.kernel.knobs.items() if k != TIER)
    assert writes <= 60


def test_no_more_is_offered_than_batch_is_held_to_under_pressure() -> None:
    world = World()
    world.run(*[Load() for _ in range(100)])
    assert world.memory.offer.cpu_cores > 5.0
    for decision in world.run(*[Load(stall_ratio=0.5, batch_cores=1.0) for _ in range(3)], *[Load()] * 3):
        offered = decision.capacity.cpu
        assert decision.batch_limit_cores is not None
        assert offered.available <= decision.batch_limit_cores
        names = [term.name for term in offered.terms if term.name != "interference_ratio"]
        assert names[-1] == "batch_limit", "what confirmed interference takes comes on top"
