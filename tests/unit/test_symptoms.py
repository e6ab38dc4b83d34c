"""Symptoms of pods in captured trees of every kind of machine; sampling; what is never read for nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodeagent.kernel.disks import rows_in
from nodeagent.kernel.files import Descriptors, Misses, Shelf
from nodeagent.kernel.reader import NodeReader
from nodeagent.kernel.symptoms import tcp
from nodeagent.kernel.symptoms.block import blkio, io_stat
from nodeagent.kernel.symptoms.run_delay import MAX_THREADS, SAMPLE, RunDelay
from nodeagent.model.pod import Member, Qos
from nodeagent.model.snapshot import Pod
from nodeagent.model.symptom import DeviceUse, Disk, Symptoms
from tests.unit import symptom_texts as texts
from tests.unit import trees

CG = "sys/fs/cgroup"
MACHINES = {"v1": (trees.V1, f"{CG}/cpu"), "hybrid": (trees.HYBRID, f"{CG}/cpu"), "v2": (trees.V2, CG)}
V1_BLOCK = f"{CG}/blkio/{trees.POD}/blkio.throttle.io_service"
HARDWARE = ("cpi", "mpki", "llc.bytes", "memory.bandwidth")
NETWORK = {
    "proc/1/ns/net": "the host's",
    "proc/100/ns/net": "the pod's",
    "proc/100/net/snmp": texts.SNMP,
    "proc/100/net/netstat": texts.NETSTAT,
    "proc/100/net/dev": texts.NET_DEV,
    "proc/100/io": texts.PROCESS_IO,
}
BLOCK = {
    "proc/diskstats": texts.DISKSTATS,
    "sys/block/vda/size": "1",
    "sys/block/cciss!c0d0/size": "1",
    "sys/block/loop0/size": "1",
    "sys/block/zram0/size": "1",
}
V1 = {
    f"{CG}/blkio/blkio.throttle.io_service_bytes_recursive": texts.BLKIO_BYTES,
    f"{V1_BLOCK}_bytes_recursive": texts.BLKIO_BYTES,
    f"{V1_BLOCK}d_recursive": texts.BLKIO_OPERATIONS,
    f"{CG}/memory/{trees.POD}/memory.stat": texts.MEMORY_V1,
}
V2 = {f"{CG}/{trees.POD}/io.stat": texts.IO_STAT, f"{CG}/{trees.POD}/memory.stat": texts.MEMORY_V2}
TOLD = {"v1": V1, "hybrid": V1, "v2": V2}
Start = Callable[..., tuple[NodeReader, tuple[Member, ...]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A reader of the machine of that name, with all that symptoms are read from and some of it changed."""
    readers: list[NodeReader] = []

    def started(
        machine: str, changed: dict[str, str | None] | None = None, qos: Qos = Qos.LS
    ) -> tuple[NodeReader, tuple[Member, ...]]:
        tree, hierarchy = MACHINES[machine]
        threads = {f"{CG}/{trees.POD}/app/cgroup.threads": "100\n101\n"} if machine == "v2" else {}
        both = {**tree, **NETWORK, **BLOCK, **TOLD[machine], **threads, **(changed or {})}
        for name in [path for path, text in both.items() if text is None]:
            (tmp_path / name).unlink(missing_ok=True)
        trees.plant(tmp_path, {path: text for path, text in both.items() if text is not None})
        readers.append(NodeReader(str(tmp_path)))
        return readers[-1], (trees.member(tmp_path, hierarchy, qos=qos),)

    yield started
    for reader in readers:
        reader.close()
        assert reader.kept == 0


def only(reader: NodeReader, members: tuple[Member, ...], at: float) -> Pod:
    (pod,) = reader.read(members, at).pods
    return pod


