"""What a replay answers. All numbers are finite, so that it is JSON as it is."""

from __future__ import annotations

from msgspec import Struct

from nodeagent.model.interference import Episode

LISTED = 1000  # differences and stretches that are kept; all are counted


class Difference(Struct, frozen=True):
    """A tick that is decided otherwise now; `what` names the first fields that differ."""

    seq: int
    unix: float
    segment: str
    what: str


class Said(Struct, frozen=True):
    """One policy over some ticks: Batch's limit from lowest to highest, names of LS pods under pressure."""

    low_cores: float | None
    high_cores: float | None
    hurt: tuple[str, ...]


class Stretch(Struct, frozen=True, kw_only=True):
    """Consecutive ticks that the other policy decides otherwise, in the same direction for Batch.

    `settings` is the largest number of settings that differ in one of its ticks.
    """

    first_seq: int
    last_seq: int
    first_unix: float
    last_unix: float
    then: Said
    now: Said
    settings: int


class Totals(Struct, frozen=True):
    """Integrals over the recorded time; a limit that is not known counts as nothing given.

    `batch_core_s`: min(limit, total) given to Batch. `ls_pressure_s`: time with any LS pod under pressure.
    `offered_core_s`: CPU capacity offered.
    """

    batch_core_s: float = 0.0
    ls_pressure_s: float = 0.0
    offered_core_s: float = 0.0


class Otherwise(Struct, frozen=True, kw_only=True):
    """Another policy against the recorded one. `seconds` is the time counted in the totals.

    `ticks` counts what is decided otherwise; `stretches` are the first of `stretch_count`.
    """

    seconds: float
    ticks: int
    then: Totals
    now: Totals
    stretch_count: int
    stretches: tuple[Stretch, ...]


class Replayed(Struct, frozen=True, kw_only=True):
    """`differing` lists the first of `differing_count` ticks, `episodes` the first that were recorded.

    `otherwise` is None without another policy.
    """

    ticks: int
    segments: int
    first_unix: float
    last_unix: float
    differing_count: int
    differing: tuple[Difference, ...]
    otherwise: Otherwise | None
    episode_count: int = 0
    episodes: tuple[Episode, ...] = ()
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.differing_count
