"""What the loop's wait tells: what calls for a tick, and whether time was spent on something else."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from nodeagent.hands import Idle
from nodeagent.host import Host
from nodeagent.loop import Loop
from nodeagent.model.decision import Memory
from nodeagent.model.directive import DirectiveStatus, Refusal
from nodeagent.model.policy import Policy
from nodeagent.model.settings import AgentSettings
from nodeagent.originals import Originals
from tests.live.restrained_place import Quiet

pytestmark = pytest.mark.live


class Bell:
    """Somebody who may ask for a directive, and asks for nothing."""

    def __init__(self) -> None:
        self.rings, self._heard = socket.socketpair()

    def news(self) -> tuple[tuple[DirectiveStatus, ...], tuple[Refusal, ...]]:
        return (), ()

    def fileno(self) -> int:
        return self._heard.fileno()

    def drain(self) -> None:
        self._heard.recv(100)

    def close(self) -> None:
        self.rings.close()
        self._heard.close()


def test_a_wait_in_which_somebody_asked_was_spent_on_that_and_the_next_one_was_not(tmp_path: Path) -> None:
    settings = AgentSettings(state_dir=str(tmp_path / "state"), run_dir=str(tmp_path / "run"))
    nobody, signals = socket.socketpair()
    with (
        nobody,
        signals,
        closing(Bell()) as bell,
        closing(Host(settings, ())) as host,
        closing(Originals(settings.state_dir, host.boot_id)) as originals,
    ):
        loop = Loop(host, originals, Idle(), policy=Policy(), memory=Memory(), listener=Quiet(), asked=bell)
        bell.rings.send(b".")
        assert (loop.wait(time.monotonic() + 0.2, signals.fileno()), loop.at_work) == ("directive", True)
        assert (loop.wait(time.monotonic() + 0.05, signals.fileno()), loop.at_work) == ("timer", False)
        nobody.send(b".")
        assert loop.wait(time.monotonic() + 10.0, signals.fileno()) == "signal"
