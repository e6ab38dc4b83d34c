"""Which cgroups are pods: real layouts as literals, laws over arbitrary mixtures of them."""

from __future__ import annotations

import random
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.model.pod import CgroupDir, Claim, Member, NumaWish, PodRule, Priority, Qos
from nodeagent.pods.recognise import recognise, recognised

UID = "5c6e2f6a-6a0b-4d3c-9d2e-0123456789ab"
UID_ = UID.replace("-", "_")
HEX = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
KIND_BESTEFFORT = "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice"
CONTAINER = "container_e17_1410901177871_0001_01_000005"


def tree(*paths: str) -> tuple[CgroupDir, ...]:
    """The named directories and all above them, as a walk gives them."""
    every = {""}
    for path in paths:
        parts = path.split("/")
        every.update("/".join(parts[: n + 1]) for n in range(len(parts)))
    return tuple(CgroupDir(path, 100 + number) for number, path in enumerate(sorted(every)))


def pods(*paths: str, rules: tuple[PodRule, ...] = ()) -> dict[str, Member]:
    return {member.spec.cgroup: member for member in recognise(tree(*paths), rules, {})}


@pytest.mark.parametrize(
    ("path", "qos", "tier"),
    [
        (f"kubepods/pod{UID}", Qos.LS, None),
        (f"kubepods/burstable/pod{UID}", Qos.MID, None),
        (f"kubepods/besteffort/pod{UID}", Qos.BATCH, "kubepods/besteffort"),
        (f"kubelet/kubepods/besteffort/pod{UID}", Qos.BATCH, "kubelet/kubepods/besteffort"),
        (f"kubepods.slice/kubepods-pod{UID_}.slice", Qos.LS, None),
        (f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID_}.slice", Qos.MID, None),
        (
            f"kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{UID_}.slice",
            Qos.BATCH,
            "kubepods.slice/kubepods-besteffort.slice",
        ),
        (f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_}.slice", Qos.LS, None),
        (f"{KIND_BESTEFFORT}/kubelet-kubepods-besteffort-pod{UID_}.slice", Qos.BATCH, KIND_BESTEFFORT),
    ],
)
def test_kubelet_pods_have_their_class_tier_and_kubernetes_uid(path: str, qos: Qos, tier: str | None) -> None:
    found = pods(path)
    assert list(found) == [path]
    spec = found[path].spec
    assert (spec.uid, spec.qos, spec.tier, spec.source) == (UID, qos, tier, "kubelet")
    assert spec.name == "pod-5c6e2f6a"
    assert recognised(tree(path), (), {}).tiers == ((tier,) if tier else ())


@pytest.mark.parametrize(
    ("directory", "name"),
    [
        (f"cri-containerd-{HEX}.scope", HEX[:12]),
        (f"docker-{HEX}.scope", HEX[:12]),
        (f"crio-{HEX}.scope", HEX[:12]),
        (f"crio-{HEX}", HEX[:12]),
        (f"libpod-{HEX}.scope", HEX[:12]),
        (f"pouch-{HEX}.scope", HEX[:12]),
        (HEX, HEX[:12]),
        ("web", "web"),
    ],
)
def test_containers_are_called_by_their_id_without_the_runtime(directory: str, name: str) -> None:
    pod = f"kubepods.slice/kubepods-pod{UID_}.slice"
    member = pods(f"{pod}/{directory}/init")[pod]
    assert [(called, at.path) for called, at in member.containers] == [(name, f"{pod}/{directory}")]
    assert member.nested == (f"{pod}/{directory}", f"{pod}/{directory}/init")


def test_the_monitors_of_crio_are_nested_but_no_containers() -> None:
    pod = f"kubepods.slice/kubepods-pod{UID_}.slice"
    member = pods(f"{pod}/crio-conmon-{HEX}.scope")[pod]
    assert member.containers == ()
    assert member.nested == (f"{pod}/crio-conmon-{HEX}.scope",)


def test_static_pods_keep_the_hash_that_is_their_uid() -> None:
    uid = "0f2bbd9c8d2f1c1f2e4f8f1d2a3b4c5d"
    path = f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice"
    assert pods(path)[path].spec.uid == uid


