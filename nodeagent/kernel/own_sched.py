"""How the loop's own thread is scheduled: before all others (SCHED_FIFO, sched(7)) for moments, if it must.

A thread that is woken so runs at once, however many wait for a CPU: a tick begins on time on a full node.
But it takes the CPU that it was on before, whoever runs there, where everybody's thread would find one that
is idle or runs SCHED_IDLE work. So it is first in line only while it has to be: after waits that ended late,
for a while. What takes longer than a moment goes on as everybody's thread does.
Invariant: the thread is before all others until the kernel has counted BUDGET_US without a wait, at most
(RLIMIT_RTTIME, in clock ticks: at 250 Hz 4 to 8 ms); nothing that it starts ever is (SCHED_RESET_ON_FORK).
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

from nodeagent.model.errors import Refused

BUDGET_US = 4_000
LATE_S = 0.005  # a wait that ends so late, twice within AGAIN_S
AGAIN_S = 10.0
AHEAD_S = 600.0  # makes the thread first in line for so long
LEAST_HARD_US = 1_000_000  # at the hard limit the kernel ends the process: it must be far off
_FIFO = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
_OTHER = os.SCHED_OTHER | os.SCHED_RESET_ON_FORK
HINT = (
    "without it ticks begin late on a full node. In systemd install nodeagent-realtime.conf, in a container "
    "add CAP_SYS_NICE; a v1 cpu cgroup needs cpu.rt_runtime_us, too; agent.realtime = false: never ask"
)


class _Before(NamedTuple):
    limit: tuple[int, int]
    handler: Callable[[int, FrameType | None], object] | int | None


class FirstInLine:
    """Of the main thread, which makes all calls.

    `on` tells whether it may be first in line, `needed` whether it is when it wakes. Times are monotonic s.
    """

    def __init__(self) -> None:
        self.on = False
        self._ahead = False
        self._late_at = self._until = -math.inf
        self._before: _Before | None = None

    def begin(self) -> None:
        """From the next `renew` on. Refused, with nothing changed, where it may not be."""
        if self.on:
            return
        limit = resource.getrlimit(resource.RLIMIT_RTTIME)
        if limit[1] != resource.RLIM_INFINITY and limit[1] < LEAST_HARD_US:
            raise Refused(f"RLIMIT_RTTIME: a hard limit of {limit[1]} us", "LimitRTTIME=infinity in the unit")
        try:
            _schedule(_FIFO, 1)
            _schedule(_OTHER, 0)
            self._before = _Before(limit, signal.signal(signal.SIGXCPU, self._spent))
            _limit(limit[1])
        except (OSError, ValueError) as error:  # ValueError: setrlimit(2) is not allowed
            self.end()
            raise Refused(f"not before other threads (SCHED_FIFO): {_said(error)}", HINT) from error
        self.on = True

    def woke(self, late_s: float, now: float) -> None:
        """A wait has ended so many seconds late."""
        if late_s < LATE_S:
            return
        if now - self._late_at < AGAIN_S:
            self._until = now + AHEAD_S
        self._late_at = now

    def needed(self, now: float) -> bool:
        """It is first in line when woken."""
        return self.on and now < self._until

    def renew(self, now: float) -> None:
        """About to wait: first in line when woken, or not. Where that is refused by now, `on` turns False."""
        needed = self.needed(now)
        if needed == self._ahead:
            return
        self._ahead = needed  # first: a moment that is spent in between says otherwise
        try:
            _schedule(*((_FIFO, 1) if needed else (_OTHER, 0)))
        except OSError:  # moved to another cgroup, or with fewer rights than at the start
            self.end()

    def end(self) -> None:
        """As everybody from now on; limit and handler as they were."""
        self.on = self._ahead = False
        self._late_at = self._until = -math.inf
        if self._before is None:
            return
        limit, handler = self._before
        self._before = None
        with contextlib.suppress(OSError, ValueError):
            _schedule(_OTHER, 0)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_RTTIME, limit)
        signal.signal(signal.SIGXCPU, handler)

    def _spent(self, _number: int, _frame: FrameType | None) -> None:
        """The moment is over (SIGXCPU). The kernel has raised the soft limit by 1 s, to send another then."""
        _schedule(_OTHER, 0)
        self._ahead = False
        with contextlib.suppress(OSError, ValueError):
            _limit(resource.getrlimit(resource.RLIMIT_RTTIME)[1])


def refusal() -> str:
    """Why this thread may not be real-time, "" when it may; leaves it as it was."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError as error:
        return _said(error)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return ""


def _schedule(policy: int, priority: int) -> None:
    os.sched_setscheduler(0, policy, os.sched_param(priority))


def _limit(hard: int) -> None:
    resource.setrlimit(resource.RLIMIT_RTTIME, (BUDGET_US, hard))


def _said(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
