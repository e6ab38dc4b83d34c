"""All knobs of the node: which there are, what they hold now, and writing them.

Invariant: a knob that cannot be read is left out and counted, never guessed; a write touches only the
cgroup that was read, and each write is read back.
"""

from __future__ import annotations

import resource
from collections.abc import Iterable, Mapping

from nodeagent.kernel.cgroup import inode_of
from nodeagent.kernel.cgroup_v1 import CpuV1
from nodeagent.kernel.cgroup_v2 import CpuV2
from nodeagent.kernel.cpu import CpuCgroup, Found
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.errors import AgentError, Garbled, Gone, Refused, Unsupported
from nodeagent.model.plan import Change, Held, Kind, Knob, KnobReading, Outcome
from nodeagent.model.pod import Member, Qos


class Knobs:
    """The cpu knobs of the host's cgroups, with their files kept open between ticks; `close` it.

    `misses` counts what the last `read` could not read, by kind: "garbled", "gone", "refused". With more
    than `max_kept` cgroups (default: what a quarter of RLIMIT_NOFILE allows) only directories stay open.
    """

    def __init__(self, hierarchies: Hierarchies, *, max_kept: int | None = None) -> None:
        cpu = hierarchies.roots.get("cpu")
        self._root = None if cpu is None else cpu.root
        self._dialect: type[CpuCgroup] = CpuV1 if cpu is None or cpu.version == 1 else CpuV2
        self._cgroups: dict[str, CpuCgroup] = {}
        self._absent: set[Knob] = set()
        self._max_kept = _affordable() if max_kept is None else max_kept
        self.misses: dict[str, int] = {}

    def targets_for(self, members: Iterable[Member], tiers: Iterable[str] = ()) -> tuple[Knob, ...]:
        """Knobs to read for these pods and tiers, parents first.

        Quota and weight of Batch pods and of tiers; quota alone of what is above them and, on v1, of what
        is inside a Batch pod: there no quota may exceed that of the nearest limited ancestor.
        """
        batch = [m for m in members if m.spec.qos is Qos.BATCH]
        owned = {m.spec.cgroup for m in batch} | {m.spec.tier for m in batch if m.spec.tier} | set(tiers)
        related = {above for path in owned for above in _ancestors(path)}
        if self._dialect.nested_quota:
            related.update(path for m in batch for path in m.nested)
        knobs = {Knob(Kind.CPU_QUOTA, path) for path in owned | related}
        knobs |= {Knob(Kind.CPU_WEIGHT, path) for path in owned}
        return tuple(sorted(knobs, key=lambda k: (k.target.count("/"), k.target, k.kind)))

    def read(self, targets: Iterable[Knob], held: Mapping[Knob, Held]) -> tuple[KnobReading, ...]:
        """`targets` and all `held` knobs as they are now, without those that are not there."""
        knobs = dict.fromkeys(targets) | dict.fromkeys(held)
        self.misses = {}
        self._absent.clear()
        self._refresh({knob.target for knob in knobs})
        readings = (self._read(knob, held.get(knob)) for knob in knobs)
        return tuple(reading for reading in readings if reading is not None)

    def vanished(self, held: Mapping[Knob, Held]) -> tuple[Knob, ...]:
        """Held knobs that are no more: the cgroup is gone, is another one now, or has lost the file."""
        if self._root is None:
            return ()  # blind: nothing is known to be gone
        inodes = {target: self._inode_now(target) for target in {knob.target for knob in held}}
        return tuple(
            knob
            for knob, memory in held.items()
            if inodes[knob.target] not in (memory.inode, _UNKNOWN) or knob in self._absent
        )

    def inode(self, target: str) -> int | None:
        """Inode of the cgroup as it was when last read, which is the one that `apply` writes to."""
        cgroup = self._cgroup(target)
        return None if cgroup is None else cgroup.inode

    def apply(self, changes: Iterable[Change]) -> tuple[Outcome, ...]:
        """Write all of them in this order and read each back; one that fails does not stop the rest."""
        return tuple(map(self._apply, changes))

    def close(self) -> None:
        """Close every descriptor; the next read opens them again."""
        for cgroup in self._cgroups.values():
            cgroup.close()
        self._cgroups.clear()

    def _refresh(self, targets: set[str]) -> None:
        """Forget cgroups that nobody asks for, that are gone, or that were made anew; open the new ones."""
        for target, cgroup in [*self._cgroups.items()]:
            if target not in targets or not self._still(cgroup):
                self._cgroups.pop(target).close()
        for target in targets - self._cgroups.keys():
            self._cgroup(target)

    def _still(self, cgroup: CpuCgroup) -> bool:
        try:
            return cgroup.alive
        except AgentError as error:
            return self._missed(error)

    def _cgroup(self, target: str) -> CpuCgroup | None:
        found = self._cgroups.get(target)
        if found is None and self._root is not None and _inside(target):
            try:
                found = self._cgroups[target] = self._dialect(f"{self._root}/{target}")
            except AgentError as error:
                self._missed(error)
        return found

    def _inode_now(self, target: str) -> int | None:
        try:
            return inode_of(f"{self._root}/{target}") if _inside(target) else None
        except AgentError:
            return _UNKNOWN

    def _read(self, knob: Knob, memory: Held | None) -> KnobReading | None:
        cgroup = self._cgroups.get(knob.target)
        if cgroup is None:
            return None
        try:
            found = cgroup.read(knob.kind)
        except Unsupported:
            self._absent.add(knob)
            return None
        except AgentError as error:
            self._missed(error)
            return None
        if len(self._cgroups) > self._max_kept:
            cgroup.drop_kept()
        same = memory is not None and memory.inode == cgroup.inode
        return _reading(knob, found, self._dialect.nested_quota, memory if same else None)

    def _apply(self, change: Change) -> Outcome:
        cgroup = self._cgroup(change.knob.target)
        if cgroup is None:
            return Outcome(change, None, f"{change.knob}: the cgroup is gone")
        error = ""
        try:
            if change.new != change.old:
                cgroup.write(change.knob.kind, change.new)
        except AgentError as refused:
            error = f"{refused} ({refused.hint})" if refused.hint else str(refused)
        try:
            found = cgroup.read(change.knob.kind)
        except AgentError as unreadable:
            return Outcome(change, None, error or str(unreadable))
        if not error and abs(found.actual - change.new) * found.scale >= 0.5:
            error = f"{change.knob}: {change.new:g} was written, {found.actual:g} is found"
        return Outcome(change, found.actual, error)

    def _missed(self, error: AgentError) -> bool:
        kind = _MISSES.get(type(error))
        if kind is not None:
            self.misses[kind] = self.misses.get(kind, 0) + 1
        return False


