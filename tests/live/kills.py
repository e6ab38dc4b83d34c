"""What the loop does with knobs, in a process that is killed at random instants: nothing is lost by it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nodeagent.core.diff import diff
from nodeagent.kernel.knobs import Knobs
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.model.plan import Knob, Plan
from nodeagent.originals import Originals
from nodeagent.restore import give_back

Wild = Callable[[random.Random], Plan]  # random settings for some of the knobs; the others are given back


class Place(Protocol):
    """Cgroups of a test's own."""

    hierarchies: Hierarchies

    def texts(self) -> dict[str, str]:
        """Every knob file, as it is."""


def kill_and_restore(place: Place, state: Path, targets: tuple[Knob, ...], wild: Wild, kills: int) -> None:
    """Kill so many agents; after most of them everything is put back, else the next one takes over."""
    first = place.texts()
    changed = interrupted = 0
    for turn in range(kills):
        status = _killed(place, state, targets, wild, turn)
        assert os.WIFSIGNALED(status), f"turn {turn}: exit status {os.waitstatus_to_exitcode(status)}"
        changed += place.texts() != first
        if turn % 3 == 0 and turn < kills - 1:
            continue
        originals, knobs = Originals(str(state), "boot"), Knobs(place.hierarchies)
        interrupted += any(held.pending is not None for held in originals.held.values())
        restored = give_back(originals, knobs)
        knobs.close()
        originals.close()
        assert not restored.left + restored.gone
        assert not restored.failed
        assert place.texts() == first, f"turn {turn}"
    assert changed > kills // 4
    assert interrupted > 0


def _killed(place: Place, state: Path, targets: tuple[Knob, ...], wild: Wild, seed: int) -> int:
    """Fork the agent, SIGKILL it at a random instant of one of its first turns; its wait status."""
    rng = random.Random(-seed)
    turned, writing = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            luck = random.Random(seed)
            _turn(place, state, targets, lambda: wild(luck), writing)
        finally:
            os._exit(5)
    os.close(writing)
    turns = rng.randint(0, 5)
    for _ in range(turns):
        os.read(turned, 1)
    time.sleep(rng.random() * (time.monotonic() - began) / (turns + 1))  # the instant is what is tested
    os.kill(pid, signal.SIGKILL)
    os.close(turned)
    return os.waitpid(pid, 0)[1]


def _turn(
    place: Place, state: Path, targets: tuple[Knob, ...], plan: Callable[[], Plan], turned: int
) -> None:
    """Without end and without rest; a byte to `turned` after each turn."""
    originals, knobs = Originals(str(state), "boot"), Knobs(place.hierarchies)
    while True:
        readings = knobs.read(targets, originals.held)
        if any(reading.drifted for reading in readings):
            os._exit(3)  # nobody else writes here, so every value must be known as ours
        outcomes = knobs.apply(originals.intend(diff(plan(), readings), knobs.inode))
        if any(not outcome.ok for outcome in outcomes):
            os._exit(4)
        originals.confirm(outcomes)
        os.write(turned, b".")
