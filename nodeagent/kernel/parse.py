"""The kernel's texts -> values: one fast way for the layout seen before, one strict way for any other.

Invariant: no input raises. What is not in the documented format is None, and so is every number that is
negative or above 2**63 - 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter
from typing import NamedTuple

from nodeagent.model.snapshot import Stall

MAX_NUMBER = (1 << 63) - 1
_MAX_LAYOUTS = 8

Numbers = tuple[int | None, ...]
Pages = tuple[tuple[int, int], ...]  # (NUMA node, bytes), by node


def number(raw: bytes) -> int | None:
    """One number on a line of its own (memory.current, pids.current, cpuacct.usage)."""
    word = raw[:-1] if raw[-1:] == b"\n" else raw
    if not word.isdigit() or len(word) > 19:
        return None
    value = int(word)
    return value if value <= MAX_NUMBER else None


def microseconds(raw: bytes) -> int | None:
    """One number of nanoseconds, in us (cpuacct.usage)."""
    value = number(raw)
    return None if value is None else value // 1000


def schedstat(raw: bytes) -> tuple[int, int] | None:
    """A thread's (ns on a run queue, ns on a CPU) (Linux Documentation/scheduler/sched-stats.rst)."""
    words = raw.split()
    if len(words) != 3:
        return None
    run_ns, delay_ns = number(words[0]), number(words[1])
    return None if run_ns is None or delay_ns is None else (delay_ns, run_ns)


def stall(raw: bytes) -> Stall | None:
    """The totals of a *.pressure file; `full` is None where the kernel does not give it (cpu before 5.13)."""
    words = raw.split()
    if len(words) == 10 and words[0] == b"some" and words[5] == b"full":
        some, full = _total(words[4]), _total(words[9])
        return None if some is None or full is None else Stall(some, full)
    return _stall_in_any_order(raw)


def _stall_in_any_order(raw: bytes) -> Stall | None:
    totals: dict[bytes, int] = {}
    for line in raw.splitlines():
        kind, *fields = line.split() or [b""]
        total = next((_total(field) for field in fields if field.startswith(b"total=")), None)
        if kind not in (b"some", b"full") or total is None:
            return None
        totals[kind] = total
    some = totals.get(b"some")
    return None if some is None else Stall(some, totals.get(b"full"))


def _total(word: bytes) -> int | None:
    return number(word[6:]) if word.startswith(b"total=") else None


class FlatKeyed:
    """Parser of "KEY NUMBER" lines (cpu.stat, memory.stat, memory.events): the wanted keys' numbers in order.

    A key that is not there gives None in its place; text in another format, or without the first wanted key,
    gives None. A layout (all keys in order) is learned once and compared with in each text.
    """

    __slots__ = ("_layouts", "_wanted")

    def __init__(self, *wanted: bytes) -> None:
        self._wanted = wanted
        self._layouts: dict[int, _Layout] = {}  # by the number of words

    def __call__(self, raw: bytes) -> Numbers | None:
        words = raw.split()
        layout = self._layouts.get(len(words))
        if layout is not None and words[::2] == layout.keys and 2 * raw.count(b"\n") == len(words):
            texts = layout.values(words)
            if b"".join(texts).isdigit() and max(map(len, texts)) <= 18:  # so all are below 10**18
                found = tuple(map(int, texts))
                return found if layout.order is None else layout.order((*found, None))
        return self._strict(raw, words)

    def _strict(self, raw: bytes, words: list[bytes]) -> Numbers | None:
        found: dict[bytes, int] = {}
        for line in raw.splitlines():
            key, _, text = line.partition(b" ")
            if not key or not text.isdigit() or key in found:
                return None
            value = number(text)
            if value is None and key in self._wanted:
                return None
            found[key] = value or 0
        if self._wanted[0] not in found:
            return None
        self._learn(words, [key for key in self._wanted if key in found])
        return tuple(found.get(key) for key in self._wanted)

    def _learn(self, words: list[bytes], there: list[bytes]) -> None:
        if len(self._layouts) < _MAX_LAYOUTS and len(there) > 1:  # of one key, itemgetter gives no tuple
            keys = words[::2]
            places = [2 * keys.index(key) + 1 for key in there]
            order = [there.index(key) if key in there else -1 for key in self._wanted]
            whole = len(there) == len(self._wanted)
            self._layouts[len(words)] = _Layout(
                keys, itemgetter(*places), None if whole else itemgetter(*order)
            )


class ByNode:
    """Parser of memory.numa_stat: bytes per NUMA node, summed over the lines that begin with `heads`.

    Each of these lines must be there and in the documented format, else it gives None. Where a line was the
    last time is where it is looked for first. `unit_bytes` is what the file counts in.
    """

    __slots__ = ("_heads", "_places", "_unit_bytes")

    def __init__(self, *heads: bytes, unit_bytes: int) -> None:
        self._heads = heads
        self._places = list(range(len(heads)))
        self._unit_bytes = unit_bytes

    def __call__(self, raw: bytes) -> Pages | None:
        lines = raw.split(b"\n")
        total: dict[int, int] = {}
        for which, head in enumerate(self._heads):
            place = self._places[which]
            if place >= len(lines) or not lines[place].startswith(head):
                place = next((n for n, line in enumerate(lines) if line.startswith(head)), -1)
            if place < 0 or _BY_NODE.fullmatch(lines[place]) is None:
                return None
            self._places[which] = place
            counts = _ON_NODE.findall(lines[place])
            for node, count in counts:
                total[int(node)] = total.get(int(node), 0) + int(count) * self._unit_bytes
            if len({node for node, _ in counts}) != len(counts):
                return None
        return tuple(sorted(total.items())) if max(total.values()) <= MAX_NUMBER else None


_BY_NODE = re.compile(rb"[a-z_]+(?:=\d{1,18})?(?: N(?:0|[1-9]\d{0,3})=\d{1,18})+")
_ON_NODE = re.compile(rb" N(\d+)=(\d+)")


class _Layout(NamedTuple):
    """Where the wanted keys' values are. `order` puts None, which comes last, where a key is not there."""

    keys: list[bytes]
    values: Callable[[list[bytes]], tuple[bytes, ...]]
    order: Callable[[Numbers], Numbers] | None
