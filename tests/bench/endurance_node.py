"""The node around the agent: pods that live for a while, loops on every CPU, the cgroup that it is in."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import re
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.kernel.place import make_pod_cgroup, remove_pod_cgroup
from nodeagent.model.errors import Failed
from nodeagent.model.pod import OWN_ROOT, Qos
from tests.bench.endurance_seen import Life
from tests.live.running import SPIN

UNIT = Path(__file__).resolve().parents[2] / "systemd" / "nodeagent.slice"  # beside kubepods, at the root
MARK = f"na-endurance-{os.getpid()}"
POD_S = 600  # no pod lives longer, whatever becomes of this program
LOOPS_PER_CPU = 2
RT_PERIOD_SHARE = 5  # of a CPU's time real-time threads of the agent may have 1/5
_CLASSES = (Qos.MID, Qos.LS, Qos.BATCH, Qos.LS)
_BUSY = f"for i in $(seq {POD_S * 4}); do sleep 0.25; done"  # it forks and wakes up
_SETATTR = {"x86_64": (314, 315), "aarch64": (274, 275), "riscv64": (274, 275)}
_ATTR = struct.Struct("=IIQiIQQQ")  # struct sched_attr, SCHED_ATTR_SIZE_VER0


class Pod:
    """Made with a living process in it, and gone after `die`."""

    def __init__(self, places: Hierarchies, number: int) -> None:
        self.cgroup = f"{OWN_ROOT}/{_CLASSES[number % len(_CLASSES)].value}/{MARK}-{number}"
        self.born = time.monotonic()
        self._places = places
        procs = make_pod_cgroup(places, self.cgroup).procs
        command = f"exec sleep {POD_S}" if number % 2 else _BUSY
        self._process = subprocess.Popen(["sh", "-c", f"read go; {command}"], stdin=subprocess.PIPE)
        try:
            for path in procs:
                Path(path).write_text(str(self._process.pid))
            assert self._process.stdin is not None
            self._process.stdin.write(b"go\n")
            self._process.stdin.close()
        except OSError:
            self.die()
            raise

    def die(self) -> Life:
        """In the middle of what it does."""
        self._process.kill()
        self._process.wait()
        left = remove_pod_cgroup(self._places, self.cgroup, grace_s=0.0)
        if left:
            raise Failed("; ".join(left))
        return Life(self.cgroup, self.born, time.monotonic())


class CpuGroup:
    """A cgroup beside those that are there, in the cpu controller."""

    def __init__(self, name: str) -> None:
        place = find_hierarchies().roots["cpu"]
        self._v1 = place.version == 1
        self._path = Path(place.root, f"{MARK}-{name}")
        if not self._v1:
            (Path(place.root) / "cgroup.subtree_control").write_text("+cpu")
        self._path.mkdir()

    def add(self, pid: int) -> None:
        """A process with all of its threads."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def weigh(self, ratio: float) -> None:
        """1.0: as everybody."""
        name, usual = ("cpu.shares", 1024) if self._v1 else ("cpu.weight", 100)
        (self._path / name).write_text(str(round(ratio * usual)))

    def permit_realtime(self) -> None:
        """Where the kernel groups real-time threads (RT_GROUP_SCHED, v1), let there be some here; OSError."""
        if self._v1 and (self._path / "cpu.rt_runtime_us").exists():
            period = int((self._path / "cpu.rt_period_us").read_text())
            (self._path / "cpu.rt_runtime_us").write_text(str(period // RT_PERIOD_SHARE))

    def remove(self) -> None:
        """Once its processes have ended; a process that is just exiting keeps it busy for a moment."""
        for _ in range(100):
            with contextlib.suppress(OSError):
                self._path.rmdir()
                return
            time.sleep(0.02)


@contextlib.contextmanager
def cpu_group(name: str) -> Iterator[CpuGroup]:
    """Removed on leaving."""
    group = CpuGroup(name)
    try:
        yield group
    finally:
        group.remove()


class Loops:
    """LOOPS_PER_CPU endless loops on each CPU, in a cgroup of usual weight, asleep unless `go`."""

    def __init__(self, group: CpuGroup, seconds: float) -> None:
        cpus = sorted(os.sched_getaffinity(0)) * LOOPS_PER_CPU
        bounded = f"ulimit -t {int(seconds) + 60}; {SPIN}"  # should nobody be left to end them
        self._processes = [subprocess.Popen(["sh", "-c", bounded]) for _ in cpus]
        for process, cpu in zip(self._processes, cpus, strict=True):
            os.sched_setaffinity(process.pid, {cpu})
            group.add(process.pid)
        self.go(on=False)

    def go(self, *, on: bool) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGCONT if on else signal.SIGSTOP)

    def end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()


@contextlib.contextmanager
def busy_loops(seconds: float) -> Iterator[Loops]:
    """Ended on leaving; they take no more than these seconds of each CPU."""
    with cpu_group("loops") as group:
        made = Loops(group, seconds)
        try:
            yield made
        finally:
            made.end()


def unit_weight_ratio() -> float:
    """How many times everybody's weight (100) the installed unit's slice has."""
    found = re.search(r"^CPUWeight=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert found, UNIT
    return int(found[1]) / 100


def slice_us(thread: int, wanted: int) -> None:
    """Give a thread of SCHED_OTHER another slice, 0: the usual one. OSError where the kernel has none.

    Linux kernel commit 857b158dc5e8 ("sched/eevdf: Use sched_attr::sched_runtime to set request/slice
    suggestion") (in v6.12); earlier ones take the call and do nothing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    set_number, get_number = _SETATTR[os.uname().machine]
    nice = os.getpriority(os.PRIO_PROCESS, thread)
    packed = _ATTR.pack(_ATTR.size, os.SCHED_OTHER, 0, nice, 0, wanted * 1000, 0, 0)
    attr = ctypes.create_string_buffer(packed)
    if libc.syscall(set_number, thread, attr, 0):
        raise OSError(ctypes.get_errno(), "sched_setattr(2)")
    read = ctypes.create_string_buffer(_ATTR.size)
    if libc.syscall(get_number, thread, read, _ATTR.size, 0):
        raise OSError(ctypes.get_errno(), "sched_getattr(2)")
    if wanted and _ATTR.unpack(read.raw)[5] != wanted * 1000:
        raise OSError(0, "no slices of threads here: Linux before 6.12")


def life_s(mean_s: float, least_s: float) -> float:
    """How long a pod lives: most shortly, some long."""
    return min(least_s + random.expovariate(1.0 / mean_s), POD_S / 2)
