"""Globs over cgroup paths: "?" and "*" stay within a component, "**" crosses "/".

    nodeagent/**     all below nodeagent          **/spark-*     spark-... at any depth, also at the top
    a/**/b           a/b, a/x/b, a/x/y/b          *.slice        top-level slices only

Invariant: matching never backtracks over an earlier star. The text after a star is taken where it first
fits, inside an atomic group: for globs the earliest end is as good as any other, so nothing is lost and the
cost is at most quadratic in the path, whatever the pattern.
"""

from __future__ import annotations

import re
from functools import lru_cache

MAX_PATTERN = 512
_TOKENS = re.compile(r"(?:^|(?<=/))\*\*+/|\*\*+|\*|\?|[^*?]+")
_STARS = {"*": "[^/]*?", "**": ".*?", "**/": "(?:.*?/)??"}


@lru_cache(maxsize=1024)
def glob_regex(pattern: str) -> re.Pattern[str]:
    """Regex for a glob of at most 512 characters; use `fullmatch`. ValueError when it is longer.

    Slashes around the pattern do not count: cgroup paths have none. There are no character classes and no
    escapes (systemd's unit names contain backslashes).
    """
    if len(pattern) > MAX_PATTERN:
        raise ValueError(f"glob longer than {MAX_PATTERN} characters: {pattern[:40]}...")
    head, *rest = _pieces(pattern.strip("/"))
    return re.compile(head[1] + _after_globstars(rest), re.DOTALL)


def _pieces(pattern: str) -> list[tuple[str, str]]:
    """(star, regex of the fixed text after it) in order; the first star is "" (the start)."""
    pieces: list[tuple[str, str]] = [("", "")]
    for token in _TOKENS.findall(pattern):
        if token[0] == "*":
            pieces.append((_star(token), ""))
        else:
            star, text = pieces[-1]
            pieces[-1] = (star, text + ("[^/]" if token == "?" else re.escape(token)))
    return pieces


def _star(token: str) -> str:
    return "**/" if token.endswith("/") else token[:2]


def _after_globstars(pieces: list[tuple[str, str]]) -> str:
    """One atomic group for each "**" with all that follows it up to the next, so that it may start later."""
    regex = ""
    for index, (star, text) in enumerate(pieces):
        if star != "*" and "(?>" in regex and _is_open(regex):
            regex += ")"
        last = r"\Z" if index == len(pieces) - 1 else ""
        group = f"(?>{_STARS[star]}{text}{last}"
        regex += group if star != "*" else f"{group})"
    return regex + (")" if _is_open(regex) else r"\Z" if not pieces else "")


def _is_open(regex: str) -> bool:
    return False
