"""What is told to Kubernetes: never more than is offered, withdrawn at once, and seldom."""

from __future__ import annotations

import json
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.config import load
from nodeagent.core.publish import LEAST_GAP_S, VALID_UNTIL, Told, amounts, due, patch, removal
from nodeagent.model.capacity import Amount, Capacity, Lent
from nodeagent.model.errors import Misconfigured
from nodeagent.model.publish import PublishSettings

SETTINGS = PublishSettings()
quantities = st.integers(0, 2**50)
told = st.builds(Told, st.just(0.0), quantities, quantities)


def offer(cores: float, memory: float, *, until: float = 2000.0, withdrawn: str = "") -> Capacity:
    return Capacity(
        seq=1,
        boot_id="b",
        observed_unix=1000.0,
        valid_until_unix=until,
        cpu=Amount(cores, cores),
        memory=Amount(memory, memory),
        zones=(),
        confidence=1.0,
        withdrawn=withdrawn,
        lent=Lent(),
    )


def test_cores_are_told_in_whole_milli_cores_and_memory_in_whole_bytes_rounded_down() -> None:
    assert amounts(offer(3.9999, 1024.9), 1001.0, 5.0) == Told(5.0, 3999, 1024)


@pytest.mark.parametrize(
    "capacity", [None, offer(4, 4096, withdrawn="stale"), offer(4, 4096, until=1000.5)], ids=repr
)
def test_what_is_withdrawn_or_too_old_or_not_known_is_told_as_0(capacity: Capacity | None) -> None:
    assert amounts(capacity, 1001.0, 5.0) == Told(5.0, 0, 0)


@given(st.floats(0, 4096), st.floats(0, 2**50))
def test_never_more_is_told_than_is_offered(cores: float, memory: float) -> None:
    now = amounts(offer(cores, memory), 1001.0, 0.0)
    assert now.milli_cores <= cores * 1000
    assert now.bytes <= memory
    assert now.milli_cores > cores * 1000 - 1.001 and now.bytes > memory - 1


def test_the_first_offer_is_told_at_once_even_nothing() -> None:
    assert due(None, Told(0.0, 0, 0), SETTINGS)


@pytest.mark.parametrize(
    ("last", "now", "is_due"),
    [
        ((1000, 1000), (5.0, 899, 1000), True),  # falls by more than a tenth
        ((1000, 1000), (5.0, 900, 1000), False),
        ((1000, 1000), (5.0, 1000, 0), True),  # one of them is withdrawn
        ((1000, 1000), (5.0, 1101, 1000), False),  # grows, too soon after the last
        ((1000, 1000), (10.0, 1101, 1000), True),
        ((1000, 1000), (299.0, 1100, 1000), False),
        ((1000, 1000), (300.0, 1000, 1000), True),  # each five minutes
        ((0, 0), (10.0, 1, 0), True),  # from nothing to something
        ((0, 0), (299.0, 0, 0), False),
    ],
)
def test_a_change_above_a_tenth_is_told_and_a_withdrawal_at_once(
    last: tuple[int, int], now: tuple[float, int, int], is_due: bool
) -> None:
    assert due(Told(0.0, *last), Told(*now), SETTINGS) is is_due


@given(told)
def test_what_was_just_told_is_not_told_again(last: Told) -> None:
    assert not due(last, last, SETTINGS)
    assert not due(last, replace(last, at=SETTINGS.every_s - 1), SETTINGS)


@given(told, st.floats(0, 1000))
def test_nothing_is_told_at_once_after_something(last: Told, at: float) -> None:
    withdrawn = Told(at, 0, 0)
    assert due(last, withdrawn, SETTINGS) or (last.milli_cores == last.bytes == 0 and at < SETTINGS.every_s)


@given(told, told)
def test_what_differs_by_no_more_than_a_tenth_waits_and_more_waits_at_most_ten_seconds(
    last: Told, now: Told
) -> None:
    def off(old: int, new: int) -> bool:
        return abs(new - old) > SETTINGS.change_ratio * old

    differs = off(last.milli_cores, now.milli_cores) or off(last.bytes, now.bytes)
    assert due(last, replace(now, at=LEAST_GAP_S), SETTINGS) == differs


@given(st.lists(st.tuples(st.floats(0.1, 5), quantities), min_size=1, max_size=60))
def test_in_any_course_it_is_told_seldom_and_is_never_far_above_the_offer(
    course: list[tuple[float, int]],
) -> None:
    last, at = Told(0.0, 10**6, 10**6), 0.0
    for step, value in course:
        at += step
        now = Told(at, value, value)
        if due(last, now, SETTINGS):
            assert value < last.milli_cores or at - last.at >= LEAST_GAP_S
            last = now
        assert last.milli_cores * (1 - SETTINGS.change_ratio) <= now.milli_cores + 1


def test_the_patch_sets_capacity_and_allocatable_and_says_until_when() -> None:
    body = patch(Told(0.0, 3200, 1 << 30), 1_700_000_000.5, SETTINGS)
    quantities = {"nodeagent.io/batch-cpu": "3200", "nodeagent.io/batch-memory": "1073741824"}
    assert body == {
        "metadata": {"annotations": {VALID_UNTIL: "2023-11-14T22:23:20Z"}},
        "status": {"capacity": quantities, "allocatable": quantities},
    }
    assert json.loads(json.dumps(body)) == body


def test_names_are_those_of_the_configuration() -> None:
    other = replace(SETTINGS, cpu_name="kubernetes.io/batch-cpu", memory_name="kubernetes.io/batch-memory")
    text = json.dumps(patch(Told(0.0, 1, 2), 0.0, other))
    assert "kubernetes.io/batch-cpu" in text and "nodeagent.io/batch" not in text


def test_leaving_takes_away_what_a_patch_set_and_nothing_else() -> None:
    body, gone = patch(Told(0.0, 1, 1), floor(0.0), SETTINGS), removal(SETTINGS)

    def paths(value: object, at: str = "") -> dict[str, object]:
        if not isinstance(value, dict):
            return {at: value}
        return {path: v for key, inner in value.items() for path, v in paths(inner, f"{at}/{key}").items()}

    assert paths(gone).keys() == paths(body).keys()
    assert set(paths(gone).values()) == {None}


@pytest.mark.parametrize(
    ("key", "value", "wrong"),
    [
        ("cpu_name", "batch-cpu", "DOMAIN/NAME"),
        ("memory_name", "a/b/c", "DOMAIN/NAME"),
        ("memory_name", "Nodeagent.io/x", "DOMAIN/NAME"),
        ("memory_name", "nodeagent..io/x", "DOMAIN/NAME"),
        ("memory_name", "nodeagent.-io/x", "DOMAIN/NAME"),
        ("cpu_name", "requests.nodeagent.io/x", "DOMAIN/NAME"),
        ("memory_name", "nodeagent.io/batch-cpu", "that of publish.cpu_name"),
        ("every_s", "5", "10 to 3600"),
        ("change_ratio", "0", "more than 0"),
    ],
)
def test_names_that_kubernetes_would_refuse_are_refused(key: str, value: str, wrong: str) -> None:
    with pytest.raises(Misconfigured) as error:
        load(None, env={}, overrides={f"publish.{key}": value})
    assert f"publish.{key}" in str(error.value) and wrong in str(error.value)


def test_the_names_of_others_are_taken() -> None:
    names = {
        "publish.cpu_name": "kubernetes.io/batch-cpu",
        "publish.memory_name": "kubernetes.io/batch-memory",
    }
    assert load(None, env={}, overrides=names).settings.publish.cpu_name == "kubernetes.io/batch-cpu"