DESCRIPTORS = 6  # of a cgroup on v1: the directory and five files
_UNKNOWN = -1  # the directory may not be looked at; no inode has this number
_MISSES: dict[type[AgentError], str] = {Garbled: "garbled", Gone: "gone", Refused: "refused"}


def _reading(knob: Knob, found: Found, nested_quota: bool, memory: Held | None) -> KnobReading:
    """What the kernel says and what the agent remembers, as one value.

    A value left by our own write that was cut short counts as written: it is where we go on from.
    """
    original = written = pending = None
    if memory is not None:
        original, written, pending = memory.original, memory.written, memory.pending
        if found.actual != original and memory.explains(found.actual):
            written = found.actual
    return KnobReading(
        knob,
        *found[:4],
        nested=nested_quota and knob.kind is Kind.CPU_QUOTA,
        has_idle=found.has_idle,
        original=original,
        written=written,
        pending=pending,
    )


def _affordable() -> int:
    return max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) // 4 // DESCRIPTORS


def _ancestors(path: str) -> Iterable[str]:
    """The cgroups above `path`, without the root."""
    parts = path.split("/")
    return ("/".join(parts[:n]) for n in range(1, len(parts)))


def _inside(target: str) -> bool:
    """True for the path of a cgroup below the root: the root itself and ways out of it are no targets."""
    return all(part not in ("", ".", "..") for part in target.split("/")) and "\0" not in target
