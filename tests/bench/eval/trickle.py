"""A program: an innocent Batch pod's work, until a signal ends it.

Without argument 3 ms of CPU in each 100 ms. With a seed all that a CPU gives, for 10 to 40 s, and again after
5 to 20 s: somebody who uses more CPU than any culprit, where it hurts nobody.
"""

import random
import sys
import time
from collections.abc import Iterator

BUSY_S, PAUSE_S = 0.003, 0.097
ON_S, OFF_S = (10.0, 40.0), (5.0, 20.0)


def spans(words: list[str]) -> Iterator[tuple[float, float]]:
    """Seconds of work and of rest, in turns."""
    luck = random.Random(words[0]) if words else None
    while True:
        yield (luck.uniform(*ON_S), luck.uniform(*OFF_S)) if luck else (BUSY_S, PAUSE_S)


if __name__ == "__main__":
    for busy_s, pause_s in spans(sys.argv[1:]):
        end = time.monotonic() + busy_s
        while time.monotonic() < end:
            pass
        time.sleep(pause_s)
