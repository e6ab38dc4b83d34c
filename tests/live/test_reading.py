"""NodeReader on real cgroups in every hierarchy, made and removed here: growth, pressure, sudden removal."""

from __future__ import annotations

import itertools
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.psi_trigger import open_trigger
from nodeagent.kernel.reader import NodeReader
from nodeagent.model.errors import AgentError
from tests.live.read_place import Pods, some_pods, until

pytestmark = pytest.mark.live

HOG = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"


@pytest.fixture
def pods() -> Iterator[Pods]:
    with some_pods() as made:
        yield made


@pytest.fixture
def reader() -> Iterator[NodeReader]:
    reader = NodeReader()
    yield reader
    reader.close()
    assert reader.kept == 0


def test_a_hog_s_cpu_time_memory_and_pids_are_seen(pods: Pods, reader: NodeReader) -> None:
    pod = f"{pods.top}/pod"
    pods.make(pod)
    pods.make(f"{pod}/app")
    pods.run(f"{pod}/app", f"held = bytearray(8 << 20)\n{HOG}")
    members = (pods.member(pod, "app"),)
    first = reader.read(members, 0.0, full=True).pods[0]
    begin = time.monotonic()
    until(lambda: time.monotonic() > begin + 0.3)
    second = reader.read(members, time.monotonic() - begin, full=True).pods[0]
    elapsed_us = (time.monotonic() - begin) * 1e6
    for before, after in (
        (first.reading, second.reading),
        (first.containers[0].reading, second.containers[0].reading),
    ):
        assert before.cpu_us is not None
        assert after.cpu_us is not None
        assert 0 < after.cpu_us - before.cpu_us <= elapsed_us * 1.2 + 20_000
        assert after.memory_bytes is not None and after.memory_bytes >= 8 << 20
        assert after.anon_bytes is not None and after.anon_bytes >= 8 << 20
        assert after.pids == 1


def test_where_a_hog_s_pages_are_is_told_and_they_are_all_there(pods: Pods, reader: NodeReader) -> None:
    """On cgroup v1 the pages are counted, on v2 the bytes: either way the hog's 32 MiB are on known nodes."""
    pod = f"{pods.top}/pod"
    pods.make(pod)
    pods.make(f"{pod}/app")
    if not os.path.exists(f"{reader.hierarchies.roots['memory'].root}/{pod}/memory.numa_stat"):
        pytest.skip("this kernel has no memory.numa_stat")
    pods.run(f"{pod}/app", f"held = bytearray(b'x') * (32 << 20)\n{HOG}")
    members, ticks = (pods.member(pod, "app"),), itertools.count()

    def pages() -> dict[int, int]:
        (seen,) = reader.read(members, float(next(ticks)), full=True).pods
        assert seen.reading.pages_by_node is not None
        return dict(seen.reading.pages_by_node)

    until(lambda: sum(pages().values()) >= 31 << 20)  # each CPU may hold some pages back from the count
    seen = reader.read(members, float(next(ticks)), full=True)
    with_memory = {node.id for node in seen.topology.nodes if node.memory_bytes}
    assert {node for node, size in pages().items() if size} <= with_memory
    assert sum(pages().values()) <= (seen.pods[0].reading.memory_bytes or 0) + (4 << 20)


def test_node_and_topology_agree_with_the_kernel(reader: NodeReader) -> None:
    seen = reader.read((), 0.0, full=True)
    assert seen.topology.cores == os.sysconf("SC_NPROCESSORS_ONLN")
    assert seen.node.cpus is not None
    assert {row.cpu for row in seen.node.cpus} == {cpu.id for cpu in seen.topology.cpus}
    assert seen.node.memory is not None
    assert seen.node.memory.total_bytes > seen.node.memory.free_bytes > 0
    assert seen.node.load is not None
    assert seen.node.watermark_bytes
    assert len(seen.node.numa_memory) == len(seen.topology.nodes)
    assert not seen.misses


def test_pressure_grows_where_hogs_share_one_cpu_and_not_beside_them(pods: Pods, reader: NodeReader) -> None:
    if not os.path.exists("/proc/pressure/cpu") or pods.places.unified is None:
        pytest.skip("no pressure on this machine")
    cpu = min(os.sched_getaffinity(0))
    for name in ("hurt", "calm"):
        pods.make(f"{pods.top}/{name}")
    pin = f"import os; os.sched_setaffinity(0, [{cpu}])\n"
    for _ in range(2):
        pods.run(f"{pods.top}/hurt", pin + HOG)
    pods.run(f"{pods.top}/calm", "import time; time.sleep(30)")
    members = (pods.member(f"{pods.top}/hurt"), pods.member(f"{pods.top}/calm"))
    start = reader.read(members, 0.0).pods
    ticks = iter(range(1, 10_000))

    def grown() -> bool:
        hurt, calm = reader.read(members, float(next(ticks))).pods
        assert hurt.reading.cpu_stall is not None and start[0].reading.cpu_stall is not None
        assert calm.reading.cpu_stall is not None and start[1].reading.cpu_stall is not None
        hurt_us = hurt.reading.cpu_stall.some_us - start[0].reading.cpu_stall.some_us
        calm_us = calm.reading.cpu_stall.some_us - start[1].reading.cpu_stall.some_us
        return hurt_us > 200_000 and calm_us < hurt_us / 4

    until(grown)


