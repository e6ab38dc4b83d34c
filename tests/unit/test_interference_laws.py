"""Laws of the course of interference, over any course of verdicts and suspects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.model.interference import Episode, Interference, Restraint, Rung, TrialResult
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.pod import Qos
from nodeagent.model.snapshot import Reading
from nodeagent.model.symptom import Channel
from tests.unit.troubled_node import HOG, LAMB, OTHER, SHARK, VICTIM, TroubledNode, node, spec, suspect

BATCH = (HOG, SHARK, LAMB)
ONLINE = (VICTIM, OTHER)
HOW = ("calm", "odd", "bad", "blind")
MIB = 1 << 20

ranking = st.lists(
    st.tuples(st.sampled_from((*BATCH, OTHER)), st.booleans()), max_size=3, unique_by=lambda each: each[0]
)
moment = st.fixed_dictionaries(
    {
        "victim": st.sampled_from(HOW),
        "other": st.sampled_from((*HOW, "gone")),
        "seconds": st.integers(1, 25),
        "dt_s": st.sampled_from((0.1, 1.0, 1.0, 1.0, 7.0, 30.0)),
        "value": st.sampled_from((None, 0.0, 0.1, 0.3, 0.6)),
        "stall": st.sampled_from((None, 0.0, 0.5)),
        "channel": st.sampled_from(tuple(Channel)),
        "ranking": ranking,
        "use": st.sampled_from((0.0, 0.2, 1.0, 3.0)),
        "limit": st.sampled_from((None, 0.1, 1.0, 4.0)),
    }
)
_PLAIN = {"other": "calm", "dt_s": 1.0, "stall": 0.0, "use": 1.0, "limit": None, "ranking": [(HOG, True)]}


def proven(channel: Channel, after: str) -> list[dict[str, Any]]:
    """HOG is found, tried and held: what hardly comes about by chance."""
    begins = {**_PLAIN, "victim": "bad", "value": 0.6, "seconds": 4, "channel": channel}
    return [begins, {**begins, "victim": after, "value": 0.1, "seconds": 12}]


prefixes = st.one_of(
    st.just([]), st.builds(proven, st.sampled_from(tuple(Channel)), st.sampled_from(HOW[:3]))
)
courses = st.builds(lambda first, more: [*first, *more], prefixes, st.lists(moment, min_size=1, max_size=12))
policies = st.builds(
    InterferencePolicy,
    top_rung=st.integers(0, 6),
    changes_per_pod=st.integers(1, 10),
    trial_s=st.sampled_from((2.0, 10.0)),
    relax_after_s=st.sampled_from((5.0, 60.0)),
    relax_max_s=st.sampled_from((60.0, 120.0)),
)


def begin(policy: InterferencePolicy) -> TroubledNode:
    it = node(*BATCH, policy=policy, cpus={VICTIM: "0-1", HOG: "0-3", SHARK: "2-3"})
    it.pods[OTHER] = spec(OTHER, Qos.MID)
    it.readings = {name: Reading(memory_bytes=500 * MIB) for name in BATCH}
    return it


def lived(it: TroubledNode, course: list[dict[str, Any]]) -> list[Interference]:
    """Every tick of it."""
    told = []
    for each in course:
        found = tuple(
            suspect(name, named=named, qos=Qos.MID if name == OTHER else Qos.BATCH)
            for name, named in each["ranking"]
        )
        it.suspects = dict.fromkeys(ONLINE, found)
        it.uses.update(dict.fromkeys(BATCH, each["use"]))
        it.limit_cores = each["limit"]
        if each["other"] == "gone":
            it.pods.pop(OTHER, None)
        else:
            it.pods.setdefault(OTHER, spec(OTHER, Qos.MID))
        hows = {VICTIM: each["victim"], OTHER: each["other"]}
        here = {uid: how for uid, how in hows.items() if how != "gone"}
        more = {"dt_s": each["dt_s"], "stall": each["stall"]}
        told += [it.tick(here, each["value"], each["channel"], **more) for _ in range(each["seconds"])]
    return told


def one_by_one(course: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return ({**each, "seconds": 1} for each in course for _ in range(each["seconds"]))


def by_uid(told: Interference) -> dict[str, Restraint]:
    return {r.uid: r for r in told.restraints}


@given(courses, policies)
@settings(max_examples=60, deadline=None)
def test_no_restraint_is_of_online_work_nor_outlives_its_lease(
    course: list[dict[str, Any]], policy: InterferencePolicy
) -> None:
    it = begin(policy)
    for told in (lived(it, [tick])[-1] for tick in one_by_one(course)):
        for restraint in told.restraints:
            assert restraint.uid in BATCH
            assert it.at <= restraint.until <= it.at + policy.lease_s
            assert restraint.rung <= policy.top_rung and restraint.rung is not Rung.EVICT
            if restraint.quota_cores is not None:
                assert restraint.quota_cores >= 0.02
            assert restraint.why and restraint.episode
        assert len(by_uid(told)) == len(told.restraints), "one for each pod"


@given(courses, policies)
@settings(max_examples=60, deadline=None)
def test_who_was_never_named_is_never_restrained(
    course: list[dict[str, Any]], policy: InterferencePolicy
) -> None:
    it, named = begin(policy), set[str]()
    for each in course:
        named |= {name for name, is_named in each["ranking"] if is_named}
        for told in lived(it, [each]):
            assert set(by_uid(told)) <= named
            on_trial = [t for e in told.episodes for t in e.trials if t.result is TrialResult.RUNNING]
            assert len(on_trial) <= 1, "one trial at a time on the node"


@given(courses, policies)
@settings(max_examples=60, deadline=None)
def test_the_steps_of_a_pod_are_bounded(course: list[dict[str, Any]], policy: InterferencePolicy) -> None:
    it = begin(policy)
    for tick in one_by_one(course):
        lived(it, [tick])
        for uid, times in it.course.steps.items():
            assert len([at for at in times if at > it.at - 600.0]) <= policy.changes_per_pod, uid


@given(courses, policies)
@settings(max_examples=60, deadline=None)
def test_when_all_is_clear_nothing_is_left_in_the_end(
    course: list[dict[str, Any]], policy: InterferencePolicy
) -> None:
    it = begin(policy)
    lived(it, course)
    calm = {"victim": "calm", "other": "calm", "seconds": 1200, "dt_s": 7.0, "value": 0.0, "stall": 0.0}
    end = lived(it, [{**course[-1], **calm, "ranking": []}])[-1]
    assert end == Interference()
    assert it.course.cases == {} and it.course.steps == {} and it.course.proofs == ()


@given(courses, policies)
@settings(max_examples=40, deadline=None)
def test_same_in_same_out(course: list[dict[str, Any]], policy: InterferencePolicy) -> None:
    assert lived(begin(policy), course) == lived(begin(policy), course)


@given(courses, policies, st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_blind_tick_never_loosens(
    course: list[dict[str, Any]], policy: InterferencePolicy, seconds: int
) -> None:
    it = begin(policy)
    before = by_uid(lived(it, [{**each, "dt_s": 1.0, "other": "calm"} for each in course])[-1])
    blind = {"victim": "blind", "other": "blind", "seconds": 1, "dt_s": 1.0, "value": None}
    for _ in range(seconds):
        after = by_uid(lived(it, [{**course[-1], **blind}])[-1])
        for uid, was in before.items():
            now = after[uid]
            assert now.rung >= was.rung
            assert was.quota_cores is None or (now.quota_cores or 9.9) <= was.quota_cores
            assert was.memory_high_bytes is None or now.memory_high_bytes == was.memory_high_bytes
            assert now.away_from == was.away_from
        before = after


@given(courses, policies)
@settings(max_examples=60, deadline=None)
def test_an_episode_is_told_without_a_gap_and_cleared_once(
    course: list[dict[str, Any]], policy: InterferencePolicy
) -> None:
    it = begin(policy)
    open_before: dict[str, Episode] = {}
    ended = Counter[str]()
    for told in lived(it, course):
        now = {e.id: e for e in told.episodes}
        assert len(now) == len(told.episodes) and open_before.keys() <= now.keys()
        for each in now.values():
            was = open_before.get(each.id)
            assert was is None or was.changed <= each.changed
            if was is not None and was.changed == each.changed:
                assert replace(was, evidence=(), suspects=(), state=each.state, trials=()) == replace(
                    each, evidence=(), suspects=(), trials=()
                ), "what is not counted as a change is none"
            ended[each.id] += each.cleared_unix is not None
        open_before = {e.id: e for e in told.episodes if e.cleared_unix is None}
    assert all(count <= 1 for count in ended.values())


@given(courses, policies)
@settings(max_examples=40, deadline=None)
def test_harsher_restraints_need_a_confirmed_victim_or_none_that_is_seen(
    course: list[dict[str, Any]], policy: InterferencePolicy
) -> None:
    it = begin(policy)
    before: dict[str, Restraint] = {}
    for each in course:
        for told in lived(it, [{**each, "seconds": 1}] * each["seconds"]):
            if "bad" not in (each["victim"], each["other"]) and "blind" not in (
                each["victim"],
                each["other"],
            ):
                assert set(by_uid(told)) <= set(before), "nobody new"
                for uid, now in by_uid(told).items():
                    assert now.rung <= before[uid].rung
            before = by_uid(told)


@given(st.lists(st.sampled_from((1.0, 2.0)), min_size=1, max_size=5), policies)
@settings(max_examples=30, deadline=None)
def test_without_the_right_to_act_nothing_is_done(waits: list[float], policy: InterferencePolicy) -> None:
    it = begin(replace(policy, act=False))
    it.suspects = {VICTIM: (suspect(HOG),)}
    for dt_s in waits:
        it.ticks(10, "bad", 0.6, dt_s=dt_s)
        assert it.told.restraints == () and not it.told.directed and it.episode.held
