"""Memory bound, IO weight and freezer as knobs on captured trees: both dialects, which are read, and when."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.kernel.freezer import FreezerV1, FreezerV2, Populated, State
from nodeagent.kernel.io import BlkioV1, DefaultWeight, IoV2, Weight
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.memory import High, MemoryV1, MemoryV2, SoftLimit
from nodeagent.kernel.mounts import Hierarchies, Hierarchy
from nodeagent.kernel.targets import absent
from nodeagent.model.errors import Garbled, Refused, Unsupported
from nodeagent.model.interference import Rung
from nodeagent.model.plan import Change, Kind, Knob, Setting, Value, numeric, shown
from nodeagent.model.pod import Member, PodSpec, Qos
from nodeagent.report.events import UNITS, events
from nodeagent.rpc.convert import KIND, setting_message
from nodeagent.units.properties import INFINITY, property_of, raw, value
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples
from tests.unit.restrained_node import NOISY, restraint

MIB = 1 << 20
HIGH, IO, FREEZE = (Knob(kind, NOISY) for kind in (Kind.MEMORY_HIGH, Kind.IO_WEIGHT, Kind.FREEZE))
V1 = {
    "memory": {"memory.soft_limit_in_bytes": "9223372036854771712"},
    "blkio": {"blkio.bfq.weight": "100"},
    "freezer": {
        "freezer.state": "THAWED",
        "freezer.self_freezing": "0",
        "freezer.parent_freezing": "0",
        "cgroup.procs": "4242",
    },
}
V2 = {
    "memory.high": "max",
    "io.weight": "default 100\n8:0 200",
    "io.bfq.weight": "default 100",
    "cgroup.freeze": "0",
    "cgroup.events": "populated 1\nfrozen 0",
}


class Tree:
    """A captured host of either version with one Batch pod."""

    def __init__(self, root: Path, version: Literal[1, 2]) -> None:
        self.root, self.version = root, version
        if version == 1:
            roots = {name: Hierarchy(1, str(root / name), frozenset({name})) for name in V1}
            for name, files in V1.items():
                self.put({f"{name}/{NOISY}/{file}": text for file, text in files.items()})
            self.knobs = Knobs(Hierarchies(roots, None, tuple(roots.values())))
        else:
            at = Hierarchy(2, str(root), frozenset({"memory", "io"}))
            self.put({f"{NOISY}/{file}": text for file, text in V2.items()})
            self.knobs = Knobs(Hierarchies({"memory": at, "io": at}, str(root), (at,)))

    def put(self, texts: dict[str, str]) -> None:
        for path, text in texts.items():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_text(text + "\n")

    def file(self, name: str) -> Path:
        return next(self.root.rglob(name))

    def found(self, knob: Knob) -> Value:
        (reading,) = self.knobs.read([knob], {})
        return reading.actual

    def write(self, knob: Knob, new: float) -> str:
        (outcome,) = self.knobs.apply([Change(knob, numeric(self.found(knob)), new, "")])
        return outcome.error


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Tree]:
    made = Tree(tmp_path, request.param)
    yield made
    made.knobs.close()


@given(st.just(math.inf) | st.integers(0, 1 << 61).map(float))
def test_a_memory_bound_survives_text_and_back(size: float) -> None:
    assert High("f").parse(High("f").render(size).encode()) == size
    assert SoftLimit("f").parse(SoftLimit("f").render(size).encode()) == size


@pytest.mark.parametrize("page_bytes", [4096, 16384, 65536])
def test_no_limit_is_told_on_every_page_size_of_v1(page_bytes: int) -> None:
    most = ((1 << 63) - 1) // page_bytes * page_bytes
    assert SoftLimit("f").parse(b"%d\n" % most) == math.inf
    written = int(SoftLimit("f").render(math.inf))
    assert min(written // page_bytes * page_bytes, most) == most, "which the kernel makes of what we write"


@given(st.binary(max_size=80))
def test_any_bytes_give_a_value_or_a_value_error(data: bytes) -> None:
    for interface in (High("f"), SoftLimit("f"), Weight("f"), DefaultWeight("f"), Populated("f"), State("f")):
        with contextlib.suppress(ValueError):
            interface.parse(data)


def test_a_fresh_pod_has_no_bound_the_default_weight_and_runs(tree: Tree) -> None:
    assert [tree.found(knob) for knob in (HIGH, IO, FREEZE)] == [math.inf, 1.0, 0.0]
    assert tree.knobs.misses == {}


def test_values_are_written_found_as_written_and_put_back(tree: Tree) -> None:
    texts = {path: path.read_text().split() for path in tree.root.rglob("*.*")}
    for knob, new, old in ((HIGH, 64.0 * MIB, math.inf), (IO, 0.01, 1.0), (FREEZE, 1.0, 0.0)):
        assert tree.write(knob, new) == ""
        assert tree.found(knob) == new
        assert tree.write(knob, old) == ""
    after = {path: path.read_text().split() for path in tree.root.rglob("*.*")}
    for path, words in after.items():
        assert texts[path][: len(words)] == words, "but for what a captured file cannot keep"


def test_a_state_that_is_pending_counts_as_asked_for_and_that_of_a_parent_does_not(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 1)
    tree.file("freezer.state").write_text("FREEZING\n")
    assert tree.found(FREEZE) == 1.0
    tree.file("freezer.parent_freezing").write_text("1\n")
    assert tree.found(FREEZE) == 0.0, "the cgroup around is frozen, this one is not"
    tree.file("freezer.self_freezing").write_text("1\n")
    assert tree.found(FREEZE) == 1.0


def test_bfq_follows_the_weight_of_v2_until_somebody_sets_it_apart(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 2)
    tree.write(IO, 0.01)
    assert tree.file("io.bfq.weight").read_text() == "default 1"
    tree.write(IO, 100.0)
    assert tree.file("io.bfq.weight").read_text() == "default 1000", "as systemd scales it"
    tree.file("io.bfq.weight").write_text("default 500\n")
    tree.write(IO, 0.5)
    assert tree.file("io.bfq.weight").read_text() == "default 500\n"


def test_where_there_is_one_of_the_weights_that_one_is_it(tmp_path: Path) -> None:
    v2 = Tree(tmp_path / "2", 2)
    v2.file("io.weight").unlink()
    assert v2.write(IO, 0.5) == ""
    assert v2.file("io.bfq.weight").read_text() == "default 50"
    v1 = Tree(tmp_path / "1", 1)
    v1.file("blkio.bfq.weight").unlink()
    v1.put({f"blkio/{NOISY}/blkio.weight": "500"})
    (reading,) = v1.knobs.read([IO], {})
    assert (reading.actual, reading.low) == (1.0, 10 / 500)
    assert v1.write(IO, 0.02) == ""
    assert v1.file("blkio.weight").read_text() == "10"


def test_nobody_freezes_the_agent_itself(tree: Tree) -> None:
    procs = tree.file("cgroup.procs") if tree.version == 1 else tree.root / NOISY / "cgroup.procs"
    procs.write_text("4242\n")
    inner = procs.parent / "app"
    inner.mkdir()
    (inner / "cgroup.procs").write_text(f"17\n{os.getpid()}\n")
    assert "the agent itself is in it" in tree.write(FREEZE, 1.0)
    assert tree.found(FREEZE) == 0.0


@pytest.mark.parametrize("version", [1, 2])
def test_an_empty_freezer_takes_only_running_and_a_frozen_one_stays_ours_to_thaw(
    tmp_path: Path, version: Literal[1, 2]
) -> None:
    tree = Tree(tmp_path, version)
    name = "cgroup.procs" if version == 1 else "cgroup.events"
    tree.file(name).write_text("" if version == 1 else "populated 0\nfrozen 0\n")
    (reading,) = tree.knobs.read([FREEZE], {})
    assert reading.high == 0.0
    assert absent([FREEZE], [reading], {NOISY}) == (FREEZE,)
    tree.file("freezer.state" if version == 1 else "cgroup.freeze").write_text(
        "FROZEN\n" if version == 1 else "1\n"
    )
    (reading,) = tree.knobs.read([FREEZE], {})
    assert (reading.actual, reading.high) == (1.0, 1.0)


def test_on_a_hybrid_node_the_v2_tree_freezes(tmp_path: Path) -> None:
    v1 = Hierarchy(1, str(tmp_path / "freezer"), frozenset({"freezer"}))
    v2 = Hierarchy(2, str(tmp_path / "unified"))
    knobs = Knobs(Hierarchies({"freezer": v1}, v2.root, (v1, v2)))
    for root, files in ((v1.root, V1["freezer"]), (v2.root, V2)):
        for name, text in files.items():
            Path(root, NOISY).mkdir(parents=True, exist_ok=True)
            Path(root, NOISY, name).write_text(text + "\n")
    (outcome,) = knobs.apply([Change(FREEZE, 0.0, 1.0, "")])
    assert outcome.ok
    assert Path(v2.root, NOISY, "cgroup.freeze").read_text() == "1"
    assert Path(v1.root, NOISY, "freezer.state").read_text() == "THAWED\n"
    knobs.close()


def test_what_is_not_there_is_absent_and_no_miss(tree: Tree) -> None:
    for name in ("memory.*", "*io.*weight", "cgroup.freeze", "freezer.state"):
        for path in tree.root.rglob(name):
            path.unlink()
    readings = tree.knobs.read([HIGH, IO, FREEZE], {})
    assert (readings, tree.knobs.misses) == ((), {})
    assert absent([HIGH, IO, FREEZE, Knob(Kind.CPUS, "nodeagent")], readings, {NOISY}) == (HIGH, IO, FREEZE)


@pytest.mark.parametrize("dialect", [MemoryV1, MemoryV2, BlkioV1, IoV2, FreezerV1, FreezerV2])
def test_each_dialect_knows_its_own_knob_alone(dialect: type, tmp_path: Path) -> None:
    cgroup = dialect(str(tmp_path))
    for kind in Kind:
        with pytest.raises(Unsupported):
            cgroup.read(kind)


def test_garbled_files_are_garbled(tree: Tree) -> None:
    for name in ("memory.*", "*io.*weight", "cgroup.freeze", "cgroup.events"):
        for path in tree.root.rglob(name):
            path.write_text("nonsense\n")
    readings = tree.knobs.read([HIGH, IO, *([FREEZE] if tree.version == 2 else [])], {})
    assert readings == ()
    assert tree.knobs.misses == {"garbled": 2 if tree.version == 1 else 3}
    with pytest.raises(Garbled):
        (MemoryV1 if tree.version == 1 else MemoryV2)(str(tree.file("memory.*").parent)).read(
            Kind.MEMORY_HIGH
        )


def test_what_the_kernel_refuses_is_refused(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 2)
    with pytest.raises(Refused, match="not written"):
        IoV2(str(tree.root / NOISY)).write(Kind.IO_WEIGHT, 1000.0)


def _member() -> Member:
    spec = PodSpec(uid=NOISY, name="sort", cgroup=NOISY, inode=1, qos=Qos.BATCH, source="exec")
    return Member(spec, nested=(f"{NOISY}/app",))


def test_only_what_a_restraint_sets_is_read(tmp_path: Path) -> None:
    v1 = Hierarchy(1, str(tmp_path), frozenset({"cpuset"}))
    knobs = Knobs(Hierarchies({"cpuset": v1}, None, (v1,)))
    mine = _member()
    assert knobs.restrained_for([(mine, restraint(quota_cores=0.5, idle=True))]) == ()
    away = knobs.restrained_for([(mine, restraint(away_from="0"))])
    paths = {"nodeagent", samples.TIER, NOISY, f"{NOISY}/app"}
    assert set(away) == {Knob(Kind.CPUS, path) for path in paths}
    more = restraint(rung=Rung.FREEZE, memory_high_bytes=1, io_weight=0.1)
    assert set(knobs.restrained_for([(mine, more)])) == {HIGH, IO, FREEZE}


@pytest.mark.parametrize(
    ("kind", "wanted", "name", "told"),
    [
        (Kind.MEMORY_HIGH, math.inf, "MemoryHigh", INFINITY),
        (Kind.MEMORY_HIGH, 64.0 * MIB, "MemoryHigh", 64 * MIB),
        (Kind.IO_WEIGHT, 1.0, "IOWeight", INFINITY),
        (Kind.IO_WEIGHT, 0.01, "IOWeight", 1),
    ],
)
def test_systemd_keeps_bound_and_weight_on_v2(kind: Kind, wanted: float, name: str, told: int) -> None:
    prop = property_of(kind, 2)
    assert prop is not None and prop.name == name
    assert (raw(kind, prop, wanted), value(kind, prop, told)) == (told, wanted)
    assert property_of(kind, 1) is None
    assert property_of(Kind.FREEZE, 2) is None


def test_they_are_told_with_their_units() -> None:
    assert UNITS.keys() == KIND.keys() == set(Kind)
    assert shown(64.0 * MIB, Kind.MEMORY_HIGH) == "64 MiB"
    assert shown(math.inf, Kind.MEMORY_HIGH) == "no limit"
    assert [shown(x, Kind.FREEZE) for x in (0.0, 1.0)] == ["running", "frozen"]
    values = ((HIGH, 64.0 * MIB), (HIGH, math.inf), (IO, 0.25), (FREEZE, 1.0))
    told = [setting_message(Setting(knob, each, "t", "")).value for knob, each in values]
    assert told == [
        pb.KnobValue(bytes=64 * MIB),
        pb.KnobValue(unlimited=True),
        pb.KnobValue(weight_ratio=0.25),
        pb.KnobValue(on=True),
    ]


def test_a_step_that_cannot_be_taken_here_is_told_once() -> None:
    before = samples.tick(1)
    now = replace(before, snapshot=replace(before.snapshot, absent=(IO,)))
    (event,) = [e for e in events(before, now) if e.name == "knob.absent"]
    assert (event.level, event.keys["knob"]) == ("warning", f"io.weight {NOISY}")
    assert not [e for e in events(now, now) if e.name == "knob.absent"]
