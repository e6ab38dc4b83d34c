"""Moves pages beside the tick: one thread, only while there is something to move.

    want(moves, rate)  loop -> thread        progress()  thread -> next Snapshot

Invariants: not faster than the rate, and at most half of one CPU; a move that is no longer wanted ends with
its batch. What was moved stays moved, so a crash at any instant leaves nothing to undo.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec.structs import replace

from nodeagent.kernel.page_owners import owners
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import AgentError, Unsupported
from nodeagent.model.pages import SMALL_BYTES, PageMove, PagesMoving

if TYPE_CHECKING:  # it takes ctypes, and few nodes ever move a page
    from nodeagent.kernel.page_round import Round

BUSY_RATIO = 0.5
MOST_ROUNDS = 4  # what comes back as fast as it is moved does not stay
RETRY_S, MOST_RETRY_S = 10.0, 600.0  # doubled each time that nothing moved
RECOUNT_S = 60.0  # a move that is done may stay wanted for hours, while its pod goes on allocating
JOIN_S = 5.0


class PageMover:
    """Pages of pods to other NUMA nodes; `close` it. All methods are for one thread, that of the loop.

    `proc` is the host's /proc, `root` that of the hierarchy in which the pods' processes are looked for.
    """

    def __init__(self, proc: str, root: str) -> None:
        self._proc = proc
        self._root = root
        self._turn = threading.Condition()  # guards all below
        self._found: dict[PageMove, PagesMoving] = {}
        self._due: dict[PageMove, float] = {}
        self._idle_s: dict[PageMove, float] = {}  # the last wait of those that do not move at all
        self._bytes_per_s = 0
        self._thread: threading.Thread | None = None
        self._bug: BaseException | None = None

    def want(self, moves: Iterable[PageMove], bytes_per_s: int) -> None:
        """These moves and no others from now on, new ones in this order. It does not wait."""
        with self._turn:
            if self._bug is not None:
                raise self._bug
            found = {move: self._found.get(move) or PagesMoving(move, time.monotonic()) for move in moves}
            self._due = {move: self._due.get(move, 0.0) for move in found}
            self._idle_s = {move: wait_s for move, wait_s in self._idle_s.items() if move in found}
            self._found, self._bytes_per_s = found, bytes_per_s
            self._turn.notify_all()
            if self._thread is None and self._soonest() < math.inf:
                self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
                self._thread.start()

    def progress(self) -> tuple[PagesMoving, ...]:
        """How far each of the wanted moves has come."""
        with self._turn:
            return tuple(self._found.values())

    def stop(self) -> None:
        """Want nothing, and wait for the batch that is on its way."""
        thread = self._thread
        self.want((), self._bytes_per_s)
        if thread is not None:
            thread.join(JOIN_S)

    def close(self) -> None:
        """As `stop`, whatever happened to the thread."""
        self._bug = None
        self.stop()

    def _run(self) -> None:
        try:
            while (move := self._next()) is not None:
                self._follow(move)
        except BaseException as bug:  # raised again where it is seen, by `want`
            self._bug = bug

    def _soonest(self) -> float:
        return min(self._due.values(), default=math.inf)

    def _next(self) -> PageMove | None:
        """The move that has been due for longest; None, and the thread is done, when there will be none."""
        with self._turn:
            while (soonest := self._soonest()) < math.inf:
                if (wait_s := soonest - time.monotonic()) <= 0:
                    return next(move for move, due in self._due.items() if due == soonest)
                self._turn.wait(wait_s)
            self._thread = None
            return None

    def _follow(self, move: PageMove) -> None:
        """Rounds until (almost) nothing is left or nothing more can be done, and what came of it."""
        again_s = math.inf
        try:
            before = self._so_far(move).moved_bytes
            self._begin(move)
            left, full = self._rounds(move)
            stuck = left if left > SMALL_BYTES and not full else 0
            why = f"no free memory on node {move.mems}" if full else ""
            self._tell(move, left_bytes=left, stuck_bytes=stuck, settled=not full, why=why)
            done = not full and not stuck
            retry_s = self._retry_s(move, done or self._so_far(move).moved_bytes > before)
            again_s = RECOUNT_S if done else retry_s
        except _Unwanted:
            return
        except Unsupported as error:
            self._tell(move, unable=_line(error))
        except AgentError as error:
            self._tell(move, settled=False, why=_line(error))
            again_s = self._retry_s(move, better=False)
        with self._turn:
            if move in self._due:
                self._due[move] = time.monotonic() + again_s

    def _retry_s(self, move: PageMove, better: bool) -> float:
        with self._turn:
            last_s = self._idle_s.pop(move, RETRY_S / 2)
            if better:
                return RETRY_S
            self._idle_s[move] = min(2 * last_s, MOST_RETRY_S)
            return self._idle_s[move]

    def _begin(self, move: PageMove) -> None:
        with self._turn:
            found = self._found.get(move)
            if found is not None and found.left_bytes is None:
                self._found[move] = replace(found, started_at=time.monotonic())

    def _rounds(self, move: PageMove) -> tuple[int, bool]:
        """Bytes left in the end, and whether there was no memory for them."""
        try:
            from nodeagent.kernel.page_round import Round
        except (ImportError, MemoryError, OSError) as error:  # some libffi wants memory that is executable
            raise Unsupported(f"ctypes cannot be used: {error}") from error
        work = Round(self._proc, CpuSet.parse(move.mems), self._bytes_per_s)
        left, moved, full = self._count(move, work), 1, False
        for _ in range(MOST_ROUNDS):
            if left <= SMALL_BYTES or full or not moved:
                break
            moved, full = self._round(move, work, left)
            left = self._count(move, work)
        if left > SMALL_BYTES and not full and move not in self._idle_s:
            left = self._at_once(move, work, left)
        return left, full and left > SMALL_BYTES

    def _count(self, move: PageMove, work: Round) -> int:
        began = time.monotonic()
        left = work.off_bytes(self._pids(move))
        found = self._so_far(move)
        settled = found.settled and left <= found.stuck_bytes + SMALL_BYTES
        self._tell(move, left_bytes=left, settled=settled)
        self._pause(move, 0, time.monotonic() - began)
        return left

    def _at_once(self, move: PageMove, work: Round, left: int) -> int:
        """Bytes left after the kernel moved by itself what it does not show; it tells nothing meanwhile."""
        for pid in self._pids(move):
            work.at_once(pid)
            self._pause(move, 0, 0.0)
        before, after = self._so_far(move).moved_bytes, self._count(move, work)
        self._tell(move, moved_bytes=before + max(0, left - after))
        return after

    def _round(self, move: PageMove, work: Round, left: int) -> tuple[int, bool]:
        """Bytes moved, and whether the nodes were full."""
        before, moved, full, began = self._so_far(move).moved_bytes, 0, False, time.monotonic()
        for step in work.steps(self._pids(move)):
            moved += step.moved_bytes
            left -= step.moved_bytes + step.stuck_bytes
            full = step.full
            self._tell(move, moved_bytes=before + moved, left_bytes=max(0, left))
            self._pause(move, step.moved_bytes, time.monotonic() - began)
            began = time.monotonic()
        return moved, full

    def _so_far(self, move: PageMove) -> PagesMoving:
        with self._turn:
            if move not in self._found:
                raise _Unwanted
            return self._found[move]

    def _pids(self, move: PageMove) -> list[int]:
        return owners(self._root, move.cgroup)

    def _tell(self, move: PageMove, **news: float | str) -> None:
        with self._turn:
            if (found := self._found.get(move)) is not None:
                self._found[move] = replace(found, **news)

    def _pause(self, move: PageMove, moved_bytes: int, busy_s: float) -> None:
        """Sleep until rate and CPU share are kept; a move that is no longer wanted ends it."""
        pause_s = max(moved_bytes / self._bytes_per_s - busy_s, busy_s * (1.0 / BUSY_RATIO - 1.0))
        with self._turn:
            if self._turn.wait_for(lambda: move not in self._found, pause_s):
                raise _Unwanted


def _line(error: AgentError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


class _Unwanted(Exception):
    """The move is no longer wanted."""
