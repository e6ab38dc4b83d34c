"""Making and removing the cgroups of a test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies


class Removable(Protocol):
    """A place that can be taken away with all that is in it."""

    def remove(self) -> None: ...


P = TypeVar("P", bound=Removable)


@contextmanager
def placed(controller: str, make: Callable[[Hierarchies], P], why_not: Callable[[P], str]) -> Iterator[P]:
    """A place in the hierarchy of a controller; skips the test where there can be none, or with a reason."""
    hierarchies = find_hierarchies()
    if controller not in hierarchies.roots:
        pytest.skip(f"no {controller} controller on this host")
    try:
        made = make(hierarchies)
    except OSError as error:
        pytest.skip(f"cannot make a cgroup: {error}")
    try:
        if reason := why_not(made):
            pytest.skip(reason)
        yield made
    finally:
        made.remove()


def remove_tree(top: Path) -> None:
    """An empty cgroup with all that are in it."""
    for directory, _, _ in os.walk(top, topdown=False):
        os.rmdir(directory)
