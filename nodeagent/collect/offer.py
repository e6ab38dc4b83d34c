"""A capacity off the wire, checked: what a node may claim is bounded, so that no sum can overflow.

Invariant: every Offer that comes out can be added to 2^13 others within 64 bits.
"""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from nodeagent.collect.view import Offer, Zone
from nodeagent.model.errors import Garbled
from nodeagent.v1 import collector_pb2 as pb
from nodeagent.v1 import nodeagent_pb2 as node_pb

MAX_CORES = 65536.0
MAX_BYTES = 1 << 50
NUMA_NODES = 1024  # the kernel's MAX_NUMNODES at most
MAX_NAME = 253  # as Kubernetes names nodes
MAX_SPAN_S = 3600.0


def offer_of(status: pb.NodeStatus) -> Offer | None:
    """What the node offers, None while it tells no capacity; Garbled names the field that cannot be."""
    return offer_in(status.capacity) if status.HasField("capacity") else None


def offer_in(capacity: node_pb.Capacity) -> Offer:
    """The same for a capacity."""
    observed, valid_until = _unix(capacity.observed_at), _unix(capacity.valid_until)
    if valid_until - observed > MAX_SPAN_S:
        raise Garbled(f"capacity.valid_until: more than {MAX_SPAN_S:g} s after observed_at")
    zones = tuple(_zone(zone) for zone in capacity.zones)
    if len({zone.numa_node for zone in zones}) < len(zones):
        raise Garbled("capacity.zones: a numa_node is given twice")
    cores = _micro_cores(capacity.cpu.available_cores, "capacity.cpu.available_cores")
    size = _bytes(capacity.memory.available_bytes, "capacity.memory.available_bytes")
    nothing = bool(capacity.withdrawn) or not (cores or size)
    return Offer(capacity.seq, capacity.boot_id, observed, valid_until, cores, size, zones, nothing)


def renewed(offer: Offer, heartbeat: pb.Heartbeat) -> Offer:
    """The same offer, for longer."""
    observed, valid_until = _unix(heartbeat.observed_at), _unix(heartbeat.valid_until)
    if valid_until - observed > MAX_SPAN_S:
        raise Garbled(f"heartbeat.valid_until: more than {MAX_SPAN_S:g} s after observed_at")
    return offer._replace(seq=heartbeat.seq, observed_unix=observed, valid_until_unix=valid_until)


def checked_name(name: str) -> str:
    """A node's name; Garbled when it is none."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise Garbled(f"full.node_name: not 1 to {MAX_NAME} printable characters")
    return name


def _zone(zone: node_pb.Zone) -> Zone:
    if zone.numa_node >= NUMA_NODES:
        raise Garbled(f"capacity.zones.numa_node: not below {NUMA_NODES}")
    cores = _micro_cores(zone.cpu.available_cores, "capacity.zones.cpu.available_cores")
    size = _bytes(zone.memory.available_bytes, "capacity.zones.memory.available_bytes")
    return Zone(zone.numa_node, cores, size)


def _micro_cores(cores: float, field: str) -> int:
    if not 0.0 <= cores <= MAX_CORES:  # also for NaN
        raise Garbled(f"{field}: not within [0, {MAX_CORES:g}]")
    return round(cores * 1e6)


def _bytes(size: int, field: str) -> int:
    if size > MAX_BYTES:
        raise Garbled(f"{field}: more than 2^50")
    return size


def _unix(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos * 1e-9
