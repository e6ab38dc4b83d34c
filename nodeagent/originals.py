"""The ledger of what every knob was before the agent touched it.

Append-only lines "CRC32 JSON", each the whole state of one knob, so the last line of a knob wins:

    1c291ca3 ["nodeagent originals", 1, "BOOT ID"]
    7ef0a7d1 ["cpu.quota", "nodeagent/batch", INODE, ORIGINAL, WRITTEN, PENDING]
    3fd1c09b ["cpu.quota", "batch.slice", INODE, ORIGINAL, WRITTEN, null, [KEPT, FOUND, true]]  by systemd
    5cf8a90e ["cpuset.cpus", "nodeagent/batch", INODE, "0-3", "2-3", null]
    9d2b5c11 ["cpu.quota", "nodeagent/batch"]                               given back

Invariant: before a knob is written for the first time its original is on the disk (fsync of file and
directory), and before every write the value to come is in the file. Wherever a crash strikes,
`Held.explains` knows the value that it leaves. Later lines are not synced: cgroups do not outlive the
machine, and what a killed process has written stays in the page cache.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from msgspec.structs import replace

from nodeagent.ledger import fields, line, parsed, replayed
from nodeagent.model.errors import Failed
from nodeagent.model.plan import Change, Held, Kept, Knob, KnobReading, Outcome, joined

NAME = "originals.jsonl"
TITLE, VERSION = "nodeagent originals", 1
COMPACT_BYTES = 1 << 20
MAX_BYTES = 64 << 20  # far above what compaction leaves; bounds what garbage can allocate
MAX_CORRUPT = 100


class Originals:
    """The ledger in `state_dir`; one process at a time (see nodeagent.lock).

    `warnings` are lines for the log; the owner empties the list. Raises Failed when the directory cannot
    be used at all. A ledger of another boot is dropped: its cgroups died with that boot.
    """

    def __init__(self, state_dir: str, boot_id: str) -> None:
        self.warnings: list[str] = []
        self._dir = state_dir
        self._path = os.path.join(state_dir, NAME)
        self._boot_id = boot_id
        self._file: int | None = None  # None: to be written anew before anything is added
        self._size = self._limit = 0
        self._failing = False
        try:
            os.makedirs(state_dir, mode=0o700, exist_ok=True)
            self._held = self._load()
        except OSError as error:
            raise self._failed(error) from error
        self._try({})

    @property
    def held(self) -> Mapping[Knob, Held]:
        """Every knob that the agent has touched, or was about to, and has not given back."""
        return MappingProxyType(self._held)

    def intend(self, changes: Sequence[Change], inode_of: Callable[[Knob], int | None]) -> tuple[Change, ...]:
        """Note the changes before they are made; answers those that may be: the cgroup is still there.

        `inode_of` tells the inode of the cgroup from which `Change.old` was read. Two changes of one knob are
        noted as one: what is in between is the union, which `Held.explains` knows. Raises Failed when an
        original cannot be made durable: only knobs in `held` may be written then, and those are noted.
        """
        known: dict[Knob, Held | None] = {}
        fresh: dict[Knob, Held | None] = {}
        inodes = {change.knob: inode for change in changes if (inode := inode_of(change.knob)) is not None}
        noted = tuple(change for change in changes if change.knob in inodes)
        for change in joined(noted):
            inode = inodes[change.knob]
            held = self._held.get(change.knob)
            if held is not None and held.inode == inode:
                known[change.knob] = _onward(held, change)
            else:
                kept = None if held is None else held.kept
                original = change.old if change.inherited is None else change.inherited
                if kept is not None:  # systemd may have begun it with any value that it was ever told
                    original = kept.found
                fresh[change.knob] = Held(change.knob, inode, original, None, change.new, kept)
        if known:
            self._try(known)
        if fresh:
            self._take(dict.fromkeys(fresh))  # what was held under these names died with its cgroup
            try:
                self._write(fresh, durable=True)
            except OSError as error:
                raise self._failed(error) from error
            self._take(fresh)
        return noted

    def confirm(self, outcomes: Iterable[Outcome]) -> None:
        """Note how the changes went: written, given back, or refused by the kernel."""
        after: dict[Knob, Held | None] = {}
        for outcome in outcomes:
            knob = outcome.change.knob
            held = after.get(knob) or self._held.get(knob)
            if held is not None:
                after[knob] = _settled(held, outcome)
        if after:
            self._try(after)

    def keep(self, kept: Mapping[Knob, Kept | None]) -> None:
        """Note what systemd keeps for held knobs, before it is told so. Failed when it cannot be durable."""
        held = {knob: self._held[knob] for knob in kept if knob in self._held}
        update = {knob: replace(was, kept=kept[knob]) for knob, was in held.items()}
        try:
            first = any(was.kept is None and kept[knob] is not None for knob, was in held.items())
            self._write(update, durable=first)
        except OSError as error:
            raise self._failed(error) from error
        self._take(update)

    def recognise(self, readings: Iterable[KnobReading], inode_of: Callable[[Knob], int | None]) -> None:
        """What systemd and the kernel made of our values by themselves is ours too."""
        ours = {
            r.knob: found
            for r in readings
            if r.held
            and r.knob in self._held  # the kernel holds those of NICs
            and (found := _begun_anew(self._held[r.knob], r, inode_of) or _clipped(self._held[r.knob], r))
        }
        if ours:
            self._try(ours)

    def forget(self, knobs: Iterable[Knob]) -> None:
        """These are no longer ours: the cgroup is gone, or somebody else has taken the knob over."""
        gone = {knob: None for knob in knobs if knob in self._held}
        if gone:
            self._try(gone)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _try(self, update: Mapping[Knob, Held | None]) -> None:
        """Take the update, and write it if that can be done; one warning when it begins to fail."""
        try:
            self._write(update, durable=False)
            self._failing = False
        except OSError as error:
            if not self._failing:
                self.warnings.append(f"{self._path}: {error.strerror}; a crash now may leave values behind")
            self._failing = True
        self._take(update)

    def _take(self, update: Mapping[Knob, Held | None]) -> None:
        for knob, held in update.items():
            if held is None:
                self._held.pop(knob, None)
            else:
                self._held[knob] = held

    def _write(self, update: Mapping[Knob, Held | None], durable: bool) -> None:
        """Add lines; after a failure, or when the file has grown, write a new one in place of it."""
        if self._file is None or self._size > self._limit:
            self._rewrite(update)
            return
        try:
            self._size += _append(self._file, b"".join(line(fields(k, h)) for k, h in update.items()))
            if durable:
                os.fsync(self._file)
                self._sync_dir()
        except OSError:
            self.close()  # half a line may be there, or the page cache may lie: never add to that file again
            raise

    def _rewrite(self, update: Mapping[Knob, Held | None]) -> None:
        self.close()
        after = {**self._held, **update}
        records = b"".join(line(fields(knob, held)) for knob, held in after.items() if held is not None)
        new = self._path + ".new"
        _unlink(new)
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._size = _append(file, line([TITLE, VERSION, self._boot_id]) + records)
            os.fsync(file)
            os.rename(new, self._path)
            self._sync_dir()
        except OSError:
            os.close(file)
            _unlink(new)
            raise
        self._file = file
        self._limit = max(COMPACT_BYTES, 2 * self._size)

    def _sync_dir(self) -> None:
        directory = os.open(self._dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _load(self) -> dict[Knob, Held]:
        try:
            found = os.lstat(self._path)
        except FileNotFoundError:
            return {}
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            self._set_aside("is no ledger")
            return {}
        with open(self._path, "rb", buffering=0) as file:
            lines = file.read().split(b"\n")
        torn = lines.pop()
        header = parsed(lines[0]) if lines else None
        match header:
            case [str(title), int(version), str(boot_id)] if (title, version) == (TITLE, VERSION):
                if boot_id != self._boot_id:
                    return {}
            case _:
                if lines or torn:
                    self._set_aside("is no ledger of this version")
                return {}
        held, bad = replayed(lines[1:])
        if bad:
            self._set_aside(f"has {bad} unreadable lines")
        elif torn:
            self.warnings.append(f"{self._path}: the last line was cut short; left out")
        return held

    def _set_aside(self, why: str) -> None:
        """Keep a copy to look at. The ledger itself is replaced in one step when it is written anew."""
        for number in range(1, MAX_CORRUPT + 1):
            aside = os.path.join(self._dir, f"originals.corrupt-{number}")
            if not os.path.lexists(aside):
                break
        else:
            self.warnings.append(f"{self._path} {why}; no copy kept, there are {MAX_CORRUPT} already")
            return
        regular = stat.S_ISREG(os.lstat(self._path).st_mode)
        (os.link if regular else os.rename)(self._path, aside)
        self.warnings.append(f"{self._path} {why}; a copy is {aside}")

    def _failed(self, error: OSError) -> Failed:
        return Failed(
            f"{self._path}: {error.strerror}: original values cannot be kept, so no new knob is written",
            hint="free space in the state directory, or choose another that is writable",
        )


def _onward(held: Held, change: Change) -> Held:
    """`held` before a further write. A value of somebody else that is about to be replaced stays theirs."""
    written = held.written
    if held.explains(change.old):
        written = None if change.old == held.original else change.old
    return replace(held, written=written, pending=change.new)


def _settled(held: Held, outcome: Outcome) -> Held | None:
    if outcome.ok:
        given_back = outcome.change.gives_back
        if given_back and held.kept is None:
            return None
        return replace(held, written=None if given_back else outcome.found, pending=None)
    if outcome.found != outcome.change.old:
        return held  # unreadable, or half done: both values may be there
    return None if held.written is None and held.kept is None else replace(held, pending=None)


def _append(file: int, data: bytes) -> int:
    done = os.write(file, data)
    if done != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return done


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _begun_anew(held: Held, reading: KnobReading, inode_of: Callable[[Knob], int | None]) -> Held | None:
    """A unit that was started again has a new cgroup, which systemd begins with our value."""
    if held.kept is None or (inode := inode_of(held.knob)) in (None, held.inode):
        return None
    return replace(held, inode=inode, written=reading.written, pending=None)


def _clipped(held: Held, reading: KnobReading) -> Held | None:
    """A v1 set that has lost CPUs which went offline: it stays so when they are back."""
    clipped = reading.nested and held.knob.kind.is_set and not reading.drifted
    return replace(held, written=reading.actual) if clipped and not held.explains(reading.actual) else None
