"""How commands (and the link) reach a server: a unix socket, TLS, or plain TCP on loopback."""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator
from typing import NamedTuple

import grpc

from nodeagent.model.errors import Failed, Misconfigured, Refused
from nodeagent.rpc.address import Unix, parse
from nodeagent.rpc.tls import Identity, TlsFiles

IS_IT_RUNNING = "is `nodeagent run` running, with a grpc.address, and with this agent.run_dir?"
HINT = "unix:/run/nodeagent/nodeagent.sock, or node-7.example:9466 with --tls-cert, --tls-key and --tls-ca"


class Target(NamedTuple):
    """Where a server is, and who asks: with `files` by TLS, and of a server of this `name` if any.

    `whom` and `hint` are for the error when nobody answers there.
    """

    address: str
    files: TlsFiles | None = None
    name: str = ""
    whom: str = "agent"
    hint: str = IS_IT_RUNNING


@contextlib.contextmanager
def opened(target: Target, *options: tuple[str, int | str]) -> Iterator[grpc.Channel]:
    """A channel there; Misconfigured, Failed or Refused when there is none to be had."""
    if target.files is not None:
        identity = Identity(target.files)
        made = secure(target, identity, *options)
    else:
        made = grpc.insecure_channel(_plain(target), options=list(options))
    with contextlib.closing(made) as channel:
        yield channel


def secure(target: Target, identity: Identity, *options: tuple[str, int | str]) -> grpc.Channel:
    """A TLS channel to HOST:PORT, where the server's certificate must bear that name (or `target.name`)."""
    where = checked(target.address)
    return grpc.secure_channel(where, identity.channel_credentials(), options=[*options, *named(target.name)])


def named(name: str) -> list[tuple[str, str]]:
    """Options with which the server's certificate must bear that name, "" = that of the address."""
    return [("grpc.ssl_target_name_override", name)] if name else []


def checked(address: str) -> str:
    """HOST:PORT as gRPC takes it for TLS; Misconfigured for anything else."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (colon and port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535 and bare):
        raise Misconfigured(f"address {address!r}: not HOST:PORT", hint=HINT)
    if ":" in bare or bare.replace(".", "").isdigit():
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            raise Misconfigured(f"address {address!r}: {bare!r} is no IP address", hint=HINT) from None
    elif not all(part and part.replace("-", "").replace("_", "").isalnum() for part in bare.split(".")):
        raise Misconfigured(f"address {address!r}: {bare!r} is not the name of a host", hint=HINT)
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def plain(address: str) -> str:
    """A unix socket or an address on loopback, as gRPC takes it; Misconfigured for anything else."""
    try:
        where = parse(address)
    except Misconfigured as error:
        raise Misconfigured(str(error), hint=HINT) from None
    if isinstance(where, Unix):
        return f"unix:{where.path}"
    return f"[{where.host}]:{where.port}" if ":" in where.host else f"{where.host}:{where.port}"


def _plain(target: Target) -> str:
    where = plain(target.address)
    if where.startswith("unix:"):
        reachable(where.removeprefix("unix:"), target.whom, target.hint)
    return where


def reachable(path: str, whom: str = "agent", hint: str = IS_IT_RUNNING) -> None:
    """As connect(2) tells it, which gRPC does not."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5.0)
        try:
            probe.connect(path)
        except PermissionError:
            raise Refused(f"{path} may not be opened by this user", hint=_who_may(path)) from None
        except OSError as error:
            raise Failed(f"no {whom} answers at {path}: {error.strerror or error}", hint=hint) from None


def _who_may(path: str) -> str:
    with contextlib.suppress(OSError, KeyError):  # it vanished; a group without a name
        found = os.stat(path)
        if found.st_gid and found.st_mode & stat.S_IRWXG:
            return f"run as root, or as a member of the group {grp.getgrgid(found.st_gid).gr_name}"
    return "run as root"
