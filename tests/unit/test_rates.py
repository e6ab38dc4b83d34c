"""A pod that was carried over as it was has the rates of one that was read anew and found the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core import rates
from nodeagent.model.snapshot import Container, Reading, Stall
from tests.unit import samples

COUNTS = st.one_of(st.none(), st.integers(0, 2**62))
READINGS = st.builds(
    Reading,
    cpu_us=COUNTS,
    throttled_us=COUNTS,
    cpu_stall=st.one_of(st.none(), st.builds(Stall, st.integers(0, 2**62))),
    run_delay_us=COUNTS,
)
CONTAINERS = st.lists(st.builds(Container, st.just("c"), st.just("c/1"), st.just(7), READINGS), max_size=2)


@given(reading=READINGS, inner=CONTAINERS)
def test_a_pod_that_was_carried_over_has_the_rates_of_an_equal_one(
    reading: Reading, inner: list[Container]
) -> None:
    (pod,) = samples.mixed_pods(1, 0.0)
    pod = replace(pod, reading=reading, containers=tuple(replace(c, inode=n) for n, c in enumerate(inner)))
    before, now = (samples.snapshot(seq, pods=(pod,)) for seq in (0, 1))
    anew = replace(now, pods=(replace(pod),))
    assert anew.pods[0] is not pod
    assert rates.view(now, before).pods == rates.view(anew, before).pods
