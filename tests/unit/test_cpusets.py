"""CPUs and memory nodes as knobs on captured trees of both versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from nodeagent.core.diff import diff
from nodeagent.kernel.cgroup_v1 import CpusetV1
from nodeagent.kernel.cgroup_v2 import CpusetV2
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import Hierarchies, Hierarchy
from nodeagent.model.cpuset import MAX_CPUS, CpuSet
from nodeagent.model.errors import Garbled, Unsupported
from nodeagent.model.plan import Change, Held, Kind, Knob
from nodeagent.model.pod import Member, PodSpec, Qos

POD = "nodeagent/batch/pod"
CPUS, MEMS, MIGRATE = (Knob(kind, POD) for kind in (Kind.CPUS, Kind.MEMS, Kind.MIGRATE))
FILES = {
    1: {"cpuset.cpus": "0-3", "cpuset.mems": "0-1", "cpuset.memory_migrate": "0"},
    2: {
        "cpuset.cpus": "",
        "cpuset.cpus.effective": "0-3",
        "cpuset.mems": "1",
        "cpuset.mems.effective": "1",
    },
}


class Tree:
    """A captured cpuset hierarchy with one pod, apart from that of cpu."""

    def __init__(self, root: Path, version: Literal[1, 2]) -> None:
        self.root, self.version = root / "cpuset", version
        self.make("")
        self.make(POD)
        (root / "cpu" / POD).mkdir(parents=True)
        cpuset = Hierarchy(version, str(self.root), frozenset({"cpuset"}))
        cpu = Hierarchy(version, str(root / "cpu"), frozenset({"cpu"}))
        self.knobs = Knobs(Hierarchies({"cpu": cpu, "cpuset": cpuset}, None, (cpu, cpuset)))

    def make(self, target: str) -> None:
        (self.root / target).mkdir(parents=True)
        for name, text in FILES[self.version].items():
            (self.root / target / name).write_text(text + "\n")

    def put(self, target: str, name: str, text: str) -> None:
        (self.root / target / name).write_text(text)

    def text(self, name: str) -> str:
        return (self.root / POD / name).read_text()

    def inode(self) -> int:
        return (self.root / POD).stat().st_ino


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tree]:
    made = Tree(tmp_path, request.param)
    yield made
    made.knobs.close()


def test_sets_are_read_with_what_holds_and_what_may_be_asked_for(tree: Tree) -> None:
    found = {reading.knob: reading for reading in tree.knobs.read((CPUS, MEMS, MIGRATE), {})}
    cpus, mems = found[CPUS], found[MEMS]
    if tree.version == 1:
        assert (cpus.actual, cpus.effective, cpus.allowed, cpus.nested) == ("0-3", "0-3", "0-3", True)
        assert (mems.actual, mems.effective, mems.allowed, mems.nested) == ("0-1", "0-1", "0-1", True)
        assert (found[MIGRATE].actual, found[MIGRATE].nested) == (0.0, False)
    else:
        assert (cpus.actual, cpus.effective, cpus.allowed, cpus.nested) == ("", "0-3", "", False)
        assert (mems.actual, mems.effective, mems.allowed, mems.nested) == ("1", "1", "", False)
        assert MIGRATE not in found
    assert tree.knobs.misses == {}


def test_sets_are_written_and_read_back(tree: Tree) -> None:
    tree.knobs.read((CPUS, MEMS), {})
    outcomes = tree.knobs.apply([Change(CPUS, "0-3", "1,3", ""), Change(MEMS, "0-1", "0", "")])
    assert [outcome.error for outcome in outcomes] == ["", ""]
    assert [outcome.found for outcome in outcomes] == ["1,3", "0"]
    assert tree.text("cpuset.cpus") == "1,3"
    (emptied,) = tree.knobs.apply([Change(CPUS, "1,3", "", "")])
    assert emptied.ok
    assert tree.text("cpuset.cpus") == "\n", "a write of nothing would do nothing"


def test_pages_are_told_to_follow_on_v1_alone(tree: Tree) -> None:
    (outcome,) = tree.knobs.apply([Change(MIGRATE, 0.0, 1.0, "")])
    assert outcome.ok is (tree.version == 1)
    if outcome.ok:
        assert tree.text("cpuset.memory_migrate") == "1"


def test_a_cgroup_that_the_cpuset_hierarchy_does_not_have_is_no_miss(tree: Tree) -> None:
    nowhere = Knob(Kind.CPUS, "machine.slice/vm")
    assert tree.knobs.read((nowhere,), {}) == ()
    assert tree.knobs.misses == {}
    held = {nowhere: Held(nowhere, 5, "0-3", "0")}
    assert tree.knobs.vanished(held) == (nowhere,)


def test_without_the_controller_the_knob_is_absent(tree: Tree) -> None:
    (tree.root / POD / "cpuset.cpus").unlink()
    assert [reading.knob for reading in tree.knobs.read((CPUS, MEMS), {})] == [MEMS]
    assert tree.knobs.misses == {}
    (outcome,) = tree.knobs.apply([Change(CPUS, "0", "1", "")])
    assert "cpuset controller may be off" in outcome.error
    assert not (tree.root / POD / "cpuset.cpus").exists()


def test_each_hierarchy_has_its_own_inode(tree: Tree) -> None:
    quota = Knob(Kind.CPU_QUOTA, POD)
    tree.knobs.read((CPUS, quota), {})
    assert tree.knobs.inode(CPUS) == tree.inode() != tree.knobs.inode(quota)


def test_a_cpu_that_went_offline_is_nobodys_write_on_v1(tree: Tree) -> None:
    if tree.version != 1:
        pytest.skip("v2 keeps offline CPUs in the set")
    held = {CPUS: Held(CPUS, tree.inode(), "0-3", "2-3")}
    tree.put("", "cpuset.cpus", "0-2\n")
    tree.put(POD, "cpuset.cpus", "2\n")
    (reading,) = tree.knobs.read((), held)
    assert (reading.original, reading.written, reading.drifted) == ("0-2", "2", False)
    (back,) = diff({}, [reading])
    assert (back.new, back.gives_back) == ("0-2", True)


def test_a_union_that_a_crash_left_behind_is_ours(tree: Tree) -> None:
    tree.put(POD, "cpuset.cpus", "0-3\n")
    for original in ("0-3", "0"):
        held = {CPUS: Held(CPUS, tree.inode(), original, "0-1", "2-3")}
        (reading,) = tree.knobs.read((), held)
        assert not reading.drifted
        assert reading.restorable
    (foreign,) = tree.knobs.read((), {CPUS: Held(CPUS, tree.inode(), "0", "0-1", "2")})
    assert foreign.drifted


@pytest.mark.parametrize("text", ["x", "3-1", "0-", "-1", "0-3 5", "\0", "9" * 6, "٣"])
@pytest.mark.parametrize("dialect", [CpusetV1, CpusetV2])
def test_garbled_sets_are_garbled(tmp_path: Path, dialect: type[CpusetV1 | CpusetV2], text: str) -> None:
    (tmp_path / "cpuset.cpus").write_text(text)
    with pytest.raises(Garbled, match=str(tmp_path)):
        dialect(str(tmp_path)).read(Kind.CPUS)


def test_the_longest_list_of_8192_cpus_is_read_whole(tmp_path: Path) -> None:
    every_other = CpuSet(range(1, 8192, 2))
    assert max(every_other) < MAX_CPUS
    (tmp_path / "cpuset.cpus").write_text(f"{every_other}\n")
    assert CpusetV1(str(tmp_path)).read(Kind.CPUS).actual == str(every_other)


def test_v2_has_no_switch_for_pages(tmp_path: Path) -> None:
    cgroup = CpusetV2(str(tmp_path))
    with pytest.raises(Unsupported, match="memory_migrate"):
        cgroup.read(Kind.MIGRATE)
    with pytest.raises(Unsupported, match="memory_migrate"):
        cgroup.write(Kind.MIGRATE, 1.0)


def member(cgroup: str, qos: Qos, *nested: str, tier: str | None = None, bind: bool = False) -> Member:
    spec = PodSpec(
        uid=cgroup, name=cgroup, cgroup=cgroup, inode=1, qos=qos, source="rule", tier=tier, numa_bind=bind
    )
    return Member(spec, (), tuple(f"{cgroup}/{name}" for name in nested))


def _targets(tree: Tree, *members: Member) -> dict[Kind, set[str]]:
    targets = tree.knobs.targets_for(members, ("nodeagent/batch",), ("nodeagent/ls",))
    depths = [knob.target.count("/") for knob in targets]
    assert depths == sorted(depths)
    return {kind: {knob.target for knob in targets if knob.kind is kind} for kind in Kind}


def test_the_sets_of_batch_pods_of_pools_and_of_what_is_around_them_are_read(tree: Tree) -> None:
    web, job = member("a/web", Qos.LS, "c"), member("q/job", Qos.BATCH, "c")
    found = _targets(tree, web, job)
    inner = {"q/job/c"} if tree.version == 1 else set()
    pools = {"nodeagent", "nodeagent/batch", "nodeagent/ls"}
    assert found[Kind.CPUS] == found[Kind.MEMS] == {"q", "q/job", *inner, *pools}
    assert found[Kind.MIGRATE] == set()


def test_with_a_pod_that_binds_the_sets_of_all_pods_are_read(tree: Tree) -> None:
    bound, web = member("a/db", Qos.LS, "c", bind=True), member("a/web", Qos.MID, "c")
    found = _targets(tree, bound, web)
    inner = {"a/db/c", "a/web/c"} if tree.version == 1 else set()
    assert found[Kind.CPUS] >= {"a", "a/db", "a/web", *inner}
    assert found[Kind.MIGRATE] == ({"a/db", "a/db/c"} if tree.version == 1 else set())


def test_tasks_that_v1_moved_up_are_brought_back_when_their_set_holds_cpus_again(tree: Tree) -> None:
    above = POD.rpartition("/")[0]
    cpu = tree.root.parent / "cpu"
    (cpu / POD / "cgroup.procs").write_text("11\n12\n")
    tree.put(above, "cgroup.procs", "9\n11\n")
    tree.put(POD, "cgroup.procs", "12\n")
    tree.put(POD, "cpuset.cpus", "\n")
    tree.knobs.read((CPUS,), {})
    tree.knobs.apply([Change(CPUS, "", "2", "")])
    assert tree.text("cgroup.procs") == ("11" if tree.version == 1 else "12\n")
