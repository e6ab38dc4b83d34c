"""Structured events on stderr: an event and its keys, as JSON for machines and coloured for people."""

from __future__ import annotations

import math
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from nodeagent.model.settings import Level

LEVELS = {Level.DEBUG: 10, Level.INFO: 20, Level.WARNING: 30, Level.ERROR: 40}


def set_up(level: Level, *, as_json: bool, quiet: bool) -> None:
    """Configure structlog once, at start. `quiet` (a screen is drawn) lets only errors through."""
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _unlimited,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[Level.ERROR] if quiet else LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _unlimited(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No limit is "unlimited": JSON has no infinity, and what Python writes for it others refuse."""
    for key, value in event.items():
        if value == math.inf:
            event[key] = "unlimited"
    return event
