"""The screen and the events that it and the log show."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nodeagent.model.decision import Tick
from nodeagent.model.plan import Outcome
from nodeagent.report.event import Event
from nodeagent.report.events import events
from nodeagent.report.screen import Screen
from tests.unit import samples


@pytest.mark.parametrize("name", ["a[/b]", "[bold]x", "x[red", "[/]", ":smiley:"])
def test_the_name_of_a_pod_is_shown_as_it_is(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    tick = samples.tick(1)
    first = tick.snapshot.pods[0]
    pods = (replace(first, spec=replace(first.spec, name=name)),)
    screen = Screen("nodeagent")
    try:
        screen.show(replace(tick, snapshot=replace(tick.snapshot, pods=pods)), 0.01)
    finally:
        screen.close()
    assert name in capsys.readouterr().out


def _refused(seq: int, error: str) -> Tick:
    tick = samples.tick(seq)
    outcomes = tuple(Outcome(o.change, o.change.old, error) for o in tick.outcomes[:1])
    return replace(tick, outcomes=outcomes)


def _warnings(before: Tick | None, now: Tick) -> list[Event]:
    return [e for e in events(before, now) if e.name == "knob.refused" and e.level == "warning"]


def test_a_write_that_is_refused_each_tick_is_told_once() -> None:
    first, same, other = _refused(1, "read-only"), _refused(2, "read-only"), _refused(3, "no space")
    assert len(_warnings(None, first)) == 1
    assert _warnings(first, same) == []
    assert len(_warnings(same, other)) == 1


def test_a_refusal_that_comes_back_is_told_again() -> None:
    fine = replace(samples.tick(2), outcomes=())
    assert len(_warnings(fine, _refused(3, "read-only"))) == 1
