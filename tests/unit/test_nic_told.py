"""How traffic is shaped, in every record of a tick: gRPC, metrics, events, `once`, the screen, replays."""

from __future__ import annotations

import re
from itertools import pairwise
from math import inf

import pytest
from google.protobuf import json_format
from msgspec.structs import replace

from nodeagent.journal.packed import Packer, Unpacker
from nodeagent.model.decision import Tick
from nodeagent.model.nic import Classifier, Marks, NicPlan, Role, Scheduler
from nodeagent.model.nic_told import ClassTold, NetTold, NicTold, Way, told, ways
from nodeagent.model.plan import Kind, Knob, Outcome, shown
from nodeagent.model.pod import Qos
from nodeagent.model.units import format_bps
from nodeagent.once import Look, as_text
from nodeagent.replay.compare import differences
from nodeagent.report.event import Event
from nodeagent.report.events import events
from nodeagent.report.nics import NICS, nic_text
from nodeagent.report.screen import Screen
from nodeagent.rpc.convert import report_message
from nodeagent.rpc.nics import told_by
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples
from tests.unit.metric_pages import page, values
from tests.unit.nic_samples import LINKS, MARKS, NETS, PLANS, RATES, G, nic_tick, sample, tree

ALONE = NicPlan(
    name="eth0", index=2, role=Role.ONLINE, scheduler=Scheduler.OBSERVE, why="the root qdisc cake 8001: is"
)


def network(tick: Tick) -> NetTold:
    found = told(tick)
    assert found is not None
    return found


def batch(nic: NicTold) -> ClassTold:
    assert nic.egress is not None
    return next(each for each in nic.egress.classes if each.qos is Qos.BATCH)


def of_nics(before: Tick | None, now: Tick) -> list[Event]:
    return [event for event in events(before, now) if event.name.startswith("nic.")]


def ceiling(bps: float) -> tuple[NicPlan, ...]:
    """eth0 alone, with this ceiling of Batch."""
    first = tree("eth0")
    classes = tuple(replace(c, ceil_bps=bps) if c.qos is Qos.BATCH else c for c in first.classes)
    return (replace(PLANS[0], tree=replace(first, classes=classes)),)


@pytest.mark.parametrize(
    ("bps", "text"),
    [
        (0.0, "0 bit/s"),
        (999.0, "999 bit/s"),
        (1000.0, "1 kbit/s"),
        (1.234e6, "1.23 Mbit/s"),
        (9.996e6, "10 Mbit/s"),
        (950e6, "950 Mbit/s"),
        (999.6e6, "1 Gbit/s"),
        (2.5e9, "2.5 Gbit/s"),
        (23.75e9, "23.8 Gbit/s"),
        (400e9, "400 Gbit/s"),
        (1e13, "10 Tbit/s"),
        (inf, "no limit"),
    ],
)
def test_a_rate_is_written_as_on_the_label_of_a_nic(bps: float, text: str) -> None:
    assert format_bps(bps) == text


def test_a_rate_now_is_that_between_the_first_and_the_last_sample_of_the_tick() -> None:
    for nic in network(nic_tick()).nics:
        assert nic.egress is not None
        assert [c.rate_bps for c in nic.egress.classes] == [pytest.approx(bps) for bps in RATES[nic.name]]


def test_without_two_samples_or_after_a_class_was_made_anew_its_rate_is_not_known() -> None:
    one = network(nic_tick(seen=(sample(1001.0),))).nics[0]
    assert batch(one).rate_bps is None and batch(one).bytes is not None
    fallen = network(nic_tick(seen=(sample(1001.0), replace(sample(1.0), at=1002.0)))).nics[0]
    assert batch(fallen).rate_bps is None and batch(fallen).bytes == int(RATES["eth0"][2] / 8)


def test_what_the_kernel_does_not_have_is_told_as_planned_and_without_counters() -> None:
    found = batch(network(nic_tick(seen=())).nics[0])
    assert (found.guarantee_bps, found.ceiling_bps) == (0.475 * G, 5.7 * G)
    assert (found.bytes, found.drops, found.rate_bps) == (None, None, None)


def test_limits_are_the_kernels_and_not_yet_those_that_were_only_decided() -> None:
    assert batch(network(nic_tick(plans=ceiling(1 * G))).nics[0]).ceiling_bps == 5.7 * G


