"""What was used and suffered lately: the window in which an antagonist is looked for."""

from __future__ import annotations

from msgspec import Struct


class History(Struct, frozen=True, gc=False):
    """Nothing is kept yet."""
