"""Realistic model values for tests and benchmarks: a node whose counters go on from tick to tick.

Same arguments, same values: there is no clock and no randomness, so a tick can be built twice and compared.
"""

from __future__ import annotations

from nodeagent.model.capacity import Amount, Capacity, Lent, Term, Zone
from nodeagent.model.decision import Decision, Tick
from nodeagent.model.plan import Change, Kind, Knob, KnobReading, Outcome, Setting
from nodeagent.model.pod import PodSpec, Priority, Qos
from nodeagent.model.snapshot import (
    Container,
    CpuTimes,
    Load,
    MemoryEvents,
    Node,
    NodeMemory,
    Pod,
    Reading,
    Snapshot,
    Stall,
)
from nodeagent.model.topology import Cpu, NumaNode, Topology

BOOT_ID = "6f1c1a52-8f0f-4b6c-9a2e-0c53c1d1a7b4"
UNIX_AT_BOOT = 1_790_000_000.0
GIB = 1 << 30
TIER = "nodeagent/batch"


def noise(*keys: int) -> float:
    """A number within [0, 1) that looks random and depends on the keys alone."""
    mixed = 0x9E3779B9
    for key in keys:
        mixed = (mixed ^ (key & 0xFFFFFFFF)) * 0x85EBCA6B & 0xFFFFFFFF
        mixed ^= mixed >> 15
    return (mixed * 0xC2B2AE35 & 0xFFFFFFFF) / (1 << 32)