def test_the_report_carries_all_of_it_and_a_client_reads_back_the_same() -> None:
    tick = nic_tick(failed=("eth1: \udcff",))
    report = report_message(tick, "node")
    assert pb.NodeReport.FromString(report.SerializeToString()) == report
    assert told_by(report.network) == replace(network(tick), failed=("eth1: \\udcff",))
    assert (report.network.nics[0].role, report.network.nics[1].scheduler) == (
        pb.NIC_ROLE_ONLINE,
        pb.NIC_SCHEDULER_EDT,
    )
    assert not report.network.nics[1].HasField("ingress")
    assert json_format.MessageToDict(report)["network"]["nics"][0]["linkBps"] == 1e10


def test_every_word_of_the_model_has_one_on_the_wire() -> None:
    for role in Role:
        for scheduler in Scheduler:
            plans = (replace(PLANS[0], role=role, scheduler=scheduler),)
            for classifier in Classifier:
                tick = nic_tick(plans=plans, marks=Marks(classifier, "so"))
                assert told_by(report_message(tick, "").network) == network(tick)


def test_no_limit_is_said_so_and_what_is_not_known_is_absent() -> None:
    tick = nic_tick(plans=ceiling(inf), seen=(), links=())
    report = report_message(tick, "")
    (nic,) = report.network.nics
    found = nic.egress.classes[2]
    assert found.WhichOneof("ceiling") == "unlimited"
    assert not any(nic.HasField(name) for name in ("up", "link_bps"))
    assert not any(found.HasField(name) for name in ("bytes", "rate_bps", "backlog_bytes"))
    assert told_by(report.network) == network(tick)


def test_no_counter_breaks_a_report() -> None:
    huge = sample(1e30)
    assert report_message(nic_tick(seen=(huge,)), "").network.nics[0].egress.classes[0].bytes == 2**64 - 1


def test_while_no_traffic_is_shaped_nothing_is_told_of_it() -> None:
    tick = samples.tick(1)
    report = report_message(tick, "")
    assert not report.HasField("network") and not report.pods[0].HasField("traffic")
    assert nic_text(tick) == "" and not of_nics(None, tick)
    assert "nic " not in as_text(Look(tick, ()))


def test_of_each_pod_it_is_told_by_what_its_packets_are_told() -> None:
    found = {uid.rpartition("/")[2]: way for uid, way in ways(nic_tick()).items()}
    assert found["pod0"] == (Way.DEFAULT, "")
    assert found["pod1"] == (Way.ADDRESS, "")
    assert found["pod3"] == (Way.CGROUP, "")
    assert found["pod5"] == (Way.UNCLASSIFIED, "nothing is known of its network")
    assert found["pod7"][0] is Way.UNCLASSIFIED and "macvlan" in found["pod7"][1]
    pods = {m.name: m.traffic for m in report_message(nic_tick(), "").pods}
    assert pods["pod7"] == pb.PodTraffic(way=pb.TRAFFIC_WAY_UNCLASSIFIED, why=found["pod7"][1])
    assert pods["pod3"].way == pb.TRAFFIC_WAY_CGROUP


def test_a_pod_below_a_marked_tier_is_told_by_its_cgroup_and_so_is_any_by_net_cls() -> None:
    tick = nic_tick()
    nics = tick.snapshot.nics
    assert nics is not None
    pod = replace(NETS[0], cgroup_id=9)
    tier = replace(pod, uid="nodeagent/batch", cgroup_id=4711, level=2)
    below = replace(tick, snapshot=replace(tick.snapshot, nics=replace(nics, pods=(pod,), tiers=(tier,))))
    assert ways(below)["nodeagent/batch/pod3"] == (Way.CGROUP, "")
    net_cls = nic_tick(marks=Marks(Classifier.NET_CLS, ""))
    assert ways(net_cls)["nodeagent/batch/pod3"] == (Way.CGROUP, "")
    bare = nic_tick(marks=Marks(Classifier.U32, ""))
    assert ways(bare)["nodeagent/batch/pod3"][0] is Way.UNCLASSIFIED


