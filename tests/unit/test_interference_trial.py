"""The trial: one suspect is capped, and the cap stays only if the victim gets better."""

from __future__ import annotations

from msgspec.structs import replace

from nodeagent.model.interference import Rung, TrialResult
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.pod import Priority, Qos
from nodeagent.model.settings import Mode
from nodeagent.model.symptom import Channel
from tests.unit.troubled_node import HOG, LAMB, OTHER, SHARK, VICTIM, TroubledNode, node, spec, suspect


def on_trial(*batch: str, **more: object) -> TroubledNode:
    """Bad for 3 s, so that the first of these is on trial since the last tick."""
    it = node(*(batch or (HOG, LAMB)), **more)
    it.suspects = {VICTIM: tuple(suspect(name) for name in batch or (HOG,))}
    it.ticks(3, "bad", 0.6)
    return it


def test_the_top_suspect_alone_is_capped_at_half_of_what_it_uses() -> None:
    it = on_trial()
    assert it.quota(HOG) == 0.5
    assert it.restraint(LAMB) is None
    assert it.results[:1] == ["running"]
    assert it.episode.trials[0].before == 0.6
    assert list(it.told.directed) == [VICTIM]


def test_the_cap_stays_when_the_victim_gets_better() -> None:
    it = on_trial()
    it.ticks(10, "calm", 0.1)
    (trial,) = it.episode.trials
    assert trial.result is TrialResult.KEPT
    assert (trial.before, trial.during) == (0.6, 0.1)
    assert it.quota(HOG) == 0.5
    assert list(it.told.directed) == [VICTIM]


def test_the_cap_is_undone_when_the_victim_does_not_get_better_and_the_next_is_tried() -> None:
    it = on_trial(LAMB, HOG)
    assert it.quota(LAMB) == 0.5 and it.restraint(HOG) is None
    it.ticks(10, "bad", 0.55)
    assert it.results[:1] == ["undone"]
    assert it.restraint(LAMB) is None, "an innocent gets back what was taken"
    assert it.quota(HOG) == 0.5
    it.ticks(10, "calm", 0.0)
    assert [(t.uid, t.result) for t in it.episode.trials] == [
        (LAMB, TrialResult.UNDONE),
        (HOG, TrialResult.KEPT),
    ]


def test_who_was_tried_in_vain_is_left_alone_for_half_an_hour() -> None:
    it = on_trial(LAMB)
    it.ticks(10, "bad", 0.6)
    assert it.told.restraints == ()
    it.ticks(600, "bad", 0.6)
    assert it.told.restraints == ()
    assert "tried in vain" in it.episode.held
    it.tick("bad", 0.6, dt_s=1300.0)
    it.ticks(5, "bad", 0.6)
    assert it.quota(LAMB) == 0.5
    assert it.course.doubts[0].count == 1


def test_better_is_what_falls_below_the_ratio_above_the_baseline() -> None:
    it = on_trial(baseline=0.4)  # 0.6 is 0.2 above what is ordinary
    it.ticks(10, "odd", 0.55)
    assert it.results[:1] == ["kept"]
    it = on_trial(baseline=0.4)
    it.ticks(10, "odd", 0.57)
    assert it.results[:1] == ["undone"]


def test_nobody_is_tried_who_is_not_named() -> None:
    it = node(HOG, SHARK)
    it.suspects = {VICTIM: (suspect(HOG, named=False), suspect(SHARK, named=False))}
    it.ticks(60, "bad", 0.6)
    assert it.told.restraints == () and it.episode.trials == () and not it.told.directed
    assert "nobody is named" in it.episode.held


def test_an_online_antagonist_is_named_and_not_touched() -> None:
    it = node(HOG)
    it.pods[OTHER] = spec(OTHER, Qos.MID)
    it.suspects = {VICTIM: (suspect(OTHER, qos=Qos.MID),)}
    it.ticks(30, "bad", 0.6)
    assert it.told.restraints == ()
    assert it.episode.suspects[0].uid == OTHER
    assert it.episode.held == f"{OTHER} is online work"


