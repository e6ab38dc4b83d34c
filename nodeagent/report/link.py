"""The link to the controller, for /metrics."""

from __future__ import annotations

from nodeagent.model.controller import LinkSeen
from nodeagent.report.text import Label, family


def link_text(seen: LinkSeen) -> str:
    """Eleven series; the time of the last report is absent before the first, the last one without TLS."""
    return "".join(
        (
            family(
                "nodeagent_controller_connected",
                "gauge",
                "1 while the controller has a stream of reports",
                {None: float(seen.connected)},
            ),
            family("nodeagent_controller_connects_total", "counter", "Streams begun", {None: seen.connects}),
            family(
                "nodeagent_controller_losses_total",
                "counter",
                "Streams that ended and connections that failed",
                {None: seen.losses},
            ),
            family(
                "nodeagent_controller_sent_total",
                "counter",
                "Messages sent, by kind",
                {("kind", kind): count for kind, count in seen.sent.items()},
            ),
            family(
                "nodeagent_controller_directives_total",
                "counter",
                "Directives from the controller, by result",
                {("result", result): count for result, count in seen.directives.items()},
            ),
            _times(seen),
        )
    )


def _times(seen: LinkSeen) -> str:
    last: dict[Label | None, float] = {} if seen.sent_unix is None else {None: seen.sent_unix}
    end: dict[Label | None, float] = {}
    if seen.tls_not_after_unix is not None:
        end = {None: seen.tls_not_after_unix}
    return family(
        "nodeagent_controller_last_sent_timestamp_seconds", "gauge", "When the last report went out", last
    ) + family(
        "nodeagent_controller_tls_not_after_seconds",
        "gauge",
        "End of the agent's certificate for its controller, in Unix time",
        end,
    )
