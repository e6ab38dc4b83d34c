"""Sets on the real kernel: what it refuses is never written, and whatever happens they come back."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.core.diff import diff
from nodeagent.kernel.knobs import Knobs
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.plan import Change, Kind, Knob, Outcome, Plan, Setting, one_owner
from nodeagent.originals import Originals
from nodeagent.restore import give_back
from tests.live.cpuset_place import SetPlace, cpuset_place
from tests.live.kills import kill_and_restore

pytestmark = pytest.mark.live

KILLS = 30
CHAIN = ("", "b", "b/c", "b/d")


@pytest.fixture
def place() -> Iterator[SetPlace]:
    with cpuset_place() as made:
        yield made


@pytest.fixture
def knobs(place: SetPlace) -> Iterator[Knobs]:
    made = Knobs(place.hierarchies)
    yield made
    made.close()


def names(place: SetPlace) -> list[str]:
    return [place.target, *(f"{place.target}/{name}" for name in CHAIN[1:])]


def chain(place: SetPlace, cpus: str) -> tuple[Knob, ...]:
    """A tree of four cgroups on these CPUs and all nodes with a process in each leaf; its CPU knobs."""
    for name in CHAIN[1:]:
        place.make(name)
    for name in reversed(CHAIN):
        place.write(name, "cpuset.cpus", cpus)
        place.write(name, "cpuset.mems", str(place.root_set(Kind.MEMS)))  # v2 on 6.1 empties no set in use
    for leaf in CHAIN[2:]:
        place.inhabit(leaf)
    return tuple(Knob(Kind.CPUS, target) for target in names(place))


def plan(values: dict[Knob, str]) -> Plan:
    return one_owner(Setting(knob, value, "test", "") for knob, value in values.items())


def written(
    knobs: Knobs, originals: Originals, wanted: Plan, targets: tuple[Knob, ...]
) -> tuple[Outcome, ...]:
    """One turn of the loop."""
    readings = knobs.read(targets, originals.held)
    outcomes = knobs.apply(originals.intend(diff(wanted, readings), knobs.inode))
    originals.confirm(outcomes)
    return outcomes


def test_a_tree_with_processes_moves_from_one_cpu_to_another_without_a_refusal(
    place: SetPlace, knobs: Knobs, tmp_path: Path
) -> None:
    first, second = (str(cpu) for cpu in sorted(CpuSet.parse(place.root_cpus))[:2])
    targets = chain(place, first)
    if place.version == 1:
        for name in CHAIN:  # what diff() is for: to any of them, another CPU is refused
            with pytest.raises(OSError, match=r"busy|denied"):
                place.write(name, "cpuset.cpus", second)
    originals = Originals(str(tmp_path), "boot")
    before = place.texts()
    outcomes = written(knobs, originals, plan(dict.fromkeys(targets, second)), targets)
    assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
    assert [place.text(name) for name in CHAIN] == [second] * 4
    assert written(knobs, originals, plan(dict.fromkeys(targets, second)), targets) == ()
    pid = place.inhabit("b/c")
    assert os.sched_getaffinity(pid) == {int(second)}
    assert not give_back(originals, knobs).failed
    assert place.texts() == before


def test_hundreds_of_random_plans_are_never_refused(place: SetPlace, knobs: Knobs, tmp_path: Path) -> None:
    rng = random.Random(7)
    targets = chain(place, place.root_cpus)
    online = sorted(CpuSet.parse(place.root_cpus))
    originals = Originals(str(tmp_path), "boot")
    before = place.texts()
    for _ in range(250):
        values = {
            knob: str(CpuSet(rng.sample(online, rng.randint(1, len(online)))))
            for knob in targets
            if rng.random() < 0.8
        }
        outcomes = written(knobs, originals, plan(values), targets)
        assert [outcome.error for outcome in outcomes] == [""] * len(outcomes)
        assert written(knobs, originals, plan(values), targets) == ()
    assert not give_back(originals, knobs).failed
    assert place.texts() == before


def test_a_refusal_names_what_v1_wants(place: SetPlace, knobs: Knobs) -> None:
    if place.version != 1:
        pytest.skip("v2 takes any set")
    first, second = (str(cpu) for cpu in sorted(CpuSet.parse(place.root_cpus))[:2])
    around, *_, leaf = chain(place, first)
    (outside,) = knobs.apply([Change(leaf, first, second, "")])
    assert "EACCES" in outside.error
    assert "within that of the cgroup around it" in outside.error
    assert outside.found == first
    (emptied,) = knobs.apply([Change(leaf, first, "", "")])
    assert "ENOSPC" in emptied.error
    (held_up,) = knobs.apply([Change(around, first, second, "")])
    assert "EBUSY" in held_up.error


def test_what_is_read_says_what_holds_and_what_may_be_asked_for(place: SetPlace, knobs: Knobs) -> None:
    targets = tuple(Knob(kind, place.target) for kind in (Kind.CPUS, Kind.MEMS, Kind.MIGRATE))
    readings = {reading.knob.kind: reading for reading in knobs.read(targets, {})}
    assert readings[Kind.CPUS].effective == place.root_cpus
    assert readings[Kind.MEMS].effective
    if place.version == 1:
        assert readings[Kind.CPUS].nested
        assert readings[Kind.CPUS].allowed == place.root_cpus
        assert readings[Kind.MIGRATE].actual == 0.0
    else:
        assert Kind.MIGRATE not in readings
        assert readings[Kind.CPUS].actual == readings[Kind.CPUS].allowed == ""


def test_pages_are_told_to_follow_and_no_longer_when_given_back(
    place: SetPlace, knobs: Knobs, tmp_path: Path
) -> None:
    if place.version != 1:
        pytest.skip("v2 moves pages without being told")
    follow = Knob(Kind.MIGRATE, place.target)
    originals = Originals(str(tmp_path), "boot")
    wanted = one_owner([Setting(follow, 1.0, "test", "")])
    (outcome,) = written(knobs, originals, wanted, (follow,))
    assert outcome.ok
    assert place.text("", "cpuset.memory_migrate") == "1"
    assert not give_back(originals, knobs).failed
    assert place.text("", "cpuset.memory_migrate") == "0"


def test_a_cgroup_made_while_the_one_around_it_is_narrow_is_wide_after_us(
    place: SetPlace, knobs: Knobs, tmp_path: Path
) -> None:
    if place.version != 1:
        pytest.skip("v2 copies nothing: an empty set is as the cgroup around")
    first = str(min(CpuSet.parse(place.root_cpus)))
    originals = Originals(str(tmp_path), "boot")
    around = Knob(Kind.CPUS, place.target)
    written(knobs, originals, plan({around: first}), (around,))
    late = Knob(Kind.CPUS, place.make("late"))
    place.inhabit("late")
    assert place.text("late") == first
    written(knobs, originals, plan({around: first, late: first}), (around, late))
    assert not give_back(originals, knobs).failed
    assert place.text("late") == place.text("") == place.root_cpus


def wild_plan(rng: random.Random, place: SetPlace, targets: tuple[Knob, ...]) -> Plan:
    """Single CPUs and memory nodes for most of the knobs."""
    choices = {kind: sorted(place.root_set(kind)) for kind in (Kind.CPUS, Kind.MEMS)}
    return plan({k: str(rng.choice(choices[k.kind])) for k in targets if rng.random() < 0.9})


def test_after_kill_9_in_the_middle_of_a_move_restore_puts_every_set_back(
    place: SetPlace, tmp_path: Path
) -> None:
    cpus = chain(place, place.root_cpus)
    targets = (*cpus, *(Knob(Kind.MEMS, knob.target) for knob in cpus))
    kill_and_restore(place, tmp_path, targets, lambda rng: wild_plan(rng, place, targets), KILLS)


def test_quota_and_set_of_one_path_are_two_cgroups_on_v1(
    place: SetPlace, knobs: Knobs, tmp_path: Path
) -> None:
    cpu = Path(place.hierarchies.roots["cpu"].root) / place.target
    apart = not cpu.exists()
    if apart:
        cpu.mkdir()
    try:
        quota, cpus = Knob(Kind.CPU_QUOTA, place.target), Knob(Kind.CPUS, place.target)
        found = {reading.knob: reading for reading in knobs.read((quota, cpus), {})}
        if quota not in found:
            pytest.skip("no CPU quota here")
        assert (knobs.inode(quota) != knobs.inode(cpus)) is apart
        originals = Originals(str(tmp_path), "boot")
        first = str(min(CpuSet.parse(place.root_cpus)))
        wanted = one_owner([Setting(quota, 0.5, "test", ""), Setting(cpus, first, "test", "")])
        assert all(outcome.ok for outcome in written(knobs, originals, wanted, (quota, cpus)))
        assert {r.knob: r.actual for r in knobs.read((), originals.held)} == {quota: 0.5, cpus: first}
        assert not give_back(originals, knobs).failed
        assert {r.knob: r.actual for r in knobs.read((quota, cpus), {})} == {
            quota: math.inf,
            cpus: found[cpus].actual,
        }
    finally:
        if apart:
            cpu.rmdir()
