"""What makes changes of sets (CPUs, memory nodes) valid in a tree of cgroups.

cgroup v1 refuses a set that is not within its parent's or that does not hold all of its children's; both are
kept by way of unions: from the root down every set grows to old | new, from the leaves up it shrinks to new.
cgroup v2 takes any set and gives what the cgroups around allow: the same order keeps that right meanwhile.

Invariant: a set that is not ours to change stays within what is written around it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nodeagent.model.cpuset import common, union, within
from nodeagent.model.plan import Knob, KnobReading, Value, listed

Related = Mapping[Knob, Sequence[Knob]]  # of each knob, those around it that were read, from the top down


def fit_set(reading: KnobReading, value: str) -> str:
    """The part of `value` that can be had; what is there where nothing can, since no v1 set may go empty."""
    if not reading.nested:
        return common(value, value)  # as the kernel will print it
    return common(value, reading.allowed or value) or listed(reading.actual)


def valid_sets(
    wanted: Mapping[Knob, str], found: Mapping[Knob, KnobReading], above: Related
) -> dict[Knob, str]:
    """The nearest final state that v1 accepts; v2 accepts all.

    A set with nothing in common with the one around it stays what it is; where it cannot, it becomes that.
    """
    final = dict(wanted)
    nested = sorted((k for k, r in found.items() if r.nested and k.kind.is_set), key=_depth)
    for knob in nested:  # a set that is not ours to change holds its ancestors up
        if knob not in wanted:
            for parent in above[knob]:
                if parent in final:
                    final[parent] = union(final[parent], listed(found[knob].actual))
    for knob in nested:  # a set that is ours stays within its ancestors
        if knob in final and above[knob]:
            parent = above[knob][-1]
            roof = final[parent] if parent in final else listed(found[parent].actual)
            if not within(final[knob], roof):
                final[knob] = common(final[knob], roof) or common(listed(found[knob].actual), roof) or roof
    return final


def by_way_of(reading: KnobReading, new: str, inside: Sequence[KnobReading]) -> str:
    """What the set is loosened to on the way down: the old one, the new one, or the union of both.

    `inside` are the knobs below this one as they are now. The union is needed only when one of them still
    has something that this one is to lose.
    """
    old = listed(reading.actual)
    if _narrower(reading, new, old):
        return old
    if all(_narrower(reading, listed(each.actual), new) for each in inside if each.nested or each.actual):
        return new
    return new if _narrower(reading, old, new) else union(old, new)


def inherited(reading: KnobReading, around: Sequence[KnobReading]) -> Value | None:
    """What a v1 cpuset would have been made with, had we not written to one `around` it; None if we have not.

    Whoever makes one (`nodeagent exec`, runc) copies its parent's set into it, since a new one is empty. One
    that was wanted when its parent was first written is not mistaken for that: it was `taken` then.
    """
    for parent in reversed(around) if taken(reading) else ():
        if parent.actual != reading.actual:
            return None
        if parent.held:
            return parent.original if parent.original != parent.written == parent.actual else None
    return None


def taken(reading: KnobReading) -> bool:
    """True for a wanted v1 set that is to be remembered as it is, even if nothing is to be written."""
    return reading.nested and not reading.held and reading.knob.kind.is_set


def _narrower(reading: KnobReading, part: str, whole: str) -> bool:
    """On v2 the empty set stands for all that the cgroup around has."""
    if not reading.nested and not (part and whole):
        return not whole
    return within(part, whole)


def _depth(knob: Knob) -> int:
    return knob.target.count("/")
