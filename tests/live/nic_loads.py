"""Programs of nic_traffic in the places of a lab: in a pod, in a cgroup of the host, on the peer."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.live.nic_lab import inside
from tests.live.running import NODEAGENT, TIMEOUT_S, unique

_PROGRAM = Path(__file__).with_name("nic_traffic.py")


class Place(NamedTuple):
    """Where a program runs: a namespace, and the class of the pod that it is, if it is one."""

    namespace: str
    qos: str = ""
    name: str = ""
    run_dir: Path = Path()

    def words(self) -> list[str]:
        """Words that execute a command there."""
        if not self.qos:
            return inside(self.namespace)
        pod = ["--qos", self.qos, "--name", unique(self.name), "--run-dir", str(self.run_dir)]
        return [*NODEAGENT, "exec", *pod, "--", *inside(self.namespace)]


class Load:
    """One running program; told a word, it answers with figures."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def tell(self, word: str = "count") -> dict[str, float]:
        """The figures since it was told last (`ask`), or since it began."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.line())
        return answer

    def line(self) -> str:
        """Its next line; AssertionError when none comes in time."""
        assert self.process.stdout is not None
        heard, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_S)
        line = self.process.stdout.readline() if heard else ""
        assert line, f"no answer from {self.process.args!r}, status {self.process.poll()}"
        return line.strip()


@contextlib.contextmanager
def load(place: Place, *arguments: object) -> Iterator[Load]:
    """A program of nic_traffic, ready; ended on leaving."""
    words = [*place.words(), sys.executable, "-I", "-S", str(_PROGRAM), *map(str, arguments)]
    with ended(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)) as process:
        started = Load(process)
        assert started.line() == "ready"
        yield started


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End it on leaving: by signal, then by force."""
    try:
        yield process
    finally:
        for end in (process.terminate, process.kill):
            with contextlib.suppress(subprocess.TimeoutExpired):
                end()
                process.wait(TIMEOUT_S)
                break
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def mbit_per_s(before: dict[str, float], after: dict[str, float]) -> float:
    """The rate between two answers of a sink."""
    return (after["bytes"] - before["bytes"]) * 8e-6 / (after["at"] - before["at"])
