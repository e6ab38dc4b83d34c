"""What the detector keeps of each online pod between ticks: its baselines and how long a signal has been bad."""

from __future__ import annotations

from msgspec import Struct


class Senses(Struct, frozen=True, gc=False):
    """Nothing is kept yet."""
