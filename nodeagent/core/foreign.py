"""Hands off: which CPUs are in no set of ours, and whose sets are never written.

Invariant: what is not known in this tick is as it was last known; until all was known once, nothing moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from nodeagent.core.rates import View
from nodeagent.model.cpuset import CpuSet, within
from nodeagent.model.foreign import Foreign, Owned
from nodeagent.model.plan import Kind, Knob, KnobReading
from nodeagent.model.pod import PodSpec
from nodeagent.model.topology import Topology

NOT_LOOKED_AT = Foreign(None, None, None)  # while pods are not placed


def settled(now: Foreign, last: Foreign) -> Foreign:
    """What is known now, and where that is nothing, what was known last; nothing when nobody looked."""
    if now == NOT_LOOKED_AT:
        return now
    return Foreign(
        kubelet=last.kubelet if now.kubelet is None else now.kubelet,
        realtime=last.realtime if now.realtime is None else now.realtime,
        partitions=last.partitions if now.partitions is None else now.partitions,
        unknown=now.unknown,
    )


def known(foreign: Foreign) -> bool:
    """True when nothing is left that was never known."""
    return None not in (foreign.kubelet, foreign.realtime, foreign.partitions)


def owned(foreign: Foreign) -> tuple[Owned, ...]:
    """All that is known to be somebody else's."""
    return (*(foreign.kubelet or ()), *(foreign.realtime or ()), *(foreign.partitions or ()))


def hands_off(foreign: Foreign, topology: Topology) -> CpuSet:
    """Online CPUs that are not ours to give: those of others, and those that the kernel isolates."""
    online = {cpu.id for cpu in topology.cpus}
    return CpuSet(online & set(topology.isolated).union(*map(_cpus, owned(foreign))))


def left_alone(view: View, foreign: Foreign, knobs: Mapping[Knob, KnobReading]) -> dict[str, str]:
    """Cgroups of pods whose sets are not ours to write, with the reason."""
    owners = {each.uid: each for each in reversed(owned(foreign)) if each.uid}
    apart = str(CpuSet({*view.snapshot.topology.isolated}.union(*map(_cpus, foreign.partitions or ()))))
    reasons = ((p.pod.spec, _reason(p.pod.spec, owners, knobs, apart)) for p in view.pods)
    return {spec.cgroup: why for spec, why in reasons if why}


def kept_out(view: View) -> frozenset[str]:
    """Cgroups of pods of which nothing may be written."""
    return frozenset(p.pod.spec.cgroup for p in view.pods if p.pod.spec.hands_off)


def inside(path: str, cgroups: AbstractSet[str]) -> bool:
    """True for each of these cgroups and for what is inside of them."""
    while cgroups and path:
        if path in cgroups:
            return True
        path = path.rpartition("/")[0]
    return False


def holds(path: str, cgroups: Iterable[str]) -> bool:
    """True when one of these cgroups is inside of `path`."""
    return any(cgroup.startswith(f"{path}/") for cgroup in cgroups)


def _reason(spec: PodSpec, owners: Mapping[str, Owned], knobs: Mapping[Knob, KnobReading], apart: str) -> str:
    owner = owners.get(spec.uid)
    if owner is not None:
        return f"{owner.why} (CPUs {owner.cpus})" if owner.cpus else owner.why
    if spec.hands_off:
        return "to be left alone: hands_off"
    home = _home(knobs.get(Knob(Kind.CPUS, spec.cgroup)))
    if home and apart and within(home, apart):
        return f"runs on isolated CPUs or in a cpuset partition (CPUs {home})"
    return ""


def _home(reading: KnobReading | None) -> str:
    """The CPUs that a pod had before we wrote any; "" where that is not told."""
    if reading is None:
        return ""
    before = reading.original if reading.held else reading.effective
    return before if isinstance(before, str) else ""


def _cpus(owned: Owned) -> CpuSet:
    return CpuSet.parse(owned.cpus)
