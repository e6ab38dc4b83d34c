"""Knobs on the real kernel: what it couples, what it refuses, and that kill -9 can always be undone."""

from __future__ import annotations

import itertools
import math
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.core.diff import diff
from nodeagent.kernel.cgroup_v1 import CpuV1
from nodeagent.kernel.cgroup_v2 import CpuV2
from nodeagent.kernel.cpu import CpuCgroup
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.kernel.reader import boot_id
from nodeagent.model.errors import AgentError, Refused
from nodeagent.model.plan import Change, Kind, Knob, Plan, Setting, one_owner
from nodeagent.originals import Originals
from nodeagent.restore import give_back, restore

pytestmark = pytest.mark.live

KILLS = 50
FILES = ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "cpu.max", "cpu.weight", "cpu.idle")
_names = itertools.count()


class Place:
    """A cgroup of this test in the real cpu hierarchy, with cgroups in it."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self.hierarchies = hierarchies
        self.version = hierarchies.roots["cpu"].version
        self.target = f"na-test-{os.getpid()}-{next(_names)}"
        self.path = Path(hierarchies.roots["cpu"].root) / self.target
        self.path.mkdir()

    def make(self, name: str) -> str:
        parent = (self.path / name).parent
        if self.version == 2:
            (parent / "cgroup.subtree_control").write_text("+cpu")
        (self.path / name).mkdir()
        return f"{self.target}/{name}"

    def dialect(self, name: str = "") -> CpuCgroup:
        return (CpuV1 if self.version == 1 else CpuV2)(str(self.path / name))

    def texts(self) -> dict[str, str]:
        """Every knob file of this subtree, as it is."""
        found = [path for path in sorted(self.path.rglob("*")) if path.name in FILES]
        own = [self.path / name for name in FILES if (self.path / name).exists()]
        return {str(path.relative_to(self.path)): path.read_text() for path in {*own, *found}}

    def remove(self) -> None:
        for directory, _, _ in os.walk(self.path, topdown=False):
            os.rmdir(directory)


@pytest.fixture
def place() -> Iterator[Place]:
    hierarchies = find_hierarchies()
    if "cpu" not in hierarchies.roots:
        pytest.skip("no cpu controller on this host")
    try:
        made = Place(hierarchies)
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        if not (made.path / "cpu.idle").exists():
            pytest.skip("no cpu.idle here: Linux before 5.15, or the cpu controller is off at the root")
        yield made
    finally:
        made.remove()


@pytest.fixture
def knobs(place: Place) -> Iterator[Knobs]:
    made = Knobs(place.hierarchies)
    yield made
    made.close()


def refused(cgroup: CpuCgroup, what: str, value: object) -> str:
    with pytest.raises(Refused) as error:
        setattr(cgroup, what, value)
    return str(error.value)


def test_the_kernel_refuses_a_weight_while_idle_and_resets_it_on_leaving_idle(place: Place) -> None:
    cgroup = place.dialect()
    default = cgroup.weight
    assert default == cgroup.default_weight
    cgroup.weight = 3 * default
    cgroup.idle = True
    assert "EINVAL" in refused(cgroup, "weight", default)
    cgroup.idle = False
    assert cgroup.weight == default


def test_a_weight_goes_to_idle_and_from_idle_to_any_weight(place: Place) -> None:
    cgroup = place.dialect()
    for value in (0.0, 2.0, 0.5, 0.0, 1.0, 0.0, cgroup.max_weight / cgroup.default_weight):
        cgroup.write(Kind.CPU_WEIGHT, value)
        assert cgroup.read(Kind.CPU_WEIGHT).actual == value


def test_every_edge_of_the_ranges_is_taken_as_written(place: Place) -> None:
    cgroup = place.dialect()
    for kind in Kind:
        found = cgroup.read(kind)
        for value in (found.low, found.high, found.actual):
            cgroup.write(kind, value)
            assert cgroup.read(kind).actual == value


def test_a_quota_below_1000_us_is_refused_by_the_kernel_with_its_errno_in_the_line(place: Place) -> None:
    cgroup = place.dialect()
    what, value = ("cfs_quota_us", 999.0) if place.version == 1 else ("max", (999.0, 100_000))
    line = refused(cgroup, what, value)
    assert "EINVAL" in line
    assert "999" in line
    assert str(place.path) in line


def test_a_period_that_is_not_the_default_is_kept(place: Place, knobs: Knobs) -> None:
    if place.version == 1:
        (place.path / "cpu.cfs_period_us").write_text("40000")
    else:
        (place.path / "cpu.max").write_text("max 40000")
    quota = Knob(Kind.CPU_QUOTA, place.target)
    (outcome,) = knobs.apply([Change(quota, math.inf, 0.3, "")])
    assert outcome.ok
    texts = place.texts()
    assert texts.get("cpu.max", "12000 40000\n") == "12000 40000\n"
    assert texts.get("cpu.cfs_quota_us", "12000\n") == "12000\n"
    assert texts.get("cpu.cfs_period_us", "40000\n") == "40000\n"


def test_a_child_quota_above_its_parents_is_refused_on_v1_and_told(place: Place, knobs: Knobs) -> None:
    if place.version != 1:
        pytest.skip("v2 takes any quota and enforces the smaller one")
    parent, child = Knob(Kind.CPU_QUOTA, place.target), Knob(Kind.CPU_QUOTA, place.make("child"))
    above, under = knobs.apply([Change(parent, math.inf, 0.5, ""), Change(child, math.inf, 0.6, "")])
    assert above.ok
    assert "EINVAL" in under.error
    assert "60000" in under.error
    assert "around it" in under.error
    assert "\n" not in under.error
    assert under.found == math.inf
    (fits,) = knobs.apply([Change(child, math.inf, 0.5, "")])
    (tighter,) = knobs.apply([Change(parent, 0.5, 0.4, "")])
    assert fits.ok
    assert "EINVAL" in tighter.error
    assert tighter.found == 0.5


def test_a_cgroup_that_is_removed_and_made_again_is_neither_read_nor_written_as_the_old_one(
    place: Place, knobs: Knobs, tmp_path: Path
) -> None:
    quota = Knob(Kind.CPU_QUOTA, place.make("pod"))
    originals = Originals(str(tmp_path), "boot")
    (reading,) = knobs.read([quota], {})
    changes = originals.intend([Change(quota, reading.actual, 0.5, "")], knobs.inode)
    originals.confirm(knobs.apply(changes))
    (place.path / "pod").rmdir()
    assert not knobs.apply([Change(quota, 0.5, 0.25, "")])[0].ok
    place.make("pod")
    before = place.texts()
    (outcome,) = knobs.apply([Change(quota, 0.5, 0.25, "")])
    assert not outcome.ok
    assert place.texts() == before
    assert not knobs.read([quota], originals.held)[0].held
    restored = give_back(originals, knobs)
    assert restored.gone == (quota,)
    assert place.texts() == before


def test_the_root_cgroup_has_no_knob(place: Place, knobs: Knobs) -> None:
    assert knobs.read([Knob(kind, "") for kind in Kind], {}) == ()


def wild_plan(rng: random.Random, targets: tuple[Knob, ...]) -> Plan:
    """Random settings for some of the knobs; the others are given back."""

    def value(knob: Knob) -> float:
        if knob.kind is Kind.CPU_QUOTA:
            return rng.choice([math.inf, rng.uniform(0.01, 3.0)])
        return rng.choice([0.0, 1.0, rng.uniform(0.01, 90.0)])

    return one_owner(Setting(knob, value(knob), "test", "") for knob in targets if rng.random() < 0.7)


def agent(place: Place, state: Path, targets: tuple[Knob, ...], seed: int, turned: int) -> None:
    """What the loop does with knobs, without end and without rest; a byte to `turned` after each turn."""
    rng = random.Random(seed)
    originals, knobs = Originals(str(state), "boot"), Knobs(place.hierarchies)
    while True:
        readings = knobs.read(targets, originals.held)
        if any(reading.drifted for reading in readings):
            os._exit(3)  # nobody else writes here, so every value must be known as ours
        changes = originals.intend(diff(wild_plan(rng, targets), readings), knobs.inode)
        outcomes = knobs.apply(changes)
        if any(not outcome.ok for outcome in outcomes):
            os._exit(4)
        originals.confirm(outcomes)
        os.write(turned, b".")


def killed_agent(place: Place, state: Path, targets: tuple[Knob, ...], seed: int) -> int:
    """Fork the agent, SIGKILL it at a random instant of one of its first turns; its wait status."""
    rng = random.Random(-seed)
    turned, writing = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            agent(place, state, targets, seed, writing)
        finally:
            os._exit(5)
    os.close(writing)
    turns = rng.randint(0, 5)
    for _ in range(turns):
        os.read(turned, 1)
    time.sleep(rng.random() * (time.monotonic() - began) / (turns + 1))  # the instant is what is tested
    os.kill(pid, signal.SIGKILL)
    os.close(turned)
    return os.waitpid(pid, 0)[1]


def peculiar(place: Place) -> tuple[Knob, ...]:
    """Cgroups whose originals differ in every way; their knobs."""
    for name in ("idle", "heavy", "heavy/inner"):
        place.make(name)
    quotas = {"": (150_000, 100_000), "heavy": (50_000, 50_000), "heavy/inner": (20_000, 100_000)}
    for name, (quota_us, period_us) in quotas.items():
        directory = place.path / name
        if place.version == 1:
            (directory / "cpu.cfs_period_us").write_text(str(period_us))
            (directory / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (directory / "cpu.max").write_text(f"{quota_us} {period_us}")
    (place.path / "idle" / "cpu.idle").write_text("1")
    place.dialect("heavy").weight = 3333
    names = (place.target, *(f"{place.target}/{name}" for name in ("idle", "heavy", "heavy/inner")))
    return tuple(Knob(kind, target) for kind in Kind for target in names)


def test_after_kill_9_at_random_instants_restore_puts_every_file_back(place: Place, tmp_path: Path) -> None:
    targets = peculiar(place)
    first = place.texts()
    changed = interrupted = 0
    for turn in range(KILLS):
        status = killed_agent(place, tmp_path, targets, turn)
        assert os.WIFSIGNALED(status), f"turn {turn}: exit status {os.waitstatus_to_exitcode(status)}"
        changed += place.texts() != first
        if turn % 3 == 0 and turn < KILLS - 1:
            continue  # the next life takes over from here
        originals, knobs = Originals(str(tmp_path), "boot"), Knobs(place.hierarchies)
        interrupted += any(held.pending is not None for held in originals.held.values())
        restored = give_back(originals, knobs)
        knobs.close()
        originals.close()
        assert not restored.left + restored.gone
        assert not restored.failed
        assert place.texts() == first, f"turn {turn}"
    assert changed > KILLS // 4
    assert interrupted > 0


def test_restore_finds_the_host_and_the_boot_by_itself(place: Place, knobs: Knobs, tmp_path: Path) -> None:
    first = place.texts()
    originals = Originals(str(tmp_path), boot_id())
    quota, weight = (Knob(kind, place.target) for kind in (Kind.CPU_QUOTA, Kind.CPU_WEIGHT))
    knobs.read([quota, weight], {})
    originals.intend([Change(quota, math.inf, 0.5, ""), Change(weight, 1.0, 0.0, "")], knobs.inode)
    knobs.apply([Change(quota, math.inf, 0.5, ""), Change(weight, 1.0, 0.0, "")])
    originals.close()
    assert place.texts() != first
    restored = restore(str(tmp_path))
    assert {outcome.change.knob for outcome in restored.put_back} == {quota, weight}
    assert place.texts() == first


def test_values_of_another_writer_are_left_and_told(place: Place, knobs: Knobs, tmp_path: Path) -> None:
    quota, weight = (Knob(kind, place.target) for kind in (Kind.CPU_QUOTA, Kind.CPU_WEIGHT))
    originals = Originals(str(tmp_path), "boot")
    knobs.read([quota, weight], {})
    changes = originals.intend([Change(quota, math.inf, 0.5, ""), Change(weight, 1.0, 0.0, "")], knobs.inode)
    originals.confirm(knobs.apply(changes))
    place.dialect().write(Kind.CPU_QUOTA, 0.75)
    restored = give_back(originals, knobs)
    assert [(reading.knob, reading.actual) for reading in restored.left] == [(quota, 0.75)]
    assert [outcome.change.knob for outcome in restored.put_back] == [weight]
    assert dict(originals.held) == {}
    assert knobs.read([quota, weight], {})[0].actual == 0.75
    assert knobs.read([quota, weight], {})[1].actual == 1.0


def test_reading_goes_on_while_cgroups_come_and_go(place: Place, knobs: Knobs) -> None:
    place.make("first")
    names = [f"p{n}" for n in range(8)]
    targets = [Knob(kind, f"{place.target}/{name}") for name in names for kind in Kind]
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                for name in names:
                    (place.path / name).mkdir(exist_ok=True)
                for name in names:
                    (place.path / name).rmdir()
        finally:
            os._exit(1)
    try:
        until, turns = time.monotonic() + 30.0, 0
        seen: set[int] = set()
        while (len(seen) < 3 or turns < 200) and time.monotonic() < until:
            turns += 1
            readings = knobs.read(targets, {})
            seen.add(len(readings))
            knobs.apply([Change(reading.knob, reading.actual, 0.5, "") for reading in readings])
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(seen) >= 3
    assert knobs.misses.keys() <= {"gone"}


def test_a_target_that_leads_out_of_the_hierarchy_is_not_opened(place: Place, knobs: Knobs) -> None:
    (outcome,) = knobs.apply([Change(Knob(Kind.CPU_QUOTA, f"x/../{place.target}"), math.inf, 0.5, "")])
    assert not outcome.ok
    with pytest.raises(AgentError):
        CpuV1(str(place.path / "cgroup.procs"))
