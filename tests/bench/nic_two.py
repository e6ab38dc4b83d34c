"""Two NICs: LS on nic0, MID training on nic1, greedy Batch on both; unshaped and shaped in turns."""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench.nic_ends import SETTLE_S, SWALLOW, TOP_BPS, Ends, ends, greedy, measured
from tests.bench.table import Figure, show
from tests.live.nic_agent import (
    BATCH,
    BULK,
    MID,
    ONLINE,
    Meter,
    configured,
    shaping,
    until_classified,
    until_open,
)
from tests.live.nic_lab import Lab, Way
from tests.live.nic_loads import Load, Place, load, mbit_per_s

MID_RATIO = 0.80  # of a bulk NIC's top, guaranteed to MID
SHUFFLE, TRAIN = SWALLOW + 1, SWALLOW + 2
CASES = ("alone", "unshaped", "shaped")


class Got(NamedTuple):
    """One measurement; `guarantee_ratio` is what training sent of its guarantee, in bytes on the wire."""

    p99_ms: float
    batch_mbit_per_s: float
    training_mbit_per_s: float
    shuffle_mbit_per_s: float
    guarantee_ratio: float


class Bulk(NamedTuple):
    """The pods on nic1 and their sinks on the peer."""

    made: Lab
    senders: dict[int, Place]
    sinks: dict[int, Load]


def main(rounds: int, measured_s: float) -> bool:
    """Print the table; True when all targets were held."""
    seen: dict[str, list[Got]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="na-bench-") as directory:
        home = Path(directory)
        config = configured(home, ONLINE, {**BULK, "mid_ratio": MID_RATIO})
        with ends(Way.ROUTED, 4, home, nics=2) as online, _bulk(online.made, home) as bulk:
            for _ in range(rounds):
                for case in random.sample(CASES, len(CASES)):
                    with _case(case, online, bulk, config):
                        seen[case].append(_measured(case, online, bulk, measured_s))
    return _table(seen)


@contextlib.contextmanager
def _case(case: str, online: Ends, bulk: Bulk, config: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if case == "shaped":
            stack.enter_context(shaping(online.made, online.home, config))
        if case != "alone":
            stack.enter_context(greedy(online))
            stack.enter_context(_sending(bulk))
        if case == "shaped":
            for name, nic in ((BATCH, "nic0"), (BATCH, "nic1"), (MID, "nic1")):
                until_classified(online.made, name, nic)
            until_open(online.made, TOP_BPS)
        yield


def _measured(case: str, online: Ends, bulk: Bulk, seconds: float) -> Got:
    time.sleep(SETTLE_S)
    before = {port: sink.tell() for port, sink in bulk.sinks.items()}
    meter = Meter(online.made, "nic1")
    seen = measured(online, seconds)
    trained = meter.bps(MID) / (MID_RATIO * TOP_BPS) if case == "shaped" else 0.0
    rates = {port: mbit_per_s(before[port], sink.tell()) for port, sink in bulk.sinks.items()}
    return Got(seen.p99_ms, seen.batch_mbit_per_s, rates[TRAIN], rates[SHUFFLE], trained)


@contextlib.contextmanager
def _bulk(made: Lab, home: Path) -> Iterator[Bulk]:
    peer, run_dir = Place(made.peer), home / "exec"
    with load(peer, "sink", TRAIN) as trained, load(peer, "sink", SHUFFLE) as shuffled:
        senders = {
            TRAIN: Place(made.pod(nic=1).namespace, "mid", "training", run_dir),
            SHUFFLE: Place(made.pod(nic=1).namespace, "batch", "shuffle", run_dir),
        }
        yield Bulk(made, senders, {TRAIN: trained, SHUFFLE: shuffled})


@contextlib.contextmanager
def _sending(bulk: Bulk) -> Iterator[None]:
    """Training by four flows beside eight of a shuffle."""
    to = bulk.made.service(1).v4
    with (
        load(bulk.senders[TRAIN], "send", to, TRAIN, 4, 0),
        load(bulk.senders[SHUFFLE], "send", to, SHUFFLE, 8, 0),
    ):
        yield


def _table(seen: dict[str, list[Got]]) -> bool:
    got = {case: Got(*(statistics.median(part) for part in zip(*seen[case], strict=True))) for case in CASES}
    unshaped, shaped = got["unshaped"], got["shaped"]
    figures = [
        *(Figure(f"nic0: LS p99 {case}", got[case].p99_ms, "ms") for case in CASES),
        Figure("nic0: LS p99 unshaped / shaped", unshaped.p99_ms / shaped.p99_ms, "x", least=20.0),
        *(Figure(f"nic0: Batch {case}", got[case].batch_mbit_per_s, "Mbit/s") for case in CASES[1:]),
        *(Figure(f"nic1: training {case}", got[case].training_mbit_per_s, "Mbit/s") for case in CASES[1:]),
        *(Figure(f"nic1: shuffle {case}", got[case].shuffle_mbit_per_s, "Mbit/s") for case in CASES[1:]),
        Figure("nic1: training shaped / its guarantee", shaped.guarantee_ratio, "", least=0.95),
    ]
    return show(
        "Two NICs of 1 Gbit/s: LS and Batch on nic0, MID training and a Batch shuffle on nic1", figures
    )
