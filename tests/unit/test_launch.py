"""What of `nodeagent exec` needs no cgroup; the rest is in tests/live/test_exec.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

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
        "cgroupspy",
    }
    assert not heavy & set(done.stdout.split())
    assert "asyncio" not in done.stdout.split()


@pytest.mark.parametrize(
    "program", ["/usr/bin/sort", "./--odd name", "...", "", "ä" * 90, "x" * 300, "/a/b/"]
)
def test_the_default_name_is_always_a_name(program: str) -> None:
    assert NAME.fullmatch(_default_name(program))


def test_misuse_has_the_exit_code_of_usage_and_says_what_is_right(tmp_path: Path) -> None:
    limits = ({"cpu_limit": 0.001}, {"cpu_limit": float("nan")}, {"cpu_limit": 1.0, "cpus": 2.0})
    for options in ({"name": "a/b"}, {"cpus": float("nan")}, {"cpus": 0.0}, {"memory": -1}, *limits):
        with pytest.raises(Failed) as caught:
            launch(["true"], qos=Qos.BATCH, run_dir=str(tmp_path), **options)
        assert caught.value.exit_code == 2
        assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"exclusive": True}, "--exclusive says how to bind"),
        ({"near": "eth0"}, "--near says how to bind"),
        ({"numa_bind": True}, "bind to how many cores"),
        ({"numa_bind": True, "cpus": 2.0, "near": "a b"}, "--near 'a b': not the name of a NIC"),
        ({"numa_bind": True, "cpus": 2.0, "qos": Qos.MID}, "a mid pod cannot be bound"),
        ({"numa_bind": True, "exclusive": True, "qos": Qos.BATCH}, "a batch pod cannot be bound"),
    ],
)
def test_what_is_asked_of_numa_must_go_together(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(Failed, match=said) as caught:
        launch(["true"], **{"qos": Qos.LS, "run_dir": str(tmp_path), **options})
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
