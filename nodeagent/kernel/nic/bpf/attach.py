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
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.tcmsg import sched_bpf

from nodeagent.kernel.nic import clsact
from nodeagent.kernel.nic.bpf.assemble import Line, assemble, maps_of
from nodeagent.model.errors import Refused
from nodeagent.model.nic import MAJOR

CLASSIFY, EDT = "nodeagent-classify", "nodeagent-edt"
_LAST = 0xFFFF
_ETH_P_ALL = 3
_HANDLE = 1
# Linux include/uapi/linux/pkt_cls.h; pyroute2 0.9.7 ends before these
if not any("TCA_BPF_ID" in each for each in sched_bpf.options.nla_map):
    sched_bpf.options.nla_map += (
        ("TCA_BPF_FLAGS_GEN", "uint32"),
        ("TCA_BPF_TAG", "hex"),
        ("TCA_BPF_ID", "uint32"),
    )
    sched_bpf.options._nlmsg_base__compiled_nla = False  # in case that somebody has used it already


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


def filters(ip: IPRoute, index: int) -> tuple[Filter, ...]:
    """All filters at a NIC's clsact egress; none where there is no clsact or no such link."""
    try:
        return tuple(_filter(each) for each in ip.get_filters(index=index, parent=clsact.EGRESS))
    except NetlinkError as error:
        if error.code in (errno.ENODEV, errno.EINVAL):
            return ()
        raise clsact.failed(error, f"filters of link {index}") from error


def attach(ip: IPRoute, index: int, name: str, fd: int) -> None:
    """Have the program run, instead of ours of another version if there is one, from one packet to the next.

    Raises Gone (no such link), Unsupported (no clsact or cls_bpf in this kernel), Refused.
    """
    added = clsact.add(ip, index)
    present = filters(ip, index)
    step = name.partition(" ")[0]
    old = next((each for each in present if each.step == step), None)
    prio = old.prio if old else prio_for(step, present)
    try:
        ip.tc(
            "replace-filter" if old else "add-filter",
            "bpf",
            index,
            old.handle if old else _HANDLE,
            parent=clsact.EGRESS,
            prio=prio,
            protocol=_ETH_P_ALL,
            fd=fd,
            name=name,
            direct_action=True,
        )
    except NetlinkError as error:
        if added:
            clsact.give_back(ip, index)
        raise clsact.failed(error, f"filter {name} at link {index}") from error


def detach(ip: IPRoute, step: str, index: int) -> bool:
    """Remove our filter of that step, and the clsact if it is ours and empty; True if it was there."""
    found = [each for each in filters(ip, index) if each.step == step]
    for each in found:
        try:
            ip.tc(
                "del-filter",
                "bpf",
                index,
                each.handle,
                parent=clsact.EGRESS,
                info=each.prio << 16 | socket.htons(_ETH_P_ALL),
            )
        except NetlinkError as error:
            if error.code not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
                raise clsact.failed(error, f"filter {each.name} at link {index}") from error
    clsact.give_back(ip, index)
    return bool(found)


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


def _filter(message: Mapping[str, Any]) -> Filter:
    found = Filter(message["info"] >> 16, message["handle"])
    attributes = dict(message["attrs"])
    options = attributes.get("TCA_OPTIONS")
    if attributes.get("TCA_KIND") != "bpf" or options is None:
        return found
    return found._replace(name=options.get_attr("TCA_BPF_NAME") or "", program=options.get_attr("TCA_BPF_ID"))
