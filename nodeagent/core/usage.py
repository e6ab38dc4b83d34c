"""Who uses what: online, Batch and system use of the node and its NUMA nodes, and how old that knowledge is.

A pod whose reading is missing counts with its last known use, and that use ages. A pod that was never read
counts with its request, else everything that includes it is unknown; only in a pod's first tick it counts
with nothing and `arriving` says that nothing may grow. /proc/stat counts in ticks of 10 ms, so the system's
use is taken over at least half a second.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from nodeagent.core.rates import PodRates, View
from nodeagent.core.zone_cpu import zone_cores
from nodeagent.core.zone_memory import zone_bytes
from nodeagent.model.decision import BusyPart, KnownUse, Memory

SYSTEM_SPAN_S = 0.5
NODE = ""  # the key of the node's own (system) use among the known


class Usage(Struct, frozen=True, gc=False):
    """Cores and bytes; None = not known and never was. Ages in seconds, of the oldest contribution.

    `told_cores` are `online_cores` without the pods whose use was never told: /proc/stat has it, so that it
    counts as the system's.
    """

    online_cores: float | None
    told_cores: float | None
    batch_cores: float | None
    system_cores: float | None
    cpu_age_s: float
    online_bytes: float | None
    batch_bytes: float
    system_bytes: float | None
    memory_total_bytes: float | None
    memory_age_s: float
    arriving: bool
    zone_online_cores: dict[int, float]
    zone_system_cores: dict[int, float]
    zone_online_bytes: dict[int, float]
    zone_system_bytes: dict[int, float]

    @property
    def cpu_sure(self) -> bool:
        """True when every input about CPUs was just read; else no limit on CPUs may be loosened."""
        return self.online_cores is not None and not self.arriving and self.cpu_age_s < SYSTEM_SPAN_S

    @property
    def sure(self) -> bool:
        """True when every input was just read; else nothing may be offered that was not before."""
        return self.cpu_sure and self.online_bytes is not None and self.memory_age_s == 0.0


def used(view: View, memory: Memory) -> tuple[BusyPart, dict[str, KnownUse], Usage]:
    """What is remembered of use after this tick, and the sums over it."""
    busy = add_up(view, memory.busy)
    known = remember(view, memory.known, busy)
    return busy, known, usage(view, known)


def add_up(view: View, part: BusyPart) -> BusyPart:
    """`part` and this tick; begins anew once it spans SYSTEM_SPAN_S."""
    if part.span_s >= SYSTEM_SPAN_S:
        part = BusyPart()
    if view.dt_s is None or view.busy_cores is None:
        return part
    others = view.busy_cores - sum(p.cores or 0.0 for p in view.pods)
    return BusyPart(part.span_s + view.dt_s, part.other_core_s + others * view.dt_s)


def remember(view: View, known: Mapping[str, KnownUse], part: BusyPart) -> dict[str, KnownUse]:
    """The last known use of every pod that is here, and of the system; `part` is what `add_up` gave."""
    now = view.snapshot.at
    new = KnownUse(cpu_at=now, memory_at=now)
    after = {p.pod.spec.uid: _known_pod(p, known.get(p.pod.spec.uid, new), now) for p in view.pods}
    after[NODE] = _known_system(view, after, known.get(NODE, KnownUse()), part)
    return after


def usage(view: View, known: Mapping[str, KnownUse]) -> Usage:
    """Sums over the known use; `known` is what `remember` gave for this tick."""
    now, system = view.snapshot.at, known[NODE]
    online = [(p, known[p.pod.spec.uid]) for p in view.pods if p.pod.spec.online]
    batch = [known[p.pod.spec.uid] for p in view.pods if not p.pod.spec.online]
    batch_cores = sum(k.cpu_cores or 0.0 for k in batch) if view.dt_s is not None else None
    batch_bytes = sum(k.memory_bytes or 0.0 for k in batch)
    each = [cpu_or_request(p, k, now) for p, k in online]
    told, cpu_age_s = _sum([part for part in each if part[0] is not None], now)
    measured = view.dt_s is not None or system.cpu_cores is not None
    all_told = all(cores is not None for cores, _ in each)
    size, memory_age_s = _sum([_memory_or_request(p, k, now) for p, k in online], now)
    memory = view.snapshot.node.memory
    zone_online, zone_system = zone_cores(view, known, batch_cores or 0.0, system.cpu_cores or 0.0)
    zone_online_bytes, zone_system_bytes = zone_bytes(
        view.snapshot.node.numa_memory, [known for _, known in online], batch, system.memory_bytes or 0.0
    )
    return Usage(
        online_cores=told if measured and all_told else None,
        told_cores=told if measured else None,
        batch_cores=batch_cores,
        system_cores=system.cpu_cores,
        cpu_age_s=max(cpu_age_s, now - system.cpu_at) if system.cpu_cores is not None else cpu_age_s,
        online_bytes=size,
        batch_bytes=batch_bytes,
        system_bytes=system.memory_bytes,
        memory_total_bytes=None if memory is None else float(memory.total_bytes),
        memory_age_s=max(memory_age_s, now - system.memory_at)
        if system.memory_bytes is not None
        else memory_age_s,
        arriving=any(k.cpu_cores is None and k.cpu_at == now for _, k in online),
        zone_online_cores=zone_online,
        zone_system_cores=zone_system,
        zone_online_bytes=zone_online_bytes,
        zone_system_bytes=zone_system_bytes,
    )


def _known_pod(rates: PodRates, last: KnownUse, now: float) -> KnownUse:
    reading, cores = rates.pod.reading, rates.cores
    size, pages = reading.working_set_bytes, reading.pages_by_node
    return KnownUse(
        last.cpu_cores if cores is None else cores,
        last.cpu_at if cores is None else now,
        last.memory_bytes if size is None else float(size),
        last.memory_at if size is None else now,
        last.pages if pages is None else pages,
    )


def _known_system(view: View, pods: Mapping[str, KnownUse], last: KnownUse, part: BusyPart) -> KnownUse:
    now = view.snapshot.at
    cpu: tuple[float | None, float] = (last.cpu_cores, last.cpu_at)
    if view.busy_cores is not None and part.span_s >= SYSTEM_SPAN_S:
        cpu = (max(0.0, part.other_core_s / part.span_s), now)
    memory: tuple[float | None, float] = (last.memory_bytes, last.memory_at)
    node = view.snapshot.node.memory
    if node is not None and node.available_bytes is not None:
        used = node.total_bytes - node.available_bytes
        memory = (max(0.0, used - sum(k.memory_bytes or 0.0 for k in pods.values())), now)
    return KnownUse(cpu[0], cpu[1], memory[0], memory[1])


def cpu_or_request(rates: PodRates, known: KnownUse, now: float) -> tuple[float | None, float]:
    """Cores that a pod counts with, and when that was so; None when neither use nor request was ever told."""
    if known.cpu_cores is None:
        request = rates.pod.spec.cpu_request_cores
        return (0.0 if request is None and known.cpu_at == now else request), now
    return known.cpu_cores, known.cpu_at


def _memory_or_request(rates: PodRates, known: KnownUse, now: float) -> tuple[float | None, float]:
    if "memory" in rates.pod.unsupported:
        return 0.0, now  # nothing tells it apart from the system's
    if known.memory_bytes is None:
        request = rates.pod.spec.memory_request_bytes
        return (None if request is None else float(request)), now
    return known.memory_bytes, known.memory_at


def _sum(parts: list[tuple[float | None, float]], now: float) -> tuple[float | None, float]:
    """The sum and the age of its oldest part; None as soon as one part is unknown."""
    total, age_s = 0.0, 0.0
    for value, at in parts:
        if value is None:
            return None, age_s
        total += value
        age_s = max(age_s, now - at)
    return total, age_s
