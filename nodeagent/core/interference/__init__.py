"""Interference in one tick: measure, judge, remember, attribute, act.

Invariant: a pure function of the view and the memory; what is not known is never taken for calm.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.core.interference.course import advance, victims
from nodeagent.core.interference.cpus import CpusOf
from nodeagent.core.interference.facts import facts
from nodeagent.core.rates import View
from nodeagent.model.interference import Interference
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.plan import Knob, KnobReading
from nodeagent.model.policy import Policy


def watch(
    view: View,
    knobs: Mapping[Knob, KnobReading],
    scope: frozenset[str],
    policy: Policy,
    memory: InterferenceMemory,
) -> tuple[Interference, InterferenceMemory]:
    """All of it in one tick; `scope` are the cgroups that may be written."""
    if not policy.interference.detect:
        return Interference(), InterferenceMemory()
    cpus_of = CpusOf(view, knobs)
    victims(memory.course)
    now = facts(view, knobs, scope, policy, (), {}, cpus_of)
    told, course = advance(now, lambda _: (), memory.course)
    return told, InterferenceMemory(memory.senses, memory.history, course)
