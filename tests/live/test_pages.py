"""Pages that follow their pods: on the real kernel, and by the whole agent where there are two NUMA nodes."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from nodeagent.journal import read_segments
from nodeagent.kernel import page_mover, page_round
from nodeagent.kernel.move_pages import MovePages
from nodeagent.kernel.numa_maps import LOOK_BYTES, batches, misplaced, present
from nodeagent.kernel.page_mover import PageMover
from nodeagent.kernel.page_round import MOST_BYTES, Round, Step, batch_bytes
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.errors import Gone, Refused
from nodeagent.model.pages import SMALL_BYTES, PageMove, PagesMoving
from tests.live.cpuset_place import SetPlace, cpuset_place
from tests.live.page_hog import HIDE, HOLD, MIB, NODES, PIN, away_bytes, cpu_of, holds, mems, pids
from tests.live.running import executed, running, unique, until

NOWHERE = 1 + max(NODES)  # a NUMA node that is not there
pytestmark = pytest.mark.live
two_nodes = pytest.mark.skipif(len(NODES) < 2, reason="one NUMA node: there is nowhere to move pages to")


def test_the_kernel_tells_where_each_page_is() -> None:
    held = mmap.mmap(-1, 8 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, 4 * MIB, 4096):
        held[at] = 1
    calls, found, counted = MovePages(), 0, 0
    for region in misplaced("/proc", os.getpid(), CpuSet({NOWHERE})):
        counted += region.off_bytes
        for addresses in batches(region, MOST_BYTES):
            found += region.page_bytes * sum(node in NODES for node in calls.query(os.getpid(), addresses))
    assert 0 < found <= counted * 1.1, "before Linux 6.5 not all: what NUMA balancing has marked is not told"
    held.close()


def test_of_a_sparse_mapping_only_the_pages_that_are_there_are_looked_at() -> None:
    noreserve, size = 0x4000, 1 << 40  # linux/mman.h: MAP_NORESERVE
    held = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | noreserve)
    touched = [0, 4096, size // 2, size - 4096]
    for at in touched:
        held[at] = 1
    (region,) = (
        found
        for found in misplaced("/proc", os.getpid(), CpuSet({NOWHERE}))
        if found.end - found.start >= size and found.off_pages >= len(touched)
    )
    looks = list(present("/proc", os.getpid(), region, MOST_BYTES))
    assert len(looks) <= 2 + (region.end - region.start) // LOOK_BYTES
    there = {address - region.start for look in looks for address in look}
    base = region.end - region.start - size
    low, high = ({offset + at for offset in touched} for at in (0, base))
    assert there >= low or there >= high, "the mapping may have been joined with one beside it"
    assert len(there) <= region.off_pages + MOST_BYTES // 4096
    held.close()


def test_a_process_that_ended_is_gone_and_a_node_that_is_not_there_is_refused() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(Gone):
        MovePages().query(process.pid, [4096])
    with pytest.raises(Gone):
        list(misplaced("/proc", process.pid, CpuSet({0})))
    with pytest.raises(Refused):
        MovePages().move(os.getpid(), [4096], NOWHERE)


@pytest.fixture
def place() -> Iterator[SetPlace]:
    with cpuset_place() as made:
        yield made


@contextlib.contextmanager
def holding(
    place: SetPlace, name: str, mib: int, cpu: int | None = None, program: str = HOLD
) -> Iterator[str]:
    """A process with memory in a new cgroup of the place; its path."""
    cgroup = place.make(name)
    on = [] if cpu is None else ["taskset", "-c", str(cpu)]
    process = subprocess.Popen([*on, sys.executable, "-c", program, str(mib)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        (place.path / name / "cgroup.procs").write_text(str(process.pid))
        yield cgroup
    finally:
        process.kill()
        process.communicate()


def settled(mover: PageMover, move: PageMove, bytes_per_s: int) -> PagesMoving:
    mover.want([move], bytes_per_s)
    until(lambda: mover.progress()[0].settled or bool(mover.progress()[0].unable), "all that can be moved")
    return mover.progress()[0]


def test_pages_that_cannot_be_moved_are_told_as_stuck(place: SetPlace) -> None:
    with holding(place, "pod", 8) as cgroup:
        mover = PageMover("/proc", place.hierarchy.root)
        done = settled(mover, PageMove("pod", 1, cgroup, str(NOWHERE)), 1 << 40)
        mover.close()
    assert (done.moved_bytes, done.unable) == (0, "")
    assert done.stuck_bytes == done.left_bytes
    assert done.stuck_bytes >= 8 * MIB


def test_a_pod_without_processes_has_nothing_to_move(place: SetPlace) -> None:
    mover = PageMover("/proc", place.hierarchy.root)
    done = settled(mover, PageMove("pod", 1, place.make("pod"), str(NOWHERE)), 1 << 40)
    assert (done.left_bytes, done.stuck_bytes, done.unable) == (0, 0, "")
    mover.close()


def test_a_pod_whose_processes_are_not_visible_cannot_be_moved(tmp_path: Path) -> None:
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod" / "cgroup.procs").write_text("0\n0\n")
    mover = PageMover("/proc", str(tmp_path))
    done = settled(mover, PageMove("pod", 1, "pod", str(NOWHERE)), 1 << 40)
    mover.close()
    assert done.unable.startswith("processes of this pod are not visible here")
    assert not done.settled


def test_a_pod_whose_processes_cannot_be_listed_is_not_settled_until_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_mover, "RETRY_S", 0.05)
    monkeypatch.setattr(page_mover, "RECOUNT_S", 0.05)
    listing = tmp_path / "pod" / "cgroup.procs"
    listing.parent.mkdir()
    listing.symlink_to("cgroup.procs")
    mover, move = PageMover("/proc", str(tmp_path)), PageMove("pod", 1, "pod", str(NOWHERE))
    mover.want([move], 1 << 40)
    until(lambda: bool(mover.progress()[0].why), "why it does not go on")
    assert (mover.progress()[0].settled, mover.progress()[0].left_bytes) == (False, None)
    listing.unlink()
    listing.write_text("")
    assert settled(mover, move, 1 << 40).why == ""
    listing.unlink()
    listing.symlink_to("cgroup.procs")
    until(lambda: not mover.progress()[0].settled, "that it is counted again")
    mover.close()


def test_a_move_that_is_done_but_still_wanted_is_counted_again(
    place: SetPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_mover, "RECOUNT_S", 0.05)
    mover, move = (
        PageMover("/proc", place.hierarchy.root),
        PageMove("pod", 1, place.make("pod"), str(NOWHERE)),
    )
    assert settled(mover, move, 1 << 40).left_bytes == 0
    with holding(place, "pod/new", 8):
        until(lambda: mover.progress()[0].stuck_bytes >= 8 * MIB, "what came later")
    mover.close()


def test_pods_that_are_stuck_do_not_keep_others_from_their_turn(
    place: SetPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_mover, "RETRY_S", 0.0)  # all are due always, as when each takes longer than that
    with contextlib.ExitStack() as stack:
        cgroups = [stack.enter_context(holding(place, name, 8)) for name in ("a", "b", "c")]
        mover = PageMover("/proc", place.hierarchy.root)
        mover.want([PageMove(cgroup, 1, cgroup, str(NOWHERE)) for cgroup in cgroups], 1 << 40)
        until(lambda: all(found.settled for found in mover.progress()), "a turn of each")
        mover.close()


def test_what_does_not_move_is_tried_less_and_less_and_at_once_only_once(
    place: SetPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_mover, "RETRY_S", 0.2)
    tried: list[float] = []
    at_once: list[int] = []

    class Watched(Round):
        def steps(self, pids: Iterable[int]) -> Iterator[Step]:
            tried.append(time.monotonic())
            return super().steps(pids)

        def at_once(self, pid: int) -> None:
            at_once.append(pid)
            super().at_once(pid)

    monkeypatch.setattr(page_round, "Round", Watched)
    with holding(place, "pod", 8) as cgroup:
        mover = PageMover("/proc", place.hierarchy.root)
        mover.want([PageMove("pod", 1, cgroup, str(NOWHERE))], 1 << 40)
        until(lambda: len(tried) >= 4, "four tries")
        mover.close()
        assert at_once == pids(cgroup)
    for number, (one, other) in enumerate(itertools.pairwise(tried[:4])):
        assert other - one >= 0.2 * 2**number


@two_nodes
def test_the_write_of_memory_nodes_is_short_once_the_pages_are_there(place: SetPlace) -> None:
    here, there = NODES[:2]
    took = {}
    for name in ("at once", "pages first"):
        with holding(place, name.replace(" ", "-"), 150, cpu_of(here)) as cgroup:
            assert away_bytes(pids(cgroup), there) >= 140 * MIB, "nearly all: the kernel may spill"
            if place.version == 1:
                place.write(name.replace(" ", "-"), "cpuset.memory_migrate", "1")
            if name == "pages first":
                mover = PageMover("/proc", place.hierarchy.root)
                done = settled(mover, PageMove("pod", 1, cgroup, str(there)), 1 << 40)
                mover.close()
                assert done.moved_bytes >= 130 * MIB
                assert done.left_bytes is not None
                assert done.left_bytes <= SMALL_BYTES
            began = time.monotonic()
            place.write(name.replace(" ", "-"), "cpuset.mems", str(there))
            took[name] = time.monotonic() - began
            assert away_bytes(pids(cgroup), there) <= MIB
    told = f"writing cpuset.mems of 150 MiB takes {took['at once']:.3f} s, {took['pages first']:.3f} s after"
    sys.stdout.write(told + "\n")
    assert took["pages first"] < took["at once"] / 3, told


@two_nodes
def test_pages_that_the_kernel_does_not_show_move_all_the_same(place: SetPlace) -> None:
    here, there = NODES[:2]
    with holding(place, "pod", 16, cpu_of(here), HIDE) as cgroup:
        mover = PageMover("/proc", place.hierarchy.root)
        done = settled(mover, PageMove("pod", 1, cgroup, str(there)), 1 << 40)
        mover.close()
        assert away_bytes(pids(cgroup), there) <= SMALL_BYTES
    assert done.moved_bytes >= 14 * MIB
    assert (done.stuck_bytes, done.unable) == (0, "")


@two_nodes
def test_pinned_pages_are_stuck_and_the_others_move(place: SetPlace) -> None:
    here, there = NODES[:2]
    with holding(place, "pod", 6, cpu_of(here), PIN) as cgroup:
        away = away_bytes(pids(cgroup), there)
        mover = PageMover("/proc", place.hierarchy.root)
        done = settled(mover, PageMove("pod", 1, cgroup, str(there)), 1 << 40)
        mover.close()
    assert 5 * MIB <= done.stuck_bytes <= 7 * MIB
    assert done.moved_bytes >= away - 7 * MIB


@two_nodes
def test_pages_follow_a_bound_pod_at_the_rate_and_stay_there(tmp_path: Path) -> None:
    name, rate = unique("mover"), 40 * MIB
    there = NODES[-1]  # where the first bound pod goes
    with executed(
        tmp_path / "run",
        "ls",
        name,
        holds(200, cpu_of(NODES[0]), small=True),
        "--numa",
        "bind",
        "--cpus",
        "1",
    ):
        own = f"nodeagent/ls/{name}"
        until(lambda: away_bytes(pids(own), there) >= 180 * MIB, "its memory")
        before = mems(own)
        with running(tmp_path, numa__placement=True, numa__migrate_bytes_per_s=rate) as agent:
            until(lambda: bool(agent.named("pages.moved")), "all pages", 120)
            until(lambda: mems(own) == str(there), "memory nodes")
            assert away_bytes(pids(own), there) <= SMALL_BYTES
            told = [event["moved_bytes"] for event in agent.named("pages.moving")]
            assert len(told) >= 3
            assert told == sorted(told)
            assert agent.named("pages.moved")[0]["moved_bytes"] >= 170 * MIB
            with executed(agent.runtime, "batch", unique("hog"), holds(300)):
                hog = f"nodeagent/batch/{unique('hog')}"
                until(lambda: away_bytes(pids(hog), NOWHERE) >= 300 * MIB, "the hog's memory")
                assert away_bytes(pids(own), there) <= SMALL_BYTES
            agent.stop()
            assert mems(own) == before
            assert agent.named("giveback.done")[0]["left"] == 0
        _bounded(agent.state, rate)
        assert away_bytes(pids(own), there) <= SMALL_BYTES, "giving back moves no page"


def _bounded(state: Path, rate: int) -> None:
    """No stretch of the journal moved more than the rate allows."""
    seen = [
        (tick.snapshot.at, moving.moved_bytes)
        for segment in read_segments(state / "journal", print)
        for tick in segment.ticks()
        for moving in tick.snapshot.moving
    ]
    assert len(seen) > 3
    for first, (at, moved) in enumerate(seen):
        for later_at, later in seen[first + 1 :]:
            assert later - moved <= 1.2 * rate * (later_at - at) + 2 * batch_bytes(rate)


@two_nodes
def test_a_move_that_was_killed_half_way_is_finished_by_the_next_run(tmp_path: Path) -> None:
    name, there = unique("killed"), NODES[-1]
    with executed(
        tmp_path / "run", "ls", name, holds(200, cpu_of(NODES[0])), "--numa", "bind", "--cpus", "1"
    ):
        own = f"nodeagent/ls/{name}"
        until(lambda: away_bytes(pids(own), there) >= 180 * MIB, "its memory")
        before = mems(own)
        with running(tmp_path, numa__placement=True, numa__migrate_bytes_per_s=20 * MIB) as agent:
            until(lambda: away_bytes(pids(own), there) <= 150 * MIB, "a quarter of it", 120)
            agent.stop(signal.SIGKILL)
            left = away_bytes(pids(own), there)
            assert left > 20 * MIB, "killed half way"
            assert mems(own) == before
            cpus = [e["new_cpus"] for e in agent.named("knob.written") if e["knob"] == f"cpuset.cpus {own}"]
        with running(tmp_path, numa__placement=True) as again:
            until(lambda: bool(again.named("pages.moved")), "the rest", 120)
            until(lambda: mems(own) == str(there), "memory nodes")
            assert away_bytes(pids(own), there) <= SMALL_BYTES
            moved = again.named("pages.moved")[0]["moved_bytes"]
            assert left - 2 * SMALL_BYTES <= moved <= left, "what was moved before stayed"
            assert not [e for e in again.named("knob.written") if e["knob"] == f"cpuset.cpus {own}"]
            assert len(cpus) == 1
            again.stop()
            assert mems(own) == before
