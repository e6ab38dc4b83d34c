"""What restraints come to as settings: how far they go, what they never do, and how they end."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.diff import diff
from nodeagent.enforce import freeze
from nodeagent.model.cpuset import without
from nodeagent.model.foreign import Foreign
from nodeagent.model.interference import Restraint, Rung
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, numeric
from nodeagent.model.pod import Qos
from nodeagent.model.policy import CpuPolicy, NumaPolicy, Policy
from nodeagent.model.snapshot import Pod, Snapshot
from tests.unit import samples
from tests.unit.restrained_node import (
    MIB,
    NOISY,
    OTHER,
    THIRD,
    VICTIM,
    WHY,
    Node,
    freezer,
    high,
    io_weight,
    restraint,
    sets,
)

QUOTA = Knob(Kind.CPU_QUOTA, NOISY)
INNER = f"{NOISY}/app"


def test_what_a_restrained_pod_gives_up_goes_to_the_other_batch_pods() -> None:
    node = Node()
    node.step()
    assert [node.found(Kind.CPU_QUOTA, pod) for pod in (NOISY, OTHER, THIRD)] == [2.0, 2.0, 2.0]
    plan = node.step(restraint(quota_cores=0.5))
    assert [node.found(Kind.CPU_QUOTA, pod) for pod in (NOISY, OTHER, THIRD)] == [0.5, 2.75, 2.75]
    assert node.found(Kind.CPU_QUOTA, samples.TIER) == 6.0
    assert (plan[QUOTA].why, plan[QUOTA].by) == (WHY, "cpu_quota")
    assert WHY not in plan[Knob(Kind.CPU_QUOTA, OTHER)].why
    node.step()
    assert [node.found(Kind.CPU_QUOTA, pod) for pod in (NOISY, OTHER, THIRD)] == [2.0, 2.0, 2.0]


def test_a_restraint_never_goes_below_what_any_pod_gets_nor_above_the_share() -> None:
    node = Node(policy=Policy(cpu=CpuPolicy(pod_floor_cores=0.2)))
    node.step(restraint(quota_cores=0.01))
    assert node.found(Kind.CPU_QUOTA) == 0.2
    plan = node.step(restraint(quota_cores=5.0))
    assert node.found(Kind.CPU_QUOTA) == 2.0
    assert plan[QUOTA].why.startswith("fair share")


def test_a_small_cut_is_written_although_it_is_within_the_dead_band() -> None:
    node = Node(policy=Policy(cpu=CpuPolicy(dead_band_ratio=0.5)))
    node.step()
    node.step(restraint(quota_cores=1.9))
    assert node.found(Kind.CPU_QUOTA) == 1.9


def test_while_the_batch_limit_is_not_known_a_restraint_still_holds_and_nothing_else_moves() -> None:
    node = Node()
    node.step()
    node.limit = None
    plan = node.step(restraint(quota_cores=0.5))
    assert [node.found(Kind.CPU_QUOTA, pod) for pod in (NOISY, OTHER, THIRD)] == [0.5, 2.0, 2.0]
    assert plan[QUOTA].why == WHY
    node.step()
    assert node.found(Kind.CPU_QUOTA) == 0.5, "blindness loosens nothing"


def test_a_pod_that_was_never_bounded_is_bounded_although_the_limit_is_not_known_v1_nesting_included() -> (
    None
):
    inner = samples.quota_knob(INNER, 4.0)
    node = Node(inner, limit=None)
    node.step(restraint(quota_cores=0.5))
    assert node.found(Kind.CPU_QUOTA) == 0.5
    assert node.found(Kind.CPU_QUOTA, INNER) == math.inf, "v1 refuses a quota below one that is inside"
    node.limit = 6.0
    node.step(restraint(quota_cores=0.5))
    node.step()
    assert node.found(Kind.CPU_QUOTA) == 2.0


@pytest.mark.parametrize(
    "held",
    [
        restraint(until=1000.0, quota_cores=0.5),
        replace(restraint(quota_cores=0.5), uid="another"),
        restraint("nodeagent/batch/pod9", quota_cores=0.5),
        restraint(VICTIM, quota_cores=0.5, idle=True, frozen=True, memory_high_bytes=1, io_weight=0.01),
    ],
    ids=["lease over", "another pod of that name", "gone", "an online pod"],
)
def test_whom_a_restraint_does_not_hold(held: Restraint) -> None:
    node = Node(sets(VICTIM), freezer(VICTIM), high(VICTIM), io_weight(VICTIM))
    node.scope |= {VICTIM}
    plan = node.step(held)
    assert node.found(Kind.CPU_QUOTA) == 2.0
    assert not [knob for knob in plan if knob.target == VICTIM]
    assert all(WHY not in setting.why for setting in plan.values())


def test_out_of_scope_nothing_is_written() -> None:
    node = Node(sets(NOISY), freezer(), high(), io_weight())
    node.scope = frozenset({samples.TIER})
    held = restraint(rung=Rung.FREEZE, quota_cores=0.5, idle=True, away_from="0", frozen=True, io_weight=0.01)
    assert not [knob for knob in node.step(held) if knob.target == NOISY]


def test_idle_puts_a_pod_of_the_agents_own_tier_last_among_its_peers() -> None:
    node = Node()
    assert node.step()[Knob(Kind.CPU_WEIGHT, NOISY)].value == 1.0
    plan = node.step(restraint(rung=Rung.IDLE, idle=True))
    assert (node.found(Kind.CPU_WEIGHT), node.found(Kind.CPU_WEIGHT, OTHER)) == (0.0, 1.0)
    assert plan[Knob(Kind.CPU_WEIGHT, NOISY)].why == WHY
    node.step()
    assert node.found(Kind.CPU_WEIGHT) == 1.0


def test_without_idle_it_gets_the_lowest_weight_there_is() -> None:
    node = Node(policy=Policy(cpu=CpuPolicy(idle=False)))
    node.step(restraint(rung=Rung.IDLE, idle=True))
    assert node.found(Kind.CPU_WEIGHT) == 2 / 1024


@pytest.mark.parametrize("version", [1, 2])
def test_cpus_are_left_to_the_victim_without_placement_and_given_back(version: int) -> None:
    own = "0-7" if version == 1 else ""
    node = Node(sets(samples.TIER, own, version=version), sets(NOISY, own, version=version))
    for _ in range(2):
        plan = node.step(restraint(rung=Rung.CPUSET, away_from="0-1"))
        assert node.found(Kind.CPUS) == "2-7"
        assert Knob(Kind.CPUS, samples.TIER) not in plan
        # on v2 what is written is what is in effect from then on
        node.kernel.knobs[Knob(Kind.CPUS, NOISY)] = replace(
            node.kernel.knobs[Knob(Kind.CPUS, NOISY)], effective="2-7"
        )
    node.step(restraint(rung=Rung.CPUSET, away_from="1"))
    assert node.found(Kind.CPUS) == "0,2-7", "of what it would have, not of what was left of it"
    node.step()
    assert node.found(Kind.CPUS) == own
    assert not node.held(Kind.CPUS)


@pytest.mark.parametrize("away", ["0-7", "2-3", "0-63", "", "nonsense", "3-1"])
def test_a_pod_that_has_no_other_cpus_stays_where_it_is(away: str) -> None:
    node = Node(sets(NOISY, "2-3"))
    assert Knob(Kind.CPUS, NOISY) not in node.step(restraint(rung=Rung.CPUSET, away_from=away))


def test_v1_sets_inside_the_pod_follow_and_come_back_each_to_its_own() -> None:
    inner, other = sets(INNER, "0-3"), sets(f"{NOISY}/b", "0-1")
    node = Node(sets(NOISY), inner, other)
    node.step(restraint(rung=Rung.CPUSET, away_from="0-1"))
    assert (node.found(Kind.CPUS), node.found(Kind.CPUS, INNER)) == ("2-7", "2-3")
    assert node.found(Kind.CPUS, f"{NOISY}/b") == "2-7", "nothing of its own is left: as its pod"
    node.step()
    assert [node.found(Kind.CPUS, p) for p in (NOISY, INNER, f"{NOISY}/b")] == ["0-7", "0-3", "0-1"]


class _Foreign(Node):
    """Another writer owns the sets of the noisy pod, or it is not known whether."""

    foreign = Foreign()

    def snapshot(self) -> Snapshot:
        return replace(super().snapshot(), foreign=self.foreign)


@pytest.mark.parametrize(
    ("foreign", "cpus"),
    [(Foreign(), "2-7"), (Foreign(None, None, None), "0-7"), (Foreign(partitions=None), "0-7")],
    ids=["nobody's", "never looked at", "partly known"],
)
def test_until_it_is_known_whose_cpus_they_are_nobody_leaves_any(foreign: Foreign, cpus: str) -> None:
    node = _Foreign(sets(NOISY))
    node.foreign = foreign
    node.step(restraint(rung=Rung.CPUSET, away_from="0-1"))
    assert node.found(Kind.CPUS) == cpus


def test_a_placed_pod_leaves_cpus_of_its_place_and_its_tier_keeps_them() -> None:
    paths = (samples.TIER, NOISY, OTHER, THIRD, VICTIM)
    mems = [KnobReading(Knob(Kind.MEMS, p), "0", nested=True, effective="0", allowed="0") for p in paths]
    node = Node(*map(sets, paths), *mems, policy=Policy(numa=NumaPolicy(placement=True)))
    node.step()
    placed = str(node.found(Kind.CPUS, OTHER))
    node.step(restraint(rung=Rung.CPUSET, away_from="7"))
    assert node.found(Kind.CPUS, OTHER) == node.found(Kind.CPUS, samples.TIER) == placed
    assert "7" in placed
    assert node.found(Kind.CPUS) == without(placed, "7")
    node.step()
    assert node.found(Kind.CPUS) == placed


def test_memory_is_taken_back_in_steps_that_no_write_waits_for() -> None:
    node = Node(high())
    held = restraint(rung=Rung.SHRINK, memory_high_bytes=800 * MIB)
    bounds = []
    for used in (1000, 940, 880, 810, 805):
        node.memory_bytes = used * MIB
        node.step(held)
        bounds.append(numeric(node.found(Kind.MEMORY_HIGH)) / MIB)
    assert bounds == [936, 876, 816, 800, 800]
    node.memory_bytes = 2000 * MIB
    node.step(held)
    assert node.found(Kind.MEMORY_HIGH) == 800 * MIB, "growing does not loosen it"
    node.step(replace(held, memory_high_bytes=900 * MIB))
    assert node.found(Kind.MEMORY_HIGH) == 900 * MIB, "the ladder does"
    node.step()
    assert node.found(Kind.MEMORY_HIGH) == math.inf


def test_what_could_only_be_swapped_is_not_taken_back() -> None:
    node = Node(high())
    node.anon_bytes = 990 * MIB
    node.step(restraint(rung=Rung.SHRINK, memory_high_bytes=0))
    assert node.found(Kind.MEMORY_HIGH) == 990 * MIB


def test_memory_that_is_not_known_bounds_nothing_anew_and_loosens_nothing() -> None:
    node = Node(high())
    node.memory_bytes = None
    node.step(restraint(rung=Rung.SHRINK, memory_high_bytes=100 * MIB))
    assert node.found(Kind.MEMORY_HIGH) == math.inf
    node.memory_bytes = 1000 * MIB
    node.step(restraint(rung=Rung.SHRINK, memory_high_bytes=950 * MIB))
    node.anon_bytes = None
    node.step(restraint(rung=Rung.SHRINK, memory_high_bytes=2000 * MIB))
    assert node.found(Kind.MEMORY_HIGH) == 950 * MIB


def test_a_bound_of_the_pods_own_is_never_raised() -> None:
    node = Node(high(actual=700.0 * MIB))
    node.step(restraint(rung=Rung.SHRINK, memory_high_bytes=900 * MIB))
    assert node.found(Kind.MEMORY_HIGH) == 700 * MIB


def test_io_weight_is_lowered_and_never_raised() -> None:
    node = Node(io_weight(), io_weight(OTHER, 0.05))
    node.step(restraint(io_weight=0.1), restraint(OTHER, io_weight=0.1))
    assert (node.found(Kind.IO_WEIGHT), node.found(Kind.IO_WEIGHT, OTHER)) == (0.1, 0.05)
    node.step()
    assert (node.found(Kind.IO_WEIGHT), node.found(Kind.IO_WEIGHT, OTHER)) == (1.0, 0.05)


def _freeze(frozen: bool = True, cgroup: str = NOISY) -> Restraint:
    return restraint(cgroup, rung=Rung.FREEZE, frozen=frozen)


def test_a_pod_is_frozen_only_in_the_ticks_that_say_so_and_thawed_in_the_end() -> None:
    node = Node(freezer())
    states = []
    for frozen in (True, False, True, False):
        node.step(_freeze(frozen))
        states.append(node.found(Kind.FREEZE))
        assert node.held(Kind.FREEZE), "one hold for all of it"
    assert states == [1.0, 0.0, 1.0, 0.0]
    node.step(_freeze())
    node.step()
    assert node.found(Kind.FREEZE) == 0.0
    assert not node.held(Kind.FREEZE)


def test_a_lease_that_ends_thaws() -> None:
    node = Node(freezer())
    node.step(_freeze())
    node.step(replace(_freeze(), until=0.0))
    assert node.found(Kind.FREEZE) == 0.0


def test_what_somebody_else_has_frozen_is_neither_taken_nor_thawed() -> None:
    node = Node(freezer(actual=1.0))
    assert Knob(Kind.FREEZE, NOISY) not in node.step(_freeze())
    mine = Node(freezer())
    mine.step(_freeze())
    mine.step(_freeze(frozen=False))
    mine.drift(Kind.FREEZE, 1.0)
    for held in ((_freeze(frozen=False),), (_freeze(),), ()):
        mine.step(*held)
        assert mine.found(Kind.FREEZE) == 1.0


def test_neither_a_tier_nor_what_has_another_pod_in_it_is_frozen() -> None:
    nested = Node(freezer())
    nested.change = lambda pod: _moved(pod, f"{NOISY}/job") if pod.spec.cgroup == OTHER else pod
    assert Knob(Kind.FREEZE, NOISY) not in nested.step(_freeze())
    tier = Node(freezer(samples.TIER))
    tier.change = lambda pod: _moved(pod, samples.TIER) if pod.spec.cgroup == NOISY else pod
    assert not list(freeze.enforce(tier.scene(_freeze(cgroup=samples.TIER)), Policy()))


def _moved(pod: Pod, cgroup: str) -> Pod:
    return replace(pod, spec=replace(pod.spec, uid=cgroup, cgroup=cgroup))


def test_an_online_pod_inside_keeps_a_batch_pod_from_being_frozen() -> None:
    node = Node(freezer())
    online = samples.pod(2, 1000.0, qos=Qos.LS, containers=0)
    node.change = lambda pod: _moved(online, f"{NOISY}/web") if pod.spec.cgroup == OTHER else pod
    assert Knob(Kind.FREEZE, NOISY) not in node.step(_freeze())


def test_a_freezer_without_the_pods_processes_is_left_alone() -> None:
    node = Node(freezer(inhabited=False))
    node.step(_freeze())
    assert node.found(Kind.FREEZE) == 0.0


def test_thawing_comes_before_every_other_write_and_freezing_after_all() -> None:
    frozen = replace(freezer(), actual=1.0, original=0.0, written=1.0)
    knobs = (samples.quota_knob(NOISY), samples.quota_knob(OTHER, 1.0, 1.0), frozen, freezer(OTHER))
    plan = {k: Setting(k, v, "t", "") for k, v in ((QUOTA, 0.5), (Knob(Kind.FREEZE, OTHER), 1.0))}
    order = [(c.knob.kind, c.knob.target) for c in diff(plan, knobs)]
    assert order[0] == (Kind.FREEZE, NOISY)
    assert order[-1] == (Kind.FREEZE, OTHER)
    assert len(order) == 4


@st.composite
def courses(draw: st.DrawFn) -> list[list[Restraint]]:
    """Ticks with any restraints of the three pods."""
    one = st.builds(
        restraint,
        st.sampled_from([NOISY, OTHER, THIRD]),
        rung=st.sampled_from(Rung),
        quota_cores=st.none() | st.floats(0.0, 8.0),
        idle=st.booleans(),
        away_from=st.sampled_from(["", "0", "0-3", "0-7", "5,7"]),
        memory_high_bytes=st.none() | st.integers(0, 2 << 30),
        io_weight=st.none() | st.floats(0.0, 2.0),
        frozen=st.booleans(),
        until=st.sampled_from([0.0, math.inf]),
    )
    return draw(st.lists(st.lists(one, max_size=3, unique_by=lambda r: r.cgroup), max_size=8))


@settings(max_examples=60, deadline=None)
@given(courses(), st.booleans())
def test_whatever_was_restrained_each_prefix_is_valid_and_in_the_end_all_is_as_it_was(
    course: list[list[Restraint]], blind: bool
) -> None:
    pods = (NOISY, OTHER, THIRD)
    extra = [make(pod) for pod in pods for make in (sets, high, io_weight, freezer)]
    exact = Policy(cpu=CpuPolicy(dead_band_ratio=0.0))
    node = Node(sets(samples.TIER), *extra, samples.quota_knob(INNER, 3.0), policy=exact)
    for number, held in enumerate(course):
        node.limit = None if blind and number % 2 else 6.0
        node.step(*held)  # the kernel of tests asserts validity at every write
        found = [numeric(node.found(Kind.CPU_QUOTA, pod)) for pod in pods]
        caps = {r.cgroup: r.quota_cores for r in held if r.until > 1e6 and r.quota_cores is not None}
        bounds = {pod: max(0.02, caps[pod]) for pod in caps}
        assert all(q <= bounds.get(pod, math.inf) + 1e-5 for pod, q in zip(pods, found, strict=True))
        assert all(node.found(Kind.CPUS, pod) != "" for pod in pods)
        if node.limit is not None:
            assert sum(found) <= 6.0 + 3 * 0.02 + 1e-3
    node.limit = 6.0
    node.step()
    for reading in extra:
        assert node.kernel.knobs[reading.knob].actual == reading.actual
        assert not node.kernel.knobs[reading.knob].held
