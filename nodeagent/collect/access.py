"""Who may do what: over TLS by the names in a peer's certificate (SAN), else by how they came.

Invariant: nobody directs over TCP who is not named as a director.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import grpc

from nodeagent.model.errors import Failed

UNIX, LOOPBACK = "unix", "loopback"
Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations


class Role(enum.StrEnum):
    AGENT = "agent"  # may report
    READER = "reader"  # may read the view
    DIRECTOR = "director"  # may send directives, and read


class TlsFiles(NamedTuple):
    """PEM files: a certificate, its key, and the CAs that peers must have."""

    certificate: str
    key: str
    ca: str

    def server_credentials(self) -> grpc.ServerCredentials:
        """For add_secure_port; peers without a certificate of the CA fail the handshake."""
        certificate, key, ca = map(_read, self)
        return grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For secure_channel."""
        certificate, key, ca = map(_read, self)
        return grpc.ssl_channel_credentials(ca, key, certificate)


class Access:
    """`allowed` has the globs that one of a peer's names must match, by role.

    Those without a certificate may report and read; they may direct over a unix socket, whose mode decides
    who opens it, and over loopback only where the name "loopback" may.
    """

    def __init__(self, allowed: Mapping[Role, tuple[str, ...]]) -> None:
        self._allowed = allowed

    async def check(self, context: Context, role: Role) -> None:
        """Abort the call with PERMISSION_DENIED when its peer may not do that."""
        names = _names(context)
        if not _secure(context) and (names == [UNIX] or role is not Role.DIRECTOR):
            return
        roles = {role, Role.DIRECTOR} if role is Role.READER else {role}
        globs = [glob for each in roles for glob in self._allowed.get(each, ())]
        if any(fnmatchcase(name, glob) for name in names for glob in globs):
            return
        who = ", ".join(names[:3]) or "a certificate without names"
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED, f"{who} is no {role.value}; hint: --{role.value}s {who}"
        )

    def name(self, context: Context) -> str:
        """The peer, for the log."""
        return next(iter(_names(context)), str(context.peer()))


def _secure(context: Context) -> bool:
    return bool(context.auth_context().get("transport_security_type") == [b"ssl"])


def _names(context: Context) -> list[str]:
    """Subject alternative names of the peer's certificate; without TLS how it came."""
    if not _secure(context):
        return [UNIX if context.peer().startswith("unix:") else LOOPBACK]
    found = context.auth_context().get("x509_subject_alternative_name", ())
    return [name.decode("utf-8", "replace") for name in found]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}", hint="PEM files: --tls-cert, --tls-key, --tls-ca") from None
