"""What an online server feels: its latency alone, beside Batch, and beside Batch that the agent bounds."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.pod import OWN_ROOT, OWN_TIER
from nodeagent.model.policy import CapacityPolicy
from tests.bench.open_loop import Latencies, schedule, send
from tests.bench.table import Figure, show
from tests.live.running import SPIN, executed, quota_cores, running, unique, until

SERVER = Path(__file__).with_name("request_server.py")
CPUS = len(os.sched_getaffinity(0))
WORK_MS = 2.0
LOAD_RATIO = 0.3  # of what the node's CPUs could serve
WARM_S, MEASURED_S = 4.0, 15.0
QUIET_RATIO = 0.15  # of the CPUs; the client takes some of it
REGROWN_RATIO, REGROW_PATIENCE_S = 0.8, 45.0


class Server(NamedTuple):
    """Where it listens, and the pod that it is."""

    port: int
    cgroup: str


@dataclass(frozen=True)
class Phase:
    """What was measured with one neighbourhood of the server."""

    name: str
    latencies: Latencies
    batch_cores: float
    other_cores: float  # neither the server's nor Batch's: the client, the agent, and whoever else is here
    regrown_s: float | None = None


def main() -> bool:
    """Print the tables; True when the targets were held."""
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        home = Path(directory)
        with _server(home) as server:
            alone = _measured("alone", server, None)
        with _server(home) as server, _hogs(home) as hogs:
            beside = _measured("Batch, no agent", server, hogs)
        with running(home, agent__tick_s=1), _server(home) as server, _hogs(home) as hogs:
            bounded = _measured("Batch, agent", server, hogs, regrow=True)
    _print_side_by_side(alone, beside, bounded)
    return show("The same as ratios", _ratios(alone, beside, bounded))


def _measured(name: str, server: Server, hogs: str | None, *, regrow: bool = False) -> Phase:
    send(server.port, schedule(_rate(), WARM_S, seed=1))

    def used_s() -> tuple[float, float, float]:
        return time.monotonic(), _used_s(hogs), _busy_s() - _used_s(hogs) - _used_s(server.cgroup)

    before = used_s()
    latencies = send(server.port, schedule(_rate(), MEASURED_S))
    passed_s, batch_s, other_s = (now - then for now, then in zip(used_s(), before, strict=True))
    regrown_s = _regrown_s() if regrow else None
    return Phase(name, latencies, batch_s / passed_s, max(0.0, other_s / passed_s), regrown_s)


def _busy_s() -> float:
    """CPU seconds that the whole node has spent."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def _rate() -> float:
    return LOAD_RATIO * CPUS / (WORK_MS / 1e3)


def _regrown_s() -> float:
    """Seconds from the end of the load until Batch may use REGROWN_RATIO of its ceiling again."""
    began = time.monotonic()
    wanted = REGROWN_RATIO * CapacityPolicy().cpu_ceiling_ratio * CPUS
    while (quota_cores(OWN_TIER) or math.inf) < wanted:
        if time.monotonic() - began > REGROW_PATIENCE_S:
            return math.inf
        time.sleep(0.1)
    return time.monotonic() - began


@contextlib.contextmanager
def _server(home: Path) -> Iterator[Server]:
    """The request server as an LS pod, with a process per CPU."""
    said = home / f"port-{time.monotonic_ns()}"
    words = [sys.executable, "-I", "-S", str(SERVER), str(CPUS), str(WORK_MS)]
    command = f"exec {shlex.join(words)} > {shlex.quote(str(said))}"
    name = unique("server")
    with executed(home / "run", "ls", name, command):
        until(lambda: said.exists() and said.read_text().endswith("\n"), "the server's port")
        yield Server(int(said.read_text()), f"{OWN_ROOT}/ls/{name}")


@contextlib.contextmanager
def _hogs(home: Path) -> Iterator[str]:
    """A Batch pod that would take every core; yields its cgroup."""
    name = unique("hogs")
    spin = " & ".join([f"sh -c '{SPIN}'"] * CPUS)
    with executed(home / "run", "batch", name, f"{spin} & wait"):
        yield f"{OWN_TIER}/{name}"


def _used_s(cgroup: str | None) -> float:
    """CPU seconds that a cgroup has used."""
    if cgroup is None:
        return 0.0
    roots = find_hierarchies().roots
    if "cpuacct" in roots:
        return int(Path(roots["cpuacct"].root, cgroup, "cpuacct.usage").read_text()) / 1e9
    stat = Path(roots["cpu"].root, cgroup, "cpu.stat").read_text()
    return int(stat.split()[1]) / 1e6  # usage_usec comes first


def _print_side_by_side(*phases: Phase) -> None:
    rate = f"{_rate():.0f} requests/s of {WORK_MS:g} ms CPU on {CPUS} CPUs, {MEASURED_S:g} s each, open loop"
    print(f"\nAn LS server: {rate}; Batch: {CPUS} endless loops")
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
        print("  Others were busy here: the three columns did not have the same machine. Run it again.")


def _ratios(alone: Phase, beside: Phase, bounded: Phase) -> list[Figure]:
    a, b, c = (phase.latencies for phase in (alone, beside, bounded))
    figures = []
    for name, ratio in (("p50", 0.5), ("p99", 0.99)):
        figures += [
            Figure(f"{name}: Batch without agent / alone", b.quantile_ms(ratio) / a.quantile_ms(ratio), "x"),
            Figure(f"{name}: Batch with agent / alone", c.quantile_ms(ratio) / a.quantile_ms(ratio), "x"),
        ]
    figures.append(Figure("p99: with agent / without", c.quantile_ms(0.99) / b.quantile_ms(0.99), "x", 1.0))
    what = f"LS load ends: Batch's quota at {REGROWN_RATIO:.0%} of its ceiling after"
    figures.append(Figure(what, bounded.regrown_s or 0.0, "s"))
    return figures


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
