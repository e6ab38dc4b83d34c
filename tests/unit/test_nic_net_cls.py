"""Network classes of cgroup v1: which are read, which are wanted, and what counts as their original."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import Hierarchies, Hierarchy
from nodeagent.model.decision import Decision, Memory
from nodeagent.model.nic import Classifier, NicsSeen, Qdisc
from nodeagent.model.nic_policy import ClassifyBy, NicPolicy, NicRule, ScheduleBy
from nodeagent.model.plan import Change, Held, Kind, Knob, KnobReading, Setting, shown, sound
from nodeagent.model.pod import Member, PodSpec, Qos
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Actuator, actuator_of
from nodeagent.model.snapshot import Pod, Reading
from nodeagent.rpc.convert import report_message
from nodeagent.v1 import nodeagent_pb2 as pb
from tests.unit import samples
from tests.unit.nic_node import ALL, link, net, snapshot

TIER, SORT, WEB = "nodeagent/batch", "nodeagent/batch/sort", "nodeagent/ls/web"
LS, MID, BATCH = (float(0x4E510000 + minor) for minor in (0x10, 0x20, 0x30))
THEIRS = float(0x100001)
POLICY = Policy(
    scope=("nodeagent/**", "kubepods/**"),
    nic=NicPolicy(classify=ClassifyBy.NET_CLS),
    nics=(NicRule(match="*"),),
)


def spec(cgroup: str, qos: Qos, **values: object) -> PodSpec:
    found = PodSpec(uid=cgroup, name=cgroup, cgroup=cgroup, inode=5, qos=qos, source="rule")
    return replace(found, **values)


def knob(target: str) -> Knob:
    return Knob(Kind.NET_CLASS, target)


def reading(target: str, actual: float = 0.0, original: float | None = None) -> KnobReading:
    """Held, and as it was written, if it has an original."""
    written = None if original is None else actual
    return KnobReading(knob(target), actual, high=2.0**32 - 1, original=original, written=written)


def decided(
    pods: tuple[PodSpec, ...],
    *targets: str,
    policy: Policy = POLICY,
    nics: NicsSeen | None = None,
    tiers: tuple[str, ...] = (TIER,),
) -> Decision:
    """With these network classes to be read, all 0; every pod is in the host's network."""
    seen = nics or NicsSeen(
        support=ALL, links=(link(),), pods=tuple(net(each.uid, host_network=True) for each in pods)
    )
    there = tuple(Pod(each, Reading()) for each in pods)
    knobs = tuple(map(reading, targets))
    tick = snapshot(1.0, seen, pods=there, tiers=tiers, knobs=knobs, topology=samples.topology())
    decision, _ = decide(tick, policy, Memory())
    return decision


def classes(decision: Decision) -> dict[str, float | str]:
    return {s.knob.target: s.value for s in decision.plan if s.knob.kind is Kind.NET_CLASS}


def test_pods_what_is_inside_them_and_tiers_get_the_class_of_the_innermost_pod() -> None:
    pods = (
        spec(SORT, Qos.BATCH, tier=TIER),
        spec("kubepods/yarn", Qos.MID),
        spec("kubepods/yarn/web", Qos.LS),
        spec(WEB, Qos.LS),
    )
    inner = (f"{SORT}/a", f"{SORT}/a/b", "kubepods/yarn", "kubepods/yarn/c", "kubepods/yarn/web")
    found = classes(decided(pods, TIER, SORT, *inner, "kubepods/yarn/web/app", "kubepods/yarn/webs"))
    assert found == {
        TIER: BATCH,
        SORT: BATCH,
        f"{SORT}/a": BATCH,
        f"{SORT}/a/b": BATCH,
        "kubepods/yarn": MID,
        "kubepods/yarn/c": MID,
        "kubepods/yarn/webs": MID,
        "kubepods/yarn/web": LS,
        "kubepods/yarn/web/app": LS,
    }