def test_metrics_are_in_bytes_per_nic_class_and_direction() -> None:
    tick = nic_tick(failed=("eth0: gone",))
    text = page(tick)
    labels = "direction=egress,nic=eth0,qos=batch"
    sent = values(text, "nodeagent_nic_class_bytes_total")
    assert sent[labels] == batch(network(tick).nics[0]).bytes
    assert len(sent) == 9 and sent["direction=ingress,nic=eth0,qos=ls"] > 0
    assert values(text, "nodeagent_nic_class_drops_total")[labels] == 1873
    assert values(text, "nodeagent_nic_class_backlog_bytes")[labels] == 262_144
    assert values(text, "nodeagent_nic_class_ceiling_bytes_per_second")[labels] == 5.7e9 / 8
    assert values(text, "nodeagent_nic_class_guarantee_bytes_per_second")[labels] == 0.475e9 / 8
    assert values(text, "nodeagent_nic_link_bytes_per_second") == {"nic=eth0": 1.25e9, "nic=eth1": 3.125e9}
    assert values(text, "nodeagent_nic_up") == {"nic=eth0": 1.0, "nic=eth1": 1.0}
    steps = values(text, "nodeagent_nic_scheduler")
    assert {key for key, on in steps.items() if on} == {"nic=eth0,step=htb", "nic=eth1,step=edt"}
    assert len(steps) == 8
    assert sum(values(text, "nodeagent_nic_classifier").values()) == 1
    assert values(text, "nodeagent_nic_classifier")["step=nft"] == 1
    assert values(text, "nodeagent_nic_marks") == {"by=cgroup": 1.0, "by=address": 2.0}
    assert values(text, "nodeagent_nic_unclassified_pods") == {"": 1.0}
    assert values(text, "nodeagent_nic_failures") == {"": 1.0}


def test_what_the_kernel_does_not_have_has_no_counters_but_limits() -> None:
    text = page(nic_tick(seen=()))
    assert values(text, "nodeagent_nic_class_bytes_total") == {}
    assert len(values(text, "nodeagent_nic_class_ceiling_bytes_per_second")) == 9


def test_the_number_of_series_is_bounded_whatever_the_number_of_nics() -> None:
    many = tuple(replace(PLANS[1], name=f"eth{n}", index=n) for n in range(1000))
    text = nic_text(nic_tick(plans=many, seen=()))
    assert len(set(re.findall(r'nic="([^"]+)"', text))) == NICS


def test_how_a_nic_is_shaped_is_an_event_once() -> None:
    tick = nic_tick()
    first = of_nics(None, tick)
    assert [(e.name, e.level) for e in first] == [
        ("nic.shaped", "info"),
        ("nic.shaped", "info"),
        ("nic.classifier", "info"),
        ("nic.unclassified", "warning"),
    ]
    assert first[0].keys == {
        "nic": "eth0",
        "role": "online",
        "step": "htb",
        "top_bps": 9.5 * G,
        "ingress": True,
    }
    assert "somebody else's" in str(first[1].keys["why"])
    assert of_nics(tick, nic_tick(3)) == []


def test_a_nic_that_is_no_longer_shaped_is_a_warning_and_one_that_never_was_is_not() -> None:
    let_be = nic_tick(3, plans=(ALONE, PLANS[1]))
    (event,) = of_nics(nic_tick(), let_be)
    assert (event.level, event.name, event.keys["why"]) == ("warning", "nic.let_be", ALONE.why)
    assert [e.level for e in of_nics(None, let_be) if e.name == "nic.let_be"] == ["info"]
    renumbered = replace(ALONE, why="the root qdisc cake 8002: is")
    assert of_nics(let_be, nic_tick(4, plans=(renumbered, PLANS[1]))) == []


def test_links_that_go_and_come_back_are_told() -> None:
    down = (replace(LINKS[0], up=False, link_bps=None), LINKS[1])
    ticks = [nic_tick(2), nic_tick(3, links=down), nic_tick(4), nic_tick(5, links=LINKS[1:])]
    seen = [(e.name, e.keys["nic"]) for pair in pairwise(ticks) for e in of_nics(*pair)]
    assert seen == [("nic.down", "eth0"), ("nic.up", "eth0"), ("nic.down", "eth0")]
    (gone,) = of_nics(nic_tick(4), nic_tick(5, plans=PLANS[:1]))
    assert (gone.name, gone.keys["nic"]) == ("nic.left", "eth1")


@pytest.mark.parametrize(("bps", "lines"), [(5.7 * G, 0), (5.0 * G, 0), (4.0 * G, 1), (9.5 * G, 1)])
def test_a_ceiling_that_moves_far_is_told_to_those_who_debug(bps: float, lines: int) -> None:
    before, after = (nic_tick(n, plans=ceiling(c), seen=()) for n, c in ((2, 5.7 * G), (3, bps)))
    found = of_nics(before, after)
    assert [(e.level, e.name, e.keys["ceiling_bps"]) for e in found] == [
        ("debug", "nic.ceiling", bps)
    ] * lines


