"""Which steps touch which resource, whether a step can be taken for a pod here, and what it comes to.

Only QUOTA and IDLE are sure to exist; CPUs can be left to a victim only if others remain, memory and caches
can be narrowed only where this host has a knob for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from nodeagent.core.interference.facts import Facts
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.interference import Rung
from nodeagent.model.plan import Kind, Knob, numeric
from nodeagent.model.pod import PodSpec, Priority
from nodeagent.model.settings import Actuator
from nodeagent.model.symptom import Channel
from nodeagent.model.topology import Cpu

LADDERS = {
    Channel.CPU: (Rung.IDLE, Rung.QUOTA, Rung.CPUSET, Rung.FREEZE),
    Channel.LLC: (Rung.CPUSET, Rung.SHRINK, Rung.QUOTA),
    Channel.MEMORY: (Rung.SHRINK, Rung.FREEZE, Rung.EVICT),
    Channel.IO: (Rung.IDLE, Rung.QUOTA, Rung.FREEZE),
    Channel.NET: (Rung.QUOTA,),
    Channel.APP: (Rung.IDLE, Rung.QUOTA),
}
LOWEST_WEIGHT = 0.01  # cpu.weight 1 of 100, cpu.shares 2 of 1024
FLOOR_CORES = 0.1  # of a quota; work of low priority goes down to cpu.pod_floor_cores
FLOOR_BYTES = 64 << 20  # of memory.high
STEP_BYTES = 64 << 20  # by which memory.high is at most below what is used, and so goes down in a tick
_ACTUATORS = {Rung.SHRINK: Actuator.MEMORY, Rung.FREEZE: Actuator.FREEZE}
_KINDS = {Rung.SHRINK: Kind.MEMORY_HIGH, Rung.FREEZE: Kind.FREEZE, Rung.CPUSET: Kind.CPUS}
SHRINK_RATIO = 0.9  # memory.high steps (Senpai: small ones, so that reclaim keeps up)
TRIED_RATIO = 0.75  # of its memory that a suspect keeps on trial
SHOWN_RATIO = 0.9  # of its memory: a bound above this would show nothing


def quota_floor(facts: Facts, spec: PodSpec) -> float:
    """The smallest quota of the pod, in cores."""
    least = facts.policy.cpu.pod_floor_cores
    return least if spec.priority is Priority.LOW else max(FLOOR_CORES, least)


def has_quota(facts: Facts, cgroup: str) -> bool:
    """True where the pod's quota can be set."""
    return Knob(Kind.CPU_QUOTA, cgroup) in facts.knobs


def is_idle(facts: Facts, cgroup: str) -> bool:
    """True when the pod, or a cgroup around it, is under SCHED_IDLE or has the lowest weight anyway."""
    while cgroup:
        reading = facts.knobs.get(Knob(Kind.CPU_WEIGHT, cgroup))
        if reading is not None and numeric(reading.actual) <= LOWEST_WEIGHT:
            return True
        cgroup = cgroup.rpartition("/")[0]
    return False


def memory_high_now(facts: Facts, cgroup: str) -> float:
    """The pod's memory.high as found in this tick, in bytes, where it is one of ours; else inf."""
    reading = facts.knobs.get(Knob(Kind.MEMORY_HIGH, cgroup))
    if reading is None or reading.written is None or reading.actual != reading.written:
        return math.inf
    return numeric(reading.actual)


def quota_now(facts: Facts, cgroup: str) -> float:
    """The pod's quota as found in this tick, in cores; inf without one."""
    reading = facts.knobs.get(Knob(Kind.CPU_QUOTA, cgroup))
    return math.inf if reading is None else numeric(reading.actual)


def lacks(facts: Facts, rung: Rung, cgroup: str) -> bool:
    """True where such a step was taken for the pod, and this host turned out to have no knob for it."""
    kind = _KINDS.get(rung)
    return kind is not None and Knob(kind, cgroup) in facts.view.snapshot.absent


def may(facts: Facts, rung: Rung, channel: Channel) -> bool:
    """True where this agent may take such a step at all."""
    if rung > facts.rules.top_rung:
        return False
    if rung is Rung.SHRINK and channel is Channel.LLC:
        return False  # no knob of caches or memory bandwidth is written yet
    needed = _ACTUATORS.get(rung)
    enforce = facts.view.snapshot.enforce
    return needed is None or enforce is None or needed in enforce


def away_from(facts: Facts, victim: str, suspect: str, channel: Channel) -> str:
    """CPUs (list format) that the suspect can leave to the victim's cgroup, the most that help; "" if none.

    For CPU time that is the victim's CPUs with the other threads of their cores, for caches all of its L3.
    """
    theirs, own = facts.cpus_of[suspect], facts.cpus_of[victim]
    cpus = facts.view.snapshot.topology.cpus
    cores = own.union(*(cpu.siblings for cpu in cpus if cpu.id in own))
    widest = (_domain(cpus, own), cores, own) if channel is Channel.LLC else (cores, own)
    return next((str(CpuSet(part)) for part in widest if part & theirs and theirs - part), "")


def memory_step(facts: Facts, uid: str, last: int | None) -> int | None:
    """The next memory.high of the suspect in bytes, None when it cannot go lower or is not known."""
    found = facts.pods[uid].pod.reading.memory_bytes
    if found is None:
        return None
    lower = int(SHRINK_RATIO * (found if last is None else min(last, found)))
    return lower if lower >= FLOOR_BYTES else None


def memory_on_trial(facts: Facts, uid: str) -> int | None:
    """memory.high of the suspect on trial, in bytes; None without one (cgroup v1), or where little of its
    memory could be taken back within half a trial: STEP_BYTES a tick, and nothing that is anonymous, which is
    touched less only if the suspect runs less. (tmpfs counts as file: a suspect that has much of it in there,
    on a node without swap, is slowed at a bound that it cannot keep.)
    """
    reading = facts.pods[uid].pod.reading
    used, anon, counts = reading.memory_bytes, reading.anon_bytes, reading.memory_events
    if used is None or anon is None or counts is None or counts.high is None:
        return None
    reach = int(STEP_BYTES * facts.rules.trial_s / 2 / max(1.0, facts.view.dt_s or 0.0))
    bound = max(FLOOR_BYTES, anon, int(TRIED_RATIO * used), used - reach)
    return bound if bound <= SHOWN_RATIO * used else None


def _domain(cpus: Iterable[Cpu], own: frozenset[int]) -> frozenset[int]:
    domains = {cpu.l3 for cpu in cpus if cpu.id in own and cpu.l3 is not None}
    return frozenset(cpu.id for cpu in cpus if cpu.l3 in domains)
