"""Where values come from: a TOML file, environment variables, --set. Gives raw values with their origin.

Invariant: whatever the bytes of the file are, the outcome is entries or one Misconfigured.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import fields

from nodeagent.config.schema import LISTS, Leaf, leaves, list_of, nearest, sections, shown
from nodeagent.model.errors import Misconfigured

MAX_FILE_BYTES = 1 << 20
MAX_RULES = 1024
ENV_PREFIX = "NODEAGENT__"
_HEADER = re.compile(r"\s*(\[\[?)\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"\s*([\w.-]+)\s*=")


class Entry(Struct, frozen=True):
    """One key with the value that one source gives it; `key` of a pod rule is "pods[0].match"."""

    key: str
    origin: str
    raw: object
    is_text: bool = False  # from the environment or --set: still to be read by the key's kind

    @property
    def leaf(self) -> Leaf:
        """What the schema says of the key; Misconfigured, naming the nearest one, when it knows none."""
        known = leaves()
        plain = _plain(self.key)
        if plain not in known:
            raise unknown(self.origin, plain, self.key)
        return known[plain]

    @property
    def value(self) -> object:
        """The checked value; Misconfigured when the schema refuses it."""
        leaf = self.leaf
        try:
            return leaf.read(str(self.raw)) if self.is_text else leaf.accept(self.raw)
        except ValueError as error:
            raise Misconfigured(f"{self.origin}: {self.key} {error}", hint=leaf.about) from error


def unknown(origin: str, plain: str, key: str) -> Misconfigured:
    """The error for a key that is not in the schema."""
    guess = nearest(plain, leaves())
    if guess and list_of(guess) and list_of(guess) == list_of(key):
        guess = key.partition(".")[0] + guess.removeprefix(list_of(key))
    meant = f"; did you mean {guess}?" if guess else ""
    return Misconfigured(
        f"{origin}: unknown key {_safe(key)}{meant}",
        hint="`nodeagent check` lists all keys with their ranges",
    )


def from_file(path: str) -> tuple[Entry, ...]:
    """Entries of a TOML file."""
    text = _content(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Misconfigured(_syntax(path, str(error))) from error
    except (ValueError, RecursionError) as error:  # a number of 5000 digits; arrays nested 1000 deep
        raise Misconfigured(f"{path}: not usable as TOML: {str(error)[:100]}") from error
    lines = _lines(text)
    return tuple(
        Entry(key, f"{path}:{lines[key]}" if key in lines else path, raw)
        for key, raw in _flat(document, path, lines)
    )


def from_env(env: Mapping[str, str]) -> tuple[Entry, ...]:
    """Entries of NODEAGENT__SECTION__KEY=value, and of the directories that systemd hands to a service."""
    given = [
        Entry(
            name.removeprefix(ENV_PREFIX).replace("__", ".").lower(), f"env {_safe(name)}", text, is_text=True
        )
        for name, text in sorted(env.items())
        if name.startswith(ENV_PREFIX)
    ]
    return tuple(given)


def from_systemd(env: Mapping[str, str]) -> tuple[Entry, ...]:
    """systemd.exec(5): StateDirectory= and RuntimeDirectory= tell their (first) path in the environment."""
    names = {"STATE_DIRECTORY": "agent.state_dir", "RUNTIME_DIRECTORY": "agent.run_dir"}
    return tuple(
        Entry(key, f"env {name}", env[name].split(":")[0], is_text=True)
        for name, key in names.items()
        if env.get(name, "").split(":")[0]
    )


def from_overrides(overrides: Mapping[str, str]) -> tuple[Entry, ...]:
    """Entries of --set KEY=VALUE."""
    return tuple(Entry(key, "--set", text, is_text=True) for key, text in overrides.items())


def _content(path: str) -> str:
    try:
        # O_NONBLOCK: a FIFO given by mistake must not hang the agent
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Misconfigured(f"{_safe(path)}: cannot be read: {reason}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Misconfigured(f"{path}: not a regular file")
        with open(fd, "rb", closefd=False) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    finally:
        os.close(fd)
    if len(content) > MAX_FILE_BYTES:
        raise Misconfigured(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB, so hardly a configuration")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise Misconfigured(f"{path}:{line}: not UTF-8 text (byte 0x{content[error.start]:02x})") from error


def _syntax(path: str, message: str) -> str:
    where = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if where is None:
        return f"{path}: {message[:200]}"
    return f"{path}:{where[1]}:{where[2]}: {message[: where.start()][:200]}"


def _flat(
    document: Mapping[str, object], path: str, lines: Mapping[str, int]
) -> Iterator[tuple[str, object]]:
    for name, value in document.items():
        origin = f"{path}:{lines[name]}" if name in lines else path
        if name in LISTS:
            yield from _rules(name, value, origin)
        elif name in sections():
            if not isinstance(value, Mapping):
                raise Misconfigured(f"{origin}: {name} is a section ([{name}]), found {shown(value)}")
            yield from ((f"{name}.{_bare(key, name, origin)}", raw) for key, raw in value.items())
        elif isinstance(value, Mapping):
            guess = nearest(name, (*sections(), *LISTS))
            lists = " and ".join(f"[[{each}]]" for each in LISTS)
            meant = f"; did you mean [{guess}]?" if guess else f"; there are {', '.join(sections())}, {lists}"
            raise Misconfigured(f"{origin}: unknown section [{_safe(name)}]{meant}")
        else:
            yield _bare(name, "", origin), value


def _rules(kind: str, value: object, origin: str) -> Iterator[tuple[str, object]]:
    if not isinstance(value, list) or not all(isinstance(entry, Mapping) for entry in value):
        raise Misconfigured(f"{origin}: {kind} is a list of sections: begin each one with [[{kind}]]")
    if len(value) > MAX_RULES:
        raise Misconfigured(f"{origin}: more than {MAX_RULES} [[{kind}]] rules")
    for number, rule in enumerate(value):
        name = f"{kind}[{number}]"
        for key, raw in rule.items():
            yield f"{name}.{_bare(key, name, origin)}", raw
        for field in fields(LISTS[kind]):
            if field.required and field.name not in rule:
                hint = leaves()[f"{kind}.{field.name}"].about
                raise Misconfigured(f"{origin}: {name} has no {field.name}", hint=hint)


def _bare(key: str, section: str, origin: str) -> str:
    """TOML allows "a.b" as one quoted key; here it is never a known one."""
    if "." in key or "[" in key:
        raise unknown(origin, key, f"{section}.{key}" if section else key)
    return key


def _lines(text: str) -> dict[str, int]:
    """Line of each key and section, as far as a look at single lines can tell."""
    found: dict[str, int] = {}
    prefix, rules = "", Counter[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(line):
            name = header[2]
            found.setdefault(name, number)
            if header[1] == "[[":
                rules[name] += 1
                name = f"{name}[{rules[name] - 1}]"
            prefix = f"{name}."
            found.setdefault(name, number)
        elif key := _KEY.match(line):
            found.setdefault(prefix + key[1], number)
    return found


def _plain(key: str) -> str:
    """The key without the number of its rule."""
    kind = list_of(key)
    return re.sub(r"^\w+\[\d+\]", kind, key) if kind else key


def _safe(text: str) -> str:
    return text if text.isprintable() and len(text) <= 100 else ascii(text[:60])
