"""Latencies of the last requests as a histogram, over as long a time as it takes to have enough. Pure.

Invariant: a quantile lies within the bounds of its bucket, and grows with q; nothing is ever negative.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import add

from msgspec import Struct

from nodeagent.model.app import requests_needed
from nodeagent.model.symptom import AppReading, Slo

WINDOW_S = 30.0  # the longest time that is looked at
PERIODS = 3.0  # without anything new, then nothing is known
QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)


class Slice(Struct, frozen=True):
    """The requests answered in (`since`, `until`]: `counts` of the buckets up to `bounds`, not cumulative.

    The last bound is inf. `requests` may be more than all `counts`, or without any; `seen` is how many
    latencies were measured for the counts, which may be weighted.
    """

    since: float
    until: float
    requests: float
    seen: float = 0.0
    bounds: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()


class Window:
    """The slices of the last 30 s, newest last; none with other bounds than the newest one."""

    def __init__(self) -> None:
        self._slices: deque[Slice] = deque()

    def add(self, new: Slice) -> None:
        """One more; what it overlaps was told before by the same source, and is forgotten."""
        while self._slices and (new.since < self._middle(-1) or self._slices[-1].bounds != new.bounds):
            self._slices.pop()
        self._slices.append(new)
        while self._slices[0].since < new.until - WINDOW_S and len(self._slices) > 1:
            self._slices.popleft()

    def clear(self) -> None:
        """Begin anew."""
        self._slices.clear()

    def last(self, enough: float) -> Slice:
        """The newest slices with so many latencies together, or all there are; as one. Not when empty."""
        found = self._slices[-1]
        for older in list(self._slices)[-2::-1]:
            if found.seen >= enough:
                break
            counts = tuple(map(add, found.counts, older.counts))
            requests, seen = found.requests + older.requests, found.seen + older.seen
            found = Slice(older.since, found.until, requests, seen, found.bounds, counts)
        return found

    def _middle(self, index: int) -> float:
        found = self._slices[index]
        return (found.since + found.until) / 2.0


def quantile_s(bounds: Sequence[float], counts: Sequence[float], q: float) -> float | None:
    """The value at rank q*N, linear inside its bucket; None without requests or without a finite bound.

    The first bucket begins at 0; of the last one, which has no end, it is the lower bound, as in Prometheus'
    histogram_quantile().
    """
    total = sum(counts)
    if total <= 0.0 or len(bounds) < 2:
        return None
    rank, below, low = q * total, 0.0, min(0.0, bounds[0])
    for high, count in zip(bounds, counts, strict=True):
        if count > 0.0 and below + count >= rank:
            if high == float("inf"):
                return low
            return min(high, low + (high - low) * max(0.0, rank - below) / count)
        below, low = below + count, high
    return bounds[-2]


def counts_of(cumulative: Iterable[float]) -> tuple[float, ...]:
    """Of each bucket by itself; a scrape is no snapshot, so a count may be a little below the one before."""
    risen, most = [0.0], 0.0
    for count in cumulative:
        most = max(most, count)
        risen.append(most)
    return tuple(b - a for a, b in pairwise(risen))


def reading(
    source: str, window: Window, *, requests: float, slo: Slo | None, period_s: float, at: float
) -> AppReading:
    """What the window comes to at `at`; `requests` is the count since the start. Not of an empty window.

    Of each quantile of QUANTILES and of the SLO only what has enough requests.
    """
    wanted = {*QUANTILES, *(() if slo is None else (slo.quantile,))}
    found = window.last(requests_needed(slo.quantile if slo is not None else 0.99))
    latencies = (
        (q, value)
        for q in sorted(wanted)
        if found.seen >= requests_needed(q)
        and (value := quantile_s(found.bounds, found.counts, q)) is not None
    )
    return AppReading(
        source=source,
        at=at,
        stale_after_s=PERIODS * period_s,
        requests=int(requests),
        window_s=found.until - found.since,
        window_requests=int(found.seen if found.bounds else found.requests),
        latency_s=tuple(latencies),
        slo=slo,
    )
