"""CgroupWatch on tmp_path; what only cgroupfs or a limit can show is in tests/live/test_watch.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.tree import walk
from nodeagent.kernel.watch import CgroupWatch


@pytest.fixture
def watch() -> Iterator[CgroupWatch]:
    watch = CgroupWatch()
    yield watch
    watch.close()


def settle(watch: CgroupWatch, root: Path) -> None:
    while watch.sync(str(root), walk(str(root))):
        pass
    watch.drain()


def test_a_new_and_a_vanished_directory_are_told(watch: CgroupWatch, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    settle(watch, tmp_path)
    assert not watch.drain()

    (tmp_path / "a/b").mkdir()
    assert watch.drain()
    assert not watch.drain()

    (tmp_path / "a/b").rmdir()
    assert watch.drain()


def test_files_are_no_change(watch: CgroupWatch, tmp_path: Path) -> None:
    settle(watch, tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").unlink()
    assert not watch.drain()


def test_a_directory_made_between_walk_and_watch_is_not_lost(watch: CgroupWatch, tmp_path: Path) -> None:
    dirs = walk(str(tmp_path))
    (tmp_path / "late").mkdir()
    assert watch.sync(str(tmp_path), dirs)
    assert not watch.sync(str(tmp_path), walk(str(tmp_path)))


def test_a_directory_removed_between_walk_and_watch_is_not_lost(watch: CgroupWatch, tmp_path: Path) -> None:
    (tmp_path / "early").mkdir()
    dirs = walk(str(tmp_path))
    (tmp_path / "early").rmdir()
    assert watch.sync(str(tmp_path), dirs)
    assert not watch.degraded


def test_what_is_no_longer_wanted_is_no_longer_watched(watch: CgroupWatch, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    settle(watch, tmp_path)
    watch.sync(str(tmp_path), [d for d in walk(str(tmp_path)) if d.path == ""])
    watch.drain()
    (tmp_path / "a/b").mkdir()
    assert not watch.drain()


def test_a_recreated_directory_is_watched_anew(watch: CgroupWatch, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    settle(watch, tmp_path)
    (tmp_path / "a").rename(tmp_path / "other")
    (tmp_path / "a").mkdir()
    settle(watch, tmp_path)
    (tmp_path / "a/b").mkdir()
    assert watch.drain()


def test_a_closed_watch_says_nothing(watch: CgroupWatch, tmp_path: Path) -> None:
    watch.close()
    assert watch.fileno() == -1
    assert not watch.sync(str(tmp_path), walk(str(tmp_path)))
    assert not watch.drain()
