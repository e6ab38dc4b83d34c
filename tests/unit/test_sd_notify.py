"""What systemd is told, on a real datagram socket."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.report import sd_notify
from nodeagent.report.sd_notify import Supervisor


class Systemd:
    """The end of the socket that systemd has."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(address.replace("@", "\0", 1))

    def heard(self) -> list[str]:
        """All messages since the last call."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(f"{tmp_path}/notify" if request.param == "path" else f"@na-test-{os.getpid()}")
    yield made
    made.socket.close()


def told(systemd: Systemd, **more: str) -> Supervisor:
    return Supervisor({"NOTIFY_SOCKET": systemd.address, **more})


def test_ready_is_said_once_and_later_only_what_changed_and_not_too_often(
    systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = told(systemd)
    for line in ("one", "one", "two", "three"):
        supervisor.ready(line)
    assert systemd.heard() == ["READY=1\nSTATUS=one", "STATUS=two"]
    monkeypatch.setattr(sd_notify, "STATUS_S", 0.0)
    for line in ("three", "three", "four\nREADY=0"):
        supervisor.ready(line)
    assert systemd.heard() == ["STATUS=three", "STATUS=four READY=0"]


def test_before_the_first_complete_tick_there_is_a_line_and_no_ready_not_even_by_a_reload(
    systemd: Systemd,
) -> None:
    supervisor = told(systemd)
    supervisor.status("changing nothing")
    supervisor.reloading()
    supervisor.reloaded()
    assert systemd.heard() == ["STATUS=changing nothing"]
    supervisor.ready("well")
    assert systemd.heard() == ["READY=1\nSTATUS=well"]


def test_a_reload_begins_with_the_time_of_the_monotonic_clock_and_ends_with_ready(systemd: Systemd) -> None:
    supervisor = told(systemd)
    supervisor.ready("well")
    systemd.heard()
    supervisor.reloading()
    supervisor.reloaded("a.toml:3: unknown key")
    supervisor.ready("well")
    supervisor.stopping("giving all back")
    begin, end, refused, stop = systemd.heard()
    assert refused == "STATUS=well; configuration refused: a.toml:3: unknown key"
    reloading, usec = begin.split("\n")
    assert reloading == "RELOADING=1"
    name, equals, value = usec.partition("=")
    assert (name, equals) == ("MONOTONIC_USEC", "=")
    clock_us = float(Path("/proc/uptime").read_text().split()[0]) * 1e6  # starts with the monotonic one
    assert abs(int(value) - clock_us) < 60e6
    assert (end, stop) == ("READY=1", "STOPPING=1\nSTATUS=giving all back")


def test_while_nobody_reads_nothing_waits_and_ready_is_said_again_until_it_is_taken(systemd: Systemd) -> None:
    supervisor = told(systemd, WATCHDOG_USEC="1")
    for _ in range(1000):  # more than a queue holds (net.unix.max_dgram_qlen)
        supervisor.stopping("noise")
    supervisor.ready("lost")
    supervisor.alive()
    assert {text.partition("\n")[0] for text in systemd.heard()} == {"STOPPING=1"}
    supervisor.ready("taken")
    assert supervisor.alive() == sd_notify.SOON_S
    assert systemd.heard() == ["READY=1\nSTATUS=taken", "WATCHDOG=1"]


def test_the_watchdog_is_fed_four_times_a_period_however_often_the_loop_comes_round(systemd: Systemd) -> None:
    supervisor = told(systemd, WATCHDOG_USEC="40000000", WATCHDOG_PID=str(os.getpid()))
    waits = [supervisor.alive() for _ in range(100)]
    assert systemd.heard() == ["WATCHDOG=1"]
    assert all(9.0 < wait <= 10.0 for wait in waits)


@pytest.mark.parametrize("pid", [str(os.getpid() + 1), "1", "x"])
def test_a_watchdog_of_another_process_is_not_ours(systemd: Systemd, pid: str) -> None:
    supervisor = told(systemd, WATCHDOG_USEC="40000000", WATCHDOG_PID=pid)
    assert supervisor.alive() == math.inf
    assert systemd.heard() == []


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "many"},
        {"WATCHDOG_USEC": "1000000"},
    ],
)
def test_without_a_supervisor_nothing_happens(env: dict[str, str]) -> None:
    supervisor = Supervisor(env)
    supervisor.ready("one")
    supervisor.reloading()
    supervisor.reloaded()
    supervisor.stopping("over")
    assert supervisor.alive() == math.inf
    supervisor.close()
    supervisor.ready("after the end")
    assert env == {}


def test_a_process_that_is_started_has_neither_the_socket_nor_its_name(systemd: Systemd) -> None:
    env = {**os.environ, "NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    supervisor = Supervisor(env)
    supervisor.ready("one")
    look = "import os; print(sorted(os.environ), os.listdir('/proc/self/fd'))"
    words = [sys.executable, "-c", look]
    child, plain = (
        subprocess.run(words, env=each, capture_output=True, text=True, check=True, close_fds=False).stdout
        for each in (env, {k: v for k, v in os.environ.items() if "WATCHDOG" not in k})
    )
    assert not any(word in child for word in ("NOTIFY", "WATCHDOG"))
    assert child.count(",") == plain.count(",")
