"""Where two values of the model differ, in the words of their fields.

Floats count as equal within 1e-9 of their size: another processor's libm is not another decision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from msgspec import Struct

_ABSENT = object()


def differences(recorded: object, fresh: object, path: str) -> Iterator[str]:
    """A line per field that differs: "plan[cpu.quota nodeagent/batch].value: 2.0 recorded, 1.5 now"."""
    if recorded == fresh or _close(recorded, fresh):
        return
    old, new = _parts(recorded), _parts(fresh)
    if old is None or new is None or type(recorded) is not type(fresh):
        yield f"{path}: {_short(recorded)} recorded, {_short(fresh)} now"
        return
    for key in [*old, *(key for key in new if key not in old)]:
        yield from differences(old.get(key, _ABSENT), new.get(key, _ABSENT), path + key)


def _close(a: object, b: object) -> bool:
    if not isinstance(a, float | int) or not isinstance(b, float | int):
        return False
    return math.isclose(a, b, rel_tol=1e-9) or (math.isnan(a) and math.isnan(b))


def _parts(value: object) -> dict[str, object] | None:
    """The named parts of a compound value; None for a plain one."""
    if isinstance(value, Struct):
        return {f".{name}": getattr(value, name) for name in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {f"[{key}]": item for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _items(cast("Sequence[object]", value))
    return None


def _items(values: Sequence[object]) -> dict[str, object]:
    """By knob, name or class where each item has one of its own, else by position."""
    for key in ("knob", "name", "qos"):
        keys = [str(getattr(item, key, "")) for item in values]
        if all(keys) and len(set(keys)) == len(values):
            return {f"[{found}]": item for found, item in zip(keys, values, strict=True)}
    return {f"[{index}]": item for index, item in enumerate(values)}


def _short(value: object) -> str:
    text = "absent" if value is _ABSENT else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
