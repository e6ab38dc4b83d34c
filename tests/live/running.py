"""A real agent and real commands under it, started by tests and ended with them, whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.cpuset import CpuSet

NODEAGENT = (sys.executable, "-m", "nodeagent")
# How many times slower than a machine of its own this one is (20 when emulated): waits are that much longer.
SLOWNESS = float(os.environ.get("NODEAGENT_TEST_SLOWNESS", "1"))
TIMEOUT_S = 20.0 * SLOWNESS
SPIN = "while :; do :; done"


def until(true: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait for a condition; AssertionError when it does not come in that time on a machine of its own."""
    begin = time.monotonic()
    while not true():
        waited_s = time.monotonic() - begin
        assert waited_s < timeout_s * SLOWNESS, f"waited {waited_s:.0f} s in vain: {what}"
        time.sleep(0.02)


def cpu_file(path: str) -> Path:
    """A file of the cpu controller."""
    return Path(find_hierarchies("/").roots["cpu"].root, path)


def held_set(path: str, name: str = "cpus") -> CpuSet:
    """The CPUs, or the "mems", that really hold for a cgroup."""
    hierarchy = find_hierarchies("/").roots["cpuset"]
    file = f"cpuset.{name}" if hierarchy.version == 1 else f"cpuset.{name}.effective"
    return CpuSet.parse(Path(hierarchy.root, path, file).read_text())


class RunningAgent:
    """`nodeagent run` on its own state and run directories, without a fixed port.

    `through` are words before it: a command that executes it.
    """

    def __init__(
        self, home: Path, config: Path | None = None, through: Sequence[str] = (), **values: object
    ) -> None:
        self.home = home
        self.state, self.runtime = home / "state", home / "run"
        settings: dict[str, object] = {
            "agent.state_dir": self.state,
            "agent.run_dir": self.runtime,
            "http.address": "",
            "agent.tick_s": 0.25,
            "log.level": "debug",
            **{key.replace("__", "."): value for key, value in values.items()},
        }
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        words += ["--config", str(config)] if config else []
        self.log_path = home / f"log-{time.monotonic_ns()}"
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen([*through, *NODEAGENT, "run", *words], stderr=log, stdout=log)

    def events(self) -> list[dict[str, Any]]:
        """The structured events so far."""
        lines = self.log_path.read_bytes().split(b"\n")
        return [json.loads(line) for line in lines[:-1] if line.startswith(b"{")]

    def named(self, name: str) -> list[dict[str, Any]]:
        """Events of one name."""
        return [event for event in self.events() if event["event"] == name]

    def ready(self) -> RunningAgent:
        """Wait until it runs; AssertionError with its log when it does not."""
        until(
            lambda: bool(self.named("agent.started")) or self.process.poll() is not None,
            f"agent.started in {self.log_path.read_text()}",
        )
        assert self.process.poll() is None, self.log_path.read_text()
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it and wait; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def get(self, path: str) -> str:
        """The body of an HTTP page."""
        address = self.named("http.listening")[0]["address"]
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5 * SLOWNESS) as answer:
            body: bytes = answer.read()
        return body.decode()


@contextlib.contextmanager
def running(
    home: Path, config: Path | None = None, through: Sequence[str] = (), **values: object
) -> Iterator[RunningAgent]:
    """An agent that is ready, and stopped on leaving."""
    agent = RunningAgent(home, config, through, **values)
    try:
        yield agent.ready()
    finally:
        if agent.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                agent.stop()
        if agent.process.poll() is None:
            agent.process.kill()
            agent.process.wait()


@contextlib.contextmanager
def executed(
    agent_run_dir: Path, qos: str, name: str, command: str, *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """`nodeagent exec` of a shell command, ended on leaving together with all that it started."""
    words = [*NODEAGENT, "exec", "--qos", qos, "--name", name, "--run-dir", str(agent_run_dir), *options]
    process = subprocess.Popen([*words, "--", "sh", "-c", command])
    try:
        until(lambda: _inhabited(f"nodeagent/{qos}/{name}") or process.poll() is not None, f"pod {name}")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)


def _inhabited(path: str) -> bool:
    """True once a process is there: then the cgroup is there in every hierarchy."""
    try:
        return bool(cpu_file(f"{path}/cgroup.procs").read_text())
    except FileNotFoundError:
        return False


def quota_cores(path: str) -> float | None:
    """The quota of a cgroup in cores, None without a limit."""
    v1 = cpu_file(f"{path}/cpu.cfs_quota_us")
    if v1.exists():
        quota, period = int(v1.read_text()), int(cpu_file(f"{path}/cpu.cfs_period_us").read_text())
        return None if quota < 0 else quota / period
    quota_text, period_text = cpu_file(f"{path}/cpu.max").read_text().split()
    return None if quota_text == "max" else int(quota_text) / int(period_text)


def used_s(path: str) -> float:
    """CPU time, user and system, of the processes that are in a cgroup now."""
    stats = (Path(f"/proc/{pid}/stat") for pid in cpu_file(f"{path}/cgroup.procs").read_text().split())
    fields = [stat.read_text().rpartition(")")[2].split() for stat in stats]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def throttling(path: str) -> tuple[int, float]:
    """(throttled periods, throttled seconds) of a cgroup."""
    stat = dict(line.split() for line in cpu_file(f"{path}/cpu.stat").read_text().splitlines())
    seconds = (
        int(stat["throttled_time"]) / 1e9 if "throttled_time" in stat else int(stat["throttled_usec"]) / 1e6
    )
    return int(stat["nr_throttled"]), seconds


def unique(name: str) -> str:
    """A pod name that no other test run uses."""
    return f"na-test-{os.getpid()}-{name}"
