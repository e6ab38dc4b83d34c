"""What queues the packets of each link: the qdisc at its root, those below it, and whether it has a clsact.

Invariant: a link that is not told is asked for again: without a root it would pass for a kernel default.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from nodeagent.kernel.nic.rt_dump import dump
from nodeagent.kernel.nic.rtnetlink import attributes, text
from nodeagent.model.nic import Link, Qdisc

_GETQDISC = 38
_ROOT, _INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
_TC = struct.Struct("=BxxxiIII")  # struct tcmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr: length, type
_TRIES = 3


class Queues(NamedTuple):
    """Of one link; `root` is None where none is told."""

    root: Qdisc | None = None
    leaves: tuple[str, ...] = ()
    clsact: bool = False


def queues_of(links: Mapping[int, Link]) -> dict[int, Queues]:
    """By index of the link; AgentError.

    tc_dump_qdisc counts its way through the links, and does not tell when that went wrong.
    """
    found: dict[int, Queues] = {}
    for _ in range(_TRIES):
        found = _dumped(links)
        if all(index in found or link.root.kind == "noop" for index, link in links.items()):
            break
    return found


def _dumped(links: Mapping[int, Link]) -> dict[int, Queues]:
    told: dict[int, list[tuple[int, Qdisc]]] = {}
    for raw in dump(_GETQDISC, _TC.pack(0, 0, 0, 0, 0)):
        _, index, handle, parent, _ = _TC.unpack_from(raw)
        if index in links:
            told.setdefault(index, []).append((parent, Qdisc(text(_kind(raw)), handle)))
    return {index: _joined(found) for index, found in told.items()}


def _kind(raw: bytes) -> bytes | None:
    """TCA_KIND, which the kernel puts first (tc_fill_qdisc)."""
    length, kind = _ATTRIBUTE.unpack_from(raw, _TC.size)
    if kind != 1:
        return attributes(raw, _TC.size).get(1)
    return raw[_TC.size + _ATTRIBUTE.size : _TC.size + length]


def _joined(found: list[tuple[int, Qdisc]]) -> Queues:
    root = next((qdisc for parent, qdisc in found if parent == _ROOT), None)
    major = root.handle >> 16 if root else 0
    leaves = tuple(
        qdisc.kind for parent, qdisc in found if parent not in (_ROOT, _INGRESS) and parent >> 16 == major
    )
    return Queues(root, leaves, any(p == _INGRESS and qdisc.kind == "clsact" for p, qdisc in found))
