"""The lines of the ledger of original values: "CRC32 JSON", one knob each; see originals.py."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import TypeGuard

from nodeagent.model.plan import Held, Kept, Kind, Knob, Value, sound

_KINDS = frozenset(kind.value for kind in Kind if not kind.of_nic)


def fields(knob: Knob, held: Held | None) -> list[object]:
    """What the line of a knob says; without `held` that it was given back."""
    name: list[object] = [knob.kind.value, knob.target]
    if held is None:
        return name
    kept = () if held.kept is None else ([held.kept.value, held.kept.found, held.kept.ours],)
    return [*name, held.inode, held.original, held.written, held.pending, *kept]


def line(values: list[object]) -> bytes:
    """One line with its checksum."""
    text = json.dumps(values).encode("ascii")  # json, not msgspec: it keeps inf and undecodable path bytes
    return b"%08x %s\n" % (zlib.crc32(text), text)


def parsed(text_line: bytes) -> object:
    """The JSON value of a line, None when the line is not whole."""
    checksum, _, text = text_line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def replayed(lines: Iterable[bytes]) -> tuple[dict[Knob, Held], int]:
    """(what is held after these lines, how many of them are not readable)."""
    held: dict[Knob, Held] = {}
    bad = 0
    for each in lines:
        match parsed(each):
            case [str(kind), str(target)] if kind in _KINDS:
                held.pop(Knob(Kind(kind), target), None)
            case [str(kind), str(target), int(inode), a, b, c, *more] if _sound(values := [a, b, c], kind):
                knob = Knob(Kind(kind), target)
                original, written, pending = values
                kept = _kept(more, knob.kind)
                held[knob] = Held(knob, inode, original, written, pending, kept)
                bad += bool(more) and kept is None
            case _:
                bad += 1
    return held, bad


def _kept(values: list[object], kind: Kind) -> Kept | None:
    match values:
        case [[(float() | str()) as value, (float() | str()) as found, bool(ours)]]:
            return Kept(value, found, ours) if sound(kind, value) and sound(kind, found) else None
    return None


def _sound(values: list[object], kind: str) -> TypeGuard[list[Value]]:
    """True for [original, written, pending] of a knob of this kind; only the original must be there."""
    return (
        kind in _KINDS
        and len(values) == 3
        and values[0] is not None
        and all(value is None or sound(Kind(kind), value) for value in values)
    )
