"""This machine: its tools, where images are kept, and what is said to whoever started us."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
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
