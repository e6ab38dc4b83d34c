"""What a peer's periodic loops are fed with: means since they last looked, or over a window."""

from __future__ import annotations

from collections import deque

from nodeagent.simulate.fluid import Share


class Every:
    """Due once in `period_s` from the first look on; where steps are longer than that, in each step."""

    def __init__(self, period_s: float) -> None:
        self._period_s, self._due = period_s, -float("inf")

    def due(self, at: float) -> bool:
        """True when a period has passed by `at`."""
        if at < self._due - 1e-6:
            return False
        first = self._due == -float("inf")
        self._due = at + self._period_s if first else max(self._due + self._period_s, at + 1e-6)
        return True


class Window:
    """Mean of what was told in the last `span_s`, each value with the time that it held for."""

    def __init__(self, span_s: float) -> None:
        self._span_s = span_s
        self._kept: deque[tuple[float, float, float]] = deque()  # (until, cores, seconds)

    def add(self, at: float, cores: float, seconds: float) -> None:
        self._kept.append((at, cores, seconds))
        while self._kept and self._kept[0][0] <= at - self._span_s + 1e-6:
            self._kept.popleft()

    @property
    def mean(self) -> float | None:
        """None when nothing was told."""
        seconds = sum(s for _, _, s in self._kept)
        return sum(cores * s for _, cores, s in self._kept) / seconds if seconds else None

    @property
    def newest(self) -> float | None:
        return self._kept[-1][0] if self._kept else None


def online(share: Share) -> float | None:
    """Cores that online work used in the step; None when a part of it is not known."""
    known = [cores for cores in share.online if cores is not None]
    return sum(known) if len(known) == len(share.online) and share.batch is not None else None
