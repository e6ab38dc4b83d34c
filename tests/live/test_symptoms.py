"""Symptoms on real cgroups: many threads, refaults, devices, TCP of a namespace, throttling; made here."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodeagent.kernel.reader import NodeReader
from nodeagent.kernel.symptoms.run_delay import SAMPLE
from nodeagent.model.pod import Member, Qos
from nodeagent.model.snapshot import Node, Pod
from nodeagent.model.symptom import Symptoms
from tests.live.read_place import Pods, some_pods, until

pytestmark = pytest.mark.live

MIB = 1 << 20
ONE_CPU = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\n"
BUSY = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"
# In a network namespace of its own, with a loopback and a pair of links whose far end answers nobody.
NETWORK = """
import ctypes, os, socket, subprocess, time
assert ctypes.CDLL(None).unshare(0x40000000) == 0
subprocess.run(["{ip}", "-batch", "-"], check=True, input=b'''link set lo up
link add near type veth peer name far
link set near up
link set far up
address add 10.255.9.1/24 dev near
neighbor add 10.255.9.2 lladdr 02:00:00:00:00:02 dev near
''')
"""


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


class Watched:
    """One pod, read in every tick as somebody in trouble is."""

    def __init__(self, reader: NodeReader, member: Member) -> None:
        self._reader, self._members = reader, (member,)
        self.node = Node()
        reader.attend(frozenset({member.spec.uid}))

    def read(self) -> Pod:
        seen = self._reader.read(self._members, time.monotonic())
        assert not seen.misses, seen.misses
        self.node = seen.node
        (pod,) = seen.pods
        return pod

    def symptoms(self) -> Symptoms:
        found = self.read().symptoms
        assert found is not None
        return found

    def until(self, true: Callable[[Symptoms], bool]) -> Symptoms:
        """The first symptoms of which that is true."""
        found = self.symptoms()

        def now() -> bool:
            nonlocal found
            found = self.symptoms()
            return true(found)

        until(now, 20.0)
        return found


def made(pods: Pods, reader: NodeReader, qos: Qos = Qos.LS) -> tuple[str, Watched]:
    pod = f"{pods.top}/pod"
    pods.make(pod)
    return pod, Watched(reader, pods.member(pod, qos=qos))


def grown(before: int | None, after: int | None) -> int:
    assert before is not None
    assert after is not None
    return after - before


def test_all_threads_count_where_the_leader_sleeps(pods: Pods, reader: NodeReader) -> None:
    """Two threads share a CPU and their leader sleeps: what they ran is the pod's CPU time, and they wait."""
    pod, watched = made(pods, reader)
    work = (
        "import hashlib, threading, time\nblock = bytes(1 << 20)\n"
        "end = time.monotonic() + 30\ndef work():\n  while time.monotonic() < end: hashlib.sha256(block)\n"
        "for _ in range(2): threading.Thread(target=work, daemon=True).start()\ntime.sleep(30)"
    )
    process = pods.run(pod, ONE_CPU + work)
    before = watched.until(lambda s: (s.run_us or 0) > 100_000)
    cpu_before = watched.read().reading.cpu_us
    after = watched.until(lambda s: grown(before.run_us, s.run_us) > 500_000)
    cpu_us = grown(cpu_before, watched.read().reading.cpu_us)
    assert after.looked_at_ratio == 1.0
    assert grown(before.run_us, after.run_us) == pytest.approx(cpu_us, rel=0.3)
    assert grown(before.run_delay_us, after.run_delay_us) > 0.6 * grown(before.run_us, after.run_us)
    leader_us = int(Path(f"/proc/{process.pid}/schedstat").read_text().split()[0]) // 1000
    assert leader_us < (after.run_us or 0) / 2


