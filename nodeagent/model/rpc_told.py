"""What the gRPC server tells the agent's loop of its clients and its certificate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class News(NamedTuple):
    """Something to log once: its name, how much it matters ("info" or "warning"), and its keys."""

    name: str
    level: str
    keys: Mapping[str, object]


class RpcTold(NamedTuple):
    """`calls` are open now; `refused` counts them by reason since the start.

    `not_after_unix` is the end of the certificate, None without one; `files_ok`: those on disk are in use.
    """

    calls: int
    refused: Mapping[str, int]
    not_after_unix: float | None
    files_ok: bool
    news: tuple[News, ...]
