"""clsact, the place of filters before the root qdisc: there is one for each NIC, which all have to share.

Whose it is must be told by the kernel alone, after a crash as well. Its handle is always ffff:, so ours has
a mark in it: a filter chain of our number at egress, which is empty and which no packet ever visits.
(Chains without filters: Linux kernel commit 32a4f5ecd738 ("net: sched: introduce chain object to uapi")
(in v4.19).) Killed between the two calls we leave an empty clsact without a mark, which does nothing.
Invariant: a clsact is removed only if it has our mark and nothing else: no filter, no other chain.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from nodeagent.model.errors import AgentError, Gone, Refused, Unsupported
from nodeagent.model.nic import MAJOR

EGRESS, INGRESS = 0xFFFFFFF3, 0xFFFFFFF2  # TC_H_CLSACT | TC_H_MIN_EGRESS, TC_H_MIN_INGRESS
_HANDLE = 0xFFFF0000
_NEW_CHAIN, _GET_CHAIN = 100, 102  # RTM_NEWCHAIN, RTM_GETCHAIN
_GONE = (errno.ENODEV, errno.ENXIO)


class _Chain(nlmsg):  # type: ignore[misc]  # pyroute2 has no types
    """pyroute2 does not know chains. Not a kind of tcmsg, whose compiled attributes it would inherit."""

    prefix = "TCA_"
    fields = tcmsg.fields
    nla_map = ((1, "TCA_KIND", "asciiz"), (11, "TCA_CHAIN", "uint32"))


def there(ip: IPRoute, index: int) -> bool:
    """True if the NIC has a clsact, whoever's. Refused, Gone."""
    return _kind(ip, index) == "clsact"


def everywhere(ip: IPRoute) -> tuple[int, ...]:
    """The indexes of the links that have a clsact, whoever's."""
    try:
        seen = [(each["index"], each.get_attr("TCA_KIND")) for each in ip.get_qdiscs()]
    except NetlinkError as error:
        raise failed(error, "qdiscs") from error
    return tuple(index for index, kind in seen if kind == "clsact")


def add(ip: IPRoute, index: int) -> bool:
    """See that the NIC has a clsact; True if it had none.

    Refused if the place is taken by an `ingress` qdisc, Unsupported where the kernel has no clsact, Gone.
    """
    try:
        ip.tc("add", "clsact", index)
    except NetlinkError as error:
        if error.code == errno.EEXIST and there(ip, index):
            return False
        raise failed(error, f"clsact at link {index}") from error
    try:
        _ask(ip, _chain(index, EGRESS, MAJOR), _NEW_CHAIN, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
    except NetlinkError as error:
        raise failed(error, f"chain at link {index}") from error
    return True


def give_back(ip: IPRoute, index: int) -> bool:
    """Remove the clsact if it is ours and nobody uses it; True if it was removed. Refused.

    To be called by whoever has removed filters of ours, at either hook.
    """
    try:
        if not _ours_alone(ip, index):
            return False
        ip.tc("del", "clsact", index)
    except NetlinkError as error:
        if error.code in _GONE:
            return False
        raise failed(error, f"clsact at link {index}") from error
    return True


def failed(error: NetlinkError, what: str) -> AgentError:
    """The AgentError that a refusal of tc stands for; raise it `from error`."""
    line = f"{what}: {os.strerror(error.code)}"
    if error.code in _GONE:
        return Gone(line)
    if error.code == errno.EPERM:
        return Refused(line, hint="give the agent CAP_NET_ADMIN, in the host's user namespace")
    if error.code == errno.ENOENT:
        return Unsupported(line, hint="the kernel needs sch_ingress (CONFIG_NET_SCH_INGRESS) and cls_bpf")
    if error.code == errno.EEXIST:
        return Refused(line, hint="somebody's `ingress` qdisc is in its place; it has no egress side")
    if error.code == errno.EOPNOTSUPP:
        return Unsupported(line, hint="somebody has made its filter block a shared one")
    return Refused(line)


def _ours_alone(ip: IPRoute, index: int) -> bool:
    chains = {hook: _chains(ip, index, hook) for hook in (EGRESS, INGRESS)}
    if chains != {EGRESS: {MAJOR}, INGRESS: set()}:
        return False
    return not any(True for hook in chains for _ in ip.get_filters(index=index, parent=hook))


def _kind(ip: IPRoute, index: int) -> str:
    try:
        found = [each.get_attr("TCA_KIND") for each in ip.get_qdiscs(index) if each["handle"] == _HANDLE]
    except NetlinkError as error:
        raise failed(error, f"qdiscs of link {index}") from error
    return found[0] if found else ""


def _chains(ip: IPRoute, index: int, hook: int) -> set[int]:
    found = set()
    for each in _ask(ip, _chain(index, hook), _GET_CHAIN, NLM_F_DUMP):
        message = _Chain(each.data)
        message.decode()
        found.add(message.get_attr("TCA_CHAIN"))
    return found


def _chain(index: int, hook: int, number: int | None = None) -> _Chain:
    message = _Chain()
    message["index"], message["parent"] = index, hook
    message["attrs"] = [] if number is None else [("TCA_CHAIN", number)]
    return message


def _ask(ip: IPRoute, message: _Chain, kind: int, flags: int) -> list[Any]:
    # IPRoute.nlm_request, the way without `async`, fails in pyroute2 0.9.7 (KeyError: 'nlm_generator')
    async def answers() -> list[Any]:
        return [each async for each in await ip.asyncore.nlm_request(message, kind, NLM_F_REQUEST | flags)]

    found: list[Any] = ip._run_with_cleanup(answers)
    return found