def test_exec_pods_have_the_request_of_their_claim() -> None:
    claim = Claim(
        cgroup="nodeagent/batch/sort",
        name="sort",
        qos=Qos.BATCH,
        pid=1,
        priority=Priority.LOW,
        cpus=2.0,
        memory=1 << 30,
    )
    dirs = tree("nodeagent/batch/sort", "nodeagent/ls/web", "nodeagent/odd/x")
    batch, online = recognise(dirs, (), {claim.cgroup: claim})
    assert (batch.spec.uid, batch.spec.name) == ("nodeagent/batch/sort", "sort")
    assert (batch.spec.qos, batch.spec.tier, batch.spec.source) == (Qos.BATCH, "nodeagent/batch", "exec")
    assert (batch.spec.priority, batch.spec.cpu_request_cores) == (Priority.LOW, 2.0)
    assert batch.spec.memory_request_bytes == 1 << 30
    assert (online.spec.qos, online.spec.tier, online.spec.cpu_request_cores) == (Qos.LS, None, None)


def test_a_claim_of_another_class_is_not_believed() -> None:
    claim = Claim(cgroup="nodeagent/batch/x", name="x", qos=Qos.LS, pid=1, cpus=9.0)
    (member,) = recognise(tree("nodeagent/batch/x"), (), {claim.cgroup: claim})
    assert (member.spec.qos, member.spec.cpu_request_cores) == (Qos.BATCH, None)


@pytest.mark.parametrize(
    ("parent", "tier"),
    [
        ("hadoop-yarn", "hadoop-yarn"),
        ("system.slice/hadoop-yarn", "system.slice/hadoop-yarn"),
        ("kubepods/besteffort/hadoop-yarn", "kubepods/besteffort"),
        ("system.slice/hadoop-yarn-nodemanager.service", None),
        ("something", None),
    ],
)
def test_yarn_containers_are_batch_wherever_the_node_manager_puts_them(parent: str, tier: str | None) -> None:
    for name in (CONTAINER, "container_1410901177871_0001_01_000005"):
        found = pods(f"{parent}/{name}")
        assert list(found) == [f"{parent}/{name}"]
        spec = found[f"{parent}/{name}"].spec
        assert (spec.qos, spec.tier, spec.source, spec.name) == (Qos.BATCH, tier, "yarn", name)


def test_a_yarn_tree_inside_a_pod_belongs_to_the_pod() -> None:
    pod = f"kubepods/besteffort/pod{UID}"
    assert list(pods(f"{pod}/{HEX}/hadoop-yarn/{CONTAINER}")) == [pod]
    assert recognised(tree(f"{pod}/{HEX}/hadoop-yarn/{CONTAINER}"), (), {}).tiers == ("kubepods/besteffort",)


def test_systemd_units_are_pods_and_slices_only_when_nothing_is_in_them() -> None:
    found = pods(
        "init.scope",
        "batch.slice",
        "jobs.slice/worker",
        "mounts.slice/boot.mount",
        "system.slice/nginx.service/workers",
        "system.slice/boot.mount",
        f"system.slice/docker-{HEX}.scope/init",
        f"machine.slice/libpod-{HEX}.scope/container",
        "user.slice/user-0.slice/session-1.scope",
        "user.slice/user-0.slice/user@0.service/app.slice/editor.service",
        "user.slice/user-0.slice/user@0.service/init.scope",
        f"docker/{HEX}",
    )
    assert {path: member.spec.name for path, member in found.items()} == {
        "batch.slice": "batch.slice",
        f"docker/{HEX}": f"docker-{HEX[:12]}",
        "jobs.slice": "jobs.slice",
        f"machine.slice/libpod-{HEX}.scope": f"libpod-{HEX[:12]}",
        f"system.slice/docker-{HEX}.scope": f"docker-{HEX[:12]}",
        "system.slice/nginx.service": "nginx.service",
        "user.slice/user-0.slice/session-1.scope": "session-1",
        "user.slice/user-0.slice/user@0.service": "user@0.service",
    }
    assert {member.spec.qos for member in found.values()} == {Qos.MID}
    assert found["system.slice/nginx.service"].nested == ("system.slice/nginx.service/workers",)
    assert found["system.slice/nginx.service"].containers == ()


def test_the_frame_that_kubelet_makes_is_no_pod_when_empty() -> None:
    assert not pods(
        "kubepods.slice/kubepods-burstable.slice",
        "kubepods.slice/kubepods-besteffort.slice",
        "kubelet.slice/kubelet-kubepods.slice",
    )


def test_what_is_made_inside_a_container_is_no_pod() -> None:
    scope = f"system.slice/docker-{HEX}.scope"
    inner = (f"kubelet/kubepods/pod{UID}", "nodeagent/ls/x", "system.slice/x.service", CONTAINER)
    assert list(pods(*(f"{scope}/{path}" for path in inner))) == [scope]