def test_what_is_out_of_scope_is_named_and_not_touched() -> None:
    it = node(HOG, scope=frozenset())
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(30, "bad", 0.6)
    assert it.told.restraints == ()
    assert "scope" in it.episode.held


def test_an_observing_agent_tries_nothing_and_says_so() -> None:
    it = node(HOG, mode=Mode.OBSERVE)
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(30, "bad", 0.6)
    assert it.told.restraints == () and it.episode.trials == () and not it.told.directed
    assert it.episode.suspects[0].named
    assert "observes" in it.episode.held


def test_without_act_the_antagonist_is_named_only() -> None:
    it = node(HOG, policy=InterferencePolicy(act=False))
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(30, "bad", 0.6)
    assert it.told.restraints == () and not it.told.directed
    assert "named only" in it.episode.held


def test_a_trial_is_cut_short_when_the_agent_begins_to_observe() -> None:
    it = on_trial()
    it.mode = Mode.OBSERVE
    it.tick("bad", 0.6)
    assert it.told.restraints == ()
    assert it.results[:1] == ["cut-short"]


def test_a_trial_is_cut_short_when_the_suspect_is_gone_or_another_has_its_name() -> None:
    it = on_trial()
    del it.pods[HOG]
    it.tick("bad", 0.6)
    assert it.told.restraints == () and it.results[:1] == ["cut-short"]
    it = on_trial()
    it.pods[HOG] = spec(HOG, inode=77)
    it.tick("calm", 0.0)
    assert it.told.restraints == () and it.results[:1] == ["cut-short"]


def test_a_trial_ends_with_the_victim() -> None:
    it = on_trial()
    del it.pods[VICTIM]
    it.tick("calm")
    assert it.told.restraints == ()
    (last,) = it.cleared
    assert last.trials[0].result is TrialResult.CUT_SHORT
    it.tick("calm")
    assert it.told.episodes == () and len(it.cleared) == 1


def test_what_the_suspect_did_not_use_proves_nothing() -> None:
    it = on_trial()
    it.uses[HOG] = 0.01  # it has stopped by itself
    it.ticks(10, "calm", 0.0)
    assert it.results[:1] == ["cut-short"]
    assert it.told.restraints == ()


def test_while_batch_as_a_whole_is_held_down_no_tick_counts() -> None:
    it = on_trial(limit_cores=2.0)
    it.limit_cores = 0.5
    it.ticks(12, "calm", 0.0)
    assert it.results[:1] == ["running"], "that it is calm proves nothing against HOG"
    it.limit_cores = 2.0
    it.ticks(6, "calm", 0.0)
    assert it.results[:1] == ["kept"]


def test_a_trial_that_nothing_can_be_compared_in_ends() -> None:
    it = on_trial(limit_cores=2.0)
    it.limit_cores = 0.5
    it.ticks(30, "odd", 0.1)
    assert it.results[:1] == ["cut-short"]
    assert it.told.restraints == ()


def test_a_victim_that_waits_far_too_long_all_the_same_ends_the_trial() -> None:
    it = on_trial()
    it.ticks(3, "bad", 0.6, stall=0.6)
    assert list(it.told.directed) == [VICTIM]
    it.ticks(2, "bad", 0.6, stall=0.6)
    assert not it.told.directed, "the AIMD law takes over"
    it.ticks(2, "bad", 0.6, stall=0.6)
    assert it.results[:1] == ["undone"]
    assert it.at - it.episode.trials[0].began < it.policy.trial_s


def test_ticks_that_come_early_count_once() -> None:
    it = on_trial()
    it.ticks(3, "calm", 0.0)
    for _ in range(20):
        it.tick("bad", 0.9, dt_s=0.05)  # a burst of wakes by PSI in one second
    it.ticks(7, "calm", 0.0)
    assert it.results[:1] == ["kept"]


