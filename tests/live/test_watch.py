"""CgroupWatch on the real cgroupfs, and where the kernel's limits are met."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.tree import walk
from nodeagent.kernel.watch import CgroupWatch
from tests.live.running import SLOWNESS

pytestmark = pytest.mark.live


@pytest.fixture(params=["cpu", "memory", "v2"])
def parent(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A cgroup of the test's own, two levels deep, in the named hierarchy."""
    hierarchies = find_hierarchies()
    controller = hierarchies.roots.get(request.param)
    root = hierarchies.unified if request.param == "v2" else controller and controller.root
    if not root or not os.access(root, os.W_OK):
        pytest.skip(f"no writable {request.param} hierarchy")
    parent = Path(root) / f"na-test-{os.getpid()}-watch"
    parent.mkdir()
    yield parent
    for path in sorted(parent.glob("**/"), reverse=True):
        path.rmdir()


def test_cgroups_that_appear_and_vanish_are_noticed_within_200_ms(parent: Path) -> None:
    watch = CgroupWatch()
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    assert not watch.sync(str(parent), walk(str(parent)))
    for act in (Path.mkdir, Path.rmdir):
        begin = time.monotonic()
        act(parent / "pod")
        assert poll.poll(1000 * SLOWNESS)
        assert watch.drain()
        assert time.monotonic() - begin < 0.2 * SLOWNESS
    watch.close()


def test_the_watch_of_a_removed_cgroup_is_given_back(parent: Path) -> None:
    watch = CgroupWatch()
    (parent / "pod").mkdir()
    watch.sync(str(parent), walk(str(parent)))
    assert watches(watch) == 2
    (parent / "pod").rmdir()
    watch.sync(str(parent), walk(str(parent)))
    assert watches(watch) == 1
    watch.close()


def test_inodes_of_the_walk_are_those_of_stat(parent: Path) -> None:
    (parent / "pod/container").mkdir(parents=True)
    assert [d.path for d in walk(str(parent))] == ["", "pod", "pod/container"]
    assert all(d.inode == (parent / d.path).stat().st_ino for d in walk(str(parent)))


def watches(watch: CgroupWatch) -> int:
    return Path(f"/proc/self/fdinfo/{watch.fileno()}").read_text().count("inotify wd:")


DEGRADE = """
import os, sys
from nodeagent.kernel.tree import walk
from nodeagent.kernel.watch import CgroupWatch
open("/proc/sys/user/max_inotify_watches", "w").write("2")
watch = CgroupWatch()
assert not watch.sync(sys.argv[1], walk(sys.argv[1]))
print(watch.degraded)
os.mkdir(sys.argv[1] + "/new")
print(watch.drain())
open("/proc/sys/user/max_inotify_watches", "w").write("100")
while watch.sync(sys.argv[1], walk(sys.argv[1])): pass
print(repr(watch.degraded))
open("/proc/sys/user/max_inotify_instances", "w").write("1")
print(CgroupWatch().degraded)
"""


def test_out_of_watches_degrades_and_recovers_without_a_crash(tmp_path: Path) -> None:
    """In a user namespace of its own, whose limits are nobody else's."""
    for name in ("a", "b", "c", "d"):
        (tmp_path / name).mkdir()
    try:
        subprocess.run(["unshare", "-Ur", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no user namespaces here: {error}")
    done = subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", DEGRADE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines() == [
        "out of inotify watches: raise fs.inotify.max_user_watches",
        "True",
        "''",
        "out of inotify instances: raise fs.inotify.max_user_instances",
    ], done.stderr


def test_a_queue_overflow_counts_as_a_change(tmp_path: Path) -> None:
    """Only files are made, which alone are no change; so the overflow is what is told."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 50_000:
        pytest.skip(f"max_queued_events is {limit}: too many events for a test")
    watch = CgroupWatch()
    watch.sync(str(tmp_path), walk(str(tmp_path)))
    for number in range(limit // 2 + 2):
        path = f"{tmp_path}/{number % 2}"
        os.close(os.open(path, os.O_CREAT))
        os.unlink(path)
    assert watch.drain()
    watch.close()


def test_a_walk_among_vanishing_cgroups_never_fails(parent: Path) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for path in ("a", "a/b", "c"):
                (parent / path).mkdir()
            for path in ("a/b", "a", "c"):
                (parent / path).rmdir()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        seen, walks, end = {""}, 0, time.monotonic() + 30
        while walks < 300 or len(seen) == 1:  # the scheduler decides how much of the churn a walk meets
            assert time.monotonic() < end, "no walk met a cgroup"
            seen |= {directory.path for directory in walk(str(parent))}
            walks += 1
    finally:
        stop.set()
        thread.join()
    assert seen <= {"", "a", "a/b", "c"}
