"""Disks that take no more: the journal stops, leaves no torn frame, and goes on when there is room again."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.journal import Journal, read_segments
from nodeagent.model.decision import Memory
from nodeagent.model.policy import Policy
from tests.unit import samples

POLICY = Policy()


def read(state: Path) -> tuple[list[int], list[str]]:
    """Numbers of the ticks that are in the journal, and the warnings."""
    warnings: list[str] = []
    segments = read_segments(state / "journal", warnings.append)
    return [tick.snapshot.seq for segment in segments for tick in segment.ticks()], warnings


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB, mounted here alone."""
    where = tmp_path / f"na-test-{os.getpid()}-disk"
    where.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"na-test", os.fsencode(where), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip(f"cannot mount a tmpfs: {os.strerror(ctypes.get_errno())}")
    try:
        yield where
    finally:
        assert libc.umount2(os.fsencode(where), 2) == 0


def test_a_full_disk_stops_the_journal_and_it_goes_on_when_there_is_room_again(small_disk: Path) -> None:
    journal = Journal(small_disk)
    seq = 0
    while not journal.stopped:
        seq += 1
        assert seq < 1000
        journal.append(samples.tick(seq, pods=20), POLICY, Memory())
    assert "No space left on device" in journal.stopped
    full_at, written = 1000.0 + seq, journal.ticks_written
    assert written == seq - 1
    assert read(small_disk) == (list(range(1, seq)), [])

    journal.append(samples.tick(seq + 1, at=full_at + 59.0), POLICY, Memory())
    assert journal.ticks_written == written  # not yet tried again
    journal.append(samples.tick(seq + 2, at=full_at + 61.0, pods=20), POLICY, Memory())
    assert (journal.ticks_written, bool(journal.stopped)) == (written, True)  # tried, still full

    next((small_disk / "journal").iterdir()).unlink()
    journal.append(samples.tick(seq + 3, at=full_at + 130.0), POLICY, Memory())
    assert (journal.ticks_written, journal.stopped) == (written + 1, "")
    journal.close()
    assert read(small_disk) == ([seq + 3], [])


def test_a_read_only_disk_stops_the_journal(small_disk: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(None, os.fsencode(small_disk), None, 32 | 1, None) == 0  # MS_REMOUNT | MS_RDONLY
    journal = Journal(small_disk)
    journal.append(samples.tick(1), POLICY, Memory())
    assert "Read-only file system" in journal.stopped


def test_a_file_size_limit_stops_the_journal_without_a_torn_frame(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        for seq in range(1, 60):
            journal.append(samples.tick(seq, pods=20), POLICY, Memory())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in journal.stopped
    assert read(tmp_path) == (list(range(1, journal.ticks_written + 1)), [])
