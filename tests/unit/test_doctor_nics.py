"""What the doctor says of NICs: how each would be shaped, and what to do where it would not."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from nodeagent.doctor import Finding, Status
from nodeagent.doctor.nics import judged_nics, judged_support
from nodeagent.model.nic import MAJOR, Classifier, Link, NicSupport, Qdisc, Scheduler
from nodeagent.model.nic_policy import ClassifyBy, NicPolicy, NicRule, ScheduleBy
from nodeagent.model.policy import Policy

ALL = NicSupport(
    schedulers=dict.fromkeys((Scheduler.HTB, Scheduler.EDT, Scheduler.VETH), ""),
    classifiers=dict.fromkeys((Classifier.NFT, Classifier.BPF, Classifier.NET_CLS, Classifier.U32), ""),
    fq_codel=True,
)
ETH0 = Link(
    name="eth0", index=2, up=True, root=Qdisc("mq", 0), leaves=("fq_codel",) * 8, link_bps=1e10,
    tx_queues=8, default_route=True,
)  # fmt: skip
THEIRS = Qdisc("cake", 0x80010000)


def nics(
    *links: Link, support: NicSupport = ALL, rules: tuple[NicRule, ...] = (), enforced: bool = True
) -> list[Finding]:
    return list(judged_nics(links, support, Policy(nics=rules), enforced=enforced))


def test_a_nic_with_the_kernels_own_root_is_shaped_by_htb() -> None:
    assert nics(ETH0) == [
        Finding(
            "NIC eth0",
            Status.OK,
            "10 Gbit/s, root qdisc mq over fq_codel (the kernel's own), shared; shaped by htb",
        )
    ]


def test_our_own_tree_from_the_last_run_is_no_obstacle() -> None:
    (found,) = nics(replace(ETH0, root=Qdisc("htb", MAJOR << 16), leaves=()))
    assert found.status is Status.OK and "root qdisc htb (ours), shared; shaped by htb" in found.found


def test_somebodys_fq_is_kept_and_departure_times_are_used() -> None:
    (found,) = nics(replace(ETH0, root=Qdisc("fq", 0x80010000), leaves=()))
    assert found.status is Status.OK
    assert (
        "(somebody's), shared; shaped by edt (htb: the root qdisc fq 8001: is somebody else's)" in found.found
    )


def test_where_somebodys_other_root_leaves_only_the_pods_interfaces_it_says_why() -> None:
    (found,) = nics(replace(ETH0, root=THEIRS, leaves=()))
    assert found.status is Status.OK and "shaped by veth (htb: the root qdisc cake 8001" in found.found


@pytest.mark.parametrize(("enforced", "status"), [(True, Status.WARN), (False, Status.INFO)])
def test_what_cannot_be_shaped_is_a_warning_only_where_it_shall_be(enforced: bool, status: Status) -> None:
    poor = replace(ALL, schedulers={Scheduler.HTB: "", Scheduler.VETH: "no veth"})
    (found,) = nics(replace(ETH0, root=THEIRS, leaves=()), support=poor, enforced=enforced)
    assert (found.status, found.fix) == (
        status,
        "whoever set it, if it is not needed: tc qdisc del dev eth0 root",
    )
    assert "not shaped: htb: the root qdisc cake 8001: is somebody else's; edt: not tried" in found.found


def test_a_speed_that_is_not_told_must_be_configured_and_what_is_configured_counts() -> None:
    silent = replace(ETH0, link_bps=None)
    (found,) = nics(silent)
    assert found.status is Status.WARN and "speed not told" in found.found
    assert found.fix.startswith('[[nics]] match = "eth0", link_bps =')
    (configured,) = nics(silent, rules=(NicRule(match="eth*", link_bps=10**9),))
    assert configured.status is Status.OK


def test_above_25_gbit_htb_is_not_advised_and_departure_times_are_where_they_work() -> None:
    fast = replace(ETH0, link_bps=1e11)
    shaped, caution = nics(fast)
    assert (
        shaped.status is Status.OK and "shaped by htb (not advised above 25 Gbit/s: one lock)" in shaped.found
    )
    assert caution.status is Status.WARN and "one lock for its 8 queues" in caution.found
    assert "tc qdisc replace dev eth0 root mq" in caution.fix
    (edt,) = nics(replace(fast, leaves=("fq",) * 8))
    assert "shaped by edt" in edt.found
    _, by_rule = nics(replace(ETH0, link_bps=None), rules=(NicRule(match="eth0", link_bps=10**11),))
    assert by_rule.status is Status.WARN


def test_a_virtual_function_shares_its_wire_with_others() -> None:
    shaped, caution = nics(replace(ETH0, virtual_function=True))
    assert shaped.status is Status.OK
    assert caution.status is Status.INFO and "max_tx_rate" in caution.fix


def test_of_a_bond_and_a_vlan_it_says_which_device_is_shaped() -> None:
    bond = replace(ETH0, name="bond0", kind="bond", lower=("eth0", "eth1"), root=Qdisc("noqueue", 0))
    slave = replace(ETH0, master="bond0", default_route=False)
    vlan = Link(
        name="eth0.7", index=9, up=True, root=Qdisc("noqueue", 0), kind="vlan", lower=("eth0",), link_bps=1e10
    )
    rules = (NicRule(match="*"),)
    found = {f.name: f for f in nics(bond, slave, rules=rules)}
    assert found["NIC bond0"].status is Status.OK
    assert "a part of bond0, which is shaped" in found["NIC eth0"].found
    found = {f.name: f for f in nics(ETH0, vlan, rules=rules)}
    assert "a VLAN on eth0, which is shaped" in found["NIC eth0.7"].found
    assert found["NIC eth0.7"].fix == ""


def test_a_tunnel_says_to_name_the_nic_below_it() -> None:
    tunnel = replace(ETH0, name="vxlan0", kind="vxlan", lower=("eth0",), root=Qdisc("noqueue", 0))
    (found,) = nics(tunnel)
    assert found.status is Status.WARN and found.fix == "shape what it is made of: [[nics]] match for eth0"


def test_other_nics_are_told_with_how_to_name_them_but_not_those_of_pods() -> None:
    other = replace(ETH0, name="eth1", default_route=False)
    pods = replace(ETH0, name="veth7", kind="veth", default_route=False)
    bridge = replace(ETH0, name="cni0", kind="bridge", default_route=False)
    down = replace(other, name="eth2", up=False)
    _, second, third = nics(ETH0, other, pods, bridge, down)
    assert (second.name, second.status) == ("NIC eth1", Status.INFO)
    assert second.fix == 'to shape it: [[nics]] match = "eth1"'
    assert (third.name, third.fix) == ("NIC cni0", "")


def test_without_any_nic_to_shape_it_says_so_where_that_is_asked() -> None:
    lonely = replace(ETH0, default_route=False)
    assert nics(lonely)[0].status is Status.WARN and "[[nics]]" in nics(lonely)[0].fix
    assert [f.name for f in nics(lonely, enforced=False)] == ["NIC eth0"]


def test_what_is_asked_by_the_rule_and_does_not_work_here_is_not_replaced_by_another_step() -> None:
    (found,) = nics(ETH0, rules=(NicRule(match="eth0", schedule=ScheduleBy.EDT),))
    assert "not shaped: there is no fq at the root or below" in found.found
    (off,) = nics(ETH0, rules=(NicRule(match="eth0", schedule=ScheduleBy.OBSERVE),), enforced=False)
    assert "not shaped: schedule = observe" in off.found


def test_what_this_kernel_does_is_told_step_by_step_with_the_reason_and_what_it_lacks() -> None:
    poor = replace(
        ALL,
        schedulers={Scheduler.HTB: "", Scheduler.EDT: "no fq: Operation not supported", Scheduler.VETH: ""},
        ingress="no ifb: Operation not supported",
    )
    found = {f.name: f for f in judged_support(poor, Policy(), enforced=True)}
    assert found["shaping htb"] == Finding("shaping htb", Status.OK, "works (classes at a NIC's root)")
    edt = found["shaping edt"]
    assert edt.status is Status.INFO and edt.found.startswith("no fq: Operation not supported (")
    assert "CONFIG_NET_SCH_FQ" in edt.fix
    assert found["shaping ingress"].fix == "needs a kernel with CONFIG_IFB"
    assert found["telling nft"].status is found["telling bridged"].status is Status.OK
    assert found["classifier"] == Finding("classifier", Status.OK, "nft")


def test_a_kernel_that_can_tell_nothing_is_a_warning_where_traffic_shall_be_shaped() -> None:
    nothing = replace(ALL, classifiers=dict.fromkeys(ALL.classifiers, "refused"))
    found = {f.name: f for f in judged_support(nothing, Policy(), enforced=True)}
    assert found["classifier"].status is Status.WARN and found["classifier"].fix
    assert "classifier" not in {f.name for f in judged_support(nothing, Policy(), enforced=False)}
    asked = Policy(nic=NicPolicy(classify=ClassifyBy.NONE))
    (last,) = (f for f in judged_support(ALL, asked, enforced=True) if f.name == "classifier")
    assert (last.status, last.found) == (Status.WARN, "none (classify = none)")


def test_where_nothing_could_be_tried_the_reason_is_told_once() -> None:
    why = "no network namespace to try in: Operation not permitted"
    nothing = NicSupport(
        schedulers=dict.fromkeys(ALL.schedulers, why), classifiers=dict.fromkeys(ALL.classifiers, why)
    )
    (found,) = judged_support(nothing, Policy(), enforced=False)
    assert (found.status, found.found) == (Status.INFO, f"nothing works: {why}")
    assert "nodeagent-nic.conf" in found.fix
    assert nics(ETH0, support=nothing)[0].found.endswith("not shaped: nothing works here")
    (asked,) = judged_support(nothing, Policy(), enforced=True)
    assert asked.status is Status.WARN
