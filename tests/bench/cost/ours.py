"""A program: the agent's own reading of pods, once a line. `python -m tests.bench.cost.ours WAY MEMBERS`

    full      every file of every pod in each tick, as the floor and the koordlet drivers do
    tiered    as the agent reads in each tick, without symptoms
    symptoms  the same with symptoms: all that the agent reads of pods

Its clock goes a second for each tick, whatever the pace.
"""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec

from nodeagent.garbage import Garbage
from nodeagent.kernel.reader import NodeReader
from nodeagent.model.pod import Member

WAYS = ("full", "tiered", "symptoms")
WARM_TICKS = 12  # until what is asked ever more seldom is rare


def main() -> None:
    """Say "ready" once all files are open, then "done" after each tick."""
    way, where = sys.argv[1:]
    members = msgspec.json.decode(Path(where).read_bytes(), type=tuple[Member, ...])
    with closing(NodeReader(symptoms=way == "symptoms")) as reader:
        clock = itertools.count()
        for _ in range(WARM_TICKS):
            reader.read(members, float(next(clock)), full=way == "full")
        garbage = Garbage(time.monotonic())
        print("ready", flush=True)
        for _ in sys.stdin:
            seen = reader.read(members, float(next(clock)), full=way == "full")
            garbage.after_tick(time.monotonic())
            assert len(seen.pods) == len(members), f"{len(seen.pods)} of {len(members)} pods were read"
            print("done", flush=True)


if __name__ == "__main__":
    main()
