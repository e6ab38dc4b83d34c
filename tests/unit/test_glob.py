"""glob_regex against a matcher that tries everything, and against hostile patterns."""

from __future__ import annotations

import time
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.model.glob import glob_regex


def matches(pattern: str, path: str) -> bool:
    return glob_regex(pattern).fullmatch(path) is not None


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("nodeagent/**", "nodeagent/batch/x"),
        ("nodeagent/*", "nodeagent/batch"),
        ("/nodeagent/*/", "nodeagent/batch"),
        ("**/spark-*", "spark-1"),
        ("**/spark-*", "a/b/spark-1"),
        ("a/**/b", "a/b"),
        ("a/**/b", "a/x/y/b"),
        ("a**b", "a/x/y/b"),
        ("job-?", "job-1"),
        ("system.slice/*.service", r"system.slice/systemd\x2dfsck.service"),
        ("**", "any/thing"),
        ("*a*b", "xabaab"),
    ],
)
def test_these_paths_match(pattern: str, path: str) -> None:
    assert matches(pattern, path)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("nodeagent/**", "nodeagent"),
        ("nodeagent/*", "nodeagent/batch/x"),
        ("**/spark-*", "xspark-1"),
        ("a/**/b", "a/xb"),
        ("job-?", "job-/"),
        ("job-?", "job-"),
        ("[ab]", "a"),
        ("a.c", "abc"),
        ("a", "a\n"),
        ("*", "a/b"),
    ],
)
def test_these_paths_do_not_match(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


def exhaustive(pattern: str, path: str) -> bool:
    """The definition, by trying every length for every star."""
    glob = pattern.strip("/")

    @cache
    def at(p: int, i: int) -> bool:
        if p == len(glob):
            return i == len(path)
        if glob.startswith("**", p):
            end = p + len(glob[p:]) - len(glob[p:].lstrip("*"))
            if glob.startswith("/", end) and (p == 0 or glob[p - 1] == "/"):
                starts = [i, *(k + 1 for k in range(i, len(path)) if path[k] == "/")]
                return any(at(end + 1, k) for k in starts)
            return any(at(end, k) for k in range(i, len(path) + 1))
        if glob[p] == "*":
            return at(p + 1, i) or (i < len(path) and path[i] != "/" and at(p, i + 1))
        fits = i < len(path) and (path[i] != "/" if glob[p] == "?" else path[i] == glob[p])
        return fits and at(p + 1, i + 1)

    return at(0, 0)


@given(st.text("ab/*?", max_size=12), st.text("ab/", max_size=14))
def test_the_regex_agrees_with_the_definition(pattern: str, path: str) -> None:
    assert matches(pattern, path) == exhaustive(pattern, path)


@given(st.text(max_size=40), st.text(max_size=40))
def test_every_pattern_compiles(pattern: str, path: str) -> None:
    glob_regex(pattern).fullmatch(path)


@pytest.mark.parametrize("star", ["*a", "**a", "**/a/", "?*a", "*a**b"])
def test_a_pattern_of_many_stars_does_not_blow_up(star: str) -> None:
    regex = glob_regex((star * 512)[:511])
    begin = time.process_time()
    for path in ("a" * 4096, "a/" * 2048, "ab" * 2048):
        regex.fullmatch(path)
    assert time.process_time() - begin < 2.0


def test_a_pattern_over_the_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 512"):
        glob_regex("a" * 513)
