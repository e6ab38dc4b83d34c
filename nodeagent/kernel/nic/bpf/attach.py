"""Our programs as cls_bpf filters at clsact egress of NICs, beside whatever filters are there.

A filter of ours is told by its name, "nodeagent-STEP HASH": the hash is that of the program's text, so
another version is seen as such and is replaced in one step. `classify` has to run before `edt`, hence the
order of their priorities. Both run before the filters of others where there is room, so that no verdict of
theirs hides packets; but numbers are left below, which tc gives to filters that are added without one.
Invariant: of filters without our name nothing is changed, and none shares a priority with ours.
"""

from __future__ import annotations

import errno
import hashlib
import socket
import struct
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from nodeagent.kernel.nic.bpf.assemble import Line, assemble, maps_of
from nodeagent.kernel.nic.clsact import EGRESS, Clsact
from nodeagent.kernel.nic.filters import (
    ANY,
    DELTFILTER,
    KIND,
    NEWTFILTER,
    OPTIONS,
    Seen,
    Wanted,
    change,
    qdiscs,
)
from nodeagent.kernel.nic.filters import filters as filters_at
from nodeagent.kernel.nic.rtnetlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Rtnetlink,
    attribute,
    attributes,
    fields,
    tcmsg,
    translated,
)
from nodeagent.model.errors import AgentError, Gone, Refused, Unsupported
from nodeagent.model.nic import MAJOR

CLASSIFY, EDT = "nodeagent-classify", "nodeagent-edt"
_LAST = 0xFFFF
_HANDLE = 1
_FD, _NAME, _FLAGS, _ID = 6, 7, 8, 11  # linux/pkt_cls.h: TCA_BPF_*
_DIRECT_ACTION = 1
_INGRESS_HANDLE = 0xFFFF0000
_U32 = struct.Struct("=I")


class Filter(NamedTuple):
    """One filter of clsact egress; `program` is the id of its program."""

    prio: int
    handle: int
    name: str = ""
    program: int | None = None

    @property
    def step(self) -> str:
        """CLASSIFY, EDT, or whatever somebody else's name begins with."""
        return self.name.partition(" ")[0]


def named(step: str, program: Sequence[Line], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The name of a filter with this very program and maps of these shapes."""
    text = assemble(program, dict.fromkeys(maps_of(program), 0))
    return f"{step} {hashlib.sha256(text + repr(sorted(shapes.items())).encode()).hexdigest()[:12]}"


def filters(link: Rtnetlink, index: int) -> tuple[Filter, ...]:
    """All filters at a NIC's clsact egress; none where there is no clsact or no such link."""
    try:
        return tuple(_filter(each) for each in filters_at(link, index, EGRESS))
    except Gone:
        return ()


def attach(link: Rtnetlink, index: int, name: str, fd: int) -> None:
    """Have the program run, instead of ours of another version if there is one, from one packet to the next.

    Raises Gone (no such link), Unsupported (no clsact or cls_bpf in this kernel), Refused.
    """
    added = Clsact(link).claim(index)
    try:
        _expect_egress(link, index)
        present = filters(link, index)
        step = name.partition(" ")[0]
        old = next((each for each in present if each.step == step), None)
        _set(link, index, name, fd, old or Filter(prio_for(step, present), _HANDLE), replace=old is not None)
    except BaseException:
        if added:
            Clsact(link).release(index)
        raise


def detach(link: Rtnetlink, step: str, index: int) -> bool:
    """Remove our filter of that step, and the clsact if it is ours and empty then; True if it was there."""
    return _detach(link, step, [index])


def detach_everywhere(link: Rtnetlink, step: str) -> bool:
    """The same for every link of this network namespace."""
    return _detach(link, step, Clsact(link).seen())


def prio_for(step: str, present: Collection[Filter]) -> int:
    """A free priority: `classify` before `edt`, both before the others where there is room. Refused."""
    taken = {each.prio for each in present}
    other = {each.step: each.prio for each in present if each.step in (CLASSIFY, EDT) and each.step != step}
    if CLASSIFY in other:
        room: Sequence[int] = range(other[CLASSIFY] + 1, _LAST)
    elif EDT in other:
        room = range(other[EDT] - 1, 0, -1)
    else:
        first = min(taken, default=_LAST)
        begin = min(MAJOR, first - 2) if first > 3 else MAJOR
        room = range(begin + (step == EDT), _LAST)
    free = next((prio for prio in room if prio not in taken), None)
    if free is None:
        raise Refused(
            f"no priority is free for {step} at clsact egress", hint="tc filter show dev NIC egress"
        )
    return free


def _detach(link: Rtnetlink, step: str, indexes: Collection[int]) -> bool:
    kind = attribute(KIND, b"bpf\0")
    removals = [
        Wanted(DELTFILTER, index, each.handle, EGRESS, each.prio, ANY, kind)
        for index in indexes
        for each in filters(link, index)
        if each.step == step
    ]
    change(link, removals, {errno.ENODEV, errno.ENOENT, errno.EINVAL})
    Clsact(link).sweep(indexes)
    return bool(removals)


def _expect_egress(link: Rtnetlink, index: int) -> None:
    """An `ingress` qdisc would take our filter as its own (net/sched/sch_ingress.c: ingress_tcf_block)."""
    kinds = [each.kind for each in qdiscs(link) if (each.device, each.handle) == (index, _INGRESS_HANDLE)]
    if kinds != ["clsact"]:
        raise Refused(
            f"interface {index}: there is no clsact but somebody's {' '.join(kinds) or 'hands are quick'}",
            hint="it has no egress side; whoever has set it may use clsact, which has both",
        )


def _set(link: Rtnetlink, index: int, name: str, fd: int, place: Filter, *, replace: bool) -> None:
    options = (
        attribute(_FD, _U32.pack(fd))
        + attribute(_NAME, name.encode() + b"\0")
        + attribute(_FLAGS, _U32.pack(_DIRECT_ACTION))
    )
    info = place.prio << 16 | socket.htons(ANY)
    body = tcmsg(index, place.handle, EGRESS)[:-4] + _U32.pack(info)
    body += attribute(KIND, b"bpf\0") + attribute(OPTIONS, options)
    try:
        link.ask(NEWTFILTER, NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL), body)
    except OSError as error:
        raise _explained(error, f"filter {name} at interface {index}") from error


def _explained(error: OSError, doing: str) -> AgentError:
    if error.errno == errno.ENOENT:
        return Unsupported(f"{doing}: {error.strerror}", hint="the kernel needs cls_bpf (CONFIG_NET_CLS_BPF)")
    return translated(error, doing)


def _filter(seen: Seen) -> Filter:
    found = Filter(seen.prio, seen.handle)
    options = attributes(seen.attributes.get(OPTIONS, b""))
    if seen.kind != "bpf" or _NAME not in options:
        return found
    name = options[_NAME].rstrip(b"\0").decode("utf-8", "replace")
    program = fields(_U32, options[_ID], "a program's id")[0] if _ID in options else None
    return found._replace(name=name, program=program)
