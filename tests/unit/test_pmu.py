"""Counting events of cgroups: correction for multiplexing, turns; with the kernel's own software events."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.kernel import pmu
from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.perf_event import CYCLES, Counts, Event, PerfEvents, scaled
from nodeagent.kernel.pmu import PERIOD_S, WINDOW_S, PmuTurns
from nodeagent.model.errors import AgentError

# linux/perf_event.h: PERF_TYPE_SOFTWARE with TASK_CLOCK (ns), CONTEXT_SWITCHES, PAGE_FAULTS
SOFTWARE = (Event(1, 1), Event(1, 3), Event(1, 2))
CPUS = sorted(os.sched_getaffinity(0))
SPIN = "while True: pass"


def test_what_did_not_count_all_the_time_is_scaled_up() -> None:
    assert scaled([Counts(100, 50, (10, 20)), Counts(100, 100, (1, 2))]) == (21, 42)


def test_a_cpu_on_which_the_cgroup_did_not_run_adds_nothing() -> None:
    assert scaled([Counts(0, 0, (0, 0)), Counts(100, 100, (1, 2))]) == (1, 2)
    assert scaled([Counts(0, 0, (0, 0))]) is None


def test_what_counted_too_rarely_is_not_known() -> None:
    assert scaled([Counts(1000, 100, (1,))]) is None
    assert scaled([Counts(1_000_000_000, 0, (0,)), Counts(100, 100, (1,))]) is None


@given(st.lists(st.tuples(st.integers(1, 10**10), st.floats(0.3, 1.0), st.integers(0, 10**12)), min_size=1))
def test_scaling_never_takes_off(parts: list[tuple[int, float, int]]) -> None:
    counts = [Counts(enabled, max(1, int(enabled * share)), (value,)) for enabled, share, value in parts]
    sums = scaled(counts)
    assert sums is None or sums[0] >= sum(value for _, _, value in parts) * (1 - 1e-9) - 1


def _perf_root() -> str:
    places = find_hierarchies()
    found = places.roots.get("perf_event")
    root = found.root if found is not None else places.unified
    if root is None:
        pytest.skip("perf_event is in no hierarchy")
    return root


@pytest.fixture
def cgroups() -> Iterator[list[Path]]:
    """Two cgroups in perf_event's hierarchy, the first with a process that spins."""
    root = _perf_root()
    made = [Path(root, f"na-test-{os.getpid()}-{n}") for n in range(2)]
    try:
        for path in made:
            path.mkdir()
        spinning = subprocess.Popen([sys.executable, "-c", SPIN])
        (made[0] / "cgroup.procs").write_text(str(spinning.pid))
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        perf, fd = PerfEvents(), os.open(made[0], os.O_RDONLY)
        for each in perf.group(fd, CPUS[0], SOFTWARE):
            os.close(each)
        os.close(fd)
        yield made
    except AgentError as error:
        pytest.skip(f"no perf events here: {error}")
    finally:
        spinning.kill()
        spinning.wait()
        for path in made:
            _removed(path)


def _removed(path: Path) -> None:
    for _ in range(100):
        try:
            path.rmdir()
        except OSError:
            time.sleep(0.02)
        else:
            return


@pytest.mark.live
def test_each_cgroup_is_counted_by_itself_in_its_turn(
    cgroups: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pmu, "WINDOW_S", 0.5)
    turns = PmuTurns(SOFTWARE)
    directories = {(path.name, path.stat().st_ino): str(path) for path in cgroups}
    busy = next(iter(directories))
    began, usage = time.monotonic(), _cpu_us(cgroups[0])
    assert not turns.read(began - PERIOD_S, directories, CPUS), "turns are spread"
    assert not turns.read(began, directories, CPUS), "nothing is counted yet"
    time.sleep(0.6)
    seen = turns.read(time.monotonic(), directories, CPUS)
    used_us = _cpu_us(cgroups[0]) - usage
    assert not turns.why
    assert set(seen) == {busy}, "the idle one has counted nothing"
    assert 0.3e9 < seen[busy].cycles <= used_us * 1000 * 1.02  # task clock stands in for cycles: ns
    assert 0.5 <= seen[busy].window_s < 5.0
    descriptors = len(os.listdir("/proc/self/fd"))
    turns.read(time.monotonic(), {}, CPUS)
    assert not turns.read(time.monotonic(), directories, CPUS), "a new one begins anew"
    assert len(os.listdir("/proc/self/fd")) == descriptors
    turns.close()


@pytest.mark.live
def test_not_more_is_counted_at_a_time_than_there_is_room_for(
    cgroups: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pmu, "MAX_FDS", len(CPUS) * len(SOFTWARE))
    turns = PmuTurns(SOFTWARE)
    directories = {(path.name, path.stat().st_ino): str(path) for path in cgroups}
    turns.read(0.0, directories, CPUS)
    turns.read(PERIOD_S, directories, CPUS)
    assert len(turns._turns) == 1
    turns.read(PERIOD_S + WINDOW_S, directories, CPUS)
    assert len(turns._turns) == 1, "now the other one"
    turns.close()
    assert not turns._turns


@pytest.mark.live
def test_without_counters_it_is_said_and_not_tried_again(cgroups: list[Path]) -> None:
    turns = PmuTurns((CYCLES, Event(0xFFFF, 1)))
    directories = {(path.name, path.stat().st_ino): str(path) for path in cgroups}
    turns.read(0.0, directories, CPUS)
    assert turns.read(PERIOD_S, directories, CPUS) == {}
    assert turns.why.startswith("perf event ")
    assert turns.error is not None and str(turns.error) in turns.why
    assert turns._perf is None


def _cpu_us(path: Path) -> int:
    """CPU time of the cgroup; v1 does not tell it there: then the most that it can be."""
    if not (path / "cpu.stat").exists():
        return int(time.monotonic() * 1e6)
    words = (path / "cpu.stat").read_text().split()
    return int(words[words.index("usage_usec") + 1])
