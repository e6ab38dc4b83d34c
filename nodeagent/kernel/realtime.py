"""Pods that run real-time threads, or are to be left alone, on CPUs of their own.

A cgroup has CPUs of its own when its set is neither that of the cgroup around it nor all CPUs. What the agent
has written does not count: of a set that it holds, the original does. Each pod is looked at when it is new,
then ever more seldom, up to about every 30 s, a few in each tick.
Invariant: a look that fails leaves what the last one found.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from nodeagent.kernel.files import read_whole
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.own_psi import ids_in
from nodeagent.model.cpuset import canonical, union, within
from nodeagent.model.errors import AgentError, Garbled, Gone, Unsupported
from nodeagent.model.foreign import Owned
from nodeagent.model.plan import Held, Kind, Knob
from nodeagent.model.pod import Member

LOOK_S = 30.0
MAX_THREADS = 1024  # per cgroup
MAX_CGROUPS = 64  # per pod
REALTIME = "it runs real-time threads on CPUs of its own"
HANDS_OFF = "to be left alone (hands_off), on CPUs of its own"
_POLICIES = frozenset({os.SCHED_FIFO, os.SCHED_RR, 6})  # 6: SCHED_DEADLINE, include/uapi/linux/sched.h
_RESET_ON_FORK = 0x40000000
_GOLDEN = 0.6180339887498949  # spreads the looks evenly, however many there are

Key = tuple[str, int]


class RealtimePods:
    """Remembers what the last look at each pod found."""

    def __init__(self, places: Hierarchies) -> None:
        cpuset = places.roots.get("cpuset")
        self._root = cpuset.root if cpuset else None
        self._v1 = cpuset is not None and cpuset.version == 1
        self._found: dict[Key, Owned] = {}
        self._due: dict[Key, float] = {}
        self._born: dict[Key, tuple[float, float]] = {}  # when, and what spreads the looks
        self._members: tuple[Member, ...] = ()
        self._keys: dict[Key, Member] = {}
        self._sets: dict[str, str] = {}  # by cgroup, as read in this tick

    def read(
        self, members: tuple[Member, ...], at: float, held: Mapping[Knob, Held], shared: str
    ) -> tuple[Owned, ...]:
        """The pods with what they own, at `at` (monotonic seconds). CPUs in `shared` are nobody's own."""
        if self._root is None:
            return ()
        if members is not self._members:
            self._follow(members)
        self._sets.clear()
        for key, member in self._keys.items():
            if at >= self._due.get(key, at):
                born, spread = self._born.setdefault(key, (at, 0.5 + len(self._born) * _GOLDEN % 0.5))
                self._due[key] = at + min(LOOK_S, max(1.0, at - born)) * spread
                self._look(key, member, held, shared)
        return tuple([self._found[key] for key in self._keys if key in self._found])

    def _follow(self, members: tuple[Member, ...]) -> None:
        """Forget those that went; a new inode under an old name is another pod."""
        self._members = members
        self._keys = {(member.spec.cgroup, member.spec.inode): member for member in members}
        for gone in self._born.keys() - self._keys.keys():
            del self._born[gone], self._due[gone]
            self._found.pop(gone, None)

    def _look(self, key: Key, member: Member, held: Mapping[Knob, Held], shared: str) -> None:
        spec = member.spec
        own = ""
        try:
            everything = self._cpus("", held)
            for cgroup in (spec.cgroup, *member.nested[:MAX_CGROUPS]):
                cpus = self._cpus(cgroup, held)
                apart = cpus not in ("", self._cpus(cgroup.rpartition("/")[0], held), shared)
                if apart and not within(everything, cpus) and (spec.hands_off or self._realtime(cgroup)):
                    own = union(own, cpus)
        except AgentError:
            return
        why = HANDS_OFF if spec.hands_off else REALTIME
        if own:
            self._found[key] = Owned(spec.uid, own, why)
        else:
            self._found.pop(key, None)

    def _cpus(self, cgroup: str, held: Mapping[Knob, Held]) -> str:
        """The CPUs of a cgroup as they would be without us; read once a tick."""
        if cgroup not in self._sets:
            self._sets[cgroup] = self._asked(cgroup, held)
        return self._sets[cgroup]

    def _asked(self, cgroup: str, held: Mapping[Knob, Held]) -> str:
        before = held.get(Knob(Kind.CPUS, cgroup))
        if before is not None and isinstance(before.original, str) and before.original:
            return before.original
        around = cgroup.rpartition("/")[0]
        if before is not None and cgroup:
            return self._cpus(around, held)
        path = f"{self._root}/{cgroup}/cpuset.cpus{'' if self._v1 else '.effective'}"
        try:
            text = canonical(read_whole(path).decode("ascii", "replace"))
        except (Gone, Unsupported):  # v2 without the controller: as the cgroup around
            if self._v1 or not cgroup:
                raise
            return self._cpus(around, held)
        if text is None:
            raise Garbled(f"{path}: not a list of CPUs")
        return text

    def _realtime(self, cgroup: str) -> bool:
        """True when one of the threads is under SCHED_FIFO, SCHED_RR or SCHED_DEADLINE."""
        listing = f"{self._root}/{cgroup}/{'tasks' if self._v1 else 'cgroup.threads'}"
        return any(_policy(thread) in _POLICIES for thread in ids_in(listing, MAX_THREADS))


def _policy(thread: int) -> int:
    """The thread's scheduling policy (sched_getscheduler(2): no privilege needed); -1 when it has ended."""
    try:
        return os.sched_getscheduler(thread) & ~_RESET_ON_FORK
    except ProcessLookupError:
        return -1
    except OSError as error:
        raise Unsupported(
            f"the scheduling policy of thread {thread} is not told: {error.strerror}"
        ) from error
