"""NodeReader on captured trees of every mode, and what garbage, growth and loss do to it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.kernel.gate import CALM_US
from nodeagent.kernel.reader import NodeReader, boot_id
from nodeagent.model.errors import AgentError
from nodeagent.model.pod import Member, Qos
from nodeagent.model.snapshot import MemoryEvents, Pod, Stall
from tests.unit import trees

CG = "sys/fs/cgroup"
MACHINES = {
    "v1": (trees.V1, f"{CG}/cpu"),
    "joint": (trees.V1_JOINT, f"{CG}/cpu,cpuacct"),
    "hybrid": (trees.HYBRID, f"{CG}/cpu"),
    "v2": (trees.V2, CG),
}
ALL_STALLS = ("cpu_stall", "memory_stall", "io_stall")
Start = Callable[..., tuple[NodeReader, tuple[Member, ...]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A reader of the machine of that name, with some files changed or (None) taken away, and its one pod."""
    readers: list[NodeReader] = []

    def started(
        machine: str, changed: dict[str, str | None] | None = None, qos: Qos = Qos.LS
    ) -> tuple[NodeReader, tuple[Member, ...]]:
        tree, hierarchy = MACHINES[machine]
        both = {**tree, **(changed or {})}
        trees.plant(tmp_path, {path: text for path, text in both.items() if text is not None})
        readers.append(NodeReader(str(tmp_path)))
        return readers[-1], (trees.member(tmp_path, hierarchy, qos=qos),)

    yield started
    for reader in readers:
        reader.close()
        assert reader.kept == 0


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One hybrid machine for many examples, each of which puts back the file that it spoils."""
    return Path(trees.plant(tmp_path_factory.mktemp("host"), {**trees.HYBRID, **trees.NUMA}))


def only(reader: NodeReader, members: tuple[Member, ...], at: float, *, full: bool = False) -> Pod:
    seen = reader.read(members, at, full=full)
    assert not seen.vanished
    (pod,) = seen.pods
    return pod


def stalls(pod: Pod) -> tuple[str, ...]:
    """The kinds of pressure that the pod can never have."""
    return tuple(name for name in pod.unsupported if name in ALL_STALLS)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_gives_the_same_readings_of_the_same_pod(start: Start, machine: str) -> None:
    reader, members = start(machine)
    pod = only(reader, members, 7.0)
    for reading in (pod.reading, pod.containers[0].reading):
        assert (reading.cpu_us, reading.periods, reading.throttled_periods) == (7654, 40, 4)
        assert (reading.throttled_us, reading.memory_bytes, reading.pids) == (9000, 8192000, 2)
        assert (reading.inactive_file_bytes, reading.anon_bytes) == (1024000, 4000000)
        assert (reading.file_bytes, reading.working_set_bytes) == (4096000, 7168000)
        assert reading.slow_at == 7.0
    events = MemoryEvents(0, 5, 3, 1, 1) if machine == "v2" else MemoryEvents(max=3, oom_kill=1)
    assert pod.reading.memory_events == events
    assert pod.reading.pages_by_node == ((0, 3686400), (2, 409600))
    assert pod.containers[0].reading.pages_by_node is None  # a pod's are enough
    assert [container.name for container in pod.containers] == ["app"]


@pytest.mark.parametrize("machine", ["hybrid", "v2"])
def test_pressure_is_that_of_the_pod_and_of_its_container(start: Start, machine: str) -> None:
    reader, members = start(machine)
    pod = only(reader, members, 7.0)
    for reading in (pod.reading, pod.containers[0].reading):
        assert reading.cpu_stall == Stall(1000, 10)
        assert reading.memory_stall == Stall(200, 20)
        assert reading.io_stall == Stall(300, 30)
    assert stalls(pod) == ()
    assert pod.reading.run_delay_us is None


@pytest.mark.parametrize(
    ("machine", "line"),
    [
        ("v1", ""),
        ("hybrid", "0::/\n"),
        ("hybrid", "0::/system.slice/containerd.service\n"),
        ("hybrid", "0::/..\n"),
    ],
)
def test_a_pod_that_is_nowhere_in_v2_has_run_delay_instead(start: Start, machine: str, line: str) -> None:
    service = f"{CG}/unified/system.slice/containerd.service"
    changed = {"proc/100/cgroup": f"1:cpu:/x\n{line}", f"{service}/cgroup.procs": "100\n999\n"}
    reader, members = start(machine, changed)
    pod = only(reader, members, 7.0)
    assert stalls(pod) == ALL_STALLS
    assert pod.reading.cpu_stall is None
    assert pod.reading.run_delay_us == 4000


def test_run_delay_is_not_read_of_other_classes(start: Start) -> None:
    reader, members = start("v1", qos=Qos.BATCH)
    assert only(reader, members, 7.0).reading.run_delay_us is None


def test_a_v2_cgroup_of_another_name_is_the_pod_s_if_it_has_its_processes_and_no_others(start: Start) -> None:
    scope = f"{CG}/unified/pods.slice/x.scope"
    changed = {"proc/100/cgroup": "0::/pods.slice/x.scope\n", f"{scope}/cgroup.procs": "100\n"}
    changed[f"{scope}/cpu.pressure"] = trees.pressure(77, 7)
    reader, members = start("hybrid", changed)
    pod = only(reader, members, 7.0)
    assert pod.reading.cpu_stall == Stall(77, 7)
    assert stalls(pod) == ("memory_stall", "io_stall")


def test_a_pod_without_a_process_is_not_known_rather_than_unsupported(start: Start, tmp_path: Path) -> None:
    procs = f"{CG}/cpu/{trees.POD}/app/cgroup.procs"
    reader, members = start("hybrid", {procs: ""})
    pod = only(reader, members, 7.0)
    assert pod.reading.cpu_stall is None
    assert stalls(pod) == ()
    (tmp_path / procs).write_text("100\n")
    (tmp_path / f"{CG}/cpuacct/{trees.POD}/cpuacct.usage").write_text("8000000\n")
    only(reader, members, 8.0)
    assert only(reader, members, 9.0).reading.cpu_stall == Stall(1000, 10)


@pytest.mark.parametrize("machine", MACHINES)
def test_without_proc_pressure_nothing_has_pressure(start: Start, machine: str) -> None:
    reader, members = start(machine, {f"proc/pressure/{kind}": None for kind in ("cpu", "memory", "io")})
    seen = reader.read(members, 7.0)
    assert stalls(seen.pods[0]) == ALL_STALLS
    assert seen.node.cpu_stall is None
    assert not seen.misses


def test_fast_values_follow_each_tick_and_slow_ones_their_period(start: Start, tmp_path: Path) -> None:
    reader, members = start("v2")
    only(reader, members, 100.0)
    pod = tmp_path / CG / trees.POD
    (pod / "memory.stat").write_text("anon 1\nfile 2\nkernel 5\ninactive_file 3\n")
    slow_ats = []
    for tick in range(1, 13):
        (pod / "cpu.stat").write_text(f"usage_usec {7654 + tick}\nuser_usec 1\nsystem_usec 1\nnice_usec 0\n")
        reading = only(reader, members, 100.0 + tick).reading
        assert (reading.cpu_us, reading.periods) == (7654 + tick, None)
        assert reading.anon_bytes == (4000000 if reading.slow_at == 100.0 else 1)
        slow_ats.append(reading.slow_at)
    fresh = [at for at in slow_ats if at is not None and at > 100.0]
    assert len(set(fresh)) in (2, 3)
    assert all(
        100.0 + tick - at < 5.0 for tick, at in zip(range(1, 13), slow_ats, strict=True) if at in fresh
    )


def test_slow_values_are_read_at_once_when_the_parent_s_and_the_pod_s_pressure_move(
    start: Start, tmp_path: Path
) -> None:
    reader, members = start("hybrid")
    only(reader, members, 100.0)
    only(reader, members, 100.1)
    (tmp_path / f"{CG}/memory/{trees.POD}/memory.stat").write_text(
        "total_cache 1\ntotal_rss 2\ntotal_inactive_file 3\n"
    )
    own = tmp_path / f"{CG}/unified/{trees.POD}/memory.pressure"
    own.write_text(trees.pressure(201, 20))
    unmoved = only(reader, members, 100.2).reading
    assert (unmoved.slow_at, unmoved.memory_stall) == (100.0, Stall(200, 20))
    (tmp_path / f"{CG}/unified/kubepods/burstable/memory.pressure").write_text(trees.pressure(201, 20))
    moved = only(reader, members, 100.3).reading
    assert (moved.slow_at, moved.memory_stall, moved.anon_bytes) == (100.3, Stall(201, 20), 2)


def test_the_slow_tier_is_spread_evenly_over_the_pods(start: Start, tmp_path: Path) -> None:
    reader, _ = start("v2")
    members = []
    for number in range(50):
        shutil.copytree(tmp_path / CG / trees.POD, tmp_path / CG / f"pod{number}")
        members.append(trees.member(tmp_path, CG, f"pod{number}"))
    group = tuple(members)
    reader.read(group, 100.0)
    due = [
        sum(pod.reading.slow_at == 100.0 + tick for pod in reader.read(group, 100.0 + tick).pods)
        for tick in range(1, 11)
    ]
    assert sum(due) == 100
    assert all(8 <= count <= 12 for count in due)


def test_a_full_tick_reads_everything(start: Start, tmp_path: Path) -> None:
    reader, members = start("v1")
    for tick in range(9):
        only(reader, members, 100.0 + tick)
    (tmp_path / f"{CG}/cpu/{trees.POD}/cpu.stat").write_text(
        "nr_periods 50\nnr_throttled 5\nthrottled_time 1\n"
    )
    (tmp_path / f"{CG}/memory/{trees.POD}/memory.failcnt").write_text("9\n")
    reading = only(reader, members, 109.5, full=True).reading
    assert (reading.periods, reading.slow_at) == (50, 109.5)
    assert reading.memory_events == MemoryEvents(max=9, oom_kill=1)


def test_a_cgroup_at_rest_is_left_alone_and_seen_when_it_stirs(start: Start, tmp_path: Path) -> None:
    reader, members = start("hybrid")
    for tick in range(60):
        only(reader, members, 100.0 + tick / 10)
    assert only(reader, members, 105.91) is only(reader, members, 105.92)
    (tmp_path / f"{CG}/cpu/{trees.POD}/cpu.stat").write_text(
        "nr_periods 50\nnr_throttled 5\nthrottled_time 1000\n"
    )
    (tmp_path / f"{CG}/memory/{trees.POD}/memory.usage_in_bytes").write_text("5\n")
    (tmp_path / f"{CG}/unified/{trees.POD}/cpu.pressure").write_text(trees.pressure(1001, 10))
    reading = only(reader, members, 105.93).reading  # nothing of it ran, but something waited
    assert (reading.throttled_us, reading.memory_bytes, reading.cpu_us) == (1, 5, 7654)


@pytest.mark.parametrize("all_waited_us", [CALM_US, CALM_US + 1])
def test_pressure_of_a_cgroup_in_which_nothing_runs_is_read_where_somebody_beside_it_may_wait(
    start: Start, tmp_path: Path, all_waited_us: int
) -> None:
    reader, members = start("hybrid")
    above, own = (
        tmp_path / f"{CG}/unified/{path}/cpu.pressure" for path in (os.path.dirname(trees.POD), trees.POD)
    )
    above.write_text(trees.pressure(5000, 10))
    rests = [only(reader, members, 100.0 + tick / 10) for tick in range(60)][-1]
    above.write_text(trees.pressure(5000 + all_waited_us, 10))
    own.write_text(trees.pressure(1001, 10))
    seen = only(reader, members, 105.92)
    assert (seen is rests) is (all_waited_us == CALM_US)
    (tmp_path / f"{CG}/cpuacct/{trees.POD}/cpuacct.usage").write_text("8000000\n")
    assert only(reader, members, 105.93).reading.cpu_stall == Stall(1001, 10)


def test_slow_values_of_a_cgroup_at_rest_are_what_they_were_until_something_moves(
    start: Start, tmp_path: Path
) -> None:
    reader, members = start("hybrid")
    rests = [only(reader, members, 100.0 + tick) for tick in range(20)][-1].reading
    memory = tmp_path / f"{CG}/memory/{trees.POD}"
    (memory / "memory.stat").write_text("total_cache 1\ntotal_rss 2\ntotal_inactive_file 3\n")
    for tick in range(20, 40):
        reading = only(reader, members, 100.0 + tick).reading
        assert reading.slow_at is not None and 100.0 + tick - reading.slow_at < 5.0
        assert replace(reading, slow_at=rests.slow_at) == rests
    (memory / "memory.usage_in_bytes").write_text("5\n")  # somebody else took some of it back
    seen = [only(reader, members, 100.0 + tick).reading.anon_bytes for tick in range(40, 45)]
    assert seen[-1] == 2


@pytest.mark.parametrize("what", ["usage", "pressure", "time", "full"])
def test_what_ends_the_rest_of_a_cgroup_has_its_slow_values_read(
    start: Start, tmp_path: Path, what: str
) -> None:
    reader, members = start("hybrid")
    for tick in range(20):
        only(reader, members, 100.0 + tick)
    (tmp_path / f"{CG}/memory/{trees.POD}/memory.stat").write_text(
        "total_cache 1\ntotal_rss 2\ntotal_inactive_file 3\n"
    )
    if what == "usage":
        (tmp_path / f"{CG}/cpuacct/{trees.POD}/cpuacct.usage").write_text("8000000\n")
    if what == "pressure":
        (tmp_path / f"{CG}/unified/{trees.POD}/cpu.pressure").write_text(trees.pressure(1001, 10))
    later = range(72, 78) if what == "time" else range(20, 26)
    seen = [only(reader, members, 100.0 + at, full=what == "full").reading.anon_bytes for at in later]
    assert seen[-1] == 2


def test_pages_of_a_cgroup_at_rest_are_looked_for_where_others_may_move_them(
    start: Start, tmp_path: Path
) -> None:
    reader, members = start("hybrid")
    for tick in range(20):
        only(reader, members, 100.0 + tick)
    path = tmp_path / f"{CG}/memory/{trees.POD}/memory.numa_stat"
    path.write_text(path.read_text().replace("N0=", "N1="))
    seen = [only(reader, members, 120.0 + tick).reading.pages_by_node for tick in range(6)]
    assert seen[-1] is not None and [node for node, _ in seen[-1]] == [1, 2]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_removed_pod_is_left_out_and_named(start: Start, tmp_path: Path, machine: str) -> None:
    reader, members = start(machine)
    only(reader, members, 7.0)
    for path in Path(tmp_path, CG).glob(f"**/{trees.POD}"):
        shutil.rmtree(path)
    # a descriptor of a file removed from this file system stays readable, unlike the kernel's: none is kept
    again = NodeReader(str(tmp_path), max_kept_fds=0)
    seen = again.read(members, 8.0)
    assert (seen.pods, seen.vanished) == ((), (trees.POD,))
    again.close()


def test_another_cgroup_of_the_same_name_is_not_the_pod(start: Start, tmp_path: Path) -> None:
    _, members = start("v2")
    os.rename(tmp_path / CG / trees.POD, tmp_path / CG / "elsewhere")
    trees.plant(tmp_path, trees.V2)
    reader = NodeReader(str(tmp_path), max_kept_fds=0)
    assert reader.read(members, 7.0).vanished == (trees.POD,)
    reborn = (trees.member(tmp_path, CG),)
    assert only(reader, reborn, 8.0).spec.inode != members[0].spec.inode
    reader.close()


def test_a_lost_container_is_named_and_the_pod_goes_on(start: Start, tmp_path: Path) -> None:
    _, members = start("v2")
    shutil.rmtree(tmp_path / CG / trees.POD / "app")
    reader = NodeReader(str(tmp_path), max_kept_fds=0)
    seen = reader.read(members, 7.0)
    assert seen.pods[0].containers == ()
    assert seen.vanished == (f"{trees.POD}/app",)
    reader.close()


def test_descriptors_are_given_back_when_members_leave(start: Start) -> None:
    reader, members = start("hybrid")
    reader.read((), 6.0)
    before = reader.kept
    only(reader, members, 7.0)
    assert reader.kept >= before + 20
    reader.read((), 8.0)
    assert reader.kept == before


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("content", [b"", b"\xff\x00garbage\n", b"-1\n", b"9" * 5000, b"x" * (2 << 20)])
def test_garbled_files_give_none_and_are_counted(tmp_path: Path, machine: str, content: bytes) -> None:
    tree, hierarchy = MACHINES[machine]
    bad = {path: content for path in tree if f"/{trees.POD}/" in path or path.startswith("proc/pressure")}
    planted = tree | {path: tree[path] for path in bad if path.endswith(("procs", "tasks"))}
    trees.plant(
        tmp_path, {**planted, **{path: text for path, text in bad.items() if "cgroup.procs" not in path}}
    )
    reader = NodeReader(str(tmp_path))
    seen = reader.read((trees.member(tmp_path, hierarchy),), 7.0)
    reading = seen.pods[0].reading
    assert (reading.cpu_us, reading.memory_bytes, reading.cpu_stall, reading.pids) == (None,) * 4
    assert seen.misses["garbled"] >= 6
    reader.close()


@given(
    path=st.sampled_from(sorted({**trees.HYBRID, **trees.NUMA})),
    content=st.one_of(
        st.binary(max_size=200), st.builds(lambda n: b"%d\n" % n, st.integers(-(2**66), 2**66))
    ),
)
def test_whatever_one_file_holds_a_tick_is_read(host: Path, path: str, content: bytes) -> None:
    members = (trees.member(host, f"{CG}/cpu"),)
    trees.plant(host, {path: content})
    try:
        reader = NodeReader(str(host))
    except AgentError:
        assert path == "proc/1/mountinfo"
    else:
        for at in (7.0, 8.0):
            reader.read(members, at)
        reader.close()
    finally:
        trees.plant(host, {path: {**trees.HYBRID, **trees.NUMA}[path]})


def test_boot_id_is_read_and_checked(tmp_path: Path) -> None:
    assert boot_id(trees.plant(tmp_path, trees.V2)) == "6f1c1a52-8f0f-4b6c-9a2e-0c53c1d1a7b4"
    for bad in ("", "x" * 36 + "y", "\xff" * 36):
        trees.plant(tmp_path, {"proc/sys/kernel/random/boot_id": bad})
        with pytest.raises(AgentError):
            boot_id(str(tmp_path))
