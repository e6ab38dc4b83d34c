"""Batch pods of a test's own in every hierarchy, and the real loop on them, told whom to hold to what."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from nodeagent.core import interference
from nodeagent.hands import Acting
from nodeagent.host import Host
from nodeagent.keep import Keeper
from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.kernel.place import make_pod_cgroup, remove_pod_cgroup
from nodeagent.loop import Loop
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.errors import AgentError
from nodeagent.model.interference import Interference, Restraint, Rung
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.pod import PodRule, Qos
from nodeagent.model.policy import CpuPolicy, Policy
from nodeagent.model.settings import Actuator, AgentSettings
from nodeagent.originals import Originals
from nodeagent.restore import give_back

FILES = (
    "cpu.cfs_quota_us", "cpu.max", "cpu.shares", "cpu.weight", "cpu.idle", "cpuset.cpus", "memory.high",
    "memory.soft_limit_in_bytes", "io.weight", "io.bfq.weight", "blkio.bfq.weight", "cgroup.freeze",
    "freezer.state",
)  # fmt: skip
_names = itertools.count()


class Pods:
    """Pods below a directory of this test, and the processes in them."""

    def __init__(self) -> None:
        self.hierarchies: Hierarchies = find_hierarchies()
        self.top = f"na-test-held-{os.getpid()}-{next(_names)}"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._made: list[str] = []

    def make(self, name: str, command: str = "exec sleep 300") -> str:
        """A pod in which a shell runs `command`; its cgroup."""
        path = f"{self.top}/{name}"
        procs = make_pod_cgroup(self.hierarchies, path).procs
        self._made.append(path)
        process = subprocess.Popen(["sh", "-c", f"read go; {command}"], stdin=subprocess.PIPE)
        self._processes.append(process)
        for file in procs:
            Path(file).write_text(str(process.pid))
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
        return path

    def file(self, path: str, *names: str) -> Path:
        """The first of these files that a cgroup has; skips the test where it has none."""
        for name in names:
            for hierarchy in self.hierarchies.all:
                if (found := Path(hierarchy.root, path, name)).exists():
                    return found
        pytest.skip(f"no {' or '.join(names)} on this host")

    def alive(self, number: int = 0) -> bool:
        return self._processes[number].poll() is None

    def pid(self, number: int = 0) -> int:
        return self._processes[number].pid

    def texts(self) -> dict[str, str]:
        """Every knob file below the directory, as it is."""
        tops = [Path(hierarchy.root, self.top) for hierarchy in self.hierarchies.all]
        found = (path for top in tops for path in sorted(top.rglob("*")) if path.name in FILES)
        return {str(path): path.read_text() for path in found}

    def remove(self) -> None:
        for path in self._made:
            for name, text in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
                for hierarchy in self.hierarchies.all:
                    if (file := Path(hierarchy.root, path, name)).exists():
                        file.write_text(text)
            remove_pod_cgroup(self.hierarchies, path, grace_s=0.1)
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
            process.wait()


class Quiet:
    """A listener that keeps the last tick, and what kept one from coming."""

    def __init__(self) -> None:
        self.last: Tick | None = None
        self.skips: list[AgentError] = []

    def ticked(self, tick: Tick, policy: Policy, memory_before: Memory, duration_s: float) -> None:  # noqa: ARG002
        self.last = tick

    def skipped(self, error: AgentError) -> None:
        self.skips.append(error)


class Held:
    """The loop with its host and its ledger; `restraints` hold from the next tick on."""

    def __init__(self, pods: Pods, home: Path, enforce: tuple[Actuator, ...] = tuple(Actuator)) -> None:
        settings = AgentSettings(
            state_dir=str(home / "state"),
            run_dir=str(home / "run"),
            enforce=tuple(each for each in enforce if each is not Actuator.NIC),
        )
        whole = CpuPolicy(floor_cores=float(os.cpu_count() or 1))  # whatever else runs on this machine
        policy = Policy(scope=(f"{pods.top}/**",), cpu=whole)
        self.host = Host(settings, (PodRule(match=f"{pods.top}/*", qos=Qos.BATCH),), policy)
        self.originals = Originals(settings.state_dir, self.host.boot_id)
        keeper = Keeper("/", self.host.hierarchies.versions, self.originals)
        self.restraints: tuple[Restraint, ...] = ()
        self.told = Quiet()
        acting = Acting(self.host, self.originals, keeper, settings.enforce)
        self.loop = Loop(
            self.host, self.originals, acting, policy=policy, memory=Memory(), listener=self.told
        )

    def tick(self, *restraints: Restraint) -> Tick:
        self.restraints = restraints
        tick = self.loop.tick("test")
        assert tick is not None, self.told.skips
        return tick

    def ticks(self, *restraints: Restraint) -> Tick:
        """Two: the first one tells what is to be read."""
        self.tick(*restraints)
        return self.tick(*restraints)

    def leave(self) -> None:
        """All given back, as at the end of an agent."""
        done = give_back(self.originals, self.host.knobs)
        assert not done.failed and not done.left

    def close(self) -> None:
        self.host.close()
        self.originals.close()


def hold(cgroup: str, rung: Rung = Rung.QUOTA, **held: object) -> Restraint:
    """For a minute."""
    whole: dict[str, object] = {"uid": cgroup, "cgroup": cgroup, "rung": rung, "episode": "test", **held}
    return Restraint(until=time.monotonic() + 60.0, why="test", **whole)  # type: ignore[arg-type]  # of the test


@contextmanager
def held_pods() -> Iterator[Pods]:
    """Skips the test where cgroups cannot be made."""
    pods = Pods()
    try:
        try:
            pods.make("probe")
        except (AgentError, OSError) as error:
            pytest.skip(f"cannot make a cgroup: {error}")
        yield pods
    finally:
        pods.remove()


@contextmanager
def holding(
    pods: Pods, home: Path, monkeypatch: pytest.MonkeyPatch, enforce: tuple[Actuator, ...] = tuple(Actuator)
) -> Iterator[Held]:
    """The loop, whose course of episodes the test says; all is given back in the end, whatever happens."""
    with closing(Held(pods, home, enforce)) as made:
        monkeypatch.setattr(interference, "watch", course(lambda: made.restraints))
        try:
            yield made
        finally:
            made.leave()


def course(
    restraints: Callable[[], tuple[Restraint, ...]],
) -> Callable[..., tuple[Interference, InterferenceMemory]]:
    """In place of the detector: what it would come to."""
    return lambda *_: (Interference(restraints=restraints()), InterferenceMemory())