def told(reader: NodeReader, members: tuple[Member, ...], at: float) -> Symptoms:
    found = only(reader, members, at).symptoms
    assert found is not None
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_tells_the_same_of_the_same_pod(start: Start, machine: str) -> None:
    reader, members = start(machine)
    pod = only(reader, members, 7.0)
    assert pod.symptoms is not None
    assert (pod.symptoms.at, pod.symptoms.run_delay_us, pod.symptoms.run_us) == (7.0, 4000, 10_000)
    assert pod.symptoms.looked_at_ratio == 1.0
    net = (pod.symptoms.tcp_out_segments, pod.symptoms.tcp_retransmits, pod.symptoms.listen_drops)
    assert (*net, pod.symptoms.net_bytes) == (3033209, 476, 42 + 5, 1234)
    memory = (pod.symptoms.refaults, pod.symptoms.direct_scans, pod.symptoms.major_faults)
    signs = tuple(name for name in pod.unsupported if not name.endswith("_stall"))
    if machine == "v2":
        assert memory == (7, 800, 6)
        assert pod.symptoms.devices == (DeviceUse("259:3", 12288, 3), DeviceUse("8:0", 30, 7))
        assert signs == HARDWARE
    else:
        assert memory == (7801461, None, 59898)
        assert pod.symptoms.devices == (DeviceUse("254:0", 12288, 3),)
        assert signs == ("memory.direct_reclaim", *HARDWARE)


@pytest.mark.parametrize("machine", MACHINES)
def test_disks_are_whole_devices_and_neither_partitions_nor_memory(start: Start, machine: str) -> None:
    reader, _ = start(machine)
    assert reader.read((), 7.0).node.disks == (
        Disk("254:0", "vda", 2929700 + 5832399, (2318244 + 1661897) * 1000, 766356 * 1000),
        Disk("104:0", "cciss/c0d0", 4, 6000, 5000),
    )


def test_of_batch_only_what_it_takes_from_others_is_read(start: Start) -> None:
    reader, members = start("hybrid", {"proc/100/net/snmp": None, "proc/100/schedstat": None}, Qos.BATCH)
    found = told(reader, members, 7.0)
    assert (found.run_delay_us, found.run_us, found.tcp_out_segments, found.listen_drops) == (None,) * 4
    assert (found.net_bytes, found.major_faults) == (1234, 59898)
    assert found.devices == (DeviceUse("254:0", 12288, 3),)


def test_without_detection_nothing_of_it_is_read(start: Start) -> None:
    reader, members = start("v1")
    reader.symptoms = False
    pod = only(reader, members, 7.0)
    assert (pod.symptoms, pod.reading.run_delay_us) == (None, 4000)
    assert pod.unsupported == ("cpu_stall", "memory_stall", "io_stall")
    reader.symptoms = True
    assert told(reader, members, 8.0).run_delay_us == 4000


def test_an_older_v2_kernel_tells_refaults_and_scans_as_one(start: Start) -> None:
    reader, members = start("v2", {f"{CG}/{trees.POD}/memory.stat": texts.MEMORY_V2_OLD})
    found = told(reader, members, 7.0)
    assert (found.refaults, found.direct_scans, found.major_faults) == (9, 900, 6)


def test_an_older_v1_kernel_has_no_recursive_counts(start: Start) -> None:
    newer = [path for path in V1 if path.endswith("_recursive")]
    changed = {path.removesuffix("_recursive"): V1[path] for path in newer} | dict.fromkeys(newer)
    reader, members = start("v1", changed)
    told(reader, members, 7.0)
    reader.attend(frozenset({trees.POD}))
    assert told(reader, members, 8.0).devices is None  # another counter: not to be compared with the last
    assert told(reader, members, 9.0).devices == (DeviceUse("254:0", 12288, 3),)


@pytest.mark.parametrize("disks", [texts.DISKSTATS, texts.DISKSTATS.replace(" 104 ", " 104x ")])
def test_where_v1_counts_no_device_processes_tell_what_they_stored(start: Start, disks: str) -> None:
    """The device is known only where there is but one."""
    nothing = {path: "Total 0\n" for path in V1 if path.endswith("_recursive")}
    one = texts.DISKSTATS.rpartition(" 104 ")[0]
    reader, members = start("v1", {**nothing, "proc/diskstats": one})
    assert told(reader, members, 7.0).devices == (DeviceUse("254:0", 12288, 0),)
    reader, members = start("v1", {**nothing, "proc/diskstats": disks})
    assert told(reader, members, 7.0).devices == (DeviceUse("", 12288, 0),)


