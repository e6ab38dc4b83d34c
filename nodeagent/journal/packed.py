"""A Tick as bytes, without what the tick before it has said already.

A tick of 100 pods is 57 kB, more than the 32 kB that zlib can look back, and most of it is who is here,
not what was read. So it is written in sections, and a section with the bytes of the last one is nil; and of a
pod whose readings are those of the tick before, as those of most that rest are, none is written.

Invariant: unpacking what was packed, in the same order, gives equal ticks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from operator import is_
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from nodeagent.model.cpuset import canonical
from nodeagent.model.decision import Decision, Memory, Tick
from nodeagent.model.nic import Classifier, Marks, NicsSeen, Shaping
from nodeagent.model.plan import Change, KnobReading, Outcome, Setting, sound
from nodeagent.model.pod import PodSpec
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Container, Pod, Reading, Snapshot
from nodeagent.model.symptom import AppReading, Symptoms
from nodeagent.model.topology import Topology

MAGIC = b"najrnl\x00\x02"
FRAME = struct.Struct("<II")  # length of the payload, crc32 over that length and the payload
FRAME_LIMIT_BYTES = 64 << 20  # compressed or not: bounds what a garbled or hostile file can allocate
DIRECTORY = "journal"
SUFFIX = ".journal"

_NIL = b"\xc0"
_NOWHERE = Topology()
_NO_MARKS = Marks(Classifier.NONE, "")
_SECTIONS = 6
_KNOWN_SAME = (1, 2)  # of the sections: who, knobs

T = TypeVar("T")
_encode = msgspec.msgpack.Encoder().encode


class SegmentHead(Struct, frozen=True, gc=False, kw_only=True):
    """All that a replay needs besides the ticks. `memory` is the engine's before the first tick.

    `run` names the process: segments of one run with consecutive ticks continue each other.
    """

    agent_version: str
    run: str
    created_unix: float
    hostname: str
    policy: Policy
    memory: Memory


class _Who(Struct, frozen=True, array_like=True, gc=False):
    """A pod without its readings; containers as (name, cgroup, inode)."""

    spec: PodSpec
    containers: tuple[tuple[str, str, int], ...]
    unsupported: tuple[str, ...]


class _Told(Struct, frozen=True, array_like=True, gc=False):
    """What is read of a pod less often than each tick."""

    symptoms: Symptoms | None
    app: AppReading | None


class _Net(Struct, frozen=True, array_like=True, gc=False):
    """Who is in the network and whose packets are told how: all but what was counted and is bounded."""

    seen: NicsSeen
    marks: Marks | None


class _Rest(Struct, frozen=True, array_like=True, gc=False):
    """What is new in every tick; the readings of each pod are its own, then its containers', and none
    where all are as they were in the tick before.

    `told` are the symptoms and what the applications told, by the pod's place, where they are new.
    """

    snapshot: Snapshot
    readings: tuple[tuple[Reading, ...], ...]
    decision: Decision
    changes: tuple[Change, ...]
    outcomes: tuple[Outcome, ...]
    told: tuple[tuple[int, _Told], ...] = ()


_decode_sections = msgspec.msgpack.Decoder(tuple[Raw, Raw, Raw, Raw, Raw, Raw]).decode
_decode_topology = msgspec.msgpack.Decoder(Topology).decode
_decode_who = msgspec.msgpack.Decoder(tuple[_Who, ...]).decode
_decode_knobs = msgspec.msgpack.Decoder(tuple[KnobReading, ...]).decode
_decode_plan = msgspec.msgpack.Decoder(tuple[Setting, ...]).decode
_decode_net = msgspec.msgpack.Decoder(_Net | None).decode
_decode_rest = msgspec.msgpack.Decoder(_Rest).decode
_decode_head = msgspec.msgpack.Decoder(SegmentHead).decode


def pack_head(head: SegmentHead) -> bytes:
    return _encode(head)


def unpack_head(data: bytes) -> SegmentHead:
    """ValueError (which msgspec's errors are) for anything but a head."""
    return _decode_head(data)


class Packer:
    """Ticks to bytes; a new one for each segment."""

    def __init__(self) -> None:
        self._last = [b""] * _SECTIONS
        self._pods: tuple[Pod, ...] = ()
        self._knobs: tuple[KnobReading, ...] = ()

    def pack(self, tick: Tick) -> bytes:
        """ValueError or OverflowError when a value has no msgpack form (a lone surrogate, 2**64)."""
        seen, decided, begun = tick.snapshot, tick.decision, self._last[0] != b""
        net, counted, bounded = _split(seen.nics, decided.shaping)
        olds = (*self._pods[: len(seen.pods)], *[None] * (len(seen.pods) - len(self._pods)))
        rest = _Rest(
            replace(seen, topology=_NOWHERE, pods=(), knobs=(), nics=counted),
            tuple(map(_news, seen.pods, olds)),
            replace(decided, plan=(), shaping=bounded),
            tick.changes,
            tick.outcomes,
            tuple(_told(seen.pods, olds)),
        )
        same_who = begun and _all(_same_who, seen.pods, self._pods)
        same_knobs = begun and _all(is_, seen.knobs, self._knobs)
        self._pods, self._knobs = seen.pods, seen.knobs
        who = None if same_who else tuple(map(_who, seen.pods))
        knobs = None if same_knobs else seen.knobs
        return self._written((seen.topology, who, knobs, decided.plan, net, rest))

    def _written(self, parts: tuple[object, ...]) -> bytes:
        """The sections; `who` and `knobs` are None where they are known to be the same."""
        news = []
        for place, part in enumerate(parts):
            if part is None and place in _KNOWN_SAME:
                news.append(Raw(_NIL))
                continue
            now = _encode(part)
            news.append(Raw(_NIL if now == self._last[place] else now))
            self._last[place] = now
        return _encode(news)


def _all(same: Callable[[T, T], bool], new: tuple[T, ...], old: tuple[T, ...]) -> bool:
    return len(new) == len(old) and all(map(same, new, old))


def _who(pod: Pod) -> _Who:
    return _Who(pod.spec, tuple([(c.name, c.cgroup, c.inode) for c in pod.containers]), pod.unsupported)


def _same_who(pod: Pod, old: Pod) -> bool:
    """True where `_who` gives the same without looking; False may be wrong."""
    if pod is old:
        return True
    if pod.spec is not old.spec or pod.unsupported != old.unsupported:
        return False
    return _all(_same_container, pod.containers, old.containers)


def _same_container(new: Container, old: Container) -> bool:
    return new is old or (new.inode == old.inode and new.cgroup == old.cgroup and new.name == old.name)


def _news(pod: Pod, old: Pod | None) -> tuple[Reading, ...]:
    """Its readings; none where all of them are those of the tick before."""
    if pod is old:
        return ()
    if old is not None and pod.reading is old.reading and len(pod.containers) == len(old.containers):
        inner = zip(pod.containers, old.containers, strict=True)
        if all(new.reading is was.reading for new, was in inner):
            return ()
    return (pod.reading, *[inner.reading for inner in pod.containers])


def _told(pods: tuple[Pod, ...], olds: tuple[Pod | None, ...]) -> Iterator[tuple[int, _Told]]:
    """Symptoms and applications that are told anew, each with its pod's place."""
    for place, (pod, old) in enumerate(zip(pods, olds, strict=True)):
        symptoms, app = (None, None) if old is None else (old.symptoms, old.app)
        if pod is not old and (pod.symptoms is not symptoms or pod.app is not app):
            yield place, _Told(pod.symptoms, pod.app)


class Unpacker:
    """Bytes to ticks, for one segment from its first tick on."""

    def __init__(self) -> None:
        self._topology: Topology | None = None
        self._who: tuple[_Who, ...] | None = None
        self._knobs: tuple[KnobReading, ...] | None = None
        self._plan: tuple[Setting, ...] | None = None
        self._net: _Net | None = None
        self._told: list[_Told] = []
        self._readings: tuple[tuple[Reading, ...], ...] = ()

    def unpack(self, data: bytes) -> Tick:
        """ValueError (which msgspec's errors are) for anything but a tick."""
        topology, who, knobs, plan, net, rest = (bytes(raw) for raw in _decode_sections(data))
        self._topology = self._topology if topology == _NIL else _decode_topology(topology)
        self._who = self._who if who == _NIL else _decode_who(who)
        self._knobs = self._knobs if knobs == _NIL else _decode_knobs(knobs)
        self._plan = self._plan if plan == _NIL else _decode_plan(plan)
        self._net = self._net if net == _NIL else _decode_net(net)
        if self._topology is None or self._who is None or self._knobs is None or self._plan is None:
            raise ValueError("refers to a tick that is not there")
        if knobs != _NIL and not all(map(_sound, self._knobs)):
            raise ValueError("a knob has a value of another kind")
        news = _decode_rest(rest)
        theirs = news.snapshot.foreign
        for owned in (*(theirs.kubelet or ()), *(theirs.realtime or ()), *(theirs.partitions or ())):
            if canonical(owned.cpus) != owned.cpus:
                raise ValueError("what is somebody else's is no list of CPUs")
        self._hear(news.told, len(self._who))
        self._readings = _carried(news.readings, self._readings)
        pods = tuple(_pod(*each) for each in zip(self._who, self._readings, self._told, strict=True))
        nics, shaping = _joined(self._net, news)
        return Tick(
            replace(news.snapshot, topology=self._topology, pods=pods, knobs=self._knobs, nics=nics),
            replace(news.decision, plan=self._plan, shaping=shaping),
            news.changes,
            news.outcomes,
        )

    def _hear(self, news: tuple[tuple[int, _Told], ...], pods: int) -> None:
        self._told = [*self._told[:pods], *[_Told(None, None)] * (pods - len(self._told))]
        for place, told in news:
            if not 0 <= place < pods:
                raise ValueError("tells of a pod that is not there")
            self._told[place] = told


def _split(
    nics: NicsSeen | None, shaping: Shaping | None
) -> tuple[_Net | None, NicsSeen | None, Shaping | None]:
    """(what lasts, what was counted, what is bounded); all None where no traffic is looked at."""
    if nics is None:
        return None, None, shaping
    lasting = _Net(replace(nics, samples=(), failed=()), None if shaping is None else shaping.marks)
    counted = NicsSeen(samples=nics.samples, failed=nics.failed)
    return lasting, counted, None if shaping is None else replace(shaping, marks=_NO_MARKS)


def _joined(net: _Net | None, news: _Rest) -> tuple[NicsSeen | None, Shaping | None]:
    """The reverse; ValueError when what lasts was never told."""
    nics, shaping = news.snapshot.nics, news.decision.shaping
    if nics is None:
        return None, shaping
    if net is None or (shaping is not None and net.marks is None):
        raise ValueError("refers to a network that is not there")
    if shaping is not None and net.marks is not None:
        shaping = replace(shaping, marks=net.marks)
    return replace(net.seen, samples=nics.samples, failed=nics.failed), shaping


def _sound(reading: KnobReading) -> bool:
    """A number where a number belongs and a set where a set does: the codec takes both in both places."""
    values = (reading.actual, reading.original, reading.written, reading.pending)
    return all(value is None or sound(reading.knob.kind, value) for value in values) and all(
        canonical(text) == text for text in (reading.effective, reading.allowed)
    )


def _carried(
    news: tuple[tuple[Reading, ...], ...], before: tuple[tuple[Reading, ...], ...]
) -> tuple[tuple[Reading, ...], ...]:
    """With those of the tick before where there are none; ValueError where it had no such pod."""
    if () in news[len(before) :]:
        raise ValueError("refers to readings that are not there")
    olds = (*before[: len(news)], *[()] * (len(news) - len(before)))
    return tuple([new or old for new, old in zip(news, olds, strict=True)])


def _pod(who: _Who, readings: tuple[Reading, ...], told: _Told) -> Pod:
    if len(readings) != 1 + len(who.containers):
        raise ValueError("readings do not match the pod")
    inner = tuple(
        Container(*which, reading) for which, reading in zip(who.containers, readings[1:], strict=True)
    )
    return Pod(who.spec, readings[0], inner, who.unsupported, told.symptoms, told.app)