def test_throttling_is_seen_at_once_even_after_a_rest(pods: Pods, reader: NodeReader) -> None:
    cpu = pods.places.roots.get("cpu")
    pods.make(f"{pods.top}/pod")
    if cpu is None or cpu.version != 1:
        pytest.skip("the cpu controller is not on v1 here")
    Path(cpu.root, pods.top, "pod", "cpu.cfs_quota_us").write_text("5000")
    members = (pods.member(f"{pods.top}/pod"),)
    process = pods.run(f"{pods.top}/pod", f"import sys\nsys.stdin.read()\n{HOG}")
    for tick in range(8):  # long enough for the throttling of a cgroup at rest to be skipped
        quiet = reader.read(members, float(tick)).pods[0].reading
    assert process.stdin is not None
    process.stdin.close()
    ticks = iter(range(8, 10_000))

    def throttled() -> bool:
        reading = reader.read(members, float(next(ticks))).pods[0].reading
        return (reading.throttled_us or 0) > (quiet.throttled_us or 0) + 50_000

    until(throttled)


def test_without_a_v2_cgroup_of_its_own_an_ls_pod_has_run_delay(pods: Pods, reader: NodeReader) -> None:
    if pods.places.walk.version == 2:
        pytest.skip("pods have pressure on a v2 node")
    only_v1 = [root for root in pods.roots if root != pods.places.unified]
    pod = f"{pods.top}/pod"
    pods.make(pod, only_v1)
    pin = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\n"
    hogs = [pods.run(pod, pin + HOG, only_v1) for _ in range(2)]
    members = (pods.member(pod),)
    begin = time.monotonic()
    first = reader.read(members, begin).pods[0]
    assert "cpu_stall" in first.unsupported
    assert first.reading.cpu_stall is None
    delays = [first.reading.run_delay_us or 0]

    def waited() -> bool:
        delays.append(reader.read(members, time.monotonic()).pods[0].reading.run_delay_us or 0)
        return delays[-1] > delays[0] + 100_000

    until(waited)
    pods.end(hogs[0])
    for _ in range(3):
        waited()
    assert delays == sorted(delays)  # what the ended thread had waited is not taken back


def test_removal_while_reading_is_named_and_never_an_error(pods: Pods, reader: NodeReader) -> None:
    names = [f"{pods.top}/pod{number}" for number in range(40)]
    for name in names:
        pods.make(name)
    members = tuple(pods.member(name) for name in names)
    assert len(reader.read(members, 0.0).pods) == 40
    remover = threading.Thread(target=pods.remove, args=names)
    remover.start()
    tick, vanished = 0.0, set[str]()
    while len(vanished) < 40:
        tick += 1.0
        seen = reader.read(members, tick)
        present = {pod.spec.cgroup for pod in seen.pods}
        assert present | set(seen.vanished) == set(names)
        assert not present & vanished
        vanished |= set(seen.vanished)
        assert tick < 100_000
    remover.join()
    assert not reader.read((), tick + 1.0).vanished


def test_a_pod_made_anew_under_its_name_is_another_pod(pods: Pods, reader: NodeReader) -> None:
    pod = f"{pods.top}/pod"
    pods.make(pod)
    old = (pods.member(pod),)
    assert len(reader.read(old, 0.0).pods) == 1
    pods.remove(pod)
    pods.make(pod)
    seen = reader.read(old, 1.0)
    assert (seen.pods, seen.vanished) == ((), (pod,))
    assert reader.read(old, 2.0).vanished == (pod,)
    new = (pods.member(pod),)
    seen = reader.read(new, 3.0)
    assert [each.spec.inode for each in seen.pods] == [new[0].spec.inode] != [old[0].spec.inode]
    assert seen.pods[0].reading.cpu_us == 0


def test_what_is_kept_and_what_is_opened_each_time_read_the_same(pods: Pods, reader: NodeReader) -> None:
    pods.make(f"{pods.top}/pod")
    pods.run(f"{pods.top}/pod", "import time; time.sleep(30)")
    members = (pods.member(f"{pods.top}/pod"),)
    opened = NodeReader(max_kept_fds=0)
    minutes = itertools.count(1)

    def same() -> bool:
        at = 120.0 * next(minutes)  # late enough for slow values to be read again
        return opened.read(members, at).pods == reader.read(members, at).pods

    until(same)  # as soon as the process has come to rest
    assert opened.kept == 0
    opened.close()


def test_a_trigger_wakes_under_a_hog() -> None:
    if not os.access("/proc/pressure/cpu", os.W_OK):
        pytest.skip("no pressure files that take a trigger")
    fd = open_trigger("/proc/pressure/cpu", stall_us=200_000, window_us=500_000)
    hogs = []
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        poll.poll(0)
        cpu = min(os.sched_getaffinity(0))
        pinned = f"import os; os.sched_setaffinity(0, [{cpu}])\n{HOG}"
        hogs = [subprocess.Popen([sys.executable, "-I", "-S", "-c", pinned]) for _ in range(3)]
        assert [event for _, event in poll.poll(10_000) if event & select.POLLPRI]
    finally:
        os.close(fd)
        for hog in hogs:
            hog.kill()
            hog.wait()


def test_a_trigger_on_what_takes_none_says_why(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="none"):
        open_trigger(str(tmp_path / "none"))
    with pytest.raises(AgentError, match="loadavg"):
        open_trigger("/proc/loadavg")
