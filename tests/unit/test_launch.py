"""What of `nodeagent exec` needs no cgroup; the rest is in tests/live/test_exec.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nodeagent.model.errors import Failed
from nodeagent.model.pod import Qos
from nodeagent.pods.claims import NAME
from nodeagent.pods.launch import _default_name, launch


def test_exec_imports_nothing_that_is_slow_to_start() -> None:
    code = "import sys, nodeagent.pods.launch; print(*{name.partition('.')[0] for name in sys.modules})"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    heavy = {
        "grpc",
        "google",
        "structlog",
        "prometheus_client",
        "psutil",
        "pyroute2",
        "rich",
        "inotify_simple",
    }
    assert not heavy & set(done.stdout.split())
    assert "asyncio" not in done.stdout.split()


@pytest.mark.parametrize(
    "program", ["/usr/bin/sort", "./--odd name", "...", "", "ä" * 90, "x" * 300, "/a/b/"]
)
def test_the_default_name_is_always_a_name(program: str) -> None:
    assert NAME.fullmatch(_default_name(program))


def test_misuse_has_the_exit_code_of_usage_and_says_what_is_right(tmp_path: Path) -> None:
    for options in ({"name": "a/b"}, {"cpus": float("nan")}, {"cpus": 0.0}, {"memory": -1}):
        with pytest.raises(Failed) as caught:
            launch(["true"], qos=Qos.BATCH, run_dir=str(tmp_path), **options)
        assert caught.value.exit_code == 2
        assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