def test_the_first_matching_rule_wins_over_all_that_is_built_in() -> None:
    rules = (
        PodRule(match="jobs/spark-*", qos=Qos.BATCH, priority=Priority.LOW, name="spark", cpus=4.0, memory=7),
        PodRule(match="jobs/**", qos=Qos.LS),
        PodRule(match="system.slice/nginx.service", qos=Qos.LS, name="front"),
    )
    found = pods("jobs/spark-1/c1/x", "jobs/other/c2", "system.slice/nginx.service", rules=rules)
    spark = found["jobs/spark-1"]
    assert list(found) == ["jobs/other", "jobs/spark-1", "system.slice/nginx.service"]
    assert (spark.spec.name, spark.spec.qos, spark.spec.priority) == ("spark", Qos.BATCH, Priority.LOW)
    assert (spark.spec.cpu_request_cores, spark.spec.memory_request_bytes) == (4.0, 7)
    assert [name for name, _ in spark.containers] == ["c1"]
    assert spark.nested == ("jobs/spark-1/c1", "jobs/spark-1/c1/x")
    assert found["jobs/other"].spec.name == "jobs/other"
    assert (found["system.slice/nginx.service"].spec.name, found["jobs/other"].spec.qos) == ("front", Qos.LS)


def test_a_rule_reaches_into_a_service_but_not_into_another_pod() -> None:
    rules = (PodRule(match="**/worker-*", qos=Qos.BATCH),)
    pod = f"kubepods/pod{UID}"
    found = pods("system.slice/farm.service/worker-1", f"{pod}/worker-1", rules=rules)
    assert list(found) == [pod, "system.slice/farm.service/worker-1"]


def test_a_tier_that_holds_an_online_pod_is_no_tier() -> None:
    rules = (PodRule(match=f"kubepods/besteffort/pod{UID}", qos=Qos.LS),)
    dirs = tree(f"kubepods/besteffort/pod{UID}", "kubepods/besteffort/podother", "nodeagent/batch")
    assert recognised(dirs, rules, {}).tiers == ("nodeagent/batch",)
    assert [member.spec.tier for member in recognise(dirs, rules, {})] == [None, None]


def test_empty_tiers_are_found() -> None:
    dirs = tree(
        "nodeagent/batch", "kubepods/besteffort", "kubepods.slice/kubepods-besteffort.slice", "hadoop-yarn"
    )
    assert set(recognised(dirs, (), {}).tiers) == {
        "nodeagent/batch",
        "kubepods/besteffort",
        "kubepods.slice/kubepods-besteffort.slice",
        "hadoop-yarn",
    }


def test_siblings_whose_names_sort_around_the_slash_do_not_mix() -> None:
    found = pods("a.service/x", "a.service-1.service/y", "a.service.service/z")
    assert {path: member.nested for path, member in found.items()} == {
        "a.service": ("a.service/x",),
        "a.service-1.service": ("a.service-1.service/y",),
        "a.service.service": ("a.service.service/z",),
    }


def test_names_are_short_and_printable() -> None:
    rules = (PodRule(match="x*", qos=Qos.MID),)
    names = [m.spec.name for m in pods("x" * 300, "x\x1b[2J", rules=rules).values()]
    assert all(len(name) <= 63 and name.isprintable() for name in names)


PARTS = st.sampled_from(
    f"kubepods besteffort burstable pod{UID} pod1 kubepods.slice kubepods-besteffort.slice nodeagent batch "
    f"kubepods-besteffort-pod1.slice hadoop-yarn {CONTAINER} docker {HEX} system.slice a.service a.slice "
    "ls a.scope init.scope x x-1 boot.mount".split()
)
PATHS = st.lists(st.lists(PARTS, min_size=1, max_size=5).map("/".join), max_size=25)
RULES = st.lists(
    st.builds(
        PodRule,
        match=st.sampled_from(
            ["x", "**/x", "*/x-?", "**/*.service", "kubepods/besteffort", "nodeagent/**", "**"]
        ),
        qos=st.sampled_from(Qos),
    ),
    max_size=3,
).map(tuple)


@given(PATHS, RULES)
def test_no_cgroup_is_in_two_pods_and_all_lie_below_their_own(
    paths: list[str], rules: tuple[PodRule, ...]
) -> None:
    dirs = tree(*paths)
    members = recognise(dirs, rules, {})
    taken = [path for member in members for path in (member.spec.cgroup, *member.nested)]
    assert len(taken) == len(set(taken))
    for member in members:
        prefix = member.spec.cgroup + "/"
        assert set(member.nested) == {d.path for d in dirs if d.path.startswith(prefix)}
        assert all(at.path in member.nested for _, at in member.containers)
    assert len({member.spec.uid for member in members}) == len(members)


