"""Journals that were torn, garbled, forged or never were one: no crash, no wrong tick, a word about it."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent.journal import Journal, read_segments
from nodeagent.journal.packed import FRAME_LIMIT_BYTES, MAGIC, SegmentHead, pack_head
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.errors import Failed
from nodeagent.model.policy import Policy
from tests.unit import samples

TICKS = [samples.tick(seq, pods=2) for seq in range(1, 6)]
NAME = "000000001-6f1c1a52.journal"

law = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a segment with TICKS."""
    state = tmp_path_factory.mktemp("whole")
    journal = Journal(state)
    for tick in TICKS:
        journal.append(tick, Policy(), Memory())
    journal.close()
    return (state / "journal" / NAME).read_bytes()


def put(directory: Path, content: bytes, name: str = NAME) -> None:
    (directory / name).write_bytes(content)


def read(directory: Path) -> tuple[list[Tick], list[str]]:
    warnings: list[str] = []
    ticks = [tick for segment in read_segments(directory, warnings.append) for tick in segment.ticks()]
    return ticks, warnings


def frames(content: bytes) -> list[int]:
    """Offsets at which frames begin, and the end."""
    at = [len(MAGIC)]
    while at[-1] < len(content):
        (length,) = struct.unpack_from("<I", content, at[-1])
        at.append(at[-1] + 8 + length)
    return at


def forged(*payloads: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """A segment with right checksums around any payloads."""
    deflate, out = zlib.compressobj(), MAGIC
    for payload in payloads:
        packed = deflate.compress(payload) + deflate.flush(flush)
        length = struct.pack("<I", len(packed))
        out += length + struct.pack("<I", zlib.crc32(length + packed)) + packed
    return out


def head() -> bytes:
    return pack_head(
        SegmentHead(
            agent_version="0", run="r", created_unix=0.0, hostname="h", policy=Policy(), memory=Memory()
        )
    )


def test_cut_anywhere_the_whole_ticks_before_the_cut_are_read(tmp_path: Path, whole: bytes) -> None:
    starts = frames(whole)
    for cut in range(len(whole)):
        put(tmp_path, whole[:cut])
        ticks, warnings = read(tmp_path)
        complete = sum(end <= cut for end in starts[1:]) - 1  # without the head
        assert ticks == TICKS[: max(0, complete)]
        assert bool(warnings) == (cut not in starts[1:])
        if complete >= 0 and warnings:
            assert f"torn at byte {starts[complete + 1]}" in warnings[0]


@law
@given(data=st.data())
def test_flipped_bytes_never_give_a_wrong_tick(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    garbled = bytearray(whole)
    flips = data.draw(
        st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(1, 255)), min_size=1, max_size=4)
    )
    for where, bits in flips:
        garbled[where] ^= bits
    put(tmp_path, bytes(garbled))
    ticks, warnings = read(tmp_path)
    assert ticks == TICKS[: len(ticks)]
    assert warnings or bytes(garbled) == whole


@law
@given(content=st.binary(max_size=400), prefix=st.sampled_from([b"", MAGIC, MAGIC[:-1] + b"\x02"]))
def test_garbage_files_are_skipped_with_one_line(tmp_path: Path, content: bytes, prefix: bytes) -> None:
    put(tmp_path, prefix + content)
    ticks, warnings = read(tmp_path)
    assert ticks == []
    assert len(warnings) == 1
    assert warnings[0].startswith(NAME)


@law
@given(payload=st.binary(max_size=300))
def test_a_frame_with_a_right_checksum_and_a_wrong_content_ends_the_segment(
    tmp_path: Path, payload: bytes
) -> None:
    put(tmp_path, forged(head(), payload))
    ticks, warnings = read(tmp_path)
    assert ticks == []
    assert len(warnings) == 1
    assert "is not a tick" in warnings[0]


def test_a_tick_that_refers_to_one_before_it_is_not_taken_alone(tmp_path: Path) -> None:
    nil = msgspec.Raw(b"\xc0")
    put(tmp_path, forged(head(), msgspec.msgpack.encode([nil] * 6)))
    assert "refers to a tick that is not there" in read(tmp_path)[1][0]


