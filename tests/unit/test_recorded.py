"""The labelled sets of the repository, decided anew: what the detector and its rivals make of a real kernel.

The figures are of one machine and exact: who changes what is decided sees here what it is worth. The second
set has another seed: other lengths, orders and instants.
"""

from __future__ import annotations

import pytest

from tests.bench.eval import control
from tests.bench.eval.__main__ import RECORDED
from tests.bench.eval.recording import load
from tests.bench.eval.report import OURS, OURS_WITHOUT_PSI, Evaluated, evaluate

OTHER_SEED = RECORDED / "seed8"
PACKED_BYTES = 10 << 20


@pytest.fixture(scope="module")
def evaluated() -> Evaluated:
    return evaluate(load(RECORDED), control.read(RECORDED))


@pytest.fixture(scope="module")
def evaluated_again() -> Evaluated:
    return evaluate(load(OTHER_SEED), ())


def test_the_set_is_whole_valid_and_small(evaluated: Evaluated) -> None:
    assert (evaluated.runs, evaluated.rejected) == (7, {})
    assert (evaluated.events, evaluated.unfelt_events) == (50, 7)
    assert sum(path.stat().st_size for path in RECORDED.rglob("*")) < PACKED_BYTES


@pytest.mark.parametrize(
    ("name", "hits", "false", "top1", "false_accusations", "delay_s"),
    [
        (OURS, 47, 0, 46 / 47, 0.0, 2.74),
        (OURS_WITHOUT_PSI, 45, 0, 1.0, 0.0, 4.22),
        ("cpi2", 30, 2, 0.43, 0.38, 8.94),
        ("psi", 12, 25, 0.0, float("nan"), 0.90),
        ("max-cpu", 12, 25, 0.58, 0.81, 0.90),
        ("koordlet", 40, 154, 0.475, 0.95, 2.86),
    ],
)  # fmt: skip
def test_each_detector_finds_and_blames_what_it_did(  # one for each column
    evaluated: Evaluated,
    name: str,
    hits: int,
    false: int,
    top1: float,
    false_accusations: float,
    delay_s: float,
) -> None:
    _expect(evaluated, name, (hits, false, top1, false_accusations, delay_s))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (OURS, (47, 0, 45 / 47, 0.0, 2.59)),
        (OURS_WITHOUT_PSI, (47, 0, 41 / 47, 0.0, 3.04)),
    ],
)
def test_another_seed_is_found_and_blamed_as_well(
    evaluated_again: Evaluated, name: str, expected: tuple[int, int, float, float, float]
) -> None:
    assert (evaluated_again.runs, evaluated_again.rejected, evaluated_again.events) == (5, {}, 47)
    _expect(evaluated_again, name, expected)


def _expect(evaluated: Evaluated, name: str, expected: tuple[int, int, float, float, float]) -> None:
    counts, figures = evaluated.counts[name], evaluated.figures[name]
    hits, false, top1, false_accusations, delay_s = expected
    assert (counts.hits, counts.false) == (hits, false)
    assert figures["attribution top-1"].value == pytest.approx(top1, abs=0.01)
    accused = figures["false accusations / accusations"].value
    assert accused == pytest.approx(false_accusations, abs=0.01, nan_ok=True)
    assert figures["time to detect, median, s"].value == pytest.approx(delay_s, abs=0.01)


def test_it_is_better_than_each_rival_by_what_it_finds_and_whom_it_blames(evaluated: Evaluated) -> None:
    ours = evaluated.figures[OURS]
    for name in evaluated.figures.keys() - {OURS, OURS_WITHOUT_PSI}:
        for figure in ("precision", "recall", "attribution top-1"):
            rival = evaluated.figures[name][figure].value
            assert not rival >= ours[figure].value, (name, figure)


def test_what_is_controlled_keeps_its_p99_beside_every_attack(evaluated: Evaluated) -> None:
    assert len(evaluated.control) == 8
    for one in evaluated.control:
        assert one.without.p99_ms > 2.0 * one.alone.p99_ms
        assert one.bounded.p99_ms <= 1.3 * one.alone.p99_ms
