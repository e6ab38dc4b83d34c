"""A program: the agent's own reading of pods, once per line of input. `-m tests.bench.cost.ours WAY MEMBERS KEPT`

    full      every file of every pod in each tick, as the floor and the koordlet drivers do
    tiered    as the agent reads in each tick, without symptoms
    symptoms  the same with symptoms: all that the agent reads of pods

KEPT is the compiled part (nodeagent/kernel/_kept.c), "" for the one in Python. Its clock goes a second for
each tick, whatever the pace.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import time
from contextlib import closing
from pathlib import Path

import msgspec

WAYS = ("full", "tiered", "symptoms")
WARM_TICKS = 12  # until what is asked ever more seldom is rare
KEPT = "nodeagent.kernel._kept"


def main() -> None:
    """Say "ready" once all files are open, then "done" after each tick."""
    way, where, kept = sys.argv[1:]
    use(kept)
    from nodeagent.garbage import Garbage
    from nodeagent.kernel.reader import NodeReader
    from nodeagent.model.pod import Member

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


def use(kept: str) -> None:
    """Read kept files by the compiled part at this path, or by that in Python."""
    sys.modules[KEPT] = None  # type: ignore[assignment]  # importing it fails, as where it is not compiled
    if kept:
        spec = importlib.util.spec_from_file_location(KEPT, kept)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[KEPT] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[KEPT])


if __name__ == "__main__":
    main()