def test_what_ended_processes_stored_is_not_taken_back(start: Start, tmp_path: Path) -> None:
    nothing = {path: "Total 0\n" for path in V1 if path.endswith("_recursive")}
    procs = f"{CG}/cpu/{trees.POD}/app/cgroup.procs"
    reader, members = start("v1", {**nothing, procs: "100\n101\n", "proc/101/io": texts.PROCESS_IO})
    reader.attend(frozenset({trees.POD}))
    sizes = [sum(use.bytes for use in told(reader, members, 7.0).devices or ())]
    (tmp_path / procs).write_text("100\n")
    sizes.append(sum(use.bytes for use in told(reader, members, 8.0).devices or ()))
    (tmp_path / "proc/100/io").write_text(texts.PROCESS_IO.replace("4096", "5096"))
    sizes.append(sum(use.bytes for use in told(reader, members, 9.0).devices or ()))
    assert sizes == [24576, 24576, 25576]


def test_a_pod_in_the_host_s_network_has_no_tcp_of_its_own(start: Start, tmp_path: Path) -> None:
    (tmp_path / "proc/1/ns").mkdir(parents=True)
    (tmp_path / "proc/100/ns").mkdir(parents=True)
    (tmp_path / "proc/1/ns/net").touch()
    os.link(tmp_path / "proc/1/ns/net", tmp_path / "proc/100/ns/net")
    reader, members = start("hybrid")
    pod = only(reader, members, 7.0)
    assert pod.symptoms is not None
    assert (pod.symptoms.tcp_out_segments, pod.symptoms.listen_drops, pod.symptoms.net_bytes) == (None,) * 3
    assert {"net.retransmits", "net.listen_drops"} <= set(pod.unsupported)


def test_counters_of_a_process_that_is_another_s_meanwhile_are_not_taken(
    start: Start, tmp_path: Path
) -> None:
    reader, members = start("hybrid")
    reader.attend(frozenset({trees.POD}))
    assert told(reader, members, 7.0).net_bytes == 1234
    (tmp_path / "proc/100/cgroup").write_text("1:cpu:/elsewhere\n")
    (tmp_path / f"{CG}/cpu/{trees.POD}/app/cgroup.procs").write_text("")
    found = [told(reader, members, at) for at in (8.0, 9.0)]
    assert [(each.net_bytes, each.tcp_out_segments) for each in found] == [(None, None)] * 2


def test_a_pod_at_rest_is_left_alone_for_a_minute(start: Start, tmp_path: Path) -> None:
    reader, members = start("hybrid")
    told(reader, members, 100.0)
    (tmp_path / "proc/100/net/dev").write_text(texts.NET_DEV.replace("1000", "2000"))
    later = {at: told(reader, members, 100.0 + at) for at in range(1, 90)}
    seen = [at for at, found in later.items() if found.net_bytes == 2234]
    assert 60 <= seen[0] <= 65
    assert all(100.0 + at - found.at < 6.0 for at, found in later.items())
    (tmp_path / "proc/100/net/dev").write_text(texts.NET_DEV.replace("1000", "3000"))
    (tmp_path / f"{CG}/cpuacct/{trees.POD}/cpuacct.usage").write_text("8654321\n")
    assert any(told(reader, members, 190.0 + at).net_bytes == 3234 for at in range(6))


