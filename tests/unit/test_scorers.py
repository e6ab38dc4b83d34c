"""Scorers on windows whose culprit is known: vectors by hand, and laws for all windows."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nodeagent.core.interference.algebra import circular, packed
from nodeagent.core.interference.scorers import SCORERS
from nodeagent.core.interference.scorers.amplitude_free import amplitude_free
from nodeagent.core.interference.scorers.cpi2 import NAMES_FROM, cpi2
from nodeagent.core.interference.scorers.joint import joint, nnls
from nodeagent.core.interference.scorers.lift import lift
from nodeagent.core.interference.scorers.shifts import shifts
from tests.unit import scored

N = 120
HALF = [1.0] * 60 + [1.3] * 60
FLAT = [1.0] * N


def _when(first: int, end: int = N, cores: float = 2.0) -> list[float]:
    return [cores if first <= n < end else 0.0 for n in range(N)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=60))
def test_one_product_of_two_numbers_has_the_sums_of_all_moves(pairs: list[tuple[int, int]]) -> None:
    felt, used = [a for a, _ in pairs], [b for _, b in pairs]
    n = len(pairs)
    slow = [sum(felt[(t - s) % n] * used[t] for t in range(n)) for s in range(n)]
    assert circular(felt, packed(used)) == slow


@pytest.mark.parametrize(
    ("felt", "score", "is_named"),
    [(1.3, 0.153, False), (1.5, 0.222, False), (1.69, 0.272, False), (2.5, 0.4, True)],
)
def test_cpi2_cannot_name_a_perfect_culprit_of_a_mild_slowdown(
    felt: float, score: float, is_named: bool
) -> None:
    """The vector `cpi2-ceiling`: with the threshold at t, all bad samples at c, it never exceeds 1 - t/c."""
    window = scored.frame([1.0] * 60 + [felt] * 60, _when(60), spread=(felt - 1.0) / 3)
    ceiling = 1.0 - window.bad_from / felt
    (found,) = cpi2(window)
    assert found == pytest.approx(ceiling)
    assert found == pytest.approx(score, abs=0.05)
    assert (found >= NAMES_FROM) is is_named
    assert amplitude_free(window) == pytest.approx((1.0,)), "whatever the severity"


def test_an_amplitude_free_score_is_that_of_use_beyond_the_usual() -> None:
    in_phase, opposite, constant, partly = _when(60), _when(0, 60), FLAT, [1.0] * 60 + [3.0] * 60
    found = amplitude_free(scored.frame(HALF, in_phase, opposite, constant, partly))
    assert found == pytest.approx((1.0, 0.0, 0.0, 1.0))
    assert amplitude_free(scored.frame(HALF, _when(30, 90)))[0] == pytest.approx(0.0, abs=0.05)


def test_lift_is_nothing_for_what_is_always_on_and_negative_for_what_gives_way() -> None:
    severe = [1.0] * 60 + [10.0] * 60
    found = lift(scored.frame(severe, _when(60), FLAT, [2.0] * 60 + [1.0] * 60))
    assert found == pytest.approx((1.0, 0.0, -1.0 / 3.0))


def test_the_joint_fit_parts_the_harm_among_those_who_take_turns() -> None:
    felt = [1.0] * 60 + [2.0] * 60
    first, second = _when(60, 80), [max(a, b) for a, b in zip(_when(80, 100), _when(110), strict=True)]
    third = _when(100, 110)
    parts = joint(scored.frame(felt, first, second, third, FLAT))
    assert parts == pytest.approx((1 / 3, 1 / 2, 1 / 6, 0.0), abs=0.03)


def test_of_two_that_came_together_the_larger_is_charged() -> None:
    large, small = joint(scored.frame([1.0] * 60 + [2.0] * 60, _when(60, cores=3.0), _when(60, cores=0.3)))
    assert large > 0.9
    assert small < 0.02


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3), min_size=2, max_size=5),
    st.lists(st.floats(-1.0, 1.0), min_size=5, max_size=5),
)
def test_the_fit_is_the_least_of_all_that_are_not_negative(
    rows: list[list[float]], target: list[float]
) -> None:
    """Its conditions (Karush, Kuhn, Tucker): no slope where b > 0, an upward one where b = 0."""
    gram = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    ridge = 0.05
    betas = nnls(gram, target[: len(rows)], ridge)
    for row, beta, wanted in zip(gram, betas, target, strict=False):
        k = gram.index(row)
        slope = sum(g * b for g, b in zip(row, betas, strict=True)) - wanted + ridge * beta
        assert beta >= 0.0, k
        assert slope == pytest.approx(0.0, abs=1e-3) if beta > 1e-6 else slope >= -1e-3


def test_a_move_finds_chance_and_its_absence() -> None:
    felt = [1.0] * 100 + [2.0] * 20
    culprit, earlier, steady = _when(100), _when(70), FLAT
    first, second, third = shifts(scored.frame(felt, culprit, earlier, steady))
    assert first == pytest.approx(1 / N)
    assert second > 0.2
    assert third == 1.0


# -- laws


@st.composite
def windows(draw: st.DrawFn) -> tuple[list[float], list[list[float]]]:
    """A victim that gets worse, and neighbours in whole steps."""
    rows = draw(st.lists(st.lists(st.integers(0, 8), min_size=40, max_size=40), min_size=2, max_size=4))
    felt = draw(st.lists(st.integers(0, 6), min_size=40, max_size=40))
    assume(max(felt[-5:]) >= 2)
    return [1.0 + x / 4 for x in felt], [[u / 4 for u in row] for row in rows]


@settings(max_examples=40, deadline=None)
@given(windows(), st.randoms(use_true_random=False))
def test_the_order_of_pods_does_not_matter(
    window: tuple[list[float], list[list[float]]], random: object
) -> None:
    felt, rows = window
    order = list(range(len(rows)))
    assert hasattr(random, "shuffle")
    random.shuffle(order)
    straight = {score.__name__: score(scored.frame(felt, *rows)) for score in SCORERS}
    shuffled = {score.__name__: score(scored.frame(felt, *(rows[k] for k in order))) for score in SCORERS}
    for name, values in straight.items():
        assert shuffled[name] == pytest.approx([values[k] for k in order], abs=0.02), name


@settings(max_examples=40, deadline=None)
@given(windows(), st.sampled_from([0.01, 0.5, 3.0, 1000.0]))
def test_how_much_a_pod_uses_does_not_change_its_amplitude_free_score_and_its_lift(
    window: tuple[list[float], list[list[float]]], scale: float
) -> None:
    felt, rows = window
    scaled = [[u * scale for u in rows[0]], *rows[1:]]
    for score in (amplitude_free, lift, cpi2):
        assert score(scored.frame(felt, *scaled)) == pytest.approx(score(scored.frame(felt, *rows)), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(windows(), st.floats(0.0, 5.0))
def test_use_that_is_always_there_adds_nothing_to_the_amplitude_free_score(
    window: tuple[list[float], list[list[float]]], base: float
) -> None:
    felt, rows = window
    more = [[u + base for u in row] for row in rows]
    plain = amplitude_free(scored.frame(felt, *rows))
    assert amplitude_free(scored.frame(felt, *more)) == pytest.approx(plain, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(windows())
def test_scores_keep_within_their_bounds(window: tuple[list[float], list[list[float]]]) -> None:
    felt, rows = window
    found = scored.frame(felt, *rows)
    for score in (cpi2, amplitude_free, lift):
        assert all(-1.0 - 1e-9 <= value <= 1.0 + 1e-9 for value in score(found))
    parts = joint(found)
    assert all(part >= 0.0 for part in parts)
    assert sum(parts) <= 1.0 + 1e-9
    assert all(1.0 / len(felt) - 1e-9 <= p <= 1.0 for p in shifts(found))


@settings(max_examples=40, deadline=None)
@given(windows())
def test_a_pod_that_does_nothing_changes_nothing(window: tuple[list[float], list[list[float]]]) -> None:
    felt, rows = window
    for score in SCORERS:
        alone = score(scored.frame(felt, *rows))
        assert score(scored.frame(felt, *rows, [0.0] * len(felt)))[: len(rows)] == alone
