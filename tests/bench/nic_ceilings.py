"""How exactly a Batch ceiling is kept: bytes that its class sends / what was set; four flows, no wire."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from tests.bench.nic_ends import SWALLOW
from tests.bench.table import Figure, show
from tests.live.nic_agent import BATCH, Meter, configured, shaping, until_classified, until_open
from tests.live.nic_lab import Lab, lab
from tests.live.nic_loads import Place, load

CEILINGS_BPS = (10e6, 100e6, 500e6, 1e9, 2.5e9)
SETTLE_S = 1.5  # the buckets of an idle tree are full


def main(rounds: int, measured_s: float) -> bool:
    """Print the table; True when all targets were held."""
    ratios: dict[float, list[float]] = {ceiling: [] for ceiling in CEILINGS_BPS}
    with (
        tempfile.TemporaryDirectory(prefix="na-bench-") as home,
        lab(0) as made,
        load(Place(made.peer), "sink", SWALLOW),
    ):
        for _ in range(rounds):
            for ceiling in CEILINGS_BPS:
                ratios[ceiling].append(_kept(made, Path(home), ceiling, measured_s))
    figures = [
        Figure(f"{ceiling / 1e6:.0f} Mbit/s", statistics.median(ratios[ceiling]), "", 1.005, 0.97)
        for ceiling in CEILINGS_BPS
    ]
    return show("Batch ceilings: sent / set, bytes on the wire, four flows of a host process", figures)


def _kept(made: Lab, home: Path, ceiling_bps: float, seconds: float) -> float:
    """A link of twice the ceiling, of which Batch may take half."""
    rule = {"match": "nic0", "link_bps": int(2 * ceiling_bps), "batch_ceiling_ratio": 0.5}
    batch = Place(made.host, "batch", "batch", home / "exec")
    with (
        shaping(made, home, configured(home, rule, usable_ratio=1.0)),
        load(batch, "send", made.service().v4, SWALLOW, 4, 0),
    ):
        until_classified(made, BATCH)
        until_open(made, ceiling_bps)
        time.sleep(SETTLE_S)
        meter = Meter(made)
        time.sleep(seconds)
        return meter.bps(BATCH) / ceiling_bps
