"""A process in each of many cgroups, for as long as a context lasts."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SLEEPERS = Path(__file__).with_name("sleepers.py")


@contextlib.contextmanager
def inhabited(homes: Iterable[tuple[int, Sequence[str]]], *, own_netns: bool = False) -> Iterator[None]:
    """A process for each of `homes`: how often it wakes up in ms (0 = never), and its cgroup directories."""
    command = [sys.executable, "-I", "-S", str(SLEEPERS), *(["netns"] if own_netns else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as helper:
        assert helper.stdin is not None
        assert helper.stdout is not None
        try:
            helper.stdin.writelines(f"{wake_ms} {' '.join(where)}\n" for wake_ms, where in homes)
            helper.stdin.write("\n")
            helper.stdin.flush()
            answer = helper.stdout.readline().strip()
            if answer != "ready":
                raise RuntimeError(f"the benchmark's processes did not start: {answer or 'no answer'}")
            yield
        finally:
            helper.communicate()  # the end of its input is the end of its children
