"""How long systemd is waited for, and when it, or one of its units, is left in peace.

    a tick            TICK_LIMIT_S in all, of it BEGIN_S for what is told before its writes
    on the way out    LEAVE_LIMIT_S in all: there is no next tick
    no answer         none of it is asked again for BACK_OFF_S, then twice that, up to BACK_OFF_MAX_S
    an error          that unit is not asked again for PACE_S; the others are

Invariant: `talk` raises nothing; what it could not do is for the caller to see and to try again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping
from typing import TypeVar

from nodeagent.model.errors import AgentError, Failed
from nodeagent.units.bus import Bus, reachable, unusable

PACE_S = 5.0
TICK_LIMIT_S = 1.0
BEGIN_S = 0.2  # what is left of a tick is not worth a connection below this
LEAVE_LIMIT_S = 10.0
BACK_OFF_S, BACK_OFF_MAX_S = 5.0, 300.0

T = TypeVar("T")


class Patience:
    """With the systemd of `host_root`. `news` are lines for the log; the owner empties the list."""

    def __init__(self, host_root: str) -> None:
        self._root = host_root
        why_not = unusable(host_root)
        self.news = [why_not] if why_not else []
        self.usable = reachable(host_root)
        self._refused: dict[str, float] = {}  # units for which systemd answered with an error, and until when
        self._complained: set[str] = set()  # units of which the log has heard
        self._waited_s = 0.0  # in this tick
        self._wait_s, self._quiet_until, self._failing = BACK_OFF_S, 0.0, False
        self._begin_after = 0.0
        self._leave_until: float | None = None

    def tick(self) -> None:
        """Another tick begins."""
        self._waited_s = 0.0

    def refuses(self, unit: str) -> bool:
        """True while the unit is left in peace."""
        return time.monotonic() < self._refused.get(unit, 0.0)

    def left_s(self) -> float:
        """How long this tick may still wait; 0.0 while systemd is left in peace."""
        left_s = TICK_LIMIT_S - self._waited_s
        return left_s if left_s >= BEGIN_S and time.monotonic() >= self._quiet_until else 0.0

    def begin_s(self) -> float:
        """How long of that before the tick's writes."""
        return min(BEGIN_S, self.left_s()) if time.monotonic() >= self._begin_after else 0.0

    def leave_s(self) -> float:
        """How long may still be waited on the way out, which begins with the first call."""
        now = time.monotonic()
        if self._leave_until is None:
            self._leave_until = now + LEAVE_LIMIT_S
        return self._leave_until - now

    def talk(self, todo: Mapping[str, T], act: Callable[[Bus, str, T], None], limit_s: float) -> None:
        """Act on each unit; when half of the time is over none is begun, and the others have to wait."""
        if not todo or not self.usable or limit_s <= 0:
            return
        began = time.monotonic()
        try:
            with Bus(self._root, limit_s) as bus:
                for unit, what in todo.items():
                    if time.monotonic() < began + limit_s / 2:
                        self._try(bus, unit, what, act)
            self._wait_s, self._failing = BACK_OFF_S, False
        except AgentError as error:
            now = time.monotonic()
            if limit_s <= BEGIN_S and now >= began + limit_s:
                self._begin_after = now + PACE_S  # slow, perhaps: it is told once the files are written
            else:
                self._failed(error)
        finally:
            self._waited_s += time.monotonic() - began

    def forget(self, units: Container[str]) -> None:
        """No other units than these matter any longer."""
        now = time.monotonic()
        self._refused = {unit: until for unit, until in self._refused.items() if now < until}
        self._complained = {unit for unit in self._complained if unit in units}

    def _try(self, bus: Bus, unit: str, what: T, act: Callable[[Bus, str, T], None]) -> None:
        """What systemd has against one unit is no reason to leave out the others."""
        try:
            act(bus, unit, what)
            self._complained.discard(unit)
        except AgentError as error:
            if bus.broken or isinstance(error, Failed):
                raise
            self._refused[unit] = time.monotonic() + PACE_S
            if unit not in self._complained:
                self.news.append(f"{unit}: {error}; a daemon-reload undoes what is set on it")
            self._complained.add(unit)

    def _failed(self, error: AgentError) -> None:
        if not self._failing:
            hint = f" ({error.hint})" if error.hint else ""
            self.news.append(f"{error}{hint}; files alone are written until then")
        self._failing = True
        self._quiet_until = time.monotonic() + self._wait_s
        self._wait_s = min(2 * self._wait_s, BACK_OFF_MAX_S)
