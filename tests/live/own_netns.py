"""A network namespace for a test, which is that of the calling thread meanwhile and ends with it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_CLONE_NEWNET = 0x40000000


@contextmanager
def own_netns(loopback: bool = True) -> Iterator[None]:
    """In a new network namespace; what is started inside has it too. Skips where there can be none.

    Without `loopback` nothing is up in it: it has not one route.
    /proc/self/ns/net of a main thread is this one. Nothing outside can see it, and it has no name to leak.
    """
    for tool in ("ip", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on this host")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.unshare(_CLONE_NEWNET) < 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            if loopback:
                ip("link set lo up")
            yield
        finally:
            assert libc.setns(before, _CLONE_NEWNET) == 0
    finally:
        os.close(before)


def ip(*commands: str, pid: int | None = None) -> None:
    """Commands of ip(8), here or where the process is; CalledProcessError when one is refused."""
    inside = [] if pid is None else ["nsenter", "--net", f"--target={pid}"]
    subprocess.run([*inside, "ip", "-batch", "-"], input="\n".join(commands).encode(), check=True)
