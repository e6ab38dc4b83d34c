"""Where pods run, and why not where they ask to, in every record: gRPC, JSON, events, metrics, the screen."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.journal.packed import Packer, Unpacker
from nodeagent.model.decision import Decision, Memory, Tick
from nodeagent.model.foreign import Foreign, Owned
from nodeagent.model.pod import Qos
from nodeagent.once import Look, as_json, as_text
from nodeagent.report.event import Event
from nodeagent.report.events import events
from nodeagent.report.node import node_text
from nodeagent.report.screen import Screen
from nodeagent.rpc.convert import report_message
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples
from tests.unit.test_hands_off import POLICY, pod, seen

BOUND, HUGE, PLAIN, BATCH, MID = pod(1, bind=2), pod(2, bind=99), pod(3), pod(4, Qos.BATCH), pod(5, Qos.MID)
KUBELET = Foreign(kubelet=(Owned("guaranteed", "6-7", "the kubelet's"),))
NO_ROOM = "needs 99 CPUs in whole cores"


def ticks(foreign: Foreign = KUBELET) -> tuple[Tick, Tick]:
    """Two ticks of one life: before the limit is known, and after."""
    here = (BOUND, HUGE, PLAIN, BATCH, MID)
    memory, made = Memory(), []
    for seq in range(2):
        snapshot = seen(seq, samples.topology(8), here, foreign, v1=False)
        decision, memory = decide(snapshot, POLICY, memory)
        made.append(Tick(snapshot, decision))
    return made[0], made[1]


def told(before: Tick | None, now: Tick, name: str) -> list[Event]:
    return [event for event in events(before, now) if event.name == name]


def without_huge(tick: Tick) -> Decision:
    """The same tick in which nobody asks for too much."""
    pods = tuple(p for p in tick.snapshot.pods if p != HUGE)
    first = seen(0, samples.topology(8), pods, KUBELET, v1=False)
    _, memory = decide(first, POLICY, Memory())
    return decide(seen(1, samples.topology(8), pods, KUBELET, v1=False), POLICY, memory)[0]


def test_the_report_has_the_pools_and_each_pods_place() -> None:
    _, tick = ticks()
    report = report_message(tick, "node")
    found = tick.decision.placement
    assert found is not None
    assert report.placement.hands_off_cpus == "6-7"
    assert report.placement.owned[0] == pb.OwnedCpus(pod_uid="guaranteed", cpus="6-7", why="the kubelet's")
    assert (report.placement.shared_cpus, report.placement.batch_cpus) == (found.shared, found.batch)
    places = {message.name: message.placement for message in report.pods}
    assert places["pod1"].pool == pb.POOL_BOUND
    assert places["pod1"].cpus == found.bound[0].cpus
    assert places["pod1"].mems == "0"
    assert places["pod3"].pool == pb.POOL_SHARED and places["pod3"].cpus == found.shared
    assert places["pod4"].pool == pb.POOL_BATCH and places["pod4"].cpus == found.batch
    assert places["pod5"].pool == pb.POOL_MID


def test_a_pod_without_room_stays_in_the_pool_with_the_reason_and_nothing_else_moves() -> None:
    first, tick = ticks()
    place = {m.name: m.placement for m in report_message(tick, "node").pods}["pod2"]
    assert place.pool == pb.POOL_SHARED and place.cpus == report_message(tick, "node").placement.shared_cpus
    assert NO_ROOM in place.why
    ((uid, why),) = json.loads(as_json(Look(tick, ())))["decision"]["placement"]["unplaced"]
    assert uid == HUGE.spec.uid and NO_ROOM in why
    (event,) = told(first, tick, "pod.unplaced") or told(None, tick, "pod.unplaced")
    assert event.level == "warning" and NO_ROOM in str(event.keys["why"])
    others = {s.knob: s.value for s in tick.decision.plan if s.knob.target != HUGE.spec.cgroup}
    assert others == {s.knob: s.value for s in without_huge(tick).plan}


def test_while_pods_are_not_placed_there_is_no_placement_but_the_reason() -> None:
    _, tick = ticks(foreign=Foreign(None, unknown=("cpu_manager_state: garbage",)))
    report = report_message(tick, "node")
    assert not report.HasField("placement") and not report.pods[0].HasField("placement")
    assert list(report.owners_unknown) == ["cpu_manager_state: garbage"]
    assert "not known who else owns CPUs: cpu_manager_state" in as_text(Look(tick, ()))
    assert "placement" not in node_text(tick)


def test_a_pod_that_is_left_alone_is_told_with_the_reason() -> None:
    theirs = Foreign(kubelet=(Owned(PLAIN.spec.uid, "6-7", "the kubelet's"),))
    _, tick = ticks(foreign=theirs)
    place = {m.name: m.placement for m in report_message(tick, "node").pods}["pod3"]
    assert place == pb.PodPlacement(pool=pb.POOL_LEFT_ALONE, why="the kubelet's (CPUs 6-7)")


def test_who_gets_other_cpus_and_whose_cpus_are_taken_out_is_an_event_once() -> None:
    _, tick = ticks()
    (bound,) = told(None, tick, "pod.bound")
    assert (bound.keys["pod"], bound.keys["mems"]) == (BOUND.spec.name, "0")
    (taken,) = told(None, tick, "cpus.hands_off")
    assert (taken.keys["cpus"], taken.keys["pod"]) == ("6-7", "guaranteed")
    assert not told(tick, tick, "pod.bound") and not told(tick, tick, "cpus.hands_off")
    _, free = ticks(foreign=Foreign())
    assert [event.keys["cpus"] for event in told(tick, free, "cpus.returned")] == ["6-7"]


def test_that_a_pod_finds_no_room_is_said_once_though_the_figures_in_the_reason_change() -> None:
    _, tick = ticks()
    placement = tick.decision.placement
    assert placement is not None

    def with_reason(why: str) -> Tick:
        unplaced = ((HUGE.spec.uid, why),)
        return replace(tick, decision=replace(tick.decision, placement=replace(placement, unplaced=unplaced)))

    first, second, other = map(with_reason, ("5.1 GiB free on 2 nodes", "980 MiB free on 2 nodes", "no NIC"))
    assert [event.keys["pod"] for event in told(None, first, "pod.unplaced")] == [HUGE.spec.name]
    assert not told(first, second, "pod.unplaced")
    assert told(second, other, "pod.unplaced")


def test_an_owner_that_can_no_longer_be_read_is_a_warning_once() -> None:
    _, good = ticks()
    _, bad = ticks(foreign=replace(KUBELET, unknown=("garbage",)))
    assert [event.level for event in told(good, bad, "owners.unknown")] == ["warning"]
    assert not told(bad, bad, "owners.unknown")


def test_metrics_count_cpus_by_pool_and_pods_by_state() -> None:
    text = node_text(ticks()[1])
    for line in (
        'nodeagent_placement_cpus{pool="bound"} 2',
        'nodeagent_placement_cpus{pool="shared"} 4',
        'nodeagent_placement_cpus{pool="hands_off"} 2',
        'nodeagent_placement_pods{state="bound"} 1',
        'nodeagent_placement_pods{state="unplaced"} 1',
        'nodeagent_placement_pods{state="left_alone"} 0',
    ):
        assert f"{line}\n" in text


def test_once_and_the_screen_say_who_is_where(capsys: pytest.CaptureFixture[str]) -> None:
    _, tick = ticks()
    text = as_text(Look(tick, ()))
    assert "pod1: CPUs 4-5 of its own, memory 0" in text
    assert f"pod2: no CPUs of its own: {NO_ROOM}" in text
    assert "CPUs 6-7 are in no pool" in text
    screen = Screen("nodeagent")
    try:
        screen.show(tick, 0.01)
    finally:
        screen.close()
    assert "not bound" in capsys.readouterr().out


def test_what_others_own_survives_the_journal() -> None:
    _, tick = ticks(foreign=Foreign(None, KUBELET.kubelet, None, ("garbage",)))
    assert Unpacker().unpack(Packer().pack(tick)) == tick
    forged = Foreign(partitions=(Owned("", "7-6", ""),))
    with pytest.raises(ValueError, match="no list of CPUs"):
        Unpacker().unpack(Packer().pack(replace(tick, snapshot=replace(tick.snapshot, foreign=forged))))
