"""Episodes: what is told of one victim's trouble, from its opening to its clearing, once."""

from __future__ import annotations

from msgspec import msgpack

from nodeagent.model.interference import Action, Episode, Gate, Rejection, Rung, State, Verdict
from nodeagent.model.pod import Qos
from nodeagent.model.symptom import Channel
from tests.unit import samples
from tests.unit.troubled_node import HOG, OTHER, VICTIM, TroubledNode, node, spec, suspect, verdict


def told_once(it: TroubledNode) -> list[str]:
    return [e.id for e in it.cleared]


def test_an_episode_opens_when_a_verdict_is_confirmed_and_not_before() -> None:
    it = node(HOG)
    it.ticks(5, "odd", 0.3)
    assert it.told.episodes == ()
    it.tick("bad", 0.6)
    episode = it.episode
    assert (episode.victim, episode.victim_name, episode.channel) == (VICTIM, VICTIM, Channel.CPU)
    assert episode.opened_at == it.at and episode.state is State.CONFIRMED
    assert [a.sign for a in episode.evidence] == ["cpu.stall"]


def test_an_episode_clears_once_after_some_calm_and_was_over_when_the_calm_began() -> None:
    it = node(HOG)
    it.ticks(3, "bad", 0.6)
    began = it.at + 1.0
    it.ticks(5, "calm", 0.0)
    assert it.episode.cleared_unix is None
    it.tick("calm", 0.0)
    (last,) = it.told.episodes
    assert last.cleared_unix == samples.UNIX_AT_BOOT + began and last.state is State.CALM
    it.ticks(3, "calm", 0.0)
    assert it.told.episodes == () and told_once(it) == [last.id]
    assert it.course.cases == {}


def test_what_flaps_is_one_episode() -> None:
    it = node(HOG)
    it.tick("bad", 0.6)
    first = it.episode.id
    for _ in range(20):
        it.ticks(3, "calm", 0.0)
        it.ticks(2, "bad", 0.6)
    assert it.episode.id == first and told_once(it) == []


def test_what_is_not_known_neither_opens_nor_clears() -> None:
    it = node(HOG)
    it.ticks(50, "blind", None)
    assert it.told.episodes == ()
    it.tick("bad", 0.6)
    it.ticks(300, "blind", None)
    assert it.episode.cleared_unix is None
    it.ticks(3, "calm", 0.0)
    it.tick("blind", None)
    it.ticks(5, "calm", 0.0)
    assert it.episode.cleared_unix is None, "calm counts without a break only"
    it.tick("calm", 0.0)
    assert len(told_once(it)) == 1


def test_a_victim_without_a_verdict_is_not_known_to_be_well() -> None:
    it = node(HOG)
    it.tick("bad", 0.6)
    for _ in range(50):
        it.tick({})
    assert it.episode.cleared_unix is None


def test_a_victim_that_its_application_calls_well_is_well() -> None:
    it = node(HOG)
    it.tick("bad", 0.6)
    alarm = verdict(VICTIM, "odd").alarms[0]
    well = Verdict(
        VICTIM, State.SUSPECT, 0.8, Channel.CPU, (alarm,), (Rejection(alarm, Gate.HEALTHY, "slack 0.7"),)
    )
    for _ in range(6):
        it.tick_with((well,))
    assert len(told_once(it)) == 1


def test_ids_are_unique_and_the_same_in_a_replay() -> None:
    def ids(boot_id: str = samples.BOOT_ID) -> list[str]:
        it = node(HOG, boot_id=boot_id)
        it.pods[OTHER] = spec(OTHER, Qos.MID)
        for _ in range(3):
            it.tick({VICTIM: "bad", OTHER: "bad"}, 0.6)
            for _ in range(6):
                it.tick({VICTIM: "calm", OTHER: "calm"}, 0.0)
        return told_once(it)

    first = ids()
    assert len(set(first)) == 6
    assert ids() == first
    assert not set(ids("aaaaaaaa-8f0f-4b6c-9a2e-0c53c1d1a7b4")) & set(first)


