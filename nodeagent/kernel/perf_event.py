"""perf_event_open(2), which the C library does not wrap: groups of counters over one cgroup on one CPU.

Invariant: a group counts all of its events at once or none, so that their ratio is of the same instructions.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

from nodeagent.kernel.errno import translated
from nodeagent.model.errors import AgentError, Garbled, Refused, Unsupported

NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241}
_CLOEXEC, _OF_CGROUP = 1 << 3, 1 << 2  # linux/perf_event.h: PERF_FLAG_FD_CLOEXEC, PERF_FLAG_PID_CGROUP
_TIMES_AND_GROUP = 1 << 0 | 1 << 1 | 1 << 3  # PERF_FORMAT_TOTAL_TIME_ENABLED, _RUNNING, _GROUP
# The first 64 bytes (PERF_ATTR_SIZE_VER0) of struct perf_event_attr: type, size, config, sample_period,
# sample_type, read_format, flags, wakeup_events, bp_type, config1.
_ATTR = struct.Struct("=IIQQQQQIIQ")
# ENOENT: no PMU, or none with this event; EINVAL: the events do not fit into one group. ENODEV: see Gone.
_NOT_HERE = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENXIO})
_A_TURN_NS = 50_000_000  # groups that share counters take turns of some 4 ms
PERMITS = (
    "under systemd install nodeagent-pmu.conf; in a container add PERFMON and pass perf_event_open by seccomp"
)
PARANOID = (
    "give the agent CAP_PERFMON; where kernel.perf_event_paranoid is above 2 (Debian) set it to 2 as well"
)


class Event(NamedTuple):
    """perf_event_attr's `type` and `config`."""

    type: int
    config: int


CYCLES = Event(0, 0)  # PERF_TYPE_HARDWARE: PERF_COUNT_HW_CPU_CYCLES
INSTRUCTIONS = Event(0, 1)
CACHE_MISSES = Event(0, 3)  # of the last level


class Counts(NamedTuple):
    """Raw counts since the group was opened; where events take turns it ran for a part of the time only."""

    enabled_ns: int
    running_ns: int
    values: tuple[int, ...]


class PerfEvents:
    """The system call. Unsupported where its number is not known."""

    def __init__(self) -> None:
        number = NUMBERS.get(platform.machine()) if sys.maxsize > 1 << 32 else None
        if number is None:
            raise Unsupported(f"perf_event_open: system call number not known on {platform.machine()}")
        self._number = number
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def group(self, cgroup_fd: int, cpu: int, events: Sequence[Event]) -> list[int]:
        """Descriptors that count these events of a cgroup on one CPU from now on, the leader first.

        `cgroup_fd` is of its directory in the hierarchy that perf_event has. AgentError: Unsupported where
        the CPU has no such counter, Refused where we may not, or there are no more descriptors.
        """
        opened: list[int] = []
        try:
            for event in events:
                opened.append(self._open(cgroup_fd, cpu, event, opened[0] if opened else -1))
        except AgentError:
            for fd in opened:
                os.close(fd)
            raise
        return opened

    def read(self, leader: int, events: int) -> Counts:
        """Counts of a group so far; AgentError when it cannot be read."""
        try:
            data = os.read(leader, 8 * (3 + events))
        except OSError as error:
            raise translated(error, "perf event") from error
        if len(data) != 8 * (3 + events):
            raise Garbled(f"perf event: {len(data)} bytes")
        _, enabled, running, *values = struct.unpack(f"={3 + events}Q", data)
        return Counts(enabled, running, tuple(values))

    def _open(self, cgroup_fd: int, cpu: int, event: Event, leader: int) -> int:
        attr = _ATTR.pack(event.type, _ATTR.size, event.config, 0, 0, _TIMES_AND_GROUP, 0, 0, 0, 0)
        buffer = ctypes.create_string_buffer(attr, len(attr))
        flags = ctypes.c_ulong(_OF_CGROUP | _CLOEXEC)
        fd: int = self._syscall(
            ctypes.c_long(self._number), buffer, ctypes.c_int(cgroup_fd), ctypes.c_int(cpu), leader, flags
        )
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code in _NOT_HERE:
            raise Unsupported(f"perf event {event.type}:{event.config} on CPU {cpu}: {os.strerror(code)}")
        if code == errno.EPERM:  # the kernel itself says EACCES
            raise Refused(f"perf event on CPU {cpu}: filtered out by seccomp or a security module", PERMITS)
        error = translated(OSError(code, os.strerror(code)), f"perf event on CPU {cpu}")
        raise type(error)(str(error), PARANOID if code == errno.EACCES else error.hint)


def scaled(counts: Sequence[Counts], most_ratio: float = 4.0) -> tuple[int, ...] | None:
    """Sums over CPUs, each corrected for the time that it did not count: value * enabled / running.

    None when nothing was counted, or when any part that counted did so for less than 1/`most_ratio` of its
    time (tools/perf: scaling by more says little). A CPU on which the cgroup did not run has counted nothing
    for no time at all.
    """
    sums: list[float] = []
    for part in counts:
        if part.running_ns == 0:
            if part.enabled_ns > _A_TURN_NS:
                return None
            continue
        ratio = part.enabled_ns / part.running_ns
        if ratio > most_ratio:
            return None
        values = [value * ratio for value in part.values]
        sums = [a + b for a, b in zip(sums, values, strict=True)] if sums else values
    return tuple(round(each) for each in sums) if sums else None
