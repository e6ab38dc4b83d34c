"""What each sign means: the resource that it tells of, its smallest spread, and what makes a difference.

Signs without a rule raise no alarm of their own: steal and throttling explain those of others, and who
fills a cache or the memory's bandwidth is a suspect's matter.
"""

from __future__ import annotations

from typing import NamedTuple

from nodeagent.model.policy import Policy
from nodeagent.model.symptom import Channel, Sign


class Rule(NamedTuple):
    """`floor` is the least spread, in the sign's unit. Of practical effect is what rises by at least `rise`
    and to at least `ratio` times its median. `sparse`: measured so seldom that three bad samples are enough.
    """

    channel: Channel
    floor: float
    rise: float
    ratio: float = 1.0
    sparse: bool = False


RULES: dict[Sign, Rule] = {
    Sign.CPU_STALL: Rule(Channel.CPU, 0.02, 0.02),
    Sign.RUN_DELAY: Rule(Channel.CPU, 0.05, 0.10),
    Sign.MEMORY_STALL: Rule(Channel.MEMORY, 0.02, 0.02),
    Sign.REFAULTS: Rule(Channel.MEMORY, 20.0, 100.0),
    Sign.DIRECT_RECLAIM: Rule(Channel.MEMORY, 20.0, 100.0),
    Sign.IO_STALL: Rule(Channel.IO, 0.02, 0.02),
    Sign.IO_AWAIT: Rule(Channel.IO, 0.0005, 0.001, 1.5),
    Sign.SOFTIRQ: Rule(Channel.NET, 0.02, 0.05),
    Sign.RETRANSMITS: Rule(Channel.NET, 0.002, 0.01),
    Sign.LISTEN_DROPS: Rule(Channel.NET, 0.5, 1.0),
    Sign.CPI: Rule(Channel.LLC, 0.05, 0.0, 1.15, sparse=True),
    Sign.MPKI: Rule(Channel.LLC, 0.1, 0.0, 1.15, sparse=True),
    Sign.CPU_PER_REQUEST: Rule(Channel.LLC, 1e-6, 0.0, 1.15),
    Sign.LATENCY: Rule(Channel.APP, 0.0002, 0.0, 1.15),
}

WEIGHTS: dict[Channel, float] = {
    Channel.CPU: 0.8,
    Channel.LLC: 0.8,
    Channel.MEMORY: 0.7,
    Channel.IO: 0.7,
    Channel.NET: 0.6,
    Channel.APP: 0.9,
}

RUN_DELAY_LIMIT = 1.0  # it waits for as long as it runs
MEMORY_FULL_LIMIT = 0.10  # of wall time in which nothing of the pod gets on for lack of memory


def limits(policy: Policy, slo_s: float | None) -> dict[Sign, float]:
    """Values that are bad whatever is usual; all that counts while nothing is known to be usual.

    Memory has its limit on PSI "full", which comes with MEMORY_STALL.
    """
    found = {Sign.CPU_STALL: policy.pressure.ls_cpu_stall_ratio, Sign.RUN_DELAY: RUN_DELAY_LIMIT}
    if slo_s is not None:
        found[Sign.LATENCY] = slo_s
    return found
