"""What was learned in a tick, and what is usual: per workload, so that a new replica knows at once.

Invariant: at most MOST_BASELINES are kept; those that were not added to for longest go first.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Set
from functools import lru_cache

from nodeagent.core.interference.baseline import fold, load_bin, usuals
from nodeagent.core.interference.signs import RULES
from nodeagent.model.interference_policy import InterferencePolicy
from nodeagent.model.pod import PodSpec
from nodeagent.model.senses import Baseline, Senses, Usual, Workload
from nodeagent.model.symptom import Sign

MOST_BASELINES = 4096
FORSAKEN_S = 1800.0  # not added to for so long
BATCH = 30  # samples; up to half as many more, by pod, so that not all pods of a node learn in one tick

Rows = tuple[tuple[int, dict[Sign, float]], ...]
_NOTHING = Workload()
_RULED = frozenset(sign.value for sign in RULES)


@lru_cache(maxsize=4096)
def batch_of(uid: str) -> int:
    """How many samples of this pod are learned at a time."""
    return BATCH + zlib.crc32(uid.encode()) % (BATCH // 2)


class Lessons:
    """The workloads in one tick: usual is what was so at its beginning, what is added counts later."""

    __slots__ = ("_before", "_policy", "_unix", "_workloads", "pending")

    def __init__(self, senses: Senses, unix: float, policy: InterferencePolicy) -> None:
        self._before, self._unix, self._policy = senses.workloads, unix, policy
        self._workloads = dict(senses.workloads)
        self.pending = dict(senses.pending)

    def usual(self, name: str, load: int) -> dict[Sign, Usual]:
        """What is usual for the workload in this load bin; signs that are cold are left out."""
        workload = self._before.get(name, _NOTHING)
        found = workload.usual.get(load)
        if found is None:
            found = self._kept(name, load, workload)
        return found

    def learn(
        self,
        uid: str,
        name: str,
        load: int,
        values: dict[Sign, float],
        *,
        ready: bool = True,
        anew: frozenset[Sign] = frozenset(),
    ) -> None:
        """Add a pod's sample to those pending, and learn them when they are enough and it is `ready`."""
        rows = (*self.pending.get(uid, ()), (load, values))
        enough = batch_of(uid)
        if ready and len(rows) >= enough:
            self._add(name, rows, anew)
            rows = ()
        self.pending[uid] = rows[-2 * enough :]

    def give_up(self, uid: str) -> None:
        """Forget the samples that are pending."""
        self.pending.pop(uid, None)

    def forget(self, present: Set[str]) -> None:
        """Forget those of pods that have ended."""
        for ended in self.pending.keys() - present:
            del self.pending[ended]

    def _add(self, name: str, rows: Rows, anew: frozenset[Sign]) -> None:
        """Learn these samples; what was known of the signs `anew` in their load bins is forgotten."""
        by_key: dict[tuple[Sign, int], list[float]] = {}
        for load, values in rows:
            for sign, value in values.items():
                if sign in RULES:
                    by_key.setdefault((sign, load), []).append(value)
        workload = self._workloads.get(name, _NOTHING)
        baselines = dict(workload.baselines)
        for (sign, load), learned in by_key.items():
            key = f"{sign.value}@{load}"
            old = baselines.get(key)
            if old is None or (sign in anew and self._unix - old.last > FORSAKEN_S):
                old = Baseline()
            baselines[key] = fold(old, learned, sign, self._unix, self._policy.half_life_s)
        self._workloads[name] = Workload(baselines)

    def learned(self) -> dict[str, Workload]:
        """The workloads after this tick."""
        total = sum(len(workload.baselines) for workload in self._workloads.values())
        return self._workloads if total <= MOST_BASELINES else _oldest_gone(self._workloads)

    def _kept(self, name: str, load: int, workload: Workload) -> dict[Sign, Usual]:
        found = usuals(workload, load, self._policy)
        now = self._workloads.get(name)
        if now is not None and now.baselines is workload.baselines:
            self._workloads[name] = Workload(now.baselines, {**now.usual, load: found})
        return found


def usual_of(senses: Senses, spec: PodSpec, policy: InterferencePolicy) -> dict[Sign, Usual]:
    """What is usual for a pod under the load that it has now."""
    sense, use = senses.pods.get(spec.uid), senses.uses.get(spec.uid)
    workload = None if sense is None else senses.workloads.get(sense.workload)
    if workload is None:
        return {}
    return usuals(workload, load_bin(0.0 if use is None else use.now, spec.cpu_request_cores), policy)


def told(senses: Senses) -> dict[str, dict[str, Baseline]]:
    """What is worth keeping over a restart."""
    return {name: workload.baselines for name, workload in senses.workloads.items() if workload.baselines}


def restored(baselines: Mapping[str, Mapping[str, Baseline]]) -> Senses:
    """The senses after a restart; what an older agent kept of signs that have no baseline now is left out."""
    workloads = {
        name: Workload({key: b for key, b in kept.items() if key.partition("@")[0] in _RULED and b.weights})
        for name, kept in baselines.items()
    }
    return Senses(workloads=workloads)


def _oldest_gone(workloads: dict[str, Workload]) -> dict[str, Workload]:
    """Without the least recent tenth."""
    every = ((b.last, name, key) for name, each in workloads.items() for key, b in each.baselines.items())
    ages = sorted(every)
    gone = {(name, key) for _, name, key in ages[: len(ages) - MOST_BASELINES * 9 // 10]}
    kept = {}
    for name, each in workloads.items():
        left = {key: b for key, b in each.baselines.items() if (name, key) not in gone}
        if len(left) == len(each.baselines):
            kept[name] = each
        elif left:
            kept[name] = Workload(left)
    return kept
