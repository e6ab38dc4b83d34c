"""Batch that gives way by itself: where SCHED_IDLE has to stand, and what Batch may use then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.rates import view
from nodeagent.core.yields import gives_way
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.pod import OWN_TIER, Qos
from nodeagent.model.policy import CpuPolicy, Policy
from nodeagent.model.snapshot import Pod
from tests.unit import samples
from tests.unit.world import TIER, Load, World


def _gives_way(online: list[str], batch: list[str], idle: list[str], tiers: tuple[str, ...] = ()) -> bool:
    pods = (*(_pod(path, Qos.LS) for path in online), *(_pod(path, Qos.BATCH) for path in batch))
    every = {path for one in (*online, *batch) for path in _levels(one)} | set(tiers)
    knobs = {Knob(Kind.CPU_WEIGHT, p): samples.weight_knob(p, 0.0 if p in idle else 1.0) for p in every}
    seen = replace(samples.snapshot(0, pods=pods), tiers=tiers)
    return gives_way(view(seen, None), knobs)


def _pod(path: str, qos: Qos) -> Pod:
    made = samples.pod(1, 1000.0, qos=qos, containers=0)
    return replace(made, spec=replace(made.spec, uid=path, cgroup=path))


def _levels(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]


OWN = "nodeagent/batch/sort"
BEST_EFFORT = "kubepods/besteffort/podB"


@pytest.mark.parametrize(
    ("online", "batch", "idle", "expected"),
    [
        (["nodeagent/ls/web"], [OWN], [OWN_TIER], True),
        (["nodeagent/ls/web"], [OWN], [OWN], False),  # idle among its siblings alone
        (["nodeagent/ls/web"], [OWN], [], False),
        (["kubepods/podA"], [OWN], [OWN_TIER], False),  # the directory nodeagent is not idle
        (["nodeagent/ls/web", "kubepods/podA"], [OWN], [OWN_TIER], False),
        (["kubepods/burstable/podA"], [BEST_EFFORT], [BEST_EFFORT], False),
        (["kubepods/burstable/podA"], [BEST_EFFORT], ["kubepods/besteffort"], True),
        (["yarn/a"], ["yarn/b", "yarn/c"], ["yarn/b", "yarn/c"], True),
        (["yarn/a"], ["yarn/b", "yarn/c"], ["yarn/b"], False),
        (["a"], ["a-b"], ["a-b"], True),  # a name is no path
        ([], [OWN], [], True),  # nobody to give way to
        (["nodeagent/ls/web"], [], [], False),
    ],
)
def test_what_parts_batch_from_online_pods_has_to_be_idle(
    online: list[str], batch: list[str], idle: list[str], expected: bool
) -> None:
    assert _gives_way(online, batch, idle) is expected


def test_an_empty_tier_stands_for_the_pods_to_come() -> None:
    assert _gives_way(["nodeagent/ls/web"], [], [OWN_TIER], (OWN_TIER,))
    assert not _gives_way(["nodeagent/ls/web"], [], [], (OWN_TIER,))


PATHS = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join), max_size=4, unique=True
)


@given(PATHS, PATHS, st.data())
def test_it_is_so_exactly_when_each_pair_is_parted_by_an_idle_one(
    online: list[str], batch: list[str], data: st.DataObject
) -> None:
    paths = sorted({level for path in (*online, *batch) for level in _levels(path)})
    idle = data.draw(st.lists(st.sampled_from(paths), unique=True)) if paths else []

    def parted(mine: str, other: str) -> bool:
        """The first level of `mine` that `other` is not below is idle."""
        return all(level in idle for level in [one for one in _levels(mine) if not _within(other, one)][:1])

    expected = bool(batch) and all(parted(b, o) for b in batch for o in online)
    assert _gives_way(online, batch, idle) is expected


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")


def _idle_world(yielding: float) -> World:
    world = World(policy=Policy(cpu=CpuPolicy(yielding_ceiling_ratio=yielding)))
    knob = Knob(Kind.CPU_WEIGHT, OWN_TIER)
    world.kernel.knobs[knob] = KnobReading(knob, 1.0, 1024, 2 / 1024, 256.0, has_idle=True)
    return world


def test_batch_that_gives_way_gets_what_online_pods_do_not_use_at_any_instant() -> None:
    busy, idle = World(), _idle_world(1.0)
    for world in (busy, idle):
        world.run(*[Load(ls_cores=4.0)] * 60)
    assert busy.quota < 8 * 0.95 - 4.0 + 0.01
    assert idle.quota > 7.5


def test_it_is_halved_all_the_same_when_online_work_is_hurt() -> None:
    world = _idle_world(1.0)
    world.run(*[Load(ls_cores=2.0, batch_cores=2.0)] * 60)
    world.step(Load(ls_cores=2.0, batch_cores=2.0, stall_ratio=0.5))
    assert world.quota <= 2.0 + 0.05, "half of what both pods use"


def test_by_default_it_gets_all_and_with_a_ratio_of_0_it_follows_online_use() -> None:
    world = _idle_world(CpuPolicy().yielding_ceiling_ratio)
    world.run(*[Load(ls_cores=4.0)] * 60)
    assert world.quota > 7.5
    world = _idle_world(0.0)
    world.run(*[Load(ls_cores=4.0)] * 60)
    assert world.quota < 8 * 0.95 - 4.0 + 0.01
    assert TIER in world.kernel.knobs
