"""Messages of nodes that report to a controller, as an agent makes them. There is no clock in here."""

from __future__ import annotations

from collections.abc import Sequence

from nodeagent.rpc.scalars import timestamp
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import directive_pb2 as directive_pb
from nodeagent.v1 import nodeagent_pb2 as node_pb

BOOT = "6f1c1a52-8f0f-4b6c-9a2e-0c53c1d1a7b4"
GIB = 1 << 30
VALID_S = 10.0
TERMS = ("total", "steal", "ceiling_ratio", "reserved", "system", "online_now", "online_peak")

Zones = Sequence[tuple[int, float, int]]


def capacity(
    seq: int,
    unix: float,
    cores: float = 4.0,
    size: int = 8 * GIB,
    *,
    zones: Zones = (),
    valid_s: float = VALID_S,
    withdrawn: str = "",
    boot_id: str = BOOT,
    terms: bool = False,
) -> node_pb.Capacity:
    made = node_pb.Capacity(
        seq=seq,
        boot_id=boot_id,
        observed_at=timestamp(unix),
        valid_until=timestamp(unix + valid_s),
        cpu=node_pb.CpuAmount(available_cores=cores, computed_cores=cores),
        memory=node_pb.MemoryAmount(available_bytes=size, computed_bytes=size),
        zones=[
            node_pb.Zone(
                numa_node=numa_node,
                cpu=node_pb.CpuAmount(available_cores=share, computed_cores=share),
                memory=node_pb.MemoryAmount(available_bytes=room, computed_bytes=room),
            )
            for numa_node, share, room in zones
        ],
        confidence_ratio=1.0,
        withdrawn=withdrawn,
    )
    if terms:
        add_terms(made)
        for zone in made.zones:
            add_terms(zone)
    return made


def add_terms(amounts: node_pb.Capacity | node_pb.Zone) -> None:
    for name in TERMS:
        amounts.cpu.terms.add(name=name, cores=1.5, source="/proc/stat")
        amounts.memory.terms.add(name=name, bytes=GIB, source="/proc/meminfo")


def status(name: str, offered: node_pb.Capacity | None) -> pb.NodeStatus:
    return pb.NodeStatus(
        node_name=name,
        agent_version="0.1.0",
        mode=directive_pb.MODE_ENFORCE,
        capacity=offered,
        total_cores=16.0,
        total_bytes=64 * GIB,
        pods=pb.PodCounts(ls=3, mid=4, batch=5),
        batch_limit_cores=6.0,
    )


def full(name: str, offered: node_pb.Capacity | None) -> pb.ReportRequest:
    return pb.ReportRequest(full=status(name, offered))


def delta(offered: node_pb.Capacity | None) -> pb.ReportRequest:
    return pb.ReportRequest(delta=pb.NodeDelta(capacity=offered))


def heartbeat(seq: int, unix: float, valid_s: float = VALID_S) -> pb.ReportRequest:
    return pb.ReportRequest(
        heartbeat=pb.Heartbeat(seq=seq, observed_at=timestamp(unix), valid_until=timestamp(unix + valid_s))
    )
