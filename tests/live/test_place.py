"""Pod cgroups in the real hierarchies."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.kernel.place import make_pod_cgroup, remove_if_empty, remove_pod_cgroup
from nodeagent.model.errors import AgentError, Failed

pytestmark = pytest.mark.live
TOP = f"na-test-{os.getpid()}-place"
PATH = f"{TOP}/batch/pod"


@pytest.fixture
def hierarchies() -> Iterator[Hierarchies]:
    hierarchies = find_hierarchies()
    try:
        remove_if_empty(hierarchies, PATH)
        make_pod_cgroup(hierarchies, PATH)
        remove_pod_cgroup(hierarchies, PATH)
    except AgentError as error:
        pytest.skip(f"no cgroups can be made here: {error}")
    yield hierarchies
    remove_pod_cgroup(hierarchies, PATH, grace_s=0)
    assert there(hierarchies, TOP) == []


def there(hierarchies: Hierarchies, path: str) -> list[str]:
    return [h.root for h in hierarchies.all if os.path.isdir(f"{h.root}/{path}")]


def test_it_is_made_and_removed_in_every_hierarchy(hierarchies: Hierarchies) -> None:
    placed = make_pod_cgroup(hierarchies, PATH)
    assert there(hierarchies, PATH) == [h.root for h in hierarchies.all]
    assert placed.procs == tuple(f"{h.root}/{PATH}/cgroup.procs" for h in hierarchies.all)
    assert all(os.path.exists(procs) for procs in placed.procs)
    assert remove_pod_cgroup(hierarchies, PATH) == ()
    assert there(hierarchies, TOP) == []


def test_a_process_can_enter_at_once(hierarchies: Hierarchies) -> None:
    placed = make_pod_cgroup(hierarchies, PATH)
    process = subprocess.Popen(["sleep", "1000"])
    for procs in placed.procs:
        Path(procs).write_text(str(process.pid))
    assert not remove_if_empty(hierarchies, PATH)
    assert there(hierarchies, PATH) == [h.root for h in hierarchies.all]
    assert remove_pod_cgroup(hierarchies, PATH) == ()
    assert process.wait() == -15


def test_a_new_v1_cpuset_has_what_its_parent_has(hierarchies: Hierarchies) -> None:
    cpuset = hierarchies.roots.get("cpuset")
    if cpuset is None or cpuset.version != 1:
        pytest.skip("cpuset is not on v1 here")
    make_pod_cgroup(hierarchies, PATH)
    for name in ("cpuset.cpus", "cpuset.mems"):
        wanted = Path(cpuset.root, name).read_text()
        assert wanted.strip()
        assert Path(cpuset.root, PATH, name).read_text() == wanted


def test_a_new_v2_cgroup_has_the_controllers_that_are_there(hierarchies: Hierarchies) -> None:
    if hierarchies.unified is None or hierarchies.roots["cpu"].version != 2:
        pytest.skip("cpu is not on v2 here")
    make_pod_cgroup(hierarchies, PATH)
    root = Path(hierarchies.unified)
    for level in (root, root / TOP, root / TOP / "batch"):
        available = set(Path(level, "cgroup.controllers").read_text().split())
        enabled = set(Path(level, "cgroup.subtree_control").read_text().split())
        assert enabled >= available & {"cpu", "memory", "pids", "io", "cpuset"}
    assert Path(root, PATH, "cpu.max").exists()
    assert Path(root, PATH, "cgroup.subtree_control").read_text().split() == []


def test_a_level_that_others_use_stays(hierarchies: Hierarchies) -> None:
    make_pod_cgroup(hierarchies, PATH)
    other = Path(hierarchies.walk_root, TOP, "batch/other")
    other.mkdir()
    remove_pod_cgroup(hierarchies, PATH)
    assert there(hierarchies, f"{TOP}/batch") == [hierarchies.walk_root]
    other.rmdir()


def test_a_cgroup_that_is_there_is_neither_taken_nor_removed(hierarchies: Hierarchies) -> None:
    last = hierarchies.all[-1].root
    os.makedirs(f"{last}/{PATH}")
    with pytest.raises(Failed, match="exists already"):
        make_pod_cgroup(hierarchies, PATH)
    assert there(hierarchies, PATH) == [last]


def test_removing_what_is_not_there_is_no_error(hierarchies: Hierarchies) -> None:
    assert remove_pod_cgroup(hierarchies, PATH) == ()
    assert remove_if_empty(hierarchies, PATH)
