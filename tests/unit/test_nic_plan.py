"""Which step of the ladder a NIC is on, the numbers of its tree, and whose packets are in which class."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nodeagent.core.nic import rule_of, shaped
from nodeagent.core.nic.tree import burst_bytes, guarantees, tree
from nodeagent.model.nic import (
    MAJOR,
    Classifier,
    Link,
    NicPlan,
    NicSample,
    NicsSeen,
    NicSupport,
    Qdisc,
    Role,
    Scheduler,
    Shaping,
    TreeSeen,
)
from nodeagent.model.nic_policy import ClassifyBy, NicRule, RoleBy, ScheduleBy
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Pod, Reading
from nodeagent.model.topology import Device, Topology
from tests.unit.nic_node import ALL, FOREIGN, GBIT, NicNode, classes, link, net, policy, snapshot


def plan_of(nic: Link, *more: Link, rules: Policy | None = None, support: NicSupport = ALL) -> NicPlan:
    seen = NicsSeen(support=support, links=(nic, *more))
    shaping, _ = shaped(snapshot(1.0, seen), rules or policy(NicRule(match="*")), {})
    assert shaping is not None
    return shaping.nics[0]


def without(*steps: Scheduler) -> NicSupport:
    return replace(ALL, schedulers={**ALL.schedulers, **dict.fromkeys(steps, "ENOENT: no such kind")})


@pytest.mark.parametrize(
    ("nic", "step"),
    [
        (link(), Scheduler.HTB),
        (link(root=Qdisc("htb", MAJOR << 16)), Scheduler.HTB),
        (link(root=Qdisc("fq", 0x80010000)), Scheduler.EDT),
        (link(root=Qdisc("mq", 0x80010000), leaves=("fq", "fq")), Scheduler.EDT),
        (link(root=Qdisc("mq", 0), leaves=("fq", "fq")), Scheduler.HTB),
        (link(root=Qdisc("mq", 0), leaves=("fq", "fq"), link_bps=1e11), Scheduler.EDT),
        (link(link_bps=1e11), Scheduler.HTB),
        (link(root=FOREIGN), Scheduler.VETH),
        (link(link_bps=None), Scheduler.OBSERVE),
        (link(kind="bridge"), Scheduler.OBSERVE),
        (link(kind="vxlan"), Scheduler.OBSERVE),
    ],
)
def test_the_best_step_that_this_nic_allows_is_taken(nic: Link, step: Scheduler) -> None:
    plan = plan_of(nic)
    assert plan.scheduler is step
    assert (plan.tree is None) == (step is Scheduler.OBSERVE)
    assert plan.why or (step is Scheduler.HTB and nic.link_bps == GBIT)


def test_what_the_bottleneck_is_said_to_be_counts_for_htb() -> None:
    fast, slow = NicRule(match="*", link_bps=10**11), NicRule(match="*", link_bps=10**10)
    nic = link(root=Qdisc("mq", 0), leaves=("fq", "fq"), link_bps=None)
    assert plan_of(nic, rules=policy(fast)).scheduler is Scheduler.EDT
    assert plan_of(replace(nic, link_bps=1e11), rules=policy(slow)).scheduler is Scheduler.HTB


def test_what_the_kernel_lacks_is_told_with_the_next_step() -> None:
    plan = plan_of(link(), support=without(Scheduler.HTB, Scheduler.EDT))
    assert plan.scheduler is Scheduler.VETH
    assert plan.why == "htb, edt: ENOENT: no such kind"
    assert plan_of(link(), support=NicSupport()).why == "htb, edt, veth: not tried"


def test_pods_are_shaped_behind_one_nic_for_their_packets_have_not_chosen_theirs() -> None:
    foreign = [link(f"eth{number}", 2 + number, root=FOREIGN) for number in range(2)]
    assert plan_of(*foreign).scheduler is Scheduler.VETH
    shaping, _ = shaped(
        snapshot(1.0, NicsSeen(support=ALL, links=tuple(foreign))), policy(NicRule(match="*")), {}
    )
    assert shaping is not None
    assert shaping.nics[1].scheduler is Scheduler.OBSERVE
    assert shaping.nics[1].why == "the pods' interfaces are shaped for eth0 already"


def test_a_step_that_was_asked_for_is_taken_or_none() -> None:
    asked = policy(NicRule(match="*", schedule=ScheduleBy.EDT))
    assert plan_of(link(root=Qdisc("fq", 1 << 16)), rules=asked).scheduler is Scheduler.EDT
    plan = plan_of(link(), rules=asked)
    assert (plan.scheduler, plan.why) == (Scheduler.OBSERVE, "there is no fq at the root or below")


def test_a_vlan_and_a_part_of_a_bond_are_shaped_where_the_bottleneck_is() -> None:
    vlan, bond = link("eth0.5", 3, kind="vlan", lower=("eth0",)), link("bond0", 4, kind="bond")
    part = link("eth1", 5, master="bond0")
    assert plan_of(vlan, link()).why.startswith("a VLAN on eth0")
    assert plan_of(part, bond).why.startswith("a part of bond0")
    assert plan_of(bond, part).scheduler is Scheduler.HTB
    alone = policy(NicRule(match="eth0.5"))
    assert plan_of(vlan, link(), rules=alone).scheduler is Scheduler.HTB


def test_without_any_rule_the_nics_with_a_default_route_are_shaped() -> None:
    assert rule_of("eth0", (), default_route=True) is not None
    assert rule_of("eth0", (), default_route=False) is None
    first = NicRule(match="eth*", role=RoleBy.BULK)
    assert rule_of("eth1", (first, NicRule(match="*")), default_route=False) is first


def test_a_nic_under_another_name_keeps_its_rule_and_one_under_another_index_too() -> None:
    rules = policy(NicRule(match="eth0"))
    node = NicNode(rules)
    node.second()
    node.link = link("lan0", 2)
    node.tick()
    assert node.shaping is not None and node.shaping.nics[0].name == "lan0"
    node.tick()
    assert [plan.name for plan in node.shaping.nics] == ["lan0"]
    node = NicNode(rules)
    node.link = link("eth0", 9)
    node.tick()
    assert node.shaping is not None and node.shaping.nics[0].index == 9


def test_nics_that_swap_their_names_keep_their_speeds() -> None:
    rules = policy(NicRule(match="eth*"))
    fast, slow = link("eth0", 2, link_bps=10 * GBIT), link("eth1", 3)
    _, known = shaped(snapshot(1.0, NicsSeen(support=ALL, links=(fast, slow))), rules, {})
    down = {"link_bps": None, "up": False}
    swapped = (replace(slow, name="eth0", **down), replace(fast, name="eth1", **down))
    shaping, _ = shaped(snapshot(2.0, NicsSeen(support=ALL, links=swapped)), rules, known)
    assert shaping is not None
    assert [nic.tree and nic.tree.top_bps for nic in shaping.nics] == [0.95 * GBIT, 9.5 * GBIT]


def test_a_nic_that_is_down_and_tells_no_speed_keeps_its_tree() -> None:
    node = NicNode(policy(NicRule(match="eth0")))
    before = node.tree.top_bps
    node.link = link(link_bps=None, up=False)
    node.tick()
    assert node.tree.top_bps == before
    node.link = link(link_bps=10 * GBIT)
    node.tick()
    assert node.tree.top_bps == 9.5 * GBIT


def roles_of(*nics: Link, gpus: tuple[Device, ...] = ()) -> list[Role]:
    seen = NicsSeen(support=ALL, links=nics)
    tick = snapshot(1.0, seen, topology=Topology(devices=gpus))
    shaping, _ = shaped(tick, policy(NicRule(match="*")), {})
    assert shaping is not None
    return [plan.role for plan in shaping.nics]


def test_where_no_role_is_told_routes_tell_it_or_gpus() -> None:
    assert roles_of(link()) == [Role.SHARED]
    routed, other = link(numa_node=0), link("eth1", 3, default_route=False, numa_node=1)
    assert roles_of(routed, other) == [Role.ONLINE, Role.BULK]
    both = replace(other, default_route=True)
    assert roles_of(routed, both) == [Role.SHARED, Role.SHARED]
    gpu = Device("0000:3b:00.0", "gpu", 0)
    assert roles_of(routed, both, gpus=(gpu,)) == [Role.BULK, Role.ONLINE]
    assert roles_of(routed, link("eth2", 4, numa_node=0), gpus=(gpu,)) == [Role.SHARED, Role.SHARED]
    assert (
        roles_of(link("eth0.5", 9, kind="vlan", lower=("eth0",), default_route=False), routed)[1]
        is Role.SHARED
    )


def test_a_tree_of_the_last_run_on_a_nic_that_is_down_stays_as_it_is() -> None:
    last = NicNode(policy(NicRule(match="eth0")))
    down = link(link_bps=None, up=False)
    trees = (TreeSeen("eth0", Scheduler.HTB, classes([0, 0, 0], last.tree)),)
    seen = NicsSeen(support=ALL, links=(down,), samples=(NicSample(1.0, trees),))
    shaping, _ = shaped(snapshot(1.0, seen), last.policy, {})
    assert shaping is not None and shaping.nics[0].tree == last.tree
    shaping, _ = shaped(snapshot(1.0, replace(seen, samples=())), last.policy, {})
    assert shaping is not None and shaping.nics[0].tree is None


@pytest.mark.parametrize("gbit", [0.01, 0.1, 1.0, 2.5, 10.0, 25.0, 100.0, 400.0])
@pytest.mark.parametrize("role", list(RoleBy))
def test_the_tree_fits_the_link_at_every_speed(gbit: float, role: RoleBy) -> None:
    top = 0.95 * gbit * GBIT
    found = tree(NicRule(match="*", role=role), top, 0.4 * top)
    assert sum(c.rate_bps for c in found.classes) <= found.top_bps <= top
    for each in found.classes:
        assert each.rate_bps <= each.ceil_bps <= found.top_bps
        assert each.rate_bps % 8 == 0 and each.ceil_bps % 8 == 0
        assert each.burst_bytes >= 16384 and 1514 <= each.quantum_bytes <= 200_000
    ls, mid, batch = found.classes
    assert (ls.prio, mid.prio, batch.prio) == (0, 1, 2)
    assert batch.queue_bytes and not ls.queue_bytes


def test_a_burst_is_half_a_millisecond_of_the_rate_and_one_above_10_gbit() -> None:
    assert burst_bytes(GBIT) == 62_500
    assert burst_bytes(10 * GBIT) == 1_250_000
    assert burst_bytes(1e7) == 16_384


def test_guarantees_are_cut_to_fit_and_ls_grows_at_mids_cost() -> None:
    rule = NicRule(match="*", ls_ratio=0.9, mid_ratio=0.9, batch_ratio=0.2)
    assert sum(guarantees(rule, GBIT)) == pytest.approx(GBIT)
    assert guarantees(NicRule(match="*"), 100.0, 80.0) == (80.0, 15.0, 5.0)
    assert guarantees(NicRule(match="*"), 100.0, 99.0) == (95.0, 0.0, 5.0)


def test_a_guarantee_that_is_given_is_given_and_the_usual_ones_are_cut_to_the_rest() -> None:
    ls, mid, batch = guarantees(NicRule(match="*", ls_ratio=0.9), 100.0)
    assert (ls, mid + batch) == pytest.approx((90.0, 10.0)) and mid == pytest.approx(6 * batch)
    assert guarantees(NicRule(match="*", ls_ratio=1.0), 100.0) == (100.0, 0.0, 0.0)


def test_batch_is_guaranteed_no_more_than_it_may_have() -> None:
    rule = NicRule(match="*", batch_ceiling_ratio=0.02, batch_pressed_ratio=0.02)
    assert tree(rule, GBIT, 0.02 * GBIT).classes[2].ceil_bps == 0.02 * GBIT
    node = NicNode(policy(NicRule(match="eth0", ingress_ratio=0.01)))
    assert node.shaping is not None and node.shaping.nics[0].ingress is not None
    assert node.shaping.nics[0].ingress.classes[2].ceil_bps == pytest.approx(0.01 * 0.95 * GBIT, rel=1e-6)


def spec(uid: str, qos: Qos, cgroup: str = "", tier: str | None = None) -> PodSpec:
    return PodSpec(uid=uid, name=uid, cgroup=cgroup or uid, inode=1, qos=qos, source="rule", tier=tier)


def marked(pods: tuple[PodSpec, ...], seen: NicsSeen, by: ClassifyBy = ClassifyBy.AUTO) -> Shaping:
    tick = snapshot(1.0, seen, pods=tuple(Pod(each, Reading()) for each in pods))
    shaping, _ = shaped(tick, policy(NicRule(match="*"), classify=by), {})
    assert shaping is not None
    return shaping


def test_pods_are_told_by_address_or_by_cgroup_and_a_tier_stands_for_its_pods() -> None:
    pods = (
        spec("train", Qos.MID),
        spec("sort", Qos.BATCH, "nodeagent/batch/sort", "nodeagent/batch"),
        spec("spark", Qos.BATCH),
        spec("web", Qos.LS),
    )
    seen = NicsSeen(
        support=ALL,
        pods=(
            net("train", "10.0.0.5", "fd00::5"),
            net("sort", host_network=True, cgroup_id=71, level=3),
            net("spark", host_network=True, cgroup_id=72, level=2),
            net("web", "10.0.0.9"),
        ),
        tiers=(net("nodeagent/batch", cgroup_id=70, level=2),),
    )
    marks = marked(pods, seen).marks
    assert marks.cgroups == ((2, 70, Qos.BATCH), (2, 72, Qos.BATCH))
    assert marks.addresses == (("10.0.0.5", Qos.MID), ("fd00::5", Qos.MID))
    assert (marks.classifier, marks.why, marks.unclassified) == (Classifier.NFT, "", ())


def test_an_address_of_the_host_or_of_two_classes_is_never_mapped() -> None:
    pods = (spec("a", Qos.BATCH), spec("b", Qos.LS), spec("c", Qos.BATCH))
    seen = NicsSeen(
        support=ALL,
        pods=(net("a", "10.0.0.5"), net("b", "10.0.0.5"), net("c", "192.168.0.1")),
        own_addresses=("192.168.0.1",),
    )
    marks = marked(pods, seen).marks
    assert marks.addresses == ()
    assert [uid for uid, _ in marks.unclassified] == ["a", "c"]


def test_an_ls_pod_within_a_pod_of_another_class_has_an_entry_of_its_own() -> None:
    pods = (spec("yarn", Qos.MID, "yarn"), spec("web", Qos.LS, "yarn/web"))
    seen = NicsSeen(
        support=ALL,
        pods=tuple(
            net(uid, host_network=True, cgroup_id=number, level=number)
            for number, uid in enumerate(("yarn", "web"), 1)
        ),
    )
    assert marked(pods, seen).marks.cgroups == ((1, 1, Qos.MID), (2, 2, Qos.LS))


def test_what_a_classifier_cannot_tell_is_said() -> None:
    pods = (spec("a", Qos.BATCH), spec("b", Qos.BATCH), spec("c", Qos.BATCH), spec("web", Qos.LS))
    seen = NicsSeen(
        support=ALL,
        pods=(
            net("a", host_network=True, cgroup_id=3, level=1),
            net("b", host_network=True),
            net("c", why="its processes are not visible here"),
            net("web", host_network=True),
        ),
    )
    assert [uid for uid, _ in marked(pods, seen).marks.unclassified] == ["b", "c"]
    assert [uid for uid, _ in marked(pods, seen, ClassifyBy.U32).marks.unclassified] == ["a", "b", "c"]
    none = marked(pods, seen, ClassifyBy.NONE).marks
    assert (none.classifier, none.cgroups, len(none.unclassified)) == (Classifier.NONE, (), 3)


def test_without_support_nothing_is_told_and_the_reasons_are_there() -> None:
    marks = marked((spec("a", Qos.BATCH),), NicsSeen(pods=(net("a", "10.0.0.1"),))).marks
    assert marks.classifier is Classifier.NONE
    assert marks.why.startswith("nft, bpf, net_cls, u32: not tried")
    assert marks.addresses == ()
