"""The integrals of a simulation, step by step.

Invariant: a step in which online use is not known earns and costs nothing; it is only counted as such.
"""

from __future__ import annotations

import math

from nodeagent.simulate.answer import Simulated
from nodeagent.simulate.fluid import Share, Terms
from nodeagent.simulate.tasks import Placed

HOUR_S = 3600.0
LEAST_CORES = LEAST_S = 1e-6  # less is rounding


class Account:
    """Adds up what happens from `since` until `until` (seconds of the trace); before that one only learns."""

    def __init__(
        self, cores: int, ceiling_ratio: float, task_cores: float, since: float, until: float = math.inf
    ) -> None:
        self._cores, self._ceiling = cores, cores * ceiling_ratio
        self._task_cores, self._since, self._until = task_cores, since, until
        self._known_s = self._unknown_s = self._span_s = 0.0
        self._online = self._lent = self._offered = self._withdrawn = self._squeezed = self._broken = 0.0
        self._saturated_s = self._over_s = self._over = self._starved_s = self._starved = 0.0
        self._steps = self._changes = self._falls = self._tasks = self._hit = self._times = 0
        self._last: Terms | None = None
        self._short = False  # something was withdrawn in the last step

    def add(self, share: Share, terms: Terms, placed: Placed) -> None:
        """One step on `terms` with the tasks that were `placed`."""
        if share.at - share.span_s < self._since - LEAST_S or share.at > self._until + LEAST_S:
            self._last, self._short = terms, placed.withdrawn_cores > 0.0
            return
        self._steps += 1
        self._span_s = share.span_s
        self._promise(terms, placed)
        if share.batch is None:
            self._unknown_s += share.span_s
            return
        dt = share.span_s
        self._known_s += dt
        self._offered += terms.offered_cores * dt
        self._withdrawn += placed.withdrawn_cores * dt
        squeezed = max(0.0, placed.promised_cores - share.batch)
        self._squeezed += squeezed * dt
        self._broken += max(squeezed, placed.withdrawn_cores) * dt
        self._lent += share.batch * dt
        self._harm(share, share.batch, dt)

    def _promise(self, terms: Terms, placed: Placed) -> None:
        before = terms.offered_cores if self._last is None else self._last.offered_cores
        self._changes += abs(terms.offered_cores - before) > LEAST_CORES
        self._falls += terms.offered_cores < before - LEAST_CORES
        self._last = terms
        short = placed.withdrawn_cores > 0.0
        self._times += short and not self._short
        self._short = short
        self._tasks += placed.started
        self._hit += placed.hit

    def _harm(self, share: Share, batch: float, dt: float) -> None:
        online, wanted = sum(c or 0.0 for c in share.online), sum(c or 0.0 for c in share.wanted)
        self._online += online * dt
        over = min(batch, online + batch - self._ceiling)
        missed = min(wanted, float(self._cores)) - online
        self._saturated_s += dt * (wanted > self._cores + LEAST_CORES)
        if over > LEAST_CORES:
            self._over_s += dt
            self._over += over * dt
        if missed > LEAST_CORES:
            self._starved_s += dt
            self._starved += missed * dt

    def answer(self, notes: tuple[str, ...] = ()) -> Simulated:
        """The totals until now."""
        idle = self._cores * self._known_s - self._online
        whole = self._cores * self._known_s
        return Simulated(
            cores=self._cores,
            ceiling_cores=self._ceiling,
            hours=self._known_s / HOUR_S,
            unknown_hours=self._unknown_s / HOUR_S,
            steps=self._steps,
            step_s=self._span_s,
            online_core_hours=self._online / HOUR_S,
            idle_core_hours=idle / HOUR_S,
            lent_core_hours=self._lent / HOUR_S,
            lent_ratio=self._lent / idle if idle > 0.0 else 0.0,
            used_ratio=(self._online + self._lent) / whole if whole > 0.0 else 0.0,
            offered_core_hours=self._offered / HOUR_S,
            offer_changes=self._changes,
            offer_falls=self._falls,
            saturated_s=self._saturated_s,
            over_ceiling_s=self._over_s,
            over_ceiling_core_hours=self._over / HOUR_S,
            starved_s=self._starved_s,
            starved_core_hours=self._starved / HOUR_S,
            tasks=self._tasks,
            task_cores=self._task_cores,
            withdrawn_times=self._times,
            withdrawn_core_hours=self._withdrawn / HOUR_S,
            withdrawn_tasks=self._hit,
            squeezed_core_hours=self._squeezed / HOUR_S,
            broken_core_hours=self._broken / HOUR_S,
            notes=notes,
        )
