"""NICs: what was seen of each, how it shall be shaped, and whose traffic is in which class.

Rates are bits per second on the wire's side of the qdisc, bytes and packets are raw counters.
"""

from __future__ import annotations

import enum

from msgspec import Struct

from nodeagent.model.pod import Qos

# Handle of our trees on every NIC ("NQ"): one classification serves all, and follows a pod on failover.
MAJOR = 0x4E51
MINORS = {Qos.LS: 0x10, Qos.MID: 0x20, Qos.BATCH: 0x30}


def classid(qos: Qos) -> int:
    """The HTB class, which is also the skb->priority of its packets."""
    return MAJOR << 16 | MINORS[qos]


class Role(enum.StrEnum):
    """What a NIC is for."""

    SHARED = "shared"  # everything
    ONLINE = "online"  # latency-sensitive traffic first
    BULK = "bulk"  # training and shuffle first


class Scheduler(enum.StrEnum):
    """What bounds the classes on a NIC; best first."""

    HTB = "htb"  # a tree of ours at its root
    EDT = "edt"  # departure times by eBPF, below somebody else's fq
    VETH = "veth"  # a tree of ours between the pods and the NIC: behind their host-side veths
    OBSERVE = "observe"  # nothing


class Classifier(enum.StrEnum):
    """What tells whose a packet is; best first."""

    NFT = "nft"  # one nftables table: by cgroup v2 of the socket, and by address
    BPF = "bpf"  # an eBPF program at the NIC: the same two
    NET_CLS = "net_cls"  # cgroup v1 net_cls and nftables: by cgroup, and by address
    U32 = "u32"  # tc filters: by address only
    NONE = "none"


class Qdisc(Struct, frozen=True, array_like=True, gc=False):
    """One queueing discipline. The kernel's own have handle 0; whatever somebody has set has another."""

    kind: str
    handle: int


class Link(Struct, frozen=True, gc=False, kw_only=True):
    """A network interface as it is now.

    `kind` is rtnetlink's ("veth", "vlan", "bond", "bridge"), "" for hardware. `link_bps` is None where the
    driver does not tell. `master` is the bridge or bond that it belongs to, `lower` what a VLAN or bond is
    made of. `leaves` are the kinds of the qdiscs below the root (mq has one for each queue).
    """

    name: str
    index: int
    up: bool
    root: Qdisc
    kind: str = ""
    link_bps: float | None = None
    mtu_bytes: int = 1500
    tx_queues: int = 1
    master: str = ""
    lower: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    numa_node: int | None = None
    virtual_function: bool = False
    default_route: bool = False
    clsact: bool = False  # there is one, ours or not


class NicSupport(Struct, frozen=True, gc=False, kw_only=True):
    """What this kernel does, proven by packets in a throw-away namespace: "" = works, else why not.

    `unanswered` is why nothing could be found out; then nothing is known to work.
    """

    schedulers: dict[Scheduler, str] = {}
    classifiers: dict[Classifier, str] = {}
    ingress: str = ""
    bridge: str = ""  # classifying traffic that is bridged, not routed
    fq_codel: bool = False
    unanswered: str = ""


class PodNet(Struct, frozen=True, gc=False, kw_only=True):
    """How the packets of a pod can be told: by its cgroup (`host_network`) or by its addresses.

    `cgroup_id` is the inode of its cgroup v2 directory, `level` that directory's depth (the root has 0);
    None where it has none. `veths` are its host-side interfaces, `bridge` the one that they are in. `why`
    tells what could not be found out; it is empty when all is known.
    """

    uid: str
    host_network: bool = False
    cgroup_id: int | None = None
    level: int = 0
    addresses: tuple[str, ...] = ()
    veths: tuple[str, ...] = ()
    bridge: str = ""
    why: str = ""


class ClassSeen(Struct, frozen=True, array_like=True, gc=False):
    """One class of ours as the kernel has it."""

    qos: Qos
    rate_bps: float
    ceil_bps: float
    bytes: int
    packets: int
    drops: int
    overlimits: int
    backlog_bytes: int


