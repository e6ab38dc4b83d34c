"""What applications were asked and sent, for /metrics."""

from __future__ import annotations

from nodeagent.model.app import AppFigures
from nodeagent.report.text import family


def apps_text(figures: AppFigures) -> str:
    """Two families; empty where nobody was asked and no StatsD socket is open."""
    return family(
        "nodeagent_app_scrapes_total",
        "counter",
        "Scrapes of applications, by result",
        {("result", result): count for result, count in figures.scrapes.items()},
    ) + family(
        "nodeagent_app_statsd_dropped_lines_total",
        "counter",
        "Lines of StatsD without effect, by reason",
        {("reason", reason): count for reason, count in figures.dropped.items()},
    )
