"""Whose pages move: either all processes of a pod are listed, or it is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.kernel.page_owners import MAX_CGROUPS, MAX_PROCESSES, owners
from nodeagent.model.errors import Failed, Refused, Unsupported


def listing(root: Path, cgroup: str, text: str) -> None:
    (root / cgroup).mkdir(parents=True)
    (root / cgroup / "cgroup.procs").write_text(text)


def test_processes_are_those_of_the_pod_and_of_all_cgroups_below_it(tmp_path: Path) -> None:
    listing(tmp_path, "pod", "")
    listing(tmp_path, "pod/b", "30\n7\n")
    listing(tmp_path, "pod/b/c", "8\n0\n")
    listing(tmp_path, "other", "9\n")
    assert owners(str(tmp_path), "pod") == [7, 8, 30]


def test_an_empty_cgroup_and_one_that_vanished_have_no_processes(tmp_path: Path) -> None:
    listing(tmp_path, "pod", "")
    (tmp_path / "pod" / "going").mkdir()
    assert owners(str(tmp_path), "pod") == owners(str(tmp_path), "gone") == []


def test_processes_of_another_pid_namespace_are_not_no_processes(tmp_path: Path) -> None:
    listing(tmp_path, "pod", "")
    listing(tmp_path, "pod/a", "0\n0\n")
    with pytest.raises(Unsupported, match="processes of this pod are not visible here"):
        owners(str(tmp_path), "pod")


def test_a_list_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod" / "cgroup.procs").symlink_to("cgroup.procs")
    with pytest.raises(Refused, match=r"cgroup\.procs"):
        owners(str(tmp_path), "pod")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(Refused):
        owners(str(tmp_path), "loop")


@pytest.mark.parametrize("more", [0, 1, MAX_PROCESSES])
def test_more_processes_than_are_looked_at_are_an_error(tmp_path: Path, more: int) -> None:
    listing(tmp_path, "pod", "".join(f"{4000000 + number}\n" for number in range(MAX_PROCESSES + more)))
    if more:
        with pytest.raises(Failed, match="more than"):
            owners(str(tmp_path), "pod")
    else:
        assert len(owners(str(tmp_path), "pod")) == MAX_PROCESSES


def test_more_cgroups_than_are_looked_at_are_an_error(tmp_path: Path) -> None:
    listing(tmp_path, "pod", "1\n")
    for number in range(MAX_CGROUPS - 1):
        listing(tmp_path, f"pod/{number}", "")
    assert owners(str(tmp_path), "pod") == [1]
    listing(tmp_path, "pod/one-more", "")
    with pytest.raises(Failed, match="more than"):
        owners(str(tmp_path), "pod")
