"""Koordinator: koordlet's CPU suppress (policy cfsQuota) and slo-controller's batch-cpu (policy usage).

Source: koordinator-sh/koordinator, pkg/koordlet/qosmanager/plugins/cpusuppress and
pkg/slo-controller/noderesource/plugins/batchresource, with the defaults of NodeSLO and ColocationStrategy.
The modelled node has no system use and no reserved CPUs.
"""

from __future__ import annotations

from nodeagent.simulate.fluid import Share, Terms
from tests.bench.tide.inputs import Every, Window, online

PERIOD_US = 100_000
SUPPRESS_S, SUPPRESS_PERCENT = 1.0, 65
LEAST_QUOTA_US, NO_QUOTA = 2000, -1
JITTER_PERCENT, RISE_PERCENT = 1, 10
RECLAIM_PERCENT = 60
REPORT_S, AGGREGATE_S, DEGRADE_S = 60.0, 300.0, 900.0
DIFF_RATIO, RENEW_S = 0.1, 300.0
BE_WEIGHT = 2 / 1024  # kubelet's cpu.shares of besteffort


def suppress_milli(cap: int, percent: int, not_be: int, node_used: int, all_pods: int, reserved: int) -> int:
    """What BE pods may use, in milli-cores: the threshold less what others use, and system or reserve."""
    system = max(node_used - all_pods, 0, reserved)
    return cap * percent // 100 - not_be - system


def next_quota_us(target_milli: int, held_us: int, cap_cores: int) -> int:
    """The besteffort quota: at once down, at most 10 % of the node up, small changes left alone."""
    wanted = max(target_milli * PERIOD_US // 1000, LEAST_QUOTA_US)
    whole_us = cap_cores * PERIOD_US
    if abs(wanted - held_us) < whole_us * JITTER_PERCENT / 100 and wanted != LEAST_QUOTA_US:
        return held_us
    most = held_us + whole_us * RISE_PERCENT // 100
    return most if held_us != NO_QUOTA and wanted > most else wanted


def batch_milli(cap: int, percent: int, system_used: int, reserved: int, used: int) -> int:
    """batch-cpu of a node: what the reclaim threshold leaves beside system and higher priorities."""
    margin = cap * (100 - percent) // 100
    return max(cap - margin - max(system_used, reserved) - used, 0)


def published(new: int, old: int, waited_s: float) -> bool:
    """True when the node's status is to be updated."""
    return abs(new - old) > old * DIFF_RATIO or waited_s > RENEW_S


class Koordinator:
    """koordlet and slo-controller as one lender on a node of `cores`."""

    name = "koordlet"

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._quota_us = NO_QUOTA
        self._batch_milli, self._told_at = 0, -float("inf")
        self._suppress, self._report = Every(SUPPRESS_S), Every(REPORT_S)
        self._used = Window(AGGREGATE_S)

    def start(self, at: float) -> Terms:
        """Nothing is offered and nothing is limited before there are metrics."""
        self._report.due(at)
        return self._terms()

    def after(self, share: Share) -> Terms:
        """A missing metric: no action by koordlet; the offer ends once NodeMetric is too old."""
        used = online(share)
        if used is not None and share.batch is not None:
            self._used.add(share.at, used, share.span_s)
            if self._suppress.due(share.at):
                cap, not_be, be = self._cores * 1000, round(used * 1000), round(share.batch * 1000)
                target = suppress_milli(cap, SUPPRESS_PERCENT, not_be, not_be + be, not_be + be, 0)
                self._quota_us = next_quota_us(target, self._quota_us, self._cores)
        if self._report.due(share.at):
            self._offer(share.at)
        return self._terms()

    def _offer(self, at: float) -> None:
        newest, mean = self._used.newest, self._used.mean
        if newest is None or mean is None or at - newest > DEGRADE_S:
            self._batch_milli = 0
            return
        new = batch_milli(self._cores * 1000, RECLAIM_PERCENT, 0, 0, round(mean * 1000))
        if published(new, self._batch_milli, at - self._told_at):
            self._batch_milli, self._told_at = new, at

    def _terms(self) -> Terms:
        limit = float("inf") if self._quota_us == NO_QUOTA else self._quota_us / PERIOD_US
        return Terms(limit, self._batch_milli / 1000, BE_WEIGHT)