def test_many_pods_without_a_mark_for_one_reason_are_one_line_and_only_new_ones_another() -> None:
    def without(*names: str) -> Tick:
        return nic_tick(
            marks=replace(MARKS, unclassified=tuple((name, "no address for 3.1 s") for name in names))
        )

    first = without(*(f"uid{n}" for n in range(500)))
    (event,) = (e for e in of_nics(None, first) if e.name == "nic.unclassified")
    assert event.keys["count"] == 500
    assert event.keys["pods"] == "uid0, uid1, uid2, uid3, uid4 +495"
    (more,) = of_nics(without("a"), without("a", "b"))
    assert (more.keys["pods"], more.keys["count"]) == ("b", 1)
    assert of_nics(without("a", "b"), without("b")) == []


def test_a_classifier_that_is_lost_is_a_warning() -> None:
    found = of_nics(nic_tick(), nic_tick(3, marks=Marks(Classifier.NONE, "nft: no such thing")))
    assert [(e.level, e.name) for e in found] == [("warning", "nic.classifier")]


def test_what_fails_in_each_tick_is_told_once() -> None:
    first, again = (nic_tick(n, failed=(f"eth0: took {n} ms",)) for n in (2, 3))
    assert [e.level for e in of_nics(nic_tick(1), first)] == ["warning"]
    assert of_nics(first, again) == []


def test_once_and_the_screen_have_a_line_per_nic(capsys: pytest.CaptureFixture[str]) -> None:
    tick = nic_tick(plans=(PLANS[0], replace(ALONE, name="eth1")), failed=("eth1: gone",))
    text = as_text(Look(tick, ()))
    assert (
        "nic      eth0  online, up, 10 Gbit/s, htb: "
        "LS 3.2 Gbit/s, MID 400 Mbit/s, Batch 5.13 Gbit/s of 5.7 Gbit/s\n" in text
    )
    assert "nic      eth1  online, up, 25 Gbit/s, not shaped: the root qdisc cake 8001: is\n" in text
    assert "nic      pods whose traffic passes for LS: 1\n" in text
    assert "nic      not done: eth1: gone\n" in text
    screen = Screen("nodeagent")
    try:
        screen.show(tick, 0.01)
    finally:
        screen.close()
    assert "eth0  online, up" in capsys.readouterr().out


def test_the_line_of_a_nic_that_the_kernel_does_not_shape_yet_has_no_rates_but_limits() -> None:
    text = as_text(Look(nic_tick(plans=PLANS[:1], seen=()), ()))
    planned = "htb, only planned: at most LS 9.5 Gbit/s, MID 9.5 Gbit/s, Batch 5.7 Gbit/s"
    assert f"nic      eth0  online, up, 10 Gbit/s, {planned}\n" in text


def test_the_knobs_of_a_nic_are_told_in_their_unit_everywhere() -> None:
    ceil, rate = Knob(Kind.NIC_CEIL, "eth0/batch"), Knob(Kind.NIC_RATE, "eth0/batch")
    assert (shown(5.7e9, ceil.kind), shown(inf, ceil.kind), shown(0.0, rate.kind)) == (
        "5.7 Gbit/s",
        "no limit",
        "0 bit/s",
    )
    tick = nic_tick()
    setting = next(s for s in report_message(tick, "").plan if s.knob.target == "eth0/batch")
    assert (setting.knob.kind, setting.value) == (pb.KNOB_KIND_NIC_RATE, pb.KnobValue(bps=0.475 * G))
    change = replace(tick.changes[0], knob=ceil, old=inf, new=5.7e9, by="nic", why="so")
    failed = replace(tick, changes=(change,), outcomes=(Outcome(change, None, "EPERM"),))
    assert "nic.ceil eth0/batch: no limit -> 5.7 Gbit/s  [nic: so]" in as_text(Look(failed, ()))
    (event,) = (e for e in events(None, failed) if e.name == "knob.refused")
    assert (event.keys["old_bps"], event.keys["new_bps"]) == (inf, 5.7e9)


def test_a_replay_names_the_nic_the_class_and_the_figure_that_differ() -> None:
    one, other = (nic_tick(plans=ceiling(bps)).decision for bps in (5.7 * G, 5.0 * G))
    found = list(differences(one, other, "decision"))
    assert "decision.plan[nic.ceil eth0/batch].value: 5700000000.0 recorded, 5000000000.0 now" in found
    assert any(".nics[eth0].tree.classes[batch].ceil_bps: 5700000000.0 recorded" in line for line in found)


def test_a_tick_with_nics_survives_the_journal() -> None:
    tick = nic_tick(failed=("x",))
    assert Unpacker().unpack(Packer().pack(tick)) == tick


def test_a_class_tells_why_its_ceiling_is_what_it_is() -> None:
    assert batch(network(nic_tick()).nics[0]).why == "free of online traffic"
