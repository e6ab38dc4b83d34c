"""nodeagent-pmu.conf under systemd: one right more, and a word about what there is to count with."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.kernel import probe
from tests.live.running import executed, unique, until
from tests.vm.inside.guest import ONLY_HERE, output

pytestmark = ONLY_HERE
RUN_DIR = Path("/run/nodeagent")
ADMIN = Path("/etc/systemd/system/nodeagent.service.d")
# linux/capability.h
DAC_OVERRIDE, SYS_PTRACE, SYS_NICE, SYS_RESOURCE, PERFMON = 1, 19, 23, 24, 38
UNIT = {DAC_OVERRIDE, SYS_PTRACE, SYS_NICE, SYS_RESOURCE}


PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


@pytest.fixture
def cursor() -> Iterator[str]:
    """The journal's end; afterwards the unit is as it was installed, and at rest."""
    found = re.search(r"-- cursor: (.*)", output("journalctl", "--lines=0", "--show-cursor"))
    assert found is not None
    paranoid = PARANOID.read_text()
    yield found[1]
    output("systemctl", "stop", "nodeagent")
    (ADMIN / "pmu.conf").unlink(missing_ok=True)
    PARANOID.write_text(paranoid)
    output("systemctl", "daemon-reload")


def installed() -> str:
    """The command that the drop-in itself tells to install it by."""
    text = Path("/usr/local/share/nodeagent/nodeagent-pmu.conf").read_text()
    (line,) = (each for each in text.splitlines() if each.startswith("#   install "))
    return line.removeprefix("#").strip()


def bounding() -> set[int]:
    main = output("systemctl", "show", "--property", "MainPID", "--value", "nodeagent")
    found = re.search(r"CapBnd:\s+(\w+)", Path("/proc", main, "status").read_text())
    assert found is not None
    return {bit for bit in range(64) if int(found[1], 16) >> bit & 1}


def said(cursor: str, name: str) -> list[dict[str, str]]:
    words = ("--unit=nodeagent", "--output=cat", "--no-pager", f"--after-cursor={cursor}")
    lines = (line for line in output("journalctl", *words).splitlines() if line.startswith("{"))
    return [event for line in lines if (event := json.loads(line))["event"] == name]


def test_without_the_drop_in_the_unit_may_not_count_and_asks_for_nothing(cursor: str) -> None:
    output("systemctl", "start", "nodeagent")
    assert bounding() == UNIT
    (told,) = said(cursor, "pmu.off")
    assert "filtered out" in told["why"] and "nodeagent-pmu.conf" in told["hint"]


def started() -> None:
    subprocess.run(["sh", "-ec", installed()], check=True)
    output("systemctl", "daemon-reload")
    output("systemctl", "start", "nodeagent")


def test_where_the_kernel_wants_more_the_word_is_what_to_set(cursor: str) -> None:
    PARANOID.write_text("3")
    started()
    wants = [told["hint"] for told in said(cursor, "pmu.off") if "Permission denied" in told["why"]]
    assert all("kernel.perf_event_paranoid" in hint for hint in wants)
    assert wants or probe.pmu_error() is not None, "only Debian's and Ubuntu's kernels know 3"


def test_with_the_drop_in_it_may_count_and_says_what_there_is_to_count_with(cursor: str) -> None:
    PARANOID.write_text("2")
    started()
    assert bounding() == UNIT | {PERFMON}
    found = said(cursor, "pmu.off")
    name = unique("counted")
    with executed(RUN_DIR, "ls", name, "sleep 3600"):
        told = cpi(name)
    if probe.pmu_error() is None:
        assert found == [] and told != "not supported"
        return
    assert [each["why"].startswith("perf event 0:0 on CPU ") for each in found] == [True]
    assert not re.search(r"permi|refuse", found[0]["why"], re.IGNORECASE), "the right is there"
    assert told == "not supported"


def cpi(name: str) -> str:
    """What the agent explains of the pod's cycles per instruction."""
    values: list[str] = []

    def known() -> bool:
        words = ("nodeagent", "explain", "-o", "json", name)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            signs = (r for r in json.loads(done.stdout)["reasons"] if r["name"] == "signs")
            values[:] = [i["value"] for r in signs for i in r["inputs"] if i["name"] == "cpi"]
        return bool(values)

    until(known, "the pod's signs")
    return values[0]
