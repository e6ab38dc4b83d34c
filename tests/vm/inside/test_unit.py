"""systemd/nodeagent.service as systemd runs it: hardened, reloaded, stopped, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from nodeagent.model.pod import OWN_TIER
from tests.live.running import SPIN, cpu_file, executed, held_set, quota_cores, unique, until
from tests.vm.inside.guest import ONLY_HERE, QUIET_TICKS, output, sets_of, ticks_of

pytestmark = ONLY_HERE
RUN_DIR = Path("/run/nodeagent")
METRICS = "http://127.0.0.1:9464/metrics"
CONFIG = Path("/etc/nodeagent/nodeagent.toml")


def shown(name: str) -> str:
    return output("systemctl", "show", "--property", name, "--value", "nodeagent")


def said() -> str:
    """The journal of this start and of those before it."""
    return output("journalctl", "--unit", "nodeagent", "--output", "cat", "--no-pager")


def ticks() -> float:
    """How many there were since the start; 0 before."""
    with contextlib.suppress(URLError), urlopen(METRICS) as page:
        return ticks_of(page.read().decode())
    return 0.0


def idle() -> str:
    file = cpu_file(f"{OWN_TIER}/cpu.idle")
    return file.read_text() if file.exists() else "none"


@pytest.fixture
def pod() -> Iterator[str]:
    """A Batch pod under the unit, which was started before it."""
    output("systemctl", "daemon-reload")
    output("systemctl", "start", "nodeagent")
    name = unique("unit")
    try:
        with executed(RUN_DIR, "batch", name, SPIN):
            until(lambda: quota_cores(f"{OWN_TIER}/{name}") is not None, "a quota on the pod")
            yield name
    finally:
        output("systemctl", "stop", "nodeagent")
        CONFIG.unlink(missing_ok=True)


def test_it_bounds_batch_with_the_capabilities_of_the_unit_and_gives_all_back_when_stopped(pod: str) -> None:
    assert shown("ActiveState") == "active"
    assert quota_cores(OWN_TIER) is not None
    assert idle() in ("1\n", "none")
    output("systemctl", "stop", "nodeagent")
    assert quota_cores(OWN_TIER) is None
    assert quota_cores(f"{OWN_TIER}/{pod}") is None
    assert idle() in ("0\n", "none")
    assert (shown("Result"), shown("ExecMainStatus")) == ("success", "0")


def test_daemon_reload_undoes_nothing(pod: str) -> None:
    assert idle() in ("1\n", "none")
    output("systemctl", "daemon-reload")
    assert quota_cores(OWN_TIER) is not None
    assert quota_cores(f"{OWN_TIER}/{pod}") is not None
    assert idle() in ("1\n", "none")


@pytest.fixture
def placed(pod: str) -> Iterator[tuple[str, ...]]:
    """The cgroups of a bound pod, the Batch pod and its tier, under a unit that keeps what it has set."""
    CONFIG.write_text('[agent]\non_exit = "keep"\n[numa]\nplacement = true\n')
    output("systemctl", "restart", "nodeagent")
    bound, batch = unique("placed"), f"{OWN_TIER}/{pod}"
    with executed(RUN_DIR, "ls", bound, "sleep 3600", "--numa", "bind", "--cpus", "1"):
        until(lambda: not held_set(f"nodeagent/ls/{bound}") & held_set(batch), "own cores")
        until(
            lambda: len(held_set(f"nodeagent/ls/{bound}", "mems")) == 1,
            "its memory, once the pages are there",
        )
        yield f"nodeagent/ls/{bound}", batch, OWN_TIER
        CONFIG.unlink()
        output("systemctl", "restart", "nodeagent")


def test_a_restart_moves_no_pod_when_the_file_says_keep(placed: tuple[str, ...]) -> None:
    def restarted() -> bool:
        assert sets_of(placed) == before
        return restart.poll() is not None and ticks() > QUIET_TICKS

    before, main = sets_of(placed), shown("MainPID")
    with subprocess.Popen(["systemctl", "restart", "nodeagent"]) as restart:
        until(restarted, "some ticks of the next one")
    assert shown("MainPID") != main


def test_after_kill_9_systemd_gives_back_first_and_then_starts_it_again(pod: str) -> None:
    before, main = int(shown("NRestarts")), int(shown("MainPID"))
    told = said().count("restored  cpu.quota")
    os.kill(main, signal.SIGKILL)
    until(lambda: int(shown("NRestarts")) == before + 1, "the restart")
    assert said().count("restored  cpu.quota") == told + 2  # the tier and the pod
    until(lambda: quota_cores(f"{OWN_TIER}/{pod}") is not None, "a quota again")
    assert int(shown("MainPID")) != main
