"""Real cgroups with a living process in each, in every hierarchy that is read; made and removed here."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from nodeagent.kernel.mounts import Hierarchies, find_hierarchies
from nodeagent.model.pod import Member, PodSpec, Qos
from tests.bench.inhabited import inhabited

_CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio")


@contextlib.contextmanager
def real_pods(
    count: int, active_ratio: float = 0.1, wake_ms: int = 50, *, own_netns: bool = False
) -> Iterator[tuple[Member, ...]]:
    """`count` pods na-bench-PID/podN; this share of them wakes up every `wake_ms`."""
    places = find_hierarchies()
    name = f"na-bench-{os.getpid()}-{time.monotonic_ns()}"
    roots = _roots(places)
    active = round(count * active_ratio)
    try:
        for root in roots:
            (Path(root) / name).mkdir()
        _delegate(places, name)
        for root in roots:
            for number in range(count):
                (Path(root) / name / f"pod{number}").mkdir()
        homes = [
            (wake_ms if number < active else 0, [f"{root}/{name}/pod{number}" for root in roots])
            for number in range(count)
        ]
        with inhabited(homes, own_netns=own_netns):
            yield tuple(_member(places, f"{name}/pod{number}", number) for number in range(count))
    finally:
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


def _member(places: Hierarchies, cgroup: str, number: int) -> Member:
    inode = os.stat(f"{places.walk_root}/{cgroup}").st_ino
    qos = (Qos.LS, Qos.MID, Qos.LS, Qos.BATCH)[number % 4]
    spec = PodSpec(uid=cgroup, name=f"pod{number}", cgroup=cgroup, inode=inode, qos=qos, source="rule")
    return Member(spec)


def _remove(directory: Path) -> None:
    """A cgroup stays busy until its last process has been reaped."""
    for path in [*directory.glob("*/"), directory]:
        for _ in range(100):
            try:
                path.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.02)
