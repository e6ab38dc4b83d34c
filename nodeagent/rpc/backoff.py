"""How long to wait before connecting again. Pure but for the dice."""

from __future__ import annotations

import random

MAX_DOUBLINGS = 32


class Backoff:
    """Full jitter: any pause up to a bound that doubles with each failure, so that agents come one by one.

    Only a stream that outlived the longest pause makes the bound small again: a controller that takes
    connections and drops them is no better than one that refuses them.
    """

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._failures = 0

    def bound_s(self, lived_s: float) -> float:
        """The longest pause after a stream that lived so long; 0 seconds: there was none."""
        self._failures = 0 if lived_s > self._longest_s else self._failures
        bound_s = min(self._longest_s, self._first_s * 2.0 ** min(self._failures, MAX_DOUBLINGS))
        self._failures += 1
        return bound_s

    def pause_s(self, lived_s: float) -> float:
        """A random pause within that bound."""
        return random.uniform(0.0, self.bound_s(lived_s))
