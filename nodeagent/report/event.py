"""Events between two ticks: what all that tell of them share."""

from __future__ import annotations

import re

from nodeagent.model.event import Event, Value

__all__ = ["Event", "Value", "gist"]


def gist(why: str) -> str:
    """A reason without its figures: free memory, rates and numbers of rules change all the time."""
    return re.sub(r"\d[\d.]*( [KMGT]iB)?", "#", why)
