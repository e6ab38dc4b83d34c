"""One line of the doctor's report, and what the checks are given to look at."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator

from msgspec import Struct

from nodeagent.config import Config
from nodeagent.kernel.mounts import Hierarchies


class Status(enum.StrEnum):
    """FAIL: the agent cannot work. WARN: it works, but less well than this host could. INFO: good to know."""

    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"


class Finding(Struct, frozen=True):
    """`found` is what is there, `fix` what to do about it; "" when there is nothing to do."""

    name: str
    status: Status
    found: str
    fix: str = ""


class Host(Struct, frozen=True):
    """`cgroups` is None when no hierarchy could be found."""

    root: str
    config: Config
    cgroups: Hierarchies | None


Check = Callable[[Host], Iterator[Finding]]


def judged(name: str, good: bool, found: str, fix: str, otherwise: Status = Status.WARN) -> Finding:
    """OK with `found` alone, or `otherwise` with what to do."""
    return Finding(name, Status.OK, found) if good else Finding(name, otherwise, found, fix)
