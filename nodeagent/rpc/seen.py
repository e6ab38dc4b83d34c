"""What was seen, as messages: the node, its topology, and the pods with their readings."""

from __future__ import annotations

import msgspec

from nodeagent.model.cpuset import CpuSet
from nodeagent.model.kubernetes import ListState, PodList
from nodeagent.model.pod import Priority, Qos
from nodeagent.model.snapshot import (
    Container,
    CpuTimes,
    Load,
    MemoryEvents,
    Node,
    NodeMemory,
    Pod,
    Reading,
    Stall,
)
from nodeagent.model.topology import Topology
from nodeagent.rpc.scalars import U32, U64, counter, text, whole
from nodeagent.v1 import nodeagent_pb2 as pb

QOS = {Qos.LS: pb.QOS_LS, Qos.MID: pb.QOS_MID, Qos.BATCH: pb.QOS_BATCH}
LIST_STATE = {
    ListState.WAITING: pb.POD_LIST_STATE_WAITING,
    ListState.FRESH: pb.POD_LIST_STATE_FRESH,
    ListState.STALE: pb.POD_LIST_STATE_STALE,
    ListState.EXPIRED: pb.POD_LIST_STATE_EXPIRED,
    ListState.NEVER: pb.POD_LIST_STATE_NEVER,
}
PRIORITY = {
    Priority.LOW: pb.PRIORITY_LOW,
    Priority.MEDIUM: pb.PRIORITY_MEDIUM,
    Priority.HIGH: pb.PRIORITY_HIGH,
}
DEVICE = {"nic": pb.DEVICE_KIND_NIC, "gpu": pb.DEVICE_KIND_GPU}
CPU_TIMES = tuple(name for name in CpuTimes.__struct_fields__ if name != "cpu")  # pb.CpuTimes has the same


def node_message(node: Node, topology: Topology) -> pb.Node:
    """Node-wide readings and the machine; CPU times are sums over all CPUs."""
    return pb.Node(
        topology=_topology(topology, {row.numa_node: row for row in node.numa_memory}),
        cpu=None if node.cpus is None else _cpu_times(node.cpus),
        memory=_node_memory(node.memory),
        watermark_bytes=counter(node.watermark_bytes),
        cpu_stall=_stall(_bounded_stall(node.cpu_stall)),
        memory_stall=_stall(_bounded_stall(node.memory_stall)),
        io_stall=_stall(_bounded_stall(node.io_stall)),
        load=_load(node.load),
    )


def _topology(topology: Topology, memory: dict[int | None, NodeMemory]) -> pb.Topology:
    cpus = topology.cpus
    return pb.Topology(
        online_cpus=str(CpuSet(cpu.id for cpu in cpus)),
        offline_cpus=str(CpuSet(topology.offline)),
        online_cpu_count=len(cpus),
        physical_core_count=len({cpu.siblings or (cpu.id,) for cpu in cpus}),
        socket_count=len({cpu.socket for cpu in cpus if cpu.socket is not None}),
        numa_nodes=[
            pb.NumaNode(
                id=numa.id,
                cpus=str(CpuSet(numa.cpus)),
                memory_bytes=counter(numa.memory_bytes),
                memory=_node_memory(memory.get(numa.id)),
                distances=[whole(distance, 0, U32) for distance in numa.distances],
            )
            for numa in topology.nodes
        ],
        isolated_cpus=str(CpuSet(topology.isolated)),
        devices=[
            pb.Device(name=text(device.name), kind=DEVICE[device.kind], numa_node=device.numa_node)
            for device in topology.devices
        ],
    )


def _cpu_times(rows: tuple[CpuTimes, ...]) -> pb.CpuTimes:
    return pb.CpuTimes(**{name: counter(sum(getattr(row, name) for row in rows)) for name in CPU_TIMES})


def _node_memory(memory: NodeMemory | None) -> pb.NodeMemory | None:
    if memory is None:
        return None
    return pb.NodeMemory(
        total_bytes=counter(memory.total_bytes),
        free_bytes=counter(memory.free_bytes),
        available_bytes=counter(memory.available_bytes),
        inactive_file_bytes=counter(memory.inactive_file_bytes),
        reclaimable_bytes=counter(memory.reclaimable_bytes),
    )


