"""What each class of a shaped NIC is guaranteed and never exceeds. The rest of the tree follows from these.

Invariant: a NIC that cannot be shaped has no setting, so that what is ours there is given back.
"""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.core.nic.knobs import told
from nodeagent.core.scene import Scene
from nodeagent.model.nic import KnownNic, NicPlan
from nodeagent.model.plan import Kind, Knob, Setting
from nodeagent.model.pod import Qos
from nodeagent.model.policy import Policy

NAME = "nic"


def enforce(scene: Scene, policy: Policy) -> Iterator[Setting]:
    """Guarantee and ceiling of LS, MID and BATCH on every NIC that is shaped, in bits per second."""
    for plan in () if scene.shaping is None else scene.shaping.nics:
        yield from _classes(plan, scene.nics.get(plan.name))


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
