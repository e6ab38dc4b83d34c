"""What online and Batch pods use and Batch's quota, every few milliseconds, and how fast Batch gives way."""

from __future__ import annotations

import bisect
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nodeagent.kernel.mounts import Hierarchies
from tests.bench.colocate.runs import Moment, Reaction

EVERY_S = 0.01
BEFORE_S = 3.0  # a surge is compared with so long before it
LEAST_FALL_RATIO = 0.05  # of the node's CPUs: less is no pushing back
LOWER_RATIO = 0.98  # of the quota that there was
SLICE_S = 0.25  # of the line that is kept


class Sample(NamedTuple):
    """At this CLOCK_MONOTONIC second: CPU seconds used so far, Batch's quota in cores (None: no limit)."""

    at: float
    online_s: float
    batch_s: float
    quota: float | None


class Sampler:
    """Keeps what it reads open; `close` it. A cgroup that is not there uses nothing and has no quota."""

    def __init__(self, hierarchies: Hierarchies, online: str, batch: str) -> None:
        roots = hierarchies.roots
        v1 = "cpuacct" in roots
        root, use = (roots["cpuacct"].root, "cpuacct.usage") if v1 else (roots["cpu"].root, "cpu.stat")
        self._used = _nanoseconds if v1 else _usage_usec
        self._files = [_opened(Path(root, cgroup, use)) for cgroup in (online, batch)]
        cpu = roots["cpu"]
        self._quota = _cfs(Path(cpu.root, batch)) if cpu.version == 1 else _max(Path(cpu.root, batch))
        self.samples: list[Sample] = []

    def look(self) -> None:
        """One more."""
        online, batch = (0.0 if file is None else self._used(os.pread(file, 64, 0)) for file in self._files)
        self.samples.append(Sample(time.monotonic(), online, batch, self._quota()))

    def close(self) -> None:
        """Before the cgroups go."""
        for file in self._files:
            if file is not None:
                os.close(file)


def reaction(samples: Sequence[Sample], surge_at: float, length_s: float, cpus: int) -> Reaction:
    """How long after this surge Batch was pushed back; times in the record are CLOCK_MONOTONIC seconds."""
    end = surge_at + length_s
    fallen = _fallen(samples, surge_at, end, LEAST_FALL_RATIO * cpus)
    return Reaction(surge_at, _since(surge_at, fallen), _since(surge_at, _lowered(samples, surge_at, end)))


def line(samples: Sequence[Sample], begin: float, end: float) -> Iterator[Moment]:
    """The window in slices."""
    inside = [one for one in samples if begin <= one.at <= end]
    if not inside:
        return
    last = inside[0]
    for one in inside:
        if (dt_s := one.at - last.at) >= SLICE_S:
            online, batch = (one.online_s - last.online_s) / dt_s, (one.batch_s - last.batch_s) / dt_s
            yield Moment(round(one.at - begin, 3), round(online, 3), round(batch, 3), one.quota)
            last = one


def _fallen(samples: Sequence[Sample], surge_at: float, end: float, least_cores: float) -> float | None:
    """When Batch's use fell: the instant that best parts it into two constant ones (least squares)."""
    first = bisect.bisect_left(samples, surge_at - BEFORE_S, key=_at)
    last = bisect.bisect_right(samples, end, key=_at) - 1
    best, found = 0.0, None
    for one in samples[first + 1 : last]:
        if one.at >= surge_at:
            before_s, after_s = one.at - samples[first].at, samples[last].at - one.at
            before = (one.batch_s - samples[first].batch_s) / before_s
            after = (samples[last].batch_s - one.batch_s) / after_s
            explained = before_s * after_s * (before - after) ** 2
            if before - after >= least_cores and explained > best:
                best, found = explained, one.at
    return found


def _lowered(samples: Sequence[Sample], surge_at: float, end: float) -> float | None:
    first = bisect.bisect_right(samples, surge_at, key=_at) - 1
    had = samples[first].quota if first >= 0 else None
    for one in samples[first + 1 :]:
        if one.at > end:
            break
        if one.quota is not None and (had is None or one.quota < had * LOWER_RATIO):
            return one.at
    return None


def _since(begin: float, at: float | None) -> float | None:
    return None if at is None else round(at - begin, 4)


def _at(sample: Sample) -> float:
    return sample.at


def _opened(path: Path) -> int | None:
    return os.open(path, os.O_RDONLY) if path.exists() else None


def _nanoseconds(data: bytes) -> float:
    return int(data) / 1e9


def _usage_usec(data: bytes) -> float:
    return int(data.split(b"\n", 1)[0].split()[1]) / 1e6  # it comes first


def _cfs(directory: Path) -> Callable[[], float | None]:
    quota, period = directory / "cpu.cfs_quota_us", directory / "cpu.cfs_period_us"

    def read() -> float | None:
        if not quota.exists():
            return None
        us = int(quota.read_text())
        return None if us < 0 else us / int(period.read_text())

    return read


def _max(directory: Path) -> Callable[[], float | None]:
    def read() -> float | None:
        if not directory.exists():
            return None
        quota, period = (directory / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)

    return read
