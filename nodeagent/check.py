"""What `nodeagent check` prints: every key with its effective value, its origin, range and meaning.

Invariant: the text form is itself a configuration file, and one that has the same effect.
"""

from __future__ import annotations

import enum

import msgspec
from msgspec import Struct

from nodeagent.config import Config
from nodeagent.config.schema import APP, NIC, POD, Leaf, leaves, list_of
from nodeagent.model.units import format_bytes, parse_bytes

EXAMPLE = """\
# The configuration of nodeagent: every key with its default and its meaning. Remove the "#" before what you
# change, then: nodeagent check FILE; systemctl reload nodeagent. Keys of one section belong below its header.
"""


class Row(Struct, frozen=True):
    """One key. `value` is as JSON knows it; `unit` may be empty, `allowed` and `about` are words."""

    key: str
    value: object
    unit: str
    allowed: str
    origin: str
    about: str


def effective(config: Config) -> tuple[Row, ...]:
    """All keys, those outside a section first (as TOML wants it) and the rules last."""
    owners = (config.settings, config.policy)
    keys = [key for key in leaves() if not list_of(key)]
    keys.sort(key=lambda key: "." in key)  # stable: else in the order of the schema
    rows = [_row(key, _at(owners, key), config) for key in keys]
    rules: dict[str, tuple[Struct, ...]] = {POD: config.rules, NIC: config.policy.nics, APP: config.apps}
    for kind, each in rules.items():
        for number, rule in enumerate(each):
            given = ((f"{kind}[{number}].{name}", name) for name in rule.__struct_fields__)
            rows += [_row(key, getattr(rule, name), config) for key, name in given if key in config.origins]
    return tuple(rows)


def as_json(rows: tuple[Row, ...]) -> str:
    """A JSON list of the rows, one per line."""
    return "[\n" + ",\n".join(msgspec.json.encode(row).decode() for row in rows) + "\n]"


def as_text(rows: tuple[Row, ...]) -> str:
    """TOML, with "# ORIGIN; RANGE; MEANING" after each value."""
    lines, section = [], ""
    for row in rows:
        before, dot, name = row.key.rpartition(".")
        if dot and before != section:
            section = before
            header = f"[[{list_of(section)}]]" if list_of(section) else f"[{section}]"
            lines.append(f"\n{header}")
        lines.append(f"{f'{name} = {msgspec.json.encode(row.value).decode()}':32}  # {_comment(row)}")
    return "\n".join(lines) + "\n"


def example() -> str:
    """A configuration file without effect: every key with its default, as a comment, and what it means."""
    keys = sorted(leaves(), key=lambda key: ("." in key, bool(list_of(key))))  # as in `effective`
    lines, section = [EXAMPLE], ""
    for leaf in map(leaves().__getitem__, keys):
        before, dot, name = leaf.key.rpartition(".")
        if dot and before != section:
            section = before
            lines.append(f"\n#[[{section}]]" if list_of(leaf.key) else f"\n[{section}]")
        unit = "" if leaf.unit == "bytes" else leaf.unit  # its range has one
        lines.append(f"# {leaf.about} ({f'{leaf.allowed} {unit}'.rstrip()})")
        lines.append(f"#{name} = {_default(leaf)}".rstrip())
    return "\n".join(lines) + "\n"


def example_as_json(text: str) -> str:
    """The same, as one JSON object."""
    return msgspec.json.encode({"toml": text}).decode()


def _default(leaf: Leaf) -> str:
    """As TOML, sizes as people write them; "" where there is none."""
    if leaf.default is None:
        return ""
    if leaf.unit == "bytes":
        size = format_bytes(float(str(leaf.default)))
        if parse_bytes(size) == leaf.default:
            return f'"{size}"'
    return msgspec.json.encode(_plain(leaf.default)).decode()


def _comment(row: Row) -> str:
    if row.unit == "bytes":
        allowed = f"= {format_bytes(float(str(row.value)))}; {row.allowed}"
    else:
        allowed = f"{row.allowed} {row.unit}".rstrip()
    return f"{row.origin}; {allowed}; {row.about}"


def _row(key: str, value: object, config: Config) -> Row:
    leaf = leaves()[f"{list_of(key)}.{key.partition('.')[2]}" if list_of(key) else key]
    return Row(key, _plain(value), leaf.unit, leaf.allowed, config.origins[key], leaf.about)


def _at(owners: tuple[Struct, ...], key: str) -> object:
    section, _, name = key.partition(".")
    owner = next(owner for owner in owners if section in owner.__struct_fields__)
    found: object = getattr(owner, section)
    return getattr(found, name) if name else found


def _plain(value: object) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value
