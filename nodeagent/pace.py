"""When ticks are due: at fixed times, so that a late one does not shift the next.

Invariant: each due time is served by a tick, which may be late, or missed because one was still at work.
"""

from __future__ import annotations

LATEST_S = 60.0  # after a machine that stood still, ticks that were missed are not counted one by one


class Pace:
    """Of one loop. `due` is when the next tick is to begin; all times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.due = now
        self._served = False

    def begun(self, now: float) -> float | None:
        """A tick begins: how many seconds late it is, None when it came before it was due."""
        self._served = now >= self.due
        return now - self.due if self._served else None

    def ended(self, now: float, tick_s: float) -> int:
        """It is done, the next is due after `now`: how many due times have passed without a tick."""
        self.due = max(self.due, now - LATEST_S)
        passed = 0
        while self.due <= now:
            self.due += tick_s
            passed += 1
        return max(0, passed - self._served)
