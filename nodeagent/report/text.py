"""The Prometheus text format, version 0.0.4: headers, labels, numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isinf, isnan

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Label = tuple[str, str]


def header(name: str, kind: str, text: str) -> str:
    """HELP and TYPE of a family; `kind` is counter or gauge."""
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def family(name: str, kind: str, text: str, samples: Mapping[Label | None, float]) -> str:
    """A family whose samples have at most one label each; empty when there are none."""
    return table(name, kind, text, ((() if label is None else (label,), v) for label, v in samples.items()))


def table(name: str, kind: str, text: str, samples: Iterable[tuple[tuple[Label, ...], float]]) -> str:
    """The same for any number of labels."""
    lines = [f"{name}{_braced(labels)} {number(value)}\n" for labels, value in samples]
    return "".join([header(name, kind, text), *lines]) if lines else ""


def printable(value: str) -> str:
    """The string itself, or with escapes for the bytes of a cgroup's name that are not UTF-8."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def escape(value: str) -> str:
    """A label's value as the format wants it."""
    return printable(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def number(value: float) -> str:
    """A value as Prometheus reads it."""
    if isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if isnan(value):
        return "NaN"
    return f"{int(value)}" if value == int(value) else repr(value)


def _braced(labels: tuple[Label, ...]) -> str:
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels) + "}" if labels else ""
