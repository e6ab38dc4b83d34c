"""A node with two shaped NICs: literal ticks, a quarter of a second between two samples."""

from __future__ import annotations

from msgspec.structs import replace

from nodeagent.model.decision import Tick
from nodeagent.model.nic import (
    Classifier,
    ClassSeen,
    HtbClass,
    Link,
    Marks,
    NicPlan,
    NicSample,
    NicsSeen,
    PodNet,
    Qdisc,
    Role,
    Scheduler,
    Shaping,
    Tree,
    TreeSeen,
)
from nodeagent.model.plan import Kind, Knob, Setting
from nodeagent.model.pod import Qos
from tests.unit import samples

G = 1e9
RATES = {"eth0": (3.2 * G, 0.4 * G, 5.13 * G), "eth1": (0.02 * G, 18.0 * G, 1.5 * G)}
LIMITS = {  # guarantee and ceiling of LS, MID and BATCH
    "eth0": ((5.7 * G, 9.5 * G), (2.85 * G, 9.5 * G), (0.475 * G, 5.7 * G)),
    "eth1": ((2.375 * G, 23.75 * G), (19.0 * G, 23.75 * G), (1.1875 * G, 2.375 * G)),
}
TOP = {"eth0": 9.5 * G, "eth1": 23.75 * G}
LINK = {"eth0": 10 * G, "eth1": 25 * G}
ROLE = {"eth0": Role.ONLINE, "eth1": Role.BULK}
DROPS = {"eth0": (0, 0, 1873), "eth1": (0, 12, 25_000_000)}
BACKLOG = {"eth0": (0, 1514, 262_144), "eth1": (0, 65_536, 1_048_576)}


def classes(name: str, at: float) -> tuple[ClassSeen, ...]:
    """The classes of a NIC that has sent at its RATES since the time 0."""
    rows = zip(Qos, LIMITS[name], RATES[name], DROPS[name], BACKLOG[name], strict=True)
    return tuple(
        ClassSeen(qos, low, high, int(rate * at / 8), int(rate * at / 12_000), drops, drops * 3, backlog)
        for qos, (low, high), rate, drops, backlog in rows
    )


def tree(name: str) -> Tree:
    wanted = tuple(
        HtbClass(qos, low, high, prio, 65_536, 65_536, 1514)
        for prio, (qos, (low, high)) in enumerate(zip(Qos, LIMITS[name], strict=True))
    )
    return Tree(TOP[name], 65_536, wanted)


def incoming(at: float) -> tuple[ClassSeen, ...]:
    return tuple(ClassSeen(qos, 1 * G, 7 * G, int(at * G / 8), int(at * 1e4), 3, 0, 0) for qos in Qos)


IN = Tree(7 * G, 65_536, tuple(HtbClass(qos, 1 * G, 7 * G, 0, 65_536, 65_536, 1514) for qos in Qos))
PLANS = (
    NicPlan(
        name="eth0",
        index=2,
        role=Role.ONLINE,
        scheduler=Scheduler.HTB,
        why="",
        tree=tree("eth0"),
        ingress=IN,
    ),
    NicPlan(
        name="eth1",
        index=3,
        role=Role.BULK,
        scheduler=Scheduler.EDT,
        why="htb: the root qdisc fq 8001: is somebody else's",
        tree=tree("eth1"),
    ),
)
LINKS = tuple(
    Link(name=name, index=index, up=True, root=Qdisc("htb", 0x4E510000), link_bps=LINK[name])
    for index, name in enumerate(TOP, 2)
)
MARKS = Marks(
    Classifier.NFT,
    "",
    cgroups=((3, 4711, Qos.BATCH),),
    addresses=(("10.1.0.7", Qos.MID), ("fd00::7", Qos.MID)),
    unclassified=(("nodeagent/batch/pod7", "macvlan: its packets pass no hook of the host"),),
)
NETS = (
    PodNet(uid="nodeagent/batch/pod3", host_network=True, cgroup_id=4711, level=3),
    PodNet(uid="nodeagent/mid/pod1", addresses=("10.1.0.7", "fd00::7"), veths=("veth1",)),
    PodNet(uid="nodeagent/batch/pod7", why="macvlan"),
)


def sample(at: float) -> NicSample:
    return NicSample(
        at,
        (
            TreeSeen("eth0", Scheduler.HTB, classes("eth0", at), incoming(at)),
            TreeSeen("eth1", Scheduler.EDT, classes("eth1", at)),
        ),
    )


def nic_tick(
    seq: int = 2,
    *,
    plans: tuple[NicPlan, ...] = PLANS,
    marks: Marks = MARKS,
    links: tuple[Link, ...] = LINKS,
    failed: tuple[str, ...] = (),
    seen: tuple[NicSample, ...] | None = None,
) -> Tick:
    """Tick `seq` of 8 pods, with five samples unless `seen` are others."""
    tick = samples.tick(seq, pods=8)
    at = tick.snapshot.at
    beats = tuple(sample(at - 1.0 + beat * 0.25) for beat in range(5)) if seen is None else seen
    nics = NicsSeen(links=links, pods=NETS, samples=beats, failed=failed)
    plan = tuple(
        Setting(Knob(kind, f"{each.name}/{wanted.qos.value}"), value, "nic", "free of online traffic")
        for each in plans
        if each.tree is not None
        for wanted in each.tree.classes
        for kind, value in ((Kind.NIC_RATE, wanted.rate_bps), (Kind.NIC_CEIL, wanted.ceil_bps))
    )
    decision = replace(tick.decision, shaping=Shaping(plans, marks), plan=(*tick.decision.plan, *plan))
    return replace(tick, snapshot=replace(tick.snapshot, nics=nics), decision=decision)
