"""Which victims are disturbed by what, when: drawn from a seed, so that a run can be had again.

Gaps between two disturbances are 6 to 30 s, lengths 5 to 60 s (of any order of magnitude alike).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

VICTIM_CPU, OTHER_CPU = 1, 0
GAP_S, LENGTH_S = (6.0, 30.0), (5.0, 60.0)
STEP_RATIO = 2.5  # of a victim's own load, in a negative
TIDE_RATIO, TIDE_S = 0.5, 120.0  # how far the load of a tide swings, and how long a wave is
BATCH = ("sort", "index", "transcode")  # pods on the victims' CPU, each of which may become the culprit
APART = "render"  # a Batch pod on the other CPU, which it often takes whole


@dataclass(frozen=True)
class Kind:
    """A disturbance: words for stress-ng, and what it contends for ("" in a negative)."""

    stress: tuple[str, ...] = ()
    channel: str = "cpu"
    apart: bool = False  # on the other CPU
    only: tuple[str, ...] = ()  # the programs that share what it contends for; all of them without any


ATTACKS = {
    "cpu": Kind(("--cpu", "1", "--cpu-method", "matrixprod")),
    "cpu2": Kind(("--cpu", "2", "--cpu-method", "int64")),
    "cache": Kind(("--cache", "1")),
    "stream": Kind(("--stream", "1")),
    "vm": Kind(("--vm", "1", "--vm-bytes", "256m", "--vm-keep")),
    "fork": Kind(("--fork", "2")),
    "switch": Kind(("--switch", "2")),
    "iperf3": Kind(),
    "iomix": Kind(("--iomix", "2", "--iomix-bytes", "64m"), "io", apart=True, only=("redis-write",)),
    "cache-apart": Kind(("--cache", "1"), "llc", apart=True),
    "stream-apart": Kind(("--stream", "1"), "llc", apart=True),
}
NEGATIVES = {
    "load": Kind(channel=""),
    "quota": Kind(channel=""),
    "restart": Kind(channel=""),
    "other": Kind(("--cpu", "1", "--cpu-method", "matrixprod"), "", apart=True),
}


@dataclass(frozen=True)
class Scenario:
    """One run: `warm_s` of calm for the baselines, then disturbances until `seconds`."""

    name: str
    victims: tuple[str, ...]
    kinds: tuple[str, ...]
    seconds: float = 280.0
    warm_s: float = 65.0
    told: bool = False
    tide: bool = False
    fixed: tuple[tuple[float, float], ...] = ()  # (begin, length) of each kind, instead of what is drawn


@dataclass(frozen=True)
class Planned:
    """A disturbance, in seconds since the begin; `who` is the culprit or, of a negative, the victim."""

    kind: str
    begin: float
    length: float
    who: str


# the first one is what the others know of the workloads: the agent's checkpoint goes from run to run
SCENARIOS = (
    Scenario("clean", ("redis", "nginx", "python", "redis-write"), (), 300.0, tide=True),
    Scenario("cpu", ("redis", "nginx", "python"), ("cpu", "fork", "cache", "cpu2")),
    Scenario("memory", ("redis", "nginx", "python"), ("vm", "stream", "cache", "switch")),
    Scenario("net", ("redis", "nginx", "python"), ("iperf3", "cpu", "switch", "fork")),
    Scenario("io", ("redis-write", "nginx"), ("iomix", "iomix", "cpu")),
    Scenario("told", ("redis", "nginx"), ("stream-apart", "cpu", "cache-apart", "stream"), told=True),
    Scenario("negatives", ("redis", "nginx", "python"), ("load", "quota", "restart", "other", "cpu")),
)
QUICK = (
    Scenario(
        "quick",
        ("redis", "nginx"),
        ("cpu", "load", "fork"),
        165.0,
        fixed=((102.0, 15.0), (125.0, 10.0), (143.0, 15.0)),
    ),
)
# the same twice: with an agent that observes, and with one that may act
CONTROL = Scenario(
    "control",
    ("redis", "nginx"),
    ("cpu", "cpu2", "fork", "stream"),
    225.0,
    fixed=((75.0, 25.0), (112.0, 25.0), (149.0, 25.0), (186.0, 25.0)),
)


def planned(scenario: Scenario, seed: int) -> tuple[Planned, ...]:
    """The disturbances of a run, in order; kinds take turns, each round in another order."""
    luck = random.Random(f"{seed} {scenario.name}")
    if scenario.fixed:
        whole = zip(scenario.kinds, scenario.fixed, strict=True)
        return tuple(Planned(kind, *when, _who(kind, scenario, luck)) for kind, when in whole)
    made: list[Planned] = []
    at = scenario.warm_s
    for kind in _turns(scenario.kinds, luck):
        at += luck.uniform(*GAP_S)
        length = math.exp(luck.uniform(*map(math.log, LENGTH_S)))
        if at + length > scenario.seconds - GAP_S[0]:
            break
        made.append(Planned(kind, at, length, _who(kind, scenario, luck)))
        at += length
    return tuple(made)


def rates(
    per_s: float, scenario: Scenario, victim: str, plan: Sequence[Planned]
) -> list[tuple[float, float]]:
    """A victim's load as (seconds, requests/s), each from its second on; the last one is 0."""
    steps = [(0.0, per_s)]
    if scenario.tide:
        waves = range(0, int(scenario.seconds), 5)
        steps = [(float(at), per_s * (1 + TIDE_RATIO * math.sin(math.tau * at / TIDE_S))) for at in waves]
    for each in plan:
        if each.kind == "load" and each.who == victim:
            steps += [(each.begin, per_s * STEP_RATIO), (each.begin + each.length, per_s)]
    return [*sorted(steps), (scenario.seconds, 0.0)]


def _turns(kinds: Sequence[str], luck: random.Random) -> Iterator[str]:
    while kinds:
        yield from luck.sample(kinds, len(kinds))


def _who(kind: str, scenario: Scenario, luck: random.Random) -> str:
    if kind in NEGATIVES and kind != "other":
        return luck.choice(scenario.victims)
    return APART if (ATTACKS | NEGATIVES)[kind].apart else luck.choice(BATCH)
