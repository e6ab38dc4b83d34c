"""Hands under a directive to observe: files and systemd have what they had before, and get ours after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from nodeagent import hands, keep
from nodeagent.core.diff import diff
from nodeagent.hands import Acting, Directed
from nodeagent.model.plan import Kind, Knob, Setting
from nodeagent.model.settings import Mode
from nodeagent.restore import give_back
from nodeagent.units import patience
from tests.unit import samples
from tests.unit.systemd_socket import Agent, Systemd

PATH, UNIT = "batch.slice/u0.service", "u0.service"
QUOTA = Knob(Kind.CPU_QUOTA, PATH)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    with Systemd(tmp_path, [PATH], "252").listening() as systemd:
        yield systemd


class Obeying:
    """An agent whose hands obey directives; `leaves` counts how often it has given everything back."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.leaves, self.stuck = agent, 0, False
        self.hands = Directed(Acting(agent._host, agent.originals, agent.keeper), self.leave)

    def leave(self) -> bool:
        self.leaves += 1
        if not self.stuck:
            give_back(self.agent.originals, self.agent.knobs, self.agent.keeper)
        return not self.agent.originals.held

    def tick(self, mode: Mode) -> int:
        """One tick that wants half a core; how much was written."""
        readings = self.agent.knobs.read([QUOTA], self.agent.originals.held)
        self.agent.originals.recognise(readings, self.agent.knobs.inode)
        self.hands.look(readings)
        changes = diff({QUOTA: Setting(QUOTA, 0.5, "test", "")}, readings)
        decision = replace(samples.tick(1).decision, mode=mode, shaping=None)
        outcomes = self.hands.write(changes, decision)
        self.hands.follow(outcomes)
        return len(outcomes)


@pytest.fixture
def obeying(tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Obeying]:
    monkeypatch.setattr(keep, "PACE_S", 0.0)
    monkeypatch.setattr(patience, "PACE_S", 0.0)
    agent = Agent(tmp_path, [QUOTA])
    yield Obeying(agent)
    agent.close()


def test_all_is_given_back_once_and_set_again_afterwards(systemd: Systemd, obeying: Obeying) -> None:
    before = systemd.quota(PATH)
    assert obeying.tick(Mode.ENFORCE) == 1
    assert systemd.quota(PATH) == 0.5 and systemd.dropins(UNIT)
    assert [obeying.tick(Mode.OBSERVE) for _ in range(3)] == [0, 0, 0]
    assert (systemd.quota(PATH), obeying.leaves, obeying.hands.writes) == (before, 1, False)
    assert not systemd.dropins(UNIT), "systemd keeps nothing of ours either"
    assert obeying.tick(Mode.ENFORCE) == 1
    assert obeying.hands.writes
    assert systemd.quota(PATH) == 0.5 and systemd.dropins(UNIT)
    obeying.tick(Mode.OBSERVE)
    assert (systemd.quota(PATH), obeying.leaves) == (before, 2)


def test_what_could_not_be_given_back_is_tried_again_later_not_each_tick(
    obeying: Obeying, monkeypatch: pytest.MonkeyPatch
) -> None:
    obeying.tick(Mode.ENFORCE)
    obeying.stuck = True
    for _ in range(5):
        obeying.tick(Mode.OBSERVE)
    assert obeying.leaves == 1
    monkeypatch.setattr(hands, "LEAVE_AGAIN_S", 0.0)
    obeying.hands._leave_at = 0.0
    obeying.tick(Mode.OBSERVE)
    obeying.stuck = False
    obeying.tick(Mode.OBSERVE)
    assert obeying.leaves == 3 and not obeying.agent.originals.held
    obeying.tick(Mode.OBSERVE)
    assert obeying.leaves == 3
