"""Sets where they are remembered and told: ledger, journal, report, events, metrics, `once`."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.journal.packed import Packer, Unpacker
from nodeagent.model.decision import Drift, Memory, Tick
from nodeagent.model.plan import Change, Held, Kind, Knob, KnobReading, Outcome, Setting
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy
from nodeagent.once import Look, as_text
from nodeagent.originals import NAME, Originals
from nodeagent.report.events import events
from nodeagent.report.pods import PodPage
from nodeagent.rpc.convert import report_message
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples

POD = "nodeagent/batch/pod"
CPUS, MEMS = (Knob(kind, POD) for kind in (Kind.CPUS, Kind.MEMS))


def test_a_ledger_from_before_there_were_sets_is_read(tmp_path: Path) -> None:
    ledger = (
        b'82f41f81 ["nodeagent originals", 1, "boot"]\n'
        b'acfdb967 ["cpu.quota", "nodeagent/batch", 11, Infinity, 0.5, null]\n'
    )
    (tmp_path / NAME).write_bytes(ledger)
    opened = Originals(str(tmp_path), "boot")
    quota = Knob(Kind.CPU_QUOTA, "nodeagent/batch")
    assert dict(opened.held) == {quota: Held(quota, 11, float("inf"), 0.5)}
    assert opened.warnings == []


def test_two_writes_of_one_set_are_remembered_by_where_they_begin_and_end(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path), "boot")
    via, last = Change(CPUS, "0", "0-1", ""), Change(CPUS, "0-1", "1", "")
    assert originals.intend([via, last], lambda _: 7) == (via, last)
    assert dict(Originals(str(tmp_path), "boot").held) == {CPUS: Held(CPUS, 7, "0", None, "1")}
    originals.confirm([Outcome(via, "0-1"), Outcome(last, "0-1", "EBUSY")])
    assert dict(originals.held) == {CPUS: Held(CPUS, 7, "0", "0-1", None)}


def test_a_set_that_was_inherited_from_us_is_remembered_as_it_would_have_been(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path), "boot")
    originals.intend([Change(CPUS, "0", "0", "", inherited="0-3")], lambda _: 7)
    assert originals.held[CPUS].original == "0-3"


def placed(found: str = "2-3") -> Tick:
    """A tick in which a Batch pod's CPUs are written."""
    pod = samples.pod(1, 1000.0, qos=Qos.BATCH)
    knob = Knob(Kind.CPUS, pod.spec.cgroup)
    reading = KnobReading(knob, "0-7", nested=True, effective="0-7", allowed="0-7")
    seen = samples.snapshot(1, pods=(pod,), knobs=(*samples.batch_knobs((pod,)), reading))
    setting = Setting(knob, "2-3", "placement", "away from LS")
    decided = samples.decision(seen)
    decided = replace(decided, plan=(*decided.plan, setting), drifts=(Drift(knob, 2, 999.0, 1000.0, "0-7"),))
    change = Change(knob, "0-7", "2-3", setting.why, setting.by)
    return Tick(seen, decided, (change,), (Outcome(change, found),))


def test_a_set_survives_the_journal_and_the_codec() -> None:
    tick = placed()
    assert Unpacker().unpack(Packer().pack(tick)) == tick
    assert msgspec.json.decode(msgspec.json.encode(tick.changes), type=tuple[Change, ...]) == tick.changes


@pytest.mark.parametrize(
    "knob",
    [
        KnobReading(CPUS, 1.0),
        KnobReading(CPUS, "3-1"),
        KnobReading(CPUS, "0,1"),
        KnobReading(CPUS, "0", allowed="x"),
        KnobReading(Knob(Kind.CPU_QUOTA, POD), "0-1"),
        KnobReading(Knob(Kind.CPU_QUOTA, POD), 1.0, original="0-1"),
    ],
)
def test_a_forged_journal_with_a_value_of_another_kind_is_refused(knob: KnobReading) -> None:
    tick = placed()
    forged = replace(tick, snapshot=replace(tick.snapshot, knobs=(knob,)))
    with pytest.raises(ValueError, match="another kind"):
        Unpacker().unpack(Packer().pack(forged))


def test_a_decision_over_sets_changes_nothing_that_nobody_wants() -> None:
    tick = placed()
    decision, _ = decide(tick.snapshot, Policy(), Memory())
    assert not [s for s in decision.plan if s.knob.kind is Kind.CPUS]


def test_the_report_says_which_cpus() -> None:
    report = report_message(placed(), "node")
    setting = report.plan[-1]
    assert setting.knob.kind == pb.KNOB_KIND_CPUS
    assert setting.value == pb.KnobValue(cpus="2-3")
    assert (report.changes[0].old.cpus, report.changes[0].new.cpus) == ("0-7", "2-3")
    assert report.outcomes[0].found.cpus == "2-3"
    assert report.drifts[0].found.cpus == "0-7"


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (Kind.CPUS, "", pb.KnobValue(cpus="")),
        (Kind.MEMS, "0-1", pb.KnobValue(mems="0-1")),
        (Kind.MIGRATE, 1.0, pb.KnobValue(on=True)),
        (Kind.MIGRATE, 0.0, pb.KnobValue(on=False)),
    ],
)
def test_every_kind_of_value_has_a_field_of_its_own(
    kind: Kind, value: float | str, told: pb.KnobValue
) -> None:
    tick = placed()
    setting = Setting(Knob(kind, POD), value, "placement", "")
    report = report_message(replace(tick, decision=replace(tick.decision, plan=(setting,))), "node")
    assert report.plan[0].value == told
    assert report.plan[0].value.WhichOneof("value") is not None


def test_events_name_the_sets() -> None:
    (event,) = [e for e in events(None, placed()) if e.name == "knob.written"]
    assert (event.keys["old_cpus"], event.keys["new_cpus"]) == ("0-7", "2-3")


def test_metrics_count_the_cpus_of_a_pod_and_show_no_set() -> None:
    text, _ = PodPage().render(placed(), 1000)
    assert 'nodeagent_pod_cpuset_cpus{pod="pod1",qos="batch"} 2\n' in text
    assert "2-3" not in text


def test_once_shows_sets_and_not_what_is_only_taken_note_of() -> None:
    tick = placed()
    noted = Change(MEMS, "0", "0", "", "placement")
    text = as_text(Look(replace(tick, changes=(*tick.changes, noted)), ()))
    assert f"cpuset.cpus {tick.changes[0].knob.target}: 0-7 -> 2-3  [placement: away from LS]" in text
    assert "cpuset.mems" not in text


def test_what_is_left_of_a_set_that_lost_offline_cpus_is_ours_when_they_are_back(tmp_path: Path) -> None:
    originals = Originals(str(tmp_path), "boot")
    change = Change(CPUS, "0-3", "2-3", "")
    originals.intend([change], lambda _: 7)
    originals.confirm([Outcome(change, "2-3")])
    clipped = KnobReading(CPUS, "2", nested=True, original="0-2", written="2", allowed="0-2")
    originals.follow([clipped])
    assert dict(Originals(str(tmp_path), "boot").held) == {CPUS: Held(CPUS, 7, "0-3", "2")}
    foreign = KnobReading(CPUS, "1", nested=True, original="0-3", written="2", allowed="0-3")
    originals.follow([foreign])
    assert originals.held[CPUS].written == "2"
