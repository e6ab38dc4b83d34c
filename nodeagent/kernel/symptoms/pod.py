"""One pod's Symptoms, put together from its threads, memory.stat, devices, network namespace and CPUs.

A pod none of whose tasks ran since the last reading faulted no page, waited for no device and sent nothing:
its symptoms are carried over as they are, for REST_S at most. What the kernel does in its name meanwhile
(writing back, refusing connections) shows then.
Invariant: what cannot be read is None in its own place and spoils nothing else.
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from nodeagent.kernel.files import Shelf
from nodeagent.kernel.mounts import Hierarchies
from nodeagent.kernel.read_v1 import Reclaim
from nodeagent.kernel.symptoms.block import BlockFiles, Counting
from nodeagent.kernel.symptoms.cpus import CpusFiles
from nodeagent.kernel.symptoms.net import NetUse, PodNet, host_namespace
from nodeagent.kernel.symptoms.process_io import ProcessIo
from nodeagent.kernel.symptoms.run_delay import RunDelay
from nodeagent.model.symptom import DeviceUse, Pmu, Rdt, Sign, Symptoms

REST_S = 60.0


def hardware_lacking(*, pmu: bool, rdt: bool) -> tuple[str, ...]:
    """Signs that need hardware which is not here."""
    return (() if pmu else (Sign.CPI.value, Sign.MPKI.value)) + (
        () if rdt else (Sign.LLC_OCCUPANCY.value, Sign.MEMORY_BANDWIDTH.value)
    )


class Ground:
    """What the symptoms of all pods have in common. `disk` is the node's only one ("259:0"), or ""."""

    def __init__(self, places: Hierarchies, proc: str, shelf: Shelf) -> None:
        self.places = places
        self.proc = proc
        self.shelf = shelf
        self.netns = host_namespace(proc)
        self.disk = ""
        self._counting = Counting(places, shelf)
        self._counts: tuple[float, bool] = (-math.inf, True)

    def counts(self, at: float) -> bool:
        """True when cgroups tell what they do to block devices."""
        if at >= self._counts[0] + REST_S:
            self._counts = (at, self._counting.read())
        return self._counts[1]

    def close(self) -> None:
        self._counting.close()


class SymptomReader:
    """`lists` are the cgroup.procs of the pod at `cgroup` and of what is in it, `inner` its containers.

    `lacking` are signs that this node does not have at all.
    """

    __slots__ = (
        "_block", "_counted", "_cpu_us", "_cpus", "_ground", "_io", "_key", "_lacking", "_last", "_net",
        "_read_at", "_unsupported",
    )  # fmt: skip

    def __init__(
        self,
        ground: Ground,
        cgroup: str,
        lists: tuple[str, ...],
        lacking: tuple[str, ...],
        inner: tuple[str, ...] = (),
    ) -> None:
        self._ground = ground
        self._cpus = CpusFiles(ground.places, cgroup, ground.shelf, inner)
        self._block = BlockFiles(ground.places, cgroup, ground.shelf)
        self._io = ProcessIo(ground.proc, lists, ground.shelf.misses)
        self._net = PodNet(ground.proc, lists, ground.netns, ground.shelf)
        self._counted: bool | None = None  # by the cgroup, when last read
        self._last: Symptoms | None = None
        self._cpu_us: int | None = None
        self._read_at = -math.inf
        self._key: tuple[bool, ...] = ()
        self._lacking = self._unsupported = lacking

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Signs that cannot be known of this pod."""
        return self._unsupported

    def follow(self, lists: tuple[str, ...], inner: tuple[str, ...]) -> None:
        """The pod's cgroups have changed."""
        self._cpus.follow(inner)
        self._net.lists = self._io.lists = lists

    def rests(self, at: float, cpu_us: int | None) -> bool:
        """True when the last reading still tells how it is."""
        return cpu_us is not None and cpu_us == self._cpu_us and at < self._read_at + REST_S

    def read(
        self,
        at: float,
        cpu_us: int | None,
        reclaim: Reclaim,
        delay: RunDelay | None,
        pmu: Pmu | None = None,
        rdt: Rdt | None = None,
        *,
        full: bool = False,
    ) -> Symptoms:
        """All at `at`; `delay` is None for a pod that is not online, of which only what it uses counts."""
        if self._last is not None and not full and self.rests(at, cpu_us):
            self._last = replace(self._last, at=at)
            return self._last
        refaults, scanned, major = reclaim
        online = delay is not None
        ran = full or cpu_us is None or cpu_us != self._cpu_us
        net = self._net.read(tcp=online, full=full) if self._ground.netns is not None else NetUse()
        delay_us = None if delay is None else delay.read(at) if ran else delay.delay_us
        self._last = Symptoms(
            at,
            delay_us,
            None if delay is None else delay.run_us,
            1.0 if delay is None else delay.looked_at_ratio,
            refaults,
            scanned,
            major,
            self._devices(at, delay, ran),
            net.sent,
            net.retransmitted,
            net.listen_drops,
            net.bytes,
            pmu,
            rdt,
            self._cpus.read(),
        )
        self._cpu_us, self._read_at = cpu_us, at
        self._note(refaults is None, scanned is None)
        return self._last

    def close(self) -> None:
        self._block.close()
        self._net.close()
        self._cpus.close()

    def _devices(self, at: float, delay: RunDelay | None, ran: bool) -> tuple[DeviceUse, ...] | None:
        """None in the reading in which another counter comes in use, which would look like a leap."""
        counts = self._ground.counts(at)
        uses = self._block.read() if counts or self._counted is None else None
        counted = uses is not None and counts
        known = self._counted in (None, counted)
        if not counted and (ran or not known):
            size = self._io.read(None if delay is None else delay.listed)
            uses = None if size is None else (DeviceUse(self._ground.disk, size, 0),)
        elif not counted:
            uses = None if self._last is None else self._last.devices
        self._counted = counted
        return uses if known else None

    def _note(self, no_refaults: bool, no_scans: bool) -> None:
        """What is missing now is not expected to come; it is asked again with each reading all the same."""
        key = (
            no_refaults,
            no_scans,
            self._block.absent and self._last is not None and self._last.devices is None,
            self._net.own is False,
        )
        if key != self._key:
            self._key = key
            signs = (
                (Sign.REFAULTS,),
                (Sign.DIRECT_RECLAIM,),
                (Sign.IO_AWAIT,),
                (Sign.RETRANSMITS, Sign.LISTEN_DROPS),
            )
            missing = (
                sign.value for lacking, group in zip(key, signs, strict=True) if lacking for sign in group
            )
            self._unsupported = (*missing, *self._lacking)
