"""LS requests while a Batch pod downloads with eight flows: alone, unshaped, with ingress shaping."""

from __future__ import annotations

import contextlib
import random
import statistics
import subprocess
import tempfile
from pathlib import Path

from tests.bench.nic_ends import SETTLE_S, SWALLOW, TOP_BPS, Ends, Seen, ends, measured
from tests.bench.table import Figure, show
from tests.live.nic_agent import ONLINE, configured, shaping, until_open
from tests.live.nic_lab import Lab, Way
from tests.live.nic_loads import Place, load
from tests.live.running import until

CASES = ("alone", "unshaped", "shaped")
RATIO = 0.8


def main(rounds: int, measured_s: float) -> bool:
    """Print the tables; True when all targets were held."""
    held = []
    for family in (4, 6):
        with tempfile.TemporaryDirectory(prefix="na-bench-") as home:
            with ends(Way.ROUTED, family, Path(home)) as both:
                seen: dict[str, list[Seen]] = {case: [] for case in CASES}
                for _ in range(rounds):
                    for case in random.sample(CASES, len(CASES)):
                        seen[case].append(_case(case, both, measured_s))
            held.append(_table(family, seen))
    return all(held)


def _case(case: str, both: Ends, measured_s: float) -> Seen:
    """As in the other direction, with the sink of Batch in its pod and the senders on the peer."""
    with contextlib.ExitStack() as stack:
        if case == "shaped":
            config = configured(both.home, {**ONLINE, "ingress_ratio": RATIO})
            stack.enter_context(shaping(both.made, both.home, config))
        if case == "alone":
            return measured(both, measured_s)
        swallowing = stack.enter_context(load(both.batch, "sink", SWALLOW + 1))
        peer = Place(both.made.peer)
        stack.enter_context(load(peer, "send", both.address, SWALLOW + 1, 8, 0))
        until(lambda: swallowing.tell()["bytes"] > 0, "something arrives", SETTLE_S * 20)
        if case == "shaped":  # the ceiling begins pressed
            until_open(both.made, RATIO * TOP_BPS, _ifb(both.made))
        return measured(both._replace(swallowing=swallowing), measured_s)


def _ifb(made: Lab) -> str:
    """Where the incoming traffic of the host's NIC is shaped."""
    words = ["ip", "-n", made.host, "-br", "link", "show", "type", "ifb"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[0]


def _table(family: int, seen: dict[str, list[Seen]]) -> bool:
    p50_ms = {case: statistics.median(one.p50_ms for one in seen[case]) for case in CASES}
    p99_ms = {case: statistics.median(one.p99_ms for one in seen[case]) for case in CASES}
    rates = {case: statistics.median(one.batch_mbit_per_s for one in seen[case]) for case in CASES[1:]}
    figures = [
        *(Figure(f"{case}: LS p50", p50_ms[case], "ms") for case in CASES),
        *(Figure(f"{case}: LS p99", p99_ms[case], "ms") for case in CASES),
        *(Figure(f"LS p50 {case} / alone", p50_ms[case] / p50_ms["alone"], "x") for case in CASES[1:]),
        *(Figure(f"LS p99 {case} / alone", p99_ms[case] / p99_ms["alone"], "x") for case in CASES[1:]),
        *(Figure(f"Batch receives, {case}", rates[case], "Mbit/s") for case in CASES[1:]),
        Figure("LS p99 shaped / unshaped", p99_ms["shaped"] / p99_ms["unshaped"], "x", 1.0),
    ]
    return show(f"Incoming: LS beside 8 greedy flows to a routed Batch pod, IPv{family}", figures)
