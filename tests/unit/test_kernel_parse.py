"""Parsers: the documented formats, and garbage that must be None and never an exception."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nodeagent.kernel import disks, node, parse
from nodeagent.kernel.parse import MAX_NUMBER, ByNode, FlatKeyed
from nodeagent.kernel.symptoms import block, process_io, tcp
from nodeagent.model.snapshot import Stall
from tests.unit import symptom_texts, trees

Parser = Callable[[bytes], object]
PARSERS: dict[str, Parser] = {
    "number": parse.number,
    "microseconds": parse.microseconds,
    "schedstat": parse.schedstat,
    "stall": parse.stall,
    "keyed": FlatKeyed(b"usage_usec", b"nr_periods"),
    "cpu_rows": node.cpu_rows,
    "meminfo": node.meminfo,
    "loadavg": node.loadavg,
    "numa_stat of v1": ByNode(b"hierarchical_total=", unit_bytes=4096),
    "numa_stat of v2": ByNode(b"anon ", b"file ", unit_bytes=1),
    "diskstats": disks.rows_in,
    "blkio": block.blkio,
    "io.stat": block.io_stat,
    "io of a process": process_io.stored,
    "snmp": tcp.segments,
    "netstat": tcp.listen_drops,
    "net/dev": tcp.traffic,
    "zoneinfo": lambda raw: node.watermarks(raw, 4096),
}
TEXTS = [text.encode() for text in (trees.V2 | trees.HYBRID | trees.NUMA).values()]
TEXTS += [text.encode() for text in symptom_texts.ALL]


def numbers(value: object) -> list[float]:
    """All numbers within a parsed value."""
    if isinstance(value, int | float):
        return [value]
    if isinstance(value, tuple | list):
        return [found for each in value for found in numbers(each)]
    if isinstance(value, dict):
        return numbers(list(value.values()))
    if isinstance(value, msgspec.Struct):
        return numbers(msgspec.structs.astuple(value))
    return []


def damaged(text: bytes, at: int, junk: bytes, cut: int) -> bytes:
    return text[: at % (len(text) + 1)] + junk + text[at % (len(text) + 1) + cut :]


garbage = st.one_of(
    st.binary(max_size=300),
    st.builds(
        damaged, st.sampled_from(TEXTS), st.integers(0, 999), st.binary(max_size=9), st.integers(0, 99)
    ),
    st.builds(lambda n: b"usage_usec %d\nnr_periods %d\n" % (n, n), st.integers(-(2**70), 2**70)),
    st.builds(lambda n: b"some avg10=0.00 total=%d\nfull total=%d\n" % (n, -n), st.integers(-(2**70), 2**70)),
    st.builds(lambda n: b"9" * n, st.integers(1, 9000)),
    st.builds(lambda n: b"cpu0 " + b"%d " % n * 8, st.integers(-(2**70), 2**70)),
    st.builds(lambda n: b"MemTotal: %d kB\nMemFree: 1 kB\n" % n, st.integers(-(2**70), 2**70)),
)


@pytest.mark.parametrize("name", PARSERS)
@given(raw=garbage)
@example(raw=b"")
@example(raw=b"\n")
@example(raw="some total=١٢\n".encode())
@example(raw=b"-5\n")
@example(raw=b"1_000\n")
@example(raw=b"+7\n")
@example(raw=b"\xff\xfe\x00")
@example(raw=b"Node\n" * 5 + b"Node kB kB\n")
def test_garbage_gives_none_or_numbers_within_bounds(name: str, raw: bytes) -> None:
    assert all(0 <= found <= MAX_NUMBER for found in numbers(PARSERS[name](raw)))


@pytest.mark.parametrize(
    "raw", [b"", b"-1\n", b"+1\n", b"1_0\n", b"1 2\n", b"9223372036854775808\n", b"max\n"]
)
def test_what_is_not_one_plain_number_is_none(raw: bytes) -> None:
    assert parse.number(raw) is None
    assert parse.microseconds(raw) is None


def test_pressure_is_read_in_its_layout_and_in_any_other() -> None:
    assert parse.stall(trees.pressure(12, 7).encode()) == Stall(12, 7)
    assert parse.stall(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n") == Stall(5, None)
    assert parse.stall(b"full total=1 avg10=0.00\nsome total=2 new=3\n") == Stall(2, 1)
    assert parse.stall(b"full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n") is None
    assert parse.stall(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=-5\n") is None


def test_keyed_text_is_read_the_same_in_a_new_layout() -> None:
    keyed = FlatKeyed(b"b", b"d")
    assert keyed(b"a 1\nb 2\nc 3\nd 4\n") == (2, 4)
    assert keyed(b"a 5\nb 6\nc 7\nd 8\n") == (6, 8)
    assert keyed(b"d 1\nb 2\nx 3\na 4\n") == (2, 1)
    assert keyed(b"b 2\n") == (2, None)
    assert keyed(b"d 2\n") is None


@pytest.mark.parametrize(
    "raw", [b"b -2\nd 4\n", b"b 2\nb 3\n", b"b\nd 4\n", b"b 2 d 4\n", b"b 9223372036854775808\n"]
)
def test_keyed_text_in_another_format_is_none_even_if_the_layout_was_learned(raw: bytes) -> None:
    keyed = FlatKeyed(b"b", b"d")
    assert keyed(b"b 2\nd 4\n") == (2, 4)
    assert keyed(raw) is None


def test_a_number_above_the_bound_counts_only_if_it_was_wanted() -> None:
    assert FlatKeyed(b"a", b"b")(b"a 1\nlimit 18446744073709551615\nb 2\n") == (1, 2)


@given(st.lists(st.integers(0, MAX_NUMBER), min_size=2, max_size=2), st.permutations([b"a", b"b", b"c"]))
def test_keyed_text_learned_or_not_gives_what_is_written(values: list[int], keys: list[bytes]) -> None:
    keyed = FlatKeyed(b"a", b"b")
    table = dict(zip([b"a", b"b", b"c"], [*values, 0], strict=True))
    raw = b"".join(b"%s %d\n" % (key, table[key]) for key in keys)
    assert keyed(raw) == keyed(raw) == tuple(values)


def test_the_node_s_texts_are_read_in_their_units() -> None:
    rows = node.cpu_rows(trees.V1["proc/stat"].encode())
    assert rows is not None
    assert [row.cpu for row in rows] == [0, 1]
    assert rows[1].user_us == 200 * 1_000_000 // node._USER_HZ
    assert rows[1].steal_us == 4 * 1_000_000 // node._USER_HZ
    memory = node.meminfo(trees.V1["proc/meminfo"].encode())
    assert memory is not None
    assert (memory.total_bytes, memory.reclaimable_bytes) == (1000 * 1024, 30 * 1024)
    assert node.watermarks(trees.V1["proc/zoneinfo"].encode(), 4096) == 10 * 4096


V1_PAGES = (
    b"total=9 N0=9 N1=0\nfile=9 N0=9 N1=0\nhierarchical_total=12 N0=5 N1=7\nhierarchical_anon=0 N0=0 N1=0\n"
)
V2_PAGES = (
    b"anon N0=4096 N1=8192\nfile N0=4096 N1=0\nunevictable N0=0 N1=8192\nworkingset_restore_anon N0=7 N1=7\n"
)


def test_pages_by_node_are_bytes_on_both_versions() -> None:
    assert ByNode(b"hierarchical_total=", unit_bytes=4096)(V1_PAGES) == ((0, 20480), (1, 28672))
    assert ByNode(b"anon ", b"file ", unit_bytes=1)(V2_PAGES) == ((0, 8192), (1, 8192))


def test_lines_of_pages_are_found_wherever_they_are_and_again_when_they_move() -> None:
    pages = ByNode(b"anon ", b"file ", unit_bytes=1)
    for order in ((0, 1, 2, 3), (3, 2, 1, 0), (0, 1, 2, 3), (1, 3, 0, 2)):
        lines = V2_PAGES.splitlines()
        assert pages(b"\n".join(lines[n] for n in order)) == ((0, 8192), (1, 8192))


def test_nodes_with_gaps_and_without_cpus_are_told_by_their_ids() -> None:
    assert ByNode(b"anon ", unit_bytes=1)(b"anon N8=1 N1=2 N252=3\n") == ((1, 2), (8, 1), (252, 3))


@pytest.mark.parametrize(
    "line",
    [
        b"anon",
        b"anon ",
        b"anon 5",
        b"anon N0=",
        b"anon N0=-1",
        b"anon N0=1 N0=2",
        b"anon N0=1 N00=2",
        b"anon N0=1  N1=2",
        b"anon N0=1 N1=x",
        b"anon N0=1 N12345=1",
        b"anon N0=9999999999999999999",
        b"anon N0=1\rN1=1",
        b"file N0=1",
        b"anonymous N0=1",
    ],
)
def test_pages_in_another_format_are_not_known(line: bytes) -> None:
    pages = ByNode(b"anon ", unit_bytes=1)
    assert pages(V2_PAGES) is not None
    assert pages(line + b"\n") is None


def test_more_bytes_than_the_kernel_can_count_are_not_known() -> None:
    assert ByNode(b"anon ", unit_bytes=4096)(b"anon N0=%d\n" % (1 << 58)) is None


def test_keys_that_this_kernel_does_not_have_are_none_in_a_layout_that_was_learned() -> None:
    keyed = FlatKeyed(b"a", b"new", b"b", b"newer")
    for number in (1, 2, 3):
        assert keyed(b"b 7\na %d\nother 9\n" % number) == (number, None, 7, None)
    assert keyed(b"b 7\na 1\nnew 9\n") == (1, 9, 7, None)
