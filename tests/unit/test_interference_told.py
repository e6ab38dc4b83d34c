"""What an operator reads of interference: a sign with its unit, and the whole of it in one line."""

from __future__ import annotations

import math
from datetime import UTC, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.model.interference import Action, Episode, Rung, State, Suspect, Trial, TrialResult
from nodeagent.model.interference_told import (
    antagonists,
    done,
    evidence,
    recovered_s,
    restrained,
    score,
    shown,
    story,
    worst,
)
from nodeagent.model.symptom import Channel, Sign
from tests.unit.interference_samples import (
    ANTAGONIST,
    BUILD,
    DELAY,
    OTHER,
    STALL,
    TRANSCODE,
    VICTIM,
    at,
    course,
    episode,
    restraint,
)

TWO_AHEAD = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("sign", "value", "text"),
    [
        (Sign.CPU_STALL, 0.41, "41 %"),
        (Sign.RUN_DELAY, 1.234, "123 %"),
        (Sign.RETRANSMITS, 0.0042, "0.42 %"),
        (Sign.THROTTLED, 0.0, "0 %"),
        (Sign.LATENCY, 0.0231, "23 ms"),
        (Sign.LATENCY, 1.5, "1.5 s"),
        (Sign.IO_AWAIT, 0.0004, "0.4 ms"),
        (Sign.REFAULTS, 12345.6, "12346 pages/s"),
        (Sign.LISTEN_DROPS, 2.5, "2.5/s"),
        (Sign.CPI, 1.83, "1.8"),
        (Sign.MEMORY_BANDWIDTH, 3.5 * 2**30, "3.5 GiB/s"),
        (Sign.LLC_OCCUPANCY, 8 * 2**20, "8 MiB"),
        ("what.else", 2.0, "2"),
    ],
)
def test_a_sign_is_told_with_its_unit(sign: str, value: float, text: str) -> None:
    assert shown(sign, value) == text


@given(st.sampled_from([*Sign, "what.else"]), st.floats())
def test_no_value_is_too_odd_to_be_told(sign: str, value: float) -> None:
    assert shown(sign, value)


def test_evidence_says_what_is_usual_or_that_nobody_knows_yet() -> None:
    assert evidence(STALL) == "cpu.stall 41 % (usual 3 %, z 6.0)"
    assert evidence(replace(STALL, baseline=None)) == "cpu.stall 41 % (no baseline yet, z 6.0)"
    assert worst((DELAY, STALL)) == (STALL, DELAY)


def test_a_suspect_is_told_with_what_speaks_against_it() -> None:
    assert score(TRANSCODE) == "transcode-3 (lift 0.42, rho 0.91, p 0.006, share 80 %)"


def test_the_whole_of_it_is_one_line_from_the_first_sign_to_the_end() -> None:
    told = [story(e, UTC) for found in course() for e in found.episodes]
    since = "search-7 is slowed since 14:30:01"
    because = f"{since} because transcode-3 takes CPU time; I capped it"
    past = "search-7 was slowed from 14:30:01 because transcode-3 took CPU time; I capped it"
    assert told == [
        *[f"{since}: cpu.stall 41 % (usual 3 %, z 6.0); nobody can be named for it"] * 2,
        f"{since} probably because transcode-3 takes CPU time",
        *[f"{since} probably because transcode-3 takes CPU time; I capped it on trial"] * 2,
        because,
        f"{because}; search-7 is well again",
        f"{past}; search-7 recovered in 4 s",
    ]


def test_times_are_those_of_the_operators_clock() -> None:
    found = episode(1)
    assert "since 14:30:01" in story(found, UTC) and "since 16:30:01" in story(found, TWO_AHEAD)
    assert "since inf s" in story(replace(found, opened_unix=math.inf))


def closed(**more: object) -> Episode:
    return episode(1, cleared_unix=at(13), **more)


def test_who_was_tried_in_vain_is_acquitted_and_not_named() -> None:
    tried = Trial(ANTAGONIST, 1.0, 11.0, 0.41, 0.40, TrialResult.UNDONE)
    found = closed(
        suspects=(TRANSCODE, BUILD),
        trials=(tried,),
        actions=(
            Action(at(2), ANTAGONIST, Rung.QUOTA, "trial"),
            Action(at(12), ANTAGONIST, Rung.FREE, "undone"),
        ),
    )
    assert antagonists(found) == ()
    line = story(found, UTC)
    assert "nobody could be named for it; holding back transcode-3 did not help" in line
    assert line.endswith("search-7 recovered by itself after 12 s")
    assert (done(found), recovered_s(found)) == ("", None)


