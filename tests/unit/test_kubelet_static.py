"""The kubelet's pod list and its static CPU manager's state are of the same pods, and these are hands-off."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from nodeagent.kernel.foreign import ForeignFiles
from nodeagent.kernel.kubelet import BY_CPU
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.foreign import Owned
from nodeagent.model.plan import Kind
from nodeagent.model.pod import PodRule, Qos
from nodeagent.pods.recognise import recognise
from nodeagent.pods.told import Told
from tests.unit import samples
from tests.unit import test_hands_off as law
from tests.unit.kubelet_samples import HERE, cgroupfs, told, tree

RECORDED = (HERE / "v1.20.2-recorded.json").read_bytes()
PODS = told(RECORDED)
WEB, SORT = PODS["na-test/web-na-node"], PODS["na-test/sort-na-node"]
DIRS = tree(cgroupfs(WEB.uid), cgroupfs(SORT.uid, "besteffort"))


def test_what_a_real_kubelet_says_of_its_static_pods() -> None:
    assert (WEB.qos, WEB.cpus, WEB.memory, WEB.critical) == (Qos.LS, 1.0, 64 << 20, True)
    assert (SORT.qos, SORT.cpus, len(SORT.wrong)) == (Qos.MID, None, 1)
    assert [len(each.id) for pod in PODS.values() for each in pod.containers] == [64, 64]


def test_a_pod_with_cpus_of_the_static_manager_is_left_alone_though_it_asks_to_be_bound(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "var/lib/kubelet"
    directory.mkdir(parents=True)
    (directory / "cpu_manager_state").write_bytes((HERE / "cpu_manager_state.json").read_bytes())
    bound = replace(WEB, numa_bind=True)
    two = samples.topology(2)
    for rules in ((), (PodRule(match="kubepods/pod*", qos=Qos.LS),)):
        members = recognise(DIRS, rules, {}, Told([bound, SORT], cautious=True))
        owners = ForeignFiles(Hierarchies({}, None, ()), str(tmp_path), "/var/lib/kubelet")
        foreign = owners.read(members, 1.0, two, {})
        assert foreign.kubelet == (Owned(WEB.uid, "1", BY_CPU),)
        named = {member.spec.name: member.spec for member in members}
        assert set(named) == {"na-test/web-na-node", "na-test/sort-na-node"}
        web = replace(law.pod(1), spec=named["na-test/web-na-node"])
        decision, _, _ = law.run(two, (web, law.pod(2, Qos.BATCH)), foreign)
        found = law.placement(decision)
        assert "static CPU manager" in dict(found.left_alone)[WEB.uid]
        assert not {Kind.CPUS, Kind.MEMS} & set(law.planned(decision, web.spec.cgroup))
        assert CpuSet.parse(found.batch) == CpuSet({0}), "its CPU is in no pool"