@given(PATHS, RULES)
def test_tiers_do_not_nest_and_hold_batch_pods_only(paths: list[str], rules: tuple[PodRule, ...]) -> None:
    dirs = tree(*paths)
    members, found = recognised(dirs, rules, {})
    assert not any(one.startswith(other + "/") for one in found for other in found)
    for member in members:
        inside = [tier for tier in found if member.spec.cgroup.startswith(tier + "/")]
        assert inside == ([member.spec.tier] if member.spec.tier else [])
        assert not (inside and member.spec.online)
        assert member.spec.cgroup not in found


@given(PATHS, RULES, st.randoms())
def test_the_order_of_the_directories_does_not_matter(
    paths: list[str], rules: tuple[PodRule, ...], chance: random.Random
) -> None:
    dirs = list(tree(*paths))
    expected = recognised(tuple(dirs), rules, {})
    chance.shuffle(dirs)
    assert recognised(tuple(dirs), rules, {}) == expected


def test_five_thousand_cgroups_are_sorted_out_in_linear_time() -> None:
    def cost_s(count: int) -> float:
        burstable = "kubepods.slice/kubepods-burstable.slice"
        pod = burstable + "/kubepods-burstable-pod{:08d}.slice/cri-containerd-{:064x}.scope"
        dirs = tree(*(pod.format(n, n) for n in range(count // 2)))
        rules = tuple(PodRule(match=f"jobs-{n}/**", qos=Qos.BATCH) for n in range(10))
        best = 9.0
        for _ in range(3):
            begin = time.process_time()
            recognise(dirs, rules, {})
            best = min(best, time.process_time() - begin)
        return best

    small, large = cost_s(500), cost_s(5000)
    sys.stdout.write(f"recognise: 500 cgroups {small * 1e3:.1f} ms, 5000: {large * 1e3:.1f} ms (10 rules)\n")
    assert large / small < 30


def test_an_ls_rule_can_ask_for_numa_nodes() -> None:
    rules = (
        PodRule(match="db", qos=Qos.LS, cpus=4.0, numa=NumaWish.BIND, near="eth1"),
        PodRule(match="kv", qos=Qos.LS, numa=NumaWish.EXCLUSIVE),
        PodRule(match="web", qos=Qos.LS),
    )
    specs = [member.spec for member in recognise(tree("db", "kv", "web"), rules, {})]
    assert [(each.numa_bind, each.exclusive, each.near) for each in specs] == [
        (True, False, "eth1"),
        (True, True, ""),
        (False, False, ""),
    ]


@pytest.mark.parametrize("qos", [Qos.MID, Qos.BATCH])
def test_nobody_else_is_bound_whatever_is_asked(qos: Qos) -> None:
    rule = PodRule(match="db", qos=qos, cpus=4.0, numa=NumaWish.EXCLUSIVE, near="eth1")
    (member,) = recognise(tree("db"), (rule,), {})
    assert (member.spec.numa_bind, member.spec.exclusive, member.spec.near) == (False, False, "")
    claim = Claim(cgroup=f"nodeagent/{qos}/x", name="x", qos=qos, pid=1, numa_bind=True, near="eth1")
    (member,) = recognise(tree(claim.cgroup), (), {claim.cgroup: claim})
    assert (member.spec.numa_bind, member.spec.near) == (False, "")


def test_an_ls_claim_can_ask_for_numa_nodes() -> None:
    claim = Claim(
        cgroup="nodeagent/ls/x", name="x", qos=Qos.LS, pid=1, numa_bind=True, exclusive=True, near="eth1"
    )
    (member,) = recognise(tree(claim.cgroup), (), {claim.cgroup: claim})
    assert (member.spec.numa_bind, member.spec.exclusive, member.spec.near) == (True, True, "eth1")
    alone = replace(claim, numa_bind=False)
    (member,) = recognise(tree(claim.cgroup), (), {claim.cgroup: alone})
    assert (member.spec.numa_bind, member.spec.exclusive, member.spec.near) == (False, False, "")


@pytest.mark.parametrize("qos", list(Qos))
def test_only_an_online_pod_can_be_left_alone(qos: Qos) -> None:
    (member,) = recognise(tree("db"), (PodRule(match="db", qos=qos, hands_off=True),), {})
    assert member.spec.hands_off is (qos is not Qos.BATCH)
    claim = Claim(cgroup=f"nodeagent/{qos}/x", name="x", qos=qos, pid=1, hands_off=True)
    (member,) = recognise(tree(claim.cgroup), (), {claim.cgroup: claim})
    assert member.spec.hands_off is (qos is not Qos.BATCH)