def test_two_who_take_turns_are_both_named_with_what_was_done_to_each() -> None:
    kept = tuple(Trial(uid, 1.0, 11.0, 0.4, 0.1, TrialResult.KEPT) for uid in (ANTAGONIST, OTHER))
    steps = (
        Action(at(2), ANTAGONIST, Rung.IDLE, "idle"),
        Action(at(3), OTHER, Rung.CPUSET, "off CPUs 0-3"),
        Action(at(5), ANTAGONIST, Rung.QUOTA, "0.2 cores"),
        Action(at(9), ANTAGONIST, Rung.IDLE, "calm for 60 s"),
    )
    found = closed(suspects=(TRANSCODE, replace(BUILD, named=True)), trials=kept, actions=steps)
    assert story(found, UTC) == (
        "search-7 was slowed from 14:30:01 because transcode-3 and build-2 took CPU time; "
        "I capped transcode-3 and moved build-2 to other CPUs; search-7 recovered in 11 s"
    )
    assert done(found) == "quota: 0.2 cores", "a step down is no deed"
    now = replace(found, cleared_unix=None, channel=Channel.IO)
    assert "because transcode-3 and build-2 keep the disk busy" in story(now, UTC)


def test_the_recovery_is_counted_from_the_first_step_that_still_held_and_not_from_what_followed() -> None:
    steps = (
        Action(at(2), ANTAGONIST, Rung.QUOTA, "trial"),
        Action(at(3), ANTAGONIST, Rung.FREE, "cut short"),
        Action(at(8), ANTAGONIST, Rung.QUOTA, "trial: 0.5 cores"),
        Action(at(10), ANTAGONIST, Rung.QUOTA, "0.25 cores"),
        Action(at(18), ANTAGONIST, Rung.QUOTA, "kept"),
    )
    found = closed(suspects=(TRANSCODE,), actions=steps)
    assert recovered_s(found) == 5.0
    assert recovered_s(replace(found, actions=steps[4:])) is None
    assert done(replace(found, actions=steps[:4])) == "quota: 0.25 cores"


def test_why_nothing_more_is_done_is_said_and_a_lost_name_is_a_uid() -> None:
    found = episode(
        1, actions=(Action(at(2), "uid-gone", Rung.QUOTA, ""),), held="6 changes in 10 minutes are enough"
    )
    assert story(found, UTC).endswith(
        "probably because uid-gone takes CPU time; I capped it; "
        "nothing more is done: 6 changes in 10 minutes are enough"
    )


def test_a_restraint_is_told_by_its_parts() -> None:
    full = replace(
        restraint(1), idle=True, away_from="0-3", memory_high_bytes=2**30, io_weight=0.1, llc_floor=True,
        frozen=True,
    )  # fmt: skip
    told = "idle, 0.5 cores, off CPUs 0-3, memory 1 GiB, I/O weight 0.1"
    assert restrained(full) == f"{told}, least cache and memory bandwidth, frozen"
    assert restrained(replace(restraint(1), quota_cores=None, rung=Rung.EVICT)) == "evict"


uids = st.sampled_from([ANTAGONIST, OTHER, VICTIM])
actions = st.lists(st.builds(Action, st.floats(0, 1e9), uids, st.sampled_from(Rung), st.just("")), max_size=6)
results = st.sampled_from(TrialResult)
trials = st.lists(
    st.builds(Trial, uids, st.floats(0, 99), st.floats(0, 99), st.floats(), st.none(), results), max_size=4
)
ranked = st.sampled_from([(), (BUILD,), (TRANSCODE, BUILD)])


@given(st.sampled_from(Channel), st.sampled_from(State), actions, trials, st.booleans(), ranked)
def test_whatever_happened_it_is_one_line_and_who_was_acquitted_is_no_antagonist(
    channel: Channel,
    state: State,
    steps: list[Action],
    tried: list[Trial],
    over: bool,
    suspects: tuple[Suspect, ...],
) -> None:
    found = replace(
        episode(1), channel=channel, state=state, suspects=suspects, trials=tuple(tried),
        actions=tuple(steps), cleared_unix=at(9) if over else None,
    )  # fmt: skip
    line = story(found, UTC)
    assert line.startswith("search-7 ") and "\n" not in line and ("was slowed" in line) == over
    kept = {t.uid for t in tried if t.result is TrialResult.KEPT}
    undone = {t.uid for t in tried if t.result is TrialResult.UNDONE}
    assert not set(antagonists(found)) & (undone - kept)
    assert not kept or set(antagonists(found)) == kept
