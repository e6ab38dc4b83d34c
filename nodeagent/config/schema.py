"""What may be set: one Leaf per key, read from the annotations of Settings, Policy and the rules alone.

Invariant: `Leaf.accept` gives a value that the Struct takes, or a ValueError whose text names the right ones.
"""

from __future__ import annotations

import difflib
import functools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec.inspect as inspection
from msgspec import NODEFAULT, Struct

from nodeagent.model.app import AppRule
from nodeagent.model.nic_policy import NicRule
from nodeagent.model.pod import PodRule
from nodeagent.model.policy import Policy
from nodeagent.model.settings import Settings
from nodeagent.model.units import MAX_BYTES, format_bytes, parse_bytes

POD, NIC, APP = "pods", "nics", "apps"
LISTS: dict[str, type[Struct]] = {
    POD: PodRule,
    NIC: NicRule,
    APP: AppRule,
}  # the keys of one [[pods]] entry are "pods.match", "pods.qos" ...
MAX_LIST = 256
_UNITS = {  # by the end of the key's name; the first that fits
    "_per_s": "per second",
    "_s": "seconds",
    "_cores": "cores",
    ".cpus": "cores",
}


class Leaf(Struct, frozen=True):
    """One key: `kind` is number, integer, bytes, boolean, text or choice; `many` means a list of them."""

    key: str
    kind: str
    about: str
    default: object
    many: bool = False
    low: float | None = None
    high: float | None = None
    open_low: bool = False  # `low` itself is not allowed
    shortest: int = 0
    longest: int | None = None
    choices: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """The unit that the key's name tells, or ""."""
        if self.kind == "bytes":
            return "bytes"
        return next((unit for end, unit in _UNITS.items() if self.key.endswith(end)), "")

    @property
    def allowed(self) -> str:
        """The values that are taken, in words."""
        if self.choices:
            return ("any of " if self.many else "") + " | ".join(self.choices)
        if self.kind == "boolean":
            return "true | false"
        if self.kind == "text":
            return "list of texts" if self.many else "text"
        return ("list of numbers, each " if self.many else "") + _range(self)

    def accept(self, raw: object) -> object:
        """`raw` as TOML gives it, checked and converted; ValueError says what is wrong with it."""
        if not self.many:
            return self._one(raw)
        if not isinstance(raw, list):
            raise ValueError(f"takes a list, found {shown(raw)}")
        if len(raw) > MAX_LIST:
            raise ValueError(f"takes at most {MAX_LIST} entries, found {len(raw)}")
        return tuple(self._one(entry) for entry in raw)

    def read(self, text: str) -> object:
        """The same for the text of an environment variable or of --set; lists as in TOML, or with commas."""
        if self.many:
            entries = _list(text)
            if self.kind == "integer" and isinstance(entries, list):
                entries = [_number(entry) if isinstance(entry, str) else entry for entry in entries]
            return self.accept(entries)
        if self.kind == "boolean":
            return self.accept({"true": True, "false": False}.get(text.strip().lower(), text))
        if self.kind in ("number", "integer"):
            return self.accept(_number(text))
        return self.accept(text)

    def _one(self, raw: object) -> object:
        if self.kind == "boolean":
            return _boolean(raw)
        if self.kind == "text":
            return _text(self, raw)
        if self.kind == "choice":
            return _choice(self, raw)
        return _bounded(self, _size(raw) if self.kind == "bytes" else raw)


def _list(text: str) -> object:
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f'takes a list such as ["a", "b"], found {shown(text)}') from error


