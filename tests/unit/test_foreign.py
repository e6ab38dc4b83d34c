"""Who else owns CPUs, as told by files: the kubelet's state, real-time threads, cpuset partitions."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.host import Host
from nodeagent.kernel.foreign import ForeignFiles
from nodeagent.kernel.kubelet import BY_CPU, BY_MEMORY, KubeletFiles
from nodeagent.kernel.mounts import Hierarchies, Hierarchy
from nodeagent.kernel.realtime import HANDS_OFF, LOOK_S, MAX_CGROUPS, REALTIME, THREADS_PER_TICK
from nodeagent.model.errors import Garbled
from nodeagent.model.foreign import Foreign, Owned
from nodeagent.model.plan import Held, Kind, Knob
from nodeagent.model.pod import Member, PodSpec, Qos
from nodeagent.model.policy import NumaPolicy, Policy
from nodeagent.model.settings import AgentSettings
from tests.unit import samples, trees

KUBELET = "/var/lib/kubelet"
NOBODY = Hierarchies({}, None, ())
EIGHT = samples.topology(8)


def state(**entries: object) -> str:
    return json.dumps(
        {"policyName": "static", "defaultCpuSet": "0-1,4-7", "entries": entries, "checksum": 1353318690}
    )


def put(root: Path, text: str, name: str = "cpu_manager_state") -> None:
    """As the kubelet does: a new file in place of the old one."""
    directory = root / KUBELET[1:]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ".new").write_text(text)
    (directory / ".new").rename(directory / name)


def member(
    cgroup: str, *, source: str = "rule", hands_off: bool = False, nested: tuple[str, ...] = ()
) -> Member:
    spec = PodSpec(
        uid=f"uid-{cgroup}",
        name=cgroup,
        cgroup=cgroup,
        inode=1,
        qos=Qos.LS,
        source=source,
        hands_off=hands_off,
    )
    return Member(spec, (), nested)


def kubelet(root: Path, *members: Member) -> Foreign:
    return ForeignFiles(NOBODY, str(root), KUBELET).read(members, 1.0, EIGHT, {})


def test_exclusive_cpus_of_the_static_manager_are_owned_pod_by_pod(tmp_path: Path) -> None:
    put(tmp_path, state(**{"a-1": {"app": "2", "sidecar": "3"}, "b-2": {"app": "6-7"}}))
    found = kubelet(tmp_path)
    assert found.kubelet == (Owned("a-1", "2-3", BY_CPU), Owned("b-2", "6-7", BY_CPU))
    assert found.unknown == ()


def test_entries_of_old_kubelets_name_containers_so_their_pod_is_not_known(tmp_path: Path) -> None:
    put(tmp_path, state(f1c1a52="2-3"))
    assert kubelet(tmp_path).kubelet == (Owned("", "2-3", BY_CPU),)


def test_pods_of_the_static_memory_manager_are_left_alone_wherever_they_run(tmp_path: Path) -> None:
    put(tmp_path, '{"policyName":"none","defaultCpuSet":"","checksum":1}')
    memory = {"policyName": "Static", "machineState": {"0": {}}, "checksum": 2}
    entries = {"a-1": {"app": [{"numaAffinity": [0], "type": "memory", "size": 1073741824}]}}
    put(tmp_path, json.dumps(memory | {"entries": entries}), "memory_manager_state")
    assert kubelet(tmp_path).kubelet == (Owned("a-1", "", BY_MEMORY),)


def test_the_state_of_the_memory_manager_alone_does_not_tell_who_owns_cpus(tmp_path: Path) -> None:
    put(tmp_path, '{"policyName":"None","machineState":{},"entries":{},"checksum":2}', "memory_manager_state")
    found = kubelet(tmp_path, member("kubepods/pod1", source="kubelet"))
    assert found.kubelet is None and "cpu_manager_state is not there" in found.unknown[0]


@pytest.mark.parametrize("policy", ["none", "future"])
def test_without_the_static_policy_nobody_owns_anything(tmp_path: Path, policy: str) -> None:
    put(
        tmp_path, f'{{"policyName":"{policy}","defaultCpuSet":"","entries":{{"a":{{"c":"1"}}}},"checksum":1}}'
    )
    assert kubelet(tmp_path).kubelet == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"policyName":3}',
        '{"policyName":"static","entries":{"a":{"c":"x"}}}',
        '{"policyName":"static","entries":{"a":{"c":"0-99999999"}}}',
        '{"policyName":"static","entries":{"a":[1]}}',
        '{"policyName":"static","defaultCpuSet":"3-1"}',
        "[" * 100_000,
        '{"policyName":"static","defaultCpuSet":"' + " " * (1 << 20) + '"}',
        json.dumps({"policyName": "static", "entries": {str(n): {"c": "0"} for n in range(8193)}}),
    ],
    ids=lambda text: f"{text[:24]}",
)
def test_a_state_that_cannot_be_understood_tells_nothing(tmp_path: Path, text: str) -> None:
    put(tmp_path, text)
    found = kubelet(tmp_path)
    assert found.kubelet is None
    assert "cpu_manager_state" in found.unknown[0]


def test_a_state_is_read_again_only_when_it_was_replaced(tmp_path: Path) -> None:
    files = ForeignFiles(NOBODY, str(tmp_path), KUBELET)
    assert files.read((), 1.0, EIGHT, {}).kubelet == ()
    put(tmp_path, state(a={"c": "2"}))
    first = files.read((), 2.0, EIGHT, {}).kubelet
    path = tmp_path / KUBELET[1:] / "cpu_manager_state"
    before = path.stat()
    path.write_text(state(a={"c": "3"}))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert files.read((), 3.0, EIGHT, {}).kubelet is first
    put(tmp_path, state(a={"c": "3"}))
    assert files.read((), 4.0, EIGHT, {}).kubelet == (Owned("a", "3", BY_CPU),)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Opening a file fails with EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_state_that_could_not_be_read_is_read_at_the_next_look(tmp_path: Path) -> None:
    put(tmp_path, state(a={"c": "2"}))
    files = ForeignFiles(NOBODY, str(tmp_path), KUBELET)
    with no_descriptor_left():
        found = files.read((), 1.0, EIGHT, {})
    assert found.kubelet is None and "cpu_manager_state" in found.unknown[0]
    assert files.read((), 2.0, EIGHT, {}).kubelet == (Owned("a", "2", BY_CPU),)


def test_a_state_that_stays_garbled_costs_no_memory(tmp_path: Path) -> None:
    put(tmp_path, "garbage")
    files = KubeletFiles(str(tmp_path / KUBELET[1:]))
    depths = []
    for _ in range(3):
        with pytest.raises(Garbled) as raised:
            files.read()
        depths.append(len(raised.traceback))
    assert depths[1] == depths[2]


def test_pods_of_a_kubelet_without_its_state_mean_that_it_is_not_known(tmp_path: Path) -> None:
    pod = member("kubepods/pod1", source="kubelet")
    assert kubelet(tmp_path, pod).kubelet is None
    assert ForeignFiles(NOBODY, str(tmp_path), "").read((pod,), 1.0, EIGHT, {}).kubelet == ()


def cpuset(root: Path, version: int, sets: dict[str, str]) -> Hierarchies:
    """A captured cpuset hierarchy with these effective sets by cgroup."""
    for cgroup, cpus in sets.items():
        directory = root / "cpuset" / cgroup
        directory.mkdir(parents=True, exist_ok=True)
        (directory / ("cpuset.cpus" if version == 1 else "cpuset.cpus.effective")).write_text(f"{cpus}\n")
    found = Hierarchy(1 if version == 1 else 2, str(root / "cpuset"), frozenset({"cpuset"}))
    return Hierarchies({"cpuset": found}, None, (found,))


@contextmanager
def thread(*, realtime: bool) -> Iterator[int]:
    """A process that waits, under SCHED_FIFO if so wanted."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        if realtime:
            try:
                os.sched_setscheduler(child.pid, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
            except PermissionError:
                pytest.skip("may not start real-time tasks (CAP_SYS_NICE)")
        yield child.pid
    finally:
        child.kill()
        child.communicate()


def run_in(places: Hierarchies, cgroup: str, *pids: int) -> None:
    found = places.roots["cpuset"]
    name = "tasks" if found.version == 1 else "cgroup.threads"
    Path(found.root, cgroup, name).write_text("".join(f"{pid}\n" for pid in pids))


both = pytest.mark.parametrize("version", [1, 2], ids=["v1", "v2"])


@both
def test_real_time_threads_on_cpus_of_their_own_own_them(tmp_path: Path, version: int) -> None:
    places = cpuset(
        tmp_path, version, {"": "0-7", "rt": "0-7", "rt/inner": "2-3", "cfs": "4-5", "all": "0-7"}
    )
    pods = (member("rt", nested=("rt/inner",)), member("cfs"), member("all"))
    with thread(realtime=True) as fifo, thread(realtime=False) as other:
        run_in(places, "rt/inner", fifo)
        run_in(places, "cfs", other)
        run_in(places, "all", fifo)
        found = ForeignFiles(places, "/", "").read(pods, 1.0, EIGHT, {})
    assert found.realtime == (Owned("uid-rt", "2-3", REALTIME),)


@both
def test_what_the_agent_wrote_is_nobodys_own_but_what_it_found_is(tmp_path: Path, version: int) -> None:
    places = cpuset(tmp_path, version, {"": "0-7", "a": "2-3", "b": "4-5"})
    all_cpus = "0-7" if version == 1 else ""
    held = {
        knob: Held(knob, 1, original, written)
        for knob, original, written in (
            (Knob(Kind.CPUS, "a"), all_cpus, "2-3"),
            (Knob(Kind.CPUS, "b"), "6", "4-5"),
        )
    }
    with thread(realtime=True) as fifo:
        run_in(places, "a", fifo)
        run_in(places, "b", fifo)
        found = ForeignFiles(places, "/", "").read((member("a"), member("b")), 1.0, EIGHT, held)
    assert found.realtime == (Owned("uid-b", "6", REALTIME),)


@both
def test_the_kubelets_shared_cpus_are_nobodys_own(tmp_path: Path, version: int) -> None:
    put(tmp_path, state(a={"c": "2-3"}))
    places = cpuset(tmp_path, version, {"": "0-7", "pod": "0-7", "pod/c": "0-1,4-7"})
    with thread(realtime=True) as fifo:
        run_in(places, "pod/c", fifo)
        pod = member("pod", nested=("pod/c",), source="kubelet")
        found = ForeignFiles(places, str(tmp_path), KUBELET).read((pod,), 1.0, EIGHT, {})
    assert found.realtime == ()


def test_a_pod_that_is_to_be_left_alone_owns_its_cpus_without_real_time(tmp_path: Path) -> None:
    places = cpuset(tmp_path, 2, {"": "0-7", "dpdk": "5", "wide": "0-7"})
    pods = (member("dpdk", hands_off=True), member("wide", hands_off=True))
    found = ForeignFiles(places, "/", "").read(pods, 1.0, EIGHT, {})
    assert found.realtime == (Owned("uid-dpdk", "5", HANDS_OFF),)


def test_a_pod_is_looked_at_when_it_is_new_and_then_now_and_again(tmp_path: Path) -> None:
    places = cpuset(tmp_path, 2, {"": "0-7", "dpdk": "5"})
    files, pods = ForeignFiles(places, "/", ""), (member("dpdk", hands_off=True),)
    assert files.read(pods, 1.0, EIGHT, {}).realtime
    cpuset(tmp_path, 2, {"dpdk": "6"})
    assert files.read(pods, 1.0, EIGHT, {}).realtime == (Owned("uid-dpdk", "5", HANDS_OFF),)
    assert files.read(pods, 1.0 + LOOK_S, EIGHT, {}).realtime == (Owned("uid-dpdk", "6", HANDS_OFF),)
    (tmp_path / "cpuset/dpdk/cpuset.cpus.effective").write_text("garbage")
    assert files.read(pods, 1.0 + 2 * LOOK_S, EIGHT, {}).realtime == (Owned("uid-dpdk", "6", HANDS_OFF),)
    assert files.read((), 2.0 + 2 * LOOK_S, EIGHT, {}).realtime == ()


def test_all_threads_of_a_pod_are_looked_at(tmp_path: Path) -> None:
    places = cpuset(tmp_path, 2, {"": "0-7", "rt": "2-3"})
    with thread(realtime=True) as fifo:
        run_in(places, "rt", *[os.getpid()] * 5000, fifo)
        found = ForeignFiles(places, "/", "").read((member("rt"),), 1.0, EIGHT, {})
    assert found.realtime == (Owned("uid-rt", "2-3", REALTIME),)


def test_a_list_of_threads_that_is_cut_clears_nothing_and_tells_nothing(tmp_path: Path) -> None:
    places, pods = cpuset(tmp_path, 2, {"": "0-7", "rt": "2-3"}), (member("rt"),)
    too_many = [os.getpid()] * ((1 << 20) // len(f"{os.getpid()}\n") + 1)
    files = ForeignFiles(places, "/", "")
    with thread(realtime=True) as fifo:
        run_in(places, "rt", fifo)
        assert files.read(pods, 1.0, EIGHT, {}).realtime == (Owned("uid-rt", "2-3", REALTIME),)
        run_in(places, "rt", *too_many, fifo)
        assert files.read(pods, 1.0 + LOOK_S, EIGHT, {}).realtime == (Owned("uid-rt", "2-3", REALTIME),)
        new = ForeignFiles(places, "/", "").read(pods, 1.0, EIGHT, {})
    assert new.realtime is None and "too many threads" in new.unknown[0]


def test_cgroups_of_a_pod_beyond_those_looked_at_clear_nothing(tmp_path: Path) -> None:
    places = cpuset(tmp_path, 2, {"": "0-7", "dpdk": "0-7", "dpdk/c": "5"})
    files = ForeignFiles(places, "/", "")
    pods = (member("dpdk", hands_off=True, nested=("dpdk/c",)),)
    assert files.read(pods, 1.0, EIGHT, {}).realtime == (Owned("uid-dpdk", "5", HANDS_OFF),)
    more = tuple(f"dpdk/{n}" for n in range(MAX_CGROUPS))
    pods = (member("dpdk", hands_off=True, nested=(*more, "dpdk/c")),)
    assert files.read(pods, 1.0 + LOOK_S, EIGHT, {}).realtime == (Owned("uid-dpdk", "5", HANDS_OFF),)


def test_pods_with_more_threads_than_are_looked_at_in_a_tick_wait_and_are_not_known(tmp_path: Path) -> None:
    places = cpuset(tmp_path, 2, {"": "0-7", "a": "2", "b": "3"})
    files, pods = ForeignFiles(places, "/", ""), (member("a"), member("b"))
    run_in(places, "a", *[os.getpid()] * THREADS_PER_TICK)
    with thread(realtime=True) as fifo:
        run_in(places, "b", fifo)
        first, second = (files.read(pods, at, EIGHT, {}) for at in (1.0, 1.1))
    assert first.realtime is None and first.unknown[0].startswith("b may run real-time threads")
    assert second.realtime == (Owned("uid-b", "3", REALTIME),) and second.unknown == ()


def test_a_pod_that_was_never_looked_at_with_success_makes_real_time_not_known(tmp_path: Path) -> None:
    places = cpuset(tmp_path, 2, {"": "0-7", "a": "garbage", "dpdk": "5"})
    files, pods = ForeignFiles(places, "/", ""), (member("a"), member("dpdk", hands_off=True))
    found = files.read(pods, 1.0, EIGHT, {})
    assert found.realtime is None and "a/cpuset.cpus.effective: not a list of CPUs" in found.unknown[0]
    cpuset(tmp_path, 2, {"a": "4"})
    run_in(places, "a")
    found = files.read(pods, 1.0 + LOOK_S, EIGHT, {})
    assert found.realtime == (Owned("uid-dpdk", "5", HANDS_OFF),) and found.unknown == ()


@both
def test_a_pod_whose_cgroup_has_vanished_runs_nothing(tmp_path: Path, version: int) -> None:
    places = cpuset(tmp_path, version, {"": "0-7"})
    found = ForeignFiles(places, "/", "").read((member("gone", nested=("gone/c",)),), 1.0, EIGHT, {})
    assert found.realtime == () and found.unknown == ()


REFUSING = """
import ctypes, os, platform, struct, sys
number = {"x86_64": 145, "aarch64": 120}[platform.machine()]  # of sched_getscheduler
lines = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000))
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("code", ctypes.c_void_p)]
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
program = Program(len(lines), ctypes.addressof(code))
if libc.prctl(22, 2, ctypes.byref(program)):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
    sys.exit(77)
from nodeagent.kernel.foreign import ForeignFiles
from tests.unit.test_foreign import EIGHT, Path, cpuset, member, run_in
places = cpuset(Path(sys.argv[1]), 2, {"": "0-7", "a": "2"})
run_in(places, "a", os.getpid())
found = ForeignFiles(places, "/", "").read((member("a"),), 1.0, EIGHT, {})
print(found.realtime, found.unknown)
"""


def test_policies_of_threads_that_are_refused_are_not_known(tmp_path: Path) -> None:
    if os.uname().machine not in {"x86_64", "aarch64"}:
        pytest.skip("the number of the system call is not known here")
    done = subprocess.run(
        [sys.executable, "-c", REFUSING, str(tmp_path)], capture_output=True, text=True, check=False
    )
    if done.returncode == 77:
        pytest.skip("may not filter system calls")
    why = "a may run real-time threads: the scheduling policy of its threads is not told"
    assert done.stdout == f"None ('{why}: Operation not permitted',)\n", done.stderr


def test_a_cpu_that_is_plugged_in_is_not_a_partitions_for_the_root_has_it_late(tmp_path: Path) -> None:
    files = ForeignFiles(cpuset(tmp_path, 2, {"": "0-3"}), "/", "")
    assert files.read((), 1.0, samples.topology(4), {}).partitions == ()
    assert files.read((), 2.0, EIGHT, {}).partitions == ()
    cpuset(tmp_path, 2, {"": "0-7"})
    assert files.read((), 3.0, EIGHT, {}).partitions == ()
    cpuset(tmp_path, 2, {"": "0-4,7"})
    assert files.read((), 4.0, EIGHT, {}).partitions == ()
    cpuset(tmp_path, 2, {"": "0-5"})
    assert [each.cpus for each in files.read((), 5.0, EIGHT, {}).partitions or ()] == ["6"]


def test_cpus_that_the_v2_root_has_lost_are_a_partitions(tmp_path: Path) -> None:
    files = ForeignFiles(cpuset(tmp_path, 2, {"": "0-5"}), "/", "")
    assert [each.cpus for each in files.read((), 1.0, EIGHT, {}).partitions or ()] == ["6-7"]
    cpuset(tmp_path, 2, {"": "0-7"})
    assert files.read((), 1.0, EIGHT, {}).partitions == ()
    cpuset(tmp_path, 2, {"": "?"})
    found = files.read((), 1.0, EIGHT, {})
    assert found.partitions is None and "cpuset.cpus.effective" in found.unknown[0]


def test_cgroup_v1_has_no_partitions(tmp_path: Path) -> None:
    files = ForeignFiles(cpuset(tmp_path, 1, {"": "0-5"}), "/", "")
    assert files.read((), 1.0, EIGHT, {}).partitions == ()


def test_while_pods_are_not_placed_nobody_looks_so_nothing_is_known(tmp_path: Path) -> None:
    root = trees.plant(tmp_path, trees.V2 | {"var/lib/kubelet/cpu_manager_state": "garbage"})
    host = Host(AgentSettings(host_root=root, run_dir=str(tmp_path / "run")), ())
    try:
        off = host.read(0, {}, "timer").foreign
        host.policy = Policy(numa=NumaPolicy(placement=True))
        reloaded = host.read(1, {}, "timer").foreign
    finally:
        host.close()
    assert off == Foreign(None, None, None)
    assert reloaded.kubelet is None and "cpu_manager_state" in reloaded.unknown[0]
