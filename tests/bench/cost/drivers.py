"""Everybody who reads the same pods, ready to be asked for one tick after the other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from nodeagent.kernel.mounts import find_hierarchies
from nodeagent.kernel.reader import NodeReader
from nodeagent.model.pod import Member
from tests.bench.bench_read import Floor, kept_paths, open_fds
from tests.bench.cost import ours
from tests.bench.cost.driver import Driver
from tests.bench.cost.exporter import Exporter

FLOOR = "C: pread of all files, kept open (the floor)"
FLOOR_HOT = "C: the same of two files, read each tick"
FULL, TIERED, SYMPTOMS = (f"nodeagent's reading: {way}" for way in ours.WAYS)
GO, C, PYTHON = (f"koordlet's way, {how}" for how in ("Go", "C: its system calls alone", "Python"))
WCA, CGROUPSPY, PSUTIL = "WCA's way, 8 files", "cgroupspy, 4 files", "psutil, 1 process"
EXPORTER = "node_exporter, a scrape (nothing per pod)"
_HERE = Path(__file__).parent


class Reader(Protocol):
    """What can be asked for a tick."""

    def tick(self) -> float:
        """CPU seconds of one tick."""

    def resident_mib(self) -> float: ...

    def close(self) -> None: ...


@contextmanager
def readers(members: Sequence[Member], missing: dict[str, str]) -> Iterator[dict[str, Reader]]:
    """All of them by name; why one cannot be had is told in `missing`."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="na-bench-")))
        paths = _files(members)
        listing, pods, pids = (directory / name for name in ("files", "pods", "pids"))
        listing.write_text("".join(f"{path}\n" for path in paths))
        pods.write_text("".join(f"{_directories(m)}\n" for m in members))
        pids.write_text("".join(f"{_process(m)}\n" for m in members))
        told = directory / "members"
        told.write_bytes(msgspec.json.encode(tuple(members)))
        python = [sys.executable, "-m", "tests.bench.cost.peers"]
        makers: dict[str, Callable[[], Reader]] = {
            FLOOR: lambda: _FloorReader(paths, directory / "floor"),
            FLOOR_HOT: lambda: _FloorReader(list(filter(_hot, paths)), directory / "hot"),
            **{name: _our(way, told) for name, way in zip((FULL, TIERED, SYMPTOMS), ours.WAYS, strict=True)},
            GO: lambda: Driver([_built("go", directory), str(listing)]),
            C: lambda: Driver([_built("c", directory), str(listing)]),
            PYTHON: lambda: Driver([*python, "koordlet", str(listing)]),
            WCA: lambda: Driver([*python, "wca", str(pods)]),
            CGROUPSPY: lambda: Driver([*python, "cgroupspy", str(pods)]),
            PSUTIL: lambda: Driver([*python, "psutil", str(pids)]),
            EXPORTER: Exporter,
        }
        ready: dict[str, Reader] = {}
        for name, make in makers.items():
            try:
                ready[name] = stack.enter_context(closing(make()))
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                missing[name] = str(error)
        yield ready


class _FloorReader:
    def __init__(self, paths: list[str], directory: Path) -> None:
        directory.mkdir()
        self._floor = Floor(paths, str(directory))
        self.tick, self.close = self._floor.cost_s, self._floor.close

    def resident_mib(self) -> float:
        return 0.0


def _our(way: str, told: Path) -> Callable[[], Driver]:
    return lambda: Driver([sys.executable, "-m", "tests.bench.cost.ours", way, str(told)])


def _files(members: Sequence[Member]) -> list[str]:
    """The files that a full reading keeps open: those that all readers of files read."""
    before = open_fds()
    with closing(NodeReader(symptoms=False)) as reader:
        for at in range(2):  # the parents' files are opened in the second tick
            reader.read(tuple(members), float(at), full=True)
        return kept_paths(before)


def _hot(path: str) -> bool:
    """Of a pod at rest these are read in each tick: whether it waits, and whether it runs."""
    return path.endswith(
        ("/cpu.pressure", "/cpuacct.usage" if "cpuacct" in find_hierarchies().roots else "/cpu.stat")
    )


def _directories(member: Member) -> str:
    roots = find_hierarchies().roots
    return " ".join(f"{name}={at.root}/{member.spec.cgroup}" for name, at in sorted(roots.items()))


def _process(member: Member) -> str:
    return Path(find_hierarchies().walk_root, member.spec.cgroup, "cgroup.procs").read_text().split()[0]


def _built(language: str, directory: Path) -> str:
    """The koordlet driver in this language, compiled; OSError without a compiler."""
    source, program = str(_HERE / f"koordlet.{language}"), str(directory / f"koordlet-{language}")
    if language == "c":
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        words = [compiler, "-O2", "-o", program, source]
    else:
        compiler = shutil.which("go")
        words = [compiler, "build", "-o", program, source]
    if compiler is None:
        raise OSError(
            f"no compiler (Debian: apt-get install {'gcc libc6-dev' if language == 'c' else 'golang-go'})"
        )
    environment = {**os.environ, "GO111MODULE": "off", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    subprocess.run([each or "" for each in words], check=True, capture_output=True, env=environment)
    return program