def test_nothing_is_wanted_of_what_is_out_of_scope_or_to_be_left_alone_and_it_is_told() -> None:
    pods = (
        spec("system.slice/job", Qos.BATCH),
        spec("kubepods/alone", Qos.MID, hands_off=True),
        spec("kubepods/nowhere", Qos.MID),
        spec(SORT, Qos.BATCH, tier=TIER),
    )
    targets = ("system.slice/job", "kubepods/alone", "kubepods/alone/app", SORT)
    decision = decided(pods, *targets)
    assert classes(decision) == {SORT: BATCH}
    assert decision.shaping is not None
    assert dict(decision.shaping.marks.unclassified) == {
        "system.slice/job": "in the host's network, and not within `scope`",
        "kubepods/alone": "in the host's network, and to be left alone: hands_off",
        "kubepods/nowhere": "in the host's network, and in no cgroup of its own in the net_cls hierarchy",
    }


def test_what_has_addresses_of_its_own_needs_no_class() -> None:
    pod = spec("system.slice/job", Qos.BATCH)
    seen = NicsSeen(support=ALL, links=(link(),), pods=(net(pod.uid, "10.0.0.5"),))
    shaping = decided((pod,), nics=seen).shaping
    assert shaping is not None
    assert shaping.marks.unclassified == ()
    assert shaping.marks.addresses == (("10.0.0.5", Qos.BATCH),)


@pytest.mark.parametrize(
    "policy",
    [
        replace(POLICY, nic=NicPolicy(classify=ClassifyBy.NFT)),
        replace(POLICY, nics=(NicRule(match="*", schedule=ScheduleBy.OBSERVE),)),
    ],
    ids=["another classifier", "nothing is shaped"],
)
def test_otherwise_no_class_is_wanted(policy: Policy) -> None:
    pods = (spec(SORT, Qos.BATCH, tier=TIER),)
    assert classes(decided(pods, TIER, SORT)) == {TIER: BATCH, SORT: BATCH}
    assert classes(decided(pods, TIER, SORT, policy=policy)) == {}


def test_without_support_no_class_is_wanted() -> None:
    support = replace(ALL, classifiers={**ALL.classifiers, Classifier.NET_CLS: "not mounted"})
    seen = NicsSeen(support=support, links=(link(root=Qdisc("noqueue", 0)),))
    assert classes(decided((spec(SORT, Qos.BATCH, tier=TIER),), TIER, SORT, nics=seen)) == {}


def _changes(*readings: KnobReading) -> dict[str, Change]:
    plan = {r.knob: Setting(r.knob, BATCH, "nic", "") for r in readings}
    return {change.knob.target: change for change in diff(plan, readings)}


def test_a_class_of_ours_that_nobody_remembers_was_made_with_it() -> None:
    found = _changes(
        reading("a", BATCH, original=THEIRS),
        reading("a/early", 0.0),
        reading("a/late", BATCH),
        reading("a/late/inner", BATCH),
        reading("a/ls", LS),
        reading("b", BATCH),
        reading("c", THEIRS),
        reading("c/late", THEIRS),
    )
    assert "a" not in found, "as wanted, and ours already"
    assert {t: (c.old, c.new, c.inherited) for t, c in found.items()} == {
        "a/early": (0.0, BATCH, None),
        "a/late": (BATCH, BATCH, THEIRS),
        "a/late/inner": (BATCH, BATCH, THEIRS),
        "a/ls": (LS, BATCH, 0.0),
        "b": (BATCH, BATCH, 0.0),
        "c": (THEIRS, BATCH, None),
        "c/late": (THEIRS, BATCH, None),
    }


def test_classes_of_others_are_not_given_back() -> None:
    ours, drifted = reading("a", BATCH, original=0.0), reading("b", THEIRS)
    drifted = replace(drifted, original=0.0, written=BATCH)
    (change,) = diff({}, (ours, drifted, reading("c", BATCH)))
    assert (change.knob.target, change.new, change.gives_back) == ("a", 0.0, True)


class Tree:
    """A captured net_cls hierarchy beside that of cpu."""

    def __init__(self, root: Path) -> None:
        self.root = root / "net_cls"
        for target in (TIER, SORT, f"{SORT}/a"):
            (self.root / target).mkdir(parents=True)
            self.put(target, "0\n")
            (root / "cpu" / target).mkdir(parents=True)
        net_cls = Hierarchy(1, str(self.root), frozenset({"net_cls"}))
        self.cpu = Hierarchy(1, str(root / "cpu"), frozenset({"cpu"}))
        self.knobs = Knobs(Hierarchies({"cpu": self.cpu, "net_cls": net_cls}, None, (self.cpu, net_cls)))

    def put(self, target: str, text: str) -> None:
        (self.root / target / "net_cls.classid").write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path)
    yield made
    made.knobs.close()


