"""A day of a node on which nothing is wrong: a recorded calm, played over and over until the day is over.

Counters and clocks go on where the last round ended, so nothing is seen but what was recorded. It is the same
calm again and again: it tells what the detector makes of a day of it, not of what else a day may bring.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeGuard

from msgspec import Struct
from msgspec.structs import replace

from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Snapshot
from tests.bench.eval.ours import Seen
from tests.bench.eval.recording import Recording, decisions

DAY_S = 86_400.0
_CLOCKS = frozenset({"at", "unix", "slow_at"})
_COUNTERS = frozenset(
    {"cpu_us", "periods", "throttled_periods", "throttled_us", "run_delay_us", "run_us", "some_us", "full_us"}
    | {"user_us", "nice_us", "system_us", "idle_us", "iowait_us", "irq_us", "softirq_us", "steal_us"}
    | {"refaults", "direct_scans", "major_faults", "tcp_out_segments", "tcp_retransmits", "listen_drops"}
    | {"net_bytes", "wait_us", "busy_us", "operations", "bytes", "requests"}
)


class Day(Struct, frozen=True):
    """`alarms` in so many days of so many victims."""

    alarms: int
    victims: int
    days: float

    @property
    def per_ten_pods(self) -> float:
        """False alarms of ten pods in a day."""
        return self.alarms / (self.victims * self.days) * 10.0


def lived(recording: Recording, seconds: float = DAY_S) -> Day:
    """What is said in so much time of this run's calm, from its begin to its first disturbance."""
    labels = recording.labels
    until = min((w.began for w in labels.windows), default=labels.ended)
    calm = [s for s in recording.snapshots if labels.measured_from + 2.0 <= s.at <= until]
    seen = Seen()
    for snapshot, decision, _ in decisions(looped(calm, seconds), Policy(), InterferenceMemory()):
        seen.tick(snapshot.at, decision)
    return Day(len(seen.alarms()), len(labels.victims), seconds / DAY_S)


def looped(snapshots: Sequence[Snapshot], seconds: float) -> Iterator[Snapshot]:
    """The snapshots, again and again, for so long; each round begins where the last one ended."""
    first, last = snapshots[0], snapshots[-1]
    yield first
    rounds, at, seq = 0, first.at, first.seq
    while at - first.at < seconds:
        for now in snapshots[1:]:
            shifted = _shifted(first, last, now, rounds)
            seq, at = seq + 1, shifted.at
            yield replace(shifted, seq=seq)
        rounds += 1


def _shifted(first: object, last: object, now: Struct, rounds: int) -> Snapshot:
    shifted = _on(first, last, now, rounds)
    assert isinstance(shifted, Snapshot)
    return shifted


def _on(first: object, last: object, now: object, rounds: int, name: str = "") -> object:
    """A value `rounds` times later: counters and clocks have grown by what they grow in a round."""
    if isinstance(now, Struct):
        if type(first) is not type(now) or type(last) is not type(now):
            return now
        grown = {
            f: _on(getattr(first, f), getattr(last, f), getattr(now, f), rounds, f)
            for f in now.__struct_fields__
        }
        return type(now)(**grown)
    if type(now) is tuple and isinstance(first, tuple) and isinstance(last, tuple):
        if not len(first) == len(last) == len(now):
            return now
        return tuple(_on(a, b, c, rounds) for a, b, c in zip(first, last, now, strict=True))
    if name in _COUNTERS | _CLOCKS and _number(now) and _number(first) and _number(last):
        return now + rounds * (last - first)
    return now


def _number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float)
