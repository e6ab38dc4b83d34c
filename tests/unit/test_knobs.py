"""Reading, writing and remembering knobs on captured trees of both versions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from nodeagent.kernel.cgroup import KnobCgroup
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import Hierarchies, Hierarchy
from nodeagent.kernel.targets import limited
from nodeagent.model.plan import Change, Held, Kind, Knob
from nodeagent.model.pod import Member, PodSpec, Qos
from tests.unit import samples

FILES = {
    1: {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000", "cpu.shares": "1024", "cpu.idle": "0"},
    2: {"cpu.max": "max 100000", "cpu.weight": "100", "cpu.idle": "0"},
}
POD = "nodeagent/batch/pod"
QUOTA, WEIGHT = Knob(Kind.CPU_QUOTA, POD), Knob(Kind.CPU_WEIGHT, POD)


class Tree:
    """A captured cpu hierarchy and Knobs upon it."""

    def __init__(self, root: Path, version: int) -> None:
        self.root, self.version = root, version
        hierarchy = Hierarchy(1 if version == 1 else 2, str(root), frozenset({"cpu"}))
        self.hierarchies = Hierarchies({"cpu": hierarchy}, None, (hierarchy,))
        self.knobs = Knobs(self.hierarchies)

    def make(self, target: str) -> Path:
        directory = self.root / target
        directory.mkdir(parents=True)
        for name, text in FILES[self.version].items():
            (directory / name).write_text(text + "\n")
        return directory

    def quota_file(self, target: str) -> Path:
        return self.root / target / ("cpu.cfs_quota_us" if self.version == 1 else "cpu.max")

    def inode(self, target: str) -> int:
        return (self.root / target).stat().st_ino


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def tree(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    monkeypatch.setattr(KnobCgroup, "keeps", False)  # open files of this tree outlive their directory
    made = Tree(tmp_path, request.param)
    made.make(POD)
    yield made
    made.knobs.close()


def member(
    cgroup: str, qos: Qos = Qos.BATCH, tier: str | None = None, nested: tuple[str, ...] = ()
) -> Member:
    spec = PodSpec(uid=cgroup, name=cgroup, cgroup=cgroup, inode=1, qos=qos, source="rule", tier=tier)
    return Member(spec, (), nested)


def test_quota_and_weight_are_read_and_only_a_v1_quota_is_nested(tree: Tree) -> None:
    quota, weight = tree.knobs.read((QUOTA, WEIGHT), {})
    assert (quota.knob, quota.actual, quota.scale, quota.low) == (QUOTA, math.inf, 100_000, 0.01)
    assert quota.nested is (tree.version == 1)
    assert (weight.knob, weight.actual, weight.has_idle, weight.nested) == (WEIGHT, 1.0, True, False)
    assert not quota.held
    assert not weight.held


def test_what_is_not_there_is_left_out(tree: Tree) -> None:
    (tree.root / "bare").mkdir()
    targets = [Knob(Kind.CPU_QUOTA, path) for path in ("bare", "nowhere", "", "../x", "/etc", "a//b", "a\0b")]
    assert tree.knobs.read(targets, {}) == ()
    assert "garbled" not in tree.knobs.misses
    assert "refused" not in tree.knobs.misses


def test_garbled_files_are_left_out_and_counted(tree: Tree) -> None:
    tree.quota_file(POD).write_text("plenty\n")
    assert [r.knob for r in tree.knobs.read((QUOTA, WEIGHT), {})] == [WEIGHT]
    assert tree.knobs.misses == {"garbled": 1}
    tree.quota_file(POD).write_text(FILES[tree.version][tree.quota_file(POD).name])
    assert len(tree.knobs.read((QUOTA, WEIGHT), {})) == 2
    assert tree.knobs.misses == {}


def test_held_knobs_are_read_even_when_nobody_asks_for_them(tree: Tree) -> None:
    (quota,) = tree.knobs.read((), {QUOTA: Held(QUOTA, tree.inode(POD), 2.0, math.inf)})
    assert (quota.original, quota.written, quota.drifted) == (2.0, math.inf, False)


def test_a_cgroup_made_again_is_not_held_and_its_knob_has_vanished(tree: Tree) -> None:
    held = {QUOTA: Held(QUOTA, tree.inode(POD), math.inf, 0.5)}
    assert tree.knobs.read((QUOTA,), held)[0].held
    assert tree.knobs.vanished(held) == ()
    (tree.root / POD).rename(tree.root / "before")
    assert tree.knobs.read((QUOTA,), held) == ()
    assert tree.knobs.vanished(held) == (QUOTA,)
    tree.make(POD)
    (again,) = tree.knobs.read((QUOTA,), held)
    assert not again.held
    assert tree.knobs.vanished(held) == (QUOTA,)


def test_a_knob_whose_file_is_taken_away_has_vanished(tree: Tree) -> None:
    held = {knob: Held(knob, tree.inode(POD), 1.0) for knob in (QUOTA, WEIGHT)}
    tree.quota_file(POD).unlink()
    tree.knobs.read((), held)
    assert tree.knobs.vanished(held) == (QUOTA,)


def test_without_a_cpu_hierarchy_nothing_is_read_and_nothing_counts_as_vanished() -> None:
    blind = Knobs(Hierarchies({}, None, ()))
    held = {QUOTA: Held(QUOTA, 7, 1.0)}
    assert blind.read((QUOTA,), held) == ()
    assert blind.vanished(held) == ()
    assert blind.inode(QUOTA) is None
    assert not blind.apply([Change(QUOTA, 1.0, 0.5, "")])[0].ok


def test_writes_are_read_back_and_one_that_fails_does_not_stop_the_rest(tree: Tree) -> None:
    gone = Knob(Kind.CPU_QUOTA, "nodeagent/batch/gone")
    outcomes = tree.knobs.apply(
        [
            Change(gone, math.inf, 0.5, ""),
            Change(QUOTA, math.inf, 0.001, ""),
            Change(QUOTA, math.inf, 0.25, ""),
            Change(WEIGHT, 1.0, 0.0, ""),
        ]
    )
    assert [outcome.found for outcome in outcomes] == [None, math.inf, 0.25, 0.0]
    assert [outcome.ok for outcome in outcomes] == [False, False, True, True]
    assert "gone" in outcomes[0].error
    assert "not written" in outcomes[1].error
    assert "\n" not in outcomes[0].error + outcomes[1].error
    assert tree.quota_file(POD).read_text() == ("25000" if tree.version == 1 else "25000 100000")


def test_a_give_back_that_has_nothing_to_write_tells_what_another_writer_put_there(tree: Tree) -> None:
    assert tree.knobs.apply([Change(WEIGHT, 1.0, 1.0, "", gives_back=True)])[0].ok
    name = "cpu.shares" if tree.version == 1 else "cpu.weight"
    (tree.root / POD / name).write_text("200\n")
    (outcome,) = tree.knobs.apply([Change(WEIGHT, 1.0, 1.0, "", gives_back=True)])
    assert not outcome.ok
    assert outcome.found == 200 / (1024 if tree.version == 1 else 100)


def test_a_cgroup_made_again_after_the_reading_is_not_written(tree: Tree) -> None:
    tree.knobs.read((QUOTA,), {})
    inode = tree.inode(POD)
    (tree.root / POD).rename(tree.root / "before")
    for name in FILES[tree.version]:
        (tree.root / "before" / name).unlink()
    tree.make(POD)
    assert tree.knobs.inode(QUOTA) == inode
    (outcome,) = tree.knobs.apply([Change(QUOTA, math.inf, 0.5, "")])
    assert not outcome.ok
    assert tree.quota_file(POD).read_text() == FILES[tree.version][tree.quota_file(POD).name] + "\n"


@pytest.mark.parametrize(
    ("memory", "written"),
    [
        (Held(WEIGHT, 0, original=0.0, written=None, pending=3.0), 1.0),
        (Held(WEIGHT, 0, original=2.0, written=0.0, pending=3.0), 1.0),
        (Held(WEIGHT, 0, original=2.0, written=0.5, pending=1.0), 1.0),
        (Held(WEIGHT, 0, original=1.0, written=None, pending=0.0), None),
        (Held(WEIGHT, 0, original=1.0, written=0.0, pending=3.0), None),
    ],
    ids=[
        "original idle, cut short",
        "idle, cut short",
        "written, not confirmed",
        "not written",
        "idle, cut short where it began",
    ],
)
def test_a_write_that_was_cut_short_is_ours(tree: Tree, memory: Held, written: float | None) -> None:
    held = Held(WEIGHT, tree.inode(POD), memory.original, memory.written, memory.pending)
    (reading,) = tree.knobs.read((), {WEIGHT: held})
    assert (reading.actual, reading.written) == (1.0, written)
    assert not reading.drifted
    assert reading.restorable


def test_the_default_weight_from_another_writer_is_not_ours(tree: Tree) -> None:
    held = Held(WEIGHT, tree.inode(POD), original=2.0, written=0.0)
    (reading,) = tree.knobs.read((), {WEIGHT: held})
    assert reading.drifted
    assert not reading.restorable


def test_targets_are_batch_pods_their_tiers_and_what_bounds_them(tree: Tree) -> None:
    members = (
        member("nodeagent/ls/web", Qos.LS, nested=("nodeagent/ls/web/c",)),
        member("nodeagent/batch/sort", tier="nodeagent/batch", nested=("nodeagent/batch/sort/c",)),
        member("machine.slice/vm.slice/job"),
    )
    targets = tree.knobs.targets_for(members, ("empty/tier",))
    weights = {knob.target for knob in targets if knob.kind is Kind.CPU_WEIGHT}
    quotas = {knob.target for knob in targets if knob.kind is Kind.CPU_QUOTA}
    assert weights == {"nodeagent/batch/sort", "nodeagent/batch", "machine.slice/vm.slice/job", "empty/tier"}
    nested = {"nodeagent/batch/sort/c"} if tree.version == 1 else set()
    assert quotas == weights | {"nodeagent", "machine.slice", "machine.slice/vm.slice", "empty"} | nested
    depths = [knob.target.count("/") for knob in targets]
    assert depths == sorted(depths)
    assert len(set(targets)) == len(targets)


def test_descriptors_are_kept_between_reads_and_closed_when_nobody_asks(tree: Tree) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    tree.knobs.read((QUOTA, WEIGHT), {})
    kept = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        tree.knobs.read((QUOTA, WEIGHT), {})
        tree.knobs.apply([Change(QUOTA, math.inf, 0.5, "")])
    assert len(list(Path("/proc/self/fd").iterdir())) == kept > before
    tree.knobs.read((), {})
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_with_more_cgroups_than_descriptors_allow_reading_goes_on_without_keeping_files(tree: Tree) -> None:
    targets = [Knob(kind, f"many/{n}") for n in range(5) for kind in Kind if not kind.of_nic]
    for n in range(5):
        tree.make(f"many/{n}")
    few = Knobs(tree.hierarchies, max_kept=4)
    before = len(list(Path("/proc/self/fd").iterdir()))
    readings = few.read(targets, {})
    assert len(readings) == 10
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 5
    assert few.apply([Change(targets[0], math.inf, 0.5, "")])[0].ok
    assert few.read(targets, {})[0].actual == 0.5
    few.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_quota_and_burst_are_read_of_limited_ls_cgroups_and_of_no_other(tree: Tree) -> None:
    top = "kubepods/podA"
    ls = member(top, Qos.LS, nested=(f"{top}/app", f"{top}/side"))
    assert tree.knobs.bursts_for([]) == ()
    targets = tree.knobs.bursts_for([(ls, frozenset({f"{top}/app"}))])
    assert {k.target for k in targets if k.kind is Kind.CPU_BURST} == {f"{top}/app"}
    held_against = {"kubepods", top, f"{top}/app"} | ({f"{top}/side"} if tree.version == 1 else set())
    assert {k.target for k in targets if k.kind is Kind.CPU_QUOTA} == held_against


def test_a_pod_has_run_under_a_quota_when_the_kernel_has_counted_periods() -> None:
    pod = samples.pod(1, 1000.0, containers=2)
    idle = replace(pod.reading, periods=0)
    app, side = pod.containers
    unlimited = replace(pod, reading=replace(idle, periods=None), containers=())
    assert limited(unlimited) == frozenset()
    one = replace(pod, reading=idle, containers=(app, replace(side, reading=idle)))
    assert limited(one) == {app.cgroup}
    assert limited(pod) == {pod.spec.cgroup, app.cgroup, side.cgroup}


def test_a_knob_that_is_as_it_was_gives_the_reading_of_before_and_any_change_a_new_one(tree: Tree) -> None:
    held = {WEIGHT: Held(WEIGHT, tree.inode(POD), 2.0, 1.0)}
    first, again = (tree.knobs.read((QUOTA, WEIGHT), held) for _ in range(2))
    assert again[0] is first[0] and again[1] is first[1]
    tree.quota_file(POD).write_text("50000\n" if tree.version == 1 else "50000 100000\n")
    quota, weight = tree.knobs.read((QUOTA, WEIGHT), held)
    assert (quota.actual, weight is first[1]) == (0.5, True)
    _, weight = tree.knobs.read((QUOTA, WEIGHT), {WEIGHT: replace(held[WEIGHT], written=3.0)})
    assert weight.written == 3.0
    _, weight = tree.knobs.read((QUOTA, WEIGHT), {})
    assert not weight.held
