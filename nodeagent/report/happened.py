"""Events as lines for people, or as JSON, an object a line."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

import msgspec

from nodeagent.model.event import Happened, Heard

FIRST = frozenset({"cgroup", "knob", "nic", "pod", "subject", "victim"})
LAST = frozenset({"evidence", "story", "why"})


def lines(heard: Heard, *, as_json: bool) -> Iterator[str]:
    """What was missed, then a line per event."""
    if heard.missed:
        missed = {"missed": heard.missed, "run_id": heard.run_id}
        yield msgspec.json.encode(missed).decode() if as_json else f"({heard.missed} older events are gone)"
    for each in heard.events:
        yield msgspec.json.encode(each).decode() if as_json else _line(each)


def _line(each: Happened) -> str:
    at = datetime.datetime.fromtimestamp(each.unix, tz=datetime.UTC).astimezone()
    level = "" if each.level == "info" else f" [{each.level}]"
    keys = "  ".join(f"{key}={_quoted(each.keys[key])}" for key in sorted(each.keys, key=_place))
    return f"{at:%H:%M:%S}  {each.name + level:<28} {keys}".rstrip()


def _place(key: str) -> tuple[int, str]:
    """What it is about first, why last."""
    return 0 if key in FIRST else 2 if key in LAST else 1, key


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value or not value else value
