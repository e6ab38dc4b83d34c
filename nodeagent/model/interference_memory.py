"""All of interference that outlives a tick: what is felt, what was seen, and how far it has come."""

from __future__ import annotations

from msgspec import Struct

from nodeagent.model.course import Course
from nodeagent.model.history import History
from nodeagent.model.senses import Senses


class InterferenceMemory(Struct, frozen=True, gc=False):
    """`senses` are the detector's statistics, `history` the window of attribution, `course` what is done."""

    senses: Senses = Senses()
    history: History = History()
    course: Course = Course()
