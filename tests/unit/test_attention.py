"""Which pods are read wholly in each tick."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nodeagent.core.attention import MOST, attended
from nodeagent.model.interference import Episode, Interference, Restraint, Rung, State, Suspect, Verdict
from nodeagent.model.pod import Qos
from nodeagent.model.symptom import Channel
from tests.unit import samples

ONLINE = [samples.pod(number, 1000.0) for number in range(3)]
BATCH = [samples.pod(number, 1000.0, qos=Qos.BATCH) for number in range(3, 6)]
PODS = (*ONLINE, *BATCH)
VICTIM, OTHER = ONLINE[0].spec.uid, ONLINE[1].spec.uid
THEY = {pod.spec.uid for pod in BATCH}


def suspect(uid: str) -> Suspect:
    return Suspect(uid, uid, uid, {}, 0.01, 0.5)


def episode(channel: Channel, *suspects: str, victim: str = VICTIM) -> Episode:
    return Episode(
        id="1",
        victim=victim,
        victim_name="v",
        victim_cgroup="v",
        channel=channel,
        state=State.SUSPECT,
        opened_at=1.0,
        opened_unix=1.0,
        suspects=tuple(map(suspect, suspects)),
    )


def test_without_trouble_nobody_is_attended_to() -> None:
    calm = (Verdict(VICTIM, State.CALM), Verdict(OTHER, State.UNKNOWN, channel=Channel.IO))
    assert attended(Interference(verdicts=calm), PODS) == frozenset()


def test_who_waits_for_cpu_is_and_so_is_who_is_suspected_of_it() -> None:
    verdicts = (Verdict(OTHER, State.SUSPECT, channel=Channel.CPU), Verdict(VICTIM, State.CALM))
    assert attended(Interference(verdicts=verdicts), PODS) == {OTHER}
    one = BATCH[0].spec.uid
    assert attended(Interference(episodes=(episode(Channel.CPU, one),)), PODS) == {VICTIM, one}


def test_who_is_restrained_is_as_long_as_the_trouble_lasts() -> None:
    held = Restraint(uid="held", cgroup="c", rung=Rung.QUOTA, episode="1", until=9.0, why="")
    now = Interference(episodes=(episode(Channel.CPU),), restraints=(held,))
    assert attended(now, PODS) == {VICTIM, "held"}


def test_where_something_else_than_cpu_is_short_all_of_batch_is() -> None:
    verdict = Verdict(VICTIM, State.SUSPECT, channel=Channel.IO)
    assert attended(Interference(verdicts=(verdict,)), PODS) == {VICTIM} | THEY
    assert attended(Interference(episodes=(episode(Channel.MEMORY),)), PODS) == {VICTIM} | THEY


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_there_are_never_more_than_the_bound_and_victims_come_first(
    victims: int, suspects: int, batch: int
) -> None:
    names = [f"s{n}" for n in range(suspects)]
    episodes = tuple(episode(Channel.IO, *names, victim=f"v{n}") for n in range(victims))
    pods = [samples.pod(number, 1000.0, qos=Qos.BATCH, containers=0) for number in range(batch)]
    found = attended(Interference(episodes=episodes), pods)
    assert len(found) <= MOST
    assert {f"v{n}" for n in range(min(victims, MOST))} <= found
    assert victims or not found
