"""What a real agent tells its supervisor, over a real socket; systemd itself is in tests/vm/inside."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.running import running, until

pytestmark = pytest.mark.live
NODE = {"agent__mode": "observe", "grpc__address": ""}


class Supervisor:
    """Hears what the agent sends; `through` makes an agent one that is supervised."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(str(path))
        self.through = ("env", f"NOTIFY_SOCKET={path}")
        self.heard: list[str] = []

    def hears(self, *beginnings: str) -> bool:
        """True once messages that begin so have come, in this order; others may be between."""
        try:
            while True:
                self.heard.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            pass
        came = iter(self.heard)
        return all(any(text.startswith(each) for text in came) for each in beginnings)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "notify")
    yield made
    made.socket.close()


def test_ready_comes_with_a_line_and_a_reload_and_the_end_are_told(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    file = tmp_path / "nodeagent.toml"
    file.write_text("")
    with running(tmp_path, file, supervisor.through, **NODE) as agent:
        until(lambda: supervisor.hears("READY=1\nSTATUS=observing; offers "), "it is ready")
        file.write_text("[cpu]\nflor_cores = 1.0\n")
        agent.process.send_signal(signal.SIGHUP)
        until(lambda: supervisor.hears("READY=1", "RELOADING=1\nMONOTONIC_USEC=", "READY=1"), "a reload")
        assert agent.stop() == 0
    assert supervisor.hears("RELOADING=1", "STOPPING=1\nSTATUS=giving all values back")


def test_the_watchdog_is_fed_in_a_wait_that_is_longer_than_its_period(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    through = (*supervisor.through, "WATCHDOG_USEC=1000000")
    with running(tmp_path, None, through, **{**NODE, "agent__tick_s": 60.0}) as agent:
        until(lambda: supervisor.hears("READY=1", *["WATCHDOG=1"] * 5), "food in one wait")
        assert agent.process.poll() is None


def test_an_agent_that_the_watchdog_ends_says_where_it_was(tmp_path: Path, supervisor: Supervisor) -> None:
    through = (*supervisor.through, "WATCHDOG_USEC=60000000")
    with running(tmp_path, None, through, **NODE) as agent:
        until(lambda: supervisor.hears("READY=1"), "it is ready")
        agent.process.send_signal(signal.SIGABRT)
        assert agent.process.wait(20) == -signal.SIGABRT
    text = agent.log_path.read_text()
    assert "Fatal Python error: Aborted" in text
    assert "loop.py" in text
