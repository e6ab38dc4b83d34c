"""An LS server with a client, and Batch beside it that would take every core."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.pod import OWN_ROOT, OWN_TIER
from tests.bench.open_loop import Latencies, schedule, send
from tests.live.running import SLOWNESS, SPIN, executed, unique, until

SERVER = Path(__file__).with_name("request_server.py")
CPUS = len(os.sched_getaffinity(0))
WORK_MS = 2.0 * max(1.0, SLOWNESS / 2)  # the client, too, is slower when emulated
LOAD_RATIO = 0.3  # of what the server's processes could serve, each on a CPU of its own
WARM_S, MEASURED_S = 4.0, 15.0
QUIET_RATIO = 0.15  # of the CPUs; the client takes some of it


class Server(NamedTuple):
    """Where it listens, the pod that it is, and how many requests it serves at a time."""

    port: int
    cgroup: str
    processes: int


@dataclass(frozen=True)
class Phase:
    """What was measured with one neighbourhood of the server."""

    name: str
    latencies: Latencies
    batch_cores: float
    other_cores: float  # neither the server's nor Batch's: the client, the agent, and whoever else is here


@contextlib.contextmanager
def serving(home: Path, processes: int = CPUS, *options: str) -> Iterator[Server]:
    """The request server as an LS pod; `options` are for exec."""
    said = home / f"port-{time.monotonic_ns()}"
    words = [sys.executable, "-I", "-S", str(SERVER), str(processes), str(WORK_MS)]
    command = f"exec {shlex.join(words)} > {shlex.quote(str(said))}"
    name = unique("server")
    with executed(home / "run", "ls", name, command, *options):
        until(lambda: said.exists() and said.read_text().endswith("\n"), "the server's port")
        yield Server(int(said.read_text()), f"{OWN_ROOT}/ls/{name}", processes)


@contextlib.contextmanager
def hogs(home: Path) -> Iterator[str]:
    """A Batch pod that would take every core; yields its cgroup."""
    name = unique("hogs")
    spin = " & ".join([f"sh -c '{SPIN}'"] * CPUS)
    with executed(home / "run", "batch", name, f"{spin} & wait"):
        yield f"{OWN_TIER}/{name}"


def measured(  # how long and how hard has its default
    name: str,
    server: Server,
    batch: str | None,
    *,
    seed: int = 7,
    per_s: float | None = None,
    seconds: float = MEASURED_S,
) -> Phase:
    """What a client feels of it, beside the cgroup `batch` if there is one."""
    per_s = rate(server.processes) if per_s is None else per_s
    send(server.port, schedule(per_s, WARM_S, seed=1))

    def spent_s() -> tuple[float, float, float]:
        return time.monotonic(), _used_s(batch), _busy_s() - _used_s(batch) - _used_s(server.cgroup)

    before = spent_s()
    latencies = send(server.port, schedule(per_s, seconds, seed))
    passed_s, batch_s, other_s = (now - then for now, then in zip(spent_s(), before, strict=True))
    return Phase(name, latencies, batch_s / passed_s, max(0.0, other_s / passed_s))


def rate(processes: int) -> float:
    """Requests a second."""
    return LOAD_RATIO * processes / (WORK_MS / 1e3)


def show_side_by_side(phases: Sequence[Phase], processes: int) -> None:
    """The columns of a table; says when the machine was not the same for all."""
    load = f"{rate(processes):.0f} requests/s of {WORK_MS:g} ms CPU to {processes} processes on {CPUS} CPUs"
    print(f"\nAn LS server: {load}, {MEASURED_S:g} s each, open loop; Batch: {CPUS} endless loops")
    quantiles = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    rows = {
        f"latency {name}, ms": [p.latencies.quantile_ms(ratio) for p in phases]
        for name, ratio in quantiles.items()
    }
    rows["by which the client was late, p99, ms"] = [p.latencies.late_ms(0.99) for p in phases]
    rows["cores used by Batch"] = [p.batch_cores for p in phases]
    rows["cores used by others"] = [p.other_cores for p in phases]
    print(f"  {'':<38}" + "".join(f"{phase.name:>18}" for phase in phases))
    for name, values in rows.items():
        print(f"  {name:<38}" + "".join(f"{value:18.2f}" for value in values))
    if max(phase.other_cores for phase in phases) > QUIET_RATIO * CPUS:
        print("  Others were busy here: the columns did not have the same machine. Run it again.")


def _busy_s() -> float:
    """CPU seconds that the whole node has spent."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _used_s(cgroup: str | None) -> float:
    """CPU seconds that a cgroup has used."""
    if cgroup is None:
        return 0.0
    roots = find_hierarchies().roots
    if "cpuacct" in roots:
        return int(Path(roots["cpuacct"].root, cgroup, "cpuacct.usage").read_text()) / 1e9
    stat = Path(roots["cpu"].root, cgroup, "cpu.stat").read_text()
    return int(stat.split()[1]) / 1e6  # usage_usec comes first
