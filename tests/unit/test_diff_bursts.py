"""diff() with bursts beside quotas: no burst may be above its quota, no quota below its burst."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.diff import diff, fit
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, one_owner
from tests.unit.world import Kernel

PATHS = ("a", "a/b", "a/c", "a/b/d")
State = dict[str, tuple[float, float]]  # quota and burst by path, in cores
quota = st.one_of(st.just(math.inf), st.integers(1, 800).map(lambda n: n / 100))
burst = st.integers(0, 900).map(lambda n: n / 100)


@st.composite
def states(draw: st.DrawFn) -> State:
    """Quotas and bursts that cgroup v1 would accept."""
    values: State = {}
    for path in PATHS:
        above = [q for p, (q, _) in values.items() if path.startswith(f"{p}/")]
        cores = draw(quota)
        cores = cores if math.isinf(cores) else min([cores, *above])
        values[path] = cores, min(draw(burst), cores)
    return values


def _kernel(state: State) -> Kernel:
    knobs = {}
    for path, (q, b) in state.items():
        quota_knob, burst_knob = Knob(Kind.CPU_QUOTA, path), Knob(Kind.CPU_BURST, path)
        knobs[quota_knob] = KnobReading(quota_knob, q, 100_000, 0.01, 1e6, nested=True, burst=b)
        knobs[burst_knob] = KnobReading(burst_knob, b, 100_000, high=q)
    return Kernel(knobs)


def _plan(state: State, knobs: set[Knob]) -> dict[Knob, float]:
    plan: dict[Knob, float] = {}
    for path, (q, b) in state.items():
        plan |= {Knob(Kind.CPU_QUOTA, path): q, Knob(Kind.CPU_BURST, path): b}
    return {knob: value for knob, value in plan.items() if knob in knobs}


KNOBS = [Knob(kind, path) for kind in (Kind.CPU_QUOTA, Kind.CPU_BURST) for path in PATHS]
some_knobs = st.sets(st.sampled_from(KNOBS))


@settings(max_examples=400)
@given(states(), st.lists(st.tuples(states(), some_knobs), min_size=1, max_size=4))
def test_every_prefix_is_valid_the_second_diff_is_empty_and_stopping_restores(
    before: State, plans: list[tuple[State, set[Knob]]]
) -> None:
    kernel = _kernel(before)
    for wanted, knobs in plans:
        plan = _plan(wanted, knobs)
        kernel.apply(plan)  # asserts validity at every write
        assert kernel.apply(plan) == ()
    kernel.apply({})
    assert {k: r.actual for k, r in kernel.knobs.items()} == _plan(before, set(KNOBS))
    assert not any(r.held for r in kernel.knobs.values())


@settings(max_examples=300)
@given(states(), states())
def test_a_plan_that_the_kernel_accepts_is_reached_exactly(before: State, wanted: State) -> None:
    kernel = _kernel(before)
    kernel.apply(_plan(wanted, set(KNOBS)))
    assert {k: r.actual for k, r in kernel.knobs.items()} == _plan(wanted, set(KNOBS))


@settings(max_examples=200)
@given(states(), states(), some_knobs)
def test_a_burst_that_is_not_ours_to_change_holds_its_quota_up(
    before: State, wanted: State, yielded: set[Knob]
) -> None:
    kernel = _kernel(before)
    plan = _plan(wanted, set(KNOBS))
    kernel.apply(plan, tuple(yielded))
    assert kernel.apply(plan, tuple(yielded)) == ()


def _limited(path: str, cores: float, saved: float) -> tuple[KnobReading, KnobReading]:
    of_quota, of_burst = Knob(Kind.CPU_QUOTA, path), Knob(Kind.CPU_BURST, path)
    return (
        KnobReading(of_quota, cores, 100_000, 0.01, 1e6, burst=saved),
        KnobReading(of_burst, saved, 100_000, high=cores),
    )


def test_a_quota_rises_before_its_burst_and_falls_after_it() -> None:
    of_quota, of_burst = _limited("p", 1.0, 1.0)
    up = one_owner([Setting(of_quota.knob, 2.0, "t", ""), Setting(of_burst.knob, 2.0, "t", "")])
    assert [(c.knob.kind, c.new) for c in diff(up, (of_quota, of_burst))] == [
        (Kind.CPU_QUOTA, 2.0),
        (Kind.CPU_BURST, 2.0),
    ]
    down = one_owner([Setting(of_quota.knob, 0.5, "t", ""), Setting(of_burst.knob, 0.5, "t", "")])
    assert [(c.knob.kind, c.new) for c in diff(down, (of_quota, of_burst))] == [
        (Kind.CPU_BURST, 0.5),
        (Kind.CPU_QUOTA, 0.5),
    ]


def test_a_burst_is_clamped_to_the_quota_that_will_be() -> None:
    of_quota, of_burst = _limited("p", 1.0, 0.0)
    plan = one_owner([Setting(of_burst.knob, 3.0, "t", "")])
    assert [c.new for c in diff(plan, (of_quota, of_burst))] == [1.0]
    assert [c.new for c in diff(plan, (replace(of_quota, actual=math.inf), of_burst))] == [3.0]


def test_a_quota_alone_stays_above_the_burst_that_somebody_else_has_set() -> None:
    of_quota, _ = _limited("p", 1.0, 0.6)
    assert fit(of_quota, 0.2) == 0.6
    assert [c.new for c in diff(one_owner([Setting(of_quota.knob, 0.2, "t", "")]), (of_quota,))] == [0.6]
