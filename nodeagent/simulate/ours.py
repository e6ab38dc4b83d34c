"""nodeagent itself as the lender: `decide` over what the modelled node shows, and its plan written there."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from nodeagent.core.decide import decide
from nodeagent.model.decision import Memory
from nodeagent.model.pod import OWN_ROOT
from nodeagent.model.policy import Policy
from nodeagent.simulate.fluid import Share, Terms
from nodeagent.simulate.node import ModelNode

SCOPE = (f"{OWN_ROOT}/**",)  # the modelled node has no other cgroups


class Ours:
    """The agent with `policy` on a node of so many cores and bytes, with these online pods."""

    def __init__(self, policy: Policy, cores: int, memory_bytes: int, pods: Sequence[str]) -> None:
        self._policy = replace(policy, scope=SCOPE)
        self._shape = (cores, memory_bytes, tuple(pods))
        self._memory = Memory()

    def start(self, at: float) -> Terms:
        """The first tick: it knows counters, and no rate yet."""
        self._node = ModelNode(*self._shape, at)
        return self._tick()

    def after(self, share: Share) -> Terms:
        """One tick after each step."""
        self._node.spend(share)
        return self._tick()

    def _tick(self) -> Terms:
        decision, self._memory = decide(self._node.read(), self._policy, self._memory)
        self._node.obey(decision)
        offered = decision.capacity.cpu.available
        return Terms(self._node.limit_cores, offered, self._node.batch_weight)
