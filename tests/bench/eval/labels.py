"""What the harness did and saw in one run: the truth that verdicts are held against.

All times are CLOCK_MONOTONIC seconds, as in the snapshots of the journal.
"""

from __future__ import annotations

from msgspec import Struct


class Victim(Struct, frozen=True):
    """A server under load. `told`: its application tells the agent how it fares."""

    name: str
    cgroup: str
    program: str
    told: bool = False


class Window(Struct, frozen=True):
    """Something that was done on purpose, stamped at exec and at exit.

    An attack has a `culprit` (a cgroup) that shares `channel` with each of `victims` (cgroups). Without a
    culprit it is a negative: nobody is to be accused of what it does to them.
    """

    kind: str
    began: float
    ended: float
    victims: tuple[str, ...]
    culprit: str = ""
    channel: str = ""
    work: float | None = None  # bogo operations that the stressor counted


class Second(Struct, frozen=True, array_like=True):
    """What a victim's clients felt in one second; latencies None where nothing was answered."""

    at: float
    sent: int
    p50_ms: float | None = None
    p95_ms: float | None = None
    lost: int = 0


class Health(Struct, frozen=True, array_like=True):
    """The node in one second: CPU used by what is not part of the experiment, in cores; PSI CPU some of the
    node, and what is left of it without the waits of the experiment's own pods."""

    at: float
    foreign_cores: float
    stall_ratio: float
    foreign_stall_ratio: float


class Labels(Struct, frozen=True, kw_only=True):
    """One run. `felt` is by victim's cgroup; `idle_stall_ratio` is of the node before anything was started.

    `measured_from` is when everybody was there and under load. `rejected` says why the run is not valid.
    """

    scenario: str
    seed: int
    cpus: int
    measured_from: float
    ended: float
    victims: tuple[Victim, ...]
    batch: tuple[str, ...]
    windows: tuple[Window, ...]
    felt: dict[str, tuple[Second, ...]]
    health: tuple[Health, ...]
    idle_stall_ratio: float
    rejected: tuple[str, ...] = ()
