"""Events and metrics of interference: each change is told and counted once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from nodeagent.model.decision import Tick
from nodeagent.model.event import Event, Topic
from nodeagent.model.interference import Action, Gate, Interference, Rung, State, TrialResult
from nodeagent.model.symptom import Channel
from nodeagent.report.events import events
from nodeagent.report.metrics import Metrics
from nodeagent.report.screen import Screen
from nodeagent.report.status import status_line
from tests.unit.interference_samples import (
    ANTAGONIST,
    BUILD,
    TRANSCODE,
    at,
    course,
    episode,
    rejection,
    restraint,
    stopped,
    ticks,
    with_interference,
)
from tests.unit.metric_pages import OWN, page, values


def told(*found: Interference) -> list[Event]:
    """Of consecutive ticks."""
    made = [with_interference(seq, each) for seq, each in enumerate(found)]
    return [e for a, b in pairwise([None, *made]) for e in _ours(a, b)]


def _ours(before: Tick | None, now: Tick | None) -> list[Event]:
    assert now is not None
    return [e for e in events(before, now) if e.topic is Topic.INTERFERENCE]


def test_each_step_from_open_to_close_is_one_event_with_what_an_operator_asks_first() -> None:
    found = told(*course())
    assert [(e.level, e.name) for e in found] == [
        ("info", "interference.opened"),
        ("warning", "interference.state"),
        ("info", "interference.suspects"),
        ("info", "interference.trial_began"),
        ("info", "interference.step"),
        ("info", "interference.trial_ended"),
        ("info", "interference.state"),
        ("info", "interference.closed"),
        ("info", "interference.released"),
    ]
    *found, free = found
    assert (free.keys["pod"], free.keys["was"], free.keys["id"]) == ("transcode-3", "0.5 cores", "cpu-1")
    assert {e.keys["victim"] for e in found} == {"search-7"} and {e.keys["id"] for e in found} == {"cpu-1"}
    opened, confirmed, suspects, began, step, ended, calm, closed = (e.keys for e in found)
    assert opened["resource"] == "cpu" and opened["evidence"] == "cpu.stall 41 % (usual 3 %, z 6.0)"
    assert (confirmed["state"], calm["state"]) == ("confirmed", "calm")
    assert suspects["antagonist"] == "transcode-3"
    assert str(suspects["suspects"]).startswith(
        "transcode-3 (lift 0.42, rho 0.91, p 0.006, share 80 %), build-2"
    )
    assert (began["suspect"], began["lasts_s"]) == ("transcode-3", 10.0)
    assert (step["antagonist"], step["step"], step["why"]) == ("transcode-3", "quota", "0.5 cores on trial")
    assert {k: ended[k] for k in ("result", "sign", "above_before", "above_during")} == {
        "result": "kept", "sign": "cpu.stall", "above_before": "38 %", "above_during": "4 %",
    }  # fmt: skip
    assert {k: v for k, v in closed.items() if k != "story"} == {
        "victim": "search-7", "id": "cpu-1", "resource": "cpu", "lasted_s": 7.0, "antagonist": "transcode-3",
        "done": "quota: 0.5 cores on trial", "recovered_s": 4.0,
    }  # fmt: skip
    assert "because transcode-3 took CPU time; I capped it; search-7 recovered in 4 s" in str(closed["story"])


def test_what_stays_as_it_is_is_not_told_again() -> None:
    still = Interference(episodes=(episode(0, suspects=(TRANSCODE,), held="enough"),))
    rising = Interference(episodes=(episode(0, suspects=(replace(TRANSCODE, share=0.9),), held="enough"),))
    assert told(still, still, rising, rising)[3:] == []


def test_another_resource_another_leader_and_a_hold_are_told() -> None:
    first = episode(0, suspects=(BUILD,))
    other = replace(first, channel=Channel.IO, suspects=(replace(TRANSCODE, named=False), BUILD))
    held = replace(other, held="6 changes in 10 minutes")
    found = told(*(Interference(episodes=(e,)) for e in (first, other, held, replace(held, held=""))))
    assert [(e.level, e.name) for e in found[2:]] == [
        ("info", "interference.resource"),
        ("debug", "interference.suspects"),
        ("warning", "interference.held"),
        ("info", "interference.resumed"),
    ]
    assert (found[2].keys["resource"], found[2].keys["was"]) == ("io", "cpu")
    assert found[4].keys["why"] == "6 changes in 10 minutes"


def test_steps_are_told_once_though_old_ones_are_dropped_and_an_eviction_is_asked_for_loudly() -> None:
    steps = [Action(at(n), ANTAGONIST, Rung(n), f"step {n}") for n in range(1, 7)]
    kept = [tuple(steps[:2]), tuple(steps[1:4]), tuple(steps[3:5]), tuple(steps[4:])]
    found = told(*(Interference(episodes=(episode(0, actions=each),)) for each in kept))
    assert [e.keys["why"] for e in found[1:]] == [f"step {n}" for n in range(1, 7)]
    last = found[-1]
    assert (last.level, last.name) == ("warning", "interference.evict_wanted")
    assert (last.keys["uid"], last.keys["antagonist"]) == (ANTAGONIST, "transcode-3")


def test_who_is_let_go_by_a_step_that_says_so_or_has_ended_is_not_told_as_released() -> None:
    held = Interference(episodes=(episode(0),), restraints=(restraint(0),))
    step = Action(at(1), ANTAGONIST, Rung.FREE, "trial undone")
    found = told(held, Interference(episodes=(episode(0, actions=(step,)),)))
    assert [e.name for e in found] == ["interference.opened", "interference.step"]
    gone = Interference(restraints=(replace(restraint(0), uid="uid-gone"),))
    assert told(gone, Interference()) == []


def test_an_episode_that_is_followed_no_longer_is_closed_all_the_same() -> None:
    found = told(Interference(episodes=(episode(0),)), Interference(), Interference())
    assert [e.name for e in found] == ["interference.opened", "interference.closed"]
    assert found[1].keys["lasted_s"] == 1.0


def test_an_alarm_that_a_gate_stops_is_told_once_per_change_to_those_who_debug() -> None:
    quota, steal, other = rejection(), rejection(Gate.STEAL), rejection(sign="cpu.run_delay")
    found = told(stopped(quota), stopped(quota), stopped(steal), stopped(steal, other), Interference())
    assert [(e.level, e.name, e.keys["gate"]) for e in found] == [
        ("debug", "interference.rejected", "own-quota"),
        ("debug", "interference.rejected", "steal"),
        ("debug", "interference.rejected", "own-quota"),
    ]
    assert found[0].keys["why"] == "throttled in 35 % of its periods"
    assert found[2].keys["evidence"] == "cpu.run_delay 41 % (usual 3 %, z 6.0)"


def counted() -> Metrics:
    metrics = Metrics("0.1")
    for each in (*ticks(), *(with_interference(10 + n, stopped(rejection())) for n in range(3))):
        metrics.observe_tick(each, 0.01, OWN)
    return metrics


def test_episodes_durations_rejections_and_trials_are_counted_once() -> None:
    text = counted().render().decode()
    prefix = "nodeagent_interference_"
    assert values(text, f"{prefix}episodes_total")["channel=cpu"] == 1.0
    assert sum(values(text, f"{prefix}episodes_total").values()) == 1.0
    assert values(text, f"{prefix}duration_seconds_sum") == {"": 7.0}
    assert values(text, f"{prefix}duration_seconds_count") == {"": 1.0}
    assert values(text, f"{prefix}alarms_rejected_total") == {
        f"gate={gate.value}": float(gate is Gate.OWN_QUOTA) for gate in Gate
    }
    assert values(text, f"{prefix}trials_total") == {
        "result=kept": 1.0, "result=undone": 0.0, "result=cut-short": 0.0,
    }  # fmt: skip


def test_what_is_open_and_who_is_held_back_are_gauges_that_fall_again() -> None:
    held = Interference(
        episodes=(episode(1, state=State.CONFIRMED),),
        restraints=(restraint(1), restraint(1), replace(restraint(1), cgroup="b/2", rung=Rung.CPUSET)),
    )
    during, after = (page(with_interference(2, found)) for found in (held, Interference()))
    of = "nodeagent_interference_open"
    assert values(during, of) == {"state=suspect": 0.0, "state=confirmed": 1.0, "state=calm": 0.0}
    assert sum(values(after, of).values()) == 0.0
    steps = values(during, "nodeagent_interference_restraints")
    assert {k: v for k, v in steps.items() if v} == {"rung=quota": 1.0, "rung=cpuset": 1.0}
    assert sum(values(after, "nodeagent_interference_restraints").values()) == 0.0


def test_the_series_are_as_many_whatever_happens() -> None:
    quiet, loud = page(with_interference(1, Interference())), counted().render().decode()
    of = "nodeagent_interference_"
    assert quiet.count(of) == loud.count(of) > 30


def test_a_trial_that_is_cut_short_is_counted_as_that() -> None:
    *_, capped = [f for f in course() if f.episodes and f.episodes[0].trials][:2]
    (was,) = capped.episodes
    short = replace(was, trials=(replace(was.trials[0], result=TrialResult.CUT_SHORT),))
    pages = [with_interference(n, Interference(episodes=(e,))) for n, e in enumerate((was, short, short))]
    assert values(page(*pages), "nodeagent_interference_trials_total")["result=cut-short"] == 1.0


def test_the_status_line_names_who_is_slowed_and_by_whom_but_never_a_crowd() -> None:
    lines = [status_line(tick, ()) for tick in ticks()]
    assert [line.partition("no pressure")[2] for line in lines] == [
        "", *["; slowed: search-7"] * 2, *["; slowed: search-7 by transcode-3"] * 5, "", "",
    ]  # fmt: skip
    crowd = tuple(replace(episode(1), id=str(n), victim_name=f"web-{n}") for n in range(5))
    line = status_line(with_interference(1, Interference(episodes=crowd)), ())
    assert line.endswith("; slowed: web-0, web-1, web-2 and 2 more")


def test_the_screen_has_a_line_for_each_that_is_slowed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    screen = Screen("nodeagent")
    try:
        for tick in ticks()[:7]:
            screen.show(tick, 0.01)
    finally:
        screen.close()
    out = capsys.readouterr().out
    assert "because transcode-3 takes CPU time; I capped it" in " ".join(out.split())
