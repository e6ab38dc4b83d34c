"""Replay: the recorded ticks decided again, by the recorded policy (must agree) or by another one (what if).

    read_segments -> fold -> again | what_if -> answer -> render

Invariant: one tick in memory at a time, whatever the size of the journal.
"""

from nodeagent.replay.answer import Replayed
from nodeagent.replay.fold import replay
from nodeagent.replay.render import as_dict, as_json, as_text

__all__ = ["Replayed", "as_dict", "as_json", "as_text", "replay"]
