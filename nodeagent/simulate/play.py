"""A trace played on a node with somebody who lends: the terms of a step come from what was seen before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from nodeagent.simulate.account import Account
from nodeagent.simulate.answer import Simulated
from nodeagent.simulate.fluid import Lender, Share, Terms, shared
from nodeagent.simulate.tasks import Placed, Tasks
from nodeagent.simulate.trace import Trace, steps

TOLD_STEPS = 1000  # progress is told so often


class Shape(NamedTuple):
    """How a trace is played: on so many `cores`, `ceiling_ratio` of which may be used, in steps of `step_s`.

    Batch tasks have `task_cores` each and last `task_s` on average; `seed` is of their lengths.
    """

    cores: int
    ceiling_ratio: float
    step_s: float = 1.0
    task_cores: float = 1.0
    task_s: float = 600.0
    seed: int = 0


class Moment(NamedTuple):
    """One step: the terms that it began with, the tasks that ran, and what everybody got."""

    share: Share
    terms: Terms
    placed: Placed


def play(
    trace: Trace,
    shape: Shape,
    lender: Lender,
    warm_up_s: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> Simulated:
    """What comes of the trace with this lender, the first `warm_up_s` not counted.

    `progress` gets the number of steps done, now and then.
    """
    account = Account(shape.cores, shape.ceiling_ratio, shape.task_cores, trace.begin_s + warm_up_s)
    for number, moment in enumerate(moments(trace, shape, lender), 1):
        account.add(*moment)
        if progress is not None and number % TOLD_STEPS == 0:
            progress(number)
    return account.answer(trace.notes)


def moments(trace: Trace, shape: Shape, lender: Lender) -> Iterator[Moment]:
    """Step by step."""
    tasks = Tasks(shape.task_cores, shape.task_s, shape.seed)
    terms = lender.start(trace.begin_s)
    for step in steps(trace, shape.step_s):
        placed = tasks.place(step.since, terms.offered_cores)
        until = step.since + step.span_s
        share = shared(shape.cores, until, step.span_s, step.cores, terms)
        yield Moment(share, terms, placed)
        terms = lender.after(share)
