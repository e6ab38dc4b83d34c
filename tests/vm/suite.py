"""`make vm-test`: the live tests inside guests, one boot for each kind of machine, and what came out."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.vm import project
from tests.vm.boot import booted
from tests.vm.host import VmError, say
from tests.vm.machine import Machine

INSIDE = "tests/vm/inside"  # what makes sense only in a guest
FULL = ("tests/live", INSIDE)
CORE = (
    *(
        f"tests/live/test_{part}.py"
        for part in ("agent", "cpusets_agent", "host", "knobs", "pages", "place", "reading", "restrained")
    ),
    *(
        f"{INSIDE}/test_{part}.py"
        for part in ("machine", "nics", "placed", "pmu", "service", "systemd", "unit")
    ),
)
PLACING = (
    "tests/live/test_cpusets_agent.py",
    *(f"{INSIDE}/test_{n}.py" for n in ("hotplug", "machine", "pages", "placed")),
)
# Repetition: what it adds does not depend on the machine. In short, of units, service and NICs some tests.
ONCE = "not kills and not mid_trial"
SHORT = (
    f"{ONCE} and (not test_systemd or reloads_undo or without_the_socket)"
    " and (not test_nics or two_nics or takes_it_over or without_the_drop)"
    " and (not test_service or hangs or member)"
)


@dataclass(frozen=True)
class Kind:
    """What is changed of the machine that was asked for, and the tests that it runs."""

    changes: Mapping[str, Any]
    tests: tuple[str, ...]
    chosen: str = ONCE


KINDS = {
    "v2": Kind({"cgroup": "v2"}, FULL, ""),
    "v1": Kind({"cgroup": "v1"}, FULL),
    "hybrid": Kind({"cgroup": "hybrid"}, FULL),
    "4-nodes": Kind({"cgroup": "v2", "nodes": 4, "cores": 1, "threads": 2}, PLACING),
    "odd-nodes": Kind({"cgroup": "v2", "memoryless": 1, "cpuless": 1}, PLACING),
}
ENVIRONMENT = {"NODEAGENT_TEST_SLOWNESS": "20", "NODEAGENT_TEST_VM": "1"}
TEST_TIMEOUT_S = 900
TESTS_FAILED = 1  # of pytest: not that it could not run them
BOOT_LIMIT_S = 3600.0


@dataclass(frozen=True)
class Result:
    """One boot: pytest's exit code, its last line, and how long what took."""

    kind: str
    code: int
    said: str
    boot_s: float
    install_s: float
    tests_s: float

    def __str__(self) -> str:
        times = f"boot {self.boot_s:.0f} s, install {self.install_s:.0f} s, tests {self.tests_s:.0f} s"
        return f"{self.kind:9} {'ok    ' if self.code == 0 else 'FAILED'} {self.said} ({times})"


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


def pytest_argv(tests: Sequence[str], chosen: str, more: Sequence[str]) -> list[str]:
    """The command in the guest; `chosen` is an expression over names, `more` is for pytest."""
    fixed = (f"--timeout={TEST_TIMEOUT_S}", "--durations=10")
    return ["python3", "-m", "pytest", *fixed, *tests, *(("-k", chosen) if chosen else ()), *more]


def run(machine: Machine, kinds: Sequence[str], short: bool, more: Sequence[str]) -> int:
    """Boot, install, test for each kind; 0 when all passed, VmError for a kind that there is not."""
    if unknown := set(kinds) - set(KINDS):
        raise VmError(f"no {', '.join(sorted(unknown))}; there are: {', '.join(KINDS)}")
    begin = time.monotonic()
    results = [_one(machine, kind, short, more) for kind in kinds]
    print("\n" + "\n".join(str(result) for result in results), flush=True)
    say(f"altogether {time.monotonic() - begin:.0f} s")
    return int(any(result.code for result in results))  # 124 and more would be the machine's


def _one(machine: Machine, name: str, short: bool, more: Sequence[str]) -> Result:
    kind = KINDS[name]
    argv = pytest_argv(CORE, SHORT, more) if short else pytest_argv(kind.tests, kind.chosen, more)
    begin, output = time.monotonic(), LastLine()
    with tempfile.TemporaryDirectory(prefix="nodeagent-vm-") as work:
        mounts = (*machine.mounts, *project.mounts(Path(work)))
        machine = replace(machine, mounts=mounts, **kind.changes)
        with booted(machine) as guest:
            up = time.monotonic()
            try:
                project.install(guest)
            except VmError as error:  # ours, not the machine's
                return Result(name, 1, str(error), up - begin, time.monotonic() - up, 0.0)
            installed = time.monotonic()
            code = guest.run(argv, BOOT_LIMIT_S, ENVIRONMENT, project.SOURCE_DIR, output)
            if code == TESTS_FAILED:
                say("once more what failed: time in a guest stands still when its host is busy")
                code = guest.run(
                    [*argv, "--last-failed"], BOOT_LIMIT_S, ENVIRONMENT, project.SOURCE_DIR, output
                )
    done = time.monotonic()
    return Result(name, code, output.text, up - begin, installed - up, done - installed)
