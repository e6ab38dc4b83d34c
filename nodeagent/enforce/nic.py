"""What each class of a shaped NIC is guaranteed and never exceeds. The rest of the tree follows from these.
Where packets are told by cgroup v1 net_cls, the class of MID and Batch pods too.

Invariant: a NIC that cannot be shaped has no setting, so that what is ours there is given back; without any
that is shaped no pod has a class.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core.nic.knobs import told
from nodeagent.core.nic.net_class import class_of
from nodeagent.core.scene import Scene
from nodeagent.model.nic import Classifier, KnownNic, NicPlan, Shaping, classid
from nodeagent.model.plan import Kind, Knob, Setting
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy

NAME = "nic"


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """Guarantee and ceiling of LS, MID and BATCH on every NIC that is shaped, in bits per second; net_cls."""
    if scene.shaping is None:
        return
    for plan in scene.shaping.nics:
        yield from _classes(plan, scene.nics.get(plan.name))
    if _by_net_cls(scene.shaping):
        yield from _net_cls(scene)


def _classes(plan: NicPlan, known: KnownNic | None) -> Iterator[Setting]:
    law = None if known is None else known.egress
    if plan.tree is None or law is None:
        return
    for each in plan.tree.classes:
        target = f"{plan.name}/{each.qos.value}"
        for kind in told(plan.scheduler, each.qos):
            if kind is Kind.NIC_RATE:
                why = f"its share of a NIC for {plan.role} traffic"
                yield Setting(Knob(kind, target), each.rate_bps, NAME, why)
            else:
                why = law.why if each.qos is Qos.BATCH else "all that is usable of the link"
                yield Setting(Knob(kind, target), each.ceil_bps, NAME, why)


def _by_net_cls(shaping: Shaping) -> bool:
    shaped = any(plan.tree is not None for plan in shaping.nics)
    return shaped and shaping.marks.classifier is Classifier.NET_CLS


def _net_cls(scene: Scene) -> Iterator[Setting]:
    homes = dict.fromkeys(scene.view.snapshot.tiers, Qos.BATCH)
    homes |= {p.pod.spec.cgroup: p.pod.spec.qos for p in scene.view.pods}
    for knob in scene.knobs:
        qos = class_of(knob.target, homes) if knob.kind is Kind.NET_CLASS else None
        if qos is not None and knob.target in scene.scope:
            yield Setting(knob, float(classid(qos)), NAME, f"its packets are {qos.value}")