def test_a_class_is_read_written_and_read_back(tree: Tree) -> None:
    tree.put(SORT, "1048577\n")
    (found,) = tree.knobs.read((knob(SORT),), {})
    assert (found.actual, found.low, found.high) == (THEIRS, 0.0, 2**32 - 1)
    (outcome,) = tree.knobs.apply([Change(knob(SORT), THEIRS, BATCH, "")])
    assert (outcome.error, outcome.found) == ("", BATCH)
    assert (tree.root / SORT / "net_cls.classid").read_text() == str(0x4E510030)
    assert tree.knobs.inode(knob(SORT)) == (tree.root / SORT).stat().st_ino


def test_a_pod_that_the_hierarchy_does_not_have_is_no_miss(tree: Tree) -> None:
    nowhere = knob("kubepods/pod")
    assert tree.knobs.read((nowhere,), {}) == ()
    assert tree.knobs.misses == {}
    assert tree.knobs.vanished({nowhere: Held(nowhere, 5, 0.0, BATCH)}) == (nowhere,)


def test_what_is_no_number_is_counted_and_not_guessed(tree: Tree) -> None:
    tree.put(SORT, "4e51:30\n")
    assert tree.knobs.read((knob(SORT),), {}) == ()
    assert tree.knobs.misses == {"garbled": 1}


def test_the_classes_of_mid_and_batch_are_read_with_all_inside_and_no_others(tree: Tree) -> None:
    members = (
        Member(spec(SORT, Qos.BATCH, tier=TIER), (), (f"{SORT}/a",)),
        Member(spec("kubepods/mid", Qos.MID), (), ("kubepods/mid/c",)),
        Member(spec(WEB, Qos.LS), (), (f"{WEB}/c",)),
    )
    wanted = {TIER, SORT, f"{SORT}/a", "kubepods/mid", "kubepods/mid/c"}
    assert {k.target for k in tree.knobs.classes_for(members, (TIER,))} == wanted
    assert not any(k.kind is Kind.NET_CLASS for k in tree.knobs.targets_for(members, (TIER,)))
    without = Knobs(Hierarchies({"cpu": tree.cpu}, None, (tree.cpu,)))
    assert without.classes_for(members, (TIER,)) == without.classes_below([knob(TIER)]) == ()


def test_all_that_is_in_a_held_cgroup_is_found(tree: Tree) -> None:
    quota = Knob(Kind.CPU_QUOTA, SORT)
    assert tree.knobs.classes_below([knob(TIER), knob("gone"), quota]) == (knob(SORT), knob(f"{SORT}/a"))
    assert tree.knobs.classes_below([quota]) == ()


@pytest.mark.parametrize(("kind", "actuator"), [(Kind.NET_CLASS, Actuator.NIC), (Kind.CPUS, Actuator.CPU)])
def test_classes_are_written_where_nics_are(kind: Kind, actuator: Actuator) -> None:
    assert actuator_of(kind) is actuator


def test_a_class_is_shown_as_people_write_it() -> None:
    assert [shown(value, Kind.NET_CLASS) for value in (BATCH, THEIRS, 0.0)] == ["4e51:30", "10:1", "none"]
    values = (BATCH, 0.0, 2.0**32 - 1, 2.0**32, 0.5, -1.0, float("nan"), float("inf"), "1", 1)
    assert [sound(Kind.NET_CLASS, value) for value in values] == [True, True, True, *[False] * 7]


def test_a_class_has_a_field_of_its_own_on_the_wire() -> None:
    tick = samples.tick(1)
    setting = Setting(knob(SORT), BATCH, "nic", "")
    report = report_message(replace(tick, decision=replace(tick.decision, plan=(setting,))), "node")
    (told,) = report.plan
    assert told.knob == pb.Knob(kind=pb.KNOB_KIND_NET_CLASS, target=SORT)
    assert told.value == pb.KnobValue(classid=0x4E510030)
