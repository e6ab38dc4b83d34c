"""Who calls, and what it may: by the names in its certificate, or by the user id that the kernel tells.

Invariant: nobody directs without a name in `directors` or a user id in `director_uids`; a certificate's
common name is no name, and nobody whose name is in no list gets any role.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple

import grpc

from nodeagent.model.glob import glob_regex

# What gRPC calls the kinds of subject alternative names; e-mail addresses name people, not services.
KINDS = {"peer_uri": "uri", "peer_dns": "dns", "peer_ip": "ip"}
Context = Any  # grpc.aio.ServicerContext: grpc ships no annotations


class Role(enum.IntEnum):
    """What a caller may do; each may what the ones before may."""

    NONE = 0  # ask for health
    READER = 1
    DIRECTOR = 2


class Origin(NamedTuple):
    """Where a connection comes from: a TCP address, or user id and process (pid) on a unix socket.

    `cgroup` is that of the process when it connected, "" where it is not known: ids are given anew.
    """

    address: str = ""
    uid: int | None = None
    pid: int | None = None
    cgroup: str = ""


class Caller(NamedTuple):
    """`peer` is the same for all its connections; `issuer` is what is recorded of its directives.

    `cgroup` is that of its process, "" where it is not known.
    """

    role: Role
    peer: str
    issuer: str
    cgroup: str = ""


class Access(NamedTuple):
    """Globs of names ("*" stays between slashes) and user ids, by role; no `reader_uids`: all of them.

    Who comes without a name, by plain TCP on loopback, may what `loopback` may.
    """

    readers: tuple[str, ...] = ()
    directors: tuple[str, ...] = ()
    reader_uids: tuple[int, ...] = ()
    director_uids: tuple[int, ...] = (0,)
    loopback: Role = Role.READER

    def caller(self, auth: Mapping[str, Iterable[bytes]], origin: Origin) -> Caller:
        """Who it is, from gRPC's auth context and the origin of the connection."""
        if b"ssl" in auth.get("transport_security_type", ()):
            return self._named(tuple(names(auth)))
        if origin.uid is None:
            peer = f"tcp:{origin.address or 'loopback'}"
            return Caller(self.loopback, peer, peer)
        reads = origin.uid == 0 or not self.reader_uids or origin.uid in self.reader_uids
        role = Role.DIRECTOR if origin.uid in self.director_uids else Role.READER if reads else Role.NONE
        return Caller(role, f"uid:{origin.uid}", f"uid:{origin.uid} pid:{origin.pid}", origin.cgroup)

    def _named(self, found: tuple[str, ...]) -> Caller:
        for role, globs in ((Role.DIRECTOR, self.directors), (Role.READER, self.readers)):
            for name in found:
                if any(_fits(glob, name) for glob in globs):
                    return Caller(role, name, name)
        peer = found[0] if found else "a certificate without names"
        return Caller(Role.NONE, peer, peer)


NOBODY = Caller(Role.NONE, "the caller", "")
DIRECTORS = "grpc.directors takes names of certificates, grpc.director_uids users of the unix socket"
CALLER: ContextVar[Caller] = ContextVar("caller")  # of the call that runs in this task; set by the guard


async def director(
    context: Context, denied: Callable[[Caller], None] = lambda _caller: None, hint: str = DIRECTORS
) -> str:
    """Who calls, for the record; ends the call with PERMISSION_DENIED when it may not direct.

    `denied` is called before that.
    """
    caller = CALLER.get(NOBODY)
    if caller.role is not Role.DIRECTOR:
        denied(caller)
        why = f"{caller.peer} may not direct this node; hint: {hint}"
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
        raise AssertionError("abort returned")  # it always raises
    return caller.issuer


def names(auth: Mapping[str, Iterable[bytes]]) -> Iterator[str]:
    """The subject alternative names of the caller's verified certificate: "dns:a.example", "uri:spiffe://..."."""
    for key, kind in KINDS.items():
        for name in auth.get(key, ()):
            text = name.decode("utf-8", "replace")
            if text.isprintable():
                yield f"{kind}:{text.lower() if kind == 'dns' else text}"


def _fits(glob: str, name: str) -> bool:
    """A glob may name the kind ("dns:*.example"); without it any kind will do."""
    kind, _, bare = name.partition(":")
    text = name if glob.startswith(("uri:", "dns:", "ip:")) else bare
    wanted = glob.lower() if kind == "dns" else glob
    return glob_regex(wanted).fullmatch(text) is not None
