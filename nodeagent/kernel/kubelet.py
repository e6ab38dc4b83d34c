"""What the kubelet's static managers gave away, from the state that they keep on disk.

    cpu_manager_state     {"policyName":"static","defaultCpuSet":"0-1,4-7","entries":{"UID":{"app":"2-3"}}}
    memory_manager_state  {"policyName":"Static","entries":{"UID":{"app":[{"numaAffinity":[0]}]}}}

Kubernetes pkg/kubelet/cm/cpumanager/state/checkpoint.go; until 1.17 the keys of entries were container ids.
Invariant: a file that cannot be understood tells nothing, not even that nothing is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec
from msgspec import Raw, Struct

from nodeagent.kernel.errno import translated
from nodeagent.kernel.files import MAX_FILE_BYTES, read_whole
from nodeagent.model.cpuset import canonical, union
from nodeagent.model.errors import Garbled
from nodeagent.model.foreign import Owned

T = TypeVar("T")
MAX_ENTRIES = 8192
BY_CPU = "its CPUs are the kubelet's static CPU manager's"
BY_MEMORY = "its memory is the kubelet's static memory manager's"


class CpuState(Struct, frozen=True, rename="camel"):
    """cpu_manager_state as far as it matters; `default_cpu_set` are the CPUs of all other pods."""

    policy_name: str
    default_cpu_set: str = ""
    entries: dict[str, dict[str, str] | str] | None = None


class _MemoryState(Struct, frozen=True, rename="camel"):
    policy_name: str
    entries: dict[str, Raw] | None = None


class Given(Struct, frozen=True):
    """`shared` are the CPUs that the kubelet has not given away, "" where it gives none."""

    policy: str = ""
    shared: str = ""
    owned: tuple[Owned, ...] = ()


class KubeletFiles:
    """The two files below the kubelet's directory, read again only when they were replaced."""

    def __init__(self, directory: str) -> None:
        self._cpu = _StateFile(f"{directory}/cpu_manager_state", _cpus)
        self._memory = _StateFile(f"{directory}/memory_manager_state", _memories)

    def read(self) -> Given | None:
        """All that was given away; None where no state of its CPUs is kept. AgentError: not known."""
        cpu, memory = self._cpu.read(), self._memory.read()
        if cpu is None or memory is None:
            return cpu
        return Given(cpu.policy, cpu.shared, (*cpu.owned, *memory.owned))


class _StateFile:
    """One file; a file that is as it was when it was last read is not opened."""

    def __init__(self, path: str, parse: Callable[[bytes], Given]) -> None:
        self._path = path
        self._parse = parse
        self._stamp: tuple[int, int, int] | None = None
        self._last: Given | Garbled | None = None

    def read(self) -> Given | None:
        stamp = self._stamp_now()
        if stamp is None or stamp != self._stamp:
            self._stamp = None  # a read that fails is tried again
            self._last = None if stamp is None else self._parsed(read_whole(self._path, MAX_FILE_BYTES + 1))
            self._stamp = stamp
        if isinstance(self._last, Garbled):
            raise self._last.with_traceback(None)  # which would grow each time
        return self._last

    def _stamp_now(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise translated(error, self._path) from error
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _parsed(self, raw: bytes) -> Given | Garbled:
        if len(raw) > MAX_FILE_BYTES:
            return Garbled(f"{self._path}: longer than {MAX_FILE_BYTES} bytes")
        try:
            return self._parse(raw)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            return Garbled(f"{self._path}: {error}")


def _cpus(raw: bytes) -> Given:
    state = msgspec.json.decode(raw, type=CpuState)
    if state.policy_name != "static":
        return Given(state.policy_name[:40])
    owned = _entries(state.entries)
    return Given(state.policy_name, _list(state.default_cpu_set), tuple(owned))


def _entries(entries: dict[str, dict[str, str] | str] | None) -> Iterator[Owned]:
    for key, given in _bounded(entries).items():
        cpus = ""
        for text in given.values() if isinstance(given, dict) else (given,):
            cpus = union(cpus, _list(text))
        if cpus:
            yield Owned(key if isinstance(given, dict) else "", cpus, BY_CPU)


def _memories(raw: bytes) -> Given:
    state = msgspec.json.decode(raw, type=_MemoryState)
    if state.policy_name != "Static":
        return Given()
    return Given(owned=tuple(Owned(uid, "", BY_MEMORY) for uid in _bounded(state.entries)))


def _bounded(entries: dict[str, T] | None) -> dict[str, T]:
    if entries is not None and len(entries) > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES} entries")
    return entries or {}


def _list(text: str) -> str:
    found = canonical(text)
    if found is None:
        raise ValueError(f"not a list of CPUs: {text[:40]!r}")
    return found
