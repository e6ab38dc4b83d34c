"""The directives that were taken: who asked for what, until when; on disk before anybody is told so.

Any thread may have one taken; the loop learns what is in force by reading one reference, and never waits.

Invariant: a lease ends when either clock says so (the wall's, or the one that counts since the boot, also
while the machine sleeps), and what has ended stays ended. A write that the disk refuses has changed nothing.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from nodeagent import sealed
from nodeagent.model.directive import (
    MAX_LEASE_S,
    Code,
    Directive,
    DirectiveStatus,
    End,
    Refusal,
    Refused,
    SetMode,
    State,
    Taken,
    wrong,
)
from nodeagent.model.errors import Failed
from nodeagent.model.settings import DirectiveSettings, Mode

MAGIC = b"nadirs\x00\x01"
NAME = "directives"
LIMIT_BYTES = 16 << 20  # 4096 of them are below 4 MB
MAX_NAME = 256
MAX_REFUSALS = 16  # told per tick; of more the latest


class Now(NamedTuple):
    """Seconds of CLOCK_REALTIME, and of CLOCK_BOOTTIME, which nobody can set."""

    unix: float
    boot_s: float


def clocks() -> Now:
    return Now(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))


class _Entry(Struct, frozen=True, array_like=True):
    """`ends_boot_s` is when its lease ends by the clock of the boot that wrote it."""

    status: DirectiveStatus
    ends_boot_s: float

    @property
    def id(self) -> str:
        return self.status.directive.id


class _File(Struct, frozen=True):
    """`boot_s` is when it was written: what is left of a lease in another boot is told by that."""

    boot_id: str
    boot_s: float
    entries: tuple[_Entry, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_File).decode


class Directives:
    """Those of one agent, under `state_dir`. `enforcing`: the configuration lets it write.

    `warning` is empty, or why what was on disk could not be used.
    """

    def __init__(
        self,
        state_dir: str,
        boot_id: str,
        settings: DirectiveSettings,
        *,
        enforcing: bool,
        clock: Callable[[], Now] = clocks,
    ) -> None:
        self.warning = ""
        self._path = Path(state_dir, NAME)
        self._boot_id = boot_id
        self._settings = settings
        self._enforcing = enforcing
        self._clock = clock
        self._writing = threading.Lock()
        self._unsaved = False
        self._expired: set[str] = set()
        self._entries = self._load() if settings.enabled else ()
        self._seen = {entry.id: entry.status.state for entry in self._entries}
        self._refusals: deque[Refusal] = deque(maxlen=MAX_REFUSALS)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def take(self, directive: Directive, issuer: str, *, dry_run: bool = False) -> Taken | Refused:
        """From any thread but the loop's: it waits for the disk. What is taken is durable on return.

        With `dry_run` the answer is the same, and nothing changes.
        """
        issuer = _name(issuer)
        with self._writing:
            now = self._clock()
            answer, entries = self._judged(directive, issuer, now)
            if isinstance(answer, Taken) and not answer.already and not dry_run:
                try:
                    self._write(entries, now)
                except OSError as error:
                    why = f"{self._path} cannot be written: {error.strerror or error}"
                    answer = Refused(Code.UNAVAILABLE, f"{why}; nothing was changed")
                else:
                    with contextlib.suppress(OSError):  # closed: the agent is stopping
                        os.eventfd_write(self._wake, 1)
        if isinstance(answer, Refused) and not dry_run:
            self.refused(directive.id, issuer, answer)
        return answer

    def refused(self, id: str, issuer: str, answer: Refused) -> None:  # noqa: A002
        """Have it on record that this was not taken; for what does not even come to `take`."""
        self._refusals.append(Refusal(_name(id), _name(issuer), answer.code, answer.message))

    def known(self) -> tuple[DirectiveStatus, ...]:
        """All that are remembered, as of now, oldest first."""
        now = self._clock()
        return tuple(self._at(entry, now) for entry in self._entries)

    def news(self) -> tuple[tuple[DirectiveStatus, ...], tuple[Refusal, ...]]:
        """What is in force or has ended since the last call, and what was refused. For the loop alone."""
        now = self._clock()
        statuses = [self._at(entry, now) for entry in self._entries]
        told = [s for s in statuses if s.state is State.IN_FORCE or self._seen.get(s.directive.id) != s.state]
        self._seen = {status.directive.id: status.state for status in statuses}
        self._expired = {s.directive.id for s in statuses if s.state is State.EXPIRED}
        refused = []
        with contextlib.suppress(IndexError):
            while True:
                refused.append(self._refusals.popleft())
        return tuple(told), tuple(refused)

    def fileno(self) -> int:
        """Readable once something was taken, until `drain`."""
        return self._wake

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def save(self) -> None:
        """Note how much of each lease is over, for a boot with another clock. Failed: the disk refuses."""
        running = any(entry.status.state is State.IN_FORCE for entry in self._entries)
        if not (running or self._unsaved) or not self._writing.acquire(blocking=False):
            return  # who has the lock is writing it all
        try:
            self._write(self._entries, self._clock())
        except OSError as error:
            hint = "leases go on; after a restart they end as the last file says"
            raise Failed(f"{self._path}: {error.strerror or error}", hint) from None
        finally:
            self._writing.release()

    def close(self) -> None:
        os.close(self._wake)

    def _judged(
        self, directive: Directive, issuer: str, now: Now
    ) -> tuple[Taken | Refused, tuple[_Entry, ...]]:
        """The answer, and all entries after it."""
        entries = self._entries
        if not self._settings.enabled:
            return Refused(
                Code.FAILED_PRECONDITION, "no directives here: directives.enabled = false"
            ), entries
        known = next((entry for entry in entries if entry.id == directive.id), None)
        if known is not None and known.status.directive == directive:
            return Taken(self._at(known, now), already=True), entries
        if why := wrong(directive, self._settings.max_lease_s, now.unix):
            return Refused(Code.INVALID_ARGUMENT, why), entries
        if known is not None:
            why = f"id: {directive.id} was taken before, from {known.status.issuer}, with another content"
            return Refused(Code.ALREADY_EXISTS, why), entries
        if (refused := self._unfit(directive)) is not None:
            return refused, entries
        return self._taken(directive, issuer, now)

    def _unfit(self, directive: Directive) -> Refused | None:
        """Sound, and yet not here or not now."""
        order = directive.order
        if isinstance(order, SetMode) and order.mode is Mode.ENFORCE and not self._enforcing:
            why = (
                "the configuration says observe (agent.mode, agent.enforce), which a directive cannot change"
            )
            return Refused(Code.FAILED_PRECONDITION, f"set_mode.mode: {why}")
        if isinstance(order, End) and not any(entry.id == order.id for entry in self._entries):
            return Refused(Code.NOT_FOUND, f"end_directive.id: no directive {order.id} is known")
        return None

    def _taken(self, directive: Directive, issuer: str, now: Now) -> tuple[Taken, tuple[_Entry, ...]]:
        order = directive.order
        over = isinstance(order, End)
        status = DirectiveStatus(
            directive=directive,
            issuer=issuer,
            taken_unix=now.unix,
            ends_unix=now.unix + directive.lease_s,
            state=State.ENDED if over else State.IN_FORCE,
        )
        ends = order.id if isinstance(order, End) else None
        kept = [self._after(entry, ends, directive.slot, now) for entry in self._entries]
        kept.append(_Entry(status, now.boot_s + directive.lease_s))
        return Taken(status), _bounded(kept, self._settings.kept)

    def _after(self, entry: _Entry, ends: str | None, slot: str, now: Now) -> _Entry:
        """An entry once another directive ends it, or takes its place in `slot`."""
        status = self._at(entry, now)
        if status.state is State.IN_FORCE and entry.id == ends:
            status = replace(status, state=State.ENDED, ends_unix=now.unix)
        elif status.state is State.IN_FORCE and slot and status.directive.slot == slot:
            status = replace(status, state=State.REPLACED, ends_unix=now.unix)
        return _Entry(status, entry.ends_boot_s)

    def _at(self, entry: _Entry, now: Now) -> DirectiveStatus:
        status = entry.status
        if status.state is not State.IN_FORCE:
            return status
        over = now.unix >= status.ends_unix or now.boot_s >= entry.ends_boot_s
        return replace(status, state=State.EXPIRED) if over or entry.id in self._expired else status

    def _write(self, entries: tuple[_Entry, ...], now: Now) -> None:
        """From then on these are the ones; OSError, and those before still are."""
        told = tuple(_Entry(self._at(entry, now), entry.ends_boot_s) for entry in entries)
        self._unsaved = True  # the disk may have taken it, and not have said so
        sealed.write(self._path, MAGIC, _encode(_File(self._boot_id, now.boot_s, told)))
        self._entries, self._unsaved = told, False

    def _load(self) -> tuple[_Entry, ...]:
        now = self._clock()
        try:
            found = _decode(sealed.read(self._path, MAGIC, LIMIT_BYTES, "file of directives"))
            _check(found)
        except FileNotFoundError:
            return ()
        except OSError as error:
            self.warning = f"{self._path}: {error.strerror}; no directive is in force"
            return ()
        except (ValueError, RecursionError) as error:
            sealed.set_aside(self._path)
            self.warning = (
                f"{self._path}: {error}; no directive is in force, the file is kept as {NAME}.corrupt"
            )
            return ()
        if found.boot_id == self._boot_id:
            return found.entries
        later_s = now.boot_s - found.boot_s  # no time that this clock knows of has passed in between
        return tuple(_Entry(e.status, max(0.0, e.ends_boot_s + later_s)) for e in found.entries)


def _bounded(entries: list[_Entry], most: int) -> tuple[_Entry, ...]:
    """Without the oldest that are over."""
    surplus = len(entries) - most
    over = [entry for entry in entries if entry.status.state is not State.IN_FORCE]
    dropped = {entry.id for entry in over[: max(0, surplus)]}
    return tuple(entry for entry in entries if entry.id not in dropped)


def _name(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:MAX_NAME])


def _check(found: _File) -> None:
    """ValueError for what no agent has written, whatever the checksum says."""
    if len({entry.id for entry in found.entries}) != len(found.entries):
        raise ValueError("has two directives of one id")
    for entry in found.entries:
        status = entry.status
        times = (found.boot_s, entry.ends_boot_s, status.taken_unix, status.ends_unix)
        if not all(math.isfinite(each) and each >= 0.0 for each in times):
            raise ValueError("has a time that is none")
        if why := wrong(status.directive, MAX_LEASE_S, status.taken_unix):
            raise ValueError(why)
