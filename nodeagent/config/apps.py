"""What a single key of [[apps]] and [app_signals] cannot tell."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

from nodeagent.model.app import AppRule, AppSettings, parse_selector, parse_slo, parse_url
from nodeagent.model.glob import glob_regex

APP = "apps"
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", re.ASCII)
_PARSED: dict[str, Callable[[str], object]] = {
    "metrics": parse_url,
    "latency_histogram": parse_selector,
    "requests_counter": parse_selector,
    "slo": parse_slo,
}


def app_complaints(settings: AppSettings, rules: tuple[AppRule, ...]) -> Iterator[tuple[str, str]]:
    """(key, what is wrong with it) for each rule that is broken."""
    yield from _sockets(settings)
    prefixes: set[str] = set()
    for number, rule in enumerate(rules):
        yield from ((f"{APP}[{number}].{key}", wrong) for key, wrong in _entry(rule))
        if rule.statsd and rule.statsd in prefixes:
            yield f"{APP}[{number}].statsd", f'= "{rule.statsd}" is that of an entry before'
        prefixes.add(rule.statsd)


def _entry(rule: AppRule) -> Iterator[tuple[str, str]]:
    if not rule.match.strip("/"):
        yield "match", "has an empty glob"
    else:
        glob_regex(rule.match)
    for key, parse in _PARSED.items():
        text = getattr(rule, key)
        if text and (wrong := _refused(parse, text)):
            yield key, wrong
    if rule.metrics and not (rule.latency_histogram or rule.requests_counter):
        yield (
            "metrics",
            "needs latency_histogram, requests_counter or both: what of it tells latency and requests",
        )
    for key in ("latency_histogram", "requests_counter"):
        if "{" in getattr(rule, key) and not rule.metrics and rule.statsd:
            yield key, "has labels, which StatsD has not"
    if rule.statsd and not _PREFIX.fullmatch(rule.statsd):
        yield (
            "statsd",
            f'takes words of letters, digits, "_" and "-" with dots between, found "{rule.statsd}"',
        )


def _refused(parse: Callable[[str], object], text: str) -> str:
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""


def _sockets(settings: AppSettings) -> Iterator[tuple[str, str]]:
    path = settings.statsd_socket
    if path and (not path.startswith("/") or path.endswith("/") or ".." in path.split("/")):
        yield "app_signals.statsd_socket", f'takes an absolute path without "..", or "", found "{path}"'
    if settings.statsd_udp:
        try:
            address, port = parse_udp(settings.statsd_udp)
            loopback = ipaddress.ip_address(address).is_loopback and 0 < port < 65536
        except ValueError:
            loopback = False
        if not loopback:
            found = settings.statsd_udp
            yield "app_signals.statsd_udp", f'takes 127.0.0.1:PORT, [::1]:PORT or "", found "{found}"'


def parse_udp(text: str) -> tuple[str, int]:
    """Address and port; ValueError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and len(port) < 6):
        raise ValueError(text)
    return host.strip("[]"), int(port)
