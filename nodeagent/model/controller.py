"""The controller that the agent reports to: how it is configured, where it is, and how the link to it fares.

Invariant: without TLS it is on this host: a unix socket, or loopback.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

ENV_NAMES = ("NODEAGENT_NODE_NAME", "NODE_NAME")  # the second one is commonly spec.nodeName
MAX_NAME = 253  # of a DNS name, as those of Kubernetes nodes are
MAX_UNIX_PATH = 107  # unix(7): sun_path is 108 bytes with its NUL
HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")


class ControllerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The stream of reports to a controller, which implements `Collector`."""

    address: Annotated[
        str,
        Meta(max_length=300, description='HOST:PORT with TLS, or plain on loopback or unix:/path; "" = off'),
    ] = ""
    node_name: Annotated[
        str,
        Meta(max_length=MAX_NAME, description='"" = NODEAGENT_NODE_NAME or NODE_NAME, else the hostname'),
    ] = ""
    tls_ca: Annotated[
        str, Meta(max_length=4096, description="PEM file: who may have signed the controller's certificate")
    ] = ""
    tls_cert: Annotated[
        str, Meta(max_length=4096, description="PEM file: the agent's certificate and its chain")
    ] = ""
    tls_key: Annotated[str, Meta(max_length=4096, description="PEM file: the key of tls_cert")] = ""
    server_name: Annotated[
        str,
        Meta(max_length=MAX_NAME, description='name in the controller\'s certificate; "" = that of address'),
    ] = ""
    report_s: Annotated[
        float, Meta(ge=0.1, le=60.0, description="least time between two reports of what changed")
    ] = 1.0
    heartbeat_s: Annotated[
        float,
        Meta(ge=0.5, le=600.0, description="most time between two reports; half of the validity if less"),
    ] = 10.0
    backoff_s: Annotated[
        float, Meta(ge=0.05, le=60.0, description="longest first pause before it connects again")
    ] = 1.0
    backoff_max_s: Annotated[
        float, Meta(ge=0.1, le=3600.0, description="longest pause after many failures; each is random")
    ] = 60.0
    directives: Annotated[bool, Meta(description="take directives from the controller")] = False


class Where(NamedTuple):
    """`target` as gRPC takes it; `host` and `port` of TCP, else "" and 0; `local`: it is on this host."""

    target: str
    host: str
    port: int
    local: bool


class LinkSeen(Struct, frozen=True, gc=False):
    """The link so far: counts since the start; `sent_unix` is when a report last went out, None before.

    `tls_not_after_unix` is the end of the agent's certificate, None without one.
    """

    connected: bool
    connects: int
    losses: int
    sent: Mapping[str, int]  # by kind: full, delta, heartbeat, directive_result
    directives: Mapping[str, int]  # by result: taken, refused
    sent_unix: float | None
    tls_not_after_unix: float | None = None


def where(address: str) -> Where | None:
    """`unix:/path`, HOST:PORT or [IPv6]:PORT taken apart; None when it is nothing of that kind."""
    if address.startswith(("unix:", "/")):
        path = address.removeprefix("unix:")
        fits = path.startswith("/") and not path.endswith("/") and len(path.encode()) <= MAX_UNIX_PATH
        return Where(f"unix:{path}", "", 0, True) if fits else None
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 0 < int(port[:6]) <= 65535:
        return None
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        named = HOST_NAME.fullmatch(host) is not None and len(host) <= MAX_NAME
        return Where(f"dns:///{address}", host, int(port), host == "localhost") if named else None
    written_right = (ip.version == 6) == (bare != host)
    return Where(f"dns:///{address}", bare, int(port), ip.is_loopback) if written_right else None


def node_name(configured: str, env: Mapping[str, str], hostname: str) -> str:
    """What the controller knows this node by: configured, else from the environment, else the hostname."""
    named = (configured, *(env.get(name, "") for name in ENV_NAMES), hostname)
    return next((name for name in named if name), "")[:MAX_NAME]
