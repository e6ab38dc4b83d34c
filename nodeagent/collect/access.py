"""Who may do what: over TLS by the names in a peer's certificate (SAN), else by how they came.

Invariant: nobody directs over TCP who is not named as a director, and of a unix socket's users only root and
who runs the controller.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from nodeagent.rpc.caller import CALLER, NOBODY, Access, Role, names
from nodeagent.rpc.guard import Guard, Limits
from nodeagent.rpc.splice import Connection
from nodeagent.v1 import collector_pb2 as pb

COLLECTOR: str = pb.DESCRIPTOR.services_by_name["Collector"].full_name
LOOPBACK = "loopback"
OPTIONS = "--agents, --readers and --directors"
DIRECTORS = '--directors takes names of certificates, and "loopback"'
CALLS_PER_S, PEER_CALLS_PER_S = 600.0, 300.0

Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations


class Allowed(NamedTuple):
    """Globs of names in certificates ("*" stays between slashes) by role.

    `own_names`: an agent reports only as a node that its certificate names.
    """

    agents: tuple[str, ...] = ("**",)
    readers: tuple[str, ...] = ("**",)
    directors: tuple[str, ...] = ()
    own_names: bool = False


def guards(allowed: Allowed, max_nodes: int, calls: int, inside: Mapping[str, Connection]) -> list[Guard]:
    """Two: of reports, which all may come at once after a pause, and of whatever else is asked."""

    def reports(method: str) -> bool:
        return method.startswith(f"/{COLLECTOR}/")

    own = (0, os.geteuid())
    loopback = Role.DIRECTOR if LOOPBACK in allowed.directors else Role.READER
    clients = Access(allowed.readers, allowed.directors, director_uids=own, loopback=loopback)
    per_s = max(CALLS_PER_S, float(max_nodes))
    limits = Limits(per_s, per_s, calls)  # agents may all have one certificate
    return [
        Guard(Access(allowed.agents), limits, inside, covers=reports, roles=OPTIONS),
        Guard(
            clients,
            Limits(CALLS_PER_S, PEER_CALLS_PER_S, calls),
            inside,
            covers=lambda method: not reports(method),
            roles=OPTIONS,
        ),
    ]


def peer(context: Context) -> str:
    """Who has come from where, for the log."""
    who, where = CALLER.get(NOBODY), str(context.peer())
    if where.startswith("unix"):
        return who.issuer
    return where if who.peer.startswith("tcp:") else f"{who.peer} {where}"


def node_names(context: Context) -> frozenset[str]:
    """The nodes that its certificate names: "node-7" by dns:node-7, or uri:spiffe://cluster/node-7."""
    found = (name.partition(":")[2] for name in names(context.auth_context()))
    return frozenset(name.rpartition("/")[2] for name in found)
