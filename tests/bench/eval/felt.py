"""What the victims' clients felt: latencies by the second, and whether a disturbance hurt at all.

A neighbour that changes nothing for the clients is no interference, whatever it does to the kernel's
counters: so the truth of an event is taken from the latencies, which no detector sees.
"""

from __future__ import annotations

import array
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.eval.labels import Labels, Second, Window

HURT_RATIO = 1.25  # of the p95 of calm seconds, as the median over the seconds of a window
SETTLED_S = 3.0  # after a window, until a second counts as calm again
LEAST_SECONDS = 3
SLOW_RATIO, BEFORE_S = 4.0, 4.0  # a p95 of so many times that of calm, so long before an alarm at most


def pairs(path: Path) -> Iterator[tuple[float, float]]:
    """(due, latency) in seconds since the begin, as the clients wrote them."""
    flat = array.array("d")
    flat.frombytes(path.read_bytes())
    return zip(flat[::2], flat[1::2], strict=True)


def seconds(path: Path, begin: float) -> tuple[Second, ...]:
    """The latencies of each second in which a request was due."""
    by_second: dict[int, list[float]] = {}
    for due, latency in pairs(path):
        by_second.setdefault(int(due), []).append(latency)
    return tuple(_second(begin + at, sorted(each)) for at, each in sorted(by_second.items()))


def quantile(ordered: Sequence[float], ratio: float) -> float:
    """The value that this share of the sorted ones does not exceed."""
    return ordered[max(0, min(len(ordered) - 1, math.ceil(ratio * len(ordered)) - 1))]


def calm_p95_ms(labels: Labels, victim: str) -> float | None:
    """Median over the calm seconds of their p95, None without any."""
    calm = [s.p95_ms for s in labels.felt[victim] if s.p95_ms is not None and _calm(labels, s.at)]
    return statistics.median(calm) if calm else None


def hurt_ratio(labels: Labels, window: Window, victim: str) -> float | None:
    """The median p95 of the window's whole seconds over that of calm ones; None for too short a window."""
    calm = calm_p95_ms(labels, victim)
    during = [s for s in labels.felt[victim] if window.began <= s.at and s.at + 1.0 <= window.ended]
    felt = [math.inf if s.p95_ms is None else s.p95_ms for s in during]
    if calm is None or len(felt) < LEAST_SECONDS:
        return None
    return statistics.median(felt) / calm


def slow_before(labels: Labels, victim: str, at: float) -> bool:
    """Whether clients felt something in the seconds before `at` that no window accounts for."""
    calm = calm_p95_ms(labels, victim)
    if calm is None:
        return False
    seconds = (s for s in labels.felt[victim] if at - BEFORE_S <= s.at <= at and _calm(labels, s.at))
    return any(s.p95_ms is None or s.p95_ms >= SLOW_RATIO * calm for s in seconds)


def _second(at: float, ordered: list[float]) -> Second:
    answered = [latency for latency in ordered if latency < math.inf]
    lost = len(ordered) - len(answered)
    if not answered:
        return Second(round(at, 3), len(ordered), lost=lost)
    p50, p95 = (_finite(quantile(ordered, ratio) * 1e3) for ratio in (0.5, 0.95))
    return Second(round(at, 3), len(ordered), p50, p95, lost)


def _finite(ms: float) -> float | None:
    return round(ms, 3) if ms < math.inf else None


def _calm(labels: Labels, at: float) -> bool:
    if at < labels.measured_from + 2.0:
        return False
    return not any(w.began - 1.0 <= at <= w.ended + SETTLED_S for w in labels.windows)