def test_who_is_attended_to_is_read_in_each_tick_and_others_are_not(start: Start, tmp_path: Path) -> None:
    reader, members = start("hybrid")
    told(reader, members, 100.0)
    ats = [told(reader, members, 100.1 + n / 100).at for n in range(3)]
    reader.attend(frozenset({trees.POD}))
    for n in range(3):
        (tmp_path / f"{CG}/memory/{trees.POD}/memory.stat").write_text(
            texts.MEMORY_V1.replace("59898", str(60000 + n))
        )
        found = told(reader, members, 100.5 + n / 2)
        ats.append(found.at)
        assert found.major_faults == 60000 + n
    reader.attend(frozenset())
    assert told(reader, members, 102.0).at == ats[-1]
    assert ats == [100.0, 100.0, 100.0, 100.5, 101.0, 101.5]


@pytest.mark.parametrize("qos", [Qos.LS, Qos.MID])
def test_run_delay_stands_in_for_pressure_of_every_online_pod_in_each_tick_in_which_it_runs(
    start: Start, tmp_path: Path, qos: Qos
) -> None:
    reader, members = start("v1", qos=qos)
    assert only(reader, members, 100.0).reading.run_delay_us == 4000
    (tmp_path / "proc/100/schedstat").write_text("9000000 3500000 12\n")
    (tmp_path / f"{CG}/cpuacct/{trees.POD}/cpuacct.usage").write_text("7754321\n")
    assert only(reader, members, 100.1).reading.run_delay_us == 5000


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("content", [b"", b"\xff\x00garbage\n", b"-1\n", b"9" * 5000, b"Tcp: a\nTcp: b c\n"])
def test_garbage_in_all_of_it_is_none_and_counted(tmp_path: Path, machine: str, content: bytes) -> None:
    tree, hierarchy = MACHINES[machine]
    bad = {
        **NETWORK,
        "proc/diskstats": "",
        **TOLD[machine],
        "proc/100/schedstat": "",
        "proc/101/schedstat": "",
    }
    spoiled = {path: text if "/ns/" in path else content for path, text in bad.items()}
    trees.plant(tmp_path, {**tree, **spoiled})
    reader = NodeReader(str(tmp_path))
    seen = reader.read((trees.member(tmp_path, hierarchy),), 7.0)
    found = seen.pods[0].symptoms
    assert found is not None
    assert not found.devices
    assert (found.tcp_out_segments, found.listen_drops, found.net_bytes) == (None,) * 3
    assert (found.run_delay_us, found.refaults, found.major_faults) == (None,) * 3
    assert not seen.node.disks
    assert seen.misses["garbled"] >= 2
    reader.close()


def test_lines_are_paired_by_name_in_whatever_order_the_kernel_has_them() -> None:
    found = tcp.segments(b"Tcp: RetransSegs New InSegs OutSegs\nTcp: 1 -1 2 3\n")
    assert found == tcp.Segments(2, 3, 1)
    assert tcp.segments(b"Tcp: RetransSegs\nTcp: 1 2\n") is None
    assert tcp.segments(b"Udp: InDatagrams\nUdp: 1\n") is None
    assert tcp.listen_drops(b"TcpExt: ListenOverflows TCPReqQFullDrop\nTcpExt: 3 4\n") == 7
    assert tcp.listen_drops(b"TcpExt: TCPTimeouts\nTcpExt: 3\n") is None


def test_block_counts_are_of_reads_and_writes() -> None:
    assert blkio(texts.BLKIO_BYTES.encode()) == {"254:0": 12288, "7:1": 512}
    assert blkio(b"Total 0\n") == {}
    assert blkio(b"254:0 Read 1\n") is None  # cut off
    assert io_stat(texts.IO_STAT_JOINED.encode()) == ({"8:0": 30}, {"8:0": 7})
    assert io_stat(b"") == ({}, {})
    assert rows_in(b" 8 0 sda 1 2 3 4 5 6 7 8 9 10\n") is None


