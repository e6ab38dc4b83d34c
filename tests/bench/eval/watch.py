"""Looks once a second at what the node does besides the experiment: beside others' work no run is valid."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.bench.eval.felt import quantile
from tests.bench.eval.labels import Health, Labels
from tests.bench.eval.places import Place, some_us

IDLE_S = 4.0
STALL_RATIO = 0.05  # most of the node's PSI CPU that nothing of ours causes
FOREIGN_RATIO, FOREIGN_MOST_RATIO = 0.10, 0.20  # of the node's CPUs: median and p90 of what others may use


class Watch:
    """The node against the pods and the processes of the experiment."""

    def __init__(self, places: Sequence[Place], pids: Sequence[int]) -> None:
        self._places, self._pids = places, pids
        self._last = self._look()
        self.seen: list[Health] = []

    def look(self) -> None:
        """One more second."""
        last, self._last = self._last, self._look()
        dt_s = self._last[0] - last[0]
        busy, own, stall, own_stall = (now - then for now, then in zip(self._last[1:], last[1:], strict=True))
        self.seen.append(
            Health(
                round(self._last[0], 3),
                round(max(0.0, busy - own) / dt_s, 3),
                round(stall / dt_s, 3),
                round(max(0.0, stall - own_stall) / dt_s, 3),
            )
        )

    def _look(self) -> tuple[float, float, float, float, float]:
        """(now, busy s, own s, stall s, own pods' stall s)."""
        own_s = sum(place.used_s() for place in self._places) + sum(map(process_s, self._pids))
        own_stall_s = sum(place.stall_us() for place in self._places) / 1e6
        return time.monotonic(), busy_s(), own_s, stall_s(), own_stall_s


def idle_stall_ratio(seconds: float = IDLE_S) -> float:
    """The node's PSI CPU some while nothing of ours runs."""
    began, before = time.monotonic(), stall_s()
    time.sleep(seconds)
    return (stall_s() - before) / (time.monotonic() - began)


def busy_s() -> float:
    """CPU seconds that the whole node has spent."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq)


def stall_s() -> float:
    """PSI CPU some of the node, in seconds since it started."""
    return some_us(Path("/proc/pressure/cpu").read_text()) / 1e6


def rejected(labels: Labels) -> tuple[str, ...]:
    """Why the run is not valid, by the gate: others' waits and others' use of CPU, outside of all windows."""
    calm = [h for h in labels.health if not any(w.began <= h.at <= w.ended + 2.0 for w in labels.windows)]
    if not calm:
        return ("no second without a disturbance",)
    why = []
    if labels.idle_stall_ratio > STALL_RATIO:
        why.append(f"PSI CPU of the node before the run {labels.idle_stall_ratio:.3f} > {STALL_RATIO}")
    stall = statistics.median(h.foreign_stall_ratio for h in calm)
    if stall > STALL_RATIO:
        why.append(f"PSI CPU of the node without our pods', off windows {stall:.3f} > {STALL_RATIO}")
    return (*why, *others_cpu([h.foreign_cores for h in labels.health], labels.cpus))


def others_cpu(cores: Sequence[float], cpus: int) -> tuple[str, ...]:
    """Why what others used in each second, in cores, makes a run on so many CPUs worthless."""
    ordered, why = sorted(cores), []
    for name, ratio, most in (("median", 0.5, FOREIGN_RATIO), ("p90", 0.9, FOREIGN_MOST_RATIO)):
        if (used := quantile(ordered, ratio)) > most * cpus:
            why.append(f"others' CPU, {name} {used:.2f} cores > {most:.0%} of {cpus}")
    return tuple(why)


def process_s(pid: int) -> float:
    """CPU seconds of a process, 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
