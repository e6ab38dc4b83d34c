"""Interference in one tick: measure, judge, remember, attribute, act.

Invariant: a pure function of the view and the memory; what is not known is never taken for calm.
"""

from __future__ import annotations

from collections.abc import Mapping

from nodeagent.core.interference.course import advance, victims, worth_telling
from nodeagent.core.interference.cpus import CpusOf
from nodeagent.core.interference.facts import facts
from nodeagent.core.interference.history import remember
from nodeagent.core.interference.judge import judge
from nodeagent.core.interference.measures import measured
from nodeagent.core.interference.suspects import rank
from nodeagent.core.rates import View
from nodeagent.model.interference import Interference
from nodeagent.model.interference_memory import InterferenceMemory
from nodeagent.model.plan import Knob, KnobReading
from nodeagent.model.policy import Policy
from nodeagent.model.senses import Senses


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
    measures = measured(view, cpus_of, memory.senses)
    frozen = victims(memory.course, view.snapshot.at)
    verdicts, senses = judge(view, measures, policy, memory.senses, frozen, cpus_of)
    history = remember(memory.history, view, measures, policy)
    course = memory.course
    if not course.cases and not any(v.alarms for v in verdicts):
        return Interference(worth_telling(verdicts)), InterferenceMemory(senses, history, course)
    now = facts(view, knobs, scope, policy, verdicts, measures, cpus_of)
    told, course = advance(
        now, lambda v: rank(history, v, view, cpus_of, policy, _began(senses, v.uid)), course
    )
    return told, InterferenceMemory(senses, history, course)


def _began(senses: Senses, uid: str) -> float | None:
    """Before the alarm that is open: when the signs of the pod last left rest."""
    sense = senses.pods.get(uid)
    return None if sense is None or sense.onset is None else sense.onset.at
