"""One round over the processes of a pod: page by page to the NUMA nodes where they shall be.

Invariant: no list of all pages is ever held, only those of one batch. A process that ends, or that may not
use the node, is passed over; what it has left shows when the pod is counted again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

from nodeagent.kernel.move_pages import PERMITS, MovePages
from nodeagent.kernel.numa_maps import LOOK_BYTES, Region, allowed_nodes, misplaced, present
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import Garbled, Gone, Refused, Unsupported

# Each call of move_pages empties the LRU caches of all CPUs (lru_cache_disable), so not too often.
MOST_BYTES, LEAST_BYTES = 16 << 20, 2 << 20
_SPLIT = 512  # pages of a huge page on x86: less is not tried apart
_TRIES = 32
_MOST_EMPTY = (8 << 40) // LOOK_BYTES  # looks at holes: 5 s of CPU


class Step(NamedTuple):
    """What one batch came to. `full`: the nodes have no free memory, so the rest was not tried."""

    moved_bytes: int = 0
    stuck_bytes: int = 0
    full: bool = False


def batch_bytes(bytes_per_s: int) -> int:
    """A power of two: a quarter of a second's worth at most."""
    quarter = 1 << max(0, bytes_per_s // 4).bit_length() - 1 if bytes_per_s >= 4 else LEAST_BYTES
    return min(max(quarter, LEAST_BYTES), MOST_BYTES)


class Round:
    """Moves what processes have outside of `wanted` to those nodes in turn. Unsupported if that cannot be."""

    def __init__(self, proc: str, wanted: CpuSet, bytes_per_s: int) -> None:
        self._calls = MovePages()
        self._proc = proc
        self._wanted = wanted
        self._most_bytes = batch_bytes(bytes_per_s)
        self._turns = cycle(sorted(wanted))

    def off_bytes(self, pids: Iterable[int]) -> int:
        """Mapped pages outside of the wanted nodes; those that processes share count for each.

        Unsupported when we may not look.
        """
        total = 0
        for pid in pids:
            try:
                total += sum(region.off_bytes for region in misplaced(self._proc, pid, self._wanted))
            except (Gone, Garbled):
                continue
            except Refused as refused:
                raise Unsupported(str(refused), hint=PERMITS) from refused
        return total

    def steps(self, pids: Iterable[int]) -> Iterator[Step]:
        """A step for each batch, moved or only looked at; ends when the nodes are full. Unsupported."""
        for pid in pids:
            try:
                for region in misplaced(self._proc, pid, self._wanted):
                    for step in self._region(pid, region):
                        yield step
                        if step.full:
                            return
            except (Gone, Garbled, Refused):
                continue

    def at_once(self, pid: int) -> None:
        """Let the kernel move what it does not show to move_pages, not bounded by any rate.

        Kernels of v6.1 to v6.4 hide what NUMA balancing has marked: Linux kernel commit d74943a2f3cd
        ("mm/gup: reintroduce FOLL_NUMA as FOLL_HONOR_NUMA_FAULT") (in v6.5).
        """
        with contextlib.suppress(Gone, Garbled, Refused, Unsupported):
            old = CpuSet(allowed_nodes(self._proc, pid) - self._wanted)
            if old:
                self._calls.migrate(pid, old, self._wanted)

    def _region(self, pid: int, region: Region) -> Iterator[Step]:
        """Ends as soon as all pages that were counted have been met: the rest of it is in its place.

        Behind 8 TiB of holes the rest is left to `at_once`.
        """
        met = empty = 0
        for addresses in present(self._proc, pid, region, self._most_bytes):
            off = self._off(pid, addresses) if addresses else []
            met, empty = met + len(off), empty + (not addresses)
            yield self._moved(pid, off, region.page_bytes) if off else Step()
            if met >= region.off_pages or empty >= _MOST_EMPTY:
                return

    def _moved(self, pid: int, off: list[int], page_bytes: int) -> Step:
        for _ in self._wanted:  # the next node when this one is full
            found = self._to_node(pid, off, next(self._turns))
            if found is not None:
                return Step((len(off) - found) * page_bytes, found * page_bytes)
            off = self._off(pid, off)
        return Step(full=True)

    def _to_node(self, pid: int, off: list[int], node: int) -> int | None:
        """How many pages stay where they are; None: there is no memory for them.

        The kernel stops at the first that it cannot move, so the rest is tried again, in the end by halves.
        """
        waiting, stuck = [off], 0
        for _ in range(_TRIES):
            if not waiting:
                return stuck
            part = waiting.pop()
            if not self._calls.move(pid, part, node):
                return None
            rest = self._off(pid, part)
            if len(rest) < len(part):
                waiting += [rest] if rest else []
            elif len(rest) > _SPLIT:
                waiting += [rest[: len(rest) // 2], rest[len(rest) // 2 :]]
            else:
                stuck += len(rest)
        return stuck + sum(map(len, waiting))

    def _off(self, pid: int, addresses: Sequence[int]) -> list[int]:
        statuses = self._calls.query(pid, addresses)
        pairs = zip(addresses, statuses, strict=True)
        return [address for address, node in pairs if node >= 0 and node not in self._wanted]
