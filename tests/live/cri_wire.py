"""Protocol buffers by hand, so that what the agent reads is not written by what reads it."""

from __future__ import annotations


def field(number: int, value: bytes | str | int) -> bytes:
    """One field: a varint for a number, else length and bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def fields(raw: bytes) -> dict[int, list[bytes]]:
    """All fields with a length; numbers are skipped."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at < len(raw):
        key, at = _read(raw, at)
        if key & 7 == 0:
            _, at = _read(raw, at)
            continue
        assert key & 7 == 2, key
        size, at = _read(raw, at)
        found.setdefault(key >> 3, []).append(raw[at : at + size])
        at += size
    return found


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _read(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
