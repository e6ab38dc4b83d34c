"""Explanations of a tick: why this capacity, why a pod's limits. Pure: the tick is thought once more.

`think` gives the numbers that decide() had, because it is the same function of the same inputs.
"""

from __future__ import annotations

from functools import cached_property

from nodeagent.core.decide import Thought, think
from nodeagent.core.explain import batch, offer, pod
from nodeagent.core.explain.ground import Ground
from nodeagent.model.decision import Memory, Tick
from nodeagent.model.explanation import Explanation, PodUse, Reason
from nodeagent.model.policy import Policy


class Told:
    """The account of one tick; `policy` and `before` are what it was decided with."""

    def __init__(self, tick: Tick, policy: Policy, before: Memory) -> None:
        self._tick = tick
        self._policy = policy
        self._before = before

    def capacity(self) -> Explanation:
        """Offer of the node and of each NUMA node with its confidence, then what Batch may use."""
        reasons = (*offer.reasons(self._ground), *batch.reasons(self._ground))
        return self._explained("what is offered to Batch, and what it may use", reasons)

    def pod(self, uid: str) -> Explanation:
        """Every value that concerns the pod: its tier's, its own, its containers'; KeyError without it."""
        spec = next((p.spec for p in self._tick.snapshot.pods if p.spec.uid == uid), None)
        if spec is None:
            raise KeyError(uid)
        subject = f"{spec.name} ({spec.qos.value}, cgroup {spec.cgroup})"
        return self._explained(subject, tuple(pod.reasons(self._ground, spec)))

    def uses(self) -> dict[str, PodUse]:
        """What each pod used, by uid."""
        return {
            p.pod.spec.uid: PodUse(p.cores, p.pod.reading.working_set_bytes, p.stall_ratio, p.throttled_ratio)
            for p in self._thought.sight.view.pods
        }

    @cached_property
    def _thought(self) -> Thought:
        return think(self._tick.snapshot, self._policy, self._before)

    @cached_property
    def _ground(self) -> Ground:
        return Ground(self._tick, self._policy, self._before, self._thought)

    def _explained(self, subject: str, reasons: tuple[Reason, ...]) -> Explanation:
        seen = self._tick.snapshot
        return Explanation(seen.seq, seen.unix, subject, reasons)