def test_the_evidence_is_kept_at_its_worst() -> None:
    it = node(HOG)
    for value in (0.3, 0.9, 0.5):
        it.tick("bad", value)
    assert it.episode.evidence[0].value == 0.9


def test_a_change_of_channel_is_told() -> None:
    it = node(HOG)
    it.tick("bad", 0.6)
    before = it.episode.changed
    it.tick("bad", 0.6, channel=Channel.LLC)
    assert it.episode.channel is Channel.LLC and it.episode.changed == before + 1


def test_each_change_is_counted_once_and_quiet_ticks_are_none() -> None:
    it = node(HOG)
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(13, "bad", 0.3)
    counted = it.episode.changed
    it.ticks(3, "odd", 0.1)
    assert it.episode.changed == counted


def test_actions_tell_what_was_done_and_why() -> None:
    it = node(HOG)
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(3, "bad", 0.6)
    it.ticks(10, "calm", 0.0)
    assert it.episode.actions == (
        Action(samples.UNIX_AT_BOOT + 1003.0, HOG, Rung.QUOTA, "trial: 0.50 cores for 10 s"),
        Action(
            samples.UNIX_AT_BOOT + 1013.0,
            HOG,
            Rung.QUOTA,
            "kept: cpu.stall above its ordinary 0.6 before, 0 during",
        ),
    )


def test_a_new_trouble_while_somebody_is_held_is_a_new_episode() -> None:
    it = node(HOG)
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(3, "bad", 0.6)
    first = it.episode.id
    it.ticks(20, "calm", 0.0)
    assert told_once(it) == [first] and it.told.restraints[0].episode == first
    it.ticks(12, "bad", 0.6)
    assert it.episode.id != first
    assert it.told.restraints[0].episode == it.episode.id, "who is held harder is held for the new one"


def test_there_are_only_so_many_episodes_the_worst_first() -> None:
    it = node(HOG)
    names = [f"web{n}" for n in range(40)]
    it.pods.update({name: spec(name, Qos.LS) for name in names})
    for _ in range(3):
        it.tick(dict.fromkeys(names, "bad"), 0.6)
    assert len(it.told.episodes) == 16
    assert it.ranked <= 3 * 4, "and the suspects of four at most are looked for in one tick"
    for _ in range(20):
        it.tick(dict.fromkeys(names, "calm"), 0.0)
    assert it.course.cases == {} and len(told_once(it)) == 16


def test_suspects_are_looked_for_every_few_seconds_only() -> None:
    it = node(HOG)
    it.ticks(30, "bad", 0.6)
    assert 9 <= it.ranked <= 11


def test_a_reboot_ends_all_of_it() -> None:
    it = node(HOG)
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(8, "bad", 0.3)
    assert it.told.restraints
    it.boot_id, it.at = "00000000-0000-0000-0000-000000000000", 10.0
    it.tick("calm", 0.0)
    assert it.told.restraints == () and it.told.episodes == ()


def test_verdicts_worth_telling_are_those_not_calm_or_rejected() -> None:
    it = node(HOG)
    it.pods[OTHER] = spec(OTHER, Qos.LS)
    alarm = verdict(VICTIM, "bad").alarms[0]
    stopped = Verdict(OTHER, State.CALM, rejections=(Rejection(alarm, Gate.OWN_QUOTA, "throttled 0.4"),))
    told = it.tick_with((Verdict(VICTIM, State.CALM), stopped))
    assert told.verdicts == (stopped,)


def test_an_episode_is_a_value_of_the_journal() -> None:
    it = node(HOG)
    it.suspects = {VICTIM: (suspect(HOG),)}
    it.ticks(13, "bad", 0.3)
    assert msgpack.decode(msgpack.encode(it.episode), type=Episode) == it.episode
