"""What the agent costs as a whole, and others for reading the same pods: 30, 100, 250 and 1000 of them.

    python -m tests.bench cost [--quick] [--json] [--pods 30,250] [--rounds 12] [--seconds 20] [--active 0.1]

At each size real pods are made, one process in each; a tenth of them works. The agent runs on them as a whole
(1 s ticks, journal, a gRPC watcher, scrapes), without and with its fast lane. Then all who read the pods take
turns: each once a second, in random order, asked from outside for the CPU time of that tick, user and system,
of all threads. Files that are read by path are those that the agent's full reading keeps open.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct, to_builtins

from tests.bench.cost import drivers
from tests.bench.cost.agents import Whole, lanes, measured
from tests.bench.own_pods import own_pods
from tests.bench.table import Figure, show

SIZES = (30, 100, 250, 1000)
SHOWN = 250  # pods for which the targets are
WARM_ROUNDS = 2
PACE_S = 1.0


class Costs(Struct, frozen=True):
    """Of one size: each agent as a whole, and CPU seconds of a tick and MiB by reader."""

    agents: dict[str, Whole]
    tick_s: dict[str, float]
    resident_mib: dict[str, float]

    def per_pod_us(self, name: str, pods: int) -> float | None:
        """CPU us per pod and second, at a tick a second."""
        if name in self.agents:
            return self.agents[name].cpu_ratio / pods * 1e6
        return self.tick_s[name] / pods * 1e6 if name in self.tick_s else None


def main(words: Sequence[str] = ()) -> bool:
    """Measure and print; True when all targets were held."""
    asked = _asked(words)
    missing: dict[str, str] = {}
    costs = {pods: _size(pods, asked, missing) for pods in asked.pods}
    if asked.json:
        told = {str(pods): to_builtins(cost) for pods, cost in costs.items()}
        print(json.dumps({"sizes": told, "slopes_us": _slopes(costs), "missing": missing}, indent=1))
        return all(figure.held for figure in _figures(costs))
    _show_agents(costs)
    _show_per_pod(costs)
    for name, why in sorted(missing.items()):
        print(f"  not measured: {name}: {why}")
    return show("What was to be reached", _figures(costs))


def _asked(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests.bench cost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="30 and 250 pods, for a short while: a look, no figure"
    )
    parser.add_argument("--json", action="store_true", help="all figures for programs")
    parser.add_argument("--pods", type=_numbers, help="sizes, such as 30,250")
    parser.add_argument("--rounds", type=int, help="ticks of each reader (12)")
    parser.add_argument("--seconds", type=float, help="how long each agent is measured (20)")
    parser.add_argument("--active", type=float, default=0.1, help="share of the pods that work (0.1)")
    asked = parser.parse_args(list(words))
    asked.pods = asked.pods or ((30, 250) if asked.quick else SIZES)
    asked.rounds = asked.rounds or (4 if asked.quick else 12)
    asked.seconds = asked.seconds or (6.0 if asked.quick else 20.0)
    return asked


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(word) for word in text.split(",")}))


def _size(pods: int, asked: argparse.Namespace, missing: dict[str, str]) -> Costs:
    """Agents first: what the readers leave in the kernel's caches is nothing to them."""
    with (
        own_pods(pods, asked.active) as members,
        tempfile.TemporaryDirectory(prefix="na-bench-") as directory,
    ):
        agents: dict[str, Whole] = {}
        for name, settings in lanes().items():
            _say(f"{pods} pods: the agent, {name}")
            home = Path(directory, str(len(agents)))
            home.mkdir()
            agents[f"the agent, {name}"] = measured(home, asked.seconds, settings)
        _say(f"{pods} pods: {asked.rounds} rounds of all who read")
        with drivers.readers(members, missing) as ready:
            tick_s = _in_turns(ready, asked.rounds)
            resident = {name: reader.resident_mib() for name, reader in ready.items()}
    return Costs(agents, {name: statistics.median(each) for name, each in tick_s.items()}, resident)


def _in_turns(ready: dict[str, drivers.Reader], rounds: int) -> dict[str, list[float]]:
    """Everybody once a round, spread over at least PACE_S: nobody finds what the last one has warmed."""
    costs: dict[str, list[float]] = {name: [] for name in ready}
    for number in range(WARM_ROUNDS + rounds):
        for name in random.sample(sorted(ready), len(ready)):
            until = time.monotonic() + PACE_S / len(ready)
            used_s = ready[name].tick()
            if number >= WARM_ROUNDS:
                costs[name].append(used_s)
            time.sleep(max(0.0, until - time.monotonic()))
    return costs


