"""The programs that serve, load and disturb: those of this machine, else Debian's, unpacked into a cache.

    python -m tests.bench.eval.tools       prints where each one is, or why it cannot be had

Nothing is installed: no maintainer script runs and no service starts; packages are only unpacked, with the
libraries that are not here yet.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGES = {
    "stress-ng": "stress-ng",
    "redis-server": "redis-server",
    "nginx": "nginx",
    "iperf3": "iperf3",
    "ffmpeg": "ffmpeg",
}
EVAL = ("stress-ng", "redis-server", "nginx", "iperf3")
_LIMIT_S = 600.0
_UNPACKED = ("usr/bin", "usr/sbin", "bin", "sbin")


class Tools(NamedTuple):
    """Where the programs are, the directories of libraries they need, and why others are missing."""

    programs: dict[str, Path]
    libraries: tuple[Path, ...]
    missing: dict[str, str]

    def path(self, name: str) -> str:
        """The program as a word of a command; KeyError for one that is missing."""
        return str(self.programs[name])

    def environment(self) -> dict[str, str]:
        """The environment that these programs find their libraries in."""
        if not self.libraries:
            return dict(os.environ)
        return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, self.libraries))}


@cache
def tools(cache_dir: Path | None = None, names: tuple[str, ...] = EVAL, place: str = "eval-tools") -> Tools:
    """The programs of PACKAGES that are named, as far as they can be had; asked once by a process.

    What is not installed is unpacked into the directory `place` of the cache.
    """
    installed = {name: path for name in names if (path := _installed(name))}
    wanted = [name for name in names if name not in installed]
    if not wanted:
        return Tools(installed, (), {})
    home = cache_dir or cache_home()
    try:
        _fill(home, home / place, wanted)
    except (OSError, subprocess.SubprocessError) as error:
        return Tools(installed, (), {name: f"apt-get install {PACKAGES[name]} ({error})" for name in wanted})
    found = {name: path for name in wanted if (path := _unpacked(home / place, name))}
    missing = {name: f"apt-get install {PACKAGES[name]}" for name in wanted if name not in found}
    shared = (path for top in ("lib", "usr/lib") for path in (home / place).glob(f"{top}/**/*.so*"))
    libraries = tuple(sorted({path.parent for path in shared}))
    return Tools({**installed, **found}, libraries, missing)


def cache_home() -> Path:
    """Where what is fetched for tests and benches is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nodeagent-tests")


def _installed(name: str) -> Path | None:
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return Path(found) if found else None


def _unpacked(place: Path, name: str) -> Path | None:
    return next((path for where in _UNPACKED if (path := place / where / name).exists()), None)


def _fill(home: Path, place: Path, wanted: Sequence[str]) -> None:
    """Make `place`, as a whole or not at all; OSError or SubprocessError when Debian's tools do not."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "eval-lock").open("w") as lock, tempfile.TemporaryDirectory(dir=home) as made:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all(_unpacked(place, name) for name in wanted):
            return
        print(f"fetching {', '.join(wanted)} into {place} ...", file=sys.stderr)
        packages = needed_packages(_said("apt-get", "-s", "-o", "Debug::NoLocking=1",
                                         "--no-install-recommends", "install",
                                         *(PACKAGES[name] for name in wanted)))  # fmt: skip
        _said("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *packages, cwd=made)
        into = Path(made, "unpacked")
        into.mkdir()
        for package in sorted(Path(made).glob("*.deb")):
            _said("dpkg", "-x", str(package), str(into))
        if place.exists():
            shutil.rmtree(place)
        into.rename(place)


def needed_packages(simulated: str) -> list[str]:
    """The packages that `apt-get -s install` would install."""
    return re.findall(r"^Inst (\S+) ", simulated, re.MULTILINE)


def _said(*words: str, cwd: str | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no answer"]
        raise subprocess.SubprocessError(f"{words[0]}: {lines[-1]}")
    return done.stdout


def main() -> int:
    """Print what is here; 1 when something is missing."""
    had = tools()
    for name in EVAL:
        print(f"{name:<14} {had.programs.get(name) or 'MISSING: ' + had.missing[name]}")
    return 1 if had.missing else 0


if __name__ == "__main__":
    sys.exit(main())
