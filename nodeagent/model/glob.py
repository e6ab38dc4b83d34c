"""Globs over cgroup paths: "?" and "*" stay within a component, "**" crosses "/".

    nodeagent/**     all below nodeagent          **/spark-*     spark-... at any depth, also at the top
    a/**/b           a/b, a/x/b, a/x/y/b          *.slice        top-level slices only

Invariant: matching never backtracks over an earlier star. The text after a star is taken where it first
fits, inside an atomic group: for a glob the earliest end is as good as any later one, so nothing is lost,
and the cost is at most quadratic in the length of the path, whatever the pattern.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_PATTERN = 512
# "**/" at the start of a component may stand for no directory at all.
_GLOBSTAR = re.compile(r"((?:^|(?<=/))\*\*+/|\*\*+)")


@lru_cache(maxsize=1024)
def glob_regex(pattern: str) -> re.Pattern[str]:
    """Regex for a glob of at most 512 characters, for use with `fullmatch`; ValueError when it is longer.

    Slashes around the pattern do not count, as cgroup paths have none there. There are no character classes
    and no escapes: systemd's unit names contain backslashes.
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"glob longer than {MAX_PATTERN} characters: {pattern[:40]}...")
    first, *rest = _GLOBSTAR.split(pattern.strip("/"))
    regex = _chunk(first, ends=not rest)
    for index in range(0, len(rest), 2):
        skip = "(?:.*?/)??" if rest[index].endswith("/") else ".*?"
        regex += f"(?>{skip}{_chunk(rest[index + 1], ends=index + 2 == len(rest))})"
    return re.compile(regex, re.DOTALL)


@lru_cache(maxsize=8)
def any_glob_regex(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Regex for what one of these globs fits, nothing without any; else as `glob_regex`."""
    each = (f"(?:{glob_regex(pattern).pattern})" for pattern in patterns)
    return re.compile("|".join(each) or r"(?!)", re.DOTALL)


def _chunk(glob: str, *, ends: bool) -> str:
    """Regex of a part without "**"; `ends`: nothing may follow it."""
    fixed = [re.escape(text).replace(r"\?", "[^/]") for text in glob.split("*")]
    fixed[-1] += r"\Z" if ends else ""
    return fixed[0] + "".join(f"(?>[^/]*?{text})" for text in fixed[1:])
