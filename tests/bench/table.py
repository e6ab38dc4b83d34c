"""Figures and how they are shown; measuring variants of one work in turns, so that noise hits all alike."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One row: what was measured, in its unit; `most` and `least` are its targets, if any."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None

    @property
    def held(self) -> bool:
        return (self.most is None or self.value <= self.most) and (
            self.least is None or self.value >= self.least
        )

    @property
    def target(self) -> str:
        """The targets in words, "" without any."""
        limits = (("<=", self.most), (">=", self.least))
        return ", ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)


def show(title: str, figures: list[Figure]) -> bool:
    """Print the table; True when all targets were held."""
    print(f"\n{title}")
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        target = f"   target {figure.target}" if figure.target else ""
        verdict = "" if not figure.target else ("   ok" if figure.held else "   MISSED")
        print(f"  {figure.name:<{width}}  {figure.value:10.3f} {figure.unit:<10}{target}{verdict}")
    return all(figure.held for figure in figures)


def in_turns(
    variants: Mapping[str, Callable[[], float]], rounds: int, pause_s: float = 0.0
) -> dict[str, list[float]]:
    """Run every variant once a round, in random order, after a pause; the cost that each call returned."""
    costs: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            time.sleep(pause_s)
            costs[name].append(variants[name]())
    return costs


def cpu_s(work: Callable[[], object]) -> float:
    """CPU seconds (user and system, all threads) that `work` takes in this process."""
    begin = time.process_time()
    work()
    return time.process_time() - begin
