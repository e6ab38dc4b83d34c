"""Ticks are due at fixed times, and each due time is served once, late or not, or counted as missed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.pace import LATEST_S, Pace


def test_a_late_tick_does_not_shift_the_next_one() -> None:
    pace = Pace(100.0)
    assert (pace.begun(100.0), pace.ended(100.2, 1.0), pace.due) == (0.0, 0, 101.0)
    assert pace.begun(101.75) == 0.75
    assert (pace.ended(101.8, 1.0), pace.due) == (0, 102.0)


def test_an_early_tick_is_not_late_and_leaves_what_is_due() -> None:
    pace = Pace(100.0)
    pace.begun(100.0), pace.ended(100.1, 1.0)
    assert pace.begun(100.5) is None
    assert (pace.ended(100.6, 1.0), pace.due) == (0, 101.0)


def test_due_times_that_pass_during_a_tick_are_missed() -> None:
    pace = Pace(100.0)
    pace.begun(100.0)
    assert (pace.ended(103.5, 1.0), pace.due) == (3, 104.0)
    assert pace.begun(103.9) is None  # early, and at work when the next was due
    assert (pace.ended(104.1, 1.0), pace.due) == (1, 105.0)


def test_a_machine_that_stood_still_does_not_make_up_for_all_of_it() -> None:
    pace = Pace(0.0)
    pace.begun(0.0)
    assert pace.ended(1e6, 1.0) <= LATEST_S
    assert 1e6 < pace.due <= 1e6 + 1.0


TURNS = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 3000)), max_size=50)


@given(TURNS, st.sampled_from((250, 1000)))
def test_each_due_time_is_served_or_missed(turns: list[tuple[int, int]], tick_ms: int) -> None:
    """Waits and durations in ms, so that the sums are exact enough."""
    now, served, missed = 0, 0, 0
    pace = Pace(0.0)
    for wait_ms, duration_ms in turns:
        now += wait_ms
        late_s = pace.begun(now / 1000)
        served += late_s is not None
        if late_s is not None:
            assert late_s * 1000 == pytest.approx(now % tick_ms, abs=1e-3) or late_s * 1000 >= tick_ms
        now += duration_ms
        missed += pace.ended(now / 1000, tick_ms / 1000)
        assert now / 1000 < pace.due <= (now + tick_ms) / 1000 + 1e-9
    if turns:
        assert served + missed == now // tick_ms + 1
