"""A recorded run: labels and snapshots, as the agent's journal has them or packed to be kept in a repository.

    NAME.run.xz     LZMA of msgpack: the labels, then each snapshot

Packing takes away what is no part of the experiment (other pods, knobs of others, the boot's id) and what the
agent decided: replaying decides anew. Nothing is rounded.
"""

from __future__ import annotations

import io
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.journal import read_segments
from nodeagent.model.decision import Decision, Memory
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Snapshot
from nodeagent.model.topology import Topology
from tests.bench.eval.labels import Labels

SUFFIX = ".run.xz"
_LENGTH_BYTES = 4


@dataclass(frozen=True)
class Recording:
    """One run. `name` is that of its scenario; snapshots are one boot's, in order."""

    name: str
    labels: Labels
    snapshots: tuple[Snapshot, ...]


def load(path: Path) -> list[Recording]:
    """All recordings of a directory, in the order in which they were made; packed, or a directory each."""
    packed = [unpacked(file) for file in sorted(path.glob(f"*{SUFFIX}"))]
    raw = [_raw(file.parent) for file in sorted(path.glob("*/labels.json"))]
    return sorted([*packed, *raw], key=lambda one: one.labels.measured_from)


def pack(recording: Recording, path: Path) -> None:
    """Write it, trimmed."""
    text = io.BytesIO()
    for part in (recording.labels, *trimmed(recording)):
        data = msgspec.msgpack.encode(part)
        text.write(len(data).to_bytes(_LENGTH_BYTES, "little") + data)
    path.write_bytes(lzma.compress(text.getvalue(), preset=9 | lzma.PRESET_EXTREME))


def unpacked(path: Path) -> Recording:
    """The reverse; ValueError (which msgspec's errors are) for anything else."""
    parts = list(_parts(lzma.decompress(path.read_bytes())))
    labels = msgspec.msgpack.decode(parts[0], type=Labels)
    decoder = msgspec.msgpack.Decoder(Snapshot)
    snapshots, topology = [], Topology()
    for part in parts[1:]:
        snapshot = decoder.decode(part)
        topology = snapshot.topology if snapshot.topology.cpus else topology
        snapshots.append(replace(snapshot, topology=topology))
    return Recording(path.name.removesuffix(SUFFIX), labels, tuple(snapshots))


def trimmed(recording: Recording) -> Iterator[Snapshot]:
    """The snapshots with the pods of the experiment alone; the topology is told when it changes."""
    ours = {v.cgroup for v in recording.labels.victims} | set(recording.labels.batch)
    topology = None
    for snapshot in recording.snapshots:
        told = Topology() if snapshot.topology == topology else replace(snapshot.topology, devices=())
        topology = snapshot.topology
        yield replace(
            snapshot,
            boot_id="recorded",
            topology=told,
            pods=tuple(pod for pod in snapshot.pods if pod.spec.cgroup in ours),
            knobs=tuple(r for r in snapshot.knobs if r.knob.target in ours | set(snapshot.tiers)),
        )


def decisions(
    snapshots: Iterable[Snapshot], policy: Policy, known: InterferenceMemory
) -> Iterator[tuple[Snapshot, Decision, Memory]]:
    """Each snapshot with what is decided of it now, beginning with what was `known` of the workloads."""
    memory = Memory(interference=known)
    for snapshot in snapshots:
        decision, memory = decide(snapshot, policy, memory)
        yield snapshot, decision, memory


def _raw(home: Path) -> Recording:
    labels = msgspec.json.decode((home / "labels.json").read_bytes(), type=Labels)
    segments = read_segments(home / "journal", _refuse)
    snapshots = tuple(tick.snapshot for segment in segments for tick in segment.ticks())
    return Recording(home.name, labels, snapshots)


def _refuse(warning: str) -> None:
    raise ValueError(f"a recording that is not whole: {warning}")


def _parts(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
        at += _LENGTH_BYTES
        yield data[at : at + size]
        at += size
