"""The series of NICs: classes with limits and counters, the step that is in use, and who is not told.

Invariant: labels are bounded by the NICs that are looked after, at most `NICS` of them; no pod is a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from nodeagent.model.decision import Tick
from nodeagent.model.nic import Classifier, Scheduler
from nodeagent.model.nic_told import ClassTold, NetTold, NicTold, TreeTold, told
from nodeagent.report.text import Label, table

NICS = 64

Row = tuple[tuple[Label, ...], float]
Directed = tuple[str, str, TreeTold]  # NIC, direction, tree
Pick = Callable[[ClassTold], float | None]

COUNTERS: tuple[tuple[str, str, Pick], ...] = (
    ("bytes", "Bytes sent by the class, or received", lambda c: c.bytes),
    ("packets", "Packets sent by the class, or received", lambda c: c.packets),
    ("drops", "Packets of the class that found its queue full", lambda c: c.drops),
    ("overlimits", "How often the class had to wait for its ceiling", lambda c: c.overlimits),
)
LEVELS: tuple[tuple[str, str, Pick], ...] = (
    ("backlog_bytes", "Bytes of the class that are queued", lambda c: c.backlog_bytes),
    ("guarantee_bytes_per_second", "What the class is guaranteed", lambda c: c.guarantee_bps / 8),
    ("ceiling_bytes_per_second", "What the class never exceeds, +Inf for none", lambda c: c.ceiling_bps / 8),
)


def nic_text(tick: Tick) -> str:
    """All NIC families of one tick; empty while no traffic is shaped."""
    found = told(tick)
    if found is None:
        return ""
    return "".join([*_nics(found.nics[:NICS]), *_marks(found)])


def _nics(nics: tuple[NicTold, ...]) -> Iterator[str]:
    directed = [*_trees(nics)]
    for name, text, pick in COUNTERS:
        yield table(f"nodeagent_nic_class_{name}_total", "counter", text, _classes(directed, pick))
    for name, text, pick in LEVELS:
        yield table(f"nodeagent_nic_class_{name}", "gauge", text, _classes(directed, pick))
    yield _gauge(
        "top_bytes_per_second",
        "What all classes may have together",
        (((("nic", nic), ("direction", way)), tree.top_bps / 8) for nic, way, tree in directed),
    )
    yield _gauge(
        "link_bytes_per_second",
        "Speed that the driver tells",
        (((("nic", nic.name),), nic.link_bps / 8) for nic in nics if nic.link_bps is not None),
    )
    yield _gauge("up", "1 while the NIC is there and up", (((("nic", n.name),), bool(n.up)) for n in nics))
    yield _gauge(
        "scheduler",
        "1 for what bounds the classes on the NIC",
        (
            ((("nic", nic.name), ("step", step.value)), step is nic.scheduler)
            for nic in nics
            for step in Scheduler
        ),
    )


def _marks(found: NetTold) -> Iterator[str]:
    yield _gauge(
        "classifier",
        "1 for what tells whose a packet is",
        (((("step", step.value),), step is found.classifier) for step in Classifier),
    )
    entries = {"cgroup": found.cgroups, "address": found.addresses}
    yield _gauge(
        "marks", "Entries that tell a packet's class", (((("by", by),), n) for by, n in entries.items())
    )
    yield _gauge("unclassified_pods", "Pods whose traffic passes for LS", [((), len(found.unclassified))])
    yield _gauge("failures", "What could not be read or written in this tick", [((), len(found.failed))])


def _trees(nics: Iterable[NicTold]) -> Iterator[Directed]:
    for nic in nics:
        for direction, tree in (("egress", nic.egress), ("ingress", nic.ingress)):
            if tree is not None:
                yield nic.name, direction, tree


def _classes(directed: Iterable[Directed], pick: Pick) -> Iterator[Row]:
    for nic, direction, tree in directed:
        for each in tree.classes:
            if (value := pick(each)) is not None:
                yield (("nic", nic), ("qos", each.qos.value), ("direction", direction)), value


def _gauge(name: str, text: str, samples: Iterable[Row]) -> str:
    return table(f"nodeagent_nic_{name}", "gauge", text, samples)