def test_deep_nesting_ends_the_segment(tmp_path: Path) -> None:
    put(tmp_path, forged(head(), b"\x91" * 100_000 + b"\xc0"))
    assert "is not a tick" in read(tmp_path)[1][0]
    put(tmp_path, forged(b"\x91" * 100_000 + b"\xc0"))
    assert "head" in read(tmp_path)[1][0]


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    bomb = forged(head(), bytes(FRAME_LIMIT_BYTES + 1000))
    assert len(bomb) < 100_000
    put(tmp_path, bomb)
    ticks, warnings = read(tmp_path)
    assert ticks == []
    assert "unpacks to too much" in warnings[0]


def test_an_absurd_length_is_not_allocated(tmp_path: Path, whole: bytes) -> None:
    put(tmp_path, whole[: frames(whole)[2]] + struct.pack("<II", 0xFFFFFFF0, 0))
    ticks, warnings = read(tmp_path)
    assert ticks == TICKS[:1]
    assert "claims 4294967280 bytes" in warnings[0]


def test_a_finished_stream_is_not_read_on(tmp_path: Path) -> None:
    put(tmp_path, forged(head(), flush=zlib.Z_FINISH))
    assert "ends the stream" in read(tmp_path)[1][0]


def test_a_segment_of_another_format_version_says_so(tmp_path: Path, whole: bytes) -> None:
    put(tmp_path, MAGIC[:-1] + b"\x09" + whole[len(MAGIC) :])
    assert read(tmp_path)[1] == [f"{NAME}: format version 9, this agent reads 2; skipped"]


def test_damage_in_one_segment_leaves_the_others(tmp_path: Path, whole: bytes) -> None:
    put(tmp_path, whole[:-1], "000000001-a.journal")
    put(tmp_path, b"garbage", "000000002-a.journal")
    put(tmp_path, whole, "000000003-a.journal")
    ticks, warnings = read(tmp_path)
    assert ticks == TICKS[:-1] + TICKS
    assert [line.split(":")[0] for line in warnings] == ["000000001-a.journal", "000000002-a.journal"]


def test_symbolic_links_directories_and_pipes_are_skipped(tmp_path: Path, whole: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(whole)
    (tmp_path / "1.journal").symlink_to(secret)
    (tmp_path / "2.journal").mkdir()
    os.mkfifo(tmp_path / "3.journal")
    ticks, warnings = read(tmp_path)
    assert ticks == []
    assert [line.split(":")[0] for line in warnings] == ["1.journal", "2.journal", "3.journal"]


def test_a_segment_deleted_meanwhile_is_skipped(tmp_path: Path, whole: bytes) -> None:
    for number in (1, 2, 3):
        put(tmp_path, whole, f"{number}.journal")
    warnings: list[str] = []
    count = 0
    for segment in read_segments(tmp_path, warnings.append):
        (tmp_path / "2.journal").unlink(missing_ok=True)
        count += len(list(segment.ticks()))
    assert count == 2 * len(TICKS)
    assert warnings == ["2.journal: No such file or directory; skipped"]


def test_what_is_appended_while_reading_is_left_for_the_next_time(tmp_path: Path, whole: bytes) -> None:
    put(tmp_path, whole[: frames(whole)[3]])
    (segment,) = read_segments(tmp_path, pytest.fail)
    assert segment.name == NAME
    got = []
    for segment in read_segments(tmp_path, pytest.fail):
        put(tmp_path, whole)
        got = list(segment.ticks())
    assert got == TICKS[:2]


def test_no_directory_and_no_segment_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"no \*\.journal file") as empty:
        read(tmp_path)
    assert empty.value.hint
    with pytest.raises(Failed, match="No such file or directory"):
        read(tmp_path / "missing")
    put(tmp_path, b"", "file")
    with pytest.raises(Failed, match="Not a directory"):
        read(tmp_path / "file")