def _load(load: Load | None) -> pb.Load | None:
    if load is None:
        return None
    return pb.Load(
        load1=load.load1,
        load5=load.load5,
        load15=load.load15,
        runnable=whole(load.runnable, 0, U32),
        tasks=whole(load.tasks, 0, U32),
    )


def pod_list_message(seen: PodList, now: float) -> pb.PodList:
    """The list of Kubernetes' pods; `now` is the monotonic time at which its age counts from."""
    return pb.PodList(
        source=seen.source,
        state=LIST_STATE[seen.state],
        age_s=None if seen.at is None else max(0.0, now - seen.at),
        pod_count=seen.pods,
        error=text(seen.error),
    )


def pod_message(pod: Pod, now: float) -> pb.Pod:
    """One pod; `now` is the monotonic time, in seconds, at which ages count from."""
    spec = pod.spec
    pids = dict(spec.main_pids)
    return pb.Pod(
        uid=text(spec.uid),
        name=text(spec.name),
        cgroup=text(spec.cgroup),
        inode=spec.inode,
        qos=QOS[spec.qos],
        priority=PRIORITY[spec.priority],
        source=spec.source,
        tier=None if spec.tier is None else text(spec.tier),
        cpu_request_cores=spec.cpu_request_cores,
        memory_request_bytes=counter(spec.memory_request_bytes),
        reading=_reading(pod.reading, now),
        containers=[_container(container, now, pids.get(container.cgroup)) for container in pod.containers],
        unsupported=pod.unsupported,
        numa_bind=spec.numa_bind,
        exclusive=spec.exclusive,
        near=text(spec.near),
        hands_off=spec.hands_off,
    )


def _container(container: Container, now: float, main_pid: int | None) -> pb.Container:
    return pb.Container(
        name=text(container.name),
        cgroup=text(container.cgroup),
        inode=container.inode,
        reading=_reading(container.reading, now),
        main_pid=None if main_pid is None else whole(main_pid, 0, U32),
    )


def _reading(reading: Reading, now: float) -> pb.Reading:
    try:
        return _exact_reading(reading, now)
    except ValueError:  # a number that no kernel counter can hold: rare, so only then are all of them bounded
        return _exact_reading(_bounded(reading), now)


def _exact_reading(r: Reading, now: float) -> pb.Reading:
    return pb.Reading(
        cpu_us=r.cpu_us,
        periods=r.periods,
        throttled_periods=r.throttled_periods,
        throttled_us=r.throttled_us,
        cpu_stall=_stall(r.cpu_stall),
        memory_bytes=r.memory_bytes,
        run_delay_us=r.run_delay_us,
        working_set_bytes=r.working_set_bytes,
        inactive_file_bytes=r.inactive_file_bytes,
        anon_bytes=r.anon_bytes,
        file_bytes=r.file_bytes,
        memory_events=_events(r.memory_events),
        memory_stall=_stall(r.memory_stall),
        io_stall=_stall(r.io_stall),
        pids=r.pids,
        slow_age_s=None if r.slow_at is None else now - r.slow_at,
        pages_by_node=[
            pb.NodePages(numa_node=node, bytes=whole(size, 0, U64)) for node, size in r.pages_by_node or ()
        ],
    )


def _bounded(reading: Reading) -> Reading:
    events = reading.memory_events
    numbers = {key: value for key, value in msgspec.structs.asdict(reading).items() if type(value) is int}
    return msgspec.structs.replace(
        reading,
        **{key: counter(value) for key, value in numbers.items()},
        cpu_stall=_bounded_stall(reading.cpu_stall),
        memory_stall=_bounded_stall(reading.memory_stall),
        io_stall=_bounded_stall(reading.io_stall),
        memory_events=None
        if events is None
        else MemoryEvents(*map(counter, msgspec.structs.astuple(events))),
    )


def _bounded_stall(stall: Stall | None) -> Stall | None:
    return None if stall is None else Stall(counter(stall.some_us) or 0, counter(stall.full_us))


def _stall(stall: Stall | None) -> pb.Stall | None:
    return None if stall is None else pb.Stall(some_us=stall.some_us, full_us=stall.full_us)


def _events(events: MemoryEvents | None) -> pb.MemoryEvents | None:
    if events is None:
        return None
    return pb.MemoryEvents(
        low=events.low, high=events.high, max=events.max, oom=events.oom, oom_kill=events.oom_kill
    )
