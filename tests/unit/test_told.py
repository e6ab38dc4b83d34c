"""Kubernetes' pods joined with cgroups of both drivers: who is what, and what is never made of anybody."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.model.kubernetes import ContainerTold, PodTold
from nodeagent.model.pod import CgroupDir, Member, NumaWish, PodRule, Priority, Qos
from nodeagent.pods.recognise import recognise, recognised
from nodeagent.pods.told import NOTHING, Told
from tests.unit.kubelet_samples import (
    MIRROR_HASH,
    STATIC_UID,
    UID,
    V1_20,
    V1_34,
    cgroupfs,
    systemd,
    told,
    tree,
)

WEB, SPARK, PROXY, REPORT, CACHE = (UID.format(n) for n in (0, 1, 2, 4, 5))
Path = Callable[..., str]
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
DRIVERS = pytest.mark.parametrize("path", [cgroupfs, systemd], ids=["cgroupfs", "systemd"])


def members(dirs: tuple[CgroupDir, ...], told: Told, *rules: PodRule) -> dict[str, Member]:
    return {m.spec.name: m for m in recognise(dirs, rules, {}, told)}


def pod(uid: str = "u", **more: object) -> PodTold:
    return PodTold(uid=uid, namespace="ns", name=uid, **more)  # type: ignore[arg-type]


@DRIVERS
def test_pods_of_an_old_kubelet_have_their_names_classes_and_requests(path: Path) -> None:
    listed = told(V1_20)
    dirs = tree(
        path(WEB), path(SPARK, "besteffort"), path(PROXY, "besteffort"), path(STATIC_UID, "burstable"),
        path(REPORT, "burstable"), path(CACHE, "burstable"),
    )  # fmt: skip
    found = members(dirs, Told(listed.values(), cautious=True))
    assert {name: (m.spec.qos, m.spec.uid, m.spec.cpu_request_cores) for name, m in found.items()} == {
        "shop/web-7c5d9b6f4-x2x9k": (Qos.LS, WEB, 2.0),
        "bigdata/spark-exec-17": (Qos.BATCH, SPARK, 4.0),
        "kube-system/kube-proxy-9wz2c": (Qos.MID, PROXY, None),
        "kube-system/etcd-node-7": (Qos.MID, STATIC_UID, 0.1),
        "shop/report-28416-b5xkq": (Qos.BATCH, REPORT, 1.0),
        "shop/cache-0": (Qos.MID, CACHE, 0.25),
    }
    assert {m.spec.source for m in found.values()} == {"kubelet"}
    web, report = found["shop/web-7c5d9b6f4-x2x9k"].spec, found["shop/report-28416-b5xkq"].spec
    assert (web.numa_bind, web.near) == (True, "eth1")
    assert (report.priority, report.tier) == (Priority.LOW, None), "its cgroup is no Batch tier"
    assert found["bigdata/spark-exec-17"].spec.tier is None, "kube-proxy is in the tier, and is not Batch"
    assert recognised(dirs, (), {}, Told(listed.values())).tiers == ()


@DRIVERS
def test_containers_have_their_names_and_inner_cgroups_stay_theirs(path: Path) -> None:
    listed = told(V1_34)
    api = listed["shop/api-58f7c"]
    top = path(api.uid, "burstable")
    scope = (lambda i: f"cri-containerd-{i}.scope") if path is systemd else (lambda i: i)
    dirs = tree(*(f"{top}/{scope(c.id)}/init" for c in api.containers), f"{top}/{scope(HEX)}")
    member = members(dirs, Told(listed.values()))["shop/api-58f7c"]
    assert sorted(name for name, _ in member.containers) == [HEX[:12], "app", "mesh", "migrate"]
    assert member.spec.exclusive


def test_a_mirror_pod_is_the_static_pod_whose_hash_names_the_cgroup() -> None:
    found = members(tree(systemd(MIRROR_HASH, "burstable")), Told(told(V1_34).values()))
    spec = found["kube-system/node-problem-detector-node-7"].spec
    assert (spec.uid, spec.qos) == (MIRROR_HASH, Qos.MID), "by its own uid it is known to the kubelet's state"


def test_annotations_cannot_take_the_place_of_another_pod() -> None:
    forged = pod("forged", qos=Qos.BATCH, aliases=("victim",))
    for listed in ((forged, pod("victim", qos=Qos.LS)), (pod("victim", qos=Qos.LS), forged)):
        (member,) = recognise(tree(cgroupfs("victim")), (), {}, Told(listed))
        assert (member.spec.name, member.spec.qos) == ("ns/victim", Qos.LS)


@DRIVERS
def test_a_pod_that_the_list_does_not_know_is_never_batch(path: Path) -> None:
    dirs = tree(path("new", "besteffort"), path("other", "burstable"), path("third"))
    assert [m.spec.qos for m in recognise(dirs, (), {}, Told(cautious=True))] == [
        {"new": Qos.MID, "other": Qos.MID, "third": Qos.LS}[m.spec.uid]
        for m in recognise(dirs, (), {}, NOTHING)
    ]
    assert Qos.BATCH in [m.spec.qos for m in recognise(dirs, (), {}, NOTHING)], "paths alone tell as before"


def test_what_was_told_of_a_cgroup_holds_while_it_lives() -> None:
    dirs = tree(cgroupfs("u", "besteffort"))
    (top,) = (d for d in dirs if d.path.endswith("podu"))
    known = {(top.path, top.inode): pod(qos=Qos.LS, cpus=2.0)}
    (member,) = recognise(dirs, (), {}, Told((), known, cautious=True))
    assert (member.spec.name, member.spec.qos, member.spec.cpu_request_cores) == ("ns/u", Qos.LS, 2.0)
    anew = tuple(CgroupDir(d.path, d.inode + 1000) for d in dirs)
    (other,) = recognise(anew, (), {}, Told((), known, cautious=True))
    assert (other.spec.name, other.spec.qos) == ("pod-u", Qos.MID)


def test_an_operators_rule_comes_first_and_leaves_the_pods_name_uid_and_request() -> None:
    listed = Told([pod(qos=Qos.LS, cpus=2.0, memory=7, numa_bind=True)])
    rule = PodRule(match="kubepods/burstable/*", qos=Qos.BATCH, priority=Priority.LOW)
    (member,) = recognise(tree(cgroupfs("u", "burstable")), (rule,), {}, listed)
    spec = member.spec
    assert (spec.qos, spec.source, spec.priority, spec.numa_bind) == (Qos.BATCH, "rule", Priority.LOW, False)
    assert (spec.name, spec.uid, spec.cpu_request_cores, spec.memory_request_bytes) == ("ns/u", "u", 2.0, 7)
    own = PodRule(match="kubepods/*/pod*", qos=Qos.LS, name="web", cpus=4.0, numa=NumaWish.BIND)
    (member,) = recognise(tree(cgroupfs("u", "burstable")), (own,), {}, listed)
    spec = member.spec
    assert (spec.name, spec.uid, spec.cpu_request_cores, spec.numa_bind) == ("web", "u", 4.0, True)


def test_a_runtimes_pod_is_found_by_its_containers_wherever_they_are() -> None:
    listed = Told([pod(containers=(ContainerTold(HEX, "app", 4711),), qos=Qos.BATCH, sandboxes=("5" * 64,))])
    for top in ("kubepods/burstable/podtest", "vendor/pods/x", "vendor.slice/x.slice"):
        dirs = tree(f"{top}/{HEX}", f"{top}/{'5' * 64}")
        (member,) = recognise(dirs, (), {}, listed)
        spec = member.spec
        assert (spec.cgroup, spec.uid, spec.name, spec.qos) == (top, "u", "ns/u", Qos.BATCH)
        assert sorted(name for name, _ in member.containers) == ["app", "pause"]
        assert spec.main_pids == ((f"{top}/{HEX}", 4711),)


def test_a_cgroup_that_holds_containers_of_several_pods_is_none_of_them() -> None:
    listed = Told([pod(n, containers=(ContainerTold(n * 64, "app"),)) for n in "ab"])
    assert recognise(tree(f"k8s.io/{'a' * 64}", f"k8s.io/{'b' * 64}"), (), {}, listed) == ()


def test_what_is_inside_a_pod_is_no_pod_whatever_it_is_called() -> None:
    listed = Told([pod("outer", qos=Qos.LS), pod("inner", containers=(ContainerTold(HEX, "app"),))])
    inside = f"{cgroupfs('outer')}/{'c' * 64}/kubepods/besteffort/podinner/{HEX}"
    assert [m.spec.name for m in recognise(tree(inside), (), {}, listed)] == ["ns/outer"]


def _with(why: str) -> PodTold:
    return pod(critical=why == "critical", hands_off=why == "hands_off")


@pytest.mark.parametrize("why", ["critical", "hands_off"])
def test_the_system_and_who_wants_to_be_left_alone_is_not_batch_by_its_path(why: str) -> None:
    (member,) = recognise(tree(cgroupfs("u", "besteffort")), (), {}, Told([_with(why)]))
    assert (member.spec.qos, member.spec.hands_off) == (Qos.MID, why == "hands_off")


classes = st.sampled_from([None, *Qos])
lists = st.dictionaries(st.sampled_from("abcdef"), classes, max_size=6)
cgroups = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from(["", "burstable", "besteffort"])),
    min_size=1, max_size=6, unique_by=lambda each: each[0],
)  # fmt: skip


@given(lists, lists, cgroups, st.sampled_from([cgroupfs, systemd]))
def test_losing_the_list_loosens_nothing(
    before: dict[str, Qos | None], after: dict[str, Qos | None], pods: list[tuple[str, str]], path: Path
) -> None:
    """Whoever was online stays online while its cgroup lives, if the next list does not say otherwise."""
    dirs = tree(*(path(*each) for each in pods))
    first = recognise(dirs, (), {}, Told([pod(u, qos=q) for u, q in before.items()], cautious=True))
    known = {
        (m.spec.cgroup, m.spec.inode): pod(m.spec.uid, qos=before[m.spec.uid])
        for m in first
        if m.spec.uid in before
    }
    lost = recognise(dirs, (), {}, Told((), known, cautious=True))
    assert [m.spec.qos for m in lost] == [m.spec.qos for m in first]
    renewed = recognise(dirs, (), {}, Told([pod(u, qos=q) for u, q in after.items()], known, cautious=True))
    for was, now in zip(first, renewed, strict=True):
        if was.spec.online and not now.spec.online:
            said = after.get(now.spec.uid, Qos.LS)
            assert said is Qos.BATCH or (said is None and "besteffort" in now.spec.cgroup)


@given(st.permutations([Qos.BATCH, Qos.LS, Qos.BATCH]))
def test_of_two_pods_with_one_uid_it_is_the_one_that_is_not_batch(classes: list[Qos]) -> None:
    listed = Told([pod("u", qos=qos, containers=(ContainerTold(HEX, "c"),)) for qos in classes])
    for dirs in (tree(cgroupfs("u", "besteffort")), tree(f"k8s.io/{HEX}")):
        (member,) = recognise(dirs, (), {}, listed)
        assert member.spec.qos is Qos.LS