def test_of_very_many_threads_a_sample_finds_those_that_run(pods: Pods, reader: NodeReader) -> None:
    pod, watched = made(pods, reader)
    crowd = 4 * SAMPLE
    work = (
        "import hashlib, threading, time\nblock = bytes(1 << 20)\nthreading.stack_size(1 << 16)\n"
        f"for _ in range({crowd}): threading.Thread(target=time.sleep, args=[30], daemon=True).start()\n"
        "end = time.monotonic() + 30\ndef work():\n  while time.monotonic() < end: hashlib.sha256(block)\n"
        "for _ in range(2): threading.Thread(target=work, daemon=True).start()\ntime.sleep(30)"
    )
    pods.run(pod, ONE_CPU + work)
    until(lambda: (watched.read().reading.pids or 0) >= crowd + 2)
    opened = reader.kept
    for _ in range(crowd // 16):  # once around
        watched.read()
    before, cpu_before = watched.symptoms(), watched.read().reading.cpu_us
    after = watched.until(lambda s: grown(before.run_us, s.run_us) > 400_000)
    cpu_us = grown(cpu_before, watched.read().reading.cpu_us)
    assert after.looked_at_ratio == pytest.approx(SAMPLE / (crowd + 3), rel=0.01)
    assert grown(before.run_us, after.run_us) == pytest.approx(cpu_us, rel=0.35)
    assert grown(before.run_delay_us, after.run_delay_us) > 0.5 * grown(before.run_us, after.run_us)
    assert reader.kept <= opened + SAMPLE


def test_the_kernel_counts_what_the_own_quota_stops_as_waiting(pods: Pods, reader: NodeReader) -> None:
    """Which is why own throttling is taken off a run-queue delay (core/waits.py)."""
    pod, watched = made(pods, reader)
    cpu = pods.places.roots.get("cpu")
    if cpu is None:
        pytest.skip("no cpu controller on this host")
    limit = ("cpu.cfs_quota_us", "10000") if cpu.version == 1 else ("cpu.max", "10000 100000")
    Path(cpu.root, pod, limit[0]).write_text(limit[1])
    pods.run(pod, BUSY)
    first = watched.read()
    throttled: list[int] = []

    def enough() -> bool:
        throttled.append(grown(first.reading.throttled_us, watched.read().reading.throttled_us))
        return throttled[-1] > 1_000_000

    until(enough, 20.0)
    assert first.symptoms is not None
    waited_us = grown(first.symptoms.run_delay_us, watched.symptoms().run_delay_us)
    assert waited_us > 0.7 * throttled[-1]


def test_pages_that_come_back_are_counted_where_memory_is_too_small(
    pods: Pods, reader: NodeReader, tmp_path: Path
) -> None:
    pod, watched = made(pods, reader)
    memory = pods.places.roots.get("memory")
    if memory is None:
        pytest.skip("no memory controller on this host")
    limit = "memory.limit_in_bytes" if memory.version == 1 else "memory.max"
    Path(memory.root, pod, limit).write_text(str(24 * MIB))
    file = tmp_path / "large"
    with file.open("wb") as written:
        written.write(os.urandom(MIB) * 64)
        written.flush()
        os.fsync(written.fileno())
        os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # else its pages are this process's
    again = (
        f"import mmap, os, time\nend = time.monotonic() + 30\nfile = os.open({str(file)!r}, os.O_RDONLY)\n"
        "there = mmap.mmap(file, 0, prot=mmap.PROT_READ)\n"
        "while time.monotonic() < end:\n  for at in range(0, len(there), 4096): there[at]"
    )
    process = pods.run(pod, again)
    before = watched.symptoms()
    after = watched.until(
        lambda s: (
            grown(before.refaults, s.refaults) > 1000 and grown(before.major_faults, s.major_faults) > 10
        )
    )
    unsupported = watched.read().unsupported
    pods.end(process)
    assert "memory.refaults" not in unsupported
    if memory.version == 1:
        assert after.direct_scans is None
        assert "memory.direct_reclaim" in unsupported
    else:
        assert grown(before.direct_scans, after.direct_scans) > 1000
        assert "memory.direct_reclaim" not in unsupported


def test_what_is_read_and_written_is_told_by_device(pods: Pods, reader: NodeReader, tmp_path: Path) -> None:
    """Direct I/O of a Batch pod: its bytes and operations, on a device of the node that was busy with it."""
    pod, watched = made(pods, reader, Qos.BATCH)
    if "blkio" not in pods.places.roots and "io" not in pods.places.roots:
        pytest.skip("no controller of block devices on this host")
    file, blocks = tmp_path / "direct", 64
    work = (
        f"import mmap, os, sys\nblock = mmap.mmap(-1, {MIB})\n"
        f"try: file = os.open({str(file)!r}, os.O_RDWR | os.O_CREAT | os.O_DIRECT)\n"
        "except OSError: print('none', flush=True); sys.exit()\n"
        f"for _ in range({blocks}): os.write(file, block)\n"
        "print('done', flush=True)\nsys.stdin.read()"
    )
    first = watched.read().symptoms
    before = {disk.device: disk for disk in watched.node.disks or ()}
    process = pods.run(pod, work)
    assert process.stdout is not None
    if process.stdout.readline() == b"none\n":
        pytest.skip(f"no direct I/O in {tmp_path}")
    after = watched.until(lambda s: sum(use.bytes for use in s.devices or ()) >= blocks * MIB)
    assert first is not None
    assert sum(use.bytes for use in first.devices or ()) == 0
    assert after.devices is not None
    used = max(after.devices, key=lambda use: use.bytes)
    by_cgroup = used.operations > 0  # else the kernel counts by process (kernel/symptoms/process_io.py)
    assert not by_cgroup or blocks <= used.operations <= blocks * 256
    assert used.bytes <= (blocks + 8) * MIB
    if not used.device and len(before) > 1:
        pytest.skip("this kernel does not tell which device it was")
    now = {disk.device: disk for disk in watched.node.disks or ()}
    assert used.device in now
    assert now[used.device].operations - before[used.device].operations >= blocks
    assert now[used.device].wait_us > before[used.device].wait_us
    assert now[used.device].busy_us >= before[used.device].busy_us
    assert (after.run_delay_us, after.tcp_out_segments) == (None, None)
    assert "io.await" not in watched.read().unsupported


def test_disks_are_the_whole_devices_that_the_kernel_has(reader: NodeReader) -> None:
    disks = reader.read((), 0.0).node.disks
    assert disks is not None
    there = {
        (path / "dev").read_text().strip(): path.name.replace("!", "/")
        for path in Path("/sys/block").iterdir()
    }
    in_memory = {dev for dev, name in there.items() if name.rstrip("0123456789") in ("loop", "ram", "zram")}
    assert {disk.device: disk.name for disk in disks} == {
        dev: name for dev, name in there.items() if dev not in in_memory
    }


def test_refused_connections_retransmits_and_bytes_are_those_of_the_pod_s_namespace(
    pods: Pods, reader: NodeReader
) -> None:
    pod, watched = made(pods, reader)
    process = in_network(pods, pod, "sys.stdin.readline()", FLOOD, "sys.stdin.read()")
    before = watched.until(lambda s: s.net_bytes is not None)
    assert before.listen_drops == 0
    assert "net.retransmits" not in watched.read().unsupported
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    after = watched.until(
        lambda s: bool(s.listen_drops and grown(before.tcp_retransmits, s.tcp_retransmits) > 0)
    )
    assert grown(before.net_bytes, after.net_bytes) > 100_000
    assert grown(before.tcp_out_segments, after.tcp_out_segments) > grown(
        before.tcp_retransmits, after.tcp_retransmits
    )
    own = Path(f"/proc/{process.pid}/net/netstat").read_text().splitlines()
    table = dict(zip(*[line.split() for line in own if line.startswith("TcpExt:")], strict=True))
    assert int(table["ListenDrops"]) >= int(table["ListenOverflows"]) > 0
    assert watched.symptoms().listen_drops == int(table["ListenDrops"]) + int(table["TCPBacklogDrop"])


def test_of_batch_only_the_bytes_are_told_and_of_the_host_s_namespace_nothing(
    pods: Pods, reader: NodeReader
) -> None:
    pod, watched = made(pods, reader, Qos.BATCH)
    in_network(pods, pod, "sys.stdin.read()")
    found = watched.until(lambda s: s.net_bytes is not None)
    assert (found.tcp_out_segments, found.tcp_retransmits, found.listen_drops) == (None,) * 3
    host = f"{pods.top}/host"
    pods.make(host)
    pods.run(host, "import sys; sys.stdin.read()")
    other = Watched(reader, pods.member(host)).read()
    assert other.symptoms is not None
    assert other.symptoms.net_bytes is None
    assert {"net.retransmits", "net.listen_drops"} <= set(other.unsupported)


def test_a_process_that_has_left_its_pod_tells_nothing_of_it_any_more(pods: Pods, reader: NodeReader) -> None:
    pod, watched = made(pods, reader)
    leaver = in_network(pods, pod, "sys.stdin.read()")
    watched.until(lambda s: s.net_bytes is not None)
    away = f"{pods.top}/away"
    pods.make(away)
    for root in pods.roots:
        Path(root, away, "cgroup.procs").write_text(str(leaver.pid))
    assert watched.symptoms().net_bytes is None
    assert watched.symptoms().net_bytes is None
    stayer = in_network(pods, pod, "sys.stdin.read()")
    watched.until(lambda s: s.net_bytes is not None)
    pods.end(stayer)
    pods.end(leaver)
    found = watched.symptoms()
    assert (found.net_bytes, found.tcp_out_segments) == (None, None)


def test_a_pod_at_rest_is_not_read_and_one_that_is_attended_to_is_read_each_tick(
    pods: Pods, reader: NodeReader
) -> None:
    """As if by the clock: what a Batch pod at rest has is carried over, and read when it runs."""
    pod = f"{pods.top}/pod"
    pods.make(pod)
    process = pods.run(
        pod, "import sys\nfor line in sys.stdin:\n  sum(range(200000))\n  print('did', flush=True)"
    )
    members, clock = (pods.member(pod),), itertools.count()

    def read() -> Symptoms:
        (seen,) = reader.read(members, float(next(clock))).pods
        assert seen.symptoms is not None
        return seen.symptoms

    for _ in range(12):
        read()
    ats = [read().at for _ in range(10)]
    assert len(set(ats)) <= 3
    reader.attend(frozenset({pod}))
    ats = [read().at for _ in range(5)]
    assert len(set(ats)) == 5
    before = read().run_us
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"did\n"
    assert grown(before, read().run_us) > 500
    reader.attend(frozenset())
    ats = [read().at for _ in range(10)]
    assert len(set(ats)) <= 3


def in_network(pods: Pods, pod: str, *steps: str) -> subprocess.Popen[bytes]:
    """A program in a namespace of its own, when it is there; skips where there can be none."""
    ip = shutil.which("ip")
    if ip is None or os.geteuid() != 0:
        pytest.skip("needs root and ip(8)")
    program = "\n".join([NETWORK.replace("{ip}", ip), "import sys", "print('up', flush=True)", *steps])
    process = pods.run(pod, program)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


# A queue of one that nobody accepts from, packets to somebody who is not there, and a connection to them.
FLOOD = """
listener = socket.create_server(("127.0.0.1", 0), backlog=1)
made = [socket.socket() for _ in range(12)]
for each in made:
    each.setblocking(False)
    each.connect_ex(listener.getsockname())
nobody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(200):
    nobody.sendto(bytes(1000), ("10.255.9.2", 9))
lost = socket.socket()
lost.setblocking(False)
lost.connect_ex(("10.255.9.2", 9))
"""
