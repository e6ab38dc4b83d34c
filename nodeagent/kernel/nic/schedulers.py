"""Each NIC shaped by its own step: a tree at its root, programs before its fq, or a tree behind pods' veths.

Invariant: a NIC has one step at a time; what an earlier one left is removed before another is set up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from nodeagent.kernel.nic.ingress import Ingress
from nodeagent.kernel.nic.rtnetlink import Rtnetlink
from nodeagent.kernel.nic.tc import Trees
from nodeagent.kernel.nic.veth import Veths
from nodeagent.model.errors import AgentError, Gone
from nodeagent.model.nic import ClassSeen, Link, NicPlan, Scheduler, Tree, TreeSeen
from nodeagent.model.pod import Qos

if TYPE_CHECKING:
    from nodeagent.kernel.nic.bpf.pacing import Edt

Pods = list[tuple[str, Qos, tuple[str, ...]]]  # host-side veth, class, addresses


class Schedulers:
    """The shaped NICs of this network namespace, by interface index; `close` it.

    `steps` tells how each is shaped now, also by an earlier run. Raises Refused, Unsupported.
    """

    def __init__(self, links: Iterable[Link]) -> None:
        self._trees = Trees()
        self._rtnetlink = Rtnetlink()
        self._ingress = Ingress(self._rtnetlink, self._trees)
        self._veths = Veths(self._rtnetlink, self._trees)
        self._programs: Edt | None = None
        self.steps: dict[int, Scheduler] = {}
        self._incoming = set(self._ingress.ours())
        self._find({link.index: link.clsact for link in links})

    def _find(self, here: Mapping[int, bool]) -> None:
        """See what an earlier run has left at these NICs, and at those that are gone since."""
        self.steps = dict.fromkeys(self._veths.ours(), Scheduler.VETH)
        self.steps |= {index: Scheduler.HTB for index in self._trees.ours() if index in here}
        for index in {index for index, clsact in here.items() if clsact} - self.steps.keys():
            with contextlib.suppress(AgentError):
                if self._edt().there(index):
                    self.steps[index] = Scheduler.EDT

    def read(self, index: int, name: str) -> TreeSeen | None:
        """Our classes on one NIC; None where it is not shaped. Gone, Refused, Garbled."""
        step = self.steps.get(index)
        if step is None:
            return None
        classes = self._read(index, step)
        if classes is None:
            return None
        incoming = self._ingress.read(index) if index in self._incoming else None
        return TreeSeen(name, step, classes, incoming or ())

    def set(self, plan: NicPlan, tree: Tree, pods: Pods, addresses: tuple[tuple[str, Qos], ...]) -> None:
        """Have the NIC shaped as planned, with its `tree`; AgentError."""
        if self.steps.get(plan.index, plan.scheduler) is not plan.scheduler:
            self.remove(plan.index)
        self.steps[plan.index] = plan.scheduler
        if plan.scheduler is Scheduler.HTB:
            self._trees.set(plan.index, tree)
        elif plan.scheduler is Scheduler.EDT:
            self._edt().set(plan.index, tree)
        else:
            self._veths.set(plan.index, tree, pods)
        if plan.ingress is not None:
            self._incoming.add(plan.index)
            self._ingress.set(plan.index, plan.ingress, addresses)
        else:
            self._let_in(plan.index)

    def remove(self, index: int) -> bool:
        """Nothing of ours stays there, the tree goes last. True if there was something. AgentError."""
        removed = self._let_in(index)
        step = self.steps.get(index)
        with contextlib.suppress(Gone):  # the NIC, and its tree with it
            if step is Scheduler.VETH:
                removed |= bool(self._veths.remove(index))
            elif step is Scheduler.EDT:
                removed |= self._edt().remove(index)
            elif step is Scheduler.HTB:
                removed |= self._trees.remove(index)
        self.steps.pop(index, None)
        return removed

    def trees(self) -> tuple[int, ...]:
        """NICs with a tree of ours at their root."""
        return tuple(index for index, step in self.steps.items() if step is Scheduler.HTB)

    def left(self) -> tuple[int, ...]:
        """NICs with anything of ours, whether they are here or not."""
        return tuple(sorted({*self.steps, *self._incoming}))

    def close(self) -> None:
        for part in (self._programs, self._trees, self._rtnetlink):
            if part is not None:
                part.close()

    def _read(self, index: int, step: Scheduler) -> tuple[ClassSeen, ...] | None:
        if step is Scheduler.VETH:
            return self._veths.read(index)
        return self._edt().read(index) if step is Scheduler.EDT else self._trees.read(index)

    def _let_in(self, index: int) -> bool:
        """Incoming traffic as it was; True if it was shaped. AgentError."""
        if index not in self._incoming:
            return False
        removed = bool(self._ingress.remove(index))
        self._incoming.discard(index)
        return removed

    def _edt(self) -> Edt:
        from nodeagent.kernel.nic.bpf.pacing import Edt  # here: few need it

        self._programs = self._programs or Edt()
        return self._programs
