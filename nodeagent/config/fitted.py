"""Defaults that follow another key, so that setting one value never makes an untouched one wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import NamedTuple

MAX_STALE_S = 600.0  # the upper bound of capacity.stale_after_s
MAX_TRIAL_S = 60.0  # the upper bound of interference.trial_s


class Fitted(NamedTuple):
    """`fit(default, *values of follows)` is the default of `key`."""

    key: str
    follows: tuple[str, ...]
    fit: Callable[..., float]


def _outlast(default: float, tick_s: float, slow_tick_s: float) -> float:
    return min(MAX_STALE_S, max(default, 2 * max(tick_s, slow_tick_s)))


def _some_ticks(default: float, tick_s: float) -> float:
    return min(MAX_TRIAL_S, max(default, 4 * tick_s))


FITTED = (
    Fitted("agent.slow_tick_s", ("agent.tick_s",), max),
    Fitted("agent.scan_s", ("agent.tick_s",), max),
    Fitted("capacity.stale_after_s", ("agent.tick_s", "agent.slow_tick_s"), _outlast),
    Fitted("kubernetes.stale_after_s", ("kubernetes.poll_s",), max),
    Fitted("journal.segment_bytes", ("journal.max_bytes",), lambda default, whole: min(default, whole // 2)),
    Fitted("cpu.pod_floor_cores", ("cpu.floor_cores",), min),
    Fitted("drift.backoff_max_s", ("drift.backoff_s",), max),
    Fitted("interference.lease_s", ("agent.tick_s",), lambda default, tick_s: max(default, 3 * tick_s)),
    Fitted("interference.trial_s", ("agent.tick_s",), _some_ticks),
    Fitted("interference.relax_max_s", ("interference.relax_after_s",), max),
)


def fit_defaults(
    values: MutableMapping[str, object], origins: MutableMapping[str, str], default: str
) -> None:
    """Fit every key of FITTED that is still at its default; its origin then names what it follows."""
    for key, follows, fit in FITTED:
        if origins[key] != default:
            continue
        fitted = fit(values[key], *_numbers(values, follows))
        if fitted != values[key]:
            values[key] = fitted
            origins[key] = f"{default}, follows {follows[0]}"


def _numbers(values: Mapping[str, object], keys: tuple[str, ...]) -> tuple[object, ...]:
    return tuple(values[key] for key in keys)
