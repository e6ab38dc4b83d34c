"""This checkout as a guest can take it offline: its wheel, and the packages it needs, for Debian's Python.

Invariant: the guest gets what requirements.lock pins, by its hashes, and no network.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.vm.guest import Guest
from tests.vm.host import VmError, cache_dir, say, sh
from tests.vm.machine import Mount

ROOT = Path(__file__).resolve().parents[2]
GUEST_PYTHON = "3.11"  # Debian 12's
PACKAGES_DIR = f"/usr/local/lib/python{GUEST_PYTHON}/dist-packages"
SOURCE_DIR = "/root/nodeagent"
# What only checks or builds the source; a guest runs it.
BUILD_TOOLS = re.compile(
    r"ast-serialize|buf-bin|grimp|grpcio-tools|hatchling|import-linter|librt|mypy|mypy-extensions|pathspec|ruff"
    r"|setuptools|tomlkit|trove-classifiers|types-.*"
)
# The first clsact of a machine and its last patch the kernel's code (ingress_needed_key in net/core/dev.c).
# When packets come in meanwhile, an emulated CPU may run the old text for ever, so one is always there.
INSTALL = f"""set -e
tc qdisc add dev lo clsact
cd {SOURCE_DIR}
python3 -m pip install --quiet --no-index --no-deps --break-system-packages \
    --root-user-action ignore --disable-pip-version-check dist/*.whl
sh systemd/install.sh service
"""


def mounts(work: Path) -> tuple[Mount, ...]:
    """What a machine needs to `install` this checkout; `work` is a directory that lives until it is up."""
    return (Mount(packages_tar(), PACKAGES_DIR), Mount(_source(work), SOURCE_DIR))


def install(guest: Guest) -> None:
    """The wheel, as a user would install it, and the units; VmError when that fails."""
    if guest.run(["sh", "-c", INSTALL], 300.0, out=sys.stderr.buffer):
        raise VmError("installing the wheel in the guest failed")


def _source(work: Path) -> Path:
    """A directory with the wheel and what is tested beside it."""
    source = work / "source"
    for name in ("tests", "systemd"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", source)
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(source / "dist")]
    built = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    if built.returncode:  # our fault, not the machine's: no VmError
        raise SystemExit(f"vm: the wheel cannot be built:\n{built.stderr[-3000:]}")
    return source


def wanted(lock: str) -> str:
    """The entries of requirements.lock that a guest runs, with their hashes."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", lock)[1:]
    return "".join(entry for entry in entries if not BUILD_TOOLS.fullmatch(entry.partition("==")[0]))


def packages_tar() -> Path:
    """The locked packages with their compiled files, as a tar in the cache; made when the lock changes."""
    entries = wanted((ROOT / "requirements.lock").read_text())
    cache = cache_dir()
    tar = cache / f"packages-{hashlib.sha256(entries.encode()).hexdigest()[:12]}.tar"
    if not tar.exists():
        say("fetching the packages of requirements.lock for the guest ...")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as work:
            _fetch(entries, Path(work))
            made = Path(work, "made.tar")
            sh("tar", "-C", Path(work, "packages"), "-cf", made, ".")
            made.rename(tar)
    return tar


def _fetch(entries: str, work: Path) -> None:
    (work / "requirements.txt").write_text(entries)
    argv = [*_installer(), "--require-hashes", "--no-deps", "--python-version", GUEST_PYTHON]
    argv += ["--target", str(work / "packages"), "--requirement", str(work / "requirements.txt")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise VmError(f"cannot fetch the packages for the guest:\n{done.stderr[-3000:]}")
    _compile(work / "packages")


def _installer() -> Iterable[str]:
    """uv where it is (its virtualenvs have no pip), else this Python's pip."""
    uv = shutil.which("uv")
    quiet = ("install", "--quiet")
    return (uv, "pip", *quiet) if uv else (sys.executable, "-m", "pip", *quiet, "--disable-pip-version-check")


def _compile(packages: Path) -> None:
    """Compiled here, where the Python is the guest's: there, it would take half a minute."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == GUEST_PYTHON:
        argv = [sys.executable, "-m", "compileall", "-q", "-j", "0", str(packages)]
        subprocess.run(argv, capture_output=True, check=False)  # a file that does not compile is not needed