def topology(cores: int = 8, numa_nodes: int = 1) -> Topology:
    """`cores` CPUs without SMT, split evenly over the NUMA nodes (one socket each)."""
    share = cores // numa_nodes
    home = [min(cpu // share, numa_nodes - 1) for cpu in range(cores)]
    cpus = tuple(Cpu(cpu, cpu, home[cpu], home[cpu], home[cpu], (cpu,)) for cpu in range(cores))
    nodes = tuple(
        NumaNode(
            node,
            tuple(cpu for cpu in range(cores) if home[cpu] == node),
            4 * GIB * share,
            tuple(10 if node == other else 21 for other in range(numa_nodes)),
        )
        for node in range(numa_nodes)
    )
    return Topology(cpus, nodes)


def pod(
    number: int,
    at: float,
    *,
    qos: Qos = Qos.LS,
    cores: float = 0.3,
    stall_ratio: float = 0.01,
    request_cores: float | None = 0.5,
    unsupported: tuple[str, ...] = (),
    containers: int = 1,
    started_at: float = 0.0,
) -> Pod:
    """Pod `number` at `at` seconds: uses about `cores`, stalled for `stall_ratio` of its life."""
    path = f"nodeagent/{qos.value}/pod{number}"
    spec = PodSpec(
        uid=path,
        name=f"pod{number}",
        cgroup=path,
        inode=1000 + number,
        qos=qos,
        source="exec",
        priority=Priority.MEDIUM,
        tier=TIER if qos is Qos.BATCH else None,
        cpu_request_cores=request_cores,
        memory_request_bytes=GIB // 4,
    )
    age_s = at - started_at
    whole = reading(number, at, age_s=age_s, cores=cores, stall_ratio=stall_ratio, unsupported=unsupported)
    inner = tuple(
        Container(
            f"c{i}",
            f"{path}/c{i}",
            100_000 + 10 * number + i,
            reading(
                number * 10 + i,
                at,
                age_s=age_s,
                cores=cores / containers,
                stall_ratio=stall_ratio,
                unsupported=unsupported,
            ),
        )
        for i in range(containers)
    )
    return Pod(spec, whole, inner, unsupported)


def reading(
    number: int,
    at: float,
    *,
    age_s: float,
    cores: float = 0.3,
    stall_ratio: float = 0.01,
    unsupported: tuple[str, ...] = (),
) -> Reading:
    """Counters after `age_s` seconds of life; the slow group is as of the last full 5 s."""
    second, slow = int(at), at - at % 5.0
    wobble_s = noise(number, second) * 0.5  # so that no two ticks are alike; below 1 s: counters never fall
    stalled_us = int((age_s + wobble_s) * stall_ratio * 1e6)
    cpu_psi = "cpu_stall" not in unsupported
    memory_psi = "memory_stall" not in unsupported
    io_psi = "io_stall" not in unsupported
    base_bytes = GIB // 8 + number % 7 * (GIB // 64)
    slow_bytes = base_bytes + int(noise(number, int(slow), 1) * 2000) * 4096
    slow_us = int(slow * 50)
    return Reading(
        cpu_us=int((age_s + wobble_s) * cores * 1e6),
        periods=int(age_s * 10),
        throttled_periods=0,
        throttled_us=0,
        cpu_stall=Stall(stalled_us, stalled_us // 3) if cpu_psi else None,
        memory_bytes=base_bytes + int(noise(number, second, 1) * 2000) * 4096,
        run_delay_us=None if cpu_psi else stalled_us,
        slow_at=slow,
        inactive_file_bytes=slow_bytes // 8 // 4096 * 4096,
        anon_bytes=slow_bytes // 2 // 4096 * 4096,
        file_bytes=slow_bytes // 4 // 4096 * 4096,
        memory_events=MemoryEvents(0, 0, 0, 0, 0),
        memory_stall=Stall(slow_us, slow_us // 2) if memory_psi else None,
        io_stall=Stall(slow_us * 2, slow_us) if io_psi else None,
        pids=3 + number % 20,
    )


def node(at: float, *, cores: int = 8, busy_ratio: float = 0.4, numa_nodes: int = 1) -> Node:
    """Node-wide readings after `at` seconds with `busy_ratio` of each CPU in use."""
    used_us = int(at * busy_ratio * 1e6)
    idle_us = int(at * 1e6) - used_us
    users = [used_us * 7 // 10 + int(noise(cpu, int(at)) * 9999) for cpu in range(cores)]
    cpus = tuple(
        CpuTimes(cpu, user_us, 0, used_us * 3 // 10, idle_us, 0, 0, 0, 0) for cpu, user_us in enumerate(users)
    )
    total = 4 * GIB * cores
    free = total // 2 + int(noise(int(at)) * 5000) * 4096
    share = cores // numa_nodes
    return Node(
        cpus=cpus,
        memory=NodeMemory(total, free, free + total // 8, total // 16, total // 64),
        numa_memory=tuple(
            NodeMemory(4 * GIB * share, free // numa_nodes, None, total // 16, total // 64, number)
            for number in range(numa_nodes)
        ),
        watermark_bytes=64 << 20,
        cpu_stall=Stall(int(at * 5000), 0),
        memory_stall=Stall(int(at * 10), int(at * 5)),
        io_stall=Stall(int(at * 100), int(at * 50)),
        load=Load(cores * busy_ratio, cores * busy_ratio, cores * busy_ratio, 3, 400),
    )


def mixed_pods(count: int, at: float, *, ls_stall_ratio: float = 0.01) -> tuple[Pod, ...]:
    """`count` pods: half LS, a quarter MID, a quarter BATCH."""
    kinds = (Qos.LS, Qos.MID, Qos.LS, Qos.BATCH)
    return tuple(
        pod(
            number,
            at,
            qos=kinds[number % 4],
            cores=0.02 + noise(number) * 0.1,
            stall_ratio=ls_stall_ratio if kinds[number % 4] is Qos.LS else 0.02,
        )
        for number in range(count)
    )


def quota_knob(target: str, actual: float = float("inf"), written: float | None = None) -> KnobReading:
    """A v1 quota with its 100 ms period: values are n/100000 cores, at least 1000 us per period."""
    original = None if written is None else float("inf")
    return KnobReading(
        Knob(Kind.CPU_QUOTA, target),
        actual,
        100_000,
        0.01,
        1e6,
        nested=True,
        original=original,
        written=written,
    )


def weight_knob(target: str, actual: float = 1.0, written: float | None = None) -> KnobReading:
    """A v1 cpu.shares: 1024 is 1.0, the kernel takes 2 to 262144."""
    original = None if written is None else 1.0
    return KnobReading(
        Knob(Kind.CPU_WEIGHT, target), actual, 1024, 2 / 1024, 256.0, original=original, written=written
    )


def batch_knobs(pods: tuple[Pod, ...]) -> tuple[KnobReading, ...]:
    """The tier's quota, and quota and weight of each Batch pod, all untouched."""
    inside = [each.spec.cgroup for each in pods if each.spec.qos is Qos.BATCH]
    each_pod = [knob for path in inside for knob in (quota_knob(path), weight_knob(path))]
    return (quota_knob(TIER), *each_pod)


def snapshot(
    seq: int,
    at: float | None = None,
    *,
    pods: tuple[Pod, ...] | int = 4,
    cores: int = 8,
    numa_nodes: int = 1,
    busy_ratio: float = 0.4,
    knobs: tuple[KnobReading, ...] | None = None,
    boot_id: str = BOOT_ID,
) -> Snapshot:
    """Tick number `seq` of a 1 s loop that began 1000 s after boot, unless `at` says otherwise."""
    at = 1000.0 + seq if at is None else at
    present = mixed_pods(pods, at) if isinstance(pods, int) else pods
    return Snapshot(
        seq=seq,
        at=at,
        unix=UNIX_AT_BOOT + at,
        boot_id=boot_id,
        topology=topology(cores, numa_nodes),
        node=node(at, cores=cores, busy_ratio=busy_ratio, numa_nodes=numa_nodes),
        pods=present,
        knobs=batch_knobs(present) if knobs is None else knobs,
    )


def capacity(seen: Snapshot, cpu_cores: float = 3.0, memory_bytes: float = 4.0 * GIB) -> Capacity:
    """An offer of `cpu_cores` with the terms that explain it; the zones share it evenly."""
    total = float(seen.topology.cores)
    terms = (Term("total", total, "topology", 0.0), Term("system", total - cpu_cores, "proc/stat", 0.0))
    cpu, memory = Amount(cpu_cores, cpu_cores, terms), Amount(memory_bytes, memory_bytes)
    count = len(seen.topology.nodes)
    part = Amount(cpu_cores / count, cpu_cores / count), Amount(memory_bytes / count, memory_bytes / count)
    zones = tuple(Zone(each.id, *part) for each in seen.topology.nodes)
    return Capacity(
        seq=seen.seq,
        boot_id=seen.boot_id,
        observed_unix=seen.unix,
        valid_until_unix=seen.unix + 10.0,
        cpu=cpu,
        memory=memory,
        zones=zones,
        confidence=1.0,
        withdrawn="",
        lent=Lent(seen.at, seen.at * 2.0),
    )


def decision(seen: Snapshot, limit_cores: float = 2.0) -> Decision:
    """A plausible decision for the snapshot: the tier's quota and one quota for each Batch pod."""
    inside = [each.spec.cgroup for each in seen.pods if each.spec.qos is Qos.BATCH]
    settings = [Setting(Knob(Kind.CPU_QUOTA, TIER), limit_cores, "batch_quota", "free of online use")]
    settings += [
        Setting(Knob(Kind.CPU_QUOTA, path), limit_cores / len(inside), "batch_quota", "fair share by request")
        for path in inside
    ]
    return Decision(
        seq=seen.seq,
        signals=(),
        plan=tuple(settings),
        yielded=(),
        drifts=(),
        capacity=capacity(seen),
        batch_limit_cores=limit_cores,
        limit_why="free of online use",
    )


def tick(
    seq: int, at: float | None = None, *, pods: tuple[Pod, ...] | int = 4, limit_cores: float = 2.0
) -> Tick:
    """A hand-made tick: every setting that differs from its knob was written, without an error."""
    seen = snapshot(seq, at, pods=pods)
    decided = decision(seen, limit_cores)
    actual = {each.knob: each.actual for each in seen.knobs}
    changes = tuple(
        Change(setting.knob, actual[setting.knob], setting.value, setting.why, setting.by)
        for setting in decided.plan
        if actual[setting.knob] != setting.value
    )
    return Tick(seen, decided, changes, tuple(Outcome(change, change.new) for change in changes))
