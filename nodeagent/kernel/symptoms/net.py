"""One pod's own network namespace, read through one of its processes.

    cgroup.procs -> PID -> /proc/PID/ns/net   pid 1's: it has none of its own     else: /proc/PID/net/*

Containers within a container may have others: the one that most of its cgroups are in counts, at a tie the
first (the sandbox's). No descriptor is kept, for one of /proc/PID/net would keep the namespace alive. Where
no link carried a byte there was no TCP; netstat, which is long, is read every other time.
Invariant: what was read counts only if the process was still in its cgroups and namespace afterwards.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from nodeagent.kernel.files import Misses, read_whole
from nodeagent.kernel.own_psi import ids_in
from nodeagent.kernel.symptoms.tcp import Segments, listen_drops, segments, traffic
from nodeagent.model.errors import AgentError, Gone, Unsupported

T = TypeVar("T")

_MOST_CGROUPS = 32
_MOST_PROCESSES = 256  # of one cgroup that are tried or among which one is looked for
_MOST_BYTES = 1 << 16
_ASK_AGAIN = 16  # a pod in the host's namespace is looked at again after 1, 2, 4, 8, then each 16 readings


class NetUse(NamedTuple):
    """Counters of the namespace; None where not known or not asked for."""

    sent: int | None = None
    retransmitted: int | None = None
    listen_drops: int | None = None
    bytes: int | None = None


class _Home(NamedTuple):
    """A process of the pod and what tells that it still is the one that was chosen."""

    pid: int
    cgroups: bytes
    namespace: int


class PodNet:
    """`lists` are the cgroup.procs of the pod and what is in it; `host` as from host_namespace()."""

    __slots__ = ("_asked", "_home", "_misses", "_moved", "_proc", "_turn", "_use", "host", "lists", "own")

    def __init__(self, proc: str, lists: tuple[str, ...], host: int | None, misses: Misses) -> None:
        self._proc = proc
        self.lists = lists
        self.host = host
        self.own: bool | None = None if host is not None else False  # None: not known yet
        self._misses = misses
        self._home: _Home | None = None
        self._use = NetUse()
        self._moved: int | None = None  # bytes over all links, with which `_use` was read
        self._turn = False
        self._asked = 0

    def read(self, *, tcp: bool, full: bool = False) -> NetUse:
        """What the namespace counted. Without `tcp` bytes alone; `full`: netstat too, whosever turn it is."""
        home = self._chosen()
        if home is None:
            return NetUse()
        use = self._counted(f"{self._proc}/{home.pid}/net", tcp, full)
        if self._still(home):
            return use
        self._home = None
        return NetUse()

    def _counted(self, where: str, tcp: bool, full: bool) -> NetUse:
        seen, last = self._parsed(f"{where}/dev", traffic), self._use
        if not tcp or seen is None:
            return NetUse(bytes=None if seen is None else seen.outer)
        if seen.all == self._moved and last.sent is not None and last.listen_drops is not None:
            return last
        found = self._parsed(f"{where}/snmp", segments) or Segments(None, None, None)
        refused, self._turn = last.listen_drops, not self._turn
        if full or self._turn or refused is None:
            refused, self._turn = self._parsed(f"{where}/netstat", listen_drops), True
        self._moved = (
            seen.all if self._turn else None
        )  # what came since netstat was read may have been refused
        self._use = NetUse(found.sent, found.retransmitted, refused, seen.outer)
        return self._use

    def _parsed(self, path: str, parse: Callable[[bytes], T | None]) -> T | None:
        try:
            raw = read_whole(path, _MOST_BYTES)
        except AgentError as error:
            if not isinstance(error, Gone | Unsupported):  # it ended, or has no TCP
                self._misses.count(error)
            return None
        found = parse(raw)
        if found is None:
            self._misses.garbled += 1
        return found

    def _chosen(self) -> _Home | None:
        if self._home is not None or self.host is None:
            return self._home
        if self.own is False:
            self._asked += 1
            if self._asked & (self._asked - 1) and self._asked % _ASK_AGAIN:
                return None
        found = self._votes()
        if found:
            namespace = Counter(home.namespace for home in found).most_common(1)[0][0]
            self.own = namespace != self.host
            if self.own:
                self._home = next(home for home in found if home.namespace == namespace)
                self._use, self._moved = NetUse(), None
        return self._home

    def _votes(self) -> list[_Home]:
        """The first process of each cgroup that lives."""
        found: list[_Home] = []
        for listing in self.lists[:_MOST_CGROUPS]:
            for pid in ids_in(listing, _MOST_PROCESSES):
                home = self._home_of(pid)
                if home is not None and pid in ids_in(listing, _MOST_PROCESSES):
                    found.append(home)
                    break
        return found

    def _still(self, home: _Home) -> bool:
        return self._home_of(home.pid) == home

    def _home_of(self, pid: int) -> _Home | None:
        try:
            cgroups = read_whole(f"{self._proc}/{pid}/cgroup", _MOST_BYTES)
        except AgentError:
            return None
        namespace = namespace_of(self._proc, pid)
        return None if namespace is None else _Home(pid, cgroups, namespace)


def host_namespace(proc: str) -> int | None:
    """Inode of the host's: pid 1's, or where it may not be looked at that of kthreadd, which never leaves."""
    return next((found for pid in (1, 2) if (found := namespace_of(proc, pid)) is not None), None)


def namespace_of(proc: str, pid: int) -> int | None:
    """Inode of the process's network namespace; None when it ended or may not be looked at."""
    try:
        return os.stat(f"{proc}/{pid}/ns/net").st_ino
    except OSError:
        return None
