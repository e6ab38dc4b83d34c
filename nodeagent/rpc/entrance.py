"""By whom, how often and for how long a server may be asked: the door and the guard that see to it."""

from __future__ import annotations

from typing import NamedTuple

from nodeagent.rpc.address import Tcp, Unix
from nodeagent.rpc.caller import Access
from nodeagent.rpc.door import CgroupOf, Door, nowhere
from nodeagent.rpc.guard import Guard, Limits


class Terms(NamedTuple):
    """Who may what, how often, and after how many seconds a client must connect and be verified anew."""

    access: Access = Access()
    limits: Limits = Limits()
    max_connection_age_s: float = 3600.0


def entrance(
    where: Unix | Tcp | None, terms: Terms, calls_per_peer: int, cgroup_of: CgroupOf = nowhere
) -> tuple[Door | None, Guard]:
    """The door of a unix socket, and the guard of all that comes in there or elsewhere."""
    door = Door(where, 2 * calls_per_peer, cgroup_of) if isinstance(where, Unix) else None
    limits = terms.limits._replace(calls_per_peer=calls_per_peer)
    return door, Guard(terms.access, limits, door.connections if door else {})
