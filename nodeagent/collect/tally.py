"""What a controller counts about itself, and what it says of it: an event and its keys, at a bounded rate.

Invariant: whatever the agents do, each event is logged at most once a second; how many were left out is said.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import structlog

from nodeagent.model.rpc_told import News

REPORTS = ("full", "delta", "heartbeat", "directive_result", "unknown")
ENDINGS = ("agent", "replaced", "garbage", "silent", "limit", "lost", "stopping")
SAID_EVERY_S = 1.0

log = structlog.get_logger()


class Tally:
    """Counters since the start, and the streams that are open."""

    def __init__(self) -> None:
        self.reports: Counter[str] = Counter(dict.fromkeys(REPORTS, 0))
        self.endings: Counter[str] = Counter(dict.fromkeys(ENDINGS, 0))
        self.resyncs = 0
        self.directives = 0
        self.streams = 0
        self.watchers = 0
        self._said: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def say(self, event: str, **keys: Any) -> None:
        """Log something that an operator should look at."""
        self._say(log.warning, event, keys)

    def note(self, event: str, **keys: Any) -> None:
        """Log what belongs to the course of things."""
        self._say(log.info, event, keys)

    def record(self, event: str, **keys: Any) -> None:
        """Log what only trusted clients cause, each time."""
        log.info(event, **keys)

    def tell(self, news: News) -> None:
        """Log what the files of TLS give occasion to."""
        self._say(getattr(log, news.level), news.name, dict(news.keys))

    def _say(self, write: Any, event: str, keys: dict[str, Any]) -> None:
        now = time.monotonic()
        if now < self._said.get(event, 0.0):
            self._left_out[event] += 1
            return
        self._said[event] = now + SAID_EVERY_S
        if left_out := self._left_out.pop(event, 0):
            keys["more"] = left_out
        write(event, **keys)
