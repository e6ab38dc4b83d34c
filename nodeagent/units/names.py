"""Which unit of the system's systemd a cgroup is, by its path alone.

    batch.slice/batch-night.slice/render@7.service  ->  render@7.service
    system.slice/system-foo.slice/foo@a.service     ->  foo@a.service
    system.slice/_cpu.service                       ->  cpu.service (the underscore keeps it off "cpu.max")
    user.slice/user-0.slice/user@0.service/app.slice -> none: another systemd's, inside a delegated unit

Invariant: pure; a path is a unit only where systemd itself would put that unit. Whether there is such a unit
is for systemd to say.
"""

from __future__ import annotations

import re
from functools import lru_cache

SLICE = ".slice"
_LEAVES = (".service", ".scope")
_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")  # systemd's VALID_CHARS_WITH_AT, UNIT_NAME_MAX


@lru_cache(maxsize=4096)
def unit_of(path: str) -> str | None:
    """The unit whose cgroup is at `path` below the root; None when it is none."""
    *slices, last = (part.removeprefix("_") for part in path.split("/"))
    if not _NAME.fullmatch(last):
        return None
    if last.endswith(SLICE):
        return last if [*slices, last] == slice_path(last) else None
    in_slices = not slices or slices == slice_path(slices[-1])
    if last.endswith(_LEAVES) and last != "init.scope" and in_slices:
        return last
    return None


def is_unit(path: str) -> bool:
    """True when the cgroup at `path` would be that of a unit."""
    return unit_of(path) is not None


def slice_path(name: str) -> list[str]:
    """The slices down to this one: a-b.slice is in a.slice. Empty for what is no slice's name."""
    words = name.removesuffix(SLICE).split("-")
    if not name.endswith(SLICE) or "" in words:
        return []
    return ["-".join(words[:n]) + SLICE for n in range(1, len(words) + 1)]
