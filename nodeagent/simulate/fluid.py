"""How the CPUs of a node are shared where online work and Batch meet: a fluid, weighted max-min fair model.

Demands are cores over a whole step. What the kernel's scheduler does within it (wake-up latency, caches,
hyper-threads) is not modelled; what is left is who gets how much, and that somebody waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from nodeagent.core.fair import max_min

IDLE_WEIGHT = 0.003  # SCHED_IDLE beside the default weight: 3 of 1024 (WEIGHT_IDLEPRIO, kernel/sched/sched.h)


class Terms(NamedTuple):
    """What holds in a step: Batch as a whole may use `limit_cores` (inf: not limited yet, and no Batch work
    has come) at `batch_weight` (1.0 = the kernel's default), and `offered_cores` are promised to it."""

    limit_cores: float
    offered_cores: float
    batch_weight: float = IDLE_WEIGHT


class Share(NamedTuple):
    """What one step came to, `span_s` long until `at`: cores that each online pod wanted and got, and that
    Batch got. None = not known; where one pod's demand is not known, Batch's part is not known either."""

    at: float
    span_s: float
    wanted: tuple[float | None, ...]
    online: tuple[float | None, ...]
    batch: float | None


class Lender(Protocol):
    """Who says, after each step, on what terms Batch goes on."""

    def start(self, at: float) -> Terms:
        """The terms of the first step, which begins at `at` seconds."""

    def after(self, share: Share) -> Terms:
        """The terms of the next step; nothing of what is not known may be guessed."""


def kernel_weight(weight: float) -> float:
    """The weight that CPUs are shared by: an idle group (0.0) has a small one."""
    return weight or IDLE_WEIGHT


def waited(demand: float, got: float) -> float:
    """Share of wall time in which some of the demand waits: PSI cpu "some" of work that is spread evenly."""
    return min(1.0, max(0.0, demand - got))


def shared(cores: float, at: float, span_s: float, wanted: Sequence[float | None], terms: Terms) -> Share:
    """One step on `cores` CPUs. There is always Batch work, and it takes all that it can get."""
    known = [w for w in wanted if w is not None]
    if len(known) < len(wanted):
        return Share(at, span_s, tuple(wanted), tuple(wanted), None)
    most = terms.limit_cores if math.isfinite(terms.limit_cores) else 0.0
    weights = [1.0] * len(known) + [kernel_weight(terms.batch_weight)]
    *online, offline = max_min(cores, weights, [*known, most])
    return Share(at, span_s, tuple(known), tuple(online), offline)
