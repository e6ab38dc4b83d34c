"""diff() where cgroups have different CFS periods: what one can hold, another may not."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.core.diff import diff
from nodeagent.model.plan import Kind, Knob, KnobReading, Setting, numeric, one_owner

TARGETS = ("a", "a/b", "a/b/c", "a/d")
PERIODS_US = st.sampled_from([1000, 3000, 33_333, 50_000, 100_000, 1_000_000])
CORES = st.just(math.inf) | st.floats(0.001, 8.0)


def reading(target: str, period_us: int) -> KnobReading:
    return KnobReading(
        Knob(Kind.CPU_QUOTA, target),
        math.inf,
        period_us,
        1000 / period_us,
        1e6 / period_us * 1000,
        nested=True,
    )


def kernel_takes(values: dict[Knob, float]) -> bool:
    """tg_cfs_schedulable_down of Linux kernel/sched/core.c on v1."""
    for knob, value in values.items():
        above = [v for k, v in values.items() if knob.target.startswith(k.target + "/")]
        if not math.isinf(value) and value > min(above, default=math.inf):
            return False
    return True


@given(st.tuples(*[PERIODS_US] * 4), st.lists(st.tuples(*[CORES] * 4), min_size=1, max_size=4))
def test_no_write_is_refused_whatever_the_periods(
    periods: tuple[int, ...], plans: list[tuple[float, ...]]
) -> None:
    found = {r.knob: r for r in map(reading, TARGETS, periods)}
    values = {knob: numeric(r.actual) for knob, r in found.items()}
    for cores in plans:
        plan = one_owner(Setting(knob, value, "t", "") for knob, value in zip(found, cores, strict=True))
        readings = [
            KnobReading(
                k, values[k], r.scale, r.low, r.high, nested=True, original=math.inf, written=values[k]
            )
            for k, r in found.items()
        ]
        for change in diff(plan, readings):
            new = values[change.knob] = numeric(change.new)
            assert kernel_takes(values), (change, values)
            steps = new * found[change.knob].scale
            assert math.isinf(steps) or abs(steps - round(steps)) < 1e-6
            assert new >= found[change.knob].low


def _limited(target: str, quota_us: int, period_us: int) -> KnobReading:
    seen = reading(target, period_us)
    return KnobReading(seen.knob, quota_us / period_us, period_us, seen.low, seen.high, nested=True)


def test_a_pod_between_two_limits_that_its_period_cannot_tell_apart_is_left_without_one() -> None:
    around, inside = _limited("a", 300_000, 1_000_000), _limited("a/b/c", 30_000, 100_000)
    pod = reading("a/b", 33_333)  # it can hold 0.29997 and 0.30000300003, and the kernel refuses both
    plan = one_owner([Setting(pod.knob, 0.3, "t", "")])
    assert diff(plan, [around, pod, inside]) == ()


@given(
    st.tuples(*[PERIODS_US] * 4), st.lists(st.floats(0.001, 8.0), min_size=4, max_size=4), st.floats(0.0, 8.0)
)
def test_no_write_is_refused_whatever_others_have_set_inside_and_around(
    periods: tuple[int, ...], cores: list[float], wanted: float
) -> None:
    found = {r.knob: r for r in map(reading, TARGETS, periods)}
    roof = math.inf
    readings = []
    for (knob, seen), limit in zip(found.items(), sorted(cores, reverse=True), strict=True):
        actual = math.floor(min(limit, roof) * seen.scale) / seen.scale
        if knob.target == "a/b" or actual < seen.low:
            actual = math.inf
        roof = min(roof, actual)
        readings.append(KnobReading(knob, actual, seen.scale, seen.low, seen.high, nested=True))
    values = {r.knob: numeric(r.actual) for r in readings}
    assert kernel_takes(values)
    ours = Knob(Kind.CPU_QUOTA, "a/b")
    for change in diff(one_owner([Setting(ours, wanted, "t", "")]), readings):
        values[change.knob] = numeric(change.new)
        assert kernel_takes(values), (change, values)
