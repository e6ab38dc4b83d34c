"""`make vm-test`: the live tests inside a guest, one boot for each cgroup mode, and what came out.

All run what makes sense only in a guest (tests/vm/inside), v2 also all of tests/live, the others their core.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.vm import project
from tests.vm.boot import booted
from tests.vm.host import say
from tests.vm.machine import Machine

MODES = ("v2", "v1", "hybrid")
CORE = (
    *(f"tests/live/test_{part}.py" for part in ("agent", "host", "knobs", "pages", "place", "reading")),
    "tests/vm/inside",
)
FULL = ("tests/live", "tests/vm/inside")
# Repetition: what it adds to the core does not depend on the mode.
NOT_IN_CORE = "not fifty_kills"
ENVIRONMENT = {"NODEAGENT_TEST_SLOWNESS": "20", "NODEAGENT_TEST_VM": "1"}
TEST_TIMEOUT_S = 900
BOOT_LIMIT_S = 3600.0


@dataclass(frozen=True)
class Result:
    """One boot: pytest's exit code, its last line, and how long what took."""

    mode: str
    code: int
    said: str
    boot_s: float
    install_s: float
    tests_s: float

    def __str__(self) -> str:
        times = f"boot {self.boot_s:.0f} s, install {self.install_s:.0f} s, tests {self.tests_s:.0f} s"
        return f"{self.mode:6} {'ok    ' if self.code == 0 else 'FAILED'} {self.said} ({times})"


@dataclass
class LastLine:
    """Passes output on as it comes, and keeps its last line."""

    tail: bytes = field(default=b"")

    def write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        self.tail = (self.tail + data)[-2000:]

    def flush(self) -> None:
        sys.stdout.buffer.flush()

    @property
    def text(self) -> str:
        """Without colours and the bars around it."""
        lines = re.sub(rb"\x1b\[[0-9;]*m", b"", self.tail).decode(errors="replace").split("\n")
        return next((line.strip("= \r") for line in reversed(lines) if line.strip()), "said nothing")


def pytest_argv(core: bool, more: Sequence[str]) -> list[str]:
    """The command in the guest; `more` is for pytest."""
    chosen = [*CORE, "-k", NOT_IN_CORE] if core else [*FULL]
    fixed = [
        "python3",
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        f"--timeout={TEST_TIMEOUT_S}",
        "--durations=10",
    ]
    return [*fixed, *chosen, *more]


def run(machine: Machine, modes: Sequence[str], short: bool, more: Sequence[str]) -> int:
    """Boot, install, test for each mode (in the place of the machine's own); 0 when all passed."""
    begin = time.monotonic()
    results = [_one(replace(machine, cgroup=mode), short or mode != "v2", more) for mode in modes]
    print("\n" + "\n".join(str(result) for result in results), flush=True)
    say(f"altogether {time.monotonic() - begin:.0f} s")
    return max(result.code for result in results)


def _one(machine: Machine, core: bool, more: Sequence[str]) -> Result:
    begin, output = time.monotonic(), LastLine()
    with tempfile.TemporaryDirectory(prefix="nodeagent-vm-") as work:
        machine = replace(machine, mounts=(*machine.mounts, *project.mounts(Path(work))))
        with booted(machine) as guest:
            up = time.monotonic()
            project.install(guest)
            installed = time.monotonic()
            argv = pytest_argv(core, more)
            code = guest.run(argv, BOOT_LIMIT_S, ENVIRONMENT, project.SOURCE_DIR, output)
    done = time.monotonic()
    return Result(machine.cgroup, code, output.text, up - begin, installed - up, done - installed)
