"""The screen and the events that it and the log show."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from nodeagent.model.decision import Tick
from nodeagent.model.plan import BURST, Kind, Knob, Outcome, Setting
from nodeagent.report.events import Event, events
from nodeagent.report.screen import Screen
from tests.unit import samples
from tests.unit.metric_pages import page, values


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


def _bursting(seq: int, cores: float | None) -> Tick:
    tick = samples.tick(seq)
    pod = tick.snapshot.pods[0].spec.cgroup
    more = (
        () if cores is None else (Setting(Knob(Kind.CPU_QUOTA, pod), cores, BURST, "burst: 9 core-s left"),)
    )
    return replace(tick, decision=replace(tick.decision, plan=(*tick.decision.plan, *more)))


def test_a_burst_is_told_once_when_it_begins_and_once_when_it_ends() -> None:
    ticks = [_bursting(seq, cores) for seq, cores in enumerate((None, 1.5, 1.7, None, None))]
    told = [e for pair in pairwise(ticks) for e in events(*pair) if e.name.startswith("burst.")]
    assert [e.name for e in told] == ["burst.began", "burst.ended"]
    assert told[0].keys["quota_cores"] == 1.5
    assert told[0].keys["why"] == "burst: 9 core-s left"


def test_pods_that_burst_are_counted_by_pod_and_not_by_knob() -> None:
    tick = _bursting(1, 1.5)
    inner = Setting(
        Knob(Kind.CPU_QUOTA, f"{tick.snapshot.pods[0].spec.cgroup}/app"), 1.5, BURST, "with its pod"
    )
    both = replace(tick, decision=replace(tick.decision, plan=(*tick.decision.plan, inner)))
    assert values(page(both), "nodeagent_bursting_pods") == {"": 1.0}
    assert values(page(samples.tick(2)), "nodeagent_bursting_pods") == {"": 0.0}
