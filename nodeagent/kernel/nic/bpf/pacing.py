"""Ceilings for MID and BATCH by the program `edt`, where a NIC's root is somebody's fq (or mq of fq).

Each NIC has a program of its own, as it has limits of its own. LS is counted and never held up.
There is no borrowing: what a class may have is moved by moving its ceiling, which is one update of a map.
Invariant: a program is attached only after its limits are as wanted.
"""

from __future__ import annotations

import math
import os
import struct
import sys
import time

from msgspec import Struct

from nodeagent.kernel.nic.bpf import call
from nodeagent.kernel.nic.bpf.assemble import assemble
from nodeagent.kernel.nic.bpf.attach import EDT, attach, detach, filters, named
from nodeagent.kernel.nic.bpf.edt import CLASSES, PROGRAM
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.model.errors import Gone, Refused
from nodeagent.model.nic import ClassSeen, HtbClass, Tree
from nodeagent.model.pod import Qos

# kind, bytes of key and of value, entries
SHAPES = {
    "na_limits": (call.ARRAY, 4, 16, len(CLASSES)),
    "na_departs": (call.ARRAY, 4, 8, len(CLASSES)),
    "na_counts": (call.PERCPU_ARRAY, 4, 32, len(CLASSES)),
}
NAME = named(EDT, PROGRAM, SHAPES)
MAX_HORIZON_S = 2.0  # what waits longer is dropped; also how long a raised ceiling may take to be felt
MIN_HORIZON_S = 0.05
_LIMIT = struct.Struct("=QQ")  # bytes/s, ns
_COUNTS = struct.Struct("=QQQQ")  # bytes, packets, drops, delayed
_KEYS = tuple(struct.pack("=I", number) for number in range(len(CLASSES)))


class Held(Struct, gc=False):
    """The maps of the program at one NIC, and its limits as they are, by key."""

    program: int
    maps: dict[str, call.Map]
    limits: dict[bytes, bytes]


class Edt:
    """The scheduler step `edt`. Methods raise Gone, Unsupported, Refused."""

    def __init__(self) -> None:
        self._link = Rtnetlink()
        self._held: dict[int, Held] = {}

    def set(self, index: int, tree: Tree) -> int:
        """See that a NIC has these ceilings; how much was written."""
        wanted = dict(zip(_KEYS, (limit(each) for each in _ordered(tree)), strict=True))
        held = self._adopt(index)
        if held is None:
            return self._load(index, wanted)
        return self._write(held, wanted)

    def there(self, index: int) -> bool:
        """True if a program of ours paces this NIC, of this version or of another."""
        return any(each.step == EDT for each in filters(self._link, index))

    def read(self, index: int) -> tuple[ClassSeen, ...] | None:
        """What the classes of a NIC have sent since the program was attached; None where it is not.

        `drops` are packets beyond the horizon, `overlimits` those that had to wait, `backlog_bytes` what
        waits now by the time that it will take.
        """
        held = self._held.get(index) or self._adopt(index)
        if held is None:
            return None
        return tuple(
            self._class(held, qos, key, time.monotonic_ns()) for qos, key in zip(CLASSES, _KEYS, strict=True)
        )

    def remove(self, index: int) -> bool:
        """Take the program from a NIC; True if it was there."""
        self._forget(index)
        return detach(self._link, EDT, index)

    def close(self) -> None:
        """What is attached stays."""
        for index in tuple(self._held):
            self._forget(index)
        self._link.close()

    def _adopt(self, index: int) -> Held | None:
        """What is at the NIC now, if it is this version's; the maps of one that has gone are closed."""
        ours = [each for each in filters(self._link, index) if each.name == NAME and each.program is not None]
        program = ours[0].program if ours else None
        held = self._held.get(index)
        if held is not None and held.program == program:
            return held
        self._forget(index)
        if program is None:
            return None
        try:
            fd = call.program_by_id(program)
        except (Gone, Refused):
            return None  # without CAP_SYS_ADMIN: a new one will replace it
        try:
            maps = call.maps_by_program(fd)
        finally:
            os.close(fd)
        self._held[index] = Held(program, maps, dict(maps["na_limits"].items()))
        return self._held[index]

    def _load(self, index: int, wanted: dict[bytes, bytes]) -> int:
        held = self._held[index] = Held(0, {}, {})
        try:
            for name, shape in SHAPES.items():
                held.maps[name] = call.create_map(shape[0], name, *shape[1:])
            held.limits = dict(held.maps["na_limits"].items())
            writes = self._write(held, wanted)
            text = assemble(PROGRAM, {name: each.fd for name, each in held.maps.items()})
            fd = call.load_program("na_edt", text)
            try:
                held.program = call.program_id(fd)
                attach(self._link, index, NAME, fd)
            finally:
                os.close(fd)  # the filter holds it from now on
        except BaseException:
            self._forget(index)
            raise
        return writes + 1

    def _write(self, held: Held, wanted: dict[bytes, bytes]) -> int:
        writes = 0
        for key, value in wanted.items():
            if held.limits.get(key) != value:
                held.maps["na_limits"].update(key, value)
                held.limits[key] = value
                writes += 1
        return writes

    def _class(self, held: Held, qos: Qos, key: bytes, now_ns: int) -> ClassSeen:
        counts = held.maps["na_counts"].lookup(key) or b""
        sent, packets, drops, delayed = (sum(each) for each in zip(*_COUNTS.iter_unpack(counts), strict=True))
        rate = _LIMIT.unpack(held.limits[key])[0]
        departs = int.from_bytes(held.maps["na_departs"].lookup(key) or b"", sys.byteorder)
        return ClassSeen(
            qos=qos,
            rate_bps=0.0,
            ceil_bps=rate * 8.0 or math.inf,
            bytes=sent,
            packets=packets,
            drops=drops,
            overlimits=delayed,
            backlog_bytes=max(0, departs - now_ns) * rate // 1_000_000_000,
        )

    def _forget(self, index: int) -> None:
        held = self._held.pop(index, None)
        for each in held.maps.values() if held else ():
            each.close()


def limit(wanted: HtbClass | None) -> bytes:
    """The value in na_limits for a class: LS and what has no ceiling are not limited."""
    if wanted is None or wanted.qos is Qos.LS or not math.isfinite(wanted.ceil_bps):
        return _LIMIT.pack(0, 0)
    rate = max(1, round(wanted.ceil_bps / 8))
    waits_s = wanted.queue_bytes / rate if wanted.queue_bytes else MAX_HORIZON_S
    return _LIMIT.pack(rate, round(min(MAX_HORIZON_S, max(MIN_HORIZON_S, waits_s)) * 1e9))


def _ordered(tree: Tree) -> tuple[HtbClass | None, ...]:
    found = {each.qos: each for each in tree.classes}
    return tuple(found.get(qos) for qos in CLASSES)
