"""One scrape: what an endpoint tells of one histogram and one counter."""

from __future__ import annotations

from nodeagent.apps.exposition import Exposed, Exposition, Labels
from nodeagent.apps.http import Place, fetch
from nodeagent.model.app import AppSettings, Selector
from nodeagent.model.errors import AgentError


async def scrape(
    place: Place,
    histogram: Selector | None,
    counter: Selector | None,
    settings: AppSettings,
    labels: Labels | None = None,
) -> Exposed:
    """At most `timeout_s` and `max_bytes` of the settings; AgentError, which names the place."""
    exposition = Exposition(histogram, counter, labels)
    await fetch(place, exposition.feed, timeout_s=settings.timeout_s, max_bytes=settings.max_bytes)
    try:
        return exposition.end()
    except AgentError as error:
        raise type(error)(f"{place}: {error}", error.hint) from None
