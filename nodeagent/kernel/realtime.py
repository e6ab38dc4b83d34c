"""Pods that run real-time threads, or are to be left alone, on CPUs of their own.

A cgroup has CPUs of its own when its set is neither that of the cgroup around it nor all CPUs. What the agent
has written does not count: of a set that it holds, the original does. Each pod is looked at when it is new,
then ever more seldom, up to about every 30 s, a few in each tick.
Invariant: a look that fails, or does not see all, leaves what the last one found; a pod that was never looked
at with success is not known, rather than without real-time threads.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from nodeagent.kernel.files import MAX_FILE_BYTES, read_whole
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.cpuset import canonical, union, within
from nodeagent.model.errors import AgentError, Garbled, Gone, Unsupported
from nodeagent.model.foreign import Owned
from nodeagent.model.plan import Held, Kind, Knob
from nodeagent.model.pod import Member

LOOK_S = 30.0
THREADS_PER_TICK = 1 << 15  # 0.3 us each; a look that has begun is ended
MAX_CGROUPS = 1024  # per pod
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
        self._found: dict[Key, Owned | None] = {}  # of those looked at with success
        self._failed: dict[Key, str] = {}
        self._due: dict[Key, float] = {}
        self._born: dict[Key, tuple[float, float]] = {}  # when, and what spreads the looks
        self._members: tuple[Member, ...] = ()
        self._keys: dict[Key, Member] = {}
        self._sets: dict[str, str] = {}  # by cgroup, as read in this tick
        self._left = 0  # threads that may still be looked at in this tick

    def read(
        self, members: tuple[Member, ...], at: float, held: Mapping[Knob, Held], shared: str
    ) -> tuple[Owned, ...]:
        """The pods with what they own as far as known, at `at` (monotonic seconds); see `unknown`.

        CPUs in `shared` are nobody's own.
        """
        if self._root is None:
            return ()
        if members is not self._members:
            self._follow(members)
        self._sets.clear()
        self._left = THREADS_PER_TICK
        due = [key for key in self._keys if at >= self._due.get(key, at)]
        for key in sorted(due, key=lambda key: self._due.get(key, 0.0)):
            if self._left <= 0:
                break
            born, spread = self._born.setdefault(key, (at, 0.5 + len(self._born) * _GOLDEN % 0.5))
            self._due[key] = at + min(LOOK_S, max(1.0, at - born)) * spread
            try:
                self._look(key, self._keys[key], held, shared)
            except AgentError as error:
                self._failed[key] = str(error)
        return tuple([owned for key in self._keys if (owned := self._found.get(key)) is not None])

    @property
    def unknown(self) -> str:
        """Why it is not known of each pod, told of the first; "" when it is."""
        for key, member in self._keys.items():
            if key not in self._found:
                why = self._failed.get(key, "not looked at yet: too many threads")
                return f"{member.spec.name} may run real-time threads: {why}"
        return ""

    def _follow(self, members: tuple[Member, ...]) -> None:
        """Forget those that went; a new inode under an old name is another pod."""
        self._members = members
        self._keys = {(member.spec.cgroup, member.spec.inode): member for member in members}
        for gone in self._born.keys() - self._keys.keys():
            del self._born[gone], self._due[gone]
            self._found.pop(gone, None)
            self._failed.pop(gone, None)

    def _look(self, key: Key, member: Member, held: Mapping[Knob, Held], shared: str) -> None:
        spec = member.spec
        own = ""
        everything = self._cpus("", held)
        for cgroup in (spec.cgroup, *member.nested[:MAX_CGROUPS]):
            try:
                cpus = self._cpus(cgroup, held)
                apart = cpus not in ("", self._cpus(cgroup.rpartition("/")[0], held), shared)
                if apart and not within(everything, cpus) and (spec.hands_off or self._realtime(cgroup)):
                    own = union(own, cpus)
            except Gone:  # it has ended, or (v1) has no cpuset of its own
                continue
        if own:
            self._found[key] = Owned(spec.uid, own, HANDS_OFF if spec.hands_off else REALTIME)
        elif len(member.nested) <= MAX_CGROUPS or key not in self._found:
            self._found[key] = None

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
        raw = read_whole(listing, MAX_FILE_BYTES)
        whole = raw[: raw.rfind(b"\n") + 1]
        threads = [int(word) for word in whole.split() if word.isdigit() and len(word) < 10]
        self._left -= len(threads)
        if any(thread and _policy(thread) in _POLICIES for thread in threads):  # 0: outside our namespace
            return True
        if len(raw) == MAX_FILE_BYTES:
            raise Unsupported(f"{listing}: too many threads to look at all of them")
        return False


def _policy(thread: int) -> int:
    """The thread's scheduling policy (sched_getscheduler(2): no privilege needed); -1 when it has ended."""
    try:
        return os.sched_getscheduler(thread) & ~_RESET_ON_FORK
    except ProcessLookupError:
        return -1
    except OSError as error:
        raise Unsupported(f"the scheduling policy of its threads is not told: {error.strerror}") from error
