"""Knobs on the real kernel: what it couples and what it refuses."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.cgroup_v1 import CpuV1
from nodeagent.kernel.cpu import CpuCgroup
from nodeagent.kernel.knobs import SELDOM, Knobs
from nodeagent.model.errors import AgentError, Refused
from nodeagent.model.plan import Change, Kind, Knob
from nodeagent.originals import Originals
from nodeagent.restore import give_back
from tests.live.cpu_place import Place, cpu_place

pytestmark = pytest.mark.live


@pytest.fixture
def place() -> Iterator[Place]:
    with cpu_place() as made:
        yield made


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
    for kind in (Kind.CPU_QUOTA, Kind.CPU_WEIGHT):
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


def period(place: Place, quota_us: int, period_us: int) -> None:
    if place.version == 1:
        (place.path / "cpu.cfs_quota_us").write_text(str(quota_us))
        (place.path / "cpu.cfs_period_us").write_text(str(period_us))
    else:
        (place.path / "cpu.max").write_text(f"{quota_us} {period_us}")


def test_a_period_that_another_writer_changed_is_seen_soon_and_no_write_goes_by_the_old_one(
    place: Place, knobs: Knobs
) -> None:
    quota = Knob(Kind.CPU_QUOTA, place.target)
    period(place, 20_000, 100_000)
    assert [knobs.read((quota,), {})[0].actual for _ in range(SELDOM + 1)] == [0.2] * (SELDOM + 1)
    period(place, 20_000, 40_000)
    seen = [knobs.read((quota,), {})[0].actual for _ in range(SELDOM)]
    assert seen[-1] == 0.5
    assert set(seen) <= {0.2, 0.5}
    period(place, 20_000, 80_000)
    assert knobs.apply([Change(quota, 0.5, 0.75, "")])[0].ok
    assert place.texts().get("cpu.max", "60000 80000\n") == "60000 80000\n"
    assert place.texts().get("cpu.cfs_quota_us", "60000\n") == "60000\n"
    period(place, 10_000, 50_000)  # both: seen at once
    assert knobs.read((quota,), {})[0].actual == 0.2


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


def test_a_cgroup_made_again_is_read_at_once_and_not_held(place: Place, knobs: Knobs, tmp_path: Path) -> None:
    """Its files are open: nothing but their reading tells that it is another one."""
    quota = Knob(Kind.CPU_QUOTA, place.make("pod"))
    originals = Originals(str(tmp_path), "boot")
    (reading,) = knobs.read([quota], {})
    originals.confirm(knobs.apply(originals.intend([Change(quota, reading.actual, 0.5, "")], knobs.inode)))
    (held,) = knobs.read([quota], originals.held)
    old = knobs.inode(quota)
    (place.path / "pod").rmdir()
    place.make("pod")
    (again,) = knobs.read([quota], originals.held)
    assert held.held and not again.held
    assert (held.actual, again.actual) == (0.5, math.inf)
    assert knobs.inode(quota) == (place.path / "pod").stat().st_ino != old
    (place.path / "pod").rmdir()
    assert knobs.read([quota], originals.held) == ()
    assert knobs.misses == {"gone": 1}


def test_the_root_cgroup_has_no_knob(place: Place, knobs: Knobs) -> None:
    assert knobs.read([Knob(kind, "") for kind in Kind if not kind.of_nic], {}) == ()


def test_reading_goes_on_while_cgroups_come_and_go(place: Place, knobs: Knobs) -> None:
    place.make("first")
    names = [f"p{n}" for n in range(8)]
    targets = [Knob(kind, f"{place.target}/{name}") for name in names for kind in Kind if not kind.of_nic]
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
