"""The Batch limit as a whole: what it depends on, and what it does not."""

from __future__ import annotations

from msgspec.structs import replace

from nodeagent.model.snapshot import Snapshot
from tests.unit.world import Load, World


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
