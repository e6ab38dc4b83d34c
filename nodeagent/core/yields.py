"""Whether Batch gives way by itself: the scheduler hands online work the CPU at once, whatever Batch's quota.

cpu.idle counts among siblings: a thread that wakes up preempts another at once where, below their nearest
common cgroup, the other's is idle and its own is not (Linux kernel/sched/fair.c: find_matching_se and
check_preempt_wakeup_fair). So the cgroup that parts a Batch pod from an online one has to be the idle one,
not only the pod's own: below a kubelet's besteffort directory, which cannot be idle, Batch does not give way.

What online work takes back within microseconds need not be kept free for it: a quota that follows online use
leaves idle what online work does not use between two ticks, and protects nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nodeagent.core.formula import offline_available
from nodeagent.core.rates import View
from nodeagent.core.reach import Reach
from nodeagent.core.usage import Usage
from nodeagent.model.plan import Kind, Knob, KnobReading, numeric
from nodeagent.model.policy import CapacityPolicy, CpuPolicy


def ceiling_cores(
    view: View,
    knobs: Mapping[Knob, KnobReading],
    usage: Usage,
    policy: tuple[CapacityPolicy, CpuPolicy],
    reach: Reach | None,
) -> float | None:
    """What Batch that gives way may use: the node less the system's use, or what is kept for it.

    None where it does not give way, or an input is unknown.
    """
    capacity, cpu = policy
    known = usage.system_cores is not None and view.steal_cores is not None
    if cpu.yielding_ceiling_ratio == 0.0 or not known or not gives_way(view, knobs):
        return None
    return offline_available(
        total_cores(view, reach),
        cpu.yielding_ceiling_ratio,
        capacity.reserved_cpu_cores,
        usage.system_cores or 0.0,
        0.0,
    )


def total_cores(view: View, reach: Reach | None) -> float:
    """Cores that Batch can have at all: without steal, and where CPUs are owned only the others."""
    total = max(0.0, view.snapshot.topology.cores - (view.steal_cores or 0.0))
    return total if reach is None else min(total, reach.cores)


def gives_way(view: View, knobs: Mapping[Knob, KnobReading]) -> bool:
    """True when SCHED_IDLE stands, as read in this tick, between all Batch and all online pods."""
    online = [p.pod.spec.cgroup for p in view.pods if p.pod.spec.online]
    batch = [p.pod.spec.cgroup for p in view.pods if not p.pod.spec.online] or list(view.snapshot.tiers)
    below = _counted(online)
    parting = {top for cgroup in batch for top in _parting(cgroup, below, len(online))}
    return bool(batch) and all(_idle(knobs.get(Knob(Kind.CPU_WEIGHT, top))) for top in parting)


def _counted(cgroups: Iterable[str]) -> dict[str, int]:
    """How many of them are at or below each path."""
    counts: dict[str, int] = {}
    for cgroup in cgroups:
        for path in _levels(cgroup):
            counts[path] = counts.get(path, 0) + 1
    return counts


def _parting(cgroup: str, below: Mapping[str, int], all_online: int) -> Iterator[str]:
    """The levels of a Batch pod's path at which online pods take another way."""
    here = all_online
    for path in _levels(cgroup):
        if (further := below.get(path, 0)) < here:
            yield path
        here = further


def _levels(cgroup: str) -> Iterator[str]:
    """a, a/b, a/b/c."""
    end = 0
    while (end := cgroup.find("/", end + 1)) > 0:
        yield cgroup[:end]
    yield cgroup


def _idle(weight: KnobReading | None) -> bool:
    return weight is not None and numeric(weight.actual) == 0.0
