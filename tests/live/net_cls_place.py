"""The net_cls hierarchy of cgroup v1, mounted where only a test and what it starts can see it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent.kernel.mounts import find_hierarchies

_CLONE_NEWNS = 0x00020000


@contextmanager
def net_cls(home: Path) -> Iterator[Path]:
    """Its root, and what is started inside sees it too. Cgroups that came to be in it must be gone again.

    The calling thread is in a mount namespace of its own meanwhile, so that nobody else makes cgroups there.
    Skips where the kernel has none.
    """
    before = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    directory = Path.cwd()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.unshare(_CLONE_NEWNS) < 0:
            pytest.skip(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            root = _mounted(home)
            there = _all(root)
            yield root
            assert _all(root) == there
        finally:
            assert libc.setns(before, _CLONE_NEWNS) == 0  # the last one in it: its mounts go
            os.chdir(directory)
    finally:
        os.close(before)


def _mounted(home: Path) -> Path:
    if (found := find_hierarchies().roots.get("net_cls")) is not None:
        return Path(found.root)
    root = home / "net_cls"
    root.mkdir()
    words = ["mount", "-t", "cgroup", "-o", "net_cls", "none", str(root)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no net_cls of cgroup v1 can be mounted: {done.stderr.strip()}")
    return root


def _all(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir()}


def classid(root: Path, path: str) -> int:
    """Of a cgroup in it."""
    return int((root / path / "net_cls.classid").read_text())