def _show_agents(costs: dict[int, Costs]) -> None:
    print("\nThe agent as a whole: 1 s ticks, journal, gRPC watcher, scrapes")
    head = ("pods", "% of a core", "ticks/s", "ms/tick", "RSS MiB", "kernel MiB")
    cells = zip(head, (6, 13, 9, 9, 9, 12), strict=True)
    print(f"  {'':<34}" + "".join(f"{text:>{width}}" for text, width in cells))
    for pods, cost in costs.items():
        for name, whole in cost.agents.items():
            kernel = "-" if whole.kernel_mib is None else f"{whole.kernel_mib:.1f}"
            print(
                f"  {name:<34}{pods:>6}{whole.cpu_ratio * 100:>13.2f}{whole.ticks / whole.seconds:>9.2f}"
                f"{whole.tick_ms:>9.2f}{whole.resident_mib:>9.1f}{kernel:>12}"
            )


def _show_per_pod(costs: dict[int, Costs]) -> None:
    """One row for each, against the slope of the floor."""
    slopes = _slopes(costs)
    floor_us = slopes.get(drivers.FLOOR) or 0.0
    most = max(costs)
    print("\nCPU time, us per pod and second, at a tick a second; slope: what each more pod adds")
    sizes = "".join(f"{f'{pods} pods':>11}" for pods in costs)
    print(f"  {'':<44}{sizes}{'slope':>9}{'x floor':>9}{'RSS MiB':>9}")
    for name, slope_us in slopes.items():
        each = (cost.per_pod_us(name, pods) for pods, cost in costs.items())
        cells = "".join("          -" if us is None else f"{us:>11.1f}" for us in each)
        resident = costs[most].resident_mib.get(name) or (
            costs[most].agents[name].resident_mib if name in costs[most].agents else 0.0
        )
        ratio = f"{slope_us / floor_us:>9.2f}" if floor_us else f"{'-':>9}"
        print(f"  {name:<44}{cells}{slope_us:>9.1f}{ratio}" + (f"{resident:>9.1f}" if resident else ""))


def _slopes(costs: dict[int, Costs]) -> dict[str, float]:
    """us per second that each more pod adds: the least squares line; with one size, all of it per pod."""
    names = dict.fromkeys(name for cost in costs.values() for name in (*cost.agents, *cost.tick_s))
    slopes = {}
    for name in names:
        told = {pods: cost.per_pod_us(name, pods) for pods, cost in costs.items()}
        points = [(float(pods), us * pods) for pods, us in told.items() if us is not None]
        if len(points) > 1:
            slopes[name] = statistics.linear_regression(*zip(*points, strict=True)).slope
        else:
            slopes[name] = points[0][1] / points[0][0]
    return slopes


def _figures(costs: dict[int, Costs]) -> list[Figure]:
    """The targets, as far as their sizes were measured."""
    at = SHOWN if SHOWN in costs else max(costs)
    cost, found = costs[at], []
    tick_s = cost.tick_s
    for what, by, most in (
        (drivers.FULL, drivers.FLOOR, 1.6),
        (drivers.FULL, drivers.GO, None),
        (drivers.SYMPTOMS, drivers.FLOOR, 1.2),
        (drivers.TIERED, drivers.FLOOR_HOT, None),
        (drivers.SYMPTOMS, drivers.GO, 1 / 6),
        (drivers.SYMPTOMS, drivers.C, 1 / 6),
        (drivers.SYMPTOMS, drivers.TIERED, None),
    ):
        if what in tick_s and by in tick_s:
            found.append(Figure(f"{at} pods: {what} / {by}", tick_s[what] / tick_s[by], "x", most))
    for name, whole in cost.agents.items():
        lane = "with the" in name
        found.append(Figure(f"{at} pods: {name}: CPU", whole.cpu_ratio * 100, "%", None if lane else 1.0))
        found.append(Figure(f"{at} pods: {name}: resident memory", whole.resident_mib, "MiB", 64.0))
    if max(costs) >= 10 * 100 and 100 in costs:
        for name in cost.agents:
            few, many = costs[100].per_pod_us(name, 100), costs[max(costs)].per_pod_us(name, max(costs))
            if few and many:
                found.append(Figure(f"{name}: per pod, {max(costs)} / 100 pods", many / few, "x", 1.3))
    return found


def _say(text: str) -> None:
    print(f"cost: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)