def test_while_the_victim_is_not_seen_the_cap_stays_and_nothing_is_judged() -> None:
    it = on_trial()
    it.ticks(25, "blind", None)
    assert it.quota(HOG) == 0.5
    assert it.results[:1] == ["running"]
    it.ticks(10, "calm", 0.0)
    assert it.results[:1] == ["kept"]


def test_a_victim_that_stays_unseen_keeps_the_cap_until_it_is_seen() -> None:
    it = on_trial()
    it.ticks(100, "blind", None)
    assert it.results[:1] == ["cut-short"]
    assert it.quota(HOG) == 0.5, "blindness is not permission"
    it.tick("calm", 0.0)
    assert it.told.restraints == (), "and nothing was proven"


def test_one_trial_at_a_time_for_all_victims() -> None:
    it = node(HOG, SHARK)
    it.pods[OTHER] = spec(OTHER, Qos.LS)
    it.suspects = {VICTIM: (suspect(HOG),), OTHER: (suspect(SHARK),)}
    for _ in range(8):
        it.tick({VICTIM: "bad", OTHER: "bad"}, 0.6)
        assert len(it.told.restraints) <= 1
    waiting = [e for e in it.told.episodes if not e.trials]
    assert len(waiting) == 1 and waiting[0].held == "another trial is under way"


def test_of_two_the_one_that_hurts_more_victims_is_tried_first() -> None:
    it = node(HOG, SHARK)
    it.pods[OTHER] = spec(OTHER, Qos.LS)
    it.suspects = {
        VICTIM: (suspect(HOG, contribution=0.5), suspect(SHARK, contribution=0.4)),
        OTHER: (suspect(SHARK, contribution=0.9),),
    }
    for _ in range(4):
        it.tick({OTHER: "bad", VICTIM: "bad"}, 0.6)
    assert it.restraint(SHARK) is not None and it.restraint(HOG) is None


def test_the_cap_has_a_floor_and_still_shows() -> None:
    it = node(HOG)
    it.uses[HOG] = 0.16
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(3, "bad", 0.6)
    assert it.quota(HOG) == 0.1
    it = node(HOG)
    it.uses[HOG] = 0.1
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(3, "bad", 0.6)
    assert it.quota(HOG) == 0.05


def test_low_priority_goes_down_to_the_least_of_a_pod() -> None:
    it = node(HOG)
    it.pods[HOG] = replace(it.pods[HOG], priority=Priority.LOW)
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(3, "bad", 0.6)
    assert it.quota(HOG) == 0.5
    it.ticks(10, "bad", 0.3)
    it.ticks(200, "bad", 0.3)
    quota = it.quota(HOG)
    assert quota is not None and quota < 0.1


def test_of_other_resources_than_cpu_a_suspect_keeps_a_quarter() -> None:
    it = node(HOG)
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(3, "bad", 2.0, channel=Channel.LLC)
    assert it.quota(HOG) == 0.25


def test_only_as_far_as_the_policy_goes_something_is_tried() -> None:
    it = node(HOG, policy=InterferencePolicy(top_rung=1))
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(3, "bad", 0.6)
    found = it.restraint(HOG)
    assert found is not None and found.rung is Rung.IDLE and found.idle and found.quota_cores is None
    it = node(HOG, policy=InterferencePolicy(top_rung=0))
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(30, "bad", 0.6)
    assert it.told.restraints == ()


def test_a_suspect_that_is_quiet_now_is_not_tried_until_it_works() -> None:
    it = node(HOG)
    it.uses[HOG] = 0.0
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(5, "bad", 0.6)
    assert it.told.restraints == () and it.episode.held == ""
    it.uses[HOG] = 1.0
    it.ticks(1, "bad", 0.6)
    assert it.quota(HOG) == 0.5


def test_a_cap_that_somebody_else_overwrites_proves_nothing() -> None:
    it = on_trial()
    it.obeys = False
    it.ticks(8, "calm", 0.0)
    assert it.results == ["cut-short"]
    assert it.told.restraints == () and it.course.doubts == ()
