"""Where a process has pages on the wrong NUMA nodes: /proc/PID/numa_maps (Linux Documentation/filesystems/
proc.rst) joined with /proc/PID/maps, which alone tells where a mapping ends, and /proc/PID/pagemap (Linux
Documentation/admin-guide/mm/pagemap.rst), which tells where in it there is a page at all.

Invariant: all are read as a stream, one mapping at a time: a process may have a million of them, or one of
many TiB with few pages in it.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nodeagent.kernel.errno import translated
from nodeagent.kernel.files import read_whole
from nodeagent.model.cpuset import CpuSet, canonical
from nodeagent.model.errors import Garbled

SMALL_PAGE_KB = 4
LOOK_BYTES = 512 << 20  # 1 MiB of pagemap at a time
_ENTRY_BYTES = 8
_IS_PRESENT = bytes(byte >> 7 for byte in range(256))  # bit 63, in the last byte of a little-endian entry


class Region(NamedTuple):
    """A mapping with `off_pages` of `page_bytes` each on other nodes than wanted."""

    start: int
    end: int
    page_bytes: int
    off_pages: int

    @property
    def off_bytes(self) -> int:
        return self.off_pages * self.page_bytes


def misplaced(proc: str, pid: int, wanted: CpuSet) -> Iterator[Region]:
    """Mappings of the process with pages outside of the `wanted` nodes, by address.

    What changes meanwhile may be left out. Gone, Refused (a permission lacks), Unsupported, Garbled.
    """
    path = f"{proc}/{pid}"
    try:
        with open(f"{path}/numa_maps", "rb") as numa, open(f"{path}/maps", "rb") as maps:
            ends = (_extent(line) for line in maps)
            here = next(ends, None)
            for line in numa:
                start, page_bytes, off_pages = parse_line(line, wanted)
                while off_pages and here is not None and here[0] < start:
                    here = next(ends, None)
                if off_pages and here is not None and here[0] == start:
                    yield Region(start, here[1], page_bytes, off_pages)
    except OSError as error:
        raise translated(error, f"{path}/numa_maps") from error
    except ValueError as error:
        raise Garbled(f"{path}/numa_maps: not what the kernel writes there: {error}") from error


def parse_line(line: bytes, wanted: CpuSet) -> tuple[int, int, int]:
    """Start address, bytes of a page, and pages outside of `wanted`; ValueError for any other text."""
    start, *words = line.split()
    page_kb, off = SMALL_PAGE_KB, 0
    for word in words:
        name, equals, value = word.partition(b"=")
        if not equals:
            continue
        if name == b"kernelpagesize_kB":
            page_kb = int(value)
        elif name[:1] == b"N" and name[1:].isdigit() and int(name[1:]) not in wanted:
            off += int(value)
    return int(start, 16), page_kb << 10, off


def _extent(line: bytes) -> tuple[int, int]:
    first, _, last = line.partition(b" ")[0].partition(b"-")
    return int(first, 16), int(last, 16)


def allowed_nodes(proc: str, pid: int) -> CpuSet:
    """The NUMA nodes that the process may use. Gone, Refused, Garbled."""
    path = f"{proc}/{pid}/status"
    for line in read_whole(path, 1 << 16).splitlines():
        if line.startswith(b"Mems_allowed_list:"):
            text = canonical(line.partition(b":")[2].decode("ascii", "replace"))
            if text is not None:
                return CpuSet.parse(text)
    raise Garbled(f"{path}: tells no list of NUMA nodes")


def batches(region: Region, most_bytes: int) -> Iterator[range]:
    """Addresses of all pages of the region, at most `most_bytes` of memory at a time.

    They are cut at multiples of `most_bytes`, a power of two, so that no huge page is in two of them.
    """
    step, at = max(most_bytes, region.page_bytes), region.start
    while at < region.end:
        end = min(region.end, (at // step + 1) * step)
        yield range(at, end, region.page_bytes)
        at = end


def present(proc: str, pid: int, region: Region, most_bytes: int) -> Iterator[Sequence[int]]:
    """As `batches`, only the addresses where there is a page; an empty one for LOOK_BYTES without any.

    Gone, Refused, Unsupported.
    """
    path = f"{proc}/{pid}/pagemap"
    try:
        with open(path, "rb", buffering=0) as pagemap:
            for window in batches(region, LOOK_BYTES):
                pages = _present_in(pagemap.fileno(), window)
                if b"\1" not in pages:
                    yield ()
                    continue
                part = Region(window.start, window.stop, region.page_bytes, 0)
                for batch in batches(part, most_bytes):
                    first = (batch.start - window.start) // batch.step
                    flags = pages[first : first + len(batch)]
                    if there := [address for address, flag in zip(batch, flags, strict=False) if flag]:
                        yield there
    except OSError as error:
        raise translated(error, path) from error


def _present_in(fd: int, window: range) -> bytes:
    """A byte for each address, 1 where there is a page; fewer if the process ended."""
    first, last = window.start // mmap.PAGESIZE, window.stop // mmap.PAGESIZE
    entries = os.pread(fd, (last - first) * _ENTRY_BYTES, first * _ENTRY_BYTES)
    every = window.step // mmap.PAGESIZE * _ENTRY_BYTES
    return entries[_ENTRY_BYTES - 1 :: every].translate(_IS_PRESENT)
