"""Applications: whether the endpoints of [[apps]] tell what is asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from nodeagent.apps.http import Place
from nodeagent.apps.scrape import scrape
from nodeagent.doctor.finding import Check, Finding, Host, Status
from nodeagent.model.app import AppRule, AppSettings, Selector, allowed, parse_selector, parse_url
from nodeagent.model.errors import AgentError

MOST = 16  # that are asked


def endpoints(host: Host) -> Iterator[Finding]:
    """Asks each one on loopback once, as the agent does."""
    settings = host.config.settings.app_signals
    named = [(number, rule) for number, rule in enumerate(host.config.apps) if rule.metrics]
    for number, rule in named[:MOST]:
        yield _endpoint(f"apps[{number}]", rule, settings)
    if len(named) > MOST:
        yield Finding("apps", Status.INFO, f"{len(named) - MOST} more endpoints are not asked here")


def _endpoint(name: str, rule: AppRule, settings: AppSettings) -> Finding:
    place = Place(*parse_url(rule.metrics))
    if not allowed(place.host, (), loopback=True):
        return Finding(name, Status.INFO, f"{rule.metrics}: asked by the running agent, of each pod itself")
    histogram, counter = _selector(rule.latency_histogram), _selector(rule.requests_counter)
    try:
        found = asyncio.run(scrape(place, histogram, counter, settings))
    except AgentError as error:
        return Finding(name, Status.WARN, str(error), error.hint or "until it tells, the latency is unknown")
    told = [f"{len(found.buckets)} series of {rule.latency_histogram}"] if histogram else []
    told += [f"{len(found.counts)} of {rule.requests_counter}"] if counter else []
    return Finding(name, Status.OK, f"{place} tells {', '.join(told)}")


def _selector(text: str) -> Selector | None:
    return parse_selector(text) if text else None


APPS: tuple[Check, ...] = (endpoints,)
