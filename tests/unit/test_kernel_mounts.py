"""Hierarchies from mountinfo texts and from captured trees."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.kernel.mounts import find_hierarchies, parse_mountinfo
from nodeagent.model.errors import Unsupported
from tests.unit import trees

MODES = [("v1", trees.V1), ("v1", trees.V1_JOINT), ("hybrid", trees.HYBRID), ("v2", trees.V2)]


def line(order: int, parent: int, point: str, options: str, kind: str = "cgroup", root: str = "/") -> str:
    return f"{order} {parent} 0:{options} {root} {point} rw shared:9 master:1 - {kind} none rw,{options}\n"


@pytest.mark.parametrize(("mode", "tree"), MODES)
def test_each_captured_machine_is_of_its_mode(tmp_path: Path, mode: str, tree: trees.Tree) -> None:
    found = find_hierarchies(trees.plant(tmp_path, tree))
    assert found.mode == mode
    assert found.walk_root == found.roots["cpu"].root
    assert Path(found.walk_root, trees.POD).is_dir()
    assert (found.unified is None) == (mode == "v1")


def test_a_joint_mount_serves_both_of_its_controllers(tmp_path: Path) -> None:
    roots = find_hierarchies(trees.plant(tmp_path, trees.V1_JOINT)).roots
    assert roots["cpu"] is roots["cpuacct"]
    assert roots["cpu"].root == f"{tmp_path}/sys/fs/cgroup/cpu,cpuacct"


def test_v2_controllers_are_those_of_the_root_and_v1_keeps_its_own(tmp_path: Path) -> None:
    roots = find_hierarchies(trees.plant(tmp_path, trees.HYBRID)).roots
    assert roots["hugetlb"].version == 2
    assert roots["cpu"].version == 1
    every = trees.HYBRID | {"sys/fs/cgroup/unified/cgroup.controllers": "cpu hugetlb"}
    assert find_hierarchies(trees.plant(tmp_path, every)).roots["cpu"].version == 1


def test_named_hierarchies_count_in_all_but_have_no_controller(tmp_path: Path) -> None:
    found = find_hierarchies(trees.plant(tmp_path, trees.HYBRID))
    assert [each.name for each in found.all if each.name] == ["systemd"]
    assert "systemd" not in found.roots


def test_octal_escapes_are_undone() -> None:
    found = parse_mountinfo(line(5, 1, r"/a\040b\134c", "cpu"))
    assert found.walk_root == "/a b\\c"


def test_the_mount_of_the_whole_hierarchy_is_preferred_to_a_bind_mount_of_a_part() -> None:
    part, whole = line(5, 1, "/part", "cpu", root="/kubepods"), line(6, 1, "/whole", "cpu")
    assert parse_mountinfo(part + whole).walk_root == "/whole"
    assert parse_mountinfo(part).walk_root == "/part"
    assert len(parse_mountinfo(part + whole).all) == 1


def test_a_mount_under_another_is_not_seen() -> None:
    below, above = line(5, 1, "/sys/fs/cgroup", "cpu"), line(7, 5, "/sys/fs/cgroup", "tmpfs", kind="tmpfs")
    fresh = line(8, 7, "/sys/fs/cgroup/unified", "nsdelegate", kind="cgroup2")
    assert parse_mountinfo(below + above + fresh).mode == "v2"
    later = line(9, 1, "/sys/fs", "tmpfs", kind="tmpfs")
    assert not parse_mountinfo(below + later).all
    assert parse_mountinfo(below + line(9, 1, "/sys/fs/cgroup2", "x", kind="tmpfs")).all


def test_without_any_hierarchy_it_says_what_to_mount(tmp_path: Path) -> None:
    root = trees.plant(tmp_path, {"proc/1/mountinfo": "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"})
    with pytest.raises(Unsupported) as failure:
        find_hierarchies(root)
    assert "agent.host_root" in failure.value.hint


def test_without_proc_it_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="proc/1/mountinfo"):
        find_hierarchies(str(tmp_path))


@given(st.text(), st.integers(0, 900))
def test_garbage_between_the_lines_takes_nothing_away(garbage: str, at: int) -> None:
    lines = trees.HYBRID["proc/1/mountinfo"].splitlines(keepends=True)
    lines.insert(at % (len(lines) + 1), "".join(c for c in garbage if c.isprintable()) + "\n")
    assert parse_mountinfo("".join(lines)).roots.keys() >= {"cpu", "cpuacct", "memory", "pids"}


def test_a_mountinfo_with_thousands_of_other_mounts_is_read_whole(tmp_path: Path) -> None:
    pods = "".join(
        f"{order} 21 0:9 / /var/lib/pod{order} rw - tmpfs tmpfs rw\n" for order in range(1000, 9000)
    )
    tree = trees.HYBRID | {"proc/1/mountinfo": pods + trees.HYBRID["proc/1/mountinfo"]}
    assert find_hierarchies(trees.plant(tmp_path, tree)).mode == "hybrid"
