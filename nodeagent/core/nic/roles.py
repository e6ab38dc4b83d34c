"""What a NIC is for, where its rule leaves that open: told by routes, else by where the GPUs are.

    one NIC                                        shared
    some have a default route, others have none    online, bulk
    some are wired to a GPU's NUMA node            bulk, the others online
    else                                           shared

(Training traffic comes from GPUs: its NIC is near them. A NIC without a default route leads to a network of
machines alone.)
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from nodeagent.model.nic import Link, Role
from nodeagent.model.nic_policy import NicRule, RoleBy


def settled(
    link: Link, rule: NicRule, others: Collection[Link], gpu_nodes: Collection[int | None]
) -> NicRule:
    """The rule with its role; `others`: all NICs that are shaped, this one among them."""
    if rule.role is not RoleBy.AUTO:
        return rule
    return replace(rule, role=RoleBy(_told(link, others, gpu_nodes).value))


def _told(link: Link, others: Collection[Link], gpu_nodes: Collection[int | None]) -> Role:
    if len({other.default_route for other in others}) == 2:
        return Role.ONLINE if link.default_route else Role.BULK
    near = {other.numa_node in gpu_nodes for other in others if other.numa_node is not None}
    if len(near) == 2 and link.numa_node is not None:
        return Role.BULK if link.numa_node in gpu_nodes else Role.ONLINE
    return Role.SHARED
