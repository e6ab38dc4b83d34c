"""The journal: every tick (what was seen, decided, changed, and how it went) in size-capped segments.

    <state_dir>/journal/000000017-6f1c1a52.journal      segment number, first 8 characters of the boot id
        magic     8 bytes; the last one is the version of the format
        frame     [length u32][crc32 u32 of length and payload][payload], little-endian
        frame ...

The payloads of a segment are one zlib stream, flushed after each frame, so that a frame is whole as soon
as it is written and yet compresses against those before it. The first frame is a SegmentHead, each later
one a Tick (packed.py).

Invariants: a segment can be replayed without any other; what write(2) has taken survives SIGKILL; the
segments together never take more than the cap; a journal that cannot write never stops the agent.
"""

from nodeagent.journal.packed import SegmentHead
from nodeagent.journal.read import Segment, read_segments
from nodeagent.journal.write import Journal

__all__ = ["Journal", "Segment", "SegmentHead", "read_segments"]
