"""Both ends of an LS service and a place for Batch, in a lab; what they get."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.live.nic_lab import GIGABIT, Lab, Way, lab
from tests.live.nic_loads import Load, Place, load, mbit_per_s

ASK, SWALLOW = 7000, 7100
SETTLE_S = 0.5
TOP_BPS = 0.95 * GIGABIT  # [nic] usable_ratio
GOODPUT = {4: 1448 / 1514, 6: 1428 / 1514}  # of the wire's bytes, for TCP with timestamps
HOST = "host process"


class Seen(NamedTuple):
    """One measurement; rates are of what arrives. `late_ratio`: the client itself was, and it is left out."""

    p50_ms: float
    p99_ms: float
    batch_mbit_per_s: float
    failed: float
    late_ratio: float


class Ends(NamedTuple):
    """The programs of one kind of pod in one family that live through all cases."""

    made: Lab
    family: int
    asking: Load
    swallowing: Load
    batch: Place
    address: str  # of Batch
    home: Path


@contextlib.contextmanager
def ends(
    way: str, family: int, home: Path, *, nics: int = 1, per_s: float = 500, answer_bytes: int = 8000
) -> Iterator[Ends]:
    """A lab with an LS server, asked `per_s` times a second for `answer_bytes`, and a place for Batch."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(lab(nics=nics, bridged=way == Way.BRIDGED))
        run_dir = home / "exec"
        if way == HOST:
            server = Place(made.host, "ls", "ls", run_dir)
            batch, addresses = Place(made.host, "batch", "batch", run_dir), [made.host_address()] * 2
        else:
            pods = made.pod(Way(way)), made.pod(Way(way))
            server, addresses = Place(pods[0].namespace, "ls", "ls", run_dir), [pod.address for pod in pods]
            batch = Place(pods[1].namespace, "batch", "batch", run_dir)
        stack.enter_context(load(server, "serve", ASK))
        asking = stack.enter_context(
            load(Place(made.peer), "ask", addresses[0].of(family), ASK, per_s, answer_bytes)
        )
        swallowing = stack.enter_context(load(Place(made.peer), "sink", SWALLOW))
        yield Ends(made, family, asking, swallowing, batch, addresses[1].of(family), home)


def greedy(both: Ends) -> contextlib.AbstractContextManager[Load]:
    """Four flows of Batch to the peer."""
    return load(both.batch, "send", both.made.service().of(both.family), SWALLOW, 4, 0)


def measured(both: Ends, seconds: float) -> Seen:
    """What LS and Batch get from now on."""
    time.sleep(SETTLE_S)
    both.asking.tell()
    before = both.swallowing.tell()
    time.sleep(seconds)
    requests, after = both.asking.tell(), both.swallowing.tell()
    return Seen(
        requests["p50_ms"],
        requests["p99_ms"],
        mbit_per_s(before, after),
        requests["lost"],
        requests["late"] / max(1.0, requests["late"] + requests["answers"]),
    )
