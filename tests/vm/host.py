"""This machine: its tools, where images are kept, and what is said to whoever started us."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "depmod": "kmod",
    "apt-get": "apt",
    "tar": "tar",
    "timeout": "coreutils",
}


class VmError(Exception):
    """The machine or this harness failed (exit code 125), not the command in the guest."""


def say(text: str) -> None:
    """One line to stderr; stdout is the guest's."""
    print(f"vm: {text}", file=sys.stderr, flush=True)


def need(*tools: str) -> None:
    """VmError, with the Debian packages to install, unless all tools are there."""
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        packages = sorted({PACKAGES[tool] for tool in missing})
        raise VmError(f"{', '.join(missing)} not found. Install: apt-get install {' '.join(packages)}")


def sh(*argv: str | Path, cwd: Path | None = None) -> str:
    """The output of a command; VmError with the end of what it said when it fails."""
    done = subprocess.run([str(word) for word in argv], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VmError(f"{argv[0]} failed ({done.returncode}):\n{done.stderr[-3000:]}")
    return done.stdout


def counter_khz(span_s: float = 0.2) -> int | None:
    """The rate of this CPU's time stamp counter, which is an emulated machine's too; None if there is none.

    A guest that boots while this machine is busy gets it wrong by up to a factor of ten, and then its clock.
    """
    if platform.machine() != "x86_64":
        return None
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\xc3")  # rdtsc; shl rdx, 32; or rax, rdx; ret
        code = ctypes.c_char.from_buffer(page)
        counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(code))
        ticks, at_ns = _instant(counter)
        time.sleep(span_s)
        later, later_ns = _instant(counter)
        del code, counter  # the page cannot be closed before
    return round((later - ticks) * 1e6 / (later_ns - at_ns))


def cache_dir() -> Path:
    """Where images are kept: NODEAGENT_VM_CACHE, else below XDG_CACHE_HOME. Delete it to renew them."""
    given = os.environ.get("NODEAGENT_VM_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home, "nodeagent-vm")


def make_image(folder: Path, image: Path, spare_mib: int) -> None:
    """A sparse ext4 image of the folder, with room to spare; mounts nothing, so it needs no root."""
    used_mib = sum(file.lstat().st_blocks for file in folder.rglob("*")) >> 11
    options = ("-q", "-t", "ext4", "-O", "^metadata_csum", "-E", "lazy_itable_init=1")
    sh("mke2fs", *options, "-d", folder, image, f"{used_mib * 5 // 4 + spare_mib}M")


def _instant(counter: Callable[[], int]) -> tuple[int, int]:
    """Counter and nanoseconds, read with as little in between as can be."""
    tries = [(time.monotonic_ns(), counter(), time.monotonic_ns()) for _ in range(20)]
    began, ticks, ended = min(tries, key=lambda read: read[2] - read[0])
    return ticks, (began + ended) // 2
