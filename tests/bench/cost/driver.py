"""A program that does its work once for each line it is given, and says so: one tick, timed from outside."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.cost import clock

ROOT = Path(__file__).resolve().parents[3]


class Driver:
    """One such program, ready; `close` it. RuntimeError when it does not start or ends."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._answer = self._process.stdin, self._process.stdout
        self._heard("ready")

    def tick(self) -> float:
        """CPU seconds of one tick."""
        before = clock.cpu_s(self._process.pid)
        self._ask.write("\n")
        self._ask.flush()
        self._heard("done")
        return clock.cpu_s(self._process.pid) - before

    def resident_mib(self) -> float:
        return clock.resident_mib(self._process.pid)

    def close(self) -> None:
        """The end of its input is its end."""
        self._process.communicate()

    def _heard(self, word: str) -> None:
        said = self._answer.readline().strip()
        if said != word:
            self.close()
            raise RuntimeError(f"{self._process.args!r} said {said!r}, not {word!r}")
