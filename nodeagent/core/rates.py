"""Counters become rates: two snapshots and the time between them.

A counter that went down or a missing reading gives None, never a negative rate. A pod that was not there
before is a new cgroup, whose counters began at 0; unless that would mean more than the whole node.
"""

from __future__ import annotations

from msgspec import Struct

from nodeagent.model.pod import Qos
from nodeagent.model.snapshot import Container, CpuTimes, Node, Pod, Reading, Snapshot, Stall

NEWBORN = Reading(cpu_us=0, throttled_us=0, cpu_stall=Stall(0, 0), run_delay_us=0)


class PodRates(Struct, frozen=True, gc=False):
    """`stall_ratio`, `run_delay_ratio` and `throttled_ratio` are shares of wall time; the last two sum over
    threads and CPUs and may exceed 1. `cores` is CPU time per wall time. `throttled_inner` are the cgroups of
    the containers that were throttled by a quota of their own. `before` is the pod in the last tick."""

    pod: Pod
    cores: float | None
    stall_ratio: float | None
    run_delay_ratio: float | None
    throttled_ratio: float | None
    throttled_inner: tuple[str, ...] = ()
    before: Pod | None = None

    @property
    def sighted(self) -> bool:
        """True when the pod's wait for CPU is known, by PSI or, where PSI is unsupported, by run delay."""
        if "cpu_stall" not in self.pod.unsupported:
            return self.stall_ratio is not None
        return self.run_delay_ratio is not None or "run_delay" in self.pod.unsupported


class View(Struct, frozen=True, gc=False):
    """One tick with its rates. `dt_s` is None in the first tick; `zone_busy_cores` is by NUMA node.

    `node_before` is the node in the last tick.
    """

    snapshot: Snapshot
    dt_s: float | None
    pods: tuple[PodRates, ...]
    busy_cores: float | None
    steal_cores: float | None
    zone_busy_cores: dict[int, float]
    node_before: Node | None = None

    @property
    def blind(self) -> bool:
        """True when an LS pod's wait for CPU is not known in this tick: nothing may be loosened."""
        return any(p.pod.spec.qos is Qos.LS and not p.sighted for p in self.pods)


def view(snapshot: Snapshot, previous: Snapshot | None) -> View:
    """Rates between two snapshots; all None without a previous one or when time did not pass."""
    dt_s = None if previous is None or snapshot.at <= previous.at else snapshot.at - previous.at
    if previous is None or dt_s is None or previous.boot_id != snapshot.boot_id:
        return View(snapshot, None, tuple(_no_rates(p) for p in snapshot.pods), None, None, {})
    kept = set(map(id, snapshot.pods)) & set(map(id, previous.pods))
    before = {(p.spec.uid, p.spec.inode): p for p in previous.pods if id(p) not in kept}
    most = snapshot.topology.cores * dt_s * 1e6
    pods = [
        _unmoved(p) if id(p) in kept else _rates(p, before.get((p.spec.uid, p.spec.inode)), dt_s, most)
        for p in snapshot.pods
    ]
    busy, steal, zones = _node_rates(snapshot, previous, dt_s)
    return View(snapshot, dt_s, tuple(pods), busy, steal, zones, previous.node)


def per_second(old: int | None, new: int | None, dt_s: float) -> float | None:
    """Growth of a counter in us as a share of wall time; None when unknown or when it went down."""
    if old is None or new is None or new < old:
        return None
    return (new - old) / (dt_s * 1e6)


def _no_rates(pod: Pod) -> PodRates:
    return PodRates(pod, None, None, None, None)


def _rates(pod: Pod, old: Pod | None, dt_s: float, most_us: float) -> PodRates:
    now = pod.reading
    if old is None and (now.cpu_us is None or now.cpu_us > most_us):
        return _no_rates(pod)
    was = NEWBORN if old is None else old.reading
    throttled_ratio, inner = _throttled(pod, was, () if old is None else old.containers, dt_s)
    return PodRates(
        pod,
        per_second(was.cpu_us, now.cpu_us, dt_s),
        per_second(_some_us(was.cpu_stall), _some_us(now.cpu_stall), dt_s),
        per_second(was.run_delay_us, now.run_delay_us, dt_s),
        throttled_ratio,
        inner,
        old,
    )


def _unmoved(pod: Pod) -> PodRates:
    """Of a pod that was carried over as it was: the same as of one with equal readings."""
    now = pod.reading
    told = now.throttled_us is not None
    if not told and pod.containers:
        told = any(c.reading.throttled_us is not None for c in pod.containers)
    return PodRates(
        pod,
        None if now.cpu_us is None else 0.0,
        None if now.cpu_stall is None else 0.0,
        None if now.run_delay_us is None else 0.0,
        0.0 if told else None,
        (),
        pod,
    )


def _some_us(stall: Stall | None) -> int | None:
    return None if stall is None else stall.some_us


def _throttled(
    pod: Pod, was: Reading, inner_was: tuple[Container, ...], dt_s: float
) -> tuple[float | None, tuple[str, ...]]:
    """Own throttling: the pod's and its containers'. The kernel counts each group's own limit only."""
    ratio = per_second(was.throttled_us, pod.reading.throttled_us, dt_s)
    before = {(c.cgroup, c.inode): c.reading.throttled_us for c in inner_was}
    inner = [
        per_second(before.get((c.cgroup, c.inode)), c.reading.throttled_us, dt_s) for c in pod.containers
    ]
    parts = [r for r in (ratio, *inner) if r is not None]
    names = tuple(c.cgroup for c, r in zip(pod.containers, inner, strict=True) if r)
    return (sum(parts) if parts else None), names


def _node_rates(
    snapshot: Snapshot, previous: Snapshot, dt_s: float
) -> tuple[float | None, float | None, dict[int, float]]:
    if snapshot.node.cpus is None or previous.node.cpus is None:
        return None, None, {}
    before = {c.cpu: c for c in previous.node.cpus}
    home = {c.id: c.numa_node for c in snapshot.topology.cpus}
    busy = steal = 0.0
    zones = dict.fromkeys((n.id for n in snapshot.topology.nodes), 0.0)
    for cpu in snapshot.node.cpus:
        cpu_busy, cpu_steal = _cpu_rates(before.get(cpu.cpu), cpu, dt_s)
        busy += cpu_busy
        steal += cpu_steal
        node = home.get(cpu.cpu)
        if node is not None:
            zones[node] = zones.get(node, 0.0) + cpu_busy
    return busy, steal, zones


def _cpu_rates(old: CpuTimes | None, new: CpuTimes, dt_s: float) -> tuple[float, float]:
    """Busy and stolen share of one CPU, each within [0, 1]; a CPU that just came online counts as idle."""
    if old is None:
        return 0.0, 0.0
    busy = max(0.0, (new.busy_us - old.busy_us) / (dt_s * 1e6))
    steal = max(0.0, (new.steal_us - old.steal_us) / (dt_s * 1e6))
    return min(1.0, busy), min(1.0, steal)
