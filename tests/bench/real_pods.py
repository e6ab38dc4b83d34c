"""Real cgroups with a living process in each, in every hierarchy that is read; made and removed here."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.model.pod import Member, PodSpec, Qos

SLEEPERS = Path(__file__).with_name("sleepers.py")
_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids")


@contextlib.contextmanager
def real_pods(count: int, active_ratio: float = 0.1, wake_ms: int = 50) -> Iterator[tuple[Member, ...]]:
    """`count` pods na-bench-PID/podN; this share of them wakes up every `wake_ms`."""
    places = find_hierarchies()
    name = f"na-bench-{os.getpid()}-{time.monotonic_ns()}"
    roots = _roots(places)
    helper: subprocess.Popen[str] | None = None
    try:
        for root in roots:
            (Path(root) / name).mkdir()
        _delegate(places, name)
        for root in roots:
            for number in range(count):
                (Path(root) / name / f"pod{number}").mkdir()
        helper = _inhabited(roots, name, count, active_ratio, wake_ms)
        yield tuple(_member(places, f"{name}/pod{number}", number) for number in range(count))
    finally:
        if helper is not None:
            helper.communicate()  # the end of its input is the end of its children
        for root in roots:
            _remove(Path(root) / name)


def _roots(places: Hierarchies) -> list[str]:
    roots = [places.roots[name].root for name in _CONTROLLERS if name in places.roots]
    return list(dict.fromkeys([places.walk_root, *roots, *([places.unified] if places.unified else [])]))


def _delegate(places: Hierarchies, name: str) -> None:
    """On v2, let our own cgroup pass its controllers on."""
    if places.unified is None:
        return
    own = Path(places.unified) / name
    for controller in (own / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (own / "cgroup.subtree_control").write_text(f"+{controller}")


def _inhabited(
    roots: list[str], name: str, count: int, active_ratio: float, wake_ms: int
) -> subprocess.Popen[str]:
    command = [sys.executable, "-I", "-S", str(SLEEPERS)]
    helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert helper.stdin is not None
    assert helper.stdout is not None
    active = round(count * active_ratio)
    for number in range(count):
        directories = " ".join(f"{root}/{name}/pod{number}" for root in roots)
        helper.stdin.write(f"{wake_ms if number < active else 0} {directories}\n")
    helper.stdin.write("\n")
    helper.stdin.flush()
    answer = helper.stdout.readline().strip()
    if answer != "ready":
        helper.communicate()
        raise RuntimeError(f"the benchmark's processes did not start: {answer or 'no answer'}")
    return helper


def _member(places: Hierarchies, cgroup: str, number: int) -> Member:
    inode = os.stat(f"{places.walk_root}/{cgroup}").st_ino
    qos = (Qos.LS, Qos.MID, Qos.LS, Qos.BATCH)[number % 4]
    spec = PodSpec(uid=cgroup, name=f"pod{number}", cgroup=cgroup, inode=inode, qos=qos, source="rule")
    return Member(spec)


def _remove(directory: Path) -> None:
    """A cgroup stays busy until its last process has been reaped."""
    for path in sorted(directory.glob("*/"), reverse=True) + [directory]:
        for _ in range(100):
            try:
                path.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)
