"""Undo on the real kernel: whatever kills the agent, restore puts every file back."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.reader import boot_id
from nodeagent.model.plan import Change, Kind, Knob, Plan, Setting, one_owner
from nodeagent.originals import NAME, Originals
from nodeagent.restore import give_back, restore
from tests.live.cpu_place import Place, cpu_place
from tests.live.kills import kill_and_restore

pytestmark = pytest.mark.live

KILLS = 50


@pytest.fixture
def place() -> Iterator[Place]:
    with cpu_place() as made:
        yield made


@pytest.fixture
def knobs(place: Place) -> Iterator[Knobs]:
    made = Knobs(place.hierarchies)
    yield made
    made.close()


def wild_plan(rng: random.Random, targets: tuple[Knob, ...]) -> Plan:
    """Random settings for some of the knobs; the others are given back."""

    def value(knob: Knob) -> float:
        if knob.kind is Kind.CPU_QUOTA:
            return rng.choice([math.inf, rng.uniform(0.01, 3.0)])
        return rng.choice([0.0, 1.0, rng.uniform(0.01, 90.0)])

    return one_owner(Setting(knob, value(knob), "test", "") for knob in targets if rng.random() < 0.7)


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
    kinds = (Kind.CPU_QUOTA, Kind.CPU_WEIGHT)
    return tuple(Knob(kind, target) for kind in kinds for target in names)


def test_after_kill_9_at_random_instants_restore_puts_every_file_back(place: Place, tmp_path: Path) -> None:
    targets = peculiar(place)
    kill_and_restore(place, tmp_path, targets, lambda rng: wild_plan(rng, targets), KILLS)


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


FIRST_WRITE = f"""
import math, sys
sys.path[:0] = {sys.path!r}
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.model.plan import Change, Kind, Knob
from nodeagent.originals import NAME, Originals
state, target = sys.argv[1:]
originals, knobs = Originals(state, "boot"), Knobs(find_hierarchies())
change = Change(Knob(Kind.CPU_QUOTA, target), math.inf, 0.5, "")
outcomes = knobs.apply(originals.intend([change], knobs.inode))
assert outcomes[0].ok, outcomes
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_file_and_directory_are_synced_between_noting_an_original_and_the_first_write(
    place: Place, tmp_path: Path
) -> None:
    trace, state = tmp_path / "trace", tmp_path / "state"
    strace = ["strace", "-y", "-e", "trace=write,fsync", "-o", str(trace)]
    program = [sys.executable, "-c", FIRST_WRITE, str(state), place.target]
    subprocess.run([*strace, *program], check=True, timeout=120, capture_output=True)
    calls = [
        line for line in trace.read_text().splitlines() if str(tmp_path) in line or str(place.path) in line
    ]
    knob = next(n for n, line in enumerate(calls) if str(place.path) in line)
    noted = max(n for n, line in enumerate(calls[:knob]) if line.startswith("write(") and NAME in line)
    synced = calls[noted + 1 : knob]
    assert [line.split("<")[1].split(">")[0] for line in synced] == [str(state / NAME), str(state)]
    assert all(line.startswith("fsync(") and line.endswith("= 0") for line in synced)


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