class TreeSeen(Struct, frozen=True, gc=False):
    """Our classes on one NIC, egress and (where shaped) ingress."""

    name: str
    scheduler: Scheduler
    classes: tuple[ClassSeen, ...]
    ingress: tuple[ClassSeen, ...] = ()


class NicSample(Struct, frozen=True, array_like=True, gc=False):
    """Our trees at the monotonic time `at`, in seconds; a NIC that could not be read is not in it."""

    at: float
    trees: tuple[TreeSeen, ...]


class NicsSeen(Struct, frozen=True, gc=False, kw_only=True):
    """All of the network in one tick; `samples` are those since the last tick, the newest is of this one."""

    support: NicSupport = NicSupport()
    links: tuple[Link, ...] = ()
    pods: tuple[PodNet, ...] = ()
    tiers: tuple[PodNet, ...] = ()  # cgroups whose pods are all Batch: `uid` is the path
    own_addresses: tuple[str, ...] = ()  # of this host: never a pod's
    samples: tuple[NicSample, ...] = ()
    failed: tuple[str, ...] = ()  # what could not be read or written, one clear line each


class HtbClass(Struct, frozen=True, array_like=True, gc=False):
    """One class as it shall be. `prio` 0 borrows first; `queue_bytes` bounds its leaf, 0 = kernel's own."""

    qos: Qos
    rate_bps: float
    ceil_bps: float
    prio: int
    burst_bytes: int
    cburst_bytes: int
    quantum_bytes: int
    queue_bytes: int = 0


class Tree(Struct, frozen=True, array_like=True, gc=False):
    """One tree as it shall be: a top class that all share, and a class for each QoS class."""

    top_bps: float
    burst_bytes: int
    classes: tuple[HtbClass, ...]


class NicPlan(Struct, frozen=True, gc=False, kw_only=True):
    """How one NIC shall be shaped. Without `tree` it is let be, for the reason `why`."""

    name: str
    index: int
    role: Role
    scheduler: Scheduler
    why: str
    tree: Tree | None = None
    ingress: Tree | None = None


class Marks(Struct, frozen=True, gc=False):
    """Whose traffic is in which class. What is in neither is LS, the default class.

    `cgroups` are (level, cgroup id, class), `addresses` (IPv4 or IPv6 as text, class), both sorted.
    `unclassified` are (pod uid, why): their traffic passes for LS.
    """

    classifier: Classifier
    why: str
    cgroups: tuple[tuple[int, int, Qos], ...] = ()
    addresses: tuple[tuple[str, Qos], ...] = ()
    unclassified: tuple[tuple[str, str], ...] = ()


class Shaping(Struct, frozen=True, gc=False):
    """The whole network as it shall be."""

    nics: tuple[NicPlan, ...]
    marks: Marks


class NicLaw(Struct, frozen=True, array_like=True, gc=False):
    """What the law of Batch's ceiling remembers of one NIC, between two samples.

    `ceiling_bps` is in force, `guarantee_bps` is LS's; `calm` counts the samples since online traffic last
    needed more room, `queued` those in a row in which LS had to wait. `bytes` are those of LS, MID and BATCH
    at the time `at` (monotonic seconds), `batch_bps` what Batch sent since the sample before, `peaks_bps`
    what LS sent in the last samples, newest last.
    """

    ceiling_bps: float
    guarantee_bps: float
    why: str = ""
    calm: int = 0
    queued: int = 0
    at: float | None = None
    bytes: tuple[int, ...] = ()
    batch_bps: float = 0.0
    peaks_bps: tuple[float, ...] = ()


class KnownNic(Struct, frozen=True, array_like=True, gc=False):
    """What outlives a tick of one NIC: a name to find its rule by, its last known speed, and the two laws."""

    index: int
    rule_name: str
    link_bps: float | None
    egress: NicLaw | None = None
    ingress: NicLaw | None = None
