"""Laws of what belongs to others: in no pool, in no set that is written, never less for not being seen."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.core.diff import diff
from nodeagent.core.foreign import inside
from nodeagent.enforce.cpuset import OWN_DIRECTORIES
from nodeagent.model.cpuset import CpuSet
from nodeagent.model.decision import Decision, Memory
from nodeagent.model.foreign import Foreign, Owned
from nodeagent.model.placement import Placement
from nodeagent.model.plan import Kind, Knob, KnobReading, listed
from nodeagent.model.pod import Qos
from nodeagent.model.policy import CpuPolicy, NumaPolicy, Policy
from nodeagent.model.snapshot import Pod, Snapshot
from nodeagent.model.topology import Topology
from tests.unit import samples
from tests.unit.machines import MACHINES

POLICY = Policy(
    scope=("**",), numa=NumaPolicy(placement=True, move_after_s=0.0), cpu=CpuPolicy(floor_cores=1.0)
)
UNSEEN = Foreign(None, None, None, ("garbled",))
SETS = (Kind.CPUS, Kind.MEMS)
SOURCES = ("kubelet", "realtime", "partitions")


def pod(number: int, qos: Qos = Qos.LS, *, bind: int = 0, hands_off: bool = False) -> Pod:
    made = samples.pod(number, 1000.0, qos=qos, containers=0, request_cores=float(bind) or None)
    spec = replace(made.spec, numa_bind=bind > 0, memory_request_bytes=None, hands_off=hands_off)
    return replace(made, spec=spec)


def seen(seq: int, topology: Topology, pods: tuple[Pod, ...], foreign: Foreign, *, v1: bool) -> Snapshot:
    everything = str(CpuSet(cpu.id for cpu in topology.cpus))
    memory = str(CpuSet(node.id for node in topology.nodes if node.memory_bytes != 0))
    paths = [p.spec.cgroup for p in pods]
    sets = [
        KnobReading(
            Knob(kind, path),
            whole if v1 else "",
            nested=v1,
            effective=whole,
            allowed=whole if v1 else "",
        )
        for path in ("nodeagent", samples.TIER, "nodeagent/ls", "nodeagent/mid", *paths)
        for kind, whole in zip(SETS, (everything, memory), strict=True)
    ]
    made = samples.snapshot(seq, pods=pods, cores=topology.cores, knobs=(*samples.batch_knobs(pods), *sets))
    return replace(made, topology=topology, tiers=(samples.TIER,), foreign=foreign)


def run(
    topology: Topology,
    pods: tuple[Pod, ...],
    foreign: Foreign,
    *,
    v1: bool = False,
    memory: Memory | None = None,
) -> tuple[Decision, Snapshot, Memory]:
    memory = memory or Memory()
    start = 0 if memory.previous is None else memory.previous.seq + 1
    _, memory = decide(seen(start, topology, pods, foreign, v1=v1), POLICY, memory)
    snapshot = seen(start + 1, topology, pods, foreign, v1=v1)
    decision, memory = decide(snapshot, POLICY, memory)
    return decision, snapshot, memory


def placement(decision: Decision) -> Placement:
    assert decision.placement is not None
    return decision.placement


def ids(*texts: str) -> set[int]:
    return {cpu for text in texts for cpu in CpuSet.parse(text)}


def planned(decision: Decision, cgroup: str) -> list[Kind]:
    return [s.knob.kind for s in decision.plan if s.knob.target == cgroup]


def of_kubelet(*owned: tuple[str, str]) -> Foreign:
    return Foreign(kubelet=tuple(Owned(uid, cpus, "the kubelet's") for uid, cpus in owned))


@st.composite
def nodes(draw: st.DrawFn) -> tuple[Topology, tuple[Pod, ...], Foreign]:
    """A machine, pods of all kinds, and some CPUs and pods of others."""
    topology = MACHINES[draw(st.sampled_from(sorted(MACHINES)))]
    pods = tuple(
        pod(
            number,
            qos,
            bind=draw(st.integers(0, 4)) if qos is Qos.LS else 0,
            hands_off=qos is not Qos.BATCH and draw(st.integers(0, 4)) == 0,
        )
        for number, qos in enumerate(draw(st.lists(st.sampled_from(list(Qos)), min_size=1, max_size=8)))
    )
    uids = st.sampled_from(["", "unheard-of", *(p.spec.uid for p in pods)])
    some = st.sets(st.sampled_from([cpu.id for cpu in topology.cpus]), max_size=max(1, topology.cores // 2))
    owned = st.lists(st.builds(lambda u, c: Owned(u, str(CpuSet(c)), "theirs"), uids, some), max_size=3)
    first = topology.cpus[0].id  # which stays with the root: no partition takes all
    parted = owned.map(lambda all_: tuple(_without(each, first) for each in all_))
    made = st.builds(Foreign, owned.map(tuple), owned.map(tuple), parted)
    return topology, pods, draw(made)


def unseen(foreign: Foreign, which: str) -> Foreign:
    """The same but for one source, which cannot be read."""
    known = {name: getattr(foreign, name) for name in SOURCES if name != which}
    return Foreign(**{**known, which: None}, unknown=("garbled",))


def _without(owned: Owned, cpu: int) -> Owned:
    return replace(owned, cpus=str(CpuSet(CpuSet.parse(owned.cpus) - {cpu})))


def theirs(foreign: Foreign) -> Iterable[Owned]:
    return (*(foreign.kubelet or ()), *(foreign.realtime or ()), *(foreign.partitions or ()))


@settings(max_examples=60)
@given(nodes(), st.booleans())
def test_pools_are_all_online_cpus_but_those_of_others_and_no_set_has_one(
    node: tuple[Topology, tuple[Pod, ...], Foreign], v1: bool
) -> None:
    topology, pods, foreign = node
    decision, snapshot, _ = run(topology, pods, foreign, v1=v1)
    found = placement(decision)
    online = {cpu.id for cpu in topology.cpus}
    off = online & (ids(*(each.cpus for each in theirs(foreign))) | set(topology.isolated))
    assert ids(found.hands_off) == off
    assert ids(found.shared, found.mid, *(placed.cpus for placed in found.bound)) == online - off
    for setting in decision.plan:  # the agent's own directories have no tasks and are held as they are
        if setting.knob.kind is Kind.CPUS and setting.knob.target not in OWN_DIRECTORIES:
            assert not ids(listed(setting.value)) & off
    plan = {s.knob: s for s in decision.plan}
    for change in diff(plan, snapshot.knobs, decision.yielded):
        if change.knob.kind is Kind.CPUS and listed(change.old):
            assert not (ids(listed(change.new)) - ids(listed(change.old))) & off, "none is added on the way"


@settings(max_examples=60)
@given(nodes(), st.booleans())
def test_sets_of_pods_of_others_are_not_written_and_who_asks_is_told_why(
    node: tuple[Topology, tuple[Pod, ...], Foreign], v1: bool
) -> None:
    topology, pods, foreign = node
    decision, _, _ = run(topology, pods, foreign, v1=v1)
    found, owners = placement(decision), {each.uid for each in theirs(foreign)}
    alone = {p.spec.uid: p.spec for p in pods if p.spec.uid in owners or p.spec.hands_off}
    assert alone.keys() == dict(found.left_alone).keys()
    assert all(dict(found.left_alone).values())
    for uid, spec in alone.items():
        assert not {Kind.CPUS, Kind.MEMS, Kind.MIGRATE} & set(planned(decision, spec.cgroup))
        assert uid not in {placed.uid for placed in found.bound}
        assert (uid in dict(found.unplaced)) is spec.numa_bind
    if any(spec.qos is Qos.BATCH for spec in alone.values()):
        assert Kind.CPUS not in planned(decision, samples.TIER), "what is around would narrow it too"


@settings(max_examples=60)
@given(nodes(), st.sampled_from(SOURCES))
def test_what_is_not_seen_is_as_it_was_last_seen(
    node: tuple[Topology, tuple[Pod, ...], Foreign], which: str
) -> None:
    topology, pods, foreign = node
    before, _, memory = run(topology, pods, foreign)
    blind = unseen(foreign, which)
    after, _, memory = run(topology, pods, blind, memory=memory)
    assert placement(after).hands_off == placement(before).hands_off
    assert placement(after).left_alone == placement(before).left_alone
    again, _, _ = run(topology, pods, Foreign(), memory=memory)
    isolated = str(CpuSet(topology.isolated))
    assert placement(again).hands_off == isolated, "and it is free as soon as it is seen to be"


@pytest.mark.parametrize("which", SOURCES)
def test_until_all_was_seen_once_nothing_is_placed_and_what_is_held_is_kept(which: str) -> None:
    topology, pods = samples.topology(8), (pod(1, bind=2), pod(2, Qos.BATCH))
    decision, snapshot, memory = run(topology, pods, unseen(Foreign(), which))
    assert decision.placement is None
    assert not [s for s in decision.plan if s.knob.kind in SETS]
    knob = Knob(Kind.CPUS, pods[0].spec.cgroup)
    held = replace(snapshot.knobs[-1], knob=knob, actual="2-3", original="", written="2-3")
    knobs = tuple(held if r.knob == knob else r for r in snapshot.knobs)
    kept, _ = decide(replace(snapshot, knobs=knobs, seq=9, at=snapshot.at + 1), POLICY, memory)
    assert {s.knob: s.value for s in kept.plan}[knob] == "2-3"


def test_nothing_is_known_of_the_time_in_which_pods_were_not_placed() -> None:
    topology, pods = samples.topology(8), (pod(1, bind=2),)
    _, _, memory = run(topology, pods, Foreign())
    off = replace(POLICY, numa=replace(POLICY.numa, placement=False))
    blind = seen(2, topology, pods, Foreign(None, None, None), v1=False)
    decision, memory = decide(blind, off, memory)
    assert decision.placement is None and not memory.foreign.unknown
    garbled, _, memory = run(topology, pods, unseen(Foreign(), "kubelet"), memory=memory)
    assert garbled.placement is None
    found, _, _ = run(topology, pods, Foreign(), memory=memory)
    assert [each.uid for each in placement(found).bound] == [pods[0].spec.uid]


@given(st.text("ab/", max_size=9), st.frozensets(st.text("ab/", min_size=1, max_size=6)))
def test_inside_is_each_cgroup_and_all_below_it(path: str, cgroups: frozenset[str]) -> None:
    tidy = "/".join(part for part in path.split("/") if part)
    tops = frozenset("/".join(part for part in each.split("/") if part) for each in cgroups) - {""}
    assert inside(tidy, tops) is any(tidy == top or tidy.startswith(f"{top}/") for top in tops)


def test_a_pod_of_the_static_manager_that_asks_is_told_whose_its_cpus_are() -> None:
    asking = pod(1, bind=2)
    decision, _, _ = run(samples.topology(8), (asking,), of_kubelet((asking.spec.uid, "2-3")))
    assert placement(decision).unplaced == ((asking.spec.uid, "the kubelet's (CPUs 2-3)"),)


def test_a_bound_pod_leaves_cpus_that_the_kubelet_gives_away_and_nobody_else_moves() -> None:
    topology, pods = samples.topology(8), (pod(1, bind=2), pod(2, bind=2))
    before, _, memory = run(topology, pods, Foreign())
    first, second = placement(before).bound
    after, _, _ = run(topology, pods, of_kubelet(("new", first.cpus)), memory=memory)
    mended, same = placement(after).bound
    assert not ids(mended.cpus) & ids(first.cpus)
    assert same == second


def test_pods_on_isolated_cpus_or_in_a_partition_are_left_where_they_are() -> None:
    topology = replace(samples.topology(8), isolated=(7,))
    pods = (pod(1), pod(2), pod(3, bind=1))
    foreign = Foreign(partitions=(Owned("", "5-6", "a partition"),))
    _, snapshot, memory = run(topology, pods, foreign)
    where = {pods[0].spec.cgroup: "7", pods[1].spec.cgroup: "5"}
    knobs = tuple(
        replace(r, effective=where[r.knob.target], actual=where[r.knob.target])
        if r.knob.kind is Kind.CPUS and r.knob.target in where
        else r
        for r in snapshot.knobs
    )
    decision, _ = decide(replace(snapshot, knobs=knobs, seq=9, at=snapshot.at + 1), POLICY, memory)
    assert {uid for uid, _ in placement(decision).left_alone} == {p.spec.uid for p in pods[:2]}
    assert not planned(decision, pods[0].spec.cgroup) and not planned(decision, pods[1].spec.cgroup)


def test_a_pod_that_is_to_be_left_alone_gets_no_setting_at_all() -> None:
    pods = (pod(1, hands_off=True), pod(2, bind=2))
    decision, _, _ = run(samples.topology(8), pods, Foreign())
    assert planned(decision, pods[0].spec.cgroup) == []
    assert Kind.CPUS in planned(decision, pods[1].spec.cgroup)


def test_a_pod_outside_of_the_scope_that_asks_is_told_so() -> None:
    asking = pod(1, bind=2)
    policy = replace(POLICY, scope=("nodeagent/batch/**",))
    snapshot = seen(0, samples.topology(8), (asking,), Foreign(), v1=False)
    _, memory = decide(snapshot, policy, Memory())
    decision, _ = decide(replace(snapshot, seq=1, at=snapshot.at + 1.0), policy, memory)
    ((uid, why),) = placement(decision).unplaced
    assert uid == asking.spec.uid and "scope" in why
