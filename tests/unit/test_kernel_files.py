"""Kept files: growing, replaced, missing, too many; nothing raises and each miss is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodeagent.kernel.files import MAX_FILE_BYTES, Descriptors, KeptFile, Misses, Shelf, read_whole
from nodeagent.kernel.parse import number
from nodeagent.model.errors import Gone


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(Descriptors(100), Misses())


def whole(raw: bytes) -> bytes | None:
    return raw or None


def test_a_kept_file_is_opened_once_and_follows_what_is_written(tmp_path: Path, shelf: Shelf) -> None:
    path = tmp_path / "current"
    path.write_text("1\n")
    file = KeptFile(str(path), number, shelf)
    assert file.value() == 1
    path.write_text("22\n")
    assert file.value() == 22
    assert shelf.descriptors.kept == 1
    file.close()
    assert shelf.descriptors.kept == 0


def test_an_unchanged_value_is_the_same_object(tmp_path: Path, shelf: Shelf) -> None:
    (tmp_path / "current").write_text("123456789\n")
    file = KeptFile(str(tmp_path / "current"), number, shelf)
    first = file.value()
    assert file.value() is first
    assert file.changes == 1


@pytest.mark.parametrize("size", [1, 447, 448, 449, 5000, 65536, MAX_FILE_BYTES - 1])
@pytest.mark.parametrize("most", [0, 100])
def test_a_file_longer_than_the_buffer_is_read_whole(tmp_path: Path, size: int, most: int) -> None:
    (tmp_path / "stat").write_bytes(b"x" * size)
    shelf = Shelf(Descriptors(most), Misses())
    file = KeptFile(str(tmp_path / "stat"), whole, shelf)
    assert file.read() == b"x" * size
    assert file.read() == b"x" * size
    assert not shelf.misses.taken()
    file.close()


def test_a_huge_file_is_garbled_and_not_read_for_ever(tmp_path: Path, shelf: Shelf) -> None:
    (tmp_path / "stat").write_bytes(b"x" * (MAX_FILE_BYTES + 5))
    file = KeptFile(str(tmp_path / "stat"), whole, shelf)
    assert file.value() is None
    assert shelf.misses.taken() == {"garbled": 1}


def test_garbled_text_is_a_miss_each_time_it_is_read(tmp_path: Path, shelf: Shelf) -> None:
    (tmp_path / "current").write_bytes(b"\xff\x00")
    file = KeptFile(str(tmp_path / "current"), number, shelf)
    assert (file.value(), file.value()) == (None, None)
    assert shelf.misses.taken() == {"garbled": 2}
    assert not shelf.misses.taken()


def test_a_file_that_never_was_is_no_miss_and_is_looked_for_again_when_told(
    tmp_path: Path, shelf: Shelf
) -> None:
    path = tmp_path / "current"
    file = KeptFile(str(path), number, shelf)
    assert file.value() is None
    assert file.absent
    assert not shelf.misses.taken()
    path.write_text("5\n")
    assert file.value() is None
    file.absent = False
    assert file.value() == 5


def test_a_file_that_vanishes_where_none_may_be_kept_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "current"
    path.write_text("5\n")
    shelf = Shelf(Descriptors(0), Misses())
    file = KeptFile(str(path), number, shelf)
    assert file.value() == 5
    path.unlink()
    assert file.value() is None
    assert shelf.misses.taken() == {"gone": 1}


def test_no_more_descriptors_are_kept_than_may_be(tmp_path: Path) -> None:
    shelf = Shelf(Descriptors(8), Misses())
    before = len(os.listdir("/proc/self/fd"))
    files = []
    for at in range(20):
        (tmp_path / str(at)).write_text(f"{at}\n")
        files.append(KeptFile(str(tmp_path / str(at)), number, shelf, hot=at >= 10))
    for _ in range(2):
        assert [file.value() for file in files] == list(range(20))
    assert sum(file.kept for file in files[:10]) == 6  # a quarter is left for the hot ones
    assert len(os.listdir("/proc/self/fd")) == before + 8
    for file in files:
        file.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_directories_and_fifos_neither_block_nor_raise(tmp_path: Path, shelf: Shelf) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert KeptFile(str(tmp_path / "fifo"), number, shelf).value() is None
    assert KeptFile(str(tmp_path), number, shelf).value() is None


def test_read_whole_is_bounded_and_says_gone(tmp_path: Path) -> None:
    (tmp_path / "procs").write_bytes(b"1\n" * 100_000)
    assert read_whole(str(tmp_path / "procs"), 7) == b"1\n1\n1\n1"
    assert len(read_whole(str(tmp_path / "procs"))) == 200_000
    with pytest.raises(Gone):
        read_whole(str(tmp_path / "none"))


def test_read_whole_goes_on_where_the_kernel_gives_pieces() -> None:
    assert b"[stack]" in read_whole("/proc/self/smaps")  # its last lines; one read gives a page at most