class Threads:
    """Schedstats of many threads in a directory, and their list."""

    def __init__(self, where: Path, count: int) -> None:
        self.where = where
        self.list = where / "tasks"
        self.spent: dict[int, tuple[int, int]] = {}
        self.misses = Misses()
        self.descriptors = Descriptors(1000)
        shelf = Shelf(self.descriptors, self.misses)
        self.delay = RunDelay(str(where), (str(self.list),), shelf)
        for thread in range(1, count + 1):
            self.run(thread, 0, 0)
        self.there()

    def run(self, thread: int, delay_ns: int, run_ns: int) -> None:
        waited, ran = self.spent.get(thread, (0, 0))
        self.spent[thread] = (waited + delay_ns, ran + run_ns)
        (self.where / str(thread)).mkdir(exist_ok=True)
        (self.where / f"{thread}/schedstat").write_text(f"{ran + run_ns} {waited + delay_ns} 1\n")

    def end(self, thread: int) -> None:
        del self.spent[thread]
        (self.where / f"{thread}/schedstat").unlink()

    def there(self) -> None:
        self.list.write_text("".join(f"{thread}\n" for thread in self.spent))


def test_a_sample_of_many_threads_is_bounded_and_soon_holds_those_that_run(tmp_path: Path) -> None:
    threads = Threads(tmp_path, 1000)
    busy, before = (7, 500, 990), (0, 0)
    for second in range(1, 60):
        for thread in busy:
            threads.run(thread, 300_000_000, 700_000_000)
        before = (threads.delay.delay_us or 0, threads.delay.run_us or 0)
        threads.delay.read(float(second))
        assert threads.descriptors.kept <= SAMPLE
    assert threads.delay.looked_at_ratio == SAMPLE / 1000
    assert (threads.delay.delay_us or 0) - before[0] == 3 * 300_000
    assert (threads.delay.run_us or 0) - before[1] == 3 * 700_000
    threads.delay.close()
    assert threads.descriptors.kept == 0


def test_the_history_of_a_thread_that_is_looked_at_for_the_first_time_is_not_news(tmp_path: Path) -> None:
    threads = Threads(tmp_path, 3 * SAMPLE)
    for thread in list(threads.spent):
        threads.run(thread, 10**12, 10**12)
    first = threads.delay.read(1.0)
    assert first is not None
    for second in range(2, 20):
        assert threads.delay.read(float(second)) == first


def test_a_new_thread_cannot_have_waited_for_longer_than_it_can_have_been_there(tmp_path: Path) -> None:
    threads = Threads(tmp_path, 2)
    assert threads.delay.read(1.0) == 0
    threads.run(77, 10**12, 5 * 10**8)
    threads.there()
    assert threads.delay.read(3.0) == 2_000_000
    assert threads.delay.run_us == 500_000
    threads.end(77)
    threads.there()
    assert (threads.delay.read(4.0), threads.delay.run_us) == (2_000_000, 500_000)


def test_no_more_threads_than_the_bound_are_known_of(tmp_path: Path) -> None:
    threads = Threads(tmp_path, 2)
    threads.list.write_text("".join(f"{thread}\n" for thread in range(1, MAX_THREADS + 500)))
    threads.delay.read(1.0)
    assert threads.delay.looked_at_ratio == SAMPLE / MAX_THREADS


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["run", "new", "end"]),
            st.integers(0, 99),
            st.integers(0, 10**9),
            st.integers(0, 10**9),
        ),
        max_size=60,
    )
)
def test_the_sums_never_fall_and_never_exceed_what_was_spent(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int, int]]
) -> None:
    threads = Threads(tmp_path_factory.mktemp("threads"), SAMPLE + 10)
    spent = last_delay = last_run = 0
    newest = SAMPLE + 10
    for second, (what, which, delay_ns, run_ns) in enumerate(steps, start=1):
        thread = sorted(threads.spent)[which % len(threads.spent)]
        if what == "new":
            newest += 1
            thread = newest
        if what == "end" and len(threads.spent) > 1:
            threads.end(thread)
        else:
            threads.run(thread, delay_ns, run_ns)
            spent += delay_ns + run_ns
        threads.there()
        threads.delay.read(float(second))
        delay, run = threads.delay.delay_us or 0, threads.delay.run_us or 0
        assert delay >= last_delay
        assert run >= last_run
        assert delay + run <= spent // 1000 + 1
        last_delay, last_run = delay, run
    threads.delay.close()