def shown(raw: object) -> str:
    """A value from outside, short and on one line."""
    if isinstance(raw, Mapping):
        return "a section"
    if isinstance(raw, int) and abs(raw) > MAX_BYTES:
        return "a number of more than 64 bits"  # and maybe of more digits than Python is willing to print
    text = repr(raw) if isinstance(raw, str) else str(raw).lower() if isinstance(raw, bool) else str(raw)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was most likely meant to be; the same key of another section counts."""
    names = list(known)
    moved = [name for name in names if name.rpartition(".")[2] == word.rpartition(".")[2]]
    found = difflib.get_close_matches(word, moved, 1, 0.0) or difflib.get_close_matches(word, names, 1, 0.6)
    return found[0] if found else None


@functools.cache
def leaves() -> Mapping[str, Leaf]:
    """All keys in the order in which they are shown, those of [[pods]] as "pods.KEY" and such at the end."""
    found = [*_leaves("", Settings), *_leaves("", Policy)]
    for name, struct in LISTS.items():
        found += _leaves(f"{name}.", struct)
    return {leaf.key: leaf for leaf in found}


def list_of(key: str) -> str:
    """The list of sections that a key is in ("pods" for "pods.match" and "pods[0].match"), or ""."""
    name = key.partition(".")[0].partition("[")[0]
    return name if name in LISTS else ""


def sections() -> tuple[str, ...]:
    """Names of the TOML sections, without the lists."""
    return tuple(dict.fromkeys(key.partition(".")[0] for key in leaves() if "." in key and not list_of(key)))


def _leaves(prefix: str, struct: type[Struct]) -> Iterator[Leaf]:
    described = inspection.type_info(struct)
    assert isinstance(described, inspection.StructType)
    for field in described.fields:
        if field.name in LISTS:
            continue
        if isinstance(field.type, inspection.StructType):
            yield from _leaves(f"{prefix}{field.name}.", field.type.cls)
        else:
            default = None if field.default is NODEFAULT else field.default
            yield _leaf(prefix + field.name, field.type, default)


def _leaf(key: str, kind: inspection.Type, default: object) -> Leaf:
    if isinstance(kind, inspection.UnionType):  # optional: `T | None`
        kind = next(member for member in kind.types if not isinstance(member, inspection.NoneType))
    assert isinstance(kind, inspection.Metadata), f"{key} has no Meta"
    about = str((kind.extra_json_schema or {})["description"])
    inner, many = kind.type, isinstance(kind.type, inspection.VarTupleType)
    if isinstance(inner, inspection.VarTupleType):
        inner = inner.item_type
    return Leaf(key, about=about, default=default, many=many, **_bounds(key, inner))


def _bounds(key: str, kind: inspection.Type) -> dict[str, Any]:
    if isinstance(kind, inspection.EnumType):
        return {"kind": "choice", "choices": tuple(str(member.value) for member in kind.cls)}
    if isinstance(kind, inspection.BoolType):
        return {"kind": "boolean"}
    if isinstance(kind, inspection.StrType):
        return {"kind": "text", "shortest": kind.min_length or 0, "longest": kind.max_length}
    assert isinstance(kind, inspection.FloatType | inspection.IntType), f"{key}: {kind}"
    open_low = kind.gt is not None
    bounds = {"low": kind.gt if open_low else kind.ge, "high": kind.le, "open_low": open_low}
    if isinstance(kind, inspection.FloatType):
        return {"kind": "number", **bounds}
    return {"kind": "bytes" if key.endswith(("bytes", ".memory")) else "integer", **bounds}


def _number(text: str) -> object:
    for convert in (int, float):
        try:
            return convert(text.strip()[:64])
        except ValueError:
            continue
    return text


def _size(raw: object) -> object:
    return parse_bytes(raw) if isinstance(raw, str) else raw


def _boolean(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(f"takes true or false, found {shown(raw)}")
    return raw


def _text(leaf: Leaf, raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"takes a text in quotes, found {shown(raw)}")
    if not raw.isprintable():
        raise ValueError(f"has an unprintable character: {shown(raw)}")
    if len(raw) < leaf.shortest or (leaf.longest is not None and len(raw) > leaf.longest):
        raise ValueError(f"takes {leaf.shortest} to {leaf.longest} characters, found {len(raw)}")
    return raw


def _choice(leaf: Leaf, raw: object) -> str:
    if isinstance(raw, str) and raw in leaf.choices:
        return raw
    guess = nearest(raw.lower(), leaf.choices) if isinstance(raw, str) else None
    meant = f'; did you mean "{guess}"?' if guess else ""
    raise ValueError(f"takes {leaf.allowed}, found {shown(raw)}{meant}")


def _bounded(leaf: Leaf, raw: object) -> float:
    whole = leaf.kind != "number"
    if isinstance(raw, bool) or not isinstance(raw, int if whole else int | float):
        wanted = "a whole number" if whole else "a number"
        raise ValueError(f"takes {wanted}{f' of {leaf.unit}' if leaf.unit else ''}, found {shown(raw)}")
    assert isinstance(raw, int | float)
    below = leaf.low is not None and (raw <= leaf.low if leaf.open_low else raw < leaf.low)
    above = leaf.high is not None and raw > leaf.high
    if below or above or abs(raw) > MAX_BYTES or not math.isfinite(raw):
        raise ValueError(f"takes {_range(leaf)}, found {shown(raw)}")
    return raw if whole else float(raw)


def _range(leaf: Leaf) -> str:
    def bound(value: float) -> str:
        if leaf.kind == "bytes":
            return format_bytes(value)
        return str(value) if leaf.kind == "integer" else f"{value:g}"

    if leaf.low is None:
        return "a finite number" if leaf.high is None else f"at most {bound(leaf.high)}"
    if leaf.open_low:
        return f"more than {bound(leaf.low)}" + ("" if leaf.high is None else f", at most {bound(leaf.high)}")
    return f"at least {bound(leaf.low)}" if leaf.high is None else f"{bound(leaf.low)} to {bound(leaf.high)}"
