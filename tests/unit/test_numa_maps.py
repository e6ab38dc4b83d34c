"""Where a process has its pages, from text that kernels have printed (6.1 on two nodes, hugetlb made up)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.kernel.numa_maps import Region, allowed_nodes, batches, misplaced, parse_line
from nodeagent.kernel.page_round import LEAST_BYTES, MOST_BYTES, batch_bytes
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import Garbled, Gone

NUMA_MAPS = b"""\
00400000 default file=/usr/bin/python3.11 mapped=31 mapmax=2 active=1 N1=31 kernelpagesize_kB=4
0041f000 default file=/usr/bin/python3.11 mapped=431 mapmax=2 active=0 N0=282 N1=149 kernelpagesize_kB=4
10bbb000 default heap anon=103 dirty=103 active=0 N0=103 kernelpagesize_kB=4
7fbf50523000 default anon=1024 dirty=1024 active=0 N0=1024 kernelpagesize_kB=4
7fbf50923000 bind:0 file=/anon_hugepage\\040(deleted) huge anon=2 dirty=2 N0=2 kernelpagesize_kB=2048
7fbf511f6000 default file=/usr/lib/x86_64-linux-gnu/libexpat.so.1.8.10
7fbf51218000 default file=/tmp/N0=7 mapped=1 N0=1 kernelpagesize_kB=4
7ffd7934e000 default stack anon=14 dirty=14 active=1 N0=14 kernelpagesize_kB=4
7ffd79390000 default
"""
MAPS = b"""\
00400000-0041f000 r--p 00000000 fe:00 909                                /usr/bin/python3.11
0041f000-006cf000 r-xp 0001f000 fe:00 909                                /usr/bin/python3.11
10bbb000-10c32000 rw-p 00000000 00:00 0                                  [heap]
7fbf50523000-7fbf50923000 rw-p 00000000 00:00 0 
7fbf50923000-7fbf50d23000 rw-p 00000000 00:0f 77                         /anon_hugepage (deleted)
7fbf511f6000-7fbf511ff000 r--p 00022000 fe:00 5263         /usr/lib/x86_64-linux-gnu/libexpat.so.1.8.10
7fbf51218000-7fbf51219000 r--p 00000000 fe:00 5264                       /tmp/N0=7
7ffd7934e000-7ffd7936f000 rw-p 00000000 00:00 0                          [stack]
7ffd79390000-7ffd79392000 r-xp 00000000 00:00 0                          [vdso]
"""  # noqa: W291  # as the kernel prints it
KIB, MIB = 1 << 10, 1 << 20


def process(root: Path, numa_maps: bytes = NUMA_MAPS, maps: bytes = MAPS, status: bytes = b"") -> str:
    (root / "7").mkdir()
    for name, text in (("numa_maps", numa_maps), ("maps", maps), ("status", status)):
        (root / "7" / name).write_bytes(text)
    return str(root)


def test_mappings_with_pages_elsewhere_are_found_with_their_extent(tmp_path: Path) -> None:
    proc = process(tmp_path)
    assert list(misplaced(proc, 7, CpuSet({1}))) == [
        Region(0x41F000, 0x6CF000, 4 * KIB, 282),
        Region(0x10BBB000, 0x10C32000, 4 * KIB, 103),
        Region(0x7FBF50523000, 0x7FBF50923000, 4 * KIB, 1024),
        Region(0x7FBF50923000, 0x7FBF50D23000, 2 * MIB, 2),
        Region(0x7FBF51218000, 0x7FBF51219000, 4 * KIB, 1),
        Region(0x7FFD7934E000, 0x7FFD7936F000, 4 * KIB, 14),
    ]
    assert [r.off_pages for r in misplaced(proc, 7, CpuSet({0}))] == [31, 149]
    assert list(misplaced(proc, 7, CpuSet({0, 1}))) == []


def test_a_mapping_that_came_or_went_between_the_two_files_is_left_out(tmp_path: Path) -> None:
    went = MAPS.replace(b"10bbb000-10c32000", b"10bbc000-10c32000")
    found = list(misplaced(process(tmp_path, maps=went), 7, CpuSet({1})))
    assert [hex(region.start) for region in found][:2] == ["0x41f000", "0x7fbf50523000"]


def test_bytes_count_huge_pages_as_what_they_are() -> None:
    line = b"7fbf50923000 default huge anon=2 dirty=2 N0=2 kernelpagesize_kB=2048"
    assert Region(0, 1, *parse_line(line, CpuSet({1}))[1:]).off_bytes == 4 * MIB


@pytest.mark.parametrize("text", [b"zz default N0=1\n", b"400000 default N0=x kernelpagesize_kB=4\n", b"\n"])
def test_other_text_is_garbled(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(Garbled, match="numa_maps"):
        list(misplaced(process(tmp_path, numa_maps=text), 7, CpuSet({1})))


def test_a_process_that_is_not_there_is_gone(tmp_path: Path) -> None:
    with pytest.raises(Gone):
        list(misplaced(str(tmp_path), 7, CpuSet({1})))
    with pytest.raises(Gone):
        allowed_nodes(str(tmp_path), 7)


def test_the_nodes_that_a_process_may_use_are_told_by_its_status(tmp_path: Path) -> None:
    proc = process(tmp_path, status=b"Name:\tx\nMems_allowed:\t3\nMems_allowed_list:\t0-1,3\nx:\t1\n")
    assert allowed_nodes(proc, 7) == CpuSet({0, 1, 3})
    (tmp_path / "7" / "status").write_bytes(b"Mems_allowed_list:\tx\n")
    with pytest.raises(Garbled):
        allowed_nodes(proc, 7)


@given(st.integers(0, 5000), st.integers(1, 20_000), st.sampled_from([2, 8, 16]))
def test_batches_are_all_pages_once_and_never_cut_a_huge_page(start: int, pages: int, most_mib: int) -> None:
    region = Region(start * 4 * KIB, (start + pages) * 4 * KIB, 4 * KIB, 1)
    found = list(batches(region, most_mib * MIB))
    assert [at for batch in found for at in batch] == list(range(region.start, region.end, 4 * KIB))
    assert all(len(batch) * 4 * KIB <= most_mib * MIB for batch in found)
    assert all(batch[-1] + 4 * KIB == region.end or (batch[-1] + 4 * KIB) % (2 * MIB) == 0 for batch in found)


def test_a_page_that_is_larger_than_a_batch_is_one() -> None:
    gib = 1 << 30
    region = Region(4 * gib, 6 * gib, gib, 2)
    assert [list(batch) for batch in batches(region, 16 * MIB)] == [[4 * gib], [5 * gib]]


@given(st.integers(1, 1 << 41))
def test_a_batch_is_a_power_of_two_and_a_quarter_of_a_second_at_most(bytes_per_s: int) -> None:
    size = batch_bytes(bytes_per_s)
    assert LEAST_BYTES <= size <= MOST_BYTES
    assert size & (size - 1) == 0
    assert size == LEAST_BYTES or size <= bytes_per_s / 4
