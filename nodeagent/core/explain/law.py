"""A law and its numbers become a Reason: the arithmetic is the rule with each name replaced by its number.

Invariant: what is shown can be evaluated (min, max and the four operations), and gives the result to the
three decimals that are shown.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nodeagent.model.explanation import Input, Reason

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_MIB, _GIB = float(1 << 20), float(1 << 30)


class Unit(enum.StrEnum):
    CORES = "cores"
    BYTES = "bytes"
    SECONDS = "s"
    PLAIN = ""


class Given(NamedTuple):
    """One number of a law. `fine`: shown with six digits, since it is multiplied by large numbers."""

    name: str
    value: float
    source: str
    unit: Unit = Unit.PLAIN
    fine: bool = False


def reason(
    name: str,
    rule: str,
    given: Sequence[Given],
    result: float,
    unit: Unit,
    *,
    by: str,
    why: str = "",
) -> Reason:
    """`result` in `unit` by `rule`, in which every name but min and max is that of one of `given`."""
    scale = _scale(result, given)
    numbers = {g.name: _number(g, scale) for g in given}
    return Reason(
        name=name,
        inputs=tuple(Input(g.name, _with_unit(numbers[g.name], g.unit, scale), g.source) for g in given),
        rule=rule,
        arithmetic=_NAME.sub(lambda m: numbers.get(m[0], m[0]), rule),
        result=amount(result, unit, scale),
        by=by,
        why=why,
    )


def amount(value: float, unit: Unit, scale: float = 0.0) -> str:
    """With its unit: "5.3 cores", "1.25 GiB", "no limit"."""
    scale = scale or _scale(value, ())
    return _with_unit(figure(value / scale if unit is Unit.BYTES else value), unit, scale)


def figure(value: float) -> str:
    """Three decimals, and of small numbers three digits: "5.3", "0.012", "inf"."""
    if math.isinf(value):
        return "inf"
    if value and abs(value) < 0.1:
        return f"{value:.3g}"
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _number(given: Given, scale: float) -> str:
    value = given.value / scale if given.unit is Unit.BYTES else given.value
    text = f"{value:.6g}" if given.fine else figure(value)
    return f"({text})" if text.startswith("-") else text


def _with_unit(number: str, unit: Unit, scale: float) -> str:
    if number == "inf":
        return "no limit"
    if unit is Unit.BYTES:
        return f"{number} {'GiB' if scale == _GIB else 'MiB'}"
    return f"{number} {unit}".rstrip()


def _scale(result: float, given: Iterable[Given]) -> float:
    """Bytes per unit: one for all numbers of a law, so that they may be added up as they are shown."""
    sizes = [result, *(g.value for g in given if g.unit is Unit.BYTES)]
    return _GIB if any(_GIB <= size < math.inf for size in sizes) else _MIB
