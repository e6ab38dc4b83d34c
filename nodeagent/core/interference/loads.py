"""Who uses more CPU than usual: the pod, or those beside it. Exponential means over 2 s and a minute."""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.core.rates import View
from nodeagent.model.senses import Onset, Use

NOW_S, USUAL_S = 2.0, 60.0
LEAST_CORES = 0.01  # less is no use
REST = ""  # what no pod accounts for: other processes of the node


class Loads:
    """The use of all pods after this tick, and what those beside a pod use together."""

    __slots__ = ("_cpus_of", "_sets", "_view", "uses")

    def __init__(self, view: View, before: Mapping[str, Use], cpus_of: Mapping[str, frozenset[int]]) -> None:
        self._view, self._cpus_of = view, cpus_of
        self.uses = _smoothed(view, before)
        self._sets: dict[frozenset[int] | None, tuple[float, float]] | None = None

    @property
    def at(self) -> float:
        """Monotonic seconds."""
        return self._view.snapshot.at

    def own(self, uid: str) -> Use:
        """The pod's own use."""
        return self.uses.get(uid, _NONE)

    def beside(self, uid: str, cgroup: str) -> tuple[Use, Use]:
        """What all others use: those that share CPUs with the pod, and those of the whole node."""
        own, cpus, rest = self.own(uid), self._cpus_of.get(cgroup), self.uses.get(REST, _NONE)
        near_now, near_usual = rest.now - own.now, rest.usual - own.usual
        all_now, all_usual = near_now, near_usual
        for other, (now, usual) in self._by_set().items():
            all_now, all_usual = all_now + now, all_usual + usual
            if cpus is None or other is None or not cpus.isdisjoint(other):
                near_now, near_usual = near_now + now, near_usual + usual
        return Use(max(0.0, near_now), max(0.0, near_usual)), Use(max(0.0, all_now), max(0.0, all_usual))

    def onset(self, uid: str, cgroup: str) -> Onset:
        """What was usual until now."""
        near, everywhere = self.beside(uid, cgroup)
        return Onset(self._view.snapshot.at, self.own(uid).usual, near.usual, everywhere.usual)

    def _by_set(self) -> dict[frozenset[int] | None, tuple[float, float]]:
        if self._sets is None:
            self._sets = {}
            for p in self._view.pods:
                use = self.uses.get(p.pod.spec.uid)
                if use is not None:
                    cpus = self._cpus_of.get(p.pod.spec.cgroup)
                    now, usual = self._sets.get(cpus, (0.0, 0.0))
                    self._sets[cpus] = (now + use.now, usual + use.usual)
        return self._sets


_NONE = Use(0.0, 0.0)


def _smoothed(view: View, before: Mapping[str, Use]) -> dict[str, Use]:
    """A pod whose use is not known keeps what it had; one that ended is forgotten.

    What Batch begins with is a rise, and so is what a pod does after it did nothing.
    """
    uses: dict[str, Use] = {}
    if view.dt_s is None:
        return dict(before)
    fast, slow = view.dt_s / (NOW_S + view.dt_s), view.dt_s / (USUAL_S + view.dt_s)
    pods = 0.0
    for p in view.pods:
        uid, cores = p.pod.spec.uid, p.cores
        old = before.get(uid)
        if cores is None:
            if old is not None:
                uses[uid] = old
            continue
        pods += cores
        if old is not None:
            now, usual = old.now + fast * (cores - old.now), old.usual + slow * (cores - old.usual)
            if now >= LEAST_CORES or usual >= LEAST_CORES:
                uses[uid] = Use(now, usual)
        elif cores >= LEAST_CORES:
            new = not before or (p.before is None and p.pod.spec.online)
            uses[uid] = Use(cores, cores if new else 0.0)
    if view.busy_cores is not None:
        rest, old = max(0.0, view.busy_cores - pods), before.get(REST)
        uses[REST] = Use(rest, rest) if old is None else _moved(old, rest, fast, slow)
    return uses


def _moved(old: Use, cores: float, fast: float, slow: float) -> Use:
    return Use(old.now + fast * (cores - old.now), old.usual + slow * (cores - old.usual))
