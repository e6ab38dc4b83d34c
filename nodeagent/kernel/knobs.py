"""All knobs of the node: which there are, what they hold now, and writing them.

Invariant: a knob that cannot be read is left out and counted, never guessed; a write touches only the
cgroup that was read, and each write is read back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import NamedTuple

from nodeagent.kernel.cgroup import Found, KnobCgroup, inode_of
from nodeagent.kernel.dialects import CONTROLLERS, affordable, branches
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.net_cls import below
from nodeagent.kernel.remember import reading, same, whole_percents
from nodeagent.kernel.strays import bring_back
from nodeagent.kernel.targets import (
    burst_knobs,
    class_knobs,
    cpu_knobs,
    cpuset_knobs,
    restrained_knobs,
    weight_knobs,
)
from nodeagent.model.errors import AgentError, Garbled, Gone, Refused, Unsupported
from nodeagent.model.interference import Restraint
from nodeagent.model.plan import Change, Held, Kind, Knob, KnobReading, Outcome, shown
from nodeagent.model.pod import Member
from nodeagent.model.policy import WeightPolicy

SELDOM = 5  # readings until what nobody changes alone is read again, such as the period of a quota
Place = tuple[str, str]  # controller and path: a cgroup in the hierarchy of that controller


class _Told(NamedTuple):
    """A reading and what it was made of."""

    found: Found
    memory: Held | None
    allowed: str
    reading: KnobReading


class Knobs:
    """The knobs of the host's cgroups, with their files kept open between ticks; `close` it.

    `misses` counts what the last `read` could not read, by kind: "garbled", "gone", "refused". With more
    than `max_kept` cgroups (default: what a quarter of RLIMIT_NOFILE allows) only directories stay open.
    Where `gives` says that systemd turns a controller on when asked, a knob without a file reads as unset.
    """

    def __init__(self, hierarchies: Hierarchies, *, max_kept: int | None = None) -> None:
        self._branches = branches(hierarchies)
        self._cgroups: dict[Place, KnobCgroup] = {}
        self._absent: set[Knob] = set()
        self._told: dict[Knob, _Told] = {}  # in the last reading, which the same values give again
        self._max_kept = affordable() if max_kept is None else max_kept
        self.gives: Callable[[str], bool] = lambda _path: False
        self.misses: dict[str, int] = {}
        self._turn = 0

    def targets_for(
        self,
        members: Iterable[Member],
        tiers: Iterable[str] = (),
        pools: Iterable[str] = (),
        *,
        sets: bool = True,
    ) -> tuple[Knob, ...]:
        """Knobs to read for these pods and tiers, and for `pools`, whose pods share CPUs; parents first.

        `sets`: those of the cpuset controller too.
        """
        here, homes = tuple(members), tuple(tiers)
        knobs: set[Knob] = set()
        if (cpu := self._branches.get("cpu")) is not None:
            knobs |= cpu_knobs(here, homes, nested=cpu.version == 1)
        if sets and (cpuset := self._branches.get("cpuset")) is not None:
            knobs |= cpuset_knobs(here, (*homes, *pools), nested=cpuset.version == 1)
        return tuple(sorted(knobs, key=lambda k: (k.target.count("/"), k.target, k.kind)))

    def weights_for(
        self, members: Iterable[Member], pools: Iterable[str], policy: WeightPolicy
    ) -> tuple[Knob, ...]:
        """Weights with which online pods and the agent's own class directories contend."""
        return tuple(sorted(weight_knobs(members, tuple(pools), policy)))

    def bursts_for(self, limited: Iterable[tuple[Member, frozenset[str]]]) -> tuple[Knob, ...]:
        """Quotas and bursts of LS pods, each with those of its cgroups that have a quota."""
        cpu = self._branches.get("cpu")
        if cpu is None:
            return ()
        each = (burst_knobs(member, paths, nested=cpu.version == 1) for member, paths in limited)
        return tuple(sorted(set[Knob]().union(*each)))

    def restrained_for(self, held: Iterable[tuple[Member, Restraint]]) -> tuple[Knob, ...]:
        """What these restraints set that is not read of every Batch pod, and what that is held against."""
        cpuset = self._branches.get("cpuset")
        nested = cpuset is not None and cpuset.version == 1
        return tuple(sorted(set[Knob]().union(*(restrained_knobs(m, r, nested=nested) for m, r in held))))

    def classes_for(self, members: Iterable[Member], tiers: Iterable[str]) -> tuple[Knob, ...]:
        """Network classes of pods, of what is inside them, and of tiers."""
        return tuple(sorted(class_knobs(members, tiers))) if "net_cls" in self._branches else ()

    def classes_below(self, held: Iterable[Knob]) -> tuple[Knob, ...]:
        """Network classes in the held ones, which began as these were."""
        branch = self._branches.get("net_cls")
        paths = {knob.target for knob in held if knob.kind is Kind.NET_CLASS and _inside(knob.target)}
        if branch is None:
            return ()
        return tuple(Knob(Kind.NET_CLASS, path) for path in sorted(below(branch.root, paths)))

    def read(self, targets: Iterable[Knob], held: Mapping[Knob, Held]) -> tuple[KnobReading, ...]:
        """`targets` and all `held` knobs as they are now, without those that are not there."""
        knobs = dict.fromkeys(targets) | dict.fromkeys(held)
        self.misses = {}
        self._turn += 1
        self._absent.clear()
        self._refresh({_place(knob) for knob in knobs})
        allowed = {kind: self._allowed(kind) for kind in {knob.kind for knob in knobs} if kind.is_set}
        before, self._told = self._told, {}
        for knob in knobs:
            told = self._read(knob, held.get(knob), allowed.get(knob.kind, ""), before.get(knob))
            if told is not None:
                self._told[knob] = told
        return tuple([told.reading for told in self._told.values()])

    def vanished(self, held: Mapping[Knob, Held]) -> tuple[Knob, ...]:
        """Held knobs that are no more: the cgroup is gone, is another one now, or has lost the file.

        Without the hierarchy we are blind: nothing is known to be gone.
        """
        places = {knob: place for knob in held if (place := _place(knob))[0] in self._branches}
        inodes = {place: self._inode_now(place) for place in set(places.values())}
        return tuple(
            knob
            for knob, place in places.items()
            if inodes[place] not in (held[knob].inode, _UNKNOWN) or knob in self._absent
        )

    def inode(self, knob: Knob) -> int | None:
        """Inode of the cgroup as it was when last read, which is the one that `apply` writes to."""
        cgroup = self._cgroup(_place(knob))
        return None if cgroup is None else cgroup.inode

    def apply(self, changes: Iterable[Change]) -> tuple[Outcome, ...]:
        """Write all of them in this order and read each back; one that fails does not stop the rest."""
        return tuple(map(self._apply, changes))

    def close(self) -> None:
        """Close every descriptor; the next read opens them again."""
        for cgroup in self._cgroups.values():
            cgroup.close()
        self._cgroups.clear()

    def _refresh(self, places: set[Place]) -> None:
        """Forget cgroups that nobody asks for, that are gone, or that were made anew; open the new ones.

        Those with open files need no look: their reading tells.
        """
        for place, cgroup in [*self._cgroups.items()]:
            if place not in places or not (cgroup.keeps or self._still(cgroup)):
                self._cgroups.pop(place).close()
            cgroup.fresh = (self._turn + cgroup.inode) % SELDOM == 0
        for place in places - self._cgroups.keys():
            self._cgroup(place)

    def _still(self, cgroup: KnobCgroup) -> bool:
        try:
            return cgroup.alive
        except AgentError as error:
            return self._missed(error)

    def _cgroup(self, place: Place) -> KnobCgroup | None:
        found = self._cgroups.get(place)
        branch = self._branches.get(place[0])
        if found is None and branch is not None and _inside(place[1]):
            try:
                found = self._cgroups[place] = branch.dialect(f"{branch.root}/{place[1]}")
            except Gone as error:
                if branch.walked:
                    self._missed(error)
            except AgentError as error:
                self._missed(error)
        return found

    def _inode_now(self, place: Place) -> int | None:
        try:
            return inode_of(f"{self._branches[place[0]].root}/{place[1]}") if _inside(place[1]) else None
        except AgentError:
            return _UNKNOWN

    def _allowed(self, kind: Kind) -> str:
        """What no set on v1 may exceed: that of the root, which has the online CPUs and the memory nodes."""
        branch = self._branches.get(CONTROLLERS[kind])
        if branch is None or branch.version != 1:
            return ""
        try:
            with closing(branch.dialect(branch.root)) as root:
                return root.read(kind).effective
        except AgentError:
            return ""

    def _read(self, knob: Knob, memory: Held | None, allowed: str, last: _Told | None) -> _Told | None:
        place = _place(knob)
        cgroup = self._cgroups.get(place)
        if cgroup is None:
            return None
        try:
            found = self._found(cgroup, knob)
            if last is not None and found != last.found and not cgroup.fresh:
                cgroup.fresh = True  # somebody has changed it, and maybe more than this
                found = self._found(cgroup, knob)
        except Unsupported:
            self._absent.add(knob)
            return None
        except AgentError as error:
            if type(error) is Gone and not self._still(cgroup) and place not in map(_place, self._told):
                self._cgroups.pop(place).close()  # nothing was read of it: what is there now may be read
                self._cgroup(place)
                return self._read(knob, memory, allowed, None)
            self._missed(error)
            return None
        if len(self._cgroups) > self._max_kept:
            cgroup.drop_kept()
        if memory is not None and memory.inode != cgroup.inode and not memory.lasts(found.actual):
            memory = None
        if last is not None and last.memory is memory and last.found == found and last.allowed == allowed:
            return last
        return _Told(found, memory, allowed, reading(knob, found, memory, allowed))

    def _found(self, cgroup: KnobCgroup, knob: Knob) -> Found:
        if not self.gives(knob.target):
            return cgroup.read(knob.kind)
        try:
            found = cgroup.read(knob.kind)
        except Unsupported:
            found = cgroup.unset(knob.kind)
        return whole_percents(found) if knob.kind is Kind.CPU_QUOTA else found

    def _apply(self, change: Change) -> Outcome:
        cgroup = self._cgroup(_place(change.knob))
        if cgroup is None:
            return Outcome(change, None, f"{change.knob}: the cgroup is gone")
        cgroup.fresh, error, written = True, "", change.new
        try:
            if change.new != change.old and not self._is_unset(cgroup, change):
                written = cgroup.write(change.knob.kind, change.new)
                self._bring_back(change)
        except AgentError as refused:
            error = f"{refused} ({refused.hint})" if refused.hint else str(refused)
        try:
            found = self._found(cgroup, change.knob)
        except AgentError as unreadable:
            return Outcome(change, None, error or str(unreadable))
        if not error and not same(found, written):
            kind = change.knob.kind
            error = f"{change.knob}: {shown(written, kind)} was written, {shown(found.actual, kind)} is found"
        return Outcome(change, found.actual, error)

    def _is_unset(self, cgroup: KnobCgroup, change: Change) -> bool:
        """True when systemd, having been told, took the file itself away: no file, no limit."""
        if not change.gives_back or not self.gives(change.knob.target):
            return False
        try:
            cgroup.read(change.knob.kind)
        except Unsupported:
            return cgroup.unset(change.knob.kind).actual == change.new
        return False

    def _bring_back(self, change: Change) -> None:
        """v1 moves tasks out of a set that is empty, and nothing moves them back when it no longer is."""
        cpu, cpuset = self._branches.get("cpu"), self._branches.get("cpuset")
        emptied = change.knob.kind is Kind.CPUS and change.old == ""
        if emptied and cpu is not None and cpuset is not None and cpuset.version == 1:
            bring_back(cpu.root, cpuset.root, change.knob.target)

    def _missed(self, error: AgentError) -> bool:
        kind = _MISSES.get(type(error))
        if kind is not None:
            self.misses[kind] = self.misses.get(kind, 0) + 1
        return False


_UNKNOWN = -1  # the directory may not be looked at; no inode has this number
_MISSES: dict[type[AgentError], str] = {Garbled: "garbled", Gone: "gone", Refused: "refused"}


def _place(knob: Knob) -> Place:
    return CONTROLLERS[knob.kind], knob.target


def _inside(target: str) -> bool:
    """True for the path of a cgroup below the root: the root itself and ways out of it are no targets."""
    return all(part not in ("", ".", "..") for part in target.split("/")) and "\0" not in target
