"""The cumulative sum: two samples far beyond or three bad ones, no constant, never less for worse."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.core.interference.cusum import felt, felt_cold
from nodeagent.core.interference.signs import RULES
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.senses import Feeling, Usual
from nodeagent.model.symptom import Sign

POLICY = InterferencePolicy()
RULE, SPARSE = RULES[Sign.CPU_STALL], RULES[Sign.CPI]
USUAL = Usual(0.1, 0.02, 0.12)
values = st.floats(0.0, 1.0)
spans = st.floats(0.05, 30.0)


def after(*samples: float, span_s: float = 1.0, before: Feeling | None = None) -> Feeling | None:
    found = before
    for n, value in enumerate(samples):
        found = felt(found, value, USUAL, n * span_s, span_s, POLICY, RULE)
    return found


def opened(found: Feeling | None) -> bool:
    return found is not None and found.opened is not None


def test_the_third_bad_sample_raises_the_alarm() -> None:
    assert not opened(after(0.18, 0.18))  # z is 4
    found = after(0.18, 0.18, 0.18)
    assert found is not None
    assert (found.opened, round(found.z, 6), round(found.cusum, 6), found.over) == (2.0, 4.0, 9.0, 1)


def test_the_second_raises_it_when_both_are_far_beyond_what_is_usual() -> None:
    assert not opened(after(0.9))
    found = after(0.9, 0.9)
    assert found is not None
    assert (found.opened, found.z, found.cusum, found.over) == (1.0, 6.0, 7.0, 1)


def test_one_outlier_raises_none_however_long_it_is_of() -> None:
    for span_s in (0.1, 1.0, 10.0, 600.0):
        assert not opened(after(1.0, span_s=span_s))


@given(values)
def test_a_tenth_of_a_second_is_a_tenth_of_a_sample(value: float) -> None:
    ten, one = after(*[value] * 10, span_s=0.1), after(value)
    assert (ten is None) == (one is None)
    if ten is not None and one is not None:
        assert abs(ten.cusum - one.cusum) < 1e-9


def test_three_good_samples_clear_it() -> None:
    bad = after(*[0.9] * 60)
    assert opened(bad)
    assert opened(after(0.1, 0.1, before=bad))
    assert after(0.1, 0.1, 0.1, before=bad) is None


def test_a_value_as_usual_leaves_nothing() -> None:
    assert after(*[0.1] * 5) is None
    assert after(*[0.12] * 1000) is None


@given(st.lists(st.tuples(values, values, spans), min_size=1, max_size=40))
def test_a_worse_value_never_gives_a_smaller_sum(samples: list[tuple[float, float, float]]) -> None:
    """From the same feeling: one whose alarm is open falls faster than one that was never so bad."""
    before = None
    for n, (one, other, span_s) in enumerate(samples):
        better = felt(before, min(one, other), USUAL, float(n), span_s, POLICY, RULE)
        worse = felt(before, max(one, other), USUAL, float(n), span_s, POLICY, RULE)
        if better is not None:
            assert worse is not None
            assert worse.cusum >= better.cusum
            assert worse.over >= better.over
            assert opened(worse) or not opened(better)
        before = worse if n % 2 else better


def test_three_bad_samples_in_five_minutes_are_enough_for_a_sign_that_is_seldom_measured() -> None:
    def course(every_s: float) -> list[bool]:
        found, told = None, []
        for n in range(9):
            value = 0.15 if n % 2 else 0.1  # z 2.5 and 0
            found = felt(found, value, USUAL, n * every_s, 10.0, POLICY, SPARSE)
            told.append(opened(found))
        return told

    assert course(60.0)[5]
    assert not any(course(200.0))


def test_what_is_cold_has_its_limit_alone() -> None:
    found = None
    for n in range(3):
        found = felt_cold(found, 0.3, True, float(n), 1.0, POLICY, RULE)
    assert found is not None and found.opened == 2.0 and found.median is None
    for n in range(3, 6):
        found = felt_cold(found, 0.1, False, float(n), 1.0, POLICY, RULE)
    assert found is None
