"""Pods of the evaluation: cgroups of its own, siblings as kubelet makes them, each weighing what it requests.

Invariant: what was made is removed, with all that runs in it, however the run ends.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.kernel.place import limit_cpu, make_pod_cgroup, remove_pod_cgroup

ROOT = f"na-eval-{os.getpid()}"
SHARES_PER_CORE = 1024  # of cpu.shares (Kubernetes: pkg/kubelet/cm/helpers_linux.go, MilliCPUToShares)


@dataclass(frozen=True)
class Place:
    """A pod's cgroup and how to get in."""

    name: str
    cgroup: str
    cpu: int | None
    hierarchies: Hierarchies
    procs: tuple[str, ...]

    def run(
        self, words: Sequence[str], environment: Mapping[str, str] | None = None, output: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """A command in this pod, on its CPU if it has one; `output` takes what it says."""
        enter = "".join(f"echo $$ > {shlex.quote(path)}; " for path in self.procs)
        pinned = "" if self.cpu is None else f"taskset -c {self.cpu} "
        script = f"{enter}exec {pinned}{shlex.join(words)}"
        with open(output or os.devnull, "ab") as said:
            return subprocess.Popen(
                ["sh", "-ec", script],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def used_s(self) -> float:
        """CPU seconds used so far by all that ran here."""
        return used_s(self.hierarchies, self.cgroup)

    def stall_us(self) -> int:
        """PSI CPU some of the pod in us, 0 where this kernel has none of it."""
        for hierarchy in self.hierarchies.all:
            with contextlib.suppress(OSError):
                return some_us(Path(hierarchy.root, self.cgroup, "cpu.pressure").read_text())
        return 0

    def limit(self, cores: float | None) -> None:
        """Give it a CPU quota of its own, None: take it away."""
        if cores is not None:
            limit_cpu(self.hierarchies, self.cgroup, cores)
            return
        root = self.hierarchies.roots["cpu"]
        file, none = ("cpu.cfs_quota_us", "-1") if root.version == 1 else ("cpu.max", "max 100000")
        Path(root.root, self.cgroup, file).write_text(none)


@contextlib.contextmanager
def place(
    name: str, cpu: int | None = None, request_cores: float | None = None, root: str = ROOT
) -> Iterator[Place]:
    """A pod ROOT/NAME that may use one CPU, None: all; without a request its weight is the default."""
    hierarchies = find_hierarchies()
    cgroup = f"{root}/{name}"
    made = make_pod_cgroup(hierarchies, cgroup)
    try:
        if cpu is not None:
            Path(hierarchies.roots["cpuset"].root, cgroup, "cpuset.cpus").write_text(str(cpu))
        if request_cores is not None:
            weigh(hierarchies, cgroup, max(2, int(request_cores * SHARES_PER_CORE)))
        yield Place(name, cgroup, cpu, hierarchies, made.procs)
    finally:
        remove_pod_cgroup(hierarchies, cgroup, grace_s=0.5)


def weigh(hierarchies: Hierarchies, cgroup: str, shares: int) -> None:
    """Give a cgroup a weight, in the terms of cpu.shares."""
    root = hierarchies.roots["cpu"]
    weight = 1 + (shares - 2) * 9999 // 262142  # runc: libcontainer/cgroups/utils.go
    file, value = ("cpu.shares", shares) if root.version == 1 else ("cpu.weight", weight)
    Path(root.root, cgroup, file).write_text(str(value))


def used_s(hierarchies: Hierarchies, cgroup: str) -> float:
    """CPU seconds used so far by all that ran in a cgroup."""
    roots = hierarchies.roots
    if "cpuacct" in roots:
        return int(Path(roots["cpuacct"].root, cgroup, "cpuacct.usage").read_text()) / 1e9
    stat = Path(roots["cpu"].root, cgroup, "cpu.stat").read_text()
    return int(stat.split()[1]) / 1e6  # usage_usec comes first


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose whole session ends with the context."""
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> None:
    """Signal its session and wait for it; SIGKILL after 3 s."""
    for which in (number, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, which)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3.0)
            return


def some_us(text: str) -> int:
    """`total` of the line "some" of a PSI file."""
    return int(text.split("\n", 1)[0].rpartition("total=")[2])
