"""An event: a name and its keys, as it goes to the log and to the screen."""

from __future__ import annotations

from typing import NamedTuple

Value = str | int | float | bool


class Event(NamedTuple):
    """`level` is "debug", "info" or "warning"."""

    level: str
    name: str
    keys: dict[str, Value]
