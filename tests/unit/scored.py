"""SYNTHETIC windows and nodes for tests of attribution: who did it is known, because it was made so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from nodeagent.core import rates
from nodeagent.core.interference.frame import Frame, Samples, beside, framed
from nodeagent.core.interference.history import remember
from nodeagent.core.interference.measures import measured
from nodeagent.core.interference.neighbours import Neighbour
from nodeagent.core.interference.suspects import rank, suspected
from nodeagent.core.rates import View
from nodeagent.model.history import History
from nodeagent.model.interference import Alarm, State, Suspect, Verdict
from nodeagent.model.policy import Policy
from nodeagent.model.snapshot import Snapshot
from nodeagent.model.symptom import Channel, Sign
from tests.synthetic import Actor, Synthetic, path

POLICY = Policy()
Row = Sequence[float]


def frame(felt: Row, *uses: Row, usual: float = 1.0, spread: float = 0.0) -> Frame:
    """A frame of one sample a second, for the CPU channel."""
    samples = Samples(tuple((n, n + 1) for n in range(len(felt))), tuple(felt), 1.0)
    found = framed(samples, usual, spread, Channel.CPU)
    assert found is not None, "the victim is not worse than usual"
    return beside(found, uses, ("cores",) * len(uses), range(len(uses)))


def judged(felt: Row, *uses: Row, usual: float = 1.0, spread: float = 0.0) -> tuple[Suspect, ...]:
    """The ranking of neighbours "0", "1", ... by their uses."""
    who = [Neighbour(str(n), str(n), str(n), online=False) for n in range(len(uses))]
    return suspected(who, frame(felt, *uses, usual=usual, spread=spread), POLICY.interference)


def named(suspects: Sequence[Suspect]) -> list[str]:
    return [each.name for each in suspects if each.named]


class Watched:
    """A SYNTHETIC node whose history is remembered second by second, as the agent does it."""

    def __init__(self, node: Synthetic, cpus_of: Mapping[str, frozenset[int]] | None = None) -> None:
        self.node, self.history = node, History()
        self.cpus_of: Mapping[str, frozenset[int]] = cpus_of or {}
        self.previous: Snapshot | None = None
        self.view: View | None = None

    def run(self, seconds: int) -> Watched:
        for _ in range(seconds):
            seen = self.node.second()
            self.view = rates.view(seen, self.previous)
            told = measured(self.view, self.cpus_of)
            self.history = remember(self.history, self.view, told, POLICY)
            self.previous = seen
        return self

    def suspects(
        self,
        victim: Actor,
        sign: Sign = Sign.CPU_STALL,
        channel: Channel = Channel.CPU,
        baseline: float | None = 0.01,
    ) -> tuple[Suspect, ...]:
        """The ranking if the victim's sign alarms now."""
        assert self.view is not None
        alarm = Alarm(sign, channel, 0.0, baseline, 0.0, 8.0)
        verdict = Verdict(path(victim), State.CONFIRMED, 1.0, channel, (alarm,))
        return rank(self.history, verdict, self.view, self.cpus_of, POLICY)


def bursts(random: Random, samples: int, on: float, off: float, cores: float) -> list[float]:
    """On and off for exponential times of these means."""
    row, busy = [], random.random() < on / (on + off)
    left = random.expovariate(1.0 / (on if busy else off))
    for _ in range(samples):
        row.append(cores * random.lognormvariate(-0.02, 0.2) if busy else 0.0)
        left -= 1.0
        if left <= 0.0:
            busy = not busy
            left = random.expovariate(1.0 / (on if busy else off))
    return row


def crowd(random: Random, samples: int, size: int) -> list[list[float]]:
    """Neighbours that have nothing to do with it: steady, in bursts, and some come lately, of all sizes."""
    rows = []
    for _ in range(size):
        kind, cores = random.random(), random.choice([0.1, 0.3, 1.0, 2.0, 4.0])
        if kind < 0.3:
            rows.append([cores * random.lognormvariate(-0.02, 0.2) for _ in range(samples)])
        elif kind < 0.75:
            rows.append(
                bursts(random, samples, random.choice([3, 10, 20]), random.choice([10, 30, 60]), cores)
            )
        else:
            since = random.randrange(samples)
            level = [cores * random.lognormvariate(-0.02, 0.2) for _ in range(samples)]
            rows.append([0.0 if n < since else use for n, use in enumerate(level)])
    return rows


def slowed(random: Random, culprits: Sequence[Row], slowdown: float, cores: float) -> list[float]:
    """What a victim feels: 1.0, times `slowdown` where culprits use `cores`, with 9 % of noise."""
    at_work = (min(1.2, sum(uses) / cores) for uses in zip(*culprits, strict=True))
    return [(1.0 + (slowdown - 1.0) * use) * random.lognormvariate(-0.004, 0.09) for use in at_work]
