"""The walk on directory trees in tmp_path: the kernel's directories behave the same here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nodeagent.kernel.tree import subdirectories, walk
from nodeagent.model.errors import Failed, Gone, Refused


def test_a_walk_lists_every_directory_below_its_parent_with_its_inode(tmp_path: Path) -> None:
    for path in ("b/y", "a/x/deep", "a-b", "a/w"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "a/cgroup.procs").write_text("1\n")
    (tmp_path / "link").symlink_to(tmp_path / "a")

    dirs = walk(str(tmp_path))

    assert [d.path for d in dirs] == ["", "a", "a/w", "a/x", "a/x/deep", "a-b", "b", "b/y"]
    assert all(d.inode == (tmp_path / d.path).stat().st_ino for d in dirs)


def test_directories_below_the_depth_limit_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "1/2/3/4").mkdir(parents=True)
    assert [d.path for d in walk(str(tmp_path), max_depth=2)] == ["", "1", "1/2"]


def test_more_directories_than_allowed_fail_with_a_hint(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"d{number}").mkdir()
    assert len(walk(str(tmp_path), max_dirs=7)) == 7
    with pytest.raises(Failed, match="more than 6 cgroups") as caught:
        walk(str(tmp_path), max_dirs=6)
    assert caught.value.hint


def test_a_missing_root_raises(tmp_path: Path) -> None:
    with pytest.raises(Gone, match="nothing-here"):
        walk(str(tmp_path / "nothing-here"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every directory")
def test_an_unreadable_directory_raises(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir(mode=0o000)
    with pytest.raises(Refused, match="secret"):
        walk(str(tmp_path))


def test_names_that_are_not_utf8_are_left_out(tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/bad\xff")
    (tmp_path / "gut-ä").mkdir()
    assert [d.path for d in walk(str(tmp_path))] == ["", "gut-ä"]


def test_subdirectories_of_a_vanished_directory_are_none(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    assert [d.path for d in subdirectories(str(tmp_path), "a")] == ["a/b"]
    assert subdirectories(str(tmp_path), "gone") == ()
