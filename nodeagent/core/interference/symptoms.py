"""Signs that are read less often than each tick: of threads, reclaim, devices, TCP, perf counters, resctrl.

CPI and MPKI: Zhang et al., "CPI2" (EuroSys'13). Device await: /proc/diskstats as iostat(1) computes it.
"""

from __future__ import annotations

from nodeagent.core.interference.deltas import per_s, rose
from nodeagent.core.rates import PodRates, View
from nodeagent.model.symptom import Disk, Pmu, Rdt, Sign, Symptoms

LEAST_INSTRUCTIONS = 1_000_000
LEAST_SEGMENTS = 30  # sent; of fewer the share that was sent again says nothing
LEAST_RUN = 0.01  # of wall time: a thread that hardly runs makes any wait look long
MOST_DELAY = 100.0


def slow_signs(p: PodRates, view: View, values: dict[Sign, float], span_s: dict[Sign, float]) -> None:
    """Add the signs of which something new came with this tick, and the time that each is of."""
    new, before = p.pod.symptoms, p.before
    old = None if before is None else before.symptoms
    if new is None or old is None or new.at <= old.at:
        return
    seconds = new.at - old.at
    found: dict[Sign, float | None] = {
        Sign.REFAULTS: per_s(old.refaults, new.refaults, seconds),
        Sign.DIRECT_RECLAIM: per_s(old.direct_scans, new.direct_scans, seconds),
        Sign.LISTEN_DROPS: per_s(old.listen_drops, new.listen_drops, seconds),
        Sign.RETRANSMITS: _retransmits(old, new),
    }
    if Sign.RUN_DELAY not in values:
        found[Sign.RUN_DELAY] = _run_delay(old, new, seconds, p.throttled_ratio or 0.0)
    if new.devices and old.devices is not None:
        found[Sign.IO_AWAIT] = _await_s(old, new, view)
    if new.rdt is not None:
        found |= _monitored(old.rdt, new.rdt, seconds)
    for sign, value in found.items():
        if value is not None:
            values[sign], span_s[sign] = value, seconds
    if new.pmu is not None and (old.pmu is None or new.pmu.at > old.pmu.at):
        _counted(new.pmu, values, span_s)


def delay_ratio(waited: float, ran: float) -> float:
    """Wait per time on a CPU, both as shares of wall time, bounded."""
    return min(MOST_DELAY, waited / max(ran, LEAST_RUN))


def _run_delay(old: Symptoms, new: Symptoms, seconds: float, throttled: float) -> float | None:
    """Own throttling is taken off: the kernel counts a thread that its quota stopped as waiting."""
    delay_us, run_us = rose(old.run_delay_us, new.run_delay_us), rose(old.run_us, new.run_us)
    if delay_us is None or run_us is None:
        return None
    waited = max(0.0, delay_us / (seconds * 1e6) - throttled)
    return delay_ratio(waited, run_us / (seconds * 1e6))


def _retransmits(old: Symptoms, new: Symptoms) -> float | None:
    sent = rose(old.tcp_out_segments, new.tcp_out_segments)
    again = rose(old.tcp_retransmits, new.tcp_retransmits)
    if sent is None or again is None:
        return None
    if again == 0:
        return 0.0
    return None if sent < LEAST_SEGMENTS else min(1.0, again / sent)


def _await_s(old: Symptoms, new: Symptoms, view: View) -> float | None:
    """Of the devices that the pod used; None where it used none, or they are not told of."""
    disks, before = view.snapshot.node.disks, view.node_before
    if disks is None or before is None or before.disks is None:
        return None
    was = {use.device: use.operations for use in old.devices or ()}
    used = {use.device for use in new.devices or () if use.operations > was.get(use.device, 0)}
    waits = _waits(before.disks, disks, used)
    operations = sum(count for count, _ in waits)
    return sum(wait_us for _, wait_us in waits) / operations / 1e6 if operations else None


def _waits(old: tuple[Disk, ...], new: tuple[Disk, ...], used: set[str]) -> list[tuple[int, int]]:
    was = {disk.device: disk for disk in old}
    pairs = [(was[disk.device], disk) for disk in new if disk.device in used and disk.device in was]
    grown = [(rose(a.operations, b.operations), rose(a.wait_us, b.wait_us)) for a, b in pairs]
    return [(count, wait_us) for count, wait_us in grown if count is not None and wait_us is not None]


def _monitored(old: Rdt | None, new: Rdt, seconds: float) -> dict[Sign, float | None]:
    moved = None if old is None else per_s(old.bandwidth_bytes, new.bandwidth_bytes, seconds)
    held = None if new.llc_bytes is None else float(new.llc_bytes)
    return {Sign.LLC_OCCUPANCY: held, Sign.MEMORY_BANDWIDTH: moved}


def _counted(pmu: Pmu, values: dict[Sign, float], span_s: dict[Sign, float]) -> None:
    if pmu.instructions < LEAST_INSTRUCTIONS:
        return
    values[Sign.CPI], span_s[Sign.CPI] = pmu.cycles / pmu.instructions, pmu.window_s
    if pmu.llc_misses is not None:
        values[Sign.MPKI] = 1000.0 * pmu.llc_misses / pmu.instructions
        span_s[Sign.MPKI] = pmu.window_s
