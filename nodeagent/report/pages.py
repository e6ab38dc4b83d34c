"""How far pages have come between two ticks: told when they begin, at every tenth of the way, when done."""

from __future__ import annotations

from collections.abc import Iterator

from nodeagent.model.decision import Tick
from nodeagent.model.pages import PageMove, PagesMoving
from nodeagent.report.event import Event, Value

STEPS = 10
QUIET_S = 5.0  # a line about this often while pages move, however slowly


def page_events(before: Tick | None, now: Tick) -> Iterator[Event]:
    """`pages.moving`, `pages.moved`, and `pages.stuck` or `pages.unmovable` where that is not to be."""
    names = {pod.spec.uid: pod.spec.name for pod in now.snapshot.pods}
    old, since = _by_move(before), now.snapshot.at if before is None else before.snapshot.at
    for move, found in _by_move(now).items():
        event = _told(old.get(move), found, since, now.snapshot.at)
        if event is not None:
            level, name = event
            yield Event(level, name, _keys(found, names.get(move.uid, move.uid), now.snapshot.at))


def moved_bytes(before: Tick | None, now: Tick) -> int:
    """Bytes moved between the two ticks, by all pods together."""
    old = _by_move(before)
    return sum(
        max(0, found.moved_bytes - (old[move].moved_bytes if move in old else 0))
        for move, found in _by_move(now).items()
    )


def left_bytes(now: Tick) -> int:
    """Bytes that are still to be moved, stuck ones too; what is not counted yet is not in it."""
    return sum(found.left_bytes or 0 for found in now.snapshot.moving)


def _told(old: PagesMoving | None, found: PagesMoving, since: float, at: float) -> tuple[str, str] | None:
    """Level and name of what is worth a line; `since` and `at` are the times of the two ticks."""
    if found.unable:
        return None if old is not None and old.unable else ("warning", "pages.unmovable")
    if found.settled:
        if old is not None and old.settled:
            return None
        return ("warning", "pages.stuck") if found.stuck_bytes else ("info", "pages.moved")
    if found.why and (old is None or old.why != found.why):
        return "warning", "pages.stuck"
    if found.left_bytes is None:
        return None
    if old is None or old.left_bytes is None:
        return "info", "pages.moving"
    further = found.moved_bytes > old.moved_bytes and _stage(old, since) != _stage(found, at)
    return ("info", "pages.moving") if further else None


def _stage(found: PagesMoving, at: float) -> tuple[int, int]:
    """Tenths of the way, and how often it was quiet for long."""
    whole = found.moved_bytes + (found.left_bytes or 0)
    return STEPS * found.moved_bytes // max(1, whole), int((at - found.started_at) // QUIET_S)


def _keys(found: PagesMoving, name: str, at: float) -> dict[str, Value]:
    lasted_s = max(at - found.started_at, 1e-3)
    keys: dict[str, Value] = {
        "pod": name,
        "to_nodes": found.move.mems,
        "moved_bytes": found.moved_bytes,
        "left_bytes": found.left_bytes or 0,
        "stuck_bytes": found.stuck_bytes,
        "bytes_per_s": round(found.moved_bytes / lasted_s),
    }
    why = found.unable or found.why
    return keys | ({"why": why} if why else {})


def _by_move(tick: Tick | None) -> dict[PageMove, PagesMoving]:
    return {} if tick is None else {found.move: found for found in tick.snapshot.moving}
