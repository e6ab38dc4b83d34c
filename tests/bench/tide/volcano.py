"""Volcano agent: its CPU throttle of offline pods, and the oversubscribed resources that it reports.

Source: volcano-sh/volcano, pkg/agent. Assumed where nothing is published: the throttle looks every 10 s, its
rise is 10 % of the node, the newest of the queue's samples weighs most, nothing is requested as Guaranteed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from nodeagent.simulate.fluid import Share, Terms
from tests.bench.tide.inputs import Every, Window, online

LOOK_S = 10.0
THROTTLE_RATIO, RISE_RATIO, JITTER_RATIO = 0.80, 0.10, 0.01
LEAST_CORES = 0.01  # 1000 us of each 100 ms
OVERSOLD_RATIO, QUEUE = 0.60, 10
DIFF_RATIO, RENEW_S = 0.10, 60.0
BE_WEIGHT = 2 / 1024


def throttled(allocatable: float, online_used: float, held: float | None) -> float:
    """Cores for offline pods; rises by at most 10 % of the node, falls at once; 1 % is left alone."""
    wanted = max(allocatable * THROTTLE_RATIO - online_used, 0.0)
    if held is None:
        return max(wanted, LEAST_CORES)
    if abs(wanted - held) < allocatable * JITTER_RATIO:
        return held
    return max(min(wanted, held + allocatable * RISE_RATIO), LEAST_CORES)


def oversold(allocatable: float, guaranteed: float, used: float) -> float:
    """One sample of what is offered; `used` is that of the whole node, offline pods included."""
    return max(allocatable - guaranteed - used, 0.0) * OVERSOLD_RATIO


def weighted(samples: Sequence[float]) -> float:
    """Mean of the queue with weights 1, 2, 4, ... from the oldest on."""
    weights = [2.0**n for n in range(len(samples))]
    return sum(w * s for w, s in zip(weights, samples, strict=True)) / sum(weights)


def patched(new: float, old: float, waited_s: float) -> bool:
    """True when the node is to be patched."""
    return abs(new - old) > DIFF_RATIO * old or waited_s >= RENEW_S


class Volcano:
    """One lender on a node of `cores`."""

    name = "volcano"

    def __init__(self, cores: int) -> None:
        self._cores = float(cores)
        self._limit: float | None = None
        self._offer, self._told_at = 0.0, -float("inf")
        self._queue: deque[float] = deque(maxlen=QUEUE)
        self._look = Every(LOOK_S)
        self._online, self._batch = Window(LOOK_S), Window(LOOK_S)

    def start(self, at: float) -> Terms:
        """Nothing is offered before the first look."""
        self._look.due(at)
        return self._terms()

    def after(self, share: Share) -> Terms:
        """What is not known is not looked at."""
        used = online(share)
        if used is None or share.batch is None:
            return self._terms()
        self._online.add(share.at, used, share.span_s)
        self._batch.add(share.at, share.batch, share.span_s)
        if self._look.due(share.at):
            now, batch = self._online.mean or 0.0, self._batch.mean or 0.0
            self._limit = throttled(self._cores, now, self._limit)
            self._queue.append(oversold(self._cores, 0.0, now + batch))
            new = weighted(self._queue)
            if patched(new, self._offer, share.at - self._told_at):
                self._offer, self._told_at = new, share.at
        return self._terms()

    def _terms(self) -> Terms:
        return Terms(float("inf") if self._limit is None else self._limit, self._offer, BE_WEIGHT)
