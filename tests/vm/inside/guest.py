"""What tests of a throw-away machine share: they change the machine itself, so they run nowhere else."""

from __future__ import annotations

import os
import subprocess

import pytest

ONLY_HERE = [
    pytest.mark.live,
    pytest.mark.skipif(
        os.environ.get("NODEAGENT_TEST_VM") != "1",
        reason="changes the machine itself (units, CPUs): only in a throw-away one, by make vm-test",
    ),
]


def output(*command: str) -> str:
    """What a command says; CalledProcessError when it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
