"""Where to listen: a unix socket for its group, TCP that only this host can reach, or TLS.

Invariant: the socket has its mode before it has its name; one on which somebody answers is never taken.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from nodeagent.model.errors import Failed, Misconfigured

MODE = 0o660
MAX_PATH_BYTES = 107  # sun_path of unix(7), without the final NUL
HINT = 'rpc address: "unix:/run/nodeagent/nodeagent.sock", or a loopback address such as "127.0.0.1:9465"'

Listen = Callable[[str], int]  # takes a gRPC address, returns the port (1 for a unix socket); RuntimeError


class Unix(NamedTuple):
    path: str


class Tcp(NamedTuple):
    host: str
    port: int


def parse(address: str) -> Unix | Tcp:
    """`unix:PATH`, an absolute path, or HOST:PORT on loopback; Misconfigured for anything else."""
    if address.startswith(("unix:", "/")):
        return parse_unix(address)
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise Misconfigured(f"rpc address {address!r}: neither a unix socket nor HOST:PORT", HINT)
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise Misconfigured(f"rpc address {address!r}: {host!r} is not an IP address", HINT) from None
    if not loopback:
        raise Misconfigured(f"rpc address {address!r}: plain TCP is for loopback only", HINT)
    return Tcp(host, int(port))


def parse_tls(address: str) -> Tcp:
    """HOST:PORT with any IP address of this host, 0.0.0.0 or [::]; Misconfigured for anything else."""
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError
        ipaddress.ip_address(bare)
    except ValueError:
        raise Misconfigured(
            f"rpc address {address!r}: not IP:PORT", 'such as "0.0.0.0:9466" or "[::]:9466"'
        ) from None
    return Tcp(bare, int(port))


def listen(where: Unix | Tcp, add_port: Listen, mode: int = MODE) -> str:
    """Let the server listen there and return the address for clients; Failed when that cannot be.

    `mode` is that of a unix socket.
    """
    return (
        _listen_unix(where.path, add_port, mode) if isinstance(where, Unix) else _listen_tcp(where, add_port)
    )


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode of the socket, None when there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def parse_unix(address: str) -> Unix:
    """`unix:PATH` or an absolute path; Misconfigured for anything else."""
    path = address.removeprefix("unix:")
    path = "/" + path.lstrip("/") if path.startswith("//") else path
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise Misconfigured(f"rpc address {address!r}: not an absolute path of a socket", HINT)
    if (
        len(os.fsencode(os.path.dirname(path))) + 20 > MAX_PATH_BYTES
        or len(os.fsencode(path)) > MAX_PATH_BYTES
    ):
        raise Misconfigured(
            f"rpc address {address!r}: too long for a unix socket", "choose a shorter directory"
        )
    return Unix(path)


def _listen_tcp(where: Tcp, add_port: Listen) -> str:
    host = f"[{where.host}]" if ":" in where.host else where.host
    try:
        return f"{host}:{add_port(f'{host}:{where.port}')}"
    except RuntimeError:
        raise Failed(
            f"rpc: cannot listen on {host}:{where.port}",
            "is the port in use (ss -ltnp), and the address one of this host?",
        ) from None


def _listen_unix(path: str, add_port: Listen, mode: int) -> str:
    """Bind inside a private directory, set the mode, then rename: no moment with a wrong mode, no umask."""
    _refuse_if_taken(path)
    try:
        with tempfile.TemporaryDirectory(prefix=".rpc-", dir=os.path.dirname(path)) as private:
            socket_path = os.path.join(private, "s")
            add_port(f"unix:{socket_path}")
            os.chmod(socket_path, mode)
            os.rename(socket_path, path)
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "bind failed"
        hint = f"make the directory first: install -d -m 0750 {os.path.dirname(path)}"
        raise Failed(f"rpc: cannot listen on {path}: {reason}", hint) from None
    return f"unix:{path}"


def _refuse_if_taken(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # the directory's own trouble shows when we bind
    if not stat.S_ISSOCK(mode):
        raise Failed(f"rpc: {path} exists and is not a socket", "move it away, or choose another rpc address")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return  # left by a server that was killed; the rename replaces it
        except OSError as error:
            raise Failed(f"rpc: {path} is in use: {error.strerror}", "choose another rpc address") from None
    raise Failed(
        f"rpc: another server answers on {path}", "stop it (nodeagent run?), or choose another rpc address"
    )
