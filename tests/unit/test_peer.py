"""In which cgroup a process is: our own, one that has ended, one that is not told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nodeagent.kernel.mounts import Hierarchy, find_hierarchies
from nodeagent.kernel.peer import cgroup_of
from nodeagent.model.errors import Unsupported


def test_a_process_is_where_proc_says_in_the_hierarchy_asked_for() -> None:
    try:
        found = find_hierarchies("/")
    except Unsupported as error:
        pytest.skip(str(error))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with open(f"/proc/{process.pid}/cgroup", encoding="utf-8") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
        for at in found.all:
            told = cgroup_of(process.pid, at)
            ours = [
                path
                for number, names, path in lines
                if (number == "0" if at.version == 2 else at.controllers & set(names.split(",")))
            ]
            assert told == (ours[0].strip("/") if ours and not ours[0].startswith("/..") else "")
        process.communicate(b"\n", timeout=30.0)
    assert all(cgroup_of(process.pid, at) == "" for at in found.all)


def test_a_process_that_is_not_told_is_nowhere() -> None:
    assert cgroup_of(0, Hierarchy(2, "/sys/fs/cgroup")) == ""
    assert cgroup_of(-1, Hierarchy(2, "/sys/fs/cgroup")) == ""
