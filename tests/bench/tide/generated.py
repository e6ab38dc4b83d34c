"""SYNTHETIC: a tide of online CPU use with autocorrelated noise and flash crowds; nothing of it is measured.

Same parameters and seed, same trace.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from random import Random

from nodeagent.simulate.trace import Series, Trace, traced

DAY_S = 86_400.0


@dataclass(frozen=True)
class Tide:
    """All ratios are of the node's `cores`; a value each `every_s`.

    low, high       use in the trough and at the peak of the tide, whose peak is at `peak_h` o'clock
    noise           standard deviation of what is added, with a correlation time of `noise_s`
                    (Ornstein-Uhlenbeck)
    crowds          flash crowds a day (Poisson): use rises by up to `crowd` within `crowd_rise_s`, and falls
                    with a time constant of `crowd_fall_s`
    """

    cores: int = 32
    hours: float = 24.0
    every_s: float = 1.0
    low: float = 0.15
    high: float = 0.55
    peak_h: float = 20.0
    noise: float = 0.03
    noise_s: float = 120.0
    crowds: float = 12.0
    crowd: float = 0.30
    crowd_rise_s: float = 3.0
    crowd_fall_s: float = 240.0
    seed: int = 7

    @property
    def note(self) -> str:
        """What every use of it must be labelled with."""
        told = ", ".join(f"{name} {value:g}" for name, value in asdict(self).items())
        return f"SYNTHETIC tide, nothing of it is measured: {told}"


def trace(tide: Tide) -> Trace:
    """The tide as a trace of one pod."""
    times = array("d", (n * tide.every_s for n in range(round(tide.hours * 3600 / tide.every_s))))
    cores = array("d", (tide.cores * max(0.0, level) for level in _levels(tide, len(times))))
    return traced("tide", [Series("online", times, cores)], None, [tide.note])


def rows(told: Trace) -> Iterator[str]:
    """The same in the format of `nodeagent simulate`."""
    yield from (f"# {note}" for note in told.notes)
    (series,) = told.pods
    yield f"seconds,{series.name}"
    for at, cores in zip(series.times, series.cores, strict=True):
        yield f"{at:.10g},{cores:.4f}"


def _levels(tide: Tide, count: int) -> Iterator[float]:
    """Share of the node that is wanted, value by value."""
    random = Random(tide.seed)
    keep = math.exp(-tide.every_s / tide.noise_s)
    spread = tide.noise * math.sqrt(1.0 - keep * keep)
    crowds = _crowds(tide, random)
    noise = random.gauss(0.0, tide.noise)
    for n in range(count):
        at = n * tide.every_s
        noise = keep * noise + random.gauss(0.0, spread)
        yield _swell(tide, at) + noise + sum(_surge(tide, at - since, size) for since, size in crowds)


def _swell(tide: Tide, at: float) -> float:
    phase = 2.0 * math.pi * (at - tide.peak_h * 3600) / DAY_S
    return tide.low + (tide.high - tide.low) * (0.5 + 0.5 * math.cos(phase))


def _surge(tide: Tide, age_s: float, size: float) -> float:
    if age_s < 0.0 or age_s > 10 * tide.crowd_fall_s:
        return 0.0
    if age_s < tide.crowd_rise_s:
        return size * age_s / tide.crowd_rise_s
    return size * math.exp(-(age_s - tide.crowd_rise_s) / tide.crowd_fall_s)


def _crowds(tide: Tide, random: Random) -> list[tuple[float, float]]:
    """When each begins (s), and how large it is."""
    found, at = [], 0.0
    while tide.crowds > 0.0:
        at += random.expovariate(tide.crowds / DAY_S)
        if at >= tide.hours * 3600:
            break
        found.append((at, tide.crowd * random.uniform(0.3, 1.0)))
    return found
