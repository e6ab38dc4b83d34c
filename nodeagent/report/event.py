"""An event: a name and its keys, as it goes to the log and to the screen."""

from __future__ import annotations

import re
from typing import NamedTuple

Value = str | int | float | bool


class Event(NamedTuple):
    """`level` is "debug", "info" or "warning"."""

    level: str
    name: str
    keys: dict[str, Value]


def gist(why: str) -> str:
    """A reason without its figures: free memory, rates and numbers of rules change all the time."""
    return re.sub(r"\d[\d.]*( [KMGT]iB)?", "#", why)
